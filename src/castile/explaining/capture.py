"""Captured messages as files: which belong together, in which order, which way each went."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from castile.errors import UsageError
from castile.explaining.package import unpack

_NAMED: Final = re.compile(r".*-(request|response)\.xml", re.IGNORECASE)
_NUMBERED: Final = re.compile(r"(|.*?[^0-9])([0-9]+)-(request|response)\.xml", re.IGNORECASE)
_DIGITS: Final = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class Captured:
    """One message as it was on the wire."""

    file: str
    """Base name; ``-`` where bytes were given."""
    payload: bytes = field(repr=False)
    response: bool | None = None
    """Which way it went, told by the file's name; None: the message itself has to tell."""
    thread: str = ""
    """What stands before the number in the file's name: a folder may hold several conversations."""
    number: int | None = None
    """Of the file's name."""
    details: tuple[tuple[str, str], ...] = ()
    """What stood around the envelope, for people."""
    warnings: tuple[str, ...] = ()
    unfit: str | None = None
    """Why what is around the envelope can't be taken off."""


@dataclass(frozen=True, slots=True)
class Capture:
    """One conversation, in order."""

    messages: tuple[Captured, ...]
    lone: bool = False
    """A single file, named as such: it has to be readable."""

    @property
    def paired(self) -> bool:
        """Whether a response has its request's number, so that it can stand before what was sent earlier."""
        numbers: dict[tuple[str, int | None], set[bool | None]] = {}
        for message in self.messages:
            numbers.setdefault((message.thread, message.number), set()).add(message.response)
        return any(name[1] is not None and len(found) > 1 for name, found in numbers.items())


def named(path: Path) -> Captured:
    """The message in a file; raises `UsageError` if it can't be read."""
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from None
    found = _NUMBERED.fullmatch(path.name)
    way = _NAMED.fullmatch(path.name)
    return captured(
        path.name.encode("utf-8", "backslashreplace").decode(),
        payload,
        way[1].lower() == "response" if way else None,
        found[1] if found else "",
        int(found[2]) if found else None,
    )


def captured(
    file: str, octets: bytes, response: bool | None = None, thread: str = "", number: int | None = None
) -> Captured:
    """The envelope in a file's octets, taken out of what is around it."""
    try:
        found = unpack(octets)
    except UsageError as error:
        return Captured(file, octets, response, thread, number, unfit=str(error))
    way = response if response is not None else found.response
    return Captured(file, found.envelope, way, thread, number, found.details, found.warnings)


def capture(paths: Iterable[str | Path]) -> Capture:
    """Paths in the order given; a folder stands for its messages in the order of their names.

    Raises `UsageError` for a path that isn't there, and for one that holds no message.
    """
    messages: list[Captured] = []
    given = [Path(path) for path in paths]
    for path in given:
        found = [named(path)] if not path.is_dir() else folder(path)
        if path.is_dir() and not found:
            raise UsageError(f"{path} holds no message (*-request.xml, *-response.xml)")
        messages += found
    kept = tuple(message for message in messages if message.payload.strip())
    if not kept:
        raise UsageError(f"{', '.join(map(str, given)) or 'nothing'}: no message in it, only empty files")
    return Capture(kept, lone=len(given) == 1 and not given[0].is_dir())


def folder(path: Path) -> list[Captured]:
    """The messages of a folder, or of the folders in it where it has none of its own.

    Without a name of the usual form every XML file counts. Raises `UsageError`.
    """
    try:
        entries = sorted(path.iterdir(), key=lambda entry: place(entry.name))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from None
    files = [entry for entry in entries if entry.suffix.lower() == ".xml" and entry.is_file()]
    usual = [entry for entry in files if _NAMED.fullmatch(entry.name)]
    if usual or files:
        return [named(entry) for entry in usual or files]
    # A wire folder has one folder for each process; numbering goes on from one to the next.
    inner = [message for entry in entries if entry.is_dir() for message in folder(entry)]
    return sorted(inner, key=lambda message: place(message.file))


def place(name: str) -> list[tuple[int, str]]:
    """Where a file name stands: as text, but 1000 comes after 999."""
    parts = _DIGITS.split(name)
    return [(int(part), "") if index % 2 else (-1, part) for index, part in enumerate(parts)]
