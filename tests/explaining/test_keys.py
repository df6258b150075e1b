"""Key files in every form, and what is said of those that are none (OP-20)."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from castile.errors import UsageError
from castile.explaining.keys import load

pytestmark = pytest.mark.row("OP-20")

KEY = rsa.generate_private_key(65537, 2048)
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "service")])
CERTIFICATE = (
    x509.CertificateBuilder(NAME, NAME, KEY.public_key(), 7)
    .not_valid_before(datetime.now(UTC) - timedelta(days=1))
    .not_valid_after(datetime.now(UTC) + timedelta(days=1))
    .sign(KEY, hashes.SHA256())
)
KEY_PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
CERTIFICATE_PEM = CERTIFICATE.public_bytes(serialization.Encoding.PEM)
SECRET = b64encode(b"0123456789abcdef").decode()


def test_pem_with_both() -> None:
    keys = load([b"Bag Attributes\n" + KEY_PEM + CERTIFICATE_PEM])
    assert keys.certificates == [CERTIFICATE]
    assert keys.private[0].private_numbers() == KEY.private_numbers()
    assert keys.trusts(CERTIFICATE)


def test_a_private_key_speaks_for_its_certificate() -> None:
    assert load([KEY_PEM]).trusts(CERTIFICATE)
    assert not load([b'{"users": {}}']).trusts(CERTIFICATE)


def test_pkcs12() -> None:
    octets = pkcs12.serialize_key_and_certificates(
        b"service", KEY, CERTIFICATE, None, serialization.NoEncryption()
    )
    keys = load([octets])
    assert (len(keys.private), keys.certificates) == (1, [CERTIFICATE])


def test_json() -> None:
    document = {
        "keys": [KEY_PEM.decode()],
        "certificates": [CERTIFICATE_PEM.decode()],
        "contexts": {"urn:one": SECRET, "urn:two": {"": SECRET, "urn:instance": SECRET}},
        "names": {"shared": SECRET},
        "users": {"alice": "pw"},
    }
    keys = load([json.dumps(document).encode()])
    assert set(keys.contexts) == {("urn:one", None), ("urn:two", None), ("urn:two", "urn:instance")}
    assert keys.named_key("shared") is not None
    assert keys.authenticate("alice", "pw") is True
    assert keys.authenticate("alice", "other") is False
    assert keys.authenticate("bob", "pw") is None
    assert keys.wanted == ["the password of user bob"]


def test_key_log_and_several_files(tmp_path: Path) -> None:
    log = tmp_path / "keys.log"
    log.write_text(f'{{"contexts": {{"urn:a": "{SECRET}"}}}}\n\n{{"contexts": {{"urn:b": "{SECRET}"}}}}\n')
    keys = load([log, str(log), KEY_PEM])
    assert {name for name, _ in keys.contexts} == {"urn:a", "urn:b"}
    assert len(keys.private) == 1


def test_a_context_without_instance_is_the_first_or_the_only_one() -> None:
    text = json.dumps({"contexts": {"urn:a": {"urn:i": SECRET}, "urn:b": {"": SECRET, "urn:i": SECRET}}})
    keys = load([text.encode()])
    only, first = keys.context("urn:a", None), keys.context("urn:b", None)
    assert only is not None
    assert only.instance == "urn:i"
    assert first is not None
    assert first.instance is None
    assert keys.context("urn:b", "urn:other") is None
    assert keys.wanted == ["the secret of security context urn:b, instance urn:other"]


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        (b'{"keys": {}}', "'keys' must be a JSON array"),
        (b'{"kexs": []}', "its members are"),
        (b'{"users": ["alice"]}', "'users' must be a JSON object"),
        (b'{"contexts": {"urn:a": "%%%"}}', "is no key file"),
        (b'{"contexts": {"urn:a": 7}}', "is no key file"),
        (b'{"keys": ["nothing"]}', "no PEM block"),
        (b'{"keys": [}', "in line 1"),
        (b'{"users": {}}\n{"users": \n', "in line 2"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", "is no key file"),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----", "password"),
        (b"\x30\x82\x00", "is no key file"),
        (b"[1]", "is no key file"),
    ],
)
def test_what_is_no_key_file(octets: bytes, says: str) -> None:
    with pytest.raises(UsageError) as error:
        load([octets])
    assert says in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        load([tmp_path / "missing.json"])
    with pytest.raises(UsageError, match="can't be read"):
        load([tmp_path])


def test_secrets_stay_out_of_repr() -> None:
    keys = load([json.dumps({"contexts": {"urn:a": SECRET}, "users": {"alice": "Tulip-9"}}).encode()])
    assert "Tulip-9" not in repr(keys)
    assert "0123456789abcdef" not in repr(keys.contexts)
