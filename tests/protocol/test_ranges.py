"""Range sets against Python's own sets, and their size."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castile.protocol.ranges import EMPTY, RangeSet, overlap

NUMBERS = st.sets(st.integers(1, 40))
RANGES = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 6)).map(lambda pair: (pair[0], sum(pair))))
TOP = (1 << 63) - 1


def of(numbers: set[int]) -> RangeSet:
    return RangeSet.from_ranges((number, number) for number in numbers)


def content(ranges: RangeSet) -> set[int]:
    return set(ranges.numbers())


@given(NUMBERS)
def test_holds_what_was_put_in(numbers: set[int]) -> None:
    ranges = of(numbers)
    assert content(ranges) == numbers
    assert ranges.count == len(numbers)
    assert ranges.upper == max(numbers, default=0)
    assert bool(ranges) == bool(numbers)
    assert [number in ranges for number in range(45)] == [number in numbers for number in range(45)]


@given(st.lists(st.integers(1, 30)))
def test_adding_in_any_order_gives_one_form(numbers: list[int]) -> None:
    ranges = EMPTY
    for number in numbers:
        ranges = ranges.add(number)
    assert ranges == of(set(numbers))
    assert all(ranges.add(number) is ranges for number in numbers)


@given(RANGES)
def test_from_ranges_merges(pairs: list[tuple[int, int]]) -> None:
    expected = {number for lower, upper in pairs for number in range(lower, upper + 1)}
    assert content(RangeSet.from_ranges(pairs)) == expected


@given(NUMBERS, NUMBERS)
def test_set_algebra(left: set[int], right: set[int]) -> None:
    assert content(of(left).union(of(right))) == left | right
    assert content(of(left).difference(of(right))) == left - right
    assert of(left).issubset(of(right)) == (left <= right)
    assert of(left).issubset(of(left | right))


@given(NUMBERS, st.integers(0, 45))
def test_gaps(numbers: set[int], upto: int) -> None:
    missing = {n for lower, upper in of(numbers).gaps(upto) for n in range(lower, upper + 1)}
    assert missing == set(range(1, upto + 1)) - numbers


@given(NUMBERS, st.integers(1, 45))
def test_run_from(numbers: set[int], start: int) -> None:
    run = of(numbers).run_from(start)
    assert run.start == start
    assert set(run) <= numbers
    assert run.stop not in numbers


@given(RANGES)
def test_overlap(pairs: list[tuple[int, int]]) -> None:
    numbers = [number for lower, upper in pairs for number in range(lower, upper + 1)]
    assert overlap(pairs) == (len(numbers) != len(set(numbers)))


@pytest.mark.parametrize(
    "ranges",
    [
        ((0, 3),),
        ((3, 2),),
        ((1, 2), (3, 4)),
        ((1, 4), (4, 5)),
        ((5, 6), (1, 2)),
        ((-4, -2),),
    ],
)
def test_only_one_form_is_built(ranges: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="no set of ranges"):
        RangeSet(ranges)


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="no message number"):
        EMPTY.add(0)
    with pytest.raises(ValueError, match="no range"):
        RangeSet.from_ranges([(3, 1)])


def test_a_long_sequence_stays_flat() -> None:
    ranges = EMPTY
    for number in range(1, 1_000_001):
        ranges = ranges.add(number)
    assert ranges.ranges == ((1, 1_000_000),)
    assert sys.getsizeof(ranges.ranges) < 100


def test_the_largest_numbers_cost_nothing() -> None:
    ranges = RangeSet.upto(TOP - 1).difference(RangeSet(((5, 5),)))
    assert ranges.count == TOP - 2
    assert ranges.gaps(TOP) == ((5, 5), (TOP, TOP))
    assert ranges.run_from(6) == range(6, TOP)
    assert ranges.add(5).add(TOP) == RangeSet.upto(TOP)
