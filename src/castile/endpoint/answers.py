"""What a client does with each kind of answer: action → rule.

The mirror of `handlers`: the same turn, the same proofs, the other direction. A response is
judged against the row whose exchange it came on, and by RelatesTo where it has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from castile.clock import Now
from castile.endpoint.alarms import alarm_of
from castile.endpoint.inbound import Inbound
from castile.endpoint.kinds import Kind, understood
from castile.endpoint.party import Party, reliability_log
from castile.endpoint.requests import request_digest
from castile.endpoint.turn import Turn, carry_out
from castile.errors import SecurityFailure, SOAPFault, Violation
from castile.messages import reliability, soap
from castile.protocol import destination, source
from castile.protocol.actions import Accept, Duplicate, Fail, Refuse
from castile.protocol.destination import Destination
from castile.store import Transaction
from castile.store.records import DestinationRecord, OutboxRow, ReplyRow, SourceRecord
from castile.versions import WSRM


@dataclass(frozen=True, slots=True)
class Answered:
    """What an answer changed, for whoever waits in this process."""

    replies: tuple[ReplyRow, ...] = ()
    acknowledged: tuple[str, ...] = ()
    """MessageIDs."""
    source: SourceRecord | None = None
    fault: SOAPFault | None = None
    """An authenticated fault that isn't the answer to a call."""

    def __add__(self, other: Answered) -> Answered:
        return Answered(
            self.replies + other.replies,
            self.acknowledged + other.acknowledged,
            other.source or self.source,
            other.fault or self.fault,
        )


Rule = Callable[[Turn, OutboxRow], Answered]


def answered(party: Party, tx: Transaction, inbound: Inbound, row: OutboxRow, now: Now) -> Answered:
    """The step of the walk in, at a client."""
    rule = RULES.get(inbound.kind)
    if rule is None or not understood(inbound.addressing.action, party.policy):
        raise Violation(f"a client doesn't take {inbound.kind.value}")
    turn = Turn(party, tx, inbound, now)
    turn.recheck()
    relates_to = inbound.addressing.relates_to
    if relates_to not in (None, row.message_id) and inbound.reliability.sequence is None:
        # Only a number of the offered sequence tells an answer that comes on another exchange.
        raise Violation("the answer relates to another message", expected=row.message_id, got=relates_to)
    return rule(turn, row)


def created(turn: Turn, row: OutboxRow) -> Answered:
    """CreateSequenceResponse: the sequence has a name, and waiting messages may go (F09)."""
    body = turn.body(reliability.CreateSequenceResponse)
    record = _own(turn, row)
    if row.kind != "create" or turn.inbound.addressing.relates_to not in (None, row.message_id):
        raise Violation("CreateSequenceResponse doesn't answer our CreateSequence")
    if body.accept is not None and body.accept.address != turn.party.to:
        raise Violation(
            "Accept/AcksTo isn't the address that CreateSequence went to (RM-15)",
            expected=turn.party.to,
            got=body.accept.address,
        )
    accepted = body.accept is not None and record.state.offered is not None
    event = source.Created(body.identifier, accepted, body.incomplete or "NoDiscard")
    state, actions = source.step(record.state, event, turn.now)
    if accepted and state.offered and turn.tx.destination(state.offered) is None:
        turn.tx.save_destination(
            DestinationRecord(
                Destination(
                    identifier=state.offered,
                    edition=state.edition,
                    context=state.context,
                    offered=body.identifier,
                    in_order=False,  # replies are told apart by the calls that they answer
                    idle_at=turn.now.utc,
                    dialect=state.dialect,
                ),
                turn.party.side,
                turn.party.realm,
                created=turn.now.utc,
                source=state.key,
            )
        )
    turn.carry_out(replace(record, state=state, destination=state.offered), actions)
    turn.tx.dequeue(row.message_id)
    turn.tx.wake(
        turn.now.utc, side=turn.party.side, endpoint=turn.party.realm, sequence_key=record.state.key
    )
    return Answered(source=turn.tx.source(record.state.key))


def application(turn: Turn, row: OutboxRow) -> Answered:
    """A reply, or the LastMessage of the reply sequence (1.0).

    The reply first: a request that it answers is gone before its acknowledgement is noted.
    """
    header, result = turn.inbound.reliability.sequence, Answered()
    if header is None:
        record = _own(turn, row)
        if record.destination is not None:
            raise SecurityFailure("a reply outside the offered sequence", part="wsrm:Sequence")
        result = _reply(turn, row.message_id)
        return result + _acknowledged(turn)
    offered = turn.destination(header.identifier, turn.inbound.kind)
    content = turn.inbound.content
    event = destination.Arrived(
        header.number,
        digest=hashlib.sha256(turn.inbound.verified.body_content).digest(),
        size=len(content),
        last_message=header.last_message,
        with_payload=header.last_message and bool(content),
    )
    state, actions = destination.step(offered.state, event, turn.now)
    for action in actions:
        match action:
            case Accept() if header.number != state.empty:
                # A stored reply is with the caller as far as the window is concerned.
                state, _ = destination.step(state, destination.Released(1, len(content)), turn.now)
                result += _reply(turn, turn.inbound.addressing.relates_to)
            case Duplicate():
                reliability_log.debug("reply %s came again", header.number)
            case Refuse(_, reason):
                reliability_log.warning("the peer's reply sequence is broken: %s", reason)
            case _:
                pass
    turn.tx.save_destination(replace(offered, state=state))
    return result + _acknowledged(turn)


def _reply(turn: Turn, relates_to: str | None) -> Answered:
    """Store the reply to a call of ours and forget the request: it is done (CL-44)."""
    request = turn.tx.outbox_row(relates_to) if relates_to else None
    if request is None:
        reliability_log.info("a reply relates to no open call")
        return Answered()
    fault = turn.inbound.body if isinstance(turn.inbound.body, SOAPFault) else None
    reply = ReplyRow(
        message_id=request.message_id,
        endpoint=request.endpoint,
        action=turn.inbound.addressing.action,
        # A fault is written anew: its codes are names in text, whose prefixes C14N doesn't keep.
        body=soap.render_fault(fault, turn.party.policy.soap) if fault else turn.inbound.content,
        received=turn.now.utc,
        fault=fault is not None,
        request_action=request.action,
        request_digest=request_digest(request.body) if request.key is not None else None,
        key=request.key,
    )
    turn.tx.save_reply(reply)
    turn.tx.dequeue(request.message_id)
    return Answered(replies=(reply,))


def acknowledgement(turn: Turn, _: OutboxRow) -> Answered:
    """An acknowledgement that rides on nothing."""
    return _acknowledged(turn)


def close_answered(turn: Turn, row: OutboxRow) -> Answered:
    """CloseSequenceResponse: what the peer has will not change any more (1.1)."""
    body = turn.body(reliability.CloseSequenceResponse)
    record = turn.source(body.identifier, Kind.CLOSE_SEQUENCE_RESPONSE)
    state, actions = source.step(record.state, source.CloseAnswered(), turn.now)
    turn.carry_out(replace(record, state=state), actions)
    turn.tx.dequeue(row.message_id)
    _end_offered(turn.tx, record, destination.Close(), turn.now)
    result = _acknowledged(turn)
    return result + Answered(source=turn.tx.source(record.state.key))


def terminate_answered(turn: Turn, row: OutboxRow) -> Answered:
    """TerminateSequenceResponse (1.1), or the peer's own TerminateSequence beside ours (1.0)."""
    record = _own(turn, row)
    if turn.inbound.kind is Kind.TERMINATE_SEQUENCE:
        offered = turn.body(reliability.TerminateSequence).identifier
        turn.destination(offered, Kind.TERMINATE_SEQUENCE)
    else:
        identifier = turn.body(reliability.TerminateSequenceResponse).identifier
        record = turn.source(identifier, Kind.TERMINATE_SEQUENCE_RESPONSE)
    result = _acknowledged(turn)
    current = turn.tx.source(record.state.key) or record
    if row.kind == "terminate":
        result += terminated(turn.tx, current, row, turn.now)
    return result


def terminated(tx: Transaction, record: SourceRecord, row: OutboxRow, now: Now) -> Answered:
    """Both sequences have ended. In 1.0 any HTTP answer to TerminateSequence says so."""
    state, actions = source.step(record.state, source.TerminateAnswered(), now)
    carry_out(tx, replace(record, state=state, ended=now.utc), actions, now)
    tx.dequeue(row.message_id)
    _end_offered(tx, record, destination.Terminate(), now)
    return Answered(source=tx.source(record.state.key))


def fault(turn: Turn, row: OutboxRow) -> Answered:
    """A secured fault: the application's answer to a call, or about a sequence (RM-86)."""
    body = turn.body(SOAPFault)
    edition = turn.party.policy.reliability
    about_sequence = edition is not None and body.subcode is not None and body.subcode[0] == edition.namespace
    if turn.inbound.reliability.sequence is not None:
        return application(turn, row)
    record = _own(turn, row)
    if row.kind == "create" and alarm_of(body, secured=True) is None:
        return _not_created(turn, record, body)
    if not about_sequence or body.subcode is None:
        result = _acknowledged(turn)
        if row.kind == "application" and row.two_way and alarm_of(body, secured=True) is None:
            return result + _reply(turn, row.message_id)
        return result + Answered(fault=body)
    if body.sequence not in (None, record.state.identifier):
        raise Violation("the fault is about another sequence", got=body.sequence)
    state, actions = source.step(record.state, source.Faulted(body.subcode[1], body.reason), turn.now)
    turn.carry_out(replace(record, state=state), actions)
    result = _acknowledged(turn)
    return result + Answered(source=turn.tx.source(record.state.key), fault=body)


def _not_created(turn: Turn, record: SourceRecord, body: SOAPFault) -> Answered:
    """CreateSequence was refused, by whatever name: only what the peer calls its own fault may pass."""
    reason = body.reason
    wanted = WSRM.get(body.subcode[0]) if body.subcode is not None else None
    if wanted is not None and wanted.namespace != record.state.edition:
        reason = f"this endpoint wants {wanted.name} ({reason})"  # RM-97
    event = source.Refused(reason, retry=body.code == "Receiver")
    state, actions = source.step(record.state, event, turn.now)
    turn.carry_out(replace(record, state=state), actions)
    return Answered(source=turn.tx.source(record.state.key), fault=body)


def _acknowledged(turn: Turn) -> Answered:
    """Acknowledgement headers: one-way messages are done, calls still wait for their reply."""
    done = turn.acknowledgements()
    for message_id in done:
        turn.tx.dequeue(message_id, one_way=True)
    return Answered(acknowledged=tuple(done))


def _own(turn: Turn, row: OutboxRow) -> SourceRecord:
    """Our sequence that this exchange is about, once the answer has proven its context."""
    record = turn.tx.source(row.sequence_key) if row.sequence_key else None
    if record is None:
        raise Violation("the answer is about a sequence that isn't here")
    turn.prove(record.state.context)
    return record


def _end_offered(
    tx: Transaction, record: SourceRecord, event: destination.Close | destination.Terminate, now: Now
) -> None:
    """The offered sequence ends with the one that offered it."""
    offered = tx.destination(record.destination) if record.destination else None
    if offered is None or offered.ended is not None:
        return
    state, actions = destination.step(offered.state, event, now)
    failed = any(isinstance(action, Fail) for action in actions)
    ended = now.utc if failed or isinstance(event, destination.Terminate) else None
    tx.save_destination(replace(offered, state=state, ended=ended))


RULES: Final[dict[Kind, Rule]] = {
    Kind.APPLICATION: application,
    Kind.LAST_MESSAGE: application,
    Kind.ACKNOWLEDGEMENT: acknowledgement,
    Kind.CREATE_SEQUENCE_RESPONSE: created,
    Kind.CLOSE_SEQUENCE_RESPONSE: close_answered,
    Kind.TERMINATE_SEQUENCE: terminate_answered,
    Kind.TERMINATE_SEQUENCE_RESPONSE: terminate_answered,
    Kind.FAULT: fault,
}
"""The whole of what a client understands as an answer."""
