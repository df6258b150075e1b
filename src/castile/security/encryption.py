"""XML Encryption: one row per algorithm, and the one way in which opening fails.

CBC tells nothing by its padding: octets with broken padding go on at full length, and it is the
digest or the parser that refuses them (Jager and Somorovsky 2011; features MS-37).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA512, HashAlgorithm

from castile.errors import SecurityFailure
from castile.messages.security import EncryptedKey
from castile.policy import suites
from castile.policy.suites import AlgorithmSuite
from castile.versions import XENC, XENC11

RSA_OAEP_1_1: Final = f"{XENC11}rsa-oaep"
_DIGESTS: Final[dict[str | None, type[HashAlgorithm]]] = {
    None: SHA1,
    suites.SHA1: SHA1,
    suites.SHA256: SHA256,
    f"{XENC}sha512": SHA512,
}
_MASKS_1_0: Final[dict[str | None, type[HashAlgorithm]]] = {None: SHA1, f"{XENC11}mgf1sha1": SHA1}
_MASKS: Final[dict[str | None, type[HashAlgorithm]]] = {
    **_MASKS_1_0,
    f"{XENC11}mgf1sha256": SHA256,
    f"{XENC11}mgf1sha512": SHA512,
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
    count = len(iv) - len(plaintext) % len(iv)
    encryptor = Cipher(_block(key, len(iv)), CBC(iv)).encryptor()
    return iv + encryptor.update(plaintext + bytes((count,)) * count) + encryptor.finalize()


def _open_cbc(key: bytes, octets: bytes, block: int = 16) -> bytes | None:
    if len(octets) < 2 * block or len(octets) % block:
        return None
    decryptor = Cipher(_block(key, block), CBC(octets[:block])).decryptor()
    padded = decryptor.update(octets[block:]) + decryptor.finalize()
    count = padded[-1]
    # A zero byte is in no XML: broken padding fails where any wrong octets fail, at the same steps.
    return padded[:-count] if 1 <= count <= block else padded + b"\0"


def _block(key: bytes, block: int) -> AES | TripleDES:
    return AES(key) if block == 16 else TripleDES(key)


def _open_triple(key: bytes, octets: bytes) -> bytes | None:
    return _open_cbc(key, octets, 8)


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
    suites.AES192_CBC: BlockCipher(24, 16, _seal_cbc, _open_cbc),
    suites.TRIPLEDES_CBC: BlockCipher(24, 8, _seal_cbc, _open_triple),
    suites.AES128_GCM: BlockCipher(16, 12, _seal_gcm, _open_gcm),
    suites.AES192_GCM: BlockCipher(24, 12, _seal_gcm, _open_gcm),
    suites.AES256_GCM: BlockCipher(32, 12, _seal_gcm, _open_gcm),
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


def _oaep(key: EncryptedKey) -> OAEP:
    # rsa-oaep-mgf1p pins the mask to SHA-1, whatever the digest is (XML Encryption 1.1, 5.5.2).
    masks = _MASKS if key.algorithm == RSA_OAEP_1_1 else _MASKS_1_0
    if key.digest not in _DIGESTS or key.mgf not in masks:
        raise SecurityFailure("a key transport with parameters that aren't taken", part="xenc:EncryptedKey")
    return OAEP(MGF1(masks[key.mgf]()), _DIGESTS[key.digest](), key.label or None)


def _open_oaep(private: RSAPrivateKey, key: EncryptedKey, length: int | None) -> bytes:  # noqa: ARG001
    padding = _oaep(key)
    try:
        octets = private.decrypt(key.cipher, padding)
    except ValueError:
        raise undecryptable("xenc:EncryptedKey") from None
    if not 16 <= len(octets) <= 64:
        raise undecryptable("xenc:EncryptedKey")
    return octets


def _open_1_5(private: RSAPrivateKey, key: EncryptedKey, length: int | None) -> bytes:
    """The octets, or a key that nobody can guess: a wrong padding never shows (Bleichenbacher 1998)."""
    secret = private.private_numbers().d.to_bytes(private.key_size // 8, "big")
    octets = hmac.digest(hashlib.sha256(secret).digest(), key.cipher, "sha256")[: length or 32]
    try:
        found = private.decrypt(key.cipher, PKCS1v15())
    except ValueError:
        found = b""
    return found if len(found) in ({length} if length else {16, 24, 32}) else octets


TRANSPORTS: Final[dict[str, Callable[[RSAPrivateKey, EncryptedKey, int | None], bytes]]] = {
    suites.RSA_OAEP: _open_oaep,
    RSA_OAEP_1_1: _open_oaep,
    suites.RSA_1_5: _open_1_5,
}
"""How an EncryptedKey is opened, by algorithm URI; what a message may use is its suite's choice."""


def open_key(
    private: RSAPrivateKey, key: EncryptedKey, suite: AlgorithmSuite | None, *, legacy: bool
) -> bytes:
    """The octets of an EncryptedKey; one failure for every cause.

    `suite` None: any transport. `legacy`: RSA 1.5 is opened where the suite asks for it.
    """
    if key.algorithm not in (TRANSPORTS.keys() if suite is None else (suite.key_transport,)):
        text = f"the key transport {key.algorithm} isn't allowed here"
        raise SecurityFailure(text, part="xenc:EncryptedKey")
    if key.algorithm == suites.RSA_1_5 and suite is not None and not legacy:
        text = "RSA 1.5 is read only with Settings(legacy=True)"
        raise SecurityFailure(text, part="xenc:EncryptedKey")
    return TRANSPORTS[key.algorithm](private, key, suite.encryption_key_bytes if suite else None)


def seal_key(public: RSAPublicKey, octets: bytes, transport: str) -> bytes:
    """The ciphertext of an EncryptedKey: RSA-OAEP with SHA-1, or RSA 1.5, as the suite wants it."""
    if transport == suites.RSA_1_5:
        return public.encrypt(octets, PKCS1v15())
    return public.encrypt(octets, OAEP(MGF1(SHA1()), SHA1(), None))  # noqa: S303
