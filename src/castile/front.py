"""What `castile.Client` and `castile.AsyncClient` both are: the arguments, the engine, and what each
method does, written once as coroutines (`castile.waiting`)."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal, get_args
from weakref import WeakSet

from cryptography import x509

from castile import store as stores
from castile import xml
from castile.clock import Clock, system
from castile.config import Settings
from castile.credentials import (
    TLS,
    Certificate,
    CertificateSource,
    TrustSource,
    Username,
    check_period,
    load_certificate,
    load_trust,
    resolve,
)
from castile.endpoint import recover, requests
from castile.endpoint.channel import check_address
from castile.endpoint.needs import check_sequences
from castile.endpoint.party import NewId, Party, reliability_log, security_log
from castile.endpoint.reports import report
from castile.endpoint.requests import dismiss, in_doubt, why_in_doubt
from castile.errors import (
    FaultReceived,
    NotReliable,
    PolicyError,
    SequenceUnknown,
    SOAPFault,
    UsageError,
)
from castile.messages import soap
from castile.policy import EndpointPolicy
from castile.policy.lint import check
from castile.previewing import Preview, preview
from castile.protocol import source
from castile.protocol.conversation import Conversation
from castile.pump import Pump
from castile.reading import check_named, held_of
from castile.security.certificates import CertificateKey
from castile.store.records import OutboxRow, ReplyRow, SourceRecord
from castile.target import target
from castile.transport.adapters import adapted, fetching
from castile.transport.carrier import Carrier
from castile.transport.http import HTTP, HTTPClient
from castile.transport.wire import KeyLog, WireLog
from castile.versions import WSSC
from castile.waiting import Apart
from castile.xml import Element

if TYPE_CHECKING:
    from castile.typed.calling import Request

Quality = Literal["in_memory", "durable"]
Body = bytes | Element
Credential = Username | Certificate
Given = Mapping[str, object] | None
"""Arguments by name, for those whose names collide."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that no call was waiting for."""

    message_id: str
    """Of the request."""
    action: str
    body: bytes = field(repr=False)
    fault: SOAPFault | None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A message of this store that isn't done: unanswered, or its reply not yet taken."""

    message_id: str
    action: str
    sequence: str | None
    number: int | None
    reply: Reply | None
    key: str | None = field(default=None, repr=False)
    """The caller's own key of the call."""
    in_doubt: str | None = None
    """Why nobody sends it any more: its sequence has failed, and what became of it isn't known. None:
    it is under way, or answered."""


_clients: Final[WeakSet[Front]] = WeakSet()
"""Those that a child of a fork must not take for its own."""


def _after_fork() -> None:
    for client in tuple(_clients):
        client._forked()


os.register_at_fork(after_in_child=_after_fork)


def _location(quality: str | None, store: str | Path | None) -> str | Path | None:
    """Where the store is that this quality of service needs."""
    if quality == "transactional":
        raise UsageError(
            "quality='transactional' is what a service gives a handler with transactional=True; "
            "a client is 'durable' at most: send_raw commits by itself"
        )
    if quality not in (None, *get_args(Quality)):
        raise UsageError(f"quality={quality!r}: one of {', '.join(get_args(Quality))} is wanted")
    if quality == "durable" and store is None:
        raise UsageError("quality='durable' needs a store: give store= with the path of a file")
    return None if quality == "in_memory" else store


@dataclass(frozen=True, slots=True)
class _Identity:
    """Who we are, and whom we trust: read from files once, when it is first needed."""

    username: tuple[str, str] | None = field(repr=False)
    credential: CertificateKey | None = field(repr=False)
    trust: tuple[x509.Certificate, ...]
    certificate: x509.Certificate | None
    """The service's."""

    @classmethod
    def of(
        cls,
        credentials: Credential | Sequence[Credential] | None,
        trust: TrustSource,
        service_certificate: CertificateSource | None,
    ) -> _Identity:
        username, credential = _credentials(credentials)
        certificate = load_certificate(service_certificate) if service_certificate is not None else None
        return cls(username, credential, load_trust(trust), certificate)

    def service(self, expected: x509.Certificate | None, utc: float) -> x509.Certificate | None:
        """The service's certificate; if none was given, the one that its WSDL says to expect. Raises
        `UsageError` if it or our own one isn't valid at this moment."""
        certificate = self.certificate or expected
        check_period(certificate, "service_certificate=", utc)
        if self.certificate is None and expected is not None:
            check_named(expected, self.trust, utc)
        check_period(self.credential.certificate if self.credential else None, "credentials=", utc)
        return certificate


def own_http(settings: Settings, tls: TLS | ssl.SSLContext | None, clock: Clock) -> HTTPClient:
    """castile's own HTTP client."""
    context = tls.context() if isinstance(tls, TLS) else tls
    return HTTPClient(settings.limits, settings.timers, tls=context, clock=clock)


def _carrying(
    http: object, settings: Settings, tls: TLS | ssl.SSLContext | None, clock: Clock
) -> HTTP:
    """What carries messages: the user's own, or castile's."""
    if http is None:
        return own_http(settings, tls, clock)
    if tls is not None:
        raise UsageError("tls= is for castile's own HTTP client: configure the one in http= itself")
    return adapted(http, settings.limits, clock)


def shows(tls: TLS | ssl.SSLContext | None) -> bool:
    """Whether a certificate of ours is shown in TLS; of an SSLContext nobody knows."""
    return tls is not None and not (isinstance(tls, TLS) and tls.certificate is None)


def _check(address: str, policy: EndpointPolicy, settings: Settings, shown: bool | None) -> None:
    """Whether a client can go to this address under this policy. Raises `PolicyError`.

    `shown`: whether castile's own HTTP client shows a certificate; None: another one is used.
    """
    for switch in settings.insecure:
        security_log.warning("Settings.%s is on, which weakens this client", switch)
    check_address(address, policy, settings)
    check_sequences(policy)
    if policy.tls_client_certificate and shown is False:
        raise PolicyError("the policy wants TLS with your certificate: give tls=castile.TLS(certificate=...)")
    if policy.http_authentication not in (None, "basic") and shown is not None:
        raise PolicyError(
            f"the policy wants HTTP {policy.http_authentication} authentication: give a client that does "
            "it as http="
        )


def _credentials(
    given: Credential | Sequence[Credential] | None,
) -> tuple[tuple[str, str] | None, CertificateKey | None]:
    """The user's name and password, and the certificate and key."""
    rows = () if given is None else (given,) if isinstance(given, Credential) else tuple(given)
    users = [row for row in rows if isinstance(row, Username)]
    certificates = [row for row in rows if isinstance(row, Certificate)]
    if len(users) > 1 or len(certificates) > 1 or len(users) + len(certificates) != len(rows):
        raise UsageError("credentials= takes one castile.Username, one castile.Certificate, or both")
    user = users[0] if users else None
    key, certificate = certificates[0].load() if certificates else (None, None)
    return (
        None if user is None else (user.name, resolve(user.password)),
        None if key is None or certificate is None else CertificateKey(certificate, key),
    )


class Front:
    """A client of one endpoint.

    `address`: the endpoint's URL, or path or URL of a WSDL, of whose `port` and `service` it then
    is a client; `to_alias`: another URL to write as wsa:To. `policy`: what it asks for, where the
    WSDL doesn't say. `validate` "off" takes answers that break the WSDL's schemas.
    `credentials`: who we are; a policy may want a user and a certificate together.
    `service_certificate`: PEM, a file or an `x509.Certificate`; keys are sealed for it, and it may
    sign to us. `trust`: further certificates that may sign for the service, and issuers. `store`:
    a path; without one the quality of service is ``in_memory``. `timeout`: seconds for a call.
    `on_reply`: told of replies that nobody waits for. `http`: another HTTP client, which is its
    owner's to close: of castile's protocol, or a session of requests or httpx. `tls`: what castile's
    own one shows and believes, for https. `random`, `new_id`: sources of random bytes and of
    identifiers, for tests that must repeat.

    Several clients, in as many processes of a machine, may have the same store. One that was made
    before a ``fork()`` works in the child, too, where its first use opens everything anew (CL-30).

    Raises `UsageError` for arguments that don't fit, `StoreError` if the store can't be opened.
    """

    _at_once: ClassVar[bool] = True
    """Whether everything is opened when it is made."""
    _closed = False

    def __init__(
        self,
        address: str | Path,
        *,
        policy: EndpointPolicy | None = None,
        service: str | None = None,
        port: str | None = None,
        validate: Literal["strict", "off"] = "strict",
        credentials: Credential | Sequence[Credential] | None = None,
        trust: TrustSource = (),
        service_certificate: CertificateSource | None = None,
        to_alias: str | None = None,
        store: str | Path | None = None,
        quality: Quality | None = None,
        seal: stores.Seal = None,
        settings: Settings | None = None,
        timeout: float | None = None,
        http: object = None,
        tls: TLS | ssl.SSLContext | None = None,
        on_reply: Callable[[Reply], None] | None = None,
        clock: Clock = system,
        random: Callable[[int], bytes] = os.urandom,
        new_id: NewId | None = None,
    ) -> None:
        policy = None if policy is None else check(policy)
        store = _location(quality, store)
        settings = settings or Settings()
        self._timeout = settings.timers.call_timeout if timeout is None else timeout
        self._http, self._owns_http = _carrying(http, settings, tls, clock), http is None
        self._on_reply = on_reply
        held = held_of(
            credentials, service_certificate=service_certificate is not None, tls_certificate=shows(tls)
        )
        wanted = (str(address), policy, service, port, settings, validate, held, fetching(http))
        self._target = endpoint = cache(partial(target, *wanted))
        identity = cache(partial(_Identity.of, credentials, trust, service_certificate))

        def engine() -> Pump:
            where, who, keylog = endpoint(), identity(), KeyLog.from_environment()
            _check(where.address, where.policy, settings, None if http is not None else shows(tls))
            party = Party(
                side="client",
                address=where.address,
                to_alias=to_alias,
                policy=where.policy,
                certificate=who.service(where.service, clock().utc),
                store=stores.open(store, seal=seal, settings=settings, clock=clock),
                random=random,
                identify=new_id,
                settings=settings,
                clock=clock,
                username=who.username,
                credential=who.credential,
                trust=who.trust,
                keylog=keylog.write if keylog else None,
            )
            return self._started(party)

        self._limits = settings.limits
        self._make_engine = engine
        self._forked()
        if self._at_once:
            self._pump  # noqa: B018 - so that what can't be opened is told here
        _clients.add(self)

    def _started(self, party: Party) -> Pump:
        basic = party.policy.http_authentication == "basic" and self._owns_http
        carrier = Carrier(party, self._http, WireLog.from_environment(), basic=basic)
        pump = Pump(party, carrier, self._hand_over if self._on_reply is not None else None)
        try:
            pump.recover()
        except BaseException:  # nobody will ever close what nobody has
            self._close_http()
            party.store.close()
            raise
        return pump

    def _close_http(self) -> None:
        if self._owns_http:
            self._http.close()

    def _forked(self) -> None:
        """In a new process: nothing of the old one's is used, nor closed."""
        self._engine: Pump | None = None
        self._starting = threading.Lock()

    @property
    def _pump(self) -> Pump:
        """The engine of this process."""
        if self._engine is None:
            with self._starting:
                if self._engine is None:
                    self._engine = self._make_engine()
        return self._engine

    @property
    def _party(self) -> Party:
        return self._pump.party

    @property
    def _store(self) -> stores.Store:
        return self._pump.party.store

    def _sequences(self) -> Pump:
        """The engine, where there are sequences."""
        if self._party.policy.reliability is None:
            raise NotReliable("the endpoint's policy has no reliable messaging, so there is no sequence")
        return self._pump

    async def _call(
        self, action: str, body: Body, key: str | None, timeout: float | None, sequence: str = ""
    ) -> bytes:
        content, seconds = self._content(body), self._timeout if timeout is None else timeout
        if not self._reliable(key):
            return await self._pump.direct(action, content, seconds, two_way=True)
        reply = await self._pump.call(action, content, seconds, key, sequence)
        self._pump.consumed(reply)
        fault = self._fault(reply)
        if fault is not None:
            raise FaultReceived(fault, authenticated=self._party.policy.application is not None)
        return reply.body

    async def _send(self, action: str, body: Body, key: str | None, sequence: str = "") -> None:
        content = self._content(body)
        if self._reliable(key):
            await self._pump.send(action, content, key, sequence)
        else:
            await self._pump.direct(action, content, self._timeout, two_way=False)

    async def _call_typed(
        self,
        operation: str,
        given: Given,
        named: Mapping[str, object],
        key: str | None,
        timeout: float | None,
        sequence: str = "",
    ) -> object:
        request = self._request(operation, given, named, two_way=True)
        try:
            content = await self._call(request.action, request.body, key, timeout, sequence)
        except FaultReceived as fault:
            request.explain(fault)
            raise
        return request.result(content)

    async def _send_typed(
        self, operation: str, given: Given, named: Mapping[str, object], key: str | None, sequence: str = ""
    ) -> None:
        request = self._request(operation, given, named, two_way=False)
        await self._send(request.action, request.body, key, sequence)

    def _preview(self, operation: str, given: Given, named: Mapping[str, object]) -> Preview:
        request = self._request(operation, given, named, two_way=None)
        two_way = request.operation.response is not None
        return preview(self._pump, request.action, self._content(request.body), two_way=two_way)

    def is_one_way(self, operation: str) -> bool:
        """Whether an operation of the WSDL has no answer, so that it is sent, not called."""
        self._pump  # noqa: B018
        return self._target().is_one_way(operation)

    def _request(
        self, operation: str, given: Given, named: Mapping[str, object], *, two_way: bool | None
    ) -> Request:
        self._pump  # noqa: B018 - so that whoever isn't open is told first
        return self._target().request(operation, given, named, two_way=two_way)

    def _preview_raw(self, action: str, body: Body, *, two_way: bool) -> bytes:
        return preview(self._pump, action, self._content(body), two_way=two_way).protected

    async def _unfinished(self) -> list[Unfinished]:
        party = self._party

        def step(tx: stores.Transaction) -> list[Unfinished]:
            open_calls = [
                Unfinished(
                    *(row.message_id, row.action, record.state.identifier, row.number, None, row.key),
                    in_doubt=why_in_doubt(record),
                )
                for record in tx.sources(side=party.side, endpoint=party.realm)
                for row in tx.outbox(record.state.key)
                if row.kind == "application"
            ]
            replied = [
                Unfinished(
                    row.message_id, row.request_action or row.action, None, None, self._reply(row), row.key
                )
                for row in tx.unconsumed(party.realm)
            ]
            return open_calls + replied

        return await self._pump.commit(step)

    async def _take(self, message_id: str) -> None:
        utc = self._pump.now().utc

        def step(tx: stores.Transaction) -> bool:
            return tx.consume(message_id, utc) or dismiss(tx, message_id)

        if not await self._pump.commit(step):
            raise UsageError("there is no such reply, nor a message in doubt, in this store")

    async def _close(self, keep: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if self._engine is None:  # never opened, or made before a fork and never used in the child
            return
        try:
            if not keep:
                await self._finish()
        finally:
            await Apart(self._ended)

    def _ended(self) -> None:
        self._pump.stop()
        self._close_http()
        self._store.close()

    async def _finish(self) -> None:
        pump, timers = self._pump, self._party.settings.timers
        retired = pump.retired
        for name, key in list(pump.keys.items()):
            if not await acknowledged(pump, timers.close_timeout, name):
                self._leave(await pump.commit(lambda tx: tx.outbox(key)))  # noqa: B023 - it runs here
                return
            await pump.finish(key, timers.close_timeout)
        if retired.keys:
            await pump.wait(lambda tx: not retired.waits(tx), pump.now().tick + timers.close_timeout)
        if rows := await pump.commit(retired.in_doubt):
            self._leave(rows)
        await retired.give_back()
        await self._give_back()

    async def _give_back(self) -> None:
        """Cancel the context, if no sequence needs it any more."""
        conversations = self._pump.conversations
        state = conversations.current()
        pending = await self._pump.commit(lambda tx: recover.idle_contexts(self._party, tx, None))
        if state is not None and any(each.identifier == state.identifier for each in pending):
            await conversations.cancel(state)

    def _leave(self, rows: list[OutboxRow]) -> None:
        """Time is up with something unanswered: never silently (RM-134)."""
        doubt = in_doubt("closed without a store while messages were unanswered", rows)
        if self._store.location is None:
            raise doubt
        reliability_log.warning("messages %s stay in the store for the next process", doubt.numbers)

    def _reliable(self, key: str | None) -> bool:
        reliable = self._party.policy.reliability is not None
        if key is not None and not reliable:
            raise NotReliable("key= needs reliable messaging: without it nothing is stored")
        return reliable

    def _content(self, body: Body) -> bytes:
        if self._closed:
            raise UsageError("the client is closed: make another one")
        return xml.canonical_fragment(body, self._limits) if body != b"" else b""

    def _fault(self, reply: ReplyRow) -> SOAPFault | None:
        if not reply.fault:
            return None
        child = xml.parse(reply.body, self._party.settings.limits)
        return soap.read_fault(child, self._party.policy.soap)

    def _reply(self, row: ReplyRow) -> Reply:
        return Reply(row.message_id, row.action, row.body, self._fault(row))

    def _hand_over(self, row: ReplyRow) -> None:
        if self._on_reply is not None:
            self._on_reply(self._reply(row))


class Context:
    """The security context of a client as it is now, under the caller's hand.

    It is established with the first message and renewed by itself while it is in use; this is
    for who wants to look, or to decide himself.
    """

    def __init__(self, pump: Pump, state: Conversation) -> None:
        self._pump = pump
        self._known = state

    @property
    def identifier(self) -> str:
        """Its name on the wire, the same for life."""
        return self._known.identifier

    @property
    def instance(self) -> str | None:
        """The name of its newest key; None before the first renewal."""
        return self._state.current.instance

    @property
    def edition(self) -> str:
        """The edition of WS-SecureConversation, such as ``WS-SC 1.3``."""
        return WSSC[self._known.edition].name

    @property
    def created(self) -> datetime:
        """When its newest key became valid."""
        return datetime.fromtimestamp(self._state.current.created, UTC)

    @property
    def expires(self) -> datetime:
        """When its newest key ends."""
        return datetime.fromtimestamp(self._state.expires, UTC)

    @property
    def principal(self) -> str:
        """Who the bootstrap authenticated; "" for nobody."""
        return self._known.principal

    @property
    def state(self) -> str:
        """``usable``, ``renewing``, ``expired`` or ``cancelled``."""
        return self._pump.conversations.phase(self._state).value

    @property
    def _state(self) -> Conversation:
        record = self._pump.conversations.record(self.identifier)
        if record is not None and isinstance(record.state, Conversation):
            self._known = record.state
        return self._known

    def __repr__(self) -> str:
        return f"<security context {self.identifier}, {self.state}, until {self.expires:%Y-%m-%dT%H:%M:%SZ}>"


async def acknowledged(pump: Pump, timeout: float | None, name: str) -> bool:
    """Whether all that was submitted so far to the sequence of this name is acknowledged, and
    answered, within so many seconds."""
    record = await _record(pump, name)
    highest, key = record.state.highest, record.state.key
    deadline = pump.now().tick + (timeout if timeout is not None else 1e9)

    def ready(tx: stores.Transaction) -> bool:
        current = requests.source_record(tx, key)
        if current.state.phase is source.Phase.FAILED:
            numbers = tuple(current.state.missing.numbers())
            if numbers:
                raise pump.in_doubt(tx, current, numbers)
            return True
        gaps = current.state.acknowledged.gaps(highest)
        return not gaps and not any(row.kind == "application" for row in tx.outbox(key))

    return await pump.wait(ready, deadline)


async def completed(pump: Pump, timeout: float | None, name: str) -> bool:
    """`acknowledged`, then closed and terminated."""
    until = pump.now().tick + (timeout if timeout is not None else 1e9)
    if not await acknowledged(pump, timeout, name):
        return False
    key = (await _record(pump, name)).state.key
    ended = await pump.finish(key, max(0.0, until - pump.now().tick))
    return ended.state.phase is source.Phase.TERMINATED


async def ended(pump: Pump, timeout: float, name: str) -> None:
    """Close and terminate the sequence of this name."""
    await pump.finish((await _record(pump, name)).state.key, timeout)


async def reported(pump: Pump, name: str) -> dict[str, object]:
    """What the sequence of this name is like now."""
    record = await _record(pump, name)
    return await pump.commit(lambda tx: report(tx, record))


async def _record(pump: Pump, name: str) -> SourceRecord:
    key = pump.keys.get(name)
    record = await pump.commit(lambda tx: tx.source(key)) if key else None
    if record is None:
        raise SequenceUnknown("no message was sent yet, so there is no sequence")
    return record
