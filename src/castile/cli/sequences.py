"""``castile sequences``: what is under way in a store, and what an operator may do about it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from castile.cli.options import FORCE, JSON, SEAL, STORE, WAIT, YES, existing, tell
from castile.errors import UsageError

if TYPE_CHECKING:
    from castile.store import Transaction
    from castile.store.records import DestinationRecord, SourceRecord

Reports = list[dict[str, object]]
_COLUMNS: Final = ("identifier", "state", "direction", "peer", "highest", "missing", "depth", "owner")


@click.group()
def sequences() -> None:
    """Show the sequences in a store, and close, end, resume, export or delete them.

    A process may have the store open meanwhile: it carries out what is asked. Where none has, it is
    done in the store.

    \b
        castile sequences list bank.db
        castile sequences show bank.db urn:uuid:4f1c... --json
        castile sequences terminate bank.db urn:uuid:4f1c... --yes
    """


@sequences.command("list", epilog="Example: castile sequences list bank.db --json")
@STORE
@SEAL
@JSON
@click.option("--all", "everything", is_flag=True, help="Also those that have ended.")
def list_(store: Path, seal: str | None, as_json: bool, everything: bool) -> None:
    """List the sequences in STORE.

    \b
        castile sequences list bank.db
    """
    found = _read(store, seal, lambda tx: _reports(tx, store, ended=everything))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for each in found:
        click.echo("  ".join(_short(name, each[name]) for name in _COLUMNS if each[name] is not None))
    if not found:
        click.echo("no sequences")


@sequences.command(epilog="Example: castile sequences show bank.db urn:uuid:4f1c... --json")
@STORE
@click.argument("identifier")
@SEAL
@JSON
def show(store: Path, identifier: str, seal: str | None, as_json: bool) -> None:
    """Show the sequence IDENTIFIER of STORE.

    \b
        castile sequences show bank.db urn:uuid:4f1c...
    """
    found = [each for each in _read(store, seal, lambda tx: _reports(tx, store)) if _named(each, identifier)]
    if not found:
        click.echo(f"castile: there is no sequence {identifier} in {store}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(found[0] if len(found) == 1 else found, indent=2))
        return
    for each in found:
        for name, value in each.items():
            if value not in (None, [], ""):
                click.echo(f"{name:<14}{_short(name, value, bare=True)}")


@sequences.command(epilog="Example: castile sequences export bank.db urn:uuid:4f1c... > messages.json")
@STORE
@click.argument("identifier")
@SEAL
def export(store: Path, identifier: str, seal: str | None) -> None:
    """Write the sequence IDENTIFIER of STORE as JSON, with the bodies of its messages in clear.

    \b
        castile sequences export bank.db urn:uuid:4f1c... > messages.json
    """
    click.echo(json.dumps(_read(store, seal, lambda tx: _exported(tx, store, identifier)), indent=2))


def _verb(name: str, summary: str, ends: str = "") -> None:
    """One of the commands that change something; `ends`: what may be lost by it."""

    @sequences.command(name, help=f"{summary}\n\n\b\n    castile sequences {name} bank.db urn:uuid:4f1c...")
    @STORE
    @click.argument("identifier")
    @SEAL
    @JSON
    @WAIT
    @FORCE
    @YES
    def command(
        store: Path, identifier: str, seal: str | None, as_json: bool, wait: float, force: bool, yes: bool
    ) -> None:
        from castile.cli.asking import ask

        if ends and not yes:
            click.confirm(f"{name} {identifier}: {ends}. Go on?", abort=True)
        answer = ask(store, seal, name, lambda tx: _found(tx, identifier), force=force, seconds=wait)
        tell(answer, as_json)


_verb("resume", "Send what waits in a client's sequence now; handle a service's parked messages again.")
_verb("skip", "Take the first parked message of a service's sequence for handled, and go on behind it.")
_verb("close", "Let a sequence take nothing new; a client's is ended once what is in it is done.")
_verb("terminate", "End a sequence now, whatever is under way in it.", "what isn't acknowledged is in doubt")
_verb("delete", "Delete a sequence that has ended, with its messages.", "it is forgotten")


def _read(path: Path, seal: str | None, step: Callable[[Transaction], Reports]) -> Reports:
    from castile.store.reading import read

    return read(existing(path), seal, step)


def _reports(tx: Transaction, path: Path, *, ended: bool = True) -> Reports:
    from castile.endpoint.reports import report
    from castile.store.lock import lives

    open_ones = [each for each in tx.owners() if each.ended is None]
    pids = {each.id: each.pid for each in open_ones if lives(path.resolve(), each.id)}
    records: list[SourceRecord | DestinationRecord] = [
        *tx.sources(unfinished=not ended),
        *tx.destinations(unfinished=not ended),
    ]
    found = []
    for record in records:
        told = {"key": getattr(record.state, "key", None), **report(tx, record)}
        told["peer"] = record.endpoint.partition(" ")[0]
        found.append({**told, "owner": pids.get(record.owner)})
    return found


def _named(report: dict[str, object], identifier: str) -> bool:
    return identifier in (report["identifier"], report["key"])


def _exported(tx: Transaction, path: Path, identifier: str) -> Reports:
    from castile.clock import iso

    found = [each for each in _reports(tx, path) if _named(each, identifier)]
    if not found:
        raise UsageError(f"there is no sequence {identifier} in {path}")
    for each in found:
        rows = tx.outbox(str(each["key"])) if each["direction"] == "out" else tx.inbox(sequence=identifier)
        each["messages"] = [
            {
                "number": row.number,
                "action": row.action,
                "message_id": row.message_id,
                "at": iso(row.submitted if hasattr(row, "submitted") else row.received),
                "attempts": row.attempts,
                "last_error": row.last_error,
                "body": row.body.decode("utf-8", "replace"),
            }
            for row in rows
        ]
    return found


def _found(tx: Transaction, identifier: str) -> SourceRecord | DestinationRecord:
    """The sequence that carries the name: a client's own, or one that a service receives."""
    found: list[SourceRecord | DestinationRecord] = [
        *(each for each in tx.sources() if identifier in (each.state.identifier, each.state.key)),
        *(each for each in tx.destinations() if each.state.identifier == identifier),
    ]
    for each in found:
        if (each.side == "client") == hasattr(each.state, "key"):
            return each
    if found:
        raise UsageError(f"{identifier} carries replies: it goes with the sequence that offered it")
    raise UsageError(f"there is no sequence {identifier} in this store")


def _short(name: str, value: object, *, bare: bool = False) -> str:
    if isinstance(value, list):
        value = ", ".join(_range(each) for each in value) or "none"
    return str(value) if bare or name in _COLUMNS[:4] else f"{name} {value}"


def _range(each: object) -> str:
    if not isinstance(each, list):
        return str(each)
    return f"{each[0]}-{each[1]}" if each[0] != each[1] else f"{each[0]}"
