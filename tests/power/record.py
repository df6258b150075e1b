"""Plays a scenario on recorded disks: ``python -m tests.power.record SCENARIO FILE [DURABILITY] [FAULT]``.

A process of its own, for apsw brings its own SQLite. `FAULT` plants a fault that the judge must
find: ``early`` says that it has committed before it has.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import castile
import castile.store.database as database
from castile.config import Durability
from castile.transport.http import HTTPRequest, HTTPResponse
from tests.endpoint.pair import Network, Pair, action_of
from tests.power import promises
from tests.power.adapter import Connection
from tests.power.disk import Recorder
from tests.power.scenarios import SCENARIOS, Bank, Stage
from tests.power.trace import Event, Trace, temporary

PAGES = 24
"""A checkpoint comes after so many pages."""


def record(scenario: str, durability: Durability = "full", fault: str = "") -> Trace:
    """Play it."""
    trace = Trace(scenario, durability, os.urandom(32))
    folder = Path(temporary())
    recorder = Recorder(trace.events)
    _watch(recorder, folder)
    _plug(recorder, folder, fault)
    try:
        _play(trace, recorder, folder)
    finally:
        shutil.rmtree(folder)
    return trace


def _play(trace: Trace, recorder: Recorder, folder: Path) -> None:
    chosen, clock = SCENARIOS[trace.scenario], recorder.clock
    os.environ["CASTILE_STORE_KEY"] = trace.key.hex()
    pair = Recorded(
        castile.EndpointPolicy.of(chosen.family),
        folder=folder,
        settings=replace(chosen.settings, durability=trace.durability),
        clock=clock,
    )
    pair.recorder = recorder
    pair.network = Telling(pair, recorder)
    client = pair.client(store=folder / "client.db")

    def submitted(count: int) -> None:
        recorder.promise("client.db", ("submitted", count))

    try:
        chosen.play(Stage(pair, client, clock, submitted))
    finally:
        pair.close()


class Recorded(Bank):
    """A pair whose handlers tell when they run."""

    recorder: Recorder

    def note(self, content: bytes, ctx: castile.RequestContext) -> None:
        super().note(content, ctx)
        place = (ctx.sequence, ctx.number)
        self.recorder.note(Event("handled", "service.db", int(ctx.redelivered), content, place))


class Telling(Network):
    """A network that tells what each message promises, as it leaves."""

    def __init__(self, pair: Pair, recorder: Recorder) -> None:
        super().__init__(pair.loop, pair.service)
        self._pair, self._recorder, self._issued = pair, recorder, 0

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        self.service = self._pair.service
        for promise in promises.made_by(request.body):
            self._recorder.promise("client.db", promise)
        return super().post(request, timeout)

    def deliver(self, payload: bytes, timeout: float = 30.0) -> HTTPResponse:
        if action_of(payload) == "LastMessage":  # it counts, and nobody handles it
            self._recorder.note(Event("handled", "service.db", promise=promises.numbered(payload) or ()))
        response = super().deliver(payload, timeout)
        self._issued += action_of(response.body) == "RSTR/SCT"
        for promise in promises.made_by_answer(payload, response.body, self._issued):
            self._recorder.promise("service.db", promise)
        return response


def _plug(recorder: Recorder, folder: Path, fault: str) -> None:
    """From now on the store's connections are apsw's."""
    database.CHECKPOINT_PAGES = PAGES  # type: ignore[misc]

    class Committing(Connection):
        def ended(self, statement: str) -> None:
            if statement.startswith("COMMIT"):
                found, utc = promises.digest(self), recorder.clock().utc
                recorder.note(Event("commit", self.name, data=found, utc=utc))

    def connect(path: str, *args: Any, **options: Any) -> Any:
        if Path(path).parent == folder:
            return (Early if fault == "early" else Committing)(path)
        return connected(path, *args, **options)

    class Early(Committing):
        """Says that it has committed, and does so when it is asked the next time."""

        owed = False

        def pay(self) -> None:
            if self.owed:
                self.owed = False
                super().execute("COMMIT")

        def execute(self, statement: str, values: Any = ()) -> Any:
            self.pay()
            if statement == "COMMIT":
                self.owed = True
                return self.cursor()
            return super().execute(statement, values)

        @property
        def in_transaction(self) -> bool:
            return not self.owed and self.raw.in_transaction

        def close(self) -> None:
            self.pay()
            super().close()

    connected, sqlite3.connect = sqlite3.connect, connect  # type: ignore[assignment]


def _watch(recorder: Recorder, folder: Path) -> None:
    """Tell what the store does to files by itself."""
    opened: dict[int, str] = {}
    real = {name: getattr(os, name) for name in ("open", "close", "pwrite", "ftruncate", "fsync", "unlink")}

    def open_(path: Any, flags: int, *args: Any, **options: Any) -> int:
        descriptor: int = real["open"](path, flags, *args, **options)
        where = Path(os.fspath(path)) if isinstance(path, str | Path) else None
        if where == folder:
            opened[descriptor] = ""
        elif where is not None and where.parent == folder:
            opened[descriptor] = where.name
            if flags & os.O_CREAT:
                recorder.note(Event("open", where.name))
        return descriptor

    def close(descriptor: int) -> None:
        opened.pop(descriptor, None)
        real["close"](descriptor)

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if descriptor in opened:
            recorder.note(Event("write", opened[descriptor], offset, bytes(data)))
        return int(real["pwrite"](descriptor, data, offset))

    def ftruncate(descriptor: int, size: int) -> None:
        if descriptor in opened:
            recorder.note(Event("truncate", opened[descriptor], size))
        real["ftruncate"](descriptor, size)

    def fsync(descriptor: int) -> None:
        real["fsync"](descriptor)
        name = opened.get(descriptor)
        if name:
            recorder.note(Event("sync", name))
        elif name == "":
            for store in ("client.db", "service.db"):
                recorder.note(Event("sync-folder", store))

    def unlink(path: Any, *args: Any, **options: Any) -> None:
        real["unlink"](path, *args, **options)
        if Path(os.fspath(path)).parent == folder:
            recorder.note(Event("delete", Path(os.fspath(path)).name))

    for name, function in zip(real, (open_, close, pwrite, ftruncate, fsync, unlink), strict=True):
        setattr(os, name, function)


def main() -> None:
    """The program."""
    scenario, target, *rest = sys.argv[1:]
    Path(target).write_bytes(pickle.dumps(record(scenario, *rest)))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
