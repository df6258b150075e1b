"""The store's one thread: it runs the steps, and commits them together.

A batch is whatever queued while the last one was being committed, at most `BATCH` steps; only a
patient step that is alone waits a moment for company. Each step of a batch has a savepoint of its
own, and its future resolves only once the commit has returned. An exclusive step is a batch of
its own.

Of a file every batch is under the writer's lock, and between batches the thread looks at what
other processes do with it. Before a fork the file is let go of for a moment, since a child must
inherit nothing of SQLite's (CL-30).
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, TypeVar, cast
from weakref import WeakSet

from castile.clock import Clock
from castile.config import Settings
from castile.errors import StoreError, StoreFenced, UsageError
from castile.store import Sign, database, rollback
from castile.store.database import Database, SQLiteErrors, translated
from castile.store.lock import WriterLock
from castile.store.sqlite import SQLiteTransaction

if TYPE_CHECKING:
    from castile.store import Seal, Transaction

T = TypeVar("T")
BATCH: Final = 128
"""Steps that share a commit at most: more gain nothing and let the first one wait."""
PATIENCE: Final = 0.02
"""Seconds that a patient step waits for another one to share its commit."""
LOOK: Final = 1.0
"""Seconds between two looks at the other processes that have the file open."""
HASTY_LOOK: Final = 0.005
"""The same while somebody waits for one of them."""
FORK: Final = 5.0
"""Seconds that a fork waits for the end of a transaction."""
_PAGES_PER_CHANGE: Final = 2
_open_stores: WeakSet[Actor] = WeakSet()

reliability_log = logging.getLogger("castile.reliability")


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


@dataclass(slots=True)
class _Look:
    """Look at the other processes now."""

    future: Future[None] = field(default_factory=Future)


@dataclass(slots=True)
class _Pause:
    """Let go of the file while this process forks."""

    paused: threading.Event = field(default_factory=threading.Event)
    resume: threading.Event = field(default_factory=threading.Event)


class Actor:
    """An open SQLite store; see `castile.store.Store`."""

    def __init__(self, path: Path | None, settings: Settings, clock: Clock) -> None:
        self._path = path
        self._lock = WriterLock(path) if path is not None else None
        self._settings = settings
        self._clock = clock
        self._queue: SimpleQueue[_Step | _Look | _Pause | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._inherited = False
        self._stepping = False
        self._commits = 0
        self._database: Database | None = None
        self._thread: threading.Thread | None = None
        self._listeners: list[Callable[[Sign], None]] = []
        self._hasty = 0
        self._look_at = clock().tick + LOOK
        self._version = 0
        self._fenced: StoreFenced | None = None
        self._pause: _Pause | None = None

    @classmethod
    def open(
        cls,
        location: str | Path | None,
        *,
        seal: Seal,
        settings: Settings,
        clock: Clock,
    ) -> Actor:
        """See `castile.store.open`."""
        path = _path_of(location)
        if path in _spoiled:
            raise UsageError(
                f"this process was forked inside a transaction of the store {path}, or by a server that "
                "forks past Python (uWSGI without lazy-apps): it can't open it. Fork between transactions"
            )
        actor = cls(path, settings, clock)
        opened: Future[None] = Future()

        def main() -> None:
            try:
                transaction = actor._enter(seal)
            except BaseException as error:
                actor._drop()
                if isinstance(error, SQLiteErrors):
                    error = translated(error, str(path))
                opened.set_exception(error)
                return
            opened.set_result(None)
            actor._work(transaction)

        # A daemon, so that a program that forgets close() can end; atexit closes then.
        thread = threading.Thread(target=main, name=f"castile store {path or 'in memory'}", daemon=True)
        actor._thread = thread
        thread.start()
        opened.result()
        _open_stores.add(actor)
        return actor

    def _enter(self, seal: Seal) -> SQLiteTransaction:
        with self._writing():
            opened = Database(self._path, seal=seal, settings=self._settings)
            self._database = opened
            transaction = SQLiteTransaction(opened, self._clock)
            now = self._clock()
            opened.enter(now, lambda lost: rollback.put_in_doubt(transaction, now, opened.name, lost))
            self._version = opened.data_version()
            return transaction

    @contextmanager
    def _writing(self, holding: float = 0.0) -> Iterator[None]:
        """Under the writer's lock, which may be held so long."""
        if self._lock is None:
            yield
            return
        self._lock.acquire(database.BUSY_SECONDS, holding=holding)
        try:
            yield
        finally:
            self._lock.release()

    @property
    def location(self) -> Path | None:
        """The file; None in memory."""
        return self._path

    @property
    def owner(self) -> int:
        """See `castile.store.Store.owner`."""
        return self._database.owner if self._database is not None else 0

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

    def watch(self, listener: Callable[[Sign], None]) -> None:
        """See `castile.store.Store.watch`."""
        self._listeners.append(listener)

    def look(self) -> Future[None]:
        """See `castile.store.Store.look`."""
        item = _Look()
        if not self._inherited:
            with self._gate:
                if not self._closed:
                    self._queue.put(item)
                    return item.future
        item.future.set_result(None)
        return item.future

    @contextmanager
    def awaits(self) -> Iterator[None]:
        """See `castile.store.Store.awaits`."""
        with self._gate:
            self._hasty += 1
        self.look()
        try:
            yield
        finally:
            with self._gate:
                self._hasty -= 1

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

    # forks

    def pause(self) -> None:
        """Before a fork: let go of the file, if that can be had in time."""
        self._pause = None
        if self._path is None or threading.current_thread() is self._thread:
            return
        pause = _Pause()
        with self._gate:
            if self._closed:
                return
            self._queue.put(pause)
        pause.paused.wait(FORK)
        self._pause = pause

    def resume(self) -> None:
        """After it, in the parent."""
        if self._pause is not None:
            self._pause.resume.set()

    def abandon(self) -> None:
        """After it, in the child: leave everything to the parent."""
        self._inherited = True
        opened = self._database
        if self._path is not None and opened is not None and not self._closed:
            if self._pause is None or not self._pause.paused.is_set():
                # Never closed, not even by the interpreter's end: that would drop locks and
                # remove files which the parent is using.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(opened.connection))
                _spoiled.add(self._path)
            if opened.ownership is not None:
                opened.ownership.close()
        if self._lock is not None:
            self._lock.close()

    # the thread

    def _work(self, transaction: SQLiteTransaction) -> None:
        taken: list[_Step | _Look | _Pause | None] = []
        while True:
            item = taken.pop() if taken else self._next()
            match item:
                case None:
                    break
                case _Step():
                    self._turn(transaction, self._gather(item, taken))
                    del item  # its message, for as long as nothing else comes
                    self._tidy()
                case _Pause():
                    self._let_go(item, transaction)
                case _Look():
                    self._see()
                    item.future.set_result(None)
            if self._path is not None and self._clock().tick >= self._look_at:
                self._see()
        self._drop()

    def _next(self) -> _Step | _Look | _Pause | None:
        """What comes next; looks around while nothing does."""
        if self._path is None:
            return self._queue.get()
        while True:
            try:
                return self._queue.get(timeout=HASTY_LOOK if self._hasty else LOOK)
            except Empty:
                if self._hasty or self._clock().tick >= self._look_at:
                    self._see()

    def _see(self) -> None:
        """Look at what the other owners of the file do."""
        self._look_at = self._clock().tick + (HASTY_LOOK if self._hasty else LOOK)
        opened = self._database
        if opened is None or opened.ownership is None or not opened.connected:
            return
        signs = []
        try:
            version = opened.data_version()
            if version != self._version:
                signs.append(Sign.CHANGED)
            seen = signs or opened.ownership.company
            if seen and opened.ownership.gone(opened.connection):
                signs.append(Sign.DIED)
            self._version = version
            if signs and opened.keyring.changed(opened.connection):
                with self._writing():
                    opened.refresh()
            if opened.ownership.replaced():
                self._fenced = StoreFenced(f"the file of the store {opened.name} was replaced: open it again")
        except (*SQLiteErrors, StoreError) as error:
            reliability_log.warning("the store %s can't be looked at: %s", opened.name, error)
        for sign in signs:
            for listener in self._listeners:
                try:
                    listener(sign)
                except Exception as error:  # the thread must go on
                    level = logging.DEBUG if self._closed else logging.ERROR
                    reliability_log.log(level, "%s of other processes went unheard: %s", sign, error)

    def _let_go(self, pause: _Pause, transaction: SQLiteTransaction) -> None:
        if self._database is not None:
            self._database.disconnect()
        pause.paused.set()
        pause.resume.wait()
        with suppress(StoreError), self._writing():  # what is in the way the next step tells
            self._connected(transaction)

    def _tidy(self) -> None:
        if self._database is not None and self._database.grown:
            with suppress(StoreError), self._writing():
                self._database.tidy()

    def _drop(self) -> None:
        """The end: an owner no more, the file and the lock closed."""
        try:
            if self._database is not None:
                with self._writing():
                    self._database.close(self._clock())
        except StoreError as error:  # who comes next takes over
            reliability_log.warning("the store was closed without a word: %s", error)
        finally:
            if self._database is not None:
                self._database.drop()
            if self._lock is not None:
                self._lock.close()

    def _gather(self, first: _Step, taken: list[_Step | _Look | _Pause | None]) -> list[_Step]:
        """The steps that share a commit; in `taken` goes what came next and doesn't."""
        batch, patience = [first], PATIENCE if first.patient else 0.0
        while not first.exclusive and len(batch) < BATCH:
            try:
                following = self._queue.get(timeout=patience)
            except Empty:
                break
            patience = 0.0
            if not isinstance(following, _Step) or following.exclusive:
                taken.append(following)
                break
            batch.append(following)
        return [step for step in batch if step.future.set_running_or_notify_cancel()]

    def _turn(self, transaction: SQLiteTransaction, batch: list[_Step]) -> None:
        """Commit a batch, and tell everybody who waits."""
        rest = batch
        try:
            with self._writing(sum(step.seconds for step in batch if step.exclusive)):
                opened = self._connected(transaction)
                while rest:
                    rest = self._commit(opened, transaction, rest)
        except Exception as error:  # the thread must go on: others wait for it
            _fail(rest, error, str(self._path or "in memory"))
        for step in batch:
            step.resolve()

    def _connected(self, transaction: SQLiteTransaction) -> Database:
        opened = self._database
        if self._fenced is not None or opened is None:
            raise StoreFenced(str(self._fenced))
        if not opened.connected:
            opened.reconnect()
            transaction.reconnected()
            self._version = 0  # another connection counts anew
        opened.refresh()
        return opened

    def _commit(self, opened: Database, transaction: SQLiteTransaction, batch: list[_Step]) -> list[_Step]:
        """One transaction with these steps; those that it didn't come to are returned."""
        connection, before = opened.connection, opened.connection.total_changes
        rest: list[_Step] = []
        changes, committing = 0, False
        try:
            if connection.in_transaction:  # an error has stopped the last one half-way
                connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            for position, step in enumerate(batch):
                self._attempt(opened, transaction, step, alone=len(batch) == 1)
                if not connection.in_transaction:  # SQLite gave up all of it: disk full, I/O error
                    batch, rest = batch[: position + 1], batch[position + 1 :]
                    raise _Lost from step.error
            if all(step.error is not None for step in batch):
                connection.execute("ROLLBACK")
                return rest
            changes = connection.total_changes - before
            if changes and opened.ownership is not None:
                opened.ownership.fence(connection)
            committing = True
            connection.execute("COMMIT")
        except (*SQLiteErrors, _Lost, StoreFenced) as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if not (committing and opened.ownership is not None and opened.ownership.kept(connection)):
                self._fenced = error if isinstance(error, StoreFenced) else self._fenced
                _fail(batch, error, opened.name)
                return rest
        if changes:
            self._commits += 1
            opened.note_writes(changes * _PAGES_PER_CHANGE)
            if opened.ownership is not None:
                opened.ownership.note()
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
            elif cause is error and isinstance(error, StoreError):
                told = type(error)(str(error))
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


def _before_fork() -> None:
    """SQLite's state of a file can't be shared with a child, nor made anew while any of it is
    left: each store lets go of its file."""
    _forking.acquire()
    for actor in tuple(_open_stores):
        actor.pause()


def _after_fork_in_parent() -> None:
    for actor in tuple(_open_stores):
        actor.resume()
    _forking.release()


def _after_fork_in_child() -> None:
    global _forking
    _forking = threading.Lock()
    for actor in tuple(_open_stores):
        actor.abandon()
    _open_stores.clear()


def _close_all() -> None:
    for actor in tuple(_open_stores):
        actor.close()


_forking = threading.Lock()
_spoiled: set[Path | None] = set()
"""Stores that this process was forked in the middle of."""
os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
atexit.register(_close_all)
