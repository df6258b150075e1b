"""Sequences of a captured conversation, followed by the product's own machines.

Both ends of each sequence are stepped: what is seen on the wire was sent by its source and is
taken as having reached its destination. Whoever names a sequence has to prove its context, by
`prove_possession`, as an endpoint would ask.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Final

from castile import xml
from castile.clock import Now
from castile.endpoint.binding import prove_possession
from castile.endpoint.kinds import Kind
from castile.errors import CastileError, SecurityFailure
from castile.explaining.opened import Opened
from castile.messages import reliability
from castile.protocol import destination, source
from castile.protocol.actions import Complete, Discard, Duplicate, Incomplete, Refuse
from castile.protocol.destination import Destination
from castile.protocol.ranges import Range
from castile.protocol.source import Source
from castile.versions import WSRM

_WIDE: Final = 1 << 40
"""Bounds of a window are a receiver's own affair, not the capture's."""
_ENDINGS: Final = (
    reliability.CloseSequence,
    reliability.CloseSequenceResponse,
    reliability.TerminateSequence,
    reliability.TerminateSequenceResponse,
)
_STATES: Final = {"terminating": "closed"}
"""Phases that names.md has no word for."""


@dataclass(slots=True)
class Followed:
    """One sequence, seen from both ends."""

    source: Source
    destination: Destination
    context: str | None = None
    """The security context that it is bound to; None: none, or not known."""
    known: bool = True
    """Whether `context` is known: else the first signer binds it."""
    backward: bool | None = None
    """Whether its messages are responses; None: they may come either way."""
    signers: dict[bool, str] = field(default_factory=dict)
    """Where it is bound to certificates: who signs requests (False) and responses (True)."""
    digests: dict[int, bytes] = field(default_factory=dict)
    repeated: bool = False
    """The last message named a number that had come before."""

    @property
    def identifier(self) -> str:
        """Its name on the wire."""
        return self.destination.identifier

    @property
    def state(self) -> str:
        """In the words of names.md."""
        ours, theirs = self.source.phase.value, self.destination.phase.value
        if theirs == "failed" or (theirs != "open" and ours == "open"):
            ours = theirs
        return _STATES.get(ours, ours)


@dataclass(frozen=True, slots=True)
class SequenceState:
    """How a sequence stands after a message."""

    identifier: str | None
    number: int | None
    """Of the message, where it has one in this sequence."""
    state: str
    sent: int
    """The highest number so far."""
    received: tuple[Range, ...]
    acknowledged: tuple[Range, ...]
    missing: tuple[Range, ...]
    """Numbers below the highest that no message of the capture had."""
    repeated: bool
    context: str | None

    def as_json(self) -> dict[str, object]:
        """For the report."""
        return {
            "identifier": self.identifier,
            "number": self.number,
            "state": self.state,
            "sent": self.sent,
            "received": [list(each) for each in self.received],
            "acknowledged": [list(each) for each in self.acknowledged],
            "missing": [list(each) for each in self.missing],
            "repeated": self.repeated,
            "context": self.context,
        }


@dataclass(slots=True)
class Sequences:
    """Every sequence of a conversation."""

    midway: bool = False
    """The capture begins in the middle: sequences may come from before it."""
    ahead: dict[str, int] = field(default_factory=dict)
    """The highest number that the whole capture uses."""
    later: int = 0
    """How many messages behind this one may have been sent before it: a response may stand too early."""
    unsent: list[tuple[Opened, str]] = field(default_factory=list)
    """Acknowledgements of what no message of the capture was: wrong, if nothing else explains them."""
    followed: dict[str, Followed] = field(default_factory=dict)
    creating: list[Opened] = field(default_factory=list)
    unseen: bool = False
    """A message that may have created a sequence couldn't be read."""

    # ---- one message

    def follow(self, message: Opened, *, thin: bool) -> tuple[list[str], list[str]]:
        """Step the machines; what is wrong, and what is worth a word.

        `thin`: the conversation goes over TLS, and the context signs the Timestamp alone.
        """
        if message.fault is not None and not message.shape.protected:
            return [], []  # proves nothing, so it changes nothing (CO-14)
        proven = message.verified is not None or not message.shape.protected
        wrong: list[str] = []
        notes: list[str] = []
        self._create(message, wrong, proven, thin)
        for identifier, kind in _named(message):
            found = self.followed.get(identifier)
            if found is None and (self.midway or self.unseen):
                found = self._adopt(message, identifier)
                notes.append(f"the capture doesn't show how sequence {identifier} was created")
            if found is None:
                wrong.append(f"sequence {identifier} was not created in this conversation")
            elif message.verified is not None or (found.context is not None and not message.shape.protected):
                wrong += self._prove(message, found, kind, thin)
        if not proven:
            self._claims(message)
            return wrong, notes
        wrong += self._turned(message)
        if not wrong:
            self._end(message, wrong, notes)
            self._acknowledge(message, wrong)
            self._number(message, wrong, notes)
            self._faulted(message, notes)
        return list(dict.fromkeys(wrong)), notes

    def state_of(self, message: Opened) -> SequenceState | None:
        """The sequence that a message is about: its own, else the one that it ends or acknowledges."""
        if message.kind is Kind.CREATE_SEQUENCE:
            return SequenceState(None, None, "creating", 0, (), (), (), False, message.shape.context)
        names = [identifier for identifier, _ in _named(message)]
        if isinstance(message.body, reliability.CreateSequenceResponse):
            names.insert(0, message.body.identifier)
        found = next((self.followed[name] for name in names if name in self.followed), None)
        if found is None:
            return None
        header = message.reliability.sequence
        number = header.number if header is not None and header.identifier == found.identifier else None
        received = found.destination.received
        return SequenceState(
            found.identifier,
            number,
            found.state,
            found.source.highest,
            received.ranges,
            found.source.acknowledged.ranges,
            received.gaps(received.upper),
            found.repeated,
            found.context,
        )

    # ---- beginning

    def _create(self, message: Opened, wrong: list[str], proven: bool, thin: bool) -> None:
        if message.kind is Kind.CREATE_SEQUENCE:
            self.creating.append(message)
            self.unseen = self.unseen or message.body is None
            wrong += _token(message)
        if message.kind is not Kind.CREATE_SEQUENCE_RESPONSE:
            return
        body = message.body
        if not isinstance(body, reliability.CreateSequenceResponse) or message.rm is None:
            self.unseen = True
            return
        request = self._request_of(message)
        context = _signer(request) if request is not None else _signer(message)
        known = request is not None and (request.verified is not None or not request.shape.protected)
        if request is not None and not request.shape.protected and (message.shape.protected or thin):
            known = False  # a CreateSequence that was stripped binds nothing
        offered = None
        if request is not None and isinstance(request.body, reliability.CreateSequence) and body.accept:
            offered = request.body.offer.identifier if request.body.offer else None
        if body.identifier not in self.followed:
            made = _followed(body.identifier, message.rm.namespace, context, offered, message.now)
            self.followed[body.identifier] = made
            made.known = known
            made.backward = False if _on_back_channel(request) else None
            if offered is not None:
                twin = _followed(offered, message.rm.namespace, context, body.identifier, message.now)
                twin.known = known
                twin.backward = None if made.backward is None else True
                self.followed.setdefault(offered, twin)
        if proven and message.verified is not None:
            wrong += self._prove(message, self.followed[body.identifier], message.kind, thin)

    def _request_of(self, message: Opened) -> Opened | None:
        if message.answers is not None and message.answers.kind is Kind.CREATE_SEQUENCE:
            return message.answers
        return self.creating[-1] if self.creating and message.answers is None else None

    def _adopt(self, message: Opened, identifier: str) -> Followed:
        """A sequence from before the capture began: its numbers so far are taken as they are."""
        edition = message.rm.namespace if message.rm is not None else next(iter(WSRM))
        made = _followed(identifier, edition, _signer(message), None, message.now)
        highest = max([self.ahead.get(identifier, 0), *_acknowledged(message, identifier)])
        header = message.reliability.sequence
        if header is not None and header.identifier == identifier:
            highest = max(highest, header.number)
        made.source = replace(made.source, next_number=highest + 1)
        made.known = message.verified is not None and bool(message.verified.signatures)
        self.followed[identifier] = made
        return made

    # ---- possession

    def _prove(self, message: Opened, found: Followed, kind: Kind, thin: bool) -> list[str]:
        """That the message proves the context that the sequence is bound to (F08, CO-11, CO-18)."""
        signer, verified = _signer(message), message.verified
        if not found.known and verified is not None and verified.signatures:
            found.context, found.known = signer, True
        if found.context is None:
            return _same_signer(message, found)
        text = f"sequence {found.identifier} is bound to security context {found.context}"
        if thin and message.response and not message.shape.thin:
            return []  # TLS answers for it
        if thin or verified is None:
            return [] if signer == found.context else [f"{text}, which this message doesn't prove"]
        try:
            prove_possession(verified, kind, found.context)
        except SecurityFailure:
            if signer not in (None, found.context):
                return [f"{text}, and is used here under {signer}"]
            return [f"{text}, whose key doesn't sign all that {kind.value} must have signed"]
        return []

    def _turned(self, message: Opened) -> list[str]:
        """Numbers go one way on a back channel, acknowledgements of them the other."""
        headers = message.reliability
        found = self.followed.get(headers.sequence.identifier) if headers.sequence is not None else None
        wrong = []
        if found is not None and found.backward not in (None, message.response):
            wrong.append(f"sequence {found.identifier} doesn't run in this direction")
        for header in headers.acknowledgements:
            found = self.followed.get(header.identifier)
            if found is not None and found.backward is not None and found.backward == message.response:
                wrong.append(f"sequence {found.identifier} is acknowledged by its own sender")
        return wrong

    # ---- steps

    def _claims(self, message: Opened) -> None:
        """A message that couldn't be verified was sent all the same: its number is in use."""
        header = message.reliability.sequence
        found = self.followed.get(header.identifier) if header is not None else None
        if header is not None and found is not None and header.number > found.source.highest:
            found.source = replace(found.source, next_number=header.number + 1)

    def _end(self, message: Opened, wrong: list[str], notes: list[str]) -> None:
        body, now = message.body, _now(message)
        if not isinstance(body, _ENDINGS) or (found := self.followed.get(body.identifier)) is None:
            return
        twin = self.followed.get(found.source.offered or "")
        if isinstance(body, reliability.CloseSequence):
            _source(found, source.Close(incomplete=True), now, wrong, notes)
            _destination(found, destination.Close(body.last), now, wrong, notes)
            if twin is not None:  # the offered sequence ends with the one that offered it
                _source(twin, source.PeerClosed(), now, wrong, notes)
        elif isinstance(body, reliability.CloseSequenceResponse):
            _source(found, source.CloseAnswered(), now, wrong, notes)
        elif isinstance(body, reliability.TerminateSequence):
            _source(found, source.Terminate(incomplete=True), now, wrong, notes)
            _destination(found, destination.Terminate(body.last), now, wrong, notes)
            if not WSRM[found.source.edition].can_close:  # one-way
                _source(found, source.TerminateAnswered(), now, wrong, notes)
            elif twin is not None:
                _source(twin, source.PeerTerminated(), now, wrong, notes)
        else:
            _source(found, source.TerminateAnswered(), now, wrong, notes)

    def _acknowledge(self, message: Opened, wrong: list[str]) -> None:
        for header in message.reliability.acknowledgements:
            found = self.followed.get(header.identifier)
            if found is None:
                continue
            upper = max([*_acknowledged(message, header.identifier), 0])
            if found.source.highest < upper <= found.source.highest + self.later:
                if upper > self.ahead.get(header.identifier, 0):
                    self.unsent.append((message, f"sequence {header.identifier}: {upper} was never sent"))
                _source(found, source.Submit(upper - found.source.highest), _now(message), wrong, [])
            event = source.Acknowledged(header.ranges, header.final, header.nacks)
            _source(found, event, _now(message), wrong, [])

    def _number(self, message: Opened, wrong: list[str], notes: list[str]) -> None:
        header, now = message.reliability.sequence, _now(message)
        for requested in message.reliability.ack_requested:
            found = self.followed.get(requested.identifier)
            if found is not None and not found.destination.ended:
                _destination(found, destination.AckRequested(), now, wrong, notes)
        found = self.followed.get(header.identifier) if header is not None else None
        if header is None or found is None:
            return
        gap = header.number - found.source.next_number
        if header.last_message and gap >= 0 and found.source.last is None:
            if gap > 0:
                _source(found, source.Submit(gap), now, wrong, notes)
            _source(found, source.Close(incomplete=True), now, wrong, notes)
        elif gap >= 0:
            _source(found, source.Submit(gap + 1), now, wrong, notes)
        digest = _digest(message)
        event = destination.Arrived(
            header.number,
            digest=digest,
            last_message=header.last_message,
            known_digest=found.digests.get(header.number),
            with_payload=header.last_message and _has_content(message),
        )
        found.digests.setdefault(header.number, digest)
        found.repeated = _destination(found, event, now, wrong, notes)

    def _faulted(self, message: Opened, notes: list[str]) -> None:
        """A proven fault about a sequence moves its source (features 4.7)."""
        fault = message.fault
        if fault is None or fault.sequence is None or fault.subcode is None:
            return
        found = self.followed.get(fault.sequence)
        if found is not None and message.verified is not None:
            _source(found, source.Faulted(fault.subcode[1], fault.reason), _now(message), [], notes)


def _followed(identifier: str, edition: str, context: str | None, twin: str | None, utc: float) -> Followed:
    sender = Source(
        key=identifier,
        edition=edition,
        identifier=identifier,
        phase=source.Phase.OPEN,
        offered=twin,
        context=context,
        idle_at=utc,
    )
    receiver = Destination(
        identifier=identifier,
        edition=edition,
        context=context,
        offered=twin,
        window_messages=_WIDE,
        window_bytes=_WIDE,
        max_ranges=_WIDE,
        idle_at=utc,
    )
    return Followed(sender, receiver, context)


def _on_back_channel(request: Opened | None) -> bool:
    """Whether CreateSequence wants its acknowledgements as responses."""
    body = request.body if request is not None else None
    if request is None or not isinstance(body, reliability.CreateSequence):
        return False
    return body.acks_to.address == request.edition.anonymous


def _named(message: Opened) -> list[tuple[str, Kind]]:
    """The sequences that a message names, each with what has to be proven for naming it so."""
    headers, body = message.reliability, message.body
    found: list[tuple[str, Kind]] = []
    if headers.sequence is not None:
        kind = message.kind if message.kind.numbered else Kind.APPLICATION
        found.append((headers.sequence.identifier, kind))
    if isinstance(body, _ENDINGS):
        found.append((body.identifier, message.kind))
    found += [(header.identifier, Kind.ACKNOWLEDGEMENT) for header in headers.acknowledgements]
    found += [(header.identifier, Kind.ACK_REQUESTED) for header in headers.ack_requested]
    return found


def _token(message: Opened) -> list[str]:
    """The STR of CreateSequence leads to the context that signed it (CO-04, CO-06)."""
    body, verified = message.body, message.verified
    if not isinstance(body, reliability.CreateSequence) or verified is None:
        return []
    if body.token is None:
        if message.reliability.uses_sequence_str:
            return ["UsesSequenceSTR without a SecurityTokenReference in CreateSequence"]
        return []
    named, signer = verified.resolve_context(body.token), _signer(message)
    if named != signer:
        return [f"its SecurityTokenReference names security context {named}, and {signer or 'none'} signs it"]
    return []


def _signer(message: Opened) -> str | None:
    """The security context that signed a message."""
    if message.verified is None:
        return message.shape.context if message.shape.protected else None
    keys = [signature.key for signature in message.verified.signatures]
    return next((key.name for key in keys if key.kind == "context"), None)


def _same_signer(message: Opened, found: Followed) -> list[str]:
    """A sequence without context: no context may use it, and its certificates stay the same."""
    verified = message.verified
    if verified is None or not verified.signatures:
        return []
    key = verified.primary
    if key.kind == "context":
        return [f"sequence {found.identifier} has no security context, and is used here under {key.name}"]
    if key.kind == "certificate" and found.signers.setdefault(message.response, key.name) != key.name:
        return [f"sequence {found.identifier} is used under another certificate than before"]
    return []


def _acknowledged(message: Opened, identifier: str) -> list[int]:
    return [
        upper
        for header in message.reliability.acknowledgements
        if header.identifier == identifier
        for _, upper in header.ranges
    ]


def _now(message: Opened) -> Now:
    return Now(message.now, 0.0)


def _content(message: Opened) -> bytes:
    if message.verified is not None:
        return message.verified.body_content
    if message.envelope is None:
        return b""
    return b"".join(xml.canonical(child) for child in xml.inside(message.envelope.body))


def _digest(message: Opened) -> bytes:
    return hashlib.sha256(_content(message)).digest()


def _has_content(message: Opened) -> bool:
    return bool(_content(message))


def _source(found: Followed, event: source.Event, now: Now, wrong: list[str], notes: list[str]) -> None:
    try:
        found.source, actions = source.step(found.source, event, now)
    except CastileError as error:
        wrong.append(f"sequence {found.identifier}: {error}")
        return
    notes += [
        f"sequence {found.identifier} ends, and message {_numbers(action.missing)} was never acknowledged"
        for action in actions
        if isinstance(action, Complete) and action.missing
    ]


def _destination(
    found: Followed, event: destination.Event, now: Now, wrong: list[str], notes: list[str]
) -> bool:
    """Step the receiver; whether the message was a repetition."""
    try:
        found.destination, actions = destination.step(found.destination, event, now)
    except CastileError as error:
        wrong.append(f"sequence {found.identifier}: {error}")
        return False
    for action in actions:
        if isinstance(action, Refuse):
            wrong.append(f"sequence {found.identifier}: {action.reason}")
        elif isinstance(action, Incomplete | Discard):
            ranges = action.missing if isinstance(action, Incomplete) else action.ranges
            notes.append(f"sequence {found.identifier} ends without {_ranges(ranges)}")
    return any(isinstance(action, Duplicate) for action in actions)


def _numbers(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _ranges(ranges: tuple[Range, ...]) -> str:
    return ", ".join(str(lower) if lower == upper else f"{lower}-{upper}" for lower, upper in ranges)
