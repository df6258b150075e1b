"""A session of the user's own in place of castile's HTTP client: requests, httpx, httpx2.

What the session has (proxies, certificates, passwords, headers, NTLM) goes with every message; it
is used, never changed. Whatever its settings, no redirect is followed (a signed To names one
endpoint), and an answer is read no further than its limit, after decompression. None of the
libraries is imported here: a session is told by its class.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol, TypeVar, cast

from castile.clock import Clock, system
from castile.config import Limits
from castile.errors import CastileError, Exchange, TransportError, UsageError
from castile.transport.h1 import address_of
from castile.transport.http import HTTP, HTTPRequest, HTTPResponse, read_retry_after

_CHUNK = 65_536
Opened = TypeVar("Opened", covariant=True)


class _Answer(Protocol):
    status_code: int
    headers: Mapping[str, str]


class _RequestsAnswer(_Answer, Protocol):
    def iter_content(self, size: int) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class _RequestsSession(Protocol):
    def post(
        self,
        url: str,
        *,
        data: bytes,
        headers: dict[str, str],
        timeout: float,
        allow_redirects: bool,
        stream: bool,
    ) -> _RequestsAnswer: ...


class _HttpxAnswer(_Answer, Protocol):
    def iter_bytes(self, chunk_size: int) -> Iterator[bytes]: ...

    def aiter_bytes(self, chunk_size: int) -> AsyncIterator[bytes]: ...


class _HttpxClient(Protocol[Opened]):
    def stream(
        self,
        method: str,
        url: str,
        *,
        content: bytes,
        headers: dict[str, str],
        timeout: float,
        follow_redirects: bool,
    ) -> Opened: ...


def adapted(given: object, limits: Limits | None = None, clock: Clock = system) -> HTTP:
    """An HTTP client of castile's protocol from what the user gave: one of these already, or a
    ``requests.Session``, ``httpx.Client`` or ``httpx.AsyncClient``. Raises `UsageError`."""
    if callable(getattr(given, "post", None)) and callable(getattr(given, "apost", None)):
        return cast("HTTP", given)
    families = {base.__module__.partition(".")[0] for base in type(given).__mro__}
    names = {base.__name__ for base in type(given).__mro__}
    kind: Callable[..., HTTP] | None = None
    if "requests" in families and "Session" in names:
        kind = _Requests
    elif families & {"httpx", "httpx2"}:
        kind = _AsyncHttpx if "AsyncClient" in names else _Httpx if "Client" in names else None
    if kind is None:
        raise UsageError(
            f"{type(given).__name__} can't carry messages: a requests.Session, an httpx.Client, an "
            "httpx.AsyncClient, or an object with castile's post, apost and close is wanted"
        )
    return kind(given, (limits or Limits()).message_bytes, clock)


def fetching(given: object) -> Callable[[str], bytes] | None:
    """Brings documents by the user's session; None where that can only post, or only in a loop.

    No redirect is followed here either: it would lead to servers that the loader doesn't ask.
    """
    get = getattr(given, "get", None)
    if not callable(get) or asyncio.iscoroutinefunction(get) or callable(getattr(given, "apost", None)):
        return None
    option = "allow_redirects" if callable(getattr(given, "mount", None)) else "follow_redirects"  # httpx's

    def fetch(url: str) -> bytes:
        answer = get(url, **{option: False})
        if 300 <= answer.status_code < 400:
            status = answer.status_code
            raise TransportError(
                f"the server answered HTTP {status}, a redirect, which is not followed: give that address",
                exchange=Exchange(status=status),
            )
        answer.raise_for_status()
        content: bytes = answer.content
        return content

    return fetch


class Adapter(ABC):
    """What every adapter has, of whatever the user gave: it is used, never closed."""

    _loop: asyncio.AbstractEventLoop | None = None
    """Of one that lives in a loop: what the pump's threads send goes there."""

    def __init__(self, session: object, most: int, clock: Clock) -> None:
        self._given: object | None = session
        self._most = most
        self._clock = clock

    @abstractmethod
    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        """As `HTTP.post`."""

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        """As `HTTP.apost`: beside a loop each exchange has a thread."""
        return await asyncio.to_thread(self.post, request, timeout)

    def _posted(self, request: HTTPRequest, timeout: float, whose: str) -> HTTPResponse:
        """From a thread, by the loop."""
        if self._loop is None or not self._loop.is_running():
            raise TransportError(f"the loop of the {whose} doesn't run")
        return asyncio.run_coroutine_threadsafe(self.apost(request, timeout), self._loop).result()

    def close(self) -> None:
        """Let go of the session, which is its owner's to close."""
        self._given = None

    @property
    def _session(self) -> object:
        if self._given is None:
            raise UsageError("this HTTP client is closed")
        return self._given

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock().tick
        if left <= 0:
            raise TimeoutError
        return left

    def _grown(self, body: bytearray, chunk: bytes) -> None:
        body += chunk
        if len(body) > self._most:
            raise TransportError(f"the answer is larger than {self._most} bytes")

    def _response(self, answer: _Answer, body: bytes | bytearray) -> HTTPResponse:
        headers = tuple((str(name).lower(), str(value)) for name, value in answer.headers.items())
        found = dict(headers)
        return HTTPResponse(
            answer.status_code,
            bytes(body),
            found.get("content-type", ""),
            read_retry_after(found.get("retry-after"), self._clock().utc),
            headers,
        )

    @staticmethod
    def _failure(error: Exception, request: HTTPRequest, timeout: float) -> Exception:
        if isinstance(error, CastileError):
            return error
        where = address_of(request.url).place
        if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
            return TransportError(f"no whole answer from {where} within {timeout:g} s")
        return TransportError(f"the exchange with {where} failed in the session: {type(error).__name__}")


class _Requests(Adapter):
    """A ``requests.Session``."""

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        deadline, body = self._clock().tick + timeout, bytearray()
        session = cast("_RequestsSession", self._session)
        try:
            answer = session.post(
                request.url,
                data=request.body,
                headers=dict(request.headers),
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            )
            try:
                for chunk in answer.iter_content(_CHUNK):
                    self._grown(body, chunk)
                    self._left(deadline)
            finally:
                answer.close()
        except Exception as error:
            raise self._failure(error, request, timeout) from error
        return self._response(answer, body)


class _Httpx(Adapter):
    """An ``httpx.Client``."""

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        deadline, body = self._clock().tick + timeout, bytearray()
        client = cast("_HttpxClient[AbstractContextManager[_HttpxAnswer]]", self._session)
        try:
            with client.stream(
                "POST",
                request.url,
                content=request.body,
                headers=dict(request.headers),
                timeout=timeout,
                follow_redirects=False,
            ) as answer:
                for chunk in answer.iter_bytes(_CHUNK):
                    self._grown(body, chunk)
                    self._left(deadline)
        except Exception as error:
            raise self._failure(error, request, timeout) from error
        return self._response(answer, body)


class _AsyncHttpx(Adapter):
    """An ``httpx.AsyncClient``, which lives in one loop."""

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        return self._posted(request, timeout, "httpx.AsyncClient")

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        self._loop = asyncio.get_running_loop()
        client = cast("_HttpxClient[AbstractAsyncContextManager[_HttpxAnswer]]", self._session)
        body = bytearray()
        try:
            async with (
                asyncio.timeout(timeout),
                client.stream(
                    "POST",
                    request.url,
                    content=request.body,
                    headers=dict(request.headers),
                    timeout=timeout,
                    follow_redirects=False,
                ) as answer,
            ):
                async for chunk in answer.aiter_bytes(_CHUNK):
                    self._grown(body, chunk)
        except Exception as error:
            raise self._failure(error, request, timeout) from error
        return self._response(answer, body)


__all__ = ["adapted", "fetching"]
