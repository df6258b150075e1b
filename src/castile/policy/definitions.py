"""The definitions of WSDL 1.1 documents, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from castile.errors import UsageError
from castile.messages.policy import Place
from castile.policy.documents import WSDL, Documents, children, kind_of
from castile.versions import SOAP_1_1, SOAP_1_2, SOAPVersion
from castile.xml import Element, inside, local_name, name_of

SOAP_EXTENSIONS: Final[dict[str, SOAPVersion]] = {
    "http://schemas.xmlsoap.org/wsdl/soap/": SOAP_1_1,
    "http://schemas.xmlsoap.org/wsdl/soap12/": SOAP_1_2,
}
"""Namespaces of the elements that make a binding a SOAP binding."""
_CONTRACT: Final = "http://schemas.microsoft.com/ws/2005/12/wsdl/contract"
_WORDS: Final = {"binding": "binding", "portType": "port type", "message": "message"}


@dataclass(frozen=True, slots=True)
class Found:
    """A WSDL element, with where it stands."""

    location: str
    element: Element
    namespace: str
    """targetNamespace of its document."""

    @property
    def clark(self) -> str:
        return f"{{{self.namespace}}}{self.name}" if self.namespace else self.name

    @property
    def place(self) -> Place:
        return Place(self.location, self.element.sourceline or 0)

    @property
    def name(self) -> str:
        return self.element.get("name") or ""

    def below(self, element: Element) -> Found:
        return Found(self.location, element, self.namespace)

    def child(self, local: str) -> Found | None:
        found = children(self.element, local)
        return self.below(found[0]) if found else None

    def children(self, local: str) -> list[Found]:
        return [self.below(each) for each in children(self.element, local)]


class Definitions:
    """What all WSDLs among some documents define."""

    def __init__(self, documents: Documents) -> None:
        self.services: list[Found] = []
        self._missing = documents.missing
        self._defined: dict[tuple[str, str], list[Found]] = {}
        self._named: dict[tuple[Element, str], dict[str, list[Found]]] = {}
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
            kind, found = local_name(element), Found(location, element, namespace)
            if kind == "service":
                self.services.append(found)
            elif kind in _WORDS:
                self._defined.setdefault((kind, found.clark), []).append(found)

    def bindings(self) -> list[Found]:
        """The first binding of each name."""
        return [found[0] for (kind, _), found in self._defined.items() if kind == "binding"]

    def named(self, at: Found, local: str, name: str) -> list[Found]:
        """The children of an element that are of this kind and have this name."""
        key = (at.element, local)
        if key not in self._named:
            names: dict[str, list[Found]] = {}
            for each in at.children(local):
                names.setdefault(each.name, []).append(each)
            self._named[key] = names
        return self._named[key].get(name, [])

    def definition(self, kind: str, at: Found, attribute: str) -> Found:
        """The binding, port type or message that an attribute names; `UsageError` if there isn't one."""
        name = qname(at, at.element.get(attribute) or "")
        found = self._defined.get((kind, name), [])
        if len(found) == 1:
            return found[0]
        start = f"{at.place}: the {_WORDS[kind]} {name} of {local_name(at.element)} {at.name}"
        if found:
            raise UsageError(f"{start} is defined {len(found)} times, as at {found[1].place}")
        lost = "; ".join(f"{location}: {reason}" for location, reason in self._missing.items())
        raise UsageError(f"{start} is defined nowhere{f' (missing: {lost})' if lost else ''}")


def soap_of(found: Found, local: str) -> tuple[SOAPVersion, Element] | None:
    """The SOAP extension element of a binding or of one of its operations."""
    for uri, version in SOAP_EXTENSIONS.items():
        element = found.element.find(f"{{{uri}}}{local}")
        if element is not None:
            return version, element
    return None


def qname(at: Found, value: str) -> str:
    """A QName in an attribute, in Clark notation; without prefix it may mean the document's own."""
    prefix, _, local = value.strip().rpartition(":")
    uri = at.element.nsmap.get(prefix or None)
    if not prefix and uri in (None, WSDL):
        uri = at.namespace
    if prefix and uri is None:
        raise UsageError(f"{at.place}: the prefix of {value!r} is not declared")
    return f"{{{uri}}}{local}" if uri else local


def flag(found: Found, name: str, *, default: bool = False) -> bool:
    """An attribute of WCF's contracts (features PO-46)."""
    value = (found.element.get(f"{{{_CONTRACT}}}{name}") or "").strip()
    return value in ("true", "1") if value else default
