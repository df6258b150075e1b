"""Waits that a thread and a task do alike: what a client does is written once.

It is written as coroutines that await the waits of this module and nothing else. `blocking` runs
one in the calling thread, where each wait blocks; `looping` runs the same one under asyncio, where
each wait lets other tasks go on. So there is no second client to keep in step with the first.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Generic, TypeVar

from castile.errors import TransportError
from castile.transport.http import HTTP, HTTPRequest, HTTPResponse

T = TypeVar("T")


class Wait(ABC, Generic[T]):
    """One wait, told to whoever runs the coroutine."""

    def __await__(self) -> Generator[Wait[T], T, T]:
        return (yield self)

    @abstractmethod
    def block(self) -> T:
        """Wait in this thread."""

    @abstractmethod
    async def suspend(self) -> T:
        """Wait in this task."""


Work = Coroutine[Wait[object], object, T]


def blocking(work: Work[T]) -> T:
    """Run it here, in this thread."""
    step: Callable[[], Wait[object]] = partial(work.send, None)
    while True:
        try:
            wait = step()
        except StopIteration as stop:
            result: T = stop.value
            return result
        try:
            value = wait.block()
        except BaseException as error:
            step = partial(work.throw, error)
        else:
            step = partial(work.send, value)


async def looping(work: Work[T]) -> T:
    """Run it here, in this task. Cancelled, it ends in good order: see the single waits."""
    step: Callable[[], Wait[object]] = partial(work.send, None)
    while True:
        try:
            wait = step()
        except StopIteration as stop:
            result: T = stop.value
            return result
        try:
            value = await wait.suspend()
        except BaseException as error:
            step = partial(work.throw, error)
        else:
            step = partial(work.send, value)


@dataclass(frozen=True, slots=True)
class Result(Wait[T]):
    """Of a future, for so many seconds (None: as long as it takes). Raises `TimeoutError`; the
    future itself goes on."""

    future: Future[T]
    seconds: float | None = None

    def block(self) -> T:
        return self.future.result(self.seconds)

    async def suspend(self) -> T:
        wrapped = asyncio.wrap_future(self.future)
        try:
            done, _ = await asyncio.wait({wrapped}, timeout=self.seconds)
        except asyncio.CancelledError:
            _forget(wrapped)
            raise
        if not done:
            _forget(wrapped)
            raise TimeoutError
        return wrapped.result()


@dataclass(frozen=True, slots=True)
class Commit(Wait[T]):
    """Of a step of the store. A task that is cancelled meanwhile hears of it after the commit, so
    that whatever the step has done is known when its coroutine ends."""

    future: Future[T]

    def block(self) -> T:
        return self.future.result()

    async def suspend(self) -> T:
        wrapped, cancelled = asyncio.wrap_future(self.future), False
        while not wrapped.done():
            try:
                await asyncio.wait({wrapped})
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            _forget(wrapped)
            raise asyncio.CancelledError
        return wrapped.result()


@dataclass(frozen=True, slots=True)
class Post(Wait[HTTPResponse]):
    """Of an HTTP exchange."""

    http: HTTP
    request: HTTPRequest
    timeout: float

    def block(self) -> HTTPResponse:
        return self.http.post(self.request, self.timeout)

    async def suspend(self) -> HTTPResponse:
        return await self.http.apost(self.request, self.timeout)


@dataclass(frozen=True, slots=True)
class Pause(Wait[None]):
    """So many seconds."""

    seconds: float

    def block(self) -> None:
        threading.Event().wait(self.seconds)

    async def suspend(self) -> None:
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True, slots=True)
class Apart(Wait[T]):
    """A call that blocks and can do nothing else; beside a loop it has a thread of its own."""

    call: Callable[[], T]

    def block(self) -> T:
        return self.call()

    async def suspend(self) -> T:
        return await asyncio.to_thread(self.call)


class Gate:
    """Shut or open; whoever comes while it is shut waits."""

    def __init__(self) -> None:
        self._opened: Future[None] = Future()

    def is_open(self) -> bool:
        return self._opened.done()

    def open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def shut(self) -> None:
        if self._opened.done():
            self._opened = Future()

    async def passed(self, seconds: float) -> bool:
        """Wait for it to be open; False after this time."""
        try:
            await Result(self._opened, seconds)
        except TimeoutError:
            return False
        return True


class Turn:
    """A lock that threads and tasks wait for alike, in the order in which they came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: deque[Future[None]] = deque()
        """The one at the head has it."""

    def within(self, seconds: float | None = None) -> _Held:
        """``async with turn.within(5.0)``; None: as long as it takes.

        Raises `TransportError` once the time is up: whoever has it waits for the network.
        """
        return _Held(self, seconds)

    def join(self) -> Future[None]:
        """A place in the line; done when it is at the head."""
        place: Future[None] = Future()
        with self._lock:
            self._line.append(place)
            first = len(self._line) == 1
        if first:
            place.set_result(None)
        return place

    def leave(self, place: Future[None]) -> None:
        """Give the turn, or the place, up."""
        with self._lock:
            head = self._line[0] is place
            self._line.remove(place)
            after = self._line[0] if head and self._line else None
        if after is not None:
            after.set_result(None)


class _Held:
    __slots__ = ("_place", "_seconds", "_turn")

    def __init__(self, turn: Turn, seconds: float | None) -> None:
        self._turn = turn
        self._seconds = seconds

    async def __aenter__(self) -> None:
        self._place = self._turn.join()
        try:
            await Result(self._place, self._seconds)
        except BaseException as error:
            self._turn.leave(self._place)
            if isinstance(error, TimeoutError):
                text = "no answer from the peer in time, to another caller's first message"
                raise TransportError(text) from None
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turn.leave(self._place)


def _forget(future: asyncio.Future[T]) -> None:
    """Nobody looks at it any more. It isn't cancelled: that would cancel what it wraps."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
