"""Messages of every kind that castile sends, and both sides' keys for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from castile.clock import Now
from castile.messages.conversation import SecurityContextToken
from castile.messages.soap import Header, Message
from castile.policy import USERNAME, ProtectionPolicy
from castile.policy.suites import SUITES
from castile.security import (
    ContextKey,
    Expectation,
    KeySource,
    Protected,
    Protection,
    SealedKey,
    Verified,
    protect,
    unprotect,
)
from castile.security.trace import Trace
from castile.versions import (
    FAMILIES,
    SOAP_1_2,
    WSA_1_0,
    WSRM_1_1,
    Family,
    Reliability,
    SOAPVersion,
)
from tests.security.recorded import LIMITS, TIMERS, Keys, opened

NOW = Now(1_790_000_000.25, 50.0)
SECRET = bytes(range(32))
CONTEXT = "urn:uuid:6b3a1b52-2f0c-4f8a-9a62-5ad2b1f0c001"


def seeded(seed: int) -> Callable[[int], bytes]:
    """Bytes that a test can repeat."""
    return Random(seed).randbytes


@lru_cache(maxsize=1)
def service() -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    """A service's certificate and key."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "service")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=3650))
        .sign(private, SHA256())
    )
    return certificate, private


def context_key(family: Family, secret: bytes = SECRET, identifier: str = CONTEXT) -> ContextKey:
    """A security context as its issuer handed it out."""
    token = SecurityContextToken(identifier, None, "uuid-sct-1")
    return ContextKey(
        identifier, None, secret, family.conversation, "uuid-sct-1", token.render(family.conversation)
    )


def element(prefix: str, namespace: str, local: str, text: str) -> bytes:
    return f'<{prefix}:{local} xmlns:{prefix}="{namespace}">{text}</{prefix}:{local}>'.encode()


def addressing(
    action: str, *, response: bool = False, to: str = "http://127.0.0.1/transfers"
) -> tuple[Header, ...]:
    """Addressing headers as WCF orders them."""
    space = WSA_1_0.namespace
    headers = [Header("a", space, "Action", action.encode(), must_understand=True)]
    if response:
        headers.append(Header("a", space, "RelatesTo", b"urn:uuid:0b1c9f00-0000-4000-8000-000000000001"))
        return tuple(headers)
    anonymous = f"<a:Address>{WSA_1_0.anonymous}</a:Address>".encode()
    headers.append(Header("a", space, "MessageID", b"urn:uuid:0b1c9f00-0000-4000-8000-000000000001"))
    headers.append(Header("a", space, "ReplyTo", anonymous))
    headers.append(Header("a", space, "To", b"http://127.0.0.1/transfers", must_understand=True))
    return tuple(headers)


def sequence(edition: Reliability, number: int = 1) -> Header:
    content = (
        "<r:Identifier>urn:uuid:5e000000-0000-4000-8000-000000000001</r:Identifier>"
        f"<r:MessageNumber>{number}</r:MessageNumber>"
    )
    return Header("r", edition.namespace, "Sequence", content.encode(), must_understand=True)


def acknowledgement(edition: Reliability, upper: int = 3) -> Header:
    content = (
        "<r:Identifier>urn:uuid:5e000000-0000-4000-8000-000000000002</r:Identifier>"
        f'<r:AcknowledgementRange Lower="1" Upper="{upper}"></r:AcknowledgementRange>'
    )
    return Header("r", edition.namespace, "SequenceAcknowledgement", content.encode())


def ack_requested(edition: Reliability) -> Header:
    content = b"<r:Identifier>urn:uuid:5e000000-0000-4000-8000-000000000001</r:Identifier>"
    return Header("r", edition.namespace, "AckRequested", content)


@dataclass(frozen=True)
class Kind:
    """A kind of message: who sends it, under what, and what stands in it."""

    name: str
    bootstrap: bool
    request: bool
    encrypt: bool
    message: Message


def kinds(family: Family, soap: SOAPVersion = SOAP_1_2) -> list[Kind]:
    """RST, RSTR, CreateSequence and its answer, application, acknowledgement, the ends."""
    rm, trust = family.reliability, family.trust
    space = rm.namespace
    identifier = "<r:Identifier>urn:uuid:5e000000-0000-4000-8000-000000000001</r:Identifier>"

    def kind(name: str, action: str, body: bytes, *headers: Header, **how: bool) -> Kind:
        response = how.get("response", False)
        parts = (*headers, *addressing(action, response=response))
        return Kind(
            name,
            how.get("bootstrap", False),
            not response,
            how.get("encrypt", False),
            Message(soap, parts, body),
        )

    def life(local: str, inner: str = identifier) -> bytes:
        return element("r", space, local, inner)

    entropy = (
        "<t:Entropy><t:BinarySecret>AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=</t:BinarySecret></t:Entropy>"
    )
    end = "CloseSequence" if rm is WSRM_1_1 else "LastMessage"
    last = life(end) if rm is WSRM_1_1 else b""
    last_headers = () if rm is WSRM_1_1 else (sequence(rm, 4),)
    create = f'<r:AcksTo><a:Address xmlns:a="{WSA_1_0.namespace}">{WSA_1_0.anonymous}</a:Address></r:AcksTo>'
    uses = Header("r", space, "UsesSequenceSTR", must_understand=True)
    order = element("m", "urn:transfers", "Transfer", "<m:amount>100</m:amount>")
    return [
        kind("RST", trust.action("RST/SCT"), element("t", trust.namespace, "RequestSecurityToken", entropy),
             bootstrap=True, encrypt=True),
        kind("RSTR", trust.action("RSTR/SCT"),
             element("t", trust.namespace, "RequestSecurityTokenResponse", entropy),
             bootstrap=True, encrypt=True, response=True),
        kind("CreateSequence", rm.action("CreateSequence"), life("CreateSequence", create), uses),
        kind("CreateSequenceResponse", rm.action("CreateSequenceResponse"),
             life("CreateSequenceResponse"), response=True),
        kind("application", "urn:transfers/Transfer", order, sequence(rm), acknowledgement(rm),
             ack_requested(rm), encrypt=True),
        kind("reply", "urn:transfers/TransferResponse", order, sequence(rm), acknowledgement(rm),
             encrypt=True, response=True),
        kind("acknowledgement", rm.action("SequenceAcknowledgement"), b"", acknowledgement(rm)),
        kind(end, rm.action(end), last, *last_headers),
        kind("TerminateSequence", rm.action("TerminateSequence"), life("TerminateSequence")),
        kind("Cancel", trust.action("RST/SCT/Cancel"),
             element("t", trust.namespace, "RequestSecurityToken", "<t:RequestType>x</t:RequestType>")),
    ]  # fmt: skip


@dataclass(frozen=True)
class Side:
    """Policies and keys of one family and suite."""

    family: Family
    suite: str = "Basic256"
    derived_keys: bool = True

    @property
    def bootstrap(self) -> ProtectionPolicy:
        suite = SUITES[self.suite]
        return ProtectionPolicy("x509", suite, supporting=(USERNAME,), derived_keys=self.derived_keys)

    @property
    def application(self) -> ProtectionPolicy:
        return ProtectionPolicy("context", SUITES[self.suite], derived_keys=self.derived_keys)

    def protection(self, kind: Kind) -> Protection:
        policy = self.bootstrap if kind.bootstrap else self.application
        key: ContextKey | SealedKey | x509.Certificate = context_key(self.family)
        username = None
        if kind.bootstrap:
            key = service()[0] if kind.request else SealedKey(SECRET, "c2VhbGVka2V5bmFtZTEyMzQ=")
            username = ("ada", "sesame") if kind.request else None
        return Protection(policy, self.family.conversation, key, kind.request, username, kind.encrypt)

    def expectation(self, kind: Kind) -> Expectation:
        policy = self.bootstrap if kind.bootstrap else self.application
        return Expectation(policy, self.family.conversation, kind.request, kind.encrypt)

    def keys(self) -> Keys:
        key = context_key(self.family)
        sealed = SealedKey(SECRET, "c2VhbGVka2V5bmFtZTEyMzQ=")
        return Keys(
            contexts={(CONTEXT, None): key},
            private=[service()],
            sealed={sealed.sha1: sealed},
            users={"ada": "sesame"},
        )

    def protected(self, kind: Kind, seed: int = 1) -> Protected:
        return protect(kind.message, self.protection(kind), NOW, seeded(seed), TIMERS)


def receive(
    payload: bytes,
    expectation: Expectation,
    keys: KeySource,
    now: Now = NOW,
    trace: Trace | None = None,
) -> Verified:
    """What the product does with bytes that came."""
    return unprotect(opened(payload), keys, expectation, now, LIMITS, TIMERS, trace)


SIDES = [Side(family, suite) for family in FAMILIES.values() for suite in ("Basic256", "Basic256Sha256")]


def without_keys(keys: Keys, **fields: object) -> Keys:
    """The same keys less some."""
    return replace(keys, **fields)  # type: ignore[arg-type]
