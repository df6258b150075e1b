"""A client and a service in one process, joined by a network that can lose, repeat and forge."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

import castile
from castile import xml
from castile.clock import Clock, Now, system
from castile.config import Limits, Settings, Timers
from castile.endpoint import inbound
from castile.endpoint.inbound import Inbound
from castile.endpoint.party import Party
from castile.messages import soap
from castile.store import Store, Transaction
from castile.transport.asgi import Arrival, HTTPAnswer
from castile.transport.http import HTTPRequest, HTTPResponse

T = TypeVar("T")
ADDRESS = "http://service.test/echo"
TLS_ADDRESS = "https://service.test/echo"
USERS = {"ada": "lovelace-secret", "mallory": "mallory-secret"}
TIMERS = Timers(
    retransmit_interval=0.05,
    retransmit_limit=0.2,
    reply_wait=2.0,
    close_timeout=10.0,
    terminate_timeout=10.0,
    call_timeout=20.0,
    handler_backoff=0.02,
)
FAST = Settings(timers=TIMERS, testing=True)
FAMILIES = ("2005", "1.3")
BODY = b'<x xmlns="urn:x">hi</x>'


def fast(**timers: float) -> Settings:
    """`FAST` with other timers."""
    return replace(FAST, timers=replace(TIMERS, **timers))


def body(number: int) -> bytes:
    """A body that can be told from others."""
    return f'<x xmlns="urn:x">{number}</x>'.encode()


@lru_cache(maxsize=4)
def identity(name: str) -> bytes:
    """A throw-away RSA key and its self-signed certificate, as PEM."""
    key = rsa.generate_private_key(65_537, 2_048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today)
        .not_valid_after(today + datetime.timedelta(days=36_500))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def certificate(name: str = "service") -> bytes:
    """The certificate alone."""
    pem = identity(name)
    return pem[pem.index(b"-----BEGIN CERTIFICATE") :]


class Moved:
    """The machine's clock, set forward by so many seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> Now:
        now = system()
        return Now(now.utc + self.seconds, now.tick + self.seconds)


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


@dataclass(frozen=True)
class Exchange:
    """One HTTP exchange as the service saw it."""

    request: bytes
    response: bytes
    status: int

    @property
    def asked(self) -> str:
        return action_of(self.request)

    @property
    def answered(self) -> str:
        return action_of(self.response)


Fate = Callable[[int, bytes], str | None]
Answer = Callable[[bytes, HTTPResponse], HTTPResponse]


@dataclass
class Network:
    """The HTTP protocol of a client, wired to a service's `receive`.

    `fate` is asked before each exchange: it may return None, "drop-request", "drop-response",
    "double" or "late" (it arrives after the next one; its sender hears nothing). Every request
    and response that passes is kept in `log`. `answer` changes a response on its way.
    """

    loop: Loop
    service: castile.Service
    fate: Fate = lambda number, payload: None
    answer: Answer = lambda request, response: response
    log: list[Exchange] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    """Every request that a client sent, whether or not it came through."""
    down: bool = False
    tls: bool = False
    """The service is reached over TLS."""
    _late: list[bytes] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        self.sent.append(request.body)
        fate = "drop-request" if self.down else self.fate(next(self._numbers), request.body)
        if fate == "late":
            self._late.append(request.body)
        if fate in ("drop-request", "late"):
            raise castile.TransportError("the request was lost")
        response = self.deliver(request.body, timeout)
        if fate == "double":
            self.deliver(request.body, timeout)
        while self._late:
            self.deliver(self._late.pop(), timeout)
        if fate == "drop-response":
            raise castile.TransportError("the response was lost")
        return self.answer(request.body, response)

    def deliver(self, payload: bytes, timeout: float = 30.0) -> HTTPResponse:
        """Hand these bytes to the service. What a service says after its end is heard by nobody."""
        service = self.service
        try:
            answer = self.loop.run(service.receive(payload, Arrival("/", "", secure=self.tls)), timeout)
        except castile.UsageError as error:
            raise castile.TransportError("the service is down") from error
        except TimeoutError as error:
            raise castile.TransportError("no answer in time") from error
        if self.down or service is not self.service:
            raise castile.TransportError("the service died before it answered")
        self.log.append(Exchange(payload, answer.body, answer.status))
        wait = dict(answer.headers).get("Retry-After")
        return HTTPResponse(answer.status, answer.body, answer.content_type, float(wait) if wait else None)

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        raise castile.UsageError("the client that exists is synchronous")

    def close(self) -> None:
        """Nothing is kept open."""

    @property
    def actions(self) -> list[tuple[str, str]]:
        """Of each exchange."""
        return [(exchange.asked, exchange.answered) for exchange in self.log]

    def requests(self, action: str) -> list[Exchange]:
        """The exchanges with this (short) action."""
        return [exchange for exchange in self.log if exchange.asked == action]


_ACTION = re.compile(rb"<a:Action[^>]*>([^<]*)</a:Action>")
_STEM = re.compile(r"^.*(/trust|/rm|/200702|/200512|/addressing|urn:test)/")


def action_of(payload: bytes) -> str:
    """The wsa:Action of a message without its namespace; empty if there is none."""
    found = _ACTION.search(payload)
    return _STEM.sub("", found[1].decode()) if found else ""


Extend = Callable[[castile.Service], None]


@dataclass
class Pair:
    """A service with an echo and a one-way inbox, and clients of it.

    `folder`: where the service's store lies; None: in memory. `extend` adds handlers.
    """

    policy: castile.EndpointPolicy
    policies: Sequence[castile.EndpointPolicy] = field(default=(), kw_only=True)
    """What the service takes, where it is more than `policy`."""
    folder: Path | None = None
    settings: Settings = FAST
    clock: Clock = system
    extend: Extend = lambda service: None
    random: Callable[[int], bytes] = os.urandom
    trust: Sequence[bytes] = field(default_factory=lambda: [certificate(user) for user in USERS])
    """Certificates that the service trusts, where clients sign with theirs."""
    received: list[tuple[str | None, int | None, bytes]] = field(default_factory=list)
    contexts: list[castile.RequestContext] = field(default_factory=list)
    """What each run of a handler was told."""
    loop: Loop = field(default_factory=Loop)
    network: Network = field(init=False)
    clients: list[castile.Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.service = self.make_service()
        self.network = Network(self.loop, self.service, tls=self.policy.tls)
        self.loop.run(self.service.start())

    @property
    def address(self) -> str:
        return TLS_ADDRESS if self.policy.tls else ADDRESS

    @property
    def store_file(self) -> Path:
        assert self.folder is not None
        return self.folder / "service.db"

    def make_service(self) -> castile.Service:
        service = castile.Service(
            public_url=self.address,
            policy=self.policies or self.policy,
            credentials=castile.Certificate(identity("service")),
            users=USERS,
            trust=self.trust if self.certificates else (),
            store=self.store_file if self.folder else None,
            settings=self.settings,
            clock=self.clock,
            random=self.random,
        )

        @service.raw("urn:test/Echo")
        def echo(content: bytes, ctx: castile.RequestContext) -> bytes:
            self.note(content, ctx)
            return content

        @service.raw("urn:test/Tell")
        def tell(content: bytes, ctx: castile.RequestContext) -> None:
            self.note(content, ctx)

        self.extend(service)
        return service

    @property
    def certificates(self) -> bool:
        """Whether clients sign with certificates."""
        sections = [each for row in self.policies or (self.policy,) for each in row.protections]
        return any(each.supports("x509") or each.binding == "asymmetric" for each in sections)

    def note(self, content: bytes, ctx: castile.RequestContext) -> None:
        """What a handler calls."""
        self.received.append((ctx.principal, ctx.number, content))
        self.contexts.append(ctx)

    def settled(self, count: int) -> list[bytes]:
        """`bodies`, once there are so many: a one-way message is acknowledged before it is handled."""
        until(lambda: len(self.received) >= count)
        return self.bodies

    @property
    def bodies(self) -> list[bytes]:
        """What the handlers got, in their order."""
        return [content for _, _, content in self.received]

    def client(self, user: str = "ada", **options: Any) -> castile.Client:
        options.setdefault("http", self.network)
        options.setdefault("settings", self.settings)
        options.setdefault("clock", self.clock)
        options.setdefault("service_certificate", certificate())
        options.setdefault("policy", self.policy)
        bootstrap = options["policy"].bootstrap or options["policy"].application
        if bootstrap is None or bootstrap.username:
            options.setdefault("credentials", castile.Username(user, USERS[user]))
        elif bootstrap.endorsing or bootstrap.binding == "asymmetric":
            options.setdefault("credentials", castile.Certificate(identity(user)))
        client = castile.Client(self.address, **options)
        self.clients.append(client)
        return client

    @property
    def party(self) -> Party:
        """The running service's."""
        return self.service._running()[0][0]

    def restart_service(self) -> None:
        """The service's process ends in good order, and another one opens the store."""
        self.loop.run(self.service.stop())
        self.start_service()

    def start_service(self) -> None:
        """Another process opens the store."""
        self.service = self.make_service()
        self.network.service = self.service
        self.loop.run(self.service.start())

    def receive(self, payload: bytes) -> HTTPAnswer:
        """These bytes arrive at the service."""
        return self.loop.run(self.service.receive(payload, Arrival("/", "", secure=self.network.tls)))

    def opened(self, payload: bytes) -> Inbound:
        """A request, read with the service's keys."""
        return inbound.read(self.party, payload, self.party.now(), request=True, tls=self.network.tls)

    def close(self) -> None:
        self.network.down = True
        for client in self.clients:
            client.close(keep=True)
        self.loop.run(self.service.stop())
        self.loop.close()


def opened(client: castile.Client, payload: bytes) -> Inbound:
    """A response, read with a client's keys."""
    party = client._party
    return inbound.read(party, payload, party.now(), request=False)


def kill(client: castile.Client) -> None:
    """Stop a client's threads with nothing said to anybody, as a dying process does."""
    client.close(keep=True)


def image(store: Store, target: Path) -> Path:
    """The files of a store as a crash at this moment would leave them.

    Copied inside a step, so that no commit of ours is half done; opens like any store.
    """
    location = store.location
    assert location is not None
    target.mkdir(parents=True, exist_ok=True)

    def copy(_: Transaction) -> None:
        for path in location.parent.glob(f"{location.name}*"):
            if not path.name.endswith((".lock", "-shm")):
                shutil.copy(path, target / path.name)

    store.run(copy).result()
    return target / location.name


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of castile in a store that is in use."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        names = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1"
            )
        ]
        return {name: sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr) for name in names}
    finally:
        connection.close()


def states(store: Store) -> list[object]:
    """Everything that a client's store knows, less the count and time of attempts."""

    def step(tx: Transaction) -> list[object]:
        sources = tx.sources()
        rows = [
            replace(row, due=None, attempts=0, tried=None, last_error=None)
            for record in sources
            for row in tx.outbox(record.state.key)
        ]
        return [tx.contexts(ended=True), sources, tx.destinations(), rows, tx.inbox(), tx.unconsumed()]

    return store.run(step).result()


def until(ready: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what another thread does; fails if it doesn't."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it didn't happen"
        time.sleep(0.005)


def fault_of(payload: bytes) -> str:
    """The subcode (or code) of a fault on the wire, unsecured or not encrypted."""
    root = xml.parse(payload, Limits())
    envelope = soap.parse(root, Limits(), len(payload))
    fault = soap.read_fault(envelope.body[0], envelope.soap)
    assert fault is not None
    return fault.subcode[1] if fault.subcode else fault.code
