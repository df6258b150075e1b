"""A disk that fails at its n-th call, once or for ever: ``python -m tests.power.faults KIND``.

n rises until a run meets no fault. What the store said is kept must be there at once, when the
disk works again, and after the next opening; what failed must be told by a named error; and work
goes on without a restart. Prints one JSON object: how many runs, and what was wrong.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

import castile.store.database as database
from castile import store as stores
from castile.errors import CastileError, StoreBusy, StoreError, StoreFull
from castile.store import Store, Transaction
from tests.power.adapter import Connection
from tests.power.disk import Recorder
from tests.power.trace import temporary
from tests.store.samples import KEY, destination, do, inbox, outbox, source

PAGES = 30
"""A checkpoint comes after so many pages."""
STEPS = 12
MOST = 3_000


@dataclass(frozen=True)
class Kind:
    """What fails, and how."""

    calls: tuple[str, ...]
    code: int
    """SQLite's."""
    told: tuple[type[StoreError], ...]
    """The only errors that a step may have."""


KINDS = {
    "full": Kind(("write",), apsw.SQLITE_FULL, (StoreFull,)),
    "sync": Kind(("sync",), apsw.SQLITE_IOERR_FSYNC, (StoreFull,)),
    "truncate": Kind(("truncate",), apsw.SQLITE_IOERR_TRUNCATE, (StoreFull,)),
    "read": Kind(("read",), apsw.SQLITE_IOERR_READ, (StoreFull,)),
    "size": Kind(("size",), apsw.SQLITE_IOERR_FSTAT, (StoreFull,)),
    "busy": Kind(("lock",), apsw.SQLITE_BUSY, (StoreBusy,)),
    "any": Kind(
        ("write", "sync", "truncate", "read", "size", "open", "delete"),
        apsw.SQLITE_IOERR_WRITE,
        (StoreFull, StoreError),
    ),
}


@dataclass
class Trial:
    """One run with one fault."""

    kind: Kind
    number: int
    forever: bool
    folder: Path
    recorder: Recorder
    met: int = 0
    calls: int = 0
    ill: bool = True
    wrong: list[str] = field(default_factory=list)

    def trouble(self, call: str, name: str) -> Exception | None:
        """Asked before each call to the disk."""
        if not self.ill or call not in self.kind.calls:
            return None
        self.calls += 1
        if self.calls == self.number or (self.forever and self.calls > self.number):
            self.met += 1
            return apsw.exception_for(self.kind.code)
        return None

    def __call__(self) -> None:
        """Work, fail, get well, go on, and look again after the next opening."""
        path = self.folder / "a.db"
        self.recorder.trouble = lambda call, name: None
        opened = stores.open(path, seal=KEY)
        do(opened, lambda tx: tx.save_source(source()))
        do(opened, lambda tx: tx.save_destination(destination()))
        self.recorder.trouble = self.trouble
        sent, accepted = self._work(opened)
        self.ill = False
        do(opened, lambda tx: tx.enqueue(outbox(1_000)))  # without a restart
        sent.append(1_000)
        self._check(opened, sent, accepted, "when the disk works again")
        self.ill = True
        opened.close()
        self.ill = False
        again = stores.open(path, seal=KEY)
        self._check(again, sent, accepted, "after the next opening")
        do(again, lambda tx: tx.enqueue(outbox(1_001)))
        again.close()

    def _work(self, opened: Store) -> tuple[list[int], list[int]]:
        """Steps alone and steps together, small and large; the numbers that were promised."""
        sent: list[int] = []
        accepted: list[int] = []
        for turn in range(1, STEPS):
            batch: dict[int, Future[None]] = {}
            for number in range(turn * 10, turn * 10 + (1 if turn % 3 else 4)):
                size = 20_000 if turn % 5 == 0 else 500
                batch[number] = opened.run(lambda tx, n=number, s=size: tx.enqueue(outbox(n, body=b"x" * s)))  # type: ignore[misc]
            into = opened.run(lambda tx, n=turn: tx.accept(inbox(n)))  # type: ignore[misc]
            wait([*batch.values(), into], 30)
            sent += [number for number, future in batch.items() if self._kept(future)]
            accepted += [turn] if self._kept(into) else []
        return sent, accepted

    def _kept(self, future: Future[None]) -> bool:
        error = future.exception(0)
        if error is not None and type(error) not in self.kind.told:
            self._say(f"told by {error!r}")
        return error is None

    def _check(self, opened: Store, sent: list[int], accepted: list[int], when: str) -> None:
        def look(tx: Transaction) -> tuple[list[int | None], list[int], Any]:
            connection = tx._connection  # type: ignore[attr-defined]
            checked = connection.execute("PRAGMA integrity_check").fetchall()
            return [row.number for row in tx.outbox("k1")], [row.number for row in tx.inbox()], checked

        there, received, checked = do(opened, look)
        if checked != [("ok",)]:
            self._say(f"{when} its integrity check says {checked[:3]}")
        if there != sent or received != accepted:
            self._say(f"{when} there are {there} and {received}, promised were {sent} and {accepted}")

    def _say(self, text: str) -> None:
        mode = "for ever" if self.forever else "once"
        self.wrong.append(f"call {self.number} of {'/'.join(self.kind.calls)} fails {mode}: {text}")


def run(kind: Kind) -> dict[str, object]:
    """Every n, once and for ever."""
    recorder, runs, wrong = Recorder(), 0, list[str]()
    connected = sqlite3.connect
    sqlite3.connect = lambda path, *args, **options: Connection(path)  # type: ignore[assignment]
    database.CHECKPOINT_PAGES = PAGES  # type: ignore[misc]
    try:
        for forever in (False, True):
            for number in range(1, MOST):
                folder = Path(temporary())
                trial = Trial(kind, number, forever, folder, recorder)
                try:
                    trial()
                except (CastileError, OSError) as error:
                    trial._say(f"it doesn't go on: {error!r}")
                finally:
                    recorder.events.clear()
                    shutil.rmtree(folder)
                runs += 1
                wrong += trial.wrong
                if not trial.met:
                    break
    finally:
        sqlite3.connect = connected
    return {"runs": runs, "wrong": wrong[:20]}


def main() -> None:
    """The program."""
    print(json.dumps(run(KINDS[sys.argv[1]])))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main()
