"""Keys: where they come from, how they are derived, what each may be used for."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol, runtime_checkable

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.hmac import HMAC

from castile.errors import SecurityFailure
from castile.messages.conversation import DerivedKeyToken
from castile.messages.security import SecurityTokenReference, UsernameToken
from castile.security.trace import KeyIdentity
from castile.versions import WSSC, Conversation

DEFAULT_LABEL: Final = "WS-SecureConversationWS-SecureConversation"
"""A client's and a service's label, one after the other (WS-SC 1.4, 7)."""
DEFAULT_LENGTH: Final = 32
_P_SHA1: Final = frozenset(row.p_sha1 for row in WSSC.values())


@dataclass(frozen=True, slots=True)
class ContextKey:
    """A security context token with its secret."""

    identifier: str
    instance: str | None
    secret: bytes = field(repr=False)
    edition: Conversation
    token_id: str
    """``u:Id`` of `token`."""
    token: bytes = field(repr=False)
    """The canonical SecurityContextToken to send: its issuer's own (features SC-01)."""

    @property
    def identity(self) -> KeyIdentity:
        """Whose key it is."""
        return KeyIdentity("context", self.identifier, self.instance)


@dataclass(frozen=True, slots=True)
class SealedKey:
    """The octets of an EncryptedKey, and the name that an answer calls it by."""

    octets: bytes = field(repr=False)
    sha1: str
    """EncryptedKeySHA1: base64 of SHA-1 over the ciphertext (WSS 1.1.1, 7.7)."""

    @property
    def identity(self) -> KeyIdentity:
        """Whose key it is."""
        return KeyIdentity("encrypted-key", self.sha1)


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key that both sides configured under a name (ds:KeyName)."""

    octets: bytes = field(repr=False)
    name: str

    @property
    def identity(self) -> KeyIdentity:
        """Whose key it is."""
        return KeyIdentity("name", self.name)


class KeySource(Protocol):
    """Where `unprotect` asks for keys. None means: not here."""

    def context(self, identifier: str, instance: str | None) -> ContextKey | None:
        """The key of a context; without instance, the one in force."""

    def private_key(self, reference: SecurityTokenReference) -> RSAPrivateKey | None:
        """The private key of the certificate that is referred to."""

    def sealed_key(self, sha1: str) -> SealedKey | None:
        """The key of an EncryptedKey that we sent."""

    def certificate_of(self, reference: SecurityTokenReference) -> x509.Certificate | None:
        """A certificate that may sign to us, by thumbprint, key identifier or issuer and serial."""

    def authenticate(self, name: str, password: str) -> bool | None:
        """Whether the password is right; None: an unknown user. The same time for both."""


@runtime_checkable
class NamedKeySource(Protocol):
    """A `KeySource` that was also given keys by name; without it a ds:KeyName leads nowhere."""

    def named_key(self, name: str) -> NamedKey | None:
        """The key of that name."""


@runtime_checkable
class PasswordSource(Protocol):
    """A `KeySource` that can show passwords, which a digest can't be checked without."""

    def password_of(self, name: str) -> str | None:
        """The user's password; None: an unknown user."""


def password_digest(token: UsernameToken, password: bytes) -> str:
    """Base64 of SHA-1 over nonce, Created and password (UsernameToken profile 1.1.1, 3.1)."""
    octets = (token.nonce or b"") + (token.created or "").encode() + password
    return b64encode(hashlib.sha1(octets).digest()).decode()  # noqa: S324 - the profile's own


def p_sha1(secret: bytes, seed: bytes, length: int, offset: int = 0) -> bytes:
    """Octets [offset, offset + length) of P_SHA1 (RFC 2246, 5)."""
    keyed = HMAC(secret, SHA1())  # noqa: S303 - the only derivation that WS-SC knows
    end = offset + length
    block, output = seed, b""
    while len(output) < end:
        step = keyed.copy()
        step.update(block)
        block = step.finalize()
        step = keyed.copy()
        step.update(block + seed)
        output += step.finalize()
    return output[offset:end]


derived_again: Final = lru_cache(maxsize=512)(p_sha1)
"""`p_sha1` for received tokens, which some peers repeat all session long (features SC-15)."""


def derive(secret: bytes, token: DerivedKeyToken, inherited: DerivedKeyToken | None = None) -> bytes:
    """The key that a DerivedKeyToken stands for (WS-SC 1.4, 7; features SC-12, SC-13, SC-16).

    `inherited` is the token that this one is derived from, whose Properties are defaults here.
    Every bound is checked before anything is computed; a breach is a `SecurityFailure`.
    """
    length, offset, label, nonce = parameters(token, inherited)
    return p_sha1(secret, label.encode() + nonce, length, offset)


def parameters(
    token: DerivedKeyToken, inherited: DerivedKeyToken | None = None
) -> tuple[int, int, str, bytes]:
    """Length, offset, label and nonce of a token after all checks."""
    if token.algorithm is not None and token.algorithm not in _P_SHA1:
        raise _refused("a derivation other than P_SHA1")
    length = DEFAULT_LENGTH if token.length is None else token.length
    if not 16 <= length <= 64:
        raise _refused(f"a Length of {length}: 16 to 64 are taken")
    offset = token.offset or 0
    if token.generation is not None:
        if token.offset is not None:
            raise _refused("both Offset and Generation")
        offset = token.generation * length
        if offset > 128:
            raise _refused("Generation times Length above 128")
    elif offset + length > 128:
        raise _refused("Offset plus Length above 128")
    label = token.label
    if label is None and inherited is not None:
        label = inherited.default_label
    if label is None:
        label = DEFAULT_LABEL
    if len(label) > 128:
        raise _refused("a Label above 128 characters")
    nonce = token.nonce
    if nonce is None and inherited is not None:
        nonce = inherited.default_nonce
    if nonce is None or not 16 <= len(nonce) <= 128:
        raise _refused("no Nonce of 16 to 128 bytes")
    return length, offset, label, nonce


def _refused(what: str) -> SecurityFailure:
    return SecurityFailure(f"a DerivedKeyToken with {what}", part="wsc:DerivedKeyToken")
