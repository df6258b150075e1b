"""castile beside Apache CXF and Eclipse Metro: ``make bench-peers``, ``make bench-peers ARGS=--quick``.

Tables on standard output, progress on standard error. Needs a JDK 17 and Maven, as `make interop` does.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import machine
import report
from run import told
from stacks import INTEROP, JAVA, MODES, SEQUENCE, STACKS, Pair, pair

IN_MEMORY: Final = tuple((stack, False) for stack in STACKS)
GROUPS: Final = {
    "plain": (0.10, IN_MEMORY),
    "sc": (0.15, IN_MEMORY),
    "rm": (0.25, IN_MEMORY),
    "rm-sc": (0.50, (*IN_MEMORY, ("castile", True), ("cxf", True))),
}
"""Of each mode its share of the time, and the pairs that are alive together and take their windows in
turn: stack, and whether it is durable. A Metro client takes 8 s to close a sequence."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long it may take."""

    warm_calls: int
    """Of each pair; half of the mode's time may end them sooner."""
    rounds: int
    """At the most: the time may end them sooner, after the first one."""
    window: float
    """Seconds of a pair in a round."""
    limit: float
    """Seconds of the whole run."""


FULL: Final = Plan(2_000, 5, 6.0, 780.0)
QUICK: Final = Plan(100, 2, 2.0, 150.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(prog="make bench-peers ARGS=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under three minutes; the JVMs stay cold")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--dir", metavar="DIR", type=Path, help="where the stores lie, instead of in TMPDIR")
    options = parser.parse_args(arguments)
    if subprocess.run([sys.executable, INTEROP / "run.py", "--build"], check=False).returncode:
        return 1
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="castile-bench-") as folder:
        result = measured(Path(folder), QUICK if options.quick else FULL)
    told.done()
    print("\n".join(lines(result)))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    if options.docs:
        report.write(lines(result), "bench-peers")
    return 0


def measured(folder: Path, plan: Plan) -> dict[str, Any]:
    """Everything, in one run of bounded length."""
    start = time.monotonic()
    place = machine.described(folder)
    before = machine.ticks()
    rows, compared, warmed, rounds = [], [], [], []
    for mode, (share, kinds) in GROUPS.items():
        with ExitStack() as stack:
            deadline = time.monotonic() + share * plan.limit
            pairs = [
                stack.enter_context(pair(name, mode, folder, durable=durable)) for name, durable in kinds
            ]
            warmed.append(_warm(pairs, plan.warm_calls, (deadline - time.monotonic()) / 2))
            rounds.append(_rounds(pairs, plan, deadline))
        rows += [each.row() for each in pairs]
        compared += list(ratios(pairs))
    after = machine.ticks()
    place["stolen_percent"] = 100 * (after[1] - before[1]) / max(1, after[0] - before[0])
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": time.monotonic() - start,
        "machine": place,
        "peers": _versions(),
        "warmed": min(warmed),
        "rounds": min(rounds),
        "window": plan.window,
        "calls": rows,
        "ratios": compared,
    }


def _warm(pairs: Sequence[Pair], calls: int, seconds: float) -> int:
    """All at once; returns how many calls the least of them had."""
    told(f"warming up: {MODES[pairs[0].mode]}")
    with ThreadPoolExecutor(len(pairs)) as together:
        return min(together.map(lambda each: each.warm(calls, seconds), pairs))


def _rounds(pairs: Sequence[Pair], plan: Plan, deadline: float) -> int:
    """Windows in turn, while there is time; returns how many of each."""
    done, longest = 0, 0.0
    while done < plan.rounds and (done == 0 or time.monotonic() + longest < deadline):
        begun = time.monotonic()
        for each in pairs:
            told(f"{MODES[each.mode]}: round {done + 1} of {plan.rounds}", each.name)
            each.window(plan.window)
        longest = max(longest, time.monotonic() - begun)
        done += 1
    return done


def ratios(pairs: Sequence[Pair]) -> Iterator[dict[str, Any]]:
    """CPU of a peer against castile's, window by window; castile durable also against peers in memory."""
    for peer in pairs:
        for ours in pairs:
            if peer.stack == "castile" or ours.stack != "castile" or (peer.durable and not ours.durable):
                continue
            each = [upper / lower for upper, lower in zip(peer.both, ours.both, strict=True)]
            yield {
                "ratio": f"{_short(peer)} / {_short(ours)}",
                "mode": peer.mode,
                "min": min(each),
                "median": median(each),
                "max": max(each),
            }


def _short(each: Pair) -> str:
    return f"{STACKS[each.stack]} {'durable' if each.durable else 'in memory'}"


def _versions() -> list[str]:
    text = (INTEROP / "pom.xml").read_text("utf-8")
    found = [f"{STACKS[name]} {number}" for name, number in re.findall(r"<(\w+)\.version>([^<]+)<", text)]
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    return [*found, *said.splitlines()[1:2]]


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The whole result, in Markdown."""
    yield "Request/reply of 1 KB, one caller (CPU: ms of client and service together per call):"
    yield ""
    yield from report.table(
        ["mode", "stack", "store", "calls/s", "p50 ms", "p99 ms", "CPU", "median", "most", "client",
         "service"],
        (
            [
                MODES[row["mode"]],
                STACKS[row["stack"]],
                "durable" if row["durable"] else "in memory",
                f"{row['calls_per_second']:.0f}",
                f"{row['p50_ms']:.1f}",
                f"{row['p99_ms']:.1f}",
                *(f"{row['cpu_ms'][key]:.2f}" for key in ("min", "median", "max")),
                f"{row['client_ms']:.2f}",
                f"{row['service_ms']:.2f}",
            ]
            for row in result["calls"]
        ),
    )  # fmt: skip
    yield ""
    yield "Ratios of that CPU, round by round; above 1 castile is the cheaper one:"
    yield ""
    yield from report.table(
        ["mode", "ratio", "median", "least", "most"],
        (
            [MODES[row["mode"]], row["ratio"], *(f"{row[key]:.2f}" for key in ("median", "min", "max"))]
            for row in result["ratios"]
        ),
    )
    yield ""
    yield _method(result)


def _method(result: dict[str, Any]) -> str:
    place = result["machine"]
    libraries = ("python", "castile", "lxml", "cryptography", "uvicorn")
    versions = ", ".join([*(f"{name} {place[name]}" for name in libraries), *result["peers"]])
    return (
        f"{place['processors']} × {place['processor']}, {place['system']}; {versions}; HTTP parser of "
        f"castile's server: {place['http server']}; JVMs with `{' '.join(JAVA)}`, else as they come. Each "
        f"pair made at least {result['warmed']:,} calls to warm up; then at least {result['rounds']} rounds "
        f"over the pairs of a mode in turn, each time a fresh sequence of {result['window']:.0f} s or "
        f"{SEQUENCE:,} calls, its opening and closing not measured. CPU: /proc/PID/stat of both processes "
        f"before and after, so with the JVM's compiler and collector. Stores on {place['file system']}, "
        f"write and fdatasync of 4 KB {place['fdatasync_us']['median']:,.0f} µs. Load before the run "
        f"{place['load_before']:.1f}; taken by the host during it {place['stolen_percent']:.1f} % of the "
        f"processor. {result['seconds']:.0f} s, {result['date']}."
    )


if __name__ == "__main__":
    sys.exit(main())
