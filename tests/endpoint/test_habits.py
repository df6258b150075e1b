"""What live peers were seen to do, played by a peer of our own making."""

from __future__ import annotations

import threading
import time
from pathlib import Path

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
from tests.endpoint.pair import FAMILIES, USERS, action_of, body, fast, opened, until


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


@pytest.mark.row("RM-71", "RM-109")
def test_a_last_message_before_the_replies_are_acknowledged(pairs: Pairs) -> None:
    """It is a message of its sequence, so an acknowledgement is owed (WS-RM 1.0, 3.3) and is all that
    is owed. The replies end by a LastMessage of their own, once every one of them is acknowledged."""
    pair = pairs("2005")
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    forge = Forger(pair.policy, client._store, key_of(client))
    (replies,) = pair.party.store.run(lambda tx: tx.sources()).result()
    assert replies.state.identifier is not None
    last = forge.sequence(str(client.sequence.report()["identifier"]), 2, last=True)

    early = opened(client, pair.receive(forge(Kind.LAST_MESSAGE, b"", last)).body)
    assert early.kind is Kind.ACKNOWLEDGEMENT
    assert early.reliability.acknowledgements[0].ranges == ((1, 2),)
    acknowledged = forge.acknowledgement(replies.state.identifier, (1, 1))
    answer = opened(client, pair.receive(forge(Kind.LAST_MESSAGE, b"", last, acknowledged)).body)
    assert answer.kind is Kind.LAST_MESSAGE
    sequence = answer.reliability.sequence
    assert sequence is not None
    assert (sequence.identifier, sequence.number) == (replies.state.identifier, 2)
    assert sequence.last_message
    assert answer.reliability.acknowledgements[0].ranges == ((1, 2),)
    assert pair.bodies == [body(1)]


@pytest.mark.row("F37", "CO-09")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_peer_that_never_repeats_a_reply(pairs: Pairs, tmp_path: Path, family: str) -> None:
    """CXF acknowledges the repetition, and says no more: the next process waits for that reply as
    long as a caller would, then does its own work; the call stays in doubt."""
    pair = pairs(family, settings=fast(call_timeout=1.5))
    client = pair.client(store=tmp_path / "client.db")
    client.call_raw("urn:test/Echo", body(1))
    forge = Forger(pair.policy, client._store, key_of(client), "service")
    sequence = str(client.sequence.report()["identifier"])

    def answer(request: bytes, response: HTTPResponse) -> HTTPResponse:
        if sequence.encode() not in request or b"MessageNumber>2<" not in request:
            return response
        accepted = forge(Kind.ACKNOWLEDGEMENT, b"", forge.acknowledgement(sequence, (1, 2)))
        return HTTPResponse(200, accepted, response.content_type)

    pair.network.answer = answer
    begun = time.monotonic()
    with pytest.raises(castile.InDoubt) as told:
        client.call_raw("urn:test/Echo", body(2), timeout=0.2)
    assert told.value.numbers == (2,)
    client.close(keep=True)
    later = pair.client(store=tmp_path / "client.db")
    assert later.call_raw("urn:test/Echo", body(3), timeout=20) == body(3)
    assert time.monotonic() - begun > 1.5
    assert [each.number for each in later.unfinished()] == [2]
    later.close(keep=True)
    assert pair.bodies == [body(1), body(2), body(3)]
