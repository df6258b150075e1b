"""A VFS of apsw that hands everything to the real one, tells what was written, and can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw

from tests.endpoint.pair import Moved
from tests.power.trace import Event

NAME: Final = "castile-power"
_JOURNALS: Final = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
Trouble = Callable[[str, str], Exception | None]
"""Asked before each call, with its name and the file's: what it is to fail with."""


class Recorder(apsw.VFS):
    """Keeps the events of every file in `events`."""

    def __init__(self, events: list[Event] | None = None) -> None:
        super().__init__(NAME, base="unix")
        self.events: list[Event] = [] if events is None else events
        self.trouble: Trouble = lambda call, name: None
        self.clock = Moved()

    def note(self, event: Event) -> None:
        """Append it."""
        self.events.append(event)  # one at a time, as every append is

    def promise(self, store: str, promise: tuple[object, ...]) -> None:
        """From now on the store has to hold this."""
        self.note(Event("promise", store, promise=promise, utc=self.clock().utc))

    def call(self, call: str, name: str) -> None:
        """Raises what this call is to fail with."""
        error = self.trouble(call, name)
        if error is not None:
            raise error

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        """A file that tells."""
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self.call("open", Path(path or "").name)
        return File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """Tell it."""
        name = Path(filename).name
        self.call("delete", name)
        super().xDelete(filename, syncdir)
        self.note(Event("delete", name))
        if syncdir:
            self.note(Event("sync-folder", name))


class File(apsw.VFSFile):
    """An open file."""

    def __init__(self, disk: Recorder, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk = disk
        self._name = Path(path or "").name
        self._unnamed = bool(flags[0] & _JOURNALS)
        """Its first sync is one of its folder, too, as in SQLite's own VFS for Unix."""
        if path:
            disk.note(Event("open", self._name))

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        """Tell it, then do it."""
        self._disk.call("write", self._name)
        self._disk.note(Event("write", self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        """Tell it, then do it."""
        self._disk.call("truncate", self._name)
        self._disk.note(Event("truncate", self._name, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Do it, then tell it."""
        self._disk.call("sync", self._name)
        super().xSync(flags)
        self._disk.note(Event("sync", self._name))
        if self._unnamed:
            self._unnamed = False
            self._disk.note(Event("sync-folder", self._name))

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        """May fail."""
        self._disk.call("read", self._name)
        return super().xRead(amount, offset)

    def xLock(self, level: int) -> None:  # noqa: N802
        """May fail."""
        self._disk.call("lock", self._name)
        super().xLock(level)

    def xFileSize(self) -> int:  # noqa: N802
        """May fail."""
        self._disk.call("size", self._name)
        return super().xFileSize()
