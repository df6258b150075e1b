"""Messages under every policy that can be sent, and what their receiver has and expects."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509

from castile.messages.soap import Header, Message
from castile.policy import EndpointPolicy, ProtectionPolicy, SupportingToken
from castile.policy.parts import NO_PARTS
from castile.policy.suites import SUITES
from castile.security import (
    ContextKey,
    Expectation,
    Protected,
    Protection,
    SealedKey,
    Trace,
    Verified,
    protect,
)
from castile.security.anchors import Anchors
from castile.security.certificates import CertificateKey
from castile.versions import FAMILIES, SOAP_1_2
from tests.security.authority import identity
from tests.security.made import CONTEXT, NOW, SECRET, addressing, context_key, receive, seeded
from tests.security.recorded import TIMERS, Keys

SEALED = SealedKey(SECRET, "c2VhbGVka2V5bmFtZTEyMzQ=")
CONFIRMED = (b"primary", b"endorsing")
BODY = b'<m:Transfer xmlns:m="urn:transfers"><m:amount>100</m:amount></m:Transfer>'
BOOTSTRAPS = ("username", "certificate", "anonymous", "mutual")


def bootstrap(name: str, suite: str = "Basic256", **changes: Any) -> ProtectionPolicy:
    """A bootstrap's section with these fields changed."""
    section = EndpointPolicy.of(suite=suite, bootstrap=name).bootstrap  # type: ignore[arg-type]
    assert section is not None
    return replace(section, **changes)


def context(suite: str = "Basic256", **changes: Any) -> ProtectionPolicy:
    """The application's section with these fields changed."""
    return replace(ProtectionPolicy("context", SUITES[suite]), **changes)


def transport(*supporting: SupportingToken, **changes: Any) -> ProtectionPolicy:
    """A TransportBinding with these supporting tokens."""
    section = ProtectionPolicy("transport", SUITES["Basic256"], "transport", supporting, NO_PARTS)
    return replace(section, **changes)


@dataclass(frozen=True)
class Shape:
    """One message: how it is sent, and what its receiver expects."""

    policy: ProtectionPolicy
    family: str = "1.3"
    request: bool = True
    sent: dict[str, Any] = field(default_factory=dict)
    """What differs in `Protection`."""
    headers: tuple[Header, ...] = ()
    """Behind those of addressing."""

    @property
    def secret(self) -> bytes:
        """Of the context, or of the sealed key: as long as the suite's own keys."""
        return SECRET[: self.policy.suite.encryption_key_bytes]

    @property
    def sealed(self) -> SealedKey:
        return replace(SEALED, octets=self.secret)

    @property
    def client(self) -> CertificateKey:
        return identity("client")

    @property
    def service(self) -> CertificateKey:
        return identity("service")

    @property
    def message(self) -> Message:
        headers = (*addressing("urn:transfers/Transfer", response=not self.request), *self.headers)
        return Message(SOAP_1_2, headers, BODY)

    def protection(self) -> Protection:
        policy, key = self.policy, context_key(FAMILIES[self.family], self.secret)
        signer, other = (self.client, self.service) if self.request else (self.service, self.client)
        found: ContextKey | SealedKey | x509.Certificate | None = key
        if policy.binding == "transport":
            found = None
        elif policy.protection_token == "x509":
            found = other.certificate if self.request or policy.binding == "asymmetric" else self.sealed
        endorsing = [self.client] if policy.endorsing else []
        contexts = [key] if policy.supports("context") else []
        made = Protection(
            policy,
            FAMILIES[self.family].conversation,
            found,
            self.request,
            username=("ada", "sesame") if policy.username and self.request else None,
            signer=signer,
            endorsing=(*endorsing, *contexts) if self.request else (),
            certificate=self.client.certificate if self.request else None,
            confirm=CONFIRMED,
        )
        return replace(made, **self.sent)

    def protected(self, seed: int = 1) -> Protected:
        return protect(self.message, self.protection(), NOW, seeded(seed), TIMERS)

    def expectation(self, **changes: Any) -> Expectation:
        peer = self.client if self.request else self.service
        made = Expectation(
            self.policy,
            FAMILIES[self.family].conversation,
            self.request,
            True,
            trust=Anchors.of([peer.certificate]),
            confirmations=None if self.request else (CONFIRMED,),
            tls=True,
            legacy=True,
        )
        return replace(made, **changes)

    def keys(self) -> Keys:
        mine, peer = (self.service, self.client) if self.request else (self.client, self.service)
        return Keys(
            contexts={(CONTEXT, None): context_key(FAMILIES[self.family], self.secret)},
            private=[(mine.certificate, mine.private)],
            certificates=[peer.certificate],
            sealed={SEALED.sha1: self.sealed},
            users={"ada": "sesame"},
        )

    def received(
        self, payload: bytes | None = None, *, trace: Trace | None = None, **changes: Any
    ) -> Verified:
        """What the receiver makes of it."""
        octets = self.protected().payload if payload is None else payload
        return receive(octets, self.expectation(**changes), self.keys(), trace=trace)
