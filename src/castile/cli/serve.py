"""``castile serve``: a service of a program, or of a file castile.toml, offered over HTTP."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Final

import click

from castile.configuration import ListenTable, load
from castile.errors import UsageError
from castile.service import Service
from castile.transport.asgi import Application

_FILE: Final = "CASTILE_CONFIGURATION"
"""How workers hear of the file."""


@click.command(epilog="Exit status: 0 ended in good order, 2 wrong use, 3 no store.")
@click.argument("application", metavar="MODULE:SERVICE|FILE.toml")
@click.option("--host", help="The address to listen on.  [default: the file's, or 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Its port.  [default: the file's, or 8000]")
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: the file's, or 1]")
def serve(application: str, host: str | None, port: int | None, workers: int | None) -> None:
    """Serve a castile.Service that a module of this folder has, or that a file describes.

    \b
        castile serve bank:service
        castile serve bank:service --port 443 --workers 4
        castile serve castile.toml
    """
    if application.endswith(".toml"):
        os.environ[_FILE] = application
        found = load(application)
        service, listen, factory = found.service, found.listen, "castile.cli.serve:configured"
    else:
        service, listen, factory = _loaded(application), ListenTable(), f"{application}.asgi"
    host, port, workers = (
        host or listen.host,
        listen.port if port is None else port,
        workers or listen.workers,
    )
    for line in _lines(service, f"http://{host}:{port}"):
        click.echo(line)
    try:
        uvicorn = import_module("uvicorn")
    except ImportError:
        raise UsageError("castile serve needs uvicorn: pip install 'castile[serve]'") from None
    uvicorn.run(
        factory if workers > 1 else service.asgi(),
        factory=workers > 1,
        workers=workers,
        host=host,
        port=port,
        log_level="warning",
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=round(service.settings.timers.drain) + 1,
    )


def configured() -> Application:
    """The application of a worker, by the file that the command was given."""
    return load(os.environ[_FILE]).service.asgi()


def _loaded(application: str) -> Service:
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
    if service.operations:
        yield f"{next(address for address, _ in service.offered(url))}?wsdl"
    yield f"store: {service.location or 'none, in memory'} (durability {service.settings.durability})"
