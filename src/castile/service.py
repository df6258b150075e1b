"""A service by its WSDL: security, reliability and the trust service in one ASGI application.

::

    service = castile.Service("bank.wsdl", credentials=castile.Certificate("bank.p12", "env:BANK"),
                              users={"ada": "secret"}, store="bank.db")

    @service.operation
    def Transfer(debtor, creditor, amount): ...

    app = service.asgi()          # uvicorn main:app

Without a WSDL, `policy=` says what it asks for, and `Service.raw` takes messages by their action.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial as bound
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from castile import store as stores
from castile.clock import Clock, system
from castile.config import Settings
from castile.credentials import Certificate, TrustSource, load_trust
from castile.endpoint import handlers
from castile.endpoint.channel import over_tls
from castile.endpoint.choosing import choose
from castile.endpoint.deliver import Dispatcher, Handler, HandlerFunction
from castile.endpoint.inbound import (
    Around,
    Inbound,
    addressed,
    claimed_message_id,
    log_refusal,
    opened,
    receive,
)
from castile.endpoint.keyring import Users
from castile.endpoint.needs import check_service
from castile.endpoint.outbound import Pending, Reply, fault_message, prepare
from castile.endpoint.party import NewId, Party, reliability_log, security_log
from castile.endpoint.replies import acknowledgement_reply
from castile.errors import PeerError, Retry, SecurityFailure, StoreError, UsageError
from castile.messages.addressing import reference_headers
from castile.messages.soap import Envelope
from castile.policy.words import words
from castile.ports import PortPolicies, addresses, offers, plain_twins, publisher
from castile.security.keys import ContextKey
from castile.store import Store, Transaction
from castile.transport.asgi import Application, Arrival, HTTPAnswer, busy
from castile.transport.labels import check_charset, check_label, labelled
from castile.transport.wire import KeyLog, WireLog

if TYPE_CHECKING:
    from castile.typed.operations import Allow, Function, Hook, Operations
    from castile.typed.publishing import Publisher

F = TypeVar("F", bound=HandlerFunction)
G = TypeVar("G", bound="Function")
H = TypeVar("H", bound="Hook")


class Service:
    """The ports of a WSDL, offered; or one endpoint without any.

    `wsdl`: the path of the contract, whose imports are files beside it. `policy`: what it asks
    for; several, where it takes several editions or bootstraps: then the namespaces of a message
    choose (F31); or by the names of the WSDL's ports, of which only those are offered then. By
    default what the WSDL says. `validate` "off" takes messages that break the WSDL's schemas, for
    peers that know no better; `partial` lets operations be without a function. `rm_only` False takes
    messages outside of sequences too, where the policy is a reliable one (F25).

    `credentials`: its certificate and key. `users`: passwords by name, or a function of a name and
    a password. `trust`: certificates that may sign to it, and issuers that vouch for others.
    `store`: a path; without one nothing survives the process. `public_url`: the address as clients
    know it; a message to another one is refused then. `random`, `new_id`: sources of random bytes
    and of identifiers, for tests that must repeat. Raises `PolicyError` where the policy needs what
    is missing, `UsageError` for a WSDL that can't be served.
    """

    def __init__(
        self,
        wsdl: str | Path | None = None,
        *,
        policy: PortPolicies = None,
        validate: Literal["strict", "off"] = "strict",
        partial: bool = False,
        rm_only: bool = True,
        credentials: Certificate | None = None,
        users: Users | None = None,
        trust: TrustSource = (),
        store: str | Path | None = None,
        public_url: str | None = None,
        seal: stores.Seal = None,
        settings: Settings | None = None,
        clock: Clock = system,
        random: Callable[[int], bytes] = os.urandom,
        new_id: NewId | None = None,
    ) -> None:
        self._settings = settings or Settings()
        self._operations = None if wsdl is None else _operations(wsdl, self._settings, validate)
        self._partial = partial
        contract = self._operations.contract if self._operations else None
        self._offers = offers(policy, contract, self._settings.ignore_assertions)
        if not rm_only:
            self._offers += plain_twins(self._offers)
        self._trust = load_trust(trust)
        policies = [offer.policy for offer in self._offers]
        check_service(policies, certificate=credentials is not None, trust=bool(self._trust), users=users)
        self._credentials, self._users = credentials, users
        self._random, self._new_id = random, new_id
        self._public_url, self._location, self._seal, self._clock = public_url, store, seal, clock
        self._handlers: dict[str, Handler] = {}
        self._parties: tuple[Party, ...] = ()
        self._publisher: Publisher | None = None
        self._paths: dict[str | None, tuple[Party, ...]] = {}
        self._dispatcher: Dispatcher | None = None
        self._wire = WireLog.from_environment()

    def raw(
        self, action: str, *, transactional: bool = False, one_way: bool | None = None
    ) -> Callable[[F], F]:
        """Handle messages with this wsa:Action: ``handler(body)`` or ``handler(body, ctx)``.

        The body is the canonical content of the Body; bytes that are returned are the reply's.
        `transactional`: the handler runs inside the store's own transaction (`ctx.transaction`),
        so its effects happen exactly once (N11); it must be a plain function. `one_way`: whether
        messages are answered, which otherwise each says with its ReplyTo; with False one without a
        ReplyTo is answered too, as WS-Addressing 1.0 has it and gSOAP's clients expect.
        """

        def register(function: F) -> F:
            if action in self._handlers:
                raise UsageError(f"there is a handler for {action!r} already")
            self._handlers[action] = Handler(action, function, transactional, one_way)
            return function

        return register

    @overload
    def operation(self, function: G) -> G: ...
    @overload
    def operation(
        self, *, name: str | None = None, transactional: bool = False, allow: Allow | None = None
    ) -> Callable[[G], G]: ...
    def operation(
        self,
        function: G | None = None,
        *,
        name: str | None = None,
        transactional: bool = False,
        allow: Allow | None = None,
    ) -> G | Callable[[G], G]:
        """Let a function be the WSDL's operation of its name, or of `name`.

        It takes the operation's values by name, and `ctx`, a `RequestContext`, if it has such a
        parameter; it returns the response's value, and may be a coroutine. `castile.Fault` is its
        answer where it raises that; of anything else that it raises the caller hears nothing but an
        identifier, which the log has. `transactional` as in `raw`; `allow` says whether a principal
        may call it. Raises `UsageError` for an
        operation that the WSDL hasn't, and for other parameters than its.
        """

        def register(given: G) -> G:
            from castile.typed.operations import Offered

            offered = Offered(given, transactional, allow)
            self._typed("operation").add(name or given.__name__, offered)
            return given

        return register if function is None else register(function)

    def before(self, hook: H) -> H:
        """Have `hook` called with a `Call` before each operation; `castile.Fault` refuses it."""
        self._typed("before").before.append(hook)
        return hook

    def after(self, hook: H) -> H:
        """Have `hook` called with a `Call` and its result after each operation that has one."""
        self._typed("after").after.append(hook)
        return hook

    def _typed(self, what: str) -> Operations:
        if self._operations is None:
            raise UsageError(f"Service.{what} needs a WSDL: castile.Service('file.wsdl', ...)")
        return self._operations

    def asgi(self, *, health: str | None = None) -> Application:
        """The ASGI 3 application: mount it, or give it to uvicorn.

        `health`: a path, such as ``/health``, where GET says whether messages can be taken: 200, or
        503, with JSON.
        """
        describes = self._operations is not None or health is not None
        return Application(
            self.receive,
            limits=self._settings.limits,
            timers=self._settings.timers,
            start=self.start,
            stop=self.stop,
            metadata=bound(self.describe, health=health) if describes else None,
            trusted_proxies=self._settings.trusted_proxies,
        )

    @property
    def settings(self) -> Settings:
        """Its limits and timers."""
        return self._settings

    @property
    def location(self) -> str | Path | None:
        """Where its store is; None: in memory."""
        return self._location

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of the WSDL's operations; none without a WSDL."""
        return () if self._operations is None else self._operations.names

    def offered(self, base: str) -> list[tuple[str, str]]:
        """The URL of each port of a service at `base`, and what it asks for, in words."""
        return [
            (each.address(self._public_url or base), "; ".join(words(each.policy))) for each in self._offers
        ]

    @property
    def store(self) -> Store:
        """The open store."""
        return self._running()[0][0].store

    async def start(self) -> None:
        """Open the store and take up what an earlier process left (ST-30)."""
        if self._parties:
            return
        for switch in self._settings.insecure:
            security_log.warning("Settings.%s is on, which weakens this service", switch)
        handlers = self._handlers | self._functions()
        public = self._public_url
        key, certificate = self._credentials.load() if self._credentials else (None, None)
        keylog = KeyLog.from_environment()
        store = stores.open(self._location, seal=self._seal, settings=self._settings, clock=self._clock)
        parties = tuple(
            Party(
                side="service",
                address=(url := None if public is None else offer.address(public)) or offer.path or "/",
                public_url=url,
                policy=offer.policy,
                store=store,
                random=self._random,
                identify=self._new_id,
                settings=self._settings,
                clock=self._clock,
                certificate=certificate,
                key=key,
                users=self._users,
                trust=self._trust,
                answers=bound(_answers, handlers),
                implied=offer.implied,
                keylog=keylog.write if keylog else None,
            )
            for offer in self._offers
        )
        dispatcher = Dispatcher(parties, handlers)
        dispatcher.loop = asyncio.get_running_loop()
        self._parties, self._dispatcher = parties, dispatcher
        for party, offer in zip(parties, self._offers, strict=True):
            self._paths[offer.path] = (*self._paths.get(offer.path, ()), party)
        store.watch(dispatcher.noticed)
        try:
            await asyncio.wrap_future(dispatcher.recover())
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Let running handlers finish, then close the store; the rest stays in it."""
        if not self._parties or self._dispatcher is None:
            return
        party, dispatcher = self._parties[0], self._dispatcher
        self._parties, self._dispatcher, self._paths = (), None, {}
        await asyncio.to_thread(dispatcher.stop, self._settings.timers.drain)
        await asyncio.to_thread(party.store.close)

    async def receive(self, payload: bytes, arrival: Arrival) -> HTTPAnswer:
        """The walk in, for one HTTP exchange."""
        exchange = self._wire.exchange() if self._wire else None
        if exchange is not None:
            exchange.request(payload)
        answer = await self._answer(payload, arrival)
        if exchange is not None:
            exchange.response(answer.body)
        return answer

    async def describe(self, arrival: Arrival, *, health: str | None = None) -> HTTPAnswer | None:
        """The WSDL of the running service, for ``?wsdl`` and ``?singleWsdl`` (SV-08), and its health."""
        if health is not None and arrival.path == health:
            return await self._health()
        if self._operations is None:
            return None
        if self._publisher is None:
            self._publisher = publisher(self._operations.contract, self._offers)
        if not any(offer.path in (None, arrival.path) for offer in self._offers):
            return None
        public = self._public_url
        base, path = (arrival.mount or "", arrival.path) if public is None else (public, "")
        here = next(each.address(base, path) for each in self._offers if each.path in (None, arrival.path))
        found = self._publisher.document(arrival.query, here, addresses(self._offers, base, path))
        return None if found is None else HTTPAnswer(200, found, "text/xml; charset=utf-8")

    async def _health(self) -> HTTPAnswer:
        """Whether messages can be taken: it runs, and its store answers."""
        said = "answers"
        try:
            if not self._parties:
                said = "closed"
            else:
                await asyncio.wrap_future(self.store.run(lambda tx: tx.count_destinations("service")))
        except StoreError as error:
            reliability_log.error("not healthy: %s", error)
            said = "fails"
        ready = said == "answers"
        text = json.dumps({"ready": ready, "store": said})
        return HTTPAnswer(200 if ready else 503, text.encode(), "application/json")

    async def _answer(self, payload: bytes, arrival: Arrival) -> HTTPAnswer:
        parties, dispatcher = self._running(arrival.path)
        if not parties:
            return HTTPAnswer(404)
        party, inbound = labelled(parties, arrival), None
        with_addresses, relates_to = party.policy.addressed, None
        try:
            check_charset(arrival, payload)
            envelope = opened(payload, self._settings.limits)
            fitting = choose(parties, envelope)
            party = fitting[0]
            with_addresses = addressed(envelope, party.policy)
            relates_to = claimed_message_id(envelope, party.policy.addressing)
            check_label(arrival, envelope)
            tls = over_tls(self._settings, tls=arrival.secure, local=arrival.local)
            around = Around(request=True, tls=tls, label=arrival.soap_action)
            party, inbound = _read(fitting, envelope, around)
            reply = await self._accept(party, dispatcher, inbound)
        except PeerError as error:
            log_refusal(error)
            if isinstance(error, SecurityFailure) and error.missing_key:
                inbound = None  # the key that was proved protects nothing any more
            key = inbound.verified.reply_key if inbound else None
            reply = Reply(fault_message(party, error.fault, relates_to=relates_to, key=key), 500)
        except StoreError as error:
            reliability_log.error("the store refuses, so the message is refused: %s", error)
            return busy(5)
        except Retry as retry:  # of a message outside any sequence: its sender must come again
            return busy(retry.after_seconds)
        if reply.message is not None and not with_addresses:
            reply = replace(reply, message=replace(reply.message, addressed=False))
        return self._render(party, reply, inbound)

    def _functions(self) -> dict[str, Handler]:
        """The operations' handlers, by action. Raises `UsageError` where operations have none."""
        if self._operations is None:
            return {}
        if not self._partial and (missing := self._operations.missing):
            raise UsageError(
                f"operations without a function: {', '.join(missing)}; write them with "
                "@service.operation, or say partial=True"
            )
        return self._operations.handlers()

    async def _accept(self, party: Party, dispatcher: Dispatcher, inbound: Inbound) -> Reply:
        """One step in the store; then, where the application must answer, its reply."""
        now, sequence = party.now(), inbound.reliability.sequence
        waiter: Future[Reply] | None = None

        def step(tx: Transaction) -> handlers.Outcome:
            nonlocal waiter
            outcome = handlers.accept(party, tx, inbound, now)
            if sequence is not None and isinstance(outcome.answer, Pending):
                # Only now that the message has proven who sends it, and before its handler can end.
                waiter = dispatcher.expect(sequence.identifier, sequence.number)
            return outcome

        try:
            accepted = party.store.run(step)
            # In the order of the commits, and also if this exchange is broken off meanwhile.
            accepted.add_done_callback(dispatcher.start_accepted)
            outcome = await asyncio.wrap_future(accepted)
            if isinstance(outcome.answer, Reply):
                return outcome.answer
            if sequence is None:
                return await asyncio.wrap_future(dispatcher.call(outcome.deliveries[0]))
            awaited = asyncio.wrap_future(waiter) if waiter else None
            if outcome.elsewhere:
                with dispatcher.elsewhere(party, outcome.answer.sequence, outcome.answer.number):
                    return await self._reply(party, outcome.answer, awaited)
            return await self._reply(party, outcome.answer, awaited)
        finally:
            if sequence is not None and waiter is not None:
                dispatcher.forget(sequence.identifier, sequence.number, waiter)

    async def _reply(self, party: Party, pending: Pending, waiter: asyncio.Future[Reply] | None) -> Reply:
        """The handler's reply, or the acknowledgement alone if it takes too long (RM-102)."""
        if waiter is not None:
            done, _ = await asyncio.wait({waiter}, timeout=self._settings.timers.reply_wait)
            if done:
                return waiter.result()
        edition = party.policy.reliability
        record = await asyncio.wrap_future(party.store.run(lambda tx: tx.destination(pending.sequence)))
        if record is None or edition is None:
            return Reply.nothing()
        return acknowledgement_reply(record, edition)

    def _render(self, party: Party, reply: Reply, inbound: Inbound | None) -> HTTPAnswer:
        """Protect the answer afresh, under the key that its request proved."""
        if reply.message is None:
            return HTTPAnswer(reply.status)
        message = reply.message
        if message.key is None and inbound is not None:
            # A fault of the bootstrap goes out unsecured, as WCF's do: its key is for one answer.
            key = inbound.verified.reply_key
            fault = message.unsecured and not isinstance(key, ContextKey) and party.policy.has_contexts
            if key is not None and not fault:
                message = replace(message, key=key, unsecured=False)
        if inbound is not None:
            message = replace(message, confirm=inbound.verified.values, asked=inbound.addressing.action)
            if message.relates_to is not None:
                copied = reference_headers(inbound.addressing, inbound.edition, fault=reply.status == 500)
                message = replace(message, headers=message.headers + copied)
        protected = prepare(party, message, party.now())
        content_type = f"{party.policy.soap.content_type}; charset=utf-8"
        return HTTPAnswer(reply.status, protected.payload, content_type)

    def _running(self, path: str | None = None) -> tuple[tuple[Party, ...], Dispatcher]:
        """The parties at a path, or all of them."""
        if not self._parties or self._dispatcher is None:
            raise UsageError("the service isn't started: run service.asgi() under an ASGI server")
        if path is None or None in self._paths:
            return self._parties, self._dispatcher
        return self._paths.get(path, ()), self._dispatcher


def _operations(wsdl: str | Path, settings: Settings, validate: str) -> Operations:
    """The contract's operations; zeep is loaded only where there is a WSDL."""
    from castile.transport.documents import Loader
    from castile.typed.contract import read
    from castile.typed.operations import Operations

    documents = Loader(allow=settings.documents_from).load(wsdl)
    return Operations(read(documents), settings.limits, validate)


def _answers(handlers: Mapping[str, Handler], action: str) -> bool | None:
    """Whether the application says that it answers an action."""
    handler = handlers.get(action)
    return None if handler is None or handler.one_way is None else not handler.one_way


def _read(parties: Sequence[Party], envelope: Envelope, around: Around) -> tuple[Party, Inbound]:
    """The message, under the first policy that it satisfies; else the first one's refusal."""
    first: PeerError | None = None
    for party in parties:
        try:
            inbound = receive(party, envelope, party.now(), around)
        except PeerError as error:
            first = first or error
            continue
        if inbound.problem is None or party is parties[-1]:
            return party, inbound
    raise first or UsageError("no policy")
