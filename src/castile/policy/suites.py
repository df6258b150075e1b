"""Algorithm suites as rows (WS-SecurityPolicy 1.2, 6.1).

WS-SecurityPolicy changes only the digest in its ``Sha256`` suites; WCF changes the signatures
too. Both are read; `signature_hash` says which is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from castile.versions import DS, XENC, XENC11

SHA1: Final = f"{DS}sha1"
SHA256: Final = f"{XENC}sha256"
HMAC_SHA1: Final = f"{DS}hmac-sha1"
HMAC_SHA256: Final = "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"
RSA_SHA1: Final = f"{DS}rsa-sha1"
RSA_SHA256: Final = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
AES128_CBC: Final = f"{XENC}aes128-cbc"
AES192_CBC: Final = f"{XENC}aes192-cbc"
AES256_CBC: Final = f"{XENC}aes256-cbc"
TRIPLEDES_CBC: Final = f"{XENC}tripledes-cbc"
AES128_GCM: Final = f"{XENC11}aes128-gcm"
AES192_GCM: Final = f"{XENC11}aes192-gcm"
AES256_GCM: Final = f"{XENC11}aes256-gcm"
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


    @property
    def authenticates(self) -> bool:
        """Its encryption shows tampering by itself: GCM."""
        return self.encryption.endswith("gcm")


_ENCRYPTION: Final = {
    "Basic256": (32, AES256_CBC),
    "Basic192": (24, AES192_CBC),
    "Basic128": (16, AES128_CBC),
    "TripleDes": (24, TRIPLEDES_CBC),
    "Basic256GCM": (32, AES256_GCM),
    "Basic192GCM": (24, AES192_GCM),
    "Basic128GCM": (16, AES128_GCM),
}
"""Octets of the key, and the algorithm. The last three are Apache CXF's."""


def _suite(base: str, suffix: str) -> AlgorithmSuite:
    """A suite by the two halves of its name: ``Basic128``, and ``Sha256``, ``Rsa15`` or both."""
    key_bytes, encryption = _ENCRYPTION[base]
    sha256 = suffix.startswith("Sha256")
    return AlgorithmSuite(
        name=base + suffix,
        digest=SHA256 if sha256 else SHA1,
        signatures=frozenset({HMAC_SHA1, RSA_SHA1} | ({HMAC_SHA256, RSA_SHA256} if sha256 else set())),
        hmac=HMAC_SHA256 if sha256 else HMAC_SHA1,
        rsa=RSA_SHA256 if sha256 else RSA_SHA1,
        encryption=encryption,
        key_transport=RSA_1_5 if suffix.endswith("Rsa15") else RSA_OAEP,
        signature_key_bytes=min(key_bytes, 24),
        encryption_key_bytes=key_bytes,
        minimum_bits=key_bytes * 8,
    )


SUITES: Final = {
    base + suffix: _suite(base, suffix)
    for base in _ENCRYPTION
    for suffix in ("", "Sha256", "Rsa15", "Sha256Rsa15")
}
"""By name. Those with ``Rsa15`` transport keys by PKCS#1 1.5, which is read under the legacy switch
only."""
