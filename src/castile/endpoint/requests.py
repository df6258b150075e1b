"""What a client must get through: rows of the outbox, and the messages that they stand for.

Every function here runs inside one step of the store. CreateSequence, CloseSequence,
LastMessage and TerminateSequence are rows like any message: the same leases, the same
repetitions, the same recovery.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from castile.clock import Now
from castile.config import Timers
from castile.endpoint.contexts import keys_of, live
from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Outgoing
from castile.endpoint.party import Party, reliability_log
from castile.endpoint.replies import acknowledgement_of
from castile.endpoint.turn import acknowledgement, carry_out
from castile.errors import (
    Exchange,
    InDoubt,
    NotReliable,
    SecurityContextExpired,
    StoreDamaged,
    UsageError,
)
from castile.messages import reliability
from castile.messages.addressing import EPR
from castile.messages.security import SecurityTokenReference
from castile.messages.soap import Header
from castile.protocol import source
from castile.protocol.actions import Acknowledge, Number, SendClose, SendLastMessage, SendTerminate
from castile.protocol.conversation import Conversation
from castile.protocol.source import Source
from castile.store import UNCHANGED, Transaction
from castile.store.records import OutboxKind, OutboxRow, ReplyRow, SourceRecord
from castile.versions import Reliability

CONFIRMABLE: Final = 8
"""Attempts at a message whose signatures are remembered."""
KINDS: Final[dict[OutboxKind, Kind]] = {
    "application": Kind.APPLICATION,
    "create": Kind.CREATE_SEQUENCE,
    "close": Kind.CLOSE_SEQUENCE,
    "last": Kind.LAST_MESSAGE,
    "terminate": Kind.TERMINATE_SEQUENCE,
}


def new_sequence(party: Party, tx: Transaction, now: Now, name: str = "") -> SourceRecord:
    """A sequence that doesn't exist at the peer yet, and its CreateSequence."""
    edition = edition_of(party)
    state = Source(
        key=party.new_id("key"),
        edition=edition.namespace,
        offered=party.new_id("sequence") if party.policy.two_way else None,
        max_number=party.settings.max_message_number,
        idle_at=now.utc,
        dialect=party.policy.dialect,
    )
    record = SourceRecord(state, party.side, party.realm, name, created=now.utc)
    tx.save_source(record)
    _enqueue(party, tx, record, "create", None, now)
    return record


def submit(
    party: Party,
    tx: Transaction,
    key: str,
    action: str,
    body: bytes,
    now: Now,
    *,
    two_way: bool,
    own: bool,
    call: str | None = None,
) -> OutboxRow:
    """Number a message of the application and put it into the outbox: one step (ST-03).

    `own`: the calling thread sends it itself, so that it is due only if that fails. `call`: the
    caller's own key of the call.
    """
    record = source_record(tx, key)
    state, actions = source.step(record.state, source.Submit(), now)
    number = next(action.number for action in actions if isinstance(action, Number))
    tx.save_source(replace(record, state=state))
    opened = state.phase is not source.Phase.CREATING
    delay = party.settings.timers.retransmit_interval if own else 0.0
    row = OutboxRow(
        message_id=party.new_id(),
        sequence_key=key,
        number=number,
        kind="application",
        side=party.side,
        endpoint=party.realm,
        action=action,
        body=body,
        submitted=now.utc,
        due=now.utc + delay if opened else None,
        two_way=two_way,
        key=call,
    )
    tx.enqueue(row)
    if call is not None and not two_way:  # what is known of its key once it is acknowledged and gone
        tx.save_reply(
            ReplyRow(
                row.message_id,
                party.realm,
                ONE_WAY,
                b"",
                now.utc,
                request_action=action,
                request_digest=request_digest(body),
                key=call,
                consumed=now.utc,
            )
        )
    return row


def call_again(
    party: Party, tx: Transaction, call: str, action: str, body: bytes, *, two_way: bool
) -> OutboxRow | ReplyRow | None:
    """What an earlier call with this key left: the message under way, or what came of it (CL-31).

    None: the key is new. Raises `UsageError` if it belongs to another action or body.
    """
    row, reply = tx.outbox_by_key(party.realm, call), tx.reply_by_key(party.realm, call)
    if row is not None:
        same = (row.action, row.body, row.two_way) == (action, body, two_way)
    elif reply is not None:
        known = reply.request_digest or b""
        same = (reply.request_action, reply.action != ONE_WAY) == (action, two_way)
        same = same and hmac.compare_digest(known, request_digest(body))
    else:
        return None
    if not same:
        raise UsageError("this key= belongs to an earlier call with another action or body: give a new one")
    return row or reply


def why_in_doubt(record: SourceRecord) -> str | None:
    """Why nobody sends any more what is left in this sequence; None: it is under way."""
    return (record.state.reason or "its sequence has ended") if record.state.ended else None


def dismiss(tx: Transaction, message_id: str) -> bool:
    """Forget a message in doubt, with which somebody has dealt. False: it isn't in doubt."""
    row = tx.outbox_row(message_id)
    record = tx.source(row.sequence_key) if row is not None and row.sequence_key else None
    if row is None or record is None or not record.state.ended:
        return False
    tx.dequeue(message_id)
    if row.key is not None:  # a one-way message has this already
        tx.forget_reply(message_id)
    return True


def free_key(party: Party, tx: Transaction, call: str) -> bool:
    """The caller knows that this call has failed for good: its key may be used anew.

    False: it hasn't failed. The message itself stays for the operator.
    """
    row = tx.outbox_by_key(party.realm, call)
    record = tx.source(row.sequence_key) if row is not None and row.sequence_key else None
    if row is None or record is None or record.state.phase is not source.Phase.FAILED:
        return False
    tx.dequeue(row.message_id)
    tx.enqueue(replace(row, key=None))
    tx.forget_reply(row.message_id)
    return True


ONE_WAY: Final = ""
"""The action of the reply that stands for a one-way message with a key of its own."""


def request_digest(body: bytes) -> bytes:
    """What is kept of a request once it is answered, to know its body again."""
    return hashlib.sha256(body).digest()


def in_doubt(
    text: str,
    rows: Iterable[OutboxRow],
    numbers: tuple[int, ...] | None = None,
    exchange: Exchange | None = None,
) -> InDoubt:
    """The error that names `numbers`, or those of all `rows`, and what their messages were (RM-134)."""
    digests = {
        row.number: request_digest(row.body).hex()
        for row in rows
        if row.number is not None and (numbers is None or row.number in numbers)
    }
    numbers = tuple(digests) if numbers is None else numbers
    return InDoubt(text, numbers=numbers, digests=digests, exchange=exchange)


def bound(party: Party, tx: Transaction, key: str, now: Now) -> bool:
    """Whether a sequence that is being created needs no (other) security context.

    It keeps the one that its first CreateSequence went out under, also in the next process: under
    another one the same CreateSequence would be somebody else's (RM-17, RM-18).
    """
    if party.policy.application is None:
        return True
    record = source_record(tx, key)
    if record.state.phase is not source.Phase.CREATING or record.state.context is None:
        return record.state.context is not None
    state = live(party.context(tx, record.state.context))
    return state is not None and state.usable(now, party.settings.timers)


def bind(party: Party, tx: Transaction, row: OutboxRow, context: str | None, now: Now) -> bool:
    """The sequence belongs to this security context from now on (F07).

    False: it belonged to one that has ended. The peer may know the sequence under that one, so it
    is asked for another one, by another name, and this row is gone.
    """
    record = source_record(tx, row.sequence_key or "")
    if record.state.phase is not source.Phase.CREATING:
        return True
    again = record.state.context is not None and row.attempts > 0
    offered = party.new_id("sequence") if again and record.state.offered else record.state.offered
    record = replace(record, state=replace(record.state, context=context, offered=offered))
    tx.save_source(record)
    if again:
        tx.dequeue(row.message_id)
        _enqueue(party, tx, record, "create", None, now)
    return not again


def admit(party: Party, tx: Transaction, key: str, now: Now) -> None:
    """The turn of a sequence has come: its rows are due, and CreateSequence has its whole time."""
    for row in tx.outbox(key):
        if row.kind == "create":
            tx.dequeue(row.message_id)
            tx.enqueue(replace(row, submitted=now.utc, due=now.utc))
    tx.wake(now.utc, side=party.side, endpoint=party.realm, sequence_key=key)


def close(
    party: Party, tx: Transaction, key: str, now: Now, *, incomplete: bool = False
) -> tuple[SourceRecord, OutboxRow | None]:
    """Take the next step to the end of a sequence: Close or LastMessage, then Terminate.

    The row to send, or None where there is nothing to send now. Raises `UsageError` while
    messages are unacknowledged, unless `incomplete`.
    """
    record = source_record(tx, key)
    events: dict[source.Phase, source.Event] = {
        source.Phase.CREATING: source.GiveUp("it was closed before it was created"),
        source.Phase.OPEN: source.Close(incomplete),
        source.Phase.SUSPECT: source.Close(incomplete),
        source.Phase.CLOSED: source.Terminate(incomplete),
    }
    event = events.get(record.state.phase)
    if event is None:
        return record, None
    state, actions = source.step(record.state, event, now)
    record = replace(record, state=state)
    carry_out(tx, record, actions, now)
    row = None
    for action in actions:
        match action:
            case SendClose():
                row = _enqueue(party, tx, record, "close", None, now)
            case SendLastMessage(number):
                row = _enqueue(party, tx, record, "last", number, now)
            case SendTerminate():
                row = _enqueue(party, tx, record, "terminate", None, now)
            case _:
                pass
    return source_record(tx, key), row


def farewell(party: Party, tx: Transaction, key: str, now: Now) -> None:
    """A sequence was ended here by hand: its peer is told so with one TerminateSequence, best effort."""
    _enqueue(party, tx, source_record(tx, key), "terminate", None, now)


def outgoing(party: Party, tx: Transaction, row: OutboxRow | None, now: Now) -> Outgoing | None:
    """The message that a row stands for, with the acknowledgements of this moment.

    None: the row is gone, or waits for its sequence to be created. Raises
    `SecurityContextExpired` where its context doesn't even serve recovery any more (F12).
    """
    if row is None or row.sequence_key is None:
        return None
    record, edition = source_record(tx, row.sequence_key), edition_of(party)
    identifier = record.state.identifier
    if identifier is None and row.kind != "create":
        return None
    kind = KINDS[row.kind]
    context = _context(party, tx, record, now)
    expired = context is not None and not context.usable(now, party.settings.timers)
    headers = _headers(tx, record, row, edition, again=row.attempts > 0 or expired)
    if row.kind == "create" and record.state.context and party.policy.uses_sequence_str and edition.can_close:
        headers += (reliability.UsesSequenceSTR().render(edition),)
    anonymous_reply = row.two_way or (row.kind not in ("application", "last") and edition.can_close)
    return Outgoing(
        kind,
        row.action,
        _body(party, record, row, edition),
        headers,
        # As WCF: the LastMessage of 1.0 is an empty message that nothing relates to.
        message_id=None if row.kind == "last" else row.message_id,
        reply_expected=anonymous_reply or row.kind == "create",
        key=keys_of(context)[-1] if context is not None else None,
    )


def signed(tx: Transaction, message_id: str, values: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], ...]:
    """Keep the signatures of an attempt before it goes out, and give those of all that an answer
    may confirm: it may be to an earlier one (WSS 1.1.1, 8.5; MS-54)."""
    row = tx.outbox_row(message_id)
    attempts = (*(row.signatures or () if row is not None else ()), values)[-CONFIRMABLE:]
    tx.update_outbox(message_id, signatures=attempts)
    return attempts


def repeat_later(
    party: Party,
    tx: Transaction,
    message_id: str,
    now: Now,
    error: str | None,
    after: float | None = None,
    *,
    at_once: bool = False,
) -> None:
    """An attempt got no answer that ends the row: it is due again after the back-off (RM-57), or at
    once where something has changed since."""
    row = tx.outbox_row(message_id)
    if row is None:
        return
    attempts = row.attempts + 1
    timers = party.settings.timers
    wait = max(source.backoff(attempts, timers, party.jitter()), after or 0.0)
    wait = 0.0 if at_once else wait
    record = tx.source(row.sequence_key) if row.sequence_key else None
    ended = record is not None and record.state.ended
    if ended and row.kind == "terminate":  # a `farewell`, which is said once
        tx.dequeue(message_id)
        return
    tx.update_outbox(
        message_id,
        attempts=attempts,
        tried=now.utc if error is not None else UNCHANGED,
        due=None if ended else now.utc + wait,
        last_error=error if error is not None else row.last_error,
    )


def due(
    party: Party, tx: Transaction, now: Now, room: int, leased: set[str]
) -> tuple[list[OutboxRow], float | None]:
    """What is due now, besides what is being sent, and when more will be."""
    side, endpoint = party.side, party.realm
    rows = tx.due(now.utc, room, side=side, endpoint=endpoint, besides=leased)
    besides = leased | {row.message_id for row in rows}
    return rows, tx.next_due(side=side, endpoint=endpoint, besides=besides)


def oldest(party: Party, tx: Transaction, now: Now, leased: set[str]) -> list[OutboxRow]:
    """Of each sequence the oldest that isn't acknowledged, if it is due and isn't being sent."""
    records = tx.sources(side=party.side, endpoint=party.realm, owner=tx.owner, unfinished=True)
    rows = (tx.oldest(record.state.key) for record in records)
    return [
        row
        for row in rows
        if row is not None and row.due is not None and row.due <= now.utc and row.message_id not in leased
    ]


def overdue(party: Party, row: OutboxRow, now: Now) -> str | None:
    """Why this row is given up: its time is over (RM-58, RM-19). None: it isn't.

    What a store has taken was promised: its sequence may begin as late as its messages may go out.
    """
    timers, durable = party.settings.timers, party.store.location is not None
    limit = timers.give_up_durable if durable else timers.give_up_in_memory
    create = limit if durable else timers.create_timeout
    seconds = {"create": create, "terminate": timers.terminate_timeout}.get(row.kind, limit)
    if now.utc - row.submitted <= seconds:
        return None
    return f"{row.kind}: no answer in {seconds:g} s ({row.last_error})"


def patience(timers: Timers, kind: OutboxKind) -> float:
    """Seconds for one exchange of this kind, which the peer answers at once: it is soon asked again,
    so that one lost answer doesn't use up the time in which a sequence is to begin or end."""
    limits = {"create": timers.create_timeout, "terminate": timers.terminate_timeout}
    return limits.get(kind, timers.close_timeout) / 4


def give_up(tx: Transaction, key: str, reason: str, now: Now) -> SourceRecord:
    """The sequence has failed; nothing of it is dropped (RM-58)."""
    record = source_record(tx, key)
    state, actions = source.step(record.state, source.GiveUp(reason), now)
    carry_out(tx, replace(record, state=state), actions, now)
    return source_record(tx, key)


def source_record(tx: Transaction, key: str) -> SourceRecord:
    """The record of one of our sequences."""
    record = tx.source(key)
    if record is None:
        raise UsageError("the sequence isn't in this store any more")
    return record


def readable(tx: Transaction, key: str | None) -> SourceRecord | None:
    """The same; None: there is none, or its row is damaged, which ends it alone (R-6)."""
    try:
        return tx.source(key) if key else None
    except StoreDamaged as error:
        reliability_log.error("a sequence is lost: %s", error)
        return None


def edition_of(party: Party) -> Reliability:
    """The policy's edition of WS-ReliableMessaging."""
    if party.policy.reliability is None:
        raise NotReliable("the endpoint's policy has no reliable messaging")
    return party.policy.reliability


def _enqueue(
    party: Party, tx: Transaction, record: SourceRecord, kind: OutboxKind, number: int | None, now: Now
) -> OutboxRow:
    row = OutboxRow(
        message_id=party.new_id("lifecycle"),
        sequence_key=record.state.key,
        number=number,
        kind=kind,
        side=party.side,
        endpoint=party.realm,
        action=edition_of(party).action(KINDS[kind].value),
        body=b"",
        submitted=now.utc,
        due=now.utc,
    )
    tx.enqueue(row)
    return row


def _headers(
    tx: Transaction, record: SourceRecord, row: OutboxRow, edition: Reliability, *, again: bool
) -> tuple[Header, ...]:
    """The acknowledgement of the replies, then our own number, as WCF orders them.

    `again`: it is a repetition, or the recovery of what was numbered before its context ended.
    """
    headers: list[Header] = []
    offered = tx.destination(record.destination) if record.destination else None
    ending = row.kind in ("close", "terminate") and edition.can_close
    ending = ending and record.state.phase is not source.Phase.FAILED  # nobody closed it before
    if offered is not None and (offered.state.received or ending):
        final = Acknowledge(offered.state.received.ranges, final=True)
        headers.append(
            acknowledgement(offered.state.identifier, final, edition)
            if ending
            else acknowledgement_of(offered, edition)
        )
    identifier = record.state.identifier
    if identifier is None:
        return tuple(headers)
    if row.number is not None:
        numbered = reliability.Sequence(identifier, row.number, last_message=row.kind == "last")
        headers.append(numbered.render(edition))
        if again:  # every repetition asks what has come (RM-55)
            headers.append(reliability.AckRequested(identifier).render(edition))
    return tuple(headers)


def _body(party: Party, record: SourceRecord, row: OutboxRow, edition: Reliability) -> bytes:
    addressing, state = party.policy.addressing, record.state
    match row.kind:
        case "create":
            anonymous = EPR(addressing.anonymous)
            offer = None
            if state.offered is not None:
                endpoint = anonymous if edition.can_close else None
                offer = reliability.Offer(state.offered, endpoint)
            conversation, token = party.policy.conversation, None
            if state.context is not None and conversation is not None:
                token = SecurityTokenReference(uri=state.context, value_type=conversation.token_type)
            create = reliability.CreateSequence(anonymous, offer=offer, token=token)
            return create.render(edition, addressing)
        case "close":
            return reliability.CloseSequence(state.identifier or "", state.last).render(edition, addressing)
        case "terminate":
            last = state.last if edition.can_close else None
            return reliability.TerminateSequence(state.identifier or "", last).render(edition, addressing)
        case _:
            return row.body


def _context(party: Party, tx: Transaction, record: SourceRecord, now: Now) -> Conversation | None:
    """The sequence's context, if its newest key may still be used: None only where there is no
    security. Fails closed: nothing goes unprotected (CO-08)."""
    if party.policy.application is None:
        return None
    identifier, settings = record.state.context, party.settings
    state = live(party.context(tx, identifier)) if identifier else None
    if state is None:
        raise SecurityContextExpired("the sequence's security context is gone: nothing can be sent in it")
    if not state.recoverable(now, settings.timers, testing=settings.testing):
        raise SecurityContextExpired("the security context has expired, and so has the time for recovery")
    return state
