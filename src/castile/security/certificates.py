"""Certificates: what names them, what refers to them, and how they stand in a message."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import pybase64
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding

from castile.errors import SecurityFailure
from castile.messages.security import BinarySecurityToken, SecurityTokenReference
from castile.policy import CertificateReference
from castile.security.names import same_name
from castile.security.trace import KeyIdentity
from castile.versions import BASE64_BINARY, THUMBPRINT_SHA1, WSSE, X509_PKIPATH, X509_SKI, X509_V3

_LONGEST_PATH: Final = 6
_START_TAG: Final = re.compile(rb'<([^\s>]+)((?:[^">]|"[^"]*")*)>')


@dataclass(frozen=True, slots=True)
class CertificateKey:
    """A certificate with its private key: ours."""

    certificate: x509.Certificate
    private: RSAPrivateKey = field(repr=False)

    @property
    def identity(self) -> KeyIdentity:
        """Whose key it is."""
        return identity_of(self.certificate)


def thumbprint(certificate: x509.Certificate) -> bytes:
    """SHA-1 over the certificate: its name, not its proof (WSS 1.1.1, 7.3)."""
    return certificate.fingerprint(SHA1())  # noqa: S303 - a name


def identity_of(certificate: x509.Certificate) -> KeyIdentity:
    """The identity of its key."""
    return KeyIdentity("certificate", thumbprint(certificate).hex())


def subject_of(certificate: x509.Certificate) -> str:
    """Its subject as text (RFC 4514): the principal of who proves its key."""
    return certificate.subject.rfc4514_string()


def key_identifier(certificate: x509.Certificate) -> bytes | None:
    """The certificate's SubjectKeyIdentifier extension; None if it has none."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        return None
    return extension.value.digest


def refers_to(reference: SecurityTokenReference, certificate: x509.Certificate) -> bool:
    """Whether a reference names this certificate, in any of its three forms (MS-18)."""
    if reference.issuer_serial is not None:
        name, serial = reference.issuer_serial
        return serial == certificate.serial_number and same_name(name, certificate.issuer)
    if reference.key_identifier is None:
        return False
    try:
        octets = pybase64.b64decode(reference.key_identifier, validate=True)
    except ValueError:
        return False
    if reference.value_type == THUMBPRINT_SHA1:
        return hmac.compare_digest(octets, thumbprint(certificate))
    known = key_identifier(certificate)
    return reference.value_type == X509_SKI and known is not None and hmac.compare_digest(octets, known)


@lru_cache(maxsize=64)
def reference_to(
    certificate: x509.Certificate, form: CertificateReference
) -> SecurityTokenReference | None:
    """A reference by name; None for ``direct``, where the certificate travels itself.

    A certificate without key identifier goes by its thumbprint (BSP R5210).
    """
    if form == "direct":
        return None
    if form == "issuer-serial":
        issuer = certificate.issuer.rfc4514_string()
        return SecurityTokenReference(issuer_serial=(issuer, certificate.serial_number))
    octets = key_identifier(certificate) if form == "key-identifier" else None
    kind, name = (X509_SKI, octets) if octets is not None else (THUMBPRINT_SHA1, thumbprint(certificate))
    return SecurityTokenReference(key_identifier=pybase64.b64encode(name).decode(), value_type=kind)


def token_of(certificate: x509.Certificate, name: str) -> BinarySecurityToken:
    """The certificate as a token under this id."""
    return BinarySecurityToken(name, X509_V3, certificate.public_bytes(Encoding.DER))


def dereferenced(certificate: x509.Certificate, prefix: str) -> tuple[bytes, bytes]:
    """What an STR-Transform digests where a certificate is named but not there (WSS 1.1.1, 8.3).

    A token is made up for it; peers differ on whether it says its encoding. The first form is
    WSS4J's, and ours.
    """
    value = pybase64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
    tag = f"{prefix}:BinarySecurityToken" if prefix else "BinarySecurityToken"
    # The apex declares the default namespace in any case, as the transform demands.
    scope = f' xmlns="" xmlns:{prefix}="{WSSE}"' if prefix else f' xmlns="{WSSE}"'
    end = f' ValueType="{X509_V3}">{value}</{tag}>'
    return f"<{tag}{scope}{end}".encode(), f'<{tag}{scope} EncodingType="{BASE64_BINARY}"{end}'.encode()


def with_default_namespace(octets: bytes) -> bytes:
    """A canonical element as STR-Transform digests it: its start tag declares the default namespace."""
    found = _START_TAG.match(octets)
    if found is None or b' xmlns="' in found[2]:
        return octets
    return b'%b xmlns=""%b' % (octets[: found.end(1)], octets[found.end(1) :])


def certificates_of(token: BinarySecurityToken, *, old: bool = False) -> tuple[x509.Certificate, ...]:
    """The certificates of a token, the signer's last; raises `SecurityFailure`.

    A PKIPath goes from the anchor to the subject (X.509 token profile 1.1.1, 3.1.3). `old`:
    certificates before version 3 are taken too (gSOAP's sample signs with one).
    """
    try:
        if token.value_type == X509_V3:
            found = [token.octets]
        elif token.value_type == X509_PKIPATH:
            found = _sequence(token.octets)
        else:
            raise _refused("a BinarySecurityToken of a kind that isn't taken")
        path = tuple(x509.load_der_x509_certificate(octets) for octets in found)
    except ValueError:
        raise _refused("a BinarySecurityToken holds no certificate") from None
    if not path or not (old or all(certificate.version is x509.Version.v3 for certificate in path)):
        raise _refused("a BinarySecurityToken holds something other than X.509 v3 certificates")
    return path


def _refused(text: str) -> SecurityFailure:
    return SecurityFailure(text, part="wsse:BinarySecurityToken")


def _sequence(octets: bytes) -> list[bytes]:
    """The elements of a DER SEQUENCE; raises `ValueError`."""
    start, end = _content(octets, 0)
    if end != len(octets):
        raise ValueError("octets behind the SEQUENCE")
    found: list[bytes] = []
    while start < end:
        _, next_start = _content(octets, start)
        found.append(octets[start:next_start])
        start = next_start
        if next_start > end or len(found) > _LONGEST_PATH:
            raise ValueError("an element beyond its SEQUENCE, or too many of them")
    return found


def _content(octets: bytes, start: int) -> tuple[int, int]:
    """Where the content of the SEQUENCE that stands here begins and ends."""
    if len(octets) < start + 2 or octets[start] != 0x30:
        raise ValueError("no SEQUENCE")
    length, begin = octets[start + 1], start + 2
    if length > 0x80:
        count = length - 0x80
        if count > 4 or len(octets) < begin + count:
            raise ValueError("a length that is too long")
        length, begin = int.from_bytes(octets[begin : begin + count], "big"), begin + count
    elif length == 0x80:
        raise ValueError("an indefinite length isn't DER")
    if begin + length > len(octets):
        raise ValueError("a SEQUENCE beyond its end")
    return begin, begin + length
