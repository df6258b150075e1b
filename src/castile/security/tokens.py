"""Tokens of one Security header, and the keys that references lead to.

A reference is resolved once, at its place in the document. Each form of reference and each kind
of token is a row; what no row takes is refused, so that "any key found in the message" never
verifies anything (features MS-18 to MS-20).
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from castile.errors import SecurityFailure, SOAPFault
from castile.messages.conversation import DerivedKeyToken, SecurityContextToken, edition_of
from castile.messages.security import (
    BinarySecurityToken,
    EncryptedData,
    EncryptedKey,
    KeyInfo,
    ReferenceList,
    SecurityTokenReference,
    SignatureConfirmation,
    Timestamp,
    UsernameToken,
)
from castile.messages.signature import Signature
from castile.security.certificates import certificates_of, identity_of, subject_of, thumbprint
from castile.security.encryption import open_key
from castile.security.expectation import Expectation
from castile.security.keys import (
    ContextKey,
    KeySource,
    NamedKey,
    NamedKeySource,
    SealedKey,
    derived_again,
    parameters,
)
from castile.security.trace import KeyDerived, KeyIdentity, Trace
from castile.versions import (
    CONVERSATION_REASONS,
    ENCRYPTED_KEY,
    ENCRYPTED_KEY_SHA1,
    THUMBPRINT_SHA1,
    WSSC,
    WSSE,
    X509_PKIPATH,
    X509_SKI,
    X509_V3,
    Conversation,
)
from castile.xml import Element

Token = (
    Timestamp
    | SecurityContextToken
    | EncryptedKey
    | DerivedKeyToken
    | ReferenceList
    | UsernameToken
    | BinarySecurityToken
    | EncryptedData
    | Signature
    | SignatureConfirmation
)
Source = ContextKey | SealedKey | NamedKey | x509.Certificate
_SCT_TYPES: Final = {row.token_type: row for row in WSSC.values()}
_DKT_TYPES: Final = frozenset(row.derived_key_type for row in WSSC.values())


@dataclass(frozen=True, slots=True)
class Key:
    """A key that a reference led to: octets or a public key, never both."""

    identity: KeyIdentity
    source: Source = field(repr=False)
    octets: bytes = field(default=b"", repr=False)
    public: RSAPublicKey | None = field(default=None, repr=False)
    derived: bool = False
    token: Entry | None = field(default=None, repr=False)
    """What of this header it came from, before any derivation; None: it was at hand."""
    path: tuple[x509.Certificate, ...] = field(default=(), repr=False)
    """Certificates that came with a certificate."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A child of the Security header, as it stands once it is decrypted."""

    place: int
    part: str
    element: Element
    token: Token
    encrypted: Key | None = None
    """The key that it was encrypted under."""
    cipher: Element | None = None
    """The EncryptedData that stood in its place."""


def unavailable(text: str, part: str) -> SecurityFailure:
    """A token is named that isn't at hand (features MS-85)."""
    fault = SOAPFault(
        "Sender", "Referenced security token could not be retrieved.", (WSSE, "SecurityTokenUnavailable")
    )
    return SecurityFailure(text, part=part, missing_key=True, fault=fault)


def bad_context(edition: Conversation, text: str, *, missing: bool = True) -> SecurityFailure:
    """The security context is not known here, or no longer (features SC-40)."""
    fault = SOAPFault(
        "Sender",
        CONVERSATION_REASONS["BadContextToken"],
        (edition.namespace, "BadContextToken"),
    )
    return SecurityFailure(text, part="wsc:SecurityContextToken", missing_key=missing, fault=fault)


class Tokens:
    """The tokens of one header by id, and the keys resolved so far."""

    __slots__ = ("_resolved", "contexts", "entries", "expectation", "source", "trace")

    def __init__(self, source: KeySource, expectation: Expectation, trace: Trace | None = None) -> None:
        self.source, self.expectation, self.trace = source, expectation, trace
        self.entries: dict[str, Entry] = {}
        self.contexts: list[Entry] = []
        self._resolved: dict[int, Key] = {}

    def add(self, entry: Entry, name: str | None) -> None:
        """A token that can be referred to by `name`."""
        if name is not None:
            self.entries[name] = entry
        if isinstance(entry.token, SecurityContextToken):
            self.contexts.append(entry)
        self._check_edition(edition_of(entry.element), entry.part)

    def _check_edition(self, edition: Conversation | None, part: str) -> None:
        expected = self.expectation.edition
        if edition is None or expected is None or edition is expected:
            return
        fault = SOAPFault(
            "Sender",
            "The requested context token is not supported.",
            (expected.namespace, "UnsupportedContextToken"),
        )
        text = f"{part} is of another edition than {expected.name}"
        raise SecurityFailure(text, part=part, fault=fault)

    def key(self, info: KeyInfo, place: int) -> Key:
        """The key that a KeyInfo at this place leads to."""
        if info.reference is None:
            return self._named(info.name or "")
        return self.resolve(info.reference, place, 0)

    def resolve(self, reference: SecurityTokenReference, place: int, depth: int) -> Key:
        """The key behind a reference that stands at `place`; `depth` counts derivations."""
        if reference.local is not None:
            key = self._local(reference, place, depth)
        elif reference.uri is not None:
            key = self._context(reference.uri, reference.instance, reference.value_type)
        elif reference.key_identifier is not None:
            form = _IDENTIFIERS.get(reference.value_type or "")
            if form is None:
                raise SecurityFailure("a key identifier of a kind that isn't taken", part="ds:KeyInfo")
            key = form(self, reference)
        else:
            key = self._certificate(reference)
        if reference.nonce is not None:
            implied = DerivedKeyToken(None, None, length=reference.length, nonce=reference.nonce)
            return self._derive(key, implied, None)
        return key

    def _local(self, reference: SecurityTokenReference, place: int, depth: int) -> Key:
        entry = self.entries.get(reference.local or "")
        row = _LOCAL.get(type(entry.token)) if entry is not None else None
        if entry is None or row is None:
            raise SecurityFailure("a reference leads to no token of this header", part="ds:KeyInfo")
        if self.expectation.strict and entry.place >= place:
            raise SecurityFailure(f"{entry.part} stands behind its use", part=entry.part)
        types, resolve = row
        if isinstance(entry.token, BinarySecurityToken):
            types = types & {entry.token.value_type}
        if reference.value_type is not None and reference.value_type not in types:
            raise SecurityFailure(f"a reference to {entry.part} has another ValueType", part=entry.part)
        known = self._resolved.get(entry.place)
        if known is None:
            known = self._resolved[entry.place] = resolve(self, entry, depth)
        return known

    def _context(self, identifier: str, instance: str | None, value_type: str | None) -> Key:
        if value_type is not None and value_type not in _SCT_TYPES:
            raise SecurityFailure("a reference leaves the message", part="ds:KeyInfo")
        named_edition = _SCT_TYPES.get(value_type or "")
        self._check_edition(named_edition, "wsc:SecurityContextToken")
        edition = self.expectation.edition or named_edition or next(iter(WSSC.values()))
        found = self.source.context(identifier, instance)
        if found is None:
            named = f"{identifier}" + (f" (instance {instance})" if instance is not None else "")
            raise bad_context(edition, f"the key of security context {named} isn't at hand")
        return self._found(Key(found.identity, found, found.secret), None, f"security context {identifier}")

    def _context_token(self, entry: Entry, depth: int) -> Key:  # noqa: ARG002
        token = entry.token
        edition = edition_of(entry.element)
        if not isinstance(token, SecurityContextToken) or edition is None:
            raise SecurityFailure("no SecurityContextToken", part=entry.part)
        return replace(self._context(token.identifier, token.instance, edition.token_type), token=entry)

    def _encrypted_key(self, entry: Entry, depth: int) -> Key:  # noqa: ARG002
        token = entry.token
        if not isinstance(token, EncryptedKey) or token.key is None or token.key.reference is None:
            raise SecurityFailure("an EncryptedKey doesn't say whose it is", part=entry.part)
        private = self.source.private_key(self._named_certificate(token.key.reference, entry.place))
        if private is None:
            raise unavailable("the private key that opens the EncryptedKey isn't at hand", entry.part)
        sha1 = b64encode(hashlib.sha1(token.cipher).digest()).decode()  # noqa: S324 - a name, WSS 1.1.1, 7.7
        policy = self.expectation.policy
        suite = policy.suite if policy is not None else None
        sealed = SealedKey(open_key(private, token, suite, legacy=self.expectation.legacy), sha1)
        if self.trace is not None:
            self.trace.sealed.append(sealed)
        key = Key(sealed.identity, sealed, sealed.octets, token=entry)
        return self._found(key, token.id, f"EncryptedKey {token.id}: {len(sealed.octets)} bytes")

    def _named_certificate(self, reference: SecurityTokenReference, place: int) -> SecurityTokenReference:
        """A reference by name also where the certificate itself stands in the header."""
        if reference.local is None:
            return reference
        entry = self.entries.get(reference.local)
        if entry is None or not isinstance(entry.token, BinarySecurityToken):
            raise SecurityFailure("an EncryptedKey under another key isn't taken", part="xenc:EncryptedKey")
        certificate = self._local(reference, place, 0).source
        if not isinstance(certificate, x509.Certificate):
            raise SecurityFailure("an EncryptedKey without certificate", part="xenc:EncryptedKey")
        name = b64encode(thumbprint(certificate)).decode()
        return SecurityTokenReference(key_identifier=name, value_type=THUMBPRINT_SHA1)

    def _derived_key(self, entry: Entry, depth: int) -> Key:
        token = entry.token
        if not isinstance(token, DerivedKeyToken) or depth >= 2:
            raise SecurityFailure("keys derived from derived keys too often", part=entry.part)
        inherited: DerivedKeyToken | None = None
        if token.reference is not None:
            behind = self.entries.get(token.reference.local or "")
            if behind is not None and isinstance(behind.token, DerivedKeyToken):
                inherited = behind.token
            parameters(token, inherited)  # bounds before any work on the source (features SC-16)
            key = self._source_of(token.reference, entry, depth + 1)
        elif len(self.contexts) == 1:
            parameters(token)
            key = self._local(SecurityTokenReference(uri=f"#{self._sole_context()}"), entry.place, depth + 1)
        else:
            raise self._unknown_source(entry)
        return self._derive(key, token, inherited)

    def _sole_context(self) -> str:
        name = next((name for name, entry in self.entries.items() if entry is self.contexts[0]), None)
        if name is None:
            raise self._unknown_source(self.contexts[0])
        return name

    def _source_of(self, reference: SecurityTokenReference, entry: Entry, depth: int) -> Key:
        if reference.local is not None and reference.local not in self.entries:
            raise self._unknown_source(entry)
        return self.resolve(reference, entry.place, depth)

    def _unknown_source(self, entry: Entry) -> SecurityFailure:
        edition = edition_of(entry.element) or next(iter(WSSC.values()))
        fault = SOAPFault(
            "Sender",
            CONVERSATION_REASONS["UnknownDerivationSource"],
            (edition.namespace, "UnknownDerivationSource"),
        )
        return SecurityFailure("the source of a DerivedKeyToken is unknown", part=entry.part, fault=fault)

    def _derive(self, key: Key, token: DerivedKeyToken, inherited: DerivedKeyToken | None) -> Key:
        if key.public is not None:
            raise SecurityFailure("a key derived from a certificate", part="wsc:DerivedKeyToken")
        length, offset, label, nonce = parameters(token, inherited)
        derived = replace(
            key, octets=derived_again(key.octets, label.encode() + nonce, length, offset), derived=True
        )
        if self.trace is not None:
            from_ = f" from {offset}" if offset else ""
            text = (
                f"DerivedKeyToken {token.id}: {length} bytes{from_} of P_SHA1({key.identity}, label "
                f"{label!r}, nonce of {len(nonce)} bytes)"
            )
            self.trace.add(KeyDerived(key.identity, text, token.id))
        return derived

    def _binary_token(self, entry: Entry, depth: int) -> Key:  # noqa: ARG002
        token = entry.token
        if not isinstance(token, BinarySecurityToken):
            raise SecurityFailure("no BinarySecurityToken", part=entry.part)
        *path, certificate = certificates_of(token, old=self.expectation.policy is None)
        return replace(self._public(certificate, token.id), token=entry, path=tuple(path))

    def _certificate(self, reference: SecurityTokenReference) -> Key:
        certificate = self.source.certificate_of(reference)
        if certificate is None:
            raise unavailable("the certificate that is referred to isn't at hand", "ds:KeyInfo")
        return self._public(certificate, None)

    def _public(self, certificate: x509.Certificate, token: str | None) -> Key:
        try:
            public, name = certificate.public_key(), subject_of(certificate)
        except (ValueError, UnsupportedAlgorithm):
            raise SecurityFailure("a certificate that can't be read", part="ds:KeyInfo") from None
        if not isinstance(public, RSAPublicKey) or not 2048 <= public.key_size <= 8192:
            raise SecurityFailure("a certificate without RSA key of 2048 to 8192 bits", part="ds:KeyInfo")
        key = Key(identity_of(certificate), certificate, public=public)
        return self._found(key, token, f"certificate of {name}")

    def _sealed(self, reference: SecurityTokenReference) -> Key:
        found = self.source.sealed_key(reference.key_identifier or "")
        if found is None:
            raise unavailable("the EncryptedKey that is referred to isn't at hand", "ds:KeyInfo")
        return self._found(Key(found.identity, found, found.octets), None, f"EncryptedKey {found.sha1}")

    def _named(self, name: str) -> Key:
        found = self.source.named_key(name) if isinstance(self.source, NamedKeySource) else None
        if found is None:
            raise unavailable("a key is referred to by a name that isn't configured", "ds:KeyInfo")
        return self._found(Key(found.identity, found, found.octets), None, f"key {name!r}")

    def _found(self, key: Key, token: str | None, text: str) -> Key:
        if self.trace is not None:
            self.trace.add(KeyDerived(key.identity, text, token))
        return key


_LOCAL: Final[dict[type, tuple[frozenset[str], Callable[[Tokens, Entry, int], Key]]]] = {
    SecurityContextToken: (frozenset(_SCT_TYPES), Tokens._context_token),
    EncryptedKey: (frozenset({ENCRYPTED_KEY}), Tokens._encrypted_key),
    DerivedKeyToken: (_DKT_TYPES, Tokens._derived_key),
    BinarySecurityToken: (frozenset({X509_V3, X509_PKIPATH}), Tokens._binary_token),
}
"""What a local reference can lead to: ValueTypes and the way to the key."""

_IDENTIFIERS: Final[dict[str, Callable[[Tokens, SecurityTokenReference], Key]]] = {
    ENCRYPTED_KEY_SHA1: Tokens._sealed,
    THUMBPRINT_SHA1: Tokens._certificate,
    X509_SKI: Tokens._certificate,
}
"""KeyIdentifier by ValueType."""
