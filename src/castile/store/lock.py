"""One process per store file: a lock beside it, which the kernel drops with the process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path

from castile.clock import Now, iso
from castile.errors import StoreBusy, StoreError

try:
    import fcntl
except ImportError as error:  # pragma: no cover - no POSIX
    raise StoreError("a store in a file needs POSIX locks, which this platform hasn't") from error


class OwnerLock:
    """Held from the opening of a store to its end.

    `flock` rather than `fcntl` locks: those of one process don't exclude each other, and closing
    any descriptor of the file would drop them. The file stays when the lock goes: removing it
    would let two processes lock two files of the same name.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, store: Path, now: Now) -> None:
        """StoreBusy: another process holds the store. StoreError: the lock file can't be made."""
        path = store.with_name(store.name + ".lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"the store's lock {path} can't be made: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = _held(store, descriptor)
            os.close(descriptor)
            raise StoreBusy(text) from error
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": iso(now.utc)}
        with contextlib.suppress(OSError):  # the lock counts; a full disk only hides who holds it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let others in. After a fork, in the child: only drops the child's own handle."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _held(store: Path, descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        pid, host, since = int(owner["pid"]), str(owner["host"]), str(owner["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"another process holds the store {store}"
    if pid == os.getpid() and host == socket.gethostname():
        return f"this process (pid {pid}) has the store {store} open already, since {since}"
    return f"process {pid} on {host} holds the store {store}, since {since}: end it, or use another store"
