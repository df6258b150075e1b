"""Every known cause of a wrong digest or signature value is named, alone, and changes no verdict."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from copy import deepcopy
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1 as SHA1_HASH
from cryptography.hazmat.primitives.hashes import SHA256 as SHA256_HASH
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from castile import xml
from castile.explaining import claims
from castile.explaining.causes import CAUSES
from castile.explaining.forms import C14N, FORMS, Form, Writer, indented
from castile.messages.conversation import DerivedKeyToken
from castile.policy.suites import HMAC_SHA256
from castile.security.certificates import dereferenced
from castile.security.keys import DEFAULT_LABEL, derive, p_sha1, parameters
from castile.versions import DS, EXC_C14N, SOAP_1_2, STR_TRANSFORM, WSSE, WSU, X509_PKIPATH
from tests.explaining.damage import (
    ID,
    ORDER,
    OTHER,
    Change,
    body_of,
    digested,
    info_of,
    keyed,
    listed,
    look,
    order,
    reference_of,
    replaced,
    signed,
    told,
    with_digest,
    with_rsa_value,
    with_value,
)
from tests.explaining.insider import sign_as
from tests.security.certified import certified, client
from tests.security.insider import first
from tests.security.made import SECRET

pytestmark = pytest.mark.row("N07")

INCLUSIVE = FORMS[C14N]
SHA1 = hashlib.sha1


def spread(payload: bytes) -> bytes:
    """A pretty printer on the way, over the whole message."""
    root = etree.fromstring(payload)
    etree.indent(body_of(root))
    return etree.tostring(root)


def written(form: Form, **how: object) -> Change:
    """A signer who digests the Body in this form."""
    return digested(lambda body: Writer(body).write(form, **how))  # type: ignore[arg-type]


def stated(form: Form, **how: object) -> Change:
    """A signer who signs SignedInfo in this form."""
    return signed(lambda info: Writer(info).write(form, **how))  # type: ignore[arg-type]


def with_list(prefixes: str, applied: tuple[str, ...]) -> Change:
    """A signer who writes one PrefixList and applies another."""

    def change(payload: bytes) -> bytes:
        root = etree.fromstring(payload)
        listed(prefixes)(root)
        body = body_of(root)
        with_digest(root, body, SHA1(xml.canonical(body, applied)).digest())
        return etree.tostring(root)

    return change


def under_default(payload: bytes) -> bytes:
    assert b"urn:default" not in payload
    return payload.replace(b"<s:Envelope ", b'<s:Envelope xmlns="urn:default" ', 1)


def commented(payload: bytes) -> bytes:
    """C14N with comments is named, and a comment is added."""
    root = etree.fromstring(payload)
    transform = first(reference_of(root, body_of(root)), f".//{{{DS}}}Transform")
    transform.set("Algorithm", f"{EXC_C14N}WithComments")
    with_value(root, xml.canonical(info_of(root)))
    body_of(root)[0].append(etree.Comment("seen"))
    return etree.tostring(root)


def without_id(body: etree._Element) -> bytes:
    return Writer(body).write(FORMS[EXC_C14N], without=ID)


def hexadecimal(payload: bytes) -> bytes:
    root = etree.fromstring(payload)
    body = body_of(root)
    with_digest(root, body, SHA1(xml.canonical(body)).hexdigest().encode())
    return etree.tostring(root)


def replaced_when_signed(old: bytes, new: bytes) -> Change:
    """SignedInfo had something else when it was signed."""
    return signed(lambda info: xml.canonical(info).replace(old, new))


def of_other_part(payload: bytes) -> bytes:
    root = etree.fromstring(payload)
    stamp = first(root, f".//{{{WSU}}}Timestamp")
    with_digest(root, body_of(root), SHA1(xml.canonical(stamp)).digest())
    return etree.tostring(root)


def other_digest(payload: bytes) -> bytes:
    root = etree.fromstring(payload)
    body = body_of(root)
    with_digest(root, body, hashlib.sha256(xml.canonical(body)).digest())
    return etree.tostring(root)


def in_another_envelope(sign: Change) -> Change:
    """After it was signed inclusively, the message goes into an envelope with one more declaration."""
    return lambda payload: sign(payload).replace(b"<s:Envelope ", b'<s:Envelope xmlns:w="urn:w" ', 1)


def once_declared(body: etree._Element) -> bytes:
    """The Body inclusively, where the envelope had one more declaration."""
    writer = Writer(body)
    return writer.write(INCLUSIVE, around={**writer.around, "xsi": "http://www.w3.org/2001/XMLSchema-instance"})


def text_of_order(old: str, new: str) -> Change:
    return replaced(old.encode("ascii", "xmlcharrefreplace"), new.encode("ascii", "xmlcharrefreplace"))


def ascii_text(payload: bytes) -> bytes:
    """With declarations around everything that only inclusive C14N writes."""
    text = etree.tostring(etree.fromstring(payload))
    return text.replace(b"<s:Envelope ", b'<s:Envelope xmlns:x="urn:x" xmlns:y="urn:y" xmlns:z="urn:z" ', 1)


EXCLUSIVE = FORMS[EXC_C14N]
DIGEST_DAMAGE: list[tuple[str, Change]] = [
    ("indented", spread),
    ("indented", replaced(b"<m:item", b"\n\t<m:item")),
    ("indented", replaced(b"<m:item", b"\r\n    <m:item")),
    ("indented", replaced(b"<m:item", b"&#13;\n    <m:item")),
    ("blanks-around-text", text_of_order("pümp", "\n  pümp\n")),
    ("prefix-list-ignored", with_list("z", ())),
    ("default-ignored", lambda payload: with_list("z #default", ("z",))(under_default(payload))),
    ("returns-lost", digested(lambda body: xml.canonical(body).replace(b"\n", b"&#xD;\n"))),
    ("returns-lost", digested(lambda body: xml.canonical(body).replace(b"\n", b"\r\n"))),
    ("returns-added", replaced(b"two\nlines", b"two&#13;\nlines")),
    ("comment-added", commented),
    ("other-form", written(INCLUSIVE)),
    ("other-hash", other_digest),
    ("hexadecimal", hexadecimal),
    ("id-added", digested(without_id)),
    ("attribute-added", replaced(b"<s:Body ", b'<s:Body s:role="urn:next" ')),
    ("content-only", digested(lambda body: xml.canonical(body[0]))),
    ("other-part", of_other_part),
    ("prefix-list-unwritten", written(replace(EXCLUSIVE, prefixes=("z",)))),
    ("declarations-added", in_another_envelope(written(INCLUSIVE))),
    ("declarations-lost", digested(once_declared)),
    ("mangled", text_of_order("pümp", "pÃ¼mp")),
    ("encoding", digested(lambda body: xml.canonical(body).decode().encode("utf-16-le"))),
    ("encoding", digested(lambda body: xml.canonical(body).decode().encode("latin-1"))),
    ("normalised", text_of_order("pümp", "pu\u0308mp")),
    ("prefaced", digested(lambda body: b'<?xml version="1.0" encoding="UTF-8"?>' + xml.canonical(body))),
    ("prefaced", digested(lambda body: b"\xef\xbb\xbf" + xml.canonical(body))),
    ("not-canonical", digested(lambda body: xml.canonical(body).replace(b"></m:empty>", b"/>"))),
    ("renamed", written(EXCLUSIVE, renamed={SOAP_1_2.namespace: "soap"})),
    ("renamed", written(EXCLUSIVE, renamed={SOAP_1_2.namespace: "soapenv", WSU: "wsu"})),
    ("renamed", written(EXCLUSIVE, renamed={"urn:orders": ""})),
    ("indentation-lost", written(EXCLUSIVE, texts=indented("\t", "\r\n", 1))),
    ("indentation-lost", written(EXCLUSIVE, texts=indented("    ", "\n", 0))),
]
VALUE_DAMAGE: list[tuple[str, Change]] = [
    ("indented", replaced(b"<ds:Reference ", b"\n  <ds:Reference ")),
    ("returns-added", replaced(b"</ds:DigestValue>", b"&#13;\n</ds:DigestValue>")),
    ("base64-wrapped", replaced(b"=</ds:DigestValue>", b"\n=</ds:DigestValue>")),
    ("base64-unwrapped", replaced_when_signed(b"</ds:DigestValue>", b"&#xD;\n</ds:DigestValue>")),
    ("blanks-around-text", replaced(b"</ds:DigestValue>", b"\n</ds:DigestValue>")),
    ("other-form", stated(INCLUSIVE)),
    ("declarations-added", in_another_envelope(stated(INCLUSIVE))),
    ("other-hash", lambda payload: of_other_hash(payload)),
    ("renamed", stated(EXCLUSIVE, renamed={DS: ""})),
    ("renamed", stated(EXCLUSIVE, renamed={DS: "dsig"})),
    ("indentation-lost", stated(EXCLUSIVE, texts=indented("  ", "\n", 4))),
    ("underived", keyed(lambda secret, _: secret)),
    ("derived-length", keyed(lambda secret, token: derived(secret, token, length=32))),
    ("derived-length", keyed(lambda secret, token: derived(secret, token, length=16))),
    ("derived-label", keyed(lambda secret, token: derived(secret, token, label="WS-SecureConversation"))),
    ("derived-offset", keyed(lambda secret, token: derived(secret, token, offset=24))),
    ("nonce-text", keyed(lambda secret, token: derived(secret, token, encode=True))),
    ("other-secret", keyed(lambda _, token: derived(OTHER, token))),
]


def of_other_hash(payload: bytes) -> bytes:
    root = etree.fromstring(payload)
    with_value(root, xml.canonical(info_of(root)), method=HMAC_SHA256)
    return etree.tostring(root)


def derived(
    secret: bytes,
    token: object,
    *,
    length: int | None = None,
    label: str = DEFAULT_LABEL,
    offset: int = 0,
    encode: bool = False,
) -> bytes:
    size, _, _, nonce = parameters(token)  # type: ignore[arg-type]
    nonce = b64encode(nonce) if encode else nonce
    return p_sha1(secret, label.encode() + nonce, length or size, offset)


def test_the_message_is_right_to_begin_with() -> None:
    assert look(ascii_text(order())).verdict == "verified"


@pytest.mark.parametrize(("name", "damage"), DIGEST_DAMAGE, ids=str)
def test_a_wrong_digest_has_its_one_cause(name: str, damage: Change) -> None:
    explanation = look(damage(ascii_text(order())))
    assert explanation.verdict == "failed"
    assert told(explanation) == {name}, explanation.problems
    assert not any("unknown" in text for _, text in explanation.problems)
    assert "Body" not in explanation.messages[0].signed


@pytest.mark.parametrize(("name", "damage"), VALUE_DAMAGE, ids=str)
def test_a_wrong_value_has_its_one_cause(name: str, damage: Change) -> None:
    explanation = look(damage(ascii_text(order())))
    assert explanation.verdict == "failed"
    assert told(explanation) == {name}, explanation.problems
    assert not any("unknown" in text for _, text in explanation.problems)
    assert explanation.messages[0].signed == ()


def test_another_derived_key_of_the_message_is_named() -> None:
    root = etree.fromstring(order())
    token = first(root, ".//{*}DerivedKeyToken")
    other = deepcopy(token)
    other.set(ID, "other")
    first(other, "{*}Nonce").text = b64encode(b"\x05" * 16).decode()
    token.addnext(other)
    with_value(root, xml.canonical(info_of(root)), derive(SECRET, DerivedKeyToken.parse(other)))
    explanation = look(etree.tostring(root))
    assert explanation.verdict == "failed"
    assert told(explanation) == {"other-token"}
    assert "DerivedKeyToken other" in explanation.problems[0][1]


def tampered(payload: bytes) -> bytes:
    return replaced(b"mp</m:item>", b"mp!</m:item>")(payload)


@pytest.mark.parametrize(
    "damage",
    [
        tampered,
        lambda payload: tampered(spread(payload)),
        lambda payload: replaced(b"two\nlines", b"two&#13;\nlines")(other_digest(payload)),
        lambda payload: spread(digested(without_id)(payload)),
        keyed(lambda secret, token: derived(secret, token, length=32, offset=8)),
        keyed(lambda _, token: derived(b"\x01" * 32, token)),
        lambda payload: stated(INCLUSIVE)(payload).replace(b"#_", b"#-", 1),
    ],
)
def test_two_kinds_of_damage_and_unknown_ones_are_unknown(damage: Change) -> None:
    explanation = look(damage(ascii_text(order())))
    assert explanation.verdict == "failed"
    assert told(explanation) == set()
    assert "the cause is unknown" in explanation.problems[0][1]
    assert "the cause is unknown" in json.dumps(explanation.as_json())
    assert "the cause is unknown" in str(explanation)


def test_each_failing_part_has_its_own_cause() -> None:
    payload = replaced(b">http://127.0.0.1/transfers<", b">http://127.0.0.1/other<")(spread(order()))
    texts = dict.fromkeys(text for _, text in look(payload).problems)
    to = next(text for text in texts if "wsa:To" in text)
    body = next(text for text in texts if "Body" in text)
    assert "unknown" in to
    assert "indented after it was signed" in body
    assert len(texts) == 2


# ---- token references and certificates


KEY_FILE = json.dumps(
    {"certificates": [client().certificate.public_bytes(Encoding.PEM).decode()]}
).encode()


def mutual() -> etree._Element:
    """An RST that a certificate signs, which the message carries."""
    return etree.fromstring(in_clear(certified("mutual", "RST").payload))


def in_clear(payload: bytes) -> bytes:
    root = etree.fromstring(payload)
    security = first(root, f".//{{{WSSE}}}Security")
    parent = security.getparent()
    assert parent is not None
    parent.remove(security)
    body = body_of(root)
    for child in list(body):
        body.remove(child)
    body.append(etree.fromstring(ORDER))
    return sign_as(root, client().certificate, client().private, 1_790_000_000.0)


def with_token_reference(root: etree._Element, octets: bytes, *, dereferenced: bool) -> bytes:
    """The signature also covers its own token reference, whose digest is over these octets."""
    reference = first(root, f".//{{{DS}}}KeyInfo/{{{WSSE}}}SecurityTokenReference")
    reference.set(ID, "str")
    info = info_of(root)
    entry = etree.SubElement(info, f"{{{DS}}}Reference", URI="#str")
    transform = etree.SubElement(etree.SubElement(entry, f"{{{DS}}}Transforms"), f"{{{DS}}}Transform")
    transform.set("Algorithm", STR_TRANSFORM if dereferenced else EXC_C14N)
    if dereferenced:
        inner = etree.SubElement(transform, f"{{{WSSE}}}TransformationParameters")
        etree.SubElement(inner, f"{{{DS}}}CanonicalizationMethod", Algorithm=EXC_C14N)
    etree.SubElement(entry, f"{{{DS}}}DigestMethod", Algorithm=f"{DS}sha1")
    digest = octets or xml.canonical(reference)
    etree.SubElement(entry, f"{{{DS}}}DigestValue").text = b64encode(SHA1(digest).digest()).decode()
    with_rsa_value(root, client().private, SHA1_HASH)
    return etree.tostring(root)


def test_a_message_signed_by_a_certificate_is_right() -> None:
    explanation = look(etree.tostring(mutual()), KEY_FILE)
    assert explanation.problems == ()


@pytest.mark.parametrize(
    ("name", "dereference"), [("reference-digested", True), ("token-digested", False), ("token-form", True)]
)
def test_a_token_reference_and_its_token_are_told_apart(name: str, dereference: bool) -> None:
    root = mutual()
    octets = b""
    if name != "reference-digested":
        octets = xml.canonical(first(root, f".//{{{WSSE}}}BinarySecurityToken"))
    if name == "token-form":
        octets = dereferenced(client().certificate, "wsse")[1]
    explanation = look(with_token_reference(root, octets, dereferenced=dereference), KEY_FILE)
    assert explanation.verdict == "failed"
    assert told(explanation) == {name}, explanation.problems


def test_the_value_of_another_certificate_and_a_value_written_backwards() -> None:
    root = mutual()
    value = first(root, f".//{{{DS}}}SignatureValue")
    octets = b64encode(b64decode(value.text or "")[::-1])
    value.text = octets.decode()
    assert told(look(etree.tostring(root), KEY_FILE)) == {"backwards"}
    other = client("eve")
    with_rsa_value(root, other.private, SHA1_HASH)
    more = [client().certificate, other.certificate]
    keys = json.dumps({"certificates": [each.public_bytes(Encoding.PEM).decode() for each in more]}).encode()
    explanation = look(etree.tostring(root), keys)
    assert told(explanation) == {"other-certificate"}
    assert "CN=eve" in explanation.problems[0][1]
    assert "unknown" in look(etree.tostring(root), KEY_FILE).problems[0][1]
    with_rsa_value(root, client().private, SHA256_HASH)
    assert told(look(etree.tostring(root), KEY_FILE)) == {"other-hash"}


def sequence_of(*octets: bytes) -> bytes:
    """A DER SEQUENCE of more than 255 and less than 65,536 octets."""
    content = b"".join(octets)
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content


def with_path(*certificates: x509.Certificate, kind: str = X509_PKIPATH) -> bytes:
    """Signed by Ada, whose certificate comes in a path."""
    root = mutual()
    token = first(root, f".//{{{WSSE}}}BinarySecurityToken")
    token.set("ValueType", kind)
    first(root, f".//{{{DS}}}KeyInfo//{{{WSSE}}}Reference").set("ValueType", kind)
    path = sequence_of(*(each.public_bytes(Encoding.DER) for each in certificates))
    token.text = b64encode(path).decode()
    return etree.tostring(root)


def test_a_path_in_the_wrong_order_is_told_from_a_wrong_key() -> None:
    ada, eve = client().certificate, client("eve").certificate
    keys = json.dumps(
        {"certificates": [each.public_bytes(Encoding.PEM).decode() for each in (ada, eve)]}
    ).encode()
    assert look(with_path(eve, ada), keys).verdict == "verified"
    explanation = look(with_path(ada, eve), keys)
    assert explanation.verdict == "failed"
    assert told(explanation) == {"reversed-path"}
    spoiled = with_path(ada, eve).replace(b"<ds:Reference ", b"<ds:Reference Id='x' ", 1)
    assert told(look(spoiled, keys)) == set()


def test_a_token_of_another_kind_is_named() -> None:
    kind = X509_PKIPATH.replace("PKIPathv1", "PKCS7")
    text = look(with_path(client().certificate, kind=kind), KEY_FILE).problems[0][1]
    assert "#X509PKCS7; #X509v3 and #X509PKIPathv1 are taken" in text


# ---- forms that are refused as such


def without_transforms(payload: bytes, form: Form = INCLUSIVE) -> bytes:
    root = etree.fromstring(payload)
    by_id = {f"#{each.get(ID)}": each for each in root.iter("*") if each.get(ID)}
    for reference in root.iter(f"{{{DS}}}Reference"):
        reference.remove(first(reference, f"{{{DS}}}Transforms"))
        octets = Writer(by_id[reference.get("URI", "")]).write(form)
        first(reference, f"{{{DS}}}DigestValue").text = b64encode(SHA1(octets).digest()).decode()
    with_value(root, xml.canonical(info_of(root)))
    return etree.tostring(root)


def test_a_signature_without_transforms_holds_inclusively() -> None:
    explanation = look(without_transforms(order()))
    assert explanation.verdict == "failed"
    ((_, text),) = explanation.problems
    assert "without Transforms" in text
    assert "hold under inclusive C14N 1.0" in text
    assert "the signature's value holds" in text
    assert "Body" in text
    assert "BSP R5416" in text


def test_a_signature_without_transforms_that_used_exclusive_c14n() -> None:
    text = look(without_transforms(order(), EXCLUSIVE)).problems[0][1]
    assert "it would fit under exclusive C14N, where inclusive C14N 1.0 is named" in text
    assert "the signature's value holds" in text


def test_inclusive_c14n_of_signed_info_is_refused_and_holds() -> None:
    root = etree.fromstring(order())
    first(root, f".//{{{DS}}}CanonicalizationMethod").set("Algorithm", C14N)
    with_value(root, Writer(info_of(root)).write(INCLUSIVE))
    explanation = look(etree.tostring(root))
    assert explanation.verdict == "failed"
    text = explanation.problems[0][1]
    assert "isn't allowed here" in text
    assert "the signature's value holds" in text


# ---- bounds, and what is never said


@pytest.mark.parametrize("budget", [claims.Budget(tries=20), claims.Budget(octets=100_000)])
def test_trying_is_bounded(monkeypatch: pytest.MonkeyPatch, budget: claims.Budget) -> None:
    monkeypatch.setattr("castile.explaining.diagnosis.Budget", lambda: replace(budget))
    filler = b"".join(b"<m:line>%d</m:line>" % number for number in range(1_000))
    payload = tampered(ascii_text(order())).replace(b"<m:note>", filler + b"<m:note>")
    text = look(payload).problems[0][1]
    assert "the cause is unknown: trying ended at its limit" in text


DAMAGE = [damage for _, damage in DIGEST_DAMAGE + VALUE_DAMAGE] + [tampered, spread, hexadecimal]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(DAMAGE), min_size=1, max_size=3))
def test_no_damage_is_ever_verified(chosen: list[Change]) -> None:
    payload = ascii_text(order())
    for damage in chosen:
        try:
            changed = damage(payload)
            etree.fromstring(changed)
            payload = changed
        except (AssertionError, etree.XMLSyntaxError):
            continue
    explanation = look(payload)
    text = str(explanation)
    if explanation.verdict == "verified":
        assert explanation.problems == ()
        assert sound(payload)
    else:
        assert explanation.verdict == "failed"
        assert explanation.problems
    assert SECRET.hex() not in text
    assert b64encode(SECRET).decode() not in text


def sound(payload: bytes) -> bool:
    """Whether later damage has mended what earlier damage did: every digest and the value fit."""
    root = etree.fromstring(payload)
    body = body_of(root)
    digest = first(reference_of(root, body), f"{{{DS}}}DigestValue").text
    return digest == b64encode(SHA1(xml.canonical(body)).digest()).decode()


def test_every_cause_has_a_test() -> None:
    tested = {name for name, _ in DIGEST_DAMAGE + VALUE_DAMAGE}
    tested |= {"reference-digested", "token-digested", "token-form", "backwards", "other-certificate"}
    tested |= {"reversed-path", "other-token"}
    assert {cause.name for cause in CAUSES} == tested
