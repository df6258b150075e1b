"""Several openings of one file: who owns what, who is out, and a copy that was put back."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from castile.errors import StoreBusy, StoreError, StoreFenced, StoreInvalid
from castile.protocol import destination as destinations
from castile.protocol.source import Phase
from castile.store import Sign, Store, Transaction
from castile.store.lock import WriterLock, lives, owner_file
from castile.store.mark import Mark, mark_file
from castile.store.owners import Owner, owners

from .samples import (
    ENDPOINT,
    conversation,
    destination,
    do,
    enqueue,
    inbox,
    opened,
    outbox,
    source,
    submit,
)


def known(store: Store) -> list[Owner]:
    return do(store, lambda tx: owners(tx._connection))  # type: ignore[attr-defined]


def abandoned(path: Path) -> int:
    """An owner whose process was killed: its row is open, and nobody holds its lock."""
    store = opened(path)
    do(store, left)
    identifier = do(store, lambda tx: tx.owner)
    owner_file(path, identifier).unlink()
    store._database.ownership.id = 0  # type: ignore[attr-defined]
    store.close()
    return identifier


def left(tx: Transaction) -> None:
    tx.save_source(source())
    tx.enqueue(outbox(1, due=1.0))
    tx.save_context(conversation())
    tx.save_destination(destination())
    tx.accept(inbox(1))


@pytest.mark.row("ST-09")
def test_two_openings_see_each_others_commits(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "a.db"), opened(tmp_path / "a.db")
    for number in range(1, 20):
        enqueue((first, second)[number % 2], outbox(number))
    for store in (first, second):
        assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))] == list(range(1, 20))
    assert [each.ended for each in known(first)] == [None, None]
    first.close()
    assert [each.ended is None for each in known(second)] == [False, True]
    enqueue(second, outbox(20))  # the log was not taken away from under it
    second.close()
    again = opened(tmp_path / "a.db")
    assert do(again, lambda tx: tx.outbox_count("k1")) == 20
    again.close()


@pytest.mark.row("ST-09")
def test_only_ones_own_rows_are_due(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "a.db"), opened(tmp_path / "a.db")
    enqueue(first, outbox(1, due=1.0))
    enqueue(second, outbox(2, due=1.0))
    for store, number in ((first, 1), (second, 2)):
        due = do(store, lambda tx: tx.due(9.0, 10, endpoint=ENDPOINT))
        assert [row.number for row in due] == [number]
        assert do(store, lambda tx: tx.next_due(endpoint=ENDPOINT)) == 1.0
    first.close()
    second.close()


@pytest.mark.row("ST-09", "I8")
def test_what_a_dead_owner_had_is_taken_over_once(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    watcher = opened(place)
    signs: list[Sign] = []
    watcher.watch(signs.append)
    dead = abandoned(place)
    watcher.look().result(10)
    assert signs == [Sign.CHANGED, Sign.DIED]
    other = opened(place)
    taken = do(watcher, lambda tx: tx.adopt("client", ENDPOINT))
    assert (taken.sources, taken.contexts) == (("k1",), frozenset({"urn:c:1"}))
    assert do(watcher, lambda tx: tx.adopt("service", ENDPOINT)).destinations == {"urn:d:1"}
    for side in ("client", "service"):
        nothing = do(other, lambda tx, side=side: tx.adopt(side, ENDPOINT))  # type: ignore[misc]
        assert (nothing.sources, nothing.contexts, nothing.destinations) == ((), frozenset(), frozenset())
    assert [row.number for row in do(watcher, lambda tx: tx.due(9.0, 1, endpoint=ENDPOINT))] == [1]
    ended = {each.id for each in known(other) if each.ended is not None}
    assert ended == {dead}
    assert do(other, lambda tx: tx.owner) > dead
    watcher.look().result(10)  # which sees that one less is there
    signs.clear()
    watcher.look().result(10)
    assert signs == []
    watcher.close()
    other.close()


@pytest.mark.row("I8")
def test_an_owner_that_was_taken_over_commits_nothing_more(tmp_path: Path) -> None:
    """Its lock file was lost, so it was taken for dead while it was only slow."""
    place = tmp_path / "a.db"
    slow, other = opened(place), opened(place)
    do(slow, left)
    owner_file(place, 1).unlink()
    assert do(other, lambda tx: tx.adopt("client", ENDPOINT)).sources == ("k1",)
    for number in (2, 3):
        with pytest.raises(StoreFenced, match=r"another process has taken over .* open it again"):
            enqueue(slow, outbox(number))
    with pytest.raises(StoreFenced):
        do(slow, lambda tx: tx.sources())
    assert [row.number for row in do(other, lambda tx: tx.outbox("k1"))] == [1]
    slow.close()
    other.close()
    again = opened(place)
    enqueue(again, outbox(2))
    again.close()


def test_a_file_that_was_replaced_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    store = opened(place)
    shutil.copy(place, tmp_path / "b.db")
    (tmp_path / "b.db").rename(place)
    store.look().result(10)
    with pytest.raises(StoreFenced, match="was replaced"):
        enqueue(store, outbox())
    store.close()


@pytest.mark.row("ST-09")
def test_who_holds_the_lock_is_named_and_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("castile.store.database.BUSY_SECONDS", 0.2)
    store = opened(tmp_path / "a.db")
    holder = WriterLock(tmp_path / "a.db")
    holder._own = b"%12d" % 4_711
    holder.acquire(1)
    with pytest.raises(StoreBusy, match="process 4711 holds the store"):
        enqueue(store, outbox(1))
    with pytest.raises(StoreBusy, match="process 4711 holds the store"):
        opened(tmp_path / "a.db")
    step = store.run(submit(2))
    holder.release()
    step.result(10)
    assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))] == [2]
    holder.close()
    store.close()


@pytest.mark.row("ST-09", "N11")
def test_a_transactional_handler_is_waited_for_as_long_as_it_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("castile.store.database.BUSY_SECONDS", 0.2)
    place = tmp_path / "a.db"
    store, other = opened(place), opened(place)
    inside, go_on = Event(), Event()

    def handler(tx: Transaction) -> None:
        if tx.outbox_row(outbox(1).message_id) is None:
            tx.enqueue(outbox(1))
        inside.set()
        assert go_on.wait(20)

    working = store.run(handler, exclusive=True, seconds=20.0)
    assert inside.wait(10)
    waiting = other.run(submit(2))
    with pytest.raises(TimeoutError):
        waiting.result(0.6)  # longer than others are waited for
    go_on.set()
    working.result(10)
    waiting.result(10)
    assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))] == [1, 2]

    inside.clear()
    go_on.clear()
    stuck = store.run(handler, exclusive=True, seconds=0.1)
    assert inside.wait(10)
    with pytest.raises(StoreBusy, match="holds the store"):  # no longer than it may take
        enqueue(other, outbox(3))
    go_on.set()
    stuck.result(10)
    enqueue(other, outbox(3))
    store.close()
    other.close()


def test_a_busy_process_gives_way(tmp_path: Path) -> None:
    """A lock that is taken again at once, for ever, is to be had all the same."""
    busy, other, stop = WriterLock(tmp_path / "a.db"), WriterLock(tmp_path / "a.db"), Event()
    other._own = b"%12d" % 4_711

    def hog() -> None:
        while not stop.is_set():
            busy.acquire(10)
            stop.wait(0.003)
            busy.release()

    thread = Thread(target=hog)
    thread.start()
    for _ in range(20):
        other.acquire(5)
        other.release()
    stop.set()
    thread.join()
    busy.close()
    other.close()


def test_others_are_heard_of_at_once_by_who_waits_for_them(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "a.db"), opened(tmp_path / "a.db")
    heard = Event()
    first.watch(lambda sign: heard.set() if sign is Sign.CHANGED else None)
    first.look().result(10)
    heard.clear()
    with first.awaits():
        enqueue(second, outbox(1))
        assert heard.wait(5)
    first.close()
    second.close()


# a copy that was put back


def copy(place: Path, folder: Path) -> None:
    """A backup as people make them: the database and its log."""
    folder.mkdir()
    for path in (place, place.with_name(place.name + "-wal")):
        if path.exists():
            shutil.copy(path, folder / path.name)


def put_back(place: Path, folder: Path) -> None:
    for name in (place.name, place.name + "-wal", place.name + "-shm"):
        (place.parent / name).unlink(missing_ok=True)
    for path in folder.iterdir():
        shutil.copy(path, place.parent / path.name)


@pytest.mark.row("N10")
@pytest.mark.parametrize("moment", ["open", "closed"])
def test_a_store_that_was_rolled_back_says_so(
    tmp_path: Path, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "a.db"
    store = opened(place)
    do(store, left)
    do(store, lambda tx: tx.accept(inbox(2, status="parked")))
    if moment == "closed":
        store.close()
    copy(place, tmp_path / "backup")
    if moment == "closed":
        store = opened(place)
    enqueue(store, outbox(2))
    store.close()
    put_back(place, tmp_path / "backup")
    store = opened(place)
    text = caplog.text
    assert "was rolled back to an older copy" in text
    assert "in doubt: urn:s:1 of " in text
    assert "its messages [4, 7, 8] and any after 8" in text
    [record] = do(store, lambda tx: tx.sources())
    assert (record.state.phase, record.ended is not None) == (Phase.FAILED, True)
    assert "after number 8 isn't known" in (record.state.reason or "")
    assert [row.due for row in do(store, lambda tx: tx.outbox("k1"))] == [None]
    [arrived] = do(store, lambda tx: tx.destinations())
    assert (arrived.state.phase, arrived.ended is not None) == (destinations.Phase.FAILED, True)
    assert {row.status for row in do(store, lambda tx: tx.inbox())} == {"parked"}
    assert do(store, lambda tx: tx.contexts()) == []
    store.close()
    caplog.clear()
    opened(place).close()  # once is enough
    assert caplog.records == []


@pytest.mark.row("N10")
def test_a_log_that_was_lost_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "a.db"
    opened(place).close()
    store = opened(place)
    do(store, left)
    (tmp_path / "moved").mkdir()
    for path in (place, mark_file(place)):  # and not a.db-wal
        shutil.copy(path, tmp_path / "moved" / path.name)
    store.close()
    opened(tmp_path / "moved" / "a.db").close()
    assert "was rolled back to an older copy" in caplog.text


@pytest.mark.row("N10")
def test_without_a_mark_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "a.db"
    opened(place).close()
    assert caplog.records == []
    mark_file(place).write_bytes(b"castile mark 1 but no more")
    store = opened(place)
    assert [(record.levelno, "can't be judged" in record.message) for record in caplog.records] == [
        (logging.WARNING, True)
    ]
    store.close()


@pytest.mark.row("ST-09", "N10")
def test_another_store_in_its_place_is_refused(tmp_path: Path) -> None:
    mine, foreign = tmp_path / "a.db", tmp_path / "b.db"
    opened(mine).close()
    opened(foreign).close()
    names = [(Mark(path).store or b"").hex() for path in (foreign, mine)]
    foreign.rename(mine)
    with pytest.raises(
        StoreInvalid, match=rf"is the store {names[0]}, and the mark .* is of the store {names[1]}"
    ):
        opened(mine)
    mark_file(mine).unlink()
    opened(mine).close()


@pytest.mark.row("N10")
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_lost_store_is_not_made_anew_beside_its_mark(tmp_path: Path, how: str) -> None:
    """Else nobody would hear that all in it is gone, and its backup would be refused afterwards."""
    place, copy = tmp_path / "a.db", tmp_path / "copy"
    opened(place).close()
    shutil.copy(place, copy)
    place.unlink()
    log = tmp_path / "a.db-wal"
    log.write_bytes(b"what SQLite would delete beside an empty file")
    if how == "empty":
        place.touch()
    with pytest.raises(StoreInvalid, match=r"missing or empty, and the mark .* put that file back"):
        opened(place)
    assert place.exists() is (how == "empty")
    assert log.read_bytes()
    log.unlink()
    shutil.copy(copy, place)
    opened(place).close()
    place.unlink()
    mark_file(place).unlink()
    opened(place).close()


def test_a_mark_lags_and_never_leads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A power cut may lose what was not synced: the mark's last lines."""
    place = tmp_path / "a.db"
    store = opened(place)
    enqueue(store, outbox(1))
    before = mark_file(place).read_bytes()
    enqueue(store, outbox(2))
    store.close()
    mark_file(place).write_bytes(before)
    opened(place).close()
    assert caplog.records == []


def test_slots_are_used_again(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    for _ in range(5):
        opened(place).close()
    assert mark_file(place).stat().st_size == 64 + 32
    several = [opened(place) for _ in range(3)]
    size = mark_file(place).stat().st_size
    for store in several:
        store.close()
    opened(place).close()
    assert mark_file(place).stat().st_size == size


def test_an_owner_that_this_copy_doesnt_know_keeps_its_id(tmp_path: Path) -> None:
    """The copy would give the next id to a newcomer, while its first holder lives."""
    place = tmp_path / "a.db"
    opened(place).close()
    copy(place, tmp_path / "backup")
    living = opened(place)
    put_back(place, tmp_path / "backup")
    newcomer = opened(place)
    assert [(each.id, each.ended is None) for each in known(newcomer)] == [(1, False), (2, False), (3, True)]
    assert lives(place, 2)
    living.look().result(10)
    with pytest.raises(StoreError):
        enqueue(living, outbox(1))
    newcomer.close()
    living.close()


class Unsure(sqlite3.Connection):
    """Its disk fails, once, after a commit was applied."""

    failing = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        cursor = super().execute(sql, parameters)
        if sql == "COMMIT" and Unsure.failing:
            Unsure.failing = False
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        return cursor


def test_a_commit_that_was_applied_counts_whatever_is_said_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller who was told that nothing was kept would do it again."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, factory=Unsure, **named))
    store = opened(tmp_path / "a.db")
    monkeypatch.setattr(Unsure, "failing", True)
    enqueue(store, outbox(1))
    assert not Unsure.failing
    assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))] == [1]
    store.close()
