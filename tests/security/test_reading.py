"""What peers write and castile only reads: paths, digests of passwords, encrypted headers, implied keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from lxml import etree

from castile import xml
from castile.errors import SECURITY_FAULT, SecurityFailure
from castile.messages.conversation import DerivedKeyToken
from castile.messages.security import UsernameToken
from castile.policy import USERNAME
from castile.policy.parts import Parts
from castile.policy.suites import HMAC_SHA1
from castile.security import Trace, supporting
from castile.security.anchors import Anchors
from castile.security.certificates import CertificateKey
from castile.security.encryption import CIPHERS
from castile.security.keys import derive, p_sha1, password_digest
from castile.security.signature import mac
from castile.versions import (
    DS,
    FAMILIES,
    PASSWORD_DIGEST,
    WSA_1_0,
    WSSE,
    WSSE11,
    X509_PKIPATH,
    XENC,
)
from tests.security.authority import Issued, key_of
from tests.security.insider import ID, Change, base64, changed, first
from tests.security.made import SECRET, receive, seeded
from tests.security.shapes import BODY, Shape, bootstrap, context
from tests.security.test_certificates import der

# ---------------------------------------------------------------- PKIPath

ROOT, LEAF = Issued("root", authority=True).make(), Issued("leaf", "root").make()
SIGNED_BY_LEAF: Final = Shape(
    bootstrap("mutual", encrypt_signature=False),
    sent={"signer": CertificateKey(LEAF, key_of("leaf", 2048))},
)


def with_path(*certificates: object) -> Change:
    def change(root: etree._Element) -> None:
        token = first(root, f".//{{{WSSE}}}BinarySecurityToken")
        token.text = base64(der(*certificates))  # type: ignore[arg-type]
        token.set("ValueType", X509_PKIPATH)
        first(root, f".//{{{DS}}}Signature//{{{WSSE}}}Reference").set("ValueType", X509_PKIPATH)

    return change


@pytest.mark.row("MS-10", "MS-11")
def test_the_last_certificate_of_a_path_signs() -> None:
    anchors = Anchors.of([ROOT])
    payload = SIGNED_BY_LEAF.protected().payload
    verified = SIGNED_BY_LEAF.received(changed(payload, with_path(ROOT, LEAF)), trust=anchors)
    assert verified.principal == "CN=leaf,O=Test"
    assert verified.reply_key == LEAF
    for path, words in (((LEAF, ROOT), "value is wrong"), ((LEAF,), ""), ((), "holds")):
        made = changed(payload, with_path(*path))
        if words:
            with pytest.raises(SecurityFailure, match=words):
                SIGNED_BY_LEAF.received(made, trust=anchors)
        else:
            assert SIGNED_BY_LEAF.received(made, trust=anchors).principal == "CN=leaf,O=Test"
    with pytest.raises(SecurityFailure, match="nobody who is trusted"):
        SIGNED_BY_LEAF.received(changed(payload, with_path(ROOT, LEAF)), trust=Anchors())

    def other_type(root: etree._Element) -> None:
        with_path(ROOT, LEAF)(root)
        reference = first(root, f".//{{{DS}}}Signature//{{{WSSE}}}Reference")
        reference.set("ValueType", X509_PKIPATH.replace("PKIPathv1", "v3"))

    with pytest.raises(SecurityFailure, match="another ValueType"):
        SIGNED_BY_LEAF.received(changed(payload, other_type), trust=anchors)


# ---------------------------------------------------------------- digests of passwords


def with_digest(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[UsernameToken], UsernameToken] = lambda token: token
) -> Shape:
    """A message whose UsernameToken gives a digest."""

    def token(row: object, credential: tuple[str, str], name: str, *_: object) -> UsernameToken:
        user, password = credential
        made = UsernameToken(name, user, "", PASSWORD_DIGEST, bytes(16), "2026-09-22T12:26:40Z")
        return change(replace(made, password=password_digest(made, password.encode())))

    monkeypatch.setattr(supporting, "_with_password", token)
    return Shape(bootstrap("username", supporting=(replace(USERNAME, password="digest"),)))


@pytest.mark.row("MS-12")
def test_a_digest_where_the_policy_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = with_digest(monkeypatch)
    assert shape.received().principal == "ada"
    with pytest.raises(SecurityFailure, match="password as text"):
        shape.received(policy=bootstrap("username"))
    monkeypatch.undo()
    assert shape.received().principal == "ada"
    assert Shape(bootstrap("username")).received(policy=shape.policy).principal == "ada"


@pytest.mark.row("MS-12", "MS-83")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda token: replace(token, password="AAAA"), "password is wrong"),
        (lambda token: replace(token, password=""), "password is wrong"),
        (lambda token: replace(token, name="eve"), "password is wrong"),
        (lambda token: replace(token, nonce=b"x" * 16), "password is wrong"),
        (lambda token: replace(token, created="2026-09-22T12:26:41Z"), "password is wrong"),
        (lambda token: replace(token, nonce=None), "without nonce"),
        (lambda token: replace(token, created=None), "without nonce"),
        (lambda token: replace(token, password=None), "password as text"),
    ],
)
def test_digests_that_are_refused(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[UsernameToken], UsernameToken], words: str
) -> None:
    with pytest.raises(SecurityFailure, match=words):
        with_digest(monkeypatch, change).received()


@pytest.mark.row("MS-12")
def test_a_digest_needs_a_source_of_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = with_digest(monkeypatch)
    keys = shape.keys()

    class Checked:
        """Users behind a function, which gives no passwords away."""

        context, private_key, sealed_key = keys.context, keys.private_key, keys.sealed_key
        certificate_of, authenticate = keys.certificate_of, keys.authenticate

    with pytest.raises(SecurityFailure, match="password is wrong"):
        receive(shape.protected().payload, shape.expectation(), Checked())


# ---------------------------------------------------------------- encrypted headers

APPLICATION: Final = Shape(context())


def encrypted(
    local: str = "MessageID",
    *,
    bare: bool = False,
    listed: bool = True,
    plaintext: bytes | None = None,
    kind: str = "Element",
    attributes: dict[str, str] | None = None,
) -> bytes:
    """A message of ours, one of whose headers an insider has encrypted where it stands."""
    root = etree.fromstring(APPLICATION.protected().payload)
    header = first(root, f"{{*}}Header/{{{WSA_1_0.namespace}}}{local}")
    tokens = [DerivedKeyToken.parse(each) for each in root.iter("{*}DerivedKeyToken")]
    cipher = CIPHERS[APPLICATION.policy.suite.encryption]
    octets = xml.canonical(header) if plaintext is None else plaintext
    sealed = cipher.seal(derive(SECRET, tokens[1]), seeded(5)(16), octets)
    existing = first(root, f".//{{{XENC}}}EncryptedData")
    data = etree.fromstring(etree.tostring(existing, with_tail=False))
    data.set("Id", "eh")
    data.set("Type", f"{XENC}{kind}")
    first(data, f".//{{{XENC}}}CipherValue").text = base64(sealed)
    block = data
    if not bare:
        block = etree.Element(f"{{{WSSE11}}}EncryptedHeader", attributes or {})
        block.append(data)
    header.getparent().replace(header, block)  # type: ignore[union-attr]
    if listed:
        entry = etree.SubElement(first(root, f".//{{{XENC}}}ReferenceList"), f"{{{XENC}}}DataReference")
        entry.set("URI", "#eh")
    return etree.tostring(root)


@pytest.mark.row("MS-70", "MS-71", "MS-72")
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("local", ["MessageID", "To", "ReplyTo", "Action"])
def test_a_header_that_came_encrypted_is_as_good_as_one_in_clear(local: str, bare: bool) -> None:
    trace = Trace()
    verified = APPLICATION.received(encrypted(local, bare=bare), trace=trace)
    assert trace.problems == []
    name = f"wsa:{local}"
    assert name in verified.encrypted
    assert name in verified.covered_by(verified.primary)
    assert [header.name for header in verified.headers].count(name) == 1
    plain = APPLICATION.received()
    assert [xml.canonical(header.element) for header in verified.headers] == [
        xml.canonical(header.element) for header in plain.headers
    ]


@pytest.mark.row("MS-71", "MS-72", "MS-07")
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"kind": "Content"}, "whole elements of the header"),
        ({"plaintext": b"x"}, "can't be decrypted"),
        ({"plaintext": b"<a xmlns='urn:a'/><b xmlns='urn:a'/>"}, "can't be decrypted"),
        ({"plaintext": b"<!--x--><a xmlns='urn:a'/>"}, "can't be decrypted"),
        ({"plaintext": f"<o:Security xmlns:o='{WSSE}'/>".encode()}, "can't be decrypted"),
        ({"plaintext": f"<e:EncryptedData xmlns:e='{XENC}'/>".encode()}, "can't be decrypted"),
        (
            {"plaintext": f"<a:To xmlns:a='{WSA_1_0.namespace}'>urn:evil</a:To>".encode()},
            "leads to no part",
        ),
        (
            {"plaintext": f"<a:FaultTo xmlns:a='{WSA_1_0.namespace}'>urn:evil</a:FaultTo>".encode()},
            "wsa:FaultTo isn't signed|leads to no part",
        ),
        (
            {
                "plaintext": b"<t:Hop xmlns:t='urn:hop' xmlns:s='http://www.w3.org/2003/05/soap-envelope'"
                b" s:mustUnderstand='1'/>"
            },
            "must be understood",
        ),
    ],
)
def test_encrypted_headers_that_are_refused(how: dict[str, object], words: str) -> None:
    with pytest.raises(SecurityFailure, match=words):
        APPLICATION.received(encrypted(**how))  # type: ignore[arg-type]


@pytest.mark.row("MS-71")
def test_an_encrypted_header_for_somebody_else_is_left_alone() -> None:
    soap = "http://www.w3.org/2003/05/soap-envelope"
    payload = encrypted(listed=False, attributes={f"{{{soap}}}role": "urn:hop"})
    with pytest.raises(SecurityFailure, match="leads to no part"):
        APPLICATION.received(payload)  # its MessageID was signed, and is for nobody here


@pytest.mark.row("MS-70")
def test_a_list_may_name_the_header_or_its_data() -> None:
    root = etree.fromstring(encrypted(listed=False, attributes={ID: "outer"}))
    entry = etree.SubElement(first(root, f".//{{{XENC}}}ReferenceList"), f"{{{XENC}}}DataReference")
    entry.set("URI", "#outer")
    assert APPLICATION.received(etree.tostring(root)).body_content == BODY


# ---------------------------------------------------------------- implied derived keys


@pytest.mark.row("SC-17")
@pytest.mark.parametrize("family", FAMILIES)
def test_implied_derived_keys(family: str) -> None:
    """The nonce stands on the reference itself, and no DerivedKeyToken anywhere."""
    shape = Shape(context(parts=Parts().in_clear), family)
    space = FAMILIES[family].conversation.namespace

    def change(root: etree._Element, length: str | None = "24") -> None:
        token = first(root, ".//{*}DerivedKeyToken")
        nonce = first(token, f"{{{space}}}Nonce").text or ""
        reference = first(root, f".//{{{DS}}}Signature//{{{WSSE}}}SecurityTokenReference")
        reference[:] = [first(token, f"{{{WSSE}}}SecurityTokenReference")[0]]
        reference.set(f"{{{space}}}Nonce", nonce)
        if length is not None:
            reference.set(f"{{{space}}}Length", length)
        token.getparent().remove(token)  # type: ignore[union-attr]

    payload = shape.protected().payload
    assert shape.received(changed(payload, change)).primary.kind == "context"
    with pytest.raises(SecurityFailure, match="value is wrong"):
        shape.received(changed(payload, lambda root: change(root, None)))  # 32 bytes are another key
    for bad in ("15", "65", "9999"):
        with pytest.raises(SecurityFailure, match="Length"):
            shape.received(changed(payload, lambda root, bad=bad: change(root, bad)))  # type: ignore[misc]


@pytest.mark.row("SC-17")
def test_an_implied_key_is_a_derived_one_and_of_a_certificate_there_is_none() -> None:
    shape = Shape(context(parts=Parts().in_clear, derived_keys=False))
    space = FAMILIES["1.3"].conversation.namespace
    nonce = bytes(range(16))

    def change(root: etree._Element) -> None:
        signature = first(root, f".//{{{DS}}}Signature")
        first(signature, f".//{{{WSSE}}}SecurityTokenReference").set(f"{{{space}}}Nonce", base64(nonce))
        key = p_sha1(SECRET, b"WS-SecureConversation" * 2 + nonce, 32)
        value = mac(HMAC_SHA1, key, xml.canonical(signature[0]))
        first(signature, f"{{{DS}}}SignatureValue").text = base64(value)

    payload = changed(shape.protected().payload, change)
    assert shape.received(payload, policy=context(parts=Parts().in_clear)).body_content == BODY
    signed = Shape(bootstrap("mutual", encrypt_signature=False))

    def certificate(root: etree._Element) -> None:
        reference = first(root, f".//{{{DS}}}Signature//{{{WSSE}}}SecurityTokenReference")
        reference.set(f"{{{space}}}Nonce", base64(nonce))

    with pytest.raises(SecurityFailure, match="derived from a certificate"):
        signed.received(changed(signed.protected().payload, certificate))


# ---------------------------------------------------------------- RSA 1.5


SUITE_BYTES: Final = {"Basic256": 32, "Basic128": 16}


@pytest.mark.row("MS-35")
@pytest.mark.parametrize("suite", ["Basic256Rsa15", "Basic128Rsa15"])
@pytest.mark.parametrize("name", ["username", "mutual"])
def test_rsa_1_5_fails_as_any_wrong_key_does(name: str, suite: str) -> None:
    """Broken padding, a key of another length and a right one of no use: one fault, one text."""
    shape = Shape(bootstrap(name, suite))
    public = shape.service.certificate.public_key()
    size = SUITE_BYTES[suite[:8]]
    assert isinstance(public, RSAPublicKey)
    ciphers = [
        bytes(256),
        b"\x01" * 256,
        public.encrypt(b"k" * size, PKCS1v15()),
        public.encrypt(b"k" * (size + 1), PKCS1v15()),
        public.encrypt(b"", PKCS1v15()),
    ]
    outcomes = set()
    for cipher in ciphers:

        def change(root: etree._Element, cipher: bytes = cipher) -> None:
            key = first(root, f".//{{{XENC}}}EncryptedKey")
            first(key, f".//{{{XENC}}}CipherValue").text = base64(cipher)

        with pytest.raises(SecurityFailure) as refusal:
            shape.received(changed(shape.protected().payload, change))
        outcomes.add((str(refusal.value), refusal.value.fault == SECURITY_FAULT, refusal.value.missing_key))
    assert len(outcomes) == 1
    with pytest.raises(SecurityFailure, match="legacy=True"):
        shape.received(legacy=False)
