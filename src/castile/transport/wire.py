"""Seeing what went over the wire: the folder of messages and the log of keys.

Both are off unless the environment asks for them, as browsers do with SSLKEYLOGFILE, and both
are announced in the log ``castile.wire`` at every start: whoever has the two files can read
every message. Neither ever harms an exchange: a disk that is full costs the record, not the
message.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import pybase64

logger: Final = logging.getLogger("castile.wire")

_NUMBERED: Final = re.compile(r"([0-9]{3,})-(?:request|response)\.xml")


class WireLog:
    """A folder of ``NNN-request.xml`` and ``NNN-response.xml``, in the order sent.

    A number that is there already is never used again, so that the numbering goes on after a
    restart. With `per_process` each process, forked ones too, writes to a subfolder of its own
    and starts after the highest number of all subfolders, so that the files of a program that
    was started again follow those of its earlier life. Safe to use from many threads and
    processes at once.
    """

    def __init__(self, folder: Path, *, per_process: bool = False) -> None:
        self._root = folder
        self._per_process = per_process
        self._folder = folder
        self._process = 0
        self._last = 0
        # By process: a lock that another thread held at a fork is never free in the child.
        self._locks: dict[int, threading.Lock] = {}
        self._broken = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> WireLog | None:
        """A log of each process's own below ``CASTILE_WIRE``; None if that isn't set."""
        root = (os.environ if environment is None else environment).get("CASTILE_WIRE")
        if not root:
            return None
        logger.warning("CASTILE_WIRE is set: every message is written to %s", root)
        return cls(Path(root), per_process=True)

    def exchange(self) -> WireExchange:
        """The next exchange; its number is taken when its request is written."""
        return WireExchange(self)

    def claim(self, request: bytes) -> tuple[Path, int] | None:
        """Write a request under the next free number; None if it couldn't be written."""
        process = os.getpid()
        with self._locks.setdefault(process, threading.Lock()):
            try:
                if self._process != process:
                    self._enter(process)
                while True:
                    self._last += 1
                    try:
                        _write_new(self._folder / f"{self._last:03d}-request.xml", request)
                    except FileExistsError:
                        continue
                    return self._folder, self._last
            except OSError as error:
                self._warn(error)
                return None

    def write(self, path: Path, payload: bytes) -> None:
        """Write one more file of an exchange."""
        try:
            _write_new(path, payload)
        except OSError as error:
            self._warn(error)

    def _enter(self, process: int) -> None:
        self._folder = self._root / str(process) if self._per_process else self._root
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders = self._root.iterdir() if self._per_process else [self._root]
        self._last = _highest(folder for folder in folders if folder.is_dir())
        self._process = process

    def _warn(self, error: OSError) -> None:
        if not self._broken:
            self._broken = True
            logger.warning("messages can't be written to %s: %s", self._folder, error.strerror)


class WireExchange:
    """One request and its answer."""

    def __init__(self, log: WireLog) -> None:
        self._log = log
        self._claimed: tuple[Path, int] | None = None

    @property
    def number(self) -> int | None:
        """Its number, once its request is written."""
        return self._claimed[1] if self._claimed else None

    def request(self, payload: bytes) -> None:
        """Write what was sent, before it is sent."""
        self._claimed = self._log.claim(payload)

    def response(self, payload: bytes) -> None:
        """Write what came back; an empty answer leaves no file."""
        if payload and self._claimed:
            folder, number = self._claimed
            self._log.write(folder / f"{number:03d}-response.xml", payload)


class KeyLog:
    """A file with one JSON object a line, each in the shape of a key file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._broken = False

    @staticmethod
    def from_environment(environment: Mapping[str, str] | None = None) -> KeyLog | None:
        """The log that ``CASTILE_KEYLOG`` names; None if it isn't set."""
        path = (os.environ if environment is None else environment).get("CASTILE_KEYLOG")
        if not path:
            return None
        logger.warning("CASTILE_KEYLOG is set: the secret of every context is written to %s", path)
        return KeyLog(Path(path))

    def write(self, identifier: str, secret: bytes, instance: str | None = None) -> None:
        """Append the secret of one context, or of one instance of it after a renewal."""
        text = pybase64.b64encode(secret).decode("ascii")
        keys: object = {instance: text} if instance else text
        line = json.dumps({"contexts": {identifier: keys}}) + "\n"
        try:
            # One write in append mode: lines of several processes don't mix.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(descriptor, line.encode("utf-8"))
            finally:
                os.close(descriptor)
        except OSError as error:
            if not self._broken:
                self._broken = True
                logger.warning("keys can't be written to %s: %s", self.path, error.strerror)


def _highest(folders: Iterable[Path]) -> int:
    """The highest number of any message in these folders; 0 if there is none."""
    found = (_NUMBERED.fullmatch(path.name) for folder in folders for path in folder.iterdir())
    return max((int(match[1]) for match in found if match), default=0)


def _write_new(path: Path, payload: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(payload)
