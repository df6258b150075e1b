"""`protect` and `unprotect`: envelopes under keys.

`Verified` is a type that only `unprotect` makes. Whoever has one has a message whose parts were
found signed by one key, with nothing unsigned beside them that could be taken for a part.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from castile.clock import Now
from castile.config import Limits, Timers
from castile.errors import SecurityFailure, SOAPFault
from castile.messages.conversation import SecurityContextToken
from castile.messages.security import (
    ID,
    EncryptedKey,
    SecurityTokenReference,
    Timestamp,
    UsernameToken,
)
from castile.messages.soap import Envelope
from castile.policy import ProtectionPolicy
from castile.security.coverage import check_headers, doubled_headers, header_name
from castile.security.expectation import Expectation
from castile.security.keys import ContextKey, KeySource, PasswordSource, SealedKey, password_digest
from castile.security.outgoing import Protected, Protection, protect
from castile.security.reading import Reading, Signed
from castile.security.tokens import Entry, Tokens, bad_context
from castile.security.trace import KeyIdentity, Problem, Trace, UsernameChecked
from castile.versions import PASSWORD_DIGEST, PASSWORD_TEXT, WSSE, SOAPVersion
from castile.xml import Element, canonical

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

_TOKEN_KINDS: Final = {"context": "context", "x509": "encrypted-key"}
"""ProtectionPolicy.protection_token to the kind of key that signs."""


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
    signatures: tuple[VerifiedSignature, ...]
    encrypted: frozenset[str]
    """Names of the parts that came encrypted."""
    timestamp: Timestamp | None
    principal: str | None
    """Name in the UsernameToken whose password was right."""
    reply_key: SealedKey | ContextKey | None = field(repr=False)
    """What an answer is to be protected with."""
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
        reading = _reading(envelope, keys, expectation, limits, trace)
        reading.run()
    except SecurityFailure as error:
        if trace is not None:
            trace.add(Problem(str(error), error.part, error.missing_key))
        raise
    if trace is not None:
        trace.body = reading.body
    return _judged(reading, keys, expectation, now, timers)


def _judged(
    reading: Reading, keys: KeySource, expectation: Expectation, now: Now, timers: Timers
) -> Verified:
    """What was read, held against what is expected."""
    policy = expectation.policy
    primary = _primary(reading)
    timestamp: Timestamp | None = None
    until = now.utc + timers.timestamp_ttl + timers.clock_skew
    principal: str | None = None
    try:
        if policy is not None:
            primary = _check_primary(reading, primary, expectation)
        timestamp, until = _check_timestamp(reading, expectation, now, timers)
        principal = _check_user(reading, primary, keys, expectation)
    except SecurityFailure as error:
        reading.wrong(error)
    if reading.failure is not None:
        raise reading.failure
    if reading.body is None:
        raise SecurityFailure("the Body isn't signed", part="Body")
    return _verified(reading, primary, timestamp, principal, until)


def _reading(
    envelope: Envelope, keys: KeySource, expectation: Expectation, limits: Limits, trace: Trace | None
) -> Reading:
    policy = expectation.policy
    if envelope.security is None:
        if policy is not None and policy.protection_token == "context" and expectation.edition is not None:
            raise bad_context(expectation.edition, "the message has no Security header", missing=False)
        raise SecurityFailure("the message has no Security header", part="wsse:Security")
    tokens = Tokens(keys, expectation, trace)
    suite = None if policy is None else policy.suite
    return Reading(envelope, envelope.security, tokens, suite, limits, trace)


def _primary(reading: Reading) -> Signed | None:
    return next((signed for signed in reading.signed if not signed.endorsing), None)


def _check_primary(reading: Reading, primary: Signed | None, expectation: Expectation) -> Signed:
    """The one signature that carries the message: by the right key, over all that must be signed."""
    policy = expectation.policy
    if policy is None or primary is None:
        raise SecurityFailure("the message isn't signed", part="ds:Signature")
    if sum(not signed.endorsing for signed in reading.signed) != 1:
        raise SecurityFailure("more than one signature over the message", part="ds:Signature")
    endorsed = primary.signature.element
    for signed in reading.signed:
        if signed.endorsing and all(part.element is not endorsed for part in signed.covered.values()):
            raise SecurityFailure("a signature endorses another one than the message's", part="ds:Signature")
    kind = _TOKEN_KINDS[policy.protection_token]
    if primary.key.identity.kind != kind:
        raise SecurityFailure(f"signed by a {primary.key.identity.kind}, not a {kind}", part="ds:Signature")
    if policy.derived_keys and not primary.key.derived:
        raise SecurityFailure("signed by a key that isn't derived", part="ds:Signature")
    if kind == "encrypted-key" and expectation.request and not reading.of(EncryptedKey):
        raise SecurityFailure("a request must carry its EncryptedKey", part="xenc:EncryptedKey")
    names = {part.name for part in primary.covered.values()}
    if "Body" not in names:
        raise SecurityFailure("the Body isn't signed", part="Body")
    if "wsu:Timestamp" not in names:
        raise SecurityFailure("the Timestamp isn't signed", part="wsu:Timestamp")
    check_headers(reading.envelope, primary.covered.keys())
    _check_encryption(reading, primary, policy, expectation)
    return primary


def _check_encryption(
    reading: Reading, primary: Signed, policy: ProtectionPolicy, expectation: Expectation
) -> None:
    """What must be encrypted is, and everything encrypted is so under the signer's key."""
    names = {name for name, _ in reading.encrypted}
    if expectation.encrypted_body and policy.encrypt_body and "Body" not in names:
        raise SecurityFailure("the Body isn't encrypted", part="Body")
    if "Body" in names and policy.encrypt_signature and "ds:Signature" not in names:
        raise SecurityFailure("the Signature isn't encrypted", part="ds:Signature")
    for name, key in reading.encrypted:
        if key.identity != primary.key.identity:
            raise SecurityFailure(f"{name} is encrypted under another key than the signer's", part=name)
        if policy.derived_keys and not key.derived:
            raise SecurityFailure(f"{name} is encrypted under a key that isn't derived", part=name)


def _check_timestamp(
    reading: Reading, expectation: Expectation, now: Now, timers: Timers
) -> tuple[Timestamp | None, float]:
    """The Timestamp, and until when evidence of the message is to be kept (features MS-74)."""
    found = [entry.token for entry in reading.of(Timestamp) if isinstance(entry.token, Timestamp)]
    if len(found) > 1:
        raise SecurityFailure("more than one Timestamp", part="wsu:Timestamp")
    if not found:
        if expectation.policy is not None:
            raise SecurityFailure("the message has no Timestamp", part="wsu:Timestamp")
        return None, now.utc + timers.timestamp_ttl + timers.clock_skew
    timestamp = found[0]
    if timestamp.expires is not None and timestamp.expires <= timestamp.created:
        raise SecurityFailure("the Timestamp expires before it was created", part="wsu:Timestamp")
    end = timestamp.created + timers.timestamp_ttl
    if timestamp.expires is not None:
        end = min(end, timestamp.expires)
    until = end + timers.clock_skew
    if timestamp.created > now.utc + timers.clock_skew:
        raise SecurityFailure("the Timestamp lies in the future", part="wsu:Timestamp")
    if until < now.utc:
        fault = SOAPFault("Sender", "The message has expired.", (WSSE, "MessageExpired"))
        raise SecurityFailure("the Timestamp has expired", part="wsu:Timestamp", fault=fault)
    return timestamp, until


def _check_user(
    reading: Reading, primary: Signed | None, keys: KeySource, expectation: Expectation
) -> str | None:
    """The authenticated name of the UsernameToken, where there must be or is one (features MS-12)."""
    policy = expectation.policy
    wanted = policy is None or (policy.username and expectation.request)
    found = reading.of(UsernameToken)
    if not wanted or (policy is None and not found):
        return None
    if len(found) != 1:
        raise SecurityFailure("there must be exactly one UsernameToken", part="wsse:UsernameToken")
    entry = found[0]
    token = entry.token
    if not isinstance(token, UsernameToken):
        return None
    signed = primary is not None and _covers(primary, entry)
    if policy is not None and not (signed and entry.encrypted is not None):
        raise SecurityFailure("the UsernameToken isn't signed and encrypted", part="wsse:UsernameToken")
    right = _password_right(token, keys, policy)
    if reading.trace is not None:
        reading.trace.add(UsernameChecked(token.name, right, signed, entry.encrypted is not None))
        if right is None and policy is None:
            text = f"nobody here knows the user {token.name}"
            reading.trace.add(Problem(text, "wsse:UsernameToken", missing_key=True))
            return None
    if not right:
        # One text and one fault for a wrong password and for an unknown user (features MS-83).
        fault = SOAPFault(
            "Sender",
            "The security token could not be authenticated or authorized.",
            (WSSE, "FailedAuthentication"),
        )
        raise SecurityFailure("user name or password is wrong", part="wsse:UsernameToken", fault=fault)
    return token.name


def _password_right(token: UsernameToken, keys: KeySource, policy: ProtectionPolicy | None) -> bool | None:
    """Whether the password is right; None: an unknown user. Digests are read for `explain` only."""
    if policy is None and token.password is not None and token.password_type == PASSWORD_DIGEST:
        known = keys.password_of(token.name) if isinstance(keys, PasswordSource) else None
        if known is None:
            return None
        return hmac.compare_digest(token.password.strip(), password_digest(token, known.encode()))
    if token.password is None or token.password_type != PASSWORD_TEXT:
        raise SecurityFailure("a UsernameToken without a password as text", part="wsse:UsernameToken")
    return keys.authenticate(token.name, token.password)


def _covers(signed: Signed, entry: Entry) -> bool:
    return any(part.element is entry.element for part in signed.covered.values())


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
    reply_key: SealedKey | ContextKey | None = None
    if primary is not None:
        index = reading.signed.index(primary)
        headers = tuple(
            VerifiedHeader(block, header_name(block), primary.key.identity, index)
            for block in reading.envelope.headers
            if block.get(ID) in primary.covered and block is not reading.security
        )
        if isinstance(primary.key.source, SealedKey | ContextKey):
            reply_key = primary.key.source
    body = reading.body if reading.body is not None else reading.envelope.body
    return Verified(
        soap=reading.envelope.soap,
        headers=headers,
        body=body,
        body_content=reading.body_content,
        signatures=signatures,
        encrypted=frozenset(name for name, _ in reading.encrypted),
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
    if doubled := doubled_headers(envelope):
        raise SecurityFailure(f"{doubled[0]} stands twice", part=doubled[0])
    return Verified(
        soap=envelope.soap,
        headers=tuple(VerifiedHeader(block, header_name(block), None, -1) for block in envelope.headers),
        body=envelope.body,
        body_content=b"".join(canonical(child) for child in envelope.body),
        signatures=(),
        encrypted=frozenset(),
        timestamp=None,
        principal=None,
        reply_key=None,
        evidence=b"",
        expires=0.0,
    )
