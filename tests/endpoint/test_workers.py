"""Several workers of one service on one store: any of them takes any message; one at a time hands
those of a sequence to the application; who lives goes on with what a dead one had."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import castile
from castile.transport.asgi import Arrival
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import BODY, FAMILIES, action_of, body, fast, fault_of, until
from tests.endpoint.workers import Workers

Make = Callable[..., Workers]


@pytest.fixture
def workers(pairs: Pairs, tmp_path: Path) -> Iterator[Make]:
    made: list[Workers] = []

    def make(family: str = "1.3", **options: object) -> Workers:
        made.append(Workers(pairs(family, folder=tmp_path, **options)))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.row("ST-09", "F21", "SC-07")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_messages_of_a_client_go_to_either_worker(workers: Make, family: str) -> None:
    """Token, sequence, messages, renewal and the end: each the other worker's turn."""
    both = workers(family)
    client = both.client()
    for number in range(1, 9):
        assert client.call_raw("urn:test/Echo", body(number)) == body(number)
        client.send_raw("urn:test/Tell", body(100 + number))
        if number == 4 and client.context is not None:
            client.context.renew()
    client.sequence.wait_until_acknowledged(10)
    client.close()
    until(lambda: len(both.pair.received) == 16)
    assert [name for name in both.pair.bodies if name in [body(n) for n in range(1, 9)]] == [
        body(number) for number in range(1, 9)
    ]
    assert [number for _, number, _ in both.pair.received] == list(range(1, 17))
    assert {who for who, _, _ in both.pair.received} == {"ada"}


class Slow:
    """A handler that runs as long as the test wants, one number after the other."""

    def __init__(self) -> None:
        self.began: list[tuple[bytes, bool]] = []
        self.gate = threading.Event()

    def __call__(self, service: castile.Service) -> None:
        @service.raw("urn:test/Slow")
        def slow(content: bytes, ctx: castile.RequestContext) -> bytes:
            self.began.append((content, ctx.redelivered))
            self.gate.wait(20)
            return content


@pytest.mark.row("ST-09", "F21", "I3")
@pytest.mark.parametrize("family", FAMILIES)
def test_one_worker_at_a_time_runs_the_handlers_of_a_sequence(workers: Make, family: str) -> None:
    """The second message comes to the other worker; it waits there, for a reply made here."""
    slow = Slow()
    both = workers(family, extend=slow)
    client = both.client()
    both.network.choose = lambda _, payload: 0
    client.call_raw("urn:test/Echo", body(0))
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.call_raw, "urn:test/Slow", body(1))]
        until(lambda: len(slow.began) == 1)
        both.network.choose = lambda _, payload: 1
        for number in (2, 3):
            calls.append(pool.submit(client.call_raw, "urn:test/Slow", body(number)))
            until(lambda: len(undone(both)) == number)  # noqa: B023 - it runs here
        time.sleep(0.1)
        assert len(slow.began) == 1
        slow.gate.set()
        assert [call.result(20) for call in calls] == [body(1), body(2), body(3)]
    assert slow.began == [(body(1), False), (body(2), False), (body(3), False)]
    # With nothing undone the next message is for the worker that it comes to.
    assert client.call_raw("urn:test/Slow", body(4)) == body(4)
    [record] = both.second.store.run(lambda tx: tx.destinations(side="service")).result()
    assert record.owner == both.second.store.owner
    posted = [exchange.asked for exchange in both.network.log].count("Slow")
    assert posted == 4  # nobody had to ask again


def undone(both: Workers) -> list[int]:
    return [row.number for row in both.first.store.run(lambda tx: tx.inbox()).result()]


@pytest.mark.row("ST-09", "F21", "RM-93")
def test_a_message_that_waits_at_one_worker_for_an_earlier_one_at_the_other(workers: Make) -> None:
    """The one that gets the earlier one hands on both; the reply goes out where its sender waits."""
    both = workers(settings=fast(reply_wait=15.0, retransmit_interval=15.0))
    client = both.client()
    client.call_raw("urn:test/Echo", body(0))
    gate, turns = threading.Event(), iter((0, 1))

    def choose(_: int, payload: bytes) -> int:
        turn = next(turns)
        if turn == 0:
            gate.wait(10)
        return turn

    both.network.choose = choose
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.call_raw, "urn:test/Echo", body(1))
        until(lambda: bool(client._pump.callers.waiting))
        second = pool.submit(client.call_raw, "urn:test/Echo", body(2))
        until(lambda: undone(both) == [3])
        gate.set()
        assert [first.result(20), second.result(20)] == [body(1), body(2)]
    assert time.monotonic() - start < 10.0
    assert [number for _, number, _ in both.pair.received] == [1, 2, 3]


@pytest.mark.row("ST-09", "F21", "I1", "I3")
def test_many_calls_to_any_worker(workers: Make) -> None:
    """Each is answered where it waits, without being asked again, and one at a time."""
    chance, running, runs = random.Random(5), Counter[str](), defaultdict[str, list[int]](list)
    lock = threading.Lock()

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Work")
        def work(content: bytes, ctx: castile.RequestContext) -> bytes:
            assert ctx.sequence is not None
            assert ctx.number is not None
            with lock:
                running[ctx.sequence] += 1
                assert running[ctx.sequence] == 1
            time.sleep(chance.random() * 0.01)
            with lock:
                running[ctx.sequence] -= 1
                runs[ctx.sequence].append(ctx.number)
            return content

    both = workers(extend=extend, settings=fast(reply_wait=15.0, retransmit_interval=15.0))
    both.network.choose = lambda *_: chance.randrange(2)
    clients = [both.client() for _ in range(3)]
    with ThreadPoolExecutor(12) as pool:
        calls = [
            pool.submit(client.call_raw, "urn:test/Work", body(number))
            for number in range(10)
            for client in clients
        ]
        assert [call.result(30) for call in calls] == [body(number // 3) for number in range(30)]
    assert len(runs) == 3
    assert all(numbers == list(range(1, 11)) for numbers in runs.values())
    assert [exchange.asked for exchange in both.network.log].count("Work") == 30


@pytest.mark.row("ST-09", "ST-30", "ST-32", "I7")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_other_worker_goes_on_with_what_a_dead_one_had(workers: Make, family: str) -> None:
    slow = Slow()
    both = workers(family, extend=slow, settings=fast(reply_wait=6.0))
    client = both.client()
    both.network.choose = lambda _, payload: 0
    client.call_raw("urn:test/Echo", body(0))
    with ThreadPoolExecutor(4) as pool:
        pool.submit(client.call_raw, "urn:test/Slow", body(1))
        until(lambda: len(slow.began) == 1)
        both.network.choose = lambda _, payload: 1
        waiting = [pool.submit(client.call_raw, "urn:test/Slow", body(number)) for number in (2, 3)]
        until(lambda: len(undone(both)) == 3)
        start = time.monotonic()
        both.die(both.first, by=both.second)
        until(lambda: len(slow.began) == 2, 5.0)
        assert time.monotonic() - start < 5.0
        slow.gate.set()
        assert {call.result(20) for call in waiting} == {body(2), body(3)}
    numbers = [content for content, _ in slow.began]
    assert numbers[:2] == [body(1), body(1)]
    assert sorted(numbers[2:]) == [body(2), body(3)]
    assert slow.began[1] == (body(1), True)
    assert client.call_raw("urn:test/Echo", body(9)) == body(9)


@pytest.mark.row("ST-09")
def test_a_worker_that_ends_in_good_order_leaves_its_queue(workers: Make) -> None:
    """What it had accepted and not begun is begun by the other one soon."""
    slow = Slow()
    both = workers(extend=slow, settings=fast(drain=5.0, reply_wait=0.1))
    client = both.client()
    both.network.choose = lambda _, payload: 0
    client.call_raw("urn:test/Echo", body(0))
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.call_raw, "urn:test/Slow", body(1))]
        until(lambda: len(slow.began) == 1)
        calls.append(pool.submit(client.call_raw, "urn:test/Slow", body(2)))
        until(lambda: len(undone(both)) == 2)
        both.network.workers = [both.second]
        stopping = pool.submit(both.pair.loop.run, both.first.stop())
        time.sleep(0.1)
        slow.gate.set()
        stopping.result(20)
        assert [call.result(20) for call in calls] == [body(1), body(2)]
    assert [content for content, _ in slow.began] == [body(1), body(2)]


@pytest.mark.row("SC-29", "SC-24", "ST-09", "CO-17")
@pytest.mark.parametrize("family", FAMILIES)
def test_what_one_worker_cancelled_the_other_takes_no_more(workers: Make, family: str) -> None:
    """Its keys were in the other one's memory."""
    both = workers(family)
    client = both.client()
    for number in range(1, 5):
        client.call_raw("urn:test/Echo", body(number))
    messages = [exchange.request for exchange in both.network.log if exchange.asked == "Echo"]
    both.network.choose = lambda _, payload: 0
    assert client.context is not None
    client.context.cancel(force=True)
    both.network.workers.reverse()  # the one that hasn't done it
    replayed = both.network.deliver(messages[-1])
    assert (replayed.status, fault_of(replayed.body)) == (500, "BadContextToken")
    assert len(both.pair.received) == 4


@pytest.mark.row("SC-24", "ST-09")
def test_a_key_that_one_worker_retired_the_other_takes_no_more(workers: Make) -> None:
    both = workers(settings=fast(instance_grace=0.0))
    client = both.client()
    client.call_raw("urn:test/Echo", body(1))
    client.call_raw("urn:test/Echo", body(2))
    old = [exchange.request for exchange in both.network.log if exchange.asked == "Echo"]
    both.network.choose = lambda _, payload: 0
    assert client.context is not None
    client.context.renew()
    client.call_raw("urn:test/Echo", body(3))
    time.sleep(0.05)
    client.call_raw("urn:test/Echo", body(4))
    answer = both.pair.loop.run(both.second.receive(old[-1], Arrival("/", "")))
    assert answer.status == 500


@pytest.mark.row("ST-09")
def test_what_one_worker_has_seen_the_other_refuses_as_a_replay(workers: Make) -> None:
    both = workers()
    client = both.client()
    client.call_raw("urn:test/Echo", BODY)
    [issue] = [exchange.request for exchange in both.network.log if exchange.asked == "RST/SCT"]
    for service in (both.first, both.second):
        answer = both.pair.loop.run(service.receive(issue, Arrival("/", "")))
        assert answer.status == 500
        assert b"SecurityContextToken" not in answer.body
    assert action_of(issue) == "RST/SCT"
