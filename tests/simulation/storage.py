"""SQLite as the product sees it: real SQL, and a disk that may fail or take its process along.

Every statement that writes, and every BEGIN and COMMIT, is a place where the process may die, the
disk may be full, or the answer may be lost though the transaction was applied.
"""

from __future__ import annotations

import contextlib
import sqlite3
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.simulation.primitives import process_of
from tests.simulation.world import world

if TYPE_CHECKING:
    from tests.simulation.processes import Process

_ERRORS = {
    "full": (sqlite3.SQLITE_FULL, "database or disk is full"),
    "ioerr": (sqlite3.SQLITE_IOERR, "disk I/O error"),
    "busy": (sqlite3.SQLITE_BUSY, "database is locked"),
}
_POINTS = frozenset("BCIUD")
"""First letters of the statements that are watched: BEGIN, COMMIT, INSERT, UPDATE, DELETE."""


def error_of(kind: str) -> sqlite3.OperationalError:
    """The error that SQLite gives for this kind of trouble."""
    code, text = _ERRORS[kind]
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


class Connection(sqlite3.Connection):
    """A connection of one simulated process."""

    process: Process
    path: str
    synchronous = "FULL"
    seen = 0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        first = sql[0]
        if first in _POINTS and self.process.disk.armed:
            return self._watched(sql, parameters)
        if first == "P":
            if sql.startswith("PRAGMA synchronous"):
                self.synchronous = sql.rpartition("= ")[2]
                sql = "PRAGMA synchronous = OFF"  # the world's crashes are its own, not the kernel's
            elif sql.startswith("PRAGMA cache_size"):
                return super().execute("PRAGMA page_count")
        if first == "C" and sql == "COMMIT":
            return self._committed()
        if first == "B" and sql.startswith("BEGIN"):
            return self._begun(sql)
        return super().execute(sql, parameters)

    def _watched(self, sql: str, parameters: Any) -> sqlite3.Cursor:
        if not sql.startswith(("BEGIN", "COMMIT", "INSERT", "UPDATE", "DELETE")):
            return super().execute(sql, parameters)
        disk, process = self.process.disk, self.process
        fault = disk.fault(sql)
        if fault is None:
            if sql == "COMMIT":
                return self._committed()
            if sql.startswith("BEGIN"):
                return self._begun(sql)
            return super().execute(sql, parameters)
        if fault == "crash":
            process.crash(f"before {sql[:24]}")
        if fault == "crash-after":
            if sql == "COMMIT":
                self._committed()
            process.crash(f"after {sql[:24]}")
        if fault == "unknown":
            self._committed()
            raise error_of("ioerr")
        if fault in ("full", "ioerr") and disk.rolls_back() and self.in_transaction:
            super().execute("ROLLBACK")  # SQLite gives up all of it for some of these
        raise error_of(fault)

    def _begun(self, sql: str) -> sqlite3.Cursor:
        deadline = world().now + 5.0
        while True:
            try:
                return super().execute(sql)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or world().now >= deadline:
                    raise
            world().sleep(0.01)

    def _committed(self) -> sqlite3.Cursor:
        self.process.disk.before_commit(self)
        cursor = super().execute("COMMIT")
        if self.total_changes != self.seen:
            self.seen = self.total_changes
            self.process.committed(self)
        return cursor

    def raw(self, sql: str, parameters: Any = ()) -> list[Any]:
        """Rows for the auditor: what is committed, as SQL reads it."""
        return super().execute(sql, parameters).fetchall()


def _connect(database: str, *_: object, **options: Any) -> Connection:
    options["timeout"] = 0.0
    connection: Connection = sqlite3.connect(database, factory=Connection, **options)
    image = world().memory
    if image is not None and database == ":memory:":
        connection.deserialize(image)
    connection.process, connection.path = process_of(world().current), database
    connection.process.connections.append(connection)
    return connection


def module() -> types.ModuleType:
    """sqlite3."""
    found = types.ModuleType("sqlite3")
    found.__dict__.update({**vars(sqlite3), "connect": _connect})
    return found


def image_of(store: Path) -> bytes:
    """An empty store as a database in memory begins with it: all its tables, and nobody's key."""
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # there is no write-ahead log in memory
        connection.execute("DELETE FROM castile_meta")
        connection.execute("DELETE FROM castile_owners")
        connection.execute("VACUUM")
        return connection.serialize()


def files_of(store: Path) -> list[Path]:
    """The files that hold a store's data, without what stands beside it."""
    return [store, store.with_name(f"{store.name}-wal")]
