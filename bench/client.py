"""The client of the bench, a process of its own with one castile.Client and many callers.

Its one argument is a JSON object; each line of standard input orders one window of calls, whose
figures it prints. A caller is a thread that makes one call after the other; every reply is compared
with what was sent.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
import zlib

import workload

import castile


class Callers:
    """One client, and the numbers of its messages: no Body is ever sent twice."""

    def __init__(self, mode: str, address: str, certificate: str, store: str | None) -> None:
        policy = workload.policy(mode)
        self.client = castile.Client(
            address,
            policy=policy,
            credentials=workload.USER if policy.bootstrap else None,
            service_certificate=certificate if policy.bootstrap else None,
            store=store,
            seal=os.urandom(32) if store else None,
        )
        self.reliable = policy.reliability is not None
        self._numbers = itertools.count(1)

    def window(self, kind: str, callers: int, count: int, size: int) -> dict[str, object]:
        """So many calls by so many callers; for one-way messages until all are acknowledged."""
        bodies = iter([workload.body(size, next(self._numbers)) for _ in range(count)])
        taken: list[float] = []
        checksums: list[int] = []
        failures: list[BaseException] = []
        lock = threading.Lock()

        def work() -> None:
            try:
                while True:
                    with lock:
                        body = next(bodies, None)
                    if body is None:
                        return
                    begun = time.perf_counter_ns()
                    if kind == "echo":
                        answer = self.client.call_raw(workload.ECHO, body)
                        if answer != body:
                            raise SystemExit("bench: a reply isn't what was sent")
                    else:
                        self.client.send_raw(workload.TELL, body)
                    taken.append((time.perf_counter_ns() - begun) / 1_000)
                    checksums.append(zlib.crc32(body))
            except BaseException as failure:
                failures.append(failure)
                raise

        threads = [threading.Thread(target=work) for _ in range(callers)]
        cpu, start = workload.cpu_seconds(), time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if kind == "tell" and self.reliable and not self.client.sequence.wait_until_acknowledged(60):
            raise SystemExit("bench: messages weren't acknowledged")
        seconds = time.perf_counter() - start
        if failures:
            raise SystemExit(f"bench: a call failed: {failures[0]!r}")
        time.sleep(0.02)  # the store's last commit has no waiter
        return {
            "seconds": seconds,
            "taken_us": taken,
            "checksum": sum(checksums),
            "cpu": workload.cpu_seconds() - cpu,
            "commits": self.client._store.commits,
        }


def main(mode: str, address: str, certificate: str, store: str | None) -> None:
    """Run the windows that standard input orders, until it ends."""
    callers = Callers(mode, address, certificate, store)
    for line in sys.stdin:
        print(json.dumps(callers.window(**json.loads(line))), flush=True)
    callers.client.close()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
