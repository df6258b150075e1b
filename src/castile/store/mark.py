"""``<store>.mark``: what was committed, kept outside the database (features N10).

A copy of the database that is put back takes its own numbers back with it, but not these. The
first line names the store; each further one is the slot of an owner: its id and the number of
its last commit, written after the commit and without a sync. So the mark may lag behind the
database after a power cut, and never leads, unless the database has lost something.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from castile.errors import StoreError

_TITLE: Final = b"castile mark 1 "
_HEAD: Final = 64
_SLOT: Final = 32
_MOST: Final = 1 << 25


class Mark:
    """The open mark of a store. Only used under the writer lock."""

    def __init__(self, store: Path) -> None:
        """StoreError: it can't be made or read."""
        self.path = mark_file(store)
        self._place = 0
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            content = os.pread(self._descriptor, _MOST, 0)
        except OSError as error:
            raise StoreError(f"the store's mark {self.path} can't be read: {error.strerror}") from error
        self.store: bytes | None
        """The id of the store that it belongs to; None: it is new, or unreadable."""
        self.store, self._slots = _parsed(content)

    @property
    def commits(self) -> dict[int, int]:
        """The last commit of each owner that has a slot."""
        return _commits(self._slots)

    def begin(self, store: bytes) -> None:
        """Name the store that it belongs to from now on."""
        if self.store != store:
            self._slots = []
            self._write(0, _TITLE + store.hex().encode("ascii").ljust(_HEAD - len(_TITLE) - 1) + b"\n")
            os.ftruncate(self._descriptor, _HEAD)
            self.store = store

    def join(self, owner: int, commits: int, known: dict[int, int]) -> None:
        """Take a slot, the first whose owner isn't `known` any more, and set the others to what is
        known of them."""
        slots = [(each, known[each]) if each in known else (0, 0) for each, _ in self._slots]
        place = next((place for place, (each, _) in enumerate(slots) if not each), len(slots))
        slots[place : place + 1] = [(owner, commits)]
        for number, (each, last) in enumerate(slots):
            if number >= len(self._slots) or self._slots[number] != (each, last):
                self._write(_HEAD + number * _SLOT, _slot(each, last))
        self._slots, self._place = slots, _HEAD + place * _SLOT

    def note(self, owner: int, commits: int) -> None:
        """This owner has committed so often. What fails here fails no commit: the mark lags."""
        with suppress(OSError):
            os.pwrite(self._descriptor, _slot(owner, commits), self._place)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, place: int, content: bytes) -> None:
        try:
            os.pwrite(self._descriptor, content, place)
        except OSError as error:
            raise StoreError(f"the store's mark {self.path} can't be written: {error.strerror}") from error


def mark_file(store: Path) -> Path:
    """Where the mark of a store is."""
    return store.with_name(store.name + ".mark")


def store_of(path: Path) -> bytes | None:
    """The id of the store that a mark belongs to; None: there is no mark, or it is unreadable."""
    try:
        return _parsed(path.read_bytes())[0]
    except OSError:
        return None


def commits_of(path: Path, store: bytes) -> dict[int, int] | None:
    """The last commit of each owner, by a mark of this store; None: there is none."""
    try:
        found, slots = _parsed(path.read_bytes())
    except OSError:
        return None
    return _commits(slots) if found == store else None


def _commits(slots: list[tuple[int, int]]) -> dict[int, int]:
    return {owner: commits for owner, commits in slots if owner}


def _parsed(content: bytes) -> tuple[bytes | None, list[tuple[int, int]]]:
    head = content[:_HEAD].split()
    if not content.startswith(_TITLE) or len(head) != 4:
        return None, []
    try:
        store = bytes.fromhex(head[3].decode("ascii"))
    except ValueError:
        return None, []
    lines = [content[at : at + _SLOT] for at in range(_HEAD, len(content), _SLOT)]
    return store, [_read(line) for line in lines if len(line) == _SLOT]


def _slot(owner: int, commits: int) -> bytes:
    return b"%15d %15d\n" % (owner, commits)


def _read(line: bytes) -> tuple[int, int]:
    try:
        owner, commits = line.split()
        return int(owner), int(commits)
    except ValueError:
        return 0, 0
