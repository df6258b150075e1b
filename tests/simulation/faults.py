"""What goes wrong in a run: each fault has a number, so that it can be left out of a repetition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class Fault:
    """Something went wrong."""

    number: int
    at: float
    kind: str
    where: str

    def __str__(self) -> str:
        return f"#{self.number} {self.at:.3f}s {self.kind} {self.where}"


@dataclass(slots=True)
class Faults:
    """Decides, from the seed, what goes wrong and when."""

    world: World
    chance: Random
    rates: Mapping[str, float]
    only: frozenset[int] | None = None
    """Numbers of the faults that happen; None: all."""
    active: bool = True
    happened: list[Fault] = field(default_factory=list)
    _numbers: int = 0

    def happens(self, kind: str, where: str = "") -> bool:
        """Whether it happens here and now."""
        rate = self.rates.get(kind, 0.0)
        if not rate or not self.active or self.chance.random() >= rate:
            return False
        return self.planned(kind, where)

    def planned(self, kind: str, where: str = "") -> bool:
        """A fault that the plan has at this moment: whether it isn't left out."""
        self._numbers += 1
        if not self.active or (self.only is not None and self._numbers not in self.only):
            return False
        self.happened.append(Fault(self._numbers, self.world.now, kind, where))
        self.world.note("fault", kind, where)
        return True

    def one_of(self, kinds: tuple[str, ...], where: str = "") -> str | None:
        """The first of these that happens."""
        for kind in kinds:
            if self.happens(kind, where):
                return kind
        return None
