"""WS-SecureConversation's elements: SecurityContextToken and DerivedKeyToken.

Both editions by row; one frozen dataclass each, `parse` and `render` side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self

import pybase64

from castile.messages.security import (
    ID,
    SecurityTokenReference,
    base64_of,
    integer_of,
    malformed,
)
from castile.versions import WSSC, WSSE, WSU, Conversation
from castile.xml import Element, canonical, escape_attribute, escape_text, text_of

_SCT: Final = {f"{{{row.namespace}}}SecurityContextToken": row for row in WSSC.values()}
_DKT: Final = {f"{{{row.namespace}}}DerivedKeyToken": row for row in WSSC.values()}


def edition_of(element: Element) -> Conversation | None:
    """The edition of a SecurityContextToken or DerivedKeyToken; None: it is neither."""
    return _SCT.get(str(element.tag)) or _DKT.get(str(element.tag))


@dataclass(frozen=True, slots=True)
class SecurityContextToken:
    """``SecurityContextToken`` (WS-SC 1.4, 2)."""

    identifier: str
    instance: str | None = None
    id: str | None = None
    verbatim: bytes | None = field(default=None, repr=False)
    """The element as its issuer wrote it, canonical: sent back unchanged (features SC-01)."""

    @classmethod
    def parse(cls, element: Element, *, verbatim: bool = True) -> Self:
        """Unknown children are kept in `verbatim`; without it they are skipped.

        Raises `Malformed` unless there is one Identifier and at most one Instance.
        """
        edition = _SCT.get(str(element.tag))
        if edition is None:
            raise malformed("a SecurityContextToken was expected")
        identifiers = element.findall(f"{{{edition.namespace}}}Identifier")
        instances = element.findall(f"{{{edition.namespace}}}Instance")
        if len(identifiers) != 1 or len(instances) > 1:
            raise malformed("a SecurityContextToken has one Identifier and at most one Instance")
        identifier = text_of(identifiers[0]).strip()
        if not identifier:
            raise malformed("a SecurityContextToken has an empty Identifier")
        return cls(
            identifier,
            text_of(instances[0]).strip() if instances else None,
            element.get(ID),
            canonical(element) if verbatim else None,
        )

    def render(self, edition: Conversation) -> bytes:
        """Canonical bytes: the issuer's own where they are known."""
        if self.verbatim is not None:
            return self.verbatim
        scope = f' xmlns:u="{WSU}"' if self.id is not None else ""
        name = f' u:Id="{escape_attribute(self.id)}"' if self.id is not None else ""
        instance = ""
        if self.instance is not None:
            instance = f"<c:Instance>{escape_text(self.instance)}</c:Instance>"
        return (
            f'<c:SecurityContextToken xmlns:c="{edition.namespace}"{scope}{name}>'
            f"<c:Identifier>{escape_text(self.identifier)}</c:Identifier>{instance}"
            "</c:SecurityContextToken>"
        ).encode()

    def attached(self, edition: Conversation) -> SecurityTokenReference:
        """How a message that carries this token points to it (features SC-10)."""
        return SecurityTokenReference(uri=f"#{self.id}", value_type=edition.token_type)

    def unattached(self, edition: Conversation) -> SecurityTokenReference:
        """How a message that doesn't carry this token names it."""
        return SecurityTokenReference(
            uri=self.identifier, value_type=edition.token_type, instance=self.instance
        )


@dataclass(frozen=True, slots=True)
class DerivedKeyToken:
    """``DerivedKeyToken`` (WS-SC 1.4, 7); None: left out, so the default holds."""

    id: str | None
    reference: SecurityTokenReference | None
    offset: int | None = None
    generation: int | None = None
    length: int | None = None
    label: str | None = None
    nonce: bytes | None = field(default=None, repr=False)
    algorithm: str | None = None
    default_label: str | None = None
    """From Properties: for keys derived from this one in turn (features SC-13)."""
    default_nonce: bytes | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, element: Element) -> Self:
        """Children in the schema's order; Offset and Generation exclude each other."""
        edition = _DKT.get(str(element.tag))
        if edition is None:
            raise malformed("a DerivedKeyToken was expected")
        order = _ORDER[edition.namespace]
        found: dict[str, Element] = {}
        last = -1
        for child in element:
            name, place = order.get(str(child.tag), ("", -1))
            if place <= last:
                raise malformed("a DerivedKeyToken holds something twice, unknown or out of order")
            found[name], last = child, place
        reference = found.get("SecurityTokenReference")
        properties = found.get("Properties")
        default_label, default_nonce = _properties(properties, f"{{{edition.namespace}}}")
        label, nonce, length = found.get("Label"), found.get("Nonce"), found.get("Length")
        offset, generation = found.get("Offset"), found.get("Generation")
        return cls(
            id=element.get(ID),
            reference=None if reference is None else SecurityTokenReference.parse(reference),
            offset=None if offset is None else integer_of(offset),
            generation=None if generation is None else integer_of(generation),
            length=None if length is None else integer_of(length),
            label=None if label is None else text_of(label),
            nonce=None if nonce is None else base64_of(nonce),
            algorithm=element.get("Algorithm"),
            default_label=default_label,
            default_nonce=default_nonce,
        )

    def render(self, edition: Conversation) -> bytes:
        """Canonical bytes; Properties is never sent."""
        scope = f' xmlns:u="{WSU}"' if self.id is not None else ""
        algorithm = f' Algorithm="{escape_attribute(self.algorithm)}"' if self.algorithm is not None else ""
        name = f' u:Id="{escape_attribute(self.id)}"' if self.id is not None else ""
        text = f'<c:DerivedKeyToken xmlns:c="{edition.namespace}"{scope}{algorithm}{name}>'
        if self.reference is not None:
            # An Instance brings its own declaration of `c`, which stands on the apex already.
            text += self.reference.render().decode().replace(f' xmlns:c="{edition.namespace}"', "", 1)
        if self.generation is not None:
            text += f"<c:Generation>{self.generation}</c:Generation>"
        if self.offset is not None:
            text += f"<c:Offset>{self.offset}</c:Offset>"
        if self.length is not None:
            text += f"<c:Length>{self.length}</c:Length>"
        if self.label is not None:
            text += f"<c:Label>{escape_text(self.label)}</c:Label>"
        if self.nonce is not None:
            text += f"<c:Nonce>{pybase64.b64encode(self.nonce).decode()}</c:Nonce>"
        return f"{text}</c:DerivedKeyToken>".encode()


_PLACES: Final = {
    "Properties": 1,
    "Generation": 2,
    "Offset": 2,
    "Length": 3,
    "Label": 4,
    "Nonce": 5,
}
_ORDER: Final = {
    namespace: {
        f"{{{WSSE}}}SecurityTokenReference": ("SecurityTokenReference", 0),
        **{f"{{{namespace}}}{name}": (name, place) for name, place in _PLACES.items()},
    }
    for namespace in WSSC
}
"""Names and places of the children, by tag."""


def _properties(element: Element | None, space: str) -> tuple[str | None, bytes | None]:
    label: str | None = None
    nonce: bytes | None = None
    for child in element if element is not None else ():
        if child.tag == f"{space}Label" and label is None:
            label = text_of(child)
        elif child.tag == f"{space}Nonce" and nonce is None:
            nonce = base64_of(child)
        elif not isinstance(child.tag, str) or child.tag in (f"{space}Label", f"{space}Nonce"):
            raise malformed("the Properties of a DerivedKeyToken hold something twice, or a comment")
    return label, nonce
