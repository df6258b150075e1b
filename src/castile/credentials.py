"""Who a client is: credentials, and certificates from files.

A secret may be given by reference instead of by value: ``env:NAME``, ``file:PATH``,
``keyring:SERVICE/NAME`` (by the package keyring), or a function that is asked for it when it is
needed (features CL-24).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs12

from castile.errors import UsageError
from castile.transport.http import tls_context

Secret = str | Callable[[], str]
"""A secret, a reference to it, or a function that gives it."""


@dataclass(frozen=True, slots=True)
class Username:
    """A user's name and password (UsernameToken profile 1.1)."""

    name: str
    password: Secret = field(repr=False)
    """The password, a reference to it, or a function that gives it."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A private key and its certificate.

    `source` is PEM text, the path of a PEM or PKCS#12 file, or bytes of either; `password` opens
    it and may be a reference. Raises `UsageError` when loaded, naming what is missing.
    """

    source: str | bytes | Path = field(repr=False)
    password: Secret | None = field(default=None, repr=False)

    def load(self) -> tuple[RSAPrivateKey, x509.Certificate]:
        """The key and the certificate."""
        octets = _octets(self.source)
        secret = resolve(self.password).encode() if self.password is not None else None
        try:
            if b"-----BEGIN" in octets:
                key = load_pem_private_key(octets, secret)
                certificates = x509.load_pem_x509_certificates(octets)
            else:
                found, leaf, _ = pkcs12.load_key_and_certificates(octets, secret)
                if found is None or leaf is None:
                    raise UsageError("the PKCS#12 file must hold a private key and its certificate")
                key, certificates = found, [leaf]
        except (ValueError, TypeError) as error:
            raise UsageError(
                "no private key and certificate could be read: a PEM file with both, or PKCS#12, "
                f"and its password are wanted ({type(error).__name__})"
            ) from None
        if not isinstance(key, RSAPrivateKey):
            raise UsageError("the private key must be RSA")
        public = key.public_key().public_numbers()
        for certificate in certificates:  # a file may hold those of the issuers too, in any order
            other = certificate.public_key()
            if isinstance(other, RSAPublicKey) and other.public_numbers() == public:
                return key, certificate
        raise UsageError("the private key belongs to none of the certificates beside it")


CertificateSource = str | bytes | Path | x509.Certificate
"""PEM text, a PEM or DER file, its bytes, or a certificate."""


TrustSource = CertificateSource | Iterable[CertificateSource]
"""One or several; a PEM text or file may hold several itself."""


@dataclass(frozen=True, slots=True)
class TLS:
    """How https addresses are reached; the server's certificate and name are always verified.

    `authorities`: the only issuers that are believed, PEM text or files; without any the system's.
    `certificate`: PEM file of the client's own certificate and key (RequireClientCertificate), which
    `password` opens, or a reference to it such as ``env:NAME``.
    """

    authorities: TrustSource = ()
    certificate: str | Path | None = None
    password: str | None = field(default=None, repr=False)

    def context(self) -> ssl.SSLContext:
        """For the HTTP client. Raises `UsageError` for what can't be read."""
        issuers = [each.public_bytes(Encoding.PEM).decode() for each in load_trust(self.authorities)]
        made = tls_context("".join(issuers))
        if self.certificate is None:
            return made
        # A text, also an empty one: without it OpenSSL would ask whoever sits at the terminal.
        secret = resolve(self.password) if self.password is not None else ""
        try:
            made.load_cert_chain(self.certificate, password=secret)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"no certificate and key for TLS could be read from {self.certificate}: a PEM file with "
                f"both, and its password, are wanted ({type(error).__name__})"
            ) from None
        return made


def load_trust(source: TrustSource) -> tuple[x509.Certificate, ...]:
    """All certificates of one or several sources. Raises `UsageError`."""
    if isinstance(source, str | bytes | Path | x509.Certificate):
        source = (source,)
    found: list[x509.Certificate] = []
    for each in source:
        octets = None if isinstance(each, x509.Certificate) else _octets(each)
        if octets is None or b"-----BEGIN" not in octets:
            found.append(load_certificate(each))
            continue
        try:
            found += x509.load_pem_x509_certificates(octets)
        except ValueError:
            raise UsageError("no certificates could be read: PEM or DER is wanted") from None
    return tuple(found)


def load_certificate(source: CertificateSource) -> x509.Certificate:
    """A certificate from PEM text, a PEM or DER file, or its bytes. Raises `UsageError`."""
    if isinstance(source, x509.Certificate):
        return source
    octets = _octets(source)
    try:
        if b"-----BEGIN" in octets:
            return x509.load_pem_x509_certificate(octets)
        return x509.load_der_x509_certificate(octets)
    except ValueError:
        raise UsageError("no certificate could be read: PEM or DER is wanted") from None


def check_period(certificate: x509.Certificate | None, option: str, utc: float) -> None:
    """Raise `UsageError` for a certificate that isn't valid at this moment (UTC seconds)."""
    if certificate is None:
        return
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = datetime.fromtimestamp(utc, UTC)
    if not start <= now <= end:
        when = f"expired on {end:%Y-%m-%d %H:%M}" if now > end else f"is valid from {start:%Y-%m-%d %H:%M} on"
        name = certificate.subject.rfc4514_string()
        raise UsageError(
            f"{option}: the certificate of {name} {when} UTC, and it is {now:%Y-%m-%d %H:%M} here: its "
            "owner has another one, or this machine's clock is wrong"
        )


def resolve(secret: Secret) -> str:
    """The value that a reference or a function stands for; anything else is the value itself.

    Raises `UsageError` where it isn't there.
    """
    if not isinstance(secret, str):
        value = secret()
        if not isinstance(value, str):
            raise UsageError("the function that was given for a secret gave no text")
        return value
    kind, _, name = secret.partition(":")
    reader = _READERS.get(kind)
    return secret if reader is None or not name else reader(name)


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise UsageError(f"the environment has no {name}, which a secret is taken from")
    return value


def _from_file(name: str) -> str:
    try:
        return Path(name).read_text().strip()
    except OSError as error:
        raise UsageError(f"the secret's file {name} can't be read: {error.strerror}") from None


def _from_keyring(name: str) -> str:
    service, _, user = name.rpartition("/")
    if not service or not user:
        raise UsageError(f"keyring:{name}: keyring:SERVICE/NAME is wanted, as in `keyring set SERVICE NAME`")
    try:
        keyring = import_module("keyring")
    except ImportError:
        raise UsageError(f"keyring:{name} needs the package keyring: pip install keyring") from None
    try:
        value: object = keyring.get_password(service, user)
    except Exception as error:  # each of its backends has errors of its own
        raise UsageError(f"keyring:{name}: the keyring can't be asked ({type(error).__name__})") from None
    if not isinstance(value, str):
        raise UsageError(f"the keyring has no {user} of {service}: `keyring set {service} {user}`")
    return value


_READERS: Final[dict[str, Callable[[str], str]]] = {
    "env": _from_environment,
    "file": _from_file,
    "keyring": _from_keyring,
}


def _octets(source: str | bytes | Path) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str) and "-----BEGIN" in source:
        return source.encode()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise UsageError(f"{source} can't be read: {error.strerror}") from None
