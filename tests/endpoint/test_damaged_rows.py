"""A damaged row takes down its own sequence, and nothing else (R-6)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import castile
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import FAMILIES, body, fast


def flip(path: Path, table: str, column: str) -> None:
    """One bit of the newest row."""
    with closing(sqlite3.connect(path, timeout=10)) as connection, connection:
        row, octets = connection.execute(
            f"SELECT rowid, {column} FROM {table} ORDER BY rowid DESC LIMIT 1"
        ).fetchone()
        changed = bytes([octets[0] ^ 1]) + octets[1:]
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, row))


@pytest.mark.row("I6")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_goes_on_in_another_sequence(pairs: Pairs, family: str, tmp_path: Path) -> None:
    pair = pairs(family)
    client = pair.client(store=tmp_path / "client.db")
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    flip(tmp_path / "client.db", "castile_sources", "checksum")
    assert client.call_raw("urn:test/Echo", body(2)) == body(2)
    assert pair.bodies == [body(1), body(2)]


@pytest.mark.row("I6", "I18")
def test_replies_that_can_t_be_taken_end_their_sequence_and_no_thread_spins(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs("1.3", settings=fast())
    client = pair.client(store=tmp_path / "client.db")
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    flip(tmp_path / "client.db", "castile_destinations", "checksum")
    with pytest.raises(castile.InDoubt, match="castile_destinations"):
        client.call_raw("urn:test/Echo", body(2), timeout=20)
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    assert len(pair.network.sent) < 30
