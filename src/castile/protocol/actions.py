"""What the machines of a sequence ask for: the endpoint does it, in the same transaction.

Machines never call each other and do nothing themselves: a step returns the new state and a
tuple of these, in the order in which they are to be carried out.
"""

from __future__ import annotations

from dataclasses import dataclass

from castile.errors import SOAPFault
from castile.protocol.ranges import Range


@dataclass(frozen=True, slots=True)
class Number:
    """Source: the submitted message has this number, for ever (WS-RM 1.2, 2.3)."""

    number: int


@dataclass(frozen=True, slots=True)
class Purge:
    """Source: these numbers are acknowledged for the first time.

    One-way messages can leave the outbox; the row of a request stays until its reply is stored.
    """

    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Resend:
    """Source: the peer lacks these (Nack): they are due at once (WS-RM 1.2, 3.9)."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SendClose:
    """Source: CloseSequence with this LastMsgNumber; None: no number was used (WS-RM 1.2, 3.5)."""

    last: int | None


@dataclass(frozen=True, slots=True)
class SendLastMessage:
    """Source, 1.0: an empty message with this number and the LastMessage element."""

    number: int


@dataclass(frozen=True, slots=True)
class SendTerminate:
    """Source: TerminateSequence; `last` is None in 1.0 and where no number was used."""

    last: int | None


@dataclass(frozen=True, slots=True)
class Fail:
    """The sequence has failed. The fate of `numbers` can't be known from here.

    Of a source: what was not acknowledged. A destination leaves `numbers` empty.
    """

    reason: str
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Complete:
    """Source: the sequence has ended as it should.

    `missing` are the numbers that the application of the peer never got: none acknowledged, or
    discarded by the behaviour that the peer announced. Empty: all were delivered.
    """

    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Accept:
    """Destination: store this message; it comes for the first time."""

    number: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """Destination: hand this stored message to the application, after those before it here."""

    number: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Destination: this number was accepted before: answer as then, deliver nothing."""

    number: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Destination: no room. Neither store nor acknowledge it: the source will send it again."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Discard:
    """Destination: accepted, but by the announced behaviour never to be delivered (RM-21)."""

    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Destination: the sequence was closed or terminated without these numbers."""

    missing: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Destination: all that was accepted so far. No ranges: nothing yet (WS-RM 1.2, 3.9)."""

    ranges: tuple[Range, ...]
    final: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """Destination: answer with this fault, beside the acknowledgement if there is one.

    Where a state change goes with the fault it can't be raised: the step must commit.
    """

    fault: SOAPFault
    reason: str
    """What happened, for the log of this side."""


SourceAction = Number | Purge | Resend | SendClose | SendLastMessage | SendTerminate | Fail | Complete
DestinationAction = Accept | Deliver | Duplicate | Drop | Discard | Incomplete | Acknowledge | Refuse | Fail
