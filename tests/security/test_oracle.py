"""Every kind of message that castile sends, judged by xmlsec in an environment of its own."""

from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from castile import xml
from castile.versions import FAMILIES, SOAP_1_1, SOAP_1_2, SOAPVersion
from tests.conftest import oracle
from tests.security.made import SECRET, SIDES, Kind, Side, kinds, service
from tests.security.recorded import LIMITS

SCRIPT = Path(__file__).parent.parent / "oracle" / "verify_with_xmlsec.py"


class Judgement(TypedDict, total=False):
    """What the oracle says of one message."""

    covered: list[list[str]]
    decrypted: list[str]
    content: list[str]
    error: str


def judged(folder: Path, messages: list[dict[str, str]]) -> list[Judgement]:
    """Messages through the oracle."""
    path = folder / "messages.json"
    path.write_text(json.dumps(messages))
    done = subprocess.run(
        [str(oracle()), str(SCRIPT), str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    results: list[Judgement] = json.loads(done.stdout)
    return results


def case(side: Side, kind: Kind, payload: bytes) -> dict[str, str]:
    message = {"payload": b64encode(payload).decode()}
    if kind.bootstrap and kind.request:
        pem = service()[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return {**message, "private_key": pem.decode()}
    return {**message, "secret": SECRET.hex()}


ALL = [*SIDES, Side(FAMILIES["2005"], "Basic128"), Side(FAMILIES["1.3"], derived_keys=False)]


@pytest.mark.row("MS-50")
@pytest.mark.parametrize("soap", [SOAP_1_1, SOAP_1_2], ids=lambda soap: soap.name)
@pytest.mark.parametrize("side", ALL, ids=lambda side: f"{side.family.name}-{side.suite}")
def test_xmlsec_verifies_and_decrypts_every_kind(tmp_path: Path, side: Side, soap: SOAPVersion) -> None:
    made = kinds(side.family, soap)
    results = judged(tmp_path, [case(side, kind, side.protected(kind).payload) for kind in made])
    for kind, result in zip(made, results, strict=True):
        assert "error" not in result, (kind.name, result)
        signed = ["Body", *(header.local for header in kind.message.headers), "Timestamp"]
        if kind.bootstrap and kind.request:
            signed.append("UsernameToken")
        assert result["covered"] == [signed], kind.name
        sealed = {"Body", "Signature"} if kind.encrypt else set()
        if kind.bootstrap and kind.request:
            sealed.add("UsernameToken")
        assert set(result["decrypted"]) == sealed, kind.name
        body = [kind.message.body] if kind.message.body else []
        assert result["content"] == [
            b64encode(xml.canonical(xml.parse(octets, LIMITS))).decode() for octets in body
        ]


def test_xmlsec_refuses_what_was_changed(tmp_path: Path) -> None:
    # Guards the test above: the oracle looks.
    side = SIDES[2]
    kind = next(kind for kind in kinds(side.family) if kind.name == "CreateSequence")
    payload = side.protected(kind).payload
    changes = [payload.replace(b"anonymous", b"anonymoux"), payload.replace(b"MessageID", b"MessageId")]
    results = judged(tmp_path, [case(side, kind, each) for each in changes])
    assert all("error" in result for result in results)
    sealed = replace(kind, encrypt=True)
    wrong = {**case(side, kind, side.protected(sealed).payload), "secret": bytes(32).hex()}
    assert "error" in judged(tmp_path, [wrong])[0]
