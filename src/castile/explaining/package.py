"""What stands around a captured envelope: an HTTP dump, a MIME package with attachments (MTOM).

An HTTP header block is read where there is one, chunks are put together, and of a package the
root part is taken; what it includes by ``xop:Include`` is put in its place as base64, as XOP
means it (XOP 1.0, 3.2). Anything else is left as it is.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final
from urllib.parse import unquote

from castile.errors import UsageError

_START: Final = re.compile(rb"(?:HTTP/\d(?:\.\d)? \d{3}|[A-Z]{3,10} \S+ HTTP/\d)[^\n]*\n")
_HEADER: Final = re.compile(rb"[!#-'*+.0-9A-Z^-z|~-]+[ \t]*:")
_PARAMETER: Final = re.compile(r';\s*([^\s=;]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))')
_INCLUDE: Final = re.compile(
    rb"""<((?:[\w.-]+:)?)Include\b[^>]*?\bhref\s*=\s*["']cid:([^"']+)["'][^>]*?(?:/>|>\s*</\1Include\s*>)"""
)
_XOP: Final = b"http://www.w3.org/2004/08/xop/include"
_MOST_PARTS: Final = 256
_MOST_HEADERS: Final = 256
_LARGEST: Final = 64 << 20
"""Bytes of a file: more is no message that a person looks at."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a MIME package."""

    headers: dict[str, str]
    octets: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Its Content-ID without angle brackets."""
        return self.headers.get("content-id", "").strip().removeprefix("<").removesuffix(">")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An envelope, and what was around it."""

    envelope: bytes = field(repr=False)
    response: bool | None = None
    """Which way it went, if an HTTP start line tells."""
    details: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def unpack(octets: bytes) -> Unpacked:
    """The envelope in a captured file; raises `UsageError` for a package that can't be taken apart."""
    if len(octets) > _LARGEST:
        raise UsageError(f"a capture of {len(octets)} bytes, more than {_LARGEST}")
    start = _START.match(octets)
    if start is None and not _HEADER.match(octets):
        return Unpacked(octets)
    headers, body = _headers(octets[start.end() :] if start else octets)
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _chunks(body)
    response = start[0].startswith(b"HTTP/") if start else None
    details = [("http", start[0].decode("latin-1").strip())] if start else []
    kind, parameters, sloppy = _content_type(headers.get("content-type", ""))
    if not kind.startswith("multipart/"):
        return Unpacked(body, response, tuple(details))
    parts = _parts(body, parameters.get("boundary", ""))
    root = _root(parts, parameters.get("start", ""))
    attachments = [part for part in parts if part is not root]
    details.append(("package", f"{kind}, {len(parts)} parts, root {root.name or 'the first one'}"))
    details += [("attachment", _described(part)) for part in attachments]
    warnings = tuple(
        f"the value of {name} in Content-Type has to stand in quotes (RFC 2045, 5.1)" for name in sloppy
    )
    return Unpacked(_inlined(root.octets, attachments), response, tuple(details), warnings)


def _headers(octets: bytes) -> tuple[dict[str, str], bytes]:
    """Header fields by lower-case name, folded lines put together, and what follows."""
    found: dict[str, str] = {}
    last = ""
    for _ in range(_MOST_HEADERS):
        line, separator, octets = octets.partition(b"\n")
        text = line.rstrip(b"\r").decode("latin-1")
        if not text or not separator:
            return found, octets
        if text[0] in " \t" and last:
            found[last] += f" {text.strip()}"
            continue
        name, _, value = text.partition(":")
        last = name.strip().lower()
        found[last] = value.strip()
    raise UsageError(f"a header block of more than {_MOST_HEADERS} lines")


def _content_type(value: str) -> tuple[str, dict[str, str], list[str]]:
    """Media type, parameters, and the names of those that lack their quotes."""
    kind, _, rest = value.partition(";")
    parameters: dict[str, str] = {}
    sloppy = []
    for name, quoted, bare in _PARAMETER.findall(f";{rest}"):
        parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted else bare)
        if any(each in bare for each in '/<>@,:\\[]?="()'):
            sloppy.append(name.lower())
    return kind.strip().lower(), parameters, sloppy


def _chunks(body: bytes) -> bytes:
    """The octets of a chunked body (RFC 9112, 7.1); as it is where it was put together already."""
    whole: list[bytes] = []
    while True:
        size, separator, rest = body.partition(b"\r\n")
        digits = size.partition(b";")[0].strip()
        if not separator or not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", digits):
            return b"".join(whole) or body
        count = int(digits, 16)
        if count == 0:
            return b"".join(whole)
        whole.append(rest[:count])
        body = rest[count + 2 :]


def _parts(body: bytes, boundary: str) -> list[Part]:
    """The parts of a package; a line that only looks like its boundary is content (RFC 2046, 5.1)."""
    if not boundary:
        raise UsageError("a multipart message without boundary in its Content-Type")
    quoted = re.escape(boundary.encode("latin-1", "replace"))
    delimiter = re.compile(rb"(?:\A|\r?\n)--" + quoted + rb"(--)?[ \t]*(?=\r?\n|\Z)")
    parts: list[Part] = []
    for mark, following in pairwise(delimiter.finditer(body)):
        if mark[1]:
            break
        content = body[mark.end() : following.start()]
        headers, octets = _headers(content.removeprefix(b"\r").removeprefix(b"\n"))
        if headers.get("content-transfer-encoding", "").strip().lower() == "base64":
            octets = _decoded(octets)
        parts.append(Part(headers, octets))
        if len(parts) > _MOST_PARTS:
            raise UsageError(f"a package of more than {_MOST_PARTS} parts")
    if not parts:
        raise UsageError("a multipart message in which its boundary doesn't occur")
    return parts


def _decoded(octets: bytes) -> bytes:
    try:
        return b64decode(b"".join(octets.split()), validate=True)
    except ValueError:
        raise UsageError("a part of the package isn't base64 as it says") from None


def _root(parts: list[Part], start: str) -> Part:
    """The part that `start` names; without it the first one (RFC 2387, 3.2)."""
    wanted = start.strip().removeprefix("<").removesuffix(">")
    if not wanted:
        return parts[0]
    found = next((part for part in parts if part.name == wanted), None)
    if found is None:
        raise UsageError(f"the package has no part {wanted}, which its start parameter names")
    return found


def _described(part: Part) -> str:
    kind = part.headers.get("content-type", "application/octet-stream")
    digest = hashlib.sha256(part.octets).hexdigest()
    return f"{part.name}, {kind}, {len(part.octets)} octets, SHA-256 {digest}"


def _inlined(envelope: bytes, attachments: list[Part]) -> bytes:
    """The envelope with its attachments in place."""
    if _XOP not in envelope:
        return envelope
    by_name = {part.name: part.octets for part in attachments}

    def content(found: re.Match[bytes]) -> bytes:
        octets = by_name.get(unquote(found[2].decode("latin-1")))
        return found[0] if octets is None else b64encode(octets)

    return _INCLUDE.sub(content, envelope)
