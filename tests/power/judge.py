"""Opens what a power cut could leave, and says which promises are broken.

A store that was cut off must be one of the states that its commits made, no older than what was
promised by then; and the product must open it.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from castile import store as stores
from castile.errors import CastileError
from castile.store import Transaction
from tests.power.promises import consistent, digest, holds
from tests.power.trace import PATTERNS, Disk, Image, Trace, temporary

STORES = ("client.db", "service.db")
SAMPLE = 8
NOISE = random.Random(0).randbytes(32_768)
"""What may stand in the log's memory map, which nobody syncs."""
FRAME_HEADER = 24
"""Bytes of a frame's header in the write-ahead log, a write of its own before its page."""


@dataclass
class Verdict:
    """What was found in one store's part of a trace."""

    points: int = 0
    """Moments at which the power was cut."""
    images: int = 0
    """Different disks that were opened."""
    cuts: int = 0
    lost: int = 0
    """Cuts after which a commit that had returned was gone."""
    commits: int = 0
    promises: int = 0
    wrong: list[str] = field(default_factory=list)


class Judge:
    """Judges one store of a trace."""

    def __init__(self, trace: Trace, store: str) -> None:
        self._trace = trace
        self._store = store
        self._events = trace.of(store)
        self._states: dict[bytes, int] = {b"": 0}
        """By digest, the last of the commits that made it; an empty store is before the first."""
        self._since: dict[tuple[object, ...], int] = {}
        """From which commit on a promise is held."""
        self._known: dict[int, int | str] = {}
        self._opened: set[int] = set()
        """States of which the product has opened one image."""
        self.verdict = Verdict()

    def __call__(self, seed: int, patterns: int = PATTERNS, *, lossy: bool = False) -> Verdict:
        """Cut at every write. `lossy`: commits may be lost, but nothing may be half there."""
        self._read_states()
        disk, committed, promised = Disk(), 0, 0
        for at, event in enumerate(self._events):
            if event.operation == "commit":
                committed += 1
            elif event.operation == "promise":
                promised = max(promised, self._since[event.promise])
            elif event.operation != "handled":
                disk.apply(event)
                self.verdict.points += 1
            if len(event.data) == FRAME_HEADER and event.operation == "write":
                continue  # its page comes next, and the cut after that may leave the header alone
            for pattern in range(patterns if disk.pending else 1):
                image = disk.cut(random.Random(f"{seed} {at} {pattern}"), pattern)
                cut = f"cut {seed} {at} {pattern} after {event.operation}"
                where = f"{self._trace.scenario} {self._store}: {cut}"
                self._cut(image, where, committed, promised, lossy)
        return self.verdict

    def _cut(self, image: Image, where: str, committed: int, promised: int, lossy: bool) -> None:
        self.verdict.cuts += 1
        name = hash(tuple(sorted(image.items())))
        if name not in self._known:
            self._known[name] = self._open(image, lossy)
        state = self._known[name]
        if isinstance(state, str):
            self._wrong(f"{where}: {state}")
            return
        self.verdict.lost += state < max(committed, promised)
        if lossy:
            return
        if state < committed:
            self._wrong(f"{where}: commit {committed} had returned, and the store is at {state}")
        elif state < promised:
            self._wrong(f"{where}: what commit {promised} holds was promised, and the store is at {state}")

    def _wrong(self, text: str) -> None:
        if len(self.verdict.wrong) < 20:
            self.verdict.wrong.append(text)

    def _open(self, image: Image, lossy: bool) -> int | str:
        """At which commit the store is; or what is wrong with it.

        SQLite reads each, the product every `SAMPLE`-th and the first of each state: it costs
        three times as much.
        """
        self.verdict.images += 1
        with placed(image, self._store) as path, closing(sqlite3.connect(path)) as connection:
            try:
                state = self._state_of(connection)
            except sqlite3.Error as error:
                return f"SQLite can't read it: {error}"
        if isinstance(state, str) or (state in self._opened and self.verdict.images % SAMPLE):
            return state
        self._opened.add(state)
        with placed(image, self._store) as path:
            try:
                seen = self._with_store(path, lambda tx: self._state_of(tx._connection))
            except CastileError as error:
                return f"the product can't open it: {error!r}"
        # Of a store that has lost commits the product gives up the sequences, and says so.
        return state if lossy or seen == state else f"the product sees {seen}, SQLite {state}"

    def _state_of(self, connection: Any) -> int | str:
        checked = connection.execute("PRAGMA integrity_check").fetchall()
        if checked != [("ok",)]:
            return f"its integrity check says {checked[:3]}"
        return self._states.get(digest(connection), "it is at no state that a commit made")

    def _with_store(self, path: Path, step: Any) -> Any:
        opened = stores.open(path, seal=self._trace.key)
        try:
            return opened.run(step).result(30)
        finally:
            opened.close()

    def _read_states(self) -> None:
        """Every state that a commit made: its promises, and whether it is consistent."""
        promises = {event.promise for event in self._events if event.operation == "promise"}
        held: dict[tuple[object, ...], int] = dict.fromkeys(promises, 0)
        disk, committed, handled = Disk(), 0, set[tuple[object, ...]]()
        for event in self._events:
            if event.operation == "handled":
                handled.add(event.promise)
            elif event.operation == "commit":
                committed += 1
                self._states[event.data] = committed
                with placed(disk.whole(), self._store) as path:

                    def step(tx: Transaction, at: int = committed) -> None:
                        for text in consistent(tx):
                            self._wrong(f"{self._trace.scenario} {self._store}: at commit {at} {text}")
                        for promise in promises:
                            if not holds(promise, tx, handled):
                                held[promise] = at

                    self._with_store(path, step)
            elif event.operation != "promise":
                disk.apply(event)
        self._since = {promise: last + 1 for promise, last in held.items()}
        self.verdict.commits, self.verdict.promises = committed, len(promises)
        for promise, since in self._since.items():
            if since > committed:
                self._wrong(f"{self._trace.scenario} {self._store}: {promise} is held at the end by nothing")


class placed:  # noqa: N801 - a context manager, read as a word
    """An image as files, for as long as it is looked at."""

    def __init__(self, image: Image, store: str) -> None:
        self._image, self._store = image, store

    def __enter__(self) -> Path:
        self._folder = Path(temporary())
        (self._folder / f"{self._store}-shm").write_bytes(NOISE)
        for name, content in self._image.items():
            (self._folder / name).write_bytes(content)
        return self._folder / self._store

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder)
