"""What went to a disk, in its order, and what a power cut may leave of it.

Written bytes are durable after a sync of their file, names after a sync of their folder. Of what
is pending a cut keeps any part, in any order, each write torn at its 512-byte sectors, some of
them filled with noise. Bytes beside a write are never harmed, which SQLite relies on too
(`SQLITE_IOCAP_POWERSAFE_OVERWRITE`).
"""

from __future__ import annotations

import pickle
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from castile.config import Durability

MEMORY: Final = Path("/dev/shm")
"""Files that are thrown away at once needn't go to a disk, where there is this folder."""
SECTOR: Final = 512
PATTERNS: Final = 8
PROJECT: Final = Path(__file__).resolve().parents[2]
Operation = Literal[
    "open", "write", "truncate", "sync", "sync-folder", "delete", "commit", "promise", "handled"
]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a file, or that was said to somebody."""

    operation: Operation
    name: str
    """Of the file; of the store for a commit, a promise and a run of a handler."""
    offset: int = 0
    """Of a write; the new size of a truncated file."""
    data: bytes = b""
    promise: tuple[object, ...] = ()
    """What the store has to hold from now on, as `promises.holds` reads it; of a message that was
    handled, its sequence and number."""
    utc: float = 0.0
    """When, of a commit and a promise."""


@dataclass(slots=True)
class Trace:
    """A recorded scenario."""

    scenario: str
    durability: Durability
    key: bytes
    """The sealing key of both stores."""
    events: list[Event] = field(default_factory=list)

    def of(self, store: str) -> list[Event]:
        """What concerns one store."""
        return [event for event in self.events if event.name.startswith(store)]


@dataclass(slots=True)
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)


Image = dict[str, bytes]
"""The files of a store, by name."""


class Disk:
    """The files of a store while its events are replayed."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._names: dict[str, _File] = {}
        """What the folder holds on the disk itself."""
        self._renamed: list[tuple[str, _File | None]] = []
        """Changes of the folder that aren't durable yet."""

    def apply(self, event: Event) -> None:
        """The next event."""
        name = event.name
        match event.operation:
            case "open":
                if name not in self._files:
                    self._files[name] = _File()
                    self._renamed.append((name, self._files[name]))
            case "delete":
                if self._files.pop(name, None) is not None:
                    self._renamed.append((name, None))
            case "write" | "truncate":
                self._files[name].pending.append(event)
            case "sync":
                file = self._files[name]
                for each in file.pending:
                    _write(file.durable, each)
                file.pending.clear()
            case "sync-folder":
                self._names = dict(self._files)
                self._renamed.clear()

    @property
    def pending(self) -> bool:
        """Whether a cut could take anything away."""
        return bool(self._renamed) or any(file.pending for file in self._files.values())

    def whole(self) -> Image:
        """As the running machine sees it: what a killed process leaves."""
        return {name: _content(file, file.pending) for name, file in self._files.items()}

    def cut(self, chance: random.Random, pattern: int) -> Image:
        """What a power cut leaves. Pattern 0: what is durable alone; 1: all but the last write;
        2: the last write alone; others by chance."""
        names = dict(self._names)
        for name, file in self._renamed[: 0 if pattern == 0 else chance.randint(0, len(self._renamed))]:
            if file is None:
                names.pop(name, None)
            else:
                names[name] = file
        return {
            name: _content(file, _survivors(file.pending, chance, pattern)) for name, file in names.items()
        }


def _survivors(pending: list[Event], chance: random.Random, pattern: int) -> list[Event]:
    """The writes that reached the disk, in the order in which they did."""
    if pattern == 0 or not pending:
        return []
    if pattern == 1:
        return pending[:-1]
    if pattern == 2:
        return pending[-1:]
    share = chance.choice([0.1, 0.5, 0.9, 1.0])
    kept = [event for event in pending if chance.random() < share]
    if chance.random() < 0.7:
        chance.shuffle(kept)
    if chance.random() < 0.5:
        return kept
    return [piece for event in kept for piece in _torn(event, chance)]


def _torn(event: Event, chance: random.Random) -> Iterator[Event]:
    """The sectors of a write that got through, and noise where one was being written."""
    if event.operation == "truncate" or chance.random() < 0.5:
        yield event
        return
    noisy = chance.random() < 0.3
    end = event.offset + len(event.data)
    at = event.offset
    while at < end:
        until = min(end, (at // SECTOR + 1) * SECTOR)
        fate = chance.random()
        data = event.data[at - event.offset : until - event.offset]
        if fate < 0.5:
            yield Event("write", event.name, at, data)
        elif fate < 0.6 and noisy:
            yield Event("write", event.name, at, chance.randbytes(len(data)))
        at = until


def _content(file: _File, written: list[Event]) -> bytes:
    if not written:
        return bytes(file.durable)
    content = bytearray(file.durable)
    for event in written:
        _write(content, event)
    return bytes(content)


def _write(content: bytearray, event: Event) -> None:
    if event.operation == "truncate":
        if event.offset < len(content):
            del content[event.offset :]
        else:
            content.extend(bytes(event.offset - len(content)))
        return
    if event.offset > len(content):
        content.extend(bytes(event.offset - len(content)))
    content[event.offset : event.offset + len(event.data)] = event.data


def temporary() -> str:
    """A new folder for such files."""
    return tempfile.mkdtemp(prefix="castile-power-", dir=MEMORY if MEMORY.is_dir() else None)


def recorded(scenario: str, durability: Durability = "full", fault: str = "") -> Trace:
    """A scenario that was played in a process of its own, since apsw brings its own SQLite."""
    folder = Path(temporary())
    try:
        arguments = [scenario, str(folder / "trace"), durability, fault]
        command = [sys.executable, "-m", "tests.power.record", *arguments]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=100, check=False)
        if done.returncode:
            raise RuntimeError(f"{scenario} can't be recorded: {done.stderr}")
        trace: Trace = pickle.loads((folder / "trace").read_bytes())
        return trace
    finally:
        shutil.rmtree(folder)
