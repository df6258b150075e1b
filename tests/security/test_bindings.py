"""Every binding, order, layout and reference: what is sent is what the other side demands."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from lxml import etree

from castile import xml
from castile.errors import SecurityFailure, UsageError
from castile.messages.signature import signature, signed_info, signed_info_content
from castile.policy.parts import Parts
from castile.policy.suites import HMAC_SHA1, SUITES
from castile.security import SealedKey, Trace
from castile.security.anchors import Anchors
from castile.security.signature import DIGESTS, mac, sign
from castile.versions import DS, FAMILIES, WSSE, WSU, XENC
from tests.security.authority import Issued
from tests.security.insider import ID, base64, changed, copy, drop, first
from tests.security.made import CONTEXT, SECRET, context_key, receive
from tests.security.shapes import BODY, BOOTSTRAPS, CONFIRMED, Shape, bootstrap, context

PRINCIPALS = {
    "username": "ada",
    "certificate": "CN=client,O=Test",
    "anonymous": None,
    "mutual": "CN=client,O=Test",
}
ORDERS = ("sign-before-encrypt", "encrypt-before-sign")
LAYOUTS = ("Strict", "Lax", "LaxTsFirst", "LaxTsLast")
REFERENCES = ("thumbprint", "issuer-serial", "key-identifier", "direct")


@pytest.mark.row("MS-02", "MS-04", "MS-50", "MS-54", "MS-55", "MS-57")
@pytest.mark.parametrize("protect_tokens", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", [*BOOTSTRAPS, "context"])
def test_every_order_layout_and_reference(name: str, order: str, protect_tokens: bool) -> None:
    for number, (layout, derived, hidden) in enumerate(
        itertools.product(LAYOUTS, (True, False), (True, False))
    ):
        changes: dict[str, Any] = {
            "order": order,
            "layout": layout,
            "derived_keys": derived,
            "encrypt_signature": hidden,
            "protect_tokens": protect_tokens,
            "reference": REFERENCES[number % 4],
            "initiator_reference": REFERENCES[(number + number // 4) % 4],
        }
        policy = context(**changes) if name == "context" else bootstrap(name, **changes)
        for request, family in itertools.product((True, False), FAMILIES):
            shape = Shape(policy, family, request)
            verified = shape.received()
            assert verified.body_content == BODY
            assert ("ds:Signature" in verified.encrypted) == hidden
            assert "Body" in verified.encrypted
            endorsing = [each for each in verified.signatures if each.endorsing]
            assert len(endorsing) == (name == "certificate" and request)
            if request and name != "context":
                assert verified.principal == PRINCIPALS[name]
            if name == "mutual":
                peer = shape.client if request else shape.service
                assert verified.reply_key == peer.certificate
            tokens = {"wsse:BinarySecurityToken", "xenc:EncryptedKey", "wsc:SecurityContextToken"}
            covered = verified.covered_by(verified.primary)
            signs_token = protect_tokens and (request or name == "mutual")
            assert bool(covered & tokens) == signs_token, (covered, shape)


@pytest.mark.row("MS-30", "MS-31", "SC-14")
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("name", [*BOOTSTRAPS, "context"])
def test_every_suite(name: str, suite: str) -> None:
    policy = context(suite) if name == "context" else bootstrap(name, suite)
    for request in (True, False):
        shape = Shape(policy, request=request)
        assert shape.received().body_content == BODY
        other = SUITES["Basic128" if "256" in suite[:8] else "Basic256"]
        with pytest.raises(SecurityFailure):
            shape.received(policy=replace(policy, suite=other))


# ---------------------------------------------------------------- another shape than was asked for

OTHERS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("username", {"order": "encrypt-before-sign"}, {}, "digest of Body|no part that may be signed"),
    ("mutual", {}, {"order": "encrypt-before-sign"}, "digest of Body"),
    ("context", {"order": "encrypt-before-sign"}, {}, "digest of Body"),
    ("context", {}, {"order": "encrypt-before-sign"}, "digest of Body"),
    ("mutual", {"encrypt_signature": False}, {}, "Signature isn't encrypted"),
    ("mutual", {"parts": Parts().in_clear}, {}, "Body isn't encrypted"),
    ("anonymous", {}, {"protect_tokens": True}, "doesn't cover the token"),
    ("mutual", {}, {"protect_tokens": True}, "doesn't cover the token"),
    ("mutual", {"initiator_reference": "thumbprint"}, {"protect_tokens": True}, "doesn't cover the token"),
    ("certificate", {}, {"protect_tokens": True}, "doesn't cover the token"),
    ("context", {}, {"protect_tokens": True}, "doesn't cover the token"),
    ("anonymous", {"derived_keys": False}, {"derived_keys": True}, "isn't derived"),
    ("mutual", {"derived_keys": False}, {"derived_keys": True}, "isn't derived"),
    ("context", {"layout": "LaxTsLast"}, {"layout": "Strict"}, "behind its signature"),
    ("context", {"layout": "LaxTsLast"}, {"layout": "LaxTsFirst"}, "isn't first"),
    ("context", {"layout": "Lax"}, {"layout": "LaxTsLast"}, "isn't last"),
]


@pytest.mark.row("MS-02", "MS-04", "MS-50")
@pytest.mark.parametrize(("name", "sent", "asked", "words"), OTHERS)
def test_another_shape_than_was_asked_for(
    name: str, sent: dict[str, Any], asked: dict[str, Any], words: str
) -> None:
    def made(changes: dict[str, Any]) -> Any:
        return context(**changes) if name == "context" else bootstrap(name, **changes)

    shape = Shape(made(sent))
    assert shape.received().body_content == BODY
    with pytest.raises(SecurityFailure, match=words):
        shape.received(policy=made(asked))


@pytest.mark.row("MS-20")
@pytest.mark.parametrize("sent", [*BOOTSTRAPS, "context"])
@pytest.mark.parametrize("asked", [*BOOTSTRAPS, "context"])
def test_one_bootstrap_is_never_taken_for_another(sent: str, asked: str) -> None:
    shape = Shape(context() if sent == "context" else bootstrap(sent))
    policy = context() if asked == "context" else bootstrap(asked)
    weaker = {("username", "anonymous"), ("certificate", "anonymous")}
    if sent == asked or (sent, asked) in weaker:
        shape.received(policy=policy)
        return
    with pytest.raises(SecurityFailure):
        shape.received(policy=policy)


# ---------------------------------------------------------------- the strict layout


@pytest.mark.row("MS-02")
def test_a_list_must_stand_before_what_it_names() -> None:
    def behind(root: etree._Element) -> None:
        security = first(root, f".//{{{WSSE}}}Security")
        security.append(first(security, f"{{{XENC}}}ReferenceList"))

    shape = Shape(context())
    payload = changed(shape.protected().payload, behind)
    with pytest.raises(SecurityFailure, match="no list before"):
        shape.received(payload)
    assert shape.received(payload, policy=context(layout="Lax")).body_content == BODY

    def none(root: etree._Element) -> None:
        found = first(root, f".//{{{XENC}}}ReferenceList")
        found.remove(found[-1])

    payload = changed(shape.protected().payload, none)
    with pytest.raises(SecurityFailure, match=r"no list before|digest of Body"):
        shape.received(payload)


# ---------------------------------------------------------------- confirmations

RESPONSE = Shape(bootstrap("certificate"), request=False)


@pytest.mark.row("MS-54")
@pytest.mark.parametrize(
    ("confirm", "words"),
    [
        ((b"primary",), "confirms other"),
        ((b"primary", b"endorsing", b"more"), "confirms other"),
        ((b"primary", b"primary"), "confirms other"),
        ((b"primary", b"endorsinG"), "confirms other"),
        ((), "confirms other"),
    ],
)
def test_confirmations_that_are_wrong(confirm: tuple[bytes, ...], words: str) -> None:
    with pytest.raises(SecurityFailure, match=words) as refusal:
        replace(RESPONSE, sent={"confirm": confirm}).received()
    assert refusal.value.part == "wsse11:SignatureConfirmation"


@pytest.mark.row("MS-54")
def test_confirmations_that_are_missing_unsigned_in_clear_or_out_of_place() -> None:
    silent = replace(RESPONSE, policy=bootstrap("certificate", signature_confirmation=False))
    with pytest.raises(SecurityFailure, match="doesn't confirm"):
        silent.received(policy=RESPONSE.policy)
    with pytest.raises(SecurityFailure, match="confirms other"):
        RESPONSE.received(confirmations=None)
    assert silent.received().body_content == BODY

    extra = etree.fromstring(
        '<k:SignatureConfirmation xmlns:k="http://docs.oasis-open.org/wss/oasis-wss-wssecurity-secext-1.1.xsd"'
        f' xmlns:u="{WSU}" u:Id="more" Value="AAAA"/>'
    )

    def add(root: etree._Element) -> None:
        first(root, f".//{{{WSSE}}}Security").insert(1, copy(extra))

    for shape in (silent, RESPONSE):
        with pytest.raises(SecurityFailure, match="isn't signed"):
            shape.received(changed(shape.protected().payload, add))
    request = Shape(bootstrap("anonymous"))
    with pytest.raises(SecurityFailure, match="a request confirms"):
        request.received(changed(request.protected().payload, add))
    clear = replace(RESPONSE, policy=bootstrap("certificate", encrypt_signature=False))
    verified = clear.received()
    assert "wsse11:SignatureConfirmation" in verified.covered_by(verified.primary)
    unasked = Shape(bootstrap("username", signature_confirmation=True), request=False)
    assert unasked.received(policy=bootstrap("username")).body_content == BODY
    with pytest.raises(SecurityFailure, match="confirms other"):
        unasked.received(policy=bootstrap("username"), confirmations=((b"x",),))


@pytest.mark.row("MS-54")
def test_a_request_without_signature_is_confirmed_as_such() -> None:
    shape = replace(RESPONSE, sent={"confirm": ()})
    assert shape.received(confirmations=((),)).body_content == BODY


# ---------------------------------------------------------------- who endorses

CERTIFICATE = Shape(bootstrap("certificate"))


@pytest.mark.row("MS-57", "MS-20")
def test_exactly_one_certificate_endorses() -> None:
    client, other = CERTIFICATE.client, CERTIFICATE.service
    old = context_key(FAMILIES["1.3"])
    for endorsing, words in (
        ((), "0 certificates"),
        ((old,), "0 certificates"),
        ((client, client), "2 certificates"),
    ):
        with pytest.raises(SecurityFailure, match=words):
            replace(CERTIFICATE, sent={"endorsing": endorsing}).received()
    with pytest.raises(SecurityFailure, match="trusted"):
        replace(CERTIFICATE, sent={"endorsing": (other,)}).received()
    both = replace(CERTIFICATE, sent={"endorsing": (client, old)}).received()
    assert [each.key.kind for each in both.signatures] == ["encrypted-key", "certificate", "context"]
    assert both.principal == "CN=client,O=Test"
    assert both.signatures[2].key.name == CONTEXT


CLEAR = Shape(bootstrap("certificate", encrypt_signature=False))


@pytest.mark.row("MS-57")
@pytest.mark.parametrize("target", ["wsu:Timestamp", "itself", "another signature"])
def test_an_endorsement_of_something_else(target: str) -> None:
    """Signed by the client's own key, but not over the signature of the message."""

    root = etree.fromstring(CLEAR.protected().payload)
    primary, endorsing = root.findall(f".//{{{DS}}}Signature")
    suite = CLEAR.policy.suite
    if target == "wsu:Timestamp":
        aimed = first(root, f".//{{{WSU}}}Timestamp")
        name = aimed.get(ID)
    elif target == "itself":
        aimed, name = endorsing, "self"
        endorsing.set("Id", "self")
    else:
        aimed = copy(primary)
        aimed.set("Id", "another")
        primary.addnext(aimed)
        name = "another"
    digest = base64(DIGESTS[suite.digest](xml.canonical(aimed))).encode()
    content = signed_info_content(suite.rsa, suite.digest, [(str(name), digest)])
    value = base64(sign(suite.rsa, CLEAR.client.private, signed_info(content))).encode()
    info = xml.canonical(endorsing[2][0])
    made = etree.fromstring(signature(content, value, info, "self" if target == "itself" else None))
    endorsing.getparent().replace(endorsing, made)  # type: ignore[union-attr]
    with pytest.raises(SecurityFailure):
        CLEAR.received(etree.tostring(root))


# ---------------------------------------------------------------- whose key


@pytest.mark.row("MS-20", "MS-34")
@pytest.mark.parametrize("octets", ["certificate", "public key", "empty"])
def test_an_hmac_with_what_everybody_knows(octets: str) -> None:

    shape = Shape(bootstrap("mutual", encrypt_signature=False))
    certificate = shape.client.certificate
    known = {
        "certificate": certificate.public_bytes(Encoding.DER),
        "public key": certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "empty": b"",
    }[octets]

    def change(root: etree._Element) -> None:
        signature = first(root, f".//{{{DS}}}Signature")
        first(signature, f".//{{{DS}}}SignatureMethod").set("Algorithm", HMAC_SHA1)
        value = first(signature, f"{{{DS}}}SignatureValue")
        value.text = base64(mac(HMAC_SHA1, known, xml.canonical(signature[0])))

    with pytest.raises(SecurityFailure, match="value is wrong"):
        shape.received(changed(shape.protected().payload, change))


@pytest.mark.row("MS-14", "MS-20")
def test_a_response_under_a_key_that_it_brings_itself() -> None:
    """Whoever knows the client's certificate could seal a key for it."""
    shape = Shape(bootstrap("certificate"), request=False)
    forged = replace(
        shape,
        sent={"key": shape.client.certificate, "request": True, "endorsing": ()},
        policy=bootstrap("anonymous"),
    )
    payload = forged.protected().payload
    with pytest.raises(SecurityFailure, match="brings itself"):
        shape.received(payload, policy=bootstrap("anonymous"))


@pytest.mark.row("MS-20")
def test_everything_encrypted_is_under_the_one_key() -> None:
    """A sealed key of an earlier message, or a context's, opens nothing in the asymmetric binding."""
    shape = Shape(bootstrap("mutual"))
    other = Shape(
        bootstrap("anonymous"), sent={"key": SealedKey(SECRET, "c2VhbGVka2V5bmFtZTEyMzQ="), "request": False}
    )
    sealed = etree.fromstring(other.protected().payload)

    def graft(root: etree._Element) -> None:
        body = first(root, "{*}Body")
        theirs = first(sealed, "{*}Body")[0]
        theirs.set("Id", body[0].get("Id") or "")
        body[:] = [theirs]

    with pytest.raises(SecurityFailure):
        shape.received(changed(shape.protected().payload, graft))


@pytest.mark.row("MS-55")
@pytest.mark.parametrize("form", ["direct", "thumbprint", "issuer-serial"])
def test_a_signed_token_reference_can_not_be_aimed_at_another_certificate(form: str) -> None:
    """Another certificate of the same key: the signature would hold, were its token not signed."""

    policy = bootstrap("mutual", initiator_reference=form, encrypt_signature=False)
    twin = Issued("boss", key="client").make()
    for protect_tokens in (False, True):
        shape = Shape(replace(policy, protect_tokens=protect_tokens))
        payload = shape.protected().payload
        signer = replace(shape.client, certificate=twin)
        theirs = replace(shape, sent={"signer": signer}).protected().payload

        def change(root: etree._Element, theirs: bytes = theirs) -> None:
            other = etree.fromstring(theirs)
            path = f".//{{{DS}}}KeyInfo/{{{WSSE}}}SecurityTokenReference"
            mine = first(root, f".//{{{DS}}}Signature{path[1:]}")
            if form == "direct":
                token = first(root, f".//{{{WSSE}}}BinarySecurityToken")
                token.text = first(other, f".//{{{WSSE}}}BinarySecurityToken").text
            else:
                mine[:] = [copy(first(other, f".//{{{DS}}}Signature{path[1:]}")[0])]

        keys = shape.keys()
        keys.certificates.append(twin)

        expectation = shape.expectation(trust=Anchors.of([shape.client.certificate, twin]))
        if protect_tokens:
            with pytest.raises(SecurityFailure, match="digest of"):
                receive(changed(payload, change), expectation, keys)
        else:
            assert receive(changed(payload, change), expectation, keys).principal == "CN=boss,O=Test"


# ---------------------------------------------------------------- what a trace says


def test_a_trace_of_every_bootstrap_has_no_problem() -> None:
    for name in BOOTSTRAPS:
        for request in (True, False):
            trace = Trace()
            shape = Shape(bootstrap(name), request=request)
            assert shape.received(trace=trace).body_content == BODY
            assert trace.problems == []
            assert shape.received(trace=trace, policy=None, edition=None).body_content == BODY


def test_confirmed_values_are_those_of_the_signatures() -> None:
    protected = CERTIFICATE.protected()
    assert CERTIFICATE.received(protected.payload).values == protected.signature_values
    assert len(protected.signature_values) == len(CONFIRMED)


@pytest.mark.row("SC-11", "SC-14")
@pytest.mark.parametrize("name", ["context", "anonymous"])
def test_a_key_of_another_length_than_the_suite_s_encrypts_nothing(name: str) -> None:
    """Without derived keys: else the ciphertext would be of another algorithm than it says."""
    changes: dict[str, Any] = {"suite": SUITES["Basic128"], "derived_keys": False}
    policy = replace(context() if name == "context" else bootstrap(name), **changes)
    key = context_key(FAMILIES["1.3"]) if name == "context" else SealedKey(SECRET, "c2hhMQ==")
    with pytest.raises(UsageError, match="16 bytes, and this one has 32"):
        Shape(policy, request=False, sent={"key": key}).protected()


@pytest.mark.row("MS-20", "MS-54")
def test_a_request_that_comes_back_is_no_response() -> None:
    """Both sides have the key of a symmetric binding, and no signature covers how it names its key."""
    shape = Shape(bootstrap("anonymous", signature_confirmation=False))
    made = shape.protected()
    assert made.key is not None
    kind = "http://docs.oasis-open.org/wss/oasis-wss-soap-message-security-1.1#EncryptedKey"

    def reflect(root: etree._Element) -> None:
        carried = first(root, f".//{{{XENC}}}EncryptedKey")
        for reference in list(root.iter(f"{{{WSSE}}}Reference")):
            parent = reference.getparent()
            if parent is not None and reference.get("URI") == f"#{carried.get('Id')}":
                parent.remove(reference)
                name = etree.SubElement(parent, f"{{{WSSE}}}KeyIdentifier", ValueType=f"{kind}SHA1")
                name.text = made.key.sha1 if made.key is not None else ""
        drop(carried)

    keys = replace(shape.keys(), sealed={made.key.sha1: made.key})
    payload = changed(made.payload, reflect)
    expected = shape.expectation(request=False, confirmations=None)
    assert receive(payload, expected, keys).body_content == BODY  # nothing else is wrong with it
    with pytest.raises(SecurityFailure, match="sent back"):
        receive(payload, replace(expected, confirmations=(made.signature_values,)), keys)
