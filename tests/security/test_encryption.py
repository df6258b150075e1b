"""Ciphertexts: what may be opened, where, and the one way in which opening fails."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from lxml import etree

from castile.errors import SECURITY_FAULT, PeerError, SecurityFailure, SOAPFault
from castile.policy import suites
from castile.security import protect
from castile.security.encryption import CIPHERS, decrypt
from castile.versions import XENC, XENC11
from tests.security.insider import (
    APP,
    BOOT,
    LIFE,
    SIDE,
    base64,
    changed,
    first,
    kind_of,
    refusal,
)
from tests.security.made import (
    NOW,
    receive,
    seeded,
)
from tests.security.recorded import TIMERS


@pytest.mark.row("MS-35")
@pytest.mark.parametrize("uri", [f"{XENC}rsa-1_5", f"{XENC11}rsa-oaep", f"{XENC}kw-aes256", "urn:none"])
def test_key_transports_other_than_oaep(uri: str) -> None:
    def change(root: etree._Element) -> None:
        first(root, f".//{{{XENC}}}EncryptedKey/{{{XENC}}}EncryptionMethod").set("Algorithm", uri)

    assert "key transport" in str(refusal(changed(SIDE.protected(BOOT).payload, change), BOOT))


@pytest.mark.row("MS-36")
@pytest.mark.parametrize(
    "uri",
    [f"{XENC}aes128-cbc", f"{XENC}tripledes-cbc", f"{XENC11}aes256-gcm", f"{XENC11}aes128-gcm", "urn:x"],
)
def test_ciphers_outside_the_suite(uri: str) -> None:
    root = etree.fromstring(SIDE.protected(APP).payload)
    for found in root.iterfind(f".//{{{XENC}}}EncryptionMethod"):
        found.set("Algorithm", uri)
    assert "encryption algorithm" in str(refusal(etree.tostring(root), APP))


@pytest.mark.row("MS-36")
@pytest.mark.parametrize("algorithm", [suites.AES128_CBC, suites.AES256_CBC])
def test_any_padding_is_taken(algorithm: str) -> None:
    """XML Encryption pads with whatever it likes before the last octet, which is the count."""
    random = seeded(5)
    key = random(CIPHERS[algorithm].key_bytes)
    for length in range(33):
        plaintext, count = random(length), 16 - length % 16
        for filler in (bytes(count - 1), random(count - 1), bytes((count,)) * (count - 1)):
            vector = random(16)
            encryptor = Cipher(AES(key), CBC(vector)).encryptor()
            octets = encryptor.update(plaintext + filler + bytes((count,))) + encryptor.finalize()
            assert decrypt(key, algorithm, vector + octets, "Body") == plaintext


def malformed_ciphertexts(octets: bytes, random: Callable[[int], bytes]) -> list[bytes]:
    """Twelve ways in which a ciphertext can be wrong."""
    block = len(octets) // 2 // 16 * 16
    flip = bytearray(octets)
    flip[block] ^= 1
    padding = bytearray(octets)
    padding[-17] ^= 0x1F
    start = bytearray(octets)
    start[20] ^= 0x40
    vector = bytearray(octets)
    vector[3] ^= 0x80
    return [
        bytes(flip),
        bytes(padding),
        bytes(start),
        bytes(vector),
        octets[:-16],
        octets[:-1],
        octets[:16],
        b"",
        octets + random(16),
        octets[:block] + octets[block + 16 :],
        octets[:16] + octets[32:48] + octets[16:32] + octets[48:],
        random(len(octets)),
    ]


def outward(error: PeerError) -> tuple[type[PeerError], SOAPFault]:
    return type(error), error.fault


@pytest.mark.row("MS-37")
@pytest.mark.row("MS-60")
def test_every_malformed_ciphertext_looks_the_same_outside() -> None:
    random = seeded(9)
    seen = set()
    count = 0
    for kind in (APP, BOOT, kind_of("reply")):
        for seed in range(60):
            payload = SIDE.protected(kind, seed).payload
            root = etree.fromstring(payload)
            total = len(root.findall(f".//{{{XENC}}}EncryptedData"))
            for index in range(total):
                value = root.findall(f".//{{{XENC}}}EncryptedData//{{{XENC}}}CipherValue")[index]
                original = value.text or ""
                for octets in malformed_ciphertexts(b64decode(original), random):
                    value.text = base64(octets)
                    seen.add(outward(refusal(etree.tostring(root), kind)))
                    count += 1
                value.text = original
    assert count >= 5_000
    assert seen == {(SecurityFailure, SECURITY_FAULT)}


@pytest.mark.row("MS-60")
def test_all_cryptographic_failures_have_one_fault() -> None:
    """A wrong MAC, digest, ciphertext, padding or EncryptedKey: one fault."""
    failures = []
    for path in (".//{*}EncryptedKey//{*}CipherValue", ".//{*}Nonce"):

        def change(root: etree._Element, path: str = path) -> None:
            text = first(root, path).text or ""
            first(root, path).text = text[:6] + ("A" if text[6] != "A" else "B") + text[7:]

        failures.append(refusal(changed(SIDE.protected(BOOT).payload, change), BOOT))
    signed = SIDE.protected(LIFE).payload
    failures.append(refusal(re.sub(rb"(<ds:DigestValue>)...", rb"\1AAA", signed), LIFE))
    failures.append(refusal(re.sub(rb"(<ds:SignatureValue>)...", rb"\1AAA", signed), LIFE))
    failures.append(refusal(signed.replace(b"anonymous", b"anonymoux"), LIFE))
    assert {outward(failure) for failure in failures} == {(SecurityFailure, SECURITY_FAULT)}


@pytest.mark.row("MS-71")
def test_what_must_be_encrypted_is() -> None:
    clear = replace(APP, encrypt=False)
    with pytest.raises(SecurityFailure, match="Body isn't encrypted"):
        receive(SIDE.protected(clear).payload, SIDE.expectation(APP), SIDE.keys())
    policy = replace(SIDE.application, encrypt_signature=False)
    protection = replace(SIDE.protection(APP), policy=policy)
    payload = protect(APP.message, protection, NOW, seeded(1), TIMERS).payload
    with pytest.raises(SecurityFailure, match="Signature isn't encrypted"):
        receive(payload, SIDE.expectation(APP), SIDE.keys())
    assert receive(payload, replace(SIDE.expectation(APP), policy=policy), SIDE.keys())


@pytest.mark.row("MS-71")
def test_encrypted_lifecycle_messages_are_taken_too() -> None:
    sealed = replace(LIFE, encrypt=True)
    verified = receive(SIDE.protected(sealed).payload, SIDE.expectation(LIFE), SIDE.keys())
    assert "Body" in verified.encrypted


@pytest.mark.row("MS-72")
def test_ciphertext_elsewhere_is_not_opened() -> None:
    root = etree.fromstring(SIDE.protected(APP).payload)
    body = root[1]
    wrapper = etree.SubElement(root[0], "{urn:evil}Wrapper")
    wrapper.append(body[0])
    refusal(etree.tostring(root), APP)


@pytest.mark.row("MS-19")
def test_a_cipher_reference_is_not_followed() -> None:
    root = etree.fromstring(SIDE.protected(APP).payload)
    for data in root.findall(f".//{{{XENC}}}CipherData"):
        data[:] = [etree.Element(f"{{{XENC}}}CipherReference", URI="http://127.0.0.1:9/")]
    assert "CipherReference" in str(refusal(etree.tostring(root), APP))
