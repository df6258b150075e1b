"""Why a check failed, as far as the message itself shows it.

Nothing here changes a verdict: `causes` puts a reason behind what has failed already.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from castile import xml
from castile.errors import CastileError
from castile.explaining.keys import Keys
from castile.explaining.opened import Opened
from castile.messages.security import ID, BinarySecurityToken, UsernameToken
from castile.messages.signature import Reference, Signature
from castile.security.certificates import certificates_of
from castile.security.coverage import header_name
from castile.security.signature import digest_holds
from castile.security.trace import Problem, TimestampSeen
from castile.versions import DS, PASSWORD_DIGEST, WSSE
from castile.xml import Element

_SIGNATURE: Final = f"{{{DS}}}Signature"
_STR: Final = f"{{{WSSE}}}SecurityTokenReference"
_KEY_INFO: Final = f"{{{DS}}}KeyInfo"
_EPOCH_YEAR: Final = 366 * 86_400.0
_BINARY_TOKEN: Final = f"{{{WSSE}}}BinarySecurityToken"
_USERNAME_TOKEN: Final = f"{{{WSSE}}}UsernameToken"
_REFERENCES: Final = 32


def causes(message: Opened, problem: Problem, keys: Keys) -> str:
    """What probably made a check fail, as a continuation of its text; empty if nothing shows."""
    return next((f": {text}" for text in _causes(message, problem, keys)), "")


def _causes(message: Opened, problem: Problem, keys: Keys) -> Iterator[str]:
    if problem.part == "wsu:Timestamp":
        for stamp in message.trace.findings:
            if isinstance(stamp, TimestampSeen) and stamp.created < _EPOCH_YEAR:
                yield "it was created in 1970, so the sender's clock or time source is unset"
    if message.envelope is None or message.envelope.security is None:
        return
    for element in message.envelope.security:
        if element.tag == _USERNAME_TOKEN and problem.part == "wsse:UsernameToken":
            yield from _password_causes(element, keys)
        if element.tag != _SIGNATURE:
            continue
        if problem.part == "ds:Signature" and _reversed_path(message):
            yield "the certificates of the path stand in the reverse order"
        tags = [child.tag for child in element]
        if problem.part == "ds:Signature" and _STR in tags and _KEY_INFO not in tags:
            yield "it has no ds:KeyInfo; a wsse:SecurityTokenReference stands where KeyInfo is due"
        if problem.text.startswith("the digest of "):
            yield from _digest_causes(message, element, problem.part or "")


def _reversed_path(message: Opened) -> bool:
    """Whether a PKIPath begins with the subject and ends with the anchor, not the other way round."""
    envelope = message.envelope
    for element in envelope.security if envelope is not None and envelope.security is not None else ():
        if element.tag != _BINARY_TOKEN:
            continue
        try:
            path = certificates_of(BinarySecurityToken.parse(element), old=True)
            path[0].verify_directly_issued_by(path[-1])
        except (CastileError, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return len(path) > 1
    return False


def _password_causes(element: Element, keys: Keys) -> Iterator[str]:
    """How a password digest was computed, if not by the profile's formula."""
    try:
        token = UsernameToken.parse(element)
    except CastileError:
        return
    password = keys.users.get(token.name)
    if password is None or token.password is None or token.password_type != PASSWORD_DIGEST:
        return
    said, secret = token.password.strip(), password.encode()
    nonce, created = token.nonce or b"", (token.created or "").encode()
    encoded = b64encode(nonce)

    def same(*parts: bytes) -> bool:
        return hmac.compare_digest(said, b64encode(hashlib.sha1(b"".join(parts)).digest()).decode())  # noqa: S324

    digest = hashlib.sha1(nonce + created + secret)  # noqa: S324 - the profile's own
    if hmac.compare_digest(said, b64encode(digest.hexdigest().encode()).decode()):
        yield "the digest was written as hex text, and that text encoded in base64"
    elif same(encoded, created, secret):
        yield "the base64 text of the nonce was hashed, not its octets"
    elif same(nonce, secret):
        yield "Created is in the token and was left out of the digest"
    elif any(same(nonce, created, octets) for octets in _equivalents(password)):
        yield "a hash of the password was used as the password, which both sides must have agreed on"


def _equivalents(password: str) -> Iterator[bytes]:
    """Hashes of a password that people take for it (UsernameToken profile 1.0: password equivalent)."""
    for text in (password, password.lower()):
        for name in ("md5", "sha1", "sha256"):
            found = hashlib.new(name, text.encode(), usedforsecurity=False)
            hexadecimal = found.hexdigest()
            yield from (found.digest(), b64encode(found.digest()), hexadecimal.encode())
            yield hexadecimal.upper().encode()


def _digest_causes(message: Opened, element: Element, part: str) -> Iterator[str]:
    try:
        references = Signature.parse(element, _REFERENCES).references
    except CastileError:
        return
    for reference in references:
        found = _referenced(message, reference)
        if found is not None and found[0] == part:
            for text, octets in _VARIANTS:
                if _fits(octets, found[1], reference):
                    yield text


def _referenced(message: Opened, reference: Reference) -> tuple[str, Element] | None:
    """The part in clear that a reference points to."""
    envelope = message.envelope
    if envelope is None:
        return None
    parts = [*envelope.headers, envelope.body, *(envelope.security if envelope.security is not None else ())]
    for element in parts:
        if isinstance(element.tag, str) and reference.id in (element.get(ID), element.get("Id")):
            return header_name(element), element
    return None


def _fits(octets: Callable[[Element, Reference], bytes], element: Element, reference: Reference) -> bool:
    try:
        return digest_holds(octets(element, reference), reference.digest_method, reference.digest)
    except (CastileError, LookupError):
        return False


def _bare(element: Element, reference: Reference) -> bytes:
    """Without white space between elements."""
    stripped = copy.deepcopy(element)
    for each in stripped.iter():
        if len(each) and not (each.text or "").strip():
            each.text = None
        if each is not stripped and not (each.tail or "").strip():
            each.tail = None
    return xml.canonical(stripped, reference.transforms[0].prefixes)


def _unlisted(element: Element, reference: Reference) -> bytes:
    """As if the PrefixList weren't there."""
    if not reference.transforms[0].prefixes:
        return b""
    return xml.canonical(element)


def _returned(element: Element, reference: Reference) -> bytes:
    """With line ends as carriage return and line feed."""
    octets = xml.canonical(element, reference.transforms[0].prefixes)
    return octets.replace(b"\n", b"&#xD;\n") if b"\n" in octets else b""


_INDENTED: Final = (
    "it would fit if the white space between elements were not there, so the message was indented after "
    "it was signed"
)
_VARIANTS: Final[tuple[tuple[str, Callable[[Element, Reference], bytes]], ...]] = (
    (_INDENTED, _bare),
    ("it would fit without the PrefixList, which the signer has ignored", _unlisted),
    ("it would fit with carriage returns before the line feeds, which somebody has dropped", _returned),
)
