"""Every query on the path uses an index, and none sorts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from castile.clock import Now
from castile.store import Store, Transaction

from .samples import ENDPOINT, START, do, fill, inbox, opened, outbox, reply, source

PATH: dict[str, Callable[[Transaction], object]] = {
    "context": lambda tx: tx.context("urn:c:1"),
    "context of a peer": lambda tx: tx.context("urn:c:1", side="client", endpoint=ENDPOINT),
    "save_source": lambda tx: tx.save_source(source()),
    "count_contexts": lambda tx: tx.count_contexts("service", "ada"),
    "source": lambda tx: tx.source("k1"),
    "source_of": lambda tx: tx.source_of("urn:s:1"),
    "source_of a peer": lambda tx: tx.source_of("urn:s:1", side="client", endpoint=ENDPOINT),
    "unfinished sources": lambda tx: tx.sources(side="client", endpoint=ENDPOINT, unfinished=True),
    "destination": lambda tx: tx.destination("urn:d:1"),
    "destination_by_create": lambda tx: tx.destination_by_create("urn:m", endpoint=ENDPOINT),
    "destination_by_offer": lambda tx: tx.destination_by_offer("urn:o", endpoint=ENDPOINT),
    "count_destinations": lambda tx: tx.count_destinations("service", "ada"),
    "enqueue": lambda tx: tx.enqueue(outbox(99)),
    "outbox_row": lambda tx: tx.outbox_row("urn:m:k1:1"),
    "outbox_by_key": lambda tx: tx.outbox_by_key(ENDPOINT, "invoice-1"),
    "reply_to": lambda tx: tx.reply_to("urn:d:1", 1),
    "update_outbox": lambda tx: tx.update_outbox("urn:m:k1:1", due=3.0, attempts=1),
    "outbox": lambda tx: tx.outbox("k1"),
    "outbox_count": lambda tx: tx.outbox_count("k1"),
    "due": lambda tx: tx.due(99.0, 9, endpoint=ENDPOINT),
    "next_due": lambda tx: tx.next_due(endpoint=ENDPOINT),
    "due besides": lambda tx: tx.due(99.0, 9, endpoint=ENDPOINT, besides=["urn:m:k1:1"]),
    "next_due besides": lambda tx: tx.next_due(endpoint=ENDPOINT, besides=["urn:m:k1:1"]),
    "wake one sequence": lambda tx: tx.wake(1.0, side="client", sequence_key="k1"),
    "mark_acknowledged": lambda tx: tx.mark_acknowledged("k1", [(1, 2)]),
    "purge": lambda tx: tx.purge("k1", [(1, 2)]),
    "dequeue": lambda tx: tx.dequeue("urn:m:k1:3"),
    "accept": lambda tx: tx.accept(inbox(99)),
    "inbox_row": lambda tx: tx.inbox_row("urn:d:1", 1),
    "open inbox": lambda tx: tx.inbox(),
    "inbox of a sequence": lambda tx: tx.inbox(sequence="urn:d:1", status="ready"),
    "update_inbox": lambda tx: tx.update_inbox("urn:d:1", 1, status="done"),
    "trim_inbox": lambda tx: tx.trim_inbox("urn:d:1", 9),
    "save_reply": lambda tx: tx.save_reply(reply(9)),
    "reply_by_key": lambda tx: tx.reply_by_key(ENDPOINT, "invoice-1"),
    "consume": lambda tx: tx.consume("urn:m:k1:1", 1.0),
    "unconsumed": lambda tx: tx.unconsumed(ENDPOINT),
    "reject_replay": lambda tx: tx.reject_replay(b"e", START.utc + 1, START),
    "sweep": lambda tx: tx.sweep(Now(START.utc + 1e9, 0.0), 9),
    "forget_source": lambda tx: tx.forget_source("k1"),
    "forget_destination": lambda tx: tx.forget_destination("urn:d:1"),
}


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Store]:
    store = opened(tmp_path / "a.db")
    do(store, fill)
    yield store
    store.close()


def plans(tx: Transaction, work: Callable[[Transaction], object]) -> list[str]:
    """How SQLite runs each statement of some work."""
    connection: sqlite3.Connection = tx._connection  # type: ignore[attr-defined]
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    work(tx)
    connection.set_trace_callback(None)
    return [
        row[3]
        for statement in statements
        if not statement.startswith("--")
        for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]


@pytest.mark.row("ST-13")
@pytest.mark.parametrize("name", PATH)
def test_each_query_uses_an_index(filled: Store, name: str) -> None:
    found = do(filled, lambda tx: plans(tx, PATH[name]))
    wrong = [
        step
        for step in found
        if "TEMP B-TREE" in step or (step.startswith("SCAN") and "castile_inbox_open" not in step)
    ]
    assert not wrong, found


@pytest.mark.row("ST-11")
def test_the_work_for_a_message_doesnt_grow(filled: Store) -> None:
    """Counted in steps of SQLite's virtual machine, which no other load disturbs."""

    def cost(tx: Transaction) -> int:
        connection: sqlite3.Connection = tx._connection  # type: ignore[attr-defined]
        ticks = 0

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        number = 1_000_000
        connection.set_progress_handler(tick, 1)
        tx.save_source(source())
        tx.enqueue(outbox(number))
        tx.due(5.0, 1, endpoint=ENDPOINT)
        tx.update_outbox(f"urn:m:k1:{number}", attempts=1, due=9e9)
        tx.mark_acknowledged("k1", [(number, number)])
        tx.purge("k1", [(number, number)])
        tx.accept(inbox(number))
        tx.update_inbox("urn:d:1", number, status="done")
        tx.trim_inbox("urn:d:1", 1)
        tx.reject_replay(str(number).encode(), 9e9, START)
        connection.set_progress_handler(None, 0)
        tx.dequeue(f"urn:m:k1:{number}")
        connection.execute("DELETE FROM castile_inbox WHERE number = ?", [number])
        connection.execute("DELETE FROM castile_replays")
        return ticks

    def grow(tx: Transaction) -> None:
        for number in range(10, 5_000):
            tx.enqueue(outbox(number, body=b""))
            tx.accept(inbox(number, body=b"", digest=None))
            tx.reject_replay(str(-number).encode(), 9e9, START)

    before = do(filled, cost)
    do(filled, grow)
    after = do(filled, cost)
    assert after <= before * 1.1
