"""`table.toml`: what is expected of each message, and of messages that it doesn't know."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

Side = Literal["service", "client"]


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "table.toml").read_text())


def expected(folder: str, side: Side, message: str) -> tuple[str, ...] | None:
    """The verdict, then every difference; None: the table has no such message."""
    found = _table().get(folder, {}).get(side, {}).get(message)
    return tuple(found) if found is not None else None


def known(folder: str) -> bool:
    """Whether the table has this folder."""
    return folder in _table()


def surprising(side: Side, differences: Iterable[str]) -> list[str]:
    """The differences that nobody may have who isn't in the table."""
    patterns = [re.compile(each) for each in _table()["tolerated"][side]]
    return [each for each in differences if not any(pattern.fullmatch(each) for pattern in patterns)]
