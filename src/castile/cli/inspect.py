"""``castile inspect``: what a WSDL offers and asks for."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from castile.policy.description import Description, Port


@click.command(epilog="Exit status: 0 all is well, 1 something can't be used, 2 it is no WSDL.")
@click.argument("wsdl", metavar="WSDL")
@click.option("--service", metavar="NAME", help="Only the ports of this service.")
@click.option("--port", metavar="NAME", help="Only this port.")
@click.option("--allow", multiple=True, metavar="HOST", help="Another server that the WSDL may import from.")
def inspect(wsdl: str, service: str | None, port: str | None, allow: tuple[str, ...]) -> None:
    """Say what a WSDL, a file or the address of one, offers and asks for.

    \b
        castile inspect service.wsdl
        castile inspect https://example.com/service?wsdl
    """
    from castile.policy.wsdl import describe
    from castile.transport.documents import Loader

    description = describe(Loader(allow=allow).load(wsdl))
    for line in _lines(description, service, port):
        click.echo(line)
    sys.exit(1 if description.refused or not description.ports else 0)


def _lines(description: Description, service: str | None, port: str | None) -> Iterator[str]:
    for each in description.ports:
        if service in (None, each.service) and port in (None, each.name):
            yield from _port(each)
    for refused in description.refused:
        yield f"{refused.service}/{refused.name}: refused: {refused.reason}"
    yield from map(str, description.findings)


def _port(port: Port) -> Iterator[str]:
    yield f"{port.service}/{port.name}: {port.soap.name} at {port.address or 'no address'}"
    for operation in port.operations:
        yield f"  {operation.name}{' (one-way)' if operation.one_way else ''}: {operation.action}"
    for attachment in port.attachments:
        names = dict.fromkeys(each.name for alternative in attachment.policy for each in alternative)
        yield f"  on {attachment.subject}: {', '.join(names) or 'nothing'}"
