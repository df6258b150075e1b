"""Whose certificates are taken: pinned ones, and those that a configured issuer vouches for.

A certificate inside a message is a claim. It counts only once it is one of those that were
configured, or was issued by one of them, at the moment of the message (features MS-11, MS-20).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import MD5, SHA1
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from castile.errors import WSSE, SecurityFailure, SOAPFault
from castile.security.certificates import subject_of

E = TypeVar("E", bound=x509.ExtensionType)
_DEEPEST: Final = 4
"""Intermediate issuers between a signer and an anchor."""
_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)
"""Critical extensions that don't stand in the way; name constraints do."""
_PURPOSES: Final = frozenset(
    {
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.EMAIL_PROTECTION,
    }
)
_WEAK: Final = (MD5, SHA1)
_UNTRUSTED: Final = SOAPFault(
    "Sender", "An invalid security token was provided.", (WSSE, "InvalidSecurityToken")
)


@dataclass(frozen=True, slots=True)
class Anchors:
    """The certificates that may sign to us, and the issuers that vouch for others."""

    pinned: tuple[x509.Certificate, ...] = ()
    issuers: tuple[x509.Certificate, ...] = ()
    subject: x509.Name | None = None
    """The only subject that an issuer may vouch for; None: each subject is a principal of its own."""

    @classmethod
    def of(cls, certificates: Iterable[x509.Certificate], subject: x509.Name | None = None) -> Self:
        """Each of them may sign; those of certification authorities vouch for others too."""
        pinned = tuple(certificates)
        return cls(pinned, tuple(each for each in pinned if _is_authority(each)), subject)

    def check(self, certificate: x509.Certificate, path: Iterable[x509.Certificate], utc: float) -> None:
        """Refuse a certificate that nobody configured here stands for at this moment (UTC seconds).

        `path`: further certificates that came with it. Raises `SecurityFailure`.
        """
        moment = datetime.fromtimestamp(utc, UTC)
        if not _valid(certificate, moment):
            raise _untrusted(certificate, "is not valid at this time")
        if certificate in self.pinned:
            return
        if self.subject is not None and certificate.subject != self.subject:
            raise _untrusted(certificate, "is another one than this endpoint's")
        if not _signs(certificate):
            raise _untrusted(certificate, "is not for signatures")
        if not self._issued(certificate, tuple(path), moment, 0):
            raise _untrusted(certificate, "was issued by nobody who is trusted here")

    def _issued(
        self, certificate: x509.Certificate, path: tuple[x509.Certificate, ...], moment: datetime, depth: int
    ) -> bool:
        """Whether an anchor stands above it, straight or through certificates of the path."""
        if any(_vouches(issuer, certificate, moment, depth) for issuer in self.issuers):
            return True
        for issuer in path if depth < _DEEPEST else ():
            if _vouches(issuer, certificate, moment, depth):
                others = tuple(each for each in path if each is not issuer)
                if self._issued(issuer, others, moment, depth + 1):
                    return True
        return False


def _untrusted(certificate: x509.Certificate, text: str) -> SecurityFailure:
    return SecurityFailure(
        f"the certificate of {subject_of(certificate)} {text}",
        part="wsse:BinarySecurityToken",
        fault=_UNTRUSTED,
    )


def _valid(certificate: x509.Certificate, moment: datetime) -> bool:
    return certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints = _extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _vouches(issuer: x509.Certificate, certificate: x509.Certificate, moment: datetime, below: int) -> bool:
    """Whether one certificate issued another and may; `below`: issuers between it and the signer."""
    if certificate.issuer != issuer.subject or not _valid(issuer, moment) or not _acceptable(issuer):
        return False
    constraints = _extension(issuer, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        return False
    if constraints.path_length is not None and constraints.path_length < below:
        return False
    usage = _extension(issuer, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return False
    try:
        if isinstance(certificate.signature_hash_algorithm, _WEAK):
            return False
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _acceptable(certificate: x509.Certificate) -> bool:
    """A key of sufficient length, and no critical extension that isn't understood."""
    try:
        public = certificate.public_key()
        critical = {extension.oid for extension in certificate.extensions if extension.critical}
    except (ValueError, UnsupportedAlgorithm):
        return False
    return critical <= _UNDERSTOOD and not (isinstance(public, RSAPublicKey) and public.key_size < 2048)


def _signs(certificate: x509.Certificate) -> bool:
    """Whether key usages allow signatures over messages; certificates without any do."""
    if not _acceptable(certificate):
        return False
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        return False
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    return purposes is None or not _PURPOSES.isdisjoint(purposes)


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except ValueError:
        raise SecurityFailure("a certificate's extensions can't be read", fault=_UNTRUSTED) from None
