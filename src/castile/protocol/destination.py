"""The receiver of a sequence: what is accepted, delivered and acknowledged, and how it ends.

One machine serves the service's request sequences and the client's offered ones, in both
editions. `TRANSITIONS` says what may happen when; `step` says what then. Possession of the
sequence's context was proved before (F08): every event here comes from the sequence's owner.

*Accepted* means: to be stored in the transaction of this step, acknowledged from then on for
ever (WS-RM 1.2, 2.3), delivered once. In order, a message after a gap is accepted and held until
the gap is filled; what is held or handed on but not done yet fills the window.

A refusal that changes the state, or goes out beside an acknowledgement, is a `Refuse` action,
because the step must commit; any other is raised as `Violation` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from hmac import compare_digest
from typing import Final

from castile.clock import Now
from castile.errors import Malformed, Violation
from castile.protocol.actions import (
    Accept,
    Acknowledge,
    Deliver,
    DestinationAction,
    Discard,
    Drop,
    Duplicate,
    Fail,
    Incomplete,
    Refuse,
)
from castile.protocol.faults import rm_violation, rollover_detail, unknown_sequence
from castile.protocol.ranges import EMPTY, MAX_NUMBER, Range, RangeSet
from castile.versions import WSRM

BEHAVIORS: Final = ("NoDiscard", "DiscardFollowingFirstGap", "DiscardEntireSequence")
"""IncompleteSequenceBehavior (WS-RM 1.2, 3.4)."""


class Phase(Enum):
    """Where a destination stands."""

    OPEN = "open"
    CLOSED = "closed"
    """Accepts nothing new; every acknowledgement is final."""
    TERMINATED = "terminated"
    FAILED = "failed"
    """Ended by an error; later messages are answered SequenceTerminated."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The whole state of a sequence at its receiver; it is the store's record."""

    identifier: str
    edition: str
    """Namespace of WS-RM, a key of `versions.WSRM`."""
    phase: Phase = Phase.OPEN
    context: str | None = None
    """Identifier of the security context that it is bound to (CO-10)."""
    offered: str | None = None
    """Identifier of the sequence in the other direction."""
    in_order: bool = True
    behavior: str = "NoDiscard"
    """What we announced for an incomplete sequence, one of `BEHAVIORS`."""
    received: RangeSet = EMPTY
    """Everything that was accepted."""
    delivered: int = 0
    """In order: the highest number handed on. Else: how many were."""
    last: int | None = None
    """LastMsgNumber of CloseSequence, or the number of the message with LastMessage (1.0)."""
    empty: int | None = None
    """Number of a LastMessage without content: it counts, and is not delivered."""
    waiting_messages: int = 0
    """Accepted, and not yet done with: held, or with the application."""
    waiting_bytes: int = 0
    window_messages: int = 64
    window_bytes: int = 8 << 20
    max_ranges: int = 128
    max_number: int = MAX_NUMBER
    reason: str | None = None
    """Why it has failed."""
    idle_at: float = 0.0
    """UTC: nothing was heard from the peer since then."""
    expires: float | None = None
    """UTC: the sequence ends by itself then; None is never (WS-RM 1.2, 3.4)."""
    dialect: str = ""
    """Editions that all its messages are in, by name; "" for whatever the endpoint speaks."""

    @property
    def final(self) -> bool:
        """True when the acknowledgement will not change any more (1.1 says so: RM-43)."""
        return self.phase is not Phase.OPEN and WSRM[self.edition].can_close

    @property
    def ended(self) -> bool:
        """True when nothing more is answered but repetitions."""
        return self.phase in (Phase.TERMINATED, Phase.FAILED)

    @property
    def missing(self) -> tuple[Range, ...]:
        """What has not come, as far as the end is known: the gaps up to the last number."""
        return self.received.gaps(self.last if self.last is not None else self.received.upper)

    @property
    def held(self) -> int:
        """How many messages are accepted and not handed on yet, because of a gap."""
        return self._undelivered.count if self._orderly else 0

    @property
    def room(self) -> int:
        """How many more messages fit into the window (``netrm:BufferRemaining``)."""
        return max(0, self.window_messages - self.waiting_messages)

    @property
    def _orderly(self) -> bool:
        """Discarding a whole sequence means to hand on nothing before it is complete."""
        return self.in_order or self.behavior == "DiscardEntireSequence"

    @property
    def _undelivered(self) -> RangeSet:
        """Of an orderly sequence: the accepted messages that were not handed on."""
        after = self.received.difference(RangeSet.upto(self.delivered))
        return after.difference(RangeSet(((self.empty, self.empty),))) if self.empty else after


@dataclass(frozen=True, slots=True)
class Arrived:
    """A numbered message.

    `digest` is of its decrypted application payload, `known_digest` of the one accepted under
    the same number, where that is still known. `last_message`: the Sequence header has
    LastMessage (1.0); such a message is empty unless `with_payload`.
    """

    number: int
    digest: bytes | None = None
    size: int = 0
    """Bytes that it takes up while it waits."""
    last_message: bool = False
    known_digest: bytes | None = None
    with_payload: bool = False


@dataclass(frozen=True, slots=True)
class AckRequested:
    """The source asks what has come (WS-RM 1.2, 3.8)."""


@dataclass(frozen=True, slots=True)
class Close:
    """CloseSequence (1.1), or the sequence is closed together with its twin."""

    last: int | None = None
    """LastMsgNumber; None: the source doesn't say."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """TerminateSequence; closes as well where that was not done."""

    last: int | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """The application is done with messages: they don't fill the window any more."""

    count: int = 1
    size: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """Ended from this side: inactivity, expiry, a cancelled context, the operator."""

    reason: str


@dataclass(frozen=True, slots=True)
class Broken:
    """Made by the machine: the source broke a rule that ends the sequence (RM-90, RM-98)."""

    reason: str
    fault: str = "SequenceTerminated"


Event = Arrived | AckRequested | Close | Terminate | Released | Ended | Broken

TRANSITIONS: Final[dict[tuple[Phase, type[Event]], Phase]] = {
    (Phase.OPEN, Arrived): Phase.OPEN,
    (Phase.OPEN, AckRequested): Phase.OPEN,
    (Phase.OPEN, Close): Phase.CLOSED,
    (Phase.OPEN, Terminate): Phase.TERMINATED,
    (Phase.OPEN, Released): Phase.OPEN,
    (Phase.OPEN, Ended): Phase.FAILED,
    (Phase.OPEN, Broken): Phase.FAILED,
    (Phase.CLOSED, Arrived): Phase.CLOSED,  # refused below, with the final acknowledgement
    (Phase.CLOSED, AckRequested): Phase.CLOSED,
    (Phase.CLOSED, Close): Phase.CLOSED,
    (Phase.CLOSED, Terminate): Phase.TERMINATED,
    (Phase.CLOSED, Released): Phase.CLOSED,
    (Phase.CLOSED, Ended): Phase.TERMINATED,  # its result stands already
    (Phase.CLOSED, Broken): Phase.FAILED,
    (Phase.TERMINATED, Close): Phase.TERMINATED,  # repeated: the same answer (RM-77)
    (Phase.TERMINATED, Terminate): Phase.TERMINATED,
    (Phase.TERMINATED, Released): Phase.TERMINATED,
    (Phase.TERMINATED, Ended): Phase.TERMINATED,
    (Phase.FAILED, Released): Phase.FAILED,
    (Phase.FAILED, Ended): Phase.FAILED,
}
"""What may happen when, and the phase it leads to. A missing pair is an error: `_illegal`."""

Step = tuple[Destination, tuple[DestinationAction, ...]]


def step(state: Destination, event: Event, now: Now) -> Step:
    """The state after `event`, and what is to be done, in order.

    Raises, with nothing changed, `Violation` (or `Malformed`, for a number that is none) with
    the fault to send.
    """
    phase = TRANSITIONS.get((state.phase, type(event)))
    if phase is None:
        raise _illegal(state, event)
    match event:
        case Arrived():
            return _arrived(replace(state, idle_at=now.utc), event, now)
        case AckRequested():
            return _acknowledged(replace(state, idle_at=now.utc))
        case Close(last) | Terminate(last):
            return _closed(replace(state, idle_at=now.utc), phase, last, now)
        case Released(count, size):
            messages = max(0, state.waiting_messages - count)
            left = max(0, state.waiting_bytes - size) if messages else 0
            return replace(state, waiting_messages=messages, waiting_bytes=left), ()
        case Ended(reason):
            if phase is not Phase.FAILED or state.phase is Phase.FAILED:
                return replace(state, phase=phase), ()
            return replace(state, phase=phase, reason=reason), (Fail(reason),)
        case Broken(reason, fault):
            error = rm_violation(state.edition, fault, reason, identifier=state.identifier)
            state = replace(state, phase=phase, reason=reason)
            return state, (Refuse(error.fault, reason), Fail(reason))


def _arrived(state: Destination, event: Arrived, now: Now) -> Step:
    number = event.number
    if number < 1:
        raise Malformed(f"MessageNumber {number} is no message number")
    if number > state.max_number:
        raise rm_violation(
            state.edition,
            "MessageNumberRollover",
            f"message {number} is above this side's limit of {state.max_number}",
            identifier=state.identifier,
            detail=rollover_detail(state.edition, state.identifier, state.max_number),
            number=number,
        )
    if number in state.received:
        return _repeated(state, event, now)
    if broken := _beyond(state, event):
        return step(state, broken, now)
    if state.phase is Phase.CLOSED:
        return _late(state, number)
    if reason := _no_room(state, event):
        return state, (Drop(number, reason), _acknowledgement(state))
    return _accepted(state, event)


def _repeated(state: Destination, event: Arrived, now: Now) -> Step:
    """The number decides, not the MessageID; its payload must be the same (RM-32)."""
    known, digest = event.known_digest, event.digest
    if known is not None and digest is not None and not compare_digest(known, digest):
        return step(state, Broken(f"message {event.number} came again with another payload"), now)
    return state, (Duplicate(event.number), _acknowledgement(state))


def _beyond(state: Destination, event: Arrived) -> Broken | None:
    """The source contradicts its own last number (RE-82; WS-RM 1.0, 4: one LastMessage)."""
    fault = "SequenceTerminated"
    if WSRM[state.edition].has_last_message:
        fault = "LastMessageNumberExceeded"
    if state.last is not None and event.number > state.last:
        return Broken(f"message {event.number} is above the last number, {state.last}", fault)
    if event.last_message and (state.last is not None or event.number < state.received.upper):
        return Broken(f"message {event.number} can't be the last one", fault)
    return None


def _late(state: Destination, number: int) -> Step:
    """Nothing new after closing; 1.0 has no fault of its own for that (WS-RM 1.2, 4.7)."""
    reason = f"message {number} came after the sequence was closed"
    name = "SequenceClosed" if WSRM[state.edition].can_close else "SequenceTerminated"
    error = rm_violation(state.edition, name, reason, identifier=state.identifier, number=number)
    return state, (Refuse(error.fault, reason), _acknowledgement(state))


def _no_room(state: Destination, event: Arrived) -> str | None:
    """Why there is no room for a new message; None if there is (RM-34, RM-47).

    After a gap a place, and an eighth of the bytes, stay free for the message that fills it: a
    window full of held messages would never move again. That message itself is taken whenever
    the application has nothing else to do.
    """
    # Until the first message has come a range stays free for it, or it might never be taken.
    reserved = state._orderly and not state.delivered and event.number != 1
    if len(state.received.add(event.number).ranges) > state.max_ranges - reserved:
        return f"more than {state.max_ranges} ranges"
    messages, size = state.window_messages, state.window_bytes
    if state._orderly and event.number != state.delivered + 1:
        messages, size = messages - 1, size - size // 8
    elif state.waiting_messages == state.held:
        return None
    if state.waiting_messages >= messages:
        return f"{state.waiting_messages} messages are waiting"
    if state.waiting_bytes + event.size > size:
        return f"{state.waiting_bytes} bytes are waiting"
    return None


def _accepted(state: Destination, event: Arrived) -> Step:
    number = event.number
    empty = event.last_message and not event.with_payload
    state = replace(
        state,
        received=state.received.add(number),
        last=number if event.last_message else state.last,
        empty=number if empty else state.empty,
        waiting_messages=state.waiting_messages + (not empty),
        waiting_bytes=state.waiting_bytes + (0 if empty else event.size),
    )
    if not state._orderly:
        ready: Iterable[int] = () if empty else (number,)
        state = replace(state, delivered=state.delivered + (not empty))
    elif state.behavior == "DiscardEntireSequence":
        ready = ()
    else:
        run = state.received.run_from(state.delivered + 1)
        ready = (each for each in run if each != state.empty)
        state = replace(state, delivered=run.stop - 1)
    return state, (Accept(number), *map(Deliver, ready), _acknowledgement(state))


def _closed(state: Destination, phase: Phase, last: int | None, now: Now) -> Step:
    """Close and Terminate: the same questions, the same answer (RM-72, RM-73)."""
    known = state.last
    if last is not None and (last < state.received.upper or (known is not None and last != known)):
        if state.phase is Phase.TERMINATED:
            raise _terminated(state)
        expected = known if known is not None else state.received.upper
        return step(state, Broken(f"the last number is {last} now, and {expected} is known"), now)
    before = state.phase
    state = replace(state, phase=phase, last=known if last is None else last)
    if before is not Phase.OPEN:
        return _acknowledged(state)
    state, actions = _settle(state)
    return state, (*actions, _acknowledgement(state))


def _settle(state: Destination) -> Step:
    """Closing: deliver what is still held, or discard it, as was announced (RM-21)."""
    actions: list[DestinationAction] = []
    if state.missing:
        actions.append(Incomplete(state.missing))
    if not state._orderly:
        return state, tuple(actions)
    left = state._undelivered
    if not left:
        return state, tuple(actions)
    if state.missing and state.behavior != "NoDiscard":
        return state, (*actions, Discard(left.ranges))
    actions += map(Deliver, left.numbers())
    return replace(state, delivered=left.upper), tuple(actions)


def _acknowledged(state: Destination) -> Step:
    return state, (_acknowledgement(state),)


def _acknowledgement(state: Destination) -> Acknowledge:
    return Acknowledge(state.received.ranges, state.final)


def _illegal(state: Destination, event: Event) -> Violation:
    """The error of a pair that `TRANSITIONS` doesn't have (RM-75)."""
    if state.phase is Phase.TERMINATED:
        return unknown_sequence(state.edition, state.identifier)
    return _terminated(state, f"{type(event).__name__} after: {state.reason}")


def _terminated(state: Destination, cause: str = "the last number differs") -> Violation:
    return rm_violation(state.edition, "SequenceTerminated", cause, identifier=state.identifier)
