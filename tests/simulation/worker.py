"""One worker of a simulation: a process in which castile was imported in the simulator's time.

It is told its seeds on the command line, and says on standard output, a line of JSON each, how far
it is and what it finds.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from pathlib import Path

from tests.simulation import loading

REPEATED = 100
"""Every so many runs one is run twice: the same seed must leave the same trace (I19)."""
SHRUNK = 3
"""Findings of one worker that are made short."""


def main() -> None:
    """Run every `step`-th seed from `start` up to `end`."""
    options = json.loads(sys.argv[1])
    loading.install(Path(options["source"]))
    tier = options["tier"]
    if tier == "A":
        from tests.simulation import tags

        tags.install()
        logging.disable(logging.CRITICAL)
    from tests.simulation import simulate as simulating
    from tests.simulation.plan import Overrides
    from tests.simulation.shrink import command, shrink
    from tests.simulation.simulate import simulate

    if tier == "B":
        logger = logging.getLogger("castile")
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(_Listener(simulating.LOGGED))
    given = Overrides(
        only=None if options["only"] is None else frozenset(options["only"]),
        intents=options["messages"],
        straight=options["straight"],
        verbose=options["verbose"],
    )
    gc.disable()  # a world is one knot of references: it is cheaper to drop some at once
    gc.collect()
    gc.freeze()  # nor is the product's own code looked through each time
    done, found, said = 0, 0, time.monotonic()
    for seed in range(options["start"], options["end"], options["step"]):
        result = simulate(seed, tier, given)
        violations = list(result.violations)
        if seed % REPEATED == 7 and simulate(seed, tier, given).trace != result.trace:
            violations.append("I19: the same seed leaves another trace")
        done += 1
        if done % 20 == 0:
            gc.collect()
        if violations:
            found += 1
            short, rest = given, result
            plain = given.only is None and given.intents is None
            if options["shrink"] and plain and found <= SHRUNK and not violations[0].startswith("I19"):
                short, rest = shrink(result, tier)
            _say(
                seed=seed,
                violations=violations[:5],
                command=command(seed, tier, short),
                faults=[str(fault) for fault in rest.faults] if short is not given else [],
                log=list(result.log),
            )
            if options["stop"]:
                break
        elif result.log:
            _say(seed=seed, log=list(result.log), faults=[str(fault) for fault in result.faults])
        if time.monotonic() - said > 1.0:
            _say(done=done, next=seed + options["step"])
            said = time.monotonic()
    _say(done=done, next=None)


class _Listener(logging.Handler):
    """Keeps what is logged, tracebacks too."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


def _say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
