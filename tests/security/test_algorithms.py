"""Algorithms, transforms and references that are refused, and keys that lead nowhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from lxml import etree

from castile.errors import SECURITY_FAULT, SecurityFailure
from castile.messages.soap import render
from castile.policy.suites import SUITES
from castile.security import Expectation, protect
from castile.versions import DS, EXC_C14N, WSSE, XENC
from tests.security.insider import (
    APP,
    BOOT,
    ID,
    LIFE,
    SIDE,
    changed,
    copy,
    drop,
    first,
    refusal,
    resigned,
    sign,
)
from tests.security.made import (
    CONTEXT,
    NOW,
    context_key,
    kinds,
    receive,
)
from tests.security.recorded import LIMITS, TIMERS, Keys


def unchanged(_root: etree._Element) -> None:
    return


def test_an_insider_s_unchanged_message_passes() -> None:
    # Guards the tests below: what they refuse isn't refused for a clumsy signature.
    payload = resigned(SIDE.protected(LIFE).payload, unchanged)
    assert receive(payload, SIDE.expectation(LIFE), SIDE.keys()).primary.name == CONTEXT


ALGORITHMS = [
    f"{DS}hmac-md5", f"{DS}dsa-sha1", f"{DS}rsa-md5",
    "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256",
    "http://www.w3.org/2001/04/xmldsig-more#hmac-sha384",
    "http://www.w3.org/2001/04/xmldsig-more#hmac-sha512",
    "http://www.w3.org/2001/04/xmldsig-more#hmac-md5",
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
    "http://www.w3.org/2001/04/xmldsig-more#rsa-md5",
    "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha1",
    "http://www.w3.org/2007/05/xmldsig-more#sha256-rsa-MGF1",
    "urn:none", "",
]  # fmt: skip


@pytest.mark.row("MS-30")
@pytest.mark.row("MS-34")
@pytest.mark.parametrize("uri", ALGORITHMS)
def test_signature_methods_outside_the_suite(uri: str) -> None:
    def change(root: etree._Element) -> None:
        first(root, f".//{{{DS}}}SignatureMethod").set("Algorithm", uri)

    assert "signature method" in str(refusal(resigned(SIDE.protected(LIFE).payload, change), LIFE))


@pytest.mark.row("MS-20")
def test_octets_never_serve_as_a_public_key() -> None:
    """rsa-sha1 is in the suite, but the key that is referred to is a symmetric one."""

    def change(root: etree._Element) -> None:
        first(root, f".//{{{DS}}}SignatureMethod").set("Algorithm", f"{DS}rsa-sha1")

    assert "value is wrong" in str(refusal(resigned(SIDE.protected(LIFE).payload, change), LIFE))


@pytest.mark.row("MS-34")
@pytest.mark.parametrize("uri", [f"{DS}md5", f"{XENC}sha256", f"{XENC}sha512", "urn:none", ""])
def test_digest_methods_outside_the_suite(uri: str) -> None:
    def change(root: etree._Element) -> None:
        for found in root.iterfind(f".//{{{DS}}}DigestMethod"):
            found.set("Algorithm", uri)

    assert "digest method" in str(refusal(resigned(SIDE.protected(LIFE).payload, change), LIFE))


@pytest.mark.row("MS-39")
@pytest.mark.row("MS-40")
@pytest.mark.parametrize(
    "uri",
    [
        "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
        "http://www.w3.org/2006/12/xml-c14n11",
        f"{EXC_C14N}WithComments",
        "http://www.w3.org/TR/1999/REC-xpath-19991116",
        "http://www.w3.org/2002/06/xmldsig-filter2",
        "http://www.w3.org/TR/1999/REC-xslt-19991116",
        f"{DS}base64",
        f"{DS}enveloped-signature",
        "urn:none",
    ],
)
def test_transforms_other_than_exclusive_c14n(uri: str) -> None:
    def transform(root: etree._Element) -> None:
        for found in root.iterfind(f".//{{{DS}}}Transform"):
            found.set("Algorithm", uri)

    def method(root: etree._Element) -> None:
        first(root, f".//{{{DS}}}CanonicalizationMethod").set("Algorithm", uri)

    def second(root: etree._Element) -> None:
        for found in root.iterfind(f".//{{{DS}}}Transforms"):
            etree.SubElement(found, f"{{{DS}}}Transform").set("Algorithm", uri)

    for change in (transform, method, second):
        error = refusal(resigned(SIDE.protected(LIFE).payload, change), LIFE)
        assert "transform" in str(error)


@pytest.mark.row("MS-34")
def test_truncated_macs() -> None:
    def length(root: etree._Element) -> None:
        method = first(root, f".//{{{DS}}}SignatureMethod")
        etree.SubElement(method, f"{{{DS}}}HMACOutputLength").text = "8"

    assert "HMACOutputLength" in str(refusal(resigned(SIDE.protected(LIFE).payload, length), LIFE))
    payload = SIDE.protected(LIFE).payload
    short = re.sub(rb"<ds:SignatureValue>[^<]+", b"<ds:SignatureValue>AA==", payload)
    assert "value is wrong" in str(refusal(short, LIFE))
    assert "value is wrong" in str(refusal(re.sub(rb"(<ds:SignatureValue>)[^<]+", rb"\1", payload), LIFE))


@pytest.mark.row("MS-59")
def test_references_that_cover_nothing() -> None:
    def uri(value: str | None) -> Callable[[etree._Element], None]:
        def change(root: etree._Element) -> None:
            found = first(root, f".//{{{DS}}}Reference")
            if value is None:
                del found.attrib["URI"]
            else:
                found.set("URI", value)

        return change

    for value in (
        None,
        "",
        "#",
        "#xpointer(/)",
        "#xpointer(id('x'))",
        "http://evil/",
        "#nothing",
        "#uuid-sct-1",
    ):
        refusal(resigned(SIDE.protected(LIFE).payload, uri(value)), LIFE)

    def empty(root: etree._Element) -> None:
        for found in root.findall(f".//{{{DS}}}Reference"):
            drop(found)

    def manifest(root: etree._Element) -> None:
        found = first(root, f".//{{{DS}}}Signature")
        etree.SubElement(etree.SubElement(found, f"{{{DS}}}Object"), f"{{{DS}}}Manifest")

    for change in (empty, manifest):
        refusal(resigned(SIDE.protected(LIFE).payload, change), LIFE)


@pytest.mark.row("MS-50")
def test_a_part_that_is_referred_to_twice_is_no_fault() -> None:
    """Metro signs a header twice; a second reference with another digest is still a wrong one."""

    def twice(root: etree._Element) -> None:
        info = first(root, f".//{{{DS}}}SignedInfo")
        for reference in list(info[2:]):
            info.append(copy(reference))

    payload = resigned(SIDE.protected(LIFE).payload, twice)
    assert receive(payload, SIDE.expectation(LIFE), SIDE.keys()).primary.name == CONTEXT

    def wrong(root: etree._Element) -> None:
        twice(root)
        first(root, f".//{{{DS}}}SignedInfo")[-1][-1].text = "AAAA"

    root = etree.fromstring(SIDE.protected(LIFE).payload)
    wrong(root)
    sign(root, first(root, f".//{{{DS}}}Signature"))
    assert "digest of" in str(refusal(etree.tostring(root), LIFE))


@pytest.mark.row("MS-39")
def test_a_reference_without_transforms_is_refused_with_its_reason() -> None:
    def change(root: etree._Element) -> None:
        for found in root.findall(f".//{{{DS}}}Transforms"):
            drop(found)

    assert "inclusive C14N" in str(refusal(resigned(SIDE.protected(LIFE).payload, change), LIFE))


@pytest.mark.row("MS-41")
def test_more_references_than_the_limit() -> None:
    def change(root: etree._Element) -> None:
        info = first(root, f".//{{{DS}}}SignedInfo")
        for _ in range(LIMITS.references):
            info.append(copy(info[-1]))

    assert "references" in str(refusal(resigned(SIDE.protected(LIFE).payload, change), LIFE))


@pytest.mark.row("MS-19")
@pytest.mark.row("MS-20")
def test_references_that_leave_the_message() -> None:
    for uri in ("http://127.0.0.1:9/key", "file:///etc/passwd", "urn:uuid:other", "cid:x"):

        def change(root: etree._Element, uri: str = uri) -> None:
            for found in root.iterfind(f".//{{{WSSE}}}Reference"):
                found.set("URI", uri)

        refusal(resigned(SIDE.protected(LIFE).payload, change), LIFE)
    for child in (f"{{{DS}}}RetrievalMethod", f"{{{DS}}}KeyValue", f"{{{DS}}}X509Data", f"{{{DS}}}MgmtData"):

        def key_info(root: etree._Element, child: str = child) -> None:
            info = first(root, f".//{{{DS}}}KeyInfo")
            info[:] = [etree.Element(child, URI="http://127.0.0.1:9/")]

        assert "KeyInfo" in str(refusal(resigned(SIDE.protected(LIFE).payload, key_info), LIFE))


@pytest.mark.row("SC-40")
def test_an_unknown_context_is_named_before_any_cryptography() -> None:
    error = refusal(SIDE.protected(LIFE).payload, LIFE, keys=Keys())
    assert isinstance(error, SecurityFailure)
    assert error.missing_key
    assert error.fault.subcode == (SIDE.family.conversation.namespace, "BadContextToken")
    assert error.part == "wsc:SecurityContextToken"


@pytest.mark.row("SC-40")
def test_a_message_without_security_is_a_bad_context() -> None:
    error = refusal(render(LIFE.message), LIFE)
    assert error.fault.subcode == (SIDE.family.conversation.namespace, "BadContextToken")


def derived(root: etree._Element) -> etree._Element:
    return first(root, ".//{*}DerivedKeyToken")


@pytest.mark.row("SC-42")
@pytest.mark.row("SC-18")
def test_a_derived_key_without_source() -> None:
    unknown = (SIDE.family.conversation.namespace, "UnknownDerivationSource")
    payload = SIDE.protected(LIFE).payload

    def nowhere(root: etree._Element) -> None:
        first(derived(root), f".//{{{WSSE}}}Reference").set("URI", "#gone")

    assert refusal(changed(payload, nowhere), LIFE).fault.subcode == unknown

    def unsaid(root: etree._Element) -> None:
        drop(derived(root)[0])

    unsaid_payload = changed(payload, unsaid)
    assert receive(unsaid_payload, SIDE.expectation(LIFE), SIDE.keys())  # the sole context is meant

    def ambiguous(root: etree._Element) -> None:
        context = first(root, ".//{*}SecurityContextToken")
        second = copy(context)
        second.set(ID, "other")
        context.addnext(second)

    assert refusal(changed(unsaid_payload, ambiguous), LIFE).fault.subcode == unknown


@pytest.mark.row("SC-16")
@pytest.mark.row("MS-41")
def test_more_derived_keys_than_the_limit() -> None:
    def change(root: etree._Element) -> None:
        for number in range(LIMITS.derived_keys):
            twin = copy(derived(root))
            twin.set(ID, f"dk{number}")
            derived(root).addprevious(twin)

    assert "more than" in str(refusal(changed(SIDE.protected(LIFE).payload, change), LIFE))


@pytest.mark.row("SC-16")
def test_keys_derived_from_derived_keys_end_at_two() -> None:
    def chained(depth: int) -> Callable[[etree._Element], None]:
        def change(root: etree._Element) -> None:
            last = derived(root)
            for number in range(depth):
                twin = copy(last)
                twin.set(ID, f"dk{number}")
                reference = first(twin, f".//{{{WSSE}}}Reference")
                if number:
                    reference.set("URI", f"#dk{number - 1}")
                    reference.set("ValueType", SIDE.family.conversation.derived_key_type)
                last.addprevious(twin)
            reference = first(last, f".//{{{WSSE}}}Reference")
            reference.set("URI", f"#dk{depth - 1}")
            reference.set("ValueType", SIDE.family.conversation.derived_key_type)

        return change

    payload = SIDE.protected(LIFE).payload
    assert "value is wrong" in str(refusal(changed(payload, chained(1)), LIFE))
    assert "too often" in str(refusal(changed(payload, chained(2)), LIFE))


@pytest.mark.row("MS-02")
def test_a_token_behind_its_use_breaks_the_strict_layout() -> None:
    def change(root: etree._Element) -> None:
        first(root, f".//{{{WSSE}}}Security").append(first(root, ".//{*}SecurityContextToken"))

    payload = changed(SIDE.protected(LIFE).payload, change)
    assert "behind its use" in str(refusal(payload, LIFE))
    lax = replace(SIDE.expectation(LIFE), policy=replace(SIDE.application, layout="Lax"))
    assert receive(payload, lax, SIDE.keys()).primary.name == CONTEXT


@pytest.mark.row("MS-72")
def test_references_that_run_in_a_circle_end() -> None:
    def derived_from_itself(root: etree._Element) -> None:
        reference = first(derived(root), f".//{{{WSSE}}}Reference")
        reference.set("URI", f"#{derived(root).get(ID)}")
        del reference.attrib["ValueType"]

    def under_itself(root: etree._Element) -> None:
        key = first(root, f".//{{{XENC}}}EncryptedKey")
        reference = first(key, f"{{{DS}}}KeyInfo")[0]
        reference[:] = [etree.Element(f"{{{WSSE}}}Reference", URI=f"#{key.get('Id')}")]

    for kind, change in ((LIFE, derived_from_itself), (BOOT, under_itself)):
        payload = changed(SIDE.protected(kind).payload, change)
        policy = SIDE.expectation(kind).policy
        assert policy is not None
        for expected in (policy, replace(policy, layout="Lax"), None):
            with pytest.raises(SecurityFailure):
                receive(payload, Expectation(expected, None, True), SIDE.keys())


@pytest.mark.row("MS-20")
def test_a_foreign_context_s_key_does_not_open_another_s_message() -> None:
    other = context_key(SIDE.family, b"o" * 32, "urn:uuid:other")
    keys = Keys(
        contexts={(CONTEXT, None): replace(other, identifier=CONTEXT), ("urn:uuid:other", None): other}
    )
    assert refusal(SIDE.protected(APP).payload, APP, keys=keys).fault == SECURITY_FAULT
    assert refusal(SIDE.protected(LIFE).payload, LIFE, keys=keys).fault == SECURITY_FAULT


@pytest.mark.row("SC-19")
def test_one_key_for_two_purposes_is_refused() -> None:
    assert "two purposes" in str(refusal(same_key_twice(), APP))


def same_key_twice() -> bytes:
    """An insider's message that signs with the key that it encrypts under."""
    suite = replace(SUITES["Basic256"], signature_key_bytes=32)
    policy = replace(SIDE.application, suite=suite)

    def constant(count: int) -> bytes:
        return bytes(count)

    protection = replace(SIDE.protection(APP), policy=policy)
    return protect(APP.message, protection, NOW, constant, TIMERS).payload


@pytest.mark.row("MS-20")
def test_the_kind_of_token_is_the_policy_s() -> None:
    payload = SIDE.protected(APP).payload
    with pytest.raises(SecurityFailure, match="not a encrypted-key"):
        receive(payload, replace(SIDE.expectation(APP), policy=SIDE.bootstrap), SIDE.keys())
    payload = SIDE.protected(BOOT).payload
    with pytest.raises(SecurityFailure, match="not a context"):
        receive(payload, replace(SIDE.expectation(BOOT), policy=SIDE.application), SIDE.keys())


@pytest.mark.row("SC-11")
def test_a_secret_that_signs_itself_where_keys_must_be_derived() -> None:
    plain = replace(SIDE, derived_keys=False)
    for kind in (APP, LIFE):
        with pytest.raises(SecurityFailure, match="derived"):
            receive(plain.protected(kind).payload, SIDE.expectation(kind), SIDE.keys())


def test_a_request_names_no_key_that_an_answer_made() -> None:
    request, answer = kinds(SIDE.family)[:2]
    payload = SIDE.protected(answer).payload
    with pytest.raises(SecurityFailure, match="carry its EncryptedKey"):
        receive(payload, replace(SIDE.expectation(request), encrypted_body=None), SIDE.keys())
