"""20,000 random acknowledgements, good, late and hostile: none purges what the peer lacks (RM-48)."""

from __future__ import annotations

from random import Random

import pytest

from castile.errors import Violation
from castile.protocol import source
from castile.protocol.actions import Purge
from castile.protocol.ranges import RangeSet
from tests.protocol.cases import EDITIONS, NOW, open_source, run_source

ROUNDS = 500
EACH = 20


def drawn(random: Random, has: RangeSet, past: list[RangeSet], highest: int) -> source.Acknowledged:
    """An acknowledgement: right, overtaken, or bent in some way."""
    known = random.choice((has, has, *past[-4:]))
    ranges = list(known.ranges)
    match random.randrange(8):
        case 0 | 1 | 2:
            pass
        case 3:
            lower = random.randrange(-1, highest + 4)
            ranges.append((lower, lower + random.randrange(-2, 5)))
        case 4 if ranges:
            ranges.pop(random.randrange(len(ranges)))
        case 5 if ranges:
            place = random.randrange(len(ranges))
            lower, upper = ranges[place]
            ranges[place] = (lower + random.randrange(-1, 2), upper + random.randrange(-1, 3))
        case 6:
            random.shuffle(ranges)
        case _:
            return source.Acknowledged(nacks=tuple(random.randrange(0, highest + 3) for _ in range(3)))
    final = random.random() < 0.1
    return source.Acknowledged(tuple(ranges), final=final, ordered=random.random() < 0.1)


@pytest.mark.row("RM-48")
@pytest.mark.parametrize("edition", EDITIONS)
def test_no_random_acknowledgement_purges_wrongly(edition: str) -> None:
    """What a hostile acknowledgement claims and the rules can refute is never purged.

    A claim that is right in form and within what was sent can't be refuted by anybody; so the
    model holds every accepted claim for true, and checks that nothing else was ever purged.
    """
    random = Random(48)
    judged = refused = 0
    for _ in range(ROUNDS):
        state, _actions = run_source(open_source(edition, sent=random.randrange(1, 30)))
        has, past = RangeSet(), [RangeSet()]
        for _ in range(EACH):
            has = has.union(RangeSet.from_ranges([(random.randrange(1, state.highest + 1),) * 2]))
            past.append(has)
            event = drawn(random, has, past, state.highest)
            before = state.acknowledged
            judged += 1
            fault = None
            try:
                state, actions = source.step(state, event, NOW)
            except Violation as error:
                fault = error.fault
            assert valid(event, before, state.highest) is (fault is None)
            if fault is not None:
                assert fault.subcode == (edition, "InvalidAcknowledgement")
                refused += 1
                continue
            claimed = {n for lower, upper in event.ranges if lower for n in range(lower, upper + 1)}
            purged = [each for action in actions if isinstance(action, Purge) for each in action.ranges]
            assert {n for lower, upper in purged for n in range(lower, upper + 1)} == (
                claimed - set(before.numbers())
            )
            assert before.issubset(state.acknowledged)
            assert state.acknowledged.upper <= state.highest
            has = has.union(state.acknowledged)
    assert judged == 10_000  # for each edition
    assert 1_000 < refused < 9_000


def valid(event: source.Acknowledged, known: RangeSet, highest: int) -> bool:
    """The rules again, number by number, for an open sequence."""
    numbers = [n for lower, upper in event.ranges for n in range(lower, upper + 1)]
    if event.nacks:
        return not event.ranges and not event.final and all(1 <= n <= highest for n in event.nacks)
    if event.final or any(lower > upper for lower, upper in event.ranges):
        return False
    if event.ranges == ((0, 0),):
        numbers = []
    if len(numbers) != len(set(numbers)) or any(not 1 <= n <= highest for n in numbers):
        return False
    claimed, before = set(numbers), set(known.numbers())
    return before <= claimed or (claimed <= before and not event.ordered)
