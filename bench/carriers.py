"""HTTP clients beside each other: CPU of one POST, 4 KB each way, on a kept connection.

``python bench/carriers.py``; ``--docs`` puts the table into docs/performance.md. The candidates
that aren't installed are left out: ``pip install pyreqwest httpx2 httpx aiohttp requests``. Each
round of each client is a process of its own, in turn, so that a busy moment of the machine meets
all of them; the server is a process that answers from a constant. CPU is of the client's process,
with all of its threads.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import importlib.metadata
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any, Final

BODY: Final = b"<a>" + b"x" * 4_089 + b"</a>"
HEADERS: Final = {"Content-Type": "application/soap+xml; charset=utf-8"}
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/soap+xml\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
POSTS: Final = 1_000
ROUNDS: Final = 3
Post = Callable[[], object]
APost = Callable[[], Awaitable[object]]


def serve() -> None:
    """Answer every request of whatever connection; the port goes to standard output."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)

    def talk(line: socket.socket) -> None:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = b""
        while data := line.recv(65_536):
            buffer += data
            _, end, rest = buffer.partition(b"\r\n\r\n")
            if end and len(rest) >= len(BODY):
                buffer = rest[len(BODY) :]
                line.sendall(ANSWER)

    while True:
        line, _ = listener.accept()
        threading.Thread(target=talk, args=(line,), daemon=True).start()


# The candidates: each gives what posts once, and is imported in its own process only.


def castile_sync(url: str) -> Post:
    from castile.transport.http import HTTPClient, HTTPRequest

    client, request = HTTPClient(), HTTPRequest(url, BODY, tuple(HEADERS.items()))
    return lambda: client.post(request, 10.0).body


def requests_sync(url: str) -> Post:
    import requests

    session = requests.Session()
    return lambda: session.post(url, data=BODY, headers=HEADERS, timeout=10).content


def httpx_sync(url: str, name: str = "httpx") -> Post:
    client = __import__(name).Client()
    return lambda: client.post(url, content=BODY, headers=HEADERS, timeout=10).content


def pyreqwest_sync(url: str) -> Post:
    from pyreqwest.client import SyncClientBuilder

    client = SyncClientBuilder().build()
    return lambda: client.post(url).headers(HEADERS).body_bytes(BODY).build().send().bytes()


def sockets_sync(url: str) -> Post:
    port = int(url.split(":")[2].split("/")[0])
    line = socket.create_connection(("127.0.0.1", port))
    request = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY

    def post() -> int:
        line.sendall(request)
        got = 0
        while got < len(ANSWER):
            got += len(line.recv(65_536))
        return got

    return post


async def castile_async(url: str) -> APost:
    from castile.transport.http import HTTPClient, HTTPRequest

    client, request = HTTPClient(), HTTPRequest(url, BODY, tuple(HEADERS.items()))
    return lambda: client.apost(request, 10.0)


async def httpx_async(url: str, name: str = "httpx") -> APost:
    client = __import__(name).AsyncClient()
    return lambda: client.post(url, content=BODY, headers=HEADERS, timeout=10)


async def aiohttp_async(url: str) -> APost:
    import aiohttp

    session = aiohttp.ClientSession()

    async def post() -> bytes:
        async with session.post(url, data=BODY, headers=HEADERS) as answer:
            return await answer.read()

    return post


async def pyreqwest_async(url: str) -> APost:
    from pyreqwest.client import ClientBuilder

    client = ClientBuilder().build()

    async def post() -> object:
        return await (await client.post(url).headers(HEADERS).body_bytes(BODY).build().send()).bytes()

    return post


CANDIDATES: Final[dict[str, tuple[Callable[[str], Any] | None, Callable[[str], Any] | None]]] = {
    "castile": (castile_sync, castile_async),
    "pyreqwest": (pyreqwest_sync, pyreqwest_async),
    "httpx2": (lambda url: httpx_sync(url, "httpx2"), lambda url: httpx_async(url, "httpx2")),
    "httpx": (httpx_sync, httpx_async),
    "aiohttp": (None, aiohttp_async),
    "requests": (requests_sync, None),
    "sockets": (sockets_sync, None),
}
"""Blocking and asynchronous; sockets: what the exchange itself costs, by hand."""


def measured(name: str, kind: str, url: str) -> float:
    """CPU µs of a POST, after a tenth of them to warm up."""
    make = CANDIDATES[name][kind == "async"]
    if make is None:
        raise SystemExit(f"{name} has no {kind} client")

    def blocking() -> float:
        post = make(url)
        for _ in range(POSTS // 10):
            post()
        start = time.process_time()
        for _ in range(POSTS):
            post()
        return time.process_time() - start

    async def looping() -> float:
        post = await make(url)
        for _ in range(POSTS // 10):
            await post()
        start = time.process_time()
        for _ in range(POSTS):
            await post()
        return time.process_time() - start

    return (blocking() if kind == "sync" else asyncio.run(looping())) / POSTS * 1e6


def rounds() -> list[tuple[str, str, list[float]]]:
    """The figures of every candidate that is here."""
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/"  # type: ignore[union-attr]
        here = [
            (name, kind, list[float]())
            for name, makers in CANDIDATES.items()
            if name == "sockets" or importlib.util.find_spec(name)
            for kind, make in zip(("sync", "async"), makers, strict=True)
            if make is not None
        ]
        for _ in range(ROUNDS):
            for name, kind, found in here:
                command = [sys.executable, "-W", "ignore", __file__, "--one", name, kind, url]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append(json.loads(done.stdout))
        return here
    finally:
        server.kill()
        server.wait()


def lines(found: list[tuple[str, str, list[float]]]) -> list[str]:
    import report

    def version(name: str) -> str:
        return "" if name in ("sockets", "castile") else importlib.metadata.version(name)

    kinds = {"sync": "blocking", "async": "asyncio"}
    rows = [
        [name, version(name), kinds[kind], f"{min(each):,.0f}", f"{median(each):,.0f}"]
        for name, kind, each in sorted(found, key=lambda row: (row[1] != "sync", min(row[2])))
    ]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    head = ["client", "version", "kind", "CPU µs", "median"]
    what = (
        f"CPU µs of the client's process per POST, {len(BODY):,} bytes each way, kept connection, "
        f"{ROUNDS} rounds of {POSTS:,} ({today}, minimum and median of the rounds):"
    )
    return [what, "", *report.table(head, rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
    elif options.one:
        print(measured(*options.one), flush=True)
        os._exit(0)  # some abort where their clients aren't closed
    else:
        found = lines(rounds())
        print("\n".join(found))
        if options.docs:
            import report

            report.write(found, "bench-carriers")


if __name__ == "__main__":
    main()
