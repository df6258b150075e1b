"""Reading WSDL 1.1: from documents to a `Description`."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from castile.config import DocumentLimits
from castile.errors import CastileError, PolicyError, UsageError
from castile.messages.policy import NO_POLICY, Place, Policy, merge
from castile.policy.attachment import Attachments, effective
from castile.policy.description import Attachment, Description, Identity, Operation, Port, RefusedPort
from castile.policy.documents import WSDL, WSDL_2, Documents, children, kind_of, references
from castile.policy.findings import Finding, Level
from castile.versions import DS, SOAP_1_1, SOAP_1_2, WSA, SOAPVersion
from castile.xml import Element, inside, local_name, name_of

_SOAP: Final[dict[str, SOAPVersion]] = {
    "http://schemas.xmlsoap.org/wsdl/soap/": SOAP_1_1,
    "http://schemas.xmlsoap.org/wsdl/soap12/": SOAP_1_2,
}
_HTTP: Final = frozenset(
    {"http://schemas.xmlsoap.org/soap/http", "http://www.w3.org/2003/05/soap/bindings/HTTP/", ""}
)
_ACTIONS: Final = tuple(
    f"{{{namespace}}}Action"
    for namespace in (
        "http://www.w3.org/2007/05/addressing/metadata",
        "http://www.w3.org/2007/02/addressing/metadata",
        "http://www.w3.org/2006/05/addressing/wsdl",
        "http://www.w3.org/2006/02/addressing/wsdl",
        *WSA,
    )
)
"""Attributes of a port type's messages, the best first."""
_CONTRACT: Final = "http://schemas.microsoft.com/ws/2005/12/wsdl/contract"
_IDENTITY: Final = "http://schemas.xmlsoap.org/ws/2006/02/addressingidentity"
_WORDS: Final = {"binding": "binding", "portType": "port type", "message": "message"}


@dataclass(frozen=True, slots=True)
class _Found:
    """A WSDL element, with where it stands."""

    location: str
    element: Element
    namespace: str
    """targetNamespace of its document."""

    @property
    def place(self) -> Place:
        return Place(self.location, self.element.sourceline or 0)

    @property
    def name(self) -> str:
        return self.element.get("name") or ""

    def below(self, element: Element) -> _Found:
        return _Found(self.location, element, self.namespace)

    def child(self, local: str) -> _Found | None:
        found = children(self.element, local)
        return self.below(found[0]) if found else None

    def children(self, local: str) -> list[_Found]:
        return [self.below(each) for each in children(self.element, local)]


def describe(documents: Documents) -> Description:
    """What the documents describe, whichever of them defines what.

    A port that can't be used is among `refused`, with its reason. Raises `UsageError` where the
    root is no WSDL.
    """
    return _Reader(documents).description()


class _Reader:
    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._attachments = Attachments(documents)
        self._findings: list[Finding] = []
        self._count = 0
        self._services: list[_Found] = []
        self._definitions: dict[tuple[str, str], list[_Found]] = {}
        seen: set[bytes | None] = set()
        for location, root in documents:
            octets = documents.octets(location)
            # One document may have two addresses, as ``?wsdl`` and ``?WSDL``.
            if kind_of(root) == "wsdl" and octets not in seen:
                seen.add(octets)
                self._index(location, root)

    def _index(self, location: str, root: Element) -> None:
        namespace = (root.get("targetNamespace") or "").strip()
        for element in inside(root):
            if name_of(element)[0] != WSDL:
                continue
            kind, found = local_name(element), _Found(location, element, namespace)
            if kind == "service":
                self._services.append(found)
            elif kind in ("message", "portType", "binding"):
                self._definitions.setdefault((kind, _clark(found)), []).append(found)

    def description(self) -> Description:
        location = self._documents.location
        root = self._documents.root(location)
        if root is None or kind_of(root) != "wsdl":
            raise UsageError(_no_wsdl(location, root))
        self._note_documents()
        ports: list[Port] = []
        refused: list[RefusedPort] = []
        for service, port in self._endpoints():
            service_name = service.name if service else ""
            try:
                made = self._port(service, port)
            except CastileError as error:
                refused.append(RefusedPort(service_name, port.name, error))
            else:
                ports += [made] if made else []
        return Description(
            location,
            (root.get("targetNamespace") or "").strip(),
            tuple(ports),
            tuple(refused),
            tuple(dict.fromkeys(self._findings)),
        )

    def _endpoints(self) -> Iterator[tuple[_Found | None, _Found]]:
        """Service and port; where no document has a service, each binding on its own."""
        for service in self._services:
            for port in service.children("port"):
                yield service, port
        if not self._services:
            for (kind, _), found in self._definitions.items():
                if kind == "binding":
                    yield None, found[0]

    def _note_documents(self) -> None:
        for location, root in self._documents if self._documents.missing else ():
            for each in references(location, root):
                reason = self._documents.missing.get(each.location)
                if reason is not None and each.kind != "policy":
                    text = f"{each.location}, which is imported there, could not be had: {reason}"
                    self._note("warning", f"{each.kind}-missing", text, each.place)

    def _note(self, level: Level, code: str, text: str, place: Place) -> None:
        self._findings.append(Finding(level, code, text, place))

    def _port(self, service: _Found | None, port: _Found) -> Port | None:
        binding = self._definition("binding", port, "binding") if service else port
        soap = _soap_of(binding, "binding")
        if soap is None:
            text = f"the binding {binding.name} of port {port.name} is not SOAP: passed over"
            self._note("info", "not-soap", text, binding.place)
            return None
        version, soap_binding = soap
        transport = (soap_binding.get("transport") or "").strip()
        if transport not in _HTTP:
            raise UsageError(
                f"{binding.place}: the binding {binding.name} speaks SOAP over {transport}, not over HTTP"
            )
        for place in self._attachments.external():
            raise PolicyError(
                f"{place}: policies attached by wsp:PolicyAttachment are not read: attach them by "
                "wsp:PolicyReference in the WSDL"
            )
        port_type = self._definition("portType", binding, "type")
        subjects = _Subjects(self._attachments, self._documents.limits)
        endpoint = subjects.merged(
            (service, f"service {service.name}") if service else None,
            (port, f"port {port.name}") if service else None,
            (binding, f"binding {binding.name}"),
            (port_type, f"port type {port_type.name}"),
        )
        operations = tuple(self._operations(binding, port_type, soap_binding.get("style"), subjects))
        result = effective(endpoint, subjects.messages, self._documents, f"port {port.name}")
        self._findings += result.findings
        return Port(
            service=service.name if service else "",
            name=port.name,
            address=_address(port),
            soap=version,
            operations=operations,
            alternatives=result.endpoint,
            message_alternatives=result.messages,
            binding=_clark(binding),
            identity=self._identity(port),
            attachments=tuple(subjects.attachments),
            session=_flag(port_type, "usingSession"),
            place=port.place,
        )

    def _definition(self, kind: str, at: _Found, attribute: str) -> _Found:
        """The binding, port type or message that an attribute names."""
        name = _qname(at, at.element.get(attribute) or "")
        found = self._definitions.get((kind, name), [])
        if len(found) == 1:
            return found[0]
        start = f"{at.place}: the {_WORDS[kind]} {name} of {local_name(at.element)} {at.name}"
        if found:
            raise UsageError(f"{start} is defined {len(found)} times, as at {found[1].place}")
        lost = "; ".join(f"{location}: {reason}" for location, reason in self._documents.missing.items())
        raise UsageError(f"{start} is defined nowhere{f' (missing: {lost})' if lost else ''}")

    def _operations(
        self, binding: _Found, port_type: _Found, style: str | None, subjects: _Subjects
    ) -> Iterator[Operation]:
        for bound in binding.children("operation"):
            self._count += 1
            if self._count > self._documents.limits.operations:
                raise UsageError(f"{bound.place}: more than {self._documents.limits.operations} operations")
            operation = _OperationReader(self._definition, bound, port_type, binding, style)
            if operation.request is None:
                text = f"operation {bound.name} doesn't begin with a request: passed over"
                self._note("warning", "no-request", text, bound.place)
                continue
            made = operation.made()
            subjects.attach(operation)
            if made.use == "encoded":
                text = f"operation {made.name} is {made.style}/encoded: its messages are not typed here"
                self._note("warning", "encoded", text, bound.place)
            yield made

    def _identity(self, port: _Found) -> Identity | None:
        found = [each for namespace in WSA for each in port.element.iter(f"{{{namespace}}}EndpointReference")]
        identities = [each for epr in found for each in epr.iter(f"{{{_IDENTITY}}}Identity")]
        if not identities:
            return None
        certificates = []
        for element in identities[0].iter(f"{{{DS}}}X509Certificate"):
            try:
                certificates.append(b64decode("".join((element.text or "").split()), validate=True))
            except binascii.Error:
                text = "the certificate of the endpoint's identity is not base64: passed over"
                self._note("warning", "identity", text, port.place)
        names = {
            local: (identities[0].findtext(f"{{{_IDENTITY}}}{local}") or "").strip() or None
            for local in ("Dns", "Spn", "Upn")
        }
        return Identity(tuple(certificates), names["Dns"], names["Spn"], names["Upn"])


class _OperationReader:
    """One operation, from its binding and its port type."""

    def __init__(
        self,
        definition: Callable[[str, _Found, str], _Found],
        bound: _Found,
        port_type: _Found,
        binding: _Found,
        style: str | None,
    ) -> None:
        self._definition = definition
        self.bound = bound
        self.port_type = port_type
        self.binding = binding
        self._style = style
        self.abstract = self._abstract()
        self.name = bound.name
        order = [local_name(each) for each in inside(self.abstract.element)]
        messages = [each for each in order if each in ("input", "output")]
        self.request = self.abstract.child("input") if messages[:1] == ["input"] else None

    def _abstract(self) -> _Found:
        """The operation of the port type; overloaded ones are told apart by their messages' names."""
        found = [each for each in self.port_type.children("operation") if each.name == self.bound.name]
        if len(found) > 1:
            for local in ("input", "output"):
                name = self._name(self.bound, local)
                found = [each for each in found if name in ("", self._name(each, local))]
        if len(found) == 1:
            return found[0]
        raise UsageError(
            f"{self.bound.place}: operation {self.bound.name} is {'ambiguous' if found else 'missing'} in "
            f"the port type {self.port_type.name}"
        )

    @staticmethod
    def _name(operation: _Found, local: str) -> str:
        child = operation.child(local)
        return child.name if child else ""

    def made(self) -> Operation:
        soap = _soap_of(self.bound, "operation")
        soap_action = soap[1].get("soapAction") if soap else None
        style = (soap[1].get("style") if soap else None) or self._style
        rpc = style == "rpc"
        response = self.abstract.child("output")
        body = self._soap_body("input")
        place = self.bound.place
        return Operation(
            name=self.name,
            action=self._explicit(self.request) or soap_action or self._default_name("input"),
            response_action=(self._explicit(response) or self._default_name("output")) if response else None,
            fault_actions=tuple(self._fault_actions()),
            soap_action=soap_action,
            style="rpc" if rpc else "document",
            use="encoded" if body is not None and body.get("use") == "encoded" else "literal",
            body=self._body("input", rpc),
            response_body=self._body("output", rpc) if response else None,
            place=place,
            initiating=_flag(self.abstract, "isInitiating", default=True),
            terminating=_flag(self.abstract, "isTerminating"),
        )

    def _fault_actions(self) -> Iterator[tuple[str, str]]:
        for fault in self.abstract.children("fault"):
            yield fault.name, self._explicit(fault) or self._default(self.name, "Fault", fault.name)

    @staticmethod
    def _explicit(message: _Found | None) -> str:
        """The Action attribute of a port type's input, output or fault (WS-A Metadata, 4.4.1)."""
        values = (message.element.get(name) for name in _ACTIONS) if message else ()
        return next((str(value).strip() for value in values if value and value.strip()), "")

    def _default_name(self, local: str) -> str:
        message = self.abstract.child(local)
        if message is not None and message.name:
            return self._default(message.name)
        # WSDL 1.1, 2.4.5: what the names are where they are left out.
        suffix = {"input": "Request", "output": "Response"}[local] if self.abstract.child("output") else ""
        return self._default(self.name + suffix)

    def _default(self, *names: str) -> str:
        """The default action pattern (WS-Addressing 1.0 Metadata, 4.4.4)."""
        namespace = self.port_type.namespace
        delimiter = ":" if namespace.lower().startswith("urn:") else "/"
        return delimiter.join((namespace.removesuffix(delimiter), self.port_type.name, *names))

    def _soap_body(self, local: str) -> Element | None:
        message = self.bound.child(local)
        found = (each for uri in _SOAP for each in message.element.iter(f"{{{uri}}}body")) if message else ()
        return next(iter(found), None)

    def _body(self, local: str, rpc: bool) -> str | None:
        body = self._soap_body(local)
        if rpc:
            namespace = ((body.get("namespace") if body is not None else None) or "").strip()
            name = self.name + ("Response" if local == "output" else "")
            return f"{{{namespace}}}{name}" if namespace else name
        message = self.message(self.abstract.child(local))
        if message is None:
            return None
        named = body.get("parts") if body is not None else None
        bound = self.bound.child(local)
        headers = {
            each.get("part")
            for uri in _SOAP
            for each in (bound.element.iter(f"{{{uri}}}header") if bound else ())
            if _qname(self.bound, each.get("message") or "") == _clark(message)
        }
        for part in message.children("part"):
            wanted = part.name in named.split() if named is not None else part.name not in headers
            if wanted and (element := part.element.get("element")):
                return _qname(part, element)
        return None

    def message(self, abstract: _Found | None) -> _Found | None:
        """The message of a port type's input, output or fault."""
        if abstract is None or not abstract.element.get("message"):
            return None
        return self._definition("message", abstract, "message")


class _Subjects:
    """Collects what is attached to the elements of one port (WS-PolicyAttachment 1.5, 4)."""

    def __init__(self, attachments: Attachments, limits: DocumentLimits) -> None:
        self._policies = attachments
        self._limits = limits
        self.attachments: list[Attachment] = []
        self.messages: dict[tuple[str, str], Policy] = {}
        """What is attached to each message and its operation, without the endpoint's."""

    def merged(self, *elements: tuple[_Found, str] | None) -> Policy:
        """What is attached to elements that are one subject together."""
        parts = []
        for found, words in filter(None, elements):
            policy = self._policies.of(found.location, found.element)
            if policy != NO_POLICY:
                self.attachments.append(Attachment(words, policy))
                parts.append(policy)
        return merge(parts, self._limits)

    def attach(self, operation: _OperationReader) -> None:
        """The policies of an operation and its messages."""
        words = f"operation {operation.name}"
        whole = self.merged(
            (operation.bound, f"{words} of binding {operation.binding.name}"),
            (operation.abstract, f"{words} of port type {operation.port_type.name}"),
        )
        names = dict.fromkeys(each.name for each in operation.abstract.children("fault"))
        found = [("request", self._message(operation, "input"))]
        if operation.abstract.child("output") is not None:
            found.append(("response", self._message(operation, "output")))
        faults = [self._message(operation, "fault", each) for each in names]
        found += [("fault", each) for each in faults or [NO_POLICY]]
        for direction, policy in found:
            self._keep(operation, direction, merge([whole, policy], self._limits))

    def _message(self, operation: _OperationReader, local: str, name: str | None = None) -> Policy:
        """What is attached to one message: in the binding, in the port type, to wsdl:message."""

        def child(of: _Found) -> _Found | None:
            return next((each for each in of.children(local) if name in (None, each.name)), None)

        bound, abstract = child(operation.bound), child(operation.abstract)
        message = operation.message(abstract)
        words = f"{local}{f' {name}' if name else ''} of operation {operation.name}"
        return self.merged(
            (bound, f"{words} of binding {operation.binding.name}") if bound else None,
            (abstract, f"{words} of port type {operation.port_type.name}") if abstract else None,
            (message, f"message {message.name}") if message else None,
        )

    def _keep(self, operation: _OperationReader, direction: str, policy: Policy) -> None:
        if self.messages.setdefault((operation.name, direction), policy) != policy:
            raise PolicyError(
                f"{operation.bound.place}: the policies of the {direction}s of {operation.name} differ, and "
                "castile tells them apart by operation only"
            )


def _soap_of(found: _Found, local: str) -> tuple[SOAPVersion, Element] | None:
    """The SOAP extension element of a binding or of one of its operations."""
    for uri, version in _SOAP.items():
        element = found.element.find(f"{{{uri}}}{local}")
        if element is not None:
            return version, element
    return None


def _address(port: _Found) -> str:
    found = (port.element.find(f"{{{uri}}}address") for uri in _SOAP)
    return next(((each.get("location") or "").strip() for each in found if each is not None), "")


def _clark(found: _Found) -> str:
    return f"{{{found.namespace}}}{found.name}" if found.namespace else found.name


def _qname(at: _Found, value: str) -> str:
    """A QName in an attribute, in Clark notation; without prefix it may mean the document's own."""
    prefix, _, local = value.strip().rpartition(":")
    uri = at.element.nsmap.get(prefix or None)
    if not prefix and uri in (None, WSDL):
        uri = at.namespace
    if prefix and uri is None:
        raise UsageError(f"{at.place}: the prefix of {value!r} is not declared")
    return f"{{{uri}}}{local}" if uri else local


def _flag(found: _Found, name: str, *, default: bool = False) -> bool:
    value = (found.element.get(f"{{{_CONTRACT}}}{name}") or "").strip()
    return value in ("true", "1") if value else default


def _no_wsdl(location: str, root: Element | None) -> str:
    if root is None:
        return "no WSDL was given"
    namespace, local = name_of(root)
    if namespace == WSDL_2:
        return f"{location}: WSDL 2.0 is not read: ask the service for WSDL 1.1"
    if kind_of(root) == "policy":
        return f"{location}: a policy on its own, not a WSDL"
    if local.lower() == "html":
        return f"{location}: a web page, not a WSDL: try its address with ?wsdl"
    return f"{location}: not a WSDL: its outermost element is {root.tag!s}"
