"""What goes out comes in: every kind of message, both families, suites and SOAP versions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from castile import xml
from castile.clock import iso
from castile.errors import UsageError
from castile.messages.soap import Message
from castile.policy.suites import AES128_CBC, AES256_CBC, HMAC_SHA1, HMAC_SHA256
from castile.security import ContextKey, Expectation, KeyIdentity, SealedKey, protect
from castile.versions import (
    DS,
    ENCRYPTED_KEY_SHA1,
    FAMILIES,
    SOAP_1_1,
    SOAP_1_2,
    WSSE,
    WSU,
    XENC,
    SOAPVersion,
)
from tests.conftest import shared
from tests.security.made import (
    CONTEXT,
    NOW,
    SECRET,
    SIDES,
    Kind,
    Side,
    context_key,
    element,
    kinds,
    receive,
    seeded,
    service,
)
from tests.security.recorded import TIMERS, Keys, opened

ALL = [
    *SIDES,
    Side(FAMILIES["2005"], "Basic128"),
    Side(FAMILIES["1.3"], "Basic128Sha256"),
    Side(FAMILIES["2005"], derived_keys=False),
    Side(FAMILIES["1.3"], derived_keys=False),
]


def ident(side: Side) -> str:
    return f"{side.family.name}-{side.suite}-{'dk' if side.derived_keys else 'nodk'}"


def application(side: Side, soap: SOAPVersion = SOAP_1_2) -> Kind:
    return next(kind for kind in kinds(side.family, soap) if kind.name == "application")


@pytest.mark.row("MS-02")
@pytest.mark.row("MS-50")
@pytest.mark.row("SC-09")
@pytest.mark.row("SC-11")
@pytest.mark.parametrize("soap", [SOAP_1_1, SOAP_1_2], ids=lambda soap: soap.name)
@pytest.mark.parametrize("side", ALL, ids=ident)
def test_round_trip(side: Side, soap: SOAPVersion) -> None:
    for kind in kinds(side.family, soap):
        protected = side.protected(kind)
        verified = receive(protected.payload, side.expectation(kind), side.keys())
        assert verified.soap is soap
        assert verified.body_content == kind.message.body
        assert [header.name for header in verified.headers] == [head.name for head in kind.message.headers]
        parts = {"Body", "wsu:Timestamp", *(head.name for head in kind.message.headers)}
        assert parts <= verified.covered_by(verified.primary)
        assert verified.evidence == protected.signature_values[0]
        assert ("Body" in verified.encrypted) == kind.encrypt
        if kind.bootstrap:
            assert verified.primary.kind == "encrypted-key"
            assert isinstance(verified.reply_key, SealedKey)
            assert verified.principal == ("ada" if kind.request else None)
            if kind.request:
                assert protected.key == verified.reply_key
        else:
            assert verified.primary == KeyIdentity("context", CONTEXT)
            assert isinstance(verified.reply_key, ContextKey)
            assert protected.key is None


def shape(payload: bytes) -> list[str]:
    """Children of the Security header, each with what tells its kind."""
    security = opened(payload).security
    assert security is not None
    return [xml.local_name(child) for child in security]


@pytest.mark.row("MS-01")
@pytest.mark.row("MS-03")
def test_the_header_has_the_order_that_wcf_writes() -> None:
    side = SIDES[0]
    folder = shared("vectors", "wcf", "ws05-user-nonego-sc-rm")
    pairs = {
        "RST": "01-request.xml",
        "RSTR": "02-response.xml",
        "CreateSequence": "03-request.xml",
        "CreateSequenceResponse": "04-response.xml",
        "application": "07-request.xml",
        "reply": "08-response.xml",
        "LastMessage": "09-request.xml",
    }
    for kind in kinds(side.family):
        if kind.name not in pairs:
            continue
        ours, theirs = side.protected(kind).payload, (folder / pairs[kind.name]).read_bytes()
        assert shape(ours) == shape(theirs), kind.name
        assert opened(ours).headers[-1].tag == f"{{{WSSE}}}Security"
        for path in (f".//{{{WSSE}}}Reference", f".//{{{WSSE}}}KeyIdentifier"):
            found = [
                [sorted(each.keys()), each.get("ValueType"), each.get("URI", "#")[0]]
                for payload in (ours, theirs)
                for each in etree.fromstring(payload)[0].iterfind(path)
            ]
            assert found[: len(found) // 2] == found[len(found) // 2 :]


@pytest.mark.row("SC-14")
@pytest.mark.parametrize(
    ("suite", "lengths"),
    [("Basic256", ["24", None]), ("Basic256Sha256", ["24", None]), ("Basic128", ["16", "16"])],
)
def test_derived_lengths_are_written_as_wcf_does(suite: str, lengths: list[str | None]) -> None:
    side = Side(FAMILIES["1.3"], suite)
    root = etree.fromstring(side.protected(application(side)).payload)
    space = side.family.conversation.namespace
    tokens = root.findall(f".//{{{space}}}DerivedKeyToken")
    assert [token.findtext(f"{{{space}}}Length") for token in tokens] == lengths
    assert [token.findtext(f"{{{space}}}Offset") for token in tokens] == [
        None if length is None else "0" for length in lengths
    ]
    assert all(token.find(f"{{{space}}}Label") is None for token in tokens)


@pytest.mark.row("F04")
@pytest.mark.row("CO-15")
def test_nothing_repeats_between_two_attempts() -> None:
    side = SIDES[2]
    kind = application(side)
    seen: set[str] = set()
    random = seeded(3)
    for _ in range(50):
        payload = protect(kind.message, side.protection(kind), NOW, random, TIMERS).payload
        root = etree.fromstring(payload)
        values = [each.text or "" for each in root.iterfind(".//{*}Nonce")]
        values += [each.text or "" for each in root.iterfind(".//{*}CipherValue")]
        assert len(values) == 4
        assert seen.isdisjoint(values)
        seen.update(values)


@pytest.mark.row("MS-31")
@pytest.mark.row("MS-32")
@pytest.mark.parametrize("side", ALL, ids=ident)
def test_algorithms_are_those_of_the_suite(side: Side) -> None:
    kind = next(kind for kind in kinds(side.family) if kind.name == "CreateSequence")
    root = etree.fromstring(side.protected(kind).payload)
    hmac = HMAC_SHA256 if side.suite.endswith("Sha256") else HMAC_SHA1
    assert [each.get("Algorithm") for each in root.iterfind(f".//{{{DS}}}SignatureMethod")] == [hmac]
    root = etree.fromstring(side.protected(application(side)).payload)
    used = {each.get("Algorithm") for each in root.iterfind(f".//{{{XENC}}}EncryptionMethod")}
    assert used == {AES128_CBC if "128" in side.suite else AES256_CBC}


@pytest.mark.row("SC-10")
def test_a_renewed_context_is_named_with_its_instance() -> None:
    """On the reference, also on the local one: Metro looks nowhere else."""
    side = SIDES[2]
    plain = context_key(side.family)
    token = plain.token.replace(b"</c:Sec", b"<c:Instance>urn:uuid:two</c:Instance></c:Sec")
    renewed = replace(plain, instance="urn:uuid:two", secret=b"r" * 32, token=token)
    keys = Keys(contexts={(CONTEXT, None): plain, (CONTEXT, "urn:uuid:two"): renewed})
    for name in ("application", "reply"):
        kind = next(kind for kind in kinds(side.family) if kind.name == name)
        protection = replace(side.protection(kind), key=renewed)
        payload = protect(kind.message, protection, NOW, seeded(1), TIMERS).payload
        verified = receive(payload, side.expectation(kind), keys)
        assert verified.primary == KeyIdentity("context", CONTEXT, "urn:uuid:two")
        references = etree.fromstring(payload).iterfind(f".//{{*}}DerivedKeyToken//{{{WSSE}}}Reference")
        instance = f"{{{plain.edition.namespace}}}Instance"
        assert {each.get(instance) for each in references} == {"urn:uuid:two"}


@pytest.mark.row("MS-14")
def test_an_answer_refers_to_the_requests_key() -> None:
    side = SIDES[2]
    request, answer = kinds(side.family)[:2]
    protected = side.protected(request)
    assert protected.key is not None
    taken = receive(protected.payload, side.expectation(request), side.keys()).reply_key
    assert isinstance(taken, SealedKey)
    protection = replace(side.protection(answer), key=taken)
    payload = protect(answer.message, protection, NOW, seeded(2), TIMERS).payload
    keys = Keys(sealed={protected.key.sha1: protected.key})
    assert receive(payload, side.expectation(answer), keys).body_content == answer.message.body
    forms = [each.get("ValueType") for each in etree.fromstring(payload).iterfind(".//{*}KeyIdentifier")]
    assert forms == [ENCRYPTED_KEY_SHA1] * 2
    assert protected.key.sha1.encode() in payload


def test_values_with_prefixes_of_their_own_keep_them() -> None:
    side = SIDES[2]
    kind = application(side)
    schema = "http://www.w3.org/2001/XMLSchema"
    body = (
        f'<m:Transfer xmlns:m="urn:transfers" xmlns:xsd="{schema}">'
        '<m:amount xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="xsd:int">1</m:amount>'
        "</m:Transfer>"
    ).encode()
    for encrypt in (True, False):
        message = replace(kind, message=replace(kind.message, body=body), encrypt=encrypt)
        verified = receive(side.protected(message).payload, side.expectation(message), side.keys())
        amount = verified.body[0][0]
        assert amount.nsmap["xsd"] == schema


@pytest.mark.parametrize(
    "body",
    [
        b"",
        element("s", "urn:other-s", "Transfer", "x"),
        element("u", "urn:other-u", "Transfer", "x"),
        element("s", SOAP_1_2.namespace, "Fault", "x"),
        b'<Transfer xmlns="urn:transfers"><amount xmlns="">1</amount></Transfer>',
        b'<Transfer Id="a"><item Id="a"></item></Transfer>',
        '<m:t xmlns:m="urn:t">é☃𝄞 &lt;&amp;&gt; &#xD;</m:t>'.encode(),
        b"<a></a><b></b>",
    ],
)
@pytest.mark.parametrize("encrypt", [True, False])
def test_bodies_of_every_shape(body: bytes, encrypt: bool) -> None:
    side = SIDES[3]
    kind = replace(application(side), encrypt=encrypt)
    kind = replace(kind, message=replace(kind.message, body=body))
    verified = receive(side.protected(kind).payload, side.expectation(kind), side.keys())
    wanted = etree.fromstring(b'<s:B xmlns:s="%b" xmlns:u="%b">%b</s:B>' % (
        SOAP_1_2.namespace.encode(), WSU.encode(), body))  # fmt: skip
    assert [xml.canonical(child) for child in verified.body] == [xml.canonical(child) for child in wanted]


letters = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="￾￿"), max_size=40)


@given(text=letters, value=letters, seed=st.integers(0, 1 << 30), encrypt=st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_text_comes_through(text: str, value: str, seed: int, encrypt: bool) -> None:
    side = SIDES[seed % len(SIDES)]
    kind = replace(application(side), encrypt=encrypt)
    body = (f'<m:t xmlns:m="urn:t" a="{xml.escape_attribute(value)}">{xml.escape_text(text)}</m:t>').encode()
    kind = replace(kind, message=replace(kind.message, body=body))
    verified = receive(side.protected(kind, seed).payload, side.expectation(kind), side.keys())
    assert (verified.body[0].text or "") == text
    assert verified.body[0].get("a") == value


@pytest.mark.row("MS-74")
def test_the_timestamp_lives_five_minutes() -> None:
    side = SIDES[2]
    payload = side.protected(application(side)).payload
    assert iso(NOW.utc).encode() in payload
    assert iso(NOW.utc + 300).encode() in payload
    verified = receive(payload, side.expectation(application(side)), side.keys())
    assert verified.expires == pytest.approx(NOW.utc + 300 + TIMERS.clock_skew)


def test_keys_that_do_not_fit_the_policy_are_refused_before_sending() -> None:
    side = SIDES[2]
    kind = application(side)
    for key in (SealedKey(SECRET, "x"), service()[0]):
        with pytest.raises(UsageError, match="security context"):
            protect(kind.message, replace(side.protection(kind), key=key), NOW, seeded(1), TIMERS)
    request = kinds(side.family)[0]
    wrong = replace(side.protection(request), key=context_key(side.family))
    with pytest.raises(UsageError, match="EncryptedKey"):
        protect(request.message, wrong, NOW, seeded(1), TIMERS)


def test_prefixes_are_ours_and_parts_stand_alone() -> None:
    side = SIDES[2]
    payload = side.protected(replace(application(side), encrypt=False)).payload
    envelope = opened(payload)
    for part in (*envelope.headers[:-1], envelope.body):
        assert xml.canonical(part) in payload
    assert envelope.security is not None
    for part in envelope.security:
        assert xml.canonical(part) in payload


@pytest.mark.row("MS-78")
def test_no_secret_shows_in_a_representation() -> None:
    side = SIDES[2]
    kind = kinds(side.family)[0]
    protection, protected = side.protection(kind), side.protected(kind)
    text = repr(protection) + repr(protected) + repr(side.keys().contexts) + repr(side.keys().sealed)
    verified = receive(protected.payload, side.expectation(kind), side.keys())
    text += repr(verified)
    assert "sesame" not in text
    assert repr(SECRET)[2:-1] not in text
    assert isinstance(verified.reply_key, SealedKey)
    assert repr(verified.reply_key.octets)[2:-1] not in text


def test_an_expectation_without_edition_takes_both() -> None:
    for side in SIDES:
        kind = application(side)
        expectation = Expectation(side.application, None, True, True)
        assert receive(side.protected(kind).payload, expectation, side.keys()).primary.name == CONTEXT


def test_whether_a_message_is_addressed_is_the_endpoint_s_business() -> None:
    """A policy may ask for none (`EndpointPolicy.addressed`); then there is nothing to read."""
    side = SIDES[2]
    kind = replace(application(side), message=Message(SOAP_1_2, (), b""))
    verified = receive(side.protected(kind).payload, side.expectation(kind), side.keys())
    assert verified.headers == ()
