"""``castile contexts``: the security contexts in a store, without their secrets."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from castile.cli.options import FORCE, JSON, SEAL, STORE, WAIT, YES, existing, tell
from castile.clock import Now, iso, system
from castile.errors import UsageError

if TYPE_CHECKING:
    from castile.store import Transaction
    from castile.store.records import ContextRecord


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a context; its secret is never shown."""

    instance: str | None
    created: str
    expires: str


@dataclass(frozen=True, slots=True)
class Bound:
    """A sequence that a context protects."""

    role: str
    """``source`` or ``destination``, as this store sees it."""
    identifier: str | None
    state: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A context, as people and programs see it."""

    identifier: str
    state: str
    side: str
    endpoint: str
    principal: str
    edition: str
    created: str
    expires: str
    ended: str | None
    instances: tuple[Key, ...]
    sequences: tuple[Bound, ...]

    @property
    def line(self) -> str:
        """One line of the list."""
        who = self.principal or "nobody"
        count = len(self.sequences)
        bound = f"{count} sequence{'' if count == 1 else 's'}"
        renewals = f"instance {self.instances[-1].instance}" if self.instances[-1].instance else "not renewed"
        return (
            f"{self.identifier}  {self.state}  {self.side} of {self.endpoint}  {who}  "
            f"until {self.expires}  {renewals}  {bound}"
        )


@click.group()
def contexts() -> None:
    """Show the security contexts in a store: whose they are, how long they live, what is bound to
    them. Renew or cancel one.

    Secrets are never shown. A process may have the store open meanwhile: it carries out what is asked.

    \b
        castile contexts list bank.db
        castile contexts show bank.db urn:uuid:4f1c... --json
    """


@contexts.command("list", epilog="Example: castile contexts list bank.db --json")
@STORE
@SEAL
@JSON
@click.option("--all", "everything", is_flag=True, help="Also those that were cancelled or lost.")
def list_(store: Path, seal: str | None, as_json: bool, everything: bool) -> None:
    """List the contexts in STORE.

    \b
        castile contexts list bank.db
    """
    found = _read(store, seal, ended=everything)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
        return
    for each in found:
        click.echo(each.line)
    if not found:
        click.echo("no security contexts")


@contexts.command(epilog="Example: castile contexts show bank.db urn:uuid:4f1c... --json")
@STORE
@click.argument("identifier")
@SEAL
@JSON
def show(store: Path, identifier: str, seal: str | None, as_json: bool) -> None:
    """Show the context IDENTIFIER of STORE: its keys' lives and the sequences that are bound to it.

    \b
        castile contexts show bank.db urn:uuid:4f1c...
    """
    found = [each for each in _read(store, seal, ended=True) if each.identifier == identifier]
    if not found:
        click.echo(f"castile: there is no context {identifier} in {store}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(asdict(found[0]) if len(found) == 1 else [asdict(e) for e in found], indent=2))
        return
    for each in found:
        _write(each)


@contexts.command(epilog="Example: castile contexts renew transfers.db urn:uuid:4f1c...")
@STORE
@click.argument("identifier")
@SEAL
@JSON
@WAIT
def renew(store: Path, identifier: str, seal: str | None, as_json: bool, wait: float) -> None:
    """Have the client that uses the context IDENTIFIER of STORE renew it now.

    \b
        castile contexts renew transfers.db urn:uuid:4f1c...
    """
    from castile.cli.asking import ask

    tell(ask(store, seal, "renew", lambda tx: _found(tx, identifier), seconds=wait), as_json)


@contexts.command(epilog="Example: castile contexts cancel bank.db urn:uuid:4f1c... --force --yes")
@STORE
@click.argument("identifier")
@SEAL
@JSON
@WAIT
@FORCE
@YES
def cancel(
    store: Path, identifier: str, seal: str | None, as_json: bool, wait: float, force: bool, yes: bool
) -> None:
    """Cancel the context IDENTIFIER of STORE; with --force also if sequences are bound to it, which
    end by that.

    \b
        castile contexts cancel bank.db urn:uuid:4f1c...
    """
    from castile.cli.asking import ask

    if force and not yes:
        click.confirm(f"cancel {identifier}: sequences bound to it fail. Go on?", abort=True)
    tell(ask(store, seal, "cancel", lambda tx: _found(tx, identifier), force=force, seconds=wait), as_json)


def _found(tx: Transaction, identifier: str) -> ContextRecord:
    record = tx.context(identifier)
    if record is None:
        raise UsageError(f"there is no context {identifier} in this store")
    return record


def _write(shown: Shown) -> None:
    facts = asdict(shown)
    for name in (
        "identifier",
        "state",
        "side",
        "endpoint",
        "principal",
        "edition",
        "created",
        "expires",
        "ended",
    ):
        if facts[name]:
            click.echo(f"{name:<11}{facts[name]}")
    for key in shown.instances:
        click.echo(f"{'key':<11}{key.instance or 'first'}, {key.created} to {key.expires}")
    for bound in shown.sequences:
        click.echo(f"{'sequence':<11}{bound.identifier or 'not yet named'}, {bound.role}, {bound.state}")


def _read(path: Path, seal: str | None, *, ended: bool) -> list[Shown]:
    from castile.store.reading import read

    now = system()
    return read(existing(path), seal, lambda tx: [_shown(tx, each, now) for each in tx.contexts(ended=ended)])


def _shown(tx: Transaction, record: ContextRecord, now: Now) -> Shown:
    from castile.versions import WSSC

    state = record.state
    phase = state.phase.value
    if phase in ("usable", "renewing") and now.utc >= state.expires:
        phase = "expired"
    address, _, _ = record.endpoint.partition(" ")  # behind a client's address stands who it is
    return Shown(
        state.identifier,
        phase,
        record.side,
        address,
        record.principal or "",
        WSSC[state.edition].name,
        iso(state.created),
        iso(state.expires),
        iso(record.ended) if record.ended is not None else None,
        tuple(Key(key.instance, iso(key.created), iso(key.expires)) for key in state.instances),
        _bound(tx, record),
    )


def _bound(tx: Transaction, record: ContextRecord) -> tuple[Bound, ...]:
    name = record.state.identifier
    sources = tx.sources(side=record.side, endpoint=record.endpoint)
    destinations = tx.destinations(side=record.side, endpoint=record.endpoint)
    return (
        *(
            Bound("source", each.state.identifier, each.state.phase.value)
            for each in sources
            if each.state.context == name
        ),
        *(
            Bound("destination", each.state.identifier, each.state.phase.value)
            for each in destinations
            if each.state.context == name
        ),
    )
