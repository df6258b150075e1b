"""What was read, held against what the policy asks for: the rules of one message as a whole.

Each rule refuses; none repairs. They look at signatures that held, at nothing else.
"""

from __future__ import annotations

import hmac
from collections import Counter
from typing import Final

from cryptography import x509

from castile.clock import Now
from castile.config import Timers
from castile.errors import SecurityFailure, SOAPFault
from castile.messages.security import (
    BinarySecurityToken,
    EncryptedData,
    EncryptedKey,
    ReferenceList,
    SignatureConfirmation,
    Timestamp,
    UsernameToken,
    parse_instant,
)
from castile.policy import ProtectionPolicy, SupportingToken
from castile.policy.parts import names
from castile.security.certificates import certificates_of, subject_of
from castile.security.coverage import (
    check_headers,
    check_present,
    doubled_headers,
    header_name,
    required_headers,
)
from castile.security.expectation import Expectation
from castile.security.keys import KeySource, PasswordSource, password_digest
from castile.security.reading import Reading, Signed
from castile.security.tokens import Entry, Key
from castile.security.trace import Problem, UsernameChecked
from castile.versions import PASSWORD_DIGEST, PASSWORD_TEXT, WSSE
from castile.xml import name_of

_SIGNERS: Final = {
    ("symmetric", "context"): "context",
    ("symmetric", "x509"): "encrypted-key",
    ("asymmetric", "x509"): "certificate",
}
"""Binding and protection token to the kind of key that signs."""
_ENDORSERS: Final = frozenset({"certificate", "context"})
_KINDS: Final = {"x509": "certificate", "context": "context"}
"""Supporting token to the kind of its key."""


def primary_of(reading: Reading) -> Signed | None:
    """The signature that carries the message; None where nothing is signed."""
    return next((signed for signed in reading.signed if not signed.endorsing), None)


def check_bound(reading: Reading, primary: Signed | None, policy: ProtectionPolicy) -> None:
    """The one signature that carries the message: by the right key, over all that must be signed.

    None: right only where the policy has nothing signed.
    """
    if primary is None and (policy.signs_body or policy.timestamp or policy.parts.signed_headers):
        # Also where none of the headers is there: they are all that tells who sent it.
        raise _refused("the message isn't signed")
    if sum(not signed.endorsing for signed in reading.signed) > 1:
        raise _refused("more than one signature over the message")
    signed_parts = {part.name for part in primary.covered.values()} if primary is not None else set()
    if primary is not None:
        _check_signer(primary.key, policy, request=reading.expectation.request)
        if any(primary.signature.value in attempt for attempt in reading.expectation.confirmations or ()):
            # Both sides have the key, and nothing covers how a signature refers to it.
            raise _refused("the response is the request itself, sent back")
    if policy.signs_body and "Body" not in signed_parts:
        raise SecurityFailure("the Body isn't signed", part="Body")
    if policy.timestamp and "wsu:Timestamp" not in signed_parts:
        raise SecurityFailure("the Timestamp isn't signed", part="wsu:Timestamp")
    check_headers(reading.blocks, reading.covered_headers(primary), policy.parts)
    _check_endorsing(reading, primary, policy)
    if policy.protect_tokens:
        for signed in reading.signed:
            _check_token(signed)
    _check_shown(reading, primary, policy)
    _check_encryption(reading, primary, policy)
    _check_confirmations(reading, primary, policy)
    _check_layout(reading, policy)


def check_transport(reading: Reading, policy: ProtectionPolicy) -> None:
    """Under TLS: no signature but those of supporting tokens, over the Timestamp, and nothing that
    is encrypted (WS-SP 1.2, 7.3; features CO-11, MS-57)."""
    check_channel(reading.expectation, policy)
    if reading.of(EncryptedData, EncryptedKey, ReferenceList) or reading.opening.encrypted:
        text = "something is encrypted, where the policy has TLS do that"
        raise SecurityFailure(text, part="xenc:EncryptedData")
    left = list(reading.signed)
    for row in policy.supporting if reading.expectation.request else ():
        if not row.endorsing:
            continue
        found = [signed for signed in left if signed.key.identity.kind == _KINDS[row.token]]
        if len(found) != 1:
            raise _refused(f"{len(found)} signatures of a {row.token} token over the Timestamp, not one")
        left.remove(found[0])
        _check_row(reading, found[0], row, policy)
    if left:
        raise _refused(f"signed by a {left[0].key.identity.kind}, which the policy doesn't ask for")
    for name in doubled_headers(reading.blocks):
        raise SecurityFailure(f"{name} stands twice", part=name)
    check_present(reading.blocks, policy.parts.required)
    if policy.protect_tokens:
        for signed in reading.signed:
            _check_token(signed)
    _check_shown(reading, None, policy)
    _check_confirmations(reading, None, policy)
    _check_layout(reading, policy)


def check_channel(expectation: Expectation, policy: ProtectionPolicy) -> None:
    """The connection is TLS, where the policy leaves protection to it.

    Without, a mere user may come, where the settings let a password go in clear (features MS-12).
    """
    if not (expectation.tls or (policy.of_a_user and expectation.clear_password)):
        raise SecurityFailure("the policy leaves protection to TLS, and the connection has none")


def _check_row(reading: Reading, signed: Signed, row: SupportingToken, policy: ProtectionPolicy) -> None:
    """One endorsing signature over TLS covers the Timestamp and the parts of its token.

    One that must cover nothing would be good for every message, and at every service.
    """
    parts = row.parts
    stamped = any(signed.covers(entry) for entry in reading.of(Timestamp))
    named = parts.signed_body or parts.every_header or required_headers(reading.blocks, parts)
    if not stamped and (policy.timestamp or not named):
        raise _refused(f"the {row.token} token doesn't sign the Timestamp")
    _check_endorser(reading, signed, row)


def _check_endorser(reading: Reading, signed: Signed, row: SupportingToken) -> None:
    """What the policy of an endorsing token asks of its signature."""
    if row.derived_keys and not signed.key.derived:
        raise _refused("endorsed by a key that isn't derived")
    body = any(part.name == "Body" for part in signed.covered.values())
    if (row.parts.signed_body or row.parts.every_header) and not body:
        raise SecurityFailure(f"the {row.token} token doesn't sign the Body", part="Body")
    covered = reading.covered_headers(signed)
    for block in required_headers(reading.blocks, row.parts):
        if block not in covered:
            name = header_name(block)
            raise SecurityFailure(f"the {row.token} token doesn't sign {name}", part=name)


def _check_shown(reading: Reading, primary: Signed | None, policy: ProtectionPolicy) -> None:
    """Certificates that a policy wants in its requests: those that only stand there, and those that
    must be signed beside."""
    row = policy.supports("x509")
    if row is None or not reading.expectation.request:
        return
    if row.endorsing:
        keys = (s.key for s in reading.signed if s is not primary and s.key.public is not None)
        tokens = [key.token for key in keys if key.token is not None]
        if not tokens:
            return  # it is referred to by name
    else:
        tokens = [entry for entry in reading.of(BinarySecurityToken) if not _signs(reading, entry)]
    if row.signed and policy.signs:
        tokens = [entry for entry in tokens if primary is not None and primary.covers(entry)]
    if not tokens:
        text = "a certificate isn't shown as the policy wants it"
        raise SecurityFailure(text, part="wsse:BinarySecurityToken")
    token = tokens[0].token
    if not row.endorsing and isinstance(token, BinarySecurityToken):
        *path, certificate = certificates_of(token)
        reading.expectation.trust.check(certificate, path, reading.now.utc)


def _signs(reading: Reading, entry: Entry) -> bool:
    """Whether this token is the one of a signature's key."""
    tokens = (signed.key.token for signed in reading.signed)
    return any(token is not None and token.place == entry.place for token in tokens)


def _refused(text: str) -> SecurityFailure:
    return SecurityFailure(text, part="ds:Signature")


def _check_signer(key: Key, policy: ProtectionPolicy, *, request: bool) -> None:
    """The key is of the kind that the policy names for this role, and nothing else (features MS-20)."""
    kind = _SIGNERS.get((policy.binding, policy.protection_token))
    if key.identity.kind != kind:
        raise _refused(f"signed by a {key.identity.kind}, not a {kind}")
    if policy.derived_keys and policy.binding == "symmetric" and not key.derived:
        raise _refused("signed by a key that isn't derived")
    if kind == "encrypted-key" and request and key.token is None:
        raise SecurityFailure("a request must carry its EncryptedKey", part="xenc:EncryptedKey")
    if kind == "encrypted-key" and not request and key.token is not None:
        # Whoever has our certificate can seal a key for us: a response is under the request's.
        raise SecurityFailure("a response is signed by a key that it brings itself", part="xenc:EncryptedKey")


def _check_endorsing(reading: Reading, primary: Signed | None, policy: ProtectionPolicy) -> None:
    """Signatures beside the primary one sign it, and are the client's where one is asked for."""
    certificates = 0
    for signed in reading.signed:
        if signed is primary:
            continue
        if primary is None or not signed.covers(primary.entry):
            raise _refused("a signature endorses another one than the message's")
        kind = signed.key.identity.kind
        if kind not in _ENDORSERS:
            raise _refused(f"endorsed by a {kind}")
        certificates += kind == "certificate"
        row = policy.supports("x509" if kind == "certificate" else "context", endorsing=True)
        if row is not None:
            _check_endorser(reading, signed, row)
    if policy.endorsing and reading.expectation.request and certificates != 1:
        raise _refused(f"{certificates} certificates endorse the message's signature, not one")


def _check_token(signed: Signed) -> None:
    """The signature covers the token of its key, as far as one is in the message or is named."""
    token = signed.key.token
    if token is not None:
        covered = signed.covers(token)
    elif isinstance(signed.key.source, x509.Certificate):
        covered = any(part.signer is signed.entry and part.token for part in signed.covered.values())
    else:
        covered = True
    if not covered:
        raise _refused("a signature doesn't cover the token of its key")


def _check_encryption(reading: Reading, primary: Signed | None, policy: ProtectionPolicy) -> None:
    """What must be encrypted is, and everything encrypted is so under the key that may."""
    expectation, opening, parts = reading.expectation, reading.opening, policy.parts
    found = {name for name, _ in opening.encrypted}
    if expectation.encrypted_body:
        empty = policy.signs_body and not len(reading.envelope.body) and not reading.envelope.body.text
        if parts.encrypted_body and "Body" not in found and not empty:
            raise SecurityFailure("the Body isn't encrypted", part="Body")
        for block in reading.blocks if parts.encrypted_headers else ():
            if block in reading.envelope.headers and names(parts.encrypted_headers, *name_of(block)):
                name = header_name(block)
                raise SecurityFailure(f"{name} isn't encrypted", part=name)
    hidden = "Body" in found or reading.headers != list(reading.envelope.headers)
    if hidden and policy.encrypt_signature and primary is not None and primary.entry.encrypted is None:
        # The primary signature and the confirmations (WS-SP 1.2, 6.4), no endorsing one: Metro leaves
        # that in clear.
        raise _refused("the Signature isn't encrypted")
    if not opening.encrypted:
        return
    first = opening.encrypted[0][1]
    if primary is None and policy.binding == "symmetric":
        _check_signer(first, policy, request=expectation.request)
    signer = primary.key if primary is not None and policy.binding == "symmetric" else first
    for name, key in opening.encrypted:
        # In the asymmetric binding sealed for us in this very message; who encrypts is told by the
        # signature alone.
        if policy.binding == "asymmetric" and (key.identity.kind != "encrypted-key" or key.token is None):
            raise SecurityFailure(f"{name} is encrypted under a {key.identity.kind}", part=name)
        if key.identity != signer.identity:
            raise SecurityFailure(f"{name} is encrypted under another key than the rest", part=name)
        if policy.derived_keys and not key.derived:
            raise SecurityFailure(f"{name} is encrypted under a key that isn't derived", part=name)


def _check_confirmations(reading: Reading, primary: Signed | None, policy: ProtectionPolicy) -> None:
    """A response confirms each signature of its request, once, and no other (WSS 1.1.1, 8.5)."""
    expectation, part = reading.expectation, "wsse11:SignatureConfirmation"
    found = reading.of(SignatureConfirmation)
    if expectation.request:
        if found:
            raise SecurityFailure("a request confirms signatures", part=part)
        return
    if not found and policy.signature_confirmation:
        raise SecurityFailure("the response doesn't confirm the signatures of its request", part=part)
    if policy.signs and any(primary is None or not primary.covers(entry) for entry in found):
        raise SecurityFailure("a SignatureConfirmation isn't signed", part=part)
    hidden = policy.encrypt_signature and primary is not None and primary.entry.encrypted is not None
    if hidden and any(entry.encrypted is None for entry in found):
        raise SecurityFailure("a SignatureConfirmation isn't encrypted", part=part)
    if not found or (expectation.confirmations is None and not policy.signature_confirmation):
        return
    confirmed = Counter(
        entry.token.value or b"" for entry in found if isinstance(entry.token, SignatureConfirmation)
    )
    if not any(confirmed == Counter(attempt or (b"",)) for attempt in expectation.confirmations or ()):
        raise SecurityFailure("the response confirms other signatures than its request had", part=part)


def _check_layout(reading: Reading, policy: ProtectionPolicy) -> None:
    """The order of the Security header (WS-SecurityPolicy 1.2, 6.7; features MS-02)."""
    stamps = reading.of(Timestamp)
    if policy.layout == "LaxTsFirst" and any(entry.place != 0 for entry in stamps):
        raise SecurityFailure("the Timestamp isn't first in its header", part="wsu:Timestamp")
    if policy.layout == "LaxTsLast" and any(entry.place != len(reading.security) - 1 for entry in stamps):
        raise SecurityFailure("the Timestamp isn't last in its header", part="wsu:Timestamp")
    if policy.layout != "Strict":
        return
    for signed in reading.signed:
        for part in signed.covered.values():
            if part.place is not None and part.place >= signed.entry.place:
                raise SecurityFailure(f"{part.name} stands behind its signature", part=part.name)
    for entry in reading.entries:
        if entry.cipher is None and not isinstance(entry.token, EncryptedData):
            continue
        listed = reading.opening.listing_place(entry)
        if listed is None or listed >= entry.place:
            raise SecurityFailure(f"no list before {entry.part} says that it is encrypted", part=entry.part)


def check_timestamp(
    reading: Reading, policy: ProtectionPolicy | None, now: Now, timers: Timers
) -> tuple[Timestamp | None, float]:
    """The Timestamp, and until when evidence of the message is to be kept (features MS-74)."""
    found = [entry.token for entry in reading.of(Timestamp) if isinstance(entry.token, Timestamp)]
    if len(found) > 1:
        raise SecurityFailure("more than one Timestamp", part="wsu:Timestamp")
    if not found:
        if policy is not None and policy.timestamp:
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


def principal(
    reading: Reading, primary: Signed | None, keys: KeySource, expectation: Expectation
) -> str | None:
    """Who sends the message: the user whose password is right, else the subject of the certificate
    that signs or endorses a request."""
    policy = expectation.policy
    user = _check_user(reading, primary, keys, expectation)
    if user is not None or policy is None or not expectation.request:
        return user
    for signed in reading.signed:
        if isinstance(signed.key.source, x509.Certificate):
            return subject_of(signed.key.source)
    return None


def _check_user(
    reading: Reading, primary: Signed | None, keys: KeySource, expectation: Expectation
) -> str | None:
    """The authenticated name of the UsernameToken, where there must be or is one (features MS-12)."""
    policy = expectation.policy
    wanted = policy is None or (policy.username is not None and expectation.request)
    found = reading.of(UsernameToken)
    if not wanted or (policy is None and not found):
        return None
    if len(found) != 1:
        raise SecurityFailure("there must be exactly one UsernameToken", part="wsse:UsernameToken")
    entry = found[0]
    token = entry.token
    if not isinstance(token, UsernameToken):
        return None
    signed = primary is not None and primary.covers(entry)
    if policy is not None:
        _check_cover(entry, policy, signed=signed, clear=expectation.clear_password)
    if policy is not None and policy.username is not None and policy.username.password == "none":
        return None  # a name that nobody proves: whoever signs or endorses is the principal
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


def check_freshness(token: UsernameToken, now: Now, timers: Timers) -> float:
    """Until when the nonce of a UsernameToken must be remembered; one that is older, or from the
    future, is refused (UsernameToken profile 1.1.1, 3.1)."""
    created = parse_instant(token.created) if token.created is not None else now.utc
    until = created + timers.timestamp_ttl + timers.clock_skew
    if created > now.utc + timers.clock_skew:
        raise SecurityFailure("the UsernameToken lies in the future", part="wsse:UsernameToken")
    if until < now.utc:
        fault = SOAPFault("Sender", "The message has expired.", (WSSE, "MessageExpired"))
        raise SecurityFailure("the UsernameToken has expired", part="wsse:UsernameToken", fault=fault)
    return until


def _check_cover(entry: Entry, policy: ProtectionPolicy, *, signed: bool, clear: bool) -> None:
    """A UsernameToken stands under what the policy puts it under, and a password as text under
    encryption or TLS (features MS-12)."""
    row, token = policy.username, entry.token
    if row is None or not isinstance(token, UsernameToken):
        return
    if (row.nonce and token.nonce is None) or (row.created and token.created is None):
        raise SecurityFailure("the UsernameToken lacks its Nonce or Created", part="wsse:UsernameToken")
    if policy.binding == "transport":
        return
    text = token.password is not None and token.password_type == PASSWORD_TEXT
    sealed = entry.encrypted is not None
    if (row.signed and not signed) or (not sealed and (row.encrypted or (text and not clear))):
        raise SecurityFailure("the UsernameToken isn't signed and encrypted", part="wsse:UsernameToken")


def _password_right(token: UsernameToken, keys: KeySource, policy: ProtectionPolicy | None) -> bool | None:
    """Whether the password is right; None: an unknown user.

    A digest is read where the policy allows it. What makes it good for one message only is the
    evidence of that message: the signature over it, or over TLS its nonce (`pipeline.evidence_of`).
    """
    digests = policy is None or (policy.username is not None and policy.username.password == "digest")
    if digests and token.password is not None and token.password_type == PASSWORD_DIGEST:
        if policy is not None and (token.nonce is None or token.created is None):
            raise SecurityFailure("a password digest without nonce and time", part="wsse:UsernameToken")
        known = keys.password_of(token.name) if isinstance(keys, PasswordSource) else None
        # An unknown user costs the same as a wrong password.
        same = hmac.compare_digest(
            token.password.strip().encode(), password_digest(token, (known or "").encode()).encode()
        )
        return None if known is None else same
    if token.password is None or token.password_type != PASSWORD_TEXT:
        raise SecurityFailure("a UsernameToken without a password as text", part="wsse:UsernameToken")
    return keys.authenticate(token.name, token.password)
