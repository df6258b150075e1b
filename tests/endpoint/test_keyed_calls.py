"""A call that is made again with its own key (features CL-31)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import castile
from tests.endpoint.pair import Pair

ECHO = "urn:test/Echo"


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
