"""A connection of apsw that looks like one of sqlite3, as far as the store asks."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw

from tests.power.disk import NAME

_KINDS: dict[int, type[sqlite3.Error]] = {
    apsw.SQLITE_CONSTRAINT: sqlite3.IntegrityError,
    apsw.SQLITE_CORRUPT: sqlite3.DatabaseError,
    apsw.SQLITE_NOTADB: sqlite3.DatabaseError,
}
Values = Sequence[Any] | Mapping[str, Any]


def translated(error: apsw.Error) -> sqlite3.Error:
    """The same error as sqlite3 raises it."""
    code = getattr(error, "extendedresult", apsw.SQLITE_ERROR)
    told = _KINDS.get(code & 0xFF, sqlite3.OperationalError)(str(error))
    told.sqlite_errorcode = code
    told.sqlite_errorname = type(error).__name__
    return told


class Cursor:
    """Of one statement."""

    loan: Any = None
    """Of the application's cursor, which asks it before each statement."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor = connection.raw.cursor()
        self._rows: Iterator[Any] = iter(())
        self.rowcount = -1
        self.lastrowid: int | None = None

    def execute(self, statement: str, values: Values = ()) -> Cursor:
        if self.loan is not None:
            self.loan.run(statement, lambda: self._run(statement, values))
        else:
            self._run(statement, values)
        return self

    def executemany(self, statement: str, rows: Iterable[Values]) -> Cursor:
        for values in rows:
            self.execute(statement, values)
        return self

    def _run(self, statement: str, values: Values) -> Cursor:
        connection = self._connection
        before = connection.raw.total_changes()
        was_open = connection.in_transaction
        try:
            # All at once: what SQLite does belongs to this moment of the trace.
            rows = list(self._cursor.execute(statement, values))
        except apsw.Error as error:
            raise translated(error) from error
        self._rows = iter(rows)
        self.rowcount = connection.raw.total_changes() - before
        self.lastrowid = connection.raw.last_insert_rowid()
        if was_open and not connection.in_transaction:
            connection.ended(statement)
        return self

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def close(self) -> None:
        self._cursor.close()

    def __iter__(self) -> Iterator[Any]:
        return self._rows


class Connection:
    """What `sqlite3.connect` returns to the store."""

    text_factory: Any = None  # a recorded text is whole

    def __init__(self, path: str) -> None:
        self.name = Path(path).name
        try:
            self.raw = apsw.Connection(path, vfs=NAME)
        except apsw.Error as error:
            raise translated(error) from error
        self.raw.set_busy_timeout(200)

    def ended(self, statement: str) -> None:
        """A transaction has ended by this statement."""

    def execute(self, statement: str, values: Values = ()) -> Cursor:
        return Cursor(self).execute(statement, values)

    def executemany(self, statement: str, rows: Iterable[Values]) -> Cursor:
        return Cursor(self).executemany(statement, rows)

    def cursor(self, _factory: object = None) -> Cursor:
        return Cursor(self)

    @property
    def in_transaction(self) -> bool:
        return self.raw.in_transaction

    @property
    def total_changes(self) -> int:
        return self.raw.total_changes()

    def set_authorizer(self, authorizer: Any) -> None:
        self.raw.authorizer = authorizer

    def set_progress_handler(self, handler: Any, steps: int) -> None:
        self.raw.set_progress_handler(handler, steps or 20)

    def close(self) -> None:
        with contextlib.suppress(apsw.Error):  # sqlite3 doesn't tell either
            self.raw.close()
