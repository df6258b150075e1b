"""Time as an argument.

Deadlines run on ticks (a monotonic clock, so that a jump of the wall clock changes none of
them), are stored as UTC, and are re-based on ticks when a store is opened.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks, in seconds."""

    utc: float
    """Seconds since 1970-01-01T00:00:00Z."""
    tick: float
    """Seconds on a clock that never jumps; its zero is arbitrary."""

    def at(self, tick: float) -> float:
        """The UTC time of a moment on the tick clock."""
        return self.utc + (tick - self.tick)


class Clock(Protocol):
    """Whoever tells the time."""

    def __call__(self) -> Now: ...


def system() -> Now:
    """The time of this machine."""
    return Now(time.time(), time.monotonic())


def iso(utc: float) -> str:
    """An xs:dateTime in UTC with milliseconds and ``Z`` (WSS 1.1.1, 10)."""
    whole, milliseconds = divmod(round(utc * 1000), 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"
