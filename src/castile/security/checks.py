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
    EncryptedData,
    SignatureConfirmation,
    Timestamp,
    UsernameToken,
)
from castile.policy import ProtectionPolicy
from castile.security.certificates import subject_of
from castile.security.coverage import check_headers
from castile.security.expectation import Expectation
from castile.security.keys import KeySource, PasswordSource, password_digest
from castile.security.reading import Reading, Signed
from castile.security.trace import Problem, UsernameChecked
from castile.versions import PASSWORD_DIGEST, PASSWORD_TEXT, WSSE

_SIGNERS: Final = {
    ("symmetric", "context"): "context",
    ("symmetric", "x509"): "encrypted-key",
    ("asymmetric", "x509"): "certificate",
}
"""Binding and protection token to the kind of key that signs."""
_ENDORSERS: Final = frozenset({"certificate", "context"})


def primary_of(reading: Reading) -> Signed | None:
    """The signature that carries the message; None where nothing is signed."""
    return next((signed for signed in reading.signed if not signed.endorsing), None)


def check_primary(reading: Reading, primary: Signed | None, policy: ProtectionPolicy) -> Signed:
    """The one signature that carries the message: by the right key, over all that must be signed."""
    if primary is None:
        raise _refused("the message isn't signed")
    if sum(not signed.endorsing for signed in reading.signed) != 1:
        raise _refused("more than one signature over the message")
    _check_signer(primary, policy, request=reading.expectation.request)
    names = {part.name for part in primary.covered.values()}
    if "Body" not in names:
        raise SecurityFailure("the Body isn't signed", part="Body")
    if "wsu:Timestamp" not in names:
        raise SecurityFailure("the Timestamp isn't signed", part="wsu:Timestamp")
    check_headers(reading.headers, primary.covered.keys())
    _check_endorsing(reading, primary, policy)
    if policy.protect_tokens:
        for signed in reading.signed:
            _check_token(signed)
    _check_encryption(reading, primary, policy)
    _check_confirmations(reading, primary, policy)
    _check_layout(reading, policy)
    return primary


def _refused(text: str) -> SecurityFailure:
    return SecurityFailure(text, part="ds:Signature")


def _check_signer(primary: Signed, policy: ProtectionPolicy, *, request: bool) -> None:
    """The key is of the kind that the policy names for this role, and nothing else (features MS-20)."""
    key = primary.key
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


def _check_endorsing(reading: Reading, primary: Signed, policy: ProtectionPolicy) -> None:
    """Signatures beside the primary one sign it, and are the client's where one is asked for."""
    certificates = 0
    for signed in reading.signed:
        if not signed.endorsing:
            continue
        if not signed.covers(primary.entry):
            raise _refused("a signature endorses another one than the message's")
        if signed.key.identity.kind not in _ENDORSERS:
            raise _refused(f"endorsed by a {signed.key.identity.kind}")
        certificates += signed.key.identity.kind == "certificate"
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


def _check_encryption(reading: Reading, primary: Signed, policy: ProtectionPolicy) -> None:
    """What must be encrypted is, and everything encrypted is so under the key that may."""
    expectation, opening = reading.expectation, reading.opening
    names = {name for name, _ in opening.encrypted}
    if expectation.encrypted_body and policy.parts.encrypted_body and "Body" not in names:
        raise SecurityFailure("the Body isn't encrypted", part="Body")
    if "Body" in names and policy.encrypt_signature and primary.entry.encrypted is None:
        # The primary signature and the confirmations (WS-SP 1.2, 6.4), no endorsing one: Metro leaves
        # that in clear.
        raise _refused("the Signature isn't encrypted")
    first = opening.encrypted[0][1] if opening.encrypted else None
    for name, key in opening.encrypted:
        if policy.binding == "asymmetric":
            # Sealed for us in this very message; who encrypts is told by the signature alone.
            if key.identity.kind != "encrypted-key" or key.token is None or first is None:
                raise SecurityFailure(f"{name} is encrypted under a {key.identity.kind}", part=name)
            if key.identity != first.identity:
                raise SecurityFailure(f"{name} is encrypted under another key than the rest", part=name)
        elif key.identity != primary.key.identity:
            raise SecurityFailure(f"{name} is encrypted under another key than the signer's", part=name)
        if policy.derived_keys and not key.derived:
            raise SecurityFailure(f"{name} is encrypted under a key that isn't derived", part=name)


def _check_confirmations(reading: Reading, primary: Signed, policy: ProtectionPolicy) -> None:
    """A response confirms each signature of its request, once, and no other (WSS 1.1.1, 8.5)."""
    expectation, part = reading.expectation, "wsse11:SignatureConfirmation"
    found = reading.of(SignatureConfirmation)
    if expectation.request:
        if found:
            raise SecurityFailure("a request confirms signatures", part=part)
        return
    if not found and policy.signature_confirmation:
        raise SecurityFailure("the response doesn't confirm the signatures of its request", part=part)
    if any(not primary.covers(entry) for entry in found):
        raise SecurityFailure("a SignatureConfirmation isn't signed", part=part)
    hidden = policy.encrypt_signature and primary.entry.encrypted is not None
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
        if policy is not None:
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
    """Whether the password is right; None: an unknown user.

    A digest is read where the policy allows it. Its token needs no memory of nonces: it is signed,
    and the signature's value is remembered.
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
