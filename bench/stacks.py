"""Pairs of a client and a service of one stack, and what a window of their calls costs.

The WSDL, the keys, the services and castile's policy are those of `interop/`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from calls import HERE, Process

INTEROP: Final = HERE.parent / "interop"
sys.path.append(str(INTEROP))

import processes  # noqa: E402
import wsdl  # noqa: E402
from cell import Cell  # noqa: E402

SIZE: Final = 1_000
"""Characters of a message's text."""
SEQUENCE: Final = 1_000
"""Calls of a sequence: CXF's service keeps each exchange on its heap as long as the sequence lives."""
STACKS: Final = {"castile": "castile", "cxf": "CXF", "metro": "Metro"}
MODES: Final = {"plain": "plain SOAP", "sc": "SC alone", "rm": "RM alone", "rm-sc": "RM over SC"}
_MAIN: Final = {"cxf": "castile.interop.cxf.CXF", "metro": "castile.interop.metro.Metro"}
JAVA: Final = ("-Xmx1g", "-Dsun.net.http.retryPost=false", "-Dsun.net.httpserver.nodelay=true")
"""Without the last one Metro's answers wait 40 ms each: the JDK's server leaves Nagle's algorithm on."""
PATIENCE: Final = 300.0
"""Seconds beside those ordered after which a pair is taken to hang: a JVM on a busy machine took 170 for
its first call."""
_TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class Pair:
    """A client and a service of one stack, and what their windows gave."""

    stack: str
    mode: str
    durable: bool
    client: Process
    service: Process
    rate: list[float] = field(default_factory=list)
    """Calls per second of each window."""
    cpu: list[tuple[float, float]] = field(default_factory=list)
    """ms per call, of client and service."""
    taken_us: list[float] = field(default_factory=list)
    """Of every call."""
    warmed: int = 0
    """Calls before the first window."""
    lost: str = ""
    """Why it takes no more windows: it hung, or a process ended."""

    @property
    def name(self) -> str:
        """For people."""
        return f"{STACKS[self.stack]}, {MODES[self.mode]}, {'durable' if self.durable else 'in memory'}"

    @property
    def both(self) -> list[float]:
        """ms of CPU per call of each window, client and service together."""
        return [sum(each) for each in self.cpu]

    def warm(self, calls: int, seconds: float) -> None:
        """Calls in sequences of the usual length, until there are so many or the time is over."""
        while self.warmed < calls and seconds > 0 and not self.lost:
            begun = time.monotonic()
            self.warmed += len(self._session(min(calls - self.warmed, SEQUENCE), seconds)[0])
            seconds -= time.monotonic() - begun

    def window(self, seconds: float) -> None:
        """A fresh sequence, and its calls for so long; opening and closing it isn't measured."""
        taken, *cpu = self._session(SEQUENCE, seconds)
        if taken:
            self.rate.append(len(taken) / sum(taken) * 1e6)
            self.cpu.append((cpu[0] / len(taken) * 1e3, cpu[1] / len(taken) * 1e3))
            self.taken_us += taken

    def _session(self, calls: int, seconds: float) -> tuple[list[float], float, float]:
        """µs of each call, and the seconds of CPU of client and service meanwhile; nothing of a pair
        that is lost, or is lost now."""
        if self.lost:
            return [], 0.0, 0.0
        try:
            self._order("open")
            client, service = cpu_seconds(self.client.pid), cpu_seconds(self.service.pid)
            taken = self._order(f"run {calls} {seconds}", seconds)
            client, service = cpu_seconds(self.client.pid) - client, cpu_seconds(self.service.pid) - service
            self._order("close")
        except (SystemExit, OSError) as end:
            self.lost = str(end)
            return [], 0.0, 0.0
        return taken, client, service

    def _order(self, order: str, seconds: float = 0.0) -> list[float]:
        self.client.say(order)
        try:
            answer: list[float] = json.loads(self.client.line(seconds + PATIENCE))
        except SystemExit as end:
            raise SystemExit(f"{order}: {end}") from None
        return answer

    def row(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        taken = sorted(self.taken_us)
        return {
            "stack": self.stack,
            "mode": self.mode,
            "durable": self.durable,
            "warmed": self.warmed,
            "windows": len(self.rate),
            "calls": len(taken),
            "calls_per_second": median(self.rate),
            "p50_ms": taken[len(taken) // 2] / 1_000,
            "p99_ms": taken[len(taken) * 99 // 100] / 1_000,
            "cpu_ms": {"min": min(self.both), "median": median(self.both), "max": max(self.both)},
            "client_ms": median(each[0] for each in self.cpu),
            "service_ms": median(each[1] for each in self.cpu),
        }


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far: all its threads, compiler and collector among them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


@contextmanager
def pair(stack: str, mode: str, folder: Path, *, durable: bool) -> Iterator[Pair]:
    """Both processes of a stack, started; in the end both are stopped."""
    address = f"http://127.0.0.1:{processes.free_port()}/echo"
    with ExitStack() as stopping:
        ends = {}
        for role in ("service", "client"):
            place = folder / f"{stack}-{mode}-{'durable' if durable else 'memory'}-{role}"
            place.mkdir()
            make = _castile if stack == "castile" else _java
            with (place / "errors").open("w") as errors:
                end = Process(make(_cell(stack, mode, role), place, address, durable=durable), errors=errors)
            stopping.callback(end.close)
            ends[role] = end
            if role == "service":
                while end.line().strip() != "ready":
                    continue
        yield Pair(stack, mode, durable, ends["client"], ends["service"])


def _cell(stack: str, mode: str, role: str) -> Cell:
    return Cell(
        "bench",
        "cxf" if stack == "cxf" else "metro",
        "service" if role == "service" else "client",
        rm="1.1" if mode.startswith("rm") else "off",
        sc="1.3" if mode.endswith("sc") else "off",
        size=SIZE,
    )


def _java(cell: Cell, place: Path, address: str, *, durable: bool) -> list[object]:
    keys = INTEROP / ".work" / "keys"
    wsdl.write(cell, place, keys, address)
    home = INTEROP / cell.peer / "target"
    path = ":".join(str(each) for each in (place, home / "classes", home / "lib" / "*"))
    words = [f"journal={place / 'journal'}", f"keys={keys}", f"size={cell.size}"]
    words.append(f"serve={address}" if cell.role == "service" else "meter")
    if durable:
        words.append(f"store={place / 'store'}")
    return ["java", *JAVA, "-cp", path, _MAIN[cell.peer], *words]


def _castile(cell: Cell, place: Path, address: str, *, durable: bool) -> list[object]:
    spec = {
        "cell": asdict(cell),
        "address": address,
        "journal": str(place / "journal"),
        "keys": str(INTEROP / ".work" / "keys"),
        "store": str(place / "store.db") if durable else None,
    }
    mode = "serve" if cell.role == "service" else "meter"
    return [sys.executable, HERE / "peer.py", mode, json.dumps(spec)]
