"""The locks beside a store, which the kernel drops with the process that holds them.

`flock` rather than `fcntl` locks: those of one process don't exclude each other, and closing any
descriptor of the file would drop them. A lock file of the store stays when its lock goes:
removing it would let two processes lock two files of the same name.
"""

from __future__ import annotations

import contextlib
import os
import time
from math import ceil
from pathlib import Path
from typing import Final

from castile.errors import StoreBusy, StoreError, StoreInvalid

try:
    import fcntl
except ImportError as error:  # pragma: no cover - no POSIX
    raise StoreError("a store in a file needs POSIX locks, which this platform hasn't") from error

_POLL: Final = 0.0005
"""Seconds between two looks at a lock that another process holds; about a commit's time."""
_GIVE_WAY: Final = 3 * _POLL
"""Seconds for which whoever was asked leaves the lock alone, so that the other one gets it."""
_WIDTH: Final = 12
_NOBODY: Final = b" " * _WIDTH
_REMOTE: Final = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "drvfs", "fuse.glusterfs", "fuse.sshfs", "gfs2"),
    *("glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "pvfs2", "smb3"),
    *("smbfs", "vboxsf", "vmhgfs"),
)
"""File systems whose locks other machines may not see, or whose memory maps they don't share."""


class WriterLock:
    """``<store>.lock``: one process at a time begins, commits and checkpoints.

    Who holds it stands in the file, and who waits: the holder then gives way once, so that a busy
    process shuts nobody out. A holder that may take long says so, too, and is waited for so long.
    """

    __slots__ = ("_asked", "_descriptor", "_long", "_own", "_store")

    def __init__(self, store: Path) -> None:
        """StoreError: the file can't be made. StoreInvalid: its locks can't be relied on."""
        self._store = store
        self._own = b"%*d" % (_WIDTH, os.getpid())
        self._asked = self._long = False
        path = store.with_name(store.name + ".lock")
        _refuse_remote(path)
        self._descriptor = _opened(path)
        if not _excludes(path):
            self.close()
            raise StoreInvalid(f"the file system of {store} has no locks that exclude anybody")

    def acquire(self, seconds: float, *, holding: float = 0.0) -> None:
        """Hold it, for `holding` seconds more than others wait anyway.

        StoreBusy: another process, named by its pid, has held it for `seconds` and what it asked for.
        """
        if self._asked:
            self._asked = False
            time.sleep(_GIVE_WAY)
        if not self._taken():
            self._wait(time.monotonic() + seconds)
        holder, asking, long = self._read()
        if holder != self._own:
            os.pwrite(self._descriptor, self._own, 0)
        if asking != _NOBODY:
            self._asked = asking != self._own
            os.pwrite(self._descriptor, _NOBODY, _WIDTH)
        if holding or long != _NOBODY:  # of a holder that was killed
            os.pwrite(self._descriptor, b"%*d" % (_WIDTH, ceil(holding)), 2 * _WIDTH)
            self._long = bool(holding)

    def release(self) -> None:
        """Let others in."""
        if self._long:
            self._long = False
            os.pwrite(self._descriptor, _NOBODY, 2 * _WIDTH)
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Drop this process's handle; after a fork, in the child, the parent keeps its lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise StoreError(f"the store {self._store} can't be locked: {error.strerror}") from error
        return True

    def _wait(self, deadline: float) -> None:
        while not self._taken():
            late = time.monotonic() - deadline
            if late > 0 and late > _number(self._read()[2]):
                pid = self._read()[0].decode("ascii", "replace").strip() or "unknown"
                raise StoreBusy(
                    f"process {pid} holds the store {self._store}: nothing of this step was kept; if that "
                    "process is stopped, let it go on or end it"
                )
            os.pwrite(self._descriptor, self._own, _WIDTH)
            time.sleep(_POLL)

    def _read(self) -> tuple[bytes, bytes, bytes]:
        """Who holds it, who waits for it, and for how long it may be held."""
        content = os.pread(self._descriptor, 3 * _WIDTH, 0).ljust(3 * _WIDTH)
        return content[:_WIDTH], content[_WIDTH : 2 * _WIDTH], content[2 * _WIDTH :]


class OwnerLock:
    """``<store>.owner-<id>``: held for the life of one opening of the store."""

    __slots__ = ("_descriptor", "_path")

    def __init__(self, store: Path, owner: int) -> None:
        """StoreBusy: somebody has it, so `owner` isn't new. StoreError: it can't be made."""
        self._path = owner_file(store, owner)
        self._descriptor = _opened(self._path)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise StoreBusy(f"{self._path} is locked: its owner lives") from error

    def close(self) -> None:
        """Drop this process's handle; see `WriterLock.close`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def owner_file(store: Path, owner: int) -> Path:
    """The file that an owner locks."""
    return store.with_name(f"{store.name}.owner-{owner}")


def lives(store: Path, owner: int) -> bool:
    """Whether the process of an owner is there: also a stopped one, which still holds its lock."""
    try:
        descriptor = os.open(owner_file(store, owner), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        text = f"whether owner {owner} of the store {store} lives can't be judged: {error.strerror}"
        raise StoreError(text) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others may ask meanwhile
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _number(text: bytes) -> int:
    return int(text) if text.strip().isdigit() else 0


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the store's lock {path} can't be made: {error.strerror}") from error


def _excludes(path: Path) -> bool:
    """Whether a lock of one handle keeps another one out; True if somebody holds it already."""
    handles = [_opened(path), _opened(path)]
    try:
        for handle in handles:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        for handle in handles:
            os.close(handle)
    return False


def _refuse_remote(path: Path) -> None:
    """StoreInvalid: the file is on a network file system, as far as this machine tells (ST-09)."""
    with contextlib.suppress(OSError):
        kind = file_system(path, Path("/proc/self/mountinfo").read_text("utf-8", "replace"))
        if kind in _REMOTE:
            raise StoreInvalid(
                f"{path.parent} is on a network file system ({kind}), where the locks of a store don't hold: "
                "put it on a local disk"
            )


def file_system(path: Path, mounts: str) -> str:
    """The kind of file system that a path is on, by the text of ``/proc/self/mountinfo``."""
    best, kind = "", ""
    for line in mounts.splitlines():
        mount, _, rest = line.partition(" - ")
        point = mount.split(" ")[4].replace("\\040", " ")
        below = f"{path}/".startswith(f"{point.rstrip('/')}/")
        if below and len(point) >= len(best):  # of two at one point the later one covers the other
            best, kind = point, rest.split(" ")[0]
    return kind
