"""Reading WSDL 1.1: from documents to a `Description`."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterator
from typing import Final

from castile.errors import CastileError, PolicyError, UsageError
from castile.messages.policy import NO_POLICY, Place, Policy
from castile.policy.attachment import Attachments, effective
from castile.policy.definitions import SOAP_EXTENSIONS, Definitions, Found, flag, soap_of
from castile.policy.description import Attachment, Description, Identity, Operation, Port, RefusedPort
from castile.policy.documents import WSDL_2, Documents, kind_of, references
from castile.policy.findings import Finding, Level
from castile.policy.operations import OperationReader
from castile.versions import DS, WSA
from castile.xml import Element, name_of

_HTTP: Final = frozenset(
    {"http://schemas.xmlsoap.org/soap/http", "http://www.w3.org/2003/05/soap/bindings/HTTP/", ""}
)
_IDENTITY: Final = "http://schemas.xmlsoap.org/ws/2006/02/addressingidentity"


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
        self._definitions = Definitions(documents)
        self._external = next(self._attachments.external(), None)

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

    def _endpoints(self) -> Iterator[tuple[Found | None, Found]]:
        """Service and port; where no document has a service, each binding on its own."""
        for service in self._definitions.services:
            for port in service.children("port"):
                yield service, port
        if not self._definitions.services:
            for binding in self._definitions.bindings():
                yield None, binding

    def _note_documents(self) -> None:
        for location, root in self._documents if self._documents.missing else ():
            for each in references(location, root):
                reason = self._documents.missing.get(each.location)
                if reason is not None and each.kind != "policy":
                    text = f"{each.location}, which is imported there, could not be had: {reason}"
                    self._note("warning", f"{each.kind}-missing", text, each.place)

    def _note(self, level: Level, code: str, text: str, place: Place) -> None:
        self._findings.append(Finding(level, code, text, place))

    def _port(self, service: Found | None, port: Found) -> Port | None:
        self._counted(port)
        binding = self._definitions.definition("binding", port, "binding") if service else port
        soap = soap_of(binding, "binding")
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
        if self._external is not None:
            raise PolicyError(
                f"{self._external}: policies attached by wsp:PolicyAttachment are not read: attach them by "
                "wsp:PolicyReference in the WSDL"
            )
        port_type = self._definitions.definition("portType", binding, "type")
        subjects = _Subjects(self._attachments, self._definitions)
        endpoint = subjects.merged(
            (service, f"service {service.name}") if service else None,
            (port, f"port {port.name}") if service else None,
            (binding, f"binding {binding.name}"),
            (port_type, f"port type {port_type.name}"),
        )
        operations = tuple(self._operations(binding, port_type, soap_binding.get("style"), subjects))
        result = effective(endpoint, subjects.messages, self._attachments, f"port {port.name}")
        self._findings += result.findings
        return Port(
            service=service.name if service else "",
            name=port.name,
            address=_address(port),
            soap=version,
            operations=operations,
            alternatives=result.endpoint,
            message_alternatives=result.messages,
            binding=binding.clark,
            identity=self._identity(port),
            attachments=tuple(subjects.attachments),
            session=flag(port_type, "usingSession"),
            place=port.place,
        )

    def _operations(
        self, binding: Found, port_type: Found, style: str | None, subjects: _Subjects
    ) -> Iterator[Operation]:
        for bound in binding.children("operation"):
            self._counted(bound)
            operation = OperationReader(self._definitions, bound, port_type, binding, style)
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

    def _counted(self, found: Found) -> None:
        self._count += 1
        if self._count > self._documents.limits.operations:
            raise UsageError(f"{found.place}: more than {self._documents.limits.operations} operations")

    def _identity(self, port: Found) -> Identity | None:
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


class _Subjects:
    """Collects what is attached to the elements of one port (WS-PolicyAttachment 1.5, 4)."""

    def __init__(self, attachments: Attachments, definitions: Definitions) -> None:
        self._policies = attachments
        self._definitions = definitions
        self.attachments: list[Attachment] = []
        self.messages: dict[tuple[str, str], Policy] = {}
        """What is attached to each message and its operation, without the endpoint's."""

    def merged(self, *elements: tuple[Found, str] | None) -> Policy:
        """What is attached to elements that are one subject together."""
        parts = []
        for found, words in filter(None, elements):
            policy = self._policies.of(found.location, found.element)
            if policy != NO_POLICY:
                self.attachments.append(Attachment(words, policy))
                parts.append(policy)
        return self._policies.merged(parts)

    def attach(self, operation: OperationReader) -> None:
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
            self._keep(operation, direction, self._policies.merged([whole, policy]))

    def _message(self, operation: OperationReader, local: str, name: str | None = None) -> Policy:
        """What is attached to one message: in the binding, in the port type, to wsdl:message."""

        def child(of: Found) -> Found | None:
            if name is None:
                return of.child(local)
            return next(iter(self._definitions.named(of, local, name)), None)

        bound, abstract = child(operation.bound), child(operation.abstract)
        message = operation.message(abstract)
        words = f"{local}{f' {name}' if name else ''} of operation {operation.name}"
        return self.merged(
            (bound, f"{words} of binding {operation.binding.name}") if bound else None,
            (abstract, f"{words} of port type {operation.port_type.name}") if abstract else None,
            (message, f"message {message.name}") if message else None,
        )

    def _keep(self, operation: OperationReader, direction: str, policy: Policy) -> None:
        if self.messages.setdefault((operation.name, direction), policy) != policy:
            raise PolicyError(
                f"{operation.bound.place}: the policies of the {direction}s of {operation.name} differ, and "
                "castile tells them apart by operation only"
            )


def _address(port: Found) -> str:
    found = (port.element.find(f"{{{uri}}}address") for uri in SOAP_EXTENSIONS)
    return next(((each.get("location") or "").strip() for each in found if each is not None), "")


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
