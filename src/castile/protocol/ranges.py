"""Sets of message numbers as ranges.

A sequence without gaps is one pair however long it gets, and a gap costs one pair more. All
operations work on the pairs, never on the numbers (WS-RM 1.2, 3.9: acknowledgement ranges).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Final

Range = tuple[int, int]
"""The lowest and the highest number of an unbroken run, both included."""

MAX_NUMBER: Final = (1 << 63) - 1
"""The highest message number there is (WS-RM 1.2, 3.7)."""
_LOWER = itemgetter(0)


@dataclass(frozen=True, slots=True)
class RangeSet:
    """An immutable set of whole numbers from 1 up.

    `ranges` is ascending, and neighbours have a gap between them: equal sets have equal ranges.
    Anything else raises ValueError; `from_ranges` takes ranges in any order.
    """

    ranges: tuple[Range, ...] = ()

    def __post_init__(self) -> None:
        floor = -1
        for lower, upper in self.ranges:
            if lower < 1 or lower > upper or lower <= floor + 1:
                raise ValueError(f"no set of ranges: {lower}-{upper} after {floor}")
            floor = upper

    @classmethod
    def from_ranges(cls, ranges: Iterable[Range]) -> RangeSet:
        """The set of all numbers in `ranges`, which may touch, overlap and come in any order."""
        merged: list[Range] = []
        for lower, upper in sorted(ranges):
            if lower < 1 or lower > upper:
                raise ValueError(f"no range: {lower}-{upper}")
            if merged and lower <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], upper))
            else:
                merged.append((lower, upper))
        return cls(tuple(merged))

    @classmethod
    def upto(cls, upper: int) -> RangeSet:
        """The numbers 1 to `upper`; empty for 0."""
        return cls(((1, upper),) if upper else ())

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self.ranges, number, key=_LOWER)
        return place > 0 and number <= self.ranges[place - 1][1]

    def __bool__(self) -> bool:
        return bool(self.ranges)

    @property
    def count(self) -> int:
        """How many numbers there are (``len()`` stops at the machine's word size)."""
        return sum(upper - lower + 1 for lower, upper in self.ranges)

    @property
    def upper(self) -> int:
        """The highest number; 0 if there is none."""
        return self.ranges[-1][1] if self.ranges else 0

    def numbers(self) -> Iterator[int]:
        """Every number, ascending. Only for sets that are known to be small."""
        for lower, upper in self.ranges:
            yield from range(lower, upper + 1)

    def add(self, number: int) -> RangeSet:
        """The set with `number` in it."""
        if number < 1:
            raise ValueError(f"no message number: {number}")
        ranges = self.ranges
        place = bisect_right(ranges, number, key=_LOWER)
        before, after = ranges[:place], ranges[place:]
        lower = upper = number
        if before and number <= before[-1][1] + 1:
            if number <= before[-1][1]:
                return self
            lower, before = before[-1][0], before[:-1]
        if after and number + 1 == after[0][0]:
            upper, after = after[0][1], after[1:]
        return RangeSet((*before, (lower, upper), *after))

    def union(self, other: RangeSet) -> RangeSet:
        """The numbers of either set."""
        if self.issubset(other):
            return other
        return RangeSet.from_ranges((*self.ranges, *other.ranges))

    def difference(self, other: RangeSet) -> RangeSet:
        """The numbers of this set that aren't in `other`."""
        left: list[Range] = []
        cuts, place = other.ranges, 0
        for first, upper in self.ranges:
            lower = first
            while place < len(cuts) and cuts[place][0] <= upper:
                if lower < cuts[place][0]:
                    left.append((lower, cuts[place][0] - 1))
                lower = max(lower, cuts[place][1] + 1)
                if cuts[place][1] > upper:  # it cuts the next range too
                    break
                place += 1
            if lower <= upper:
                left.append((lower, upper))
        return RangeSet(tuple(left))

    def issubset(self, other: RangeSet) -> bool:
        """True if every number is in `other`."""
        place = 0
        for lower, upper in self.ranges:
            place = bisect_right(other.ranges, lower, lo=place, key=_LOWER)
            if place == 0 or upper > other.ranges[place - 1][1]:
                return False
            place -= 1
        return True

    def gaps(self, upto: int) -> tuple[Range, ...]:
        """What is missing of 1 to `upto`, as ranges."""
        return RangeSet.upto(upto).difference(self).ranges

    def run_from(self, number: int) -> range:
        """The unbroken run that starts at `number`: empty where `number` is missing."""
        place = bisect_right(self.ranges, number, key=_LOWER)
        if place == 0 or number > self.ranges[place - 1][1]:
            return range(number, number)
        return range(number, self.ranges[place - 1][1] + 1)


EMPTY: Final = RangeSet()


def overlap(ranges: Iterable[Range]) -> bool:
    """True if two ranges have a number in common."""
    return any(lower <= upper for (_, upper), (lower, _) in pairwise(sorted(ranges)))
