"""Measure castile: ``make bench``, ``make bench ARGS=--quick``.

Tables on standard output, progress on standard error. Only ratios within one run compare: this
program measures on whatever machine it runs on, and says how quiet that was.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import calls
import machine
import messages
import report

QUICK_SECONDS, FULL_SECONDS = 45.0, 540.0
QUICK_WINDOW, FULL_WINDOW = 0.25, 1.0
"""Seconds of one row in one round."""
QUICK_ROUNDS, FULL_ROUNDS = (4, 2), (20, 9)
"""Of messages and of calls, at the most: the time may end them sooner."""


def main(arguments: list[str]) -> int:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, for a first look")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--dir", metavar="DIR", type=Path, help="where the stores lie, instead of in TMPDIR")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="castile-bench-") as folder:
        result = measured(Path(folder), quick=options.quick)
    told.done()
    print("\n".join(report.lines(result)))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    if options.docs:
        report.write(report.lines(result), "bench")
    return 0


def measured(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Everything, in one run of bounded length."""
    start = time.monotonic()
    deadline = start + (QUICK_SECONDS if quick else FULL_SECONDS)
    message_rounds, call_rounds = QUICK_ROUNDS if quick else FULL_ROUNDS
    place = machine.described(folder)
    before = machine.ticks()
    cases = messages.cases()
    bench = messages.Bench()
    for done in range(message_rounds):
        told(f"messages: round {done + 1} of {message_rounds}")
        bench.round(cases)
    with calls.cases(folder) as rows:
        rounds = called(rows, call_rounds, QUICK_WINDOW if quick else FULL_WINDOW, deadline)
        figures = {"calls": [row.row() for row in rows], "ratios": calls.ratios(rows)}
    after = machine.ticks()
    place["stolen_percent"] = 100 * (after[1] - before[1]) / max(1, after[0] - before[0])
    place["client and service"] = calls.pinning()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": time.monotonic() - start,
        "rounds": {"messages": message_rounds, "calls": rounds},
        "machine": place,
        "messages": [case.row() for case in cases],
        **figures,
    }


def called(rows: list[calls.Case], rounds: int, window: float, deadline: float) -> int:
    """Rounds over all rows, while there is time; returns how many."""
    for row in rows:
        told("calls: warming up", row.name)
        row.window(window / 4)
        row.forget()
    done, longest = 0, 0.0
    while done < rounds and (done == 0 or time.monotonic() + longest < deadline):
        begun = time.monotonic()
        for row in rows:
            told(f"calls: round {done + 1} of {rounds}", row.name)
            row.window(window)
        longest = max(longest, time.monotonic() - begun)
        done += 1
    return done


class Progress:
    """On standard error: in a terminal one line that changes, elsewhere a line for each stage."""

    def __init__(self) -> None:
        self._stage = ""

    def __call__(self, stage: str, detail: str = "") -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{stage} {detail}"[:110], end="", file=sys.stderr, flush=True)
        elif stage != self._stage:
            print(stage, file=sys.stderr, flush=True)
        self._stage = stage

    def done(self) -> None:
        """Clear the line."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


told = Progress()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
