"""The other processes that have a client's store open: what they leave when they die, and replies
to calls of theirs that are waited for here.

Each process sends what is its own. A call that is made again with a key may join a message that
another one sends: then its reply row is watched for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from castile.endpoint.party import Party
from castile.protocol import source
from castile.store import Sign, Transaction
from castile.store.records import OutboxRow, ReplyRow, SourceRecord


@dataclass(slots=True)
class Siblings:
    """What is seen of them. The store's thread tells; the pump's thread acts."""

    party: Party
    wake: Callable[[], None]
    """Have `Pump` act soon; it mustn't wait for the store."""
    _orphans: threading.Event = field(default_factory=threading.Event)
    _asked: threading.Event = field(default_factory=threading.Event)
    obeying: threading.Lock = field(default_factory=threading.Lock)
    """One command after the other."""
    _joined: dict[str, int] = field(default_factory=dict)
    """MessageIDs of theirs, and how many wait for the reply here."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def noticed(self, sign: Sign) -> None:
        """The store saw something of them."""
        if sign is Sign.DIED:
            self._orphans.set()
        if sign is Sign.DIED or self._joined:
            self.wake()
        party = self.party
        asked = party.store.run(lambda tx: bool(tx.commands(party.side, party.realm)))
        asked.add_done_callback(self._heard)

    def _heard(self, asked: Future[bool]) -> None:
        if asked.exception() is None and asked.result():
            self._asked.set()
            self.wake()

    def asked(self) -> bool:
        """Whether somebody outside has asked for something (`castile.commands`)."""
        asked = self._asked.is_set()
        self._asked.clear()
        return asked

    def orphans(self, adopt: Callable[[], object]) -> None:
        """If one has died: `adopt`, and again the next time where that fails."""
        if self._orphans.is_set():
            self._orphans.clear()
            try:
                adopt()
            except BaseException:
                self._orphans.set()
                raise

    @contextmanager
    def joined(self, row: OutboxRow) -> Iterator[None]:
        """While the reply to this message is waited for: a look at them each few milliseconds, if
        one of them sends it."""
        if row.owner in (0, self.party.store.owner):  # 0: it is new
            yield
            return
        with self._lock:
            self._joined[row.message_id] = self._joined.get(row.message_id, 0) + 1
        try:
            with self.party.store.awaits():
                yield
        finally:
            with self._lock:
                self._joined[row.message_id] -= 1
                if not self._joined[row.message_id]:
                    del self._joined[row.message_id]

    def news(self) -> tuple[list[ReplyRow], list[SourceRecord]]:
        """Replies to joined messages, and the sequences of such that have failed."""
        with self._lock:
            names = list(self._joined)

        def step(tx: Transaction) -> tuple[list[ReplyRow], list[SourceRecord]]:
            replies = [reply for name in names if (reply := tx.reply(name)) is not None]
            rows = [row for name in names if (row := tx.outbox_row(name)) is not None]
            records = [record for row in rows if (record := tx.source(row.sequence_key or "")) is not None]
            return replies, [record for record in records if record.state.phase is source.Phase.FAILED]

        return self.party.run(step) if names else ([], [])
