"""Which parts of one message are signed, encrypted or required (WS-SecurityPolicy 1.2, 4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from castile.versions import NETRM, WSA, WSMC, WSRM


@dataclass(frozen=True, slots=True, order=True)
class HeaderPart:
    """A header block by its name, or every one of a namespace (WS-SP 1.2, 4.1.1)."""

    namespace: str
    name: str = ""
    """"": every header of the namespace."""


DEFAULT_HEADERS: Final = frozenset(HeaderPart(each) for each in (*WSA, *WSRM, WSMC, NETRM))
"""What is signed where a policy names no parts (features MS-51)."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What of a message is signed, encrypted and required, beside what its tokens ask for.

    A named header that a message hasn't got is no offence, except in `required`.
    """

    signed_body: bool = True
    signed_headers: frozenset[HeaderPart] = DEFAULT_HEADERS
    every_header: bool = False
    """An empty SignedParts: every header of the message, and its Body."""
    encrypted_body: bool = True
    encrypted_headers: frozenset[HeaderPart] = frozenset()
    required: frozenset[HeaderPart] = frozenset()
    """Headers that must be there (WS-SP 1.2, 4.3.1)."""

    @property
    def encrypts(self) -> bool:
        """Whether anything but tokens is encrypted."""
        return self.encrypted_body or bool(self.encrypted_headers)

    @property
    def in_clear(self) -> Parts:
        """The same with nothing encrypted: what a lifecycle message has (features CO-09)."""
        return replace(self, encrypted_body=False, encrypted_headers=frozenset())

    @property
    def signs_all(self) -> bool:
        """Whether every header that is sent is signed: also where no policy names any, for then
        what is copied for WS-Addressing counts too."""
        return self.every_header or self.signed_headers >= DEFAULT_HEADERS

    def signs(self, namespace: str, name: str) -> bool:
        """Whether a header block must be signed where it occurs."""
        return self.every_header or names(self.signed_headers, namespace, name)


DEFAULT_PARTS: Final = Parts()
NO_PARTS: Final = Parts(signed_body=False, signed_headers=frozenset(), encrypted_body=False)


@lru_cache(maxsize=1_024)
def names(parts: frozenset[HeaderPart], namespace: str, name: str) -> bool:
    """Whether a header block is one of `parts`."""
    return HeaderPart(namespace) in parts or HeaderPart(namespace, name) in parts
