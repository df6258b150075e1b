"""The SOAP envelope: header blocks, Body, faults, in both versions.

What is sent is rendered part by part: each header block and the Body stand alone in exclusive
C14N, so their bytes on the wire are the bytes that a signature covers. What is received is read
by position only.

One thing exclusive C14N leaves out is a prefix that only a *value* uses, as in
``xsi:type="xsd:int"``. The bytes of a body therefore declare such prefixes on their outermost
element (`xml.canonical_fragment` does it), and on the wire they move to the Envelope, where no
signature looks (`Message.namespaces`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, get_args

from castile import xml
from castile.config import Limits
from castile.errors import FaultCode, Malformed, QName, SOAPFault, UsageError
from castile.versions import PREFIXES, SOAP, SOAP_1_1, SOAP_1_2, WSRM, WSSE, WSU, SOAPVersion, part_name
from castile.xml import (
    Element,
    canonical,
    escape_attribute,
    escape_text,
    inside,
    local_name,
    name_of,
    settled,
    split_declarations,
    text_of,
)

_SECURITY: Final = f"{{{WSSE}}}Security"
_NEXT: Final = {
    SOAP_1_1: "http://schemas.xmlsoap.org/soap/actor/next",
    SOAP_1_2: f"{SOAP_1_2.namespace}/role/next",
}
_ULTIMATE: Final = f"{SOAP_1_2.namespace}/role/ultimateReceiver"
_ROLE: Final = {
    SOAP_1_1: f"{{{SOAP_1_1.namespace}}}actor",
    SOAP_1_2: f"{{{SOAP_1_2.namespace}}}role",
}
_NAMES_11: Final = {SOAP_1_1.sender: "Sender", SOAP_1_1.receiver: "Receiver"}
NO_SEQUENCE: Final = frozenset({"CreateSequenceRefused", "WSRMRequired"})
"""RM faults that are about no sequence: in SOAP 1.1 the code stands in the Body itself."""
_LANGUAGE: Final = "{http://www.w3.org/XML/1998/namespace}lang"


@dataclass(frozen=True, slots=True)
class Header:
    """An outgoing header block."""

    prefix: str
    namespace: str
    local: str
    content: bytes = b""
    """Canonical, as it stands where `prefix` is declared."""
    must_understand: bool = False
    whole: bool = False
    """`content` is the block itself, which a peer wrote."""

    @property
    def name(self) -> str:
        """The part's name as people read it, such as ``wsa:To``."""
        return part_name(self.namespace, self.local)

    def render(self, soap: SOAPVersion, id: str | None = None) -> bytes:
        """Canonical bytes; with `id` it carries ``u:Id``."""
        if self.whole:
            return self.content if id is None else _named(self.content, id)
        declarations = [(self.prefix, self.namespace)]
        attributes = ""
        if id is not None:
            declarations.append(("u", WSU))
            attributes += f' u:Id="{escape_attribute(id)}"'
        if self.must_understand:
            declarations.append(("s", soap.namespace))
            attributes += ' s:mustUnderstand="1"'
        start, end = _tags(self.prefix, self.local, declarations, attributes)
        return b"".join((start, _settled(self.content, declarations, start, end), end))


@dataclass(frozen=True, slots=True)
class Message:
    """An outgoing message, unprotected."""

    soap: SOAPVersion
    headers: tuple[Header, ...]
    body: bytes = field(default=b"", repr=False)
    """Canonical children of Body; empty for an empty Body."""

    @property
    def namespaces(self) -> tuple[tuple[str, str], ...]:
        """Prefixes and URIs that the Envelope must declare for values in the body."""
        return split_declarations(self.body)[1]


def _named(block: bytes, id: str) -> bytes:
    root = xml.parse(block, Limits())
    root.set(f"{{{WSU}}}Id", id)
    return canonical(root)


def _tags(
    prefix: str, local: str, declarations: list[tuple[str, str]], attributes: str
) -> tuple[bytes, bytes]:
    scope = "".join(f' xmlns:{name}="{uri}"' for name, uri in sorted(declarations))
    return f"<{prefix}:{local}{scope}{attributes}>".encode(), f"</{prefix}:{local}>".encode()


def _settled(content: bytes, declarations: list[tuple[str, str]], start: bytes, end: bytes) -> bytes:
    """Canonical content as it stands inside its start tag, which may declare the same prefix."""
    if not any(f' xmlns:{name}="{uri}"'.encode() in content for name, uri in declarations):
        return content
    return settled(start + content + end)[len(start) : -len(end)]


def body_frame(soap: SOAPVersion, body: bytes, id: str | None = None) -> tuple[bytes, bytes, bytes]:
    """Start tag, canonical content and end tag of Body, so that encryption can replace the content.

    Raises `UsageError` where a value of the body uses a prefix that the Body itself needs.
    """
    declarations = [("s", soap.namespace)]
    attributes = ""
    if id is not None:
        declarations.append(("u", WSU))
        attributes = f' u:Id="{escape_attribute(id)}"'
    content, hoisted = split_declarations(body)
    for prefix, uri in hoisted:
        if prefix in ("s", "u") and uri not in (soap.namespace, WSU):
            raise UsageError(
                f"a value of the body uses the prefix {prefix!r}, which SOAP needs: bind another one"
            )
    start, end = _tags("s", "Body", declarations, attributes)
    return start, _settled(content, declarations, start, end), end


def render_body(soap: SOAPVersion, body: bytes, id: str | None = None) -> bytes:
    """The Body as canonical bytes that stand alone."""
    return b"".join(body_frame(soap, body, id))


def assemble(
    soap: SOAPVersion,
    headers: Sequence[bytes],
    security: bytes,
    body: bytes,
    namespaces: Sequence[tuple[str, str]] = (),
) -> bytes:
    """The envelope from rendered parts; Security is the last header (features MS-01).

    `namespaces` are those of `Message.namespaces`.
    """
    scope = "".join(
        f' xmlns:{prefix}="{escape_attribute(uri)}"' for prefix, uri in namespaces if prefix != "s"
    )
    head: tuple[bytes, ...] = ()
    if headers or security:
        head = (b"<s:Header>", *headers, security, b"</s:Header>")
    return b"".join(
        (f'<s:Envelope xmlns:s="{soap.namespace}"{scope}>'.encode(), *head, body, b"</s:Envelope>")
    )


def render(message: Message) -> bytes:
    """The whole envelope without protection."""
    headers = [header.render(message.soap) for header in message.headers]
    return assemble(message.soap, headers, b"", render_body(message.soap, message.body), message.namespaces)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A received envelope, read by position only."""

    soap: SOAPVersion
    root: Element
    headers: tuple[Element, ...]
    """Every header block, the Security header and those for other roles among them."""
    security: Element | None
    """The one Security header that is for us."""
    body: Element
    size: int
    """Bytes of the message as it came."""


def parse(root: Element, limits: Limits, size: int) -> Envelope:
    """Header? and Body, nothing else (SOAP 1.2 part 1, 5; features RE-17).

    Raises `Malformed`; a root that is no SOAP envelope asks for the fault VersionMismatch.
    """
    namespace, local = name_of(root)
    soap = SOAP.get(namespace)
    if soap is None or local != "Envelope":
        raise Malformed(
            "the document is no SOAP 1.1 or 1.2 envelope",
            fault=SOAPFault("VersionMismatch", "SOAP 1.1 and SOAP 1.2 envelopes are understood."),
        )
    children = inside(root)
    tags = [child.tag for child in children]
    body, header = f"{{{namespace}}}Body", f"{{{namespace}}}Header"
    if tags not in ([header, body], [body]):
        raise Malformed("an Envelope holds at most one Header, then one Body, and nothing else")
    if any(text and not text.isspace() for text in (root.text, *[child.tail for child in root])):
        raise Malformed("text stands between the children of Envelope")
    blocks = inside(children[0]) if len(children) == 2 else []
    if len(blocks) > limits.header_blocks:
        raise Malformed(f"more than {limits.header_blocks} header blocks")
    if any(not name_of(block)[0] for block in blocks):
        raise Malformed("a header block without a namespace")
    security = [block for block in blocks if block.tag == _SECURITY and is_for_us(block, soap)]
    if len(security) > 1:
        raise Malformed("more than one Security header for this receiver")
    return Envelope(soap, root, tuple(blocks), security[0] if security else None, children[-1], size)


def is_for_us(header: Element, soap: SOAPVersion) -> bool:
    """Whether the header block's role or actor is the ultimate receiver or next."""
    role = header.get(_ROLE[soap])
    if role is None:
        return True
    role = role.strip()
    return role in ("", _NEXT[soap]) or (soap is SOAP_1_2 and role == _ULTIMATE)


def must_understand(header: Element, soap: SOAPVersion) -> bool:
    """Whether we must understand the block: it is for us and says so.

    ``true`` is read in SOAP 1.1 too (Metro sends it); raises `Malformed` for anything else.
    """
    text = header.get(f"{{{soap.namespace}}}mustUnderstand")
    if text is None:
        return False
    value = {"1": True, "true": True, "0": False, "false": False}.get(text.strip())
    if value is None:
        raise Malformed(f"mustUnderstand of {local_name(header)} is neither true nor false")
    return value and is_for_us(header, soap)


def qname_of(element: Element) -> QName:
    """The QName that is an element's text; raises `Malformed`."""
    prefix, _, local = text_of(element).strip().rpartition(":")
    uri = element.nsmap.get(prefix or None)
    if not local or (prefix and uri is None):
        raise Malformed(f"{local_name(element)} holds no name that can be resolved")
    return (uri or "", local)


def read_fault(body_child: Element, soap: SOAPVersion) -> SOAPFault | None:
    """The fault, if the Body's child is one; raises `Malformed` for one that breaks its schema."""
    if body_child.tag != f"{{{soap.namespace}}}Fault":
        return None
    return _read_fault_11(body_child) if soap is SOAP_1_1 else _read_fault_12(body_child)


def _children_by_name(element: Element) -> dict[str, Element]:
    found: dict[str, Element] = {}
    for child in inside(element):
        if child.tag in found:
            raise Malformed(f"{local_name(element)} holds {local_name(child)} twice")
        found[str(child.tag)] = child
    return found


def _read_fault_12(fault: Element) -> SOAPFault:
    space = f"{{{SOAP_1_2.namespace}}}"
    parts = _children_by_name(fault)
    code, reason = parts.get(f"{space}Code"), parts.get(f"{space}Reason")
    if code is None or reason is None:
        raise Malformed("a Fault without Code or Reason")
    names: list[QName] = []
    level: Element | None = code
    while level is not None and len(names) < 3:
        inner = _children_by_name(level)
        value = inner.get(f"{space}Value")
        if value is None:
            raise Malformed("a Code or Subcode without Value")
        names.append(qname_of(value))
        level = inner.get(f"{space}Subcode")
    texts = [child for child in inside(reason) if child.tag == f"{space}Text"]
    if not texts:
        raise Malformed("a Reason without Text")
    texts.sort(key=lambda text: not (text.get(_LANGUAGE) or "").lower().startswith("en"))
    detail = parts.get(f"{space}Detail")
    return SOAPFault(
        _code(names[0]),
        text_of(texts[0]),
        names[1] if len(names) > 1 else None,
        _detail(detail),
        sequence=_sequence(detail),
        nested=names[2] if len(names) > 2 else None,
    )


def _read_fault_11(fault: Element) -> SOAPFault:
    parts = {local_name(child): child for child in _children_by_name(fault).values()}
    code, reason = parts.get("faultcode"), parts.get("faultstring")
    if code is None or reason is None:
        raise Malformed("a Fault without faultcode or faultstring")
    name = qname_of(code)
    # 1.1 has no subcode: another specification's code stands in its place (SOAP 1.1, 4.4.1).
    standard = name[0] in (SOAP_1_1.namespace, "")
    detail = parts.get("detail")
    return SOAPFault(
        _code(name) if standard else "Sender",
        text_of(reason),
        None if standard else name,
        _detail(detail),
        sequence=_sequence(detail),
    )


def _code(name: QName) -> FaultCode:
    """SOAP 1.2's name of a fault code; an unknown one counts as the sender's."""
    local = name[1].partition(".")[0]  # SOAP 1.1 has Client.Authentication
    local = _NAMES_11.get(local, local)
    for code in get_args(FaultCode):
        if local == code:
            return code  # type: ignore[no-any-return]
    return "Sender"


def _detail(detail: Element | None) -> bytes:
    return b"".join(canonical(child) for child in inside(detail)) if detail is not None else b""


def _sequence(detail: Element | None) -> str | None:
    return sequence_named(inside(detail)) if detail is not None else None


def sequence_named(detail: Iterable[Element]) -> str | None:
    """The sequence that an RM fault names by these elements of its detail (WS-RM 1.2, 4)."""
    for child in detail:
        namespace, local = name_of(child)
        if namespace in WSRM and local == "Identifier":
            return text_of(child).strip()
        if namespace in WSRM and local == "SequenceAcknowledgement":
            return sequence_named(inside(child))
    return None


def fault_detail(fault: SOAPFault) -> bytes:
    """Its detail; an RM fault that names its sequence and has none gets the Identifier."""
    if fault.detail or not fault.sequence or fault.subcode is None or fault.subcode[0] not in WSRM:
        return fault.detail
    identifier = escape_text(fault.sequence)
    return f'<r:Identifier xmlns:r="{fault.subcode[0]}">{identifier}</r:Identifier>'.encode()


def in_header(fault: SOAPFault) -> bool:
    """Whether SOAP 1.1 tells code and detail in a SequenceFault header (features RM-85)."""
    return fault.subcode is not None and fault.subcode[0] in WSRM and fault.subcode[1] not in NO_SEQUENCE


def render_fault(fault: SOAPFault, soap: SOAPVersion) -> bytes:
    """The fault as the content of a Body."""
    names: dict[str, str] = {}
    detail = fault_detail(fault)
    text = _fault_12(fault, detail, names) if soap is SOAP_1_2 else _fault_11(fault, detail, names)
    scope = "".join(
        f' xmlns:{prefix}="{escape_attribute(uri)}"'
        for prefix, uri in sorted({"s": soap.namespace, **names}.items())
    )
    return f"<s:Fault{scope}>{text}</s:Fault>".encode()


def not_understood(fault: SOAPFault, soap: SOAPVersion) -> tuple[Header, ...]:
    """The headers that name what wasn't understood (SOAP 1.2 part 1, 5.4.8); SOAP 1.1 has none."""
    return tuple(
        Header(
            "s",
            soap.namespace,
            "NotUnderstood",
            f'<s:NotUnderstood xmlns:q="{escape_attribute(namespace)}" xmlns:s="{soap.namespace}" '
            f'qname="q:{escape_attribute(local)}"></s:NotUnderstood>'.encode(),
            whole=True,
        )
        for namespace, local in (fault.not_understood if soap is SOAP_1_2 else ())
    )


def _written(name: QName, names: dict[str, str]) -> str:
    """A QName as text; its prefix is noted in `names`."""
    uri, local = name
    prefix = PREFIXES.get(uri, "n")
    while names.get(prefix, uri) != uri or prefix == "s":
        prefix += "n"
    names[prefix] = uri
    return f"{prefix}:{local}"


def _fault_12(fault: SOAPFault, detail: bytes, names: dict[str, str]) -> str:
    subcode = ""
    for name in (fault.nested, fault.subcode):
        if name is not None:
            subcode = f"<s:Subcode><s:Value>{_written(name, names)}</s:Value>{subcode}</s:Subcode>"
    return (
        f"<s:Code><s:Value>s:{fault.code}</s:Value>{subcode}</s:Code>"
        f'<s:Reason><s:Text xml:lang="en">{escape_text(fault.reason)}</s:Text></s:Reason>'
        + (f"<s:Detail>{detail.decode()}</s:Detail>" if detail else "")
    )


def _fault_11(fault: SOAPFault, detail: bytes, names: dict[str, str]) -> str:
    code = {"Sender": "s:Client", "Receiver": "s:Server"}.get(fault.code, f"s:{fault.code}")
    if in_header(fault):
        detail = b""  # SOAP 1.1, 4.4: detail in the Body is about the Body
    elif fault.subcode is not None:
        code = _written(fault.subcode, names)
    return f"<faultcode>{code}</faultcode><faultstring>{escape_text(fault.reason)}</faultstring>" + (
        f"<detail>{detail.decode()}</detail>" if detail else ""
    )
