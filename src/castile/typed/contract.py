"""What a WSDL says of messages: its ports, their operations, and what each Body and header holds.

WSDL 1.1 with its SOAP 1.1 and 1.2 bindings; actions by WS-Addressing 1.0 - Metadata, 4.4. What the
WSDL asks for by policy isn't read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urljoin

from castile import xml
from castile.errors import QName, UsageError
from castile.versions import SOAP_1_1, SOAP_1_2, SOAPVersion
from castile.xml import Element

WSDL: Final = "http://schemas.xmlsoap.org/wsdl/"
XSD: Final = "http://www.w3.org/2001/XMLSchema"
_BINDINGS: Final = {
    "http://schemas.xmlsoap.org/wsdl/soap/": SOAP_1_1,
    "http://schemas.xmlsoap.org/wsdl/soap12/": SOAP_1_2,
}
"""Extension namespaces of WSDL, and the SOAP version that each binds to."""
_ACTIONS: Final = (
    "{http://www.w3.org/2007/05/addressing/metadata}Action",
    "{http://www.w3.org/2006/05/addressing/wsdl}Action",
    "{http://www.w3.org/2005/08/addressing}Action",
    "{http://schemas.xmlsoap.org/ws/2004/08/addressing}Action",
)
"""How editions name the action of a message; the first that is there counts."""

_POLICY: Final = ("http://schemas.xmlsoap.org/ws/2004/09/policy", "http://www.w3.org/ns/ws-policy")

Style = Literal["document", "rpc"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message: an element, or (rpc) a type under the part's own name."""

    name: str
    element: QName | None = None
    type: QName | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What one direction of an operation carries."""

    style: Style
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
    response_action: str
    faults: tuple[DeclaredFault, ...] = ()


@dataclass(frozen=True, slots=True)
class Port:
    """One endpoint of the contract."""

    service: str
    name: str
    address: str
    soap: SOAPVersion
    operations: Mapping[str, Operation]


@dataclass(frozen=True, slots=True)
class Contract:
    """All that a WSDL says, with the documents that it consists of."""

    root: str
    """The location of the WSDL itself."""
    documents: Mapping[str, Element]
    """By location: WSDL and schema documents, their imports among each other resolved by it."""
    ports: tuple[Port, ...]
    """In the order of the WSDL; those of other bindings than SOAP over HTTP are left out."""

    @property
    def has_policies(self) -> bool:
        """Whether any document has a policy or refers to one."""
        return any(
            next(document.iter(*(f"{{{space}}}*" for space in _POLICY)), None) is not None
            for document in self.documents.values()
        )

    def port(self, name: str | None = None, service: str | None = None) -> Port:
        """The port of this name, else the first. Raises `UsageError` with the names that exist."""
        for port in self.ports:
            if name in (None, port.name) and service in (None, port.service):
                return port
        known = ", ".join(f"{port.service}/{port.name}" for port in self.ports) or "none"
        raise UsageError(f"the WSDL has no port {service or '*'}/{name or '*'}; it has: {known}")


def read(documents: Mapping[str, Element], root: str) -> Contract:
    """The contract of the WSDL at `root`. Raises `UsageError` where it names what isn't there."""
    wsdl = _Definitions(documents, root)
    ports = tuple(wsdl.ports())
    if not ports:
        raise UsageError(f"{root} has no port with a SOAP binding over HTTP")
    return Contract(root, documents, ports)


def resolved(element: Element, value: str) -> QName:
    """A QName in a value: its prefix as it is bound at `element`."""
    prefix, _, local = value.strip().rpartition(":")
    namespace = element.nsmap.get(prefix or None)
    if namespace is None and prefix:
        raise UsageError(f"line {element.sourceline}: the prefix of {value!r} isn't bound")
    return namespace or "", local


def location(base: str, relative: str) -> str:
    """Where an import leads to from the document at `base`: a path or a URL."""
    return urljoin(base, relative)


class _Definitions:
    """The components of a WSDL and of those that it imports, by qualified name."""

    def __init__(self, documents: Mapping[str, Element], root: str) -> None:
        self._found: dict[tuple[str, QName], Element] = {}
        self._services: list[Element] = []
        self._read(documents, root, set())

    def _read(self, documents: Mapping[str, Element], at: str, seen: set[str]) -> None:
        if at in seen:
            return
        seen.add(at)
        document = documents.get(at)
        if document is None:
            raise UsageError(f"the document {at} is missing")
        if document.tag != f"{{{WSDL}}}definitions":
            return  # a schema that is imported as if it were a WSDL
        namespace = document.get("targetNamespace", "")
        for child in xml.inside(document):
            kind = xml.local_name(child)
            if child.tag == f"{{{WSDL}}}import" and (relative := child.get("location")):
                self._read(documents, location(at, relative), seen)
            elif child.tag == f"{{{WSDL}}}service":
                self._services.append(child)
            elif name := child.get("name"):
                self._found[kind, (namespace, name)] = child

    def _component(self, kind: str, at: Element, value: str) -> Element:
        name = resolved(at, value)
        if not name[0]:
            name = (_target(at), name[1])
        found = self._found.get((kind, name))
        if found is None:
            raise UsageError(f"line {at.sourceline}: the WSDL has no {kind} {value}")
        return found

    def ports(self) -> Iterator[Port]:
        for service in self._services:
            for port in service.findall(f"{{{WSDL}}}port"):
                binding = self._component("binding", port, port.get("binding", ""))
                for namespace, soap in _BINDINGS.items():
                    extension = binding.find(f"{{{namespace}}}binding")
                    address = port.find(f"{{{namespace}}}address")
                    if extension is not None:
                        where = "" if address is None else address.get("location", "")
                        yield Port(
                            service.get("name", ""),
                            port.get("name", ""),
                            where,
                            soap,
                            _Binding(self, binding, namespace, extension).operations(),
                        )

    def port_type(self, binding: Element) -> Element:
        """The abstract side of a binding."""
        return self._component("portType", binding, binding.get("type", ""))

    def parts(self, at: Element, message: str) -> tuple[Part, ...]:
        """The parts of a message."""
        found = self._component("message", at, message)
        return tuple(_part(part) for part in found.findall(f"{{{WSDL}}}part"))


class _Binding:
    """A SOAP binding, read together with its portType."""

    def __init__(self, wsdl: _Definitions, binding: Element, soap: str, extension: Element) -> None:
        self._wsdl, self._binding, self._soap = wsdl, binding, soap
        self._style: str = extension.get("style", "document")
        self._port_type = wsdl.port_type(binding)

    def operations(self) -> dict[str, Operation]:
        """By name, in the order of the binding."""
        found: dict[str, Operation] = {}
        for bound in self._binding.findall(f"{{{WSDL}}}operation"):
            name = bound.get("name", "")
            if name in found:
                raise UsageError(
                    f"line {bound.sourceline}: the operation {name} is overloaded, which nobody else "
                    "takes either (WS-I Basic Profile 1.1, R2304)"
                )
            found[name] = self._operation(name, bound)
        return found

    def _operation(self, name: str, bound: Element) -> Operation:
        abstract = _named(self._port_type, "operation", name)
        if abstract is None:
            raise UsageError(f"line {bound.sourceline}: the portType has no operation {name}")
        extension = bound.find(f"{{{self._soap}}}operation")
        style = self._style if extension is None else extension.get("style", self._style)
        soap_action = "" if extension is None else extension.get("soapAction", "")
        given, result = abstract.find(f"{{{WSDL}}}input"), abstract.find(f"{{{WSDL}}}output")
        if given is None:
            raise UsageError(f"line {abstract.sourceline}: the operation {name} has no input")
        actions = _Actions(self._port_type, abstract)
        return Operation(
            name,
            actions.request(given, soap_action),
            soap_action,
            self._message(bound, "input", given, style, name),
            None if result is None else self._message(bound, "output", result, style, f"{name}Response"),
            "" if result is None else actions.response(result),
            tuple(
                fault
                for each in abstract.findall(f"{{{WSDL}}}fault")
                if (fault := self._fault(each, actions)) is not None
            ),
        )

    def _message(
        self, bound: Element, direction: str, abstract: Element, style: str, wrapper: str
    ) -> Message:
        extensions = bound.find(f"{{{WSDL}}}{direction}")
        blocks = [] if extensions is None else xml.inside(extensions)
        bodies = [block for block in blocks if block.tag == f"{{{self._soap}}}body"]
        body, message = bodies[0] if bodies else None, abstract.get("message", "")
        headers = [(block, self._header(block)) for block in blocks if block.tag == f"{{{self._soap}}}header"]
        own = resolved(abstract, message)[1]
        apart = {part.name for block, part in headers if resolved(block, block.get("message", ""))[1] == own}
        listed = None if body is None else body.get("parts")
        parts = tuple(
            part
            for part in self._wsdl.parts(abstract, message)
            if (part.name in listed.split() if listed is not None else part.name not in apart)
        )
        namespace = "" if body is None else body.get("namespace", "")
        rpc = style == "rpc"
        uses = [block.get("use", "literal") for block in (*bodies, *(block for block, _ in headers))]
        return Message(
            "rpc" if rpc else "document",
            parts,
            tuple(part for _, part in headers),
            (namespace, wrapper) if rpc else None,
            encoded="encoded" in uses,
        )

    def _header(self, block: Element) -> Part:
        wanted = block.get("part", "")
        for part in self._wsdl.parts(block, block.get("message", "")):
            if part.name == wanted:
                return part
        raise UsageError(f"line {block.sourceline}: the message has no part {wanted!r} for this header")

    def _fault(self, abstract: Element, actions: _Actions) -> DeclaredFault | None:
        parts = self._wsdl.parts(abstract, abstract.get("message", ""))
        if len(parts) != 1 or parts[0].element is None:
            return None  # not one element (WS-I Basic Profile 1.1, R2205): it can't be typed
        name = abstract.get("name", "")
        return DeclaredFault(name, actions.fault(abstract, name), parts[0].element)


class _Actions:
    """wsa:Action of an operation's messages (WS-Addressing 1.0 - Metadata, 4.4)."""

    def __init__(self, port_type: Element, operation: Element) -> None:
        namespace = _target(port_type)
        self._delimiter = ":" if namespace.lower().startswith("urn:") else "/"
        self._stem = self._joined(namespace.removesuffix(self._delimiter), port_type.get("name", ""))
        self._operation = operation.get("name", "")
        self._one_way = operation.find(f"{{{WSDL}}}output") is None

    def request(self, given: Element, soap_action: str) -> str:
        """An explicit one, SOAPAction, or the default pattern, in this order."""
        default = given.get("name") or f"{self._operation}{'' if self._one_way else 'Request'}"
        return _explicit(given) or soap_action or self._joined(self._stem, default)

    def response(self, result: Element) -> str:
        """An explicit one, or the default pattern."""
        default = result.get("name") or f"{self._operation}Response"
        return _explicit(result) or self._joined(self._stem, default)

    def fault(self, fault: Element, name: str) -> str:
        """An explicit one, or the default pattern."""
        return _explicit(fault) or self._joined(self._stem, self._operation, "Fault", name)

    def _joined(self, *names: str) -> str:
        return self._delimiter.join(names)


def _explicit(message: Element) -> str | None:
    return next((found for name in _ACTIONS if (found := message.get(name))), None)


def _target(element: Element) -> str:
    """The target namespace of the document that an element stands in."""
    return element.getroottree().getroot().get("targetNamespace", "")


def _named(parent: Element, kind: str, name: str) -> Element | None:
    children = parent.findall(f"{{{WSDL}}}{kind}")
    return next((child for child in children if child.get("name") == name), None)


def _part(part: Element) -> Part:
    name, element, type_ = part.get("name", ""), part.get("element"), part.get("type")
    return Part(
        name,
        resolved(part, element) if element else None,
        resolved(part, type_) if type_ else None,
    )


__all__ = [
    "Contract",
    "DeclaredFault",
    "Message",
    "Operation",
    "Part",
    "Port",
    "location",
    "read",
    "resolved",
]
