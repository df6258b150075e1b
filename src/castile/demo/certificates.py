"""Throw-away identities for the service and the client."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from castile.demo.plan import Files, Plan


def make_identities(plan: Plan, files: Files) -> None:
    """The service's, and the client's where the bootstrap wants one."""
    _make("castile demo", files.identity, files.certificate)
    if plan.certified:
        _make("castile demo client", files.client_identity, files.client_certificate)


def _make(common_name: str, identity: Path, alone: Path) -> None:
    """Write an RSA key with its self-signed certificate, and the certificate alone."""
    both, public = self_signed(common_name)
    identity.touch(mode=0o600)
    identity.write_bytes(both)
    alone.write_bytes(public)


def self_signed(common_name: str) -> tuple[bytes, bytes]:
    """A new RSA key with its self-signed certificate, and the certificate alone, as PEM."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=365))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    return private + public, public
