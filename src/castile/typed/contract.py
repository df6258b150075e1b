"""What the messages of a WSDL hold: the parts of each Body, its SOAP headers, its faults' details.

Ports, operations and actions are `castile.policy.description`'s; this adds what is in the Body.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from castile import xml
from castile.errors import QName, UsageError
from castile.messages.policy import NO_POLICY
from castile.policy import description
from castile.policy.documents import SCHEMA as XSD
from castile.policy.documents import WSDL, Documents, kind_of
from castile.policy.documents import resolve as location
from castile.policy.wsdl import describe
from castile.versions import SOAP_1_1, SOAPVersion
from castile.xml import Element

_SOAP: Final = {
    True: "http://schemas.xmlsoap.org/wsdl/soap/",
    False: "http://schemas.xmlsoap.org/wsdl/soap12/",
}
"""Extension namespaces of WSDL, by whether they are SOAP 1.1's."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message: an element, or (rpc) a type under the part's own name."""

    name: str
    element: QName | None = None
    type: QName | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What one direction of an operation carries."""

    parts: tuple[Part, ...]
    """Of the Body."""
    headers: tuple[Part, ...] = ()
    wrapper: QName | None = None
    """The element around the parts (rpc only)."""
    encoded: bool = False
    """use="encoded", which isn't spoken here (WS-I Basic Profile 1.1, R2706)."""

    @property
    def body(self) -> QName | None:
        """The element in the Body; None: the Body is empty."""
        return self.wrapper or (self.parts[0].element if self.parts else None)


@dataclass(frozen=True, slots=True)
class DeclaredFault:
    """A fault of the contract: its detail holds one element."""

    name: str
    action: str
    element: QName


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a port."""

    name: str
    action: str
    """wsa:Action of its request."""
    soap_action: str
    """What its binding wants as SOAPAction, or `action` parameter; "": nothing."""
    request: Message
    response: Message | None
    """None: the operation is one-way."""
    response_action: str | None
    faults: tuple[DeclaredFault, ...] = ()


@dataclass(frozen=True, slots=True)
class Port:
    """One endpoint of the contract."""

    described: description.Port
    operations: Mapping[str, Operation]

    @property
    def service(self) -> str:
        """Name of its service."""
        return self.described.service

    @property
    def name(self) -> str:
        """Its own."""
        return self.described.name

    @property
    def soap(self) -> SOAPVersion:
        """Of its binding."""
        return self.described.soap

    @property
    def asks(self) -> bool:
        """Whether a policy is attached to it or to any of its messages."""
        policies = (self.described.alternatives, *self.described.message_alternatives.values())
        return any(policy != NO_POLICY for policy in policies)


@dataclass(frozen=True, slots=True)
class Contract:
    """All that a WSDL says, with the documents that it consists of."""

    documents: Documents
    ports: tuple[Port, ...]
    """In the order of the WSDL; those of other bindings than SOAP over HTTP are left out."""
    refused: tuple[description.RefusedPort, ...] = ()
    """Those that the WSDL itself makes unusable."""

    def port(self, service: str | None = None, name: str | None = None) -> Port:
        """The one that is meant (`Description.port`)."""
        ports = tuple(each.described for each in self.ports)
        location = self.documents.location
        meant = description.Description(location, "", ports, self.refused).port(service, name)
        return self.ports[ports.index(meant)]


def read(documents: Documents, *, whole: bool = True) -> Contract:
    """The contract in these documents. Raises `UsageError` where there is no port.

    `whole`: where one of them can't be used, too; a client of another one doesn't mind.
    """
    described = describe(documents)
    for refused in described.refused if whole else ():
        raise refused.reason
    if not described.ports and not described.refused:
        raise UsageError(f"{described.location} has no port with a SOAP binding over HTTP")
    wsdl = _Definitions(documents)
    ports = tuple(Port(port, _operations(wsdl, port)) for port in described.ports)
    return Contract(documents, ports, described.refused)


def schemas(documents: Documents) -> Iterator[tuple[str, Element]]:
    """The schemas that WSDLs hold themselves, and where."""
    for at, root in documents:
        if kind_of(root) == "wsdl":
            for types in root.findall(f"{{{WSDL}}}types"):
                yield from ((at, each) for each in types.findall(f"{{{XSD}}}schema"))


def _operations(wsdl: _Definitions, port: description.Port) -> dict[str, Operation]:
    binding = wsdl.named("binding", _name(port.binding))
    reader = _Binding(wsdl, binding, _SOAP[port.soap is SOAP_1_1])
    found: dict[str, Operation] = {}
    for each in port.operations:
        if each.name in found:
            raise UsageError(f"{each.place}: {each.name} is overloaded, which WS-I forbids (R2304)")
        found[each.name] = reader.operation(each)
    return found


class _Definitions:
    """WSDL's components by qualified name; `describe` has found each that is referred to, once."""

    def __init__(self, documents: Documents) -> None:
        self._found: dict[tuple[str, QName], Element] = {}
        for _, root in documents:
            if kind_of(root) == "wsdl":
                namespace = (root.get("targetNamespace") or "").strip()
                for child in xml.inside(root):
                    self._found[xml.local_name(child), (namespace, child.get("name", ""))] = child

    def named(self, kind: str, name: QName) -> Element:
        """A component."""
        found = self._found.get((kind, name))
        if found is None:
            raise UsageError(f"the WSDL has no {kind} {_clark(name)}")
        return found

    def referred(self, kind: str, at: Element, attribute: str) -> Element:
        """The component that an attribute names."""
        return self.named(kind, resolved(at, at.get(attribute, "")))

    def parts(self, at: Element) -> tuple[Part, ...]:
        """The parts of the message that `at` names."""
        if not at.get("message"):
            return ()
        found = self.referred("message", at, "message").findall(f"{{{WSDL}}}part")
        return tuple(_part(part) for part in found)


class _Binding:
    """A SOAP binding, read together with its portType."""

    def __init__(self, wsdl: _Definitions, binding: Element, soap: str) -> None:
        self._wsdl, self._binding, self._soap = wsdl, binding, soap
        self._port_type = wsdl.referred("portType", binding, "type")

    def operation(self, given: description.Operation) -> Operation:
        """What its messages hold."""
        bound, abstract = _child(self._binding, given.name), _child(self._port_type, given.name)
        response = None
        if given.response_action is not None:
            response = self._message(bound, abstract, "output", given.response_body, given.style)
        actions = dict(given.fault_actions)
        return Operation(
            given.name,
            given.action,
            given.soap_action or "",
            self._message(bound, abstract, "input", given.body, given.style),
            response,
            given.response_action,
            tuple(self._faults(abstract, actions)),
        )

    def _message(
        self, bound: Element, abstract: Element, direction: str, body: str | None, style: str
    ) -> Message:
        message, extensions = abstract.find(f"{{{WSDL}}}{direction}"), bound.find(f"{{{WSDL}}}{direction}")
        blocks = [] if extensions is None else xml.inside(extensions)
        bodies = [block for block in blocks if block.tag == f"{{{self._soap}}}body"]
        headers = [block for block in blocks if block.tag == f"{{{self._soap}}}header"]
        if message is None:
            return Message(())
        own = resolved(message, message.get("message", ""))
        apart = {each.get("part") for each in headers if resolved(each, each.get("message", "")) == own}
        listed = bodies[0].get("parts") if bodies else None
        parts = tuple(
            part
            for part in self._wsdl.parts(message)
            if (part.name in listed.split() if listed is not None else part.name not in apart)
        )
        return Message(
            parts,
            tuple(self._header(block) for block in headers),
            _name(body or "") if style == "rpc" else None,
            encoded=any(block.get("use") == "encoded" for block in (*bodies, *headers)),
        )

    def _header(self, block: Element) -> Part:
        wanted = block.get("part", "")
        for part in self._wsdl.parts(block):
            if part.name == wanted:
                return part
        raise UsageError(f"line {block.sourceline}: the message has no part {wanted!r} for this header")

    def _faults(self, abstract: Element, actions: Mapping[str, str]) -> Iterator[DeclaredFault]:
        """Those whose detail is one element (WS-I Basic Profile 1.1, R2205); no others can be typed."""
        for fault in abstract.findall(f"{{{WSDL}}}fault"):
            parts, name = self._wsdl.parts(fault), fault.get("name", "")
            if len(parts) == 1 and parts[0].element is not None:
                yield DeclaredFault(name, actions[name], parts[0].element)


def _child(parent: Element, name: str) -> Element:
    """The operation of this name, of which `describe` has found one."""
    found = [each for each in parent.findall(f"{{{WSDL}}}operation") if each.get("name") == name]
    return found[0]


def resolved(element: Element, value: str) -> QName:
    """A QName in a value: its prefix as it is bound at `element`, else the target namespace."""
    prefix, _, local = value.strip().rpartition(":")
    namespace = element.nsmap.get(prefix or None)
    if namespace is None:
        if prefix:
            raise UsageError(f"line {element.sourceline}: the prefix of {value!r} isn't bound")
        namespace = element.getroottree().getroot().get("targetNamespace", "")
    return namespace, local


def _part(part: Element) -> Part:
    element, type_ = part.get("element"), part.get("type")
    return Part(
        part.get("name", ""),
        resolved(part, element) if element else None,
        resolved(part, type_) if type_ else None,
    )


def _name(clark: str) -> QName:
    namespace, _, local = clark.rpartition("}")
    return namespace[1:], local


def _clark(name: QName) -> str:
    return f"{{{name[0]}}}{name[1]}" if name[0] else name[1]


__all__ = [
    "WSDL",
    "XSD",
    "Contract",
    "DeclaredFault",
    "Message",
    "Operation",
    "Part",
    "Port",
    "location",
    "read",
    "schemas",
]
