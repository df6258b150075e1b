"""Who has a store open: each opening is an owner, with an id that only grows.

The row says what the owner has committed, its lock file whether it lives. Every transaction that
writes counts up its owner's row, and fails if that has ended: then another process has taken over
what it had, and this one is out for ever (I8). A stopped process still holds its lock, so it is
never taken for dead.
"""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from castile.clock import Now
from castile.config import Durability
from castile.errors import StoreBusy, StoreFenced, StoreInvalid
from castile.store.lock import OwnerLock, lives, owner_file
from castile.store.mark import Mark

KEPT: Final = 1_000
"""Rows of ended owners that stay, for people who look."""

reliability_log = logging.getLogger("castile.reliability")


@dataclass(frozen=True, slots=True)
class Owner:
    """An opening of the store."""

    id: int
    pid: int
    host: str
    since: float
    """UTC."""
    commits: int
    """Number of its last commit."""
    ended: float | None
    """UTC: when it closed the store, or was found dead."""
    durability: Durability = "full"
    """What a power cut may take of its commits (`Settings.durability`)."""


class Ownership:
    """This opening among the others. What takes a connection runs in its transaction, under the
    writer lock, but for `others`."""

    def __init__(self, path: Path, store: bytes, durability: Durability, keys: list[str]) -> None:
        """`store`: the id of the store. `keys`: those of the sealing keys at hand."""
        self._path = path
        self._store = store
        self._durability = durability
        self._keys = " ".join(keys)
        self._mark = Mark(path)
        self._lock: OwnerLock | None = None
        self._commits = 0
        self._file: tuple[int, int] | None = None
        self._others: frozenset[int] = frozenset()
        self._newest = 0
        self.id = 0

    def enter(self, connection: sqlite3.Connection, now: Now, doubt: Callable[[str], None]) -> None:
        """Become an owner, in a transaction of its own.

        `doubt` is called, with what is known, if the database is older than its mark: then it was
        rolled back (N10). StoreInvalid: the mark is another store's.
        """
        mark = self._mark
        if mark.store not in (None, self._store):
            raise StoreInvalid(
                f"{self._path} is the store {self._store.hex()}, and the mark beside it, {mark.path.name}, "
                f"is of the store {(mark.store or b'').hex()}: another store was put in its place. Put the "
                "right file back; or, if this one is meant, remove the mark"
            )
        connection.execute("BEGIN IMMEDIATE")
        known = {each.id: each for each in owners(connection)}
        beyond = {
            owner: last
            for owner, last in mark.commits.items()
            if owner not in known or last > known[owner].commits
        }
        self._insert(connection, now)
        if beyond:
            doubt(_behind(beyond, known))
        connection.execute("COMMIT")
        if known and mark.store is None:
            reliability_log.warning(
                "the store %s has no mark (%s): whether it is an older copy can't be judged this time",
                self._path,
                mark.path.name,
            )
        if self._durability != "full":
            reliability_log.warning(
                "the store %s is open with durability=%r: a power cut may take what was promised",
                *(self._path, self._durability),
            )
        self._others, self._newest = frozenset(self.others(connection)), self.id
        mark.begin(self._store)
        unended = {each.id: each.commits for each in known.values() if each.ended is None}
        mark.join(self.id, self._commits, unended)
        self._file = _identity(self._path)

    def _insert(self, connection: sqlite3.Connection, now: Now) -> None:
        connection.execute(
            "DELETE FROM castile_owners "
            "WHERE ended IS NOT NULL AND id < (SELECT max(id) FROM castile_owners) - ?",
            [KEPT],
        )
        while self._lock is None:
            self.id = (
                connection.execute(
                    "INSERT INTO castile_owners (pid, host, since, commits, durability, keys) "
                    "VALUES (?, ?, ?, 1, ?, ?)",
                    [os.getpid(), socket.gethostname(), now.utc, self._durability, self._keys],
                ).lastrowid
                or 0
            )
            self._commits = 1
            try:
                self._lock = OwnerLock(self._path, self.id)
            except StoreBusy:  # an owner of whom this database, a restored copy, knows nothing
                self._end(connection, self.id, now)

    def fence(self, connection: sqlite3.Connection) -> None:
        """Count a transaction that writes. StoreFenced: this owner has ended."""
        self._commits += 1  # also if the commit fails: whether it did can be unknown
        counted = connection.execute(
            "UPDATE castile_owners SET commits = ? WHERE id = ? AND ended IS NULL", [self._commits, self.id]
        )
        if counted.rowcount != 1:
            raise StoreFenced(
                f"another process has taken over what this one (owner {self.id}) had in the store "
                f"{self._path}, or an older copy was put in its place: open it again"
            )

    def kept(self, connection: sqlite3.Connection) -> bool:
        """Whether the last counted transaction is in the database: an error of COMMIT doesn't say
        that it isn't, and what is there must not be done again."""
        row = connection.execute("SELECT commits FROM castile_owners WHERE id = ?", [self.id]).fetchone()
        return row is not None and row[0] == self._commits

    def note(self) -> None:
        """The transaction is committed."""
        self._mark.note(self.id, self._commits)

    def others(self, connection: sqlite3.Connection) -> list[int]:
        """The other owners that have not ended."""
        rows = connection.execute(
            "SELECT id FROM castile_owners WHERE ended IS NULL AND id <> ?", [self.id]
        ).fetchall()
        return [owner for (owner,) in rows]

    def note_keys(self, connection: sqlite3.Connection, keys: list[str]) -> None:
        """This owner has the sealing keys with these ids, from now on."""
        connection.execute("UPDATE castile_owners SET keys = ? WHERE id = ?", [" ".join(keys), self.id])

    def without_key(self, connection: sqlite3.Connection, key: str) -> list[int]:
        """The pids of living owners that haven't this sealing key."""
        rows = connection.execute(
            "SELECT id, pid, keys FROM castile_owners WHERE ended IS NULL AND id <> ?", [self.id]
        ).fetchall()
        return [pid for owner, pid, keys in rows if key not in keys.split() and lives(self._path, owner)]

    @property
    def company(self) -> bool:
        """Whether there were others at the last look."""
        return bool(self._others)

    def gone(self, connection: sqlite3.Connection) -> bool:
        """Whether one of the others has ended since the last look, or its process is gone."""
        others = frozenset(self.others(connection))
        newest = int(connection.execute("SELECT max(id) FROM castile_owners").fetchone()[0])
        passed = set(range(self._newest + 1, newest + 1)) - others - {self.id}
        dead = [owner for owner in others if not lives(self._path, owner)]
        ended = self._others - others
        self._others, self._newest = others, newest
        return bool(ended or passed or dead)

    def bury(self, connection: sqlite3.Connection, now: Now) -> frozenset[int]:
        """Mark owners as ended whose process is gone; the ids of all that live."""
        living = {self.id}
        for owner in self.others(connection):
            if lives(self._path, owner):
                living.add(owner)
            else:
                reliability_log.warning("owner %s of the store %s is gone", owner, self._path)
                self._end(connection, owner, now)
                owner_file(self._path, owner).unlink(missing_ok=True)
        return frozenset(living)

    def replaced(self) -> bool:
        """Whether another file is now where the store was."""
        return self._file is not None and _identity(self._path) != self._file

    def leave(self, connection: sqlite3.Connection, now: Now) -> bool:
        """End; whether no other owner lives."""
        self._end(connection, self.id, now)
        owner_file(self._path, self.id).unlink(missing_ok=True)
        return not any(lives(self._path, owner) for owner in self.others(connection))

    def close(self) -> None:
        """Drop the handles. After a fork, in the child, the parent keeps its lock."""
        self._mark.close()
        if self._lock is not None:
            self._lock.close()

    def _end(self, connection: sqlite3.Connection, owner: int, now: Now) -> None:
        connection.execute("UPDATE castile_owners SET ended = ? WHERE id = ?", [now.utc, owner])


def owners(connection: sqlite3.Connection) -> list[Owner]:
    """All that are known, the oldest first."""
    columns = "id, pid, host, since, commits, ended, durability"
    rows = connection.execute(f"SELECT {columns} FROM castile_owners ORDER BY id")  # noqa: S608 - ours
    return [Owner(*row) for row in rows.fetchall()]


def _behind(beyond: dict[int, int], known: dict[int, Owner]) -> str:
    """What is known of the commits that the database has lost."""
    lost = [
        f"owner {owner} up to commit {last}, here {known[owner].commits if owner in known else 'none'}"
        for owner, last in sorted(beyond.items())
    ]
    return "; ".join(lost)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
