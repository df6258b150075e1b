"""What a dead process left in the store, as the next one finds it (features 9.3).

Resume is not reuse: a new process finishes the stored sequences under their own contexts and
does its own work in new ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from castile.endpoint.handlers import Delivery, delivery_of
from castile.endpoint.party import Party
from castile.protocol.conversation import Conversation
from castile.store import Transaction


def earlier_sequences(party: Party, tx: Transaction) -> list[str]:
    """Keys of a client's sequences that are not ended, oldest first. Nothing of them is due
    before its turn has come."""
    records = tx.sources(side=party.side, endpoint=party.realm, unfinished=True)
    for record in records:
        for row in tx.outbox(record.state.key):
            tx.update_outbox(row.message_id, due=None)
    return [record.state.key for record in records]


def earlier_contexts(party: Party, tx: Transaction) -> frozenset[str]:
    """Identifiers of the contexts that a client finds in its store."""
    return frozenset(
        record.state.identifier for record in tx.contexts(side=party.side, endpoint=party.realm)
    )


def idle_contexts(party: Party, tx: Transaction, current: str | None) -> list[Conversation]:
    """A client's contexts that no unfinished sequence needs."""
    records = tx.sources(side=party.side, endpoint=party.realm, unfinished=True)
    needed = {record.state.context for record in records} | {current}
    return [
        record.state
        for record in tx.contexts(side=party.side, endpoint=party.realm)
        if isinstance(record.state, Conversation) and record.state.identifier not in needed
    ]


def interrupted_deliveries(
    parties: Sequence[Party], tx: Transaction
) -> tuple[tuple[Delivery, ...], frozenset[str]]:
    """A service's messages that were accepted and are not done, in their order (ST-30), and the
    sequences that stand still behind a parked one.

    Whether a handler had begun isn't known, so each message is marked as delivered again. One
    in editions that the service speaks no more stays where it is.
    """
    first = parties[0]
    left = []
    for row in tx.inbox(status="ready", side=first.side, endpoint=first.address):
        record = tx.destination(row.sequence)
        dialect = record.state.dialect if record else ""
        party = next((each for each in parties if dialect in ("", each.policy.dialect)), None)
        if party is not None:
            left.append(delivery_of(party, row, redelivered=True))
    parked = tx.inbox(status="parked", side=first.side, endpoint=first.address)
    return tuple(left), frozenset(row.sequence for row in parked)
