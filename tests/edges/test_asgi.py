"""The server's side: what HTTP itself refuses, and that nothing begun is torn."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from castile.config import Limits, Timers
from castile.errors import StoreInvalid
from castile.transport.asgi import Application, Arrival, HTTPAnswer, busy
from castile.transport.http import HTTPClient, HTTPRequest
from tests.served import served

SOAP_12 = "application/soap+xml"
LIMITS = Limits(message_bytes=1000, request_seconds=0.2)


class Endpoint:
    """Answers with what came, and remembers it."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.payloads: list[bytes] = []

    async def receive(self, payload: bytes, arrival: Arrival) -> HTTPAnswer:
        self.payloads.append(payload)
        self.arrivals.append(arrival)
        return HTTPAnswer(200, payload, SOAP_12, (("X-Number", str(len(self.payloads))),))


Headers = dict[str, str]


class Exchange:
    """One request put into an application by hand, and what it answered."""

    def __init__(self, *events: MutableMapping[str, Any], wait_after: bool = True) -> None:
        self._events = list(events)
        self._wait_after = wait_after
        self.received = 0
        self.received_before_answer = 0
        self.status = 0
        self.headers: Headers = {}
        self.body = b""

    async def receive(self) -> MutableMapping[str, Any]:
        if self._events:
            self.received += 1
            return self._events.pop(0)
        await asyncio.sleep(60)
        raise AssertionError("nothing more comes")

    async def send(self, event: MutableMapping[str, Any]) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.received_before_answer = self.received
            self.headers = {name.decode(): value.decode() for name, value in event["headers"]}
        else:
            self.body += event["body"]


def part(body: bytes, *, more: bool = False) -> MutableMapping[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def scope(method: str = "POST", path: str = "/", **others: Any) -> MutableMapping[str, Any]:
    headers = others.pop("headers", {"content-type": SOAP_12})
    pairs = headers.items() if isinstance(headers, dict) else headers
    return {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in pairs],
        "client": ("192.0.2.7", 4711),
        **others,
    }


async def ask(
    app: Application, given: MutableMapping[str, Any], *events: MutableMapping[str, Any]
) -> Exchange:
    exchange = Exchange(*(events or (part(b"<a/>"),)))
    await asyncio.wait_for(app(given, exchange.receive, exchange.send), 5)
    return exchange


def asked(app: Application, given: MutableMapping[str, Any], *events: MutableMapping[str, Any]) -> Exchange:
    return asyncio.run(ask(app, given, *events))


# What arrives


@pytest.mark.row("SV-02")
def test_a_message_goes_through() -> None:
    endpoint = Endpoint()
    got = asked(Application(endpoint.receive), scope(path="/transfers", query_string=b"x=y"))
    assert (got.status, got.body) == (200, b"<a/>")
    assert got.headers == {"content-length": "4", "content-type": SOAP_12, "x-number": "1"}
    assert endpoint.arrivals == [
        Arrival("/transfers", SOAP_12, client="192.0.2.7", secure=False, query="x=y"),
    ]


@pytest.mark.row("CO-11")
@pytest.mark.parametrize(
    ("client", "told", "scheme", "secure"),
    [
        ("192.0.2.7", (), "https", True),
        ("192.0.2.7", ("https",), "http", True),
        ("192.0.2.7", ("HTTPS",), "http", True),
        ("192.0.2.7", ("http",), "http", False),
        ("192.0.2.7", ("https, http",), "http", False),
        ("192.0.2.7", (), "http", False),
        ("198.51.100.1", ("https",), "http", False),
        ("unix", ("https",), "http", False),
    ],
)
def test_who_may_say_that_it_came_over_tls(
    client: str, told: tuple[str, ...], scheme: str, secure: bool
) -> None:
    """The server itself, and a proxy that is listed: nobody else."""
    endpoint = Endpoint()
    given = scope(scheme=scheme, client=(client, 40_000))
    given["headers"] = [*given["headers"], *((b"x-forwarded-proto", each.encode()) for each in told)]
    proxies = ("192.0.2.0/24", "2001:db8::1")
    assert asked(Application(endpoint.receive, trusted_proxies=proxies), given).status == 200
    (arrival,) = endpoint.arrivals
    assert (arrival.secure, arrival.forwarded) == (secure, bool(told))
    assert not arrival.local


def test_two_words_on_tls_are_none() -> None:
    endpoint = Endpoint()
    given = scope(client=("192.0.2.7", 40_000))
    given["headers"] = [*given["headers"], *[(b"x-forwarded-proto", b"https")] * 2]
    assert asked(Application(endpoint.receive, trusted_proxies=["192.0.2.7"]), given).status == 400


def test_a_body_in_parts_is_one_message() -> None:
    endpoint = Endpoint()
    parts = part(b"<a>", more=True), part(b"", more=True), part(b"</a>")
    assert asked(Application(endpoint.receive), scope(), *parts).body == b"<a></a>"


@pytest.mark.row("SV-02")
@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/soap/transfers", "/soap", "/transfers"),
        ("/soap", "/soap", "/"),
        ("/soap/", "/soap/", "/"),
        ("/transfers", "/soap", "/transfers"),  # a server whose path leaves root_path out
        ("/soapbox", "/soap", "/soapbox"),
        ("", "", "/"),
    ],
)
def test_the_path_below_a_mount(path: str, root: str, below: str) -> None:
    endpoint = Endpoint()
    asked(Application(endpoint.receive), scope(path=path, root_path=root))
    assert endpoint.arrivals[0].path == below


@pytest.mark.parametrize(
    ("headers", "action", "charset"),
    [
        ({"content-type": "text/xml; charset=UTF-8", "soapaction": '"urn:a"'}, "urn:a", "utf-8"),
        ({"content-type": "text/xml", "soapaction": "urn:a"}, "urn:a", None),
        ({"content-type": "text/xml", "soapaction": '""'}, None, None),
        ({"content-type": f'{SOAP_12};action="urn:a;b=\\"c";Charset="utf-16"'}, 'urn:a;b="c', "utf-16"),
        ({"content-type": f"{SOAP_12} ; action=urn:a"}, "urn:a", None),
        ({"content-type": "Application/SOAP+XML"}, None, None),
    ],
)
def test_action_and_charset(headers: Headers, action: str | None, charset: str | None) -> None:
    endpoint = Endpoint()
    assert asked(Application(endpoint.receive), scope(headers=headers)).status == 200
    assert (endpoint.arrivals[0].soap_action, endpoint.arrivals[0].charset) == (action, charset)


def test_what_the_server_says_of_the_connection() -> None:
    endpoint = Endpoint()
    asked(Application(endpoint.receive), scope(scheme="https", client=None))
    assert (endpoint.arrivals[0].secure, endpoint.arrivals[0].client) == (True, None)


# What is refused


@pytest.mark.row("SV-13")
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_only_post(method: str) -> None:
    endpoint = Endpoint()
    got = asked(Application(endpoint.receive), scope(method, headers={}))
    assert (got.status, got.headers["allow"], got.body) == (405, "POST", b"")
    assert endpoint.payloads == []


@pytest.mark.row("SV-13")
def test_metadata_answers_get() -> None:
    async def metadata(arrival: Arrival) -> HTTPAnswer | None:
        return HTTPAnswer(200, b"<wsdl/>", "text/xml") if arrival.query == "wsdl" else None

    app = Application(Endpoint().receive, metadata=metadata)
    got = asked(app, scope("GET", headers={}, query_string=b"wsdl"))
    assert (got.status, got.body, got.headers["content-type"]) == (200, b"<wsdl/>", "text/xml")
    head = asked(app, scope("HEAD", headers={}, query_string=b"wsdl"))
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "7")
    assert asked(app, scope("GET", headers={})).status == 405
    put = asked(app, scope("PUT", headers={}))
    assert (put.status, put.headers["allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.row("SV-13")
@pytest.mark.row("RE-12")
@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "application/xml",
        "text/xmlx",
        "multipart/related; type=text/xml",
        f"{SOAP_12}; action=a; action=b",
    ],
)
def test_a_type_that_isn_t_soap(content_type: str | None) -> None:
    endpoint = Endpoint()
    headers = {} if content_type is None else {"content-type": content_type}
    got = asked(Application(endpoint.receive), scope(headers=headers))
    assert got.status == 415
    assert got.received_before_answer == 0
    assert endpoint.payloads == []


@pytest.mark.row("RE-11")
@pytest.mark.parametrize("coding", ["gzip", "deflate", "GZIP", "identity, gzip", "br"])
def test_a_compressed_request(coding: str) -> None:
    endpoint = Endpoint()
    headers = {"content-type": SOAP_12, "content-encoding": coding}
    got = asked(Application(endpoint.receive), scope(headers=headers), part(gzip.compress(b"<a/>")))
    assert (got.status, got.headers["accept-encoding"], got.received_before_answer) == (415, "identity", 0)
    assert endpoint.payloads == []


@pytest.mark.parametrize("name", ["content-type", "content-length", "content-encoding", "soapaction"])
def test_a_header_that_stands_twice(name: str) -> None:
    pairs = [("content-type", SOAP_12), ("content-length", "4"), (name, "4"), (name, "4")]
    assert asked(Application(Endpoint().receive), scope(headers=pairs)).status == 400


@pytest.mark.row("RE-10")
@pytest.mark.parametrize(
    ("length", "status"), [("1000", 200), ("1001", 413), ("9" * 5000, 413), ("-1", 400), ("x", 400)]
)
def test_a_length_is_judged_before_the_body(length: str, status: int) -> None:
    endpoint = Endpoint()
    headers = {"content-type": SOAP_12, "content-length": length}
    got = asked(Application(endpoint.receive, limits=LIMITS), scope(headers=headers))
    assert got.status == status
    assert got.received_before_answer == (1 if status == 200 else 0)
    assert (got.headers.get("connection") == "close") == (status != 200)


@pytest.mark.row("RE-10")
def test_a_body_without_length_is_read_no_further_than_the_limit() -> None:
    endpoint = Endpoint()
    app = Application(endpoint.receive, limits=LIMITS)
    got = asked(app, scope(), *(part(b"x" * 400, more=True) for _ in range(10)))
    assert (got.status, got.received_before_answer, got.headers["connection"]) == (413, 3, "close")
    assert asked(app, scope(), part(b"x" * 500, more=True), part(b"x" * 500)).status == 200
    assert len(endpoint.payloads) == 1


@pytest.mark.row("RE-10")
def test_a_refused_body_is_read_on_for_a_while_so_that_the_refusal_is_heard() -> None:
    app = Application(Endpoint().receive, limits=LIMITS)
    whole = asked(app, scope(), *(part(b"x" * 400, more=number < 9) for number in range(10)))
    assert (whole.status, whole.received_before_answer, whole.received) == (413, 3, 10)
    endless = asked(app, scope(), *(part(bytes(1 << 20), more=True) for _ in range(100)))
    assert (endless.status, endless.received) == (413, 5)


@pytest.mark.row("RE-10")
def test_a_slow_body_ends_at_the_limit() -> None:
    endpoint = Endpoint()
    start = time.monotonic()
    got = asked(Application(endpoint.receive, limits=LIMITS), scope(), part(b"<a", more=True))
    assert (got.status, got.headers["connection"]) == (408, "close")
    assert time.monotonic() - start < 2
    assert endpoint.payloads == []


@pytest.mark.row("RE-10")
def test_a_body_that_is_cut_off_reaches_nobody() -> None:
    endpoint = Endpoint()
    got = asked(Application(endpoint.receive), scope(), part(b"<a", more=True), {"type": "http.disconnect"})
    assert got.status == 0
    assert endpoint.payloads == []


def test_websockets_are_closed() -> None:
    sent: list[str] = []

    async def run() -> None:
        async def receive() -> MutableMapping[str, Any]:
            return {"type": "websocket.connect"}

        async def send(event: MutableMapping[str, Any]) -> None:
            sent.append(event["type"])

        app = Application(Endpoint().receive)
        await app({"type": "websocket"}, receive, send)
        with pytest.raises(ValueError, match="no such ASGI scope"):
            await app({"type": "carrier-pigeon"}, receive, send)

    asyncio.run(run())
    assert sent == ["websocket.close"]


# What goes wrong within


def test_a_failing_endpoint_is_500_and_its_text_stays_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def receive(payload: bytes, arrival: Arrival) -> HTTPAnswer:
        raise RuntimeError(payload.decode())

    with caplog.at_level(logging.ERROR, "castile.wire"):
        got = asked(Application(receive), scope(), part(b"<secret/>"))
    assert (got.status, got.body) == (500, b"")
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def test_an_endpoint_that_cancels_its_own_work_is_500() -> None:
    async def run() -> int:
        def receive(payload: bytes, arrival: Arrival) -> Awaitable[HTTPAnswer]:
            future: asyncio.Future[HTTPAnswer] = asyncio.get_running_loop().create_future()
            future.cancel()
            return future

        return (await ask(Application(receive), scope())).status

    assert asyncio.run(run()) == 500


@pytest.mark.row("SV-17")
def test_work_goes_on_when_its_exchange_is_cancelled() -> None:
    done: list[bytes] = []

    async def run() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def receive(payload: bytes, arrival: Arrival) -> HTTPAnswer:
            begun.set()
            await go_on.wait()
            done.append(payload)
            return HTTPAnswer(202)

        app = Application(receive)
        exchange = asyncio.create_task(ask(app, scope()))
        await begun.wait()
        exchange.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange
        go_on.set()
        assert await app.drain() == 0

    asyncio.run(run())
    assert done == [b"<a/>"]


# Starting and stopping


@contextlib.asynccontextmanager
async def lifespan(app: Application) -> AsyncIterator[list[MutableMapping[str, Any]]]:
    incoming: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    sent: list[MutableMapping[str, Any]] = []

    async def send(event: MutableMapping[str, Any]) -> None:
        sent.append(event)

    running = asyncio.create_task(app({"type": "lifespan"}, incoming.get, send))
    await incoming.put({"type": "lifespan.startup"})
    while not sent:
        await asyncio.sleep(0)
    yield sent
    await incoming.put({"type": "lifespan.shutdown"})
    await asyncio.wait_for(running, 5)


class Calls(list[str]):
    def append_as(self, name: str, error: Exception | None = None) -> Callable[[], Awaitable[None]]:
        async def call() -> None:
            self.append(name)
            await asyncio.sleep(0.01)
            if error is not None:
                raise error

        return call


@pytest.mark.row("SV-02")
def test_lifespan_starts_and_stops_once() -> None:
    calls = Calls()

    async def run() -> None:
        endpoint = Endpoint()
        app = Application(endpoint.receive, start=calls.append_as("start"), stop=calls.append_as("stop"))
        for _ in range(2):  # a server may serve one application twice
            async with lifespan(app) as sent:
                assert (await ask(app, scope())).status == 200
            assert [event["type"] for event in sent] == [
                "lifespan.startup.complete",
                "lifespan.shutdown.complete",
            ]
            late = await ask(app, scope())
            assert late.status == 503
            assert int(late.headers["retry-after"]) > 0

    asyncio.run(run())
    assert calls == ["start", "stop"] * 2


@pytest.mark.row("SV-02")
def test_without_lifespan_the_first_requests_start_it_once() -> None:
    calls = Calls()

    async def run() -> list[int]:
        app = Application(Endpoint().receive, start=calls.append_as("start"))
        first = asyncio.create_task(ask(app, scope()))
        others = [asyncio.create_task(ask(app, scope())) for _ in range(4)]
        await asyncio.sleep(0.001)
        first.cancel()  # the one that began the start hangs up
        return [(await other).status for other in others]

    assert asyncio.run(run()) == [200] * 4
    assert calls == ["start"]


def test_a_start_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls()
    failing = calls.append_as("start", StoreInvalid("transfers.db is no castile store"))

    async def run() -> None:
        app = Application(Endpoint().receive, start=failing, stop=calls.append_as("stop"))
        assert (await ask(app, scope())).status == 503
        assert (await ask(app, scope())).status == 503  # tried again
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "lifespan.startup"}

        async def send(event: MutableMapping[str, Any]) -> None:
            sent.append(event)

        await app({"type": "lifespan"}, receive, send)
        (event,) = sent
        assert event["type"] == "lifespan.startup.failed"
        assert event["message"] == "StoreInvalid: transfers.db is no castile store"

    asyncio.run(run())
    assert calls == ["start"] * 3
    assert "transfers.db is no castile store" in caplog.text


@pytest.mark.row("SV-17")
def test_a_stop_waits_for_what_is_running_but_not_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls()

    async def run(seconds: float) -> int:
        async def receive(payload: bytes, arrival: Arrival) -> HTTPAnswer:
            await asyncio.sleep(seconds)
            calls.append("answered")
            return HTTPAnswer(202)

        app = Application(receive, timers=Timers(drain=0.3), stop=calls.append_as("stop"))
        async with lifespan(app):
            exchange = asyncio.create_task(ask(app, scope()))
            await asyncio.sleep(0.05)
        if seconds > 1:
            exchange.cancel()
            return 0
        return (await exchange).status

    assert asyncio.run(run(0.1)) == 202
    assert calls == ["answered", "stop"]
    calls.clear()
    asyncio.run(run(5))
    assert calls == ["stop"]
    assert "1 requests still running" in caplog.text


def test_busy_says_when_to_come_again() -> None:
    assert busy(0.2).headers == (("Retry-After", "1"),)
    assert busy(30).status == 503


# Under uvicorn


@pytest.mark.row("SV-02")
@pytest.mark.row("SV-13")
def test_under_uvicorn_with_our_own_client() -> None:
    calls = Calls()
    endpoint = Endpoint()
    app = Application(
        endpoint.receive, limits=LIMITS, start=calls.append_as("start"), stop=calls.append_as("stop")
    )
    typed = (("Content-Type", SOAP_12),)
    client = HTTPClient()
    with served(app) as url:
        for number in range(3):
            body = b"<a n='%d'/>" % number
            got = client.post(HTTPRequest(url, body, typed), 5)
            assert (got.status, got.body, got.content_type) == (200, body, SOAP_12)
        assert client.post(HTTPRequest(url, b"<a/>", (("Content-Type", "text/plain"),)), 5).status == 415
        for size in (1001, 2 << 20):
            assert client.post(HTTPRequest(url, bytes(size), typed), 5).status == 413
        assert client.post(HTTPRequest(url, b"<b/>", typed), 5).status == 200
        client.close()
    assert calls == ["start", "stop"]
    assert {arrival.path for arrival in endpoint.arrivals} == {"/soap"}


@pytest.mark.row("RE-10")
def test_under_uvicorn_slow_loris_and_half_bodies() -> None:
    endpoint = Endpoint()
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: {SOAP_12}\r\n".encode()
    with served(Application(endpoint.receive, limits=LIMITS)) as url:
        port = int(url.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as slow:
            slow.sendall(head + b"Content-Length: 10\r\n\r\n<a")
            answer = slow.recv(65536)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert slow.recv(1) == b""  # and the connection is closed
        with socket.create_connection(("127.0.0.1", port), timeout=5) as endless:
            endless.sendall(
                head + b"Transfer-Encoding: chunked\r\n\r\n" + b"190\r\n%s\r\n" % (b"x" * 400) * 4
            )
            assert endless.recv(65536).startswith(b"HTTP/1.1 413 ")
        with socket.create_connection(("127.0.0.1", port), timeout=5) as half:
            half.sendall(head + b"Content-Length: 10\r\n\r\n<a")
        time.sleep(0.05)
    assert endpoint.payloads == []


@pytest.mark.row("SV-17")
def test_under_uvicorn_a_client_that_hangs_up_tears_nothing() -> None:
    begun, done = threading.Event(), threading.Event()

    async def receive(payload: bytes, arrival: Arrival) -> HTTPAnswer:
        begun.set()
        await asyncio.sleep(0.2)
        done.set()
        return HTTPAnswer(200, b"<late/>", SOAP_12)

    with served(Application(receive)) as url:
        port = int(url.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
            head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: {SOAP_12}\r\nContent-Length: 4"
            line.sendall(head.encode() + b"\r\n\r\n<a/>")
            assert begun.wait(5)
        assert done.wait(5)
