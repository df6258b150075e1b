"""Captured responses to a castile client, through its HTTP protocol.

The clock, random bytes and identifiers are arguments of the client. Two things of a recorded
request can't be had by them, since RSA-OAEP draws its own padding and a signature is over the
recorded octets: its EncryptedKey, by whose name the answer calls its key, and its signatures'
values, which the answer confirms. `Caller.kept` puts these two, and nothing else, into what the
product keeps of a request that it has protected and is about to send.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import castile
from castile.config import Settings, Timers
from castile.endpoint.kinds import Kind, kind_of
from castile.errors import TransportError
from castile.security import SealedKey
from castile.security.pipeline import Protected
from castile.transport.http import HTTPRequest, HTTPResponse
from tests.replay.policies import policy_of
from tests.replay.recording import Exchange, Recording, Spoken, sealed
from tests.replay.shapes import differences, shape
from tests.replay.stage import Clock, Source, opened

SETTINGS = Settings(
    timers=Timers(retransmit_interval=0.05, retransmit_limit=0.2, close_timeout=5.0, terminate_timeout=5.0),
    testing=True,
    plain_transport="loopback",
)


@dataclass(frozen=True)
class Sent:
    """What the client made in the place of one captured request."""

    request: str
    differences: tuple[str, ...]


@dataclass
class Wire:
    """The HTTP protocol of a client: each request gets the recorded response of its like."""

    recording: Recording
    clock: Clock
    source: Source
    waiting: deque[Exchange] = field(default_factory=deque)
    sent: list[Sent] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    """Actions of requests that the recorded client never made."""

    def __post_init__(self) -> None:
        self.waiting = deque(each for each in self.recording.exchanges if not each.doubled)

    def like(self, action: str) -> Exchange | None:
        """The recorded exchange whose turn it is, if its request has this action."""
        turn = self.waiting[0] if self.waiting else None
        return turn if turn is not None and turn.request.headers.action == action else None

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        self.source.drawn = False
        ours = opened(request.body, "ours", self.recording.keys)
        exchange = self.like(ours.headers.action)
        if exchange is None:
            self.extra.append(ours.headers.action)
            return HTTPResponse(202, b"", "")
        self.waiting.popleft()
        readable = exchange.request.opened.verified is not None or not exchange.request.secured
        found = differences(shape(exchange.request), shape(ours)) if readable else []
        self.sent.append(Sent(exchange.request.name, tuple(found)))
        response = exchange.response
        if response is not None:
            self.clock.set(response.created)
        if exchange.lost:
            raise TransportError("the response was lost")
        if response is None:
            return HTTPResponse(202, b"", "")
        return HTTPResponse(response.status, response.payload, response.content_type)

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        return self.post(request, timeout)

    def close(self) -> None:
        """Nothing is kept open."""


@dataclass
class Caller:
    """A client of the recording's policy that makes the recorded calls."""

    recording: Recording
    clock: Clock = field(default_factory=Clock)
    source: Source = field(default_factory=Source)
    policy: castile.EndpointPolicy = field(init=False)
    wire: Wire = field(init=False)
    secrets: set[tuple[str, str | None, bytes]] = field(default_factory=set)
    told: castile.CastileError | None = None
    """What a call ended with, where it had no reply."""

    def __post_init__(self) -> None:
        self.policy = policy_of(self.recording, client=True)
        self.wire = Wire(self.recording, self.clock, self.source)
        requests = [each.request for each in self.wire.waiting]
        for number, message in enumerate(requests):
            name = message.headers.message_id or f"urn:uuid:unused-{number}"
            self.source.names.setdefault(self._purpose(message), deque()).append(name)
        self.source.names["sequence"] = deque(filter(None, map(_offered, requests)))
        entropies = [message.request.entropy for message in requests if message.request]
        self.source.expect(entropies)
        self.clock.set(requests[0].created)

    def kept(self, payload: bytes, key: SealedKey | None, values: tuple[bytes, ...]) -> Protected:
        """In the place of `Protected`: the product's own message, beside the recorded request's
        EncryptedKey, if it made one, and the values of the recorded signatures."""
        turn = self.wire.waiting[0].request if self.wire.waiting else None
        if turn is None or turn.opened.verified is None:
            return Protected(payload, key, values)
        return Protected(payload, sealed(turn) if key is not None else None, turn.opened.verified.values)

    def client(self) -> castile.Client:
        sections = [each for each in (self.policy.bootstrap, self.policy.application) if each]
        names = self.recording.names
        options: dict[str, Any] = {}
        if any(each.username for each in sections):
            user, password = next(iter(self.recording.keys.users.items()))
            options["credentials"] = castile.Username(user, password)
        elif any(each.endorsing or each.binding == "asymmetric" for each in sections):
            options["credentials"] = castile.Certificate(names["client"])
        if any(each.binding != "transport" for each in sections):
            options["service_certificate"] = names["service"][names["service"].index("-----BEGIN CERT") :]
        to = self.recording.exchanges[0].request.headers.to
        assert to is not None
        return castile.Client(
            to,
            policy=self.policy,
            http=self.wire,
            settings=SETTINGS,
            clock=self.clock,
            random=self.source.random,
            new_id=self.source.new_id,
            timeout=5.0,
            **options,
        )

    def play(self) -> None:
        """The recorded calls, then the end.

        A conversation that got no further than its beginning is begun by a call all the same.
        """
        client = self.client()
        acts = [each for each in self.wire.waiting if not each.lost]  # a repetition is the same call
        try:
            for exchange in acts:
                if self.application(exchange.request):
                    self.call(client, exchange)
                elif exchange.request.request is not None:
                    self.renew(client, exchange)
            if not any(self.application(each.request) for each in acts):
                client.call_raw("urn:castile:replay", b"<any></any>")
        except (castile.FaultReceived, castile.UsageError) as error:
            self.told = error
        finally:
            self.remember(client)
            client.close(keep=self.told is not None)

    def call(self, client: castile.Client, exchange: Exchange) -> None:
        """One call, if its reply was recorded, or one message."""
        request = exchange.request
        if not any(each.lost for each in self.wire.waiting):
            self.clock.set(request.created)
        if request.headers.reply_to is not None and _replies(exchange):
            reply = client.call_raw(request.headers.action, request.content)
            assert exchange.response is not None
            assert reply == exchange.response.content
        else:
            client.send_raw(request.headers.action, request.content)
            if self.policy.reliability is not None:
                assert client.sequence.wait_until_acknowledged(5.0)
        self.remember(client)

    def renew(self, client: castile.Client, exchange: Exchange) -> None:
        """A renewal when the recorded client made it."""
        asked = exchange.request.request
        if asked is not None and asked.request_type == "Renew":
            self.clock.set(exchange.request.created)
            assert client.context is not None
            client.context.renew()

    def remember(self, client: castile.Client) -> None:
        """The keys that the client holds now."""
        for record in client._store.run(lambda tx: tx.contexts()).result():
            identifier = record.state.identifier
            self.secrets |= {(identifier, each.instance, each.secret) for each in record.state.instances}

    def _purpose(self, message: Spoken) -> str:
        if self.application(message):
            return "message"
        return "request" if message.request is not None else "lifecycle"

    def application(self, message: Spoken) -> bool:
        return kind_of(message.headers.action, self.policy) is Kind.APPLICATION


def _replies(exchange: Exchange) -> bool:
    """Whether the response holds a reply, rather than an acknowledgement."""
    return exchange.response is not None and len(exchange.response.body) > 0


def _offered(message: Spoken) -> str | None:
    if message.lifecycle != "CreateSequence":
        return None
    return message.body[0].findtext("{*}Offer/{*}Identifier")
