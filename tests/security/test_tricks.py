"""Tricks with references to tokens, with keys, with SignedInfo and with prefixes, one by one."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from castile import xml
from castile.errors import PeerError
from castile.security.signature import DIGESTS
from castile.versions import DS, EXC_C14N, WSSE, WSU, XENC
from tests.security.certified import Certified, certified, client
from tests.security.insider import (
    APP,
    BOOT,
    ID,
    LIFE,
    SIDE,
    base64,
    changed,
    drop,
    first,
    refusal,
    resigned,
    sign,
)
from tests.security.made import CONTEXT, Kind, receive

EC = EXC_C14N
STR = f"{{{WSSE}}}SecurityTokenReference"
Change = Callable[[etree._Element], None]


def refused(message: Certified, change: Change) -> PeerError:
    """Why a message that certificates sign is refused after a change."""
    receive(message.payload, message.expectation, message.keys)
    with pytest.raises(PeerError) as error:
        receive(changed(message.payload, change), message.expectation, message.keys)
    return error.value


def named(name: str) -> Certified:
    """A message by bootstrap and kind."""
    bootstrap, _, kind = name.partition(" ")
    return certified(bootstrap, kind)  # type: ignore[arg-type]


# ---------------------------------------------------------------- references to tokens


@pytest.mark.row("MS-19", "MS-18")
@pytest.mark.parametrize("kind", [LIFE, APP, BOOT], ids=lambda kind: kind.name)
def test_a_reference_is_aimed_at_every_other_token(kind: Kind) -> None:
    """STR substitution: each reference in the header at each id of the message."""
    payload = SIDE.protected(kind).payload
    root = etree.fromstring(payload)
    ids = [found.get(ID) or found.get("Id") for found in root.iter("*") if found.get(ID) or found.get("Id")]
    count = len(root.findall(f".//{STR}/{{{WSSE}}}Reference"))
    assert count >= 2
    for index in range(count):
        for name in [*ids, "nothing"]:

            def aim(root: etree._Element, index: int = index, name: str | None = name) -> None:
                root.findall(f".//{STR}/{{{WSSE}}}Reference")[index].set("URI", f"#{name}")

            aimed = changed(payload, aim)
            if aimed != changed(payload, lambda _: None):
                refusal(aimed, kind)


@pytest.mark.row("MS-19")
def test_a_reference_names_a_context_or_a_key_of_another_kind() -> None:
    payload = SIDE.protected(LIFE).payload
    for uri in (CONTEXT, CONTEXT + "x", "http://evil/token", "", "#"):

        def aim(root: etree._Element, uri: str = uri) -> None:
            first(root, f".//{{{DS}}}Signature//{{{WSSE}}}Reference").set("URI", uri)

        refusal(changed(payload, aim), LIFE)


@pytest.mark.row("MS-19")
def test_two_references_in_one() -> None:
    def double(root: etree._Element) -> None:
        found = first(root, f".//{{{DS}}}Signature//{{{WSSE}}}Reference")
        found.addnext(deepcopy(found))

    def twin(root: etree._Element) -> None:
        found = first(root, f".//{{{DS}}}Signature//{STR}")
        found.addnext(deepcopy(found))

    for change in (double, twin):
        refusal(changed(SIDE.protected(LIFE).payload, change), LIFE)


@pytest.mark.row("MS-11", "MS-19")
@pytest.mark.parametrize("kind", ["certificate RST", "mutual RST"])
def test_another_certificate_in_the_token(kind: str) -> None:
    """The BinarySecurityToken of somebody else, trusted too, under the same id."""
    der = client("mallory").certificate.public_bytes(Encoding.DER)

    def swap(root: etree._Element) -> None:
        first(root, f".//{{{WSSE}}}BinarySecurityToken").text = base64(der)

    refused(named(kind), swap)


# ---------------------------------------------------------------- keys and algorithms


@pytest.mark.row("MS-30", "MS-34")
@pytest.mark.parametrize("bootstrap", ["certificate", "anonymous", "mutual"])
@pytest.mark.parametrize("name", ["RST", "RSTR"])
def test_every_algorithm_at_every_place(bootstrap: str, name: str) -> None:
    """Algorithm confusion: each algorithm that the message names, wherever another one stands."""
    message = certified(bootstrap, name)  # type: ignore[arg-type]
    root = etree.fromstring(message.payload)
    places = [found for found in root.iter("*") if found.get("Algorithm")]
    names = {found.get("Algorithm", "") for found in places}
    names |= {f"{DS}hmac-sha1", f"{DS}rsa-sha1", f"{XENC}rsa-1_5", f"{XENC}aes128-cbc", f"{DS}sha1"}
    for index, place in enumerate(places):
        for uri in names - {place.get("Algorithm", "")}:

            def confuse(root: etree._Element, index: int = index, uri: str = uri) -> None:
                [each for each in root.iter("*") if each.get("Algorithm")][index].set("Algorithm", uri)

            refused(message, confuse)


@pytest.mark.row("MS-05")
@pytest.mark.parametrize("bootstrap", ["certificate", "mutual"])
def test_every_id_twice(bootstrap: str) -> None:
    message = certified(bootstrap, "RST")  # type: ignore[arg-type]
    root = etree.fromstring(message.payload)
    ids = [found.get(ID) or found.get("Id") for found in root.iter("*") if found.get(ID) or found.get("Id")]
    for name in ids:
        for attribute in (ID, "Id", "ID", "AssertionID", "{http://www.w3.org/XML/1998/namespace}id"):

            def again(root: etree._Element, attribute: str = attribute, name: str | None = name) -> None:
                etree.SubElement(root[0], "{urn:evil}Wrapper").set(attribute, name or "")

            assert "twice" in str(refused(message, again))


# ---------------------------------------------------------------- SignedInfo


def _second(root: etree._Element) -> None:
    found = first(root, f".//{{{DS}}}SignedInfo")
    found.addnext(deepcopy(found))


def _parked(root: etree._Element) -> None:
    """The signed one in an Object, another in its place."""
    found = first(root, f".//{{{DS}}}SignedInfo")
    twin = deepcopy(found)
    drop(twin[-1])
    found.addprevious(twin)
    signature = found.getparent()
    assert signature is not None
    etree.SubElement(signature, f"{{{DS}}}Object").append(found)


def _comment(root: etree._Element) -> None:
    value = first(root, f".//{{{DS}}}DigestValue")
    comment = etree.Comment("x")
    comment.tail = value.text
    value.text = ""
    value.append(comment)


def _two_values(root: etree._Element) -> None:
    found = first(root, f".//{{{DS}}}SignatureValue")
    found.addnext(deepcopy(found))


def _no_reference(root: etree._Element) -> None:
    drop(first(root, f".//{{{DS}}}Reference"))


def _reordered(root: etree._Element) -> None:
    found = first(root, f".//{{{DS}}}SignedInfo")
    found.append(found[2])


def _two_signatures(root: etree._Element) -> None:
    found = first(root, f".//{{{DS}}}Signature")
    found.addnext(deepcopy(found))


def _whitespace(root: etree._Element) -> None:
    first(root, f".//{{{DS}}}SignedInfo").text = "\n "


def _another_c14n(root: etree._Element) -> None:
    found = first(root, f".//{{{DS}}}CanonicalizationMethod")
    found.set("Algorithm", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315")


def _prefix_list(root: etree._Element) -> None:
    found = first(root, f".//{{{DS}}}CanonicalizationMethod")
    etree.SubElement(found, f"{{{EC}}}InclusiveNamespaces").set("PrefixList", "s a u o")


SIGNED_INFO: dict[str, Change] = {
    "a second SignedInfo": _second,
    "the signed one in an Object": _parked,
    "a comment in a digest": _comment,
    "two values": _two_values,
    "a reference less": _no_reference,
    "references in another order": _reordered,
    "the Signature twice": _two_signatures,
    "white space": _whitespace,
    "inclusive C14N": _another_c14n,
    "a PrefixList": _prefix_list,
}


@pytest.mark.row("MS-03", "MS-59")
@pytest.mark.parametrize("trick", SIGNED_INFO)
def test_tricks_with_signed_info(trick: str) -> None:
    refusal(changed(SIDE.protected(LIFE).payload, SIGNED_INFO[trick]), LIFE)


@pytest.mark.row("MS-03", "MS-59")
@pytest.mark.parametrize("trick", ["a second SignedInfo", "the signed one in an Object", "two values"])
def test_tricks_with_signed_info_of_an_insider(trick: str) -> None:
    """With a value made anew over the first SignedInfo: the shape alone is refused."""
    root = etree.fromstring(SIDE.protected(LIFE).payload)
    SIGNED_INFO[trick](root)
    sign(root, first(root, f".//{{{DS}}}Signature"))
    refusal(etree.tostring(root), LIFE)


# ---------------------------------------------------------------- prefixes


@pytest.mark.row("MS-40", "MS-41")
@pytest.mark.parametrize("prefix", ["s", "a", "r", "u", "o", "c"])
def test_a_prefix_of_a_signed_part_is_bound_to_something_else(prefix: str) -> None:
    """The part's own declaration is renamed: same names of elements, other namespaces."""
    payload = SIDE.protected(LIFE).payload
    bound = list(re.finditer(rf' xmlns:{prefix}="[^"]*"'.encode(), payload))
    for found in bound:
        evil = payload[: found.start()] + f' xmlns:{prefix}="urn:evil"'.encode() + payload[found.end() :]
        refusal(evil, LIFE)
        without = payload[: found.start()] + payload[found.end() :]
        try:
            receive(without, SIDE.expectation(LIFE), SIDE.keys())
        except PeerError:
            continue
        assert payload[: found.start()].count(found[0]) >= 1, "it was declared outside too"


@pytest.mark.row("MS-40")
@pytest.mark.parametrize("words", ["#default", "s", "a r u", "x", "#default #default", "s" * 5_000])
def test_a_prefix_list_that_was_not_signed(words: str) -> None:
    """Of a reference's transform: what it adds to the scope changes SignedInfo."""

    def add(root: etree._Element) -> None:
        for found in root.iterfind(f".//{{{DS}}}Transform"):
            etree.SubElement(found, f"{{{EC}}}InclusiveNamespaces").set("PrefixList", words)

    refusal(changed(SIDE.protected(LIFE).payload, add), LIFE)


@pytest.mark.row("MS-40", "MS-41")
def test_a_prefix_list_ties_a_value_s_prefix_to_its_namespace() -> None:
    """An insider signs with a PrefixList; bound to something else on the way, it is refused."""

    def declare(payload: bytes) -> bytes:
        return payload.replace(b"Envelope ", b'Envelope xmlns:q="urn:good" ', 1)

    def listed(root: etree._Element) -> None:
        for found in root.iterfind(f".//{{{DS}}}Transform"):
            etree.SubElement(found, f"{{{EC}}}InclusiveNamespaces").set("PrefixList", "q")

    root = etree.fromstring(declare(SIDE.protected(LIFE).payload))
    listed(root)
    by_id = {f"#{element.get(ID)}": element for element in root.iter("*") if element.get(ID)}
    for reference in root.iterfind(f".//{{{DS}}}Reference"):
        method = first(reference, f"{{{DS}}}DigestMethod").get("Algorithm", "")
        octets = xml.canonical(by_id[reference.get("URI", "")], ("q",))
        first(reference, f"{{{DS}}}DigestValue").text = base64(DIGESTS[method](octets))
    sign(root, first(root, f".//{{{DS}}}Signature"))
    payload = etree.tostring(root)
    assert receive(payload, SIDE.expectation(LIFE), SIDE.keys()).primary.name == CONTEXT
    for evil in (b'xmlns:q="urn:evil"', b""):
        refusal(payload.replace(b'xmlns:q="urn:good"', evil), LIFE)


def test_the_insider_s_tools_work() -> None:
    # Guards the tests above.
    payload = resigned(SIDE.protected(LIFE).payload, lambda _: None)
    assert receive(payload, SIDE.expectation(LIFE), SIDE.keys())
    assert WSU in ID
