"""`protect` and `unprotect`: envelopes under keys.

`Verified` is a type that only `unprotect` makes. Whoever has one has a message whose parts were
found signed by one key, with nothing unsigned beside them that could be taken for a part.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, Literal

from cryptography import x509

from castile.clock import Now
from castile.config import Limits, Timers
from castile.errors import Malformed, SecurityFailure
from castile.messages.conversation import SecurityContextToken
from castile.messages.security import SecurityTokenReference, Timestamp, UsernameToken
from castile.messages.soap import Envelope
from castile.policy import ProtectionPolicy
from castile.security.checks import (
    check_bound,
    check_channel,
    check_freshness,
    check_timestamp,
    check_transport,
    primary_of,
    principal,
)
from castile.security.coverage import check_present, doubled_headers, header_name, is_read
from castile.security.expectation import Expectation
from castile.security.keys import ContextKey, KeySource, NamedKey, SealedKey
from castile.security.outgoing import Protected, Protection, protect
from castile.security.reading import Reading, Signed
from castile.security.tokens import Key, Tokens, bad_context
from castile.security.trace import KeyIdentity, Problem, Trace
from castile.versions import WSA, SOAPVersion
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

_MESSAGE_IDS: Final = frozenset(f"{{{namespace}}}MessageID" for namespace in WSA)


@dataclass(frozen=True, slots=True)
class VerifiedHeader:
    """A header block that is covered, or that the policy leaves uncovered."""

    element: Element = field(repr=False)
    name: str
    key: KeyIdentity | None
    """None on an endpoint without security, over TLS, and where the policy leaves it unsigned."""
    signature: int
    """Index into `Verified.signatures`; -1 where `key` is None."""


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

    Under a policy `body` is covered by the primary signature, and so is every header here, as far as
    the policy doesn't leave them out; over TLS see `transport`. Without a policy (`explain`)
    `covered_by` tells what is.
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
    """UTC seconds: until then `evidences` must be remembered."""
    contexts: tuple[tuple[str | None, str], ...] = ()
    """``wsu:Id`` and Identifier of each SecurityContextToken that the message carries."""
    nonce: bytes = field(default=b"", repr=False)
    """As `evidence`, of a UsernameToken that the primary signature doesn't cover."""
    transport: Literal["request", "response"] | None = None
    """TLS covers all of it. A response is then from the server whose certificate was verified; who
    sent a request only its tokens tell."""

    def resolve_context(self, reference: SecurityTokenReference) -> str | None:
        """The Identifier that a reference in the Body leads to; None: nowhere (features CO-04)."""
        if reference.local is None:
            return reference.uri
        return next((found for name, found in self.contexts if name == reference.local), None)

    @property
    def evidences(self) -> tuple[bytes, ...]:
        """What no other message may show again."""
        return tuple(each for each in (self.evidence, self.nonce) if each)

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
    policy = expectation.policy
    if envelope.security is None and policy is not None and _needs_nothing(policy, expectation):
        return _bare(envelope, policy, expectation)
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


def _needs_nothing(policy: ProtectionPolicy, expectation: Expectation) -> bool:
    """Whether a message over TLS may do without a Security header."""
    return policy.answers_bare and not (expectation.request and policy.supporting)


def _bare(envelope: Envelope, policy: ProtectionPolicy, expectation: Expectation) -> Verified:
    check_channel(expectation, policy)
    check_present(envelope.headers, policy.parts.required)
    return replace(accept_plain(envelope), transport=_carried(policy, expectation))


def _carried(
    policy: ProtectionPolicy | None, expectation: Expectation
) -> Literal["request", "response"] | None:
    if policy is None or policy.binding != "transport" or not expectation.tls:
        return None
    return "request" if expectation.request else "response"


def _judged(
    reading: Reading, keys: KeySource, expectation: Expectation, now: Now, timers: Timers
) -> Verified:
    """What was read, held against what is expected."""
    policy = expectation.policy
    primary = primary_of(reading)
    timestamp: Timestamp | None = None
    until = now.utc + timers.timestamp_ttl + timers.clock_skew
    sender: str | None = None
    evidence = nonce = b""
    try:
        if policy is not None and policy.binding == "transport":
            primary = None
            check_transport(reading, policy)
        elif policy is not None:
            check_bound(reading, primary, policy)
        timestamp, until = check_timestamp(reading, policy, now, timers)
        sender = principal(reading, primary, keys, expectation)
        nonce, until = _nonce(reading, primary, until, now, timers)
        evidence = primary.signature.value if primary is not None else b""
        if primary is None and not nonce and policy is not None:
            evidence = _evidence(reading)
    except SecurityFailure as error:
        reading.wrong(error)
    except Malformed as error:
        reading.wrong(SecurityFailure(str(error)))
    if reading.failure is not None:
        raise reading.failure
    if reading.body.element is None:
        raise SecurityFailure("the Body isn't signed", part="Body")
    return _verified(reading, primary, timestamp, sender, (evidence, nonce), until)


def _evidence(reading: Reading) -> bytes:
    """What makes a message one of its kind that no primary signature and no nonce does (features MS-76).

    WCF sends several messages of one millisecond under one signature over TLS, so there its
    MessageID counts too; without one nothing tells a repetition from another.
    """
    own = [(block.text or "").encode() for block in reading.headers if block.tag in _MESSAGE_IDS]
    own += [canonical(reading.envelope.body)] if reading.opening.encrypted else []
    values = [signed.signature.value for signed in reading.signed]
    return sha256(b"\0".join((*own, *values))).digest() if own else b""


def _nonce(
    reading: Reading, primary: Signed | None, until: float, now: Now, timers: Timers
) -> tuple[bytes, float]:
    """Of a user whom no signature covers his nonce, and until when it is remembered.

    Beside the signature, not in its place: whoever has an account could put a token of his own into
    another's message, and send that again.
    """
    for entry in reading.of(UsernameToken) if reading.expectation.policy is not None else ():
        token = entry.token
        unsigned = primary is None or not primary.covers(entry)
        if unsigned and isinstance(token, UsernameToken) and token.nonce is not None:
            fresh = check_freshness(token, now, timers)
            nonce = sha256(b"\0".join((b"nonce", token.name.encode(), token.nonce))).digest()
            return nonce, max(until, fresh)
    return b"", until


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
        if policy is not None and policy.has_contexts and expectation.edition is not None:
            raise bad_context(expectation.edition, "the message has no Security header", missing=False)
        raise SecurityFailure("the message has no Security header", part="wsse:Security")
    tokens = Tokens(keys, expectation, trace)
    return Reading(envelope, envelope.security, tokens, expectation, now, limits, trace)


def _verified(
    reading: Reading,
    primary: Signed | None,
    timestamp: Timestamp | None,
    principal: str | None,
    evidences: tuple[bytes, bytes],
    until: float,
) -> Verified:
    policy, expectation = reading.expectation.policy, reading.expectation
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
    carried = _carried(policy, expectation)
    index = reading.signed.index(primary) if primary is not None else -1
    covered = reading.covered_headers(primary)
    headers = tuple(
        VerifiedHeader(block, header_name(block), primary.key.identity, index)
        if primary is not None and block in covered
        else VerifiedHeader(block, header_name(block), None, -1)
        for block in (reading.blocks if policy is not None else covered)
        if block in covered or carried or is_read(block)
    )
    key = _key_of(reading, primary)
    reply_key = None if key is None or isinstance(key.source, NamedKey) else key.source
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
        evidence=evidences[0],
        nonce=evidences[1],
        expires=until,
        transport=carried,
        contexts=tuple(
            (entry.token.id, entry.token.identifier)
            for entry in reading.of(SecurityContextToken)
            if isinstance(entry.token, SecurityContextToken)
        ),
    )


def _key_of(reading: Reading, primary: Signed | None) -> Key | None:
    """The key that an answer comes under: the signer's; of a message that is only encrypted, that."""
    if primary is not None:
        return primary.key
    policy, encrypted = reading.expectation.policy, reading.opening.encrypted
    return encrypted[0][1] if policy is not None and policy.binding == "symmetric" and encrypted else None


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
