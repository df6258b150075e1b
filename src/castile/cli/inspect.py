"""``castile inspect``: what a WSDL offers and asks for."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from castile.errors import PolicyError
from castile.policy.description import Port


@click.command(epilog="Exit status: 0 all is well, 1 something can't be used, 2 it is no WSDL.")
@click.argument("wsdl", metavar="WSDL")
@click.option("--service", metavar="NAME", help="Only the ports of this service.")
@click.option("--port", metavar="NAME", help="Only this port.")
@click.option("--strict", is_flag=True, help="Refuse assertions of vendors that castile doesn't know.")
@click.option("--ignore", multiple=True, metavar="NAME", help="Pass over this assertion.")
@click.option("--policy", is_flag=True, help="Show each port's policy as WS-Policy too, as castile reads it.")
@click.option("--allow", multiple=True, metavar="HOST", help="Another server that the WSDL may import from.")
def inspect(
    wsdl: str,
    service: str | None,
    port: str | None,
    strict: bool,
    ignore: tuple[str, ...],
    policy: bool,
    allow: tuple[str, ...],
) -> None:
    """Say what a WSDL, a file or the address of one, offers and asks for.

    \b
        castile inspect service.wsdl
        castile inspect https://example.com/service?wsdl
    """
    from castile.policy.wsdl import describe
    from castile.transport.documents import Loader

    description = describe(Loader(allow=allow).load(wsdl))
    ports = [
        each for each in description.ports if service in (None, each.service) and port in (None, each.name)
    ]
    usable = [_usable(each, strict=strict, ignore=ignore, policy=policy) for each in ports]
    for refused in description.refused:
        click.echo(f"{refused.service}/{refused.name}: refused: {refused.reason}")
    for finding in description.findings:
        click.echo(str(finding))
    sys.exit(0 if usable and all(usable) and not description.refused else 1)


def _usable(port: Port, *, strict: bool, ignore: tuple[str, ...], policy: bool) -> bool:
    """Whether castile can speak with this port; shows it."""
    from castile.policy.lint import lint
    from castile.policy.parse import CREDENTIALS, needs, read, refusals
    from castile.policy.render import render
    from castile.policy.words import words

    for line in _port(port):
        click.echo(line)
    try:
        reading = read(port, strict=strict, ignore=ignore)
    except PolicyError as error:
        click.echo(f"  can't be used: {error}")
        return False
    for line in words(reading.policy):
        click.echo(f"  {line}")
    for name in sorted(needs(reading.policy)):
        click.echo(f"  wanted: {CREDENTIALS[name]}")
    for finding in (*reading.findings, *lint(reading.policy)):
        click.echo(f"  {finding}")
    for refusal in refusals(reading.refused):
        click.echo(f"  can't be used: {refusal}")
    if policy:
        rendered = render(reading.policy)
        for each in (rendered.endpoint, rendered.message):
            click.echo(f"  {rendered.xml(each).decode()}")
    return True


def _port(port: Port) -> Iterator[str]:
    yield f"{port.service}/{port.name}: {port.soap.name} at {port.address or 'no address'}"
    for operation in port.operations:
        yield f"  {operation.name}{' (one-way)' if operation.one_way else ''}: {operation.action}"
    for attachment in port.attachments:
        names = dict.fromkeys(each.name for alternative in attachment.policy for each in alternative)
        yield f"  on {attachment.subject}: {', '.join(names) or 'nothing'}"
