"""``castile serve``: a service of a program, offered over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

import click

from castile.errors import UsageError

if TYPE_CHECKING:
    from castile.service import Service


@click.command(epilog="Exit status: 0 ended in good order, 2 wrong use, 3 the store can't be opened.")
@click.argument("application", metavar="MODULE:SERVICE")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Its port.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
def serve(application: str, host: str, port: int, workers: int) -> None:
    """Serve a castile.Service that a module of this folder has.

    \b
        castile serve bank:service
        castile serve bank:service --port 443 --workers 4
    """
    service = _loaded(application)
    for line in _lines(service, f"http://{host}:{port}"):
        click.echo(line)
    try:
        uvicorn = import_module("uvicorn")
    except ImportError:
        raise UsageError("castile serve needs uvicorn: pip install 'castile[serve]'") from None
    uvicorn.run(
        f"{application}.asgi" if workers > 1 else service.asgi(),
        factory=workers > 1,
        workers=workers,
        host=host,
        port=port,
        log_level="warning",
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=round(service.settings.timers.drain) + 1,
    )


def _loaded(application: str) -> Service:
    from castile.service import Service

    module, _, name = application.partition(":")
    if not module or not name:
        raise UsageError(f"{application!r}: MODULE:SERVICE is wanted, such as bank:service")
    sys.path.insert(0, "")
    try:
        found: object = import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise UsageError(f"there is no module {module!r} here") from None
    for step in name.split("."):
        found = getattr(found, step, None)
    if not isinstance(found, Service):
        raise UsageError(f"{application} is no castile.Service")
    return found


def _lines(service: Service, url: str) -> Iterator[str]:
    """What is offered where, and how safe it is kept."""
    for address, described in service.offered(url):
        yield f"{address}  {described}"
    if service.has_wsdl:
        yield f"{next(address for address, _ in service.offered(url))}?wsdl"
    yield f"store: {service.location or 'none, in memory'} (durability {service.settings.durability})"
