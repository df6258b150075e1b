"""Replies of a service: numbered in the offered sequence, stored, given again on request.

A reply is a row of the outbox that answers one request. It has no due time: over an anonymous
address it goes on the HTTP response of its request and of each repetition of it, protected
afresh, until the client acknowledges it (RM-93, RM-36).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Outgoing, Reply
from castile.endpoint.party import Party
from castile.endpoint.turn import acknowledgement
from castile.messages import reliability
from castile.messages.soap import Header
from castile.protocol import destination, source
from castile.protocol.actions import Acknowledge, Number
from castile.store import Transaction
from castile.store.records import DestinationRecord, OutboxRow, SourceRecord
from castile.versions import Reliability

if TYPE_CHECKING:
    from castile.endpoint.deliver import Answer
    from castile.endpoint.handlers import Delivery


def number_reply(
    party: Party, tx: Transaction, delivery: Delivery, answer: Answer | None
) -> Reply | None:
    """Store the reply to a delivered message and mark the message done: one commit.

    None: there was nothing to answer, or the sequence has ended meanwhile.
    """
    sequence, number = delivery.sequence or "", delivery.number or 0
    record = tx.destination(sequence)
    if record is None:
        return None
    now = party.now()
    state, _ = destination.step(record.state, destination.Released(1, len(delivery.body)), now)
    record = replace(record, state=state)
    tx.save_destination(record)
    row = None
    if answer is not None and record.ended is None:
        offered = tx.source(record.source) if record.source else None
        reply_number = None
        if offered is not None and not offered.state.ended:
            reply_state, actions = source.step(offered.state, source.Submit(), now)
            reply_number = next(action.number for action in actions if isinstance(action, Number))
            offered = replace(offered, state=reply_state)
            tx.save_source(offered)
        row = OutboxRow(
            message_id=party.new_id(),
            sequence_key=offered.state.key if offered and reply_number else None,
            number=reply_number,
            kind="reply",
            side=party.side,
            endpoint=party.realm,
            action=answer.action,
            body=answer.body,
            submitted=now.utc,
            due=None,
            relates_to=delivery.message_id,
            answers_sequence=sequence,
            answers_number=number,
            fault=answer.fault,
        )
        tx.enqueue(row)
    tx.update_inbox(sequence, number, status="done", reply_message_id=row.message_id if row else None)
    tx.trim_inbox(sequence, number - party.settings.limits.window_messages)
    return stored_reply(party, tx, record, row) if row else None


def stored_reply(party: Party, tx: Transaction, record: DestinationRecord, row: OutboxRow) -> Reply:
    """The message of a stored reply, with today's acknowledgement beside it."""
    edition = party.policy.reliability
    headers: tuple[Header, ...] = ()
    if edition is not None:
        offered = tx.source(row.sequence_key) if row.sequence_key else None
        if offered is not None and offered.state.identifier and row.number:
            headers = (
                reliability.Sequence(offered.state.identifier, row.number).render(edition),
            )
        headers += (acknowledgement_of(record, edition),)
    # A fault of the application is encrypted like any reply (RM-110).
    message = Outgoing(Kind.APPLICATION, row.action, row.body, headers, relates_to=row.relates_to)
    return Reply(message, 500 if row.fault else 200)


def acknowledgement_of(record: DestinationRecord, edition: Reliability) -> Header:
    """The current acknowledgement of a sequence (WS-RM 1.2, 3.9)."""
    state = record.state
    final = state.phase is not destination.Phase.OPEN
    return acknowledgement(state.identifier, Acknowledge(state.received.ranges, final), edition)


def acknowledgement_reply(record: DestinationRecord, edition: Reliability) -> Reply:
    """A stand-alone acknowledgement on an HTTP response."""
    message = Outgoing(
        Kind.ACKNOWLEDGEMENT,
        edition.action(Kind.ACKNOWLEDGEMENT.value),
        headers=(acknowledgement_of(record, edition),),
    )
    return Reply(message)


def offered_of(tx: Transaction, record: DestinationRecord) -> SourceRecord | None:
    """The reply sequence that was offered with this one."""
    return tx.source(record.source) if record.source else None
