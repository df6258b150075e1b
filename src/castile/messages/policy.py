"""WS-Policy assertions, as they stand in a document (WS-Policy 1.5, 3 and 4)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was read."""

    document: str
    """Path or URL."""
    line: int


@dataclass(frozen=True, slots=True)
class Assertion:
    """One policy assertion of a normalised alternative."""

    name: str
    """Clark notation, as ``xml`` writes it."""
    place: Place
    attributes: tuple[tuple[str, str], ...] = ()
    """Clark names and values; those of WS-Policy itself are left out."""
    text: str = ""
    children: tuple[Assertion, ...] = ()
    """Parameters: child elements that are no nested policy."""
    policy: tuple[Alternative, ...] | None = None
    """The nested policy, normalised; None: the assertion has none."""
    optional: bool = False
    """Of a normalised assertion: the alternative without it stands elsewhere too."""
    ignorable: bool = False


Alternative = tuple[Assertion, ...]
"""Assertions that hold together (WS-Policy 1.5, 4.1)."""
