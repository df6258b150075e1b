"""The default HTTP client, blocking and on an event loop, against peers that do what peers do."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

import castile
from castile.config import Limits, Timers
from castile.errors import TransportError, UsageError
from castile.transport.http import (
    HTTPClient,
    HTTPRequest,
    HTTPResponse,
    classify,
    read_retry_after,
    refusal,
)
from tests.edges.peer import Peer, answer, echo, serving

SOAP = "application/soap+xml; charset=utf-8"
Posts = Callable[..., list[HTTPResponse]]


@pytest.fixture(params=["blocking", "looping"])
def posts(request: pytest.FixtureRequest) -> Posts:
    """Post requests one after another with either half of a client, which is closed then."""

    def blocking(client: HTTPClient, *requests: HTTPRequest, timeout: float = 5) -> list[HTTPResponse]:
        try:
            return [client.post(request, timeout) for request in requests]
        finally:
            client.close()

    def looping(client: HTTPClient, *requests: HTTPRequest, timeout: float = 5) -> list[HTTPResponse]:
        async def run() -> list[HTTPResponse]:
            try:
                return [await client.apost(request, timeout) for request in requests]
            finally:
                client.close()

        return asyncio.run(run())

    return blocking if request.param == "blocking" else looping


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def client() -> Iterator[HTTPClient]:
    made = HTTPClient()
    yield made
    made.close()


# What an answer means


@pytest.mark.row("RM-59")
@pytest.mark.parametrize(
    ("response", "meaning"),
    [
        (HTTPResponse(200, b"<e/>", SOAP), "envelope"),
        (HTTPResponse(200, b"<e/>", "Text/XML"), "envelope"),
        (HTTPResponse(500, b"<e/>", SOAP), "envelope"),
        (HTTPResponse(400, b"<e/>", SOAP), "envelope"),
        (HTTPResponse(503, b"<e/>", SOAP), "envelope"),
        (HTTPResponse(200), "empty"),
        (HTTPResponse(202), "empty"),
        (HTTPResponse(202, b"", "text/html"), "empty"),
        (HTTPResponse(204), "empty"),
        (HTTPResponse(500, b"<html>", "text/html"), "retry"),
        (HTTPResponse(500), "retry"),
        (HTTPResponse(502, b"no", "text/plain"), "retry"),
        (HTTPResponse(503), "retry"),
        (HTTPResponse(503, b"<e/>", SOAP, retry_after=3), "retry"),
        (HTTPResponse(504), "retry"),
        (HTTPResponse(408), "retry"),
        (HTTPResponse(429), "retry"),
        (HTTPResponse(429, b"", "", retry_after=3), "retry"),
        (HTTPResponse(200, b"<html>", "text/html"), "refused"),
        (HTTPResponse(200, b"<e/>", ""), "refused"),
        (HTTPResponse(301), "refused"),
        (HTTPResponse(307, b"<e/>", SOAP), "refused"),
        (HTTPResponse(400), "refused"),
        (HTTPResponse(401), "refused"),
        (HTTPResponse(403, b"<html>", "text/html"), "refused"),
        (HTTPResponse(404), "refused"),
        (HTTPResponse(405), "refused"),
        (HTTPResponse(413), "refused"),
        (HTTPResponse(415), "refused"),
    ],
    ids=lambda value: f"{value.status} {value.content_type}" if isinstance(value, HTTPResponse) else value,
)
def test_what_an_answer_means(response: HTTPResponse, meaning: str) -> None:
    assert classify(response) == meaning


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 0 ", 0.0),
        ("9" * 50, 86_400.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 86_400.0),
        ("-1", None),
        ("soon", None),
        ("١٢", None),
        ("Thu, 99 Jan 1970 00:00:00 GMT", None),
    ],
)
def test_retry_after_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert read_retry_after(header, 60.0) == seconds


def test_a_refusal_says_the_status_and_quotes_nothing() -> None:
    error = refusal(HTTPResponse(302, b"secret", "text/html; x=y"))
    assert (
        str(error) == "the peer answered HTTP 302 with 6 bytes of text/html, and redirects are not followed"
    )
    assert error.exchange.status == 302


def test_no_content_in_a_repr() -> None:
    assert "secret" not in repr(HTTPRequest("http://a/", b"secret", (("Authorization", "secret"),)))
    assert "secret" not in repr(HTTPResponse(200, b"secret", headers=(("set-cookie", "secret"),)))


# Over the wire


@pytest.mark.row("CL-47")
def test_one_connection_serves_requests_in_turn(posts: Posts) -> None:
    with serving(echo) as peer:
        request = HTTPRequest(peer.url, b"<one/>", (("Content-Type", SOAP), ("SOAPAction", '"urn:x"')))
        answers = posts(HTTPClient(), request, HTTPRequest(peer.url, b"<two/>"))
    assert [(got.status, got.body, got.content_type) for got in answers] == [
        (200, b"<one/>", "application/soap+xml"),
        (200, b"<two/>", "application/soap+xml"),
    ]
    assert peer.connections == 1
    first = peer.heads[0].split("\r\n")
    assert first[0] == "POST /service HTTP/1.1"
    assert f"Host: 127.0.0.1:{peer.port}" in first
    assert 'SOAPAction: "urn:x"' in first


@pytest.mark.row("RM-59")
@pytest.mark.parametrize("status", ["307 Temporary Redirect", "404 Not Found", "500 Oops", "503 Busy"])
def test_every_status_is_an_answer_and_redirects_are_not_followed(posts: Posts, status: str) -> None:
    def script(line: socket.socket, peer: Peer) -> None:
        while peer.read(line):
            line.sendall(answer(b"", status, "Location: /other", "Retry-After: 7"))

    with serving(script) as peer:
        (got,) = posts(HTTPClient(), HTTPRequest(peer.url, b"<a/>"))
    assert (got.status, got.retry_after) == (int(status[:3]), 7.0)
    assert ("location", "/other") in got.headers
    assert len(peer.heads) == 1


@pytest.mark.row("CL-47")
def test_an_idle_connection_that_the_peer_closed_is_not_used(posts: Posts) -> None:
    closed = threading.Event()

    def script(line: socket.socket, peer: Peer) -> None:
        peer.read(line)
        line.sendall(answer(b"ok"))
        line.close()
        closed.set()

    with serving(script) as peer:
        client = HTTPClient()
        request = HTTPRequest(peer.url, b"<a/>")

        async def run() -> list[HTTPResponse]:
            first = await client.apost(request, 5)
            await asyncio.to_thread(closed.wait, 5)
            await asyncio.sleep(0.05)
            second = await client.apost(request, 5)
            client.close()
            return [first, second]

        if posts.__name__ == "looping":
            answers = asyncio.run(run())
        else:
            answers = [client.post(request, 5)]
            closed.wait(5)
            time.sleep(0.05)
            answers += posts(client, request)
    assert [got.body for got in answers] == [b"ok", b"ok"]
    assert peer.connections == 2


@pytest.mark.row("RM-59")
def test_nothing_is_sent_twice(posts: Posts) -> None:
    """The peer takes the second request on a kept connection and dies: it may have acted."""

    def script(line: socket.socket, peer: Peer) -> None:
        peer.read(line)
        line.sendall(answer(b"ok"))
        peer.read(line)

    with serving(script) as peer:
        request = HTTPRequest(peer.url, b"<a/>")
        with pytest.raises(TransportError, match="closed without an answer"):
            posts(HTTPClient(), request, request)
        assert len(peer.heads) == 2


@pytest.mark.row("CL-49")
@pytest.mark.row("RE-10")
def test_a_dripping_answer_ends_at_the_time_out(posts: Posts) -> None:
    def script(line: socket.socket, peer: Peer) -> None:
        peer.read(line)
        line.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not peer.stop.wait(0.02):
            line.sendall(b"x")

    with serving(script) as peer:
        start = time.monotonic()
        with pytest.raises(TransportError, match=r"no whole answer from 127.0.0.1:\d+ within 0.3 s"):
            posts(HTTPClient(), HTTPRequest(peer.url, b"<a/>"), timeout=0.3)
        assert time.monotonic() - start < 2


@pytest.mark.row("CL-49")
def test_a_peer_that_does_not_read_ends_at_the_time_out(posts: Posts) -> None:
    def script(line: socket.socket, peer: Peer) -> None:
        peer.stop.wait(10)

    with serving(script) as peer, pytest.raises(TransportError, match=r"within 0\.3 s"):
        posts(HTTPClient(), HTTPRequest(peer.url, bytes(20 << 20)), timeout=0.3)


@pytest.mark.row("CL-49")
def test_no_one_is_there(posts: Posts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(TransportError, match=f"no connection to 127.0.0.1:{port}: Connection refused"):
        posts(HTTPClient(), HTTPRequest(f"http://127.0.0.1:{port}/", b"<a/>"))


@pytest.mark.row("RE-10")
@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "closed in the middle"),
        (b"HTTP/1.1 200 OK\r\nConte", "closed in the middle"),
        (b"", "closed without an answer"),
        (b"hello\r\n\r\n", "isn't HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", "larger than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(5000), "larger than 1000 bytes"),
    ],
    ids=["half a body", "half a head", "nothing", "not HTTP", "too long", "too much"],
)
def test_half_answers_and_too_much_are_errors(posts: Posts, octets: bytes, text: str) -> None:
    def script(line: socket.socket, peer: Peer) -> None:
        peer.read(line)
        line.sendall(octets)

    with serving(script) as peer, pytest.raises(TransportError, match=text) as caught:
        posts(HTTPClient(Limits(message_bytes=1000)), HTTPRequest(peer.url, b"<a/>"))
    assert "service" not in str(caught.value)


@pytest.mark.row("RE-10")
def test_an_early_refusal_is_heard(posts: Posts) -> None:
    def script(line: socket.socket, peer: Peer) -> None:
        line.recv(1000)
        line.sendall(answer(b"", "413 Content Too Large", "Connection: close"))
        line.shutdown(socket.SHUT_WR)
        while line.recv(65536):  # a server that lingers, as RFC 9112 9.6 asks
            pass

    with serving(script) as peer:
        (got,) = posts(HTTPClient(), HTTPRequest(peer.url, bytes(1 << 20)))
    assert (got.status, classify(got)) == (413, "refused")


def test_wrong_addresses_and_closed_clients(posts: Posts) -> None:
    client = HTTPClient()
    with pytest.raises(UsageError, match="http:// or https://"):
        posts(client, HTTPRequest("ftp://a.example/", b""))
    with pytest.raises(UsageError, match="closed"):
        posts(client, HTTPRequest("http://a.example/", b""))


@pytest.mark.row("CL-49")
def test_close_breaks_off_what_waits() -> None:
    arrived = threading.Event()

    def script(line: socket.socket, peer: Peer) -> None:
        peer.read(line)
        arrived.set()
        peer.stop.wait(10)

    client = HTTPClient()
    with serving(script) as peer, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.post, HTTPRequest(peer.url, b"<a/>"), 20)
        arrived.wait(5)
        client.close()
        with pytest.raises(TransportError, match="client was closed"):
            waiting.result(2)


@pytest.mark.row("CL-49")
def test_a_cancelled_task_gives_its_connection_up() -> None:
    arrived, gone = threading.Event(), threading.Event()

    def script(line: socket.socket, peer: Peer) -> None:
        peer.read(line)
        arrived.set()
        if not line.recv(1):
            gone.set()

    async def run(url: str) -> None:
        client = HTTPClient()
        task = asyncio.create_task(client.apost(HTTPRequest(url, b"<a/>"), 20))
        await asyncio.to_thread(arrived.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(gone.wait, 5)
        client.close()

    with serving(script) as peer:
        asyncio.run(run(peer.url))


@pytest.mark.row("CL-49")
def test_control_c_ends_a_wait() -> None:
    program = """
import sys
from castile.transport.http import HTTPClient, HTTPRequest
try:
    HTTPClient().post(HTTPRequest(sys.argv[1], b"<a/>"), 60)
except KeyboardInterrupt:
    print("interrupted")
"""
    arrived = threading.Event()

    def script(line: socket.socket, peer: Peer) -> None:
        peer.read(line)
        arrived.set()
        peer.stop.wait(20)

    with serving(script) as peer:
        command = [sys.executable, "-c", program, peer.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert arrived.wait(20)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=5)
    assert out == "interrupted\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_both_sides_of_a_fork_go_on(client: HTTPClient) -> None:
    def reply_on_its_own_connection(line: socket.socket, peer: Peer) -> None:
        number = str(peer.connections).encode()
        while peer.read(line):
            line.sendall(answer(number))

    with serving(reply_on_its_own_connection) as peer:
        request = HTTPRequest(peer.url, b"<a/>")
        assert client.post(request, 5).body == b"1"
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if client.post(request, 5).body == b"2" else 2
                code += 0 if asyncio.run(client.apost(request, 5)).body == b"3" else 4
                client.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.post(request, 5).body == b"1"


@pytest.mark.row("CL-47")
def test_many_threads_share_one_client(client: HTTPClient) -> None:
    with serving(echo) as peer, ThreadPoolExecutor(8) as pool:
        bodies = [f"<a n='{number}'/>".encode() for number in range(200)]
        got = pool.map(lambda body: client.post(HTTPRequest(peer.url, body), 10).body, bodies)
        assert list(got) == bodies
        assert peer.connections <= 8


@pytest.mark.row("CL-47")
def test_many_tasks_and_loops_share_one_client() -> None:
    client = HTTPClient()
    expected = [b"%d" % number for number in range(50)]
    closed = threading.Event()

    async def run(url: str) -> list[bytes]:
        calls = (client.apost(HTTPRequest(url, body), 10) for body in expected)
        return [got.body for got in await asyncio.gather(*calls)]

    async def elsewhere(url: str, answered: threading.Event) -> list[bytes]:
        got = await run(url)
        answered.set()
        await asyncio.to_thread(closed.wait, 10)
        await asyncio.sleep(0.05)  # its connections are closed on this loop, from the other
        return got

    async def here(url: str) -> None:
        answered = threading.Event()
        other = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere(url, answered)))
        assert await run(url) == expected
        assert await asyncio.to_thread(answered.wait, 10)
        client.close()
        closed.set()
        assert await other == expected

    with serving(echo) as peer:
        asyncio.run(here(peer.url))


# TLS and proxies


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "service.example").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.row("CL-47")
def test_tls_is_checked(posts: Posts, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with serving(echo, server_tls) as peer:
        request = HTTPRequest(peer.url.replace("http:", "https:"), b"<a/>")
        assert [got.body for got in posts(HTTPClient(tls=client_tls), request, request)] == [b"<a/>", b"<a/>"]
        assert peer.connections == 1
        with pytest.raises(TransportError, match=r"no connection to .* its certificate isn't trusted"):
            posts(HTTPClient(), request)
        elsewhere = HTTPRequest(request.url.replace("127.0.0.1", "localhost"), b"<a/>")
        with pytest.raises(TransportError, match=r"not valid for"):
            posts(HTTPClient(tls=client_tls), elsewhere)


@pytest.mark.row("CL-47")
@pytest.mark.parametrize("password", [None, "kept apart"])
def test_a_client_shows_its_certificate(
    authority: trustme.CA, server_tls: ssl.SSLContext, tmp_path: Path, password: str | None
) -> None:
    """`castile.TLS`: issuers in place of the system's, and a certificate of our own from PEM."""
    server_tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server_tls)
    issuers, own = tmp_path / "issuers.pem", tmp_path / "own.pem"
    authority.cert_pem.write_to_path(issuers)
    ours = authority.issue_cert("client.example")
    key = load_pem_private_key(ours.private_key_pem.bytes(), None)
    sealing = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    own.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealing) + ours.cert_chain_pems[0].bytes()
    )

    def post(tls: castile.TLS) -> bytes:
        client = HTTPClient(tls=tls.context())
        try:
            return client.post(HTTPRequest(peer.url.replace("http:", "https:"), b"<a/>"), 5.0).body
        finally:
            client.close()

    with serving(echo, server_tls) as peer:
        assert post(castile.TLS(issuers, own, password)) == b"<a/>"
        with pytest.raises(TransportError):
            post(castile.TLS(issuers))
        with pytest.raises(TransportError, match="isn't trusted"):
            post(castile.TLS((), own, password))
    for wrong in (castile.TLS(issuers, own, "wrong"), castile.TLS(issuers, tmp_path / "none.pem")):
        if password is None and wrong.password:
            continue
        with pytest.raises(castile.UsageError, match="certificate and key for TLS"):
            wrong.context()
    assert "kept apart" not in repr(castile.TLS(issuers, own, password))


@pytest.mark.row("CL-47")
def test_tls_to_a_plain_server_is_an_error(posts: Posts) -> None:
    def script(line: socket.socket, peer: Peer) -> None:
        line.recv(1000)
        line.sendall(answer(b"", "400 Bad Request"))

    with serving(script) as peer, pytest.raises(TransportError, match="TLS failed"):
        posts(HTTPClient(), HTTPRequest(peer.url.replace("http:", "https:"), b"<a/>"))


@pytest.mark.row("CL-47")
def test_client_certificates(
    posts: Posts, authority: trustme.CA, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    server_tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server_tls)
    authority.issue_cert("ada@example.org").configure_cert(client_tls)
    with serving(echo, server_tls) as peer:
        (got,) = posts(HTTPClient(tls=client_tls), HTTPRequest(peer.url.replace("http:", "https:"), b"<a/>"))
    assert got.body == b"<a/>"


@pytest.mark.row("CL-47")
def test_a_proxy_is_asked_for_the_whole_url(posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(echo) as proxy:
        address = f"http://ada:secret@127.0.0.1:{proxy.port}"
        posts(HTTPClient(proxy=address), HTTPRequest("http://service.example/x?y", b"<a/>"))
        monkeypatch.setenv("http_proxy", address)
        posts(HTTPClient(), HTTPRequest("http://service.example/x?y", b"<b/>"))
    assert proxy.bodies == [b"<a/>", b"<b/>"]
    for head in proxy.heads:
        assert head.startswith("POST http://service.example/x?y HTTP/1.1\r\nHost: service.example\r\n")
        assert "\r\nProxy-Authorization: Basic YWRhOnNlY3JldA==" in head


@pytest.mark.row("CL-47")
@pytest.mark.parametrize("no_proxy", ["*", "127.0.0.1", "a.example, 127.0.0.1:{port}"])
def test_no_proxy_goes_directly(posts: Posts, monkeypatch: pytest.MonkeyPatch, no_proxy: str) -> None:
    with serving(echo) as peer:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", no_proxy.format(port=peer.port))
        posts(HTTPClient(), HTTPRequest(peer.url, b"<a/>"))
        monkeypatch.delenv("NO_PROXY")
        posts(HTTPClient(proxy=""), HTTPRequest(peer.url, b"<b/>"))
        with pytest.raises(TransportError, match="no connection to"):
            posts(HTTPClient(), HTTPRequest(peer.url, b"<c/>"))
    assert peer.bodies == [b"<a/>", b"<b/>"]


@pytest.mark.row("CL-47")
def test_tls_through_a_tunnel(posts: Posts, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    def script(line: socket.socket, peer: Peer) -> None:
        peer.read(line)
        line.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with server_tls.wrap_socket(line, server_side=True) as inner:
            echo(inner, peer)

    with serving(script) as proxy:
        client = HTTPClient(tls=client_tls, proxy=f"http://127.0.0.1:{proxy.port}")
        request = HTTPRequest("https://service.example/x", b"<a/>")
        answers = posts(client, request, request)
    assert [got.body for got in answers] == [b"<a/>", b"<a/>"]
    assert [head.split("\r\n")[0] for head in proxy.heads] == [
        "CONNECT service.example:443 HTTP/1.1",
        "POST /x HTTP/1.1",
        "POST /x HTTP/1.1",
    ]


@pytest.mark.row("CL-47")
def test_a_proxy_that_refuses(posts: Posts) -> None:
    def script(line: socket.socket, peer: Peer) -> None:
        peer.read(line)
        line.sendall(answer(b"who?", "407 Proxy Authentication Required"))

    with serving(script) as proxy:
        client = HTTPClient(timers=Timers(connect_timeout=2), proxy=f"127.0.0.1:{proxy.port}")
        with pytest.raises(TransportError, match="the proxy answered HTTP 407"):
            posts(client, HTTPRequest("https://service.example/x", b"<a/>"))


def test_a_proxy_over_tls_is_refused(posts: Posts) -> None:
    with pytest.raises(UsageError, match="http:// address"):
        posts(HTTPClient(proxy="https://p.example"), HTTPRequest("http://a.example/", b""))
