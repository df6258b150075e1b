"""Every edition beside every other: SOAP 1.1, WS-Addressing 2004/08, mixed families, and
services that take several at one address (features F31, RM-02, RM-03, RM-85, RE-12, SC-21)."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest

import castile
from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Outgoing, fault_message, prepare
from castile.errors import Malformed, SOAPFault
from castile.messages import reliability, soap
from castile.messages.addressing import Headers, render
from castile.messages.soap import Header, Message
from castile.protocol.conversation import Conversation as Established
from castile.protocol.faults import RM_REASONS, rm_violation
from castile.store import Transaction
from castile.store.records import DestinationRecord
from castile.transport.asgi import Arrival, HTTPAnswer
from castile.versions import (
    FAMILIES,
    SOAP_1_1,
    SOAP_1_2,
    TRUST_OF,
    WSA_1_0,
    WSA_2004,
    WSRM_1_0,
    WSRM_1_1,
    WSSC_1_3,
    WSSC_2005,
    Addressing,
    Conversation,
    Reliability,
    SOAPVersion,
)
from castile.waiting import blocking
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import ADDRESS, BODY, Pair, body, fast, fault_of, opened, states, until

Policy = castile.EndpointPolicy
ECHO: Final = "urn:test/Echo"
SOAPS: Final = (SOAP_1_1, SOAP_1_2)
RMS: Final = (WSRM_1_0, WSRM_1_1)
SCS: Final = (WSSC_2005, WSSC_1_3)


def policy(
    version: SOAPVersion = SOAP_1_2,
    wsa: Addressing = WSA_1_0,
    rm: Reliability | None = WSRM_1_1,
    sc: Conversation | None = WSSC_1_3,
) -> Policy:
    """Each specification's edition chosen on its own."""
    family = "1.3" if sc is WSSC_1_3 else "2005"
    return Policy.of(family, soap=version, addressing=wsa, secure=sc is not None, reliability=rm)


ALL: Final = [
    policy(version, wsa, rm, sc)
    for version, wsa, rm, sc in itertools.product(SOAPS, (WSA_1_0, WSA_2004), RMS, (*SCS, None))
    if rm is WSRM_1_0 or wsa is WSA_1_0
]
every = pytest.mark.parametrize("chosen", ALL, ids=lambda chosen: chosen.dialect)


@pytest.mark.row("RM-02", "RM-03", "CL-43", "F31")
@every
def test_the_whole_flow(pairs: Pairs, chosen: Policy) -> None:
    pair = pairs(chosen)
    with pair.client() as client:
        assert client.call_raw(ECHO, body(1)) == body(1)
        client.send_raw("urn:test/Tell", body(2))
        assert client.sequence.wait_until_acknowledged(10)
        with pytest.raises(castile.FaultReceived) as told:
            client.call_raw("urn:test/Nobody", body(3))
    assert told.value.fault.subcode == (chosen.addressing.namespace, "ActionNotSupported")
    assert pair.bodies == [body(1), body(2)]
    for exchange in pair.network.log:
        for payload in filter(None, (exchange.request, exchange.response)):
            _spoken(payload, chosen)


def _spoken(payload: bytes, chosen: Policy) -> None:
    """Only the editions of the policy are on the wire."""
    assert f'"{chosen.soap.namespace}"'.encode() in payload
    other = WSA_2004 if chosen.addressing is WSA_1_0 else WSA_1_0
    assert other.namespace.encode() not in payload
    for row in RMS:
        if row is not chosen.reliability:
            assert row.namespace.encode() not in payload
    for sc in SCS:
        if sc is not chosen.conversation:
            assert sc.namespace.encode() not in payload


@pytest.mark.row("RM-03")
def test_rm_1_1_wants_addressing_1_0() -> None:
    with pytest.raises(castile.PolicyError, match=r"WS-RM 1\.1"):
        policy(SOAP_1_2, WSA_2004, WSRM_1_1)


# ---------------------------------------------------------------- faults of RM in both SOAPs

FAULTS: Final = [(row, name) for row in RMS for name in RM_REASONS]


def _fault(row: Reliability, name: str) -> SOAPFault:
    about = name not in ("CreateSequenceRefused", "WSRMRequired")
    detail = None
    if name == "InvalidAcknowledgement":
        header = reliability.SequenceAcknowledgement("urn:a", ((1, 2),)).render(row)
        detail = header.render(SOAP_1_2)
    return rm_violation(row.namespace, name, "-", identifier="urn:a" if about else None, detail=detail).fault


@pytest.mark.row("RM-85", "RM-02")
@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("version", SOAPS, ids=lambda row: row.name)
@pytest.mark.parametrize(("row", "name"), FAULTS, ids=lambda value: getattr(value, "name", value))
def test_rm_faults_round_trip(
    both_sides: dict[Policy, tuple[Pair, castile.Client]],
    row: Reliability,
    name: str,
    version: SOAPVersion,
    secure: bool,
) -> None:
    chosen = policy(version, rm=row, sc=WSSC_1_3 if secure else None)
    pair, client = both_sides[chosen]
    fault = _fault(row, name)
    party = pair.party
    record = client._store.run(lambda tx: tx.contexts(side="client", endpoint=client._party.realm)).result()
    key = party.keyring.context(record[0].state.identifier, None) if secure else None
    message = fault_message(party, fault, relates_to="urn:uuid:1", key=key)
    payload = prepare(party, message, party.now()).payload
    read = opened(client, payload)
    assert read.kind is Kind.FAULT
    assert isinstance(read.body, SOAPFault)
    assert read.addressing.action == (row.fault_action or WSA_1_0.soap_fault_action)
    assert (read.body.subcode, read.body.reason) == (fault.subcode, fault.reason)
    assert read.body.sequence == fault.sequence
    assert read.body.detail == fault.detail
    header = b":SequenceFault" in payload
    assert header == (version is SOAP_1_1 and fault.sequence is not None)
    if version is SOAP_1_1 and not secure:
        code = re.search(rb"<faultcode>(.*)</faultcode>", payload)
        assert code is not None
        assert code[1] == (b"s:Client" if header else f"wsrm:{name}".encode())


@pytest.fixture(scope="module")
def both_sides() -> object:
    """A pair with an open client per policy, made on demand."""
    made: dict[Policy, tuple[Pair, castile.Client]] = {}

    class OnDemand(dict[Policy, tuple[Pair, castile.Client]]):
        def __missing__(self, chosen: Policy) -> tuple[Pair, castile.Client]:
            pair = Pair(chosen)
            client = pair.client()
            client.call_raw(ECHO, BODY)
            self[chosen] = made[chosen] = pair, client
            return self[chosen]

    yield OnDemand()
    for pair, _ in made.values():
        pair.close()


def _plain(version: SOAPVersion, content: bytes, headers: tuple[Header, ...] = (), action: str = "") -> bytes:
    blocks = render(Headers(action or WSA_1_0.soap_fault_action), WSA_1_0)
    return soap.render(Message(version, headers + blocks, content))


@pytest.mark.row("RM-85")
@pytest.mark.parametrize("row", RMS, ids=lambda row: row.name)
def test_faults_as_others_write_them_in_soap_1_1(pairs: Pairs, row: Reliability) -> None:
    """Metro: the RM code in the Body as well. CXF, Sandesha2: the header with every RM fault."""
    client = pairs(policy(SOAP_1_1, rm=row, sc=None)).client()
    action = row.fault_action or WSA_1_0.soap_fault_action
    header = reliability.SequenceFault.of(_fault(row, "UnknownSequence"))
    assert header is not None

    def read(code: str, block: reliability.SequenceFault | None) -> SOAPFault:
        text = (
            f'<s:Fault xmlns:s="{SOAP_1_1.namespace}" xmlns:r="{row.namespace}"><faultcode>{code}</faultcode>'
            "<faultstring>no</faultstring></s:Fault>"
        )
        blocks = (block.render(row),) if block else ()
        found = opened(client, _plain(SOAP_1_1, text.encode(), blocks, action)).body
        assert isinstance(found, SOAPFault)
        return found

    unknown = (row.namespace, "UnknownSequence")
    assert read("r:UnknownSequence", header).subcode == unknown
    assert read("r:UnknownSequence", header).sequence == "urn:a"
    assert read("s:Client", header).subcode == unknown
    assert read("s:Server", replace(header, code="SequenceTerminated")).code == "Receiver"
    refused = reliability.SequenceFault("CreateSequenceRefused")
    assert read("s:Client", refused).subcode == (row.namespace, "CreateSequenceRefused")
    assert read("r:CreateSequenceRefused", None).subcode == (row.namespace, "CreateSequenceRefused")
    with pytest.raises(Malformed, match="another fault"):
        read("r:SequenceTerminated", header)


@pytest.mark.row("RM-85")
def test_soap_1_2_has_no_sequence_fault(pairs: Pairs) -> None:
    client = pairs(policy(sc=None)).client()
    fault = SOAPFault("Sender", "no")
    header = reliability.SequenceFault("SequenceTerminated").render(WSRM_1_1)
    payload = _plain(SOAP_1_2, soap.render_fault(fault, SOAP_1_2), (header,))
    assert opened(client, payload).body == fault


def _save(record: DestinationRecord, tx: Transaction) -> None:
    tx.save_destination(record)


@pytest.mark.row("RM-85", "RM-91")
@pytest.mark.parametrize("row", RMS, ids=lambda row: row.name)
@pytest.mark.parametrize("secure", [True, False])
def test_a_client_hears_of_its_sequence_in_soap_1_1(pairs: Pairs, row: Reliability, secure: bool) -> None:
    """The service forgot the sequence: the client's fails, by the name in the header."""
    pair = pairs(policy(SOAP_1_1, rm=row, sc=WSSC_1_3 if secure else None))
    client = pair.client()
    client.call_raw(ECHO, body(1))
    store = pair.service.store
    for record in store.run(lambda tx: tx.destinations(side="service")).result():
        gone = replace(record, state=replace(record.state, dialect="of another edition"))
        store.run(partial(_save, gone)).result()
    with pytest.raises(castile.InDoubt, match="not a known"):
        client.call_raw(ECHO, body(2))
    assert b":SequenceFault" in pair.network.log[-1].response
    assert client.sequence.report()["state"] == "failed"


# ---------------------------------------------------------------- services of several editions


@pytest.fixture(scope="module")
def polyglot() -> object:
    pair = Pair(castile.EndpointPolicy.of("1.3"), policies=ALL)
    yield pair
    pair.close()


@pytest.mark.row("F31")
@every
def test_one_service_speaks_every_edition(polyglot: Pair, chosen: Policy) -> None:
    before = len(polyglot.received)
    with polyglot.client(policy=chosen) as client:
        assert client.call_raw(ECHO, body(1)) == body(1)
        with pytest.raises(castile.FaultReceived) as told:
            client.call_raw("urn:test/Nobody", body(3))
        assert client.call_raw(ECHO, body(2)) == body(2)
    assert told.value.fault.subcode == (chosen.addressing.namespace, "ActionNotSupported")
    assert polyglot.bodies[before:] == [body(1), body(2)]
    assert client._closed


@pytest.mark.row("F31", "RM-97")
@pytest.mark.parametrize("offered", SCS, ids=lambda row: row.name)
@pytest.mark.parametrize("bootstrap", ["username", "anonymous"])
def test_an_edition_of_tokens_that_is_off(pairs: Pairs, offered: Conversation, bootstrap: str) -> None:
    other = WSSC_2005 if offered is WSSC_1_3 else WSSC_1_3
    family = {WSSC_2005: "2005", WSSC_1_3: "1.3"}
    service = replace(Policy.of(family[offered], bootstrap=bootstrap), reliability=WSRM_1_1)  # type: ignore[arg-type]
    asking = replace(Policy.of(family[other], bootstrap=bootstrap), reliability=WSRM_1_1)  # type: ignore[arg-type]
    pair = pairs(service)
    client = pair.client(policy=asking)
    with pytest.raises(castile.FaultReceived) as told:
        client.call_raw(ECHO, BODY)
    assert told.value.fault.subcode == (offered.namespace, "UnsupportedContextToken")
    assert not told.value.authenticated
    assert pair.service.store.run(lambda tx: tx.contexts()).result() == []


@pytest.mark.row("F31")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_of_one_edition_is_nothing_in_the_other(pairs: Pairs, family: str) -> None:
    """The same Identifier and secret, in the other edition's elements."""
    own, other = (WSSC_1_3, WSSC_2005) if family == "1.3" else (WSSC_2005, WSSC_1_3)
    policies = [policy(sc=own), policy(sc=other)]
    pair = pairs(policies[0], policies=policies)
    client = pair.client(policy=policies[0])
    client.call_raw(ECHO, body(1))
    record = client._store.run(lambda tx: tx.contexts()).result()[0]
    state = record.state
    assert isinstance(state, Established)
    forged = replace(state, edition=other.namespace, token=state.token.replace(
        own.namespace.encode(), other.namespace.encode()
    ))
    stranger = pair.client(policy=policies[1])
    stranger._store.run(lambda tx: tx.save_context(replace(record, state=forged))).result()
    party = stranger._party
    key = party.keyring.context(state.identifier, None)
    assert key is not None
    message = Outgoing(
        Kind.APPLICATION, ECHO, BODY, message_id="urn:uuid:2", reply_expected=True, key=key
    )
    payload = prepare(party, message, party.now()).payload
    answer = pair.receive(payload)
    assert answer.status == 500
    assert fault_of(answer.body) == "BadContextToken"
    assert pair.bodies == [body(1)]


@pytest.mark.row("RM-03", "F31")
@pytest.mark.parametrize(
    ("born", "spoken"),
    [
        (policy(rm=WSRM_1_0), policy(rm=WSRM_1_1)),
        (policy(wsa=WSA_1_0, rm=WSRM_1_0), policy(wsa=WSA_2004, rm=WSRM_1_0)),
        (policy(SOAP_1_2), policy(SOAP_1_1)),
        (policy(sc=None), policy(SOAP_1_1, sc=None)),
        (policy(wsa=WSA_2004, rm=WSRM_1_0, sc=None), policy(rm=WSRM_1_0, sc=None)),
    ],
    ids=lambda chosen: chosen.dialect,
)
def test_a_sequence_changes_no_edition(pairs: Pairs, born: Policy, spoken: Policy) -> None:
    pair = pairs(born, policies=[born, spoken])
    client = pair.client(policy=born)
    client.call_raw(ECHO, body(1))
    identifier = str(client.sequence.report()["identifier"])
    before = states(pair.service.store)
    row = spoken.reliability
    assert row is not None
    stranger = pair.client(policy=spoken)
    party, key = stranger._party, None
    if spoken.application is not None:
        blocking(stranger._pump.conversations.identify(1e6))
        record = client._store.run(lambda tx: tx.contexts()).result()[0]
        stranger._store.run(lambda tx: tx.save_context(record)).result()
        key = party.keyring.context(record.state.identifier, None)
        before = states(pair.service.store)
    header = reliability.Sequence(identifier, 2).render(row)
    message = Outgoing(
        Kind.APPLICATION, ECHO, body(2), (header,), "urn:uuid:2", reply_expected=True, key=key
    )
    answer = pair.receive(prepare(party, message, party.now()).payload)
    assert answer.status == 500
    fault = opened(stranger, answer.body).body
    assert isinstance(fault, SOAPFault)
    assert fault.subcode == (row.namespace, "UnknownSequence")
    assert pair.bodies == [body(1)]
    assert states(pair.service.store) == before


@pytest.mark.row("F31", "F11")
def test_messages_left_by_a_process_keep_their_editions(tmp_path: Path, pairs: Pairs) -> None:
    policies = [policy(), policy(SOAP_1_1, WSA_2004, WSRM_1_0, WSSC_2005)]
    pair = pairs(policies[0], policies=policies, folder=tmp_path)
    client = pair.client(policy=policies[1], store=tmp_path / "client.db")
    assert client.call_raw(ECHO, body(1)) == body(1)
    record = pair.service.store.run(lambda tx: tx.destinations(side="service")).result()[0]
    inbox = pair.service.store.run(lambda tx: tx.inbox_row(record.state.identifier, 1)).result()
    assert inbox is not None
    left = replace(inbox, number=2, body=body(2), status="ready", message_id="urn:uuid:2", two_way=True)
    pair.service.store.run(lambda tx: tx.accept(left)).result()
    pair.restart_service()
    until(lambda: body(2) in pair.bodies)
    until(lambda: bool(pair.service.store.run(lambda tx: tx.reply_to(record.state.identifier, 2)).result()))


# ---------------------------------------------------------------- labels


def _arrives(pair: Pair, payload: bytes, **label: str | None) -> HTTPAnswer:
    return pair.loop.run(pair.service.receive(payload, Arrival("/", **label)))  # type: ignore[arg-type]


@pytest.mark.row("RE-12", "CL-40")
@pytest.mark.parametrize("version", SOAPS, ids=lambda row: row.name)
def test_label_and_envelope(pairs: Pairs, version: SOAPVersion) -> None:
    pair = pairs(policy(version, sc=None))
    content = Message(version, render(Headers("urn:test/Echo", to=ADDRESS), WSA_1_0), BODY)
    payload = soap.render(content)
    other = SOAP_1_1 if version is SOAP_1_2 else SOAP_1_2
    wrong = _arrives(pair, payload, content_type=other.content_type)
    assert (wrong.status, fault_of(wrong.body)) == (500, "VersionMismatch")
    right = f"{version.content_type}; charset=utf-8"
    for charset, expected in (
        ("utf-8", "WSRMRequired"), ("us-ascii", "WSRMRequired"), (None, "WSRMRequired"),
        ("utf-16", "Sender"), ("iso-8859-1", "Sender"),
    ):
        answer = _arrives(pair, payload, content_type=right, charset=charset)
        assert fault_of(answer.body) == expected
    wide = payload.decode().encode("utf-16")
    answer = _arrives(pair, wide, content_type=right, charset="utf-16")
    assert fault_of(answer.body) == "WSRMRequired"
    assert fault_of(_arrives(pair, wide, content_type=right, charset="utf-8").body) == "Sender"
    for action, expected in (
        ("urn:test/Echo", "WSRMRequired"), ("", "WSRMRequired"), ("urn:test/Tell", "InvalidAddressingHeader"),
    ):
        answer = _arrives(pair, payload, content_type=right, soap_action=action)
        assert fault_of(answer.body) == expected


@pytest.mark.row("RE-12")
def test_a_soap_version_that_is_off(pairs: Pairs) -> None:
    pair = pairs(policy())
    client = pair.client(policy=policy(SOAP_1_1))
    with pytest.raises(castile.CastileError):
        client.call_raw(ECHO, BODY, timeout=1)
    assert fault_of(pair.network.log[0].response) == "VersionMismatch"


# ---------------------------------------------------------------- requests for tokens


@pytest.mark.row("SC-21")
@pytest.mark.parametrize("sc", SCS, ids=lambda row: row.name)
def test_a_token_asked_for_in_the_addressing_of_2004(pairs: Pairs, sc: Conversation) -> None:
    """Rampart asks in one edition of WS-Addressing and goes on in the other."""
    spoken = policy(SOAP_1_1, WSA_1_0, WSRM_1_0, sc)
    pair = pairs(spoken)
    client = pair.client(policy=replace(spoken, addressing=WSA_2004))
    blocking(client._pump.conversations.identify(1e6))
    exchange = pair.network.log[0]
    assert WSA_2004.namespace.encode() in exchange.response
    assert WSA_1_0.namespace.encode() not in exchange.response
    client._party.policy = spoken
    assert client.call_raw(ECHO, BODY) == BODY
    assert len(pair.network.requests("RST/SCT")) == 1


@pytest.mark.row("RM-03")
def test_only_a_token_is_asked_for_in_another_addressing(pairs: Pairs) -> None:
    spoken = policy(rm=WSRM_1_0)
    pair = pairs(spoken)
    client = pair.client(policy=replace(spoken, addressing=WSA_2004), settings=fast(create_timeout=0.2))
    with pytest.raises(castile.CastileError):
        client.call_raw(ECHO, BODY, timeout=1)
    assert fault_of(pair.network.log[1].response) == "MessageAddressingHeaderRequired"
    assert pair.received == []


def test_twins_stay_together() -> None:
    with pytest.raises(castile.PolicyError, match=r"WS-SC 1\.3 goes with WS-Trust 1\.3"):
        replace(policy(), trust=TRUST_OF[WSSC_2005.namespace])
