"""WS-Security's elements: parse and render are each other's inverse, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from castile import xml
from castile.clock import iso
from castile.config import Limits
from castile.errors import SECURITY_FAULT, Malformed, PeerError, Unsupported
from castile.messages.security import (
    CONTENT_TYPE,
    ELEMENT_TYPE,
    BinarySecurityToken,
    EncryptedData,
    EncryptedKey,
    KeyInfo,
    ReferenceList,
    SecurityTokenReference,
    SignatureConfirmation,
    Timestamp,
    UsernameToken,
    decode_base64,
    parse_instant,
)
from castile.messages.signature import (
    Signature,
    Transform,
    signature,
    signed_info,
    signed_info_content,
)
from castile.policy.suites import AES256_CBC, HMAC_SHA256, RSA_OAEP, SHA1, SHA256
from castile.versions import (
    BASE64_BINARY,
    DS,
    ENCRYPTED_KEY,
    ENCRYPTED_KEY_SHA1,
    EXC_C14N,
    PASSWORD_DIGEST,
    PASSWORD_TEXT,
    STR_TRANSFORM,
    THUMBPRINT_SHA1,
    WSSC,
    WSSE,
    WSU,
    X509_V3,
    XENC,
    XENC11,
)

LIMITS = Limits()
SCT = WSSC["http://docs.oasis-open.org/ws-sx/ws-secureconversation/200512"].token_type

REFERENCES = [
    SecurityTokenReference(uri="#token"),
    SecurityTokenReference(uri="#key", value_type=ENCRYPTED_KEY, token_type=ENCRYPTED_KEY),
    SecurityTokenReference(uri="urn:uuid:1", value_type=SCT),
    SecurityTokenReference(uri="urn:uuid:1", value_type=SCT, instance="urn:uuid:2", id="str-1"),
    SecurityTokenReference(key_identifier="AAEC", value_type=THUMBPRINT_SHA1),
    SecurityTokenReference(
        key_identifier="AAEC", value_type=ENCRYPTED_KEY_SHA1, token_type=ENCRYPTED_KEY, id="s"
    ),
    SecurityTokenReference(issuer_serial=("CN=a & b,O=c", 1 << 90)),
    SecurityTokenReference(issuer_serial=("CN=x", 7), id="s", token_type="urn:t"),
]
KEY = KeyInfo(REFERENCES[0])

ELEMENTS: list[tuple[object, Callable[[xml.Element], object]]] = [
    *[(reference, SecurityTokenReference.parse) for reference in REFERENCES],
    (Timestamp("_t", 1_790_000_000.25, 1_790_000_300.25), Timestamp.parse),
    (Timestamp(None, 0.0, None), Timestamp.parse),
    (UsernameToken("_u", "ada <&> b", 'p"w&<>'), UsernameToken.parse),
    (UsernameToken(None, "ada", None, None), UsernameToken.parse),
    (UsernameToken(None, "ada", "x", PASSWORD_DIGEST, b"n" * 16, "2026"), UsernameToken.parse),
    (UsernameToken("_u", "ada", "x", PASSWORD_TEXT, b"n" * 16, "2026"), UsernameToken.parse),
    (BinarySecurityToken("_b", X509_V3, b"certificate"), BinarySecurityToken.parse),
    (BinarySecurityToken(None, X509_V3, b""), BinarySecurityToken.parse),
    (SignatureConfirmation("_c", b"value"), SignatureConfirmation.parse),
    (SignatureConfirmation(None, None), SignatureConfirmation.parse),
    (ReferenceList(("a", "b")), ReferenceList.parse),
    (EncryptedData("_d", CONTENT_TYPE, AES256_CBC, KEY, b"cipher"), EncryptedData.parse),
    (EncryptedData("_d", ELEMENT_TYPE, AES256_CBC, None, b"cipher"), EncryptedData.parse),
    (EncryptedKey("_k", RSA_OAEP, KEY, b"cipher", SHA1), EncryptedKey.parse),
    (EncryptedKey(None, RSA_OAEP, None, b"c", SHA256, f"{XENC11}mgf1sha1", ("a", "b")), EncryptedKey.parse),
]  # fmt: skip


def rendered(element: object) -> bytes:
    octets = element.render()  # type: ignore[attr-defined]
    assert isinstance(octets, bytes)
    return octets


@pytest.mark.row("MS-18")
@pytest.mark.row("MS-21")
@pytest.mark.parametrize(("element", "parse"), ELEMENTS, ids=lambda item: type(item).__name__)
def test_round_trip(element: object, parse: Callable[[xml.Element], object]) -> None:
    octets = rendered(element)
    root = xml.parse(octets, LIMITS)
    assert parse(root) == element
    assert xml.canonical(root) == octets


@pytest.mark.parametrize("element", [each for each, _ in ELEMENTS], ids=lambda item: type(item).__name__)
def test_what_stands_under_a_declared_prefix_is_canonical_there(element: object) -> None:
    if not isinstance(element, SecurityTokenReference | ReferenceList):
        return
    octets = b'<x xmlns:o="%b" xmlns:e="%b">%b</x>' % (
        WSSE.encode(),
        XENC.encode(),
        element.render(nested=True),
    )
    parent = xml.parse(octets, LIMITS)
    assert type(element).parse(parent[0]) == element
    assert element.render(nested=True) in octets


def test_a_signature_renders_and_parses() -> None:
    content = signed_info_content(HMAC_SHA256, SHA256, [("_1", b"AAAA"), ("_2", b"AAEC")])
    octets = signature(content, b"AAECAwQ=", REFERENCES[0].render(), "sig")
    root = xml.parse(octets, LIMITS)
    assert xml.canonical(root) == octets
    assert xml.canonical(root[0]) == signed_info(content)
    found = Signature.parse(root, 32)
    assert found.id == "sig"
    assert found.method == HMAC_SHA256
    assert [reference.id for reference in found.references] == ["_1", "_2"]
    assert found.references[0].transforms == (Transform(EXC_C14N),)
    assert found.references[1].digest == b"\0\1\2"
    assert found.key.reference == REFERENCES[0]
    with pytest.raises(Malformed, match="between 1 and 1"):
        Signature.parse(root, 1)


def test_transforms_with_parameters() -> None:
    octets = (
        f'<ds:Transform xmlns:ds="{DS}" Algorithm="{EXC_C14N}"><ec:InclusiveNamespaces xmlns:ec="{EXC_C14N}"'
        f' PrefixList="#default  soap&#10;wsse"/></ds:Transform>'
    )
    assert Transform.parse(etree.fromstring(octets)).prefixes == ("#default", "soap", "wsse")
    octets = (
        f'<ds:Transform xmlns:ds="{DS}" Algorithm="{STR_TRANSFORM}">'
        f'<o:TransformationParameters xmlns:o="{WSSE}">'
        f'<ds:CanonicalizationMethod Algorithm="{EXC_C14N}"/>'
        "</o:TransformationParameters></ds:Transform>"
    )
    assert Transform.parse(etree.fromstring(octets)).inner == Transform(EXC_C14N)


@pytest.mark.row("SC-17")
@pytest.mark.parametrize("namespace", WSSC)
def test_implied_derived_keys(namespace: str) -> None:
    octets = (
        f'<o:SecurityTokenReference xmlns:o="{WSSE}" xmlns:c="{namespace}" c:Nonce="AAEC" c:Length="24">'
        '<o:Reference URI="#a"/></o:SecurityTokenReference>'
    )
    found = SecurityTokenReference.parse(etree.fromstring(octets))
    assert (found.nonce, found.length) == (b"\0\1\2", 24)
    found = SecurityTokenReference.parse(etree.fromstring(octets.replace(' c:Length="24"', "")))
    assert (found.nonce, found.length) == (b"\0\1\2", 32)
    with pytest.raises(Malformed):
        SecurityTokenReference.parse(etree.fromstring(octets.replace('"24"', '"-1"')))


SCOPE = f'xmlns:o="{WSSE}" xmlns:u="{WSU}" xmlns:ds="{DS}" xmlns:e="{XENC}"'
STR = "<o:SecurityTokenReference><o:Reference URI='#a'/></o:SecurityTokenReference>"
METHOD = '<e:EncryptionMethod Algorithm="urn:a"/>'
INFO = f"<ds:KeyInfo>{STR}</ds:KeyInfo>"
VALUE = "<e:CipherValue>AAEC</e:CipherValue>"
DATA = f"<e:CipherData>{VALUE}</e:CipherData>"
SERIAL = (
    "<ds:X509Data><ds:X509IssuerSerial><ds:X509IssuerName>CN=a</ds:X509IssuerName>"
    "<ds:X509SerialNumber>0x7</ds:X509SerialNumber></ds:X509IssuerSerial></ds:X509Data>"
)
NOON = "2026-01-01T12:00:00Z"
IDENTIFIER = "<o:KeyIdentifier{}>AA</o:KeyIdentifier>"
PARAMETERS = '<e:EncryptionMethod Algorithm="urn:a"><e:KeySize>128</e:KeySize></e:EncryptionMethod>'


def refuses(
    parse: Callable[[xml.Element], object], tag: str, cases: dict[str, str], attributes: str = ""
) -> list[tuple[Callable[[xml.Element], object], str, str]]:
    """Cases of one element: content, and the words of the refusal."""
    start = f"<{tag} {SCOPE} {attributes}>"
    return [(parse, f"{start}{content}</{tag}>", words) for content, words in cases.items()]


REFUSED = [
    *refuses(
        SecurityTokenReference.parse,
        "o:SecurityTokenReference",
        {
            "": "exactly one",
            "<o:Reference URI='#a'/><o:Reference URI='#b'/>": "exactly one",
            "<o:Reference/>": "URI",
            "<o:Embedded/>": "Embedded",
            IDENTIFIER.format(""): "ValueType",
            IDENTIFIER.format(" ValueType='v' EncodingType='urn:hex'"): "base64",
            "<ds:X509Data/>": "X509IssuerSerial",
            SERIAL: "integer",
        },
    ),
    *refuses(SecurityTokenReference.parse, "o:Other", {"": "expected"}),
    *refuses(
        KeyInfo.parse,
        "ds:KeyInfo",
        {
            "": "exactly one",
            STR + STR: "exactly one",
            "<ds:RetrievalMethod URI='#x'/>": "RetrievalMethod",
            "<ds:KeyValue/>": "KeyValue",
        },
    ),
    *refuses(
        Timestamp.parse,
        "u:Timestamp",
        {
            "": "one Created",
            f"<u:Expires>{NOON}</u:Expires><u:Created>{NOON}</u:Created>": "one Created",
            f"<u:Created>{NOON}</u:Created><u:Created>{NOON}</u:Created>": "one Created",
            f"<u:Created>{NOON}</u:Created><x/>": "one Created",
            f"<u:Created ValueType='x'>{NOON}</u:Created>": "attributes",
        },
    ),
    *refuses(
        UsernameToken.parse,
        "o:UsernameToken",
        {
            "": "Username",
            "<o:Username>a</o:Username><o:Username>b</o:Username>": "twice",
            "<o:Username>a<!-- x -->.evil</o:Username>": "text only",
            "<o:Username>a</o:Username><x/>": "holds",
        },
    ),
    *refuses(BinarySecurityToken.parse, "o:BinarySecurityToken", {"AA==": "ValueType"}),
    *refuses(BinarySecurityToken.parse, "o:BinarySecurityToken", {"A!": "base64"}, "ValueType='v'"),
    *refuses(
        BinarySecurityToken.parse,
        "o:BinarySecurityToken",
        {"AA": "base64"},
        "ValueType='v' EncodingType='urn:hex'",
    ),
    *refuses(SignatureConfirmation.parse, "k", {"x": "empty"}),
    *refuses(
        ReferenceList.parse,
        "e:ReferenceList",
        {
            "": "empty",
            "<e:KeyReference URI='#a'/>": "DataReference",
            "<e:DataReference URI='http://x'/>": "point into",
            "<e:DataReference URI='#'/>": "point into",
            "<e:DataReference URI='#a'/><e:DataReference URI='#a'/>": "twice",
        },
    ),
    *refuses(EncryptedData.parse, "e:EncryptedData", {METHOD + DATA: "type"}, "Type='urn:gzip'"),
    *refuses(
        EncryptedData.parse,
        "e:EncryptedData",
        {
            INFO + DATA: "EncryptionMethod",
            METHOD + INFO: "CipherData",
            f"{METHOD}<e:CipherData><e:CipherReference URI='http://x'/></e:CipherData>": "CipherReference",
            f"{METHOD}<e:CipherData>{VALUE}{VALUE}</e:CipherData>": "exactly one",
            METHOD + DATA + "<e:EncryptionProperties/>": "more than",
        },
        f"Type='{CONTENT_TYPE}'",
    ),
    *refuses(
        EncryptedKey.parse,
        "e:EncryptedKey",
        {PARAMETERS + INFO + DATA: "KeySize", METHOD + INFO + DATA + "<x/>": "holds"},
    ),
]


@pytest.mark.row("MS-19")
@pytest.mark.row("MS-81")
@pytest.mark.parametrize(("parse", "text", "words"), REFUSED, ids=lambda item: str(item)[-24:])
def test_what_breaks_the_structure_is_refused(
    parse: Callable[[xml.Element], object], text: str, words: str
) -> None:
    with pytest.raises(PeerError, match=re.escape(words)) as error:
        parse(etree.fromstring(text))
    assert isinstance(error.value, Malformed | Unsupported)


def test_the_good_ones_pass() -> None:
    # Guards the table above: its pieces are good ones.
    data = f"<e:EncryptedData {SCOPE} Type='{CONTENT_TYPE}'>{METHOD}{INFO}{DATA}</e:EncryptedData>"
    assert EncryptedData.parse(etree.fromstring(data)).cipher == b"\0\1\2"
    key = f"<e:EncryptedKey {SCOPE}>{METHOD}{INFO}{DATA}</e:EncryptedKey>"
    assert EncryptedKey.parse(etree.fromstring(key)).algorithm == "urn:a"


@pytest.mark.row("MS-21")
def test_base64_may_be_wrapped_and_nothing_else() -> None:
    assert decode_base64("AA EC\r\n\tAw==\n") == b"\0\1\2\3"
    for text in ("AAE", "A===", "AA-_", "AAEC=", "AAEC AAE"):
        with pytest.raises(Malformed) as error:
            decode_base64(text)
        assert error.value.fault == SECURITY_FAULT


@pytest.mark.row("MS-74")
def test_instants() -> None:
    second = 1_790_000_000.0
    assert parse_instant("2026-09-21T14:13:20Z") == second
    assert parse_instant(" 2026-09-21T14:13:20.000Z\n") == second
    assert parse_instant("2026-09-21T16:43:20+02:30") == second
    assert parse_instant("2026-09-21T00:13:20-14:00") == second
    assert parse_instant("2026-09-21T14:13:20.123456789Z") == pytest.approx(second + 0.123456789)
    assert parse_instant(f"2026-09-21T14:13:20.{'9' * 20}Z") == pytest.approx(second + 1)
    for text, words in {
        "2026-09-21T14:13:20": "no zone",
        "2026-09-21T14:13:60Z": "leap second",
        "2026-02-29T14:13:20Z": "no day",
        "2026-09-21T24:00:00Z": "no day",
        "2026-09-21T14:13:20+14:01": "14:00",
        "2026-09-21T14:13:20+01:60": "14:00",
        f"2026-09-21T14:13:20.{'9' * 21}Z": "xs:dateTime",
        "12026-09-21T14:13:20Z": "xs:dateTime",
        "-2026-09-21T14:13:20Z": "xs:dateTime",
        "٢٠٢٦-09-21T14:13:20Z": "xs:dateTime",
        "2026-09-21": "xs:dateTime",
    }.items():
        with pytest.raises(Malformed, match=words):
            parse_instant(text)


@given(st.integers(0, 253_402_300_799_000))
def test_every_millisecond_survives(milliseconds: int) -> None:
    assert parse_instant(iso(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, abs=1e-6)


def test_a_password_does_not_show() -> None:
    token = UsernameToken("_u", "ada", "sesame", nonce=b"nonsense")
    assert "sesame" not in repr(token)
    assert "nonsense" not in repr(token)
    assert replace(token, name="bob").name == "bob"


def test_an_instance_needs_a_context() -> None:
    with pytest.raises(Malformed, match="instance"):
        SecurityTokenReference(uri="urn:x", instance="urn:i").render()
    with pytest.raises(Malformed, match="without a reference"):
        SecurityTokenReference().render()
    assert BASE64_BINARY.encode() in REFERENCES[4].render()
