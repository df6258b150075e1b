"""What isn't a store, isn't ours, or isn't to be had is refused by name, and left as it was."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from castile import store
from castile.errors import StoreError, StoreInvalid, StoreTooNew, UsageError
from castile.store import lock, migrations, tables
from castile.store.lock import file_system
from castile.store.owners import owners
from castile.store.seal import key_file, load_keys

from .samples import KEY, START, do, fill, opened, plain, source


@pytest.mark.parametrize(
    "content",
    [b"hello\n", b"x" * 100_000, b"SQLite format 3\0" + b"\xff" * 4_080, os.urandom(8_192)],
    ids=["short", "long", "damaged header", "random"],
)
def test_a_file_that_is_no_store_is_refused_and_untouched(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "letters.txt"
    place.write_bytes(content)
    with pytest.raises(StoreInvalid, match=r"letters\.txt is no"):
        store.open(place)
    assert place.read_bytes() == content
    assert not key_file(place).exists()


def test_a_database_of_something_else_is_refused_and_untouched(tmp_path: Path) -> None:
    place = tmp_path / "app.db"
    with plain(place) as connection:
        connection.execute("CREATE TABLE accounts (id INTEGER)")
    connection.close()
    content = place.read_bytes()
    with pytest.raises(StoreInvalid, match="is a SQLite database, but no castile store"):
        store.open(place)
    assert place.read_bytes() == content
    assert not key_file(place).exists()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open"):
        store.open(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the folder .*nowhere of the store doesn't exist"):
        store.open(tmp_path / "nowhere" / "a.db")


@pytest.mark.row("ST-10")
def test_a_newer_schema_is_refused_and_untouched(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    opened(place).close()
    with plain(place) as connection:
        connection.execute(f"PRAGMA user_version = {migrations.VERSION + 1}")
    connection.close()
    content = place.read_bytes()
    newest = migrations.VERSION
    text = rf"has schema {newest + 1}, .* up to {newest}: it was written by a newer castile"
    with pytest.raises(StoreTooNew, match=text):
        opened(place)
    assert place.read_bytes() == content


def test_a_store_that_failed_to_open_is_free(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    opened(place).close()
    for _ in range(2):
        with pytest.raises(StoreInvalid):
            opened(place, seal=KEY[::-1])
    opened(place).close()


@pytest.mark.row("ST-10")
def test_migrations_make_what_the_tables_declare(tmp_path: Path) -> None:
    opened(tmp_path / "a.db").close()
    connection = plain(tmp_path / "a.db")
    for table in (
        tables.CONTEXTS,
        tables.SOURCES,
        tables.DESTINATIONS,
        tables.OUTBOX,
        tables.INBOX,
        tables.REPLIES,
    ):
        columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")}
        assert columns == set(table.columns), table.name
    connection.close()


def test_a_migration_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    opened(place).close()
    broken = (*migrations.MIGRATIONS, ("CREATE TABLE castile_new (id)", "CREATE NONSENSE"))
    monkeypatch.setattr(migrations, "MIGRATIONS", broken)
    monkeypatch.setattr(migrations, "VERSION", len(broken))
    with pytest.raises(StoreError, match="syntax error"):
        opened(place)
    monkeypatch.undo()
    again = opened(place)
    again.close()
    connection = plain(place)
    assert connection.execute("SELECT name FROM sqlite_schema WHERE name = 'castile_new'").fetchall() == []
    connection.close()


def test_a_link_leads_to_the_same_locks(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    first = opened(place)
    link = tmp_path / "link.db"
    link.symlink_to(place)
    second = opened(link)
    assert second.location == first.location
    assert {path.name for path in tmp_path.glob("*.owner-*")} == {"a.db.owner-1", "a.db.owner-2"}
    first.close()
    second.close()
    assert list(tmp_path.glob("*.owner-*")) == []


@pytest.mark.row("ST-10")
def test_a_store_of_the_first_schema_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a.db"
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
        patched.setattr(migrations, "VERSION", 1)
        with pytest.raises(StoreError, match="castile_owners"):
            opened(place)
    store = opened(place)
    do(store, fill)
    assert do(store, lambda tx: tx.source("k1")) == source()
    store.close()


@pytest.mark.row("ST-09")
@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "ext4"])
def test_what_kind_of_file_system_a_store_is_on(kind: str) -> None:
    mounts = (
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        f"30 22 0:50 / /data\\040here rw shared:9 - {kind} server:/x rw\n"
        "31 22 0:51 / /data\\040here/more rw shared:9 - tmpfs tmpfs rw\n"
    )
    assert file_system(Path("/data here/a.db"), mounts) == kind
    assert file_system(Path("/data here/more/a.db"), mounts) == "tmpfs"
    assert file_system(Path("/data/a.db"), mounts) == "ext4"


@pytest.mark.row("ST-09")
def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "file_system", lambda *_: "nfs4")
    with pytest.raises(StoreInvalid, match=r"on a network file system \(nfs4\)"):
        opened(tmp_path / "a.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.row("ST-09")
def test_locks_that_exclude_nobody_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    with pytest.raises(StoreInvalid, match="no locks that exclude anybody"):
        opened(tmp_path / "a.db")


def test_the_child_of_a_fork_must_open_its_own(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    program = f"""
import os, sys
from castile import store
from castile.errors import UsageError
mine = store.open({str(place)!r}, seal=bytes(range(32)))
child = os.fork()
if child == 0:
    try:
        mine.run(lambda tx: tx.sources())
    except UsageError as error:
        print(error, flush=True)
    mine.close()
    sys.exit(0)
os.waitpid(child, 0)
mine.run(lambda tx: tx.sources()).result(10)
mine.close()
store.open({str(place)!r}, seal=bytes(range(32))).close()
print("parent goes on", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "opened before a fork" in done.stdout
    assert "parent goes on" in done.stdout


def test_where_a_store_can_be(tmp_path: Path) -> None:
    opened = store.open(f"sqlite:///{tmp_path / 'a.db'}", seal=KEY)
    assert opened.location == (tmp_path / "a.db").resolve()
    opened.close()
    memory = store.open(":memory:")
    assert memory.location is None
    memory.close()
    with pytest.raises(UsageError, match="no store of the kind postgresql"):
        store.open("postgresql://db.example/castile")


# keys


@pytest.mark.row("ST-22")
def test_without_a_key_one_is_made_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "a.db"
    store.open(place).close()
    assert stat.S_IMODE(key_file(place).stat().st_mode) == 0o600
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert [record.getMessage() for record in caplog.records if "made a sealing key" in record.getMessage()]
    caplog.clear()
    store.open(place).close()
    assert caplog.records == []


@pytest.mark.row("ST-20")
def test_a_wrong_key_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    first = opened(place)
    do(first, fill)
    first.close()
    with pytest.raises(StoreInvalid, match="the sealing key isn't the one of the store"):
        opened(place, seal=bytes(32))
    again = opened(place)
    assert do(again, lambda tx: tx.source("k1")) == source()
    again.close()


def test_a_missing_key_is_not_replaced(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    store.open(place).close()
    key_file(place).unlink()
    with pytest.raises(StoreInvalid, match=r"its key file .*a\.db\.key is missing"):
        store.open(place)
    assert not key_file(place).exists()


@pytest.mark.row("ST-20")
def test_where_a_key_can_come_from(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    raw, hexadecimal = tmp_path / "raw", tmp_path / "hex"
    raw.write_bytes(KEY)
    hexadecimal.write_text(KEY.hex() + "\n")
    for file in (raw, hexadecimal):
        file.chmod(0o600)
    environment = {"MINE": KEY.hex(), "CASTILE_STORE_KEY": f"file:{raw}"}
    seals: list[store.Seal] = [KEY, lambda: KEY, raw, f"file:{hexadecimal}", "env:MINE", "require", None]
    for seal in seals:
        assert load_keys(seal, place, new=True, environment=environment) == (KEY,)
    assert load_keys(None, place, new=True, environment={}) != (KEY,)
    assert load_keys(None, place, new=False, environment={}) == load_keys(key_file(place), place, new=False)


@pytest.mark.row("ST-20")
@pytest.mark.row("ST-22")
def test_keys_that_are_none(tmp_path: Path) -> None:
    place, open_to_all = tmp_path / "a.db", tmp_path / "open"
    open_to_all.write_bytes(KEY)
    open_to_all.chmod(0o640)
    with pytest.raises(StoreInvalid, match=r"open to others \(mode 0640\): chmod 600"):
        load_keys(open_to_all, place, new=True)
    with pytest.raises(StoreInvalid, match="can't be read"):
        load_keys(tmp_path / "missing", place, new=True)
    with pytest.raises(UsageError, match="must be 32 bytes"):
        load_keys(b"short", place, new=True)
    with pytest.raises(UsageError, match="must be 32 bytes"):
        load_keys(lambda: b"short", place, new=True)
    with pytest.raises(UsageError, match="seal= takes"):
        load_keys("a passphrase", place, new=True)
    with pytest.raises(UsageError, match="CASTILE_STORE_KEY isn't set"):
        load_keys("require", place, new=True, environment={})
    with pytest.raises(StoreInvalid, match="MINE holds no key") as caught:
        load_keys("env:MINE", place, new=True, environment={"MINE": "not a key at all"})
    assert "not a key at all" not in repr(caught.value.__cause__) + repr(caught.value)
    assert not key_file(place).exists()


def test_times_come_from_the_clock(tmp_path: Path) -> None:
    store = opened(tmp_path / "a.db")
    [owner] = do(store, lambda tx: owners(tx._connection))  # type: ignore[attr-defined]
    assert (owner.id, owner.pid, owner.since, owner.ended) == (1, os.getpid(), START.utc, None)
    store.close()
