"""What a dead process left in the store, as the next one finds it, or one that runs beside it
(features 9.3).

Resume is not reuse: the stored sequences are finished under their own contexts, and a process
does its own work in new ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from castile.endpoint.handlers import Delivery, delivery_of
from castile.endpoint.party import Party, reliability_log
from castile.errors import StoreDamaged
from castile.protocol.conversation import Conversation
from castile.store import Adopted, Transaction


def take_over(party: Party, tx: Transaction) -> Adopted:
    """A client takes over what dead processes left: sequences that are not ended, oldest first, and
    contexts. Nothing of them is due before its turn has come."""
    adopted = tx.adopt(party.side, party.realm)
    for key in adopted.sources:
        for row in tx.outbox(key):
            tx.update_outbox(row.message_id, due=None)
    return adopted


def idle_contexts(party: Party, tx: Transaction, current: str | None) -> list[Conversation]:
    """The contexts of this process of a client that no unfinished sequence needs."""
    records = tx.sources(side=party.side, endpoint=party.realm, unfinished=True)
    needed = {record.state.context for record in records} | {current}
    return [
        record.state
        for record in tx.contexts(side=party.side, endpoint=party.realm, owner=tx.owner)
        if isinstance(record.state, Conversation) and record.state.identifier not in needed
    ]


def interrupted_deliveries(
    parties: Sequence[Party], tx: Transaction
) -> tuple[tuple[Delivery, ...], frozenset[str]]:
    """A service takes over what dead processes accepted and have not done: the messages, in their
    order (ST-30), and the sequences that stand still behind a parked one.

    Whether a handler had begun isn't known, so each message is marked as delivered again. One
    in editions that the service speaks no more stays where it is.
    """
    left: list[Delivery] = []
    parked: set[str] = set()
    for sequence in tx.adopt("service", parties[0].realm).destinations:
        try:
            left += deliveries(parties, tx, sequence, redelivered=True)
            if tx.inbox(sequence=sequence, status="parked", limit=1):
                parked.add(sequence)
        except StoreDamaged as error:  # it takes down nobody else
            reliability_log.error("a sequence isn't taken over: %s", error)
    return tuple(left), frozenset(parked)


def deliveries(
    parties: Sequence[Party], tx: Transaction, sequence: str, *, redelivered: bool = False
) -> list[Delivery]:
    """The messages of a sequence that are ready for the application, in their order."""
    record = tx.destination(sequence)
    dialect = record.state.dialect if record else ""
    party = next((each for each in parties if dialect in ("", each.policy.dialect)), None)
    if party is None:
        return []
    rows = tx.inbox(sequence=sequence, status="ready")
    return [delivery_of(party, row, redelivered=redelivered) for row in rows]
