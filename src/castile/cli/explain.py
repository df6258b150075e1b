"""``castile explain``: what is in captured messages, and what is wrong with them."""

from __future__ import annotations

import json
import os
import sys
from typing import Final, TypedDict

import click

from castile.errors import Malformed
from castile.explaining.report import Explanation


class Style(TypedDict, total=False):
    """What click can do to a line."""

    fg: str
    bold: bool


_STYLES: Final[dict[str, Style]] = {
    "verified": {"fg": "green", "bold": True},
    "unprotected": {"fg": "cyan", "bold": True},
    "unreadable": {"fg": "yellow", "bold": True},
    "failed": {"fg": "red", "bold": True},
    "partial": {"fg": "yellow", "bold": True},
    "problem": {"fg": "red"},
    "warning": {"fg": "yellow"},
}
"""By style of a line."""


def _instant(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """An xs:dateTime with zone, as UTC seconds."""
    from castile.messages.security import parse_instant

    if value is None:
        return None
    try:
        return parse_instant(value)
    except Malformed as error:
        raise click.BadParameter(f"{value!r}: {error} (such as 2026-11-25T10:00:00Z)") from None


@click.command(
    epilog="Exit status: 0 nothing is wrong, 1 a problem was found, 2 a file can't be read.",
)
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
@click.option(
    "--keys",
    "key_files",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Keys, certificates, contexts, users: PEM, PKCS#12, JSON or a key log. May be repeated.",
)
@click.option(
    "--now",
    callback=_instant,
    metavar="TIME",
    help="Judge all messages at this time, not each at its own.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the report as one JSON object.")
def explain(paths: tuple[str, ...], key_files: tuple[str, ...], now: float | None, as_json: bool) -> None:
    """Say in plain words what is in captured messages: who signed which parts with which key, what
    was encrypted, how each sequence stands, and everything that is wrong.

    A folder is one conversation in the order of its file names (*-request.xml, *-response.xml);
    several paths are one conversation in the order given. Keys that a message hands over open the
    messages behind it.

    \b
        castile explain capture/ --keys keys.json
        castile explain message.xml --keys service.pem --now 2026-11-25T10:00:00Z
    """
    from castile.explaining import explain as look

    explanation = look(paths, key_files, now)
    if as_json:
        click.echo(json.dumps(explanation.as_json(), indent=2))
    else:
        show(explanation)
    sys.exit(1 if explanation.problems else 0)


def show(explanation: Explanation) -> None:
    """Write the report for people; in colours only on a terminal that wants them."""
    from castile.explaining.words import lines

    plain = bool(os.environ.get("NO_COLOR"))
    for line in lines(explanation):
        style = _STYLES.get(line.style, {})
        click.echo(click.style(line.text, **style) if style else line.text, color=False if plain else None)
