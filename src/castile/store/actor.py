"""The store's one thread: it runs the steps, and commits them together.

A batch is whatever queued while the last one was being committed, at most `BATCH` steps; only a
patient step that is alone waits a moment for company. Each step of a batch has a savepoint of its
own, and its future resolves only once the commit has returned. An exclusive step is a batch of
its own.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, TypeVar, cast
from weakref import WeakSet

from castile.clock import Clock
from castile.config import Settings
from castile.errors import StoreError, UsageError
from castile.store.database import Database, SQLiteErrors, translated
from castile.store.lock import OwnerLock
from castile.store.sqlite import SQLiteTransaction

if TYPE_CHECKING:
    from castile.store import Durability, Seal, Transaction

T = TypeVar("T")
BATCH: Final = 128
"""Steps that share a commit at most: more gain nothing and let the first one wait."""
PATIENCE: Final = 0.02
"""Seconds that a patient step waits for another one to share its commit."""
_PAGES_PER_CHANGE: Final = 2
_open_stores: WeakSet[Actor] = WeakSet()


@dataclass(slots=True)
class _Step:
    run: Callable[[Transaction], object]
    future: Future[object]
    exclusive: bool
    patient: bool
    seconds: float
    result: object = None
    error: BaseException | None = None

    def resolve(self) -> None:
        """After the commit."""
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Actor:
    """An open SQLite store; see `castile.store.Store`."""

    def __init__(self, path: Path | None, lock: OwnerLock | None, settings: Settings, clock: Clock) -> None:
        self._path = path
        self._lock = lock
        self._settings = settings
        self._clock = clock
        self._queue: SimpleQueue[_Step | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._inherited = False
        self._stepping = False
        self._commits = 0
        self._database: Database | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def open(
        cls,
        location: str | Path | None,
        *,
        seal: Seal,
        settings: Settings,
        clock: Clock,
        durability: Durability,
    ) -> Actor:
        """See `castile.store.open`."""
        path = _path_of(location)
        lock = OwnerLock(path, clock()) if path is not None else None
        actor = cls(path, lock, settings, clock)
        opened: Future[None] = Future()

        def main() -> None:
            try:
                actor._database = Database(path, seal=seal, settings=settings, durability=durability)
                transaction = SQLiteTransaction(actor._database, clock)
            except BaseException as error:
                if actor._database is not None:
                    actor._database.close()
                if isinstance(error, SQLiteErrors):
                    error = translated(error, str(path))
                if lock is not None:
                    lock.release()
                opened.set_exception(error)
                return
            opened.set_result(None)
            actor._work(actor._database, transaction)

        # A daemon, so that a program that forgets close() can end; atexit closes then.
        thread = threading.Thread(target=main, name=f"castile store {path or 'in memory'}", daemon=True)
        actor._thread = thread
        thread.start()
        opened.result()
        _open_stores.add(actor)
        return actor

    @property
    def location(self) -> Path | None:
        """The file; None in memory."""
        return self._path

    @property
    def commits(self) -> int:
        """Durable commits so far."""
        return self._commits

    def run(
        self,
        step: Callable[[Transaction], T],
        *,
        exclusive: bool = False,
        patient: bool = False,
        seconds: float | None = None,
    ) -> Future[T]:
        """See `castile.store.Store.run`."""
        if self._inherited:
            raise UsageError("this store was opened before a fork: the child process must open its own")
        if self._stepping and threading.current_thread() is self._thread:
            raise UsageError("a step can't start another one: do both in one, or wait until it is done")
        future: Future[T] = Future()
        limit = self._settings.timers.handler_seconds if seconds is None else seconds
        with self._gate:
            if self._closed:
                raise UsageError("the store is closed")
            self._queue.put(_Step(step, cast("Future[object]", future), exclusive, patient, limit))
        return future

    def close(self) -> None:
        """See `castile.store.Store.close`."""
        if self._inherited:
            return
        if threading.current_thread() is self._thread:
            raise UsageError("the store can't be closed from its own thread")
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    def abandon(self) -> None:
        """In the child of a fork: leave everything to the parent."""
        self._inherited = True
        if self._database is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._database.connection))
        if self._lock is not None:
            self._lock.release()

    def _work(self, database: Database, transaction: SQLiteTransaction) -> None:
        taken: list[_Step | None] = []
        while True:
            item = taken.pop() if taken else self._queue.get()
            if item is None:
                break
            self._turn(database, transaction, self._gather(item, taken))
            del item  # its message, for as long as nothing else comes
            database.tidy()
        database.close()
        if self._lock is not None:
            self._lock.release()

    def _gather(self, first: _Step, taken: list[_Step | None]) -> list[_Step]:
        """The steps that share a commit; in `taken` goes what came next and doesn't."""
        batch, patience = [first], PATIENCE if first.patient else 0.0
        while not first.exclusive and len(batch) < BATCH:
            try:
                following = self._queue.get(timeout=patience)
            except Empty:
                break
            patience = 0.0
            if following is None or following.exclusive:
                taken.append(following)
                break
            batch.append(following)
        return [step for step in batch if step.future.set_running_or_notify_cancel()]

    def _turn(self, database: Database, transaction: SQLiteTransaction, batch: list[_Step]) -> None:
        """Commit a batch, and tell everybody who waits."""
        rest = batch
        while rest:
            try:
                rest = self._commit(database, transaction, rest)
            except Exception as error:  # the thread must go on: others wait for it
                _fail(rest, error, database.name)
                rest = []
        for step in batch:
            step.resolve()

    def _commit(self, database: Database, transaction: SQLiteTransaction, batch: list[_Step]) -> list[_Step]:
        """One transaction with these steps; those that it didn't come to are returned."""
        connection, before = database.connection, database.connection.total_changes
        rest: list[_Step] = []
        try:
            if connection.in_transaction:  # an error has stopped the last one half-way
                connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            for position, step in enumerate(batch):
                self._attempt(database, transaction, step, alone=len(batch) == 1)
                if not connection.in_transaction:  # SQLite gave up all of it: disk full, I/O error
                    batch, rest = batch[: position + 1], batch[position + 1 :]
                    raise _Lost from step.error
            if all(step.error is not None for step in batch):
                connection.execute("ROLLBACK")
                return rest
            connection.execute("COMMIT")
        except (*SQLiteErrors, _Lost) as error:
            _fail(batch, error, database.name)
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return rest
        changes = connection.total_changes - before
        if changes:
            self._commits += 1
            database.note_writes(changes * _PAGES_PER_CHANGE)
        return rest

    def _attempt(
        self, database: Database, transaction: SQLiteTransaction, step: _Step, *, alone: bool
    ) -> None:
        """Run one step; if it raises, undo it alone. One that is alone is undone by the rollback
        of all, and needs no savepoint."""
        connection = database.connection
        loan = transaction.lend(step.seconds) if step.exclusive else None
        self._stepping = True
        try:
            if not alone:
                connection.execute("SAVEPOINT castile_step")
            step.result = step.run(transaction)
            if loan is not None:
                loan.check()
            if not alone:
                connection.execute("RELEASE castile_step")
        except BaseException as error:
            step.error = error
            if isinstance(error, sqlite3.Error):
                step.error = translated(error, database.name, foreign=step.exclusive)
            if step.error is not error:
                step.error.__cause__ = error
            if connection.in_transaction and not alone:
                connection.execute("ROLLBACK TO castile_step")
                connection.execute("RELEASE castile_step")
        finally:
            self._stepping = False
            if loan is not None:
                transaction.take_back(loan)


class _Lost(Exception):
    """A step's error has ended the transaction of all."""


def _fail(batch: list[_Step], error: Exception, name: str) -> None:
    """The commit didn't happen: nothing of any step was kept."""
    cause = error.__cause__ if isinstance(error, _Lost) else error
    for step in batch:
        if step.error is None:
            if isinstance(cause, SQLiteErrors):
                told = translated(cause, name)
            else:
                kind = type(cause) if isinstance(cause, StoreError) else StoreError
                why = f"another one failed: {cause}" if cause else "an error has undone its transaction"
                told = kind(f"the store {name}: nothing of this step was kept, because {why}")
            told.__cause__ = cause
            step.error = told


def _path_of(location: str | Path | None) -> Path | None:
    if location is None or location == ":memory:":
        return None
    if isinstance(location, str) and location.startswith("sqlite:///"):
        location = location.removeprefix("sqlite:///")
    if isinstance(location, str) and "://" in location:
        scheme = location.partition("://")[0]
        raise UsageError(f"no store of the kind {scheme}: give a path, or sqlite:///PATH")
    path = Path(location)
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} of the store doesn't exist")
    return path.resolve()  # one file has one lock, whatever the links to it


def _abandon() -> None:
    """In the child of a fork: the stores of the parent stay the parent's.

    Their connections are never closed here, not even by the interpreter's end: closing would
    checkpoint, and remove, files that the parent is using.
    """
    for actor in tuple(_open_stores):
        actor.abandon()


def _close_all() -> None:
    for actor in tuple(_open_stores):
        actor.close()


os.register_at_fork(after_in_child=_abandon)
atexit.register(_close_all)
