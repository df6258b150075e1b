"""Stored messages: made the same today, read by castile, and verified by another library."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from castile.versions import SOAPVersion
from tests.golden.messages import (
    EDITIONS,
    SEALED,
    Golden,
    Writer,
    conversation,
    folder_of,
    identity,
    repeatable,
)
from tests.security.made import SECRET, receive
from tests.security.test_oracle import Judgement, judged

each_edition = pytest.mark.parametrize(
    ("family", "version"), EDITIONS, ids=[f"{family}-{version.name}" for family, version in EDITIONS]
)


@each_edition
def test_what_is_made_now_is_what_was_stored(family: str, version: SOAPVersion) -> None:
    made = conversation(family, version)
    folder = folder_of(family, version)
    assert sorted(path.stem for path in folder.glob("*.xml")) == sorted(each.name for each in made)
    for golden in made:
        stored = (folder / f"{golden.name}.xml").read_bytes()
        assert repeatable(golden.protected.payload) == repeatable(stored), golden.name
        assert len(repeatable(stored)) > 800


@each_edition
def test_what_was_stored_is_read(family: str, version: SOAPVersion) -> None:
    keys = Writer(family, version).keys()
    for golden in conversation(family, version):
        stored = (folder_of(family, version) / f"{golden.name}.xml").read_bytes()
        verified = receive(stored, golden.expectation, keys)
        assert verified.body_content == golden.message.body, golden.name
        names = {f"{header.local}" for header in golden.message.headers}
        assert {header.name.rpartition(":")[2] for header in verified.headers} == names, golden.name


def case(golden: Golden, payload: bytes) -> dict[str, str]:
    found = golden.protection
    ours, theirs = ("client", "service") if found.request else ("service", "client")
    signer = identity(ours).certificate.public_bytes(Encoding.PEM).decode()
    message = {"payload": b64encode(payload).decode(), "context": SECRET.hex(), "signer": signer}
    if found.policy.protection_token in ("context", "transport"):
        return {**message, "secret": SECRET.hex()}
    if not found.request and found.policy.binding == "symmetric":
        return {**message, "secret": SEALED.octets.hex()}
    pem = identity(theirs).private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {**message, "private_key": pem.decode()}


@pytest.mark.row("MS-50")
@each_edition
def test_xmlsec_verifies_what_was_stored(tmp_path: Path, family: str, version: SOAPVersion) -> None:
    made = conversation(family, version)
    folder = folder_of(family, version)
    cases = [case(golden, (folder / f"{golden.name}.xml").read_bytes()) for golden in made]
    for golden, result in zip(made, judged(tmp_path, cases), strict=True):
        assert "error" not in result, (golden.name, result)
        if golden.protection.policy.binding == "transport":
            _over_tls(golden, result)
            continue
        signed = ["Body", *(header.local for header in golden.message.headers), "Timestamp"]
        if golden.protection.username:
            signed.append("UsernameToken")
        if not golden.protection.request:
            signed += ["SignatureConfirmation"] * len(golden.protection.confirm)
        assert result["covered"][0] == signed, golden.name
        assert result["covered"][1:] == [["Signature"]] * len(golden.protection.endorsing), golden.name
        body = [golden.message.body] if golden.message.body else []
        assert result["content"] == [b64encode(octets).decode() for octets in body], golden.name
        assert ("Body" in result["decrypted"]) == golden.protection.encrypt, golden.name


def _over_tls(golden: Golden, result: Judgement) -> None:
    """Supporting tokens sign the Timestamp and what they name; nothing else is done."""
    wanted = [["Timestamp", "To"] if "certificate" in golden.name else ["Timestamp"]]
    assert result["covered"] == (wanted if golden.protection.endorsing else []), golden.name
    assert result["content"] == [b64encode(golden.message.body).decode()]
    assert result["decrypted"] == []
