"""WSDLs, schemas and policies that belong together, by the place where each was found.

Pure: somebody else reads files and asks servers (`castile.transport.documents`, or zeep), and
adds here what came. What couldn't be had is kept with the reason, which matters only where it is
needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from posixpath import normpath
from typing import Final, Literal
from urllib.parse import urljoin

from castile.config import DocumentLimits
from castile.errors import Malformed, UsageError
from castile.messages.policy import Place
from castile.versions import WSP
from castile.xml import Element, inside, name_of, parse_document

WSDL: Final = "http://schemas.xmlsoap.org/wsdl/"
WSDL_2: Final = "http://www.w3.org/ns/wsdl"
SCHEMA: Final = "http://www.w3.org/2001/XMLSchema"
POLICY_URIS: Final = frozenset(f"{{{namespace}}}PolicyURIs" for namespace in WSP)

_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""A scheme; one letter is a drive of Windows."""
_URL: Final = re.compile(r"(?i:https?)://")


class Documents:
    """Parsed documents by location, the root first; within the limits."""

    def __init__(self, limits: DocumentLimits | None = None) -> None:
        self.limits = limits or DocumentLimits()
        self.missing: dict[str, str] = {}
        """Why a document that another one names isn't here, by location."""
        self._octets: dict[str, bytes] = {}
        self._roots: dict[str, Element] = {}

    def add(self, location: str, octets: bytes) -> Element:
        """Parse a document and keep it; the first one added is what was asked for.

        `location` is its path or URL. Raises `UsageError` for what isn't XML within the limits.
        """
        if location not in self._roots:
            if len(self._roots) >= self.limits.documents:
                raise UsageError(f"{location}: more than {self.limits.documents} documents")
            if sum(map(len, self._octets.values())) + len(octets) > self.limits.total_bytes:
                raise UsageError(f"{location}: more than {self.limits.total_bytes} bytes of documents")
            try:
                self._roots[location] = parse_document(octets, self.limits.xml)
            except Malformed as error:
                raise UsageError(f"{location}: {error}") from None
            self._octets[location] = octets
            self.missing.pop(location, None)
        return self._roots[location]

    @property
    def location(self) -> str:
        """Where the first one came from."""
        return next(iter(self._roots), "")

    def root(self, location: str) -> Element | None:
        """The root element of a document; None: it isn't here."""
        return self._roots.get(location)

    def octets(self, location: str) -> bytes | None:
        """A document as it came; None: it isn't here."""
        return self._octets.get(location)

    def __iter__(self) -> Iterator[tuple[str, Element]]:
        return iter(self._roots.items())

    def __len__(self) -> int:
        return len(self._roots)


@dataclass(frozen=True, slots=True)
class Reference:
    """Another document that a document names."""

    kind: Literal["wsdl", "schema", "policy"]
    uri: str
    """As it stands."""
    location: str
    """Resolved against the place of the one that names it, without a fragment."""
    place: Place


def references(location: str, root: Element) -> Iterator[Reference]:
    """What a document imports, includes or refers to, in document order."""
    for element in root.iter(f"{{{WSDL}}}import"):
        yield from _reference("wsdl", location, element, element.get("location"))
    for local in ("import", "include", "redefine"):
        for element in root.iter(f"{{{SCHEMA}}}{local}"):
            yield from _reference("schema", location, element, element.get("schemaLocation"))
    for element, uri in policy_references(root):
        yield from _reference("policy", location, element, uri)


def policy_references(root: Element) -> Iterator[tuple[Element, str]]:
    """Every PolicyReference, as element or in a PolicyURIs attribute, with its URI."""
    for element in root.iter("*"):
        namespace, local = name_of(element)
        if local == "PolicyReference" and namespace in WSP:
            yield element, element.get("URI") or ""
        for name in POLICY_URIS.intersection(element.keys()):
            for uri in str(element.get(name)).split():
                yield element, uri


def names(documents: Documents) -> frozenset[str]:
    """The Names of all policies: a reference may mean one by it, wherever it stands."""
    return frozenset(
        str(policy.get("Name"))
        for _, root in documents
        for namespace in WSP
        for policy in root.iter(f"{{{namespace}}}Policy")
        if policy.get("Name")
    )


def _reference(
    kind: Literal["wsdl", "schema", "policy"], base: str, element: Element, uri: str | None
) -> Iterator[Reference]:
    uri = (uri or "").strip()
    if target := uri.partition("#")[0]:
        yield Reference(kind, uri, resolve(base, target), Place(base, element.sourceline or 0))


def resolve(base: str, reference: str) -> str:
    """Where a reference in the document at `base` leads: a URL, or a path like `base`'s."""
    if _URL.match(base):
        try:
            return urljoin(base, reference)
        except ValueError:
            return reference
    if _ABSOLUTE.match(reference):
        return reference
    return normpath((PurePath(base).parent / reference).as_posix())


def kind_of(root: Element) -> Literal["wsdl", "policy", ""]:
    """What a document is, by its root."""
    namespace, local = name_of(root)
    if (namespace, local) == (WSDL, "definitions"):
        return "wsdl"
    return "policy" if local == "Policy" and namespace in WSP else ""


def children(element: Element, local: str) -> list[Element]:
    """The WSDL elements of this name directly below an element."""
    return [each for each in inside(element) if each.tag == f"{{{WSDL}}}{local}"]
