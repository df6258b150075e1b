"""Processes of the simulated machines: they start, die at any statement, and start again."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from castile.clock import Now
from castile.errors import CastileError, Retry
from tests.simulation.primitives import Lock
from tests.simulation.storage import Connection, files_of
from tests.simulation.world import EPOCH, Task, World

if TYPE_CHECKING:
    from tests.simulation.faults import Faults
    from tests.simulation.network import Slot

_STATEMENTS = ("crash", "full", "ioerr")
_BEGINNINGS = ("busy", "crash")
_COMMITS = ("crash", "crash-after", "unknown", "full", "ioerr")


class Disk:
    """The disk under one process's store."""

    def __init__(self, faults: Faults, side: str, *, lasting: bool) -> None:
        """Without `lasting` it is memory, which fails only together with its process."""
        self._faults = faults

        def possible(kinds: tuple[str, ...]) -> list[tuple[str, str]]:
            rates = [(kind, f"{side} {kind}") for kind in kinds if lasting or kind.startswith("crash")]
            return [(kind, rate) for kind, rate in rates if faults.rates.get(rate)]

        self._statements, self._begins = possible(_STATEMENTS), possible(_BEGINNINGS)
        self._commits = possible(_COMMITS)
        self._any = bool(self._statements or self._begins or self._commits)
        self.kept: dict[str, bytes] | None = None

    @property
    def armed(self) -> bool:
        """Whether anything can fail now."""
        return self._any and self._faults.active

    def fault(self, sql: str) -> str | None:
        """What goes wrong with this statement."""
        kinds = self._statements
        if sql == "COMMIT":
            kinds = self._commits
        elif sql.startswith("BEGIN"):
            kinds = self._begins
        for kind, rate in kinds:
            if self._faults.happens(rate, sql[:24]):
                return kind
        return None

    def rolls_back(self) -> bool:
        """Whether SQLite itself undoes the transaction after an error."""
        return self._faults.chance.random() < 0.5

    def before_commit(self, connection: Connection) -> None:
        """A commit that isn't synced may be lost with the power."""
        if connection.synchronous != "FULL" and connection.path != ":memory:":
            files = files_of(Path(connection.path))
            self.kept = {str(path): path.read_bytes() for path in files if path.exists()}
        else:
            self.kept = None


class Process:
    """One process: its tasks, its files, its clock."""

    def __init__(
        self,
        world: World,
        name: str,
        side: str,
        faults: Faults,
        *,
        lasting: bool,
        skew: float = 0.0,
        committed: Callable[[Process, Connection], None],
        unexpected: Callable[[str], None],
    ) -> None:
        self.world, self.name, self.side, self.faults = world, name, side, faults
        self.pid = 1000 + next(world.names)
        self.alive = True
        self.stopped = False
        """By SIGSTOP: its tasks wait, and it keeps its locks."""
        self.held: list[Task] = []
        self.stale = False
        """Its sibling may take it for dead."""
        self.loop = Lock()
        self.disk = Disk(faults, side, lasting=lasting)
        self.skew = self.skew_before = skew
        self.set_at = 0.0
        self.connections: list[Connection] = []
        self.descriptors: set[int] = set()
        self.exchanges: dict[Slot, None] = {}
        """In order, since a set's order is that of addresses."""
        self.service: Any = None
        self.ended: Callable[[Process], None] = lambda process: None
        self._committed, self._unexpected = committed, unexpected

    def clock(self) -> Now:
        """The time as this process's machine has it."""
        now = self.world.now
        return Now(EPOCH + now + self.skew, now + 5_000.0)

    def set_clock(self, skew: float) -> None:
        """Somebody sets the clock."""
        self.skew_before, self.skew, self.set_at = self.skew, skew, self.world.now

    @property
    def skews(self) -> tuple[float, ...]:
        """By how much its clock is wrong, or was when what it does now began."""
        return (self.skew, self.skew_before) if self.world.now < self.set_at + 30.0 else (self.skew,)

    def stop(self, *, swept: bool) -> None:
        """SIGSTOP; `swept`: somebody removes the file that it locks."""
        self.stopped, self.stale = True, swept or self.stale
        self.world.note("stopped", self.name, swept)
        for descriptor in self.descriptors if swept else ():
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if ".owner-" in path.name:
                path.unlink(missing_ok=True)

    def go_on(self) -> None:
        """SIGCONT."""
        self.stopped = False
        self.world.note("goes on", self.name)
        self.world.ready.extend(self.held)
        self.held.clear()

    def spawn(self, name: str, run: Callable[[], object]) -> None:
        """A task of this process."""
        self.world.spawn(self, f"{self.name}/{name}", run)

    def committed(self, connection: Connection) -> None:
        """A transaction of this process is on the disk."""
        self._committed(self, connection)

    def swallowed(self, pool: str, error: Exception) -> None:
        """A task of a pool has raised; nobody may ever look at its future."""
        if not isinstance(error, CastileError | Retry):
            self._unexpected(f"{self.name}: a task of {pool} raised {error!r}")

    def crash(self, where: str) -> None:
        """The current task takes the whole process along."""
        self.kill(where)
        self.world.abandon()

    def kill(self, where: str) -> None:
        """No task of it goes on; the kernel drops its locks, files and connections."""
        if not self.alive:
            return
        self.alive = False
        self.world.note("kill", self.name, where)
        for connection in self.connections:
            try:
                sqlite3.Connection.close(connection)
            except sqlite3.Error as error:  # a statement of a killed task is still open
                self._unexpected(f"{self.name}: its connection couldn't be dropped: {error}")
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()
        if self.disk.kept is not None and self.faults.happens("power"):
            for name, octets in self.disk.kept.items():
                Path(name).write_bytes(octets)
        for slot in self.exchanges:
            slot.fail("connection reset")
        self.ended(self)


def remove(folder: Path) -> None:
    """The disks of a world that is over."""
    shutil.rmtree(folder, ignore_errors=True)
