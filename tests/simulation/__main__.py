"""``python -m tests.simulation SEED COUNT``: run so many worlds from a seed, on every core."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Campaign:
    """Runs of consecutive seeds."""

    options: dict[str, Any]
    start: int
    count: int
    jobs: int
    state: Path | None = None
    quiet: bool = False
    done: list[int] = field(default_factory=list)
    following: list[int | None] = field(default_factory=list)
    violations: list[dict[str, Any]] = field(default_factory=list)
    _said: float = 0.0

    def run(self) -> None:
        """To the end, or with ``stop`` to the first finding."""
        end = self.start + self.count
        self.done = [0] * self.jobs
        self.following = [self.start + place for place in range(self.jobs)]
        before = self._resumed()
        news: SimpleQueue[tuple[int, dict[str, Any] | None]] = SimpleQueue()
        workers, listeners = [], []
        for place, following in enumerate(self.following):
            if following is None or following >= end:
                continue
            options = {**self.options, "start": following, "end": end, "step": self.jobs}
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.simulation.worker", json.dumps(options)],
                stdout=subprocess.PIPE,
                text=True,
                cwd=PROJECT,
                env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            )
            workers.append((place, worker))
            listener = threading.Thread(target=_listen, args=(place, worker, news), daemon=True)
            listener.start()
            listeners.append(listener)
        going, began = len(workers), time.monotonic()
        try:
            while going:
                place, facts = news.get()
                if facts is None:
                    going -= 1
                    continue
                self._hear(place, facts, before)
                self._progress(before, began)
                if self.violations and self.options["stop"]:
                    break
        finally:
            for _, worker in workers:
                if self.options["stop"]:
                    worker.terminate()
                if worker.wait() not in (0, -15):
                    text = f"a worker ended with {worker.returncode}"
                    self.violations.append({"seed": None, "violations": [text]})
            for listener in listeners:
                listener.join()
        self._save()

    @property
    def total(self) -> int:
        """Runs so far."""
        return sum(self.done)

    def _hear(self, place: int, facts: dict[str, Any], before: list[int]) -> None:
        if "done" in facts:
            self.done[place] = before[place] + facts["done"]
            self.following[place] = facts["next"]
            return
        for line in facts.get("log", ()):
            print(line)
        if "violations" not in facts:
            for line in facts["faults"]:
                print("   ", line)
            return
        self.violations.append(facts)
        if not self.quiet:
            print(f"seed {facts['seed']}: {facts['violations'][0]}\n    {facts['command']}", flush=True)
            for line in facts["faults"]:
                print("      ", line)

    def _progress(self, before: list[int], began: float) -> None:
        if self.quiet or time.monotonic() - self._said < 10.0:
            return
        self._said = time.monotonic()
        speed = (self.total - sum(before)) / max(0.1, self._said - began)
        found = len(self.violations)
        print(f"{self.total} of {self.count}, {found} violations, {speed:.0f} a second", flush=True)
        self._save()

    def _resumed(self) -> list[int]:
        """How far an earlier run with this state file came."""
        if self.state is None or not self.state.exists():
            return [0] * self.jobs
        kept = json.loads(self.state.read_text())
        if kept["of"] != self._of():
            raise SystemExit(f"{self.state} is of another run: {kept['of']}")
        self.done, self.following, self.violations = kept["done"], kept["next"], kept["violations"]
        return list(self.done)

    def _save(self) -> None:
        if self.state is None:
            return
        text = {"of": self._of(), "done": self.done, "next": self.following, "violations": self.violations}
        self.state.write_text(json.dumps(text, indent=1))

    def _of(self) -> list[object]:
        return [self.start, self.count, self.jobs, self.options["tier"]]


def _listen(
    place: int, worker: subprocess.Popen[str], news: SimpleQueue[tuple[int, dict[str, Any] | None]]
) -> None:
    if worker.stdout is not None:
        with worker.stdout as lines:
            for line in lines:
                if line.endswith("\n"):  # else it was ended in the middle of it
                    news.put((place, json.loads(line)))
    news.put((place, None))


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a worker is told."""
    only = arguments.only
    if only is not None:
        only = [int(number) for number in only.split(",") if number.isdigit()]
    return {
        "source": str(arguments.source.resolve()),
        "tier": arguments.tier,
        "only": only,
        "messages": arguments.messages,
        "straight": arguments.straight,
        "verbose": arguments.verbose,
        "shrink": not arguments.no_shrink,
        "stop": arguments.stop,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--tier", choices=("A", "B"), default="A")
    parser.add_argument("--source", type=Path, default=PROJECT / "src", help="the folder with castile in it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--state", type=Path, help="keep how far it is here, and go on from there")
    parser.add_argument("--only", help="numbers of the faults that happen, or none")
    parser.add_argument("--messages", type=int, help="only so many of the client's messages")
    parser.add_argument("--straight", action="store_true", help="no chance in the order of tasks")
    parser.add_argument("--verbose", action="store_true", help="print each run's trace")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--stop", action="store_true", help="stop at the first finding")
    arguments = parser.parse_args()
    campaign = Campaign(
        options_of(arguments),
        arguments.seed,
        arguments.count,
        min(arguments.jobs, arguments.count),
        arguments.state,
    )
    campaign.run()
    print(f"{campaign.total} schedules, {len(campaign.violations)} violations")
    sys.exit(1 if campaign.violations else 0)


if __name__ == "__main__":
    main()
