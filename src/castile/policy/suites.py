"""Algorithm suites as rows (WS-SecurityPolicy 1.2, 6.1).

WS-SecurityPolicy changes only the digest in its ``Sha256`` suites; WCF changes the signatures
too. Both are read; `signature_hash` says which is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from castile.versions import DS, XENC

SHA1: Final = f"{DS}sha1"
SHA256: Final = f"{XENC}sha256"
HMAC_SHA1: Final = f"{DS}hmac-sha1"
HMAC_SHA256: Final = "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"
RSA_SHA1: Final = f"{DS}rsa-sha1"
RSA_SHA256: Final = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
AES128_CBC: Final = f"{XENC}aes128-cbc"
AES256_CBC: Final = f"{XENC}aes256-cbc"
RSA_OAEP: Final = f"{XENC}rsa-oaep-mgf1p"
RSA_1_5: Final = f"{XENC}rsa-1_5"


@dataclass(frozen=True, slots=True)
class AlgorithmSuite:
    """What a message may use, and what castile sends."""

    name: str
    digest: str
    signatures: frozenset[str]
    """Accepted signature algorithms, symmetric and asymmetric."""
    hmac: str
    """Sent for symmetric signatures."""
    rsa: str
    """Sent for asymmetric signatures."""
    encryption: str
    key_transport: str
    signature_key_bytes: int
    """Length of the derived signing key (features SC-14)."""
    encryption_key_bytes: int
    minimum_bits: int
    """KeySize asked for an SCT (features SC-06)."""


def _suite(name: str, key_bytes: int, encryption: str, signing_bytes: int, sha256: bool) -> AlgorithmSuite:
    return AlgorithmSuite(
        name=name,
        digest=SHA256 if sha256 else SHA1,
        signatures=frozenset({HMAC_SHA1, RSA_SHA1} | ({HMAC_SHA256, RSA_SHA256} if sha256 else set())),
        hmac=HMAC_SHA256 if sha256 else HMAC_SHA1,
        rsa=RSA_SHA256 if sha256 else RSA_SHA1,
        encryption=encryption,
        key_transport=RSA_OAEP,
        signature_key_bytes=signing_bytes,
        encryption_key_bytes=key_bytes,
        minimum_bits=key_bytes * 8,
    )


SUITES: Final = {
    row.name: row
    for row in (
        _suite("Basic256", 32, AES256_CBC, 24, sha256=False),
        _suite("Basic256Sha256", 32, AES256_CBC, 24, sha256=True),
        _suite("Basic128", 16, AES128_CBC, 16, sha256=False),
        _suite("Basic128Sha256", 16, AES128_CBC, 16, sha256=True),
    )
}
