"""What must be covered by the one signature, and what may stand beside it.

A header that reliability or addressing reads counts only when it is signed; an unsigned one
beside a signed one, or a second one of a kind that occurs once, makes the message unacceptable
(features MS-07, MS-50, MS-51).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from functools import lru_cache
from typing import Final

from castile.errors import SecurityFailure
from castile.messages.security import ID
from castile.versions import NETRM, WSA, WSMC, WSRM, part_name
from castile.xml import Element

SIGNED_NAMESPACES: Final = frozenset({*WSA, *WSRM, WSMC, NETRM})
"""Every header of these must be signed (features MS-51)."""
_REPEATED: Final = frozenset(
    [f"{{{namespace}}}RelatesTo" for namespace in WSA]
    + [f"{{{namespace}}}{name}" for namespace in WSRM for name in ("SequenceAcknowledgement", "AckRequested")]
)
"""May occur more than once."""


def header_name(element: Element) -> str:
    """An element's part name, such as ``wsa:To``."""
    return _row(str(element.tag))[0]


@lru_cache(maxsize=256)
def _row(tag: str) -> tuple[str, bool]:
    """Part name, and whether such a header must be signed."""
    namespace, _, local = tag.rpartition("}")
    return part_name(namespace[1:], local), namespace[1:] in SIGNED_NAMESPACES


def required_headers(headers: Iterable[Element]) -> list[Element]:
    """The header blocks that must be signed wherever they occur."""
    return [block for block in headers if _row(str(block.tag))[1]]


def doubled_headers(headers: Iterable[Element]) -> list[str]:
    """Names of the headers that stand twice and may not."""
    seen: set[str] = set()
    doubled: list[str] = []
    for block in headers:
        tag = str(block.tag)
        if tag in seen and tag not in _REPEATED and _row(tag)[1]:
            doubled.append(header_name(block))
        seen.add(tag)
    return doubled


def uncovered_headers(headers: Iterable[Element], ids: Set[str]) -> list[str]:
    """Names of the headers that must be signed and aren't among these ids."""
    return [header_name(block) for block in required_headers(headers) if block.get(ID) not in ids]


def check_headers(headers: Sequence[Element], ids: Set[str]) -> None:
    """Refuse doubled headers and those that the signature leaves out; `ids`: what it covers."""
    for name in doubled_headers(headers):
        raise SecurityFailure(f"{name} stands twice", part=name)
    for name in uncovered_headers(headers, ids):
        raise SecurityFailure(f"{name} isn't signed together with the Body", part=name)
    if not any(str(block.tag).endswith("}Action") for block in required_headers(headers)):
        raise SecurityFailure("the message has no Action", part="wsa:Action")
