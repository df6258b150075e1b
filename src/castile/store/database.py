"""Opening the SQLite database of a store, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from castile.clock import Now
from castile.config import Durability, Settings
from castile.errors import StoreBusy, StoreDamaged, StoreError, StoreFull, StoreInvalid
from castile.store import mark, migrations
from castile.store.keyring import Keyring
from castile.store.owners import Ownership
from castile.store.seal import Ring, sync_directory

if TYPE_CHECKING:
    from castile.store import Seal

BUSY_SECONDS: Final = 5.0
"""How long another program's lock, of a backup or a shell, is waited for."""
CHECKPOINT_PAGES: Final = 2_000
"""The WAL is copied back after about 8 MB: longer ones cost memory and time at the next start."""
_SYNCHRONOUS: Final = {"full": "FULL", "normal": "NORMAL", "off": "OFF"}
_PRIMARY: Final = 0xFF


SQLiteErrors: Final = (sqlite3.Error, UnicodeDecodeError)
"""`sqlite3` can't always decode what SQLite says of a damaged schema."""


def translated(error: Exception, name: str, *, foreign: bool = False) -> Exception:
    """The error of castile for one of SQLite. `foreign`: it may come from a statement of the
    application's, and is left as it is unless the disk or a lock is the cause."""
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(error, UnicodeDecodeError):
        return error if foreign else StoreDamaged(f"the store {name} has a damaged schema")
    text = f"the store {name}: {error}"
    match code & _PRIMARY if code is not None else None:
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return StoreFull(f"{text}; nothing of this step was kept, and it can be tried again")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(f"{text}: another program keeps it locked")
        case sqlite3.SQLITE_CORRUPT:
            return StoreDamaged(text)
        case sqlite3.SQLITE_NOTADB:
            return StoreInvalid(f"{name} is no castile store: {error}")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_NOMEM:
            return StoreError(text)
        case _:
            return error if foreign else StoreError(text)


class Database:
    """A connection to an opened, migrated store, and its sealer. For one thread only, which holds
    the writer's lock for everything here."""

    keyring: Keyring
    sealer: Ring
    ownership: Ownership | None = None
    """None in memory, and where it is only read."""

    def __init__(self, path: Path | None, *, seal: Seal, settings: Settings) -> None:
        """StoreInvalid, StoreTooNew, StoreBusy, StoreFull, StoreError: as `castile.store.open`."""
        self.path = path
        self.name = str(path) if path else "in memory"
        self.settings = settings
        self._written = 0
        self._seen = -1
        new = path is None or not path.exists() or path.stat().st_size == 0
        if path is not None and new:
            _refuse_lost(path)
            _make(path)
        with self._connecting():
            self._open(seal, new=new)
        self.connected = True

    @property
    def owner(self) -> int:
        """Id of this opening; 0 in memory."""
        return self.ownership.id if self.ownership is not None else 0

    @contextmanager
    def _connecting(self) -> Iterator[None]:
        try:
            self.connection = sqlite3.connect(
                str(self.path) if self.path else ":memory:",
                timeout=BUSY_SECONDS,
                isolation_level=None,
                cached_statements=256,
            )
        except sqlite3.Error as error:
            raise translated(error, self.name) from error
        try:
            # A damaged text must not end the reading of all others: it fails its row's checksum.
            self.connection.text_factory = _text
            yield
        except SQLiteErrors as error:
            self.connection.close()
            raise translated(error, self.name) from error
        except BaseException:
            self.connection.close()
            raise

    def reconnect(self) -> None:
        """Open the file again after `disconnect`. Raises as the first time."""
        with self._connecting():
            self._configure()
            self._synchronise(self.settings.durability)
            self._seen = -1  # another connection counts anew
            found = self.connection.execute("SELECT value FROM castile_meta WHERE name = 'store'").fetchone()
            if found is None or found[0] != self.keyring.store:
                raise StoreInvalid(f"{self.name} isn't the store any more that it was")
            self.connected = True

    def disconnect(self) -> None:
        """Let go of the file, so that a child of a fork inherits nothing of SQLite's."""
        self.connected = False
        self.connection.close()

    def _open(self, seal: Seal, *, new: bool) -> None:
        connection = self.connection
        version = migrations.version_of(connection, self.name)
        self.keyring = Keyring(seal, self.path, self.name, new=new or not version)
        if not version:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._configure()
        # Of a store that is used, a power cut may take the last commits by its `durability`; that
        # it was made, never: beside its mark it would look like another one.
        self._synchronise("full")
        if version < migrations.VERSION:
            migrations.migrate(connection, version)
        self.sealer = self.keyring.ring(connection)
        self._synchronise(self.settings.durability)

    def _synchronise(self, durability: Durability) -> None:
        self.connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")

    def _configure(self) -> None:
        connection = self.connection
        if self.path is not None:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise StoreError(f"the store {self.name} can't have a write-ahead log, only {mode}")
        # Not while another connection commits (SQLite's WAL-reset bug, up to 3.51.2): only `tidy`,
        # in the thread and under the lock that write.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        if sys.platform == "darwin":  # fsync there leaves the data in the drive's cache
            connection.execute("PRAGMA fullfsync = ON")
            connection.execute("PRAGMA checkpoint_fullfsync = ON")
        connection.execute("PRAGMA cache_size = -16000")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")

    def note_writes(self, pages: int) -> None:
        """About so many pages went to the write-ahead log."""
        self._written += pages

    @property
    def grown(self) -> bool:
        """Whether the write-ahead log is to be copied back."""
        return self._written >= CHECKPOINT_PAGES and self.path is not None

    def tidy(self) -> None:
        """After a batch: copy the log back, and give free pages back.

        What fails here fails nothing else: it is tried again, and the log keeps everything.
        """
        try:
            busy, _, _ = self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            free = self.connection.execute("PRAGMA freelist_count").fetchone()[0]
            pages = self.connection.execute("PRAGMA page_count").fetchone()[0]
            if free > 1_000 and free * 4 > pages:
                self.connection.execute("PRAGMA incremental_vacuum(256)").fetchall()
        except SQLiteErrors:
            busy = 1
        self._written = CHECKPOINT_PAGES // 2 if busy else 0

    def enter(self, now: Now, doubt: Callable[[str], None]) -> None:
        """Become one of the store's owners; see `Ownership.enter`."""
        if self.path is not None:
            keyring = self.keyring
            self.ownership = Ownership(self.path, keyring.store, self.settings.durability, keyring.known)
            try:
                self.ownership.enter(self.connection, now, doubt)
                if keyring.wanted():
                    self.connection.execute("BEGIN IMMEDIATE")
                    self.turn()
                    self.connection.execute("COMMIT")
                    self.sealer = keyring.ring(self.connection)
            except SQLiteErrors as error:
                raise translated(error, self.name) from error

    def refresh(self) -> None:
        """Before a batch: whether another process has changed the sealing keys.

        StoreInvalid: the one that seals now isn't at hand.
        """
        version = self.data_version()
        if version == self._seen:
            return
        if self.keyring.changed(self.connection):
            self.sealer = self.keyring.refresh(self.connection)
            if self.ownership is not None:
                self.ownership.note_keys(self.connection, self.keyring.known)
        self._seen = version

    def forget_keys(self) -> None:
        """This transaction changes them: they are looked at anew once it is over, whatever became of it."""
        self._seen = -1

    def turn(self) -> list[int]:
        """The first key at hand seals from the next transaction on. The pids of processes that don't
        know it: then nothing is changed."""
        wanted, ignorant = self.keyring.wanted(), list[int]()
        if wanted and self.ownership is not None:
            ignorant = self.ownership.without_key(self.connection, wanted)
        if not ignorant:
            self.keyring.turn(self.connection)
        return ignorant

    def data_version(self) -> int:
        """Another number than before: another connection has committed something."""
        return int(self.connection.execute("PRAGMA data_version").fetchone()[0])

    def close(self, now: Now) -> None:
        """End as an owner; the last one copies the log back. Close the file."""
        try:
            if self.ownership is not None and self.ownership.id and self._left(self.ownership, now):
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except (*SQLiteErrors, StoreError):
            pass  # the log stays, and the next opening reads it
        finally:
            self.connection.close()

    def drop(self) -> None:
        """Close everything as it is."""
        self.connection.close()
        if self.ownership is not None:
            self.ownership.close()

    def _left(self, ownership: Ownership, now: Now) -> bool:
        self.connection.execute("BEGIN IMMEDIATE")
        ownership.fence(self.connection)
        alone = ownership.leave(self.connection, now)
        self.connection.execute("COMMIT")
        ownership.note()
        return alone


def _refuse_lost(path: Path) -> None:
    """StoreInvalid: no store is there, and by its mark there was one: making a new one would hide
    that everything in it is lost, and spoil the place for a copy that is put back (N10)."""
    lost = mark.store_of(mark.mark_file(path))
    if lost is not None:
        raise StoreInvalid(
            f"the store {path} is missing or empty, and the mark beside it, {mark.mark_file(path).name}, is "
            f"of the store {lost.hex()}: put that file back, or a copy of it; or, to begin anew without what "
            "was in it, remove the mark"
        )


def _make(path: Path) -> None:
    """An empty file that only its owner can read, and whose name is durable."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        sync_directory(path.parent)
    except OSError as error:
        raise StoreError(f"the store {path} can't be made: {error.strerror}") from error


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
