"""One operation of a WSDL, from its binding and its port type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from castile.errors import UsageError
from castile.policy.definitions import SOAP_EXTENSIONS, Definitions, Found, flag, qname, soap_of
from castile.policy.description import Operation
from castile.versions import WSA
from castile.xml import Element, inside, local_name

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


class OperationReader:
    """One operation, from its binding and its port type."""

    def __init__(
        self,
        definitions: Definitions,
        bound: Found,
        port_type: Found,
        binding: Found,
        style: str | None,
    ) -> None:
        self._definitions = definitions
        self.bound = bound
        self.port_type = port_type
        self.binding = binding
        self._style = style
        self.abstract = self._abstract()
        self.name = bound.name
        order = [local_name(each) for each in inside(self.abstract.element)]
        messages = [each for each in order if each in ("input", "output")]
        self.request = self.abstract.child("input") if messages[:1] == ["input"] else None

    def _abstract(self) -> Found:
        """The operation of the port type; overloaded ones are told apart by their messages' names."""
        found = self._definitions.named(self.port_type, "operation", self.bound.name)
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
    def _name(operation: Found, local: str) -> str:
        child = operation.child(local)
        return child.name if child else ""

    def made(self) -> Operation:
        soap = soap_of(self.bound, "operation")
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
            initiating=flag(self.abstract, "isInitiating", default=True),
            terminating=flag(self.abstract, "isTerminating"),
        )

    def _fault_actions(self) -> Iterator[tuple[str, str]]:
        for fault in self.abstract.children("fault"):
            yield fault.name, self._explicit(fault) or self._default(self.name, "Fault", fault.name)

    @staticmethod
    def _explicit(message: Found | None) -> str:
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
        found = (
            (each for uri in SOAP_EXTENSIONS for each in message.element.iter(f"{{{uri}}}body"))
            if message
            else ()
        )
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
            for uri in SOAP_EXTENSIONS
            for each in (bound.element.iter(f"{{{uri}}}header") if bound else ())
            if qname(self.bound, each.get("message") or "") == message.clark
        }
        for part in message.children("part"):
            wanted = part.name in named.split() if named is not None else part.name not in headers
            if wanted and (element := part.element.get("element")):
                return qname(part, element)
        return None

    def message(self, abstract: Found | None) -> Found | None:
        """The message of a port type's input, output or fault."""
        if abstract is None or not abstract.element.get("message"):
            return None
        return self._definitions.definition("message", abstract, "message")
