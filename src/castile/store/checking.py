"""Whether a store is whole: every page, every seal and checksum, the mark, and who has it open.

It only reads, and may be asked while processes have the store open.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from castile.store import migrations
from castile.store.lock import lives
from castile.store.mark import commits_of, mark_file
from castile.store.owners import Owner, owners
from castile.store.reading import Reading
from castile.store.tables import TABLES, BrokenRow, R, Table

if TYPE_CHECKING:
    from castile.store import Seal

_TOLD: Final = 20
"""So many findings of SQLite's own check are told."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found."""

    schema: int
    pages: list[str]
    """What SQLite finds wrong with the file; empty is good."""
    rows: dict[str, int]
    """How many there are in each table."""
    unreadable: list[str]
    """Rows whose seal or checksum is broken."""
    rolled_back: bool
    """The mark is ahead of the database."""
    marked: bool
    """There is a mark of this store beside it."""
    owners: list[tuple[Owner, bool]]
    """Who has not ended, and whether its process lives."""

    @property
    def whole(self) -> bool:
        """Nothing is wrong."""
        return not (self.pages or self.unreadable or self.rolled_back) and self.marked


def check(path: Path, seal: Seal) -> Checked:
    """Look at all of the store at `path`. Raises as `castile.store.reading.read`."""
    database = Reading(path, seal)
    try:
        connection = database.connection
        connection.execute("BEGIN")
        pages = [str(line) for (line,) in connection.execute(f"PRAGMA integrity_check({_TOLD})")]
        rows: dict[str, int] = {}
        unreadable: list[str] = []
        for count, broken in (_read(database, table) for table in TABLES):
            rows |= count
            unreadable += broken
        known = owners(connection)
        marks = commits_of(mark_file(path), database.keyring.store)
        behind = {each.id: each.commits for each in known}
        return Checked(
            schema=migrations.version_of(connection, database.name),
            pages=[] if pages == ["ok"] else pages,
            rows=rows,
            unreadable=unreadable,
            rolled_back=any(last > behind.get(owner, 0) for owner, last in (marks or {}).items()),
            marked=marks is not None,
            owners=[(each, lives(path.resolve(), each.id)) for each in known if each.ended is None],
        )
    finally:
        database.connection.close()


def _read(database: Reading, table: Table[R]) -> tuple[dict[str, int], list[str]]:
    """Open every row of a table: their number, and those that can't be read."""
    broken = []
    count = 0
    cursor: sqlite3.Cursor = database.connection.execute(table.select)
    for row in cursor:
        count += 1
        try:
            table.read(row, database.sealer)
        except BrokenRow as error:
            broken.append(f"{table.name} {table.key_of(row)}: {error}")
    return {table.name.removeprefix("castile_"): count}, broken
