"""The walk out: one message under its keys, from templates, in WCF's Strict order.

Every part is rendered as its own exclusive-C14N bytes and digested as such; no document is built.
Order of the header: Timestamp, certificates, SecurityContextToken or EncryptedKey,
DerivedKeyTokens, ReferenceList, UsernameToken and confirmations, Signature or its EncryptedData,
endorsing signatures (features MS-03).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

import pybase64
from cryptography import x509

from castile.clock import Now, iso
from castile.config import Timers
from castile.errors import UsageError
from castile.messages.security import CONTENT_TYPE, ELEMENT_TYPE
from castile.messages.signature import signature, signed_info, signed_info_content
from castile.messages.soap import Header, Message, body_frame
from castile.policy import CertificateReference, ProtectionPolicy, TokenKind
from castile.policy.parts import NO_PARTS, Parts, names
from castile.security.certificates import CertificateKey
from castile.security.encryption import CIPHERS
from castile.security.keys import ContextKey, SealedKey
from castile.security.signature import DIGESTS, sign
from castile.security.sources import (
    Random,
    Signer,
    Source,
    certificate_signer,
    context_source,
    source_of,
    symmetric_signer,
    working_key,
)
from castile.security.supporting import tokens_of
from castile.versions import DS, WSSE, WSSE11, WSU, XENC, Conversation, SOAPVersion
from castile.xml import escape_attribute


@dataclass(frozen=True, slots=True)
class Protection:
    """How to protect one outgoing message."""

    policy: ProtectionPolicy
    edition: Conversation
    """Of DerivedKeyToken and its kin."""
    key: ContextKey | SealedKey | x509.Certificate | None
    """A certificate: a new EncryptedKey is made for it. None: over TLS, or nothing is encrypted and
    a certificate signs."""
    request: bool
    """A request carries the token; a response refers to it by name (features SC-09)."""
    username: tuple[str, str] | None = field(default=None, repr=False)
    encrypt: bool = True
    """False for lifecycle messages: signed only, the Signature in clear (features CO-09)."""
    signer: CertificateKey | None = None
    """Ours, which signs in the asymmetric binding."""
    endorsing: tuple[CertificateKey | ContextKey, ...] = ()
    """Keys that sign the primary signature, or over TLS the Timestamp: a client's certificate
    (WS-SP 1.2, 8.3), an SCT, and the old key of a renewal (WS-SC 1.4, 5)."""
    certificate: x509.Certificate | None = None
    """Ours, where a supporting token shows it and signs nothing."""
    confirm: tuple[bytes, ...] = field(default=(), repr=False)
    """Values of the signatures of the request that this answers, where the policy wants that."""
    clear_password: bool = False
    """A password as text may go out where nothing encrypts it."""


@dataclass(frozen=True, slots=True)
class Protected:
    """A message ready to send."""

    payload: bytes = field(repr=False)
    key: SealedKey | None
    """Of the EncryptedKey that was made: the answer comes under it."""
    signature_values: tuple[bytes, ...]
    """For signature confirmations."""


_DECLARATION: Final = re.compile(rb' xmlns:[^=]+="[^"]*"')


def protect(
    message: Message,
    protection: Protection,
    now: Now,
    random: Random,
    timers: Timers,
) -> Protected:
    """Sign, and where asked encrypt, one message; afresh on every attempt (features CO-15).

    The Timestamp, the signed tokens, confirmations and the parts of the policy come under one
    signature; over TLS there is none but those of supporting tokens. Raises `UsageError` where key
    and policy don't fit.
    """
    policy = protection.policy
    tag = f"_{random(9).hex()}-"
    draft = _Draft(message, protection, tag)
    ciphertext = policy.order == "encrypt-before-sign"
    tokens = tokens_of(protection, tag, now, random, hidden=draft.hides)
    seals = draft.hides or any(token.sealed for token in tokens)
    source, signer, sealer, derived = _keys(protection, tag, random, seals=seals)
    stamp = _timestamp(f"{tag}t", now, timers) if policy.timestamp else b""
    if sealer is not None and ciphertext:
        draft.hide(sealer, behind=True)
    covered = draft.parts(draft.scopes[0])
    if stamp and policy.binding != "transport":
        covered.append((f"{tag}t", stamp))
    inside = []
    for token in tokens:
        octets, name = token.octets, token.name
        if sealer is not None and token.sealed:
            octets = sealer(f"{name}c", ELEMENT_TYPE, octets)
        inside.append(octets)
        if token.signed:
            covered.append((f"{name}c", octets) if ciphertext and token.sealed else (name, token.octets))
    covered += _signed_endorsers(protection, tag)
    primary = None if signer is None or not covered else signer
    values, signatures, endorsing = _signatures(protection, draft, covered, stamp, primary, random)
    if sealer is not None and not ciphertext:
        draft.hide(sealer)
    if sealer is not None and draft.hides and policy.encrypt_signature:
        signatures = [sealer(f"{tag}g{n}", ELEMENT_TYPE, octets) for n, octets in enumerate(signatures)]
    carrier, before, behind = _lists(protection, source, sealer)
    own = signer.tokens if signer is not None and policy.binding == "asymmetric" else b""
    first, last = (b"", stamp) if policy.layout == "LaxTsLast" else (stamp, b"")
    security = (first, own, carrier, derived, before, *inside, endorsing, *signatures, behind, last)
    payload = _assembled(message, draft, security)
    return Protected(payload, source.sealed if source is not None else None, tuple(values))


class _Draft:
    """The parts of a message, each as the canonical octets that are digested, then as they go out."""

    __slots__ = ("_body", "_covers", "_headers", "_hidden", "_message", "_policy", "_veiled", "scopes", "tag")

    def __init__(self, message: Message, protection: Protection, tag: str) -> None:
        policy = protection.policy
        self._message, self._policy, self.tag = message, policy, tag
        own = NO_PARTS if policy.binding == "transport" else policy.parts
        endorsers = [row.parts for row in policy.supporting if row.endorsing and protection.request]
        self.scopes = (own, *endorsers)
        """What is signed: by the primary signature, and beside it by each that endorses."""
        self._covers = [_places(scope, message.headers) for scope in self.scopes]
        """Of each scope the places of its headers."""
        body = any(scope.signed_body or scope.every_header for scope in self.scopes)
        self._body = body_frame(message.soap, message.body, f"{tag}0" if body else None)
        named = set().union(*self._covers)
        self._headers = [
            (name := f"{tag}{place + 1}", _header(header, message.soap, name))
            if place in named
            else ("", header.render(message.soap))
            for place, header in enumerate(message.headers)
        ]
        encrypted = policy.parts.encrypted_headers if protection.encrypt else frozenset()
        self._hidden = protection.encrypt and policy.parts.encrypted_body and bool(message.body)
        self._veiled = [
            place
            for place, header in enumerate(message.headers if encrypted else ())
            if names(encrypted, header.namespace, header.local)
        ]

    @property
    def hides(self) -> bool:
        """Whether the Body or a header is encrypted."""
        return self._hidden or bool(self._veiled)

    @property
    def headers(self) -> list[bytes]:
        """As they are now."""
        return [octets for _, octets in self._headers]

    @property
    def body(self) -> tuple[bytes, bytes, bytes]:
        """Start tag, content and end tag, as they are now."""
        return self._body

    def parts(self, scope: Parts) -> list[tuple[str, bytes]]:
        """Id and octets of what a signature of this scope covers."""
        found = []
        if scope.signed_body or scope.every_header:
            found.append((f"{self.tag}0", b"".join(self._body)))
        return found + [self._headers[place] for place in self._covers[self.scopes.index(scope)]]

    def hide(self, sealer: _Sealer, *, behind: bool = False) -> None:
        """Encrypt what the policy has encrypted; `behind`: before it is signed."""
        if self._hidden:
            start, content, end = self._body
            self._body = start, sealer(f"{self.tag}b", CONTENT_TYPE, content, behind=behind), end
        for place in self._veiled:
            octets, name = self._headers[place][1], f"{self.tag}{place + 1}"
            data = sealer(f"{name}e", ELEMENT_TYPE, octets, behind=behind)
            if not self._policy.encrypted_header:
                self._headers[place] = f"{name}e", data
                continue
            header = self._message.headers[place]
            must = header.must_understand
            block = Header("k", WSSE11, "EncryptedHeader", data, must).render(self._message.soap, f"{name}h")
            self._headers[place] = f"{name}h", block


_signs_all: Final = lru_cache(maxsize=64)(lambda scope: scope.signs_all)


def _places(scope: Parts, headers: tuple[Header, ...]) -> Sequence[int]:
    """Which headers of a message that goes out are signed in a scope."""
    if _signs_all(scope):
        return range(len(headers))
    return [n for n, header in enumerate(headers) if scope.signs(header.namespace, header.local)]


def _keys(
    protection: Protection, tag: str, random: Random, *, seals: bool
) -> tuple[Source | None, Signer | None, _Sealer | None, bytes]:
    """The secret, what signs, what encrypts, and the DerivedKeyTokens of both."""
    policy, edition = protection.policy, protection.edition
    if policy.binding == "transport":
        return None, None, None, b""
    source: Source | None = None
    signer: Signer | None = None
    asymmetric = policy.binding == "asymmetric"
    if seals or not asymmetric:
        if protection.key is None:
            raise UsageError("the message is sealed for a certificate, or under a key, that is missing")
        source = source_of(protection.key, policy, f"{tag}k", random, request=protection.request)
    derived = b""
    if not policy.signs:
        pass
    elif asymmetric:
        if protection.signer is None:
            raise UsageError("the policy asks for a certificate of ours that signs")
        answer: CertificateReference = "direct" if policy.recipient_included else policy.reference
        form = policy.initiator_reference if protection.request else answer
        signer = certificate_signer(policy, protection.signer, f"{tag}x", form)
    elif source is None or (isinstance(protection.key, x509.Certificate) and not protection.request):
        raise UsageError("a response is protected by the key of its request")
    else:
        signer = symmetric_signer(policy, edition, source, f"{tag}s", random, derived=policy.derived_keys)
        derived = signer.tokens
    if not seals or source is None:
        return source, signer, None, derived
    token, octets, info = working_key(
        policy,
        edition,
        source,
        f"{tag}e",
        policy.suite.encryption_key_bytes,
        random,
        derived=policy.derived_keys,
    )
    if len(octets) != policy.suite.encryption_key_bytes:
        raise UsageError(
            f"without derived keys {policy.suite.name} encrypts under a key of "
            f"{policy.suite.encryption_key_bytes} bytes, and this one has {len(octets)}"
        )
    return source, signer, _Sealer(policy.suite.encryption, octets, info, random), derived + token


class _Sealer:
    """Makes EncryptedData, and keeps the ids of what it made."""

    __slots__ = ("_cipher", "_frames", "_info", "_key", "_random", "after", "names")

    def __init__(self, algorithm: str, key: bytes, info: bytes, random: Random) -> None:
        self._cipher, self._frames = CIPHERS[algorithm], _frames(algorithm)
        self._key, self._info, self._random = key, info, random
        self.names: list[str] = []
        self.after: list[str] = []
        """What was encrypted before it was signed: its list stands behind the signature."""

    def __call__(self, name: str, kind: str, plaintext: bytes, *, behind: bool = False) -> bytes:
        (self.after if behind else self.names).append(name)
        cipher = self._cipher
        octets = cipher.seal(self._key, self._random(cipher.iv_bytes), plaintext)
        opening = self._frames[kind] % (name.encode(), self._info)
        return b"".join((opening, pybase64.b64encode(octets), _CLOSING))


def _lists(
    protection: Protection, source: Source | None, sealer: _Sealer | None
) -> tuple[bytes, bytes, bytes]:
    """The token of the secret, and the lists of what is encrypted, before and behind the signature.

    In the asymmetric binding an EncryptedKey holds its list itself, as WCF and CXF write it.
    """
    if source is None:
        return b"", b"", b""
    carrier = source.before + source.token
    if sealer is None:
        return carrier, b"", b""
    within = protection.policy.binding == "asymmetric" and not protection.policy.derived_keys
    if within and source.key is not None and sealer.names:
        key = replace(source.key, references=tuple(sealer.names))
        return source.before + key.render(), b"", _reference_list(sealer.after)
    return carrier, _reference_list(sealer.names), _reference_list(sealer.after)


def _header(header: Header, soap: SOAPVersion, name: str) -> bytes:
    """A header block under its id, canonical (`Header.render` from a template)."""
    frame = _header_frame(header.prefix, header.namespace, header.local, header.must_understand, soap)
    start, end, declarations = frame
    if header.whole or any(declaration in header.content for declaration in declarations):
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


def _signed_endorsers(protection: Protection, tag: str) -> list[tuple[str, bytes]]:
    """The certificates of endorsing tokens that the primary signature covers (WS-SP 1.2, 8.4)."""
    policy, row = protection.policy, protection.policy.endorsing
    if row is None or not row.signed or not policy.signs:
        return []
    made = [
        certificate_signer(policy, key, f"{tag}y{place}", row.reference).token
        for place, key in enumerate(protection.endorsing)
        if isinstance(key, CertificateKey)
    ]
    return [token for token in made if token is not None]


def _signatures(
    protection: Protection,
    draft: _Draft,
    parts: list[tuple[str, bytes]],
    stamp: bytes,
    primary: Signer | None,
    random: Random,
) -> tuple[list[bytes], list[bytes], bytes]:
    """Values and elements of the primary signature and of those that endorse it, or over TLS the
    Timestamp, and the tokens of the latter (features MS-57)."""
    policy, tag = protection.policy, draft.tag
    values: list[bytes] = []
    elements: list[bytes] = []
    tokens = b""
    target = [(f"{tag}t", stamp)] if stamp else []
    if primary is not None:
        value, signed = _signed(policy, parts, primary, f"{tag}p" if protection.endorsing else None)
        values.append(value)
        elements.append(signed)
        target = [(f"{tag}p", signed)]
    for place, key in enumerate(protection.endorsing):
        kind: TokenKind = "x509" if isinstance(key, CertificateKey) else "context"
        row = policy.supports(kind, endorsing=True)
        if isinstance(key, CertificateKey):
            form = row.reference if row is not None else policy.initiator_reference
            signer = certificate_signer(policy, key, f"{tag}y{place}", form)
        else:
            source = context_source(key, request=True)
            tokens += source.token
            derived = row.derived_keys if row is not None else policy.derived_keys
            name = f"{tag}d{place}"
            signer = symmetric_signer(policy, protection.edition, source, name, random, derived=derived)
        covered = target + (draft.parts(row.parts) if row is not None else [])
        if not covered:
            raise UsageError("an endorsing token has nothing to sign: the policy has no Timestamp")
        value, endorsement = _signed(policy, covered, signer)
        values.append(value)
        elements.append(endorsement)
        tokens += signer.tokens
    return values, elements, tokens


def _signed(
    policy: ProtectionPolicy, parts: list[tuple[str, bytes]], signer: Signer, name: str | None = None
) -> tuple[bytes, bytes]:
    """The signature's value and its element, with this Id, over canonical parts."""
    algorithm = policy.suite.digest
    digest = DIGESTS[algorithm]
    references = [(name, pybase64.b64encode(digest(octets))) for name, octets in parts]
    token: tuple[str, bytes] | None = None
    if policy.protect_tokens:
        if signer.token is not None:
            references.append((signer.token[0], pybase64.b64encode(digest(signer.token[1]))))
        if signer.named is not None:
            token = (signer.named[0], pybase64.b64encode(digest(signer.named[1])))
    content = signed_info_content(signer.method, algorithm, references, token)
    value = sign(signer.method, signer.key, signed_info(content))
    return value, signature(content, pybase64.b64encode(value), signer.info, name)


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


def _assembled(message: Message, draft: _Draft, security: tuple[bytes, ...]) -> bytes:
    """The envelope; Security is the last header (features MS-01), and isn't there with nothing in it."""
    soap = message.soap.namespace
    scope = "".join(
        f' xmlns:{prefix}="{escape_attribute(uri)}"' for prefix, uri in message.namespaces if prefix != "s"
    )
    frame = (f'<o:Security xmlns:o="{WSSE}" s:mustUnderstand="1">'.encode(), b"</o:Security>")
    start, end = frame if any(security) else (b"", b"")
    return b"".join(
        (
            f'<s:Envelope xmlns:s="{soap}"{scope}><s:Header>'.encode(),
            *draft.headers,
            start,
            *security,
            end,
            b"</s:Header>",
            *draft.body,
            b"</s:Envelope>",
        )
    )
