"""What the service's handlers did: the rows that the verdict is counted from.

The transactional handler writes through ``ctx.transaction`` into the service's own store, the
ordinary one into a database of its own, which it commits by itself. Both write a row each time
they run.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from castile.demo.plan import Files
from castile.endpoint.deliver import RequestContext

_CREATE: Final = """CREATE TABLE IF NOT EXISTS effects (
    message INTEGER NOT NULL, redelivered INTEGER NOT NULL, sequence TEXT, number INTEGER,
    tick INTEGER NOT NULL, utc REAL NOT NULL)"""
_INSERT: Final = "INSERT INTO effects VALUES (?, ?, ?, ?, ?, ?)"
_SELECT: Final = "SELECT message, redelivered, sequence, number, tick, utc FROM effects"


@dataclass(frozen=True, slots=True)
class Effect:
    """One run of a handler."""

    message: int
    """The number that the client application gave it."""
    transactional: bool
    redelivered: bool
    """What ``ctx.redelivered`` said."""
    sequence: str
    number: int
    tick: int
    """When, on a clock that all processes of a machine share: nanoseconds."""
    utc: float


class Connection(Protocol):
    """``ctx.transaction`` or a connection of `sqlite3`."""

    def execute(self, statement: str, parameters: tuple[object, ...] = (), /) -> object:
        """Run one statement."""


def write(connection: Connection, message: int, ctx: RequestContext) -> None:
    """A handler's effect."""
    connection.execute(_CREATE)
    connection.execute(
        _INSERT, (message, ctx.redelivered, ctx.sequence, ctx.number, time.monotonic_ns(), time.time())
    )


def read(files: Files) -> list[Effect]:
    """Every effect there is, in the order of their happening."""
    found = [*_rows(files.service_store, transactional=True), *_rows(files.effects, transactional=False)]
    return sorted(found, key=lambda effect: effect.tick)


def _rows(path: Path, *, transactional: bool) -> Iterator[Effect]:
    if not path.exists():
        return
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'effects'").fetchone():
            return
        for message, redelivered, sequence, number, tick, utc in connection.execute(_SELECT):
            yield Effect(message, transactional, bool(redelivered), sequence, number, tick, utc)
