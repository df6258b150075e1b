"""What a client does when the peer says that a security context is no good.

Such a fault is seldom authenticated. So it never ends anything by itself: the message goes out
once more, protected afresh; if that fails too, new work goes to a new context at once, and what
is bound to the old one is suspect and goes on under it. Only when the peer has said nothing else
for a long time has it failed (CO-14, CO-16, SC-28).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from castile.clock import Now
from castile.conversations import Conversations
from castile.endpoint import requests
from castile.endpoint.alarms import Alarm, alarm_of
from castile.endpoint.party import Party, reliability_log
from castile.errors import CastileError, FaultReceived, TransportError
from castile.protocol import source
from castile.security.keys import ContextKey
from castile.store import Transaction
from castile.store.records import OutboxRow, SourceRecord

LOST: Final = "security context lost"
"""Why a sequence failed whose context the peer doesn't know (CO-16)."""


@dataclass(slots=True)
class Doubts:
    """Alarms about contexts, message by message."""

    party: Party
    conversations: Conversations
    now: Callable[[], Now]
    retire: Callable[[str], None]
    """A sequence takes nothing new any more."""
    fail: Callable[[SourceRecord], None]
    """Tell who waits that a sequence has failed."""
    _renewed: set[str] = field(default_factory=set)
    """MessageIDs for which the context was renewed: once each."""
    _repeated: set[str] = field(default_factory=set)
    """MessageIDs that were sent again because the context seemed to be lost."""

    async def heard(self, row: OutboxRow, fault: FaultReceived, key: ContextKey) -> bool:
        """Act on a fault that answered this message under this key. True: send it again at once."""
        match alarm_of(fault.fault, secured=fault.authenticated):
            case Alarm.RENEW:
                return await self._renew(row, fault, key)
            case Alarm.LOST:
                if not fault.authenticated and row.message_id not in self._repeated:
                    self._repeated.add(row.message_id)
                    return True
                return self._suspect(row, fault, key)
            case _:
                return False

    def settled(self, message_id: str) -> None:
        """The peer has proved that it knows the context of this message."""
        self._renewed.discard(message_id)
        self._repeated.discard(message_id)

    async def _renew(self, row: OutboxRow, fault: FaultReceived, key: ContextKey) -> bool:
        state = self.conversations.state_of(key.identifier)
        if state is not None and state.current.instance != key.instance:
            return True  # there is a newer key already
        if row.message_id in self._renewed:
            return self._suspect(row, fault, key)
        if not self.conversations.heed(authenticated=fault.authenticated):
            return False
        self._renewed.add(row.message_id)
        try:
            await self.conversations.renew(key.identifier, refused=key)
        except TransportError:
            self._renewed.discard(row.message_id)
            return False
        except CastileError as error:
            # Recovery may still be served: new work goes elsewhere, this message once more (SC-44).
            reliability_log.warning("a security context that the peer calls expired stays so: %s", error)
            self.conversations.abandon(key.identifier, authenticated=True)
            if row.kind != "create":
                self.retire(row.sequence_key or "")
        return True

    def _suspect(self, row: OutboxRow, fault: FaultReceived, key: ContextKey) -> bool:
        moved = self.conversations.abandon(key.identifier, authenticated=fault.authenticated)
        record = self.party.run(lambda tx: self._doubted(tx, row, str(fault)))
        if record.state.phase is source.Phase.CREATING:
            return moved  # nothing of it is at the peer: it is created under another context
        if record.state.phase is source.Phase.FAILED:
            self.conversations.lose(key.identifier, LOST)
            self.fail(record)
        else:
            self.retire(record.state.key)
        return False

    def _doubted(self, tx: Transaction, row: OutboxRow, reason: str) -> SourceRecord:
        now, key = self.now(), row.sequence_key or ""
        record = requests.source_record(tx, key)
        state, _ = source.step(record.state, source.Suspect(reason), now)
        record = replace(record, state=state)
        tx.save_source(record)
        since = state.suspect_at
        if since is None or now.utc - since < self.party.settings.timers.lost_context_after:
            return record
        if state.phase is source.Phase.CREATING or state.ended:
            return record
        return requests.give_up(tx, key, LOST, now)
