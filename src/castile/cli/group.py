"""The group of all commands, each loaded when it is asked for.

Exit status: 0 done, 1 the thing asked for is not so, 2 wrong use or unreadable input, 3 a store
or a peer can't be reached. An error of castile is one line on standard error, never a traceback.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Final

import click

from castile.errors import CastileError, PolicyError, StoreError, TransportError, UsageError

COMMANDS: Final = {
    "call": "castile.cli.call:call",
    "contexts": "castile.cli.contexts:contexts",
    "demo": "castile.demo.command:demo",
    "explain": "castile.cli.explain:explain",
    "inspect": "castile.cli.inspect:inspect",
    "lint": "castile.cli.inspect:lint",
    "sequences": "castile.cli.sequences:sequences",
    "serve": "castile.cli.serve:serve",
    "store": "castile.cli.store:store",
}
"""Name of a command, and where it is."""
_STATUS: Final[tuple[tuple[type[CastileError], int], ...]] = (
    (UsageError, 2),
    (PolicyError, 2),
    (TransportError, 3),
    (StoreError, 3),
    (CastileError, 1),
)


class Commands(MutableMapping[str, click.Command]):
    """Commands by name; asking for one imports it."""

    def __init__(self, places: dict[str, str]) -> None:
        self._places = places
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            module, _, attribute = self._places[name].partition(":")
            command = getattr(import_module(module), attribute)
            if not isinstance(command, click.Command):
                raise TypeError(f"{self._places[name]} is no command")
            self._loaded[name] = command
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._places = {**self._places, name: ""}
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        self._places = {each: place for each, place in self._places.items() if each != name}
        self._loaded.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._places))

    def __len__(self) -> int:
        return len(self._places)


class Group(click.Group):
    """A group whose errors are one line each."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; an error of castile becomes its line and its exit status."""
        try:
            return super().invoke(ctx)
        except CastileError as error:
            status = next(status for kind, status in _STATUS if isinstance(error, kind))
            click.echo(f"castile: {_one_line(str(error))}", err=True)
            ctx.exit(status)


def _one_line(text: str) -> str:
    """White space as blanks; what a terminal might act on as escapes."""
    text = " ".join(text.split())
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from castile.cli.version import text

        click.echo(text())
        ctx.exit()


@click.group(cls=Group, commands=Commands(dict(COMMANDS)))
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show castile's version, its libraries' and the specifications it speaks.",
)
def main() -> None:
    """Secure, reliable SOAP for Python.

    See what castile does, and what is in a captured conversation:

    \b
        castile demo
        castile explain capture/ --keys keys.json
    """
