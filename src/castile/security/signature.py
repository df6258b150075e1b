"""XML Signature: algorithms as rows, MACs and signatures made and checked.

A key verifies only methods of its own kind: octets never serve as a public key, nor the other
way round. Every comparison takes constant time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.hmac import HMAC

from castile.errors import SecurityFailure
from castile.messages.signature import Signature, Transform
from castile.policy import suites
from castile.policy.suites import AlgorithmSuite
from castile.versions import EXC_C14N
from castile.xml import Element, canonical

Key = bytes | RSAPublicKey

DIGESTS: Final[dict[str, Callable[[bytes], bytes]]] = {
    suites.SHA1: lambda octets: hashlib.sha1(octets).digest(),  # noqa: S324 - by suite only
    suites.SHA256: lambda octets: hashlib.sha256(octets).digest(),
}
"""By algorithm URI."""


@dataclass(frozen=True, slots=True)
class Method:
    """A signature algorithm."""

    symmetric: bool
    hash: type[HashAlgorithm] = field(repr=False)


METHODS: Final = {
    suites.HMAC_SHA1: Method(True, SHA1),
    suites.HMAC_SHA256: Method(True, SHA256),
    suites.RSA_SHA1: Method(False, SHA1),
    suites.RSA_SHA256: Method(False, SHA256),
}
"""By algorithm URI; what a message may use is its suite's choice (features MS-34)."""


def sign(method: str, key: bytes | RSAPrivateKey, octets: bytes) -> bytes:
    """A signature's value over canonical octets: an HMAC, or an RSA signature."""
    if isinstance(key, bytes):
        return mac(method, key, octets)
    return key.sign(octets, PKCS1v15(), METHODS[method].hash())


def mac(method: str, key: bytes, octets: bytes) -> bytes:
    """The HMAC of a symmetric method over canonical octets."""
    keyed = HMAC(key, METHODS[method].hash())
    keyed.update(octets)
    return keyed.finalize()


def check_algorithms(signature: Signature, suite: AlgorithmSuite | None) -> None:
    """Refuse what the suite doesn't allow, before any key is used (features MS-30, MS-39, MS-40).

    None: everything that castile can read.
    """
    methods = METHODS.keys() if suite is None else suite.signatures
    if signature.method not in METHODS or signature.method not in methods:
        raise _refused(f"the signature method {signature.method}")
    _check_canonicalization(signature.canonicalization)
    digests = DIGESTS.keys() if suite is None else (suite.digest,)
    for reference in signature.references:
        if reference.digest_method not in DIGESTS or reference.digest_method not in digests:
            raise _refused(f"the digest method {reference.digest_method}")
        if len(reference.transforms) != 1:
            raise _refused("a reference with other transforms than one exclusive C14N")
        transform = reference.transforms[0]
        # The token of a reference is digested in the form that stands inside (WSS 1.1.1, 8.3).
        _check_canonicalization(transform.inner if transform.inner is not None else transform)


def _check_canonicalization(transform: Transform) -> None:
    if transform.algorithm != EXC_C14N:
        raise _refused(f"the transform or canonicalisation {transform.algorithm}")


def _refused(what: str) -> SecurityFailure:
    return SecurityFailure(f"{what} isn't allowed here", part="ds:Signature")


def value_holds(signature: Signature, key: Key) -> bool:
    """Whether the signature's value is right over its SignedInfo under this key."""
    method = METHODS[signature.method]
    octets = canonical(signature.signed_info, signature.canonicalization.prefixes)
    if method.symmetric:
        if not isinstance(key, bytes):
            return False
        return hmac.compare_digest(mac(signature.method, key, octets), signature.value)
    if isinstance(key, bytes):
        return False
    try:
        key.verify(signature.value, octets, PKCS1v15(), method.hash())
    except InvalidSignature:
        return False
    return True


def digest_holds(octets: bytes, method: str, expected: bytes) -> bool:
    """Whether octets have this digest."""
    return hmac.compare_digest(DIGESTS[method](octets), expected)


def canonical_part(element: Element, transform: Transform) -> bytes:
    """The octets of a referenced element that are digested."""
    return canonical(element, transform.prefixes)
