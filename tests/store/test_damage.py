"""Every changed byte and every moved value is found, and takes down its own sequence only."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from castile.errors import CastileError, StoreDamaged
from castile.store import Store, Transaction
from castile.store.mark import mark_file
from castile.store.seal import BrokenSeal, Sealer

from .samples import (
    ENDPOINT,
    KEY,
    accept,
    do,
    enqueue,
    fill,
    inbox,
    opened,
    outbox,
    plain,
    reply,
    seeded,
    source,
)

pytestmark = pytest.mark.row("ST-02")

READ: dict[str, Callable[[Transaction], object]] = {
    "castile_contexts": lambda tx: tx.context("urn:c:1", side="client"),
    "castile_sources": lambda tx: tx.source("k1"),
    "castile_destinations": lambda tx: tx.destination("urn:d:1"),
    "castile_outbox": lambda tx: tx.outbox_row("urn:m:k1:1"),
    "castile_inbox": lambda tx: tx.inbox_row("urn:d:1", 1),
    "castile_replies": lambda tx: tx.reply("urn:m:k1:1"),
}
SEALED = {
    "castile_contexts": ["state"],
    "castile_sources": ["state", "create_body"],
    "castile_destinations": ["state"],
    "castile_outbox": ["body", "key", "last_error"],
    "castile_inbox": ["body", "digest", "last_error"],
    "castile_replies": ["body", "request_digest", "key"],
}
FIRST = {
    "castile_contexts": "side = 'client'",
    "castile_sources": "key = 'k1'",
    "castile_destinations": "identifier = 'urn:d:1'",
    "castile_outbox": "number = 1",
    "castile_inbox": "number = 1",
    "castile_replies": "message_id = 'urn:m:k1:1'",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    filled = opened(path)
    do(filled, fill)
    filled.close()
    return path


def refused(filled: Store, table: str) -> str:
    """The text with which a row is refused; "" if it was read."""
    error = filled.run(READ[table]).exception(10)
    assert error is None or isinstance(error, StoreDamaged)
    return str(error or "")


@pytest.mark.row("F36")
@pytest.mark.parametrize("table", READ)
def test_each_flipped_byte_of_a_sealed_column_is_found(place: Path, table: str) -> None:
    filled = opened(place)

    def each(tx: Transaction) -> list[str]:
        """Through the store's own connection, so that thousands of flips take a second."""
        connection: sqlite3.Connection = tx._connection  # type: ignore[attr-defined]
        missed = []
        for column in [*SEALED[table], "checksum"]:
            where = FIRST[table]
            select = f"SELECT {column} FROM {table} WHERE {where}"
            update = f"UPDATE {table} SET {column} = ? WHERE {where}"
            [value] = connection.execute(select).fetchone()
            for position in range(len(value)):
                changed = bytearray(value)
                changed[position] ^= 1 << (position % 8)
                connection.execute(update, [bytes(changed)])
                try:
                    READ[table](tx)
                    missed.append(f"{column}[{position}]")
                except StoreDamaged:
                    pass
            for changed_to in (value[:-1], value + b"\0", b"", str(value), 0):
                connection.execute(update, [changed_to])
                with pytest.raises(StoreDamaged):
                    READ[table](tx)
            connection.execute(update, [value])
        READ[table](tx)
        return missed

    assert do(filled, each) == []
    filled.close()


@pytest.mark.parametrize("table", READ)
def test_each_changed_plain_column_is_found(place: Path, table: str) -> None:
    filled = opened(place)

    def each(tx: Transaction) -> None:
        connection: sqlite3.Connection = tx._connection  # type: ignore[attr-defined]
        connection.execute("PRAGMA ignore_check_constraints = ON")
        columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
        found = connection.execute(f"SELECT rowid FROM {table} WHERE {FIRST[table]}").fetchone()[0]
        key = {column[1] for column in columns if column[5]}
        for _, name, kind, _, _, _ in columns:
            if kind == "BLOB" or name in key or name == "owner":  # which only says who does the work
                continue
            [before] = connection.execute(f"SELECT {name} FROM {table} WHERE rowid = {found}").fetchone()
            changed = "other" if kind == "TEXT" else (before or 0) + 1
            statement = f"UPDATE {table} SET {name} = ? WHERE rowid = {found}"
            connection.execute(statement, [changed])
            with pytest.raises(StoreDamaged):
                READ[table](tx)
            connection.execute(statement, [before])
        READ[table](tx)

    do(filled, each)
    filled.close()


@pytest.mark.row("ST-20")
@pytest.mark.parametrize("table", ["castile_outbox", "castile_inbox", "castile_replies"])
def test_values_that_were_swapped_are_found(place: Path, table: str) -> None:
    connection = plain(place)
    for column in SEALED[table]:
        [[first, one], [second, two], _] = connection.execute(
            f"SELECT rowid, {column} FROM {table} ORDER BY rowid"
        ).fetchall()
        swap = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"
        connection.executemany(swap, [(two, first), (one, second)])
        filled = opened(place)
        assert "its seal is broken" in refused(filled, table)
        filled.close()
        connection.executemany(swap, [(one, first), (two, second)])
    connection.close()


@pytest.mark.row("ST-20")
def test_a_row_under_another_key_is_found(place: Path) -> None:
    connection = plain(place)
    connection.execute("DELETE FROM castile_outbox WHERE number = 1")
    connection.execute("UPDATE castile_outbox SET message_id = 'urn:m:k1:1', number = 1 WHERE number = 2")
    connection.close()
    filled = opened(place)
    assert "its checksum is wrong" in refused(filled, "castile_outbox")
    filled.close()


@pytest.mark.row("ST-20")
def test_a_row_of_another_store_under_the_same_key_is_found(place: Path, tmp_path: Path) -> None:
    other = opened(tmp_path / "other.db")
    do(other, fill)
    other.close()
    connection = plain(place)
    connection.execute("ATTACH ? AS other", [str(tmp_path / "other.db")])
    connection.execute("DELETE FROM main.castile_contexts")
    connection.execute("INSERT INTO main.castile_contexts SELECT * FROM other.castile_contexts")
    connection.close()
    filled = opened(place)
    assert refused(filled, "castile_contexts")
    filled.close()


@pytest.mark.row("ST-35")
def test_a_damaged_row_takes_down_its_own_sequence_only(place: Path) -> None:
    filled = opened(place)
    do(filled, lambda tx: tx.save_source(source("k2", "urn:s:2")))
    enqueue(filled, outbox(7, "k2"))
    accept(filled, inbox(7, "urn:d:2"))
    filled.close()
    connection = plain(place)
    connection.execute("UPDATE castile_sources SET state = zeroblob(60) WHERE key = 'k1'")
    connection.execute(
        "UPDATE castile_outbox SET body = zeroblob(60) WHERE sequence_key = 'k1' AND number = 2"
    )
    connection.execute("UPDATE castile_inbox SET action = CAST(x'fffe' AS TEXT) WHERE number = 1")
    connection.execute("UPDATE castile_replies SET endpoint = 'urn:elsewhere' WHERE rowid = 1")
    connection.close()

    filled = opened(place)
    assert do(filled, lambda tx: tx.adopt("client", ENDPOINT)).sources == ("k1", "k2")
    assert [record.state.key for record in do(filled, lambda tx: tx.sources())] == ["k2"]
    assert [row.number for row in do(filled, lambda tx: tx.due(99.0, 10, endpoint=ENDPOINT))] == [1, 3, 7]
    assert [row.number for row in do(filled, lambda tx: tx.inbox())] == [2, 3, 7]
    assert len(do(filled, lambda tx: tx.unconsumed())) == 2
    with pytest.raises(StoreDamaged, match="the row k1 of castile_sources") as caught:
        do(filled, lambda tx: tx.source("k1"))
    assert caught.value.exchange.sequence == "k1"
    with pytest.raises(StoreDamaged):
        do(filled, lambda tx: tx.update_inbox("urn:d:1", 1, status="done"))

    damaged = do(filled, lambda tx: tx.damaged())
    assert {(damage.table, damage.key, damage.sequence) for damage in damaged} == {
        ("castile_sources", "k1", "k1"),
        ("castile_outbox", "urn:m:k1:2", "k1"),
        ("castile_inbox", "urn:d:1 1", "urn:d:1"),
        ("castile_replies", "urn:m:k1:1", None),
    }
    do(filled, lambda tx: tx.forget_source("k1"))
    do(filled, lambda tx: [tx.forget_damage(each.table, each.key) for each in damaged] and None)  # type: ignore[func-returns-value]
    assert do(filled, lambda tx: tx.damaged()) == []
    filled.close()


@pytest.mark.row("ST-35")
def test_random_flips_in_the_file_are_never_believed(place: Path) -> None:
    """Each flip of a bit in the file is refused by name, or changes nothing that is read."""
    random = seeded()
    content = place.read_bytes()
    filled = opened(place)
    whole = do(filled, everything)
    filled.close()
    for _ in range(150):
        changed = bytearray(content)
        changed[random.randrange(100, len(content))] ^= 1 << random.randrange(8)
        place.write_bytes(changed)
        mark_file(place).unlink(missing_ok=True)  # or it would be known for an older copy
        try:
            filled = opened(place)
        except CastileError:
            continue
        try:
            for name, value in do(filled, lambda tx: everything_readable(tx)).items():
                assert value == whole[name], name
        except (CastileError, UnicodeDecodeError):  # the latter: sqlite3, on a damaged schema
            pass
        filled.close()


def everything(tx: Transaction) -> dict[str, object]:
    return {name: read(tx) for name, read in READ.items()}


def everything_readable(tx: Transaction) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, read in READ.items():
        try:
            value = read(tx)
        except StoreDamaged:
            continue
        if value is not None:  # its key was hit: the row is lost, which its sequence's state tells
            found[name] = value
    return found


def test_the_seal_itself() -> None:
    sealer = Sealer(KEY, b"store")
    sealed = sealer.seal(b"plain", b"place")
    assert sealer.open(sealed, b"place") == b"plain"
    assert sealer.seal(b"plain", b"place") != sealed
    for other in (Sealer(KEY, b"other"), Sealer(bytes(32), b"store")):
        with pytest.raises(BrokenSeal):
            other.open(sealed, b"place")
    for broken in (b"", sealed[:5], sealed[:33], sealed[:48], sealed[:-1], sealed + b"x"):
        with pytest.raises(BrokenSeal):
            sealer.open(broken, b"place")
    with pytest.raises(BrokenSeal):
        sealer.open(sealed, b"elsewhere")
    assert repr(sealer) == "Sealer()"
    assert reply().body.decode() not in repr(reply())


FLIPS = 10_000
SEQUENCES = 100


@pytest.mark.row("ST-35")
def test_flips_take_down_their_own_sequence_only(tmp_path: Path) -> None:
    """Bits over the rows of many sequences (R-6): each is found, by the row's id, or harmless; what
    belongs to others is read as before."""
    random = seeded()
    filled = opened(tmp_path / "a.db")
    names = [f"k{number}" for number in range(SEQUENCES)]
    for name in names:
        do(filled, lambda tx, name=name: tx.save_source(source(name, f"urn:s:{name}")))  # type: ignore[misc]
    enqueue(filled, *(outbox(number, name) for name in names for number in (1, 2)))
    accept(filled, *(inbox(number, f"urn:d:{name}") for name in names for number in (1, 2)))

    def flip(tx: Transaction) -> None:
        connection: sqlite3.Connection = tx._connection  # type: ignore[attr-defined]
        places = [("castile_sources", 1), ("castile_outbox", 2), ("castile_inbox", 2)]
        for turn in range(FLIPS):
            table, rows = random.choice(places)
            victim, other = random.sample(names, 2)
            number = random.randint(1, rows)
            where = {
                "castile_sources": f"key = '{victim}'",
                "castile_outbox": f"sequence_key = '{victim}' AND number = {number}",
                "castile_inbox": f"sequence = 'urn:d:{victim}' AND number = {number}",
            }[table]
            column = random.choice([*(name for name in SEALED[table]), "checksum"])
            rowid, value = connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {where}").fetchone()
            if not value:
                continue
            changed = bytearray(value)
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
            update = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"
            connection.execute(update, [bytes(changed), rowid])

            def read(name: str, table: str = table, number: int = number) -> object:
                if table == "castile_sources":
                    return tx.source(name)
                if table == "castile_outbox":
                    return tx.outbox_row(f"urn:m:{name}:{number}")
                return tx.inbox_row(f"urn:d:{name}", number)

            with pytest.raises(StoreDamaged, match=table) as caught:
                read(victim)
            assert str(caught.value.exchange.sequence).endswith(victim)
            assert victim in str(caught.value)
            assert read(other) is not None
            if turn % 500 == 0:
                whole = len(tx.sources()), len(tx.inbox()), sum(len(tx.outbox(name)) for name in names)
                intact = [SEQUENCES, 2 * SEQUENCES, 2 * SEQUENCES]
                intact[{"castile_sources": 0, "castile_inbox": 1, "castile_outbox": 2}[table]] -= 1
                assert list(whole) == intact
            connection.execute(update, [value, rowid])

    do(filled, flip)
    filled.close()
