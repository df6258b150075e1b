"""Loss, repetition and disorder: every message once and in order, the same reply each time."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

import castile
from castile.clock import Now, system
from castile.protocol import destination, source
from castile.store.records import SourceRecord
from castile.transport.http import HTTPRequest, HTTPResponse
from castile.waiting import blocking
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import Forger, key_of
from tests.endpoint.pair import (
    BODY,
    FAMILIES,
    FAST,
    Fate,
    action_of,
    body,
    certificate,
    fast,
    opened,
    states,
    until,
)

EVENTS = ("drop-request", "drop-response", "double", "late")


def schedule(seed: int) -> Fate:
    """A link that does every evil at rates of its own."""
    random = Random(seed)
    rates = [random.choice((0.0, 0.1, 0.25)) for _ in EVENTS]

    def fate(number: int, payload: bytes) -> str | None:
        throw = random.random()
        for event, rate in zip(EVENTS, rates, strict=True):
            throw -= rate
            if throw < 0:
                return event
        return None

    return fate


@pytest.mark.row("RM-30", "RM-32", "RM-36", "RM-42", "RM-57", "RM-93", "F21", "F23", "I1", "I2", "I4")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", FAMILIES)
def test_exactly_once_in_order(pairs: Pairs, tmp_path: Path, family: str, seed: int) -> None:
    """Calls and one-way messages of several threads over a link with a seeded schedule."""
    pair = pairs(family, folder=tmp_path if seed % 2 else None)
    pair.network.fate = schedule(seed)
    client = pair.client(store=tmp_path / "client.db" if seed % 3 == 0 else None)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.call_raw, "urn:test/Echo", body(number)) for number in range(12)]
        for number in range(100, 112):
            client.send_raw("urn:test/Tell", body(number))
        assert [call.result() for call in calls] == [body(number) for number in range(12)]
    assert client.sequence.wait_until_acknowledged(20)
    report = client.sequence.report()
    assert (report["acknowledged"], report["missing"], report["depth"]) == ([[1, 24]], [], 0)
    client.close()
    pair.settled(24)
    assert [number for _, number, _ in pair.received] == list(range(1, 25))
    assert sorted(pair.bodies) == sorted(body(n) for n in [*range(12), *range(100, 112)])
    tells = [content for content in pair.bodies if len(content) == len(body(100))]
    assert tells == [body(number) for number in range(100, 112)]
    (record,) = pair.party.store.run(lambda tx: tx.destinations()).result()
    assert record.state.phase is destination.Phase.TERMINATED


@pytest.mark.row("CO-15", "RM-36", "RM-55", "RM-57")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_attempt_is_secured_afresh(pairs: Pairs, family: str) -> None:
    """Five attempts at one message: same number, MessageID and payload; nothing else alike."""
    pair = pairs(family)
    lost: list[bytes] = []

    def fate(number: int, payload: bytes) -> str | None:
        if action_of(payload) == "Echo" and len(lost) < 4:
            lost.append(payload)
            return "drop-response"
        return None

    pair.network.fate = fate
    client = pair.client()
    assert client.call_raw("urn:test/Echo", BODY) == BODY
    attempts = [payload for payload in pair.network.sent if action_of(payload) == "Echo"]
    assert len(attempts) == 5
    read = [pair.opened(payload) for payload in attempts]
    headers = {(each.addressing.message_id, each.reliability.sequence, each.content) for each in read}
    assert len(headers) == 1
    assert [len(each.reliability.ack_requested) for each in read] == [0, 1, 1, 1, 1]
    for pattern in (
        rb"Created>([^<]+)<",
        rb"Nonce>([^<]+)<",
        rb"CipherValue>([^<]+)<",
        rb'u:Id="(_[^"]*-0)"',
    ):
        found = [value for payload in attempts for value in re.findall(pattern, payload)]
        assert len(found) == len(set(found)) >= 5, pattern
    assert len({each.verified.evidence for each in read}) == 5
    assert pair.bodies == [BODY]


@pytest.mark.row("RM-32", "RM-36", "RM-93", "RE-59", "I9")
@pytest.mark.parametrize("offer", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_repeated_request_gets_the_same_reply(pairs: Pairs, family: str, offer: bool) -> None:
    """Secured afresh, or byte for byte the same as HTTP layers do: one run, one reply number."""

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Fail")
        def fail(content: bytes) -> bytes:
            raise castile.Fault("Sender", f"attempt {len(pair.received)}")

    pair = pairs(castile.EndpointPolicy.of(family, two_way=offer), extend=extend)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    with pytest.raises(castile.FaultReceived):
        client.call_raw("urn:test/Fail", body(2))
    forge = Forger(pair.policy, client._store, key_of(client))
    for action in ("Echo", "Fail"):
        exchange = pair.network.requests(action)[0]
        asked, first = pair.opened(exchange.request), opened(client, exchange.response)
        sequence = asked.reliability.sequence
        assert sequence is not None
        again = forge(
            asked.kind,
            asked.content,
            forge.sequence(sequence.identifier, sequence.number),
            action=asked.addressing.action,
            message_id="urn:uuid:another",  # the number decides (RM-32)
            reply=True,
        )
        for payload in (exchange.request, again):
            answer = pair.receive(payload)
            assert answer.status == exchange.status
            reply = opened(client, answer.body)
            assert reply.content == first.content
            assert reply.reliability.sequence == first.reliability.sequence
            assert (reply.reliability.sequence is not None) == offer
            assert reply.addressing == first.addressing
            assert reply.verified.evidence != first.verified.evidence
    assert pair.bodies == [body(1)]


@pytest.mark.row("RM-18", "RM-19")
@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_lost_create_sequence_responses_make_one_sequence(pairs: Pairs, family: str, times: int) -> None:
    pair = pairs(family)
    pair.network.fate = lose(times, "CreateSequence", "drop-response")
    client = pair.client()
    assert client.call_raw("urn:test/Echo", BODY) == BODY
    creates = pair.network.requests("CreateSequence")
    assert len(creates) == times + 1
    assert len({pair.opened(each.request).addressing.message_id for each in creates}) == 1
    assert len({opened(client, each.response).content for each in creates}) == 1
    assert b"Accept>" in creates[-1].response
    (record,) = pair.party.store.run(lambda tx: tx.destinations()).result()
    assert record.state.identifier == client.sequence.report()["identifier"]
    assert pair.party.store.run(lambda tx: len(tx.sources())).result() == 1


def lose(times: int, action: str, event: str) -> Fate:
    """The first exchanges with this action come to grief."""
    left = times

    def fate(number: int, payload: bytes) -> str | None:
        nonlocal left
        if action_of(payload) != action or not left:
            return None
        left -= 1
        return event

    return fate


@pytest.mark.row("RM-59", "RM-70", "RM-71", "RM-75", "RM-77", "SC-29")
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize(
    ("family", "action"),
    [
        *(("1.3", action) for action in ("RST/SCT", "CloseSequence", "TerminateSequence", "RST/SCT/Cancel")),
        *(("2005", action) for action in ("RST/SCT", "LastMessage", "TerminateSequence", "RST/SCT/Cancel")),
    ],
)
def test_lost_lifecycle_messages(pairs: Pairs, family: str, action: str, event: str) -> None:
    """Each end of the conversation survives its loss, and a repetition gets the same answer."""
    pair = pairs(family)
    pair.network.fate = lose(2, action, event)
    client = pair.client()
    for number in range(2):
        assert client.call_raw("urn:test/Echo", body(number)) == body(number)
    ended: list[SourceRecord] = []

    def last_look() -> None:  # the store is closed only after the HTTP client
        ended.extend(client._store.run(lambda tx: tx.sources()).result())

    client._close_http = last_look  # type: ignore[method-assign]
    client.close()
    assert [record.state.phase for record in ended] == [source.Phase.TERMINATED]
    assert pair.bodies == [body(0), body(1)]
    (record,) = pair.party.store.run(lambda tx: tx.destinations()).result()
    assert record.state.phase is destination.Phase.TERMINATED
    (replies,) = pair.party.store.run(lambda tx: tx.sources()).result()
    assert replies.state.phase is source.Phase.TERMINATED
    contexts = pair.party.store.run(lambda tx: tx.contexts()).result()
    if action == "RST/SCT":  # each answer that was lost left a context, which ends by itself
        assert len(contexts) == (2 if event in ("drop-response", "late") else 0)
    else:  # Cancel is best effort: it isn't repeated
        assert bool(contexts) == (action == "RST/SCT/Cancel" and event in ("drop-request", "late"))


@pytest.mark.row("RM-48", "RE-85", "I4", "I6")
@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_acknowledgements_of_the_peer_itself(pairs: Pairs, family: str) -> None:
    """Under the right key: numbers never sent, turned round, overlapping, final too early, taking
    back. None changes anything, and the message is acknowledged by the next right one."""
    pair = pairs(family)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    client.send_raw("urn:test/Tell", body(2))
    assert client.sequence.wait_until_acknowledged(10)
    identifier = str(client.sequence.report()["identifier"])
    forge = Forger(pair.policy, client._store, key_of(client), "service")
    wrong = [
        forge.acknowledgement(identifier, (1, 9)),
        forge.acknowledgement(identifier, (3, 1)),
        forge.acknowledgement(identifier, (1, 2), (2, 3)),
        forge.acknowledgement(identifier, (0, 3)),
        forge.acknowledgement(identifier, (3, 3)),  # takes 1 and 2 back
        forge.acknowledgement("urn:uuid:unknown", (1, 3)),
    ]
    if family == "1.3":
        wrong.append(forge.acknowledgement(identifier, (1, 3), final=True))
    before: list[object] = []

    def answer(request: bytes, response: HTTPResponse) -> HTTPResponse:
        if action_of(request) != "Tell" or not wrong:
            return response
        now = states(client._store)
        assert not before or before == now
        before[:] = now
        payload = forge(opened(client, response.body).kind, b"", wrong.pop(0))
        return HTTPResponse(200, payload, response.content_type)

    pair.network.answer = answer
    client.send_raw("urn:test/Tell", body(3))
    assert client.sequence.wait_until_acknowledged(10)
    assert wrong == []
    assert client.sequence.report()["state"] == "open"
    assert pair.settled(3) == [body(1), body(2), body(3)]


@pytest.mark.row("RM-59")
@pytest.mark.parametrize(
    "response",
    [
        HTTPResponse(500, b"<html>oops</html>", "text/html"),
        HTTPResponse(502),
        HTTPResponse(503, retry_after=0.01),
        HTTPResponse(429, retry_after=0.01),
        HTTPResponse(408),
        HTTPResponse(404, b"no", "text/plain"),
        HTTPResponse(302),
        HTTPResponse(200, b"<html/>", "text/html"),
        HTTPResponse(200, b"not XML", "application/soap+xml"),
        HTTPResponse(202),
    ],
    ids=lambda response: f"{response.status} {response.content_type}",
)
def test_whatever_http_says(pairs: Pairs, response: HTTPResponse) -> None:
    """A strange answer to any message of the conversation is got over."""
    pair = pairs()
    seen: set[str] = set()

    def answer(request: bytes, right: HTTPResponse) -> HTTPResponse:
        action = action_of(request)
        if action in seen or (action.startswith("RST/SCT") and response.content_type):
            return right
        seen.add(action)
        return response

    pair.network.answer = answer
    with pair.client() as client:
        assert client.call_raw("urn:test/Echo", body(1)) == body(1)
        client.send_raw("urn:test/Tell", body(2))
        assert client.sequence.wait_until_acknowledged(10)
    assert pair.settled(2) == [body(1), body(2)]
    assert {"CreateSequence", "Echo", "Tell", "CloseSequence", "TerminateSequence"} <= seen


@pytest.mark.row("F21", "RM-34", "RE-84", "I13")
def test_a_gap_holds_later_messages_within_the_window(pairs: Pairs) -> None:
    """Beyond the window nothing is stored nor acknowledged; the gap filled, all come in order."""
    pair = pairs(settings=replace(FAST, limits=replace(FAST.limits, window_messages=4)))
    held = True

    def fate(number: int, payload: bytes) -> str | None:
        first = b"Tell" in payload and pair.opened(payload).reliability.sequence
        return "drop-request" if held and first and first.number == 1 else None

    client = pair.client()
    blocking(client._pump.sequence(""))
    pair.network.fate = fate
    for number in range(1, 11):
        client.send_raw("urn:test/Tell", body(number))

    def received() -> list[tuple[int, int]]:
        records = pair.party.store.run(lambda tx: tx.destinations()).result()
        return list(records[0].state.received.ranges) if records else []

    until(lambda: sum(high - low + 1 for low, high in received()) == 3)
    sent = len(pair.network.log)
    until(lambda: len(pair.network.log) >= sent + 20)
    assert sum(high - low + 1 for low, high in received()) == 3
    assert pair.received == []
    held = False
    assert client.sequence.wait_until_acknowledged(10)
    assert pair.settled(10) == [body(number) for number in range(1, 11)]


@pytest.mark.row("RM-32", "RE-83", "I10")
@pytest.mark.parametrize("family", FAMILIES)
def test_another_payload_under_the_same_number(pairs: Pairs, family: str) -> None:
    """The sequence faults; nothing is delivered, and the sender is told which numbers are in doubt."""
    pair = pairs(family)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    exchange = pair.network.requests("Echo")[0]
    asked = pair.opened(exchange.request)
    assert asked.reliability.sequence is not None
    forge = Forger(pair.policy, client._store, key_of(client))
    header = forge.sequence(asked.reliability.sequence.identifier, 1)
    answer = pair.receive(forge(asked.kind, body(2), header, action="urn:test/Echo", reply=True))
    fault = opened(client, answer.body).body
    assert isinstance(fault, castile.errors.SOAPFault)
    assert fault.subcode is not None
    assert (answer.status, fault.subcode[1]) == (500, "SequenceTerminated")
    with pytest.raises(castile.InDoubt) as told:
        client.call_raw("urn:test/Echo", body(3))
    assert told.value.numbers == (2,)
    assert client.call_raw("urn:test/Echo", body(4)) == body(4)  # in a sequence of its own
    assert pair.bodies == [body(1), body(4)]


@pytest.mark.row("RM-58", "RM-134")
def test_giving_up_is_by_time_and_names_the_numbers(pairs: Pairs) -> None:
    pair = pairs(settings=fast(give_up_in_memory=0.3))
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    pair.network.down = True
    client.send_raw("urn:test/Tell", body(2))
    with pytest.raises(castile.InDoubt) as told:
        client.call_raw("urn:test/Echo", body(3))
    assert told.value.numbers == (3,)
    with pytest.raises(castile.InDoubt) as all_of_them:
        client.sequence.wait_until_acknowledged(5)
    assert all_of_them.value.numbers == (2, 3)
    digests = {number: sha256(body(number)).hexdigest() for number in (2, 3)}
    assert (told.value.digests, all_of_them.value.digests) == ({3: digests[3]}, digests)
    shown = client.sequence.report()
    assert (shown["state"], shown["missing"], shown["depth"]) == ("failed", [[2, 3]], 2)
    assert "the request was lost" in str(shown["last_error"])
    assert shown["next_attempt"] is None
    pair.network.down = False
    assert client.call_raw("urn:test/Echo", body(4)) == body(4)


@pytest.mark.row("RM-61")
@pytest.mark.parametrize("jump", [3_600.0, -170.0])
def test_the_wall_clock_jumps(pairs: Pairs, jump: float) -> None:
    """Repetitions run on ticks: a jump of the wall clock changes nothing for the client's timers."""
    offset = 0.0

    def clock() -> Now:
        now = system()
        return Now(now.utc + offset, now.tick)

    pair = pairs(clock=clock)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    pair.network.fate = lose(3, "Tell", "drop-request")
    client.send_raw("urn:test/Tell", body(2))
    offset = jump
    assert client.sequence.wait_until_acknowledged(10)
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    assert pair.bodies == [body(1), body(2), body(3)]


@pytest.mark.row("RM-18", "RM-19")
@pytest.mark.parametrize("secure", [False, True])
def test_one_lost_answer_doesn_t_use_up_the_time_of_a_create_sequence(*, secure: bool) -> None:
    """Nobody waits for the message, so nothing else limits the exchange, of a request for a token too."""
    seconds: list[float] = []

    class Deaf:
        def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
            seconds.append(timeout)
            raise castile.TransportError("no answer")

        async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
            return self.post(request, timeout)

        def close(self) -> None: ...

    client = castile.Client(
        "http://service.test/",
        policy=castile.EndpointPolicy.of("1.3", secure=secure),
        credentials=castile.Username("ada", "secret") if secure else None,
        service_certificate=certificate() if secure else None,
        settings=FAST,
        http=Deaf(),
    )
    client.send_raw("urn:test/Tell", BODY)
    until(lambda: bool(seconds))
    assert seconds[0] <= FAST.timers.create_timeout / 4
    client.close(keep=True)
