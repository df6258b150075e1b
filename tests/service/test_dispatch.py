"""SV-05: wsa:Action, HTTP's label and the Body must be of one operation. SV-13, SV-15: plain HTTP."""

from __future__ import annotations

from itertools import product

import pytest

import castile
from castile.transport.asgi import Arrival
from castile.versions import SOAPVersion
from tests.service.plain import SOAP_1_1, SOAP_1_2, Answer, bank, served
from tests.typed.contracts import BODIES, FOLDER

NOBODY = '<Nobody xmlns="urn:bank"/>'
LABELS = {"Transfer": "urn:bank/Transfer", "Statement": "urn:bank/Statement", "unknown": "urn:x", "": None}
CONTENT = {"Transfer": BODIES["Transfer"], "Statement": BODIES["Statement"], "unknown": NOBODY, "": ""}


@pytest.mark.row("SV-05")
def test_the_cross_product() -> None:
    """Each of wsa:Action, label and Body: of one operation, of another, of none, left out."""
    ran: list[str] = []
    service = bank()
    service.before(lambda call: ran.append(call.operation))
    with served(service) as app:
        for soap, action, label, body in product((SOAP_1_1, SOAP_1_2), LABELS, LABELS, CONTENT):
            ran.clear()
            got = app.ask(CONTENT[body], soap=soap, label=LABELS[label], action=LABELS[action])
            agree = body in ("Transfer", "Statement") and {action, label} <= {body, ""}
            case = (soap.name, action, label, body)
            assert (got.status, ran) == ((200, [body]) if agree else (500, [])), case


@pytest.mark.row("SV-05")
def test_two_bodies() -> None:
    with served(bank()) as app:
        for action in (None, "urn:bank/Transfer"):
            got = app.ask(BODIES["Transfer"] + BODIES["Statement"], action=action)
            assert (got.status, got.code) == (500, "Sender")


@pytest.mark.row("SV-15")
@pytest.mark.parametrize("soap", [SOAP_1_1, SOAP_1_2], ids=lambda row: row.name)
@pytest.mark.parametrize(
    "namespace",
    [
        "urn:x",
        "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd",
        "http://docs.oasis-open.org/ws-rx/wsrm/200702",
        "http://docs.oasis-open.org/ws-rx/wsmc/200702",
    ],
)
def test_headers_that_must_be_understood(soap: SOAPVersion, namespace: str) -> None:
    ran: list[str] = []
    service = bank()
    service.before(lambda call: ran.append(call.operation))
    with served(service) as app:
        local = "Security" if "secext" in namespace else "Sequence"
        header = f'<h:{local} xmlns:h="{namespace}" xmlns:s="{soap.namespace}" s:mustUnderstand="1"/>'
        got = app.ask(BODIES["Ping"], soap=soap, headers=header)
        assert (got.status, got.code, ran) == (500, "MustUnderstand", [])
        blocks = [(block.tag, block.get("qname", "")) for block in got.headers]
        if soap is SOAP_1_2:
            [(tag, name)] = blocks
            assert tag == f"{{{soap.namespace}}}NotUnderstood"
            prefix, _, found = name.partition(":")
            assert (got.headers[0].nsmap[prefix], found) == (namespace, local)
        else:
            assert blocks == []


@pytest.mark.row("SV-15")
def test_a_header_that_needn_t_be_understood() -> None:
    with served(bank()) as app:
        assert app.ask(BODIES["Ping"], headers='<h:x xmlns:h="urn:x"/>').status == 200


@pytest.mark.row("SV-12")
def test_ports_at_paths_of_their_own() -> None:
    service = castile.Service(FOLDER / "paths.wsdl", partial=True)
    service.operation(name="Note")(lambda text: None)
    note = BODIES["Note"]
    with served(service) as app:
        assert app.ask(note, path="/new").status == 202
        assert app.ask(note, path="/old", soap=SOAP_1_1).status == 202
        assert app.ask(note, path="/elsewhere").status == 404
        refused = app.ask(note, path="/new", soap=SOAP_1_1)
        assert refused.status == 500
        assert b"VersionMismatch" in refused.payload


@pytest.mark.row("SV-12")
def test_ports_are_offered_by_name() -> None:
    policies = {"Soap12": castile.EndpointPolicy.of(secure=False, reliable=False)}
    with served(bank(policy=policies)) as app:
        assert app.ask(BODIES["Ping"], action="urn:bank:Bank:PingRequest").status == 200
        assert app.ask(BODIES["Ping"]).status == 500
        assert app.ask(BODIES["Ping"], soap=SOAP_1_1, action="urn:bank:Bank:PingRequest").status == 500
    with pytest.raises(castile.UsageError, match="no port 'Soap13'; it has: Soap11, Soap12"):
        bank(policy={"Soap13": policies["Soap12"]})


@pytest.mark.row("SV-13")
@pytest.mark.parametrize("soap", [SOAP_1_1, SOAP_1_2], ids=lambda row: row.name)
@pytest.mark.parametrize("payload", [b"", b"<x", b"<x/>", b"<!DOCTYPE x><x/>"])
def test_what_can_t_be_read_is_answered_as_it_was_labelled(soap: SOAPVersion, payload: bytes) -> None:
    with served(bank()) as app:
        got = app.loop.run(app.service.receive(payload, Arrival("/bank", soap.content_type)))
        answer = Answer(got.status, got.body, soap)
        assert (answer.status, answer.headers) == (500, [])
        assert answer.code in ("Client", "Sender", "VersionMismatch")
        assert got.content_type == f"{soap.content_type}; charset=utf-8"
