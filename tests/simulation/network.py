"""The network between clients and a service: late, twice, cut, or not at all."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from castile.errors import TransportError
from castile.transport.asgi import Arrival, HTTPAnswer
from castile.transport.http import HTTPRequest, HTTPResponse
from tests.simulation.primitives import drive
from tests.simulation.world import Wait, World

if TYPE_CHECKING:
    from tests.simulation.faults import Faults
    from tests.simulation.processes import Process

LATENCY = 0.02
PAST = 32


class Watcher(Protocol):
    """Whoever sees every byte that passes."""

    def left(self, client: Process, payload: bytes) -> None: ...

    def arrived_at(self, service: Process, exchange: int, payload: bytes) -> None: ...

    def answered(self, service: Process, exchange: int, payload: bytes, answer: HTTPAnswer) -> None: ...

    def reached(self, client: Process, payload: bytes) -> None: ...

    def closed(self, client: Process, payload: bytes) -> None: ...

    def unexpected(self, text: str) -> None: ...


class Slot:
    """Where a client waits for its answer."""

    __slots__ = ("_waiting", "error", "response")

    def __init__(self) -> None:
        self._waiting: deque[Wait] = deque()
        self.response: HTTPResponse | None = None
        self.error: str | None = None

    @property
    def done(self) -> bool:
        return self.response is not None or self.error is not None

    def give(self, response: HTTPResponse) -> None:
        if not self.done:
            self.response = response
            self._wake()

    def fail(self, error: str) -> None:
        if not self.done:
            self.error = error
            self._wake()

    def wait(self, world: World, timeout: float) -> None:
        if not self.done:
            world.wait(self._waiting, timeout)

    def _wake(self) -> None:
        while self._waiting:
            self._waiting.popleft().wake()


@dataclass(slots=True)
class Network:
    """Carries requests to whichever process of the service is up."""

    world: World
    faults: Faults
    watcher: Watcher
    services: list[Process] = field(default_factory=list)
    partitions: tuple[tuple[float, float, str], ...] = ()
    """From, until, and what is lost: ``requests``, ``responses`` or ``both``."""
    past: list[HTTPRequest] = field(default_factory=list)
    _exchanges: int = 0

    def line(self, process: Process) -> Line:
        """What a client of this process posts through."""
        return Line(self, process)

    def exchange(self, client: Process, request: HTTPRequest, timeout: float) -> HTTPResponse:
        """One POST of a client."""
        self.watcher.left(client, request.body)
        slot, faults = Slot(), self.faults
        if not self._cut("requests") and not faults.happens("drop", "request"):
            self.send(request, self._delay(timeout), slot)
        if faults.happens("copies"):
            for _ in range(1 + int(faults.chance.random() * 19)):
                delay = faults.chance.random() * timeout * (10 if faults.chance.random() < 0.2 else 0.2)
                self.send(request, delay, slot)
        if self.past and faults.happens("replay"):
            self.send(self.past[int(faults.chance.random() * len(self.past))], self._delay(timeout), None)
        self.past.append(request)
        if len(self.past) > PAST:
            del self.past[int(faults.chance.random() * PAST)]
        slot.wait(self.world, timeout)
        self.watcher.closed(client, request.body)
        if slot.response is not None:
            self.watcher.reached(client, slot.response.body)
            return slot.response
        raise TransportError(slot.error or f"no whole answer within {timeout:g} s")

    def send(self, request: HTTPRequest, delay: float, slot: Slot | None) -> None:
        """A request is under way."""
        self.world.after(delay, lambda: self._arrive(request, slot))

    def _delay(self, timeout: float) -> float:
        chance = self.faults.chance.random
        delay = LATENCY * (0.5 + chance())
        if self.faults.happens("delay"):
            delay += timeout * 10 ** (2 * chance() - 1)
        return delay

    def _cut(self, what: str) -> bool:
        if not self.partitions or not self.faults.active:
            return False
        now = self.world.now
        return any(since <= now < until and lost in (what, "both") for since, until, lost in self.partitions)

    def _arrive(self, request: HTTPRequest, slot: Slot | None) -> None:
        up = [each for each in self.services if each.alive and each.service is not None]
        if not up:
            if slot is not None:
                slot.fail("connection refused")
            return
        process = up[0] if len(up) == 1 else up[int(self.world.chance.random() * len(up))]
        process.spawn("exchange", lambda: self._serve(process, request, slot))

    def _serve(self, process: Process, request: HTTPRequest, slot: Slot | None) -> None:
        self._exchanges += 1
        exchange = self._exchanges
        self.watcher.arrived_at(process, exchange, request.body)
        if slot is not None:
            process.exchanges[slot] = None
        try:
            answer = drive(process.service.receive(request.body, arrival_of(request)))
        except Exception as error:
            if type(error).__name__ == "UsageError" and process.service is None:
                answer = HTTPAnswer(503)
            else:
                self.watcher.unexpected(f"{process.name}: receive raised {error!r}")
                answer = HTTPAnswer(500)
        finally:
            if slot is not None:
                process.exchanges.pop(slot, None)
        self.watcher.answered(process, exchange, request.body, answer)
        if slot is not None:
            self._return(answer, slot, request.body)

    def _return(self, answer: HTTPAnswer, slot: Slot, request: bytes) -> None:
        faults, delay = self.faults, LATENCY
        if self._cut("responses") or faults.happens("lost", "response"):
            return
        if faults.happens("reset", "response"):
            self.world.after(delay, lambda: slot.fail("connection reset"))
            return
        response = HTTPResponse(answer.status, answer.body, answer.content_type, _retry_after(answer), ())
        if faults.happens("half"):
            response = HTTPResponse(answer.status, answer.body[: len(answer.body) // 2], answer.content_type)
        elif faults.happens("forged"):
            response = HTTPResponse(500, forgery(faults.chance.random(), request), "application/soap+xml")
        elif faults.happens("status"):
            status = (302, 500, 503, 502, 404)[int(faults.chance.random() * 5)]
            response = HTTPResponse(status, b"<html>no</html>", "text/html", 1.0 if status == 503 else None)
        if faults.happens("delay", "response"):
            delay += 15.0 * 10 ** (2 * faults.chance.random() - 1)
        self.world.after(delay, lambda: slot.give(response))


@dataclass(frozen=True, slots=True)
class Line:
    """`castile.transport.http.HTTP` over the virtual network."""

    network: Network
    process: Process

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        return self.network.exchange(self.process, request, timeout)

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        return self.network.exchange(self.process, request, timeout)

    def close(self) -> None:
        """Nothing to close."""


def arrival_of(request: HTTPRequest) -> Arrival:
    """The request as an HTTP server sees it."""
    headers = dict(request.headers)
    content_type, action = headers["Content-Type"], headers.get("SOAPAction")
    if action is None and 'action="' in content_type:
        action = content_type.partition('action="')[2].partition('"')[0]
    return Arrival("/", content_type, action.strip('"') if action else None, charset="utf-8")


FORGERIES = (
    (b"http://docs.oasis-open.org/ws-sx/ws-secureconversation/200512", b"BadContextToken"),
    (b"http://docs.oasis-open.org/ws-sx/ws-secureconversation/200512", b"RenewNeeded"),
    (b"http://docs.oasis-open.org/ws-rx/wsrm/200702", b"SequenceTerminated"),
    (b"http://docs.oasis-open.org/ws-rx/wsrm/200702", b"UnknownSequence"),
    (b"http://schemas.xmlsoap.org/ws/2005/02/sc", b"BadContextToken"),
    (b"http://schemas.xmlsoap.org/ws/2005/02/rm", b"SequenceTerminated"),
)
"""Faults that anybody on the way can write."""


def forgery(chance: float, request: bytes) -> bytes:
    """An unsecured fault that says the worst of the request's sequence or context."""
    namespace, code = FORGERIES[int(chance * len(FORGERIES))]
    soap = b"http://www.w3.org/2003/05/soap-envelope"
    sequence = request.partition(b"<r:Identifier>")[2].partition(b"<")[0]
    detail = b'<r:Identifier xmlns:r="%b">%b</r:Identifier>' % (namespace, sequence)
    return (
        b'<s:Envelope xmlns:s="%b"><s:Header><a:Action xmlns:a="http://www.w3.org/2005/08/addressing">'
        b"http://www.w3.org/2005/08/addressing/fault</a:Action></s:Header><s:Body><s:Fault><s:Code>"
        b'<s:Value>s:Sender</s:Value><s:Subcode><s:Value xmlns:f="%b">f:%b</s:Value></s:Subcode></s:Code>'
        b'<s:Reason><s:Text xml:lang="en">forged</s:Text></s:Reason><s:Detail>%b</s:Detail></s:Fault>'
        b"</s:Body></s:Envelope>" % (soap, namespace, code, detail)
    )


def _retry_after(answer: HTTPAnswer) -> float | None:
    found = dict(answer.headers).get("Retry-After")
    return float(found) if found else None
