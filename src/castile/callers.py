"""Who waits for which reply in this process, and what they are told where none comes."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from castile.errors import CastileError, FaultReceived, StoreDamaged
from castile.store import Transaction
from castile.store.records import OutboxRow, ReplyRow


@dataclass(slots=True)
class Call:
    """A caller who waits for a reply."""

    action: str
    body: bytes = field(repr=False)
    key: str | None = field(repr=False)
    """The caller's own of this call."""
    timeout: float
    """Seconds."""
    deadline: float
    """Ticks."""
    sequence: str = ""
    """Name of the sequence that it is numbered in."""
    reply: Future[ReplyRow] = field(default_factory=Future)
    joined: str = ""
    """MessageID of what it waits for."""
    leased: bool = False
    """It sends that message itself."""


@dataclass(slots=True)
class Callers:
    """All of them."""

    waiting: dict[str, list[Future[ReplyRow]]] = field(default_factory=dict)
    """By the MessageID of the request."""
    _faults: dict[str, FaultReceived] = field(default_factory=dict)

    def join(self, call: Call, row: OutboxRow) -> None:
        """It waits for the reply to this message."""
        call.joined = row.message_id
        self.waiting.setdefault(row.message_id, []).append(call.reply)

    def leave(self, call: Call) -> None:
        """It waits no more."""
        waiting = self.waiting.get(call.joined, [])
        if call.reply in waiting:
            waiting.remove(call.reply)
        if not waiting:
            self.waiting.pop(call.joined, None)
            self._faults.pop(call.joined, None)

    def answer(self, reply: ReplyRow) -> bool:
        """The reply is there. False: nobody waited for it."""
        waiting = self.waiting.pop(reply.message_id, [])
        for future in waiting:
            future.set_result(reply)
        return bool(waiting)

    def fail(self, message_id: str, error: CastileError) -> None:
        """No reply will come."""
        for future in self.waiting.pop(message_id, []):
            if not future.done():
                future.set_exception(error)

    def unreadable(self, tx: Transaction) -> dict[str, StoreDamaged]:
        """Messages that are waited for and that nobody can send any more: their own row, or their
        sequence's, is damaged (features ST-35)."""
        found: dict[str, StoreDamaged] = {}
        for name in list(self.waiting) if self.waiting and tx.damaged() else ():
            try:
                row = tx.outbox_row(name)
                if row is not None and row.sequence_key is not None:
                    tx.source(row.sequence_key)
            except StoreDamaged as error:
                found[name] = error
        return found

    def note(self, row: OutboxRow, fault: FaultReceived) -> None:
        """An unauthenticated fault: kept for whoever waits for this message, or for its sequence."""
        if row.kind == "create" or row.message_id in self.waiting:
            self._faults[row.message_id] = fault

    def noted(self, names: list[str]) -> FaultReceived | None:
        """The first that was noted of these messages."""
        return next((self._faults[name] for name in names if name in self._faults), None)
