"""WS-Trust's request and response: round trips, tolerance, refusals."""

from __future__ import annotations

from typing import Final

import pytest

from castile.errors import Malformed, PeerError, Unsupported
from castile.messages.security import SecurityTokenReference
from castile.messages.trust import RequestSecurityToken, RequestSecurityTokenResponse
from castile.versions import TRUST_OF, WSSC_1_3, WSSC_2005, WSSE, WST_1_3, WST_2005, WSU, Conversation, Trust
from castile.xml import Element, canonical
from tests.messages.elements import ID, element, requests, responses

CONVERSATIONS: Final = (WSSC_2005, WSSC_1_3)
trusts = pytest.mark.parametrize("edition", [WST_2005, WST_1_3], ids=lambda row: row.name)


def node(edition: Trust, local: str, content: str) -> Element:
    text = f'<t:{local} xmlns:t="{edition.namespace}" xmlns:u="{WSU}" xmlns:o="{WSSE}">{content}</t:{local}>'
    return element(text.encode())


def request(edition: Trust, content: str, kind: str = "Issue") -> RequestSecurityToken:
    text = f"<t:RequestType>{edition.uri(kind)}</t:RequestType>{content}"
    return RequestSecurityToken.parse(node(edition, "RequestSecurityToken", text), edition)


def response(edition: Trust, content: str) -> RequestSecurityTokenResponse:
    return RequestSecurityTokenResponse.parse(node(edition, "RequestSecurityTokenResponse", content), edition)


@pytest.mark.parametrize(
    ("conversation", "example"),
    [(edition, example) for edition in CONVERSATIONS for example in requests(edition)],
)
def test_requests(conversation: Conversation, example: RequestSecurityToken) -> None:
    edition = TRUST_OF[conversation.namespace]
    octets = example.render(edition)
    assert canonical(element(octets)) == octets
    assert RequestSecurityToken.parse(element(octets), edition) == example


@pytest.mark.row("TR-03")
@pytest.mark.parametrize(
    ("conversation", "example"),
    [(edition, example) for edition in CONVERSATIONS for example in responses(edition)],
)
def test_responses(conversation: Conversation, example: RequestSecurityTokenResponse) -> None:
    edition = TRUST_OF[conversation.namespace]
    octets = example.render(edition)
    assert canonical(element(octets)) == octets
    assert RequestSecurityTokenResponse.parse(element(octets), edition) == example
    assert octets.startswith(b"<t:RequestSecurityTokenResponseCollection") is edition.collection
    bare = element(octets)[0] if edition.collection else element(octets)
    assert RequestSecurityTokenResponse.parse(bare, edition) == example


@pytest.mark.row("TR-03")
@trusts
def test_a_collection_holds_one(edition: Trust) -> None:
    one = "<t:RequestSecurityTokenResponse/>"
    name = "RequestSecurityTokenResponseCollection"
    found = RequestSecurityTokenResponse.parse(node(edition, name, one), edition)
    assert found == RequestSecurityTokenResponse()
    for content in ("", one * 2, "<t:RequestSecurityToken/>"):
        with pytest.raises(Malformed):
            RequestSecurityTokenResponse.parse(node(edition, name, content), edition)


def test_a_token_that_declares_our_prefix() -> None:
    octets = (
        f'<c:SecurityContextToken xmlns:c="{WSSC_2005.namespace}"><c:Identifier>{ID}</c:Identifier>'
        f'<t:Cookie xmlns:t="{WST_2005.namespace}">1</t:Cookie></c:SecurityContextToken>'
    )
    content = f"<t:RequestedSecurityToken>{octets}</t:RequestedSecurityToken>"
    found = response(WST_2005, content)
    assert found.token is not None
    rendered = found.render(WST_2005)
    assert canonical(element(rendered)) == rendered
    assert RequestSecurityTokenResponse.parse(element(rendered), WST_2005) == found


@trusts
def test_what_is_not_read_is_named(edition: Trust) -> None:
    content = '<t:KeyType>x</t:KeyType><x:AppliesTo xmlns:x="urn:x"/><t:OnBehalfOf/>'
    assert request(edition, content).extensions == ("AppliesTo", "KeyType", "OnBehalfOf")
    assert response(edition, content).extensions == ("AppliesTo", "KeyType", "OnBehalfOf")


def test_values() -> None:
    content = (
        "<t:Entropy>\n<t:BinarySecret>YWJj\n ZA==</t:BinarySecret></t:Entropy><t:KeySize> 0256 </t:KeySize>"
        "<t:Lifetime><u:Created>2026-11-22T07:02:24.5+01:00</u:Created>"
        "<u:Expires>2026-11-22T08:02:24Z</u:Expires></t:Lifetime>"
    )
    found = request(WST_1_3, content)
    assert found.entropy == b"abcd"
    assert found.key_size == 256
    assert found.created is not None
    assert found.expires is not None
    assert found.expires - found.created == pytest.approx(7_199.5)


def test_no_secret_shows() -> None:
    for example in (*requests(WSSC_1_3), *responses(WSSC_1_3)):
        assert "entropy" not in repr(example)
        assert "proof_secret" not in repr(example)


def fault_name(error: PeerError) -> str | None:
    return error.fault.subcode[1] if error.fault.subcode else None


@pytest.mark.row("RE-73")
@trusts
@pytest.mark.parametrize(
    "content",
    [
        "",
        "<t:RequestType/>",
        "<t:RequestType>urn:other/Issue</t:RequestType>",
        "<t:RequestType>Issue</t:RequestType>",
        "<t:RequestType>{0}Issue</t:RequestType><t:RequestType>{0}Issue</t:RequestType>",
        "<t:RequestType>{0}Issue</t:RequestType><t:KeySize>1</t:KeySize><t:KeySize>2</t:KeySize>",
        "<t:RequestType>{0}Issue</t:RequestType><t:Lifetime><u:Begin/></t:Lifetime>",
    ],
)
def test_requests_that_are_invalid(edition: Trust, content: str) -> None:
    text = content.replace("{0}", edition.uri(""))
    with pytest.raises(Malformed) as caught:
        RequestSecurityToken.parse(node(edition, "RequestSecurityToken", text), edition)
    assert fault_name(caught.value) == "InvalidRequest"


@pytest.mark.row("RE-73")
@trusts
def test_another_element_or_edition(edition: Trust) -> None:
    other = WST_2005 if edition is WST_1_3 else WST_1_3
    with pytest.raises(Malformed):
        RequestSecurityToken.parse(node(other, "RequestSecurityToken", ""), edition)
    with pytest.raises(Malformed):
        RequestSecurityToken.parse(node(edition, "RequestSecurityTokenResponse", ""), edition)
    with pytest.raises(Malformed, match="mixes"):
        request(edition, f'<b:KeySize xmlns:b="{other.namespace}">1</b:KeySize>')
    with pytest.raises(Malformed):
        RequestSecurityTokenResponse.parse(element(b"<a/>"), edition)


@pytest.mark.parametrize(
    "content",
    [
        "<t:KeySize>x</t:KeySize>",
        "<t:KeySize>-256</t:KeySize>",
        "<t:KeySize>99999999999</t:KeySize>",
        "<t:Entropy><t:BinarySecret>not base64!</t:BinarySecret></t:Entropy>",
        "<t:Entropy><t:BinarySecret>YWJj<!-- -->ZA==</t:BinarySecret></t:Entropy>",
        "<t:Lifetime><u:Created>2026-11-22T07:02:24</u:Created></t:Lifetime>",
        "<t:CancelTarget><o:SecurityTokenReference/></t:CancelTarget>",
    ],
)
def test_values_that_are_malformed(content: str) -> None:
    with pytest.raises(Malformed):
        request(WST_1_3, content)


@pytest.mark.row("SC-05")
@trusts
@pytest.mark.parametrize(
    "content",
    [
        "<t:Entropy/>",
        "<t:Entropy><t:Other/></t:Entropy>",
        "<t:Entropy><t:BinarySecret>YQ==</t:BinarySecret><t:BinarySecret>YQ==</t:BinarySecret></t:Entropy>",
        "<t:RequestedProofToken/>",
        "<t:RequestedProofToken><t:Other/></t:RequestedProofToken>",
        "<t:RequestedProofToken><t:ComputedKey>{0}CK/HASH</t:ComputedKey></t:RequestedProofToken>",
        "<t:RequestedSecurityToken/>",
        "<t:RequestedSecurityToken><o:BinarySecurityToken/></t:RequestedSecurityToken>",
        "<t:RequestedAttachedReference><o:KeyIdentifier/></t:RequestedAttachedReference>",
    ],
)
def test_forms_that_are_not_spoken(edition: Trust, content: str) -> None:
    with pytest.raises(Unsupported) as caught:
        response(edition, content.replace("{0}", edition.uri("")))
    assert fault_name(caught.value) == "RequestFailed"


def test_targets() -> None:
    found = request(
        WST_1_3,
        f'<t:CancelTarget><o:SecurityTokenReference><o:Reference URI="{ID}"/>'
        "</o:SecurityTokenReference></t:CancelTarget>",
        "Cancel",
    )
    assert found.request_type == "Cancel"
    assert found.cancel_target == SecurityTokenReference(uri=ID)
