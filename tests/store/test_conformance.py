"""What any store must do: the same tests for a file and for memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from castile.clock import Now
from castile.config import Limits, Settings, Timers
from castile.errors import SecurityFailure, StoreError, StoreFull, UsageError
from castile.protocol.ranges import RangeSet
from castile.store import Store, Transaction
from castile.store import open as open_store
from castile.store.records import SourceRecord

from .samples import (
    ENDPOINT,
    KEY,
    MARKER,
    START,
    accept,
    context,
    conversation,
    destination,
    do,
    enqueue,
    fill,
    inbox,
    outbox,
    reply,
    source,
    submit,
)

pytestmark = pytest.mark.row("ST-01")


class Conformance:
    """Sub-classes say where the store is."""

    settings = Settings(
        limits=Limits(replay_rows=5),
        timers=Timers(retention=100.0, key_retention=100.0, token_cache_after_expiry=50.0),
    )

    @pytest.fixture
    def store(self, place: Path | None) -> Iterator[Store]:
        opened = open_store(place, seal=KEY, settings=self.settings, clock=lambda: START)
        yield opened
        opened.close()

    # rows

    @pytest.mark.row("ST-02")
    def test_every_record_comes_back_as_it_was(self, store: Store) -> None:
        row = outbox(relates_to="urn:x", two_way=True, fault=True, acknowledged=True, key="k", last_error="é")
        do(store, fill)
        enqueue(store, replace(row, message_id="urn:m:x"))
        assert do(store, lambda tx: tx.context("urn:c:1", side="client")) == conversation()
        assert do(store, lambda tx: tx.context("urn:c:1", side="service")) == context()
        assert do(store, lambda tx: tx.source("k1")) == source()
        assert do(store, lambda tx: tx.destination("urn:d:1")) == destination()
        assert do(store, lambda tx: tx.outbox_row("urn:m:x")) == replace(row, message_id="urn:m:x")
        assert do(store, lambda tx: tx.inbox_row("urn:d:1", 2)) == inbox(2, last_error="MARKER-of-an-error")
        assert do(store, lambda tx: tx.reply("urn:m:k1:3")) == reply(3, key="invoice-3")

    def test_what_is_not_there_is_none(self, store: Store) -> None:
        def nothing(tx: Transaction) -> list[object]:
            return [
                tx.context("?"),
                tx.source("?"),
                tx.source_of("?"),
                tx.destination("?"),
                tx.destination_by_create("?"),
                tx.destination_by_offer("?"),
                tx.outbox_row("?"),
                tx.outbox_by_key(ENDPOINT, "?"),
                tx.reply_to("?", 1),
                tx.inbox_row("?", 1),
                tx.reply("?"),
                tx.reply_by_key(ENDPOINT, "?"),
                tx.next_due(endpoint=ENDPOINT),
            ]

        assert do(store, nothing) == [None] * 13
        assert not do(store, lambda tx: tx.update_outbox("?", attempts=1))
        assert not do(store, lambda tx: tx.update_inbox("?", 1, attempts=1))
        assert not do(store, lambda tx: tx.consume("?", 1.0))
        assert not do(store, lambda tx: tx.dequeue("?"))

    def test_a_state_is_replaced(self, store: Store) -> None:
        do(store, lambda tx: tx.save_source(source(identifier=None)))
        before = do(store, lambda tx: tx.source("k1"))
        assert before is not None
        assert before.state.identifier is None
        longer = replace(before.state, identifier="urn:s:9", acknowledged=RangeSet(((1, 9),)), next_number=10)
        do(store, lambda tx: tx.save_source(replace(before, state=longer, create_body=None)))
        after = do(store, lambda tx: tx.source_of("urn:s:9", side="client", endpoint=ENDPOINT))
        assert after == SourceRecord(longer, "client", ENDPOINT)
        assert do(store, lambda tx: len(tx.sources())) == 1

    def test_a_step_that_raised_leaves_no_state_behind(self, store: Store) -> None:
        do(store, lambda tx: tx.save_source(source()))

        def broken(tx: Transaction) -> None:
            tx.save_source(replace(source(), ended=5.0))
            assert tx.source("k1") == replace(source(), ended=5.0)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            do(store, broken)
        assert do(store, lambda tx: tx.source("k1")) == source()

    def test_peers_may_give_the_same_identifier(self, store: Store) -> None:
        other = "http://other.example/"
        do(store, lambda tx: tx.save_context(conversation()))
        do(store, lambda tx: tx.save_context(conversation(endpoint=other)))
        do(store, lambda tx: tx.save_source(source()))
        do(store, lambda tx: tx.save_source(replace(source("k2"), endpoint=other)))
        found = do(store, lambda tx: tx.context("urn:c:1", side="client", endpoint=other))
        assert found == conversation(endpoint=other)
        theirs = do(store, lambda tx: tx.source_of("urn:s:1", endpoint=other))
        assert theirs is not None
        assert theirs.state.key == "k2"

    def test_two_sources_of_one_endpoint_cant_have_one_identifier(self, store: Store) -> None:
        do(store, lambda tx: tx.save_source(source()))
        with pytest.raises(StoreError, match="castile_sources"):
            do(store, lambda tx: tx.save_source(source("k2")))
        assert do(store, lambda tx: tx.source("k2")) is None

    def test_sequences_are_found_by_what_the_peer_says(self, store: Store) -> None:
        do(store, lambda tx: tx.save_destination(destination()))
        assert do(store, lambda tx: tx.destination_by_create("urn:m:create")) == destination()
        assert do(store, lambda tx: tx.destination_by_offer("urn:o:1", endpoint=ENDPOINT)) == destination()
        assert do(store, lambda tx: tx.destination_by_offer("urn:o:1", endpoint="urn:other")) is None

    def test_listing_what_is_unfinished(self, store: Store) -> None:
        def save(tx: Transaction) -> None:
            for number, ended in ((1, None), (2, 5.0), (3, None)):
                tx.save_source(source(f"k{number}", f"urn:s:{number}", ended=ended))
                tx.save_destination(destination(f"urn:d:{number}", ended=ended))
                tx.save_context(replace(context(f"urn:c:{number}"), ended=ended))

        do(store, save)
        sources = do(store, lambda tx: tx.sources(side="client", endpoint=ENDPOINT, unfinished=True))
        assert [record.state.key for record in sources] == ["k1", "k3"]
        assert len(do(store, lambda tx: tx.sources())) == 3
        assert len(do(store, lambda tx: tx.destinations(unfinished=True))) == 2
        assert len(do(store, lambda tx: tx.contexts(side="service"))) == 2
        assert len(do(store, lambda tx: tx.contexts(side="service", ended=True))) == 3
        assert do(store, lambda tx: tx.count_destinations("service", "ada")) == 2
        assert do(store, lambda tx: tx.count_destinations("service", "eve")) == 0
        assert do(store, lambda tx: tx.count_contexts("service", "ada")) == 2
        assert do(store, lambda tx: tx.count_contexts("client")) == 0

    def test_forgetting_a_sequence_takes_its_messages_along(self, store: Store) -> None:
        do(store, fill)
        row = outbox(message_id="urn:m:r", kind="reply", answers_sequence="urn:d:1", answers_number=2)
        row = replace(row, sequence_key=None, number=None)
        enqueue(store, row)
        do(store, lambda tx: tx.forget_source("k1"))
        assert do(store, lambda tx: (tx.source("k1"), tx.outbox("k1"))) == (None, [])
        assert do(store, lambda tx: tx.reply_to("urn:d:1", 2)) == row
        do(store, lambda tx: tx.forget_destination("urn:d:1"))
        assert do(store, lambda tx: (tx.destination("urn:d:1"), tx.inbox(sequence="urn:d:1"))) == (None, [])
        assert do(store, lambda tx: tx.reply_to("urn:d:1", 2)) is None

    # outbox

    def test_only_a_message_that_waits_for_no_reply_is_done_with_its_acknowledgement(
        self, store: Store
    ) -> None:
        told, asked = outbox(1), outbox(2, two_way=True)
        enqueue(store, told, asked)
        done = do(
            store,
            lambda tx: [tx.dequeue(row.message_id, one_way=True) for row in (told, asked)],
        )
        assert done == [True, False]
        assert do(store, lambda tx: tx.outbox("k1")) == [asked]

    def test_messages_become_due_in_order(self, store: Store) -> None:
        rows = [outbox(1, due=12.0), outbox(2, due=11.0), outbox(3, due=12.0), outbox(4, due=None)]
        enqueue(store, *rows, outbox(5, due=1.0, side="service"), outbox(6, due=1.0, endpoint="urn:other"))
        due = do(store, lambda tx: tx.due(12.0, 10, endpoint=ENDPOINT))
        assert [row.number for row in due] == [2, 1, 3]
        assert [row.number for row in do(store, lambda tx: tx.due(12.0, 2, endpoint=ENDPOINT))] == [2, 1]
        assert do(store, lambda tx: tx.due(0.5, 10, endpoint=ENDPOINT)) == []
        sending = [rows[1].message_id, rows[2].message_id]
        others = do(store, lambda tx: tx.due(12.0, 1, endpoint=ENDPOINT, besides=sending))
        assert [row.number for row in others] == [1]
        assert do(store, lambda tx: tx.next_due(endpoint=ENDPOINT, besides=sending)) == 12.0
        assert do(store, lambda tx: tx.next_due(endpoint=ENDPOINT)) == 11.0
        assert do(store, lambda tx: tx.next_due(side="service", endpoint=ENDPOINT)) == 1.0

    def test_an_attempt_is_noted(self, store: Store) -> None:
        enqueue(store, outbox())
        key, error = "urn:m:k1:1", "connection refused"
        assert do(
            store, lambda tx: tx.update_outbox(key, due=99, attempts=3, acknowledged=True, last_error=error)
        )
        assert do(store, lambda tx: tx.outbox_row(key)) == outbox(
            due=99.0, attempts=3, acknowledged=True, last_error=error
        )
        do(store, lambda tx: tx.update_outbox("urn:m:k1:1", due=None, last_error=None))
        assert do(store, lambda tx: tx.outbox_row("urn:m:k1:1")) == outbox(
            due=None, attempts=3, acknowledged=True
        )

    def test_acknowledged_messages_are_marked_once_and_purged(self, store: Store) -> None:
        enqueue(store, *(outbox(number) for number in range(1, 8)))
        enqueue(store, outbox(2, "k2"))
        assert do(store, lambda tx: tx.mark_acknowledged("k1", [(2, 3)])) == ["urn:m:k1:2", "urn:m:k1:3"]
        marked = do(store, lambda tx: tx.mark_acknowledged("k1", [(1, 2), (6, 1 << 62)]))
        assert marked == ["urn:m:k1:1", "urn:m:k1:6", "urn:m:k1:7"]
        oldest = do(store, lambda tx: (tx.oldest("k1"), tx.oldest("k2"), tx.oldest("k3")))
        assert [row and row.number for row in oldest] == [4, 2, None]
        assert do(store, lambda tx: tx.purge("k1", [(1, 3), (7, 9)])) == 4
        assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))] == [4, 5, 6]
        assert do(store, lambda tx: (tx.outbox_count("k1"), tx.outbox_count("k2"))) == (3, 1)
        assert do(store, lambda tx: tx.dequeue("urn:m:k1:4"))
        assert do(store, lambda tx: tx.outbox_count("k1")) == 2
        kinds = do(
            store,
            lambda tx: (tx.outbox_count("k1", kind="application"), tx.outbox_count("k1", kind="create")),
        )
        assert kinds == (2, 0)

    @pytest.mark.row("ST-30")
    def test_at_recovery_everything_unanswered_is_due(self, store: Store) -> None:
        rows = [
            outbox(1, due=500.0),
            outbox(2, due=None),
            outbox(3, due=None, acknowledged=True),
            outbox(4, due=None, acknowledged=True, two_way=True),
            outbox(5, "k2", due=700.0),
        ]
        enqueue(store, *rows)
        assert do(store, lambda tx: tx.wake(20.0, side="client", sequence_key="k1")) == 3
        assert [row.number for row in do(store, lambda tx: tx.due(20.0, 10, endpoint=ENDPOINT))] == [1, 2, 4]
        assert do(store, lambda tx: tx.wake(20.0, side="client")) == 4

    def test_lifecycle_messages_come_before_numbered_ones(self, store: Store) -> None:
        enqueue(store, outbox(2), outbox(1))
        enqueue(store, replace(outbox(message_id="urn:m:create", kind="create"), number=None))
        assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))] == [None, 1, 2]

    def test_a_call_is_found_by_the_callers_key(self, store: Store) -> None:
        row = outbox(key="invoice-7")
        enqueue(store, row)
        assert do(store, lambda tx: tx.outbox_by_key(ENDPOINT, "invoice-7")) == row
        assert do(store, lambda tx: tx.outbox_by_key("urn:other", "invoice-7")) is None
        with pytest.raises(StoreError, match="castile_outbox"):
            enqueue(store, outbox(2, key="invoice-7"))
        enqueue(store, outbox(2, key="invoice-7", endpoint="urn:other"))

    def test_a_message_is_enqueued_and_accepted_once(self, store: Store) -> None:
        do(store, fill)
        with pytest.raises(StoreError, match="castile_outbox"):
            enqueue(store, outbox())
        with pytest.raises(StoreError, match="castile_inbox"):
            accept(store, inbox(2))

    # inbox and replies

    def test_a_message_is_worked_off(self, store: Store) -> None:
        accept(store, inbox(1), inbox(2), inbox(3, status="held"))
        ready = do(store, lambda tx: tx.inbox(status="ready", side="service", endpoint=ENDPOINT, limit=1))
        assert ready == [inbox(1)]
        do(store, lambda tx: tx.update_inbox("urn:d:1", 1, status="running", attempts=1))
        running = do(store, lambda tx: tx.inbox_row("urn:d:1", 1))
        assert running == inbox(1, status="running", attempts=1)
        do(store, lambda tx: tx.update_inbox("urn:d:1", 1, status="done", reply_message_id="urn:m:r"))
        done = do(store, lambda tx: tx.inbox_row("urn:d:1", 1))
        assert done == inbox(1, status="done", attempts=1, body=b"", reply_message_id="urn:m:r")
        assert [row.number for row in do(store, lambda tx: tx.inbox(sequence="urn:d:1"))] == [2, 3]
        assert do(store, lambda tx: tx.inbox(status="done")) == [done]
        do(store, lambda tx: tx.update_inbox("urn:d:1", 2, status="parked", due=7.5, last_error="no"))
        parked = do(store, lambda tx: tx.inbox(status="parked"))
        assert parked == [inbox(2, status="parked", due=7.5, last_error="no")]
        assert do(store, lambda tx: tx.trim_inbox("urn:d:1", 9)) == 1
        assert do(store, lambda tx: len(tx.inbox())) == 2

    def test_a_reply_is_kept_until_it_is_consumed(self, store: Store) -> None:
        do(store, lambda tx: tx.save_reply(reply(1, key="invoice-1")))
        do(store, lambda tx: tx.save_reply(reply(2)))
        do(store, lambda tx: tx.save_reply(reply(1, body=b"<other/>")))
        assert do(store, lambda tx: tx.reply_by_key(ENDPOINT, "invoice-1")) == reply(1, key="invoice-1")
        assert len(do(store, lambda tx: tx.unconsumed(ENDPOINT))) == 2
        assert do(store, lambda tx: tx.consume("urn:m:k1:1", 12))
        assert do(store, lambda tx: tx.unconsumed()) == [reply(2)]
        assert do(store, lambda tx: tx.reply("urn:m:k1:1")) == reply(1, key="invoice-1", consumed=12.0)

    # keeping house

    def test_a_replay_is_refused_until_it_has_expired(self, store: Store) -> None:
        later = Now(START.utc + 301, START.tick + 301)
        do(store, lambda tx: tx.reject_replay(b"one", START.utc + 300, START))
        do(store, lambda tx: tx.reject_replay(b"two", START.utc + 300, START))
        with pytest.raises(SecurityFailure, match="replay"):
            do(store, lambda tx: tx.reject_replay(b"one", START.utc + 300, START))
        do(store, lambda tx: tx.reject_replay(b"one", later.utc + 300, later))
        with pytest.raises(SecurityFailure):
            do(store, lambda tx: tx.reject_replay(b"one", later.utc + 300, later))

    def test_the_replay_cache_is_bounded(self, store: Store) -> None:
        def remember(tx: Transaction) -> None:
            for number in range(5):
                tx.reject_replay(bytes([number]), START.utc + 300, START)

        do(store, remember)
        with pytest.raises(StoreFull, match="5 messages"):
            do(store, lambda tx: tx.reject_replay(b"one more", START.utc + 300, START))
        later = Now(START.utc + 301, START.tick + 301)
        do(store, lambda tx: tx.reject_replay(b"one more", later.utc + 300, later))

    @pytest.mark.row("ST-11")
    @pytest.mark.row("ST-12")
    def test_what_has_ended_is_swept_in_bounded_steps(self, store: Store) -> None:
        do(store, fill)
        do(store, lambda tx: tx.save_source(replace(source(), ended=START.utc)))
        do(store, lambda tx: tx.save_destination(replace(destination(), ended=START.utc)))
        do(store, lambda tx: tx.save_source(source("alive", "urn:s:alive")))
        do(store, lambda tx: tx.consume("urn:m:k1:1", START.utc))
        early = Now(START.utc + 99, 0.0)
        # The contexts expired long before, and the first of the replies isn't over its retention.
        assert do(store, lambda tx: tx.sweep(early, 100)) == 2
        late = Now(START.utc + 5_000, 0.0)
        counts: list[int] = []
        while not counts or counts[-1] == 2:
            counts.append(do(store, lambda tx: tx.sweep(late, 2)))
        assert sum(counts) == 1 + 1 + (3 + 1)
        # A client's messages that nobody knows the fate of stay until somebody has dealt with them.
        assert [record.state.key for record in do(store, lambda tx: tx.sources())] == ["k1", "alive"]
        for row in do(store, lambda tx: tx.outbox("k1")):
            do(store, lambda tx, name=row.message_id: tx.dequeue(name))  # type: ignore[misc]
        assert do(store, lambda tx: tx.sweep(late, 2)) == 1
        assert do(store, lambda tx: [record.state.key for record in tx.sources()]) == ["alive"]
        assert do(store, lambda tx: tx.destinations()) == []
        assert len(do(store, lambda tx: tx.unconsumed())) == 2

    # steps

    @pytest.mark.row("ST-03")
    def test_a_step_that_raises_undoes_itself_alone(self, store: Store) -> None:
        gate = Event()

        def wait(_tx: Transaction) -> None:
            gate.wait(10)

        def broken(tx: Transaction) -> None:
            tx.enqueue(outbox(2))
            raise ZeroDivisionError("of the step")

        steps: list[Future[None]] = [store.run(wait)]
        steps += [store.run(lambda tx: tx.enqueue(outbox(1))), store.run(broken)]
        steps += [store.run(lambda tx: tx.enqueue(outbox(3)))]
        gate.set()
        steps[1].result(10)
        with pytest.raises(ZeroDivisionError, match="of the step"):
            steps[2].result(10)
        steps[3].result(10)
        assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))] == [1, 3]

    @pytest.mark.row("ST-04")
    def test_steps_that_queue_together_share_a_commit(self, store: Store) -> None:
        gate, entered = Event(), Event()

        def wait(_tx: Transaction) -> None:
            entered.set()
            gate.wait(10)

        first = store.run(wait)
        entered.wait(10)
        before = store.commits
        steps = [store.run(submit(number)) for number in range(1, 201)]
        gate.set()
        for step in [first, *steps]:
            step.result(10)
        assert store.commits - before == 2  # 128 and 72

    def test_reading_costs_no_commit(self, store: Store) -> None:
        do(store, fill)
        before = store.commits
        do(store, lambda tx: (tx.due(99.0, 9, endpoint=ENDPOINT), tx.source("k1"), tx.unconsumed()))
        assert store.commits == before

    def test_an_attempt_inside_a_step_is_undone_alone(self, store: Store) -> None:
        def step(tx: Transaction) -> str:
            tx.enqueue(outbox(1))
            try:
                with tx.attempt():
                    tx.enqueue(outbox(2))
                    raise ZeroDivisionError
            except ZeroDivisionError:
                with tx.attempt():
                    tx.enqueue(outbox(3))
                return "answered"

        assert do(store, step) == "answered"
        assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))] == [1, 3]

    def test_a_step_cant_start_another(self, store: Store) -> None:
        with pytest.raises(UsageError, match="a step can't start another"):
            do(store, lambda tx: store.run(lambda other: other.sources()).result())

    def test_a_callback_may_start_a_step(self, store: Store) -> None:
        chained: Future[int] = Future()

        def following(_: Future[None]) -> None:
            store.run(lambda tx: chained.set_result(tx.outbox_count("k1")))

        store.run(lambda tx: tx.enqueue(outbox())).add_done_callback(following)
        assert chained.result(10) == 1

    def test_a_cancelled_step_doesnt_run(self, store: Store) -> None:
        gate, entered = Event(), Event()

        def wait(_tx: Transaction) -> None:
            entered.set()
            gate.wait(10)

        store.run(wait)
        entered.wait(10)
        step = store.run(lambda tx: tx.enqueue(outbox()))
        assert step.cancel()
        gate.set()
        assert do(store, lambda tx: tx.outbox_count("k1")) == 0

    def test_closing_finishes_what_is_queued(self, store: Store) -> None:
        steps = [store.run(submit(number)) for number in range(1, 300)]
        store.close()
        store.close()
        assert all(step.done() and step.exception() is None for step in steps)
        with pytest.raises(UsageError, match="closed"):
            store.run(lambda tx: tx.sources())

    def test_bodies_of_any_size(self, store: Store) -> None:
        for number, size in enumerate((0, 1, 4_096, 1 << 20), 1):
            body = (MARKER * (size // len(MARKER) + 1))[:size]
            enqueue(store, outbox(number, body=body))
            assert do(store, lambda tx: tx.outbox("k1"))[-1].body == body

    def test_numbers_up_to_the_highest(self, store: Store) -> None:
        row = inbox((1 << 63) - 1)
        accept(store, row)
        assert do(store, lambda tx: tx.inbox_row(row.sequence, row.number)) == row


class TestFile(Conformance):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "transfers.db"

    def test_the_store_is_there_after_it_was_closed(self, store: Store, place: Path) -> None:
        do(store, fill)
        store.close()
        again = open_store(place, seal=KEY)
        assert do(again, lambda tx: tx.source("k1")) == source()
        assert do(again, lambda tx: tx.context("urn:c:1", side="client")) == conversation()
        assert do(again, lambda tx: len(tx.outbox("k1"))) == 3
        with pytest.raises(SecurityFailure):
            do(again, lambda tx: tx.reject_replay(b"evidence", START.utc + 300, START))
        again.close()


class TestMemory(Conformance):
    @pytest.fixture
    def place(self) -> None:
        return None
