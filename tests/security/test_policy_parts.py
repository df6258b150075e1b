"""Every field of a policy's parts, sent and demanded: what one side leaves out the other refuses."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from lxml import etree

from castile.errors import SecurityFailure, UsageError
from castile.messages.soap import Header
from castile.policy import ProtectionPolicy
from castile.policy.parts import DEFAULT_HEADERS, NO_PARTS, HeaderPart, Parts
from castile.security.anchors import Anchors
from castile.versions import WSA_1_0, WSSE, WSSE11, WSU, XENC
from tests.security.insider import changed, copy, first
from tests.security.shapes import BODY, Shape, bootstrap, context

APP = "urn:app"
SESSION = HeaderPart(APP, "Session")
ACTION, RELATES = HeaderPart(WSA_1_0.namespace, "Action"), HeaderPart(WSA_1_0.namespace, "RelatesTo")
HEADER = Header("q", APP, "Session", b"<q:id>7</q:id>")
BINDINGS = ("context", "anonymous", "mutual")
SIDES = pytest.mark.parametrize("request_", [True, False], ids=["at the service", "at the client"])


def policy(name: str, parts: Parts = Parts(), **changes: Any) -> ProtectionPolicy:  # noqa: B008
    if name == "context":
        return context(parts=parts, **changes)
    return bootstrap(name, parts=parts, **{"signature_confirmation": False, **changes})


def but(**changes: Any) -> Parts:
    return replace(Parts(), **changes)


WSA_ONLY = but(signed_headers=frozenset({HeaderPart(WSA_1_0.namespace)}))
HEADER_ALONE = but(encrypted_body=False, encrypted_headers=frozenset({SESSION}))
HIDDEN = but(encrypted_headers=frozenset({SESSION}))
ONLY = but(signed_body=False, signed_headers=frozenset())
UNSIGNED = "isn't signed|where nothing may be encrypted"
VIOLATIONS: list[tuple[str, Parts, dict[str, Any], Parts, dict[str, Any], str]] = [
    # field, what is asked, what is sent in its place, what the refusal says
    ("signed_body", but(), {}, but(signed_body=False), {}, UNSIGNED),
    ("signed_body in clear", but().in_clear, {}, but(signed_body=False).in_clear, {}, "Body isn't signed"),
    ("signed_headers", but(), {}, but(signed_headers=frozenset({SESSION})), {}, "wsa:.* isn't signed"),
    ("signed_headers by name", but(signed_headers=frozenset({SESSION})), {}, WSA_ONLY, {}, "isn't signed"),
    ("every_header", but(every_header=True), {}, WSA_ONLY, {}, "Session isn't signed"),
    ("every_header, Body", but(every_header=True), {}, but(signed_body=False), {}, UNSIGNED),
    ("encrypted_body", but(), {}, but(encrypted_body=False), {}, "Body isn't encrypted"),
    ("encrypted_headers", HIDDEN, {}, but(), {}, "Session isn't encrypted"),
    ("encrypted_headers by namespace", but(encrypted_headers=frozenset({HeaderPart(APP)})), {}, but(), {},
     "Session isn't encrypted"),
    ("required", but(required=frozenset({HeaderPart(APP, "Other")})), {}, but(), {}, "lacks .*Other"),
    ("required by namespace", but(required=frozenset({HeaderPart("urn:other")})), {}, but(), {}, "lacks"),
    ("timestamp", but(), {}, but(), {"timestamp": False}, "Timestamp"),
    ("encrypt_signature", HEADER_ALONE, {}, HEADER_ALONE, {"encrypt_signature": False},
     "Signature isn't encrypted"),
    ("a signature at all", but(), {}, ONLY, {"timestamp": False}, UNSIGNED),
]  # fmt: skip


@pytest.mark.row("MS-50", "MS-51", "MS-52", "MS-70", "MS-71", "MS-75")
@SIDES
@pytest.mark.parametrize("name", BINDINGS)
@pytest.mark.parametrize(("field", "asked", "how", "sent", "but_how", "words"), VIOLATIONS)
def test_each_field_is_enforced(
    name: str,
    field: str,
    asked: Parts,
    how: dict[str, Any],
    sent: Parts,
    but_how: dict[str, Any],
    words: str,
    request_: bool,
) -> None:
    """On both sides and in every binding; what the policy asks for is what is sent, and taken."""
    good = Shape(policy(name, asked, **how), request=request_, headers=(HEADER,))
    if "required" not in field:
        assert good.received().body_content == BODY
    bad = Shape(policy(name, sent, **but_how), request=request_, headers=(HEADER,))
    with pytest.raises(SecurityFailure, match=words):
        bad.received(policy=good.policy)


TAKEN: list[tuple[Parts, dict[str, Any]]] = [
    (but(signed_headers=frozenset(), encrypted_body=False), {}),
    (but(signed_body=False, signed_headers=frozenset(), encrypted_body=False), {}),
    (but(signed_headers=frozenset(), encrypted_body=False), {"timestamp": False}),
    (but(signed_body=False, signed_headers=frozenset()), {"timestamp": False}),
    (but(signed_body=False), {}),
    (but(encrypted_headers=frozenset({SESSION})), {}),
    (but(encrypted_headers=frozenset({SESSION, ACTION})), {}),
    (but(encrypted_body=False, encrypted_headers=frozenset({HeaderPart(APP)})), {}),
    (but(every_header=True), {}),
    (but(required=frozenset({SESSION, ACTION})), {}),
    (but(signed_headers=frozenset({SESSION})), {"protect_tokens": True}),
]


@pytest.mark.row("MS-50", "MS-52", "MS-70", "MS-04")
@SIDES
@pytest.mark.parametrize("name", BINDINGS)
@pytest.mark.parametrize(("parts", "how"), TAKEN)
def test_what_is_sent_is_taken(name: str, parts: Parts, how: dict[str, Any], request_: bool) -> None:
    """In both orders, and with headers as WSS 1.0 and 1.1 encrypt them."""
    if name == "mutual" and not request_ and not parts.signed_body and not parts.signed_headers:
        how = {**how, "timestamp": True}
    for order, form in itertools.product(("sign-before-encrypt", "encrypt-before-sign"), (True, False)):
        asked = policy(name, parts, order=order, encrypted_header=form, **how)
        shape = Shape(asked, request=request_, headers=(HEADER,))
        payload = shape.protected().payload
        verified = shape.received(payload)
        assert verified.body_content == BODY
        root = etree.fromstring(payload)
        hidden = root.findall(f"{{*}}Header/{{{WSSE11}}}EncryptedHeader")
        bare = root.findall(f"{{*}}Header/{{{XENC}}}EncryptedData")
        count = len(parts.encrypted_headers)
        assert (len(hidden), len(bare)) == ((count, 0) if form else (0, count))
        assert (b"<q:id>7" not in payload) == bool(parts.encrypted_headers)
        signed = verified.signatures[0].covered if verified.signatures else frozenset()
        assert ("Body" in signed) == (parts.signed_body or parts.every_header)
        assert (f"{{{APP}}}Session" in signed) == (parts.signs_all or SESSION in parts.signed_headers)


# ---------------------------------------------------------------- what is left uncovered


def without_to(**changes: Any) -> ProtectionPolicy:
    left = frozenset({ACTION, HeaderPart(WSA_1_0.namespace, "MessageID")})
    return context(parts=but(signed_headers=left, encrypted_body=False), **changes)


@pytest.mark.row("MS-07", "MS-50")
def test_a_header_that_the_policy_leaves_out_is_seen_as_such() -> None:
    verified = Shape(without_to(), headers=(HEADER,)).received()
    keys = {header.name: header.key for header in verified.headers}
    assert keys["wsa:To"] is None
    assert keys["wsa:Action"] == verified.primary
    assert f"{{{APP}}}Session" not in keys  # nobody reads it, so nobody sees it


@pytest.mark.row("MS-07")
@pytest.mark.parametrize("place", [0, 5])
@pytest.mark.parametrize("name", ["To", "Action", "MessageID"])
def test_a_twin_is_refused_also_where_the_policy_leaves_it_out(name: str, place: int) -> None:
    shape = Shape(without_to())

    def add(root: etree._Element) -> None:
        block = first(root, f".//{{{WSA_1_0.namespace}}}{name}")
        twin = copy(block)
        twin.attrib.pop(f"{{{WSU}}}Id", None)
        twin.text = "urn:evil"
        root[0].insert(place, twin)

    with pytest.raises(SecurityFailure, match=r"twice|isn't signed"):
        shape.received(changed(shape.protected().payload, add))


@pytest.mark.row("MS-07")
@pytest.mark.parametrize("place", [0, 2])
def test_an_unsigned_one_beside_a_signed_one_of_a_kind_that_may_be_repeated(place: int) -> None:
    """RelatesTo may stand twice; the policy asks for none, but the peer signed one."""
    shape = Shape(context(parts=but(encrypted_body=False)), request=False)
    asked = context(parts=but(signed_headers=frozenset({ACTION}), encrypted_body=False))
    payload = shape.protected().payload
    assert shape.received(payload, policy=asked).body_content == BODY

    def add(root: etree._Element) -> None:
        twin = etree.Element(f"{{{WSA_1_0.namespace}}}RelatesTo")
        twin.text = "urn:evil"
        root[0].insert(place, twin)

    with pytest.raises(SecurityFailure, match="unsigned beside"):
        shape.received(changed(payload, add), policy=asked)


@pytest.mark.row("MS-71", "MS-70")
def test_a_header_in_clear_beside_its_encrypted_twin() -> None:
    hidden = context(parts=but(encrypted_headers=frozenset({SESSION}), every_header=True))
    shape = Shape(hidden, headers=(HEADER,))

    def add(root: etree._Element) -> None:
        twin = etree.Element(f"{{{APP}}}Session")
        root[0].insert(0, twin)

    with pytest.raises(SecurityFailure, match=r"isn't signed|isn't encrypted"):
        shape.received(changed(shape.protected().payload, add))


# ---------------------------------------------------------------- encryption alone


@pytest.mark.row("MS-71", "MS-20")
def test_encryption_alone_is_under_the_expected_key() -> None:
    """A response that brings its own key, or one of another context, opens nothing."""
    answer = Shape(policy("anonymous", ONLY, timestamp=False), request=False)
    assert answer.received().reply_key == answer.sealed
    forged = replace(answer, sent={"key": answer.client.certificate, "request": True})
    with pytest.raises(SecurityFailure, match="brings itself"):
        answer.received(forged.protected().payload)
    asked = Shape(policy("anonymous", ONLY, timestamp=False))
    assert asked.received().evidence
    with pytest.raises(SecurityFailure):
        Shape(context(parts=ONLY, timestamp=False)).received(policy=asked.policy)
    with pytest.raises(SecurityFailure, match="isn't encrypted"):
        Shape(policy("anonymous", NO_PARTS, timestamp=False)).received(policy=asked.policy)


# ---------------------------------------------------------------- certificates that sign and don't encrypt

SIGNED = replace(Parts().in_clear, signed_headers=DEFAULT_HEADERS)


@pytest.mark.row("MS-50", "MS-10", "MS-11")
@SIDES
def test_an_asymmetric_signature_without_encryption(request_: bool) -> None:
    """As public services in Latin America ask for: no key is made, and the certificate is checked."""
    shape = Shape(policy("mutual", SIGNED), request=request_, sent={"key": None})
    payload = shape.protected().payload
    assert b"EncryptedKey" not in payload
    verified = shape.received(payload)
    assert verified.principal == ("CN=client,O=Test" if request_ else None)
    with pytest.raises(SecurityFailure, match="trusted"):
        shape.received(payload, trust=Anchors.of([(shape.service if request_ else shape.client).certificate]))
    with pytest.raises(SecurityFailure, match="Body"):
        shape.received(payload.replace(b"100<", b"900<"))
    with pytest.raises(UsageError, match="sealed"):
        Shape(policy("mutual"), request=request_, sent={"key": None}).protected()


@pytest.mark.row("MS-50", "MS-20")
@SIDES
@pytest.mark.parametrize("name", BINDINGS)
def test_a_message_without_what_is_signed_is_nobodys(name: str, request_: bool) -> None:
    """Where a policy signs some headers only, leaving them out doesn't leave out who sends it."""
    to = frozenset({HeaderPart(WSA_1_0.namespace, "To"), ACTION})
    asked = Shape(policy(name, replace(ONLY, signed_headers=to).in_clear, timestamp=False), request=request_)

    def strip(root: etree._Element) -> None:
        for path in (f".//{{{WSA_1_0.namespace}}}To", f".//{{{WSA_1_0.namespace}}}Action"):
            for block in root.findall(path):
                root[0].remove(block)
        del first(root, f".//{{{WSSE}}}Security")[:]

    payload = asked.protected().payload
    assert asked.received(payload).signatures
    with pytest.raises(SecurityFailure, match="isn't signed"):
        asked.received(changed(payload, strip))
