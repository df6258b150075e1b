"""A transactional handler's own tables, in the store's transaction (N11)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from castile import store as stores
from castile.clock import Now
from castile.errors import StoreError, StoreFull, UsageError
from castile.store import Store, Transaction
from castile.store.application import ApplicationConnection

from .samples import KEY, START, do, fill, inbox, opened, plain

pytestmark = pytest.mark.row("F24", "N11")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def store(place: Path) -> Iterator[Store]:
    filled = opened(place)
    do(filled, fill)
    do(filled, lambda tx: tx.connection.execute(ACCOUNTS) and None, exclusive=True)
    yield filled
    filled.close()


ACCOUNTS = "CREATE TABLE accounts (name TEXT PRIMARY KEY, amount INTEGER NOT NULL)"


def accounts(store: Store) -> list[tuple[str, int]]:
    return do(store, lambda tx: tx.connection.execute("SELECT * FROM accounts").fetchall(), exclusive=True)


def test_effects_and_mark_are_one_commit(store: Store, place: Path) -> None:
    def handle(tx: Transaction) -> str:
        tx.connection.execute("INSERT INTO accounts VALUES (?, ?)", ("ada", 100))
        tx.connection.executemany(
            "INSERT INTO accounts VALUES (:name, :amount)", [{"name": "eve", "amount": 1}]
        )
        tx.update_inbox("urn:d:1", 1, status="done")
        return "<reply/>"

    before = store.commits
    assert do(store, handle, exclusive=True) == "<reply/>"
    assert store.commits == before + 1
    assert accounts(store) == [("ada", 100), ("eve", 1)]
    store.close()
    connection = plain(place)
    assert connection.execute("SELECT sum(amount) FROM accounts").fetchall() == [(101,)]
    connection.close()


def test_an_exception_undoes_both(store: Store) -> None:
    def handle(tx: Transaction) -> None:
        tx.update_inbox("urn:d:1", 1, status="done")
        tx.connection.execute("INSERT INTO accounts VALUES ('ada', 100)")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        do(store, handle, exclusive=True)
    assert accounts(store) == []
    assert do(store, lambda tx: tx.inbox_row("urn:d:1", 1)) == inbox(1, last_error="MARKER-of-an-error")


def test_the_effects_can_be_undone_and_the_answer_kept(store: Store) -> None:
    def handle(tx: Transaction) -> None:
        try:
            with tx.attempt():
                tx.connection.execute("INSERT INTO accounts VALUES ('ada', 100)")
                tx.connection.execute("INSERT INTO accounts VALUES ('ada', 100)")
        except sqlite3.IntegrityError:
            tx.update_inbox("urn:d:1", 1, status="done")

    do(store, handle, exclusive=True)
    assert accounts(store) == []
    done = do(store, lambda tx: tx.inbox_row("urn:d:1", 1))
    assert done is not None
    assert done.status == "done"


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "commit transaction",
        "  -- well\n /* so */ ; END",
        "ROLLBACK",
        "rollback transaction",
        "BEGIN IMMEDIATE",
        "PRAGMA synchronous = OFF",
        "pragma table_info(accounts)",
        "ATTACH 'other.db' AS other",
        "DETACH main",
        "VACUUM",
        "SELECT * FROM pragma_table_info('accounts')",
        "SELECT * FROM castile_meta",
        "DELETE FROM castile_outbox",
        "DROP TABLE Castile_inbox",
        "CREATE TABLE castile_mine (id)",
        "CREATE TRIGGER t AFTER INSERT ON castile_inbox BEGIN DELETE FROM accounts; END",
        "INSERT INTO accounts SELECT identifier, 1 FROM castile_destinations",
        "RELEASE castile_attempt",
        "DELETE FROM castile_outbox WHERE message_id = ?",
    ],
)
def test_what_the_application_may_not_do(store: Store, statement: str) -> None:
    def handle(tx: Transaction) -> None:
        tx.connection.execute("INSERT INTO accounts VALUES ('ada', 100)")
        with pytest.raises(UsageError, match=r"not for ctx\.transaction"), tx.attempt():
            tx.connection.execute(statement)
        with pytest.raises(UsageError, match=r"not for ctx\.transaction"):
            tx.connection.cursor().execute(statement)

    do(store, handle, exclusive=True)
    assert accounts(store) == [("ada", 100)]


@pytest.mark.parametrize("name", ["commit", "rollback", "close"])
def test_methods_that_would_end_the_transaction(store: Store, name: str) -> None:
    def handle(tx: Transaction) -> None:
        getattr(tx.connection, name)()

    with pytest.raises(UsageError, match=rf"no {name}\(\) on ctx\.transaction"):
        do(store, handle, exclusive=True)


def test_scripts_are_refused(store: Store) -> None:
    for way in (lambda tx: tx.connection, lambda tx: tx.connection.cursor()):
        with pytest.raises(UsageError, match="executescript commits first"):
            do(store, lambda tx, way=way: way(tx).executescript("DELETE FROM accounts"), exclusive=True)  # type: ignore[misc]


def test_savepoints_are_allowed(store: Store) -> None:
    def handle(tx: Transaction) -> None:
        run = tx.connection.execute
        run("SAVEPOINT mine")
        run("INSERT INTO accounts VALUES ('ada', 1)")
        run("ROLLBACK TO mine")
        run("INSERT INTO accounts VALUES ('eve', 2)")
        run("RELEASE mine")

    do(store, handle, exclusive=True)
    assert accounts(store) == [("eve", 2)]


def test_a_conflict_clause_that_rolls_back_fails_the_step(store: Store) -> None:
    def handle(tx: Transaction) -> None:
        tx.update_inbox("urn:d:1", 1, status="done")
        tx.connection.execute("INSERT INTO accounts VALUES ('ada', 1)")
        with pytest.raises(sqlite3.IntegrityError):
            tx.connection.execute("INSERT OR ROLLBACK INTO accounts VALUES ('ada', 1)")
        with pytest.raises(StoreError, match="undone the handler's transaction"):
            tx.connection.execute("INSERT INTO accounts VALUES ('eve', 1)")

    with pytest.raises(StoreError, match="undone the handler's transaction"):
        do(store, handle, exclusive=True)
    assert accounts(store) == []
    assert do(store, lambda tx: tx.inbox_row("urn:d:1", 1)) == inbox(1, last_error="MARKER-of-an-error")


def test_the_connection_is_for_exclusive_steps_only(store: Store) -> None:
    with pytest.raises(UsageError, match="only an exclusive step"):
        do(store, lambda tx: tx.connection)


def test_the_connection_ends_with_its_handler(store: Store) -> None:
    kept: list[ApplicationConnection] = []
    do(store, lambda tx: kept.append(tx.connection), exclusive=True)
    with pytest.raises(UsageError, match="while its handler runs"):
        do(store, lambda _: kept[0].execute("DELETE FROM accounts"), exclusive=True)


def test_an_open_cursor_doesnt_hold_the_store_back(store: Store) -> None:
    do(
        store,
        lambda tx: tx.connection.execute("INSERT INTO accounts VALUES ('ada', 1), ('eve', 2)") and None,
        exclusive=True,
    )
    cursor = do(store, lambda tx: tx.connection.execute("SELECT * FROM accounts"), exclusive=True)
    busy = do(store, lambda tx: None)
    assert busy is None
    store.close()
    assert store.location is not None
    assert not store.location.with_name("a.db-wal").exists()  # the last checkpoint was complete
    del cursor


@pytest.mark.parametrize("kind", ["statement", "loop", "sleep"])
def test_a_handler_that_takes_too_long_is_undone(place: Path, kind: str) -> None:
    ticks = [0.0]
    store = stores.open(place, seal=KEY, clock=lambda: Now(START.utc, ticks[0]))
    do(store, lambda tx: tx.connection.execute(ACCOUNTS) and None, exclusive=True)

    def count(limit: int) -> str:
        return (
            "INSERT INTO accounts WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
            f"WHERE i < {limit}) SELECT i, i FROM n"
        )

    def handle(tx: Transaction) -> None:
        tx.connection.execute("INSERT INTO accounts VALUES ('ada', 1)")
        if kind == "statement":
            clock: Callable[[], None] = lambda: ticks.__setitem__(0, 31.0)  # noqa: E731
            tx._connection.create_function("late", 0, clock)  # type: ignore[attr-defined]
            tx.connection.execute("SELECT late()").fetchall()
            tx.connection.execute(count(10_000_000))
        ticks[0] = 31.0
        if kind == "loop":
            tx.connection.execute("INSERT INTO accounts VALUES ('eve', 1)")

    with pytest.raises(StoreError, match="held the store for more than 30 s"):
        do(store, handle, exclusive=True)
    assert accounts(store) == []
    store.close()


@pytest.mark.row("ST-08")
def test_a_full_disk_is_the_stores_trouble(store: Store) -> None:
    def limit(pages: str) -> None:
        do(store, lambda tx: tx._connection.execute(f"PRAGMA max_page_count = {pages}") and None)  # type: ignore[attr-defined]

    def handle(tx: Transaction) -> None:
        tx.update_inbox("urn:d:1", 1, status="done")
        tx.connection.execute("INSERT INTO accounts VALUES (?, 1)", ("x" * 1_000_000,))

    limit("60")
    with pytest.raises(StoreFull, match="nothing of this step was kept"):
        do(store, handle, exclusive=True)
    limit("100000")
    do(store, handle, exclusive=True)
    assert len(accounts(store)) == 1


def test_errors_of_sql_stay_as_they_are(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        do(store, lambda tx: tx.connection.execute("SELECT * FROM elsewhere"), exclusive=True)


def test_an_ordinary_step_after_a_handler_isnt_hampered(store: Store) -> None:
    do(store, lambda tx: tx.connection.execute("SELECT 1") and None, exclusive=True)
    assert len(do(store, lambda tx: tx.outbox("k1"))) == 3
