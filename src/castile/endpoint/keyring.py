"""The keys of one endpoint, as the security layer asks for them."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pybase64
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from castile.messages.security import SecurityTokenReference
from castile.security.keys import ContextKey, SealedKey
from castile.versions import THUMBPRINT_SHA1, X509_SKI

Users = Mapping[str, str] | Callable[[str, str], bool]
"""Passwords by name, or a function that checks a name and a password."""


@dataclass(slots=True, repr=False)
class Keyring:
    """A `KeySource` over what this endpoint holds and what its store remembers."""

    load: Callable[[str], list[ContextKey]]
    """Every instance of a context, from the store; empty if there is none."""
    own: x509.Certificate | None = None
    """The certificate of `key`."""
    key: RSAPrivateKey | None = None
    users: Users | None = None
    contexts: dict[tuple[str, str | None], ContextKey] = field(default_factory=dict)
    sealed_keys: dict[str, SealedKey] = field(default_factory=dict)

    def context(self, identifier: str, instance: str | None) -> ContextKey | None:
        """The key of one instance of a context; without an instance the first one."""
        found = self.contexts.get((identifier, instance))
        if found is None:
            for row in self.load(identifier):
                self.remember(row)
            found = self.contexts.get((identifier, instance))
        return found

    def remember(self, key: ContextKey) -> None:
        """Keep a key for the messages to come."""
        if len(self.contexts) > 4_096:  # a cache: the store has them all
            self.contexts.clear()
        self.contexts[key.identifier, key.instance] = key

    def forget(self, identifier: str) -> None:
        """Drop every instance of a context."""
        for name in list(self.contexts):  # a copy: other threads remember and forget too
            if name[0] == identifier:
                self.contexts.pop(name, None)

    def private_key(self, reference: SecurityTokenReference) -> RSAPrivateKey | None:
        """Our private key, if the reference names our certificate."""
        if self.own is None or not refers_to(reference, self.own):
            return None
        return self.key

    def certificate_of(self, reference: SecurityTokenReference) -> x509.Certificate | None:
        """A certificate that may sign to us; none does with the bindings that exist."""
        return None

    def sealed_key(self, sha1: str) -> SealedKey | None:
        """The key of an EncryptedKey that we made and that a response refers to."""
        return self.sealed_keys.get(sha1)

    @contextmanager
    def holding(self, key: SealedKey | None) -> Iterator[None]:
        """While the answer to a message is awaited whose EncryptedKey it may be under."""
        if key is None:
            yield
            return
        self.sealed_keys[key.sha1] = key
        try:
            yield
        finally:
            del self.sealed_keys[key.sha1]

    def authenticate(self, name: str, password: str) -> bool | None:
        """Whether the password is right; None for an unknown user.

        Both refusals look the same outside and cost the same: an unknown name is compared too.
        """
        if self.users is None:
            return None
        if callable(self.users):
            return self.users(name, password)
        known = self.users.get(name)
        same = hmac.compare_digest((known or "").encode(), password.encode())
        return None if known is None else same


def refers_to(reference: SecurityTokenReference, certificate: x509.Certificate) -> bool:
    """Whether a reference names this certificate, in any of its three forms (MS-18)."""
    if reference.issuer_serial is not None:
        name, serial = reference.issuer_serial
        return serial == certificate.serial_number and same_name(name, certificate.issuer)
    if reference.key_identifier is None:
        return False
    try:
        octets = pybase64.b64decode(reference.key_identifier, validate=True)
    except ValueError:
        return False
    if reference.value_type == THUMBPRINT_SHA1:
        return hmac.compare_digest(octets, certificate.fingerprint(hashes.SHA1()))  # noqa: S303 - a name
    known = key_identifier(certificate) or b""
    return reference.value_type == X509_SKI and hmac.compare_digest(octets, known)


def key_identifier(certificate: x509.Certificate) -> bytes | None:
    """The certificate's SubjectKeyIdentifier extension; None if it has none."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    return extension.value.digest


def same_name(text: str, name: x509.Name) -> bool:
    """Whether a distinguished name as text (RFC 4514) is this name, in either order."""
    try:
        parsed = x509.Name.from_rfc4514_string(text)
    except ValueError:
        return False
    return parsed == name or x509.Name(list(reversed(list(parsed)))) == name
