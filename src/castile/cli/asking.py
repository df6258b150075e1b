"""Asking the owner of a sequence or a context to do something, from outside (features 4.12).

What is asked is a row of the store. The process that owns the target carries it out within
seconds; where none is left, this one takes the store and does it itself, as far as the store
alone can.
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from castile import store as stores
from castile.cli.options import existing
from castile.clock import system
from castile.endpoint import commands
from castile.errors import CastileError
from castile.store import Store, Transaction
from castile.store.lock import lives
from castile.store.records import Command, ContextRecord, DestinationRecord, SourceRecord

Record = SourceRecord | DestinationRecord | ContextRecord
GRACE: Final = 3.0
"""Seconds for a process that lives to take over a dead one's target, and do it."""
_POLL: Final = 0.05
_LATER: Final = {("client", "close")}
"""What a client does when it opens the store next, if none has it open now."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it."""

    text: str
    status: int
    """Exit status: 0 done, 1 refused, 3 not carried out in time."""


def ask(
    path: Path,
    seal: str | None,
    verb: str,
    find: Callable[[Transaction], Record],
    *,
    force: bool = False,
    seconds: float = 10.0,
) -> Answer:
    """Have it done. `find` names the target; it raises `UsageError` if there is none."""
    store = stores.open(existing(path), seal=seal)
    try:
        return _asked(store, verb, find, force, seconds)
    finally:
        store.close()


def _asked(
    store: Store, verb: str, find: Callable[[Transaction], Record], force: bool, seconds: float
) -> Answer:
    start = time.monotonic()

    def leave(tx: Transaction) -> Command:
        record = find(tx)
        kind, target = _target(record)
        who = f"{getpass.getuser()} (process {os.getpid()})"
        asked = Command(verb, kind, target, record.side, record.endpoint, force, system().utc, who)
        return replace(asked, id=tx.ask(asked))

    command = store.run(leave).result()
    while True:
        owner, alive, known = store.run(lambda tx: _look(tx, store, command)).result()
        if known is not None and known.done is not None:
            return Answer(known.result or "done", 1 if known.refused else 0)
        waited = time.monotonic() - start
        if owner in alive and waited > seconds:
            late = (
                f"process {alive[owner]}, which has it, hasn't done it within {seconds:g} s; it stays asked"
            )
            return Answer(late, 3)
        if owner not in alive and (not alive or waited > GRACE):
            return store.run(lambda tx: _directly(tx, command)).result()
        time.sleep(_POLL)


def _look(
    tx: Transaction, store: Store, command: Command
) -> tuple[int | None, dict[int | None, int], Command | None]:
    """Who owns the target, the other owners that live with their pids, and the command as it is."""
    path = store.location or Path()
    others = [each for each in tx.owners() if each.ended is None and each.id != tx.owner]
    alive: dict[int | None, int] = {each.id: each.pid for each in others if lives(path, each.id)}
    return commands.target(tx, command), alive, tx.command(command.id)


def _directly(tx: Transaction, command: Command) -> Answer:
    """Nobody is there to do it."""
    known = tx.command(command.id)
    if known is not None and known.done is not None:
        return Answer(known.result or "done", 1 if known.refused else 0)
    if (command.side, command.verb) in _LATER:
        return Answer("no client has this store open: the next one that opens it does it", 0)
    now = system()
    try:
        text, status = commands.carry_out(tx, command, now).text, 0
    except CastileError as error:
        text, status = str(error), 1
    tx.carried_out(command.id, now.utc, text, refused=status == 1)
    return Answer(text, status)


def _target(record: Record) -> tuple[commands.Kind, str]:
    if isinstance(record, ContextRecord):
        return "context", record.state.identifier
    return "sequence", record.state.key if isinstance(record, SourceRecord) else record.state.identifier
