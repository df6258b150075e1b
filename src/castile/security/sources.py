"""The keys of one message that goes out: what carries them, and how it refers to them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

import pybase64
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from castile.errors import UsageError
from castile.messages.conversation import SecurityContextToken
from castile.messages.security import EncryptedKey, KeyInfo, SecurityTokenReference
from castile.policy import CertificateReference, ProtectionPolicy, suites
from castile.security.certificates import CertificateKey, dereferenced, reference_to, token_of
from castile.security.encryption import seal_key
from castile.security.keys import DEFAULT_LABEL, DEFAULT_LENGTH, ContextKey, SealedKey, derived_again, p_sha1
from castile.versions import ENCRYPTED_KEY, ENCRYPTED_KEY_SHA1, WSSE, WSU, X509_V3, Conversation

Random = Callable[[int], bytes]
_NONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Source:
    """The secret behind the symmetric keys of one message."""

    secret: bytes = field(repr=False)
    token: bytes = field(repr=False)
    """The element that carries it; empty in a response."""
    reference: SecurityTokenReference
    name: str | None = None
    """Id of the token."""
    sealed: SealedKey | None = None
    key: EncryptedKey | None = None
    """The token, where it is one that may hold a list of what it encrypts."""
    before: bytes = b""
    """The certificate that the secret is sealed for, where that travels too."""


@dataclass(frozen=True, slots=True)
class Signer:
    """What makes a signature, and what its KeyInfo says."""

    method: str
    key: bytes | RSAPrivateKey = field(repr=False)
    info: bytes
    """The rendered token reference."""
    tokens: bytes = field(default=b"", repr=False)
    """What must stand before the signature."""
    token: tuple[str, bytes] | None = field(default=None, repr=False)
    """Id and octets of the token itself, if it travels."""
    named: tuple[str, bytes] | None = field(default=None, repr=False)
    """Id of the reference, and the octets that stand for its token, if that stays at home."""


def source_of(
    key: ContextKey | SealedKey | x509.Certificate,
    policy: ProtectionPolicy,
    name: str,
    random: Random,
    *,
    request: bool,
) -> Source:
    """The secret, the token that a request carries, and how keys refer to it."""
    if isinstance(key, ContextKey):
        if policy.protection_token != "context":
            raise UsageError("the policy asks for an EncryptedKey, not for a security context")
        return context_source(key, request=request)
    if policy.protection_token != "x509":
        raise UsageError("the policy asks for a security context, not for an EncryptedKey")
    if isinstance(key, x509.Certificate):
        return _new_key(policy, key, name, random)
    if policy.binding == "asymmetric":
        raise UsageError("the policy asks for a certificate that the message is sealed for")
    reference = SecurityTokenReference(
        key_identifier=key.sha1, value_type=ENCRYPTED_KEY_SHA1, token_type=ENCRYPTED_KEY
    )
    return Source(key.octets, b"", reference, None, key)


def context_source(key: ContextKey, *, request: bool) -> Source:
    """The secret of a security context."""
    token = SecurityContextToken(key.identifier, key.instance, key.token_id)
    if request:
        # Metro reads the instance on the reference and nowhere else: by the token alone it takes
        # the first key, also after a renewal.
        reference = replace(token.attached(key.edition), instance=key.instance)
        return Source(key.secret, key.token, reference, key.token_id)
    return Source(key.secret, b"", token.unattached(key.edition))


def _new_key(policy: ProtectionPolicy, certificate: x509.Certificate, name: str, random: Random) -> Source:
    suite = policy.suite
    public = certificate.public_key()
    if not isinstance(public, RSAPublicKey):
        raise UsageError("the certificate that keys are sealed for must have an RSA key")
    octets = random(suite.encryption_key_bytes)
    before, reference = _carried(certificate, policy.reference, f"{name}c")
    oaep = suite.key_transport == suites.RSA_OAEP
    key = EncryptedKey(
        id=name,
        algorithm=suite.key_transport,
        key=KeyInfo(reference),
        cipher=seal_key(public, octets, suite.key_transport),
        digest=suites.SHA1 if oaep else None,
    )
    sha1 = pybase64.b64encode(hashlib.sha1(key.cipher).digest()).decode()  # noqa: S324 - a name
    sealed = SealedKey(octets, sha1)
    return Source(octets, key.render(), key.as_reference(), name, sealed, key, before)


def _carried(
    certificate: x509.Certificate, form: CertificateReference, name: str
) -> tuple[bytes, SecurityTokenReference]:
    """The token, if it travels, and the reference to a certificate."""
    reference = reference_to(certificate, form)
    if reference is not None:
        return b"", reference
    return token_of(certificate, name).render(), SecurityTokenReference(uri=f"#{name}", value_type=X509_V3)


def working_key(
    policy: ProtectionPolicy,
    edition: Conversation,
    source: Source,
    name: str,
    length: int,
    random: Random,
    *,
    derived: bool,
) -> tuple[bytes, bytes, bytes]:
    """DerivedKeyToken, key, and the reference that a KeyInfo holds (features F04, SC-14)."""
    if not derived:
        return b"", source.secret, source.reference.render()
    again = policy.reuse_derived_keys and policy.protection_token == "context"
    nonce = _steady_nonce(source, name, length) if again else random(_NONCE)
    # Written as WCF does: the default length goes without Offset and Length.
    bounds = b"" if length == DEFAULT_LENGTH else b"<c:Offset>0</c:Offset><c:Length>%d</c:Length>" % length
    identity = name.encode()
    token, info = _derivation(edition)
    key = (derived_again if again else p_sha1)(source.secret, DEFAULT_LABEL.encode() + nonce, length)
    rendered = token % (identity, source.reference.render(), bounds, pybase64.b64encode(nonce))
    return rendered, key, info % identity


def _steady_nonce(source: Source, name: str, length: int) -> bytes:
    """The nonce of the same token in each message: its own for each purpose and direction, and new
    with each new secret. It tells nothing of the secret."""
    purpose = b"nonce %b %d %d" % (name[-1:].encode(), length, bool(source.token))
    return hmac.digest(source.secret, purpose, "sha256")[:_NONCE]


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


def symmetric_signer(
    policy: ProtectionPolicy,
    edition: Conversation,
    source: Source,
    name: str,
    random: Random,
    *,
    derived: bool,
) -> Signer:
    """A signer by the secret, or by a key derived from it."""
    length = policy.suite.signature_key_bytes
    tokens, key, info = working_key(policy, edition, source, name, length, random, derived=derived)
    token = (source.name, source.token) if source.name is not None else None
    return Signer(policy.suite.hmac, key, info, tokens, token)


def certificate_signer(
    policy: ProtectionPolicy, key: CertificateKey, name: str, form: CertificateReference
) -> Signer:
    """A signer by a certificate of ours."""
    carried, reference = _carried(key.certificate, form, name)
    method, private, info = policy.suite.rsa, key.private, reference.render(in_key_info=True)
    if carried:
        return Signer(method, private, info, carried, (name, carried))
    if not policy.protect_tokens:
        return Signer(method, private, info)
    octets, _ = dereferenced(key.certificate, "o")
    return Signer(method, private, replace(reference, id=name).render(in_key_info=True), named=(name, octets))
