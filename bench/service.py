"""The service of the bench, a process of its own: uvicorn on a free port of the loopback.

Its one argument is a JSON object (`calls.Place`). It prints its address; then it answers each line
of standard input with what it has used and done so far, and stops at the end of the input.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import zlib

import uvicorn
import workload

import castile


class Counter:
    """What the handlers saw: the sum of the bodies' checksums tells whether it was all of it."""

    def __init__(self) -> None:
        self.handled = 0
        self.checksum = 0
        self._lock = threading.Lock()

    def echo(self, body: bytes) -> bytes:
        self.tell(body)
        return body

    def tell(self, body: bytes) -> None:
        with self._lock:
            self.handled += 1
            self.checksum += zlib.crc32(body)


def main(mode: str, identity: str, store: str | None) -> None:
    """Serve until standard input ends."""
    # With its protocol, or asyncio doesn't switch Nagle's algorithm off for what it accepts.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    counter, policy = Counter(), workload.policy(mode)
    service = castile.Service(
        policy=policy,
        public_url=address,
        credentials=castile.Certificate(identity) if policy.bootstrap else None,
        users={workload.USER.name: workload.USER.password} if policy.bootstrap else None,
        store=store,
        seal=os.urandom(32) if store else None,
    )
    service.raw(workload.ECHO)(counter.echo)
    service.raw(workload.TELL)(counter.tell)
    server = uvicorn.Server(uvicorn.Config(service.asgi(), log_level="warning", access_log=False))

    def answer() -> None:
        print(json.dumps({"address": address}), flush=True)
        for _ in sys.stdin:
            report = {
                "cpu": workload.cpu_seconds(),
                "commits": service.store.commits,
                "handled": counter.handled,
                "checksum": counter.checksum,
            }
            print(json.dumps(report), flush=True)
        server.should_exit = True

    threading.Thread(target=answer, daemon=True).start()
    server.run([listening])


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
