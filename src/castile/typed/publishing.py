"""The WSDL of a running service, as it is given to whoever asks for it (SV-08).

Its documents, linked among each other (``?wsdl``, ``?wsdl=1``, ``?xsd=1``) or in one
(``?singleWsdl``): ports and addresses are those of the running service. What the WSDL says to its
own server only, such as where its keys are, isn't given away, nor are comments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Final

from lxml import etree

from castile import xml
from castile.config import DocumentLimits
from castile.errors import UsageError
from castile.policy.documents import kind_of
from castile.typed.contract import WSDL, XSD, Contract, location
from castile.typed.schema import XML, Schemas, written
from castile.versions import WSP
from castile.xml import Element

_PRIVATE: Final = (
    "http://schemas.sun.com/2006/03/wss/",
    "http://schemas.sun.com/ws/2006/05/sc/",
    "http://schemas.sun.com/ws/2006/05/trust/",
    "http://cxf.apache.org/",
    "urn:castile:",
)
"""Namespaces of settings for one's own side: key stores, their passwords, validators."""
_LINKS: Final = {
    f"{{{WSDL}}}import": "location",
    f"{{{XSD}}}import": "schemaLocation",
    f"{{{XSD}}}include": "schemaLocation",
    f"{{{XSD}}}redefine": "schemaLocation",
}
Addresses = Mapping[tuple[str, str], str]
"""URL by service and port."""
Attach = Callable[[Element], None]
"""Puts the effective policy into a definitions element."""


class Publisher:
    """A contract's documents for clients. `attach` is given each WSDL, to say what is in force."""

    def __init__(self, contract: Contract, attach: Attach | None = None) -> None:
        self._contract, self._attach = contract, attach
        self._queries: dict[str, str] = {}
        for at, document in contract.documents:
            kind = kind_of(document) or "xsd"
            number = sum(query.startswith(f"{kind}=") for query in self._queries.values()) + 1
            self._queries[at] = f"{kind}={number}" if self._queries else "wsdl"

    def document(self, query: str, url: str, addresses: Addresses) -> bytes | None:
        """What this query of a URL gets; None: there is no such document.

        `url` is that of the endpoint itself, by which documents refer to each other.
        """
        wanted = query.lower()
        if wanted == "singlewsdl":
            return _written(self._single(url, addresses))
        at = next((at for at, known in self._queries.items() if known == wanted), None)
        return None if at is None else _written(self._linked(at, url, addresses))

    def _linked(self, at: str, url: str, addresses: Addresses) -> Element:
        document = self._copy(at, url)
        for element in document.iter(*_LINKS):
            attribute = _LINKS[str(element.tag)]
            relative = element.get(attribute)
            if relative and (query := self._queries.get(location(at, relative))):
                element.set(attribute, f"{url}?{query}")
        return self._public(document, addresses)

    def _copy(self, at: str, url: str) -> Element:
        """A document whose references to policies in other documents lead to the service's own."""
        found = self._contract.documents.root(at)
        if found is None:
            raise UsageError(f"the document {at} is missing")
        document = deepcopy(found)
        for element in document.iter(*(f"{{{space}}}PolicyReference" for space in WSP)):
            relative, _, name = (element.get("URI") or "").partition("#")
            if relative and (query := self._queries.get(location(at, relative))):
                element.set("URI", f"{url}?{query}#{name}")
        return document

    def _single(self, url: str, addresses: Addresses) -> Element:
        """One document: imported WSDLs of the same namespace and every schema inside.

        A WSDL can't hold another one's namespace (WSDL 1.1, 2.1.1): such a one stays an import.
        """
        at = self._contract.documents.location
        root = self._copy(at, url)
        parts = [each for each in Schemas(self._contract).documents if each.get("targetNamespace") != XML]
        types = b'<types xmlns="%b">%b</types>' % (WSDL.encode(), b"".join(map(written, parts)))
        inside = b"".join(self._inlined(root, at, url, {at}))
        start, found, end = written(_emptied(root)).partition(b"</")
        return self._public(
            xml.parse_document(b"".join((start, types, inside, found, end)), DocumentLimits().xml), addresses
        )

    def _inlined(self, document: Element, at: str, url: str, seen: set[str]) -> Iterator[bytes]:
        """What a WSDL and those that it imports define, but for types."""
        for child in xml.inside(document):
            if child.tag == f"{{{WSDL}}}types":
                continue
            if child.tag != f"{{{WSDL}}}import":
                yield written(child)
                continue
            target = location(at, child.get("location", ""))
            other = self._contract.documents.root(target)
            if other is None or other.get("targetNamespace") != document.get("targetNamespace"):
                link = deepcopy(child)
                link.set("location", f"{url}?{self._queries.get(target, 'wsdl')}")
                yield written(link)
            elif target not in seen:
                seen.add(target)
                yield from self._inlined(self._copy(target, url), target, url, seen)

    def _public(self, document: Element, addresses: Addresses) -> Element:
        for service in document.findall(f"{{{WSDL}}}service"):
            for port in service.findall(f"{{{WSDL}}}port"):
                url = addresses.get((service.get("name", ""), port.get("name", "")))
                if url is None:
                    service.remove(port)
                    continue
                for child in xml.inside(port):
                    if xml.local_name(child) == "address":
                        child.set("location", url)
        for private in list(_private(document)):
            parent = private.getparent()
            if parent is not None:
                parent.remove(private)
        if self._attach is not None and document.tag == f"{{{WSDL}}}definitions":
            self._attach(document)
        return document


def _emptied(element: Element) -> Element:
    """A copy of the element without what is in it."""
    copy = deepcopy(element)
    for child in list(copy):
        copy.remove(child)
    copy.text = " "
    return copy


def _private(document: Element) -> Iterator[Element]:
    """Comments, and elements of private settings."""
    for each in document.iter():
        if not isinstance(each.tag, str) or xml.namespace_of(each).startswith(_PRIVATE):
            yield each


def _written(document: Element) -> bytes:
    return etree.tostring(document, xml_declaration=True, encoding="utf-8")


__all__ = ["Addresses", "Attach", "Publisher"]
