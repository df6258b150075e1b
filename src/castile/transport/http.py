"""The HTTP client: one small protocol, and its default on pyreqwest.

Every status is an answer: what it means for the message is `classify`'s and then the caller's
word. Redirects aren't followed (a signed To names one endpoint), nothing is repeated on its own
(repeating is the business of WS-ReliableMessaging), and an answer is read no further than its
limit. Proxies are the standard ones of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY,
NO_PROXY) unless one is given.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

from pyreqwest import exceptions
from pyreqwest.client import BaseClientBuilder, Client, ClientBuilder, SyncClient, SyncClientBuilder
from pyreqwest.proxy import ProxyBuilder
from pyreqwest.response import BaseResponse

from castile import clock
from castile.config import Limits, Timers
from castile.errors import CastileError, Exchange, TransportError, UsageError
from castile.versions import SOAP_1_1, SOAP_1_2

SOAP_TYPES: Final = frozenset({SOAP_1_1.content_type, SOAP_1_2.content_type})
MOST_RETRY_AFTER: Final = 86_400.0
"""Seconds: no peer may silence us for longer than a day."""

Builder = TypeVar("Builder", bound=BaseClientBuilder)
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


@lru_cache(maxsize=256)
def endpoint_of(url: str) -> str:
    """``host:port`` of an http or https URL, for people; no path, query or credentials."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"the address isn't a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("the address must be an http:// or https:// URL with a host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port or (443 if parts.scheme == 'https' else 80)}"


class HTTPClient:
    """The default client: keep-alive, a shared pool, HTTP/1.1, certificates checked.

    `roots` are PEM certificates trusted beside the system's, `identity` a PEM certificate chain
    with its private key for TLS client authentication, `proxy` a URL used instead of the
    environment's. Connections are opened by the first request of each process, so that an
    instance made before a fork serves both sides of it.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        timers: Timers | None = None,
        *,
        roots: bytes | None = None,
        identity: bytes | None = None,
        proxy: str | None = None,
    ) -> None:
        self._most = (limits or Limits()).message_bytes
        self._connect = timedelta(seconds=(timers or Timers()).connect_timeout)
        self._roots = roots
        self._identity = identity
        self._proxy = proxy
        self._lock = threading.Lock()
        self._owner = 0
        self._sync: SyncClient | None = None
        self._async: Client | None = None
        self._closed = False

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        """POST and wait, `timeout` seconds at the most for the whole exchange."""
        where = endpoint_of(request.url)
        try:
            builder = self._blocking().post(request.url).headers(request.headers)
            posted = builder.body_bytes(request.body).timeout(timedelta(seconds=timeout))
            with posted.build_streamed() as response:
                self._check_length(response, where)
                reader, chunks, size = response.body_reader, [], 0
                while (chunk := reader.read_chunk()) is not None:
                    size = self._counted(size + len(chunk), where, response.status)
                    chunks.append(chunk)
                return _answer(response, b"".join(chunks))
        except exceptions.PyreqwestError as error:
            raise _failure(error, where, timeout) from None

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        """`post` for an event loop; a cancelled task gives its connection up at once."""
        where = endpoint_of(request.url)
        try:
            builder = self._looping().post(request.url).headers(request.headers)
            posted = builder.body_bytes(request.body).timeout(timedelta(seconds=timeout))
            async with posted.build_streamed() as response:
                self._check_length(response, where)
                reader, chunks, size = response.body_reader, [], 0
                while (chunk := await reader.read_chunk()) is not None:
                    size = self._counted(size + len(chunk), where, response.status)
                    chunks.append(chunk)
                return _answer(response, b"".join(chunks))
        except exceptions.PyreqwestError as error:
            raise _failure(error, where, timeout) from None

    def close(self) -> None:
        """Close the connections; a request under way ends with `TransportError`."""
        with self._lock:
            self._closed = True
            sync, self._sync, self._async = self._sync, None, None
            ours = self._owner == os.getpid()
        if sync is not None and ours:
            sync.close()

    def _blocking(self) -> SyncClient:
        if self._sync is not None and self._owner == os.getpid():
            return self._sync
        with self._lock:
            self._enter_process()
            if self._sync is None:
                self._sync = self._configure(SyncClientBuilder()).build()
            return self._sync

    def _looping(self) -> Client:
        if self._async is not None and self._owner == os.getpid():
            return self._async
        with self._lock:
            self._enter_process()
            if self._async is None:
                self._async = self._configure(ClientBuilder()).build()
            return self._async

    def _enter_process(self) -> None:
        if self._closed:
            raise UsageError("this HTTP client is closed")
        if self._owner != os.getpid():
            self._sync = self._async = None
            self._owner = os.getpid()

    def _configure(self, builder: Builder) -> Builder:
        builder.follow_redirects(False).referer(False).error_for_status(False)
        builder.brotli(False).zstd(False).deflate(False).gzip(True)
        builder.connect_timeout(self._connect).user_agent("castile")
        if self._roots is not None:
            builder.add_root_certificate_pem(self._roots)
        if self._identity is not None:
            builder.identity_pem(self._identity)
        if self._proxy is not None:
            builder.proxy(ProxyBuilder.all(self._proxy))
        return builder

    def _check_length(self, response: BaseResponse, where: str) -> None:
        length = response.get_header("content-length")
        if length is not None and length.isdigit():
            self._counted(int(length), where, response.status)

    def _counted(self, size: int, where: str, status: int) -> int:
        if size > self._most:
            raise TransportError(
                f"the answer of {where} is larger than {self._most} bytes", exchange=Exchange(status=status)
            )
        return size


def _answer(response: BaseResponse, body: bytes) -> HTTPResponse:
    headers = tuple(response.headers.items())
    return HTTPResponse(
        response.status,
        body,
        response.get_header("content-type") or "",
        read_retry_after(response.get_header("retry-after"), clock.system().utc),
        headers,
    )


def _failure(error: exceptions.PyreqwestError, where: str, timeout: float) -> CastileError:
    """pyreqwest's error in our words; its own text would quote the whole URL."""
    causes: Sequence[exceptions.Cause] = ()
    if isinstance(error, exceptions.DetailedPyreqwestError):
        causes = error.details["causes"] or ()
    texts = [cause["message"] for cause in causes]
    # Its class for a total time-out is ConnectTimeoutError whatever it waited for.
    connecting = any("(Connect)" in text for text in texts)
    last = texts[-1] if texts and "url (" not in texts[-1] else type(error).__name__
    if isinstance(error, exceptions.BuilderError):
        return UsageError(f"the request to {where} can't be sent: {last}")
    if isinstance(error, exceptions.ClientClosedError):
        return TransportError(f"the HTTP client was closed while {where} was answering")
    if isinstance(error, exceptions.RequestTimeoutError):
        if connecting:
            return TransportError(f"no connection to {where} in time")
        return TransportError(f"no whole answer from {where} within {timeout:g} s")
    if connecting or isinstance(error, exceptions.ConnectError):
        return TransportError(f"no connection to {where}: {last}")
    return TransportError(f"the exchange with {where} broke off: {last}")
