"""Starts the processes, kills them, starts them again, and watches that the run ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

from castile.demo.diagram import Diagram
from castile.demo.exchanges import open_exchanges
from castile.demo.plan import PASSWORD_VARIABLE, Files, Kill, Plan, Victim

Name = Literal["proxy", "service", "second", "client"]
MODULES: Final[dict[Name, str]] = {
    "proxy": "castile.demo.proxy",
    "service": "castile.demo.service",
    "second": "castile.demo.service",
    "client": "castile.demo.client",
}
STILL_SECONDS: Final = 25.0
"""Without any event for this long, the run hangs."""
GRACE_SECONDS: Final = 6.0
"""For a process that was asked to end."""
MOMENT_SECONDS: Final = 0.4
"""A kill waits this long for its moment; then it comes anyway."""
MARGIN: Final = 2
"""Messages that may go before the next kill, beyond those that are under way."""

Event = dict[str, object]


class Stuck(Exception):
    """The run doesn't go on; says what hangs."""


@dataclass(slots=True)
class Process:
    """A running child."""

    name: Name
    child: asyncio.subprocess.Process
    ready: bool = False
    ending: bool = False
    """Its end is the director's own doing."""

    def command(self, text: str) -> None:
        """Tell it something; one that has died doesn't hear it."""
        if self.child.stdin is not None and not self.child.stdin.is_closing():
            self.child.stdin.write(f"{text}\n".encode())

    async def end(self, how: signal.Signals) -> None:
        """End this process, and only this one, by its id."""
        self.ending = True
        if self.child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(how)
        try:
            await asyncio.wait_for(self.child.wait(), GRACE_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.child.kill()
            await self.child.wait()


@dataclass(slots=True)
class Director:
    """One run."""

    plan: Plan
    files: Files
    diagram: Diagram
    password: str = field(repr=False)
    keep: bool = False
    """Write down the messages and the keys."""
    kills_in_exchange: int = 0
    kills_beside: int = 0
    """Of a process of the service, while the other one went on."""
    _schedule: tuple[Kill, ...] = ()
    _url: str = ""
    _allowed: int = 0
    _killed: int = 0
    _finish: bool = False
    _seen: set[tuple[object, object]] = field(default_factory=set)
    """Sequence and number of each application message that was on the network."""
    _running: dict[Name, Process] = field(default_factory=dict)
    _events: asyncio.Queue[tuple[Process, Event | None]] = field(default_factory=asyncio.Queue)
    """What the processes tell; None: one has ended."""
    _reading: set[asyncio.Task[None]] = field(default_factory=set)
    _moment: asyncio.Event = field(default_factory=asyncio.Event)
    _last: str = "nothing"

    async def run(self) -> None:
        """From the start of the first process to the end of the last one. Raises `Stuck`.

        Ctrl-C and SIGTERM cancel it; the processes end then too.
        """
        self._schedule = self.plan.schedule()
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            async with asyncio.timeout(self.plan.seconds):
                await self._play()
        except TimeoutError:
            raise Stuck(f"it isn't done after {self.plan.seconds:.0f} seconds; {self._state()}") from None
        finally:
            for process in self._running.values():
                await process.end(signal.SIGKILL)
            await asyncio.gather(*self._reading)

    async def _play(self) -> None:
        await self._start("proxy")
        while not self._url:
            self._take(*await self._next())
        for worker in self.plan.services:
            await self._start(worker)
        killing: asyncio.Task[None] | None = None
        try:
            await self._start("client")
            killing = asyncio.create_task(self._kill_all())
            while not self._take(*await self._next()):
                if killing.done():
                    killing.result()
        finally:
            if killing is not None:
                killing.cancel()
                await asyncio.wait([killing])
        names: tuple[Name, ...] = ("client", *self.plan.services, "proxy")
        for name in names:
            await self._running[name].end(signal.SIGTERM)

    async def _next(self) -> tuple[Process, Event]:
        while True:
            try:
                process, event = await asyncio.wait_for(self._events.get(), STILL_SECONDS)
            except TimeoutError:
                text = f"nothing has happened for {STILL_SECONDS:.0f} seconds; {self._state()}"
                raise Stuck(text) from None
            if event is not None:
                self._last = f"{event['event']} of the {process.name}"
                return process, event
            if not process.ending:
                status = await process.child.wait()
                raise Stuck(f"the {process.name} ended by itself with status {status}: its log says why")

    def _take(self, process: Process, event: Event) -> bool:
        """Whether the client has closed."""
        self.diagram.draw(event)
        kind = event["event"]
        match process.name, kind:
            case "proxy", "ready":
                self._url = f"http://127.0.0.1:{event['port']}/demo"
            case "service" | "second", "ready":
                self._running["proxy"].command(f"{process.name} {event['port']}")
            case "client", "ready" if event["unfinished"]:
                self.diagram.say(f"the client has {event['unfinished']} unfinished calls of its earlier life")
            case "proxy", _ if event.get("number"):
                if kind == "request":
                    self._seen.add((event["sequence"], event["number"]))
            case "client", "closed":
                process.ending = True
                return True
        process.ready = process.ready or kind == "ready"
        if self._killed < len(self._schedule) and kind == self._schedule[self._killed].moment:
            self._moment.set()
        return False

    # kills

    async def _kill_all(self) -> None:
        """Every kill of the schedule, then the rest of the messages."""
        for kill in self._schedule:
            self._allow(kill.message + self.plan.callers + MARGIN)
            while len(self._seen) < kill.message or not all(each.ready for each in self._running.values()):
                await asyncio.sleep(0.005)
            self._moment.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moment.wait(), MOMENT_SECONDS)
            await asyncio.sleep(kill.delay)
            await self._kill(kill.victim)
        self._finish = True
        self._allow(self.plan.messages)

    async def _kill(self, victim: Victim) -> None:
        process = self._running[victim]
        process.ending = True
        killed = time.time()
        process.child.kill()
        await process.child.wait()
        named = "second service" if victim == "second" else victim
        self.diagram.say(f"☠ {named} killed (SIGKILL, pid {process.child.pid})", "bold red")
        inside = await asyncio.to_thread(open_exchanges, self.files, killed)
        self._killed += 1
        self.kills_in_exchange += inside > 0
        self.kills_beside += victim != "client" and self.plan.workers > 1
        self.diagram.tally.kills += 1
        await self._start(victim)
        calls = f"{inside} call{'s' if inside > 1 else ''}" if inside else "no call"
        pid = self._running[victim].child.pid
        self.diagram.say(f"↻ {named} started again (pid {pid}); {calls} had been under way")

    def _allow(self, messages: int) -> None:
        self._allowed = min(messages, self.plan.messages)
        self._admit(self._running["client"])

    def _admit(self, client: Process) -> None:
        client.command(f"allow {self._allowed}")
        if self._finish:
            client.command("finish")

    # processes

    async def _start(self, name: Name) -> None:
        with self.files.log.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                MODULES[name],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment(name),
                start_new_session=True,  # Ctrl-C is for the director, who then ends its children
                limit=1 << 20,
            )
        process = Process(name, child)
        self._running[name] = process
        given = {"plan": asdict(self.plan), "folder": str(self.files.root), "url": self._url}
        process.command(json.dumps(given))
        if name == "client":
            self._admit(process)
        reading = asyncio.create_task(self._read(process))
        self._reading.add(reading)
        reading.add_done_callback(self._reading.discard)

    async def _read(self, process: Process) -> None:
        if process.child.stdout is None:
            return
        async for line in process.child.stdout:
            with contextlib.suppress(ValueError):  # the last line of a killed process may be torn
                self._events.put_nowait((process, json.loads(line)))
        self._events.put_nowait((process, None))

    def _environment(self, name: Name) -> dict[str, str]:
        environment = {
            key: value for key, value in os.environ.items() if key not in ("CASTILE_WIRE", "CASTILE_KEYLOG")
        }
        if name != "proxy":
            environment[PASSWORD_VARIABLE] = self.password
            if self.keep:
                environment["CASTILE_KEYLOG"] = str(self.files.keylog)
        if environment.pop("PYTHONDONTWRITEBYTECODE", None):
            # Each start would compile every module again.
            environment["PYTHONPYCACHEPREFIX"] = str(self.files.bytecode)
        return environment

    def _state(self) -> str:
        """What a person needs to know of a run that hangs."""
        tally = self.diagram.tally
        states = ", ".join(
            f"the {name} {'runs' if process.child.returncode is None else 'has ended'}"
            f"{'' if process.ready else ' and was never ready'}"
            for name, process in self._running.items()
        )
        return (
            f"{tally.answered} of {self.plan.messages} calls are answered, {self._killed} of "
            f"{len(self._schedule)} kills done; {states}; the last event was: {self._last}"
        )
