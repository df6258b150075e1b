"""The network of a cell: a proxy that writes down what passes, and harms it as the cell says.

Each exchange is one connection, as in `castile.demo`; a lost message is a connection that ends
without an answer. The bytes are written before anything is done to them.
"""

from __future__ import annotations

import asyncio
import random
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cell import Cell

from castile.demo.envelope import Label, label
from castile.demo.proxy import Fate, Message
from castile.transport.wire import WireLog

PATIENCE = 60.0
"""Seconds for the service's answer."""


@dataclass(slots=True)
class Exchange:
    """What passed."""

    number: int
    request: Label
    fate: Fate
    repeated: bool = False
    status: int = 0
    """0: the service gave no answer."""
    response: Label = field(default_factory=Label)
    replayed: bool = False
    """Somebody on the network has sent it, who has it from an earlier exchange."""
    said: bytes = field(default=b"", repr=False)
    """The answer to that."""


async def read_message(reader: StreamReader, *, answer: bool = False) -> Message:
    """One message, chunked or with its length, or an answer up to the end of its connection; the
    result has its length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
    fields = dict(headers)
    if fields.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    elif answer and "content-length" not in fields:
        body = await reader.read()
    else:
        body = await reader.readexactly(int(fields.get("content-length", "0")))
    dropped = {"transfer-encoding", "content-length"}
    headers = [pair for pair in headers if pair[0] not in dropped]
    return Message(start, [*headers, ("content-length", str(len(body)))], body)


class Network:
    """The proxy, in a thread of its own; `on_request` hears of each exchange before it goes on."""

    def __init__(
        self, cell: Cell, target: int, wire: Path, on_request: Callable[[Exchange], None] | None = None
    ) -> None:
        self.exchanges: list[Exchange] = []
        self.port = 0
        self._cell, self._target, self._on_request = cell, target, on_request
        self._wire = WireLog(wire)
        self._seen: set[str] = set()
        self._kept: Message | None = None
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stopped: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Network:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        if self._stopped is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def _serve(self) -> None:
        self._loop.run_until_complete(self._run())

    async def _run(self) -> None:
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=256 << 10)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await self._stopped.wait()

    def _fate(self, number: int) -> Fate:
        chance = random.Random(f"{self._cell.name} {self._cell.seed} {number}")
        draws = [chance.random() for _ in range(3)]
        return Fate(
            request_lost=draws[0] < self._cell.drop,
            response_lost=draws[1] < self._cell.drop,
            doubled=draws[2] < self._cell.duplicate,
        )

    async def _connection(self, reader: StreamReader, writer: StreamWriter) -> None:
        broken = (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
        with closing(writer), suppress(*broken):
            answer = await self._exchange(await read_message(reader))
            if answer is not None:
                writer.write(answer.render())
                await writer.drain()

    async def _exchange(self, request: Message) -> Message | None:
        labels, number = label(request.body), len(self.exchanges) + 1
        exchange = Exchange(number, labels, self._fate(number))
        identity = labels.identity
        exchange.repeated = bool(identity) and identity in self._seen
        self._seen.add(identity)
        self.exchanges.append(exchange)
        record = self._wire.exchange()
        record.request(request.body)
        if self._on_request is not None:
            await asyncio.to_thread(self._on_request, exchange)
        if exchange.fate.request_lost:
            return None
        answer = await self._forward(request)
        if exchange.fate.doubled:
            second = await self._forward(request)
            if answer is None or not answer.body:
                answer = second or answer
        if answer is None:
            return None
        record.response(answer.body)
        exchange.status, exchange.response = int(answer.start.split(" ")[1]), label(answer.body)
        await self._trick(exchange, request)
        return None if exchange.fate.response_lost else answer

    async def _trick(self, exchange: Exchange, request: Message) -> None:
        """Somebody has kept message 2, and sends its octets again after message 4."""
        if self._cell.trick != "replay":
            return
        if exchange.request.number == 2:
            self._kept = request
        if exchange.request.number == 4 and self._kept is not None:
            kept, self._kept = self._kept, None
            again = Exchange(len(self.exchanges) + 1, label(kept.body), Fate(), replayed=True)
            self.exchanges.append(again)
            record = self._wire.exchange()
            record.request(kept.body)
            answer = await self._forward(kept)
            if answer is not None:
                record.response(answer.body)
                again.status, again.response = int(answer.start.split(" ")[1]), label(answer.body)
                again.said = answer.body

    async def _forward(self, request: Message) -> Message | None:
        """One exchange with the service; None if it is down, or goes down meanwhile."""
        with suppress(OSError, ValueError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
                with closing(writer):
                    writer.write(request.render())
                    await writer.drain()
                    return await read_message(reader, answer=True)
        return None
