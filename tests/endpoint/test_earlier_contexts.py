"""What a restarted client does with the security contexts that it finds in its store (ST-33)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import castile
from castile.waiting import blocking
from tests.endpoint.pair import Pair

ECHO, BODY = "urn:test/Echo", b'<a xmlns="urn:x">1</a>'


@pytest.fixture(params=["1.3", "2005"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(castile.EndpointPolicy.of(request.param), folder=tmp_path)
    yield made
    made.close()


def live(client: castile.Client) -> list[str]:
    records = client._store.run(lambda tx: tx.contexts(side="client")).result()
    return [record.state.identifier for record in records]


def test_an_earlier_context_is_given_back(pair: Pair, tmp_path: Path) -> None:
    """Also where the earlier process ended before it had made a sequence."""
    first = pair.client(store=tmp_path / "client.db")
    blocking(first._pump.conversations.identify(first._pump.now().tick + 10))
    first.close(keep=True)
    with pair.client(store=tmp_path / "client.db") as client:
        deadline = time.monotonic() + 10
        while live(client) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert live(client) == []


def test_a_new_context_is_not_taken_for_an_earlier_one(pair: Pair, tmp_path: Path) -> None:
    """It is in the store before it is named as this process's own; the end of an earlier
    sequence falls in between."""
    first = pair.client(store=tmp_path / "client.db")
    first.call_raw(ECHO, BODY)
    first.close(keep=True)
    with pair.client(store=tmp_path / "client.db") as client:
        made: list[str] = []

        def slow_disk(identifier: str, *_: object) -> None:
            made.append(identifier)
            time.sleep(1.0)  # just in between

        client._party.keylog = slow_disk
        assert client.call_raw(ECHO, BODY, timeout=10) == BODY
        assert len(made) == 1
        assert made[0] in live(client)
