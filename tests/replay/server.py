"""Captured requests through a castile service's ASGI application."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import castile
from castile.config import Settings, Timers
from castile.endpoint.kinds import Kind, kind_of
from castile.errors import SOAPFault
from castile.transport.asgi import Application
from tests.endpoint.pair import Loop
from tests.replay.policies import policy_of
from tests.replay.recording import Exchange, Recording
from tests.replay.shapes import differences, shape
from tests.replay.stage import Clock, Source, opened, post

SETTINGS = Settings(timers=Timers(reply_wait=0.3), testing=True, plain_transport="loopback")
"""The recordings over TLS were made where it had ended: on one machine."""


@dataclass(frozen=True)
class Answered:
    """What became of one captured request."""

    request: str
    verdict: str
    """``accepted``, ``accepted, no answer`` or ``refused: CODE``."""
    expected: str
    """The same of the recorded answer."""
    differences: tuple[str, ...] = ()
    """Between the recorded answer and ours."""


@dataclass
class Server:
    """A service of the recording's policy, with its keys, and an application that answers as the
    recorded one did."""

    recording: Recording
    loop: Loop
    policy: castile.EndpointPolicy = field(init=False)
    service: castile.Service = field(init=False)
    clock: Clock = field(default_factory=Clock)
    source: Source = field(default_factory=Source)
    now: Exchange | None = None
    """The exchange on the stage."""
    delivered: list[bytes] = field(default_factory=list)
    secrets: set[tuple[str, str | None, bytes]] = field(default_factory=set)
    """Every key of a context that the service has made."""

    def __post_init__(self) -> None:
        self.policy = policy_of(self.recording)
        names = self.recording.names
        sections = [each for each in (self.policy.bootstrap, self.policy.application) if each]
        options: dict[str, Any] = {}
        if any(each.endorsing or each.binding == "asymmetric" for each in sections):
            options["trust"] = [names["client"]]
        self.service = self.offered(
            credentials=castile.Certificate(names["service"]),
            users=self.recording.keys.users,
            settings=SETTINGS,
            clock=self.clock,
            random=self.source.random,
            new_id=self.source.new_id,
            **options,
        )

    def offered(self, **options: Any) -> castile.Service:
        """The service, by its policy."""
        service = castile.Service(policy=self.policy, **options)
        for action in self.actions:
            service.raw(action)(self.handle)
        return service

    @property
    def actions(self) -> set[str]:
        """Of the application's messages."""
        found = {exchange.request.headers.action for exchange in self.recording.exchanges}
        return {action for action in found if kind_of(action, self.policy) is Kind.APPLICATION}

    def handle(self, content: bytes) -> bytes | None:
        """The body of the recorded reply, or its fault."""
        self.delivered.append(content)
        assert self.now is not None
        reply = self.now.response
        if reply is not None and isinstance(fault := reply.fault, SOAPFault):
            raise castile.Fault(fault.code, fault.reason, fault.detail, fault.subcode)
        return reply.content if reply is not None and reply.content else None

    def play(self) -> list[Answered]:
        """Every request in its order."""
        app = self.service.asgi()
        try:
            return [self.exchange(app, each) for each in self.recording.exchanges]
        finally:
            self.loop.run(self.service.stop())

    def exchange(self, app: Application, exchange: Exchange) -> Answered:
        """One captured request, and how our answer differs from the recorded one."""
        request, response = exchange.request, exchange.response
        self.now = exchange
        self.clock.set(request.created)
        self._expect(exchange)
        status, body = self.loop.run(post(app, "/echo", request.content_type, request.payload))
        for record in self.service.store.run(lambda tx: tx.contexts(ended=True)).result():
            identifier = record.state.identifier
            self.secrets |= {(identifier, each.instance, each.secret) for each in record.state.instances}
        if not body:
            return Answered(request.name, _silent(status), _verdict(exchange))
        ours = opened(body, f"ours to {request.name}", self.recording.keys, status=status, answers=request)
        code, expected = _code(ours.fault), _verdict(exchange)
        verdict = f"refused: {code}" if code else "accepted"
        if response is None or (verdict == "accepted") != (expected == "accepted"):
            return Answered(request.name, verdict, expected)
        return Answered(request.name, verdict, expected, tuple(differences(shape(response), shape(ours))))

    def _expect(self, exchange: Exchange) -> None:
        """What the recorded service drew for its answer."""
        answer = exchange.response.answer if exchange.response is not None else None
        created = None
        if exchange.response is not None and exchange.response.lifecycle == "CreateSequenceResponse":
            created = exchange.response.body[0].findtext("{*}Identifier")
        token = answer.token if answer is not None else None
        self.source.expect(
            [answer.entropy] if answer is not None else [],
            [answer.proof_secret] if answer is not None else [],
            context=token.identifier if token is not None and token.instance is None else None,
            instance=token.instance if token is not None else None,
            sequence=created,
        )


def _code(fault: object) -> str:
    if not isinstance(fault, SOAPFault):
        return ""
    return fault.subcode[1] if fault.subcode else fault.code


def _silent(status: int) -> str:
    return "accepted, no answer" if status == 202 else f"HTTP {status}"


def _verdict(exchange: Exchange) -> str:
    if exchange.response is None:
        return "accepted, no answer"
    code = _code(exchange.response.fault)
    return f"refused: {code}" if code else "accepted"
