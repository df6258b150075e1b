"""Envelopes under keys: `protect` and `unprotect`, and the keys that they work with."""

from __future__ import annotations

from castile.security.keys import ContextKey, KeySource, SealedKey, p_sha1
from castile.security.pipeline import (
    Expectation,
    Protected,
    Protection,
    Verified,
    VerifiedHeader,
    VerifiedSignature,
    protect,
    unprotect,
)
from castile.security.trace import KeyIdentity, Trace

__all__ = [
    "ContextKey",
    "Expectation",
    "KeyIdentity",
    "KeySource",
    "Protected",
    "Protection",
    "SealedKey",
    "Trace",
    "Verified",
    "VerifiedHeader",
    "VerifiedSignature",
    "p_sha1",
    "protect",
    "unprotect",
]
