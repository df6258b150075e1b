"""A peer that says that a context is no good: it lost it, wants a new key, or somebody lies."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

import castile
from castile.clock import Now
from castile.endpoint.alarms import DNSE
from castile.endpoint.kinds import Kind
from castile.errors import QName, SOAPFault
from castile.messages import soap
from castile.protocol.source import Phase
from castile.store.records import SourceRecord
from castile.transport.http import HTTPResponse
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import Forger
from tests.endpoint.lives import LIFE, Moved, Watched, settings
from tests.endpoint.pair import FAMILIES, Pair, action_of, body, until

RENEW = "RST/SCT/Renew"


def sources(client: castile.Client) -> list[SourceRecord]:
    return list(client._store.run(lambda tx: tx.sources()).result())


class Liar:
    """Puts an unsecured fault in the place of answers, as anybody on the way can."""

    def __init__(self, pair: Pair, client: castile.Client, subcode: QName, *, times: int = 1_000_000) -> None:
        forge = Forger(pair.policy, client._store, None, "service")
        fault = SOAPFault("Sender", "a lie", subcode)
        self._payload = forge(Kind.FAULT, soap.render_fault(fault, pair.policy.soap))
        self._type = pair.policy.soap.content_type
        self._lock = threading.Lock()
        self.left = times
        self.told = 0

    def __call__(self, request: bytes, response: HTTPResponse) -> HTTPResponse:
        with self._lock:
            if self.left <= 0 or action_of(request).startswith("RST"):
                return response
            self.left -= 1
            self.told += 1
        return HTTPResponse(500, self._payload, self._type)


def context_fault(pair: Pair, name: str) -> QName:
    assert pair.policy.conversation is not None
    return pair.policy.conversation.namespace, name


# ---------------------------------------------------------------- lost


@pytest.mark.row("CO-16", "SC-40", "I6", "RM-58")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_service_that_lost_everything(pairs: Pairs, family: str) -> None:
    """Numbers in doubt are told exactly; callers of new work don't wait for that."""
    clock = Moved()
    pair = pairs(family, clock=clock, settings=settings(lost_context_after=300.0))
    network = Watched(pair)
    client = pair.client(http=network)
    client.call_raw("urn:test/Echo", body(1))
    network.down = True
    client.send_raw("urn:test/Tell", body(2))
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[bytes] = pool.submit(client.call_raw, "urn:test/Echo", body(3))
        until(lambda: len(network.sent) > 5)
        pair.restart_service()  # with an empty store
        network.down = False
        until(lambda: sources(client)[0].state.phase is Phase.SUSPECT)
        assert client.call_raw("urn:test/Echo", body(4)) == body(4)
        assert network.count("RST/SCT") == 2
        assert not waiting.done()
        clock.seconds += 290
        assert client.call_raw("urn:test/Echo", body(5)) == body(5)
        assert sources(client)[0].state.phase is Phase.SUSPECT  # probing goes on
        clock.seconds += 20
        with pytest.raises(castile.InDoubt, match="security context lost") as told:
            waiting.result(10)
    assert told.value.numbers == (3,)
    failed = sources(client)[0]
    assert (failed.state.phase, failed.state.reason) == (Phase.FAILED, "security context lost")
    assert failed.state.missing.ranges == ((2, 3),)
    rows = client._store.run(lambda tx: tx.outbox(failed.state.key)).result()
    assert [(row.number, row.body) for row in rows] == [(2, body(2)), (3, body(3))]  # nothing is dropped
    client.close()
    assert pair.bodies == [body(1), body(4), body(5)]


@pytest.mark.row("CO-16")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_context_that_is_lost_before_the_sequence_is_made(pairs: Pairs, family: str) -> None:
    """Nothing of it is at the peer, so it is created under another context, at once."""
    pair = pairs(family, clock=Moved(), settings=settings())
    network = Watched(pair)

    def lose(number: int) -> None:
        if number == 2:
            pair.restart_service()

    network.before = lose
    client = pair.client(http=network)
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    client.close()
    assert network.count("RST/SCT") == 2
    assert pair.bodies == [body(1)]


@pytest.mark.row("CO-14", "CO-16", "RE-90", "I2")
@pytest.mark.parametrize("times", [1, 2, 30])
@pytest.mark.parametrize("family", FAMILIES)
def test_lies_about_a_lost_context(pairs: Pairs, family: str, times: int) -> None:
    """One costs a repetition, more a new context for new work: the old sequence completes under
    the old one, and nothing is delivered twice."""
    clock = Moved()
    pair = pairs(family, clock=clock, settings=settings())
    network = Watched(pair)
    client = pair.client(http=network)
    client.call_raw("urn:test/Echo", body(1))
    network.answer = liar = Liar(pair, client, context_fault(pair, "BadContextToken"), times=times)
    assert client.call_raw("urn:test/Echo", body(2)) == body(2)
    assert liar.told == times
    assert network.count("RST/SCT") == 1
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    assert network.count("RST/SCT") == (1 if times == 1 else 2)
    client.close()
    assert pair.bodies == [body(1), body(2), body(3)]
    assert all(state == "terminated" for state in ended(pair))


def ended(pair: Pair) -> list[str]:
    records = pair.party.store.run(lambda tx: tx.destinations()).result()
    return [record.state.phase.value for record in records]


@pytest.mark.row("CO-14", "CO-16", "SC-28")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_flood_of_lies_makes_no_flood_of_contexts(pairs: Pairs, family: str) -> None:
    """At most one a minute, whatever is said; then the truth is heard, and all is done once."""
    clock = Moved()
    pair = pairs(family, clock=clock, settings=settings(alarm_interval=60.0))
    network = Watched(pair)
    client = pair.client(http=network)
    client.call_raw("urn:test/Echo", body(0))
    network.answer = liar = Liar(pair, client, context_fault(pair, "BadContextToken"))
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(client.call_raw, "urn:test/Echo", body(number)) for number in range(1, 9)]
        for minute in range(3):
            before = liar.told
            until(lambda: liar.told > before + 20)  # noqa: B023
            assert network.count("RST/SCT") <= 2 + minute
            clock.seconds += 61
        liar.left = 0
        assert [call.result(20) for call in calls] == [body(number) for number in range(1, 9)]
    client.close()
    assert sorted(pair.bodies) == [body(number) for number in range(9)]
    assert network.count("RST/SCT") <= 5


# ---------------------------------------------------------------- renewal is wanted


@pytest.mark.row("SC-28", "SC-43", "CO-14")
@pytest.mark.parametrize("family", FAMILIES)
def test_asked_to_renew_without_proof(pairs: Pairs, family: str) -> None:
    """It renews and sends again; a flood renews at most once a minute, and changes nothing else."""
    clock = Moved()
    pair = pairs(family, clock=clock, settings=settings())
    network = Watched(pair)
    client = pair.client(http=network)
    client.call_raw("urn:test/Echo", body(1))
    network.answer = Liar(pair, client, context_fault(pair, "RenewNeeded"), times=1)
    assert client.call_raw("urn:test/Echo", body(2)) == body(2)
    assert network.count(RENEW) == 1
    network.answer = liar = Liar(pair, client, context_fault(pair, "RenewNeeded"))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.call_raw, "urn:test/Echo", body(3))
        until(lambda: liar.told > 10)
        assert network.count(RENEW) == 1  # not again within the minute
        clock.seconds += 61
        until(lambda: network.count(RENEW) == 2)
        told = liar.told
        until(lambda: liar.told > told + 10)
        assert network.count(RENEW) == 2  # once per message
        liar.left = 0
        assert call.result(10) == body(3)
    client.close()
    assert pair.bodies == [body(1), body(2), body(3)]
    assert all(state == "terminated" for state in ended(pair))


class Ahead(Moved):
    """A clock that runs ahead of another one."""

    def __init__(self, other: Moved, seconds: float) -> None:
        super().__init__()
        self.other, self.ahead = other, seconds

    def __call__(self) -> Now:
        now = self.other()
        return Now(now.utc + self.ahead, now.tick)


@pytest.mark.row("SC-28", "SC-43", "SC-44", "F12", "F14")
@pytest.mark.parametrize("renewable", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_clocks_that_differ(pairs: Pairs, family: str, renewable: bool) -> None:
    """The service's clock is ahead: it wants a renewal that the client didn't see coming. The
    message is recovered; new work goes on under the same context, or under a new one."""
    clock = Moved()
    pair = pairs(family, clock=Ahead(clock, 100.0), settings=settings(after_expiry=renewable))
    network = Watched(pair)
    client = pair.client(http=network, clock=clock)
    client.call_raw("urn:test/Echo", body(1))
    first = client.context
    assert first is not None
    clock.seconds += LIFE + 5  # at the service the token is over; here it has 95 s to go
    assert first.state == "usable"
    assert client.call_raw("urn:test/Echo", body(2)) == body(2)
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    assert client.context is not None
    assert (client.context.identifier == first.identifier) is renewable
    client.close()
    numbers = [number for _, number, _ in pair.received]
    assert numbers == ([1, 2, 3] if renewable else [1, 2, 1])
    assert pair.bodies == [body(1), body(2), body(3)]


@pytest.mark.row("SC-35")
@pytest.mark.parametrize("family", FAMILIES)
def test_faults_of_wcf(pairs: Pairs, family: str) -> None:
    """Its own codes mean the same as the specification's, and are trusted no more."""
    for name, contexts, renewals in (
        ("SecuritySessionAborted", 2, 0),
        ("ExpiredSecurityContextTokenKey", 1, 1),
        ("ServerTooBusy", 1, 0),
        ("SecureConversationCancellationNotAllowed", 1, 0),
    ):
        pair = pairs(family, clock=Moved(), settings=settings())
        network = Watched(pair)
        client = pair.client(http=network)
        client.call_raw("urn:test/Echo", body(1))
        network.answer = Liar(pair, client, (DNSE, name), times=3)
        assert client.call_raw("urn:test/Echo", body(2)) == body(2)
        assert client.call_raw("urn:test/Echo", body(3)) == body(3)
        client.close()
        assert network.count("RST/SCT") == contexts, name
        assert network.count(RENEW) == renewals, name
        assert pair.bodies == [body(1), body(2), body(3)]


# ---------------------------------------------------------------- without sequences


@pytest.mark.row("CO-16", "SC-28", "SC-40")
@pytest.mark.parametrize("family", FAMILIES)
def test_outside_any_sequence(pairs: Pairs, family: str) -> None:
    """A renewal that is asked for is made, and the message sent again; a lost context is told, and
    the next message has a new one."""
    clock = Moved()
    policy = castile.EndpointPolicy.of(family, reliable=False)
    pair = pairs(policy, clock=clock, settings=settings(after_expiry=True))
    network = Watched(pair)
    client = pair.client(http=network)
    client.call_raw("urn:test/Echo", body(1))
    network.answer = Liar(pair, client, context_fault(pair, "RenewNeeded"), times=1)
    assert client.call_raw("urn:test/Echo", body(2)) == body(2)
    assert network.count(RENEW) == 1
    clock.seconds += 61
    pair.restart_service()
    with pytest.raises(castile.FaultReceived) as told:
        client.call_raw("urn:test/Echo", body(3))
    assert not told.value.authenticated
    assert client.call_raw("urn:test/Echo", body(4)) == body(4)
    assert network.count("RST/SCT") == 2
    clock.seconds += 0.7 * LIFE
    client.call_raw("urn:test/Echo", body(5))
    until(lambda: network.count(RENEW) == 2)  # ahead of its end, as in a sequence
    client.close()
    assert network.count("RST/SCT/Cancel") == 1
