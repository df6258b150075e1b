"""The client of one endpoint.

::

    with castile.Client("https://bank.example/Transfers", policy=castile.EndpointPolicy.of("1.3"),
                        credentials=castile.Username("ada", "secret"), service_certificate="bank.pem",
                        store="transfers.db") as client:
        answer = client.call_raw("urn:bank/Transfer", b"<Transfer xmlns='urn:bank'>...</Transfer>")
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, get_args
from weakref import WeakSet

from castile import store as stores
from castile import xml
from castile.clock import Clock, system
from castile.commands import cancel_context
from castile.config import Settings
from castile.credentials import (
    Certificate,
    CertificateSource,
    TrustSource,
    Username,
    load_certificate,
    load_trust,
    resolve,
)
from castile.endpoint import recover
from castile.endpoint.party import NewId, Party, reliability_log
from castile.endpoint.reports import report
from castile.endpoint.requests import dismiss, in_doubt, why_in_doubt
from castile.errors import (
    FaultReceived,
    NotReliable,
    SequenceUnknown,
    SOAPFault,
    UsageError,
)
from castile.messages import soap
from castile.policy import EndpointPolicy
from castile.protocol import source
from castile.protocol.conversation import Conversation
from castile.pump import Pump
from castile.security.certificates import CertificateKey
from castile.store.records import OutboxRow, ReplyRow, SourceRecord
from castile.transport.carrier import Carrier
from castile.transport.http import HTTP, HTTPClient
from castile.transport.wire import KeyLog, WireLog
from castile.versions import WSSC
from castile.xml import Element

Quality = Literal["in_memory", "durable"]
Body = bytes | Element
Credential = Username | Certificate


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


_clients: Final[WeakSet[Client]] = WeakSet()
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


class Client:
    """A client of one endpoint, safe to share between threads.

    `address`: the endpoint's URL; `to_alias`: another one to write as wsa:To. `policy`: what it asks
    for. `credentials`: who we are; a policy may want a user and a certificate together.
    `service_certificate`: PEM, a file or an `x509.Certificate`; keys are sealed for it, and it may
    sign to us. `trust`: further certificates that may sign for the service, and issuers. `store`:
    a path; without one the quality of service is ``in_memory``. `timeout`: seconds for a call.
    `on_reply`: told of replies that nobody waits for. `http`: another HTTP client. `random`,
    `new_id`: sources of random bytes and of identifiers, for tests that must repeat.

    Several clients, in as many processes of a machine, may have the same store. One that was made
    before a ``fork()`` works in the child, too, where its first use opens everything anew (CL-30).

    Raises `UsageError` for arguments that don't fit, `StoreError` if the store can't be opened.
    """

    def __init__(
        self,
        address: str,
        *,
        policy: EndpointPolicy,
        credentials: Credential | Sequence[Credential] | None = None,
        trust: TrustSource = (),
        service_certificate: CertificateSource | None = None,
        to_alias: str | None = None,
        store: str | Path | None = None,
        quality: Quality | None = None,
        seal: stores.Seal = None,
        settings: Settings | None = None,
        timeout: float | None = None,
        http: HTTP | None = None,
        on_reply: Callable[[Reply], None] | None = None,
        clock: Clock = system,
        random: Callable[[int], bytes] = os.urandom,
        new_id: NewId | None = None,
    ) -> None:
        store = _location(quality, store)
        settings = settings or Settings()
        username, credential = _credentials(credentials)
        self._timeout = settings.timers.call_timeout if timeout is None else timeout
        keylog, trusted = KeyLog.from_environment(), load_trust(trust)
        certificate = load_certificate(service_certificate) if service_certificate is not None else None
        self._http = http or HTTPClient(settings.limits, settings.timers, clock=clock)
        self._on_reply = on_reply

        def engine() -> Pump:
            party = Party(
                side="client",
                address=address,
                to_alias=to_alias,
                policy=policy,
                store=stores.open(store, seal=seal, settings=settings, clock=clock),
                random=random,
                identify=new_id,
                settings=settings,
                clock=clock,
                certificate=certificate,
                username=username,
                credential=credential,
                trust=trusted,
                keylog=keylog.write if keylog else None,
            )
            carrier = Carrier(party, self._http, WireLog.from_environment())
            pump = Pump(party, carrier, self._hand_over if on_reply is not None else None)
            try:
                pump.recover()
            except BaseException:  # nobody will ever close what nobody has
                self._http.close()
                party.store.close()
                raise
            return pump

        self._limits = settings.limits
        self._make_engine = engine
        self._closed = False
        self._forked()
        self._pump  # noqa: B018 - so that what can't be opened is told here
        _clients.add(self)

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

    @property
    def sequence(self) -> ClientSequence:
        """The default sequence. Raises `NotReliable` where the policy has none."""
        if self._party.policy.reliability is None:
            raise NotReliable("the endpoint's policy has no reliable messaging, so there is no sequence")
        return ClientSequence(self._pump)

    @property
    def context(self) -> ClientContext | None:
        """The security context of this client; None before the first message."""
        state = self._pump.conversations.current()
        return ClientContext(self._pump, state) if state is not None else None

    def call_raw(
        self, action: str, body: Body, *, key: str | None = None, timeout: float | None = None
    ) -> bytes:
        """Send a request and wait for its reply: the canonical content of its Body.

        `key`: the caller's own key of this call. Made again with the same key, in this process
        or a later one on the same store, it returns the stored reply or waits for the message
        that is under way, and sends nothing a second time (CL-31).

        Raises `UsageError` for a key with another action or body, `FaultReceived` for a fault,
        `InDoubt` (with the number; an unauthenticated fault is its ``__cause__``) at the time-out,
        `TransportError` if not even a security context could be had in time.
        """
        content, seconds = self._content(body), self._timeout if timeout is None else timeout
        if not self._reliable(key):
            return self._pump.direct(action, content, seconds, two_way=True)
        reply = self._pump.call(action, content, seconds, key)
        self._pump.consumed(reply)
        fault = self._fault(reply)
        if fault is not None:
            raise FaultReceived(fault, authenticated=self._party.policy.application is not None)
        return reply.body

    def send_raw(self, action: str, body: Body, *, key: str | None = None) -> None:
        """Send a one-way message; returns once it is durable, before the network is touched.

        `key`: the caller's own key of this message: sent again with the same key, in this process
        or a later one on the same store, nothing goes out a second time (CL-31).

        Raises `UsageError` for a key with another action or body, `InDoubt` where an earlier
        message with this key has failed for good: the key is free again then.
        """
        content = self._content(body)
        if self._reliable(key):
            self._pump.send(action, content, key)
        else:
            self._pump.direct(action, content, self._timeout, two_way=False)

    def unfinished(self) -> list[Unfinished]:
        """What an earlier process, or a call that timed out, left in this store."""
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

        return self._store.run(step).result()

    def take(self, message_id: str) -> None:
        """A reply of `unfinished`, or a message in doubt, has been dealt with: it is listed no more.

        Raises `UsageError` if there is none, or if the message is still under way.
        """
        utc = self._pump.now().utc

        def step(tx: stores.Transaction) -> bool:
            return tx.consume(message_id, utc) or dismiss(tx, message_id)

        if not self._store.run(step).result():
            raise UsageError("there is no such reply, nor a message in doubt, in this store")

    def close(self, *, keep: bool = False) -> None:
        """Close and terminate the sequence, cancel the context, close the store.

        With `keep`, and where something is unanswered, everything stays in the store for the
        next process. A second call does nothing.
        """
        if self._closed:
            return
        self._closed = True
        if self._engine is None:  # of a client that was made before a fork and never used in the child
            return
        try:
            if not keep:
                self._finish()
        finally:
            self._pump.stop()
            self._http.close()
            self._store.close()

    def _finish(self) -> None:
        timers, key = self._party.settings.timers, self._pump.key
        if key is not None:
            sequence = ClientSequence(self._pump)
            if not sequence.wait_until_acknowledged(timers.close_timeout):
                rows = self._store.run(lambda tx: tx.outbox(key)).result()
                self._leave(rows)
                return
            self._pump.finish(key, timers.close_timeout)
        retired = self._pump.retired
        if retired.keys:
            self._pump.wait(lambda: not retired.waits(), self._pump.now().tick + timers.close_timeout)
        if rows := retired.in_doubt():
            self._leave(rows)
        retired.give_back()
        self._give_back()

    def _give_back(self) -> None:
        """Cancel the context, if no sequence needs it any more."""
        state = self._pump.conversations.current()
        pending = self._party.run(lambda tx: recover.idle_contexts(self._party, tx, None))
        if state is not None and any(each.identifier == state.identifier for each in pending):
            self._pump.conversations.cancel(state)

    def _leave(self, rows: list[OutboxRow]) -> None:
        """Time is up with something unanswered: never silently (RM-134)."""
        doubt = in_doubt("closed without a store while messages were unanswered", rows)
        if self._store.location is None:
            raise doubt
        reliability_log.warning("messages %s stay in the store for the next process", doubt.numbers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep=error is not None)

    def _reliable(self, key: str | None) -> bool:
        reliable = self._party.policy.reliability is not None
        if key is not None and not reliable:
            raise NotReliable("key= needs reliable messaging: without it nothing is stored")
        return reliable

    def _content(self, body: Body) -> bytes:
        if self._closed:
            raise UsageError("the client is closed: make another one")
        return xml.canonical_fragment(body, self._limits)

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


class ClientContext:
    """``client.context``: the security context as it is now, under the caller's hand.

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

    def renew(self) -> None:
        """A new key, now (WS-SC 1.4, 5): same identifier, sequences go on.

        Raises `SecurityContextExpired` where there is nothing to renew, `PolicyError`, `FaultReceived`,
        `SecurityFailure` or `TransportError` as the bootstrap does: then the old key goes on.
        """
        self._pump.conversations.renew(self.identifier)

    def cancel(self, *, force: bool = False) -> None:
        """Give it back (WS-SC 1.4, 6): from now on it is good for nothing.

        Raises `UsageError` while a sequence is bound to it, unless `force`: then these sequences
        fail, and what is not acknowledged in them is in doubt. The next message makes a new one.
        """
        cancel_context(self._pump, self.identifier, force=force)

    @property
    def _state(self) -> Conversation:
        record = self._pump.conversations.record(self.identifier)
        if record is not None and isinstance(record.state, Conversation):
            self._known = record.state
        return self._known

    def __repr__(self) -> str:
        return f"<security context {self.identifier}, {self.state}, until {self.expires:%Y-%m-%dT%H:%M:%SZ}>"


class ClientSequence:
    """``client.sequence``: the default sequence under the caller's hand (features 4.10)."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def wait_until_acknowledged(self, timeout: float | None = None) -> bool:
        """True once every message submitted so far is acknowledged and every call answered.

        False at the time-out (seconds; None: for ever), with nothing changed. Raises `InDoubt`
        with the numbers, and the digests of what is in them, if the sequence failed.
        """
        record = self._record()
        highest = record.state.highest
        deadline = self._pump.now().tick + (timeout if timeout is not None else 1e9)

        def ready() -> bool:
            current = self._record()
            if current.state.phase is source.Phase.FAILED:
                numbers = tuple(current.state.missing.numbers())
                if numbers:
                    raise self._pump.in_doubt(current, numbers)
                return True
            gaps = current.state.acknowledged.gaps(highest)
            return not gaps and not self._pump.run(
                lambda tx: any(row.kind == "application" for row in tx.outbox(current.state.key))
            )

        return self._pump.wait(ready, deadline)

    def wait_until_completed(self, timeout: float | None = None) -> bool:
        """`wait_until_acknowledged`, then close and terminate it, all in `timeout` seconds.

        True once it is terminated: nothing of it is left but that it was. False at the time-out.
        """
        until = self._pump.now().tick + (timeout if timeout is not None else 1e9)
        if not self.wait_until_acknowledged(timeout):
            return False
        key = self._record().state.key
        ended = self._pump.finish(key, max(0.0, until - self._pump.now().tick))
        return ended.state.phase is source.Phase.TERMINATED

    def close(self, timeout: float = 30.0) -> None:
        """Close and terminate it: no more messages. Raises `UsageError` while messages are
        unacknowledged."""
        self._pump.finish(self._record().state.key, timeout)

    def report(self) -> dict[str, object]:
        """Its state, numbers, acknowledgements and last error (RM-132), ready for JSON."""
        record = self._record()
        return self._pump.run(lambda tx: report(tx, record))

    def _record(self) -> SourceRecord:
        key = self._pump.key
        record = self._pump.run(lambda tx: tx.source(key)) if key else None
        if record is None:
            raise SequenceUnknown("no message was sent yet, so there is no sequence")
        return record


__all__ = ["Client", "ClientContext", "ClientSequence", "Reply", "Unfinished"]
