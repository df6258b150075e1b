"""The HTTP server's side: a pure ASGI 3 application around one awaitable.

What HTTP itself can refuse is refused here, before any XML is read (RE-10 to RE-12 of the
features): method, content type, content encoding, size, slowness. What the message says is the
endpoint's business, and so is the status of its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final

from castile.config import Limits, Timers
from castile.endpoint.channel import is_loopback
from castile.errors import CastileError
from castile.transport.http import SOAP_TYPES, media_type

logger: Final = logging.getLogger("castile.wire")

LINGER_BYTES: Final = 4 << 20
LINGER_SECONDS: Final = 1.0
"""A refused body is thrown away this far, so that its sender hears the refusal (RFC 9112, 9.6)."""

# What ASGI itself calls these: its dictionaries hold values of many types.
Scope = MutableMapping[str, Any]
Network = IPv4Network | IPv6Network
ReceiveEvent = Callable[[], Awaitable[MutableMapping[str, Any]]]
SendEvent = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a message came: what HTTP says about it, none of it proven."""

    path: str
    """Below the place where the application is mounted; never empty."""
    content_type: str
    """The whole header."""
    soap_action: str | None = None
    """SOAPAction (SOAP 1.1), or the `action` parameter of the content type (SOAP 1.2)."""
    client: str | None = None
    """The address of whoever connected; a proxy's, if there is one."""
    secure: bool = False
    """It came over TLS, says the server, or a proxy that is trusted to know."""
    charset: str | None = None
    """The `charset` parameter of the content type, in lower case."""
    query: str = ""
    mount: str | None = None
    """The URL of the place where the application is mounted, as the Host header has it."""
    forwarded: bool = False
    """A proxy stands in between, says the request."""

    @property
    def local(self) -> bool:
        """This machine speaks to itself, as far as it is known."""
        return not self.forwarded and self.client is not None and is_loopback(self.client)


@dataclass(frozen=True, slots=True)
class HTTPAnswer:
    """What goes back on the same exchange."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()


Receive = Callable[[bytes, Arrival], Awaitable[HTTPAnswer]]
Metadata = Callable[[Arrival], Awaitable[HTTPAnswer | None]]
Callback = Callable[[], Awaitable[None]]


def busy(seconds: float) -> HTTPAnswer:
    """503: not now, come again after `seconds` (RFC 9110, 15.6.4)."""
    return HTTPAnswer(503, headers=(("Retry-After", str(max(1, round(seconds)))),))


class Refused(Exception):
    """HTTP refuses the request; the connection ends where the body wasn't read."""

    def __init__(self, status: int, *headers: tuple[str, str], close: bool = False) -> None:
        super().__init__(status)
        extra = (("Connection", "close"),) if close else ()
        self.answer = HTTPAnswer(status, headers=headers + extra)
        self.lingers = close and status != 408


class Gone(Exception):
    """The client hung up before its request was whole."""


class Application:
    """An ASGI 3 application that gives whole, bounded SOAP requests to `receive`.

    `receive` runs to its end even if its client hangs up or the server cancels the exchange:
    what it has begun (a commit, a handler) isn't torn. `start` runs once before the first
    request, at lifespan startup or, where the server or a mount sends none, with the first
    request; `stop` runs at lifespan shutdown after at most `timers.drain` seconds for what is
    running. `metadata` answers GET and HEAD; without it, or where it returns None, they get 405.
    """

    def __init__(
        self,
        receive: Receive,
        *,
        limits: Limits | None = None,
        timers: Timers | None = None,
        start: Callback | None = None,
        stop: Callback | None = None,
        metadata: Metadata | None = None,
        trusted_proxies: Iterable[str] = (),
    ) -> None:
        self._receive = receive
        self._proxies = tuple(ip_network(each) for each in trusted_proxies)
        self._limits = limits or Limits()
        self._timers = timers or Timers()
        self._start = start
        self._stop = stop
        self._metadata = metadata
        self._started = False
        self._stopping = False
        self._starting: asyncio.Future[None] | None = None
        self._running: set[asyncio.Future[HTTPAnswer]] = set()

    async def __call__(self, scope: Scope, receive: ReceiveEvent, send: SendEvent) -> None:
        """The entry point of ASGI 3."""
        kind = scope["type"]
        if kind == "http":
            await self._exchange(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            raise ValueError(f"no such ASGI scope here: {kind}")

    @property
    def stopping(self) -> bool:
        """New requests get 503."""
        return self._stopping

    async def drain(self) -> int:
        """Take nothing new, wait for what is running; returns how many were still running."""
        self._stopping = True
        if not self._running:
            return 0
        _, late = await asyncio.wait(set(self._running), timeout=self._timers.drain)
        return len(late)

    async def _lifespan(self, receive: ReceiveEvent, send: SendEvent) -> None:
        while True:
            event = (await receive())["type"]
            done = f"{event}.complete"
            try:
                if event == "lifespan.startup":
                    self._stopping = False
                    await self._ensure_started()
                else:
                    await self._shut_down()
            except Exception as error:  # the server must be told, whatever it was
                _log_failure(f"{event} failed", error)
                await send({"type": f"{event}.failed", "message": _named(error)})
                return
            await send({"type": done})
            if event == "lifespan.shutdown":
                return

    async def _ensure_started(self) -> None:
        if self._started:
            return
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start_once())
        # Shielded: the client that came first may hang up, the others still wait for it.
        await asyncio.shield(self._starting)

    async def _start_once(self) -> None:
        try:
            if self._start is not None:
                await self._start()
            self._started = True
        finally:
            self._starting = None

    async def _shut_down(self) -> None:
        late = await self.drain()
        if late:
            logger.warning("stopped with %d requests still running after %g s", late, self._timers.drain)
        started, self._started = self._started, False
        if started and self._stop is not None:
            await self._stop()

    async def _exchange(self, scope: Scope, receive: ReceiveEvent, send: SendEvent) -> None:
        after: Awaitable[None] | None = None
        try:
            answer = await self._answer(scope, receive)
        except Refused as refused:
            answer = refused.answer
            if refused.lingers:
                after = _discard(receive)
        except Gone:
            return
        await _send(answer, send, head=scope["method"] == "HEAD", before_end=after)

    async def _answer(self, scope: Scope, receive: ReceiveEvent) -> HTTPAnswer:
        headers = _Headers(scope["headers"])
        if self._stopping:
            raise _leaving(self._timers.drain)
        if scope["method"] != "POST":
            return await self._describe(scope, headers)
        arrival = _arrival(scope, headers, self._proxies)
        self._check(headers, arrival)
        payload = await self._body(receive)
        try:
            await self._ensure_started()
        except Exception as error:  # its cause is the operator's business, not the client's
            _log_failure("the service could not start", error)
            return busy(self._timers.drain)
        if self._stopping:  # it began while the body was on its way
            raise _leaving(self._timers.drain)
        return await self._run(payload, arrival)

    async def _run(self, payload: bytes, arrival: Arrival) -> HTTPAnswer:
        running = asyncio.ensure_future(self._receive(payload, arrival))
        self._running.add(running)
        running.add_done_callback(self._finished)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the exchange was cancelled; the work goes on
            return HTTPAnswer(500)
        except Exception:  # told by _finished
            return HTTPAnswer(500)

    def _finished(self, running: asyncio.Future[HTTPAnswer]) -> None:
        self._running.discard(running)
        if not running.cancelled() and (error := running.exception()) is not None:
            _log_failure("the endpoint failed", error)

    async def _describe(self, scope: Scope, headers: _Headers) -> HTTPAnswer:
        if self._metadata is not None and scope["method"] in ("GET", "HEAD"):
            try:
                answer = await self._metadata(_arrival(scope, headers, self._proxies))
            except Exception as error:
                _log_failure("the metadata could not be made", error)
                return HTTPAnswer(500)
            if answer is not None:
                return answer
        raise Refused(405, ("Allow", "POST" if self._metadata is None else "GET, HEAD, POST"))

    def _check(self, headers: _Headers, arrival: Arrival) -> None:
        """Everything that the header alone can say no to."""
        if media_type(arrival.content_type) not in SOAP_TYPES:
            raise Refused(415, ("Accept", ", ".join(sorted(SOAP_TYPES))), close=True)
        if headers.one("content-encoding").strip().lower() not in ("", "identity"):
            raise Refused(415, ("Accept-Encoding", "identity"), close=True)
        length = headers.one("content-length")
        if length:
            if not (length.isascii() and length.isdigit()):
                raise Refused(400, close=True)
            # Its digits are counted first: int() of a long text is quadratic.
            if len(length) > 18 or int(length) > self._limits.message_bytes:
                raise Refused(413, close=True)

    async def _body(self, receive: ReceiveEvent) -> bytes:
        """The whole body, within the limits of size and time."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                while True:
                    event = await receive()
                    if event["type"] != "http.request":
                        raise Gone
                    part = event.get("body", b"")
                    size += len(part)
                    more = event.get("more_body", False)
                    if size > self._limits.message_bytes:
                        raise Refused(413, close=more)
                    parts.append(part)
                    if not more:
                        break
        except TimeoutError:
            raise Refused(408, close=True) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Headers:
    """The headers that matter here; one that may stand once must stand once."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._pairs = tuple(pairs)

    def one(self, name: str) -> str:
        """Its value, or an empty text. Raises `Refused` 400 where it stands twice."""
        wanted = name.encode("ascii")
        values = [value for key, value in self._pairs if key == wanted]
        if len(values) > 1:
            raise Refused(400, close=True)
        return values[0].decode("latin-1") if values else ""

    def has(self, name: str) -> bool:
        """Whether it stands there at all."""
        wanted = name.encode("ascii")
        return any(key == wanted for key, _ in self._pairs)


_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")
_PARAMETER: Final = re.compile(r';\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')
_ESCAPED: Final = re.compile(r"\\(.)")


def parameters(content_type: str) -> dict[str, str]:
    """The parameters of a media type, names in lower case (RFC 9110, 5.6.6)."""
    found: dict[str, str] = {}
    for name, quoted, bare in _PARAMETER.findall(content_type):
        value = _ESCAPED.sub(r"\1", quoted) if quoted else bare
        if found.setdefault(name.lower(), value) != value:
            raise Refused(415, close=True)
    return found


def _arrival(scope: Scope, headers: _Headers, proxies: Sequence[Network]) -> Arrival:
    content_type = headers.one("content-type")
    given = parameters(content_type)
    soap_action = headers.one("soapaction").strip()
    action = soap_action.removeprefix('"').removesuffix('"') or given.get("action")
    client = scope.get("client")
    path = _path(scope["path"], scope.get("root_path", ""))
    host = headers.one("host")
    mount = None
    if _HOST.fullmatch(host):
        mount = f"{scope.get('scheme', 'http')}://{host}{scope.get('root_path', '').rstrip('/')}"
    return Arrival(
        path,
        content_type,
        action or None,
        client[0] if client else None,
        scope.get("scheme") == "https" or _ended_tls(client[0] if client else "", headers, proxies),
        given["charset"].lower() if "charset" in given else None,
        scope.get("query_string", b"").decode("latin-1"),
        mount,
        any(headers.has(name) for name in _FORWARDED),
    )


_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-proto", "via")


def _ended_tls(client: str, headers: _Headers, proxies: Sequence[Network]) -> bool:
    """Whether a trusted proxy says that the request came to it over TLS."""
    try:
        trusted = any(ip_address(client) in proxy for proxy in proxies)
    except ValueError:
        return False  # no address: a socket of this machine, which no proxy is listed by
    return trusted and headers.one("x-forwarded-proto").strip().lower() == "https"


def _path(path: str, root: str) -> str:
    """What is left of `path` below the mount; servers differ in whether it holds `root_path`."""
    root = root.rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return path or "/"


def _leaving(seconds: float) -> Refused:
    return Refused(503, *busy(seconds).headers, close=True)


async def _send(
    answer: HTTPAnswer, send: SendEvent, *, head: bool, before_end: Awaitable[None] | None = None
) -> None:
    headers = [(b"content-length", str(len(answer.body)).encode("ascii"))]
    if answer.content_type:
        headers.append((b"content-type", answer.content_type.encode("latin-1")))
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if before_end is not None:
        # The head is out and whole; the server closes the connection only at the end.
        await before_end
    await send({"type": "http.response.body", "body": b"" if head else answer.body})


async def _discard(receive: ReceiveEvent) -> None:
    """Read on for a while without keeping anything."""
    left = LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0:
                event = await receive()
                if event["type"] != "http.request" or not event.get("more_body", False):
                    return
                left -= len(event["body"])


def _named(error: BaseException) -> str:
    """An error as the log may hold it: a foreign one's text could quote a message."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, CastileError) else name


def _log_failure(what: str, error: BaseException) -> None:
    places = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s: %s\n%s", what, _named(error), places)
