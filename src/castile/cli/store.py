"""``castile store``: whether a store is whole, and who has it open."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from castile.cli.options import JSON, SEAL, STORE, existing

if TYPE_CHECKING:
    from castile.store.checking import Checked


@click.group()
def store() -> None:
    """Look after a store.

    \b
        castile store check bank.db
    """


@store.command(epilog="Example: castile store check bank.db --json")
@STORE
@SEAL
@JSON
def check(store: Path, seal: str | None, as_json: bool) -> None:
    """Check STORE: every page, every seal and checksum, its mark, and who has it open.

    Nothing is changed, and processes may have it open. Exit status 1: something is wrong with it.

    \b
        castile store check bank.db
    """
    from castile.store.checking import check as checked

    found = checked(existing(store), seal)
    if as_json:
        owners = [{**asdict(owner), "alive": alive} for owner, alive in found.owners]
        click.echo(json.dumps({**asdict(found), "owners": owners, "whole": found.whole}, indent=2))
    else:
        _write(found)
    sys.exit(0 if found.whole else 1)


def _write(found: Checked) -> None:
    from castile.clock import iso

    click.echo(f"schema     {found.schema}")
    click.echo(f"pages      {'; '.join(found.pages) or 'whole'}")
    click.echo(f"rows       {', '.join(f'{count} {name}' for name, count in found.rows.items())}")
    for line in found.unreadable:
        click.echo(f"unreadable {line}")
    mark = "as it should be" if found.marked else "missing: whether this is an older copy can't be judged"
    click.echo(f"mark       {'ahead: this is an older copy of the store' if found.rolled_back else mark}")
    for owner, alive in found.owners:
        state = "alive" if alive else "gone: who opens the store next takes over what it had"
        where = f"process {owner.pid} on {owner.host} since {iso(owner.since)}"
        click.echo(f"owner      {owner.id}: {where}, durability {owner.durability}, {state}")
    if not found.owners:
        click.echo("owner      nobody has it open")
