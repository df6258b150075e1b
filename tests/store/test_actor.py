"""The store's thread."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from castile import store as stores
from castile.config import Durability, Settings
from castile.errors import StoreError, UsageError
from castile.store import Transaction
from castile.store.actor import Actor

from .samples import KEY, do, enqueue, opened, outbox

FORGETFUL = """
import sys
from castile import store
from tests.store.samples import KEY, submit
opened = store.open(sys.argv[1], seal=KEY)
for number in range(1, 200):
    opened.run(submit(number))
"""


def test_a_step_that_ends_the_world_ends_only_itself() -> None:
    store = opened(None)

    def leave(_tx: Transaction) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        store.run(leave).result(10)
    enqueue(store, outbox())
    store.close()


def test_a_step_that_hides_a_lost_transaction_is_not_believed() -> None:
    store = opened(None)

    def hide(tx: Transaction) -> str:
        tx.enqueue(outbox(1))
        with contextlib.suppress(sqlite3.Error):
            tx._connection.execute("INSERT OR ROLLBACK INTO castile_meta VALUES ('key', 'twice')")  # type: ignore[attr-defined]
        return "all is well"

    with pytest.raises(StoreError, match="an error has undone its transaction"):
        do(store, hide)
    with pytest.raises(StoreError, match="an earlier error has undone"):
        do(store, hide, exclusive=True)

    def go_on(tx: Transaction) -> None:
        hide(tx)
        tx.enqueue(outbox(3))  # by itself it would be kept

    with pytest.raises(StoreError, match="an error has undone this transaction"):
        do(store, go_on)
    enqueue(store, outbox(2))
    assert do(store, lambda tx: tx.outbox_count("k1")) == 1
    store.close()


def test_the_thread_survives_what_it_cant_explain(monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(None)
    with monkeypatch.context() as patched:
        patched.setattr(Actor, "_attempt", lambda *_, **__: 1 / 0)
        with pytest.raises(StoreError, match="division by zero"):
            enqueue(store, outbox(1))
    enqueue(store, outbox(2))
    assert do(store, lambda tx: tx.outbox_count("k1")) == 1
    store.close()


def test_the_store_cant_be_closed_from_its_own_thread() -> None:
    store = opened(None)
    with pytest.raises(UsageError, match="its own thread"):
        do(store, lambda _: store.close())
    store.close()


def test_a_patient_step_shares_the_commit_of_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    store = stores.open(None)
    before = store.commits
    monkeypatch.setattr("castile.store.actor.PATIENCE", 30.0)
    patient = store.run(lambda tx: tx.enqueue(outbox(8)), patient=True)
    do(store, lambda tx: tx.enqueue(outbox(9)))
    assert patient.done()
    assert store.commits == before + 1
    monkeypatch.setattr("castile.store.actor.PATIENCE", 0.001)
    store.run(lambda tx: tx.enqueue(outbox(7)), patient=True).result(30)
    assert store.commits == before + 2
    store.close()


@pytest.mark.row("ST-05")
@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1), ("off", 0)])
def test_durability_is_a_setting(
    tmp_path: Path, durability: Durability, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = stores.open(tmp_path / "a.db", seal=KEY, settings=Settings(durability=durability))
    assert [f"durability={durability!r}" in text for text in caplog.messages] == [True] * (level < 2)

    def settings(tx: Transaction) -> list[object]:
        connection = tx._connection  # type: ignore[attr-defined]
        names = ("synchronous", "journal_mode", "wal_autocheckpoint")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert do(store, settings) == [level, "wal", 0]
    assert [owner.durability for owner in do(store, lambda tx: tx.owners())] == [durability]
    store.close()


def test_a_program_that_forgets_to_close_loses_nothing(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    command = [sys.executable, "-c", FORGETFUL, str(place)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=root)
    assert done.returncode == 0, done.stderr
    store = opened(place)
    assert do(store, lambda tx: tx.outbox_count("k1")) == 199
    store.close()
