"""What must be covered by the one signature, and what may stand beside it.

A header that the policy has signed counts only when it is; an unsigned one beside a signed one, or
a second one of a kind that occurs once, makes the message unacceptable (features MS-07, MS-50,
MS-51).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence, Set
from functools import lru_cache
from typing import Final

from castile.errors import SecurityFailure
from castile.policy.parts import DEFAULT_HEADERS, DEFAULT_PARTS, HeaderPart, Parts
from castile.versions import WSA, WSRM, part_name
from castile.xml import Element, name_of

SIGNED_NAMESPACES: Final = frozenset(part.namespace for part in DEFAULT_HEADERS)
"""Reliability and addressing read these; signed where no policy says otherwise (features MS-51)."""
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
    """Part name, and whether reliability or addressing reads such a header."""
    namespace, _, local = tag.rpartition("}")
    return part_name(namespace[1:], local), namespace[1:] in SIGNED_NAMESPACES


def is_read(block: Element) -> bool:
    """Whether reliability or addressing reads this header block."""
    return _row(str(block.tag))[1]


def required_headers(headers: Iterable[Element], parts: Parts = DEFAULT_PARTS) -> list[Element]:
    """The header blocks that must be signed wherever they occur."""
    return [block for block in headers if parts.signs(*name_of(block))]


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


def check_headers(headers: Sequence[Element], covered: Collection[Element], parts: Parts) -> None:
    """Refuse doubled headers, those that a signature leaves out, and what is missing.

    `covered`: the blocks that the signature covers. Of a kind that it covers once it must cover
    all: an unsigned twin is never read beside a signed one.
    """
    for name in doubled_headers(headers):
        raise SecurityFailure(f"{name} stands twice", part=name)
    for block in required_headers(headers, parts):
        if block not in covered:
            name = header_name(block)
            raise SecurityFailure(f"{name} isn't signed together with the Body", part=name)
    if len(covered) != len(headers):
        signed = {block.tag for block in covered}
        for block in headers:
            if block.tag in signed and block not in covered:
                name = header_name(block)
                raise SecurityFailure(f"{name} stands unsigned beside a signed one", part=name)
    check_present(headers, parts.required)


def check_present(headers: Iterable[Element], required: Set[HeaderPart]) -> None:
    """Refuse a message without a header that the policy requires."""
    if not required:
        return
    tags = {str(block.tag) for block in headers}
    for part in sorted(required):
        wanted = f"{{{part.namespace}}}{part.name}"
        if not any(tag == wanted or (not part.name and tag.startswith(wanted)) for tag in tags):
            name = part_name(part.namespace, part.name)
            raise SecurityFailure(f"the message lacks {name}, which the policy requires", part=name)
