"""WS-Addressing headers and endpoint references, both editions."""

from __future__ import annotations

from typing import Final

import pytest

from castile.errors import Malformed, PeerError, Violation
from castile.messages import addressing
from castile.messages.addressing import EPR, Headers
from castile.versions import SOAP_1_1, SOAP_1_2, UNSPECIFIED, WSA_1_0, WSA_2004, Addressing
from castile.xml import Element, canonical, inside
from tests.messages.elements import ID, RICH, element

editions = pytest.mark.parametrize("edition", [WSA_2004, WSA_1_0], ids=lambda row: row.name)
ACTION: Final = "urn:x:Add"


def blocks(edition: Addressing, content: str) -> list[Element]:
    text = f'<h xmlns:a="{edition.namespace}" xmlns:o="urn:other">{content}</h>'
    return inside(element(text.encode()))


def fault_of(edition: Addressing, content: str) -> tuple[str, str | None, bytes]:
    """Subcode, nested subcode and detail of the refusal."""
    with pytest.raises(Violation) as caught:
        addressing.parse(blocks(edition, content), edition)
    fault = caught.value.fault
    assert fault.subcode is not None
    assert fault.subcode[0] == edition.namespace
    assert fault.action == edition.fault_action
    return fault.subcode[1], fault.nested[1] if fault.nested else None, fault.detail


EXAMPLES: Final = [
    Headers(ACTION),
    Headers(ACTION, "https://b.example/x?a=1&b=2", ID, EPR(WSA_1_0.anonymous)),
    Headers(ACTION, relates_to=ID),
    Headers(ACTION, "urn:to", ID, RICH, EPR("urn:fault"), EPR("urn:from"), "urn:related"),
]


@editions
@pytest.mark.parametrize("version", [SOAP_1_1, SOAP_1_2], ids=lambda row: row.name)
@pytest.mark.parametrize("headers", EXAMPLES)
def test_round_trip(edition: Addressing, version: object, headers: Headers) -> None:
    assert version in (SOAP_1_1, SOAP_1_2)
    soap = SOAP_1_1 if version is SOAP_1_1 else SOAP_1_2
    for id_ in (None, "_3"):
        written = [header.render(soap, id_) for header in addressing.render(headers, edition)]
        found = [element(octets) for octets in written]
        assert [canonical(block) for block in found] == written
        assert addressing.parse(found, edition) == headers


def test_the_order_and_the_marks_of_wcf() -> None:
    blocks = addressing.render(EXAMPLES[3], WSA_1_0)
    names = [block.local for block in blocks]
    assert names == ["Action", "From", "RelatesTo", "MessageID", "ReplyTo", "FaultTo", "To"]
    assert [block.local for block in blocks if block.must_understand] == ["Action", "To"]


@editions
@pytest.mark.parametrize("reference", [EPR("urn:x"), RICH])
def test_references_alone_and_nested(edition: Addressing, reference: EPR) -> None:
    octets = reference.render("AcksTo", "r", "urn:r", edition)
    assert canonical(element(octets)) == octets
    assert EPR.parse(element(octets), edition) == reference
    octets = reference.render("ReplyTo", "a", edition.namespace, edition)
    assert canonical(element(octets)) == octets
    assert EPR.parse(element(octets), edition) == reference
    nested = reference.render("AcksTo", "r", "urn:r", edition, nested=True)
    wrapped = element(b'<r:x xmlns:r="urn:r">' + nested + b"</r:x>")
    assert EPR.parse(wrapped[0], edition) == reference


def test_properties_exist_in_2004_only() -> None:
    reference = EPR("urn:x", (b"<p></p>",), (b"<q></q>",))
    octets = reference.render("To", "r", "urn:r", WSA_2004)
    assert EPR.parse(element(octets), WSA_2004) == reference
    octets = reference.render("To", "r", "urn:r", WSA_1_0)
    assert EPR.parse(element(octets), WSA_1_0) == EPR("urn:x", (b"<p></p>",))


@editions
@pytest.mark.row("RE-31")
def test_action_is_required(edition: Addressing) -> None:
    subcode, nested, _ = fault_of(edition, "<a:To>urn:x</a:To>")
    required = {
        WSA_2004: "MessageInformationHeaderRequired",
        WSA_1_0: "MessageAddressingHeaderRequired",
    }
    assert subcode == required[edition]
    assert nested is None


@editions
@pytest.mark.row("RE-32")
@pytest.mark.parametrize("local", ["Action", "To", "MessageID", "RelatesTo", "ReplyTo", "FaultTo", "From"])
def test_a_doubled_header(edition: Addressing, local: str) -> None:
    value = "<a:Address>urn:x</a:Address>" if local in ("ReplyTo", "FaultTo", "From") else "urn:x"
    action = "" if local == "Action" else f"<a:Action>{ACTION}</a:Action>"
    subcode, nested, detail = fault_of(edition, action + f"<a:{local}>{value}</a:{local}>" * 2)
    if edition is WSA_1_0:
        assert (subcode, nested) == ("InvalidAddressingHeader", "InvalidCardinality")
        assert canonical(element(detail)) == detail
        assert f">a:{local}<".encode() in detail
    else:
        assert (subcode, nested) == ("InvalidMessageInformationHeader", None)


@pytest.mark.row("RE-32")
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("<a:ReplyTo/>", "MissingAddressInEPR"),
        ("<a:ReplyTo><a:Metadata/></a:ReplyTo>", "MissingAddressInEPR"),
        ("<a:ReplyTo><o:Address>urn:x</o:Address></a:ReplyTo>", "MissingAddressInEPR"),
        (
            "<a:ReplyTo><a:Address>urn:x</a:Address><a:Address>urn:y</a:Address></a:ReplyTo>",
            "MissingAddressInEPR",
        ),
        ("<a:FaultTo><a:Address>no uri</a:Address></a:FaultTo>", "InvalidAddress"),
        ("<a:FaultTo><a:Address/></a:FaultTo>", "InvalidAddress"),
        ("<a:From><a:Address>relative</a:Address></a:From>", "InvalidAddress"),
        (f"<a:ReplyTo><a:Address>urn:{'x' * 1_024}</a:Address></a:ReplyTo>", "InvalidAddress"),
        ("<a:To>two words</a:To>", "InvalidAddress"),
        ("<a:To/>", "InvalidAddress"),
        ("<a:MessageID/>", None),
        (f"<a:MessageID>urn:{'x' * 1_024}</a:MessageID>", None),
        ("<a:RelatesTo> </a:RelatesTo>", None),
    ],
)
def test_a_bad_header(content: str, problem: str | None) -> None:
    action = f"<a:Action>{ACTION}</a:Action>"
    subcode, nested, _ = fault_of(WSA_1_0, action + content)
    assert (subcode, nested) == ("InvalidAddressingHeader", problem)


@pytest.mark.row("RE-15")
@pytest.mark.parametrize("local", ["Action", "To", "MessageID", "RelatesTo"])
def test_a_comment_in_a_header(local: str) -> None:
    content = f"<a:Action>{ACTION}</a:Action>" if local != "Action" else ""
    with pytest.raises(Malformed):
        addressing.parse(blocks(WSA_1_0, content + f"<a:{local}>urn:a<!-- -->b</a:{local}>"), WSA_1_0)


@editions
@pytest.mark.row("RE-34")
def test_mixed_editions(edition: Addressing) -> None:
    other = WSA_1_0 if edition is WSA_2004 else WSA_2004
    mixed = blocks(edition, f'<a:Action>{ACTION}</a:Action><b:To xmlns:b="{other.namespace}">urn:x</b:To>')
    with pytest.raises(Malformed, match="WS-Addressing"):
        addressing.parse(mixed, edition)
    with pytest.raises(Malformed, match="mixes"):
        addressing.edition_of(mixed)
    reference = f'<a:ReplyTo><b:Address xmlns:b="{other.namespace}">urn:x</b:Address></a:ReplyTo>'
    with pytest.raises(Malformed, match="mixes"):
        addressing.parse(blocks(edition, f"<a:Action>{ACTION}</a:Action>{reference}"), edition)
    assert addressing.edition_of(mixed[:1]) is edition
    assert addressing.edition_of(blocks(edition, "<o:x/>")) is None


def test_what_is_skipped() -> None:
    content = (
        f"<a:Action> {ACTION}\n</a:Action><o:To>x</o:To><a:Unknown>x</a:Unknown>"
        '<a:RelatesTo RelationshipType="urn:another">urn:1</a:RelatesTo>'
        '<a:RelatesTo RelationshipType="http://www.w3.org/2005/08/addressing/reply">urn:2</a:RelatesTo>'
        "<a:ReplyTo>\n<a:Address>urn:x</a:Address><!-- --><a:Metadata><o:m/></a:Metadata><o:e/></a:ReplyTo>"
    )
    expected = Headers(ACTION, reply_to=EPR("urn:x"), relates_to="urn:2")
    assert addressing.parse(blocks(WSA_1_0, content), WSA_1_0) == expected
    content = f'<a:Action>{ACTION}</a:Action><a:RelatesTo RelationshipType="a:Reply">urn:3</a:RelatesTo>'
    assert addressing.parse(blocks(WSA_2004, content), WSA_2004).relates_to == "urn:3"


@pytest.mark.row("SV-26")
@editions
@pytest.mark.parametrize("unspecified", sorted(UNSPECIFIED))
def test_an_answer_to_no_message_in_particular_relates_to_nothing(
    edition: Addressing, unspecified: str
) -> None:
    """CXF's acknowledgements that ride on nothing are so (WS-Addressing 1.0 core, 3.2)."""
    content = f"<a:Action>{ACTION}</a:Action><a:RelatesTo>{unspecified}</a:RelatesTo>"
    assert addressing.parse(blocks(edition, content), edition).relates_to is None


def test_every_refusal_has_a_fault() -> None:
    for content in ("", "<a:Action/>", "<a:Action>urn:a</a:Action><a:Action>urn:b</a:Action>"):
        with pytest.raises(PeerError) as caught:
            addressing.parse(blocks(WSA_1_0, content), WSA_1_0)
        assert caught.value.fault.subcode is not None
