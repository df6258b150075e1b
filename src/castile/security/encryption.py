"""XML Encryption: one row per algorithm, and the one way in which opening fails.

CBC tells nothing by its padding: octets with broken padding go on at full length, and it is the
digest or the parser that refuses them (Jager and Somorovsky 2011; features MS-37).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

from castile.errors import SecurityFailure
from castile.messages.security import EncryptedKey
from castile.policy import suites
from castile.versions import XENC11

AES128_GCM: Final = f"{XENC11}aes128-gcm"
AES256_GCM: Final = f"{XENC11}aes256-gcm"
_MGF1_SHA1: Final = f"{XENC11}mgf1sha1"
_DIGESTS: Final[dict[str | None, type[HashAlgorithm]]] = {
    None: SHA1,
    suites.SHA1: SHA1,
    suites.SHA256: SHA256,
}


@dataclass(frozen=True, slots=True)
class BlockCipher:
    """An encryption algorithm."""

    key_bytes: int
    iv_bytes: int
    seal: Callable[[bytes, bytes, bytes], bytes]
    """Of key, IV and plaintext: IV and ciphertext."""
    open: Callable[[bytes, bytes], bytes | None]
    """Of key and octets: the plaintext, or None."""


def _seal_cbc(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    # PKCS#7-style bytes are one legal choice of XML Encryption's padding; gSOAP insists on it.
    count = 16 - len(plaintext) % 16
    encryptor = Cipher(AES(key), CBC(iv)).encryptor()
    return iv + encryptor.update(plaintext + bytes((count,)) * count) + encryptor.finalize()


def _open_cbc(key: bytes, octets: bytes) -> bytes | None:
    if len(octets) < 32 or len(octets) % 16:
        return None
    decryptor = Cipher(AES(key), CBC(octets[:16])).decryptor()
    padded = decryptor.update(octets[16:]) + decryptor.finalize()
    count = padded[-1]
    # A zero byte is in no XML: broken padding fails where any wrong octets fail, at the same steps.
    return padded[:-count] if 1 <= count <= 16 else padded + b"\0"


def _seal_gcm(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    return iv + AESGCM(key).encrypt(iv, plaintext, None)


def _open_gcm(key: bytes, octets: bytes) -> bytes | None:
    if len(octets) < 28:
        return None
    try:
        return AESGCM(key).decrypt(octets[:12], octets[12:], None)
    except InvalidTag:
        return None


CIPHERS: Final = {
    suites.AES128_CBC: BlockCipher(16, 16, _seal_cbc, _open_cbc),
    suites.AES256_CBC: BlockCipher(32, 16, _seal_cbc, _open_cbc),
    AES128_GCM: BlockCipher(16, 12, _seal_gcm, _open_gcm),
    AES256_GCM: BlockCipher(32, 12, _seal_gcm, _open_gcm),
}
"""By algorithm URI; what a message may use is its suite's choice."""


def undecryptable(part: str) -> SecurityFailure:
    """The one failure of opening something, whatever the cause."""
    return SecurityFailure(f"{part} can't be decrypted", part=part)


def decrypt(key: bytes, algorithm: str, octets: bytes, part: str) -> bytes:
    """The plaintext octets of an EncryptedData; `SecurityFailure` for every cause alike."""
    cipher = CIPHERS[algorithm]
    plaintext = cipher.open(key, octets) if len(key) == cipher.key_bytes else None
    if plaintext is None:
        raise undecryptable(part)
    return plaintext


def _oaep(algorithm: str, digest: str | None, mgf: str | None) -> OAEP:
    if algorithm != suites.RSA_OAEP or digest not in _DIGESTS or mgf not in (None, _MGF1_SHA1):
        raise SecurityFailure("a key transport other than RSA-OAEP", part="xenc:EncryptedKey")
    # rsa-oaep-mgf1p pins the mask to SHA-1, whatever the digest is (XML Encryption 1.1, 5.5.2).
    return OAEP(MGF1(SHA1()), _DIGESTS[digest](), None)  # noqa: S303


def open_key(private: RSAPrivateKey, key: EncryptedKey) -> bytes:
    """The octets of an EncryptedKey (RSA-OAEP only); one failure for every cause."""
    padding = _oaep(key.algorithm, key.digest, key.mgf)
    try:
        octets = private.decrypt(key.cipher, padding)
    except ValueError:
        raise undecryptable("xenc:EncryptedKey") from None
    if not 16 <= len(octets) <= 64:
        raise undecryptable("xenc:EncryptedKey")
    return octets


def seal_key(public: RSAPublicKey, octets: bytes) -> bytes:
    """The ciphertext of an EncryptedKey: RSA-OAEP with SHA-1, as every suite wants it."""
    return public.encrypt(octets, _oaep(suites.RSA_OAEP, suites.SHA1, None))
