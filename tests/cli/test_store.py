"""``castile store check``."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from castile.cli import main
from castile.store.lock import owner_file
from tests.store.samples import KEY, do, enqueue, fill, opened, outbox


def check(place: Path, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        main, ["store", "check", str(place), *more], env={"CASTILE_STORE_KEY": KEY.hex()}
    )
    return result.exit_code, result.output


@pytest.fixture
def place(tmp_path: Path) -> Path:
    store = opened(tmp_path / "a.db")
    do(store, fill)
    store.close()
    return tmp_path / "a.db"


@pytest.mark.row("OP-12", "ST-02", "ST-05", "ST-35")
def test_a_whole_store_and_its_owners(place: Path) -> None:
    status, text = check(place)
    assert status == 0
    assert all(
        line in text for line in ("pages      whole", "mark       as it should be", "nobody has it open")
    )
    store = opened(place)
    status, text = check(place, "--json")
    assert status == 0
    found = json.loads(text)
    assert [(owner["pid"], owner["alive"]) for owner in found["owners"]] == [(os.getpid(), True)]
    assert found["rows"]["outbox"] > 0
    assert "durability full, alive" in check(place)[1]
    owner_file(place, 2).unlink()
    assert "gone: who opens the store next" in check(place)[1]
    store.close()


@pytest.mark.row("OP-12", "ST-35")
def test_a_damaged_row(place: Path) -> None:
    with sqlite3.connect(place) as connection:
        connection.execute("UPDATE castile_outbox SET attempts = attempts + 1 WHERE number = 1")
    connection.close()
    status, text = check(place)
    assert status == 1
    assert "unreadable castile_outbox urn:m:k1:1: its checksum is wrong" in text


@pytest.mark.row("OP-12")
def test_a_damaged_page(place: Path) -> None:
    content = bytearray(place.read_bytes())
    content[-4_096:] = os.urandom(4_096)
    place.write_bytes(content)
    status, _ = check(place)
    assert status in (1, 3)


@pytest.mark.row("OP-12", "N10")
def test_an_older_copy(place: Path, tmp_path: Path) -> None:
    shutil.copy(place, tmp_path / "copy")
    store = opened(place)
    enqueue(store, outbox(70))
    store.close()
    shutil.copy(tmp_path / "copy", place)
    status, text = check(place)
    assert status == 1
    assert "ahead: this is an older copy" in text
    place.with_name("a.db.mark").unlink()
    status, text = check(place, "--json")
    assert (status, json.loads(text)["marked"]) == (1, False)


@pytest.mark.row("OP-12")
def test_what_is_no_store(tmp_path: Path) -> None:
    assert check(tmp_path / "no.db")[0] == 2
    (tmp_path / "text").write_text("a letter")
    assert check(tmp_path / "text")[0] == 3


@pytest.mark.row("OP-12", "ST-21")
def test_another_key(place: Path) -> None:
    new = bytes(32)

    def reseal(*keys: bytes) -> tuple[int, str]:
        given = {"CASTILE_STORE_KEY": " ".join(key.hex() for key in keys)}
        result = CliRunner().invoke(main, ["store", "reseal", str(place), "--wait", "0.2"], env=given)
        return result.exit_code, result.output

    assert reseal(KEY)[0] == 2
    store = opened(place)
    status, text = reseal(new, KEY)
    assert (status, f"processes {os.getpid()} have the store" in text) == (3, True)
    store.close()
    status, text = reseal(new, KEY)
    assert status == 0
    assert "the old one opens nothing any more" in text
    assert check(place)[0] == 3
    opened(place, new).close()
