"""Distinguished names as text: what peers write into X509IssuerName.

RFC 4514 is what XML Signature asks for; Java, .NET and OpenSSL write blanks behind commas, other
names for attributes, quotes, and either order (BSP R5409). A serial number is compared first, so
this reading may be generous: it leads to no certificate that isn't known already.
"""

from __future__ import annotations

import re
from typing import Final

from cryptography import x509

_NAMES: Final = {
    "CN": "2.5.4.3",
    "SN": "2.5.4.4",
    "SURNAME": "2.5.4.4",
    "SERIALNUMBER": "2.5.4.5",
    "C": "2.5.4.6",
    "L": "2.5.4.7",
    "S": "2.5.4.8",
    "SP": "2.5.4.8",
    "ST": "2.5.4.8",
    "STREET": "2.5.4.9",
    "O": "2.5.4.10",
    "OU": "2.5.4.11",
    "T": "2.5.4.12",
    "TITLE": "2.5.4.12",
    "GN": "2.5.4.42",
    "G": "2.5.4.42",
    "GIVENNAME": "2.5.4.42",
    "INITIALS": "2.5.4.43",
    "GENERATION": "2.5.4.44",
    "DNQ": "2.5.4.46",
    "DNQUALIFIER": "2.5.4.46",
    "ORGANIZATIONIDENTIFIER": "2.5.4.97",
    "DC": "0.9.2342.19200300.100.1.25",
    "UID": "0.9.2342.19200300.100.1.1",
    "E": "1.2.840.113549.1.9.1",
    "EMAIL": "1.2.840.113549.1.9.1",
    "EMAILADDRESS": "1.2.840.113549.1.9.1",
}
"""Short names of attributes, as they are met."""
_PAIR: Final = re.compile(
    r"""\s*+([A-Za-z][\w.-]*+|[\d.]++)\s*+=\s*+"""
    r"""(?:"((?:[^"\\]|\\.)*+)"\s*+|((?:[^,;+\\"]|\\.)*+))([,;+]|\Z)""",
    re.DOTALL | re.ASCII,
)
_ESCAPED: Final = re.compile(r"(?:\\[0-9A-Fa-f]{2})+|\\(.)", re.DOTALL)
_LONGEST: Final = 4_096

Names = list[frozenset[tuple[str, str]]]


def same_name(text: str, name: x509.Name) -> bool:
    """Whether a distinguished name as text is this name, in either order."""
    written = _parsed(text)
    known = [
        frozenset((each.oid.dotted_string, _folded(str(each.value))) for each in part) for part in name.rdns
    ]
    return written is not None and (written == known or written[::-1] == known)


def _parsed(text: str) -> Names | None:
    """Its parts as (attribute, value) pairs; None where it is no name."""
    if len(text) > _LONGEST:
        return None
    parts: Names = []
    pairs: set[tuple[str, str]] = set()
    position = 0
    while position < len(text):
        found = _PAIR.match(text, position)
        if found is None:
            return None
        kind, quoted, plain, end = found.groups()
        value = _unescaped(quoted) if quoted is not None else _plain(plain)
        if value is None:
            return None
        label = kind.upper().removeprefix("OID.")
        pairs.add((_NAMES.get(label, label), _folded(value)))
        position = found.end()
        if end != "+":
            parts.append(frozenset(pairs))
            pairs = set()
        if not end:
            return parts
    return None


def _plain(text: str) -> str | None:
    """An unquoted value; one in hexadecimal holds the DER of a string."""
    if not text.startswith("#"):
        return _unescaped(text)
    try:
        octets = bytes.fromhex(text[1:])
        if len(octets) < 2 or len(octets) != 2 + octets[1]:
            return None
        return octets[2:].decode("utf-16-be" if octets[0] == 0x1E else "utf-8")
    except ValueError:
        return None


def _unescaped(text: str) -> str | None:
    def replaced(found: re.Match[str]) -> str:
        if found[1] is not None:
            return found[1]
        return bytes.fromhex(found[0].replace("\\", "")).decode()

    try:
        return _ESCAPED.sub(replaced, text)
    except ValueError:
        return None


def _folded(value: str) -> str:
    """As names are compared: without regard to case and to the number of blanks (RFC 5280, 7.1)."""
    return " ".join(value.split()).casefold()
