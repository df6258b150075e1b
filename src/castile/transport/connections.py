"""Connections that are kept and used again: blocking ones, and those of an event loop.

Both do the same two things: find or open a connection along a route, and carry one request and
its answer over it. A connection serves one exchange at a time and returns to its pool only
after a whole answer. Nothing is sent twice: an idle connection is looked at before it is used,
and one that dies under a request is the caller's to judge.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar, cast

from castile.clock import Clock
from castile.transport.h1 import Broken, Reader

IDLE_SECONDS: Final = 60.0
"""An idle connection is used again for so long; many servers close theirs sooner."""
IDLE_CONNECTIONS: Final = 64
"""Kept for one route, as many as messages may be under way (`Settings.max_in_flight`)."""
_RECEIVE: Final = 64 << 10
_TUNNEL_ANSWER: Final = 64 << 10


class NotConnected(Exception):
    """No connection could be opened; nothing was sent. The text says why, for people."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a connection leads; two requests of the same route share connections."""

    host: str
    port: int
    server_name: str | None = None
    """Whom TLS must prove; None: no TLS."""
    tunnel: bytes = field(default=b"", repr=False)
    """What to ask of the proxy at `host` first: a CONNECT request."""


class _Idle(Protocol):
    def usable(self) -> bool: ...

    def close(self) -> None: ...


Line = TypeVar("Line", bound=_Idle)


class _Shelf(Generic[Line]):
    """The idle connections of each route, the last used on top."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: dict[Route, list[tuple[Line, float]]] = {}

    def take(self, route: Route) -> Line | None:
        while True:
            with self._lock:
                idle = self._idle.get(route)
                if not idle:
                    return None
                line, since = idle.pop()
            if self._clock().tick - since < IDLE_SECONDS and line.usable():
                return line
            line.close()

    def put(self, route: Route, line: Line) -> None:
        now = self._clock().tick
        with self._lock:
            idle = self._idle.setdefault(route, [])
            idle.append((line, now))
            oldest, since = idle[0]
            surplus = len(idle) > IDLE_CONNECTIONS or now - since >= IDLE_SECONDS
            if surplus:
                del idle[0]
        if surplus:
            oldest.close()

    def clear(self) -> None:
        with self._lock:
            lines = [line for idle in self._idle.values() for line, _ in idle]
            self._idle.clear()
        for line in lines:
            line.close()


class _Socket:
    """A connected socket, with or without TLS."""

    def __init__(self, socket: socket.socket) -> None:
        self.socket = socket

    def usable(self) -> bool:
        """Nothing may have come since the last answer, not even the end."""
        try:
            self.socket.settimeout(0)
            self.socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        self.socket.close()

    def break_off(self) -> None:
        """Wake the thread that waits on it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class BlockingPool:
    """Connections for threads; all of them may use it at once."""

    def __init__(self, connect_seconds: float, tls: Callable[[], ssl.SSLContext], clock: Clock) -> None:
        self._connect_seconds = connect_seconds
        self._tls = tls
        self._clock = clock
        self._shelf = _Shelf[_Socket](clock)
        self._busy: set[_Socket] = set()
        self._closed = False

    def exchange(self, route: Route, request: bytes, reader: Reader, deadline: float) -> None:
        """Send a request and read its answer, until the tick `deadline`.

        Raises `NotConnected`, `Broken`, `OSError` (`TimeoutError` at the deadline).
        """
        line = self._shelf.take(route) or self._open(route, deadline)
        kept = False
        self._busy.add(line)
        try:
            self._converse(line.socket, request, reader, deadline)
            kept = reader.reusable and not self._closed
        finally:
            self._busy.discard(line)
            if not kept:
                line.close()
        if kept:
            self._shelf.put(route, line)

    def close(self) -> None:
        """Close what is idle and break off what is under way."""
        self._closed = True
        self._shelf.clear()
        for line in list(self._busy):
            line.break_off()

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock().tick
        if left <= 0:
            raise TimeoutError
        return left

    def _open(self, route: Route, deadline: float) -> _Socket:
        try:
            opened = self._connect(route, deadline)
            try:
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if route.tunnel:
                    answer = Reader(_TUNNEL_ANSWER, tunnel=True)
                    self._converse(opened, route.tunnel, answer, deadline)
                    _check_tunnel(answer)
                if route.server_name is not None:
                    opened.settimeout(min(self._connect_seconds, self._left(deadline)))
                    opened = self._tls().wrap_socket(opened, server_hostname=route.server_name)
            except BaseException:
                opened.close()
                raise
        except (OSError, Broken) as error:
            raise NotConnected(reason(error)) from None
        return _Socket(opened)

    def _connect(self, route: Route, deadline: float) -> socket.socket:
        """Try each address in turn, all of them within the deadline."""
        failure = OSError("the name has no address")
        for family, kind, protocol, _, place in socket.getaddrinfo(
            route.host, route.port, type=socket.SOCK_STREAM
        ):
            opening = socket.socket(family, kind, protocol)
            try:
                opening.settimeout(min(self._connect_seconds, self._left(deadline)))
                opening.connect(place)
            except OSError as error:
                opening.close()
                failure = error
            except BaseException:
                opening.close()
                raise
            else:
                return opening
        raise failure

    def _converse(self, line: socket.socket, request: bytes, reader: Reader, deadline: float) -> None:
        unsent: OSError | None = None
        try:
            line.settimeout(self._left(deadline))
            line.sendall(request)
        except TimeoutError:
            raise
        except OSError as error:
            # A server that refuses early closes while we still send: its word may be here.
            unsent = error
        while not reader.done:
            line.settimeout(self._left(deadline))
            try:
                data = line.recv(_RECEIVE)
            except ConnectionError as error:
                raise unsent or error from None
            if data:
                reader.feed(data)
            elif unsent is not None and not reader.begun:
                raise unsent
            else:
                reader.end()
        if unsent is not None:
            reader.reusable = False


class _Talk(asyncio.Protocol):
    """A connection of an event loop."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._dead = False
        self._reader: Reader | None = None
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        reader, waiter = self._reader, self._waiter
        if reader is None or waiter is None or waiter.done():
            self.close()  # nobody asked: nothing on this connection can be trusted
            return
        try:
            if reader.feed(data):
                waiter.set_result(None)
        except Broken as error:
            waiter.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._dead = True
        reader, waiter = self._reader, self._waiter
        if reader is None or waiter is None or waiter.done():
            return
        try:
            if exc is not None and not reader.begun:
                raise exc
            reader.end()
        except Exception as error:
            waiter.set_exception(error)
        else:
            waiter.set_result(None)

    async def converse(self, request: bytes, reader: Reader) -> None:
        self._reader = reader
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            self.transport.write(request)
            await self._waiter
        finally:
            self._reader = self._waiter = None

    def usable(self) -> bool:
        return not self._dead and not self.transport.is_closing()

    def close(self) -> None:
        self._dead = True
        self.transport.abort()


class LoopingPool:
    """Connections for the coroutines of each event loop."""

    def __init__(self, connect_seconds: float, tls: Callable[[], ssl.SSLContext], clock: Clock) -> None:
        self._connect_seconds = connect_seconds
        self._tls = tls
        self._clock = clock
        self._shelves: dict[asyncio.AbstractEventLoop, _Shelf[_Talk]] = {}
        self._busy: dict[_Talk, asyncio.AbstractEventLoop] = {}
        self._closed = False

    async def exchange(self, route: Route, request: bytes, reader: Reader) -> None:
        """Send a request and read its answer. Raises `NotConnected`, `Broken`, `OSError`."""
        loop = asyncio.get_running_loop()
        shelf = self._shelf(loop)
        line = shelf.take(route) or await self._open(loop, route)
        kept = False
        self._busy[line] = loop
        try:
            await line.converse(request, reader)
            kept = reader.reusable and not self._closed
        finally:
            del self._busy[line]
            if not kept:
                line.close()
        if kept:
            shelf.put(route, line)

    def close(self) -> None:
        """Close what is idle and break off what is under way, each on its own loop."""
        self._closed = True
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        for loop, shelf in list(self._shelves.items()):
            lines = [line for line, owner in list(self._busy.items()) if owner is loop]
            for end in (shelf.clear, *(line.close for line in lines)):
                if loop is here:
                    end()
                elif not loop.is_closed():
                    loop.call_soon_threadsafe(end)

    def _shelf(self, loop: asyncio.AbstractEventLoop) -> _Shelf[_Talk]:
        shelf = self._shelves.get(loop)
        if shelf is None:
            for old in [old for old in list(self._shelves) if old.is_closed()]:
                self._shelves.pop(old, None)
            shelf = self._shelves.setdefault(loop, _Shelf(self._clock))
        return shelf

    async def _open(self, loop: asyncio.AbstractEventLoop, route: Route) -> _Talk:
        name = route.server_name
        direct = self._tls() if name is not None and not route.tunnel else None
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, line = await loop.create_connection(
                    _Talk, route.host, route.port, ssl=direct, server_hostname=name if direct else None
                )
                try:
                    if route.tunnel:
                        answer = Reader(_TUNNEL_ANSWER, tunnel=True)
                        await line.converse(route.tunnel, answer)
                        _check_tunnel(answer)
                        secured = await loop.start_tls(
                            line.transport, line, self._tls(), server_hostname=name
                        )
                        if secured is None:
                            raise Broken("the connection was closed during the TLS handshake")
                        line.transport = secured
                except BaseException:
                    line.close()
                    raise
        except (OSError, Broken) as error:
            raise NotConnected(reason(error)) from None
        return line


def _check_tunnel(answer: Reader) -> None:
    if answer.status >= 300:
        raise Broken(f"the proxy answered HTTP {answer.status}")


def reason(error: OSError | Broken) -> str:
    """Why it failed, for people."""
    if isinstance(error, Broken):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate isn't trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'the connection was closed'}"
    if isinstance(error, TimeoutError):
        return "not in time"
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)  # asyncio's own text speaks of its call
    return error.strerror or str(error) or type(error).__name__
