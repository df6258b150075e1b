"""Supporting tokens under message security: the kinds of WS-SecurityPolicy 1.2, 8, in each binding."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from lxml import etree

from castile.errors import SecurityFailure, UsageError
from castile.policy import ENDORSING, ProtectionPolicy, SupportingToken
from castile.policy.parts import NO_PARTS, HeaderPart, Parts
from castile.versions import WSA_1_0, WSSE
from tests.security.insider import changed, first
from tests.security.shapes import BODY, Shape, bootstrap, context

BINDINGS = ("context", "anonymous", "mutual")


def policy(name: str, *tokens: SupportingToken, **changes: Any) -> ProtectionPolicy:
    if name == "context":
        return context(supporting=tokens, **changes)
    return bootstrap(name, **{"supporting": tokens, "signature_confirmation": False, **changes})


def user(**changes: Any) -> SupportingToken:
    return SupportingToken("username", **changes)


@pytest.mark.row("MS-12", "MS-56", "MS-58")
@pytest.mark.parametrize("password", ["text", "digest", "none"])
@pytest.mark.parametrize(("signed", "encrypted"), list(itertools.product((True, False), repeat=2)))
@pytest.mark.parametrize("name", BINDINGS)
def test_every_user_token(name: str, signed: bool, encrypted: bool, password: Any) -> None:
    """A password as text is encrypted whatever the policy says; a name alone is no principal."""
    row = user(signed=signed, encrypted=encrypted, password=password)
    shape = Shape(policy(name, row))
    verified = shape.received()
    by_certificate = "CN=client,O=Test" if name == "mutual" else None
    assert verified.principal == ("ada" if password != "none" else by_certificate)
    assert ("wsse:UsernameToken" in verified.encrypted) == (encrypted or password == "text")
    covered = verified.covered_by(verified.primary)
    assert ("wsse:UsernameToken" in covered) == signed


@pytest.mark.row("MS-12", "MS-50")
@pytest.mark.parametrize("name", BINDINGS)
@pytest.mark.parametrize(
    ("sent", "asked"),
    [
        (user(encrypted=True), user(signed=True, encrypted=True)),
        (user(signed=True, password="digest"), user(signed=True, encrypted=True, password="digest")),
        (user(signed=True, password="digest"), user(signed=True)),
        (user(signed=True, password="none"), user(signed=True)),
        (None, user()),
    ],
)
def test_a_user_token_that_is_less_than_asked_for(
    name: str, sent: SupportingToken | None, asked: SupportingToken
) -> None:
    shape = Shape(policy(name, *([sent] if sent else [])))
    with pytest.raises(SecurityFailure, match="UsernameToken"):
        shape.received(policy=policy(name, asked))


@pytest.mark.row("MS-12")
def test_a_password_in_clear_needs_a_setting_on_both_sides() -> None:
    """Where a certificate signs and nothing encrypts."""
    signing = {"parts": Parts().in_clear}
    asked = policy("mutual", user(signed=True), **signing)
    shape = Shape(asked, sent={"key": None})
    with pytest.raises(UsageError, match="allow_clear_password"):
        shape.protected()
    payload = replace(shape, sent={"key": None, "clear_password": True}).protected().payload
    assert b"sesame" in payload
    with pytest.raises(SecurityFailure, match="UsernameToken"):
        shape.received(payload)
    assert shape.received(payload, clear_password=True).principal == "ada"
    with pytest.raises(UsageError, match="service_certificate="):
        Shape(policy("mutual", user(encrypted=True), **signing), sent={"key": None}).protected()
    assert b"sesame" not in Shape(asked).protected().payload  # there is a key, so it is used


@pytest.mark.row("MS-12", "MS-76")
def test_an_unsigned_token_is_remembered_by_its_nonce() -> None:
    """Else whoever sees one could put it into a message of his own."""
    row = user(password="digest")
    one, two = (Shape(policy("context", row)).protected(seed).payload for seed in (1, 2))
    shape = Shape(policy("context", row))

    def graft(root: etree._Element) -> None:
        mine = first(root, f".//{{{WSSE}}}UsernameToken")
        theirs = first(etree.fromstring(one), f".//{{{WSSE}}}UsernameToken")
        mine[:] = list(theirs)

    assert shape.received(changed(two, graft)).nonce == shape.received(one).nonce != b""
    assert shape.received(two).nonce != shape.received(one).nonce


@pytest.mark.row("MS-12", "MS-76")
def test_a_token_of_somebody_else_makes_no_new_message() -> None:
    """Whoever has an account puts his own unsigned token into a message that he has seen."""
    shape = Shape(policy("context", user(password="digest")))
    seen, mine = (shape.protected(seed).payload for seed in (1, 2))

    def graft(root: etree._Element) -> None:
        token = first(root, f".//{{{WSSE}}}UsernameToken")
        token[:] = list(first(etree.fromstring(mine), f".//{{{WSSE}}}UsernameToken"))

    again = shape.received(changed(seen, graft))
    assert not set(shape.received(seen).evidences).isdisjoint(again.evidences)


# ---------------------------------------------------------------- certificates

TO = replace(NO_PARTS, signed_headers=frozenset({HeaderPart(WSA_1_0.namespace, "To")}))


@pytest.mark.row("MS-56", "MS-57")
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("reference", ["direct", "thumbprint"])
@pytest.mark.parametrize("parts", [NO_PARTS, TO])
@pytest.mark.parametrize("name", ["context", "anonymous"])
def test_every_endorsing_certificate(name: str, parts: Parts, reference: Any, signed: bool) -> None:
    row = replace(ENDORSING, signed=signed, parts=parts, reference=reference)
    shape = Shape(policy(name, row))
    verified = shape.received()
    assert verified.principal == "CN=client,O=Test"
    assert verified.body_content == BODY
    endorsing = next(each for each in verified.signatures if each.endorsing)
    assert endorsing.covered == {"ds:Signature"} | ({"wsa:To"} if parts is TO else set())
    shown = signed and reference == "direct"
    assert ("wsse:BinarySecurityToken" in verified.covered_by(verified.primary)) == shown
    if shown:
        with pytest.raises(SecurityFailure, match="isn't shown"):
            Shape(policy(name, replace(row, signed=False))).received(policy=shape.policy)
    if parts is TO:
        with pytest.raises(SecurityFailure, match="doesn't sign wsa:To"):
            Shape(policy(name, replace(row, parts=NO_PARTS))).received(policy=shape.policy)


@pytest.mark.row("MS-56", "MS-11")
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name", BINDINGS)
def test_a_certificate_that_is_only_shown(name: str, signed: bool) -> None:
    """It proves nothing, but it must be there, signed as the policy says, and trusted."""
    row = SupportingToken("x509", signed=signed)
    shape = Shape(policy(name, row))
    verified = shape.received()
    assert verified.principal == ("CN=client,O=Test" if name == "mutual" else None)
    assert len(etree.fromstring(shape.protected().payload).findall(f".//{{{WSSE}}}BinarySecurityToken")) == (
        2 if name == "mutual" else 1
    )
    with pytest.raises(SecurityFailure, match="isn't shown"):
        Shape(policy(name)).received(policy=shape.policy)
    if signed:
        with pytest.raises(SecurityFailure, match="isn't shown"):
            Shape(policy(name, replace(row, signed=False))).received(policy=shape.policy)
    stranger = {"certificate": shape.service.certificate}
    with pytest.raises(SecurityFailure, match="trusted"):
        replace(shape, sent=stranger).received()
