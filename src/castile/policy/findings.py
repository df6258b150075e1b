"""What reading or judging a policy has to tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from castile.messages.policy import NOWHERE, Place

Level = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a person should know."""

    level: Level
    code: str
    """Stable: what it is about, as ``schema-missing`` or a rule of lint, ``L-05``."""
    text: str
    place: Place = NOWHERE

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place.document else ""
        return f"{self.level}: {where}{self.text}"
