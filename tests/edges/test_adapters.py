"""One suite over every HTTP client: castile's own, and the sessions of requests and httpx."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import requests

import castile
from castile.config import Limits
from castile.transport.adapters import adapted, fetching
from castile.transport.http import HTTP, HTTPClient, HTTPRequest
from tests.edges.peer import Peer, answer, echo, serving

httpx = pytest.importorskip("httpx")
MOST = 100_000
LIMITS = Limits(message_bytes=MOST)
OWN = {"X-Own": "mine"}


def requests_session() -> Any:
    session = requests.Session()
    session.headers.update(OWN)
    return session


CLIENTS: dict[str, Callable[[], Any]] = {
    "castile": lambda: HTTPClient(LIMITS),
    "requests": requests_session,
    "httpx": lambda: httpx.Client(headers=OWN, follow_redirects=True),
    "httpx-async": lambda: httpx.AsyncClient(headers=OWN, follow_redirects=True),
}


class Tried:
    """A client under test, used both ways."""

    def __init__(self, name: str) -> None:
        self.name, self.given = name, CLIENTS[name]()
        self.http: HTTP = adapted(self.given, LIMITS)

    def post(self, url: str, body: bytes = b"<a/>", timeout: float = 5.0) -> list[Any]:
        """The answer by `post`, where that is possible, and by `apost`."""
        request = HTTPRequest(url, body, (("Content-Type", "application/soap+xml"),))
        found: list[Any] = []
        if self.name == "castile":
            self.http = HTTPClient(LIMITS)
        if self.name != "httpx-async":
            found.append(self.http.post(request, timeout))

        async def main() -> None:
            try:
                found.append(await self.http.apost(request, timeout))
                if self.name == "httpx-async":  # threads of the pump send through its loop
                    found.append(await asyncio.to_thread(self.http.post, request, timeout))
            finally:
                if self.name == "httpx-async":
                    await self.given.aclose()
                elif self.name == "castile":  # what a loop keeps ends with the loop
                    self.http.close()
                    await asyncio.sleep(0)

        asyncio.run(main())
        return found

    def close(self) -> None:
        self.http.close()
        if self.name in ("requests", "httpx"):
            self.given.close()


@pytest.fixture(params=CLIENTS)
def tried(request: pytest.FixtureRequest) -> Iterator[Tried]:
    made = Tried(request.param)
    yield made
    made.close()


def saying(octets: bytes) -> Callable[[socket.socket, Peer], None]:
    def script(line: socket.socket, peer: Peer) -> None:
        while peer.read(line) is not None:
            line.sendall(octets)

    return script


@pytest.mark.row("CL-48", "CL-47")
def test_an_exchange(tried: Tried) -> None:
    with serving(echo) as peer:
        for response in tried.post(peer.url, b"<hello/>"):
            assert (response.status, response.body) == (200, b"<hello/>")
            assert response.content_type == "application/soap+xml"
    assert len(peer.heads) == 2
    assert all("content-type: application/soap+xml" in head.lower() for head in peer.heads)


@pytest.mark.row("CL-02", "CL-48")
def test_what_the_session_has_goes_along_and_stays(tried: Tried) -> None:
    if tried.name == "castile":
        return
    before = dict(tried.given.headers)
    with serving(echo) as peer:
        tried.post(peer.url)
    assert all("x-own: mine" in head.lower() for head in peer.heads)
    assert dict(tried.given.headers) == before


@pytest.mark.row("CL-47", "CL-48")
def test_redirects_are_not_followed(tried: Tried) -> None:
    with serving(echo) as other:
        moved = answer(b"", "307 Temporary Redirect", f"Location: {other.url}")
        with serving(saying(moved)) as peer:
            assert [each.status for each in tried.post(peer.url)] == [307, 307]
        assert other.connections == 0


@pytest.mark.row("CL-47", "RE-43")
@pytest.mark.parametrize("name", ["requests", "httpx"])
def test_documents_lead_to_no_other_server_by_a_redirect(name: str) -> None:
    """An imported schema could name its own server, and that send us on to one of ours."""
    with closing(CLIENTS[name]()) as session, serving(echo) as other:
        fetch = fetching(session)
        assert fetch is not None
        moved = answer(b"", "302 Found", f"Location: {other.url}")
        with serving(saying(moved)) as peer, pytest.raises(castile.TransportError, match="redirect"):
            fetch(peer.url)
        assert other.connections == 0


def test_castile_s_own_client_brings_no_documents() -> None:
    """The loader has one with its own limits."""
    assert fetching(HTTPClient()) is None


@pytest.mark.row("CL-47", "CL-48")
@pytest.mark.parametrize("packed", [False, True])
def test_an_answer_is_read_no_further_than_its_limit(tried: Tried, packed: bool) -> None:
    body = b" " * (MOST + 1)
    headers = ["Content-Type: text/xml"]
    if packed:
        body, headers = gzip.compress(body), [*headers, "Content-Encoding: gzip"]
    with serving(saying(answer(body, "200 OK", *headers))) as peer, pytest.raises(castile.TransportError):
        tried.post(peer.url)
    fine = gzip.compress(b"<b/>")
    with serving(saying(answer(fine, "200 OK", "Content-Encoding: gzip"))) as peer:
        if tried.name != "httpx-async":  # its loop has ended
            assert [each.body for each in tried.post(peer.url)] == [b"<b/>", b"<b/>"]


@pytest.mark.row("CL-49", "CL-48")
def test_time_is_limited(tried: Tried) -> None:
    def silent(line: socket.socket, peer: Peer) -> None:
        peer.read(line)
        peer.stop.wait(5)

    with serving(silent) as peer, pytest.raises(castile.TransportError, match=r"within 0\.3 s"):
        tried.post(peer.url, timeout=0.3)


@pytest.mark.row("CL-48")
def test_nothing_listens(tried: Tried) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(castile.TransportError):
        tried.post(f"http://127.0.0.1:{port}/")


@pytest.mark.row("CL-48")
def test_what_can_carry_nothing_is_refused() -> None:
    with pytest.raises(castile.UsageError, match=r"a requests\.Session, an httpx\.Client"):
        adapted(object())
