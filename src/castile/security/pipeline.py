"""`protect` and `unprotect`: envelopes under keys.

`Verified` is a type that only `unprotect` makes. Whoever has one has a message whose parts were
found signed by one key, with nothing unsigned beside them that could be taken for a part.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509

from castile.clock import Now
from castile.config import Limits, Timers
from castile.errors import SecurityFailure
from castile.messages.conversation import SecurityContextToken
from castile.messages.security import ID, SecurityTokenReference, Timestamp
from castile.messages.soap import Envelope
from castile.security.checks import check_primary, check_timestamp, primary_of, principal
from castile.security.coverage import doubled_headers, header_name
from castile.security.expectation import Expectation
from castile.security.keys import ContextKey, KeySource, NamedKey, SealedKey
from castile.security.outgoing import Protected, Protection, protect
from castile.security.reading import Reading, Signed
from castile.security.tokens import Tokens, bad_context
from castile.security.trace import KeyIdentity, Problem, Trace
from castile.versions import SOAPVersion
from castile.xml import Element, canonical, standing_alone

__all__ = [
    "Expectation",
    "Protected",
    "Protection",
    "Verified",
    "VerifiedHeader",
    "VerifiedSignature",
    "accept_plain",
    "protect",
    "unprotect",
]

@dataclass(frozen=True, slots=True)
class VerifiedHeader:
    """A header block that is covered."""

    element: Element = field(repr=False)
    name: str
    key: KeyIdentity | None
    """None on an endpoint without security."""
    signature: int
    """Index into `Verified.signatures`; -1 without security."""


@dataclass(frozen=True, slots=True)
class VerifiedSignature:
    """A signature that held, with all its references."""

    key: KeyIdentity
    method: str
    value: bytes
    covered: frozenset[str]
    """Names of the parts."""
    endorsing: bool
    """It signs another signature rather than the message."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a message says, as far as it is proved.

    Under a policy `body` is covered by the primary signature, and so is every header here.
    Without one (`explain`) `covered_by` tells what is.
    """

    soap: SOAPVersion
    headers: tuple[VerifiedHeader, ...]
    body: Element = field(repr=False)
    """The Body, decrypted, in a document of its own where it came encrypted."""
    body_content: bytes = field(repr=False)
    """Its canonical children: what was digested, without the Body's own tags."""
    body_alone: bytes = field(repr=False)
    """The same for whoever reads them by themselves: with declarations of prefixes that only their
    values use. No signature covers these, unless a PrefixList says so."""
    signatures: tuple[VerifiedSignature, ...]
    encrypted: frozenset[str]
    """Names of the parts that came encrypted."""
    timestamp: Timestamp | None
    principal: str | None
    """Name in the UsernameToken whose password was right, or subject of the client's certificate."""
    reply_key: SealedKey | ContextKey | x509.Certificate | None = field(repr=False)
    """What an answer is to be protected with; a certificate: whom it is to be sealed for."""
    evidence: bytes = field(repr=False)
    """The primary signature's value: seen again, it is a replay."""
    expires: float
    """UTC seconds: until then the evidence must be remembered."""
    contexts: tuple[tuple[str | None, str], ...] = ()
    """``wsu:Id`` and Identifier of each SecurityContextToken that the message carries."""

    def resolve_context(self, reference: SecurityTokenReference) -> str | None:
        """The Identifier that a reference in the Body leads to; None: nowhere (features CO-04)."""
        if reference.local is None:
            return reference.uri
        return next((found for name, found in self.contexts if name == reference.local), None)

    @property
    def values(self) -> tuple[bytes, ...]:
        """The values of its signatures, which a response confirms (WSS 1.1.1, 8.5)."""
        return tuple(signature.value for signature in self.signatures)

    def covered_by(self, identity: KeyIdentity) -> frozenset[str]:
        """Names of the parts that signatures of this key cover."""
        return frozenset(
            name for signature in self.signatures if signature.key == identity for name in signature.covered
        )

    @property
    def primary(self) -> KeyIdentity:
        """Whose key signed the message; `SecurityFailure` where nothing is signed."""
        for signature in self.signatures:
            if not signature.endorsing:
                return signature.key
        raise SecurityFailure("the message isn't signed")


def unprotect(
    envelope: Envelope,
    keys: KeySource,
    expectation: Expectation,
    now: Now,
    limits: Limits,
    timers: Timers,
    trace: Trace | None = None,
) -> Verified:
    """Check one received envelope and give what it proves.

    Every refusal is a `SecurityFailure`; those that follow on a cryptographic check carry the one
    uniform fault. With a `trace` checking goes on behind a failure, which is raised in the end;
    one thing is then noted and not raised: a UsernameToken of a user whom nobody knows.
    """
    try:
        reading = _reading(envelope, keys, expectation, now, limits, trace)
        reading.run()
    except SecurityFailure as error:
        if trace is not None:
            trace.add(Problem(str(error), error.part, error.missing_key))
        raise
    if trace is not None:
        trace.body = reading.body.element
    return _judged(reading, keys, expectation, now, timers)


def _judged(
    reading: Reading, keys: KeySource, expectation: Expectation, now: Now, timers: Timers
) -> Verified:
    """What was read, held against what is expected."""
    policy = expectation.policy
    primary = primary_of(reading)
    timestamp: Timestamp | None = None
    until = now.utc + timers.timestamp_ttl + timers.clock_skew
    sender: str | None = None
    try:
        if policy is not None:
            primary = check_primary(reading, primary, policy)
        timestamp, until = check_timestamp(reading, policy, now, timers)
        sender = principal(reading, primary, keys, expectation)
    except SecurityFailure as error:
        reading.wrong(error)
    if reading.failure is not None:
        raise reading.failure
    if reading.body.element is None:
        raise SecurityFailure("the Body isn't signed", part="Body")
    return _verified(reading, primary, timestamp, sender, until)


def _reading(
    envelope: Envelope,
    keys: KeySource,
    expectation: Expectation,
    now: Now,
    limits: Limits,
    trace: Trace | None,
) -> Reading:
    policy = expectation.policy
    if envelope.security is None:
        if policy is not None and policy.protection_token == "context" and expectation.edition is not None:
            raise bad_context(expectation.edition, "the message has no Security header", missing=False)
        raise SecurityFailure("the message has no Security header", part="wsse:Security")
    tokens = Tokens(keys, expectation, trace)
    return Reading(envelope, envelope.security, tokens, expectation, now, limits, trace)


def _verified(
    reading: Reading,
    primary: Signed | None,
    timestamp: Timestamp | None,
    principal: str | None,
    until: float,
) -> Verified:
    signatures = tuple(
        VerifiedSignature(
            signed.key.identity,
            signed.signature.method,
            signed.signature.value,
            frozenset(part.name for part in signed.covered.values()),
            signed.endorsing,
        )
        for signed in reading.signed
    )
    headers: tuple[VerifiedHeader, ...] = ()
    reply_key: SealedKey | ContextKey | x509.Certificate | None = None
    if primary is not None:
        index = reading.signed.index(primary)
        headers = tuple(
            VerifiedHeader(block, header_name(block), primary.key.identity, index)
            for block in reading.headers
            if block.get(ID) in primary.covered and block is not reading.security
        )
        if not isinstance(primary.key.source, NamedKey):
            reply_key = primary.key.source
    body = reading.body.element if reading.body.element is not None else reading.envelope.body
    return Verified(
        soap=reading.envelope.soap,
        headers=headers,
        body=body,
        body_content=reading.body.content,
        body_alone=standing_alone(body, reading.body.content, reading.body.plaintext),
        signatures=signatures,
        encrypted=frozenset(name for name, _ in reading.opening.encrypted),
        timestamp=timestamp,
        principal=principal,
        reply_key=reply_key,
        evidence=primary.signature.value if primary is not None else b"",
        expires=until,
        contexts=tuple(
            (entry.token.id, entry.token.identifier)
            for entry in reading.of(SecurityContextToken)
            if isinstance(entry.token, SecurityContextToken)
        ),
    )


def accept_plain(envelope: Envelope) -> Verified:
    """A message at an endpoint whose policy has no security: nothing in it is proved.

    A header that may occur once is still refused if it is doubled, and so is a Security header:
    whoever signs expects to be verified.
    """
    if envelope.security is not None:
        raise SecurityFailure("a Security header at an endpoint without security", part="wsse:Security")
    if doubled := doubled_headers(envelope.headers):
        raise SecurityFailure(f"{doubled[0]} stands twice", part=doubled[0])
    content = b"".join(canonical(child) for child in envelope.body)
    return Verified(
        soap=envelope.soap,
        headers=tuple(VerifiedHeader(block, header_name(block), None, -1) for block in envelope.headers),
        body=envelope.body,
        body_content=content,
        body_alone=standing_alone(envelope.body, content),
        signatures=(),
        encrypted=frozenset(),
        timestamp=None,
        principal=None,
        reply_key=None,
        evidence=b"",
        expires=0.0,
    )
