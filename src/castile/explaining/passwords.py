"""How a password was written or digested, where it isn't as the profile has it."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterator
from itertools import permutations
from typing import Final

from castile.explaining.keys import Keys
from castile.messages.security import UsernameToken
from castile.security.keys import password_digest
from castile.versions import PASSWORD_DIGEST, PASSWORD_TEXT

_OTHER_HASHES: Final = {"SHA-256": "sha256", "SHA-512": "sha512", "MD5": "md5"}


def password_cause(token: UsernameToken, keys: Keys, stamped: str | None) -> str | None:
    """What would make the password fit; None: nobody knows the user, so nothing can be tried.

    `stamped`: Created of the message's Timestamp.
    """
    password, said = keys.users.get(token.name), token.password
    if said is None:
        return "the token holds no password"
    if token.password_type not in (PASSWORD_DIGEST, PASSWORD_TEXT):
        return f"its Type is {token.password_type!r}: the URI of #PasswordText or #PasswordDigest is due"
    if password is None:
        return None
    if token.password_type == PASSWORD_TEXT:
        if hmac.compare_digest(said.strip().encode(), password_digest(token, password.encode()).encode()):
            return "a digest stands there as PasswordText: Type must be #PasswordDigest"
        return next(_text_causes(said, password, keys), "it isn't the password that was given")
    rows = _digest_causes(token, said.strip(), password, keys, stamped)
    return next(rows, "the cause is unknown: no single known cause makes the digest fit")


def _text_causes(said: str, password: str, keys: Keys) -> Iterator[str]:
    if _same(said.strip(), password.strip()):
        yield "there is white space around it"
    if _same(said.casefold(), password.casefold()):
        yield "upper and lower case differ"
    if any(_same(said, other) for other in keys.users.values()):
        yield "it is the password of another user"


def _digest_causes(
    token: UsernameToken, said: str, password: str, keys: Keys, stamped: str | None
) -> Iterator[str]:
    nonce, created, secret = token.nonce or b"", (token.created or "").encode(), password.encode()
    encoded = b64encode(nonce)

    def fits(*parts: bytes, name: str = "sha1") -> bool:
        digest = hashlib.new(name, b"".join(parts), usedforsecurity=False).digest()
        return _same(said, b64encode(digest).decode())

    digest = hashlib.sha1(nonce + created + secret)  # noqa: S324 - the profile's own
    if _same(said, password):
        yield "the password itself stands there as PasswordDigest: Type must be #PasswordText"
    if any(_same(said, b64encode(text.encode()).decode()) for text in _cases(digest.hexdigest())):
        yield "the digest was written as hex text, and that text encoded in base64"
    if any(_same(said, text) for text in _cases(digest.hexdigest())):
        yield "the digest was written as hex text: base64 of its octets is due"
    if _same(said, b64encode(b64encode(digest.digest())).decode()):
        yield "the digest was encoded in base64 twice"
    if encoded and fits(encoded, created, secret):
        yield "the base64 text of the nonce was hashed, not its octets"
    if nonce and any(fits(text.encode(), created, secret) for text in _cases(nonce.hex())):
        yield "hex text of the nonce was hashed, not its octets"
    if created and fits(nonce, secret):
        yield "Created is in the token and was left out of the digest"
    if nonce and fits(created, secret):
        yield "the Nonce is in the token and was left out of the digest"
    if (nonce or created) and fits(secret):
        yield "the password alone was hashed, without Nonce and Created"
    if any(fits(*parts) for parts in permutations((nonce, created, secret))):
        yield "Nonce, Created and password were hashed in another order than this one"
    for label, name in _OTHER_HASHES.items():
        if fits(nonce, created, secret, name=name):
            yield f"{label} was used, where SHA-1 is due"
    for other in (created.strip(), (stamped or "").encode()):
        if fits(nonce, other, secret):
            yield "another Created was hashed than stands in the token"
    if any(fits(nonce, created, password.encode(name, "replace")) for name in ("utf-16-le", "latin-1")):
        yield "the password was hashed in another encoding than UTF-8"
    if any(fits(nonce, created, octets) for octets in _equivalents(password)):
        yield "a hash of the password was used as the password, which both sides must have agreed on"
    if any(fits(nonce, created, text.encode()) for text in keys.users.values()):
        yield "it fits the password of another user"


def _cases(text: str) -> tuple[str, str]:
    return text.lower(), text.upper()


def _equivalents(password: str) -> Iterator[bytes]:
    """Hashes of a password that people take for it (UsernameToken profile 1.0: password equivalent)."""
    for text in dict.fromkeys((password, password.lower(), password.upper())):
        for encoding in ("utf-8", "utf-16-le"):
            for name in ("md5", "sha1", "sha256"):
                found = hashlib.new(name, text.encode(encoding), usedforsecurity=False)
                hexadecimal = found.hexdigest()
                yield from (found.digest(), b64encode(found.digest()), hexadecimal.encode())
                yield hexadecimal.upper().encode()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
