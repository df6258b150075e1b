"""What a service does with each kind of message: action → rule.

Every rule has one shape: load, prove, step, save, answer. It runs inside one step of the store;
nothing that it decides leaves before that step is committed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from castile.clock import Now
from castile.endpoint.binding import prove_possession
from castile.endpoint.inbound import Inbound
from castile.endpoint.kinds import Kind, understood
from castile.endpoint.outbound import Outgoing, Pending, Reply
from castile.endpoint.party import Party, reliability_log
from castile.endpoint.replies import (
    acknowledgement_of,
    acknowledgement_reply,
    offered_of,
    stored_reply,
)
from castile.endpoint.trust import cancel, issue, renew
from castile.endpoint.turn import (
    Turn,
    action_not_supported,
    destination_unreachable,
    other_edition,
    reliability_required,
)
from castile.errors import SOAPFault, Violation
from castile.messages import reliability
from castile.messages.addressing import EPR
from castile.messages.security import SecurityTokenReference
from castile.protocol import destination, issuer, source
from castile.protocol.actions import (
    Accept,
    Deliver,
    Discard,
    Drop,
    Duplicate,
    Fail,
    Incomplete,
    Refuse,
    SendLastMessage,
)
from castile.protocol.destination import Destination
from castile.protocol.faults import refuse_creation
from castile.protocol.source import Source
from castile.store import Transaction
from castile.store.records import DestinationRecord, InboxRow, SourceRecord
from castile.versions import Reliability


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message for the application."""

    party: Party = field(repr=False, compare=False)
    """The endpoint that took it: its editions are the answer's."""
    sequence: str | None
    number: int | None
    action: str
    body: bytes = field(repr=False)
    message_id: str | None
    principal: str | None
    two_way: bool
    redelivered: bool = False
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule decided: the answer, and what the application gets now."""

    answer: Reply | Pending
    deliveries: tuple[Delivery, ...] = ()
    elsewhere: bool = False
    """What the answer waits for may be made in another process."""


Rule = Callable[[Turn], Outcome]


def accept(party: Party, tx: Transaction, inbound: Inbound, now: Now) -> Outcome:
    """The step of the walk in: replay check, then the rule for this kind of message."""
    if inbound.problem is not None:
        Turn(party, tx, inbound, now).recheck()
        raise inbound.problem
    rule = RULES.get(inbound.kind)
    if not understood(inbound.addressing.action, party.policy):
        raise other_edition(party, inbound.addressing.action)
    if rule is None:
        raise Violation(
            f"a service doesn't take {inbound.kind.value}",
            fault=action_not_supported(party, inbound.addressing.action),
        )
    to = inbound.addressing.to
    if inbound.addressed and party.public_url is not None and to != party.public_url:
        raise Violation(
            "the message is for another address",
            expected=party.public_url,
            got=to,
            fault=destination_unreachable(party),
        )
    turn = Turn(party, tx, inbound, now)
    turn.recheck()
    for evidence in inbound.verified.evidences if not inbound.names_sequence else ():
        tx.reject_replay(evidence, inbound.verified.expires, now)
    return rule(turn)


def create_sequence(turn: Turn) -> Outcome:
    """CreateSequence (WS-RM 1.2, 3.4), bound to the context that signed it (F07, CO-03)."""
    party, body, edition = turn.party, turn.body(reliability.CreateSequence), turn.edition
    context = turn.context()
    _check_token(turn, body, context)
    prove_possession(turn.inbound.verified, Kind.CREATE_SEQUENCE, context)
    known = _known(turn, body)
    if known is not None:
        if known.state.context != context or known.state.dialect not in ("", party.policy.dialect):
            raise refuse_creation(edition.namespace, "the offered sequence is known under another context")
        return Outcome(Reply(_created(turn, known)))
    _check_addresses(turn, body)
    _check_caps(turn)
    turn.make_room()
    limits = party.settings.limits
    offer = body.offer if party.policy.two_way else None
    state = Destination(
        identifier=party.new_id("sequence"),
        edition=edition.namespace,
        context=context,
        offered=offer.identifier if offer else None,
        behavior=_behavior(body, edition),
        window_messages=limits.window_messages,
        window_bytes=limits.window_bytes,
        max_ranges=limits.acknowledgement_ranges,
        max_number=party.settings.max_message_number,
        idle_at=turn.now.utc,
        dialect=party.policy.dialect,
    )
    record = DestinationRecord(
        state=state,
        side=party.side,
        endpoint=party.realm,
        principal=turn.principal(),
        created=turn.now.utc,
        create_message_id=turn.inbound.addressing.message_id,
        source=offer.identifier if offer else None,
    )
    if offer:
        replies = Source(
            key=offer.identifier,
            edition=edition.namespace,
            identifier=offer.identifier,
            phase=source.Phase.OPEN,
            context=context,
            offered=state.identifier,
            idle_at=turn.now.utc,
            dialect=party.policy.dialect,
        )
        turn.tx.save_source(
            SourceRecord(replies, party.side, party.realm, created=turn.now.utc, destination=state.identifier)
        )
    turn.tx.save_destination(record)
    return Outcome(Reply(_created(turn, record)))


def _behavior(body: reliability.CreateSequence, edition: Reliability) -> str:
    """What happens to an incomplete sequence here: as WCF does it, to whoever does it too (RM-21)."""
    asked = body.offer.incomplete if body.offer is not None and edition.can_close else None
    return asked if asked == "DiscardFollowingFirstGap" else "NoDiscard"


def _known(turn: Turn, body: reliability.CreateSequence) -> DestinationRecord | None:
    """The sequence that a repetition of this CreateSequence made (RM-18)."""
    message_id, endpoint = turn.inbound.addressing.message_id, turn.party.realm
    known = turn.tx.destination_by_create(message_id, endpoint=endpoint) if message_id else None
    if known is None and body.offer:
        known = turn.tx.destination_by_offer(body.offer.identifier, endpoint=endpoint)
    return known


def _check_token(turn: Turn, body: reliability.CreateSequence, context: str | None) -> None:
    """The STR must lead to the context that signed the message (CO-03, CO-04, CO-06)."""
    namespace = turn.edition.namespace
    if body.token is not None:
        named = turn.inbound.verified.resolve_context(body.token)
        if named is None or named != context or not _fits(turn, body.token):
            raise refuse_creation(namespace, "the SecurityTokenReference isn't of the context that signed")
        return
    if turn.inbound.reliability.uses_sequence_str:
        raise refuse_creation(namespace, "UsesSequenceSTR without a SecurityTokenReference")
    if turn.party.policy.sequence_token == "require":
        raise refuse_creation(namespace, "this endpoint wants a SecurityTokenReference in CreateSequence")


def _fits(turn: Turn, token: SecurityTokenReference) -> bool:
    """Type and Instance of a reference, where it has them, are those of the signer's context."""
    conversation, record = turn.party.policy.conversation, turn.context_record()
    if conversation is None or token.value_type not in (None, conversation.token_type):
        return False
    instances = record.state.instances if record is not None else ()
    return token.instance is None or any(each.instance == token.instance for each in instances)


def _check_addresses(turn: Turn, body: reliability.CreateSequence) -> None:
    """Only the back channel is spoken to: nothing is ever connected to on a peer's word (RE-40)."""
    namespace, anonymous = turn.edition.namespace, turn.party.policy.addressing.anonymous
    addresses = [body.acks_to, turn.inbound.addressing.reply_to]
    if body.offer:
        addresses.append(body.offer.endpoint)
    for address in addresses:
        if address is not None and address.address != anonymous:
            raise refuse_creation(namespace, "AcksTo, ReplyTo and Offer/Endpoint must be anonymous here")
    if body.offer and turn.tx.source_of(body.offer.identifier, side=turn.party.side) is not None:
        raise refuse_creation(namespace, "the offered identifier is taken")


def _check_caps(turn: Turn) -> None:
    limits, side = turn.party.settings.limits, turn.party.side
    principal = turn.principal()
    if turn.tx.count_destinations(side) >= limits.sequences:
        raise refuse_creation(turn.edition.namespace, "too many sequences in all", busy=True)
    own = turn.tx.count_destinations(side, principal) if principal else 0
    if own >= limits.sequences_per_principal:
        raise refuse_creation(turn.edition.namespace, "too many sequences of this principal", busy=True)


def _created(turn: Turn, record: DestinationRecord) -> Outgoing:
    edition, addressing = turn.edition, turn.party.policy.addressing
    response = reliability.CreateSequenceResponse(
        record.state.identifier,
        incomplete=record.state.behavior if edition.can_close else None,
        # Byte for byte where CreateSequence went (WCF's R1112).
        accept=EPR(turn.inbound.addressing.to or turn.party.address) if record.source else None,
    )
    return turn.response(Kind.CREATE_SEQUENCE_RESPONSE, response.render(edition, addressing))


def application(turn: Turn) -> Outcome:
    """A message for the application: in a sequence, or plain where the policy allows it."""
    headers, policy = turn.inbound.reliability, turn.party.policy
    if headers.sequence is None:
        if policy.reliability is not None:
            fault = reliability_required(turn.party, turn.inbound.addressing.action)
            raise Violation("a message without a sequence on a reliable endpoint", fault=fault)
        return _plain(turn)
    record = turn.destination(headers.sequence.identifier, turn.inbound.kind)
    turn.acknowledgements()
    turn.check_requested()
    number = headers.sequence.number
    digest = hashlib.sha256(turn.inbound.verified.body_content).digest()
    known = turn.tx.inbox_row(record.state.identifier, number) if number in record.state.received else None
    last = headers.sequence.last_message
    event = destination.Arrived(
        number,
        digest=digest,
        size=len(turn.inbound.content),
        last_message=last,
        known_digest=known.digest if known else None,
        with_payload=last and bool(turn.inbound.content),
    )
    state, actions = destination.step(record.state, event, turn.now)
    record = replace(record, state=state)
    answer: Reply | Pending | None = None
    deliveries: list[Delivery] = []
    two_way = turn.wants_reply()
    for action in actions:
        match action:
            case Accept() if number != state.empty:
                turn.tx.accept(_inbox_row(turn, record, digest, two_way, held=Deliver(number) not in actions))
                if two_way:
                    answer = Pending(state.identifier, number)
            case Deliver(ready):
                deliveries.append(_delivery(turn, record, ready))
            case Duplicate():
                answer = _repeated(turn, record, number)
            case Drop(_, reason):
                reliability_log.info("no room for message %s: %s", number, reason)
            case Refuse(fault, reason):
                reliability_log.warning("refused in %s: %s", state.identifier, reason)
                answer = Reply(turn.fault(fault, (acknowledgement_of(record, turn.edition),)), 500)
            case Fail():
                record = replace(record, ended=turn.now.utc)
            case _:
                pass
    record, ready_here = _dispatched(turn, record, deliveries)
    turn.tx.save_destination(record)
    done = answer is None or (isinstance(answer, Reply) and answer.status == 200)
    if done and turn.inbound.kind is Kind.LAST_MESSAGE:
        # Only to LastMessage itself: CXF marks its last application message, and hears no
        # acknowledgement that rides on a LastMessage.
        answer = _last_message(turn, record)
    # One that waits for an earlier message is handed on by whoever gets that.
    elsewhere = record.owner != turn.tx.owner or number > state.delivered
    outcome = answer or acknowledgement_reply(record, turn.edition)
    return Outcome(outcome, ready_here, elsewhere and isinstance(answer, Pending))


def _dispatched(
    turn: Turn, record: DestinationRecord, deliveries: list[Delivery]
) -> tuple[DestinationRecord, tuple[Delivery, ...]]:
    """Who hands a sequence's messages to the application: one process at a time, for their order.

    That is this one, unless another has not done earlier ones yet: then it comes to these after
    them (`Dispatcher`).
    """
    if deliveries and record.owner not in (0, turn.tx.owner):
        undone = turn.tx.inbox(sequence=record.state.identifier, limit=1)
        if undone and undone[0].number < (deliveries[0].number or 0):
            return record, ()
    return (replace(record, owner=turn.tx.owner) if deliveries else record), tuple(deliveries)


def _plain(turn: Turn) -> Outcome:
    delivery = Delivery(
        turn.party,
        None,
        None,
        turn.inbound.addressing.action,
        turn.inbound.content,
        turn.inbound.addressing.message_id,
        turn.principal(),
        turn.wants_reply(),
    )
    return Outcome(Pending("", 0), (delivery,))


def _inbox_row(
    turn: Turn, record: DestinationRecord, digest: bytes, two_way: bool, *, held: bool
) -> InboxRow:
    sequence = turn.inbound.reliability.sequence
    headers = turn.inbound.addressing
    return InboxRow(
        sequence=record.state.identifier,
        number=sequence.number if sequence else 0,
        side=turn.party.side,
        endpoint=turn.party.realm,
        action=headers.action,
        body=turn.inbound.content,
        received=turn.now.utc,
        message_id=headers.message_id,
        relates_to=headers.relates_to,
        two_way=two_way,
        principal=record.principal,
        digest=digest,
        status="held" if held else "ready",
    )


def _delivery(turn: Turn, record: DestinationRecord, number: int) -> Delivery:
    """The message as the application gets it: this one, or one that was held for it."""
    sequence = turn.inbound.reliability.sequence
    if sequence is not None and sequence.number == number:
        return Delivery(
            turn.party,
            record.state.identifier,
            number,
            turn.inbound.addressing.action,
            turn.inbound.content,
            turn.inbound.addressing.message_id,
            record.principal,
            turn.wants_reply(),
        )
    row = turn.tx.inbox_row(record.state.identifier, number)
    if row is None:
        raise Violation(f"message {number} was accepted and isn't stored")
    turn.tx.update_inbox(record.state.identifier, number, status="ready")
    return delivery_of(turn.party, row)


def delivery_of(party: Party, row: InboxRow, *, redelivered: bool = False) -> Delivery:
    """A stored message as the application gets it."""
    return Delivery(
        party,
        row.sequence,
        row.number,
        row.action,
        row.body,
        row.message_id,
        row.principal,
        row.two_way,
        redelivered,
        row.attempts,
    )


def _repeated(turn: Turn, record: DestinationRecord, number: int) -> Reply | Pending | None:
    """The answer to a number that was accepted before: the same reply, or wait with it."""
    reply = turn.tx.reply_to(record.state.identifier, number)
    if reply is not None:
        return stored_reply(turn.party, turn.tx, record, reply)
    row = turn.tx.inbox_row(record.state.identifier, number)
    if row is not None and row.two_way and row.status != "done":
        return Pending(record.state.identifier, number)
    return None


def _last_message(turn: Turn, record: DestinationRecord) -> Reply:
    """LastMessage is answered by the last message of the reply sequence (1.0; WCF), once everything
    in that is acknowledged; before, by the acknowledgement that any message gets."""
    replies = offered_of(turn.tx, record)
    acknowledgement = acknowledgement_of(record, turn.edition)
    if replies is None or replies.state.identifier is None:
        return acknowledgement_reply(record, turn.edition)
    number = replies.state.last_message
    if number is None and not replies.state.unacknowledged and not replies.state.ended:
        state, actions = source.step(replies.state, source.Close(), turn.now)
        turn.carry_out(replace(replies, state=state), actions)
        number = next((each.number for each in actions if isinstance(each, SendLastMessage)), None)
    if number is None:
        return acknowledgement_reply(record, turn.edition)
    header = reliability.Sequence(replies.state.identifier, number, last_message=True).render(turn.edition)
    return Reply(turn.response(Kind.LAST_MESSAGE, b"", (header, acknowledgement)))


def acknowledgement(turn: Turn) -> Outcome:
    """A stand-alone acknowledgement: nothing to answer."""
    turn.acknowledgements()
    return Outcome(Reply.nothing())


def ack_requested(turn: Turn) -> Outcome:
    """AckRequested on its own (WS-RM 1.2, 3.8)."""
    turn.acknowledgements()
    requested = turn.inbound.reliability.ack_requested
    if not requested:
        raise Violation("an AckRequested message without the header")
    records = [turn.destination(header.identifier, Kind.ACK_REQUESTED) for header in requested]
    for record in records:
        destination.step(record.state, destination.AckRequested(), turn.now)
    headers = tuple(acknowledgement_of(record, turn.edition) for record in records)
    message = turn.response(Kind.ACKNOWLEDGEMENT, b"", headers)
    return Outcome(Reply(replace(message, relates_to=None)))  # it answers no message: so WCF


def close_sequence(turn: Turn) -> Outcome:
    """CloseSequence (WS-RM 1.2, 3.5): answered with the final acknowledgement."""
    body = turn.body(reliability.CloseSequence)
    record = turn.destination(body.identifier, Kind.CLOSE_SEQUENCE)
    replies = offered_of(turn.tx, record)
    if replies is not None:
        state, actions = source.step(replies.state, source.PeerClosed(), turn.now)
        turn.carry_out(replace(replies, state=state), actions)
    turn.acknowledgements()
    record, deliveries, refusal = _end(turn, record, destination.Close(body.last))
    turn.tx.save_destination(record)
    if refusal is not None:
        return Outcome(refusal, deliveries)
    response = reliability.CloseSequenceResponse(body.identifier).render(
        turn.edition, turn.party.policy.addressing
    )
    header = acknowledgement_of(record, turn.edition)
    return Outcome(Reply(turn.response(Kind.CLOSE_SEQUENCE_RESPONSE, response, (header,))), deliveries)


def terminate_sequence(turn: Turn) -> Outcome:
    """TerminateSequence (WS-RM 1.2, 3.6); in 1.0 the offered one is ended on the way back."""
    body, edition = turn.body(reliability.TerminateSequence), turn.edition
    record = turn.destination(body.identifier, Kind.TERMINATE_SEQUENCE)
    turn.acknowledgements()
    record, deliveries, refusal = _end(turn, record, destination.Terminate(body.last))
    turn.tx.save_destination(replace(record, ended=record.ended or turn.now.utc))
    if refusal is not None:
        return Outcome(refusal, deliveries)
    replies = _end_replies(turn, record)
    header = acknowledgement_of(record, edition)
    addressing = turn.party.policy.addressing
    if edition.can_close:
        response = reliability.TerminateSequenceResponse(body.identifier).render(edition, addressing)
        answer = turn.response(Kind.TERMINATE_SEQUENCE_RESPONSE, response, (header,))
        return Outcome(Reply(answer), deliveries)
    if replies is None or replies.state.identifier is None:
        return Outcome(Reply.nothing(), deliveries)
    ours = reliability.TerminateSequence(replies.state.identifier).render(edition, addressing)
    # A message of its own that answers nothing, as WCF's.
    theirs = replace(turn.response(Kind.TERMINATE_SEQUENCE, ours, (header,)), relates_to=None)
    return Outcome(Reply(theirs), deliveries)


def _end(
    turn: Turn, record: DestinationRecord, event: destination.Close | destination.Terminate
) -> tuple[DestinationRecord, tuple[Delivery, ...], Reply | None]:
    """What Close and Terminate have in common: what is still held is delivered or discarded."""
    state, actions = destination.step(record.state, event, turn.now)
    record = replace(record, state=state)
    deliveries: list[Delivery] = []
    refusal = None
    for action in actions:
        match action:
            case Deliver(number):
                deliveries.append(_delivery(turn, record, number))
            case Discard(ranges):
                for lower, upper in ranges:
                    for number in range(lower, upper + 1):
                        turn.tx.update_inbox(state.identifier, number, status="done")
            case Incomplete(missing):
                reliability_log.warning("%s ends without %s", state.identifier, missing)
            case Refuse(fault, reason):
                reliability_log.warning("refused in %s: %s", state.identifier, reason)
                refusal = Reply(turn.fault(fault, (acknowledgement_of(record, turn.edition),)), 500)
            case Fail():
                record = replace(record, ended=turn.now.utc)
            case _:
                pass
    return *_dispatched(turn, record, deliveries), refusal


def _end_replies(turn: Turn, record: DestinationRecord) -> SourceRecord | None:
    """The reply sequence ends with the one that offered it."""
    replies = offered_of(turn.tx, record)
    if replies is not None and replies.ended is None:
        state, actions = source.step(replies.state, source.PeerTerminated(), turn.now)
        turn.carry_out(replace(replies, state=state), actions)  # which marks it as ended
    return replies


def fault(turn: Turn) -> Outcome:
    """A fault that a client sends: about our reply sequence, if it proves its context."""
    body, identifier = turn.inbound.body, None
    if isinstance(body, SOAPFault):
        identifier = body.sequence
    if identifier is None or not isinstance(body, SOAPFault):
        raise Violation("a fault that names no sequence")
    record = turn.source(identifier, Kind.FAULT)
    code = body.subcode[1] if body.subcode else body.code
    state, actions = source.step(record.state, source.Faulted(code, body.reason), turn.now)
    turn.carry_out(replace(record, state=state), actions)
    return Outcome(Reply.nothing())


def _issue(turn: Turn) -> Outcome:
    return Outcome(Reply(issue(turn)))


def _renew(turn: Turn) -> Outcome:
    return Outcome(Reply(renew(turn)))


def _cancel(turn: Turn) -> Outcome:
    answer, actions = cancel(turn)
    deliveries: list[Delivery] = []
    for action in actions:
        if isinstance(action, issuer.EndSequences):
            deliveries += _end_bound(turn, action.identifier)
    return Outcome(Reply(answer), tuple(deliveries))


def _end_bound(turn: Turn, context: str) -> list[Delivery]:
    """Without its context a sequence can't be named any more: it ends as by Terminate, and what
    was acknowledged stays known for the retention time (CO-17)."""
    deliveries: list[Delivery] = []
    party = turn.party
    records = turn.tx.destinations(
        side=party.side, endpoint=party.realm, principal=turn.principal(), unfinished=True
    )
    for record in records:
        if record.state.context != context:
            continue
        record, ready, _ = _end(turn, record, destination.Terminate())
        deliveries += ready
        turn.tx.save_destination(replace(record, ended=turn.now.utc))
        _end_replies(turn, record)
    return deliveries


RULES: Final[dict[Kind, Rule]] = {
    Kind.APPLICATION: application,
    Kind.LAST_MESSAGE: application,
    Kind.CREATE_SEQUENCE: create_sequence,
    Kind.ACKNOWLEDGEMENT: acknowledgement,
    Kind.ACK_REQUESTED: ack_requested,
    Kind.CLOSE_SEQUENCE: close_sequence,
    Kind.TERMINATE_SEQUENCE: terminate_sequence,
    Kind.FAULT: fault,
    Kind.ISSUE: _issue,
    Kind.RENEW: _renew,
    Kind.CANCEL: _cancel,
}
"""The whole of what a service understands."""
