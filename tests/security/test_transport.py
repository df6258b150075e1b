"""The transport binding: what stands beside TLS, and what each lack or surplus is refused as."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from castile.endpoint.turn import Turn
from castile.errors import PolicyError, SecurityFailure, UsageError
from castile.policy import CONTEXT, ENDORSING, USERNAME, ProtectionPolicy, SupportingToken
from castile.policy.parts import NO_PARTS, HeaderPart, Parts
from castile.policy.suites import SUITES
from castile.security.signature import DIGESTS
from castile.versions import DS, FAMILIES, WSA_1_0, WSSE, WSU
from castile.xml import canonical
from tests.security.insider import base64, changed, copy, first, sign
from tests.security.made import NOW, SECRET, context_key
from tests.security.shapes import BODY, CONFIRMED, Shape, context, transport
from tests.security.test_oracle import judged

TO = replace(NO_PARTS, signed_headers=frozenset({HeaderPart(WSA_1_0.namespace, "To")}))
ALL = Parts(every_header=True, encrypted_body=False)
DERIVED = replace(CONTEXT, derived_keys=True)
TOKENS: dict[str, tuple[SupportingToken, ...]] = {
    "nobody": (),
    "text": (USERNAME,),
    "text with nonce": (replace(USERNAME, nonce=True, created=True),),
    "digest": (replace(USERNAME, password="digest"),),
    "name": (replace(USERNAME, password="none"), ENDORSING),
    "certificate": (ENDORSING,),
    "certificate over To": (replace(ENDORSING, parts=TO),),
    "certificate over all": (replace(ENDORSING, parts=ALL),),
    "certificate by name": (replace(ENDORSING, reference="issuer-serial"),),
    "certificate shown": (replace(ENDORSING, endorsing=False),),
    "context": (CONTEXT,),
    "context derived": (DERIVED,),
    "context over To": (replace(DERIVED, parts=TO),),
    "certificate and context": (ENDORSING, CONTEXT),
}
WHO = {"name": "CN=client,O=Test", **dict.fromkeys(("text", "text with nonce", "digest"), "ada")}


@pytest.mark.row("MS-56", "MS-57", "MS-12", "N13")
@pytest.mark.parametrize("layout", ["Strict", "LaxTsLast"])
@pytest.mark.parametrize("name", TOKENS)
def test_every_token_over_tls(name: str, layout: Any) -> None:
    for family in FAMILIES:
        shape = Shape(transport(*TOKENS[name], layout=layout), family)
        verified = shape.received()
        assert verified.transport == "request"
        assert verified.body_content == BODY
        signs = "certificate" in name and name != "certificate shown"
        assert verified.principal == WHO.get(name, "CN=client,O=Test" if signs else None)
        assert {header.name for header in verified.headers} == {
            "wsa:Action",
            "wsa:MessageID",
            "wsa:ReplyTo",
            "wsa:To",
        }
        assert all(header.key is None for header in verified.headers)
        assert all("wsu:Timestamp" in signature.covered for signature in verified.signatures)
        assert any("wsa:To" in each.covered for each in verified.signatures) == ("over" in name)
        assert verified.reply_key is None
        answer = replace(shape, request=False).received()
        assert (answer.transport, answer.signatures) == ("response", ())


@pytest.mark.row("CO-11")
@pytest.mark.parametrize("name", TOKENS)
def test_nothing_without_tls(name: str) -> None:
    for request in (True, False):
        shape = Shape(transport(*TOKENS[name]), request=request)
        with pytest.raises(SecurityFailure, match="connection has none"):
            shape.received(tls=False)
        bare = Shape(transport(*TOKENS[name], timestamp=False), request=request)
        if name not in ("certificate over To", "certificate over all", "context over To") and (
            "certificate" in name or "context" in name or name == "name"
        ):
            if request and name != "certificate shown":
                with pytest.raises(UsageError, match="nothing to sign"):
                    bare.protected()
            continue
        with pytest.raises(SecurityFailure, match="connection has none"):
            bare.received(tls=False)
        assert bare.received().body_content == BODY


@pytest.mark.row("MS-57", "MS-20", "CO-11")
@pytest.mark.parametrize(
    ("sent", "asked", "words"),
    [
        ("nobody", "text", "exactly one UsernameToken"),
        ("certificate", "text", "doesn't ask for"),
        ("text", "certificate", "0 signatures"),
        ("nobody", "context", "0 signatures"),
        ("certificate", "context", "0 signatures"),
        ("context", "certificate", "0 signatures"),
        ("certificate and context", "certificate", "doesn't ask for"),
        ("certificate and context", "context", "doesn't ask for"),
        ("certificate", "certificate and context", "0 signatures"),
        ("context", "context derived", "isn't derived"),
        ("certificate", "certificate over To", "doesn't sign wsa:To"),
        ("certificate over To", "certificate over all", "doesn't sign the Body"),
        ("context derived", "context over To", "doesn't sign wsa:To"),
        ("text", "text with nonce", "lacks its Nonce"),
        ("digest", "text", "as text"),
        ("nobody", "certificate shown", "isn't shown"),
        ("certificate by name", "certificate shown", "doesn't ask for"),
    ],
)
def test_one_token_is_never_taken_for_another(sent: str, asked: str, words: str) -> None:
    with pytest.raises(SecurityFailure, match=words):
        Shape(transport(*TOKENS[sent])).received(policy=transport(*TOKENS[asked]))


@pytest.mark.row("MS-75", "CO-11")
@pytest.mark.parametrize("request_", [True, False])
def test_the_timestamp_is_required_and_signed(request_: bool) -> None:
    late = transport(replace(CONTEXT, parts=TO), timestamp=False)
    shape = Shape(late, request=request_)
    with pytest.raises(SecurityFailure, match=r"Timestamp|no Security header"):
        shape.received(policy=transport(replace(CONTEXT, parts=TO)))


def with_context(change: Any, words: str) -> None:
    shape = Shape(transport(CONTEXT))
    payload = changed(shape.protected().payload, change)
    with pytest.raises(SecurityFailure, match=words):
        shape.received(payload)


@pytest.mark.row("MS-57", "MS-07", "CO-11")
def test_tampering_with_the_signature_over_the_timestamp() -> None:
    def later(root: etree._Element) -> None:
        first(root, f".//{{{WSU}}}Expires").text = "2026-09-22T12:35:00.000Z"

    def twice(root: etree._Element) -> None:
        signature = first(root, f".//{{{DS}}}Signature")
        signature.addnext(copy(signature))

    def header(root: etree._Element) -> None:
        twin = copy(first(root, f".//{{{WSA_1_0.namespace}}}To"))
        root[0].insert(0, twin)

    with_context(later, "digest of wsu:Timestamp")
    with_context(twice, "2 signatures")
    with_context(header, "twice")


@pytest.mark.row("CO-11", "SC-28")
def test_a_context_that_signs_another_signature_too_is_still_the_message_s() -> None:
    """Else its owner would keep it beyond its life: whose context it is is what is checked then."""
    shape = Shape(transport(ENDORSING, CONTEXT))

    def more(root: etree._Element) -> None:
        other, own = root.findall(f".//{{{DS}}}Signature")
        other.set("Id", "other")
        reference = copy(first(own, f".//{{{DS}}}Reference"))
        reference.set("URI", "#other")
        method = first(reference, f"{{{DS}}}DigestMethod").get("Algorithm", "")
        first(reference, f"{{{DS}}}DigestValue").text = base64(DIGESTS[method](canonical(other)))
        own[0].append(reference)
        sign(root, own)

    verified = shape.received(changed(shape.protected().payload, more))
    assert [each.endorsing for each in verified.signatures] == [False, True]
    turn: Any = Turn(*cast("Any", (None, None, SimpleNamespace(verified=verified), NOW)))
    assert turn.context() == context_key(FAMILIES["1.3"]).identifier


@pytest.mark.row("MS-57", "MS-76")
def test_a_signature_that_may_cover_anything_is_good_for_nothing() -> None:
    """Without a Timestamp it would do for every message, and at every service."""
    sent = Shape(transport(replace(ENDORSING, parts=TO), timestamp=False))
    assert sent.received().principal == "CN=client,O=Test"
    absent = replace(NO_PARTS, signed_headers=frozenset({HeaderPart("urn:app", "Session")}))
    for row in (ENDORSING, replace(ENDORSING, parts=absent)):
        with pytest.raises(SecurityFailure, match="doesn't sign the Timestamp"):
            sent.received(policy=transport(row, timestamp=False))


@pytest.mark.row("MS-71", "MS-20")
def test_nothing_encrypted_is_taken_for_tls() -> None:
    """A message of the symmetric binding, over TLS, isn't what the policy says."""
    for other in (context(), context(parts=Parts().in_clear)):
        with pytest.raises(SecurityFailure, match=r"encrypted|doesn't ask for"):
            Shape(other).received(policy=transport())
    with pytest.raises(SecurityFailure):
        Shape(transport(CONTEXT)).received(policy=context())


@pytest.mark.row("CO-13")
def test_a_response_that_somebody_signed() -> None:
    shape = Shape(transport(CONTEXT))
    with pytest.raises(SecurityFailure, match="doesn't ask for"):
        shape.received(request=False)


@pytest.mark.row("MS-52")
def test_required_headers_over_tls() -> None:
    asked = transport(parts=replace(NO_PARTS, required=frozenset({HeaderPart("urn:app", "Session")})))
    for request, stamp in ((True, True), (False, True), (True, False), (False, False)):
        with pytest.raises(SecurityFailure, match="lacks"):
            Shape(transport(timestamp=stamp), request=request).received(
                policy=replace(asked, timestamp=stamp)
            )


@pytest.mark.row("MS-54")
def test_confirmations_over_tls() -> None:
    asked = transport(ENDORSING, signature_confirmation=True)
    answer = Shape(asked, request=False)
    assert answer.received().body_content == BODY
    with pytest.raises(SecurityFailure, match="confirms other"):
        answer.received(confirmations=((b"other",),))
    with pytest.raises(SecurityFailure, match="doesn't confirm"):
        Shape(transport(ENDORSING), request=False).received(policy=asked)
    assert len(CONFIRMED) == 2


@pytest.mark.row("MS-12")
def test_a_name_without_a_password_is_no_principal() -> None:
    """Whoever has a certificate would be whoever he likes."""
    shape = Shape(transport(replace(USERNAME, password="none")))
    assert shape.received().principal is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: SupportingToken("x509", endorsing=True, derived_keys=True),
        lambda: SupportingToken("username", endorsing=True),
        lambda: SupportingToken("x509", parts=Parts()),
        lambda: transport(USERNAME, USERNAME),
        lambda: ProtectionPolicy("x509", SUITES["Basic256"], "transport"),
        lambda: ProtectionPolicy("transport", SUITES["Basic256"]),
        lambda: ProtectionPolicy("context", SUITES["Basic256"], "asymmetric"),
        lambda: context(supporting=(replace(ENDORSING, encrypted=True),)),
    ],
)
def test_policies_that_can_not_be_met(make: Any) -> None:
    with pytest.raises(PolicyError):
        make()


@pytest.mark.row("MS-57", "N13")
def test_xmlsec_verifies_what_supporting_tokens_sign(tmp_path: Path) -> None:
    names = [name for name in TOKENS if "certificate" in name or "context" in name]
    made = [Shape(transport(*TOKENS[name])) for name in names]
    signer = made[0].client.certificate.public_bytes(Encoding.PEM).decode()
    cases = [
        {
            "payload": b64encode(shape.protected().payload).decode(),
            "secret": SECRET.hex(),
            "context": context_key(FAMILIES["1.3"]).secret.hex(),
            "signer": signer,
        }
        for shape in made
    ]
    for name, result in zip(names, judged(tmp_path, cases), strict=True):
        assert "error" not in result, (name, result)
        assert result["decrypted"] == []
        wanted = ["Timestamp"]
        if "To" in name:
            wanted.append("To")
        if "all" in name:
            wanted += ["Body", "Action", "MessageID", "ReplyTo", "To"]
        count = 0 if name == "certificate shown" else 2 if " and " in name else 1
        assert result["covered"] == [wanted] * count, name


@pytest.mark.row("N13", "MS-03")
def test_what_goes_out_is_what_wcf_sends() -> None:
    """The order of the header, and nothing beside it (vectors/wcf/ws05-user-nonego-sc-rm-tmc)."""

    def header(shape: Shape) -> list[str]:
        root = etree.fromstring(shape.protected().payload)
        return [etree.QName(child).localname for child in first(root, f".//{{{WSSE}}}Security")]

    assert header(Shape(transport(USERNAME))) == ["Timestamp", "UsernameToken"]
    assert header(Shape(transport(CONTEXT))) == ["Timestamp", "SecurityContextToken", "Signature"]
    assert header(Shape(transport(CONTEXT), request=False)) == ["Timestamp"]
    assert header(Shape(transport(ENDORSING))) == ["Timestamp", "BinarySecurityToken", "Signature"]
    bare = Shape(transport(timestamp=False)).protected().payload
    assert b"Security" not in bare
    assert not re.search(rb"u:Id", bare)
