"""castile's end of `make bench-peers`: the service and the client of `interop/`, measured.

    peer.py serve|meter SPEC

SPEC is a JSON object: ``cell``, ``address``, ``journal``, ``keys`` and ``store`` (null: in memory).
``meter`` answers the same orders as the Java peers' (interop/echo, Meter.java).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import stacks
from castile_peer import Journal, policy, serve, settings
from cell import NAMESPACE, PASSWORD, Cell

import castile


class Meter:
    """Calls as they are ordered, one after another."""

    def __init__(self, cell: Cell, spec: dict[str, Any]) -> None:
        self._cell = cell
        self._spec = spec
        self._numbers = itertools.count(1)
        self._client: castile.Client | None = None

    def run(self) -> None:
        """Until the input ends."""
        for order in sys.stdin:
            name, *numbers = order.split()
            taken: list[float] = []
            if name == "open":
                self._client = self._opened()
                self._call(self._client)
            elif self._client is not None and name == "run":
                taken = self._measured(self._client, int(numbers[0]), float(numbers[1]))
            elif self._client is not None:
                self._call(self._client)
                self._client.close()
            print(json.dumps(taken), flush=True)

    def _opened(self) -> castile.Client:
        keys = Path(self._spec["keys"])
        secure = self._cell.secure
        return castile.Client(
            self._spec["address"],
            policy=policy(self._cell),
            credentials=castile.Certificate(keys / "alice.p12", PASSWORD) if secure else None,
            service_certificate=keys / "bob.cer" if secure else None,
            store=self._spec["store"],
            settings=settings(self._cell),
        )

    def _measured(self, client: castile.Client, count: int, seconds: float) -> list[float]:
        """The µs of each call, until there are so many or the time is over."""
        taken: list[float] = []
        begun = time.perf_counter()
        deadline = begun + seconds
        while len(taken) < count and begun < deadline:
            self._call(client)
            now = time.perf_counter()
            taken.append(round((now - begun) * 1e6))
            begun = now
        return taken

    def _call(self, client: castile.Client) -> None:
        text = f"{next(self._numbers)} ".ljust(stacks.SIZE, ".").encode()
        body = b'<echo xmlns="%b"><text>%b</text></echo>' % (NAMESPACE.encode(), text)
        if text not in client.call_raw(f"{NAMESPACE}/echo", body):
            raise SystemExit("bench: a reply isn't what was sent")


def main() -> None:
    """The command line."""
    mode, spec = sys.argv[1], json.loads(sys.argv[2])
    cell = Cell(**spec["cell"])
    if mode == "serve":
        asyncio.run(serve(cell, spec, Journal(spec["journal"])))
    else:
        Meter(cell, spec).run()


if __name__ == "__main__":
    main()
