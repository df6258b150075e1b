"""Recorded conversations of real peers, with the keys that belong to them."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from castile import xml
from castile.clock import Now
from castile.config import Limits, Timers
from castile.errors import PeerError
from castile.messages import soap
from castile.messages.security import SecurityTokenReference, parse_instant
from castile.security import ContextKey, Expectation, SealedKey, Trace, Verified, unprotect
from castile.versions import THUMBPRINT_SHA1, WSSC_2005, WSU, X509_SKI

LIMITS = Limits()
TIMERS = Timers()


@dataclass
class Keys:
    """A `KeySource` in memory."""

    contexts: dict[tuple[str, str | None], ContextKey] = field(default_factory=dict)
    private: list[tuple[x509.Certificate, RSAPrivateKey]] = field(default_factory=list)
    certificates: list[x509.Certificate] = field(default_factory=list)
    sealed: dict[str, SealedKey] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)

    def context(self, identifier: str, instance: str | None) -> ContextKey | None:
        if instance is None:
            found = [key for (name, _), key in self.contexts.items() if name == identifier]
            return found[0] if found else None
        return self.contexts.get((identifier, instance))

    def private_key(self, reference: SecurityTokenReference) -> RSAPrivateKey | None:
        return next((key for certificate, key in self.private if named(certificate, reference)), None)

    def sealed_key(self, sha1: str) -> SealedKey | None:
        return self.sealed.get(sha1)

    def certificate_of(self, reference: SecurityTokenReference) -> x509.Certificate | None:
        return next((found for found in self.certificates if named(found, reference)), None)

    def password_of(self, name: str) -> str | None:
        return self.users.get(name)

    def authenticate(self, name: str, password: str) -> bool | None:
        return None if name not in self.users else self.users[name] == password

    def learn(self, secret: bytes, identifier: str, instance: str | None = None) -> None:
        self.contexts[identifier, instance] = ContextKey(identifier, instance, secret, WSSC_2005, "sct", b"")


def named(certificate: x509.Certificate, reference: SecurityTokenReference) -> bool:
    """Whether a reference names this certificate."""
    if reference.issuer_serial is not None:
        name, serial = reference.issuer_serial
        same = certificate.issuer.rfc4514_string() == name.replace(", ", ",")
        return same and certificate.serial_number == serial
    if reference.value_type == THUMBPRINT_SHA1:
        return reference.key_identifier == b64encode(certificate.fingerprint(SHA1())).decode()
    if reference.value_type == X509_SKI:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return reference.key_identifier == b64encode(extension.value.digest).decode()
    return False


@lru_cache(maxsize=16)
def loaded(pem: str) -> RSAPrivateKey:
    """A private key; loading checks it, which is slow."""
    private = load_pem_private_key(pem.encode(), None)
    assert isinstance(private, RSAPrivateKey)
    return private


def keys_of(folder: Path) -> Keys:
    """The keys of a folder of conversations: `explain-keys.json` beside it, secrets in it."""
    data = json.loads((folder.parent / "explain-keys.json").read_text())
    keys = Keys(users=dict(data.get("users", {})))
    keys.certificates = [x509.load_pem_x509_certificate(pem.encode()) for pem in data["certificates"]]
    for private in map(loaded, data["keys"]):
        numbers = private.public_key().public_numbers()
        for certificate in keys.certificates:
            public = certificate.public_key()
            if isinstance(public, RSAPublicKey) and public.public_numbers() == numbers:
                keys.private.append((certificate, private))
    conversation = folder / "conversation.json"
    if conversation.exists():
        for context in json.loads(conversation.read_text()).get("security_contexts", []):
            secret = bytes.fromhex(context["secret_hex"])
            keys.learn(secret, context["identifier"], context.get("instance"))
    return keys


def created(envelope: soap.Envelope) -> float:
    """The message's own time, for judging a recording."""
    found = envelope.security.find(f".//{{{WSU}}}Created") if envelope.security is not None else None
    return parse_instant(found.text or "") if found is not None else 0.0


def opened(payload: bytes) -> soap.Envelope:
    """A message, parsed as the product does it."""
    return soap.parse(xml.parse(payload, LIMITS), LIMITS, len(payload))


@dataclass
class Opened:
    """One message of a recording after `unprotect`."""

    name: str
    envelope: soap.Envelope
    verified: Verified | None
    trace: Trace
    error: PeerError | None


def read(folder: Path, keys: Keys | None = None) -> list[Opened]:
    """Every message of a conversation, judged at its own time, answers under the requests' keys."""
    keys = keys or keys_of(folder)
    results = []
    for path in sorted(folder.glob("*-*.xml")):
        payload = path.read_bytes()
        if not payload:
            continue
        envelope = opened(payload)
        trace = Trace()
        expectation = Expectation(None, None, "request" in path.name)
        utc = created(envelope)
        verified, error = None, None
        try:
            verified = unprotect(envelope, keys, expectation, Now(utc, 0.0), LIMITS, TIMERS, trace)
            if isinstance(verified.reply_key, SealedKey):
                keys.sealed[verified.reply_key.sha1] = verified.reply_key
        except PeerError as failure:
            error = failure
        results.append(Opened(path.name, envelope, verified, trace, error))
    return results


def text(element: xml.Element, local: str) -> list[bytes]:
    """The base64 texts of all elements of this local name."""
    return [b64decode(found.text or "") for found in element.iter(f"{{*}}{local}")]
