"""The transports that `zeep.Client` and `zeep.AsyncClient` take (features 7.1)."""

from __future__ import annotations

import ssl
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar
from urllib.parse import urlsplit
from weakref import finalize

import zeep
from zeep.wsa import WsAddressingPlugin
from zeep.wsdl.utils import etree_to_string

from castile import store as stores
from castile.async_client import AsyncClient
from castile.client import Client
from castile.clock import system
from castile.config import Settings
from castile.credentials import TLS, CertificateSource, TrustSource, Username, load_certificate, load_trust
from castile.endpoint.party import reliability_log
from castile.errors import CastileError, FaultReceived, PolicyError, UsageError
from castile.front import Credential, Quality, Reply, own_http, shows
from castile.policy import EndpointPolicy
from castile.policy.description import Description, Operation, Port
from castile.policy.documents import Documents
from castile.policy.wsdl import describe
from castile.reading import certificate_of, check_named, held_of, is_plain, is_unconcerned, policy_of
from castile.transport.adapters import adapted
from castile.transport.documents import Loader
from castile.transport.http import HTTP
from castile.zeep.bindings import BINDINGS, Called, called
from castile.zeep.envelopes import TAKEN, Answer, Asked, answer, fault, taken_apart, username_of
from castile.zeep.inner import AsyncPlain, InnerHTTP, SessionTransport, timed

C = TypeVar("C", Client, AsyncClient)
_key: Final[ContextVar[str | None]] = ContextVar("castile.zeep.key", default=None)
_timeout: Final[ContextVar[float | None]] = ContextVar("castile.zeep.timeout", default=None)


@contextmanager
def key(name: str) -> Iterator[None]:
    """The caller's own key of the call inside: made again with the same key, also by a later process
    on the same store, it returns the stored answer and sends nothing twice (CL-31).

    ::

        with castile.zeep.key("invoice-7"):
            client.service.Transfer(amount=100)
    """
    token = _key.set(name)
    try:
        yield
    finally:
        _key.reset(token)


@dataclass(frozen=True, slots=True)
class _Exchange(Generic[C]):
    """One call, on its way to an endpoint with a policy."""

    client: C
    asked: Asked
    action: str
    one_way: bool
    secured: bool

    def faulted(self, received: FaultReceived) -> Answer:
        """A fault that zeep may raise as its own; one that nobody vouches for is raised as it came."""
        if self.secured and not received.authenticated:
            raise received
        return fault(self.asked.soap, received.fault)


class _Shared(ABC, Generic[C]):
    """What both transports are."""

    binding_classes = BINDINGS

    def __init__(
        self,
        *,
        credentials: Credential | Sequence[Credential] | None = None,
        trust: TrustSource = (),
        service_certificate: CertificateSource | None = None,
        to_alias: str | None = None,
        policy: EndpointPolicy | None = None,
        store: str | Path | None = None,
        quality: Quality | None = None,
        seal: stores.Seal = None,
        settings: Settings | None = None,
        timeout: float | None = None,
        inner: Any = None,
        session: object = None,
        http: HTTP | None = None,
        tls: TLS | ssl.SSLContext | None = None,
        wsdl: str | Path | bytes | None = None,
        on_reply: Callable[[Reply], None] | None = None,
    ) -> None:
        if sum(each is not None for each in (inner, session, http, tls)) > 1:
            raise UsageError("one of inner=, session=, http= and tls= is enough: each carries messages")
        self._options: dict[str, Any] = {
            "credentials": credentials,
            "trust": trust,
            "service_certificate": service_certificate,
            "to_alias": to_alias,
            "store": store,
            "quality": quality,
            "seal": seal,
            "settings": settings,
            "timeout": timeout,
            "on_reply": on_reply,
        }
        self._settings, self._policy, self._source = settings or Settings(), policy, wsdl
        self._tls, self._own = tls, own_http(self._settings, tls, system)
        self._http = self._carrier(inner, session, http)
        self._inner = inner if inner is not None else self._loader(session)
        self.seen: list[Any] = []
        """zeep's bindings that were parsed through this transport."""
        self._captured: dict[str, bytes] = {}
        self._described: dict[str, Description] = {}
        self._policies: dict[tuple[int, frozenset[str]], EndpointPolicy] = {}
        """By port and the credentials that there are."""
        self._clients: dict[tuple[str, str, Username | None], C] = {}
        """By address, binding, and the user of `wsse=`: nobody's messages go out as another's."""
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def _carrier(self, inner: Any, session: object, http: HTTP | None) -> HTTP:
        """What carries messages to endpoints with a policy."""
        if inner is not None:
            return InnerHTTP(inner, self._settings.limits.message_bytes)
        given = session if session is not None else http
        if given is not None:
            return adapted(given, self._settings.limits)
        return self._own

    @abstractmethod
    def _loader(self, session: object) -> Any:
        """What loads documents, and carries what has no policy, where the user gave no inner transport."""

    # what zeep asks of a transport

    def load(self, url: str) -> bytes:
        """A WSDL or a schema, from the inner transport; kept, since the policy is in it."""
        octets: bytes = self._inner.load(url)
        self._captured[url] = octets
        return octets

    @contextmanager
    def settings(self, timeout: float | None = None) -> Iterator[None]:
        """Another time-out, in seconds, for the calls inside; of this thread or task only."""
        token = _timeout.set(timeout)
        try:
            yield
        finally:
            _timeout.reset(token)

    def __getattr__(self, name: str) -> Any:
        """What else a zeep transport has: `session`, `get`, `cache`, of the inner one."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    # the exchange

    def preview(self, operation: str, *arguments: Any, **named: Any) -> bytes:
        """The message of a call as it would go out now, protected and all, without sending it, taking
        a number or asking for a context: those in it are made up (CL-10).

        `operation` is one of the WSDLs that were loaded through this transport, of the last that has
        it. Raises `UsageError` if there is none of that name.
        """
        for binding in reversed(self.seen):
            if operation not in getattr(binding, "_operations", {}):
                continue
            call = Called(None, binding, operation)
            ports = (each for each in self._description(call).ports if each.binding == binding.name.text)
            port = next(ports, None)
            if port is None:  # a binding that no port offers
                continue
            envelope = binding.get(operation).create(*arguments, **named).content
            exchange = self._exchange(call, port.address, envelope)
            if exchange is None:
                octets: bytes = etree_to_string(envelope)
                return octets
            action, body = exchange.action, exchange.asked.body
            return exchange.client._preview_raw(action, body, two_way=not exchange.one_way)
        raise UsageError(f"no WSDL that this transport has loaded has an operation {operation!r}")

    def _exchange(self, call: Called | None, address: str, envelope: Any) -> _Exchange[C] | None:
        """What is to be sent, and by which client; None: nothing governs it, zeep's message goes as
        it is."""
        target = self._target(call, address, envelope)
        if target is None:
            return None
        port, operation = target
        credentials, certificate = self._options["credentials"], self._options["service_certificate"]
        username = None if credentials is not None else username_of(envelope)
        certificate = certificate_of(port) if certificate is None else certificate
        policy = self._policy_of(port, credentials or username, certificate is not None)
        if is_plain(policy):
            return None
        asked = taken_apart(envelope, self._settings.limits)
        self._warn(call, asked)
        secured = policy.application is not None or bool(policy.messages)
        action = operation.action if policy.addressed else operation.soap_action or ""
        credential = {"credentials": credentials or username, "service_certificate": certificate}
        client = self._client((address, port.binding, username), policy, credential)
        return _Exchange(client, asked, action, operation.one_way, secured)

    def _target(self, call: Called | None, address: str, envelope: Any) -> tuple[Port, Operation] | None:
        """The port and the operation that are called; None where no policy governs any."""
        description = self._description(call)
        version = envelope.tag.partition("}")[0].removeprefix("{")
        ports = [each for each in description.ports if each.soap.namespace == version]
        if call is not None:
            ports = [each for each in ports if each.binding == call.binding.name.text] or ports
        ports = [each for each in ports if each.address == address] or ports
        body = next(iter(envelope.find(f"{{{version}}}Body")), None)
        name = None if body is None else body.tag
        for port in ports:
            for operation in port.operations:
                if operation.name == call.operation if call is not None else operation.body == name:
                    return port, operation
        if self._policy is None and is_unconcerned(description):
            return None
        raise PolicyError(
            f"{description.location}: no port has an operation whose Body holds {name}: give the "
            "service's own WSDL as wsdl= to castile's transport"
        )

    def _description(self, call: Called | None) -> Description:
        """What the WSDL says that the program's client was made from."""
        location = "" if call is None else call.wsdl.location or f"<document {id(call.wsdl)}>"
        with self._lock:
            known = self._described.get(location)
            if known is None:
                known = self._described[location] = describe(self._documents(call, location))
            return known

    def _documents(self, call: Called | None, location: str) -> Documents:
        hosts: list[str] = [urlsplit(each).netloc.rpartition("@")[2] for each in self._captured]
        listed = [*filter(None, hosts), *self._settings.documents_from]
        loader = Loader(fetch=self._fetched, allow=listed)
        if self._source is not None:
            return loader.load(self._source)
        if location in self._captured:
            return loader.load(self._captured[location], location)
        if call is not None:  # a file object, which zeep has read itself
            return loader.load(etree_to_string(call.binding.root))
        raise PolicyError(
            "this zeep.Client was made from a Document that another transport has loaded, so its policy "
            "isn't known: give the WSDL to castile's transport too, as wsdl="
        )

    def _fetched(self, url: str) -> bytes:
        if url not in self._captured:
            self.load(url)
        return self._captured[url]

    def _policy_of(self, port: Port, credentials: Any, certificate: bool) -> EndpointPolicy:
        held = frozenset(
            held_of(credentials, service_certificate=certificate, tls_certificate=shows(self._tls))
        )
        known = self._policies.get((id(port), held))
        if known is None:
            known = self._policies[id(port), held] = policy_of(port, self._policy, held, self._settings)
        return known

    def _client(
        self, which: tuple[str, str, Username | None], policy: EndpointPolicy, credential: dict[str, Any]
    ) -> C:
        with self._lock:
            found = self._clients.get(which)
            if found is None:
                options = self._options | credential
                named = options["service_certificate"]
                if self._options["service_certificate"] is None and named is not None:
                    check_named(load_certificate(named), load_trust(options["trust"]), system().utc)
                found = self._made(which[0], policy=policy, http=self._http, **options)
                self._clients[which] = found
            return found

    @abstractmethod
    def _made(self, address: str, **options: Any) -> C: ...

    def _warn(self, call: Called | None, asked: Asked) -> None:
        """Say once what becomes of plug-ins that do castile's work (CL-11)."""
        if asked.username is not None:
            taken = self._options["credentials"] is None
            what = "the UsernameToken of wsse= is taken as credentials=" if taken else (
                "the UsernameToken of wsse= is left out: credentials= is what castile sends"
            )
            self._tell(f"{what}; remove wsse=")
        plugins = call.client.plugins if call is not None and call.client is not None else ()
        if any(isinstance(each, WsAddressingPlugin) for each in plugins):
            self._tell("WsAddressingPlugin does nothing here: castile writes the addressing headers")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            warnings.warn(text, UserWarning, stacklevel=8)

    def _plainly(self) -> Any:
        """The inner transport, with the time-out of `settings`."""
        return timed(self._inner, _timeout.get())

    def _settled(self, address: str, envelope: Any, response: Any) -> Any:
        """The plain answer to a one-way message, as zeep understands it."""
        if response.status_code not in (200, 204) or response.content:
            return response
        target = self._target(called(), address, envelope)
        return TAKEN if target is not None and target[1].one_way else response


class Transport(_Shared[Client]):
    """The transport for `zeep.Client`: one argument, and the policy of the WSDL is kept.

    ::

        client = zeep.Client(wsdl, transport=castile.zeep.Transport(
            credentials=castile.Username("ada", "secret"), store="transfers.db"))

    `credentials`, `trust`, `service_certificate`, `to_alias`, `store`, `quality`, `seal`, `settings`,
    `timeout`, `tls` and `on_reply` are those of `castile.Client`. `policy`: in place of the WSDL's own.
    `inner`: a zeep transport that loads documents and carries messages; `session`: a
    ``requests.Session`` or ``httpx.Client`` that does, and isn't changed; `http`: another client of
    castile's protocol. `wsdl`: where the policy is, for a `zeep.Client` that is made from a Document.

    One transport serves any number of clients and endpoints, with and without a policy, and is safe
    to share between threads.
    """

    def _loader(self, session: object) -> Any:
        if session is None:
            return zeep.Transport()
        return SessionTransport(session, self._http, self._settings.timers.call_timeout)

    def _made(self, address: str, **options: Any) -> Client:
        client = Client(address, **options)
        finalize(self, _closed, client)
        return client

    def post_xml(self, address: str, envelope: Any, headers: dict[str, str]) -> Any:
        """One call: zeep's envelope in, an answer that zeep can read out."""
        exchange = self._exchange(called(), address, envelope)
        if exchange is None:
            response = self._plainly().post_xml(address, envelope, headers)
            return self._settled(address, envelope, response)
        client, asked = exchange.client, exchange.asked
        try:
            if exchange.one_way:
                client.send_raw(exchange.action, asked.body, key=_key.get())
                return TAKEN
            content = client.call_raw(exchange.action, asked.body, key=_key.get(), timeout=_timeout.get())
        except FaultReceived as received:
            return exchange.faulted(received)
        return answer(asked.soap, content)

    def close(self) -> None:
        """Close and terminate the sequences, give the contexts back, close the stores."""
        for client in list(self._clients.values()):
            client.close()
        self._clients.clear()
        self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncTransport(_Shared[AsyncClient]):
    """The transport for `zeep.AsyncClient`; see `Transport`.

    It needs no httpx. Documents are loaded as zeep loads them: synchronously, when the client is
    made. `session` may be an ``httpx.AsyncClient``.
    """

    def _loader(self, session: object) -> Any:
        return AsyncPlain(session, self._http, self._settings.timers.call_timeout)

    def _made(self, address: str, **options: Any) -> AsyncClient:
        client = AsyncClient(address, **options)
        client._entered = True  # it is opened with its first message, in a thread, or by a preview
        return client

    async def post_xml(self, address: str, envelope: Any, headers: dict[str, str]) -> Any:
        """One call: zeep's envelope in, an answer that zeep can read out."""
        exchange = self._exchange(called(), address, envelope)
        if exchange is None:
            response = await self._plainly().post_xml(address, envelope, headers)
            return self._settled(address, envelope, response)
        client, asked = await exchange.client.__aenter__(), exchange.asked
        try:
            if exchange.one_way:
                await client.send_raw(exchange.action, asked.body, key=_key.get())
                return TAKEN
            content = await client.call_raw(
                exchange.action, asked.body, key=_key.get(), timeout=_timeout.get()
            )
        except FaultReceived as received:
            return exchange.faulted(received)
        return answer(asked.soap, content)

    async def aclose(self) -> None:
        """See `Transport.close`."""
        for client in list(self._clients.values()):
            await client.aclose()
        self._clients.clear()
        self._own.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _closed(client: Client) -> None:
    """At the end of the program, for who didn't close it."""
    try:
        client.close()
    except CastileError as error:
        reliability_log.warning("castile's zeep transport was never closed: %s", error)
