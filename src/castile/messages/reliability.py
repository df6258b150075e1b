"""WS-ReliableMessaging's headers and bodies: RM 1.0 and RM 1.1/1.2, by row.

One frozen dataclass per element, `parse` and `render` side by side. Parsing holds elements to
their schema and the ranges of an acknowledgement to their own logic; what a number means for a
sequence is the machines' business. Unknown extension elements are skipped (features RM-04).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final, Self

from castile.config import Limits
from castile.errors import Malformed, SOAPFault, Violation
from castile.messages.addressing import EPR
from castile.messages.security import SecurityTokenReference
from castile.messages.soap import Header, fault_detail, in_header, qname_of, sequence_named
from castile.versions import (
    NETRM,
    SOAP_1_1,
    SOAP_1_2,
    WSRM,
    WSSE,
    Addressing,
    Reliability,
    SOAPVersion,
)
from castile.xml import Element, canonical, escape_text, inside, local_name, name_of, settled, text_of

_LIMITS: Final = Limits()
_MAX_UNSIGNED_LONG: Final = (1 << 64) - 1
_MAX_BUFFER: Final = 4096
_BUFFER: Final = f"{{{NETRM}}}BufferRemaining"
_STR: Final = f"{{{WSSE}}}SecurityTokenReference"
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_DURATION: Final = re.compile(
    r"(-)?P(?=.)(?:(\d{1,9})Y)?(?:(\d{1,9})M)?(?:(\d{1,9})D)?"
    r"(?:T(?=.)(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9}(?:\.\d{1,9})?)S)?)?",
    re.ASCII,
)
_UNITS: Final = (31_556_952, 2_629_746, 86_400, 3_600, 60, 1)
"""Seconds of a mean year, a mean month, a day and so on."""
INCOMPLETE: Final = ("NoDiscard", "DiscardFollowingFirstGap", "DiscardEntireSequence")
"""Values of IncompleteSequenceBehavior (WS-RM 1.2, 3.4)."""


def duration_seconds(text: str) -> float:
    """An xs:duration in seconds, negative ones too; raises `Malformed`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise Malformed("Expires isn't an xs:duration")
    sign, *parts = found.groups()
    seconds = sum(float(part) * unit for part, unit in zip(parts, _UNITS, strict=True) if part)
    return -seconds if sign else seconds


def _number(text: str, name: str) -> int:
    """An xs:unsignedLong; blanks and leading zeros are normal (features RE-81)."""
    digits = text.strip().removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        raise Malformed(f"{name} isn't a number")
    digits = digits.lstrip("0")
    value = int(digits or "0") if len(digits) <= 20 else _MAX_UNSIGNED_LONG + 1
    if value > _MAX_UNSIGNED_LONG:
        raise Malformed(f"{name} is above the largest xs:unsignedLong")
    return value


def _positive(element: Element) -> int:
    value = _number(text_of(element), local_name(element))
    if value == 0:
        raise Malformed(f"{local_name(element)} is 0: numbers begin with 1")
    return value


def _identifier(element: Element, limits: Limits = _LIMITS) -> str:
    """An absolute URI, compared octet by octet ever after (features RM-06)."""
    text = text_of(element).strip()
    if len(text) > limits.identifier_characters or _ABSOLUTE.fullmatch(text) is None:
        raise Malformed("a wsrm:Identifier isn't an absolute URI of reasonable length")
    return text


class _Children:
    """The children of one element: those of its own edition by local name, and the rest."""

    __slots__ = ("name", "other", "own")

    def __init__(self, element: Element, edition: Reliability, name: str) -> None:
        if name_of(element) != (edition.namespace, name):
            raise Malformed(
                "an element of WS-ReliableMessaging is not the one that belongs here",
                expected=f"{name} of {edition.name}",
                got=local_name(element),
            )
        self.name = name
        self.own: dict[str, list[Element]] = {}
        self.other: list[Element] = []
        for child in inside(element):
            namespace, local = name_of(child)
            if namespace == edition.namespace:
                self.own.setdefault(local, []).append(child)
            elif namespace in WSRM:
                raise Malformed(f"{name} mixes editions of WS-ReliableMessaging")
            else:
                self.other.append(child)

    def many(self, local: str) -> list[Element]:
        return self.own.pop(local, [])

    def optional(self, local: str) -> Element | None:
        found = self.own.pop(local, [])
        if len(found) > 1:
            raise Malformed(f"{self.name} holds {local} more than once")
        return found[0] if found else None

    def required(self, local: str) -> Element:
        found = self.optional(local)
        if found is None:
            raise Malformed(f"{self.name} lacks {local}")
        return found

    def finish(self) -> None:
        """Extensions stand in namespaces of their own: what is left here breaks the schema."""
        if self.own:
            raise Malformed(f"{self.name} must not hold {next(iter(self.own))}")


def _text(local: str, text: str | int | None) -> str:
    return "" if text is None else f"<r:{local}>{escape_text(str(text))}</r:{local}>"


def _element(edition: Reliability, local: str, content: str) -> bytes:
    return f'<r:{local} xmlns:r="{edition.namespace}">{content}</r:{local}>'.encode()


def _settle(octets: bytes, *references: EPR | None) -> bytes:
    return octets if all(item is None or item.is_plain for item in references) else settled(octets)


@dataclass(frozen=True, slots=True)
class Sequence:
    """The header that numbers a message (WS-RM 1.2, 3.7)."""

    identifier: str
    number: int
    last_message: bool = False
    """LastMessage: no number after this one (1.0)."""

    @classmethod
    def parse(cls, element: Element, edition: Reliability, limits: Limits = _LIMITS) -> Self:
        """A number above the sequence's maximum is for the machine to refuse."""
        children = _Children(element, edition, "Sequence")
        identifier = _identifier(children.required("Identifier"), limits)
        number = _positive(children.required("MessageNumber"))
        last = edition.has_last_message and children.optional("LastMessage") is not None
        children.finish()
        return cls(identifier, number, last)

    def render(self, edition: Reliability) -> Header:
        content = _text("Identifier", self.identifier) + _text("MessageNumber", self.number)
        if self.last_message:
            content += "<r:LastMessage></r:LastMessage>"
        return Header("r", edition.namespace, "Sequence", content.encode(), must_understand=True)


@dataclass(frozen=True, slots=True)
class SequenceAcknowledgement:
    """What the other side has accepted (WS-RM 1.2, 3.9).

    `ranges` are ascending and don't overlap. `none`: nothing yet, which is ``None`` in 1.1 and
    the range 0-0 in 1.0.
    """

    identifier: str
    ranges: tuple[tuple[int, int], ...] = ()
    none: bool = False
    final: bool = False
    nacks: tuple[int, ...] = ()
    buffer_remaining: int | None = None
    """WCF's flow control: how many more messages fit (0 to 4096)."""

    @classmethod
    def parse(cls, element: Element, edition: Reliability, limits: Limits = _LIMITS) -> Self:
        """Raises `Malformed` by schema and limit, `Violation` with InvalidAcknowledgement by logic.

        Final may stand anywhere (gSOAP writes it first), None and 0-0 are read in both editions,
        and None beside ranges says nothing (CXF writes both).
        """
        children = _Children(element, edition, "SequenceAcknowledgement")
        identifier = _identifier(children.required("Identifier"), limits)
        found = children.many("AcknowledgementRange")
        missing = children.many("Nack")
        none = children.optional("None") is not None
        final = children.optional("Final") is not None
        children.finish()
        if len(found) > limits.acknowledgement_ranges or len(missing) > limits.acknowledgement_ranges:
            raise Malformed(f"an acknowledgement of more than {limits.acknowledgement_ranges} ranges")
        ranges = sorted(_range(item) for item in found)
        if ranges == [(0, 0)]:
            ranges, none = [], True
        nacks = tuple(_positive(item) for item in missing)
        if not (ranges or none or nacks):
            raise Malformed("SequenceAcknowledgement holds neither a range nor None nor Nack")
        if nacks and (ranges or none or final):
            raise invalid_acknowledgement(element, edition, "Nack stands beside a range, None or Final")
        if any(lower == 0 or lower > upper for lower, upper in ranges):
            raise invalid_acknowledgement(element, edition, "a range is turned round or begins with 0")
        if any(left[1] >= right[0] for left, right in pairwise(ranges)):
            raise invalid_acknowledgement(element, edition, "its ranges overlap")
        none = none and not ranges
        return cls(identifier, tuple(ranges), none, final, nacks, _buffer(children.other))

    def render(self, edition: Reliability) -> Header:
        """Without mustUnderstand (features RM-49)."""
        content = _text("Identifier", self.identifier)
        if self.none and edition.can_close:
            content += "<r:None></r:None>"
        for lower, upper in ((0, 0),) if self.none and not edition.can_close else self.ranges:
            content += f'<r:AcknowledgementRange Lower="{lower}" Upper="{upper}"></r:AcknowledgementRange>'
        content += "".join(_text("Nack", number) for number in self.nacks)
        if self.final and edition.can_close:
            content += "<r:Final></r:Final>"
        if self.buffer_remaining is not None:
            count = self.buffer_remaining
            content += f'<netrm:BufferRemaining xmlns:netrm="{NETRM}">{count}</netrm:BufferRemaining>'
        return Header("r", edition.namespace, "SequenceAcknowledgement", content.encode())


def _range(element: Element) -> tuple[int, int]:
    lower, upper = element.get("Lower"), element.get("Upper")
    if lower is None or upper is None or len(element) or (element.text or "").strip():
        raise Malformed("an AcknowledgementRange has Lower and Upper and is empty")
    return _number(lower, "Lower"), _number(upper, "Upper")


def _buffer(others: Iterable[Element]) -> int | None:
    """A hint: what isn't a number from 0 to 4096 is as if it weren't there (features RM-35)."""
    for element in others:
        if element.tag == _BUFFER:
            text = (element.text or "").strip()
            if text.isascii() and text.isdigit() and len(text) <= 4 and int(text) <= _MAX_BUFFER:
                return int(text)
    return None


INVALID_ACKNOWLEDGEMENT: Final = (
    "The SequenceAcknowledgement violates the cumulative Acknowledgement invariant."
)


def invalid_acknowledgement(element: Element, edition: Reliability, cause: str) -> Violation:
    """InvalidAcknowledgement about a header as it came (WS-RM 1.2, 4.4)."""
    fault = SOAPFault(
        "Sender",
        INVALID_ACKNOWLEDGEMENT,
        (edition.namespace, "InvalidAcknowledgement"),
        canonical(element),
        action=edition.fault_action,
    )
    return Violation(f"an acknowledgement is invalid: {cause}", fault=fault)


@dataclass(frozen=True, slots=True)
class AckRequested:
    """Asks for an acknowledgement (WS-RM 1.2, 3.8)."""

    identifier: str

    @classmethod
    def parse(cls, element: Element, edition: Reliability, limits: Limits = _LIMITS) -> Self:
        """MaxMessageNumberUsed and MessageNumber are hints that are not needed (features RM-05)."""
        children = _Children(element, edition, "AckRequested")
        identifier = _identifier(children.required("Identifier"), limits)
        for hint in ("MaxMessageNumberUsed", "MessageNumber"):
            found = children.optional(hint)
            if found is not None:
                _number(text_of(found), hint)
        children.finish()
        return cls(identifier)

    def render(self, edition: Reliability) -> Header:
        content = _text("Identifier", self.identifier).encode()
        return Header("r", edition.namespace, "AckRequested", content)


@dataclass(frozen=True, slots=True)
class UsesSequenceSTR:
    """The reference in CreateSequence must be understood (WS-RM 1.2, 6.1; 1.1 only)."""

    @classmethod
    def parse(cls, element: Element, edition: Reliability) -> Self:
        if not edition.can_close or name_of(element) != (edition.namespace, "UsesSequenceSTR"):
            raise Malformed("UsesSequenceSTR belongs to WS-RM 1.1")
        return cls()

    def render(self, edition: Reliability) -> Header:
        return Header("r", edition.namespace, "UsesSequenceSTR", must_understand=True)


@dataclass(frozen=True, slots=True)
class SequenceFault:
    """The fault header of SOAP 1.1, whose Fault has no room for a subcode (WS-RM 1.2, 4.1)."""

    code: str
    """Local name of the RM fault."""
    detail: bytes = field(default=b"", repr=False)
    """Canonical elements: the children of Detail in 1.1, the detail itself in 1.0."""
    sequence: str | None = None
    """The Identifier in the detail."""

    @classmethod
    def of(cls, fault: SOAPFault) -> SequenceFault | None:
        """The header that must stand beside a fault in SOAP 1.1; None: none does (features RM-85)."""
        if fault.subcode is None or not in_header(fault):
            return None
        return cls(fault.subcode[1], fault_detail(fault), fault.sequence)

    @classmethod
    def parse(cls, element: Element, edition: Reliability) -> Self:
        """Raises `Malformed` for a code of another specification or edition."""
        children = _Children(element, edition, "SequenceFault")
        namespace, local = qname_of(children.required("FaultCode"))
        if namespace != edition.namespace:
            raise Malformed("the FaultCode of a SequenceFault is of another specification")
        parts = [*children.many("Identifier"), *children.many("SequenceAcknowledgement"), *children.other]
        if edition.can_close:
            detail = children.optional("Detail")
            parts = inside(detail) if detail is not None else []
        return cls(local, b"".join(canonical(part) for part in parts), sequence_named(parts))

    def render(self, edition: Reliability) -> Header:
        """Without mustUnderstand: it explains the Body, which is understood anyway."""
        detail = b"<r:Detail>" + self.detail + b"</r:Detail>" if edition.can_close else self.detail
        content = _text("FaultCode", f"r:{self.code}").encode()
        return Header("r", edition.namespace, "SequenceFault", content + (detail if self.detail else b""))

    def joined(self, fault: SOAPFault, edition: Reliability) -> SOAPFault:
        """The Body's fault with what this header adds; `Malformed` where they disagree.

        Metro writes the RM code into the Body as well; CXF and Sandesha2 send the header also
        with a fault that is about no sequence.
        """
        code = (edition.namespace, self.code)
        if fault.subcode not in (None, code):
            raise Malformed("the SequenceFault header names another fault than the Body")
        detail, sequence = self.detail or fault.detail, self.sequence or fault.sequence
        return replace(fault, subcode=code, detail=detail, sequence=sequence)


@dataclass(frozen=True, slots=True)
class RMHeaders:
    """What a message says about sequences in its header."""

    sequence: Sequence | None = None
    acknowledgements: tuple[SequenceAcknowledgement, ...] = ()
    ack_requested: tuple[AckRequested, ...] = ()
    uses_sequence_str: bool = False
    fault: SequenceFault | None = None
    """Of SOAP 1.1 only: 1.2 has no such header, and one that stands there says nothing."""


def parse_headers(
    elements: Iterable[Element],
    edition: Reliability,
    limits: Limits = _LIMITS,
    *,
    soap: SOAPVersion = SOAP_1_2,
) -> RMHeaders:
    """The RM headers among the header blocks; other blocks are skipped.

    Raises `Malformed` for a header that may stand once and stands twice, and for one of another
    edition (features RM-40, RE-89).
    """
    found: dict[str, list[Element]] = {}
    for element in elements:
        namespace, local = name_of(element)
        if namespace == edition.namespace:
            found.setdefault(local, []).append(element)
        elif namespace in WSRM:
            raise Malformed("the message mixes editions of WS-ReliableMessaging")
    if not found:
        return RMHeaders()
    for local in ("Sequence", "UsesSequenceSTR", "SequenceFault"):
        if len(found.get(local, ())) > 1:
            raise Malformed(f"the message has the header {local} twice")
    sequence = [Sequence.parse(item, edition, limits) for item in found.get("Sequence", ())]
    acknowledgements = tuple(
        SequenceAcknowledgement.parse(item, edition, limits)
        for item in found.get("SequenceAcknowledgement", ())
    )
    requests = tuple(AckRequested.parse(item, edition, limits) for item in found.get("AckRequested", ()))
    for items in (acknowledgements, requests):
        if len({item.identifier for item in items}) != len(items):
            raise Malformed("two headers of one kind are about the same sequence")
    uses = [UsesSequenceSTR.parse(item, edition) for item in found.get("UsesSequenceSTR", ())]
    faults = found.get("SequenceFault", []) if soap is SOAP_1_1 else []
    return RMHeaders(
        sequence[0] if sequence else None,
        acknowledgements,
        requests,
        bool(uses),
        SequenceFault.parse(faults[0], edition) if faults else None,
    )


def _expires(children: _Children) -> str | None:
    element = children.optional("Expires")
    if element is None:
        return None
    text = text_of(element).strip()
    duration_seconds(text)
    return text


def _incomplete(children: _Children, edition: Reliability) -> str | None:
    element = children.optional("IncompleteSequenceBehavior") if edition.can_close else None
    if element is None:
        return None
    text = text_of(element).strip()
    if text not in INCOMPLETE:
        raise Malformed("IncompleteSequenceBehavior has an unknown value")
    return text


def _last(children: _Children, edition: Reliability) -> int | None:
    element = children.optional("LastMsgNumber") if edition.can_close else None
    return _positive(element) if element is not None else None


@dataclass(frozen=True, slots=True)
class Offer:
    """A sequence for the other direction (WS-RM 1.2, 3.4)."""

    identifier: str
    endpoint: EPR | None
    """Where its messages go (1.1)."""
    expires: str | None = None
    """xs:duration; None or ``PT0S``: never."""
    incomplete: str | None = None

    @classmethod
    def parse(cls, element: Element, edition: Reliability, addressing: Addressing) -> Self:
        children = _Children(element, edition, "Offer")
        endpoint = children.optional("Endpoint")
        if endpoint is None and edition.can_close:
            raise Malformed("Offer lacks Endpoint")
        if not edition.can_close:
            endpoint = None  # 1.0 has none: gSOAP writes one all the same, with an empty address
        offer = cls(
            _identifier(children.required("Identifier")),
            EPR.parse(endpoint, addressing) if endpoint is not None else None,
            _expires(children),
            _incomplete(children, edition),
        )
        children.finish()
        return offer

    def content(self, edition: Reliability, addressing: Addressing) -> str:
        """As a child of CreateSequence, which declares the prefix ``r``."""
        endpoint = ""
        if self.endpoint is not None and edition.can_close:
            endpoint = self.endpoint.render(
                "Endpoint", "r", edition.namespace, addressing, nested=True
            ).decode()
        incomplete = self.incomplete if edition.can_close else None
        return (
            f"<r:Offer>{_text('Identifier', self.identifier)}{endpoint}{_text('Expires', self.expires)}"
            f"{_text('IncompleteSequenceBehavior', incomplete)}</r:Offer>"
        )


@dataclass(frozen=True, slots=True)
class CreateSequence:
    """Asks for a sequence, bound to `token` (WS-RM 1.2, 3.4 and 6.1)."""

    acks_to: EPR
    expires: str | None = None
    offer: Offer | None = None
    token: SecurityTokenReference | None = None

    @classmethod
    def parse(cls, element: Element, edition: Reliability, addressing: Addressing) -> Self:
        children = _Children(element, edition, "CreateSequence")
        acks_to = EPR.parse(children.required("AcksTo"), addressing)
        expires = _expires(children)
        offer = children.optional("Offer")
        children.finish()
        tokens = [child for child in children.other if child.tag == _STR]
        if len(tokens) > 1:
            raise Malformed("CreateSequence refers to more than one token")
        return cls(
            acks_to,
            expires,
            Offer.parse(offer, edition, addressing) if offer is not None else None,
            SecurityTokenReference.parse(tokens[0]) if tokens else None,
        )

    def render(self, edition: Reliability, addressing: Addressing) -> bytes:
        content = self.acks_to.render("AcksTo", "r", edition.namespace, addressing, nested=True).decode()
        content += _text("Expires", self.expires)
        if self.offer is not None:
            content += self.offer.content(edition, addressing)
        if self.token is not None:
            content += self.token.render().decode()
        endpoint = self.offer.endpoint if self.offer is not None else None
        return _settle(_element(edition, "CreateSequence", content), self.acks_to, endpoint)


@dataclass(frozen=True, slots=True)
class CreateSequenceResponse:
    """The new sequence, and whether the offered one is accepted (WS-RM 1.2, 3.4)."""

    identifier: str
    expires: str | None = None
    incomplete: str | None = None
    accept: EPR | None = None
    """AcksTo of the accepted offer."""

    @classmethod
    def parse(cls, element: Element, edition: Reliability, addressing: Addressing) -> Self:
        children = _Children(element, edition, "CreateSequenceResponse")
        accept = children.optional("Accept")
        response = cls(
            _identifier(children.required("Identifier")),
            _expires(children),
            _incomplete(children, edition),
            _accepted(accept, edition, addressing) if accept is not None else None,
        )
        children.finish()
        return response

    def render(self, edition: Reliability, addressing: Addressing) -> bytes:
        content = _text("Identifier", self.identifier) + _text("Expires", self.expires)
        if edition.can_close:
            content += _text("IncompleteSequenceBehavior", self.incomplete)
        if self.accept is not None:
            acks_to = self.accept.render("AcksTo", "r", edition.namespace, addressing, nested=True)
            content += f"<r:Accept>{acks_to.decode()}</r:Accept>"
        return _settle(_element(edition, "CreateSequenceResponse", content), self.accept)


def _accepted(element: Element, edition: Reliability, addressing: Addressing) -> EPR:
    children = _Children(element, edition, "Accept")
    acks_to = EPR.parse(children.required("AcksTo"), addressing)
    children.finish()
    return acks_to


def _closing(element: Element, edition: Reliability, name: str) -> _Children:
    if not edition.can_close and name != "TerminateSequence":
        raise Malformed(f"{edition.name} has no {name}")
    return _Children(element, edition, name)


@dataclass(frozen=True, slots=True)
class _Ending:
    """What CloseSequence and TerminateSequence share."""

    identifier: str
    last: int | None = None
    """LastMsgNumber (1.1); None for an empty sequence."""

    @classmethod
    def parse(cls, element: Element, edition: Reliability, _: Addressing) -> Self:
        children = _closing(element, edition, cls.__name__)
        message = cls(_identifier(children.required("Identifier")), _last(children, edition))
        children.finish()
        return message

    def render(self, edition: Reliability, _: Addressing) -> bytes:
        content = _text("Identifier", self.identifier)
        if edition.can_close:
            content += _text("LastMsgNumber", self.last)
        return _element(edition, type(self).__name__, content)


@dataclass(frozen=True, slots=True)
class _Ended:
    """What their responses share."""

    identifier: str

    @classmethod
    def parse(cls, element: Element, edition: Reliability, _: Addressing) -> Self:
        children = _closing(element, edition, cls.__name__)
        message = cls(_identifier(children.required("Identifier")))
        children.finish()
        return message

    def render(self, edition: Reliability, _: Addressing) -> bytes:
        return _element(edition, type(self).__name__, _text("Identifier", self.identifier))


class CloseSequence(_Ending):
    """No new messages; acknowledgements become final (WS-RM 1.2, 3.5; 1.1 only)."""

    __slots__ = ()


class CloseSequenceResponse(_Ended):
    """WS-RM 1.2, 3.5; 1.1 only."""

    __slots__ = ()


class TerminateSequence(_Ending):
    """The sequence has done its work (WS-RM 1.2, 3.6); in 1.0 a one-way message."""

    __slots__ = ()


class TerminateSequenceResponse(_Ended):
    """WS-RM 1.2, 3.6; 1.1 only."""

    __slots__ = ()
