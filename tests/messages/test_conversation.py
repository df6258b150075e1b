"""SecurityContextToken and DerivedKeyToken in both editions."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from lxml import etree

from castile import xml
from castile.config import Limits
from castile.errors import Malformed, PeerError
from castile.messages.conversation import DerivedKeyToken, SecurityContextToken, edition_of
from castile.messages.security import SecurityTokenReference
from castile.versions import WSSC, Conversation
from tests.conftest import shared

LIMITS = Limits()
EDITIONS = list(WSSC.values())
HERE = SecurityTokenReference(uri="#sct")
TOKENS = [
    DerivedKeyToken("_0", HERE, offset=0, length=24, nonce=b"n" * 16),
    DerivedKeyToken("_1", HERE, nonce=b"n" * 16),
    DerivedKeyToken(None, None, generation=2, length=16, label="L & M", nonce=b""),
    DerivedKeyToken("_2", None, algorithm="urn:p"),
]


@pytest.mark.row("SC-02")
@pytest.mark.row("SC-13")
@pytest.mark.parametrize("edition", EDITIONS, ids=lambda edition: edition.name)
@pytest.mark.parametrize("token", TOKENS)
def test_derived_key_tokens_round_trip(token: DerivedKeyToken, edition: Conversation) -> None:
    octets = token.render(edition)
    root = xml.parse(octets, LIMITS)
    assert DerivedKeyToken.parse(root) == token
    assert xml.canonical(root) == octets
    assert edition_of(root) is edition


@pytest.mark.row("SC-01")
@pytest.mark.parametrize("edition", EDITIONS, ids=lambda edition: edition.name)
@pytest.mark.parametrize(("instance", "name"), [(None, "sct-1"), ("urn:uuid:2", None)])
def test_context_tokens_round_trip(edition: Conversation, instance: str | None, name: str | None) -> None:
    token = SecurityContextToken("urn:uuid:1", instance, name)
    octets = token.render(edition)
    root = xml.parse(octets, LIMITS)
    found = SecurityContextToken.parse(root)
    assert replace(found, verbatim=None) == token
    assert found.verbatim == octets
    assert found.render(edition) == octets
    assert SecurityContextToken.parse(root, verbatim=False) == token
    assert edition_of(root) is edition


@pytest.mark.row("SC-01")
def test_a_cookie_comes_back_byte_for_byte() -> None:
    path = shared("vectors", "wcf", "ws05-user-nonego-sc-norm-nocancel", "03-request.xml")
    root = xml.parse(path.read_bytes(), LIMITS)
    space = EDITIONS[0].namespace
    element = root.find(f".//{{{space}}}SecurityContextToken")
    assert element is not None
    token = SecurityContextToken.parse(element)
    again = xml.parse(token.render(EDITIONS[0]), LIMITS)
    cookies = [each.text for each in again.iter("{*}Cookie")]
    assert cookies == [each.text for each in element.iter("{*}Cookie")]
    assert len(cookies) == 1
    assert xml.canonical(again) == xml.canonical(element) == token.verbatim


@pytest.mark.row("SC-10")
@pytest.mark.parametrize("edition", EDITIONS, ids=lambda edition: edition.name)
def test_references_to_a_context(edition: Conversation) -> None:
    token = SecurityContextToken("urn:uuid:1", "urn:uuid:2", "sct-1")
    assert token.attached(edition).local == "sct-1"
    outside = token.unattached(edition)
    assert (outside.uri, outside.local, outside.instance) == ("urn:uuid:1", None, "urn:uuid:2")
    root = xml.parse(outside.render(), LIMITS)
    assert root[0].get(f"{{{edition.namespace}}}Instance") == "urn:uuid:2"


@pytest.mark.parametrize("edition", EDITIONS, ids=lambda edition: edition.name)
@pytest.mark.parametrize(
    ("children", "words"),
    [
        ("", "Identifier"),
        ("<c:Identifier/>", "empty"),
        ("<c:Identifier>a</c:Identifier><c:Identifier>b</c:Identifier>", "Identifier"),
        ("<c:Identifier>a</c:Identifier><c:Instance>b</c:Instance><c:Instance>b</c:Instance>", "Instance"),
        ("<c:Identifier>a<!-- b -->c</c:Identifier>", "text only"),
    ],
)
def test_context_tokens_that_are_refused(edition: Conversation, children: str, words: str) -> None:
    octets = f'<c:SecurityContextToken xmlns:c="{edition.namespace}">{children}</c:SecurityContextToken>'
    with pytest.raises(PeerError, match=words):
        SecurityContextToken.parse(etree.fromstring(octets))


@pytest.mark.row("SC-13")
@pytest.mark.parametrize("edition", EDITIONS, ids=lambda edition: edition.name)
@pytest.mark.parametrize(
    ("children", "words"),
    [
        ("<c:Nonce>AA==</c:Nonce><c:Length>24</c:Length>", "order"),
        ("<c:Offset>0</c:Offset><c:Offset>0</c:Offset>", "twice"),
        ("<c:Offset>0</c:Offset><c:Generation>0</c:Generation>", "twice"),
        ("<c:Key>0</c:Key>", "unknown"),
        ("<c:Offset>-1</c:Offset>", "integer"),
        ("<c:Offset>+1</c:Offset>", "integer"),
        ("<c:Offset>1.0</c:Offset>", "integer"),
        ("<c:Offset>٣</c:Offset>", "integer"),
        ("<c:Length>99999999999</c:Length>", "integer"),
        ("<c:Nonce>zz!</c:Nonce>", "base64"),
        ("<c:Label>a<!-- b --></c:Label>", "text only"),
        ("<!-- c --><c:Nonce>AA==</c:Nonce>", "order"),
        ("<c:Properties><c:Label>a</c:Label><c:Label>b</c:Label></c:Properties>", "twice"),
    ],
)
def test_derived_key_tokens_that_are_refused(edition: Conversation, children: str, words: str) -> None:
    octets = f'<c:DerivedKeyToken xmlns:c="{edition.namespace}">{children}</c:DerivedKeyToken>'
    with pytest.raises(PeerError, match=words):
        DerivedKeyToken.parse(etree.fromstring(octets))


@pytest.mark.row("SC-13")
@pytest.mark.parametrize("edition", EDITIONS, ids=lambda edition: edition.name)
def test_properties_are_read_as_defaults_for_others(edition: Conversation) -> None:
    octets = (
        f'<c:DerivedKeyToken xmlns:c="{edition.namespace}"><c:Properties><c:Name>n</c:Name>'
        "<c:Label>L</c:Label><c:Nonce>AAEC</c:Nonce></c:Properties></c:DerivedKeyToken>"
    )
    token = DerivedKeyToken.parse(etree.fromstring(octets))
    assert (token.label, token.nonce) == (None, None)
    assert (token.default_label, token.default_nonce) == ("L", b"\0\1\2")
    assert not re.search("Properties", token.render(edition).decode())


def test_other_elements_are_neither() -> None:
    element = etree.fromstring("<x/>")
    assert edition_of(element) is None
    for parse in (SecurityContextToken.parse, DerivedKeyToken.parse):
        with pytest.raises(Malformed, match="expected"):
            parse(element)
