"""The HTTP client: one small protocol, and its default.

Every status is an answer: what it means for the message is `classify`'s and then the caller's
word. Redirects aren't followed (a signed To names one endpoint), nothing is repeated on its own
(repeating is the business of WS-ReliableMessaging), and an answer is read no further than its
limit. Proxies are the standard ones of the environment (http_proxy, HTTPS_PROXY, ALL_PROXY,
NO_PROXY) unless one is given.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final, Literal, Protocol
from urllib.request import getproxies_environment

from castile.clock import Clock, system
from castile.config import Limits, Timers
from castile.errors import Exchange, TransportError, UsageError
from castile.transport.connections import BlockingPool, LoopingPool, NotConnected, Route, reason
from castile.transport.h1 import Address, Broken, Reader, address_of, compose
from castile.versions import SOAP_1_1, SOAP_1_2

SOAP_TYPES: Final = frozenset({SOAP_1_1.content_type, SOAP_1_2.content_type})
MOST_RETRY_AFTER: Final = 86_400.0
"""Seconds: no peer may silence us for longer than a day."""

Meaning = Literal["envelope", "empty", "retry", "refused"]


@dataclass(frozen=True, slots=True)
class HTTPRequest:
    """One POST. Neither body nor headers show in its repr: they may hold credentials."""

    url: str
    body: bytes = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class HTTPResponse:
    """An answer of any status, read whole."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str = ""
    """The Content-Type header as sent; empty if there was none."""
    retry_after: float | None = None
    """Seconds from now, from Retry-After in either of its forms (RFC 9110, 10.2.3)."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Names in lower case."""


class HTTP(Protocol):
    """Whoever carries a request to an endpoint and brings its answer back.

    `timeout` is seconds for the whole exchange. Raises `TransportError` where there is no whole
    answer, `UsageError` for an address that isn't http or https. Safe to use from many threads
    and event loops at once.
    """

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse: ...

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse: ...

    def close(self) -> None: ...


def media_type(content_type: str) -> str:
    """The type and subtype alone, in lower case (RFC 9110, 8.3.1)."""
    return content_type.partition(";")[0].strip().lower()


def classify(response: HTTPResponse) -> Meaning:
    """What an answer means for the message that was sent (RM-59 of the features).

    ``envelope``: a SOAP message to be read, whatever the status says. ``empty``: taken, nothing
    to say. ``retry``: send the message again, after `retry_after` if it is there. ``refused``:
    this attempt failed and the same request would fail again.
    """
    status = response.status
    if status in (429, 503) and response.retry_after is not None:
        return "retry"
    if 300 <= status < 400:
        return "refused"
    if response.body and media_type(response.content_type) in SOAP_TYPES:
        return "envelope"
    if status >= 500 or status in (408, 429):
        return "retry"
    if 200 <= status < 300 and not response.body:
        return "empty"
    return "refused"


def refusal(response: HTTPResponse) -> TransportError:
    """An answer without an envelope, as the error that says so; its body isn't quoted."""
    kind = media_type(response.content_type)
    what = f"{len(response.body)} bytes of {kind or 'no content type'}" if response.body else "no body"
    hint = ", and redirects are not followed" if 300 <= response.status < 400 else ""
    return TransportError(
        f"the peer answered HTTP {response.status} with {what}{hint}",
        retry_after=response.retry_after,
        exchange=Exchange(status=response.status),
    )


def read_retry_after(value: str | None, now_utc: float) -> float | None:
    """Seconds to wait, from a Retry-After header; None if absent or unreadable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), MOST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return min(max(moment - now_utc, 0.0), MOST_RETRY_AFTER)


def tls_context(authorities: str = "") -> ssl.SSLContext:
    """Certificates and names are verified, by these issuers (PEM) or else by the system's; HTTP/1.1
    over TLS 1.2 at least."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authorities:
        made.load_verify_locations(cadata=authorities)
    else:
        made.load_default_certs()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    return made


class HTTPClient:
    """The default client: HTTP/1.1, keep-alive, one pool for all threads and event loops.

    `tls` is for https; without one, certificates are checked against the system's. `proxy` is an
    ``http://`` URL used instead of the environment's, or empty for none. Connections are opened
    by the first request of each process: an instance made, or even used, before a fork serves
    both sides of it.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        timers: Timers | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        clock: Clock = system,
    ) -> None:
        self._most = (limits or Limits()).message_bytes
        self._connect_seconds = (timers or Timers()).connect_timeout
        self._context = tls
        self._proxy = proxy
        self._clock = clock
        self._closed = False
        self._ways: dict[tuple[bool, str, int], _Way] = {}
        # By process: what a fork inherits is neither used nor closed in the child.
        self._blocking: dict[int, BlockingPool] = {}
        self._looping: dict[int, LoopingPool] = {}

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        """POST and wait, `timeout` seconds at the most for the whole exchange."""
        return self._exchange(request.url, request.headers, request.body, timeout)

    def get(self, url: str, timeout: float) -> HTTPResponse:
        """GET a document, such as a WSDL; as `post` in all else."""
        return self._exchange(url, (), None, timeout)

    def _exchange(
        self, url: str, headers: tuple[tuple[str, str], ...], body: bytes | None, timeout: float
    ) -> HTTPResponse:
        deadline = self._clock().tick + timeout
        address, way, reader = self._prepare(url)
        octets = compose(address, way.prefix + address.target, headers + way.headers, body)
        try:
            self._threads().exchange(way.route, octets, reader, deadline)
        except (NotConnected, Broken, OSError) as error:
            raise self._failure(error, address, timeout) from None
        return self._answer(reader)

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        """`post` for an event loop; a cancelled task gives its connection up at once."""
        address, way, reader = self._prepare(request.url)
        octets = compose(address, way.prefix + address.target, request.headers + way.headers, request.body)
        try:
            async with asyncio.timeout(timeout):
                await self._loops().exchange(way.route, octets, reader)
        except (NotConnected, Broken, OSError) as error:
            raise self._failure(error, address, timeout) from None
        return self._answer(reader)

    def close(self) -> None:
        """Close the connections; a request under way ends with `TransportError`."""
        self._closed = True
        process = os.getpid()
        for pool in (self._blocking.get(process), self._looping.get(process)):
            if pool is not None:
                pool.close()

    def _prepare(self, url: str) -> tuple[Address, _Way, Reader]:
        if self._closed:
            raise UsageError("this HTTP client is closed")
        address = address_of(url)
        key = (address.tls, address.host, address.port)
        way = self._ways.get(key)
        if way is None:
            if len(self._ways) >= 256:
                self._ways.clear()
            way = self._ways[key] = _way(address, self._proxy_for(address))
        return address, way, Reader(self._most)

    def _proxy_for(self, address: Address) -> str:
        if self._proxy is not None:
            return self._proxy
        proxies = getproxies_environment()
        if _bypassed(address, proxies.get("no", "")):
            return ""
        return proxies.get("https" if address.tls else "http") or proxies.get("all") or ""

    def _threads(self) -> BlockingPool:
        process = os.getpid()
        pool = self._blocking.get(process)
        if pool is None:
            new = BlockingPool(self._connect_seconds, self._tls, self._clock)
            pool = self._blocking.setdefault(process, new)
        return pool

    def _loops(self) -> LoopingPool:
        process = os.getpid()
        pool = self._looping.get(process)
        if pool is None:
            new = LoopingPool(self._connect_seconds, self._tls, self._clock)
            pool = self._looping.setdefault(process, new)
        return pool

    def _tls(self) -> ssl.SSLContext:
        # Two threads may each make one; the loser's is used once and forgotten.
        if self._context is None:
            self._context = tls_context()
        return self._context

    def _answer(self, reader: Reader) -> HTTPResponse:
        return HTTPResponse(
            reader.status,
            reader.body,
            reader.header("content-type") or "",
            read_retry_after(reader.header("retry-after"), self._clock().utc),
            tuple(reader.headers),
        )

    def _failure(
        self, error: NotConnected | Broken | OSError, address: Address, timeout: float
    ) -> TransportError:
        where = address.place
        if self._closed:
            return TransportError(f"the HTTP client was closed before {where} had answered")
        if isinstance(error, NotConnected):
            return TransportError(f"no connection to {where}: {error}; does the service run there?")
        if isinstance(error, TimeoutError):
            return TransportError(f"no whole answer from {where} within {timeout:g} s")
        return TransportError(f"the exchange with {where} broke off: {reason(error)}")


def _bypassed(address: Address, no_proxy: str) -> bool:
    """NO_PROXY as curl reads it: ``*``, or names that stand for themselves and what is below them."""
    for entry in (entry.strip().lower().lstrip(".") for entry in no_proxy.split(",")):
        if entry == "*":
            return True
        for name in (address.host, address.place):
            if entry and (name == entry or name.endswith(f".{entry}")):
                return True
    return False


@dataclass(frozen=True, slots=True)
class _Way:
    """How the requests to one origin travel: directly or through a proxy."""

    route: Route
    prefix: str = ""
    """Before the target: a proxy is asked for the whole URL (RFC 9112, 3.2.2)."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def _way(address: Address, proxy_url: str) -> _Way:
    server_name = address.host if address.tls else None
    if not proxy_url:
        return _Way(Route(address.host, address.port, server_name))
    proxy = address_of(proxy_url if "://" in proxy_url else f"http://{proxy_url}")
    if proxy.tls:
        raise UsageError("a proxy that is itself reached over TLS isn't supported: use its http:// address")
    identity = f"Proxy-Authorization: {proxy.credentials}\r\n" if proxy.credentials else ""
    if address.tls:
        ask = f"CONNECT {address.place} HTTP/1.1\r\nHost: {address.place}\r\n{identity}\r\n"
        return _Way(Route(proxy.host, proxy.port, server_name, ask.encode("ascii")))
    headers = (("Proxy-Authorization", proxy.credentials),) if proxy.credentials else ()
    return _Way(Route(proxy.host, proxy.port), f"http://{address.authority}", headers)
