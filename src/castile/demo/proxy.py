"""The network between client and service, and what goes wrong in it.

An HTTP/1.1 proxy for requests and responses that say their Content-Length. A lost message is a
connection that ends without an answer. Which messages are lost, doubled or held back comes from
the seed and the number of the exchange; what was sent is written down before that.
"""

from __future__ import annotations

import asyncio
import random
import signal
from asyncio import StreamReader, StreamWriter
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field

from castile.demo.child import Child
from castile.demo.envelope import Label, label
from castile.transport.wire import WireExchange, WireLog

PATIENCE = 20.0
"""Seconds for the service's answer."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What the network does to one exchange."""

    request_lost: bool = False
    response_lost: bool = False
    doubled: bool = False
    held: float = 0.0
    """Seconds that the request is held back while later ones pass."""

    @property
    def words(self) -> list[str]:
        """For the diagram, what is done to the request."""
        done = {"lost": self.request_lost, "doubled": self.doubled, "held": bool(self.held)}
        return [word for word, so in done.items() if so]


@dataclass(slots=True)
class Message:
    """An HTTP message as it came: head and body."""

    start: str
    headers: list[tuple[str, str]]
    body: bytes = field(repr=False)

    def render(self) -> bytes:
        """The message for one connection that ends with it."""
        kept = [(name, value) for name, value in self.headers if name not in ("connection", "keep-alive")]
        lines = [self.start, *(f"{name}: {value}" for name, value in kept), "connection: close", "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body


async def read_message(reader: StreamReader) -> Message:
    """Read one message. Raises `asyncio.IncompleteReadError` or `OSError` if it doesn't come whole."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
    length = next((value for name, value in headers if name == "content-length"), "0")
    return Message(start, headers, await reader.readexactly(int(length)))


class Proxy:
    """The network."""

    def __init__(self, child: Child, wire: WireLog | None) -> None:
        self._child = child
        self._plan = child.plan
        self._wire = wire
        self._ports: dict[str, int] = {}
        """Where each process of the service listens, or has listened."""
        self._serving = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._count = self._turns = 0
        self._seen: Counter[str] = Counter()
        self._copies: set[asyncio.Task[Message | None]] = set()

    def command(self, word: str, number: int) -> None:
        """The director says where a process of the service listens now."""
        if word in ("service", "second"):
            self._loop.call_soon_threadsafe(self._move, word, number)

    def _move(self, worker: str, port: int) -> None:
        self._ports[worker] = port
        self._serving.set()

    def fate(self, number: int) -> Fate:
        """What happens to this exchange."""
        plan = self._plan
        chance = random.Random(f"network {plan.seed} {number}")  # noqa: S311 - a scenario, not a secret
        draws = [chance.random() for _ in range(5)]
        return Fate(
            request_lost=draws[0] < plan.drop,
            response_lost=draws[1] < plan.drop,
            doubled=draws[2] < plan.duplicate,
            held=0.02 + 0.13 * draws[3] if plan.reorder and draws[4] < 0.2 else 0.0,
        )

    async def connection(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Requests of one connection, one after another."""
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                answer = await self._exchange(await read_message(reader))
                if answer is None:
                    return  # what is lost takes its connection along
                writer.write(answer.render())
                await writer.drain()
                return

    async def _exchange(self, request: Message) -> Message | None:
        self._count += 1
        number, labels = self._count, label(request.body)
        record = self._wire.exchange() if self._wire else None
        if record is not None:
            record.request(request.body)
        fate = self.fate(number)
        self._tell("request", number, labels, repeated=self._repeated(labels), fate=fate.words)
        await asyncio.sleep(self._plan.latency + fate.held)
        if fate.request_lost:
            return None
        answer = await self._deliver(request, doubled=fate.doubled)
        if answer is None:
            self._child.tell("silence", exchange=number)
            return None
        return await self._return(number, answer, record, lost=fate.response_lost)

    async def _return(
        self, number: int, answer: Message, record: WireExchange | None, *, lost: bool
    ) -> Message | None:
        if record is not None:
            record.response(answer.body)
        status = int(answer.start.split(" ")[1])
        self._tell("response", number, label(answer.body), status=status, fate=["lost"] if lost else [])
        await asyncio.sleep(self._plan.latency)
        return None if lost else answer

    async def _deliver(self, request: Message, *, doubled: bool) -> Message | None:
        """The service's answer; of a doubled request the better one of both."""
        if not doubled:
            return await self._forward(request)
        copy = asyncio.create_task(self._forward(request))
        self._copies.add(copy)
        copy.add_done_callback(self._copies.discard)
        answer = await self._forward(request)
        if answer is None or not answer.body:
            return await copy or answer
        return answer

    async def _forward(self, request: Message) -> Message | None:
        """One exchange with the service, its processes in turn; None if the one whose turn it is is
        down, or goes down meanwhile."""
        with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                # Only the first start is waited for: later a service that is down doesn't answer.
                await self._serving.wait()
                self._turns += 1
                port = list(self._ports.values())[self._turns % len(self._ports)]
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with closing(writer):
                    writer.write(request.render())
                    await writer.drain()
                    return await read_message(reader)
        return None

    def _repeated(self, labels: Label) -> bool:
        """Whether the client has sent this message before."""
        if not labels.identity:
            return False
        self._seen[labels.identity] += 1
        return self._seen[labels.identity] > 1

    def _tell(self, event: str, exchange: int, labels: Label, **facts: object) -> None:
        self._child.tell(
            event,
            exchange=exchange,
            word=labels.word,
            sequence=labels.sequence,
            number=labels.number,
            acknowledged=labels.acknowledged,
            instance=labels.instance,
            **facts,
        )


async def _main(child: Child, *, keep: bool) -> None:
    proxy = Proxy(child, WireLog(child.files.wire) if keep else None)
    server = await asyncio.start_server(proxy.connection, "127.0.0.1", 0, limit=256 << 10)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    child.listen(proxy.command)
    async with server:
        child.tell("ready", port=server.sockets[0].getsockname()[1])
        await stopped.wait()


if __name__ == "__main__":
    started = Child.start("proxy")
    asyncio.run(_main(started, keep=started.files.wire.is_dir()))
