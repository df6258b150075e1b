"""From one sealing key to another: online, offline, and broken off anywhere."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from castile import store as stores
from castile.errors import StoreBusy, StoreInvalid, UsageError
from castile.store import Store, Transaction
from castile.store.reading import read
from castile.store.records import Resealing
from castile.store.resealing import reseal
from castile.store.seal import key_file, key_id, load_keys
from castile.store.tables import TABLES

from .samples import ENDPOINT, KEY, do, enqueue, fill, opened, outbox, plain, source

NEW = bytes(reversed(KEY))
BOTH = [NEW, KEY]

pytestmark = pytest.mark.row("ST-21")


def content(tx: Transaction) -> list[object]:
    """Everything in a store, opened."""
    return [
        *tx.contexts(ended=True),
        *tx.sources(),
        *tx.destinations(),
        *(row for each in tx.sources() for row in tx.outbox(each.state.key)),
        *tx.inbox(),
        *tx.inbox(status="done"),
        *tx.unconsumed(),
    ]


def keys_used(place: Path) -> set[str]:
    """Ids of the keys that anything is sealed with."""
    connection = plain(place)
    found = set()
    for table in TABLES:
        for name in table.sealed:
            rows = connection.execute(f"SELECT {name} FROM {table.name} WHERE {name} IS NOT NULL")
            found |= {key_id(value) for (value,) in rows}
    connection.close()
    return found


def filled(place: Path, rows: int = 30) -> list[object]:
    store = opened(place)
    do(store, fill)
    enqueue(store, *(outbox(number, key=f"call {number}") for number in range(100, 100 + rows)))
    found = do(store, content)
    store.close()
    return found


def test_a_store_goes_to_another_key(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    before, old = filled(place), keys_used(place)
    done = reseal(place, BOTH, seconds=1)
    assert done.unreadable == 0
    assert done.rows > 30
    assert keys_used(place) == {done.key} != old
    for seal in (NEW, BOTH, [KEY, NEW]):  # a retired one never seals again, wherever it stands
        store = opened(place, seal)
        assert do(store, content) == before
        row = do(store, lambda tx: tx.outbox_by_key(ENDPOINT, "call 100"))
        assert row is not None
        do(store, lambda tx: tx.save_source(source("k2", "urn:s:2")))
        assert keys_used(place) == {done.key}
        do(store, lambda tx: tx.forget_source("k2"))
        store.close()
    with pytest.raises(StoreInvalid, match="the sealing key isn't the one of the store"):
        opened(place, KEY)
    with pytest.raises(UsageError, match="alone: give a new one"):
        reseal(place, BOTH, seconds=1)


def test_a_key_that_castile_made_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CASTILE_STORE_KEY", raising=False)
    place = tmp_path / "a.db"
    live = stores.open(place)
    do(live, fill)
    (old,) = load_keys(None, place, new=False)
    done = reseal(place, None, seconds=10)  # beside a process that has the store open
    (new,) = load_keys(None, place, new=False)
    assert new != old
    assert key_file(place).stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob("*.new")) == []
    enqueue(live, outbox(50))
    assert [row.number for row in do(live, lambda tx: tx.outbox("k1"))][-1] == 50
    assert keys_used(place) == {done.key}
    live.close()
    with pytest.raises(StoreInvalid, match="isn't the one of the store"):
        opened(place, old)
    opened(place, None).close()


def test_beside_processes_that_work(tmp_path: Path) -> None:
    """They fetch the new key where they had the old one, and go on in the middle of it."""
    place = tmp_path / "a.db"
    filled(place, 600)
    given = [KEY]
    live = [opened(place, lambda: list(given)) for _ in range(2)]
    given.insert(0, NEW)
    work = stores.open(place, seal=BOTH)
    before = do(work, lambda tx: tx.reseal(None, 50))
    assert before.waits_for
    deadline = time.monotonic() + 20
    number = 1_000
    while not before.done:
        assert time.monotonic() < deadline
        for store in live:
            number += 1
            enqueue(store, outbox(number, key=f"call {number}"))
            found = do(store, lambda tx: tx.outbox_by_key(ENDPOINT, f"call {number}"))  # noqa: B023
            assert found is not None
            assert do(store, lambda tx: tx.update_outbox("urn:m:k1:101", attempts=number))  # noqa: B023
            assert do(store, lambda tx: tx.outbox_by_key(ENDPOINT, "call 600")) is not None
        before = do(work, lambda tx: tx.reseal(before, 50))  # noqa: B023
    for store in live:
        assert do(store, lambda tx: tx.damaged()) == []
        enqueue(store, outbox(number := number + 1))
        store.close()
    work.close()
    assert keys_used(place) == {before.key}
    store = opened(place, NEW)
    assert len(do(store, lambda tx: tx.outbox("k1"))) == len(range(1_001, number + 1)) + 600 + 3
    store.close()


def test_a_process_without_the_new_key_is_named(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    before, old = filled(place), keys_used(place)
    live = opened(place, KEY)
    with pytest.raises(StoreBusy, match=rf"processes {os.getpid()} have the store .* restart them with both"):
        reseal(place, BOTH, seconds=0.2)
    assert do(live, content) == before
    both = opened(place, BOTH)  # seals with what everybody knows
    enqueue(both, outbox(70))
    assert keys_used(place) == old
    assert do(live, lambda tx: tx.outbox_row("urn:m:k1:70")) is not None
    both.close()
    live.close()


def broken_off(place: Path, steps: int) -> Resealing:
    store = opened(place, BOTH)
    before: Resealing | None = None
    for _ in range(steps):
        before = do(store, lambda tx: tx.reseal(before, 9))  # noqa: B023
    store.close()
    assert before is not None
    return before


def test_broken_off_anywhere_nothing_is_lost(tmp_path: Path) -> None:
    start = tmp_path / "start.db"
    before = filled(start)
    whole, steps = False, 0
    while not whole:
        steps += 1
        place = tmp_path / f"{steps}.db"
        shutil.copy(start, place)
        whole = broken_off(place, steps).done
        store = opened(place, BOTH)
        assert do(store, content) == before
        assert do(store, lambda tx: tx.outbox_by_key(ENDPOINT, "call 129")) is not None
        store.close()
        with pytest.raises(StoreInvalid, match="isn't the one of the store"):
            opened(place, KEY)
        if len(keys_used(place)) > 1:
            with pytest.raises(
                StoreInvalid, match=r"the older one \(\w+\) is missing: without it .*\d of"
            ) as told:
                opened(place, NEW)
            assert KEY.hex() not in str(told.value)
            assert len(read(place, NEW, content)) < len(before)  # which says what can't be read
        if not whole:
            reseal(place, BOTH, seconds=1)
        store = opened(place, NEW)
        assert do(store, content) == before
        store.close()
        assert len(keys_used(place)) == 1
    assert steps > 8


def test_a_change_that_fails_changes_no_key(tmp_path: Path) -> None:
    """A step that is undone leaves this process with the keys that the store has."""
    place = tmp_path / "a.db"
    filled(place)
    live = opened(place, KEY)
    store = opened(place, BOTH)
    live.close()
    old = keys_used(place)

    def fails(tx: Transaction) -> None:
        assert not tx.reseal(None, 9).waits_for
        raise UsageError("undone")

    with pytest.raises(UsageError, match="undone"):
        do(store, fails)
    enqueue(store, outbox(70))
    assert keys_used(place) == old
    assert do(store, lambda tx: tx.reseal(None, 9)).waits_for == ()
    enqueue(store, outbox(71))
    assert keys_used(place) > old
    store.close()


def test_two_changes_at_once_end_in_one_key(tmp_path: Path) -> None:
    place, third = tmp_path / "a.db", bytes(31) + b"3"
    before = filled(place)
    everything = [third, NEW, KEY]
    first = opened(place, everything[1:])
    state = do(first, lambda tx: tx.reseal(None, 9))
    for _ in range(4):
        state = do(first, lambda tx: tx.reseal(state, 9))  # noqa: B023
    first.close()
    done = reseal(place, everything, seconds=1)
    assert keys_used(place) == {done.key}
    store = opened(place, third)
    assert do(store, content) == before
    store.close()


def test_a_damaged_row_stays_and_is_told(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    filled(place)
    with sqlite3.connect(place) as connection:
        connection.execute("UPDATE castile_outbox SET attempts = attempts + 1 WHERE number = 101")
    connection.close()
    assert reseal(place, BOTH, seconds=1).unreadable == 1
    store = opened(place, NEW)
    assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))].count(101) == 0
    store.close()


@pytest.mark.slow
def test_killed_while_it_reseals(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    before = filled(place, 4_000)
    environment = {**os.environ, "CASTILE_STORE_KEY": f"{NEW.hex()} {KEY.hex()}"}
    command = [sys.executable, "-c", "from castile.cli import main; main()", "store", "reseal", str(place)]
    for part in range(1, 4):
        child = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while child.poll() is None and len(keys_used(place)) == 1:
            time.sleep(0.01)
        time.sleep(0.02 * part)
        child.kill()
        child.wait()
        store: Store = opened(place, BOTH)
        assert do(store, content) == before
        store.close()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 2), done.stderr  # 2: the last one was killed after its end
    assert len(keys_used(place)) == 1
    store = opened(place, NEW)
    assert do(store, content) == before
    store.close()
