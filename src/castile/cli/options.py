"""Arguments and options that commands on a store share, and how they tell what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from castile.errors import UsageError

if TYPE_CHECKING:
    from castile.cli.asking import Answer

STORE = click.argument("store", type=click.Path(path_type=Path), metavar="STORE")
SEAL = click.option(
    "--seal",
    metavar="KEY",
    help="The key of the store: env:NAME or file:PATH.  [default: CASTILE_STORE_KEY, or the file beside it]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
WAIT = click.option(
    "--wait",
    type=click.FloatRange(min=0.0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the process that has it may take.",
)
FORCE = click.option("--force", is_flag=True, help="Also where something is lost by it.")
YES = click.option("--yes", is_flag=True, help="Don't ask before something is lost.")


def existing(store: Path) -> Path:
    """The store, if there is one: a command that looks at one makes none."""
    if not store.is_file():
        raise UsageError(f"there is no store at {store}")
    return store


def tell(answer: Answer, as_json: bool) -> None:
    """Print what came of a command; exit unless it is done."""
    if as_json:
        click.echo(json.dumps({"done": answer.status == 0, "text": answer.text}, indent=2))
    else:
        click.echo(answer.text, err=answer.status != 0)
    if answer.status:
        sys.exit(answer.status)
