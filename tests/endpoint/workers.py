"""Two workers of one service on one store, and a network that leads to either."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import castile
from castile.clock import system
from castile.errors import StoreFenced
from castile.store import Transaction
from castile.store.lock import owner_file
from castile.transport.http import HTTPRequest, HTTPResponse
from tests.endpoint.pair import Network, Pair, until


@dataclass
class Split(Network):
    """Leads each request to the worker that `choose` names, by its number and its bytes."""

    workers: list[castile.Service] = field(default_factory=list)
    choose: Callable[[int, bytes], int] = lambda number, payload: number
    _turns: itertools.count[int] = field(default_factory=itertools.count)

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        at = self.choose(next(self._turns), request.body) % len(self.workers)
        return Network(self.loop, self.workers[at], fate=self.fate, log=self.log).post(request, timeout)


@dataclass
class Workers:
    """A pair with a second worker of its service."""

    pair: Pair
    second: castile.Service = field(init=False)
    network: Split = field(init=False)

    def __post_init__(self) -> None:
        self.second = self.pair.make_service()
        self.pair.loop.run(self.second.start())
        self.network = Split(self.pair.loop, self.pair.service, workers=[self.first, self.second])

    @property
    def first(self) -> castile.Service:
        return self.pair.service

    def client(self, **options: Any) -> castile.Client:
        return self.pair.client(http=self.network, **options)

    def die(self, service: castile.Service, by: castile.Service) -> None:
        """The process of a worker is gone; what it does from now on counts for nothing."""
        store = service.store
        self.network.workers = [by]
        owner_file(store.location or Path(), store.owner).unlink()
        until(lambda: isinstance(store.run(_write).exception(), StoreFenced), 5.0)

    def close(self) -> None:
        self.pair.loop.run(self.second.stop())


def _write(tx: Transaction) -> None:
    tx.reject_replay(b"", 0.0, system())
