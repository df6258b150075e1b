"""A failing run made short: faults and messages are left out one by one while it still fails."""

from __future__ import annotations

import time
from dataclasses import replace

from tests.simulation.plan import Overrides, draw
from tests.simulation.simulate import Result, simulate


def shrink(failed: Result, tier: str, seconds: float = 20.0) -> tuple[Overrides, Result]:
    """What is to be left out of the run, and what is left of it; after this time the best so far."""
    deadline = time.monotonic() + seconds
    wanted = rule_of(failed)
    best, found = Overrides(only=frozenset(fault.number for fault in failed.faults)), failed

    def attempt(given: Overrides) -> bool:
        nonlocal best, found
        if time.monotonic() > deadline:
            return False
        result = simulate(failed.seed, tier, given)
        if wanted not in {text.partition(":")[0] for text in result.violations}:
            return False
        best, found = given, result
        return True

    if not attempt(best):  # the numbers alone repeat the run, or it isn't worth shrinking
        return Overrides(), failed
    attempt(replace(best, straight=True))
    for count in range(1, len(draw(failed.seed).intents)):
        if attempt(replace(best, intents=count)):
            break
    going = True
    while going and time.monotonic() < deadline:
        going = False
        for number in sorted(best.only or (), reverse=True):
            happened = frozenset(fault.number for fault in found.faults)
            if attempt(replace(best, only=((best.only or frozenset()) & happened) - {number})):
                going = True
    return best, found


def rule_of(result: Result) -> str:
    """The invariant that was broken first."""
    return result.violations[0].partition(":")[0]


def command(seed: int, tier: str, given: Overrides) -> str:
    """The one line that reproduces it."""
    options = [f"SEED={seed}", "COUNT=1"]
    if tier != "A":
        options.append(f"TIER={tier}")
    if given.only is not None:
        options.append(f"ONLY={','.join(map(str, sorted(given.only))) or 'none'}")
    if given.intents is not None:
        options.append(f"MESSAGES={given.intents}")
    if given.straight:
        options.append("STRAIGHT=1")
    return f"make simulate {' '.join(options)}"
