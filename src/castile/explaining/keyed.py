"""Which other key would make a signature's value fit: generators for the table in `causes`."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from castile.errors import PeerError
from castile.explaining.claims import Claim, Try
from castile.explaining.keys import Keys
from castile.messages.conversation import DerivedKeyToken
from castile.messages.security import BinarySecurityToken, SecurityTokenReference
from castile.security.certificates import certificates_of, subject_of
from castile.security.keys import DEFAULT_LABEL, p_sha1, parameters
from castile.security.tokens import Entry

_LENGTHS: Final = (16, 20, 24, 32, 40, 48, 64)
"""Octets of a derived key: what the ciphers and hashes of the suites want."""
_LABELS: Final = ("WS-SecureConversation", DEFAULT_LABEL, "WS-SecureConversation" * 3, "")
_OFFSETS: Final = (0, 16, 20, 24, 32, 40, 48, 64, 96)
_SECRETS: Final = 128
"""Contexts, named and sealed keys that are tried."""


def reversed_path(claim: Claim) -> Iterator[Try]:
    """The first certificate of a path that goes from the subject to the anchor."""
    path = claim.signer.path if claim.signer is not None else ()
    if path and isinstance(public := path[0].public_key(), RSAPublicKey):
        yield Try(key=public)


def other_token(claim: Claim) -> Iterator[Try]:
    """The key of another DerivedKeyToken of the message."""
    for entry in _derivations(claim):
        try:
            reference = SecurityTokenReference(uri=f"#{_name(claim, entry)}")
            yield Try(key=claim.reading.tokens.resolve(reference, entry.place, 0).octets, note=_called(entry))
        except PeerError:
            continue


def underived(claim: Claim) -> Iterator[Try]:
    """The secret itself, where a key derived from it is named."""
    for secret, _ in _derivation(claim):
        yield Try(key=secret)


def other_length(claim: Claim) -> Iterator[Try]:
    """Derived as the token says, but for the number of octets."""
    return _varied(claim, "length", _LENGTHS, "{} bytes, not {}")


def other_label(claim: Claim) -> Iterator[Try]:
    """Derived with another label."""
    return _varied(claim, "label", _LABELS, "{!r}, not {!r}")


def other_offset(claim: Claim) -> Iterator[Try]:
    """Derived from another place."""
    return _varied(claim, "offset", _OFFSETS, "{}, not {}")


def nonce_text(claim: Claim) -> Iterator[Try]:
    """Derived with the nonce as base64 text."""
    for secret, token in _derivation(claim):
        said = _Derived(*parameters(token))
        yield Try(key=said._replace(nonce=b64encode(said.nonce)).key(secret))


def other_secret(claim: Claim) -> Iterator[Try]:
    """The other secrets among those given, as they are and derived as the message says."""
    if not isinstance(claim.key, bytes):
        return
    tokens = [entry.token for entry in _derivations(claim)]
    for note, secret in _secrets(claim.keys)[:_SECRETS]:
        yield Try(key=secret, note=note)
        for token in tokens:
            if not isinstance(token, DerivedKeyToken):
                continue
            try:
                said = _Derived(*parameters(token))
            except PeerError:
                continue
            yield Try(key=said.key(secret), note=note)


def other_certificate(claim: Claim) -> Iterator[Try]:
    """The public keys of the other certificates and private keys at hand."""
    if not isinstance(claim.key, RSAPublicKey):
        return
    for certificate in [*claim.keys.certificates, *_carried(claim)]:
        if isinstance(public := certificate.public_key(), RSAPublicKey):
            yield Try(key=public, note=subject_of(certificate))
    for private in claim.keys.private:
        yield Try(key=private.public_key(), note="a private key that was given")


class _Derived(NamedTuple):
    """What a key is derived by, in the order of `parameters`."""

    length: int
    offset: int
    label: str
    nonce: bytes

    def key(self, secret: bytes) -> bytes:
        return p_sha1(secret, self.label.encode() + self.nonce, self.length, self.offset)


def _varied(claim: Claim, name: str, values: Iterable[int | str], note: str) -> Iterator[Try]:
    """Derived as the token says, but for one parameter."""
    place = _Derived._fields.index(name)
    for secret, token in _derivation(claim):
        said = _Derived(*parameters(token))
        for other in values:
            if other != said[place]:
                varied = _Derived._make((*said[:place], other, *said[place + 1 :]))
                yield Try(key=varied.key(secret), note=note.format(other, said[place]))


def _secrets(keys: Keys) -> list[tuple[str, bytes]]:
    named = [(f"security context {key.identifier}", key.secret) for key in keys.contexts.values()]
    named += [(f"the key named {name!r}", octets) for name, octets in keys.names.items()]
    return named + [(f"the EncryptedKey {key.sha1}", key.octets) for key in keys.sealed.values()]


def _carried(claim: Claim) -> Iterator[x509.Certificate]:
    for entry in claim.reading.of(BinarySecurityToken):
        if isinstance(entry.token, BinarySecurityToken):
            try:
                yield from certificates_of(entry.token, old=True)
            except PeerError:
                continue


def _derivations(claim: Claim) -> list[Entry]:
    return claim.reading.of(DerivedKeyToken)


def _name(claim: Claim, entry: Entry) -> str:
    return next((name for name, each in claim.reading.tokens.entries.items() if each is entry), "")


def _called(entry: Entry) -> str:
    return f"the DerivedKeyToken {getattr(entry.token, 'id', None) or '?'}"


def _derivation(claim: Claim) -> Iterator[tuple[bytes, DerivedKeyToken]]:
    """The secret and the token of the derived key that KeyInfo names."""
    reference = claim.info.reference if claim.info is not None else None
    if reference is None or not isinstance(claim.key, bytes):
        return
    tokens = claim.reading.tokens
    entry = tokens.entries.get(reference.local or "")
    try:
        if entry is not None and isinstance(entry.token, DerivedKeyToken):
            token = entry.token
            if token.reference is not None:
                secret = tokens.resolve(token.reference, entry.place, 1).octets
            else:  # of the only context there is, whose token stands in the message
                secret = getattr(claim.signer.source, "secret", b"") if claim.signer is not None else b""
        elif reference.nonce is not None and claim.signer is not None:
            token = DerivedKeyToken(None, None, length=reference.length, nonce=reference.nonce)
            source = claim.signer.source
            secret = getattr(source, "secret", b"") or getattr(source, "octets", b"")
        else:
            return
        parameters(token)
    except PeerError:
        return
    if secret:
        yield secret, token
