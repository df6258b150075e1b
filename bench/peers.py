"""castile beside Apache CXF and Eclipse Metro: ``make bench-peers``, ``make bench-peers ARGS=--quick``.

Tables on standard output, progress on standard error. Needs a JDK 17 and Maven, as `make interop` does.
What is measured is written after each mode; a pair that hangs is left out, and named.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
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
from stacks import INTEROP, JAVA, MODES, PATIENCE, SEQUENCE, STACKS, Pair, pair

IN_MEMORY: Final = tuple((stack, False) for stack in STACKS)
GROUPS: Final = {
    "rm-sc": (0.45, (*IN_MEMORY, ("castile", True), ("cxf", True))),
    "rm": (0.25, IN_MEMORY),
    "sc": (0.20, IN_MEMORY),
    "plain": (0.10, IN_MEMORY),
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


FULL: Final = Plan(2_000, 5, 6.0, 1_200.0)
QUICK: Final = Plan(100, 2, 2.0, 240.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(prog="make bench-peers ARGS=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under six minutes; the JVMs stay cold")
    parser.add_argument("--mode", action="append", choices=GROUPS, help="this mode alone; may be repeated")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--dir", metavar="DIR", type=Path, help="where the stores lie, instead of in TMPDIR")
    options = parser.parse_args(arguments)
    if subprocess.run([sys.executable, INTEROP / "run.py", "--build"], check=False).returncode:
        return 1
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="castile-bench-") as folder:
        for result in measured(Path(folder), QUICK if options.quick else FULL, options.mode or list(GROUPS)):
            if options.json is not None:
                options.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
            if options.docs:
                report.write(lines(result), "bench-peers")
    told.done()
    print("\n".join(lines(result)))
    return 1 if result["lost"] else 0


def measured(folder: Path, plan: Plan, modes: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Everything, in one run of bounded length; what there is after each mode."""
    start = time.monotonic()
    place = machine.described(folder)
    before = machine.ticks()
    result: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": place,
        "peers": _versions(),
        "window": plan.window,
        "calls": [],
        "ratios": [],
        "lost": [],
    }
    for mode in modes:
        share, kinds = GROUPS[mode]
        with ExitStack() as stack:
            told(f"{MODES[mode]}: starting {len(kinds)} pairs")
            pairs = []
            for name, durable in kinds:  # one by one: ten processes that start at once starve each other
                pairs.append(stack.enter_context(pair(name, mode, folder, durable=durable)))
                pairs[-1].warm(1, PATIENCE)
            deadline = time.monotonic() + share * plan.limit
            _warm(pairs, plan.warm_calls, (deadline - time.monotonic()) / 2)
            _rounds(pairs, plan, deadline)
        whole = [each for each in pairs if each.rate and not each.lost]
        result["calls"] += [each.row() for each in whole]
        result["ratios"] += list(ratios(whole))
        result["lost"] += [f"{each.name}: {each.lost or 'no window'}" for each in pairs if each not in whole]
        after = machine.ticks()
        place["stolen_percent"] = 100 * (after[1] - before[1]) / max(1, after[0] - before[0])
        place["load_after"] = round(os.getloadavg()[0], 2)
        result["seconds"] = time.monotonic() - start
        yield result


def _warm(pairs: Sequence[Pair], calls: int, seconds: float) -> None:
    """All at once: two processors are busy with two of them."""
    told(f"{MODES[pairs[0].mode]}: warming up, {calls:,} calls or {seconds:.0f} s each")
    with ThreadPoolExecutor(len(pairs)) as together:
        list(together.map(lambda each: each.warm(calls, seconds), pairs))


def _rounds(pairs: Sequence[Pair], plan: Plan, deadline: float) -> None:
    """Windows in turn, while there is time."""
    longest = 0.0
    for done in range(plan.rounds):
        begun = time.monotonic()
        if done and begun + longest > deadline:
            break
        for each in pairs:
            rate = f", {each.rate[-1]:.0f} calls/s before" if each.rate else each.lost
            told(f"{MODES[each.mode]}: round {done + 1} of {plan.rounds}", f"{each.name}{rate}")
            each.window(plan.window)
        longest = max(longest, time.monotonic() - begun)


def ratios(pairs: Sequence[Pair]) -> Iterator[dict[str, Any]]:
    """CPU of a peer against castile's, window by window; castile durable also against peers in memory."""
    for peer in pairs:
        for ours in pairs:
            if peer.stack == "castile" or ours.stack != "castile" or (peer.durable and not ours.durable):
                continue
            each = [upper / lower for upper, lower in zip(peer.both, ours.both, strict=False)]
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
        ["mode", "stack", "store", "warm-up", "windows", "calls", "calls/s", "p50 ms", "p99 ms", "CPU",
         "median", "most", "client", "service"],
        (
            [
                MODES[row["mode"]],
                STACKS[row["stack"]],
                "durable" if row["durable"] else "in memory",
                f"{row['warmed']:,}",
                f"{row['windows']}",
                f"{row['calls']:,}",
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
    for text in result["lost"]:
        yield ""
        yield f"Left out, for it came to no end: {' '.join(text.split())[:300]}"
    yield ""
    yield _method(result)


def _method(result: dict[str, Any]) -> str:
    place = result["machine"]
    libraries = ("python", "castile", "lxml", "cryptography", "uvicorn")
    versions = ", ".join([*(f"{name} {place[name]}" for name in libraries), *result["peers"]])
    return (
        f"{place['processors']} × {place['processor']}, {place['system']}; {versions}; HTTP parser of "
        f"castile's server: {place['http server']}; JVMs with `{' '.join(JAVA)}`, else as they come. "
        f"Each pair first made the calls of the column warm-up; then the pairs of a mode took their windows "
        f"in turn, each time a fresh sequence of {result['window']:.0f} s or {SEQUENCE:,} calls, its opening "
        f"and closing not measured. CPU: /proc/PID/stat of both processes "
        f"before and after, so with the JVM's compiler and collector. Stores on {place['file system']}, "
        f"write and fdatasync of 4 KB {place['fdatasync_us']['median']:,.0f} µs. Load before the run "
        f"{place['load_before']:.1f}, at its end {place['load_after']:.1f}, of which up to 2 are its own; "
        f"taken by the host during it {place['stolen_percent']:.1f} % of the processor. "
        f"{result['seconds']:.0f} s, {result['date']}."
    )


if __name__ == "__main__":
    sys.exit(main())
