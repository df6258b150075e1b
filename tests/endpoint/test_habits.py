"""What live peers were seen to do, played by a peer of our own making."""

from __future__ import annotations

import threading

import pytest

import castile
from castile.endpoint.kinds import Kind
from castile.errors import SOAPFault
from castile.messages import soap
from castile.protocol.source import Phase
from castile.transport.http import HTTPResponse
from castile.versions import WSSE
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import Forger, key_of
from tests.endpoint.lives import DUE, LIFE, Moved, Watched, settings
from tests.endpoint.pair import FAMILIES, USERS, action_of, body, opened, until


@pytest.mark.row("RM-57", "F22")
@pytest.mark.parametrize("gaps", [(2,), (2, 3, 7, 20)])
def test_a_peer_that_answers_nothing_behind_a_gap(pairs: Pairs, gaps: tuple[int, ...]) -> None:
    """Metro holds the exchange of every one-way message open that waits for an earlier one. There
    are more of them than threads; the repetition of what is missing goes out all the same."""
    pair = pairs()
    lost, came = set(gaps), set[int]()
    arrived = threading.Condition()

    def number_of(payload: bytes) -> int:
        found = pair.opened(payload).reliability.sequence if action_of(payload) == "Tell" else None
        return found.number if found else 0

    def fate(exchange: int, payload: bytes) -> str | None:
        number = number_of(payload)
        if number in lost:
            lost.discard(number)
            return "drop-request"
        return None

    def hold(request: bytes, response: HTTPResponse) -> HTTPResponse:
        if number := number_of(request):
            with arrived:
                came.add(number)
                arrived.notify_all()
                arrived.wait_for(lambda: came >= set(range(1, number)), 15)
        return response

    pair.network.fate, pair.network.answer = fate, hold
    client = pair.client()
    for number in range(1, 41):
        client.send_raw("urn:test/Tell", body(number))
    assert client.sequence.wait_until_acknowledged(8)
    assert pair.settled(40) == [body(number) for number in range(1, 41)]


@pytest.mark.row("SC-26", "SC-44", "CO-16", "I1")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_peer_that_refuses_to_renew_in_time(pairs: Pairs, family: str) -> None:
    """Metro takes the first renewal and no other (it checks the endorsement by the first key). New
    work gets a new context while the old key still lives, so that its sequence is closed and it is
    given back."""
    clock = Moved()
    pair = pairs(family, clock=clock, settings=settings())
    network = Watched(pair)

    def fate(exchange: int, payload: bytes) -> None:
        pair.party.keyring.users = {} if action_of(payload) == "RST/SCT/Renew" else USERS

    network.fate = fate
    client = pair.client(http=network)
    client.call_raw("urn:test/Echo", body(1))
    assert client.context is not None
    first = client.context.identifier
    clock.seconds += DUE
    for number in range(2, 60):
        client.call_raw("urn:test/Echo", body(number))
        if client.context is not None and client.context.identifier != first:
            break
    assert clock.seconds < LIFE
    until(lambda: network.count("RST/SCT/Cancel") == 1)
    assert network.count("CreateSequence") == 2
    assert network.count("TerminateSequence") == 1
    client.close()
    assert pair.bodies == [body(n) for n in range(1, number + 1)]


@pytest.mark.row("CO-16", "SC-28")
@pytest.mark.parametrize(
    "subcode",
    [
        (WSSE, "InvalidSecurity"),
        (WSSE, "SecurityTokenUnavailable"),
        ("http://ws.apache.org/wss4j", "SecurityError"),
    ],
    ids=["Metro", "the specification", "CXF"],
)
def test_a_restarted_peer_that_doesnt_say_why(pairs: Pairs, subcode: tuple[str, str]) -> None:
    """It knows the token no more, and its unsecured fault is one for everything: new work gets a
    new token, and what was under way is in doubt, number by number."""
    clock = Moved()
    pair = pairs(clock=clock, settings=settings())
    network = Watched(pair)
    client = pair.client(http=network)
    fault = SOAPFault("Sender", "something is wrong", subcode)
    forged = Forger(pair.policy, client._store, None, "service")(
        Kind.FAULT, soap.render_fault(fault, pair.policy.soap)
    )

    def answer(request: bytes, response: HTTPResponse) -> HTTPResponse:
        told = b"BadContextToken" in response.body
        return HTTPResponse(500, forged, response.content_type) if told else response

    network.answer = answer
    client.call_raw("urn:test/Echo", body(1))
    network.down = True
    client.send_raw("urn:test/Tell", body(2))
    until(lambda: len(network.sent) > 4)
    pair.restart_service()
    network.down = False
    until(lambda: client._store.run(lambda tx: tx.sources()).result()[0].state.phase is Phase.SUSPECT)
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    assert network.count("RST/SCT") == network.count("CreateSequence") == 2
    assert [each.number for each in client.unfinished()] == [2]
    with pytest.raises(castile.InDoubt) as told:
        client.close()
    assert told.value.numbers == (2,)
    assert pair.bodies == [body(1), body(3)]


@pytest.mark.row("F22", "RM-71")
def test_a_last_message_of_the_application(pairs: Pairs) -> None:
    """CXF marks its last application message with LastMessage instead of sending an empty one, and
    hears no acknowledgement that rides on ours: it gets a plain one."""
    pair = pairs("2005")
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    forge = Forger(pair.policy, client._store, key_of(client))
    header = forge.sequence(str(client.sequence.report()["identifier"]), 2, last=True)
    request = forge(Kind.APPLICATION, body(2), header, action="urn:test/Tell")
    answer = opened(client, pair.receive(request).body)
    assert answer.kind is Kind.ACKNOWLEDGEMENT
    assert answer.reliability.acknowledgements[0].ranges == ((1, 2),)
