"""Inner transports: the user's own as castile's HTTP client, and the user's session as a transport."""

from __future__ import annotations

import asyncio
import inspect
from copy import copy
from typing import Any, Final

import zeep
from zeep.wsdl.utils import etree_to_string

from castile.clock import system
from castile.errors import CastileError, TransportError, UsageError
from castile.transport.h1 import address_of
from castile.transport.http import HTTP, HTTPRequest, HTTPResponse, read_retry_after
from castile.zeep.envelopes import Answer

_REDIRECTED: Final = "the inner transport followed a redirect: a signed message is for one endpoint"


class InnerHTTP:
    """A zeep transport of the user's, sync or async, as castile's HTTP client: its `post` carries the
    bytes, with whatever its session has."""

    def __init__(self, inner: Any, most: int) -> None:
        self._inner = inner
        self._most = most
        self._async = inspect.iscoroutinefunction(inner.post)
        self._loop: asyncio.AbstractEventLoop | None = None

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        if self._async:
            if self._loop is None or not self._loop.is_running():
                raise TransportError("the loop of the inner transport doesn't run")
            return asyncio.run_coroutine_threadsafe(self.apost(request, timeout), self._loop).result()
        if self._inner is None:
            raise UsageError("this HTTP client is closed")
        try:
            answer = timed(self._inner, timeout).post(request.url, request.body, dict(request.headers))
        except Exception as error:
            raise self._failure(error, request, timeout) from error
        return self._response(answer)

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        if not self._async:
            return await asyncio.to_thread(self.post, request, timeout)
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                answer = await self._inner.post(request.url, request.body, dict(request.headers))
        except Exception as error:
            raise self._failure(error, request, timeout) from error
        return self._response(answer)

    def close(self) -> None:
        """Let go of the transport, which is its owner's to close."""
        self._inner = None

    def _response(self, answer: Any) -> HTTPResponse:
        if getattr(answer, "history", None):
            raise TransportError(_REDIRECTED)
        body: bytes = answer.content
        if len(body) > self._most:
            raise TransportError(f"the answer is larger than {self._most} bytes")
        headers = tuple((str(name).lower(), str(value)) for name, value in answer.headers.items())
        found = dict(headers)
        after = read_retry_after(found.get("retry-after"), system().utc)
        return HTTPResponse(answer.status_code, body, found.get("content-type", ""), after, headers)

    @staticmethod
    def _failure(error: Exception, request: HTTPRequest, timeout: float) -> CastileError:
        if isinstance(error, CastileError):
            return error
        where = address_of(request.url).place
        if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
            return TransportError(f"no whole answer from {where} within {timeout:g} s")
        return TransportError(f"the exchange with {where} failed in the session: {type(error).__name__}")


def timed(inner: Any, seconds: float | None) -> Any:
    """A zeep transport with another time-out. A copy: other threads are in the one that is there."""
    if seconds is None or not hasattr(inner, "operation_timeout"):
        return inner
    other = copy(inner)
    other._close_session, other.operation_timeout = False, seconds
    return other


class SessionTransport:
    """The user's ``requests.Session`` or ``httpx.Client`` as a zeep transport that leaves it as it is:
    zeep's own would put its name into the headers, and an adapter into the session."""

    def __init__(self, session: Any, http: HTTP, seconds: float) -> None:
        self.session = session
        self.operation_timeout: float | None = None
        self._http = http
        self._seconds = seconds

    def load(self, url: str) -> bytes:
        """A document."""
        return _loaded(self.session, url)

    def post_xml(self, address: str, envelope: Any, headers: dict[str, str]) -> Answer:
        """What has no policy, as zeep wrote it."""
        return self.post(address, etree_to_string(envelope), headers)

    def post(self, address: str, message: bytes, headers: dict[str, str]) -> Answer:
        """Bytes to an address, by POST."""
        request = HTTPRequest(address, message, tuple(headers.items()))
        return answered(self._http.post(request, self.operation_timeout or self._seconds))

    def get(self, address: str, params: Any, headers: dict[str, str]) -> Any:
        """For bindings over HTTP GET."""
        return self.session.get(address, params=params, headers=headers)


class AsyncPlain:
    """Loads as zeep loads, and carries what has no policy by castile's HTTP client: no httpx is
    needed."""

    def __init__(self, session: object, http: HTTP, seconds: float) -> None:
        self.session = session
        self.operation_timeout: float | None = None
        self._http = http
        self._seconds = seconds

    def load(self, url: str) -> bytes:
        """A document."""
        return _loaded(self.session, url)

    async def post_xml(self, address: str, envelope: Any, headers: dict[str, str]) -> Answer:
        """What has no policy, as zeep wrote it."""
        return await self.post(address, etree_to_string(envelope), headers)

    async def post(self, address: str, message: bytes, headers: dict[str, str]) -> Answer:
        """Bytes to an address, by POST."""
        request = HTTPRequest(address, message, tuple(headers.items()))
        return answered(await self._http.apost(request, self.operation_timeout or self._seconds))

    async def get(self, *_: object) -> Any:
        """Raises `UsageError`: castile's HTTP client posts only."""
        raise UsageError("a binding over HTTP GET needs inner=zeep.transports.AsyncTransport()")


def answered(response: HTTPResponse) -> Answer:
    """An answer of castile's HTTP client, for zeep."""
    headers = {name.title(): value for name, value in response.headers}
    return Answer(response.status, response.body, headers)


def _loaded(session: Any, url: str) -> bytes:
    """A document: from a server by the user's session, if that isn't an asynchronous one."""
    remote = url.startswith(("http://", "https://"))
    if session is None or not remote or inspect.iscoroutinefunction(session.get):
        octets: bytes = zeep.Transport().load(url)
        return octets
    answer = session.get(url)
    answer.raise_for_status()
    content: bytes = answer.content
    return content
