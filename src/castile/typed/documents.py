"""The documents of a WSDL on this machine: itself, and what it imports beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from castile import xml
from castile.config import Limits
from castile.errors import Malformed, UsageError
from castile.typed.contract import WSDL, XSD, location
from castile.xml import Element

LIMITS: Final = replace(Limits(), message_bytes=5 << 20, elements=100_000, namespaces=4_096, attributes=128)
"""A WSDL of a large product has some thousand types; the author of a service chose it."""
MAX_DOCUMENTS: Final = 100
_IMPORTS: Final = {
    f"{{{WSDL}}}import": "location",
    f"{{{XSD}}}import": "schemaLocation",
    f"{{{XSD}}}include": "schemaLocation",
    f"{{{XSD}}}redefine": "schemaLocation",
}
"""Elements that name another document, and the attribute that says where it is."""


def load(path: str | Path) -> tuple[Mapping[str, Element], str]:
    """The documents by location, and the location of the WSDL. Files only, never the network.

    Raises `UsageError` where one can't be read or isn't well-formed.
    """
    root = Path(path).resolve().as_posix()
    found: dict[str, Element] = {}
    left = [root]
    while left:
        at = left.pop()
        if at in found:
            continue
        if len(found) == MAX_DOCUMENTS:
            raise UsageError(f"{root} imports more than {MAX_DOCUMENTS} documents")
        if "://" in at:
            raise UsageError(f"{root} imports {at}: keep it beside the WSDL and import it from there")
        try:
            found[at] = xml.parse(Path(at).read_bytes(), LIMITS)
        except (OSError, Malformed) as error:
            raise UsageError(f"{at} can't be read: {error}") from error
        left += imports(found[at], at)
    return found, root


def imports(document: Element, at: str) -> Iterator[str]:
    """The locations that a document imports or includes."""
    for element in document.iter(*_IMPORTS):
        relative = element.get(_IMPORTS[str(element.tag)])
        if relative:
            yield location(at, relative)
