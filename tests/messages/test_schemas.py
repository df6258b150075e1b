"""What we write is valid against the specifications' own schemas."""

from __future__ import annotations

import pytest

from castile.errors import SOAPFault
from castile.messages import addressing, soap
from castile.messages.addressing import EPR, Headers
from castile.messages.reliability import SequenceFault, UsesSequenceSTR
from castile.messages.soap import Message
from castile.versions import (
    NETRM,
    SOAP_1_1,
    SOAP_1_2,
    TRUST_OF,
    WSA_1_0,
    WSA_2004,
    WSRM_1_0,
    WSRM_1_1,
    WSSC_1_3,
    WSSE,
    WST_1_3,
    Addressing,
    Reliability,
    SOAPVersion,
)
from tests.messages.elements import ID, element, requests, responses, rm_bodies, rm_headers
from tests.messages.schemas import schema, valid


@pytest.mark.row("RM-04")
@pytest.mark.parametrize("edition", [WSRM_1_0, WSRM_1_1], ids=lambda row: row.name)
def test_reliability(edition: Reliability) -> None:
    for header in rm_headers(edition):
        # UsesSequenceSTR is declared in no schema file; the Detail of 1.1 takes foreign elements
        # only, though the specification puts its own Identifier there (WS-RM 1.2, 4.1).
        told = isinstance(header, SequenceFault) and header.detail and edition.can_close
        if not isinstance(header, UsesSequenceSTR) and not told:
            valid(header.render(edition).render(SOAP_1_2, None))
    for body in rm_bodies(edition):
        valid(body.render(edition, WSA_1_0))


@pytest.mark.row("RM-04")
def test_reliability_1_0_with_addressing_of_2004() -> None:
    for body in rm_bodies(WSRM_1_0):
        valid(body.render(WSRM_1_0, WSA_2004), WSA_2004.namespace)


@pytest.mark.parametrize("edition", [WSA_2004, WSA_1_0], ids=lambda row: row.name)
@pytest.mark.parametrize("version", [SOAP_1_1, SOAP_1_2], ids=lambda row: row.name)
def test_whole_envelopes(edition: Addressing, version: SOAPVersion) -> None:
    headers = Headers(
        "urn:x", "urn:to", ID, EPR(edition.anonymous, (b"<p></p>",)), EPR("urn:f"), EPR("urn:g"), ID
    )
    blocks = addressing.render(headers, edition)
    for rm in (WSRM_1_0, WSRM_1_1):
        if edition is WSA_2004 and rm is WSRM_1_1:
            continue
        for body in rm_bodies(rm):
            message = Message(version, (rm_headers(rm)[0].render(rm), *blocks), body.render(rm, edition))
            valid(soap.render(message), edition.namespace)
    valid(soap.render(Message(version, blocks)), edition.namespace)


@pytest.mark.parametrize("version", [SOAP_1_1, SOAP_1_2], ids=lambda row: row.name)
def test_faults(version: SOAPVersion) -> None:
    for fault in (
        SOAPFault("Sender", "why & <how>"),
        SOAPFault("Receiver", "later", (WSRM_1_1.namespace, "CreateSequenceRefused"), nested=(NETRM, "X")),
        SOAPFault("Sender", "no", (WSSE, "InvalidSecurity"), b"<d></d>"),
        SOAPFault("Sender", "gone", (WSRM_1_1.namespace, "UnknownSequence"), sequence=ID),
        SOAPFault("MustUnderstand", "what?"),
    ):
        valid(soap.render(Message(version, (), soap.render_fault(fault, version))))


def test_trust() -> None:
    assert TRUST_OF[WSSC_1_3.namespace] is WST_1_3
    for request in requests(WSSC_1_3):
        valid(request.render(WST_1_3))
    for response in responses(WSSC_1_3):
        valid(response.render(WST_1_3))


def test_the_check_finds_faults() -> None:
    for text in (
        f'<r:Sequence xmlns:r="{WSRM_1_1.namespace}"><r:Identifier>urn:x</r:Identifier></r:Sequence>',
        f'<s:Envelope xmlns:s="{SOAP_1_2.namespace}"><s:Header/></s:Envelope>',
        f'<t:RequestSecurityTokenResponseCollection xmlns:t="{WST_1_3.namespace}"/>',
    ):
        assert not schema().validate(element(text.encode()))
