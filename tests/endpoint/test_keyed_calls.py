"""A call that is made again with its own key (features CL-31)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

import castile
import castile.store
from castile.clock import Now
from castile.config import Settings
from castile.endpoint import requests
from castile.errors import SequenceCreationFailed
from castile.store.records import ReplyRow
from tests.endpoint.pair import Pair

pytestmark = pytest.mark.row("CL-31")

ECHO = "urn:test/Echo"
TELL = "urn:test/Tell"


def body(text: str) -> bytes:
    return f'<a xmlns="urn:x">{text}</a>'.encode()


@pytest.fixture(params=["1.3", "2005"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(castile.EndpointPolicy.of(request.param), folder=tmp_path)
    yield made
    made.close()


def test_same_key_same_answer_one_message(pair: Pair, tmp_path: Path) -> None:
    with pair.client(store=tmp_path / "client.db") as client:
        first = client.call_raw(ECHO, body("1"), key="invoice-7")
        assert client.call_raw(ECHO, body("1"), key="invoice-7") == first
        assert client.call_raw(ECHO, body("1"), key="invoice-8") == first
    assert len(pair.received) == 2


def test_another_process_gets_the_stored_answer(pair: Pair, tmp_path: Path) -> None:
    with pair.client(store=tmp_path / "client.db") as client:
        first = client.call_raw(ECHO, body("1"), key="invoice-7")
    with pair.client(store=tmp_path / "client.db") as client:
        assert client.call_raw(ECHO, body("1"), key="invoice-7") == first
    assert len(pair.received) == 1


def test_another_body_or_action_is_refused(pair: Pair, tmp_path: Path) -> None:
    with pair.client(store=tmp_path / "client.db") as client:
        client.call_raw(ECHO, body("1"), key="invoice-7")
        with pytest.raises(castile.UsageError, match="another action or body"):
            client.call_raw(ECHO, body("2"), key="invoice-7")
        with pytest.raises(castile.UsageError, match="another action or body"):
            client.call_raw("urn:test/Tell", body("1"), key="invoice-7")


def test_joins_the_message_under_way(pair: Pair, tmp_path: Path) -> None:
    """The first call times out; the same call by the next client gets the first one's answer."""
    lost = threading.Event()
    pair.network.fate = lambda _, payload: None if lost.is_set() else _lose_application(payload)
    client = pair.client(store=tmp_path / "client.db")
    with pytest.raises(castile.InDoubt):
        client.call_raw(ECHO, body("1"), key="invoice-7", timeout=0.5)
    (open_call,) = client.unfinished()
    assert open_call.key == "invoice-7"
    client.close(keep=True)
    lost.set()
    with pair.client(store=tmp_path / "client.db") as client:
        assert client.call_raw(ECHO, body("1"), key="invoice-7", timeout=10) == body("1")
    assert [received[1] for received in pair.received] == [1]


def test_many_threads_one_key(pair: Pair, tmp_path: Path) -> None:
    answers: list[bytes] = []
    with pair.client(store=tmp_path / "client.db") as client:

        def call() -> None:
            answers.append(client.call_raw(ECHO, body("1"), key="invoice-7"))

        threads = [threading.Thread(target=call) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [body("1")] * 6
    assert len(pair.received) == 1


def _lose_application(payload: bytes) -> str | None:
    return "drop-request" if b":Sequence " in payload else None


def test_a_one_way_message_goes_out_once(pair: Pair, tmp_path: Path) -> None:
    with pair.client(store=tmp_path / "client.db") as client:
        client.send_raw(TELL, body("1"), key="note-1")
        client.send_raw(TELL, body("1"), key="note-1")
        assert client.sequence.wait_until_acknowledged(10)
        client.send_raw(TELL, body("1"), key="note-1")
        with pytest.raises(castile.UsageError, match="another action or body"):
            client.send_raw(TELL, body("2"), key="note-1")
        with pytest.raises(castile.UsageError, match="another action or body"):
            client.call_raw(TELL, body("1"), key="note-1")
    with pair.client(store=tmp_path / "client.db") as client:
        client.send_raw(TELL, body("1"), key="note-1")
        client.send_raw(TELL, body("1"), key="note-2")
        assert client.sequence.wait_until_acknowledged(10)
    assert len(pair.received) == 2


@pytest.mark.parametrize("one_way", [False, True])
def test_a_failed_call_frees_its_key_once_it_is_told(pair: Pair, tmp_path: Path, one_way: bool) -> None:
    """"a number that failed for good frees its key and says so" (CL-31)."""
    lost = threading.Event()
    pair.network.fate = lambda _, payload: None if lost.is_set() else _lose_application(payload)

    def again(client: castile.Client) -> None:
        if one_way:
            client.send_raw(TELL, body("1"), key="invoice-7")
        else:
            client.call_raw(ECHO, body("1"), key="invoice-7", timeout=0.5)

    client = pair.client(store=tmp_path / "client.db")
    with nullcontext() if one_way else pytest.raises(castile.InDoubt, match="stays in the outbox"):
        again(client)
    assert client.context is not None or one_way
    key = client._pump.keys[""]
    now = client._pump.now()
    client._pump.tell_failed(client._pump.run(lambda tx: requests.give_up(tx, key, "given up", now)))
    client.close(keep=True)
    lost.set()
    with pair.client(store=tmp_path / "client.db") as client:
        with pytest.raises((castile.InDoubt, SequenceCreationFailed), match="key= is free again"):
            again(client)
        assert [left.key for left in client.unfinished()] == [None]
        again(client)
        assert client.sequence.wait_until_acknowledged(10)
    assert len(pair.received) == 1


def test_keys_are_kept_a_week(tmp_path: Path) -> None:
    """Their replies outlive those of calls without a key (`Timers.key_retention`)."""
    timers = Settings().timers
    assert timers.retention < timers.key_retention == 7 * 86_400.0
    now = Now(1_700_000_000.0, 0.0)
    store = castile.store.open(tmp_path / "s.db", clock=lambda: now)
    for name, key in (("a", None), ("b", "k")):
        row = ReplyRow(name, "urn:e", "urn:a", b"", now.utc, key=key, consumed=now.utc)
        store.run(lambda tx, row=row: tx.save_reply(row)).result()  # type: ignore[misc]
    for passed, left in ((timers.retention + 1, [None, "b"]), (timers.key_retention + 1, [None, None])):
        later = Now(now.utc + passed, passed)
        store.run(lambda tx, later=later: tx.sweep(later, 100)).result()  # type: ignore[misc]
        found = [store.run(lambda tx, name=name: tx.reply(name)).result() for name in ("a", "b")]  # type: ignore[misc]
        assert [row and row.message_id for row in found] == left
    store.close()
