"""WS-ReliableMessaging's elements, both editions: round trips, tolerance, refusals."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castile.errors import Malformed, PeerError, Violation
from castile.messages import reliability as rm
from castile.messages.addressing import EPR
from castile.versions import (
    NETRM,
    SOAP_1_1,
    SOAP_1_2,
    WSA_1_0,
    WSA_2004,
    WSRM_1_0,
    WSRM_1_1,
    WSSE,
    Addressing,
    Reliability,
)
from castile.xml import Element, canonical, inside
from tests.messages.elements import ANONYMOUS, ID, LARGEST, Bodies, Headers, element, rm_bodies, rm_headers

EDITIONS: Final = (WSRM_1_0, WSRM_1_1)
editions = pytest.mark.parametrize("edition", EDITIONS, ids=lambda row: row.name)
HEADERS: Final = [(edition, header) for edition in EDITIONS for header in rm_headers(edition)]
BODIES: Final = [(edition, body) for edition in EDITIONS for body in rm_bodies(edition)]


def node(edition: Reliability, local: str, content: str) -> Element:
    text = (
        f'<r:{local} xmlns:r="{edition.namespace}" xmlns:a="{WSA_1_0.namespace}" xmlns:x="urn:x">'
        f"{content}</r:{local}>"
    )
    return element(text.encode())


def acknowledgement(edition: Reliability, content: str) -> rm.SequenceAcknowledgement:
    text = f"<r:Identifier>{ID}</r:Identifier>{content}"
    return rm.SequenceAcknowledgement.parse(node(edition, "SequenceAcknowledgement", text), edition)


def ranges(*pairs: tuple[object, object]) -> str:
    return "".join(f'<r:AcknowledgementRange Lower="{low}" Upper="{up}"/>' for low, up in pairs)


# --- round trips --------------------------------------------------------------------------------


@pytest.mark.row("RM-04")
@pytest.mark.row("RM-40")
@pytest.mark.parametrize(("edition", "header"), HEADERS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("soap", [SOAP_1_1, SOAP_1_2], ids=lambda row: row.name)
def test_headers(edition: Reliability, header: Headers, soap: object) -> None:
    version = SOAP_1_1 if soap is SOAP_1_1 else SOAP_1_2
    for id_ in (None, "_1"):
        octets = header.render(edition).render(version, id_)
        assert canonical(element(octets)) == octets
        assert type(header).parse(element(octets), edition) == header


@pytest.mark.row("RM-04")
@pytest.mark.parametrize(("edition", "body"), BODIES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("addressing", [WSA_2004, WSA_1_0], ids=lambda row: row.name)
def test_bodies(edition: Reliability, body: Bodies, addressing: Addressing) -> None:
    octets = body.render(edition, addressing)
    assert canonical(element(octets)) == octets
    assert type(body).parse(element(octets), edition, addressing) == body


@pytest.mark.row("RM-49")
@editions
def test_who_must_be_understood(edition: Reliability) -> None:
    must = {type(header).__name__: header.render(edition).must_understand for header in rm_headers(edition)}
    assert must["Sequence"]
    assert must.get("UsesSequenceSTR", True)
    assert not must["SequenceAcknowledgement"]
    assert not must["AckRequested"]


@pytest.mark.row("RM-41")
def test_nothing_received() -> None:
    nothing = rm.SequenceAcknowledgement(ID, none=True)
    assert b"<r:None></r:None>" in nothing.render(WSRM_1_1).content
    assert b'Lower="0" Upper="0"' in nothing.render(WSRM_1_0).content
    for edition in EDITIONS:
        assert acknowledgement(edition, "<r:None/>") == nothing
        assert acknowledgement(edition, ranges((0, 0))) == nothing


def test_an_edition_writes_only_what_it_has() -> None:
    offer = rm.Offer(ID, ANONYMOUS, None, "NoDiscard")
    octets = rm.CreateSequence(ANONYMOUS, None, offer).render(WSRM_1_0, WSA_1_0)
    assert b"Endpoint" not in octets
    assert b"Incomplete" not in octets
    assert b"Incomplete" not in rm.CreateSequenceResponse(ID, None, "NoDiscard").render(WSRM_1_0, WSA_1_0)
    assert b"Last" not in rm.TerminateSequence(ID, 3).render(WSRM_1_0, WSA_1_0)
    assert b"Final" not in rm.SequenceAcknowledgement(ID, ((1, 2),), final=True).render(WSRM_1_0).content


# --- tolerance ----------------------------------------------------------------------------------


@pytest.mark.row("RM-05")
@editions
def test_departures_that_are_read(edition: Reliability) -> None:
    expected = rm.SequenceAcknowledgement(ID, ((1, 3),), final=True, buffer_remaining=8)
    buffer = f'<n:BufferRemaining xmlns:n="{NETRM}">8</n:BufferRemaining>'
    assert acknowledgement(edition, f"<r:Final/>{ranges((1, 3))}{buffer}") == expected
    assert acknowledgement(edition, f"{ranges((1, 3))}<r:Final/><x:more/>{buffer}") == expected
    assert acknowledgement(edition, f"{ranges((1, 3))}<r:None/><r:Final/>{buffer}") == expected
    for hint in ("MaxMessageNumberUsed", "MessageNumber"):
        content = f"<r:Identifier>{ID}</r:Identifier><r:{hint}>7</r:{hint}>"
        assert rm.AckRequested.parse(node(edition, "AckRequested", content), edition).identifier == ID


@pytest.mark.row("RM-05")
def test_an_endpoint_in_an_offer_of_1_0() -> None:
    content = (
        "<r:AcksTo><a:Address>urn:a</a:Address></r:AcksTo>"
        f"<r:Offer><r:Identifier>{ID}</r:Identifier><r:Endpoint><a:Address/></r:Endpoint></r:Offer>"
    )
    found = rm.CreateSequence.parse(node(WSRM_1_0, "CreateSequence", content), WSRM_1_0, WSA_1_0)
    assert found == rm.CreateSequence(EPR("urn:a"), None, rm.Offer(ID, None))


@pytest.mark.row("RM-04")
@editions
def test_extensions_are_skipped(edition: Reliability) -> None:
    content = f"<r:Identifier x:a='1'>\n {ID} </r:Identifier><r:MessageNumber> 007\n</r:MessageNumber><x:y/>"
    assert rm.Sequence.parse(node(edition, "Sequence", content), edition) == rm.Sequence(ID, 7)
    content = "<r:AcksTo><a:Address>urn:a</a:Address><x:y/></r:AcksTo><x:z/><!-- -->"
    found = rm.CreateSequence.parse(node(edition, "CreateSequence", content), edition, WSA_1_0)
    assert found == rm.CreateSequence(EPR("urn:a"))


@pytest.mark.parametrize("text", ["4097", "-1", "x", "", "99999999999", "1.0"])
def test_a_buffer_hint_that_is_none(text: str) -> None:
    buffer = f'<n:BufferRemaining xmlns:n="{NETRM}">{text}</n:BufferRemaining>'
    assert acknowledgement(WSRM_1_1, ranges((1, 1)) + buffer).buffer_remaining is None


@pytest.mark.row("RM-40")
def test_ranges_are_read_in_any_order() -> None:
    assert acknowledgement(WSRM_1_1, ranges((5, 6), (1, 2), (3, 3))).ranges == ((1, 2), (3, 3), (5, 6))


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.row("RE-81")
@editions
@pytest.mark.parametrize("number", ["0", "000", "-1", "", " ", "x", "1.0", "1e3", "0x1", "١", str(1 << 64)])
def test_a_message_number_that_is_none(edition: Reliability, number: str) -> None:
    content = f"<r:Identifier>{ID}</r:Identifier><r:MessageNumber>{number}</r:MessageNumber>"
    with pytest.raises(Malformed, match="MessageNumber") as caught:
        rm.Sequence.parse(node(edition, "Sequence", content), edition)
    assert caught.value.fault.code == "Sender"


@pytest.mark.row("RE-81")
@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), (" 0012\t", 12), ("+5", 5), (str(LARGEST), LARGEST), (str(LARGEST + 1), LARGEST + 1)],
)
def test_a_message_number(text: str, number: int) -> None:
    """One above the maximum is a number: the machine answers it with MessageNumberRollover."""
    content = f"<r:Identifier>{ID}</r:Identifier><r:MessageNumber>{text}</r:MessageNumber>"
    assert rm.Sequence.parse(node(WSRM_1_1, "Sequence", content), WSRM_1_1).number == number


def test_ten_thousand_digits_are_refused_at_once() -> None:
    content = f"<r:Identifier>{ID}</r:Identifier><r:MessageNumber>{'9' * 10_000}</r:MessageNumber>"
    with pytest.raises(Malformed, match="above"):
        rm.Sequence.parse(node(WSRM_1_1, "Sequence", content), WSRM_1_1)


@pytest.mark.row("RM-06")
@pytest.mark.parametrize("identifier", ["", " ", "no-scheme", "two words:x", "urn:a b", "urn:" + "x" * 1_024])
def test_identifiers(identifier: str) -> None:
    content = f"<r:Identifier>{identifier}</r:Identifier>"
    with pytest.raises(Malformed, match="Identifier"):
        rm.AckRequested.parse(node(WSRM_1_1, "AckRequested", content), WSRM_1_1)


@pytest.mark.row("RM-40")
@editions
@pytest.mark.parametrize(
    "content",
    [
        "<r:Nack>2</r:Nack>" + ranges((1, 1)),
        "<r:Nack>2</r:Nack><r:None/>",
        "<r:Nack>2</r:Nack><r:Final/>",
        ranges((0, 0), (1, 1)),
        "<r:Nack>2</r:Nack>" + ranges((0, 0)),
    ],
)
def test_combinations_that_are_forbidden(edition: Reliability, content: str) -> None:
    with pytest.raises(Violation) as caught:
        acknowledgement(edition, content)
    assert caught.value.fault.subcode == (edition.namespace, "InvalidAcknowledgement")


@pytest.mark.row("RM-48")
@pytest.mark.row("RE-85")
@editions
@pytest.mark.parametrize(
    "pairs",
    [
        [(0, 1)],
        [(0, 5), (7, 8)],
        [(2, 1)],
        [(1, 3), (3, 4)],
        [(1, 3), (2, 2)],
        [(1, 1), (1, 1)],
        [(5, 9), (1, 5)],
        [(1, LARGEST), (LARGEST, LARGEST)],
    ],
)
def test_ranges_that_are_none(edition: Reliability, pairs: list[tuple[int, int]]) -> None:
    with pytest.raises(Violation) as caught:
        acknowledgement(edition, ranges(*pairs))
    fault = caught.value.fault
    assert fault.subcode == (edition.namespace, "InvalidAcknowledgement")
    assert fault.action == edition.fault_action
    assert canonical(element(fault.detail)) == fault.detail
    assert b"SequenceAcknowledgement" in fault.detail


@pytest.mark.row("RM-47")
@pytest.mark.parametrize(
    "content",
    [
        ranges(*((2 * n, 2 * n) for n in range(1, 130))),
        "".join(f"<r:Nack>{n}</r:Nack>" for n in range(1, 130)),
    ],
)
def test_more_than_128(content: str) -> None:
    with pytest.raises(Malformed, match="128"):
        acknowledgement(WSRM_1_1, content)


@editions
@pytest.mark.parametrize(
    "content",
    [
        "",
        "<r:Final/>",
        "<r:AcknowledgementRange/>",
        '<r:AcknowledgementRange Lower="1"/>',
        '<r:AcknowledgementRange Lower="a" Upper="2"/>',
        '<r:AcknowledgementRange Lower="1" Upper="2"><r:x/></r:AcknowledgementRange>',
        '<r:AcknowledgementRange Lower="1" Upper="2">3</r:AcknowledgementRange>',
        ranges((1, 1)) + "<r:Unknown/>",
        f"<r:Identifier>{ID}</r:Identifier>" + ranges((1, 1)),
        ranges((1, 1)) + "<r:Final/><r:Final/>",
        "<r:None/><r:None/>",
        "<r:Nack>0</r:Nack>",
        "<r:Nack>x</r:Nack>",
    ],
)
def test_acknowledgements_that_break_the_schema(edition: Reliability, content: str) -> None:
    with pytest.raises(Malformed):
        acknowledgement(edition, content)


TO: Final = "<r:AcksTo><a:Address>urn:a</a:Address></r:AcksTo>"
IDENTIFIER: Final = f"<r:Identifier>{ID}</r:Identifier>"
BROKEN: Final = {
    "Sequence": ["", IDENTIFIER, "<r:MessageNumber>1</r:MessageNumber>", IDENTIFIER * 2],
    "AckRequested": ["", IDENTIFIER * 2, IDENTIFIER + "<r:Other/>"],
    "CreateSequence": [
        "",
        TO * 2,
        TO + "<r:Expires>soon</r:Expires>",
        TO + "<r:Expires>PT1H</r:Expires>" * 2,
        TO + "<r:Offer/>",
        TO + "<r:Identifier>urn:x</r:Identifier>",
        TO + f'<o:SecurityTokenReference xmlns:o="{WSSE}"/>' * 2,
    ],
    "CreateSequenceResponse": [
        "",
        IDENTIFIER + "<r:Accept/>",
        IDENTIFIER + f"<r:Accept>{TO}{TO}</r:Accept>",
        IDENTIFIER + "<r:IncompleteSequenceBehavior>Maybe</r:IncompleteSequenceBehavior>",
    ],
    "CloseSequence": ["", IDENTIFIER + "<r:LastMsgNumber>0</r:LastMsgNumber>"],
    "CloseSequenceResponse": ["", IDENTIFIER + "<r:LastMsgNumber>1</r:LastMsgNumber>"],
    "TerminateSequence": ["", IDENTIFIER + "<r:LastMsgNumber>x</r:LastMsgNumber>"],
    "TerminateSequenceResponse": ["", IDENTIFIER * 2],
}


@editions
@pytest.mark.parametrize(("local", "content"), [(name, text) for name, of in BROKEN.items() for text in of])
def test_elements_that_break_the_schema(edition: Reliability, local: str, content: str) -> None:
    kind = getattr(rm, local)
    arguments = (edition,) if local in ("Sequence", "AckRequested") else (edition, WSA_1_0)
    with pytest.raises(PeerError):
        kind.parse(node(edition, local, content), *arguments)


@editions
def test_an_element_of_another_name_or_edition(edition: Reliability) -> None:
    other = WSRM_1_0 if edition is WSRM_1_1 else WSRM_1_1
    with pytest.raises(Malformed):
        rm.AckRequested.parse(node(edition, "Sequence", IDENTIFIER), edition)
    with pytest.raises(Malformed):
        rm.AckRequested.parse(node(other, "AckRequested", IDENTIFIER), edition)
    mixed = f'<b:Identifier xmlns:b="{other.namespace}">{ID}</b:Identifier>'
    with pytest.raises(Malformed, match="mixes"):
        rm.AckRequested.parse(node(edition, "AckRequested", IDENTIFIER + mixed), edition)


def test_what_1_0_does_not_have() -> None:
    for name in ("CloseSequence", "CloseSequenceResponse", "TerminateSequenceResponse"):
        with pytest.raises(Malformed, match="has no"):
            getattr(rm, name).parse(node(WSRM_1_0, name, IDENTIFIER), WSRM_1_0, WSA_1_0)
    with pytest.raises(Malformed):
        rm.UsesSequenceSTR.parse(node(WSRM_1_0, "UsesSequenceSTR", ""), WSRM_1_0)
    content = f"{TO}<r:Offer>{IDENTIFIER}</r:Offer>"
    with pytest.raises(Malformed, match="Endpoint"):
        rm.CreateSequence.parse(node(WSRM_1_1, "CreateSequence", content), WSRM_1_1, WSA_1_0)


@pytest.mark.row("RM-03")
def test_an_endpoint_reference_of_another_addressing() -> None:
    with pytest.raises(Malformed, match="mixes"):
        rm.CreateSequence.parse(node(WSRM_1_0, "CreateSequence", TO), WSRM_1_0, WSA_2004)


# --- the headers of a message -------------------------------------------------------------------


def test_the_headers_together() -> None:
    written = [header.render(WSRM_1_1).render(SOAP_1_2, None) for header in rm_headers(WSRM_1_1)]
    chosen = [written[0], written[3], written[4], written[7], written[-1], b'<x xmlns="urn:x"></x>']
    found = rm.parse_headers([element(octets) for octets in chosen], WSRM_1_1)
    assert found.sequence == rm.Sequence(ID, 1)
    assert [item.identifier for item in found.acknowledgements] == [ID, "urn:x:<&>\"'?a=1&b=2"]
    assert found.ack_requested == (rm.AckRequested(ID),)
    assert found.uses_sequence_str
    assert rm.parse_headers([element(b"<x/>")], WSRM_1_1) == rm.RMHeaders()


@pytest.mark.row("RE-89")
@pytest.mark.row("RM-40")
@editions
def test_headers_that_may_stand_once(edition: Reliability) -> None:
    sequence = node(edition, "Sequence", IDENTIFIER + "<r:MessageNumber>1</r:MessageNumber>")
    ack = node(edition, "SequenceAcknowledgement", IDENTIFIER + ranges((1, 1)))
    asked = node(edition, "AckRequested", IDENTIFIER)
    for header in (sequence, ack, asked):
        with pytest.raises(Malformed):
            rm.parse_headers([header, header], edition)
    other = WSRM_1_0 if edition is WSRM_1_1 else WSRM_1_1
    with pytest.raises(Malformed, match="mixes"):
        rm.parse_headers([sequence, node(other, "AckRequested", IDENTIFIER)], edition)


# --- durations ----------------------------------------------------------------------------------


@pytest.mark.row("RM-11")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT0S", 0),
        ("PT10M", 600),
        ("PT00H10M00S", 600),
        ("P1D", 86_400),
        ("P1DT1H1M1.5S", 90_061.5),
        ("-PT1S", -1),
        ("P2Y", 63_113_904),
        ("PT36000000S", 36_000_000),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert rm.duration_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "1H", "PT1", "P1H", "PT1H1H", "P-1D", "PT1.S", "PT9999999999S"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(Malformed):
        rm.duration_seconds(text)


# --- properties ---------------------------------------------------------------------------------


@given(st.sets(st.integers(1, 60), min_size=1), st.booleans(), st.randoms(use_true_random=False))
def test_any_set_of_numbers_reads_back(numbers: set[int], final: bool, chance: object) -> None:
    pairs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if pairs and pairs[-1][1] == number - 1:
            pairs[-1] = (pairs[-1][0], number)
        else:
            pairs.append((number, number))
    header = rm.SequenceAcknowledgement(ID, tuple(pairs), final=final)
    octets = header.render(WSRM_1_1).render(SOAP_1_2, None)
    assert rm.SequenceAcknowledgement.parse(element(octets), WSRM_1_1) == header
    children = inside(element(octets))
    assert len(children) == 1 + len(pairs) + final


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=6))
def test_only_sound_ranges_are_read(pairs: list[tuple[int, int]]) -> None:
    numbers = [n for low, up in pairs for n in range(low, up + 1)]
    sound = all(0 < low <= up for low, up in pairs) and len(numbers) == len(set(numbers))
    try:
        found = acknowledgement(WSRM_1_1, ranges(*pairs))
    except Violation:
        assert not sound
        assert pairs != [(0, 0)]
    else:
        assert sound or pairs == [(0, 0)]
        assert sorted(numbers) == (
            [0] if found.none else [n for a, b in found.ranges for n in range(a, b + 1)]
        )
