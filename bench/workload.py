"""What is measured: the ways to talk, the bodies, who is who."""

from __future__ import annotations

import datetime
import resource
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

import castile

MODES: Final = {
    "plain": "plain SOAP",
    "sc": "SC alone",
    "rm-sc": "RM over SC",
}
"""Ways to talk, by the name that the processes use among themselves."""
ECHO: Final = "urn:castile:bench/Echo"
TELL: Final = "urn:castile:bench/Tell"
USER: Final = castile.Username("ada", "a password of the bench")


def policy(mode: str) -> castile.EndpointPolicy:
    """The endpoint policy of a mode: family 1.3, suite Basic256."""
    return castile.EndpointPolicy.of("1.3", reliable=mode == "rm-sc", secure=mode != "plain")


def body(size: int, number: int) -> bytes:
    """About `size` bytes of dense canonical XML, another one for every number."""
    items = []
    for position in range(max(1, round((size - 60) / 113))):
        value = (number * 7_919 + position * 104_729) % 1_000_000
        items.append(
            f"<m:Item><m:Name>article {value:06d} of {number:09d}</m:Name><m:Count>{value % 97:02d}</m:Count>"
            f"<m:Price>{value / 100:09.2f}</m:Price></m:Item>"
        )
    return f'<m:Order xmlns:m="urn:castile:bench">{"".join(items)}</m:Order>'.encode()


def identity() -> tuple[bytes, bytes]:
    """A throw-away key with its certificate, and the certificate alone, as PEM."""
    key = rsa.generate_private_key(65_537, 2_048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    return private + public, public


def cpu_seconds() -> float:
    """What this process has used so far, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
