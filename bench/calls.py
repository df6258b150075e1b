"""Calls per second, latency, CPU and commits, client and service each a process of its own.

All pairs of processes live through the whole run; the rounds go through them in turn, so that a
slow minute of the machine falls on all of them alike.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, Any

import workload

from castile.demo.certificates import self_signed

HERE = Path(__file__).resolve().parent
SIZE = 1_000
"""Bytes of a Body."""
CALLERS = (1, 16)
SILENCE = 180.0
"""Seconds without a word after which a process is taken to hang."""
KINDS = {"echo": "request/reply", "tell": "one-way"}


class Process:
    """A process that answers each line with a line of JSON."""

    def __init__(
        self, command: Sequence[object], processor: int | None = None, errors: IO[str] | None = None
    ) -> None:
        words = [str(word) for word in command]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=errors, text=True)
        self._errors = errors
        self.pid = self._process.pid
        if processor is not None:
            os.sched_setaffinity(self.pid, {processor})

    def ask(self, **question: object) -> dict[str, Any]:
        """One line there, one back, both JSON."""
        self.say(json.dumps(question))
        answer: dict[str, Any] = json.loads(self.line())
        return answer

    def say(self, line: str) -> None:
        """One line there."""
        if self._process.stdin is not None:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def line(self, patience: float = SILENCE) -> str:
        """The next line that the process prints; it is killed if it is silent for so many seconds."""
        watchdog = threading.Timer(patience, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        watchdog.cancel()
        if not line:
            said = Path(self._errors.name).read_text("utf-8", "replace")[-1_500:] if self._errors else ""
            ended = f"a process has ended, or was silent for {patience:g} s"
            raise SystemExit(f"bench: {ended}; its last words: {said or 'above'}")
        return line

    def close(self) -> None:
        """End its input, and wait for it; it is killed if it doesn't end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass
class Pair:
    """A client and a service that talk in one mode."""

    mode: str
    durable: bool
    client: Process
    service: Process


@dataclass
class Case:
    """One row of the table, and what its windows gave."""

    pair: Pair
    kind: str
    callers: int
    rate: list[float] = field(default_factory=list)
    """Calls per second of each window."""
    cpu: list[tuple[float, float]] = field(default_factory=list)
    """µs per call, of client and service."""
    taken_us: list[float] = field(default_factory=list)
    """Of every call."""
    commits: float = 0.0
    calls: int = 0
    _expected: float = 0.0

    def window(self, seconds: float) -> None:
        """One window of about so many seconds, as the last one was."""
        count = max(self.callers * 4, min(20_000, round(self._expected * seconds)))
        before = self.pair.service.ask()
        committed = self.pair.client.ask(kind="idle", callers=0, count=0, size=0)["commits"]
        figures = self.pair.client.ask(kind=self.kind, callers=self.callers, count=count, size=SIZE)
        after = self._handled(before["handled"] + count)
        if after["checksum"] - before["checksum"] != figures["checksum"]:
            raise SystemExit(f"bench: {self.name}: what was handled isn't what was sent")
        self._expected = count / figures["seconds"]
        self.rate.append(self._expected)
        self.cpu.append((figures["cpu"] / count * 1e6, (after["cpu"] - before["cpu"]) / count * 1e6))
        self.taken_us += figures["taken_us"]
        self.commits += after["commits"] - before["commits"] + figures["commits"] - committed
        self.calls += count

    def _handled(self, count: int) -> dict[str, Any]:
        """The service's report once it has handled so many: acknowledged is not yet handled."""
        deadline = time.monotonic() + 30
        while True:
            report = self.pair.service.ask()
            if report["handled"] == count:
                return report
            if report["handled"] > count or time.monotonic() > deadline:
                raise SystemExit(f"bench: {self.name}: {report['handled']} of {count} messages were handled")
            time.sleep(0.01)

    def forget(self) -> None:
        """The first window warms everything up; only its rate is kept, as an expectation."""
        self.rate, self.cpu, self.taken_us, self.commits, self.calls = [], [], [], 0.0, 0

    @property
    def name(self) -> str:
        """For people."""
        store = "durable" if self.pair.durable else "in memory"
        return f"{workload.MODES[self.pair.mode]}, {store}, {KINDS[self.kind]}, {self.callers} callers"

    def row(self) -> dict[str, object]:
        """The figures, ready for JSON."""
        taken, both = sorted(self.taken_us), [sum(each) for each in self.cpu]
        return {
            "mode": self.pair.mode,
            "durable": self.pair.durable,
            "kind": self.kind,
            "callers": self.callers,
            "windows": len(self.rate),
            "calls": self.calls,
            "calls_per_second": {"median": median(self.rate), "max": max(self.rate)},
            "milliseconds": {
                "p50": taken[len(taken) // 2] / 1_000,
                "p99": taken[len(taken) * 99 // 100] / 1_000,
            },
            "cpu_us": {
                "min": min(both),
                "median": median(both),
                "client_median": median(each[0] for each in self.cpu),
                "service_median": median(each[1] for each in self.cpu),
            },
            "commits_per_call": self.commits / self.calls,
        }


@contextmanager
def cases(folder: Path) -> Iterator[list[Case]]:
    """All processes started, and a case for every row of the table; in the end all are stopped."""
    identity, certificate = self_signed("bench")
    (folder / "identity.pem").write_bytes(identity)
    (folder / "certificate.pem").write_bytes(certificate)
    one, other = _processors()
    with ExitStack() as stack:
        pairs = []
        for mode, durable in itertools.product(workload.MODES, (False, True)):
            stem = folder / mode
            service = _python(
                "service.py", other, mode=mode, identity=str(folder / "identity.pem"),
                store=f"{stem}-service.db" if durable else None,
            )  # fmt: skip
            stack.callback(service.close)
            client = _python(
                "client.py", one, mode=mode, address=json.loads(service.line())["address"],
                certificate=str(folder / "certificate.pem"),
                store=f"{stem}-client.db" if durable else None,
            )  # fmt: skip
            stack.callback(client.close)
            pairs.append(Pair(mode, durable, client, service))
        yield [Case(*each) for each in itertools.product(pairs, KINDS, CALLERS)]


def _python(program: str, processor: int | None, **arguments: object) -> Process:
    return Process([sys.executable, HERE / program, json.dumps(arguments)], processor)


def _processors() -> tuple[int, int] | tuple[None, None]:
    """One for the client and one for the service, where there are two."""
    free = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (free[0], free[1]) if len(free) > 1 else (None, None)


def pinning() -> str:
    """Where the processes run, for people."""
    one, other = _processors()
    if one is None:
        return "client and service share the processor"
    return f"clients pinned to processor {one}, services to {other}"


def ratios(found: list[Case]) -> list[dict[str, object]]:
    """Throughput against throughput, window by window of one run."""
    rates = {(case.pair.mode, case.pair.durable, case.kind, case.callers): case.rate for case in found}
    pairs = [
        (f"{workload.MODES['rm-sc']}: durable / in memory", ("rm-sc", True), ("rm-sc", False)),
        ("in memory: RM over SC / SC alone", ("rm-sc", False), ("sc", False)),
        ("durable: RM over SC / SC alone", ("rm-sc", True), ("sc", True)),
    ]
    rows: list[dict[str, object]] = []
    for name, above, below in pairs:
        for kind, callers in itertools.product(KINDS, CALLERS):
            uppers, lowers = rates[*above, kind, callers], rates[*below, kind, callers]
            each = [upper / lower for upper, lower in zip(uppers, lowers, strict=True)]
            figures = {"median": median(each), "min": min(each), "max": max(each)}
            rows.append({"ratio": name, "kind": kind, "callers": callers, **figures})
    return rows
