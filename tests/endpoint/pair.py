"""A client and a service in one process, joined by a network that can lose and repeat."""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

import castile
from castile.clock import Clock, system
from castile.config import Settings, Timers
from castile.transport.asgi import Arrival
from castile.transport.http import HTTPRequest, HTTPResponse

ADDRESS = "http://service.test/echo"
USERS = {"ada": "lovelace-secret", "mallory": "mallory-secret"}
FAST = Settings(
    timers=Timers(retransmit_interval=0.15, reply_wait=2.0, close_timeout=5.0, terminate_timeout=5.0), testing=True
)


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


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Any, timeout: float = 30.0) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


@dataclass
class Network:
    """The HTTP protocol of a client, wired to a service's `receive`.

    `fate` is asked before each exchange: it may return None, "drop-request", "drop-response" or
    "double". Every request and response that passes is kept in `log`.
    """

    loop: Loop
    service: castile.Service
    fate: Callable[[int, bytes], str | None] = lambda number, payload: None
    log: list[tuple[bytes, bytes, int]] = field(default_factory=list)
    count: int = 0
    answer: Callable[[bytes, HTTPResponse], HTTPResponse] = lambda request, response: response
    """Changes a response on its way."""

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        self.count += 1
        fate = self.fate(self.count, request.body)
        if fate == "drop-request":
            raise castile.TransportError("the request was lost")
        response = self.deliver(request.body, timeout)
        if fate == "double":
            self.deliver(request.body, timeout)
        if fate == "drop-response":
            raise castile.TransportError("the response was lost")
        return self.answer(request.body, response)

    def deliver(self, payload: bytes, timeout: float = 30.0) -> HTTPResponse:
        answer = self.loop.run(self.service.receive(payload, Arrival("/", "")), timeout)
        self.log.append((payload, answer.body, answer.status))
        return HTTPResponse(answer.status, answer.body, answer.content_type)

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is kept open."""


@dataclass
class Pair:
    """A service with an echo and a one-way inbox, and clients of it."""

    policy: castile.EndpointPolicy
    folder: Path | None = None
    settings: Settings = FAST
    clock: Clock = system
    received: list[tuple[str | None, int | None, bytes]] = field(default_factory=list)
    loop: Loop = field(default_factory=Loop)
    network: Network = field(init=False)

    def __post_init__(self) -> None:
        self.service = self.make_service()
        self.network = Network(self.loop, self.service)
        self.loop.run(self.service.start())

    def make_service(self) -> castile.Service:
        service = castile.Service(
            policy=self.policy,
            credentials=castile.Certificate(identity("service")),
            users=USERS,
            public_url=ADDRESS,
            store=self.folder / "service.db" if self.folder else None,
            settings=self.settings,
            clock=self.clock,
        )

        @service.raw("urn:test/Echo")
        def echo(body: bytes, ctx: castile.RequestContext) -> bytes:
            self.received.append((ctx.principal, ctx.number, body))
            return body

        @service.raw("urn:test/Tell")
        def tell(body: bytes, ctx: castile.RequestContext) -> None:
            self.received.append((ctx.principal, ctx.number, body))

        return service

    def client(self, user: str = "ada", **options: Any) -> castile.Client:
        options.setdefault("http", self.network)
        options.setdefault("settings", self.settings)
        options.setdefault("clock", self.clock)
        options.setdefault("service_certificate", certificate())
        return castile.Client(
            ADDRESS, policy=self.policy, credentials=castile.Username(user, USERS[user]), **options
        )

    def restart_service(self) -> None:
        """The service's process ends in good order, and another one opens the store."""
        self.loop.run(self.service.stop())
        self.service = self.make_service()
        self.network.service = self.service
        self.loop.run(self.service.start())

    def close(self) -> None:
        self.loop.run(self.service.stop())
        self.loop.close()
