"""Times, parts and users: what must be there, once, under one signature."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lxml import etree

from castile import xml
from castile.clock import iso
from castile.errors import SECURITY_FAULT, Malformed, SecurityFailure
from castile.messages.conversation import DerivedKeyToken
from castile.messages.signature import signature, signed_info, signed_info_content
from castile.policy.suites import HMAC_SHA1, SHA1, SUITES
from castile.security import Expectation, protect, unprotect
from castile.security.encryption import CIPHERS
from castile.security.keys import derive
from castile.versions import DS, FAMILIES, WSSE, WSU, XENC
from tests.security.insider import (
    APP,
    BOOT,
    ID,
    LIFE,
    OLD,
    SIDE,
    at,
    base64,
    changed,
    copy,
    drop,
    first,
    kind_of,
    refusal,
    resigned,
    sign,
)
from tests.security.made import NOW, SECRET, Kind, element, receive, seeded
from tests.security.recorded import LIMITS, TIMERS, opened


@pytest.mark.row("MS-74")
@pytest.mark.row("MS-86")
def test_messages_too_old_or_from_the_future() -> None:
    payload = SIDE.protected(LIFE).payload
    skew, life = TIMERS.clock_skew, TIMERS.timestamp_ttl
    for offset in (-skew + 1, 0, life, life + skew - 1):
        assert receive(payload, SIDE.expectation(LIFE), SIDE.keys(), at(NOW.utc + offset))
    late = refusal(payload, LIFE, now=at(NOW.utc + life + skew + 1))
    assert late.fault.subcode == (WSSE, "MessageExpired")
    early = refusal(payload, LIFE, now=at(NOW.utc - skew - 1))
    assert early.fault == SECURITY_FAULT
    assert "future" in str(early)


@pytest.mark.row("MS-74")
@pytest.mark.row("MS-75")
@pytest.mark.parametrize(
    ("created", "expires", "words"),
    [
        (iso(NOW.utc), iso(NOW.utc), "expires before"),
        (iso(NOW.utc), iso(NOW.utc - 5), "expires before"),
        (iso(NOW.utc - 7200), iso(NOW.utc + 7200), "expired"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.5Z", "future"),
        ("2026-09-22T12:26:40", iso(NOW.utc + 1), "no zone"),
        ("2026-09-22T12:26:60Z", iso(NOW.utc + 1), "leap second"),
        ("2026-13-22T12:26:40Z", iso(NOW.utc + 1), "no day"),
        (f"2026-09-22T12:26:40.{'1' * 10_000}Z", iso(NOW.utc + 1), "xs:dateTime"),
        ("yesterday", iso(NOW.utc + 1), "xs:dateTime"),
        ("", iso(NOW.utc + 1), "xs:dateTime"),
    ],
)
def test_timestamps_that_are_refused(created: str, expires: str, words: str) -> None:
    def change(root: etree._Element) -> None:
        stamp = first(root, f".//{{{WSU}}}Timestamp")
        stamp[0].text, stamp[1].text = created, expires

    assert words in str(refusal(resigned(SIDE.protected(LIFE).payload, change), LIFE))


@pytest.mark.row("MS-75")
def test_a_message_without_or_with_two_timestamps() -> None:
    def none(root: etree._Element) -> None:
        stamp = first(root, f".//{{{WSU}}}Timestamp")
        name = stamp.get(ID)
        drop(stamp)
        for reference in root.findall(f".//{{{DS}}}Reference"):
            if reference.get("URI") == f"#{name}":
                drop(reference)

    def two(root: etree._Element) -> None:
        stamp = first(root, f".//{{{WSU}}}Timestamp")
        twin = copy(stamp)
        del twin.attrib[ID]
        stamp.addnext(twin)

    for change in (none, two):
        assert "Timestamp" in str(refusal(resigned(SIDE.protected(LIFE).payload, change), LIFE))


@pytest.mark.row("MS-50")
@pytest.mark.row("MS-08")
@pytest.mark.parametrize("name", ["application", "CreateSequence", "acknowledgement"])
def test_each_part_that_the_signature_leaves_out(name: str) -> None:
    """An insider signs all but one part: refused for every part."""
    kind = replace(kind_of(name), encrypt=False)
    payload = SIDE.protected(kind).payload
    count = len(etree.fromstring(payload).findall(f".//{{{DS}}}Reference"))
    for index in range(count):

        def change(root: etree._Element, index: int = index) -> None:
            drop(root.findall(f".//{{{DS}}}Reference")[index])

        error = refusal(resigned(payload, change), replace(kind, encrypt=False))
        assert "signed" in str(error)
    assert count == len(kind.message.headers) + 2


@pytest.mark.row("CO-10")
def test_two_signatures_that_cover_the_parts_only_together() -> None:
    def change(root: etree._Element) -> None:
        one = first(root, f".//{{{DS}}}Signature")
        two = copy(one)
        one.addnext(two)
        for remainder, half in enumerate((one, two)):
            for index, reference in enumerate(half.findall(f".//{{{DS}}}Reference")):
                if index % 2 == remainder:
                    drop(reference)
            sign(root, half)

    error = refusal(changed(SIDE.protected(LIFE).payload, change), LIFE)
    assert "more than one signature" in str(error)


@pytest.mark.row("MS-07")
def test_an_extra_header_of_any_kind_that_reliability_reads() -> None:
    spaces = [family.reliability.namespace for family in FAMILIES.values()]
    spaces += ["http://www.w3.org/2005/08/addressing", "http://schemas.xmlsoap.org/ws/2004/08/addressing"]
    spaces += ["http://docs.oasis-open.org/ws-rx/wsmc/200702"]
    for space in spaces:
        for local in ("Sequence", "AckRequested", "SequenceAcknowledgement", "FaultTo", "RelatesTo", "New"):
            root = etree.fromstring(SIDE.protected(APP).payload)
            root[0].insert(0, etree.Element(f"{{{space}}}{local}"))
            refusal(etree.tostring(root), APP)


def test_headers_that_nobody_here_reads_pass_and_are_not_shown() -> None:
    root = etree.fromstring(SIDE.protected(APP).payload)
    root[0].insert(0, etree.Element("{urn:hop}Trace"))
    verified = receive(etree.tostring(root), SIDE.expectation(APP), SIDE.keys())
    assert [header.name for header in verified.headers] == [head.name for head in APP.message.headers]


@pytest.mark.row("MS-01")
def test_unknown_children_and_second_security_headers() -> None:
    root = etree.fromstring(SIDE.protected(APP).payload)
    etree.SubElement(root[0][-1], "{urn:evil}Token")
    assert "isn't taken" in str(refusal(etree.tostring(root), APP))
    root = etree.fromstring(SIDE.protected(APP).payload)
    root[0].append(copy(root[0][-1]))
    refusal(etree.tostring(root), APP)


@pytest.mark.row("RE-12")
def test_comments_anywhere_in_a_protected_message() -> None:
    """Also inside a signed Action, where C14N doesn't see it, and inside what was encrypted."""
    payload = SIDE.protected(APP).payload
    for spot in (b"</a:Action>", b"<s:Body", b"</o:Security>", b"</s:Envelope>"):
        assert "comment" in str(refusal(payload.replace(spot, b"<!-- x -->" + spot), APP))
    with pytest.raises(Malformed):
        receive(payload.replace(b"</a:Action>", b"<?x y?></a:Action>"), SIDE.expectation(APP), SIDE.keys())
    body = b'<m:t xmlns:m="urn:t">a<!-- b -->c</m:t>'
    kind = replace(APP, message=replace(APP.message, body=body))
    assert "comment" in str(refusal(SIDE.protected(kind).payload, kind))


@pytest.mark.row("MS-83")
def test_wrong_password_and_unknown_user_look_the_same() -> None:
    payload = SIDE.protected(BOOT).payload
    wrong = refusal(payload, BOOT, keys=replace(SIDE.keys(), users={"ada": "other"}))
    unknown = refusal(payload, BOOT, keys=replace(SIDE.keys(), users={}))
    assert (str(wrong), wrong.fault) == (str(unknown), unknown.fault)
    assert wrong.fault.subcode == (WSSE, "FailedAuthentication")
    assert "sesame" not in str(wrong)


@pytest.mark.row("MS-12")
def test_a_request_without_its_user_token() -> None:
    protection = replace(SIDE.protection(BOOT), username=None)
    payload = protect(BOOT.message, protection, NOW, seeded(1), TIMERS).payload
    assert "UsernameToken" in str(refusal(payload, BOOT))


@pytest.mark.row("MS-12")
def test_a_user_token_that_is_not_signed_or_not_encrypted() -> None:
    protection = replace(SIDE.protection(BOOT), username=None)
    payload = protect(BOOT.message, protection, NOW, seeded(1), TIMERS).payload
    token = (
        f'<o:UsernameToken xmlns:o="{WSSE}"><o:Username>ada</o:Username>'
        "<o:Password>sesame</o:Password></o:UsernameToken>"
    ).encode()
    error = refusal(payload.replace(b"</o:Security>", token + b"</o:Security>"), BOOT)
    assert "isn't signed and encrypted" in str(error)


@pytest.mark.row("MS-12")
def test_the_user_token_of_another_request() -> None:
    one, two = (etree.fromstring(SIDE.protected(BOOT, seed).payload) for seed in (1, 2))
    tokens = [root.findall(f".//{{{WSSE}}}Security/{{{XENC}}}EncryptedData") for root in (one, two)]
    tokens[0][0].addnext(tokens[1][0])
    drop(tokens[0][0])
    refusal(etree.tostring(one), BOOT)


def test_canonical_octets_are_parsed_where_no_default_namespace_can_rename_them() -> None:
    """An outer default namespace, added on the way, must not reach into signed octets."""
    body = b"<Transfer><amount>1</amount></Transfer>"
    kind = replace(APP, message=replace(APP.message, body=body))
    payload = SIDE.protected(kind).payload
    for scope in (b's:Envelope xmlns="urn:evil" ', b's:Envelope xmlns:m="urn:evil" '):
        verified = receive(payload.replace(b"s:Envelope ", scope, 1), SIDE.expectation(kind), SIDE.keys())
        assert [child.tag for child in verified.body] == ["Transfer"]
        assert [child.tag for child in verified.body[0]] == ["amount"]
    inner = payload.replace(b"<s:Body ", b'<s:Body xmlns="urn:evil" ', 1)
    verified = receive(inner, SIDE.expectation(kind), SIDE.keys())
    assert verified.body[0].tag == "Transfer"


def test_a_plaintext_that_is_not_canonical_is_digested_in_its_place() -> None:
    """Peers encrypt what their writer wrote, not canonical octets."""
    plain = b"<m:t xmlns:m='urn:t' ><m:u/></m:t>"
    canonical = b'<m:t xmlns:m="urn:t"><m:u></m:u></m:t>'
    kind = replace(APP, message=replace(APP.message, body=canonical))
    payload = sealed_otherwise(kind, plain)
    verified = receive(payload, SIDE.expectation(kind), SIDE.keys())
    assert verified.body_content == canonical
    assert refusal(sealed_otherwise(kind, plain.replace(b"<m:u/>", b"<m:v/>")), kind)
    assert refusal(sealed_otherwise(kind, plain + b"</s:Body>"), kind)
    assert refusal(sealed_otherwise(kind, plain + b"</s:Body><s:Body>"), kind)
    assert refusal(sealed_otherwise(kind, plain + b"</s:Body><s:Body/>x<s:Body>"), kind)
    assert refusal(sealed_otherwise(kind, b"</s:Body><s:Body>" + plain), kind)
    assert refusal(sealed_otherwise(kind, b"\xff\xfe"), kind)


def sealed_otherwise(kind: Kind, plaintext: bytes) -> bytes:
    """The same message, its Body's ciphertext holding other octets under the same key."""
    root = etree.fromstring(SIDE.protected(kind).payload)
    token = root.findall(".//{*}DerivedKeyToken")[1]
    key = derive(SECRET, DerivedKeyToken.parse(token))
    cipher = CIPHERS[SUITES["Basic256"].encryption]
    first(root[1], f".//{{{XENC}}}CipherValue").text = base64(cipher.seal(key, bytes(16), plaintext))
    return etree.tostring(root)


@pytest.mark.row("MS-41")
def test_signatures_may_not_ask_for_more_digests_than_a_message_of_this_size() -> None:
    """Signatures that each ask for the whole Body, from someone who holds the key."""
    kind = replace(APP, message=replace(APP.message, body=element("m", "urn:t", "t", "x" * 20_000)))

    def change(root: etree._Element) -> None:
        signature = first(root, f".//{{{DS}}}Signature")
        for _ in range(LIMITS.signatures - 1):
            signature.addnext(copy(signature))

    payload = changed(SIDE.protected(replace(kind, encrypt=False)).payload, change)
    limits = replace(LIMITS, digested_factor=2)
    expectation = Expectation(None, None, True)
    assert unprotect(opened(payload), SIDE.keys(), expectation, NOW, LIMITS, TIMERS)
    with pytest.raises(SecurityFailure, match="octets to digest"):
        unprotect(opened(payload), SIDE.keys(), expectation, NOW, limits, TIMERS)


@pytest.mark.row("MS-41")
def test_more_signatures_than_the_limit() -> None:
    def change(root: etree._Element) -> None:
        signature = first(root, f".//{{{DS}}}Signature")
        for _ in range(LIMITS.signatures):
            signature.addnext(copy(signature))

    assert "more than" in str(refusal(changed(SIDE.protected(LIFE).payload, change), LIFE))


def test_templates_render_what_the_parser_reads() -> None:
    content = signed_info_content(HMAC_SHA1, SHA1, [("a", b"AAAA")])
    octets = signature(content, b"AAAA", b"<k></k>")
    root = etree.fromstring(octets)
    assert xml.canonical(root) == octets
    assert xml.canonical(root[0]) == signed_info(content)


def test_old_and_new_family_refuse_each_other() -> None:
    error = refusal(OLD.protected(kind_of("application", OLD)).payload, APP)
    assert error.fault.subcode == (SIDE.family.conversation.namespace, "UnsupportedContextToken")
