"""A client's store over time: what is swept, what stays, and what is told of a row that is damaged."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import castile
from castile.errors import StoreDamaged
from castile.store import Store
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import Moved, body, fast, until

RETENTION = 1_000.0
KEYS = 5_000.0


def counts(store: Store) -> dict[str, int]:
    """Rows in each table."""

    def step(tx: object) -> dict[str, int]:
        names = ("contexts", "sources", "destinations", "outbox", "replies")
        connection = tx._connection  # type: ignore[attr-defined]
        return {
            name: connection.execute(f"SELECT count(*) FROM castile_{name}").fetchone()[0] for name in names
        }

    return store.run(step).result(10)


@pytest.mark.row("ST-11", "ST-12", "RM-58", "CL-31")
def test_a_client_sweeps_what_is_done_and_keeps_what_is_in_doubt(pairs: Pairs, tmp_path: Path) -> None:
    clock, place = Moved(), tmp_path / "client.db"
    pair = pairs(clock=clock, settings=fast(retention=RETENTION, key_retention=KEYS))
    client = pair.client(store=place)
    client.call_raw("urn:test/Echo", body(1))
    client.call_raw("urn:test/Echo", body(2), key="invoice-2")
    client.close()
    client = pair.client(store=place)
    client.call_raw("urn:test/Echo", body(3))
    pair.network.down = True
    client.send_raw("urn:test/Tell", body(4))
    assert client.context is not None
    client.context.cancel(force=True)
    client.close(keep=True)
    pair.network.down = False

    clock.seconds += RETENTION + 10
    client = pair.client(store=place)
    found = counts(client._store)
    assert (found["sources"], found["outbox"], found["replies"]) == (1, 1, 1)
    (doubt,) = client.unfinished()
    assert (doubt.number, doubt.in_doubt) == (2, "the security context was cancelled")
    assert client.call_raw("urn:test/Echo", body(2), key="invoice-2") == body(2)
    assert pair.bodies.count(body(2)) == 1
    clock.seconds += KEYS
    client._pump._rouse()  # the thread looks once a minute
    until(lambda: counts(client._store)["replies"] == 0)
    client.take(doubt.message_id)
    clock.seconds += RETENTION
    client._pump._rouse()
    until(lambda: not any(counts(client._store).values()))
    client.close()


@pytest.mark.row("ST-35")
@pytest.mark.parametrize("table", ["outbox", "sources"])
def test_whoever_waits_for_a_damaged_row_is_told_at_once(pairs: Pairs, tmp_path: Path, table: str) -> None:
    pair = pairs()
    client = pair.client(store=tmp_path / "client.db", timeout=60.0)
    client.call_raw("urn:test/Echo", body(1))
    pair.network.down = True
    sent = len(pair.network.sent)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.call_raw, "urn:test/Echo", body(2))
        until(lambda: len(pair.network.sent) > sent)
        column = "attempts = attempts + 100" if table == "outbox" else "created = created + 1"
        client._store.run(
            lambda tx: tx._connection.execute(f"UPDATE castile_{table} SET {column}")  # type: ignore[attr-defined]
        ).result(10)
        started = time.monotonic()
        with pytest.raises(StoreDamaged, match="can't be read"):
            waiting.result(30)
        assert time.monotonic() - started < 20
    client.close(keep=True)


@pytest.mark.row("ST-11", "ST-12")
def test_a_service_sweeps_without_any_token_too(pairs: Pairs) -> None:
    """What nobody asks for any more goes when the next sequence is made."""
    clock = Moved()
    pair = pairs(
        castile.EndpointPolicy.of("1.3", secure=False), clock=clock, settings=fast(retention=RETENTION)
    )
    for number in range(3):
        client = pair.client()
        assert client.call_raw("urn:test/Echo", body(number)) == body(number)
        client.close()
        clock.seconds += RETENTION + 10
    assert counts(pair.party.store)["destinations"] == 1
