"""One virtual world: tasks that take turns in one real thread, a clock that moves only when all wait.

A task is a greenlet. It runs until it waits for something; then the next one is chosen, in the
order of readiness or by chance, as the run's plan says. Nothing sleeps: when no task is ready the
clock jumps to the next timer. Everything that is drawn comes from the seed.
"""

from __future__ import annotations

import heapq
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Final

from greenlet import GreenletExit, getcurrent, greenlet

if TYPE_CHECKING:
    from tests.simulation.processes import Process

EPOCH: Final = 1_900_000_000.0
"""UTC at the beginning of every world."""
MOST_STEPS: Final = 400_000
"""Turns after which a world is called stuck: something spins without letting the clock move."""


class Stuck(Exception):
    """The world doesn't come to its end."""


class Wait:
    """One task waiting for one thing."""

    __slots__ = ("done", "expired", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.done = False
        self.expired = False

    def wake(self) -> bool:
        """What it waited for has come. False: it waits no more."""
        if self.done or not self.task.process.alive:
            return False
        self.done = True
        self.task.world.ready.append(self.task)
        return True

    def expire(self) -> None:
        """Its time is up."""
        if self.wake():
            self.expired = True


class Task:
    """A thread of the simulated machine."""

    __slots__ = ("error", "greenlet", "name", "process", "thread", "world")

    def __init__(self, world: World, process: Process, name: str, run: Callable[[], object]) -> None:
        self.world, self.process, self.name = world, process, name
        self.thread: Any = None
        self.error: BaseException | None = None
        self.greenlet = greenlet(lambda: self._run(run), parent=world.hub)

    def _run(self, run: Callable[[], object]) -> None:
        try:
            run()
        except GreenletExit:
            pass
        except BaseException as error:
            self.error = error
            if not self.world.ending and self.process.alive:
                self.world.died(self, error)


class World:
    """The clock, the tasks and every chance of one run."""

    def __init__(self, seed: int, *, shuffle: bool, preempt: float) -> None:
        """`shuffle`: whichever ready task may be next, else the one that waits longest. `preempt`:
        how often a task is interrupted where it takes a lock or wakes another one."""
        self.hub = getcurrent()
        self.now = 0.0
        self.ready: deque[Task] = deque()
        self.current: Task | None = None
        self.ending = False
        self.shuffle, self.preempt = shuffle, preempt
        self.chance = Random(seed ^ 0x5C4ED)
        self.bytes = Random(seed ^ 0xB17E5)
        self.names = count(1)
        self.steps = 0
        self.died: Callable[[Task, BaseException], None] = lambda task, error: None
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._tasks: list[Task] = []
        self._trace = 0
        self.log: list[str] | None = None
        self.tags: Any = None
        """The registry of tier A."""
        self.memory: bytes | None = None
        """What a database in memory begins with, but for an empty one."""

    # the trace

    def note(self, *facts: object) -> None:
        """One fact of this run: the same seed makes the same facts in the same order."""
        text = f"{self.now:.6f} {' '.join(map(str, facts))}"
        self._trace = zlib.crc32(text.encode(), self._trace)
        if self.log is not None:
            self.log.append(text)

    @property
    def trace(self) -> str:
        """What the facts so far come to."""
        return f"{self._trace:08x}"

    # time and chance

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Call it then, outside of any task: it must not wait."""
        heapq.heappush(self._timers, (self.now + max(0.0, seconds), next(self._order), call))

    def random_bytes(self, count: int) -> bytes:
        """Random bytes for the product."""
        return self.bytes.randbytes(count)

    # tasks

    def spawn(self, process: Process, name: str, run: Callable[[], object]) -> Task:
        """A new task, ready at once."""
        task = Task(self, process, name, run)
        self._tasks.append(task)
        self.ready.append(task)
        if len(self._tasks) > 512:
            self._tasks = [each for each in self._tasks if not each.greenlet.dead]
        return task

    def wait(self, queue: deque[Wait] | list[Wait], timeout: float | None = None) -> bool:
        """The current task waits in a queue. False: its time was up."""
        task = self.current
        if self.ending:
            raise GreenletExit
        if task is None:
            raise Stuck("the hub can't wait")
        wait = Wait(task)
        queue.append(wait)
        if timeout is not None:
            self.after(timeout, wait.expire)
        self._away()
        return not wait.expired

    def sleep(self, seconds: float) -> None:
        """The current task waits for a time."""
        self.wait([], seconds)

    def pause(self) -> None:
        """A place where another task may come first."""
        task = self.current
        if self.preempt and task is not None and not self.ending and self.chance.random() < self.preempt:
            self.ready.append(task)
            self._away()

    def _away(self) -> None:
        task = self.current
        self.hub.switch()
        self.current = task
        if self.ending:
            raise GreenletExit

    def abandon(self) -> None:
        """The current task's process is dead: it never goes on."""
        self.hub.switch()
        raise GreenletExit

    def run(self, until: Callable[[], bool], limit: float) -> bool:
        """Let the world go on until this is so; False: not before `limit` (virtual seconds)."""
        ready, timers, chance = self.ready, self._timers, self.chance.random
        while True:
            while ready:
                if self.shuffle and len(ready) > 1:
                    ready.rotate(-int(chance() * len(ready)))
                task = ready.popleft()
                if not task.process.alive:
                    continue
                if task.process.stopped:
                    task.process.held.append(task)
                    continue
                self.current = task
                task.greenlet.switch()
                self.current = None
                self.steps += 1
                if self.steps > MOST_STEPS:
                    raise Stuck(f"no end after {MOST_STEPS} turns, at {self.now:.1f} s in {task.name}")
            if until():
                return True
            if not timers or timers[0][0] > limit:
                self.now = max(self.now, limit)
                return False
            moment, _, call = heapq.heappop(timers)
            self.now = max(self.now, moment)
            call()

    def end(self) -> None:
        """Drop every task: no code of theirs gets any further."""
        self.ending = True
        for task in self._tasks:
            if not task.greenlet.dead:
                task.greenlet.throw(GreenletExit)
        self._tasks.clear()
        self._timers.clear()


_current: World | None = None


def world() -> World:
    """The world that runs now."""
    if _current is None:
        raise Stuck("no world runs")
    return _current


@contextmanager
def running(new: World) -> Iterator[World]:
    """`new` is the world until the block ends."""
    global _current
    before, _current = _current, new
    try:
        yield new
    finally:
        new.end()
        _current = before
