"""``castile store``: whether a store is whole, who has it open, and another sealing key for it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from castile.cli.options import JSON, SEAL, STORE, WAIT, existing

if TYPE_CHECKING:
    from castile.store.checking import Checked


@click.group()
def store() -> None:
    """Look after a store.

    \b
        castile store check bank.db
        castile store reseal bank.db
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


@store.command(epilog="Example: castile store reseal bank.db --json")
@STORE
@SEAL
@WAIT
@JSON
def reseal(store: Path, seal: str | None, wait: float, as_json: bool) -> None:
    """Seal STORE with another key: what is in it, and whatever comes. The old key opens nothing then.

    Where castile made the key, in the file beside STORE, it makes another one. A key of your own
    (environment, file) holds two for this, with a blank or a new line between them: the new one,
    and the old one behind it. Processes may have STORE open: they take the new key from where they
    had the old one, or are named. What was interrupted is finished by the next run.

    
        castile store reseal bank.db
        CASTILE_STORE_KEY="$NEW $OLD" castile store reseal bank.db
    """
    from castile.store.resealing import reseal as resealed

    done = resealed(existing(store), seal, seconds=wait)
    if as_json:
        click.echo(json.dumps(asdict(done), indent=2))
        return
    click.echo(f"{done.rows} rows sealed anew with the key {done.key}; the old one opens nothing any more")
    if done.unreadable:
        click.echo(f"{done.unreadable} rows couldn't be read and stay as they are (castile store check)")


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
