"""Arguments that an operation would take, for an example of a call."""

from __future__ import annotations

from typing import Final

import zeep.xsd
from zeep.xsd.types import builtins

from castile.typed.codec import Shape

_DEPTH: Final = 4
"""Of values inside values; a type may hold itself."""
_VALUES: Final[tuple[tuple[type, object], ...]] = (
    (builtins.Boolean, True),
    (builtins.Integer, 1),
    (builtins.Decimal, "1.0"),
    (builtins.Float, 1.0),
    (builtins.Double, 1.0),
    (builtins.DateTime, "2026-01-31T12:00:00Z"),
    (builtins.Date, "2026-01-31"),
    (builtins.Time, "12:00:00Z"),
    (builtins.Duration, "PT1H"),
    (builtins.AnyURI, "urn:example"),
)
"""By type; anything else is a text."""


def sample(shape: Shape | None) -> dict[str, object]:
    """What must be there, with a value of its type as far as one is known."""
    if shape is None:
        return {}
    kind = shape.element.type
    return _children(kind, 0) if shape.compound else {shape.names[0]: _value(kind, 0)}


def _children(kind: zeep.xsd.ComplexType, depth: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, each in kind.elements:
        if isinstance(each, zeep.xsd.Element) and not each.is_optional:
            value = _value(each.type, depth + 1)
            found[name] = [value] if each.accepts_multiple else value
    for name, attribute in kind.attributes:
        if isinstance(attribute, zeep.xsd.Attribute) and attribute.required:
            found[name] = _value(attribute.type, depth + 1)
    return found


def _value(kind: object, depth: int) -> object:
    if isinstance(kind, zeep.xsd.ComplexType):
        return _children(kind, depth) if depth < _DEPTH else {}
    return next((value for known, value in _VALUES if isinstance(kind, known)), "...")
