"""The keys of one endpoint, as the security layer asks for them."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from castile.messages.security import SecurityTokenReference
from castile.security.certificates import CertificateKey, refers_to
from castile.security.keys import ContextKey, SealedKey

Users = Mapping[str, str] | Callable[[str, str], bool]
"""Passwords by name, or a function that checks a name and a password."""


@dataclass(slots=True, repr=False)
class Keyring:
    """A `KeySource` over what this endpoint holds and what its store remembers."""

    load: Callable[[str], list[ContextKey]]
    """Every instance of a context, from the store; empty if there is none."""
    own: tuple[CertificateKey, ...] = ()
    """Our own keys: what is sealed for us is opened with them."""
    peers: tuple[x509.Certificate, ...] = ()
    """Certificates that a peer may go by without sending them."""
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
        return next((each.private for each in self.own if refers_to(reference, each.certificate)), None)

    def certificate_of(self, reference: SecurityTokenReference) -> x509.Certificate | None:
        """A configured certificate by its name: whether it may sign is asked of the anchors."""
        return next((each for each in self.peers if refers_to(reference, each)), None)

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

    def password_of(self, name: str) -> str | None:
        """The user's password, where they are given by name: a digest needs it."""
        return None if self.users is None or callable(self.users) else self.users.get(name)

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
