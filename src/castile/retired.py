"""Sequences of a client that take nothing new: those of dead processes, and those whose context
is past its end or in doubt. What is in them is finished, then they are closed (F12, F37, CO-16).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from castile.clock import Now
from castile.conversations import Conversations
from castile.endpoint import recover, requests
from castile.endpoint.party import Party, reliability_log
from castile.endpoint.turn import SWEPT_ROWS
from castile.errors import CastileError, StoreError
from castile.protocol import source
from castile.store import Transaction
from castile.store.records import OutboxRow, SourceRecord
from castile.waiting import Gate, Turn, blocking

SWEEP: Final = 60.0
"""Seconds between two looks for what has outlived its retention."""


@dataclass(slots=True)
class Retired:
    """They go on one after the other, the oldest first, and new work comes behind them: so the
    order of messages holds. Nothing waits for one that is suspect, or for a reply that doesn't
    come."""

    party: Party
    conversations: Conversations
    now: Callable[[], Now]
    keys: list[str] = field(default_factory=list)
    """Those that aren't ended yet, oldest first."""
    clear: Gate = field(default_factory=Gate)
    """None of them holds new work up."""
    _own: set[str] = field(default_factory=set)
    """Those that this process has made."""
    _admitted: set[str] = field(default_factory=set)
    """Those whose turn has come."""
    _contexts: frozenset[str] = frozenset()
    """Their contexts, to be given back after them."""
    _sweep_at: float = 0.0
    """Ticks."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _giving: Turn = field(default_factory=Turn)

    def recover(self) -> bool:
        """Take over what an earlier process left in the store: unacknowledged messages are due
        at once, without waiting for traffic (F37). True: there is something to do."""
        self.sweep()
        if self.party.policy.reliability is None or not self.adopt():
            self.clear.open()
        return self.pending

    def sweep(self) -> None:
        """Delete what has outlived its retention: a little of it, once a minute, or at once again
        while there is more. Messages in doubt stay until somebody has dealt with them."""
        now = self.now()
        if now.tick >= self._sweep_at:
            swept = self.party.run(lambda tx: tx.sweep(now, SWEPT_ROWS))
            self._sweep_at = now.tick + (0.0 if swept == SWEPT_ROWS else SWEEP)

    def adopt(self) -> bool:
        """Take over what dead processes left. True: sequences are among it.

        New work comes behind those that are found at the start. To the sequences of a process
        that ran beside this one it never had an order.
        """
        adopted = self.party.run(lambda tx: recover.take_over(self.party, tx))
        with self._lock:
            self.keys += adopted.sources
            self._contexts |= adopted.contexts
        if adopted.sources:
            count = len(adopted.sources)
            reliability_log.warning("%s sequences of another process are being finished", count)
        return bool(adopted.sources)

    @property
    def pending(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.keys or self._contexts or not self.clear.is_open())

    def add(self, key: str) -> None:
        """A sequence of this process takes nothing new any more. New work comes after what is in
        it, unless it is suspect."""
        record, rows = self.party.run(lambda tx: (requests.source_record(tx, key), tx.outbox(key)))
        with self._lock:
            if key in self.keys or record.state.ended:
                return
            if record.state.context is not None:
                self._contexts |= {record.state.context}
            self._own.add(key)
            self._admitted.add(key)
            self.keys.append(key)
            if self._holds(record, rows):
                self.clear.shut()
        reliability_log.info("a sequence takes nothing new any more: %s", record.state.identifier)

    def finish(self, spawn: Callable[[Callable[[], None]], None]) -> None:
        """Let the oldest with messages go on; close what has nothing left to say, best effort, for
        peers forget idle sequences. `spawn` runs what waits for the network."""
        keys, unfinished, now = list(self.keys), False, self.now()

        def step(tx: Transaction, key: str) -> bool | None:
            record, rows = requests.readable(tx, key), tx.outbox(key)
            if record is None or record.state.ended:
                return None
            busy = self._holds(record, rows)
            if key not in self._admitted and not (busy and unfinished):
                requests.admit(self.party, tx, key, now)
            if not rows:  # whatever isn't acknowledged was answered
                requests.close(self.party, tx, key, now, incomplete=bool(record.state.unacknowledged))
            return busy

        for key in keys:
            busy = self.party.run(lambda tx, key=key: step(tx, key))  # type: ignore[misc]
            if busy is None:
                self.keys.remove(key)
            if not (busy and unfinished):
                self._admitted.add(key)
            unfinished = unfinished or bool(busy)
        with self._lock:
            ready = not unfinished and not self.clear.is_open() and set(self.keys) <= set(keys)
            if ready:
                self.clear.open()
        if ready:
            try:
                self.party.run(self._release)
            except StoreError:
                self.clear.shut()  # they still wait: the next round tries again
                raise
        if not self.keys and self._contexts:
            spawn(lambda: blocking(self.give_back()))

    def _holds(self, record: SourceRecord, rows: list[OutboxRow]) -> bool:
        """Whether new work waits for this sequence: not for a peer that seems to have lost the
        context (CO-16), nor for the reply to a message that it has accepted, once a caller would
        have given that up: CXF never repeats one."""
        given_up = self.now().utc - self.party.settings.timers.call_timeout
        return record.state.suspect_at is None and any(
            row.kind == "application" and not (row.acknowledged and row.submitted < given_up) for row in rows
        )

    async def give_back(self) -> None:
        """Their contexts are given back once no sequence needs them.

        Only theirs: one that is in the store but not yet named as this process's own is new.
        """
        async with self._giving.within():
            contexts, self._contexts = self._contexts, frozenset()
            if not contexts:
                return
            try:
                current = self.conversations.identifier
                idle = self.conversations.commit(lambda tx: recover.idle_contexts(self.party, tx, current))
                for state in await idle:
                    if state.identifier in contexts and not self.conversations.stopping:
                        await self.conversations.cancel(state)
            except CastileError as error:
                reliability_log.warning("contexts of ended sequences stay: %s", error)

    def _release(self, tx: Transaction) -> None:
        """New sequences waited for these, so that order holds."""
        now = self.now()
        party = self.party
        for record in tx.sources(side=party.side, endpoint=party.realm, owner=tx.owner, unfinished=True):
            if record.state.phase is source.Phase.CREATING and record.state.key not in self.keys:
                requests.admit(party, tx, record.state.key, now)

    def in_doubt(self, tx: Transaction) -> list[OutboxRow]:
        """Messages of this process in sequences that aren't finished."""
        rows = [row for key in self.keys if key in self._own for row in tx.outbox(key)]
        return [row for row in rows if row.kind == "application"]

    def waits(self, tx: Transaction) -> bool:
        """Whether sequences of this process may still be finished soon: a suspect one may not."""
        records = [requests.readable(tx, key) for key in self.keys if key in self._own]
        return any(
            record is not None and not record.state.ended and record.state.suspect_at is None
            for record in records
        )
