"""Certificates made to order, and keys that are made once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256

from castile.security.certificates import CertificateKey

START = datetime(2026, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=64)
def key_of(name: str, bits: int) -> rsa.RSAPrivateKey:
    """The key of this name and length."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def usage(*names: str) -> x509.KeyUsage:
    """A KeyUsage extension with these bits set."""
    bits = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**(bits | dict.fromkeys(names, True)))


@dataclass(frozen=True)
class Issued:
    """What a certificate is to be like."""

    name: str
    issuer: str | None = None
    """None: it signs itself."""
    authority: bool | None = None
    path_length: int | None = None
    key: str | None = None
    """Of another name than its own."""
    days: tuple[int, int] = (0, 3650)
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    signed_by: str | None = None
    """Key that signs it, where that isn't its issuer's."""
    algorithm: type[Any] = SHA256
    bits: int = 2048
    identifier: bool = True

    def make(self) -> x509.Certificate:
        """The certificate."""
        public = key_of(self.key or self.name, self.bits).public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name.from_rfc4514_string(f"CN={self.name},O=Test"))
            .issuer_name(x509.Name.from_rfc4514_string(f"CN={self.issuer or self.name},O=Test"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(START + timedelta(days=self.days[0]))
            .not_valid_after(START + timedelta(days=self.days[1]))
        )
        if self.authority is not None:
            constraints = x509.BasicConstraints(self.authority, self.path_length if self.authority else None)
            builder = builder.add_extension(constraints, critical=True)
        if self.identifier:
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        for extension, critical in self.extensions:
            builder = builder.add_extension(extension, critical=critical)
        signer = key_of(self.signed_by or self.issuer or self.key or self.name, self.bits)
        return builder.sign(signer, self.algorithm())


@lru_cache(maxsize=64)
def identity(name: str) -> CertificateKey:
    """A self-signed certificate with its key."""
    return CertificateKey(Issued(name).make(), key_of(name, 2048))
