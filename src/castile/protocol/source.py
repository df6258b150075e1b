"""The sender of a sequence: what may be numbered, what is acknowledged, how it ends.

One machine serves the client's request sequence and the service's offered reply sequence, in
both editions. `TRANSITIONS` says what may happen when; `step` says what then. Numbers are given
at once, also while the sequence is still being created; whether a message is on the wire, when
it is sent again and when one gives up are the endpoint's business (`backoff` has the schedule).

How a sequence ends (WS-RM 1.2, 3.5 and 3.6; WS-RM 1.0, 3)::

    1.1   Close → SendClose → CloseAnswered → Terminate → SendTerminate → TerminateAnswered
    1.0   Close → SendLastMessage → acknowledged → Terminate → SendTerminate → TerminateAnswered

In 1.0 TerminateSequence is one-way: any HTTP answer counts as `TerminateAnswered`. An offered
sequence of 1.1 has no lifecycle messages of its own where it shares a back channel: it is closed
and ended with the sequence that offered it, by `PeerClosed` and `PeerTerminated` (as WCF does).

Of one message, the fault or lifecycle part is stepped before the acknowledgement beside it: the
first may be what makes ``Final`` legal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from castile.clock import Now
from castile.config import Timers
from castile.errors import (
    CastileError,
    MessageNumberRollover,
    SequenceClosed,
    SequenceTerminated,
    UsageError,
    Violation,
)
from castile.protocol.actions import (
    Complete,
    Fail,
    Number,
    Purge,
    Resend,
    SendClose,
    SendLastMessage,
    SendTerminate,
    SourceAction,
)
from castile.protocol.faults import acknowledgement_element, rm_violation
from castile.protocol.ranges import EMPTY, MAX_NUMBER, Range, RangeSet, overlap
from castile.versions import WSRM


class Phase(Enum):
    """Where a source stands."""

    CREATING = "creating"
    """CreateSequence is not answered yet; messages are numbered already."""
    OPEN = "open"
    SUSPECT = "suspect"
    """The peer may have lost the context: takes nothing new, goes on with the old (CO-16)."""
    CLOSING = "closing"
    """CloseSequence, or LastMessage, is on its way."""
    CLOSED = "closed"
    """What the peer has of the sequence will not change any more."""
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Source:
    """The whole state of a sequence at its sender; it is the store's record."""

    key: str
    """Local name, the same from birth."""
    edition: str
    """Namespace of WS-RM, a key of `versions.WSRM`."""
    identifier: str | None = None
    """The peer's name for it; None while it is being created."""
    phase: Phase = Phase.CREATING
    offered: str | None = None
    """Identifier of the sequence in the other direction."""
    context: str | None = None
    """Identifier of the security context that it is bound to (CO-10)."""
    behavior: str = "NoDiscard"
    """IncompleteSequenceBehavior that the peer announced (WS-RM 1.2, 3.4)."""
    next_number: int = 1
    max_number: int = MAX_NUMBER
    acknowledged: RangeSet = EMPTY
    last: int | None = None
    """The highest number once closing has begun: LastMsgNumber. None: no number was used."""
    last_message: int | None = None
    """Number of the empty message that ends a 1.0 sequence: no application misses it."""
    incomplete: bool = False
    """Closing although messages are not acknowledged."""
    peer_room: int | None = None
    """How many messages the peer can buffer, where it says so (``netrm:BufferRemaining``)."""
    final: bool = False
    """The peer said that its acknowledgement will not change any more."""
    reason: str | None = None
    """Why it is suspect or failed."""
    suspect_at: float | None = None
    """UTC: since then the peer only says that it doesn't know the security context (CO-16)."""
    idle_at: float = 0.0
    """UTC: nothing was heard from the peer since then."""
    expires: float | None = None
    """UTC: the sequence ends by itself then; None is never (WS-RM 1.2, 3.4)."""
    dialect: str = ""
    """Editions that all its messages are in, by name; "" for whatever the endpoint speaks."""

    @property
    def highest(self) -> int:
        """The highest number in use; 0 is none."""
        return self.next_number - 1

    @property
    def unacknowledged(self) -> tuple[Range, ...]:
        """The numbers in use that the peer has not acknowledged."""
        return self.acknowledged.gaps(self.highest)

    @property
    def ended(self) -> bool:
        """True when nothing more will be sent."""
        return self.phase in (Phase.TERMINATED, Phase.FAILED)

    @property
    def missing(self) -> RangeSet:
        """What the peer's application has not got, so far as is known here.

        After a gap a peer may discard what it acknowledged (WS-RM 1.2, 3.4).
        """
        gaps = self.unacknowledged
        if gaps and self.behavior == "DiscardFollowingFirstGap":
            gaps = ((gaps[0][0], self.highest),)
        elif gaps and self.behavior == "DiscardEntireSequence":
            gaps = ((1, self.highest),)
        return RangeSet(gaps).difference(self.without_content)

    @property
    def without_content(self) -> RangeSet:
        """The number of the LastMessage, if there is one (1.0)."""
        number = self.last_message
        return RangeSet(((number, number),)) if number is not None else EMPTY


@dataclass(frozen=True, slots=True)
class Submit:
    """The application hands over `count` messages."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class Created:
    """CreateSequenceResponse. `accepted`: our offer was taken (RSP R0010: it need not be)."""

    identifier: str
    accepted: bool = True
    behavior: str = "NoDiscard"
    expires: float | None = None
    """UTC."""


@dataclass(frozen=True, slots=True)
class Refused:
    """CreateSequence was refused; `retry`: the peer is only busy (RM-95)."""

    reason: str
    retry: bool = False


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A SequenceAcknowledgement as it came.

    `ordered`: no older acknowledgement can be under way, because no other exchange was open.
    """

    ranges: tuple[Range, ...] = ()
    final: bool = False
    nacks: tuple[int, ...] = ()
    ordered: bool = False
    buffer_remaining: int | None = None
    """``netrm:BufferRemaining`` (RM-35)."""


@dataclass(frozen=True, slots=True)
class Close:
    """No more messages. `incomplete`: also if some are not acknowledged (RM-72)."""

    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class CloseAnswered:
    """CloseSequenceResponse (1.1)."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Made by the machine: a closing 1.0 sequence has its last acknowledgement."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """End it. Before it is closed only if all is acknowledged, or `incomplete`."""

    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class TerminateAnswered:
    """TerminateSequenceResponse; in 1.0 any HTTP answer."""


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The destination closed it, or it is closed together with its twin (WS-RM 1.2, 3.5)."""


@dataclass(frozen=True, slots=True)
class PeerTerminated:
    """The destination ended it, or it ends together with its twin (WS-RM 1.2, 3.6)."""


@dataclass(frozen=True, slots=True)
class Faulted:
    """An authenticated RM fault about this sequence: local name of its code, and its text."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Suspect:
    """The peer seems to have lost the security context (CO-16)."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Time is up, or the operator or the context ended it (RM-58)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Broken:
    """Made by the machine: a fault of the peer ends the sequence (features 4.7)."""

    reason: str


Event = (
    Submit
    | Created
    | Refused
    | Acknowledged
    | Close
    | CloseAnswered
    | Drained
    | Terminate
    | TerminateAnswered
    | PeerClosed
    | PeerTerminated
    | Faulted
    | Suspect
    | GiveUp
    | Broken
)

TRANSITIONS: Final[dict[tuple[Phase, type[Event]], Phase]] = {
    (Phase.CREATING, Submit): Phase.CREATING,
    (Phase.CREATING, Created): Phase.OPEN,
    (Phase.CREATING, Refused): Phase.CREATING,  # for good: GiveUp follows by itself
    (Phase.CREATING, Faulted): Phase.CREATING,  # what a fault means is in `_faulted`
    (Phase.CREATING, Suspect): Phase.CREATING,
    (Phase.CREATING, GiveUp): Phase.FAILED,
    (Phase.CREATING, Broken): Phase.FAILED,
    (Phase.OPEN, Submit): Phase.OPEN,
    (Phase.OPEN, Created): Phase.OPEN,  # the answer to a repetition of CreateSequence
    (Phase.OPEN, Acknowledged): Phase.OPEN,
    (Phase.OPEN, Close): Phase.CLOSING,
    (Phase.OPEN, Terminate): Phase.TERMINATING,
    (Phase.OPEN, PeerClosed): Phase.CLOSED,
    (Phase.OPEN, PeerTerminated): Phase.TERMINATED,
    (Phase.OPEN, Faulted): Phase.OPEN,
    (Phase.OPEN, Suspect): Phase.SUSPECT,
    (Phase.OPEN, GiveUp): Phase.FAILED,
    (Phase.OPEN, Broken): Phase.FAILED,
    (Phase.SUSPECT, Created): Phase.SUSPECT,
    (Phase.SUSPECT, Acknowledged): Phase.OPEN,  # so the peer has the context still
    (Phase.SUSPECT, Close): Phase.CLOSING,
    (Phase.SUSPECT, Terminate): Phase.TERMINATING,
    (Phase.SUSPECT, PeerClosed): Phase.CLOSED,
    (Phase.SUSPECT, PeerTerminated): Phase.TERMINATED,
    (Phase.SUSPECT, Faulted): Phase.SUSPECT,
    (Phase.SUSPECT, Suspect): Phase.SUSPECT,
    (Phase.SUSPECT, GiveUp): Phase.FAILED,
    (Phase.SUSPECT, Broken): Phase.FAILED,
    (Phase.CLOSING, Created): Phase.CLOSING,
    (Phase.CLOSING, Acknowledged): Phase.CLOSING,
    (Phase.CLOSING, Close): Phase.CLOSING,
    (Phase.CLOSING, CloseAnswered): Phase.CLOSED,
    (Phase.CLOSING, Drained): Phase.CLOSED,
    (Phase.CLOSING, Terminate): Phase.TERMINATING,
    (Phase.CLOSING, PeerClosed): Phase.CLOSED,
    (Phase.CLOSING, PeerTerminated): Phase.TERMINATED,
    (Phase.CLOSING, Faulted): Phase.CLOSING,
    (Phase.CLOSING, Suspect): Phase.CLOSING,
    (Phase.CLOSING, GiveUp): Phase.FAILED,
    (Phase.CLOSING, Broken): Phase.FAILED,
    (Phase.CLOSED, Created): Phase.CLOSED,
    (Phase.CLOSED, Acknowledged): Phase.CLOSED,
    (Phase.CLOSED, Close): Phase.CLOSED,
    (Phase.CLOSED, CloseAnswered): Phase.CLOSED,
    (Phase.CLOSED, Terminate): Phase.TERMINATING,
    (Phase.CLOSED, PeerClosed): Phase.CLOSED,
    (Phase.CLOSED, PeerTerminated): Phase.TERMINATED,
    (Phase.CLOSED, Faulted): Phase.CLOSED,
    (Phase.CLOSED, Suspect): Phase.CLOSED,
    (Phase.CLOSED, GiveUp): Phase.TERMINATED,  # the result is known, only the good-bye is not
    (Phase.CLOSED, Broken): Phase.FAILED,
    (Phase.TERMINATING, Created): Phase.TERMINATING,
    (Phase.TERMINATING, Acknowledged): Phase.TERMINATING,
    (Phase.TERMINATING, Close): Phase.TERMINATING,
    (Phase.TERMINATING, CloseAnswered): Phase.TERMINATING,
    (Phase.TERMINATING, Terminate): Phase.TERMINATING,
    (Phase.TERMINATING, TerminateAnswered): Phase.TERMINATED,
    (Phase.TERMINATING, PeerClosed): Phase.TERMINATING,
    (Phase.TERMINATING, PeerTerminated): Phase.TERMINATED,
    (Phase.TERMINATING, Faulted): Phase.TERMINATING,
    (Phase.TERMINATING, Suspect): Phase.TERMINATING,
    (Phase.TERMINATING, GiveUp): Phase.TERMINATED,
    (Phase.TERMINATING, Broken): Phase.FAILED,  # also this late it means doubt (RM-73)
    (Phase.TERMINATED, Created): Phase.TERMINATED,
    (Phase.TERMINATED, Acknowledged): Phase.TERMINATED,
    (Phase.TERMINATED, Close): Phase.TERMINATED,
    (Phase.TERMINATED, CloseAnswered): Phase.TERMINATED,
    (Phase.TERMINATED, Terminate): Phase.TERMINATED,
    (Phase.TERMINATED, TerminateAnswered): Phase.TERMINATED,
    (Phase.TERMINATED, PeerClosed): Phase.TERMINATED,
    (Phase.TERMINATED, PeerTerminated): Phase.TERMINATED,
    (Phase.TERMINATED, Faulted): Phase.TERMINATED,
    (Phase.TERMINATED, Suspect): Phase.TERMINATED,
    (Phase.TERMINATED, GiveUp): Phase.TERMINATED,
    (Phase.FAILED, Acknowledged): Phase.FAILED,  # narrows the doubt
    (Phase.FAILED, CloseAnswered): Phase.FAILED,
    (Phase.FAILED, TerminateAnswered): Phase.FAILED,
    (Phase.FAILED, PeerClosed): Phase.FAILED,
    (Phase.FAILED, PeerTerminated): Phase.FAILED,
    (Phase.FAILED, Faulted): Phase.FAILED,
    (Phase.FAILED, Suspect): Phase.FAILED,
    (Phase.FAILED, GiveUp): Phase.FAILED,
}
"""What may happen when, and the phase it leads to. A missing pair is an error: `_illegal`."""

Step = tuple[Source, tuple[SourceAction, ...]]


def step(state: Source, event: Event, now: Now) -> Step:
    """The state after `event`, and what is to be done, in order.

    Raises, with nothing changed: `Violation` where the peer broke a rule, `UsageError` (and its
    kinds `SequenceClosed`, `SequenceTerminated`, `MessageNumberRollover`) where the caller did.
    """
    phase = TRANSITIONS.get((state.phase, type(event)))
    if phase is None:
        raise _illegal(state, event)
    match event:
        case Submit(count):
            return _submit(state, count)
        case Created():
            return _created(state, phase, event, now)
        case Refused(reason, retry):
            state = replace(state, reason=reason, idle_at=now.utc)
            return (state, ()) if retry else step(state, GiveUp(reason), now)
        case Acknowledged():
            return _acknowledged(state, phase, event, now)
        case Close(incomplete):
            return _close(state, phase, incomplete, now)
        case CloseAnswered():
            if not WSRM[state.edition].can_close:
                raise _violation(state, "SequenceTerminated", "there is no CloseSequenceResponse in 1.0")
            return replace(state, phase=phase, suspect_at=None, idle_at=now.utc), ()
        case Terminate(incomplete):
            return _terminate(state, phase, incomplete)
        case PeerClosed():
            if state.phase in (Phase.OPEN, Phase.SUSPECT):
                state = replace(state, last=state.highest or None)
            return replace(state, phase=phase, idle_at=now.utc), ()
        case TerminateAnswered() | PeerTerminated():
            return _end(state, phase, replace(state, phase=phase, idle_at=now.utc))
        case Faulted(code, reason):
            return _faulted(replace(state, idle_at=now.utc), code, reason, now)
        case Suspect(reason):
            return _suspect(state, phase, reason, now), ()
        case GiveUp(reason) | Broken(reason):
            return _give_up(state, phase, reason)
        case Drained():
            return replace(state, phase=phase), ()


def backoff(attempts: int, timers: Timers, jitter: float) -> float:
    """Seconds to wait after the `attempts`-th transmission before the next one (RM-57).

    Doubled each time up to `timers.retransmit_limit`; `jitter`, 0 to 1, moves it within
    ± `timers.retransmit_jitter` of that, so that a fleet doesn't repeat in step. 0 attempts: 0.
    """
    if attempts < 1:
        return 0.0
    doubled = timers.retransmit_interval * 2.0 ** min(attempts - 1, 64)
    interval = min(doubled, max(timers.retransmit_limit, timers.retransmit_interval))
    return interval * (1.0 + timers.retransmit_jitter * (2.0 * jitter - 1.0))


def _submit(state: Source, count: int) -> Step:
    if count < 1:
        raise UsageError(f"submit at least one message, not {count}")
    if count > state.max_number - state.highest:
        raise MessageNumberRollover(
            f"the sequence has used its last number, {state.max_number}: create another sequence"
        )
    numbers = range(state.next_number, state.next_number + count)
    return replace(state, next_number=numbers.stop), tuple(map(Number, numbers))


def _created(state: Source, phase: Phase, event: Created, now: Now) -> Step:
    if state.phase is not Phase.CREATING:
        # CreateSequence is idempotent: one request never makes two sequences (RM-18).
        if event.identifier != state.identifier:
            raise _violation(state, "SequenceTerminated", "a second answer names another sequence")
        return replace(state, idle_at=now.utc), ()
    if not event.identifier or event.identifier == state.offered:
        raise _violation(state, "SequenceTerminated", "the answer names no new sequence")
    created = replace(
        state,
        phase=phase,
        identifier=event.identifier,
        offered=state.offered if event.accepted else None,
        behavior=event.behavior,
        expires=event.expires,
        reason=None,
        suspect_at=None,
        idle_at=now.utc,
    )
    return created, ()


def _acknowledged(state: Source, phase: Phase, event: Acknowledged, now: Now) -> Step:
    ranges = _checked(state, event)
    news, fresh = ranges.difference(state.acknowledged), state.acknowledged.issubset(ranges)
    if state.final and news:
        raise _invalid(state, event, "it grows after Final")
    state = replace(
        state,
        phase=phase,
        acknowledged=state.acknowledged.union(ranges),
        final=state.final or event.final,
        peer_room=event.buffer_remaining if fresh else state.peer_room,
        reason=None if state.phase is Phase.SUSPECT else state.reason,
        suspect_at=None,
        idle_at=now.utc,
    )
    actions: tuple[SourceAction, ...] = (Purge(news.ranges),) if news else ()
    wanted = tuple(number for number in event.nacks if number not in state.acknowledged)
    if wanted and not state.ended:
        actions += (Resend(wanted),)
    return (step(state, Drained(), now)[0] if _drained(state) else state), actions


def _checked(state: Source, event: Acknowledged) -> RangeSet:
    """The acknowledged numbers, all rules kept (RM-48; WS-RM 1.2, 3.9 and 4.4)."""
    ranges = event.ranges
    if ranges == ((0, 0),):  # how 1.0 says that nothing has come yet
        ranges = ()
    for lower, upper in ranges:
        if lower < 1 or lower > upper:
            raise _invalid(state, event, f"it has the range {lower}-{upper}")
    if overlap(ranges):
        raise _invalid(state, event, "its ranges overlap")
    numbers = RangeSet.from_ranges(ranges)
    if max(numbers.upper, *event.nacks, 0) > state.highest:
        raise _invalid(state, event, f"it has a number above {state.highest}, which was never sent")
    if any(number < 1 for number in event.nacks) or (event.nacks and (ranges or event.final)):
        raise _invalid(state, event, "its Nacks are none")
    if event.final and (state.phase in (Phase.OPEN, Phase.SUSPECT) or not WSRM[state.edition].can_close):
        raise _invalid(state, event, "it is final, and nobody closed the sequence")
    if event.nacks or state.acknowledged.issubset(numbers):
        return numbers
    # What a destination has only grows, so of two of its acknowledgements one holds the other.
    # A smaller one is an older one that was overtaken, unless nothing could overtake it; one
    # that neither holds what is known nor is held by it takes something back.
    if event.final or event.ordered or not numbers.issubset(state.acknowledged):
        raise _invalid(state, event, "it takes back what was acknowledged")
    return numbers


def _suspect(state: Source, phase: Phase, reason: str, now: Now) -> Source:
    """Doubt counts from its beginning; whatever the peer proves ends it."""
    if state.ended:
        return replace(state, phase=phase)
    since = now.utc if state.suspect_at is None else state.suspect_at
    return replace(state, phase=phase, reason=reason, suspect_at=since)


def _close(state: Source, phase: Phase, incomplete: bool, now: Now) -> Step:
    if phase is not Phase.CLOSING:
        return state, ()
    if state.phase is Phase.CLOSING:
        state = replace(state, incomplete=state.incomplete or incomplete)
        return (step(state, Drained(), now)[0] if _drained(state) else state), ()
    _require_acknowledged(state, incomplete)
    state = replace(state, phase=phase, last=state.highest or None, incomplete=bool(state.unacknowledged))
    if WSRM[state.edition].can_close:
        return state, (SendClose(state.last),)
    if state.highest < state.max_number:
        number = state.next_number
        state = replace(state, next_number=number + 1, last=number, last_message=number)
        return state, (SendLastMessage(number),)
    # No number is left for a LastMessage: the sequence ends by TerminateSequence alone.
    return (step(state, Drained(), now)[0] if _drained(state) else state), ()


def _terminate(state: Source, phase: Phase, incomplete: bool) -> Step:
    if state.phase in (Phase.TERMINATING, Phase.TERMINATED):
        return state, ()
    if state.phase is not Phase.CLOSED:
        _require_acknowledged(state, incomplete)
    last = state.last if state.last is not None else state.highest or None
    state = replace(state, phase=phase, last=last)
    return state, (SendTerminate(last if WSRM[state.edition].can_close else None),)


def _end(before: Source, phase: Phase, after: Source) -> Step:
    """Report once, on the step that ends the sequence."""
    if phase is not Phase.TERMINATED or before.phase is Phase.TERMINATED:
        return after, ()
    return after, (Complete(tuple(after.missing.numbers())),)


def _give_up(state: Source, phase: Phase, reason: str) -> Step:
    if state.ended:
        return state, ()
    after = replace(state, phase=phase, reason=reason)
    if phase is Phase.TERMINATED:
        return _end(state, phase, after)
    return after, (Fail(reason, tuple(after.missing.numbers())),)


def _faulted(state: Source, code: str, reason: str, now: Now) -> Step:
    """What a fault of the peer does (features 4.7, last column)."""
    if state.ended:
        return state, ()
    can_close = WSRM[state.edition].can_close
    match code:
        case "InvalidAcknowledgement":  # about what we acknowledge, not about what we send
            return state, ()
        case "MessageNumberRollover" if can_close and state.phase is not Phase.CREATING:
            return replace(state, max_number=state.highest, reason=reason), ()
        case "SequenceClosed" if can_close and state.phase is not Phase.CREATING:
            return step(replace(state, reason=reason), PeerClosed(), now)
        case "UnknownSequence" if _settled(state):  # it had all, and has forgotten us already
            return step(state, PeerTerminated(), now)
    return step(state, Broken(f"{code}: {reason}"), now)


def _settled(state: Source) -> bool:
    """True if the peer may forget the sequence without harm."""
    ending = state.phase in (Phase.CLOSING, Phase.CLOSED, Phase.TERMINATING)
    return ending and not state.missing


def _drained(state: Source) -> bool:
    """True if a closing 1.0 sequence waits for nothing more."""
    if state.phase is not Phase.CLOSING or WSRM[state.edition].can_close:
        return False
    if state.incomplete:
        return state.last_message is None or state.last_message in state.acknowledged
    return not state.unacknowledged


def _require_acknowledged(state: Source, incomplete: bool) -> None:
    """A LastMessage that is still on its way holds nothing up: no application misses it."""
    open_numbers = RangeSet(state.unacknowledged).difference(state.without_content)
    if open_numbers and not incomplete:
        raise UsageError(
            f"{open_numbers.count} messages are not acknowledged: wait for them, or close(incomplete=True)"
        )


def _illegal(state: Source, event: Event) -> CastileError:
    """The error of a pair that `TRANSITIONS` doesn't have."""
    name = type(event).__name__
    if not isinstance(event, Submit | Close | Terminate | Drained | Broken):
        return _violation(state, "SequenceTerminated", f"{name} while the sequence is {state.phase.value}")
    match state.phase:
        case Phase.TERMINATED | Phase.FAILED:
            cause = f" ({state.reason})" if state.reason else ""
            return SequenceTerminated(f"the sequence is {state.phase.value}{cause}: create another one")
        case Phase.SUSPECT:
            return SequenceClosed(f"the sequence takes nothing new, it is suspect ({state.reason})")
        case Phase.CREATING | Phase.OPEN:
            return UsageError(f"{name}: wait until the sequence is further, it is {state.phase.value}")
        case _:
            return SequenceClosed(f"the sequence is {state.phase.value}: create another one")


def _violation(state: Source, name: str, cause: str) -> Violation:
    return rm_violation(state.edition, name, cause, identifier=state.identifier)


def _invalid(state: Source, event: Acknowledged, cause: str) -> Violation:
    identifier = state.identifier or ""
    detail = acknowledgement_element(state.edition, identifier, event.ranges, event.nacks, event.final)
    return rm_violation(
        state.edition,
        "InvalidAcknowledgement",
        f"acknowledgement refused: {cause}",
        identifier=identifier,
        detail=detail,
    )
