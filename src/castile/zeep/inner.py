"""Inner transports: the user's own as castile's HTTP client, and the user's session as a transport."""

from __future__ import annotations

import asyncio
import inspect
from copy import copy
from typing import Any, Final

import zeep
from zeep.wsdl.utils import etree_to_string

from castile.clock import system
from castile.errors import TransportError, UsageError
from castile.transport.adapters import Adapter
from castile.transport.http import HTTP, HTTPRequest, HTTPResponse
from castile.zeep.envelopes import Answer

_REDIRECTED: Final = "the inner transport followed a redirect: a signed message is for one endpoint"


class InnerHTTP(Adapter):
    """A zeep transport of the user's, sync or async, as castile's HTTP client: its `post` carries the
    bytes, with whatever its session has."""

    def __init__(self, inner: Any, most: int) -> None:
        super().__init__(inner, most, system)
        self._async = inspect.iscoroutinefunction(inner.post)

    @property
    def _inner(self) -> Any:
        return self._session

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        if self._async:
            return self._posted(request, timeout, "inner transport")
        inner = timed(self._inner, timeout)
        try:
            answer = inner.post(request.url, request.body, dict(request.headers))
        except Exception as error:
            raise self._failure(error, request, timeout) from error
        return self._whole(answer)

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        if not self._async:
            return await super().apost(request, timeout)
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                answer = await self._inner.post(request.url, request.body, dict(request.headers))
        except Exception as error:
            raise self._failure(error, request, timeout) from error
        return self._whole(answer)

    def _whole(self, answer: Any) -> HTTPResponse:
        if getattr(answer, "history", None):
            raise TransportError(_REDIRECTED)
        body = bytearray()
        self._grown(body, answer.content)
        return self._response(answer, body)


def timed(inner: Any, seconds: float | None) -> Any:
    """A zeep transport with another time-out. A copy: other threads are in the one that is there."""
    if seconds is None or not hasattr(inner, "operation_timeout"):
        return inner
    other = copy(inner)
    other._close_session, other.operation_timeout = False, seconds
    return other


class _Plain:
    """Loads by the user's session, if there is one, and posts by castile's HTTP client."""

    def __init__(self, session: Any, http: HTTP, seconds: float) -> None:
        self.session = session
        self.operation_timeout: float | None = None
        self._http = http
        self._seconds = seconds

    def load(self, url: str) -> bytes:
        """A document."""
        return _loaded(self.session, url)


class SessionTransport(_Plain):
    """The user's ``requests.Session`` or ``httpx.Client`` as a zeep transport that leaves it as it is:
    zeep's own would put its name into the headers, and an adapter into the session."""

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


class AsyncPlain(_Plain):
    """Loads as zeep loads, and carries what has no policy by castile's HTTP client: no httpx is
    needed."""

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
