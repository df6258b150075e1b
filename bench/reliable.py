"""Measure what keeping costs: ``make bench-reliable``, client and service in one process, no HTTP.

Durable against in memory with as many sequences as callers; one long sequence, whose messages
must cost the same at its end as at its beginning; many open sequences, and how soon they are
there again after a restart. ``ARGS=--docs`` writes the page's part.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import machine
import report
import workload

import castile
from castile.config import Limits, Settings
from castile.transport.asgi import Arrival
from castile.transport.http import HTTPRequest, HTTPResponse

CALLERS = (1, 16, 64)
ADDRESS = "http://service.bench/"
PAGE_BYTES = 4096
POLICY = castile.EndpointPolicy.of("1.3", secure=False)
"""No cryptography: what is measured is the keeping."""


class Here:
    """The HTTP protocol of a client, wired to a service in another thread of this process."""

    def __init__(self, service: castile.Service, loop: asyncio.AbstractEventLoop) -> None:
        self.service, self._loop = service, loop

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        """One exchange."""
        kind = dict(request.headers)["Content-Type"]
        action = kind.partition('action="')[2].partition('"')[0] or None
        arrival = Arrival("/", kind, action, charset="utf-8")
        answer = asyncio.run_coroutine_threadsafe(self.service.receive(request.body, arrival), self._loop)
        got = answer.result(timeout)
        return HTTPResponse(got.status, got.body, got.content_type)

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        """The same for a task."""
        return await asyncio.to_thread(self.post, request, timeout)

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class Pair:
    """A service, and the clients that it gets."""

    folder: Path | None
    settings: Settings
    loop: asyncio.AbstractEventLoop
    service: castile.Service

    def client(self, number: int) -> castile.Client:
        """Another client, with a store of its own and so a sequence of its own."""
        store = self.folder / f"client-{number}.db" if self.folder else None
        return castile.Client(
            ADDRESS,
            policy=POLICY,
            store=store,
            settings=self.settings,
            http=Here(self.service, self.loop),
        )


@contextmanager
def pair(folder: Path | None, limits: Limits | None = None) -> Iterator[Pair]:
    """A running service."""
    settings = Settings(limits=limits or Limits(), testing=True)
    service = castile.Service(
        policy=POLICY, store=folder / "service.db" if folder else None, settings=settings
    )

    @service.raw(workload.ECHO)
    def echo(body: bytes) -> bytes:
        return body

    @service.raw(workload.TELL, one_way=True)
    def tell(_: bytes) -> None:
        """Nothing."""

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(service.start(), loop).result()
    try:
        yield Pair(folder, settings, loop, service)
    finally:
        asyncio.run_coroutine_threadsafe(service.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def memory() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * PAGE_BYTES


@dataclass
class Lane:
    """A number of callers in one kind of store."""

    durable: bool
    callers: int
    rates: list[float]
    taken: list[float]
    commits: float = 0.0
    calls: int = 0


def concurrent(folder: Path, rounds: int, seconds: float) -> list[Lane]:
    """Durable and in memory in turn, each caller with a client and a sequence of its own."""
    lanes = [Lane(durable, callers, [], []) for callers in CALLERS for durable in (False, True)]
    for turn in range(rounds):
        for lane in lanes:
            place = folder / f"{turn}-{lane.callers}" if lane.durable else None
            if place is not None:
                place.mkdir()
            with pair(place) as both, ThreadPoolExecutor(lane.callers) as pool:
                clients = [both.client(number) for number in range(lane.callers)]
                list(pool.map(_call, clients))
                stores = [both.service.store, *(client._store for client in clients)]
                before = sum(store.commits for store in stores)
                begun = time.perf_counter()
                taken = list(pool.map(_calls, clients, [begun + seconds] * lane.callers))
                spent = time.perf_counter() - begun
                count = sum(map(len, taken))
                lane.commits += sum(store.commits for store in stores) - before
                lane.rates.append(count / spent)
                lane.taken += [each for some in taken for each in some]
                lane.calls += count
                list(pool.map(castile.Client.close, clients))
    return lanes


def _call(client: castile.Client, number: int = 0) -> None:
    body = workload.body(1_000, number)
    if client.call_raw(workload.ECHO, body) != body:
        raise SystemExit("bench: a reply isn't what was sent")


def _calls(client: castile.Client, end: float) -> list[float]:
    taken, number = [], 0
    while (begun := time.perf_counter()) < end or not taken:
        number += 1
        _call(client, number)
        taken.append(time.perf_counter() - begun)
    return taken


def long(count: int) -> list[tuple[float, int]]:
    """CPU µs a message and resident bytes, for each tenth of one sequence of one-way messages."""
    tenths, share = [], count // 10
    with pair(None) as both:
        client = both.client(0)
        for number in range(200):
            client.send_raw(workload.TELL, workload.body(200, number))
        for tenth in range(10):
            begun = workload.cpu_seconds()
            for number in range(share):
                client.send_raw(workload.TELL, workload.body(200, tenth * share + number))
            client.sequence.wait_until_acknowledged(60)
            spent = workload.cpu_seconds() - begun
            gc.collect()
            tenths.append((spent / share * 1e6, memory()))
        client.close()
    return tenths


def open_sequences(folder: Path, count: int) -> tuple[float, float]:
    """Resident bytes of an open sequence at the service, and seconds until it serves again."""
    limits = replace(Limits(), sequences=2 * count + 500, sequences_per_principal=2 * count + 500)
    http: list[Here] = []
    with pair(folder, limits) as both:
        http.append(Here(both.service, both.loop))
        make(http[0], 200)
        gc.collect()
        before = memory()
        make(http[0], count)
        gc.collect()
        each = (memory() - before) / count
    begun = time.perf_counter()
    with pair(folder, limits) as both:
        make(Here(both.service, both.loop), 1)
        again = time.perf_counter() - begun
    return each, again


def make(http: Here, count: int) -> None:
    """So many sequences that stay open, without a client that would keep anything itself."""
    from castile.messages import reliability
    from castile.messages.addressing import EPR, Headers, render
    from castile.messages.soap import Message
    from castile.messages.soap import render as envelope

    edition, addressing = POLICY.reliability, POLICY.addressing
    if edition is None:
        raise SystemExit("bench: the policy has no reliable messaging")
    anonymous = EPR(addressing.anonymous)
    action = edition.action("CreateSequence")
    for _ in range(count):
        make.number += 1  # type: ignore[attr-defined]
        name = f"urn:bench:{make.number}"  # type: ignore[attr-defined]
        headers = render(
            Headers(action, to=ADDRESS, message_id=name, reply_to=anonymous), addressing
        )
        body = reliability.CreateSequence(anonymous).render(edition, addressing)
        payload = envelope(Message(POLICY.soap, headers, body))
        kind = f'application/soap+xml; charset=utf-8; action="{action}"'
        answer = http.post(HTTPRequest(ADDRESS, payload, (("Content-Type", kind),)), 30.0)
        if b"CreateSequenceResponse" not in answer.body:
            raise SystemExit(f"bench: {answer.status} {answer.body[:500]!r}")


make.number = int(time.time() * 1000)  # type: ignore[attr-defined]


def lines(
    lanes: list[Lane], tenths: list[tuple[float, int]], count: int, opened: tuple[float, float], many: int
) -> Iterator[str]:
    """All tables."""
    yield "Request/reply of 1 KB, each caller with a client, a store and a sequence of its own:"
    yield ""
    yield from report.table(
        ["store", "callers", "calls/s", "p50 ms", "p99 ms", "commits per call"],
        (
            [
                "durable" if lane.durable else "in memory",
                str(lane.callers),
                f"{median(lane.rates):,.0f}",
                f"{sorted(lane.taken)[len(lane.taken) // 2] * 1e3:.1f}",
                f"{sorted(lane.taken)[len(lane.taken) * 99 // 100] * 1e3:.1f}",
                f"{lane.commits / lane.calls:.2f}",
            ]
            for lane in lanes
        ),
    )
    yield ""
    yield "A commit of a file is one fsync of its log. Calls per second, durable / in memory, round by round:"
    yield ""
    yield from report.table(
        ["callers", "median", "least", "most"],
        (
            [str(memory_.callers), *(f"{value:.2f}" for value in (median(each), min(each), max(each)))]
            for memory_, durable in zip(lanes[::2], lanes[1::2], strict=True)
            for each in [[kept / lost for lost, kept in zip(memory_.rates, durable.rates, strict=True)]]
        ),
    )
    first, last = tenths[0], tenths[-1]
    yield ""
    yield (
        f"One sequence of {count:,} one-way messages in memory: {first[0]:,.0f} µs of CPU a message in its "
        f"first tenth, {last[0]:,.0f} in its last ({last[0] / first[0] - 1:+.0%}); the process grew by "
        f"{(last[1] - first[1]) / 2**20:.1f} MiB between them. CPU of all tenths: "
        f"{', '.join(f'{cost:,.0f}' for cost, _ in tenths)} µs."
    )
    yield ""
    yield (
        f"{many:,} open sequences of a durable service: {opened[0] / 1024:.1f} KiB of memory each; after a "
        f"restart it served again in {opened[1]:.2f} s."
    )


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(prog="make bench-reliable ARGS=...", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one row in one round")
    parser.add_argument("--messages", type=int, default=100_000, help="of the long sequence")
    parser.add_argument("--sequences", type=int, default=10_000)
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="castile-bench-") as name:
        folder = Path(name)
        place = machine.described(folder)
        (folder / "open").mkdir()
        opened = open_sequences(folder / "open", options.sequences)
        tenths = long(options.messages)
        lanes = concurrent(folder, options.rounds, options.seconds)
    found = [*lines(lanes, tenths, options.messages, opened, options.sequences), ""]
    found.append(f"Load before the run {place['load_before']:.1f}, {place['processors']} processors.")
    print("\n".join(found))
    if options.docs:
        report.write(found, "bench-reliable")


if __name__ == "__main__":
    main()
