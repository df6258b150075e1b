"""Every kind of message that castile sends, judged by xmlsec in an environment of its own."""

from __future__ import annotations

import itertools
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
from tests.security.shapes import BODY, BOOTSTRAPS, Shape, bootstrap, context

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


def shapes() -> list[Shape]:
    """One of every kind of bootstrap, and of the application's messages, in every way to send it."""
    found = []
    for number, (name, order, derived, hidden) in enumerate(
        itertools.product(
            [*BOOTSTRAPS, "context"],
            ["sign-before-encrypt", "encrypt-before-sign"],
            [True, False],
            [True, False],
        )
    ):
        changes = {
            "order": order,
            "derived_keys": derived,
            "encrypt_signature": hidden,
            "layout": ("Strict", "LaxTsLast")[number % 2],
            "reference": REFERENCES[number % 4],
            "initiator_reference": REFERENCES[(number // 4) % 4],
        }
        suite = ("Basic256", "Basic128Sha256", "Basic256Sha256", "Basic128Rsa15")[number % 4]
        policy = context(suite, **changes) if name == "context" else bootstrap(name, suite, **changes)
        found += [Shape(policy, request=True), Shape(policy, request=False)]
    return found


REFERENCES = ("thumbprint", "issuer-serial", "key-identifier", "direct")


def shape_case(shape: Shape) -> dict[str, str]:
    policy = shape.policy
    message = {"payload": b64encode(shape.protected().payload).decode(), "order": policy.order}
    signer, reader = (shape.client, shape.service) if shape.request else (shape.service, shape.client)
    message["signer"] = signer.certificate.public_bytes(Encoding.PEM).decode()
    if policy.protection_token == "x509" and (shape.request or policy.binding == "asymmetric"):
        pem = reader.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return {**message, "private_key": pem.decode()}
    return {**message, "secret": shape.secret.hex()}


@pytest.mark.row("MS-02", "MS-03", "MS-04", "MS-18", "MS-31", "MS-50", "MS-54", "MS-57")
def test_xmlsec_verifies_and_decrypts_every_shape(tmp_path: Path) -> None:
    """RSA and HMAC, endorsements and confirmations, both orders, every reference and suite."""
    made = shapes()
    results = judged(tmp_path, [shape_case(shape) for shape in made])
    for shape, result in zip(made, results, strict=True):
        assert "error" not in result, (shape, result)
        primary, *endorsing = result["covered"]
        headers = [header.local for header in shape.message.headers]
        assert primary[: len(headers) + 2] == ["Body", *headers, "Timestamp"]
        assert endorsing == ([["Signature"]] if shape.policy.endorsing and shape.request else [])
        assert result["content"] == [b64encode(BODY).decode()]
        assert ("Signature" in result["decrypted"]) == shape.policy.encrypt_signature
        confirmations = 2 if shape.policy.signature_confirmation and not shape.request else 0
        sealed = shape.policy.order == "encrypt-before-sign" and shape.policy.encrypt_signature
        kind = "EncryptedData" if sealed else "SignatureConfirmation"
        user = sealed and shape.policy.username is not None and shape.request
        assert primary.count(kind) == confirmations + user


@pytest.mark.row("MS-50")
def test_xmlsec_verifies_signed_tokens(tmp_path: Path) -> None:
    """ProtectTokens, where the token is in the message: xmlsec has no STR-Transform."""
    made = [
        Shape(bootstrap(name, protect_tokens=True, reference="direct"), request=request)
        for name in BOOTSTRAPS
        for request in (True, False)
    ] + [Shape(context(protect_tokens=True))]
    results = judged(tmp_path, [shape_case(shape) for shape in made])
    tokens = {"BinarySecurityToken", "EncryptedKey", "SecurityContextToken"}
    for shape, result in zip(made, results, strict=True):
        assert "error" not in result, (shape, result)
        carried = shape.request or shape.policy.binding == "asymmetric"
        assert all(bool(tokens & set(covered)) == carried for covered in result["covered"])
