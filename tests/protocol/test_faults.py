"""Faults that are ready to send: code, detail, action."""

from __future__ import annotations

import pytest
from lxml import etree

from castile.protocol import faults
from castile.versions import CONVERSATION_REASONS, WSRM, WSRM_1_0, WSRM_1_1, WSSC, WSSC_1_3, WST_1_3
from tests.protocol.cases import EDITIONS, RM10, RM11, SC13


def canonical(detail: bytes) -> bytes:
    """`detail` as a parser and exclusive C14N see it, element by element."""
    root = etree.fromstring(b"<detail>" + detail + b"</detail>")
    return b"".join(etree.tostring(child, method="c14n", exclusive=True) for child in root)


@pytest.mark.row("RM-85")
@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("name", list(faults.RM_REASONS))
def test_rm_faults(edition: str, name: str) -> None:
    error = faults.rm_violation(edition, name, "a cause", identifier="urn:a?x&y=<z>", number=3)
    assert (error.exchange.sequence, error.exchange.number) == ("urn:a?x&y=<z>", 3)
    fault = error.fault
    assert fault.subcode == (edition, name)
    assert fault.reason == faults.RM_REASONS[name]
    assert fault.sequence == "urn:a?x&y=<z>"
    assert fault.action == WSRM[edition].fault_action
    assert canonical(fault.detail) == fault.detail
    (identifier,) = etree.fromstring(b"<detail>" + fault.detail + b"</detail>")
    assert identifier.tag == f"{{{edition}}}Identifier"
    assert identifier.text == "urn:a?x&y=<z>"


@pytest.mark.row("RM-91")
def test_unknown_sequence_names_it() -> None:
    error = faults.unknown_sequence(RM11, "urn:gone")
    assert error.fault.subcode == (RM11, "UnknownSequence")
    assert error.fault.code == "Sender"
    assert error.exchange.sequence == "urn:gone"


@pytest.mark.row("RM-95")
@pytest.mark.row("RM-20")
@pytest.mark.parametrize(("busy", "code"), [(False, "Sender"), (True, "Receiver")])
def test_create_sequence_refused_is_about_no_sequence(busy: bool, code: str) -> None:
    fault = faults.refuse_creation(RM10, "no token", busy=busy).fault
    assert (fault.code, fault.sequence, fault.detail) == (code, None, b"")
    assert fault.subcode == (RM10, "CreateSequenceRefused")


@pytest.mark.row("RM-94")
def test_rollover_says_the_maximum_in_1_1_only() -> None:
    tags = {
        row.name: [child.tag for child in etree.fromstring(b"<d>" + detail + b"</d>")]
        for row in (WSRM_1_0, WSRM_1_1)
        for detail in [faults.rollover_detail(row.namespace, "urn:a", 9)]
    }
    assert tags == {
        "WS-RM 1.0": [f"{{{RM10}}}Identifier"],
        "WS-RM 1.1": [f"{{{RM11}}}Identifier", f"{{{RM11}}}MaxMessageNumber"],
    }
    detail = faults.rollover_detail(RM11, "urn:a", 9)
    assert canonical(detail) == detail


@pytest.mark.row("RM-92")
@pytest.mark.parametrize(
    ("edition", "ranges", "nacks", "final", "children"),
    [
        (RM11, ((1, 2), (4, 4)), (), True, ["AcknowledgementRange", "AcknowledgementRange", "Final"]),
        (RM11, (), (), False, ["None"]),
        (RM11, (), (3, 4), False, ["Nack", "Nack"]),
        (RM10, ((1, 9),), (), False, ["AcknowledgementRange"]),
    ],
)
def test_the_refused_acknowledgement_is_the_detail(
    edition: str,
    ranges: tuple[tuple[int, int], ...],
    nacks: tuple[int, ...],
    final: bool,
    children: list[str],
) -> None:
    detail = faults.acknowledgement_element(edition, "urn:a", ranges, nacks, final)
    assert canonical(detail) == detail
    root = etree.fromstring(detail)
    assert root.tag == f"{{{edition}}}SequenceAcknowledgement"
    assert [child.tag for child in root] == [f"{{{edition}}}{name}" for name in ["Identifier", *children]]


def test_a_carriage_return_survives_canonical_text() -> None:
    detail = faults.identifier_element(RM11, "urn:a\rb")
    assert detail.endswith(b">urn:a&#xD;b</r:Identifier>")
    assert canonical(detail) == detail


@pytest.mark.row("SC-40")
@pytest.mark.parametrize("edition", list(WSSC))
@pytest.mark.parametrize("name", list(CONVERSATION_REASONS))
def test_context_faults_are_in_the_edition_of_the_context(edition: str, name: str) -> None:
    error = faults.conversation_violation(edition, name, "the cause stays here")
    assert error.fault.subcode == (edition, name)
    assert "cause" not in error.fault.reason


@pytest.mark.row("TR-60")
@pytest.mark.parametrize("name", list(faults.TRUST_REASONS))
def test_trust_faults_are_in_the_trust_namespace(name: str) -> None:
    error = faults.trust_violation(SC13, name, "the cause stays here")
    assert WSSC_1_3.namespace == SC13
    assert error.fault.subcode == (WST_1_3.namespace, name)
    assert "cause" not in error.fault.reason
