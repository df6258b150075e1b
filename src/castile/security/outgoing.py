"""The walk out: one message under its keys, from templates, in WCF's Strict order.

Every part is rendered as its own exclusive-C14N bytes and digested as such; no document is built.
Order of the header: Timestamp, SecurityContextToken or EncryptedKey, DerivedKeyTokens,
ReferenceList, encrypted UsernameToken, Signature or its EncryptedData (features MS-03).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import pybase64
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1

from castile.clock import Now, iso
from castile.config import Timers
from castile.errors import UsageError
from castile.messages.conversation import SecurityContextToken
from castile.messages.security import (
    CONTENT_TYPE,
    ELEMENT_TYPE,
    EncryptedKey,
    KeyInfo,
    SecurityTokenReference,
    UsernameToken,
)
from castile.messages.signature import signature, signed_info, signed_info_content
from castile.messages.soap import Header, Message, body_frame
from castile.policy import ProtectionPolicy, suites
from castile.security.encryption import CIPHERS, seal_key
from castile.security.keys import DEFAULT_LABEL, DEFAULT_LENGTH, ContextKey, SealedKey, p_sha1
from castile.security.signature import DIGESTS, mac
from castile.versions import (
    DS,
    ENCRYPTED_KEY,
    ENCRYPTED_KEY_SHA1,
    THUMBPRINT_SHA1,
    WSSE,
    WSU,
    XENC,
    Conversation,
    SOAPVersion,
)
from castile.xml import escape_attribute


@dataclass(frozen=True, slots=True)
class Protection:
    """How to protect one outgoing message."""

    policy: ProtectionPolicy
    edition: Conversation
    """Of DerivedKeyToken and its kin."""
    key: ContextKey | SealedKey | x509.Certificate
    """A certificate: a new EncryptedKey is made for it."""
    request: bool
    """A request carries the token; a response refers to it by name (features SC-09)."""
    username: tuple[str, str] | None = field(default=None, repr=False)
    encrypt: bool = True
    """False for lifecycle messages: signed only, the Signature in clear (features CO-09)."""
    endorsing: tuple[ContextKey, ...] = ()
    """Keys that sign the primary signature too, as the old one of a renewal does (WS-SC 1.4, 5)."""


@dataclass(frozen=True, slots=True)
class Protected:
    """A message ready to send."""

    payload: bytes = field(repr=False)
    key: SealedKey | None
    """Of the EncryptedKey that was made: the answer comes under it."""
    signature_values: tuple[bytes, ...]
    """For signature confirmations."""


@dataclass(frozen=True, slots=True)
class _Source:
    """The key behind everything in one message."""

    secret: bytes = field(repr=False)
    token: bytes = field(repr=False)
    """The element that carries it; empty in a response."""
    reference: SecurityTokenReference
    sealed: SealedKey | None = None


_NONCE: Final = 16
_DECLARATION: Final = re.compile(rb' xmlns:[^=]+="[^"]*"')


def protect(
    message: Message,
    protection: Protection,
    now: Now,
    random: Callable[[int], bytes],
    timers: Timers,
) -> Protected:
    """Sign, and where asked encrypt, one message; afresh on every attempt (features CO-15).

    Signed are the Body, every header of the message, the Timestamp and the UsernameToken, under
    one signature. Raises `UsageError` where key and policy don't fit.
    """
    policy, suite = protection.policy, protection.policy.suite
    tag = f"_{random(9).hex()}-"
    source = _source(protection, tag, random)
    encrypt = protection.encrypt and policy.encrypt_body
    tokens, sign_key, sign_info = _working_key(
        protection, source, f"{tag}s", suite.signature_key_bytes, random
    )
    if encrypt or protection.username is not None:
        derived, seal_octets, seal_info = _working_key(
            protection, source, f"{tag}e", suite.encryption_key_bytes, random
        )
        tokens += derived
    timestamp = _timestamp(f"{tag}t", now, timers)
    start, content, end = body_frame(message.soap, message.body, f"{tag}0")
    headers = [_header(header, message.soap, f"{tag}{n}") for n, header in enumerate(message.headers, 1)]
    parts = [(f"{tag}0", b"".join((start, content, end)))]
    parts += [(f"{tag}{n}", octets) for n, octets in enumerate(headers, 1)]
    parts.append((f"{tag}t", timestamp))
    token = b""
    if protection.username is not None:
        token = UsernameToken(f"{tag}u", *protection.username).render()
        parts.append((f"{tag}u", token))
    values, signatures, endorsing = _signatures(protection, parts, tag, (sign_key, sign_info), random)
    listed = []
    if encrypt or token:
        seal = CIPHERS[suite.encryption].seal
        frame = _frames(suite.encryption)
        iv = CIPHERS[suite.encryption].iv_bytes

        def sealed(name: str, kind: str, plaintext: bytes) -> bytes:
            listed.append(name)
            opening = frame[kind] % (name.encode(), seal_info)
            return b"".join((opening, pybase64.b64encode(seal(seal_octets, random(iv), plaintext)), _CLOSING))

        if encrypt:
            content = sealed(f"{tag}b", CONTENT_TYPE, content)
        if encrypt and policy.encrypt_signature:
            signatures = [sealed(f"{tag}g{n}", ELEMENT_TYPE, octets) for n, octets in enumerate(signatures)]
        if token:
            token = sealed(f"{tag}n", ELEMENT_TYPE, token)
    security = (timestamp, source.token, tokens, _reference_list(listed), token, endorsing, *signatures)
    payload = _assembled(message, headers, security, (start, content, end))
    return Protected(payload, source.sealed, tuple(values))


def _source(protection: Protection, tag: str, random: Callable[[int], bytes]) -> _Source:
    """The secret, the token that a request carries, and how keys refer to it."""
    key = protection.key
    if isinstance(key, ContextKey):
        if protection.policy.protection_token != "context":
            raise UsageError("the policy asks for an EncryptedKey, not for a security context")
        token = SecurityContextToken(key.identifier, key.instance, key.token_id)
        if protection.request:
            return _Source(key.secret, key.token, token.attached(key.edition))
        return _Source(key.secret, b"", token.unattached(key.edition))
    if protection.policy.protection_token != "x509":
        raise UsageError("the policy asks for a security context, not for an EncryptedKey")
    if isinstance(key, SealedKey):
        reference = SecurityTokenReference(
            key_identifier=key.sha1, value_type=ENCRYPTED_KEY_SHA1, token_type=ENCRYPTED_KEY
        )
        return _Source(key.octets, b"", reference, key)
    return _new_key(protection, key, f"{tag}k", random)


def _new_key(
    protection: Protection, certificate: x509.Certificate, name: str, random: Callable[[int], bytes]
) -> _Source:
    suite = protection.policy.suite
    public = certificate.public_key()
    if not isinstance(public, RSAPublicKey):
        raise UsageError("the service's certificate must have an RSA key")
    octets = random(suite.encryption_key_bytes)
    thumbprint = pybase64.b64encode(certificate.fingerprint(SHA1())).decode()  # noqa: S303 - a name
    key = EncryptedKey(
        id=name,
        algorithm=suite.key_transport,
        key=KeyInfo(SecurityTokenReference(key_identifier=thumbprint, value_type=THUMBPRINT_SHA1)),
        cipher=seal_key(public, octets, suite.key_transport),
        digest=suites.SHA1 if suite.key_transport == suites.RSA_OAEP else None,
    )
    sha1 = pybase64.b64encode(hashlib.sha1(key.cipher).digest()).decode()  # noqa: S324 - a name
    return _Source(octets, key.render(), key.as_reference(), SealedKey(octets, sha1))


def _working_key(
    protection: Protection,
    source: _Source,
    name: str,
    length: int,
    random: Callable[[int], bytes],
) -> tuple[bytes, bytes, bytes]:
    """DerivedKeyToken, key, and the reference that a KeyInfo holds (features F04, SC-14)."""
    if not protection.policy.derived_keys:
        return b"", source.secret, source.reference.render()
    nonce = random(_NONCE)
    edition = protection.edition
    # Written as WCF does: the default length goes without Offset and Length.
    bounds = b"" if length == DEFAULT_LENGTH else b"<c:Offset>0</c:Offset><c:Length>%d</c:Length>" % length
    identity = name.encode()
    token, info = _derivation(edition)
    key = p_sha1(source.secret, DEFAULT_LABEL.encode() + nonce, length)
    rendered = token % (identity, source.reference.render(), bounds, pybase64.b64encode(nonce))
    return rendered, key, info % identity


@lru_cache(maxsize=4)
def _derivation(edition: Conversation) -> tuple[bytes, bytes]:
    """Templates: a DerivedKeyToken (id, reference, bounds, nonce), and a reference to it (id)."""
    token = (
        f'<c:DerivedKeyToken xmlns:c="{edition.namespace}" xmlns:u="{WSU}" u:Id="%b">'
        "%b%b<c:Nonce>%b</c:Nonce></c:DerivedKeyToken>"
    )
    info = (
        f'<o:SecurityTokenReference xmlns:o="{WSSE}"><o:Reference URI="#%b" '
        f'ValueType="{edition.derived_key_type}"></o:Reference></o:SecurityTokenReference>'
    )
    return token.encode(), info.encode()


def _header(header: Header, soap: SOAPVersion, name: str) -> bytes:
    """A header block under its id, canonical (`Header.render` from a template)."""
    frame = _header_frame(header.prefix, header.namespace, header.local, header.must_understand, soap)
    start, end, declarations = frame
    if any(declaration in header.content for declaration in declarations):
        return header.render(soap, name)  # the content declares again what its block has declared
    return b"".join((start % name.encode(), header.content, end))


@lru_cache(maxsize=256)
def _header_frame(
    prefix: str, namespace: str, local: str, must_understand: bool, soap: SOAPVersion
) -> tuple[bytes, bytes, tuple[bytes, ...]]:
    """Start tag (takes the id), end tag, and the declarations on the start tag."""
    block = Header(prefix, namespace, local, b"", must_understand).render(soap, "*")
    end = f"</{prefix}:{local}>".encode()
    start = block[: -len(end)].replace(b"%", b"%%").replace(b'u:Id="*"', b'u:Id="%b"')
    return start, end, tuple(_DECLARATION.findall(block))


def _timestamp(name: str, now: Now, timers: Timers) -> bytes:
    return (
        f'<u:Timestamp xmlns:u="{WSU}" u:Id="{name}"><u:Created>{_iso(now.utc)}</u:Created>'
        f"<u:Expires>{_iso(now.utc + timers.timestamp_ttl)}</u:Expires></u:Timestamp>"
    ).encode()


def _iso(utc: float) -> str:
    whole, milliseconds = divmod(round(utc * 1000), 1000)
    return f"{_second(whole)}{milliseconds:03d}Z"


@lru_cache(maxsize=8)
def _second(whole: int) -> str:
    """A second as `iso` writes it, up to its fraction: most messages share theirs."""
    return iso(whole)[: -len("000Z")]


def _signatures(
    protection: Protection,
    parts: list[tuple[str, bytes]],
    tag: str,
    primary: tuple[bytes, bytes],
    random: Callable[[int], bytes],
) -> tuple[list[bytes], list[bytes], bytes]:
    """Values and elements of the primary signature and of those that endorse it, and the tokens
    of the latter (features MS-57)."""
    value, signed = _signed(protection, parts, *primary, f"{tag}p" if protection.endorsing else None)
    values, elements, tokens = [value], [signed], b""
    length = protection.policy.suite.signature_key_bytes
    for place, key in enumerate(protection.endorsing):
        reference = SecurityContextToken(key.identifier, key.instance, key.token_id).attached(key.edition)
        source = _Source(key.secret, key.token, reference)
        derived, octets, info = _working_key(protection, source, f"{tag}d{place}", length, random)
        value, endorsement = _signed(protection, [(f"{tag}p", signed)], octets, info)
        values.append(value)
        elements.append(endorsement)
        tokens += key.token + derived
    return values, elements, tokens


def _signed(
    protection: Protection, parts: list[tuple[str, bytes]], key: bytes, info: bytes, name: str | None = None
) -> tuple[bytes, bytes]:
    """The signature's value and its element, with this Id, over canonical parts."""
    suite = protection.policy.suite
    digest = DIGESTS[suite.digest]
    references = [(name, pybase64.b64encode(digest(octets))) for name, octets in parts]
    content = signed_info_content(suite.hmac, suite.digest, references)
    value = mac(suite.hmac, key, signed_info(content))
    return value, signature(content, pybase64.b64encode(value), info, name)


_CLOSING: Final = b"</e:CipherValue></e:CipherData></e:EncryptedData>"


@lru_cache(maxsize=8)
def _frames(algorithm: str) -> dict[str, bytes]:
    """What stands before a ciphertext, by type: takes id and key reference."""
    return {
        kind: (
            f'<e:EncryptedData xmlns:e="{XENC}" Id="%b" Type="{kind}">'
            f'<e:EncryptionMethod Algorithm="{algorithm}"></e:EncryptionMethod>'
            f'<ds:KeyInfo xmlns:ds="{DS}">%b</ds:KeyInfo><e:CipherData><e:CipherValue>'
        ).encode()
        for kind in (CONTENT_TYPE, ELEMENT_TYPE)
    }


def _reference_list(names: list[str]) -> bytes:
    if not names:
        return b""
    references = "".join(f'<e:DataReference URI="#{name}"></e:DataReference>' for name in names)
    return f'<e:ReferenceList xmlns:e="{XENC}">{references}</e:ReferenceList>'.encode()


def _assembled(
    message: Message, headers: list[bytes], security: tuple[bytes, ...], body: tuple[bytes, ...]
) -> bytes:
    """The envelope; Security is the last header (features MS-01)."""
    soap = message.soap.namespace
    scope = "".join(
        f' xmlns:{prefix}="{escape_attribute(uri)}"' for prefix, uri in message.namespaces if prefix != "s"
    )
    return b"".join(
        (
            f'<s:Envelope xmlns:s="{soap}"{scope}><s:Header>'.encode(),
            *headers,
            f'<o:Security xmlns:o="{WSSE}" s:mustUnderstand="1">'.encode(),
            *security,
            b"</o:Security></s:Header>",
            *body,
            b"</s:Envelope>",
        )
    )
