"""The keys that open a capture: from files, and from what the capture itself hands over.

`Keys` is the `KeySource` that `unprotect` asks. It remembers what it was asked for in vain, so
that a person can be told exactly which key is missing.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

from castile.errors import UsageError
from castile.messages.security import SecurityTokenReference
from castile.security.certificates import refers_to
from castile.security.keys import ContextKey, NamedKey, SealedKey
from castile.security.trace import KeyIdentity
from castile.versions import THUMBPRINT_SHA1, WSSC_2005, X509_SKI

_LARGEST: Final = 4 << 20
"""Bytes of a key file: a key log of a busy day has some ten thousand lines."""
_MEMBERS: Final = frozenset({"keys", "certificates", "contexts", "names", "users"})


@dataclass(slots=True, repr=False)
class Keys:
    """Keys, certificates, security contexts, named keys and users: a `KeySource` in memory."""

    private: list[RSAPrivateKey] = field(default_factory=list)
    certificates: list[x509.Certificate] = field(default_factory=list)
    contexts: dict[tuple[str, str | None], ContextKey] = field(default_factory=dict)
    names: dict[str, bytes] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    sealed: dict[str, SealedKey] = field(default_factory=dict)
    """Keys that requests of the capture carried sealed, by EncryptedKeySHA1."""
    origins: dict[KeyIdentity, str] = field(default_factory=dict)
    """Where a key that the capture handed over came from, in plain words."""
    nicknames: dict[KeyIdentity, str] = field(default_factory=dict)
    """Short names in a report, once a key was mentioned."""
    wanted: list[str] = field(default_factory=list)
    """What was asked for in vain, in plain words."""

    def copy(self) -> Keys:
        """The same keys; what the copy learns stays with it."""
        return Keys(
            list(self.private),
            list(self.certificates),
            dict(self.contexts),
            dict(self.names),
            dict(self.users),
            dict(self.sealed),
        )

    # ---- what unprotect asks

    def context(self, identifier: str, instance: str | None) -> ContextKey | None:
        """The key of one instance; without an instance the first one, or the only one known."""
        found = self.contexts.get((identifier, instance))
        if found is None and instance is None:
            known = [key for (name, _), key in self.contexts.items() if name == identifier]
            found = known[0] if len(known) == 1 else None
        if found is None:
            of = f", instance {instance}" if instance is not None else ""
            self.wanted.append(f"the secret of security context {identifier}{of}")
        return found

    def private_key(self, reference: SecurityTokenReference) -> RSAPrivateKey | None:
        """The private key of the certificate that is referred to."""
        for certificate in self.certificates:
            if refers_to(reference, certificate) and (found := self._key_of(certificate)) is not None:
                return found
        for key in self.private:
            if reference.value_type == X509_SKI and _text(_identifier(key)) == reference.key_identifier:
                return key
        self.wanted.append(f"the private key of {self._named(reference)}")
        return None

    def sealed_key(self, sha1: str) -> SealedKey | None:
        """The key that an earlier request carried sealed."""
        found = self.sealed.get(sha1)
        if found is None:
            self.wanted.append(f"the key that a request carried sealed (EncryptedKeySHA1 {sha1})")
        return found

    def certificate_of(self, reference: SecurityTokenReference) -> x509.Certificate | None:
        """A certificate by thumbprint, key identifier or issuer and serial number."""
        for certificate in self.certificates:
            if refers_to(reference, certificate):
                return certificate
        self.wanted.append(_described(reference))
        return None

    def named_key(self, name: str) -> NamedKey | None:
        """A key that both sides know by a name."""
        octets = self.names.get(name)
        if octets is None:
            self.wanted.append(f"the key named {name!r}")
            return None
        return NamedKey(octets, name)

    def password_of(self, name: str) -> str | None:
        """The user's password; None: a user whom the key file doesn't have."""
        known = self.users.get(name)
        if known is None:
            self.wanted.append(f"the password of user {name}")
        return known

    def authenticate(self, name: str, password: str) -> bool | None:
        """Whether the password is right; None: a user whom the key file doesn't have."""
        known = self.password_of(name)
        if known is None:
            return None
        return hmac.compare_digest(known.encode(), password.encode())

    # ---- what a capture hands over

    def learn_context(self, key: ContextKey, origin: str) -> None:
        """Keep a context's key, unless a file had it already: then that counts."""
        place = key.identifier, key.instance
        if place not in self.contexts:
            self.contexts[place] = key
            self.origins[key.identity] = origin

    def learn_sealed(self, key: SealedKey, origin: str) -> None:
        """Keep the key that a request carried, for the answer."""
        if key.sha1 not in self.sealed:
            self.sealed[key.sha1] = key
            self.origins[key.identity] = origin

    def trusts(self, certificate: x509.Certificate) -> bool:
        """Whether it is in the key files, or issued by one that is."""
        if certificate in self.certificates or self._key_of(certificate) is not None:
            return True
        return any(_issued(certificate, issuer) for issuer in self.certificates)

    def add(self, other: Keys) -> None:
        """Take over what another file holds."""
        self.private += other.private
        self.certificates += [item for item in other.certificates if item not in self.certificates]
        self.contexts |= other.contexts
        self.names |= other.names
        self.users |= other.users

    def _key_of(self, certificate: x509.Certificate) -> RSAPrivateKey | None:
        public = certificate.public_key()
        if not isinstance(public, RSAPublicKey):
            return None
        numbers = public.public_numbers()
        return next((key for key in self.private if key.public_key().public_numbers() == numbers), None)

    def _named(self, reference: SecurityTokenReference) -> str:
        for certificate in self.certificates:
            if refers_to(reference, certificate):
                return f"{certificate.subject.rfc4514_string()} ({_described(reference)})"
        return _described(reference)


def _described(reference: SecurityTokenReference) -> str:
    if reference.issuer_serial is not None:
        name, serial = reference.issuer_serial
        return f"the certificate with serial number {serial} of {name}"
    text = reference.key_identifier or reference.uri or "?"
    try:
        shown = b64decode(text, validate=True).hex()
    except ValueError:
        shown = text
    if reference.value_type == THUMBPRINT_SHA1:
        return f"the certificate with SHA-1 thumbprint {shown}"
    if reference.value_type == X509_SKI:
        return f"the certificate with subject key identifier {shown}"
    return f"the certificate {text}"


def _identifier(key: RSAPrivateKey) -> bytes:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest


def _text(octets: bytes) -> str:
    return b64encode(octets).decode()


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def load(sources: Iterable[str | Path | bytes]) -> Keys:
    """The keys of several files, or of their bytes; raises `UsageError` that names the file."""
    keys = Keys()
    for source in sources:
        name = "the key file" if isinstance(source, bytes) else str(source)
        keys.add(_read(_octets(source), name))
    return keys


def _octets(source: str | Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        path = Path(source)
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{source}: a key file of more than {_LARGEST} bytes")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{source} can't be read: {error.strerror}") from None


def _read(octets: bytes, name: str) -> Keys:
    """One file: JSON or a key log by its brace, PEM by its dashes, PKCS#12 else."""
    text = octets.lstrip(b"\xef\xbb\xbf \t\r\n")
    try:
        if not text:
            return Keys()
        if text.startswith(b"{"):
            return _json(text.decode(), name)
        if b"-----BEGIN" in text:
            return _pem(text.decode("latin-1"), name)
        return _pkcs12(octets)
    except UsageError:
        raise
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise UsageError(f"{name} is no key file: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """What the reader said, as far as it holds no content."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} in line {error.lineno}"
    return "PEM, PKCS#12 without a password, JSON or a key log was expected"


def _json(text: str, name: str) -> Keys:
    try:
        objects = [json.loads(text)]
    except json.JSONDecodeError:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2:
            raise
        objects = [_line(line, number, name) for number, line in lines]
    keys = Keys()
    for item in objects:
        keys.add(_object(item, name))
    return keys


def _line(line: str, number: int, name: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{name} is no key file: {error.msg} in line {number}") from None


def _object(item: object, name: str) -> Keys:
    if not isinstance(item, dict) or not item.keys() <= _MEMBERS:
        raise UsageError(f"{name} is no key file: its members are {', '.join(sorted(_MEMBERS))}")
    keys = Keys()
    for member, kind in (("keys", list), ("certificates", list), ("contexts", dict), ("names", dict)):
        if not isinstance(item.get(member, kind()), kind):
            raise UsageError(f"{name}: {member!r} must be a JSON {'array' if kind is list else 'object'}")
    for pem in (*item.get("keys", ()), *item.get("certificates", ())):
        keys.add(_pem(str(pem), name))
    for identifier, value in item.get("contexts", {}).items():
        for instance, secret in (value if isinstance(value, dict) else {"": value}).items():
            octets = b64decode(secret, validate=True)
            keys.contexts[identifier, instance or None] = ContextKey(
                identifier, instance or None, octets, WSSC_2005, "", b""
            )
    keys.names = {key: b64decode(value, validate=True) for key, value in item.get("names", {}).items()}
    users = item.get("users", {})
    if not isinstance(users, dict) or not all(isinstance(value, str) for value in users.values()):
        raise UsageError(f"{name}: 'users' must be a JSON object of passwords by name")
    keys.users = dict(users)
    return keys


def _pem(text: str, name: str) -> Keys:
    """Every key and certificate of a PEM text; other blocks are passed over."""
    keys = Keys()
    found = False
    for block in _blocks(text):
        label = block.partition("-----")[2].partition("-----")[0]
        if label == "BEGIN CERTIFICATE":
            keys.certificates.append(x509.load_pem_x509_certificate(block.encode()))
        elif label.endswith("PRIVATE KEY"):
            if "ENCRYPTED" in block.partition("\n\n")[0]:
                raise UsageError(f"{name} holds a private key under a password: give it without one")
            # The user's own key: to prove its primes anew takes longer than a whole conversation.
            key = load_pem_private_key(block.encode(), None, unsafe_skip_rsa_key_validation=True)
            if not isinstance(key, RSAPrivateKey):
                raise UsageError(f"{name} holds a private key that isn't RSA")
            keys.private.append(key)
        found = found or label.startswith("BEGIN")
    if not found:
        raise UsageError(f"{name} is no key file: no PEM block in it")
    return keys


def _blocks(text: str) -> list[str]:
    blocks = []
    start = text.find("-----BEGIN ")
    while start >= 0:
        end = text.find("-----END ", start)
        stop = text.find("-----", end + 9) + 5 if end >= 0 else len(text)
        blocks.append(text[start : max(stop, start + 11)])
        start = text.find("-----BEGIN ", max(stop, start + 11))
    return blocks


def _pkcs12(octets: bytes) -> Keys:
    keys = Keys()
    key, certificate, others = pkcs12.load_key_and_certificates(octets, None)
    if isinstance(key, RSAPrivateKey):
        keys.private.append(key)
    keys.certificates += [item for item in (certificate, *others) if item is not None]
    return keys
