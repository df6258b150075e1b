"""Messages of the bootstraps with certificates: signed by both sides' keys, endorsed, confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from castile.policy import Bootstrap, EndpointPolicy
from castile.security import Expectation, Protection, SealedKey, protect
from castile.security.anchors import Anchors
from castile.security.certificates import CertificateKey
from castile.versions import FAMILIES, SOAP_1_2, SOAPVersion
from tests.security.made import NOW, SECRET, kinds, seeded, service
from tests.security.recorded import TIMERS, Keys

SEALED = SealedKey(SECRET, "c2VhbGVka2V5bmFtZTEyMzQ=")
CONFIRMED = (b"\x01" * 20, b"\x02" * 256)


@lru_cache(maxsize=4)
def client(name: str = "ada") -> CertificateKey:
    """A client's certificate and key."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(11)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=3650))
        .sign(private, SHA256())
    )
    return CertificateKey(certificate, private)


@dataclass(frozen=True)
class Certified:
    """A protected message, and what its receiver expects and has."""

    name: str
    payload: bytes
    expectation: Expectation

    @property
    def keys(self) -> Keys:
        mine = service() if self.expectation.request else (client().certificate, client().private)
        known = [client().certificate, service()[0]]
        return Keys(private=[mine], certificates=known, sealed={SEALED.sha1: SEALED})


def certified(
    bootstrap: Bootstrap,
    name: str,
    family: str = "1.3",
    soap: SOAPVersion = SOAP_1_2,
    *,
    signer: CertificateKey | None = None,
    seed: int = 1,
) -> Certified:
    """An RST or RSTR of this bootstrap; `signer`: who signs or endorses in place of the right one."""
    policy = EndpointPolicy.of(family, bootstrap=bootstrap, soap=soap).bootstrap
    assert policy is not None
    request = name == "RST"
    message = next(kind for kind in kinds(FAMILIES[family], soap) if kind.name == name).message
    right = client() if request else CertificateKey(*service())
    ours = signer or right
    asymmetric = policy.binding == "asymmetric"
    key: x509.Certificate | SealedKey = service()[0] if request else SEALED
    if asymmetric and not request:
        key = client().certificate
    protection = Protection(
        policy,
        FAMILIES[family].conversation,
        key,
        request,
        signer=ours if asymmetric else None,
        endorsing=(ours,) if policy.endorsing and request else (),
        confirm=CONFIRMED if policy.signature_confirmation and not request else (),
    )
    payload = protect(message, protection, NOW, seeded(seed), TIMERS).payload
    trust = Anchors.of([right.certificate])
    expectation = Expectation(
        policy,
        FAMILIES[family].conversation,
        request,
        True,
        trust,
        (CONFIRMED,) if policy.signature_confirmation and not request else None,
    )
    return Certified(f"{bootstrap} {name} {family}", payload, expectation)


def everything(soap: SOAPVersion = SOAP_1_2) -> Iterator[Certified]:
    """Both messages of each bootstrap without a user, in both families."""
    bootstraps: tuple[Bootstrap, ...] = ("certificate", "anonymous", "mutual")
    for family in FAMILIES:
        for bootstrap in bootstraps:
            for name in ("RST", "RSTR"):
                yield certified(bootstrap, name, family, soap)
