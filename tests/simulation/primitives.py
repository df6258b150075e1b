"""What the product's edges take from the standard library, in the world's time.

The same names, the same behaviour, as far as castile uses them: locks, events, conditions,
threads, timers, futures, pools, queues, and the few awaits of the service. Each wait is a place
where the world may let somebody else go on.
"""

from __future__ import annotations

import contextlib
import os
import queue
import time
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import CancelledError, InvalidStateError
from typing import Any, Generic, TypeVar

from tests.simulation.world import EPOCH, Task, Wait, world

T = TypeVar("T")


def _wake(waiting: deque[Wait], most: int | None = None) -> None:
    woken = 0
    while waiting and (most is None or woken < most):
        woken += waiting.popleft().wake()


class Lock:
    """threading.Lock."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[Wait] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        here = world()
        here.pause()
        end = None if timeout < 0 else here.now + timeout
        while self._held:
            if not blocking or (end is not None and here.now >= end):
                return False
            here.wait(self._waiting, None if end is None else end - here.now)
        self._held = True
        return True

    def release(self) -> None:
        if not self._held:
            if world().ending:
                return
            raise RuntimeError("release unlocked lock")
        self._held = False
        _wake(self._waiting, 1)

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock:
    """threading.RLock."""

    def __init__(self) -> None:
        self._lock, self._depth = Lock(), 0
        self._owner: Task | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        task = world().current
        if self._owner is task and task is not None:
            self._depth += 1
            return True
        if not self._lock.acquire(blocking, timeout):
            return False
        self._owner, self._depth = task, 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Event:
    """threading.Event."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: deque[Wait] = deque()

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        _wake(self._waiting)

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        here = world()
        if not self._set:
            here.wait(self._waiting, timeout)
        return self._set


class Condition:
    """threading.Condition."""

    def __init__(self, lock: Lock | RLock | None = None) -> None:
        self._lock = lock or RLock()
        self._waiting: deque[Wait] = deque()
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        here = world()
        self._lock.release()
        try:
            return here.wait(self._waiting, timeout)
        finally:
            if not here.ending:
                self._lock.acquire()

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        here = world()
        end = None if timeout is None else here.now + timeout
        while not predicate():
            left = None if end is None else end - here.now
            if left is not None and left <= 0:
                return predicate()
            self.wait(left)
        return True

    def notify(self, n: int = 1) -> None:
        _wake(self._waiting, n)

    def notify_all(self) -> None:
        _wake(self._waiting)


class Thread:
    """threading.Thread."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self.name, self.daemon = name or "thread", daemon
        self.ident: int | None = None
        self._target, self._args, self._kwargs = target, tuple(args), kwargs or {}
        self._done = Event()
        self._task: Task | None = None

    def start(self) -> None:
        here = world()
        self.ident = next(here.names)
        self._task = here.spawn(process_of(here.current), self.name, self._main)
        self._task.thread = self
        here.pause()

    def _main(self) -> None:
        try:
            self.run()
        finally:
            self._done.set()

    def run(self) -> None:
        if self._target is not None:
            self._target(*self._args, **self._kwargs)

    def join(self, timeout: float | None = None) -> None:
        self._done.wait(timeout)

    def is_alive(self) -> bool:
        return self._task is not None and not self._done.is_set()


class Timer(Thread):
    """threading.Timer."""

    def __init__(
        self,
        interval: float,
        function: Callable[..., object],
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(target=function, name="timer", args=args or (), kwargs=kwargs)
        self._interval, self._cancelled = interval, Event()

    def cancel(self) -> None:
        self._cancelled.set()

    def run(self) -> None:
        if not self._cancelled.wait(self._interval):
            super().run()


def process_of(task: Task | None) -> Any:
    """The process that a task belongs to."""
    if task is None:
        raise RuntimeError("no task runs")
    return task.process


def current_thread() -> Thread:
    """threading.current_thread."""
    task = world().current
    if task is None:
        raise RuntimeError("no task runs")
    if task.thread is None:
        task.thread = Thread(name=task.name)
    thread: Thread = task.thread
    return thread


class Future(Generic[T]):
    """concurrent.futures.Future."""

    def __init__(self) -> None:
        self._state = "pending"
        self._result: T | None = None
        self._exception: BaseException | None = None
        self._waiting: deque[Wait] = deque()
        self._callbacks: list[Callable[[Future[T]], object]] = []

    def cancel(self) -> bool:
        if self._state in ("running", "finished"):
            return False
        self._end("cancelled")
        return True

    def cancelled(self) -> bool:
        return self._state == "cancelled"

    def running(self) -> bool:
        return self._state == "running"

    def done(self) -> bool:
        return self._state in ("finished", "cancelled")

    def set_running_or_notify_cancel(self) -> bool:
        if self._state == "cancelled":
            return False
        self._state = "running"
        return True

    def set_result(self, result: T) -> None:
        if self.done():
            raise InvalidStateError(self._state)
        self._result = result
        self._end("finished")

    def set_exception(self, exception: BaseException | None) -> None:
        if self.done():
            raise InvalidStateError(self._state)
        self._exception = exception
        self._end("finished")

    def _end(self, state: str) -> None:
        if self._state == "cancelled":
            return
        self._state = state
        _wake(self._waiting)
        for callback in self._callbacks:
            callback(self)
        self._callbacks.clear()
        world().pause()

    def wait(self, timeout: float | None) -> bool:
        """Whether it is done, after this time at the latest."""
        if not self.done():
            world().wait(self._waiting, timeout)
        return self.done()

    def result(self, timeout: float | None = None) -> T:
        if not self.wait(timeout):
            raise TimeoutError
        if self._state == "cancelled":
            raise CancelledError
        if self._exception is not None:
            raise self._exception
        return self._result  # type: ignore[return-value]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.wait(timeout):
            raise TimeoutError
        if self._state == "cancelled":
            raise CancelledError
        return self._exception

    def add_done_callback(self, callback: Callable[[Future[T]], object]) -> None:
        if self.done():
            callback(self)
        else:
            self._callbacks.append(callback)


class ThreadPoolExecutor:
    """concurrent.futures.ThreadPoolExecutor."""

    def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "") -> None:
        self._most, self._name = max_workers or 8, thread_name_prefix
        self._running = 0
        self._idle = Event()
        self._idle.set()
        self._queue: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = deque()
        self._closed = False

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[T] = Future()
        self._queue.append((future, function, args, kwargs))
        if self._running < self._most:
            here = world()
            self._running += 1
            self._idle.clear()
            here.spawn(process_of(here.current), self._name, self._work)
        return future

    def _work(self) -> None:
        while self._queue:
            future, function, args, kwargs = self._queue.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                process_of(world().current).swallowed(self._name, error)
                future.set_exception(error)
            else:
                future.set_result(result)
        self._running -= 1
        if not self._running:
            self._idle.set()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._closed = True
        if cancel_futures:
            while self._queue:
                self._queue.popleft()[0].cancel()
        if wait:
            self._idle.wait()


class SimpleQueue(Generic[T]):
    """queue.SimpleQueue."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._waiting: deque[Wait] = deque()

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        self._items.append(item)
        _wake(self._waiting, 1)
        world().pause()

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        here = world()
        end = None if timeout is None else here.now + timeout
        while not self._items:
            if not block or (end is not None and here.now >= end):
                raise queue.Empty
            here.wait(self._waiting, None if end is None else end - here.now)
        return self._items.popleft()

    def get_nowait(self) -> T:
        return self.get(block=False)

    def put_nowait(self, item: T) -> None:
        self.put(item)

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)


# asyncio: a coroutine is driven by a task of its own, under the token of its process's loop


class Awaited(Generic[T]):
    """What `wrap_future` gives: whoever awaits it lets others of its loop go on."""

    def __init__(self, future: Future[T]) -> None:
        self.future = future

    def __await__(self) -> Generator[None, None, T]:
        self.wait(None)
        yield from ()
        return self.future.result()

    def wait(self, timeout: float | None) -> bool:
        """Whether it is done, after this time at the latest."""
        token: Lock = process_of(world().current).loop
        token.release()
        try:
            return self.future.wait(timeout)
        finally:
            if not world().ending:
                token.acquire()

    def done(self) -> bool:
        return self.future.done()

    def result(self) -> T:
        return self.future.result(0)

    def cancel(self) -> bool:
        return self.future.cancel()


def wrap_future(future: Future[T], *, loop: object = None) -> Awaited[T]:
    """asyncio.wrap_future."""
    return Awaited(future)


async def wait(
    awaited: Iterable[Awaited[Any]], *, timeout: float | None = None
) -> tuple[set[Awaited[Any]], set[Awaited[Any]]]:
    """asyncio.wait, for one or for the first of several."""
    given = list(awaited)
    if len(given) == 1:
        given[0].wait(timeout)
    else:
        first: Future[None] = Future()
        for each in given:
            each.future.add_done_callback(lambda _: None if first.done() else first.set_result(None))
        Awaited(first).wait(timeout)
    return {each for each in given if each.done()}, {each for each in given if not each.done()}


async def wait_for(awaited: Awaited[T], timeout: float | None) -> T:
    """asyncio.wait_for."""
    if not awaited.wait(timeout):
        raise TimeoutError
    return awaited.result()


async def sleep(seconds: float) -> None:
    """asyncio.sleep."""
    with contextlib.suppress(TimeoutError):
        await wait_for(Awaited(Future()), seconds)


async def to_thread(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """asyncio.to_thread."""
    return await Awaited(ThreadPoolExecutor(1, "to_thread").submit(function, *args, **kwargs))


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the current task, under its process's token."""
    token: Lock = process_of(world().current).loop
    with token:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result
    raise RuntimeError("the coroutine awaits what the simulator doesn't know")


def run_coroutine_threadsafe(coroutine: Coroutine[Any, Any, T], loop: object) -> Future[T]:
    """asyncio.run_coroutine_threadsafe."""
    return ThreadPoolExecutor(1, "coroutine").submit(drive, coroutine)


def create_task(coroutine: Coroutine[Any, Any, T], *, name: str | None = None) -> Awaited[T]:
    """asyncio.create_task and ensure_future."""
    return Awaited(run_coroutine_threadsafe(coroutine, None))


def get_running_loop() -> object:
    """asyncio.get_running_loop."""
    return process_of(world().current).loop


def _module(called: str, /, **names: object) -> types.ModuleType:
    module = types.ModuleType(called)
    module.__dict__.update(names)
    return module


def _virtual_os() -> types.ModuleType:
    """os: random bytes of the world, a pid of its process, and descriptors that end with it."""
    module = _module("os", **vars(os))

    def opened(path: Any, flags: int, mode: int = 0o777, **rest: Any) -> int:
        descriptor = os.open(path, flags, mode, **rest)
        process_of(world().current).descriptors.add(descriptor)
        return descriptor

    def closed(descriptor: int) -> None:
        process_of(world().current).descriptors.discard(descriptor)
        os.close(descriptor)

    module.__dict__.update(
        urandom=lambda count: world().random_bytes(count),
        getpid=lambda: process_of(world().current).pid,
        register_at_fork=lambda **_: None,
        open=opened,
        close=closed,
        fsync=lambda descriptor: None,
    )
    return module


def modules() -> dict[str, types.ModuleType]:
    """Modules of the standard library by name, as the product sees them."""
    futures = _module(
        "concurrent.futures",
        Future=Future,
        ThreadPoolExecutor=ThreadPoolExecutor,
        CancelledError=CancelledError,
        InvalidStateError=InvalidStateError,
        TimeoutError=TimeoutError,
    )
    import asyncio
    import threading

    return {
        "threading": _module(
            "threading",
            Lock=Lock,
            RLock=RLock,
            Event=Event,
            Condition=Condition,
            Thread=Thread,
            Timer=Timer,
            current_thread=current_thread,
            get_ident=lambda: id(world().current),
            local=threading.local,
        ),
        "concurrent.futures": futures,
        "concurrent": _module("concurrent", futures=futures),
        "queue": _module("queue", SimpleQueue=SimpleQueue, Queue=SimpleQueue, Empty=queue.Empty),
        "asyncio": _module(
            "asyncio",
            **{
                **vars(asyncio),
                "wrap_future": wrap_future,
                "wait": wait,
                "wait_for": wait_for,
                "sleep": sleep,
                "to_thread": to_thread,
                "run": drive,
                "run_coroutine_threadsafe": run_coroutine_threadsafe,
                "create_task": create_task,
                "ensure_future": create_task,
                "get_running_loop": get_running_loop,
            },
        ),
        "time": _module(
            "time",
            **{
                **vars(time),
                "time": lambda: EPOCH + world().now,
                "monotonic": lambda: world().now,
                "perf_counter": lambda: world().now,
                "sleep": lambda seconds: world().sleep(seconds),
            },
        ),
        "atexit": _module("atexit", register=lambda function: function),
        "os": _virtual_os(),
    }
