"""The application's way into a transactional handler's transaction (``ctx.transaction``)."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NoReturn
from weakref import WeakSet

from castile.clock import Clock
from castile.errors import StoreError, UsageError
from castile.store.database import translated

Parameters = Sequence[object] | Mapping[str, object]

_FIRST_WORDS: Final = re.compile(
    r"(?:\s|;|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))*(\w*)(?:\s+(?:TRANSACTION\s+)?(\w+))?", re.S
)
_REFUSED: Final = {
    "BEGIN": "the transaction is open already",
    "COMMIT": "castile commits, together with the reply, when the handler has returned",
    "END": "castile commits, together with the reply, when the handler has returned",
    "ROLLBACK": "raise an exception to undo what the handler did",
    "PRAGMA": "the connection is castile's own",
    "ATTACH": "the connection is castile's own",
    "DETACH": "the connection is castile's own",
    "VACUUM": "it can't be done inside a transaction",
}
_MARK: Final = "\n-- application"
"""Ends each statement of the application: a statement that castile prepared for itself, and that
`sqlite3` keeps by its text, is never run for it without being asked about."""
_CONTROL: Final = {
    sqlite3.SQLITE_TRANSACTION,
    sqlite3.SQLITE_PRAGMA,
    sqlite3.SQLITE_ATTACH,
    sqlite3.SQLITE_DETACH,
}


class Loan:
    """The connection of the store, lent to the application for one exclusive step."""

    def __init__(self, connection: sqlite3.Connection, name: str, clock: Clock, seconds: float) -> None:
        self._name = name
        self._connection = connection
        self._clock = clock
        self._seconds = seconds
        self._deadline = clock().tick + seconds
        self._returned = False
        self.denied: str | None = None
        self.inside = False
        """A statement of the application is being prepared or run."""
        self._cursors: WeakSet[sqlite3.Cursor] = WeakSet()
        connection.set_authorizer(self._authorize)
        connection.set_progress_handler(self._interrupt, 10_000)

    def check(self) -> None:
        """StoreError: the time is over, or the transaction is gone. UsageError: it is too late."""
        if self._returned:
            raise UsageError("ctx.transaction is only valid while its handler runs")
        if self.late:
            raise StoreError(f"the handler held the store for more than {self._seconds:g} s: undone")
        if not self._connection.in_transaction:
            raise StoreError("an earlier error has undone the handler's transaction")

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return self._clock().tick > self._deadline

    def end(self) -> None:
        """Take the connection back."""
        self._returned = True
        for cursor in tuple(self._cursors):
            cursor.close()  # an open one would hold back every checkpoint
        self._connection.set_authorizer(None)
        self._connection.set_progress_handler(None, 0)

    def cursor(self) -> ApplicationCursor:
        """A cursor that asks this loan before each statement."""
        self.check()
        cursor = self._connection.cursor(ApplicationCursor)
        cursor.loan = self
        self._cursors.add(cursor)
        return cursor

    def run(self, statement: str, work: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        """Run one statement of the application, if it is one that it may use.

        StoreFull, StoreBusy: the disk or a lock is the cause. Errors of SQL stay `sqlite3`'s own.
        """
        self.check()
        words = _FIRST_WORDS.match(statement)
        first, second = (words.group(1).upper(), (words.group(2) or "").upper()) if words else ("", "")
        if first in _REFUSED and not (first == "ROLLBACK" and second == "TO"):
            raise UsageError(f"{first} is not for ctx.transaction: {_REFUSED[first]}")
        self.inside, self.denied = True, None
        try:
            return work()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname == "SQLITE_INTERRUPT":
                self.check()
            told = translated(error, self._name, foreign=True)
            if told is error:
                raise
            raise told from error  # the store's trouble, not the statement's
        except sqlite3.DatabaseError as error:
            if self.denied is not None:
                raise UsageError(f"not for ctx.transaction: {self.denied}") from error
            raise
        finally:
            self.inside = False

    def _authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if not self.inside:
            return sqlite3.SQLITE_OK
        if action in _CONTROL:
            self.denied = f"{first or 'this statement'}, {_REFUSED['PRAGMA']}"
        elif any(name and name.lower().startswith("castile_") for name in (first, second)):
            self.denied = "tables named castile_… are castile's own"
        else:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    def _interrupt(self) -> bool:
        return self.inside and self.late


class ApplicationCursor(sqlite3.Cursor):
    """A cursor whose statements are checked like those of its `ApplicationConnection`."""

    loan: Loan

    def execute(self, statement: str, parameters: Parameters = (), /) -> ApplicationCursor:  # type: ignore[override]
        """As in `sqlite3`. UsageError: the statement would end or change the transaction."""
        marked = statement + _MARK
        self.loan.run(statement, lambda: super(ApplicationCursor, self).execute(marked, parameters))
        return self

    def executemany(  # type: ignore[override]
        self, statement: str, parameters: Iterable[Parameters], /
    ) -> ApplicationCursor:
        """As in `sqlite3`. UsageError: as `execute`."""
        marked = statement + _MARK
        self.loan.run(
            statement,
            lambda: super(ApplicationCursor, self).executemany(marked, parameters),
        )
        return self

    def executescript(self, _script: str, /) -> NoReturn:
        """UsageError: `sqlite3` commits before a script."""
        raise UsageError("executescript commits first: run the statements one by one")


class ApplicationConnection:
    """What a handler may do with the store's database: read and write tables of its own.

    They live in the same file, and what the handler writes is committed together with its reply
    and the mark that its message is done: all or nothing (features N11). Savepoints are allowed;
    COMMIT, ROLLBACK, PRAGMA, ATTACH and castile's own tables are not.
    """

    def __init__(self, loan: Loan) -> None:
        self._loan = loan

    def cursor(self) -> ApplicationCursor:
        """A cursor as in `sqlite3`."""
        return self._loan.cursor()

    def execute(self, statement: str, parameters: Parameters = (), /) -> ApplicationCursor:
        """As in `sqlite3`. UsageError: the statement would end or change the transaction."""
        return self.cursor().execute(statement, parameters)

    def executemany(self, statement: str, parameters: Iterable[Parameters], /) -> ApplicationCursor:
        """As in `sqlite3`. UsageError: as `execute`."""
        return self.cursor().executemany(statement, parameters)

    def executescript(self, _script: str, /) -> NoReturn:
        """UsageError: `sqlite3` commits before a script."""
        raise UsageError("executescript commits first: run the statements one by one")

    def commit(self) -> NoReturn:
        """UsageError: castile commits, when the handler has returned."""
        raise UsageError(f"no commit() on ctx.transaction: {_REFUSED['COMMIT']}")

    def rollback(self) -> NoReturn:
        """UsageError: the handler's exception undoes."""
        raise UsageError(f"no rollback() on ctx.transaction: {_REFUSED['ROLLBACK']}")

    def close(self) -> NoReturn:
        """UsageError: the connection is castile's own."""
        raise UsageError(f"no close() on ctx.transaction: {_REFUSED['PRAGMA']}")
