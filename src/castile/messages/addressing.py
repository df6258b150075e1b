"""WS-Addressing: endpoint references and the message addressing headers, both editions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from castile import xml
from castile.config import Limits
from castile.errors import Malformed, SOAPFault, Violation
from castile.messages.soap import Header
from castile.versions import (
    NETRM,
    SOAP,
    UNSPECIFIED,
    WSA,
    WSA_2004,
    WSMC,
    WSRM,
    WSSE,
    WSSE11,
    WSU,
    Addressing,
)
from castile.xml import (
    Element,
    canonical,
    escape_text,
    inside,
    local_name,
    name_of,
    settled,
    text_of,
)

_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_REPLY: Final = "http://www.w3.org/2005/08/addressing/reply"
_LIMITS: Final = Limits()
_OURS: Final = frozenset({*SOAP, *WSA, *WSRM, WSMC, NETRM, WSSE, WSSE11, WSU})
"""A header of these namespaces is not for an application to give to itself."""


@dataclass(frozen=True, slots=True)
class EPR:
    """An endpoint reference (WS-Addressing 1.0 Core, 2). Metadata is not kept."""

    address: str
    parameters: tuple[bytes, ...] = ()
    """Reference parameters, each in exclusive C14N."""
    properties: tuple[bytes, ...] = ()
    """Reference properties, which only 2004/08 has."""

    @classmethod
    def parse(cls, element: Element, edition: Addressing, limits: Limits = _LIMITS) -> Self:
        """Raises `Violation` with the fault that WS-Addressing has for a bad reference."""
        space = f"{{{edition.namespace}}}"
        addresses: list[Element] = []
        kept: dict[str, tuple[bytes, ...]] = {}
        for child in inside(element):
            if child.tag == f"{space}Address":
                addresses.append(child)
            elif child.tag in (f"{space}ReferenceParameters", f"{space}ReferenceProperties"):
                kept[local_name(child)] = tuple(canonical(parameter) for parameter in inside(child))
            elif name_of(child)[0] in WSA and name_of(child)[0] != edition.namespace:
                raise Malformed(f"{local_name(element)} mixes editions of WS-Addressing")
        if len(addresses) != 1:
            raise invalid_header(edition, local_name(element), "MissingAddressInEPR")
        address = text_of(addresses[0]).strip()
        if _ABSOLUTE.fullmatch(address) is None or len(address) > limits.identifier_characters:
            raise invalid_header(edition, local_name(element), "InvalidAddress")
        return cls(address, kept.get("ReferenceParameters", ()), kept.get("ReferenceProperties", ()))

    def render(
        self, local: str, prefix: str, namespace: str, edition: Addressing, *, nested: bool = False
    ) -> bytes:
        """The reference as an element of any name; `nested`: its parent has declared `prefix`.

        A parent whose references aren't plain passes its bytes through `xml.settled`.
        """
        scope = "" if nested else f' xmlns:{prefix}="{namespace}"'
        content = self.content(edition, nested=(prefix, namespace) == ("a", edition.namespace))
        octets = f"<{prefix}:{local}{scope}>".encode() + content + f"</{prefix}:{local}>".encode()
        return octets if nested or self.is_plain else settled(octets)

    @property
    def is_plain(self) -> bool:
        """An address and nothing else."""
        return not self.parameters and not self.properties

    def content(self, edition: Addressing, *, nested: bool) -> bytes:
        """The children, for a parent that has (`nested`) or hasn't declared the prefix ``a``."""
        scope = "" if nested else f' xmlns:a="{edition.namespace}"'
        pieces = [f"<a:Address{scope}>{escape_text(self.address)}</a:Address>".encode()]
        for local, values in (
            ("ReferenceProperties", self.properties if edition is WSA_2004 else ()),
            ("ReferenceParameters", self.parameters),
        ):
            if values:
                pieces += [f"<a:{local}{scope}>".encode(), *values, f"</a:{local}>".encode()]
        return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class Headers:
    """The message addressing properties (WS-Addressing 1.0 Core, 3)."""

    action: str
    to: str | None = None
    message_id: str | None = None
    reply_to: EPR | None = None
    fault_to: EPR | None = None
    from_: EPR | None = None
    relates_to: str | None = None
    """The message that this one is the reply to; other relationships are not read."""


def reference_headers(headers: Headers, edition: Addressing, *, fault: bool) -> tuple[Header, ...]:
    """What the answer to a message copies from its ReplyTo, or FaultTo (WS-Addressing 1.0 SOAP
    binding, 3.2). Blocks that would mean something to SOAP or to us are left out."""
    reference = (headers.fault_to if fault else None) or headers.reply_to
    copied = []
    for octets in (*reference.properties, *reference.parameters) if reference is not None else ():
        block = xml.parse(octets, _LIMITS)
        namespace, local = name_of(block)
        if not namespace or namespace in _OURS:
            continue
        if not edition.reply_to_required:
            block.set(f"{{{edition.namespace}}}IsReferenceParameter", "true")
        copied.append(Header(block.prefix or "", namespace, local, canonical(block), whole=True))
    return tuple(copied)


def _fault(edition: Addressing, name: str, header: str, reason: str, nested: str | None) -> SOAPFault:
    """A fault about one header (WS-Addressing 1.0 SOAP binding, 6; 2004/08 has other names)."""
    if edition is WSA_2004:
        name = {
            "InvalidAddressingHeader": "InvalidMessageInformationHeader",
            "MessageAddressingHeaderRequired": "MessageInformationHeaderRequired",
        }[name]
        nested, detail = None, b""
    else:
        scope = f'xmlns:a="{edition.namespace}"'
        detail = f"<a:ProblemHeaderQName {scope}>a:{header}</a:ProblemHeaderQName>".encode()
    namespace = edition.namespace
    return SOAPFault(
        "Sender",
        reason,
        (namespace, name),
        detail,
        action=edition.fault_action,
        nested=(namespace, nested) if nested else None,
    )


def invalid_header(edition: Addressing, header: str, problem: str | None = None) -> Violation:
    """InvalidAddressingHeader about one header, `problem` being the nested subcode (features RE-32)."""
    reason = "A header representing a Message Addressing Property is not valid"
    fault = _fault(edition, "InvalidAddressingHeader", header, reason, problem)
    return Violation(f"wsa:{header} is not valid: {problem or 'see the fault'}", fault=fault)


def header_required(edition: Addressing, header: str) -> Violation:
    """MessageAddressingHeaderRequired (WS-Addressing 1.0 SOAP binding, 6.4.2)."""
    reason = "A required header representing a Message Addressing Property is not present"
    fault = _fault(edition, "MessageAddressingHeaderRequired", header, reason, None)
    return Violation(f"wsa:{header} is missing", fault=fault)


def edition_of(headers: Iterable[Element]) -> Addressing | None:
    """The edition that the header blocks use; None: no addressing. Mixed ones are `Malformed`."""
    found: Addressing | None = None
    for header in headers:
        edition = WSA.get(name_of(header)[0])
        if edition is None or edition is found:
            continue
        if found is not None:
            raise Malformed("the message mixes editions of WS-Addressing")
        found = edition
    return found


def parse(headers: Iterable[Element], edition: Addressing, limits: Limits = _LIMITS) -> Headers:
    """The addressing headers among the header blocks of a message.

    Raises `Violation` with WS-Addressing's own fault for a missing Action, a doubled or a bad
    header, `Malformed` for another edition's header.
    """
    values: dict[str, str] = {}
    references: dict[str, EPR] = {}
    for header in headers:
        namespace, local = name_of(header)
        if namespace != edition.namespace:
            if namespace in WSA:
                raise Malformed(
                    "the message is addressed in another edition of WS-Addressing",
                    expected=edition.name,
                    got=WSA[namespace].name,
                )
            continue
        if local in ("ReplyTo", "FaultTo", "From"):
            if local in references:
                raise invalid_header(edition, local, "InvalidCardinality")
            references[local] = EPR.parse(header, edition, limits)
        elif local in ("Action", "To", "MessageID") or (local == "RelatesTo" and _is_reply(header)):
            if local in values:
                raise invalid_header(edition, local, "InvalidCardinality")
            values[local] = _uri(header, edition, limits)
    if "Action" not in values:
        raise header_required(edition, "Action")
    relates_to = values.get("RelatesTo")
    return Headers(
        values["Action"],
        values.get("To"),
        values.get("MessageID"),
        references.get("ReplyTo"),
        references.get("FaultTo"),
        references.get("From"),
        relates_to if relates_to not in UNSPECIFIED else None,
    )


def _is_reply(header: Element) -> bool:
    """2004/08 writes the type as a QName, 1.0 as a URI; absent means reply in both."""
    kind = header.get("RelationshipType")
    return kind is None or kind.strip() == _REPLY or kind.strip().rpartition(":")[2] == "Reply"


def _uri(header: Element, edition: Addressing, limits: Limits) -> str:
    text = text_of(header).strip()
    if not text or len(text) > limits.identifier_characters or any(map(str.isspace, text)):
        problem = "InvalidAddress" if local_name(header) == "To" else None
        raise invalid_header(edition, local_name(header), problem)
    return text


def render(headers: Headers, edition: Addressing) -> tuple[Header, ...]:
    """Header blocks in the order that WCF writes: Action, RelatesTo, MessageID, ReplyTo, To."""
    blocks = [_text(edition, "Action", headers.action, must_understand=True)]
    if headers.from_ is not None:
        blocks.append(_reference(edition, "From", headers.from_))
    if headers.relates_to is not None:
        blocks.append(_text(edition, "RelatesTo", headers.relates_to))
    if headers.message_id is not None:
        blocks.append(_text(edition, "MessageID", headers.message_id))
    if headers.reply_to is not None:
        blocks.append(_reference(edition, "ReplyTo", headers.reply_to))
    if headers.fault_to is not None:
        blocks.append(_reference(edition, "FaultTo", headers.fault_to))
    if headers.to is not None:
        blocks.append(_text(edition, "To", headers.to, must_understand=True))
    return tuple(blocks)


def _text(edition: Addressing, local: str, text: str, *, must_understand: bool = False) -> Header:
    return Header("a", edition.namespace, local, escape_text(text).encode(), must_understand)


def _reference(edition: Addressing, local: str, reference: EPR) -> Header:
    return Header("a", edition.namespace, local, reference.content(edition, nested=True))
