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


def _suite(name: str, key_bytes: int) -> AlgorithmSuite:
    """A suite by its name: ``Basic128`` or ``Basic256``, then ``Sha256``, then ``Rsa15``."""
    sha256 = "Sha256" in name
    return AlgorithmSuite(
        name=name,
        digest=SHA256 if sha256 else SHA1,
        signatures=frozenset({HMAC_SHA1, RSA_SHA1} | ({HMAC_SHA256, RSA_SHA256} if sha256 else set())),
        hmac=HMAC_SHA256 if sha256 else HMAC_SHA1,
        rsa=RSA_SHA256 if sha256 else RSA_SHA1,
        encryption=AES128_CBC if key_bytes == 16 else AES256_CBC,
        key_transport=RSA_1_5 if name.endswith("Rsa15") else RSA_OAEP,
        signature_key_bytes=min(key_bytes, 24),
        encryption_key_bytes=key_bytes,
        minimum_bits=key_bytes * 8,
    )


SUITES: Final = {
    name: _suite(name, key_bytes)
    for base, key_bytes in (("Basic256", 32), ("Basic128", 16))
    for name in (base, f"{base}Sha256", f"{base}Rsa15", f"{base}Sha256Rsa15")
}
"""By name. Those with ``Rsa15`` transport keys by PKCS#1 1.5, which is read under the legacy switch
only."""
