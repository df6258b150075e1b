"""Rarer trouble of processes, clocks and disks, at moments that the plan gives."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.simulation.storage import files_of

if TYPE_CHECKING:
    from tests.simulation.processes import Process
    from tests.simulation.simulate import Run

TABLES = ("contexts", "sources", "destinations", "outbox", "inbox", "replies")
SUPERVISED = 3.0
"""Seconds after which a process is started anew whose lock file was swept away."""


@dataclass(slots=True)
class Trouble:
    """Stopped processes, wrong clocks, restored stores, flipped bits."""

    run: Run
    wrong: dict[str, float] = field(default_factory=lambda: {"client": 0.0, "service": 0.0})
    """By side: what its clock was set by."""
    _copy: dict[Path, bytes] = field(default_factory=dict)
    _commits: int = 0

    def prepare(self) -> None:
        """Everything that is to come."""
        plan, after = self.run.plan, self.run.world.after
        for moment, side, seconds, swept in plan.pauses:
            after(moment, functools.partial(self._stop, side, seconds, swept=swept))
        for moment, side, seconds in plan.jumps:
            after(moment, functools.partial(self._set, side, seconds))
        for moment, side in plan.flips:
            after(moment, functools.partial(self._flip, side))
        if plan.restored is not None:
            since, moment, side = plan.restored
            after(since, functools.partial(self._back_up, side))
            after(moment, functools.partial(self._restore, side))

    def over(self) -> None:
        """Clocks are right again."""
        for side, seconds in self.wrong.items():
            if seconds:
                self._turn(side, -seconds)

    def _living(self, side: str) -> list[Process]:
        up = self.run.up.values()
        return [each for each in up if each.side == side and each.alive and not each.stopped]

    def _stop(self, side: str, seconds: float, *, swept: bool) -> None:
        living = self._living(side)
        if not living or not self.run.faults.planned("pause", side):
            return
        process = living[int(self.run.faults.chance.random() * len(living))]
        swept = swept and len(living) > 1
        process.stop(swept=swept)
        if swept:
            self.run.auditor.stale.add(process.name)
        self.run.world.after(seconds, functools.partial(self._go_on, process, swept=swept))

    def _go_on(self, process: Process, *, swept: bool) -> None:
        if not process.alive:
            return
        process.go_on()
        if swept and process.name not in self.run.stage.through:
            self.run.world.after(SUPERVISED, lambda: process.kill("its supervisor"))

    def _set(self, side: str, seconds: float) -> None:
        if self.run.faults.planned("clock", f"{side} {seconds:.0f}"):
            self._turn(side, seconds)

    def _turn(self, side: str, seconds: float) -> None:
        self.wrong[side] += seconds
        for process in self.run.up.values():
            if process.side == side:
                process.set_clock(process.skew + seconds)

    def _store(self, side: str) -> Path:
        return self.run.folder / f"{side}.db"

    def _back_up(self, side: str) -> None:
        files = files_of(self._store(side))
        self._copy = {path: path.read_bytes() for path in files if path.exists()}
        self._commits = self.run.auditor.commits[side]

    def _restore(self, side: str) -> None:
        """The process is ended, the copy put in its store's place, and it starts again."""
        living, auditor = self._living(side), self.run.auditor
        if not living or living[0].name in self.run.stage.through or not self._copy:
            return
        if self._commits in (0, auditor.commits[side]) or not self.run.faults.planned("restore", side):
            return  # a copy from before its first commit is no store yet, and is refused beside the mark
        living[0].kill("restored")
        for path in (*files_of(self._store(side)), self._store(side).with_name(f"{side}.db-shm")):
            path.unlink(missing_ok=True)
        for path, octets in self._copy.items():
            path.write_bytes(octets)
        auditor.rolled_back(side)

    def _flip(self, side: str) -> None:
        chance, path = self.run.faults.chance, self._store(side)
        if not path.exists() or not self.run.faults.planned("flip", side):
            return
        with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            try:
                places = [place for table in TABLES for place in _places(connection, table)]
                numbers = [place for place in places if isinstance(place[3], int)]
                some = numbers if numbers and chance.random() < 0.5 else places
                if not some:
                    return
                table, column, row, value = some[int(chance.random() * len(some))]
                self.run.world.note("flipped", table, column)
                statement = f"UPDATE castile_{table} SET {column} = ? WHERE rowid = ?"
                connection.execute(statement, (_flipped(value, chance.random()), row))
            except sqlite3.Error as error:  # somebody writes just now, or there is such a row
                self.run.world.note("not flipped", error)


def _places(connection: sqlite3.Connection, table: str) -> list[tuple[str, str, int, bytes | int]]:
    """Table, column, row and value of whatever can be damaged; an owner isn't under the checksum."""
    rows = connection.execute(f"SELECT rowid, * FROM castile_{table}")
    names = [column[0] for column in rows.description]
    return [
        (table, name, row[0], value)
        for row in rows.fetchall()
        for name, value in zip(names[1:], row[1:], strict=True)
        if isinstance(value, bytes | int) and value and name != "owner"
    ]


def _flipped(value: bytes | int, where: float) -> bytes | int:
    """The value with one bit turned over; of a number one of the lowest."""
    if isinstance(value, int):
        return value ^ 1 << int(where * 3)
    octets = bytearray(value)
    bit = int(where * len(octets) * 8)
    octets[bit // 8] ^= 1 << bit % 8
    return bytes(octets)
