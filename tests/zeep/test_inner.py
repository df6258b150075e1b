"""The user's own transport or session inside castile's: proxies, passwords, certificates go along (CL-02)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import zeep
from zeep.transports import AsyncTransport

import castile
import castile.zeep
from castile.transport.http import HTTPRequest
from castile.zeep.inner import InnerHTTP
from tests.edges.peer import answer, echo, serving
from tests.edges.test_adapters import saying
from tests.zeep.banks import SOAP12, TRANSFER, Bank, bank

httpx = pytest.importorskip("httpx")
OWN = {"X-Own": "mine"}


@pytest.fixture(scope="module")
def one() -> Iterator[Bank]:
    with bank() as made:
        yield made


def paid(client: Any) -> Any:
    return client.bind(next(iter(client.wsdl.services)), SOAP12).Transfer(**TRANSFER)


class Counting(requests.Session):
    """A session that says what went through it."""

    def __init__(self) -> None:
        super().__init__()
        self.headers.update(OWN)
        self.posts = self.gets = 0

    def request(self, method: Any, *arguments: Any, **named: Any) -> Any:
        self.posts += method == "POST"
        self.gets += method == "GET"
        return super().request(method, *arguments, **named)


@pytest.mark.row("CL-02", "N05")
@pytest.mark.parametrize("how", ["inner", "session"])
def test_everything_goes_through_it(one: Bank, how: str) -> None:
    with Counting() as session:
        given: Any = zeep.Transport(session=session) if how == "inner" else session
        options: Any = {how: given}
        before = dict(session.headers)
        with castile.zeep.Transport(**options, **one.options()) as transport:
            assert paid(zeep.Client(one.wsdl, transport=transport)).body.receipt == "12.50 EUR rent"
        assert session.gets >= 1
        assert session.posts >= 3  # a context, a sequence, a message
        assert dict(session.headers) == before


@pytest.mark.row("CL-02", "N05")
@pytest.mark.parametrize("how", ["inner", "session"])
def test_everything_goes_through_it_awaited(one: Bank, how: str) -> None:
    async def main() -> None:
        posts: list[Any] = []

        async def sent(request: Any) -> None:
            posts.append(request)

        async with httpx.AsyncClient(headers=OWN, event_hooks={"request": [sent]}) as own:
            given: Any = AsyncTransport(client=own) if how == "inner" else own
            options: Any = {how: given}
            transport = castile.zeep.AsyncTransport(**options, **one.options())
            async with zeep.AsyncClient(one.wsdl, transport=transport) as client:
                assert (await paid(client)).body.receipt == "12.50 EUR rent"
            assert len(posts) >= 3
        if how == "inner":
            given.wsdl_client.close()

    asyncio.run(main())


@pytest.mark.row("CL-02", "CL-47")
def test_a_redirect_that_it_followed_is_refused() -> None:
    with serving(echo) as other, requests.Session() as session:
        moved = answer(b"", "307 Temporary Redirect", f"Location: {other.url}")
        with serving(saying(moved)) as peer:
            http = InnerHTTP(zeep.Transport(session=session), 1_000)
            with pytest.raises(castile.TransportError, match="followed a redirect"):
                http.post(HTTPRequest(peer.url, b"<a/>"), 5.0)
        with pytest.raises(castile.TransportError, match="larger than 1000 bytes"):
            http.post(HTTPRequest(other.url, b"<a>" + b"x" * 1_000 + b"</a>"), 5.0)


@pytest.mark.row("CL-02")
def test_one_carrier_is_enough() -> None:
    with requests.Session() as session, pytest.raises(castile.UsageError, match="one of inner=, session="):
        castile.zeep.Transport(session=session, inner=zeep.Transport(session=session))
