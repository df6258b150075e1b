"""How the key of a security context comes about: from both sides' entropy, or from one's alone
(WS-Trust 1.3, 4.4; features F03, SC-05)."""

from __future__ import annotations

import hmac
from typing import Final

from castile.endpoint.party import Party
from castile.errors import SecurityFailure
from castile.messages.trust import RequestSecurityTokenResponse
from castile.security.encryption import open_key
from castile.security.keys import p_sha1

ENTROPY_BYTES: Final = 32
"""Of either side, as WCF's (SC-03)."""
_LEAST_ENTROPY: Final = 16
_KEY_BITS: Final = range(128, 512 + 1, 8)


def make(party: Party, entropy: bytes | None, length: int) -> tuple[bytes, bytes | None]:
    """A service's new secret for a client's entropy, and its own entropy to tell.

    Without the client's the secret is the service's alone, and is itself what is told.
    """
    if entropy is None:
        return party.random(length), None
    ours = party.random(ENTROPY_BYTES)
    return p_sha1(entropy, ours, length), ours


def agreed(party: Party, answer: RequestSecurityTokenResponse, entropy: bytes | None) -> bytes:
    """A client's secret by the service's answer; `entropy` is what the client sent.

    A key in the answer may be the service's alone (Rampart; CXF where it renews), or the client's
    own entropy taken for it (Metro). Raises `SecurityFailure` where the policy wants both sides'.
    """
    if answer.computed_key:
        return _computed(party, answer, entropy)
    key = answer.proof_secret
    if answer.proof_key is not None:
        key = _opened(party, answer)
    elif key is None and answer.entropy is None:
        key = entropy  # no proof token: the client's key was taken as it is (WS-Trust 1.3, 4.4.3)
    if key is None:
        raise _refused("the answer holds no key")
    if len(key) * 8 not in _KEY_BITS:
        raise _refused(f"the answer's key has {len(key)} bytes: 16 to 64 are taken (SC-06)")
    own = entropy is not None and hmac.compare_digest(key, entropy)
    if own and party.policy.require_server_entropy:
        raise _refused("the key is the client's alone, and the policy wants the service's entropy in it")
    if not own and party.policy.require_client_entropy:
        raise _refused("the key is the service's alone, and the policy wants the client's entropy in it")
    return key


def _computed(party: Party, answer: RequestSecurityTokenResponse, entropy: bytes | None) -> bytes:
    section = party.policy.bootstrap
    bits = answer.key_size or (section.suite.minimum_bits if section else 256)
    if entropy is None or answer.entropy is None:
        raise _refused("a computed key needs the entropy of both sides")
    if len(answer.entropy) < _LEAST_ENTROPY:
        raise _refused(f"the answer's entropy has {len(answer.entropy)} bytes: {_LEAST_ENTROPY} are needed")
    if bits not in _KEY_BITS:
        raise _refused(f"the answer has a key of {bits} bits: 128 to 512 are taken (SC-06)")
    return p_sha1(entropy, answer.entropy, bits // 8)


def _opened(party: Party, answer: RequestSecurityTokenResponse) -> bytes:
    """The key that was encrypted for our certificate."""
    sealed = answer.proof_key
    info = sealed.key if sealed is not None else None
    private = None
    if info is not None and info.reference is not None:
        private = party.keyring.private_key(info.reference)
    if sealed is None or private is None:
        raise _refused("the answer's key is encrypted for somebody else")
    section = party.policy.bootstrap
    return open_key(private, sealed, section.suite if section else None, legacy=party.settings.legacy)


def _refused(text: str) -> SecurityFailure:
    return SecurityFailure(text, part="Body")
