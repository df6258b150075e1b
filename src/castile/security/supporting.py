"""The tokens of an outgoing message that sign nothing: users, certificates that are shown, and the
confirmations of a request's signatures (WS-SP 1.2, 8; WSS 1.1.1, 8.5)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from castile.clock import Now, iso
from castile.errors import UsageError
from castile.messages.security import SignatureConfirmation, UsernameToken
from castile.policy import USERNAME, SupportingToken
from castile.security.certificates import token_of
from castile.security.keys import password_digest
from castile.security.sources import Random
from castile.versions import PASSWORD_DIGEST

if TYPE_CHECKING:
    from castile.security.outgoing import Protection

_NONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Carried:
    """A child of Security that isn't the token of a signature."""

    name: str
    octets: bytes = field(repr=False)
    sealed: bool = False
    signed: bool = True
    """The primary signature covers it."""


def tokens_of(protection: Protection, tag: str, now: Now, random: Random, *, hidden: bool) -> list[Carried]:
    """In the order in which they stand; `hidden`: something else is encrypted."""
    policy = protection.policy
    found = []
    if protection.username is not None:
        found.append(_user(protection, protection.username, f"{tag}u", now, random))
    shown = policy.supports("x509")
    if protection.certificate is not None and shown is not None and not shown.endorsing:
        octets = token_of(protection.certificate, f"{tag}v").render()
        found.append(Carried(f"{tag}v", octets, signed=shown.signed and policy.signs))
    if policy.signature_confirmation and not protection.request:
        sealed = hidden and policy.encrypt_signature
        for place, value in enumerate(protection.confirm or (None,)):
            name = f"{tag}f{place}"
            octets = SignatureConfirmation(name, value).render()
            found.append(Carried(name, octets, sealed, policy.signs))
    return found


def _user(
    protection: Protection, credential: tuple[str, str], name: str, now: Now, random: Random
) -> Carried:
    """The UsernameToken: encrypted wherever the policy says so, and a password as text wherever
    there is a key to do it (features MS-12, MS-58)."""
    policy = protection.policy
    row = policy.username or USERNAME
    token = _with_password(row, credential, name, now, random)
    if policy.binding == "transport":
        return Carried(name, token.render(), signed=False)
    keyed = policy.binding == "symmetric" or protection.key is not None
    sealed = keyed and (row.encrypted or row.password == "text")
    if row.encrypted and not sealed:
        raise UsageError("the policy encrypts the UsernameToken: give service_certificate=")
    if row.password == "text" and not (sealed or protection.clear_password):
        raise UsageError(
            "a password as text would go out in clear: give service_certificate= to encrypt it, or "
            "Settings(allow_clear_password=True)"
        )
    return Carried(name, token.render(), sealed, row.signed)


def _with_password(
    row: SupportingToken, credential: tuple[str, str], name: str, now: Now, random: Random
) -> UsernameToken:
    user, password = credential
    if row.password == "none":
        return UsernameToken(name, user)
    if row.password == "text":
        nonce, created = random(_NONCE) if row.nonce else None, iso(now.utc) if row.created else None
        return UsernameToken(name, user, password, nonce=nonce, created=created)
    token = UsernameToken(name, user, None, PASSWORD_DIGEST, random(_NONCE), iso(now.utc))
    return replace(token, password=password_digest(token, password.encode()))
