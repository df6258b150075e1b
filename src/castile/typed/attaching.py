"""The effective policy in a published WSDL: what is in force, in place of what the WSDL said.

Each binding refers to its endpoint's policy, its messages to theirs, as WCF's WSDLs do: so CXF,
Metro and WCF read them (features SV-09).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lxml import etree

from castile import xml
from castile.config import DocumentLimits
from castile.messages.policy import Alternative
from castile.policy import Direction
from castile.policy.render import Rendered
from castile.typed.contract import WSDL, Contract, Operation
from castile.versions import WSP, WSU
from castile.xml import Element

_DIRECTIONS: Final[dict[str, Direction]] = {"input": "request", "output": "response", "fault": "fault"}
_ADDRESSING: Final = "http://www.w3.org/2006/05/addressing/wsdl"


class Attaching:
    """Puts the policies of bindings, by their Clark names, into definitions elements."""

    def __init__(self, contract: Contract, rendered: Mapping[str, Rendered]) -> None:
        self._rendered = rendered
        self._operations = {port.described.binding: port.operations for port in contract.ports}

    def __call__(self, definitions: Element) -> None:
        """In force are these policies and no others."""
        _strip(definitions)
        namespace = definitions.get("targetNamespace", "")
        for binding in definitions.findall(f"{{{WSDL}}}binding"):
            rendered = self._rendered.get(f"{{{namespace}}}{binding.get('name', '')}")
            if rendered is not None:
                _Binding(definitions, binding, rendered).attach(self._operations)


class _Binding:
    def __init__(self, definitions: Element, binding: Element, rendered: Rendered) -> None:
        self._definitions, self._binding, self._rendered = definitions, binding, rendered
        self._wsp = rendered.language.namespace
        self._ids: dict[Alternative, str] = {}

    def attach(self, operations: Mapping[str, Mapping[str, Operation]]) -> None:
        self._refer(self._binding, self._rendered.endpoint, "policy")
        name = f"{{{self._definitions.get('targetNamespace', '')}}}{self._binding.get('name', '')}"
        for bound in self._binding.findall(f"{{{WSDL}}}operation"):
            operation = operations[name].get(bound.get("name", ""))
            for local, direction in _DIRECTIONS.items():
                for message in bound.findall(f"{{{WSDL}}}{local}") if operation is not None else ():
                    policy = self._rendered.of(_action(operation, message, direction), direction)
                    self._refer(message, policy, "messages")

    def _refer(self, at: Element, policy: Alternative, kind: str) -> None:
        """A reference to this policy, which is written once."""
        if not policy:
            return
        if policy not in self._ids:
            number = f"-{len(self._ids)}" if len(self._ids) > 1 else ""
            self._ids[policy] = f"{self._binding.get('name', '')}-{kind}{number}"
            written = xml.parse_document(self._rendered.xml(policy), DocumentLimits().xml)
            written.set(f"{{{WSU}}}Id", self._ids[policy])
            self._definitions.insert(len(self._ids) - 1, written)
        at.insert(0, etree.Element(f"{{{self._wsp}}}PolicyReference", URI=f"#{self._ids[policy]}"))


def _action(operation: Operation | None, message: Element, direction: Direction) -> str:
    if operation is None or direction == "request":
        return operation.action if operation is not None else ""
    if direction == "response":
        return operation.response_action or ""
    return next((each.action for each in operation.faults if each.name == message.get("name")), "")


def _strip(definitions: Element) -> None:
    """Take off every policy, and what says by itself that addresses are used."""
    for element in list(definitions.iter("*")):
        for space in WSP:
            element.attrib.pop(f"{{{space}}}PolicyURIs", None)
        namespace, parent = xml.namespace_of(element), element.getparent()
        flag = element.tag == f"{{{_ADDRESSING}}}UsingAddressing"
        if parent is not None and (namespace in WSP or flag):
            parent.remove(element)


__all__ = ["Attaching"]
