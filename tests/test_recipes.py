"""The recipes: the client of each page talks to the service of the page, with keys as keytool makes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.test_docs import free_port, run, served, unpack


def key_store(folder: Path, who: str) -> None:
    """`who`.p12 with a key and its certificate, and the certificate alone in DER, as `who`.cer."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, who)])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    sealed = serialization.BestAvailableEncryption(b"password")
    (folder / f"{who}.p12").write_bytes(
        pkcs12.serialize_key_and_certificates(who.encode(), key, certificate, None, sealed)
    )
    (folder / f"{who}.cer").write_bytes(certificate.public_bytes(serialization.Encoding.DER))


@pytest.mark.parametrize("stack", ["cxf", "metro"])
def test_recipes_run(stack: str, tmp_path: Path) -> None:
    for who in ("alice", "bob"):
        key_store(tmp_path, who)
    port = free_port()
    unpack(tmp_path, port)
    with served(tmp_path, f"{stack}_service:app", port):
        client = run(f"{stack}_client.py", folder=tmp_path)
        log = (tmp_path / "service.log").read_text()
        assert client.returncode == 0, f"the client failed:\n{client.stderr}\nservice:\n{log}"
    assert client.stdout == '<echoResponse xmlns="urn:castile:echo"><result>hello</result></echoResponse>\n'
