"""Names of certificates, references to them, and tokens that hold them."""

from __future__ import annotations

from base64 import b64encode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from castile import xml
from castile.errors import SecurityFailure
from castile.messages.security import BinarySecurityToken, SecurityTokenReference
from castile.policy import CertificateReference
from castile.security.certificates import (
    certificates_of,
    dereferenced,
    reference_to,
    refers_to,
    token_of,
    with_default_namespace,
)
from castile.security.names import same_name
from castile.versions import THUMBPRINT_SHA1, X509_PKIPATH, X509_SKI, X509_V3
from tests.security.authority import Issued, identity
from tests.security.recorded import LIMITS

EMAIL = NameOID.EMAIL_ADDRESS
NAME = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "NO"),
        x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "Oslo"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, 'Fjord Trust, "Ltd."'),
        x509.NameAttribute(NameOID.COMMON_NAME, "Test  CA + more"),
        x509.NameAttribute(EMAIL, "ca@fjord.test"),
    ]
)
HEXADECIMAL = (
    r"1.2.840.113549.1.9.1=#160d636140666a6f72642e74657374,CN=Test CA \+ more,"
    r"O=Fjord Trust\, \"Ltd.\",ST=Oslo,C=#13024e4f"
)


@pytest.mark.row("MS-18", "MS-79")
@pytest.mark.parametrize(
    "text",
    [
        NAME.rfc4514_string(),
        r"E=ca@fjord.test, CN=Test  CA \+ more, O=Fjord Trust\, \"Ltd.\", S=Oslo, C=NO",
        r'EMAILADDRESS=ca@fjord.test,CN="Test CA + more",O="Fjord Trust, \"Ltd.\"",ST=Oslo,C=NO',
        r"C=NO;ST=Oslo;O=Fjord Trust\2C \22Ltd.\22;CN=Test CA \2B more;1.2.840.113549.1.9.1=ca@fjord.test",
        r"oid.2.5.4.6=no , sp=OSLO , o=fjord trust\, \"ltd.\" , cn=test ca \+ more , email=CA@fjord.test",
        HEXADECIMAL,
    ],
)
def test_issuer_names_as_they_are_met(text: str) -> None:
    assert same_name(text, NAME)


@pytest.mark.row("MS-18")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "CN",
        "CN=",
        "CN=Test CA \\+ more",
        NAME.rfc4514_string() + ",",
        NAME.rfc4514_string() + ",CN=x",
        NAME.rfc4514_string().replace("Oslo", "Olso"),
        "C=#13,CN=x",
        'CN="open',
        "CN=" + "x" * 10_000,
        "CN=" + " " * 4_000 + "\\",
        ",".join(["CN=x"] * 900),
        "\N{SNOWMAN}=x",
        "CN=\\zz\\ff",
    ],
)
def test_what_is_another_name_or_none(text: str) -> None:
    assert not same_name(text, NAME)


def test_relative_names_of_several_values() -> None:
    name = x509.Name.from_rfc4514_string("CN=a+OU=b,O=c")
    assert same_name("OU=b+CN=a,O=c", name)
    assert not same_name("OU=b,CN=a,O=c", name)


@pytest.mark.row("MS-18")
def test_every_reference_leads_to_its_certificate_and_to_no_other() -> None:
    mine, other = identity("one").certificate, identity("two").certificate
    forms: tuple[CertificateReference, ...] = ("thumbprint", "issuer-serial", "key-identifier")
    for form in forms:
        reference = reference_to(mine, form)
        assert reference is not None
        assert refers_to(reference, mine)
        assert not refers_to(reference, other)
        element = xml.parse(reference.render(), LIMITS)
        assert refers_to(SecurityTokenReference.parse(element), mine)
    assert reference_to(mine, "direct") is None
    bare = Issued("bare", identifier=False).make()
    fallen_back = reference_to(bare, "key-identifier")
    assert fallen_back is not None
    assert fallen_back.value_type == THUMBPRINT_SHA1  # BSP R5210
    for value in ("", "AAAA", "%%%"):
        for kind in (X509_SKI, THUMBPRINT_SHA1, "urn:other"):
            assert not refers_to(SecurityTokenReference(key_identifier=value, value_type=kind), bare)


def der(*certificates: x509.Certificate) -> bytes:
    return sequence(b"".join(each.public_bytes(Encoding.DER) for each in certificates))


def sequence(octets: bytes) -> bytes:
    length = len(octets)
    if length < 0x80:
        return bytes((0x30, length)) + octets
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((0x30, 0x80 + len(size))) + size + octets


@pytest.mark.row("MS-10")
def test_a_path_ends_with_the_signer() -> None:
    root, leaf = Issued("root", authority=True).make(), Issued("leaf", "root").make()
    assert certificates_of(BinarySecurityToken("a", X509_PKIPATH, der(root, leaf))) == (root, leaf)
    assert certificates_of(token_of(leaf, "a")) == (leaf,)


@pytest.mark.row("MS-10")
@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x30",
        b"\x30\x00",
        b"\x30\x80\x00\x00",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x85\x00\x00\x00\x00\x00",
        b"\x31\x00",
        sequence(b"\x02\x01\x05"),
        sequence(b"\x30\x05\x00"),
        sequence(sequence(b"")) + b"\x00",
        sequence(sequence(b"") * 8),
        sequence(b"\x30\x03\x02\x01\x05"),
    ],
)
def test_paths_that_are_none(octets: bytes) -> None:
    with pytest.raises(SecurityFailure, match="holds"):
        certificates_of(BinarySecurityToken("a", X509_PKIPATH, octets))


@pytest.mark.row("MS-10")
def test_tokens_of_other_kinds() -> None:
    for kind in (X509_V3 + "x", "urn:kerberos", X509_V3.replace("v3", "PKIPathv2")):
        with pytest.raises(SecurityFailure, match="a kind"):
            certificates_of(BinarySecurityToken("a", kind, b"x"))
    with pytest.raises(SecurityFailure, match="no certificate"):
        certificates_of(BinarySecurityToken("a", X509_V3, b"\x30\x03\x02\x01\x05"))


@pytest.mark.row("MS-55")
def test_what_stands_for_a_token_is_canonical() -> None:
    certificate = identity("one").certificate
    for prefix in ("wsse", "o", ""):
        for form in dereferenced(certificate, prefix):
            element = xml.parse(form, LIMITS)
            assert with_default_namespace(xml.canonical(element)) == form
            assert xml.text_of(element) == b64encode(certificate.public_bytes(Encoding.DER)).decode()
