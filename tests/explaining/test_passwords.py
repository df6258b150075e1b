"""Every way to digest or write a password wrongly is named."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable

import pytest

from castile.explaining import Explanation, explain
from castile.messages.security import UsernameToken
from castile.versions import PASSWORD_DIGEST, PASSWORD_TEXT, SOAP_1_1, WSSE, WSU

pytestmark = pytest.mark.row("N07")

PASSWORD = "Über-sesame 5"
NONCE = bytes(range(100, 116))
CREATED = "2026-11-25T10:00:00.000Z"
STAMPED = "2026-11-25T10:00:01.000Z"
KEYS = json.dumps({"users": {"ada": PASSWORD, "eve": "other"}}).encode()
Digest = Callable[[bytes, bytes, bytes], str]


def look(
    password: str,
    kind: str = PASSWORD_DIGEST,
    *,
    nonce: bytes | None = NONCE,
    created: str | None = CREATED,
    name: str = "ada",
) -> Explanation:
    """What is said of a message with this UsernameToken."""
    token = UsernameToken(None, name, password, kind, nonce, created).render().decode()
    text = (
        f'<s:Envelope xmlns:s="{SOAP_1_1.namespace}"><s:Header><o:Security xmlns:o="{WSSE}" xmlns:u="{WSU}">'
        f"<u:Timestamp><u:Created>{STAMPED}</u:Created></u:Timestamp>{token}</o:Security></s:Header>"
        "<s:Body></s:Body></s:Envelope>"
    )
    return explain(text.encode(), KEYS)


def digest(*parts: bytes, name: str = "sha1") -> bytes:
    return hashlib.new(name, b"".join(parts)).digest()


def hexadecimal(*parts: bytes, name: str = "sha1") -> bytes:
    return digest(*parts, name=name).hex().encode()


def text(*parts: bytes, name: str = "sha1") -> str:
    return b64encode(digest(*parts, name=name)).decode()


def lowered(password: bytes) -> bytes:
    return password.decode().lower().encode()


DAMAGE: list[tuple[str, Digest]] = [
    ("hex text, and that text encoded in base64", lambda n, c, p: b64encode(hexadecimal(n, c, p)).decode()),
    ("hex text, and that", lambda n, c, p: b64encode(digest(n, c, p).hex().upper().encode()).decode()),
    ("written as hex text: base64", lambda n, c, p: digest(n, c, p).hex()),
    ("base64 twice", lambda n, c, p: b64encode(text(n, c, p).encode()).decode()),
    ("base64 text of the nonce", lambda n, c, p: text(b64encode(n), c, p)),
    ("hex text of the nonce", lambda n, c, p: text(n.hex().encode(), c, p)),
    ("Created is in the token and was left out", lambda n, _, p: text(n, p)),
    ("the Nonce is in the token and was left out", lambda _, c, p: text(c, p)),
    ("password alone", lambda _, __, p: text(p)),
    ("another order", lambda n, c, p: text(p, n, c)),
    ("SHA-256 was used", lambda n, c, p: text(n, c, p, name="sha256")),
    ("another Created", lambda n, _, p: text(n, STAMPED.encode(), p)),
    ("another encoding", lambda n, c, p: text(n, c, p.decode().encode("latin-1"))),
    ("hash of the password", lambda n, c, p: text(n, c, digest(p, name="md5"))),
    ("hash of the password", lambda n, c, p: text(n, c, b64encode(digest(p)))),
    ("hash of the password", lambda n, c, p: text(n, c, hexadecimal(lowered(p), name="md5"))),
    ("password of another user", lambda n, c, _: text(n, c, b"other")),
    ("password itself stands there as PasswordDigest", lambda _, __, p: p.decode()),
    ("the cause is unknown", lambda n, c, _: text(n, c, b"guess")),
    ("the cause is unknown", lambda n, c, p: text(b64encode(n), p)),
]


@pytest.mark.parametrize(("says", "made"), DAMAGE)
def test_a_wrong_digest_has_its_one_cause(says: str, made: Digest) -> None:
    explanation = look(made(NONCE, CREATED.encode(), PASSWORD.encode()))
    ((_, problem),) = explanation.problems
    assert says in problem
    assert explanation.verdict == "unprotected"


def test_right_forms_have_no_problem() -> None:
    assert look(text(NONCE, CREATED.encode(), PASSWORD.encode())).problems == ()
    assert look(text(PASSWORD.encode()), nonce=None, created=None).problems == ()
    assert look(PASSWORD, PASSWORD_TEXT).problems == ()


@pytest.mark.parametrize(
    ("says", "password"),
    [
        ("a digest stands there as PasswordText", text(NONCE, CREATED.encode(), PASSWORD.encode())),
        ("white space", f"{PASSWORD}\n"),
        ("upper and lower case", PASSWORD.upper()),
        ("password of another user", "other"),
        ("isn't the password", "guess"),
    ],
)
def test_a_wrong_text_has_its_cause(says: str, password: str) -> None:
    ((_, problem),) = look(password, PASSWORD_TEXT).problems
    assert says in problem


def test_a_type_that_nobody_knows_is_named() -> None:
    ((_, problem),) = look("x", "PasswordDigest").problems
    assert "its Type is 'PasswordDigest'" in problem


def test_nothing_is_tried_for_an_unknown_user() -> None:
    explanation = look("x", name="mallory")
    assert not any("unknown:" in text for _, text in explanation.problems)


def test_no_password_is_ever_told() -> None:
    for _, made in DAMAGE:
        said = str(look(made(NONCE, CREATED.encode(), PASSWORD.encode())))
        assert PASSWORD not in said
