"""The walk to the application.

One handler at a time for an in-order sequence, in a bounded pool of threads; coroutines run on
the service's loop. The reply and the mark "done" are one commit; only then is the newest HTTP
exchange that waits for this number woken, and an older one told to come back.

Of several processes on one store, one at a time hands on the messages of a sequence; what another
has accepted meanwhile it finds when it has done those before. A reply that is waited for here and
made there is looked for when the store has changed.

A handler that was running, or may have been, when its process died runs again, in whichever
process takes over, and sees `RequestContext.redelivered`. A transactional one runs inside the
store's own transaction, so its effects, its reply and the mark are one commit and happen exactly
once (features 4.9).
"""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from castile.endpoint import commands, recover
from castile.endpoint.handlers import Delivery, Outcome, delivery_of
from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Outgoing, Reply
from castile.endpoint.party import Party, reliability_log
from castile.endpoint.replies import number_reply, stored_reply
from castile.endpoint.turn import action_not_supported
from castile.errors import (
    CastileError,
    Fault,
    Malformed,
    Retry,
    SOAPFault,
    StoreBusy,
    StoreError,
    StoreFull,
    UsageError,
)
from castile.messages import soap
from castile.store import Sign, Transaction
from castile.store.application import ApplicationConnection
from castile.xml import Element, canonical, canonical_fragment, parse

Body = bytes | Element
T = TypeVar("T")
PARKED = math.inf
"""The queue of this sequence stands still until an operator decides."""
HandlerFunction = Callable[..., "Body | Coroutine[object, object, Body | None] | None"]


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What a handler is told beside the body (``ctx``)."""

    principal: str | None
    """Who the bootstrap authenticated (CO-20)."""
    sequence: str | None
    number: int | None
    message_id: str | None
    action: str
    redelivered: bool
    """An earlier run of this message may have been cut off by a crash."""
    transaction: ApplicationConnection | None = None
    """The store's own transaction, for a transactional handler (N11)."""
    operation: str | None = None
    """Its name in the WSDL; None for a handler of raw messages."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A function of the application for one action."""

    action: str
    function: HandlerFunction
    transactional: bool = False
    one_way: bool | None = None
    """None: as each message asks, by its ReplyTo."""
    answer: str | None = None
    """wsa:Action of its answers; None: the request's with Response."""
    takes_context: bool = field(init=False)
    asynchronous: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "asynchronous", inspect.iscoroutinefunction(self.function))
        object.__setattr__(self, "takes_context", len(inspect.signature(self.function).parameters) > 1)
        if self.transactional and self.asynchronous:
            raise UsageError(
                f"the handler of {self.action!r} is a coroutine and can't be transactional: it would hold "
                "the store's transaction across awaits; make it a plain function"
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler gave: a body, a fault, or nothing."""

    action: str
    body: bytes = field(default=b"", repr=False)
    fault: bool = False


Finished = tuple[Reply | None, Delivery | None]
"""Its reply, and the message that comes next in its sequence."""


class Dispatcher:
    """Runs handlers, and wakes who waits for their replies."""

    def __init__(self, parties: Sequence[Party], handlers: dict[str, Handler]) -> None:
        """`parties`: the service's, which share store and settings."""
        self._parties = parties
        self._party = party = parties[0]
        self._handlers = handlers
        self._pool = ThreadPoolExecutor(party.settings.max_concurrency, "castile-handler")
        self._lock = threading.Lock()
        self._queues: dict[str, deque[Delivery]] = {}
        self._waiting: dict[tuple[str, int], Future[Reply]] = {}
        self._parked: set[str] = set()
        """Sequences whose queue stands still until an operator decides."""
        self._elsewhere: dict[tuple[str, int], Party] = {}
        """Those whose reply another process makes."""
        self._direct_calls = 0
        """Messages outside any sequence whose handler waits or runs."""
        self._ending = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where coroutine handlers run."""

    def expect(self, sequence: str, number: int) -> Future[Reply]:
        """Wait for the reply to this number. Who waited before gets 202: only the newest
        exchange is sure to be still open."""
        future: Future[Reply] = Future()
        with self._lock:
            older = self._waiting.get((sequence, number))
            self._waiting[sequence, number] = future
        if older is not None and not older.done():
            older.set_result(Reply.nothing())
        return future

    def forget(self, sequence: str, number: int, future: Future[Reply]) -> None:
        """This exchange waits no longer."""
        with self._lock:
            if self._waiting.get((sequence, number)) is future:
                del self._waiting[sequence, number]

    def recover(self) -> Future[None]:
        """Start what dead processes left; nothing of a sequence in which a message is parked."""
        done: Future[None] = Future()

        def taken(step: Future[tuple[tuple[Delivery, ...], frozenset[str]]]) -> None:
            error = step.exception()
            if error is not None:
                reliability_log.error("what other processes left can't be taken over: %s", error)
                done.set_exception(error)
                return
            left, parked = step.result()
            if left:
                reliability_log.warning("%s messages of another process are delivered again", len(left))
            if parked:
                reliability_log.warning("%s sequences wait behind a parked message", len(parked))
            with self._lock:
                for sequence in parked:
                    self._queues.setdefault(sequence, deque())
                self._parked |= parked
            self.start(left)
            self._attend()
            done.set_result(None)

        step = self._party.store.run(lambda tx: recover.interrupted_deliveries(self._parties, tx))
        step.add_done_callback(taken)
        return done

    def noticed(self, sign: Sign) -> None:
        """The store has seen something of other processes."""
        if self._ending.is_set():
            return
        if sign is Sign.DIED:
            self._take_over()
            return
        if self._elsewhere:
            self._look()
        self._attend()

    def _take_over(self) -> None:
        """`recover`, and again soon where the store can't do it now."""

        if self._ending.is_set():
            return

        def recovered(done: Future[None]) -> None:
            if done.exception() is not None:
                again = threading.Timer(self._party.settings.timers.handler_backoff, self._take_over)
                again.daemon = True
                again.start()

        self.recover().add_done_callback(recovered)

    def _attend(self) -> None:
        """Carry out what was asked from outside."""
        self._party.store.run(self._obey).add_done_callback(self._obeyed)

    def _obey(self, tx: Transaction) -> list[Delivery]:
        """Carry out what an operator asks; what is to be handed on by that."""
        party, now, ready = self._party, self._party.now(), []
        for command in tx.commands("service", party.realm):
            owner = commands.target(tx, command)
            others = {each.id for each in tx.owners() if each.ended is None} - {tx.owner}
            if owner in others and command.kind == "sequence":
                continue
            try:
                done, refused = commands.carry_out(tx, command, now), False
            except CastileError as error:
                done, refused = commands.Done(str(error)), True
            tx.carried_out(command.id, now.utc, done.text, refused=refused)
            reliability_log.warning("%s of %s: %s", command.verb, command.target, done.text)
            if done.ready is not None:
                ready += recover.deliveries(self._parties, tx, done.ready)
        return ready

    def _obeyed(self, step: Future[list[Delivery]]) -> None:
        if step.exception() is None:
            with self._lock:  # those that stood still behind a parked message
                for delivery in step.result():
                    queue = self._queues.get(delivery.sequence or "")
                    if queue is not None and delivery.sequence in self._parked:
                        del self._queues[delivery.sequence or ""]
                        self._parked.discard(delivery.sequence)
            self.start(tuple(step.result()))

    @contextmanager
    def elsewhere(self, party: Party, sequence: str, number: int) -> Iterator[None]:
        """While another process makes the reply that is waited for here."""
        with self._lock:
            self._elsewhere[sequence, number] = party
        self._look()  # it may have come before anybody looked
        try:
            with party.store.awaits():
                yield
        finally:
            with self._lock:
                self._elsewhere.pop((sequence, number), None)

    def _look(self) -> None:
        """Give the replies that other processes have made to who waits here."""
        with self._lock:
            wanted = dict(self._elsewhere)

        def made(tx: Transaction) -> list[tuple[str, int, Reply]]:
            found = []
            for (sequence, number), party in wanted.items():
                row, record = tx.reply_to(sequence, number), tx.destination(sequence)
                if row is not None and record is not None:
                    found.append((sequence, number, stored_reply(party, tx, record, row)))
            return found

        def give(step: Future[list[tuple[str, int, Reply]]]) -> None:
            if step.exception() is None:
                for sequence, number, reply in step.result():
                    self._wake(sequence, number, reply)

        self._party.store.run(made).add_done_callback(give)

    def start(self, deliveries: tuple[Delivery, ...]) -> None:
        """Queue what a step released, in its order."""
        for delivery in deliveries:
            if delivery.sequence is None:
                continue
            with self._lock:
                queue = self._queues.get(delivery.sequence)
                idle = queue is None
                if queue is None:
                    queue = self._queues[delivery.sequence] = deque()
                if all(each.number != delivery.number for each in queue):
                    queue.append(delivery)
            if idle:
                self._submit(delivery.sequence)

    def start_accepted(self, accepted: Future[Outcome]) -> None:
        """`start` for a step that has committed."""
        if not accepted.cancelled() and accepted.exception() is None:
            self.start(accepted.result().deliveries)

    def call(self, delivery: Delivery) -> Future[Reply]:
        """Run the handler of a message outside any sequence; its reply is not stored.

        Raises `Retry` where too many wait already.
        """
        settings = self._party.settings
        with self._lock:
            if self._direct_calls >= settings.max_concurrency + settings.max_queue:
                raise Retry
            self._direct_calls += 1
        call = self._pool.submit(self._direct, delivery)
        call.add_done_callback(self._called)
        return call

    def _called(self, _: Future[Reply]) -> None:
        with self._lock:
            self._direct_calls -= 1

    def stop(self, drain_seconds: float) -> None:
        """Let running handlers finish, for at most this long; queued ones stay in the store."""
        with self._lock:
            self._ending.set()
        waiting = threading.Thread(
            target=self._pool.shutdown, kwargs={"wait": True, "cancel_futures": True}, daemon=True
        )
        waiting.start()
        waiting.join(drain_seconds)

    def _submit(self, sequence: str) -> None:
        with self._lock:
            if not self._ending.is_set():
                self._pool.submit(self._work, sequence)

    def _work(self, sequence: str) -> None:
        while not self._ending.is_set():
            with self._lock:
                queue = self._queues[sequence]
                if not queue:
                    del self._queues[sequence]
                    return
                delivery = queue[0]
            try:
                delay = self._deliver(delivery)
            except CastileError as error:  # its row can't be read or written: its sequence stops
                reliability_log.error("message %s of %s stands still: %s", delivery.number, sequence, error)
                return
            if delay == PARKED:
                with self._lock:
                    self._parked.add(sequence)
                return  # the queue stays, so nothing is started behind it: the order holds
            if delay is not None:
                retry = threading.Timer(delay, self._submit, (sequence,))
                retry.daemon = True
                with self._lock:
                    queue[0] = replace(delivery, attempts=delivery.attempts + 1)
                retry.start()
                return
            with self._lock:
                queue.popleft()

    def _deliver(self, delivery: Delivery) -> float | None:
        """Run one handler and commit what came of it; seconds to wait if it must run again."""
        handler = self._handlers.get(delivery.action)
        try:
            if handler is not None and handler.transactional:
                _, (reply, following) = self._run_transaction(handler, delivery)
            else:
                answer = self._run(handler, delivery, None)
                reply, following = self._commit(lambda tx: self._finish(tx, delivery, answer))
        except Retry as retry:
            return retry.after_seconds
        except (StoreFull, StoreBusy) as error:  # a transaction that never was
            reliability_log.warning("a delivery waits for the store: %s", error)
            return self._party.settings.timers.handler_backoff
        except _Failed as failed:
            return self._again_or_park(delivery, failed)
        if following is not None:
            self._follow(following)
        if reply is not None:
            self._wake(delivery.sequence or "", delivery.number or 0, reply)
        return None

    def _follow(self, following: Delivery) -> None:
        """What another process has accepted comes next, before what was queued here."""
        with self._lock:
            queue = self._queues[following.sequence or ""]
            if all(each.number != following.number for each in queue):
                queue.insert(1, following)

    def _commit(self, step: Callable[[Transaction], T]) -> T:
        """Commit what came of a handler. It has run and must not run again for want of room: a
        full disk is waited for."""
        while True:
            try:
                return self._party.run(step)
            except (StoreFull, StoreBusy) as error:
                reliability_log.warning("a handler's answer waits for the store: %s", error)
                if self._ending.wait(self._party.settings.timers.handler_backoff):
                    raise

    def _run_transaction(self, handler: Handler, delivery: Delivery) -> tuple[Answer | None, Finished]:
        """Effects, reply and the mark in one commit; a fault undoes the effects first."""

        def step(tx: Transaction) -> tuple[Answer | None, Finished]:
            answer = self._run(handler, delivery, tx.connection)
            if answer is not None and answer.fault:
                raise _Undo(answer)
            return answer, self._finish(tx, delivery, answer)

        seconds = self._party.settings.timers.handler_seconds
        try:
            return self._party.store.run(step, exclusive=True, seconds=seconds).result()
        except _Undo as undo:
            answer = undo.answer
        except (StoreFull, StoreBusy):
            raise
        except StoreError as error:  # too long, or it broke the transaction: as if it had raised
            answer = self._broke(delivery, error)
        return answer, self._commit(lambda tx: self._finish(tx, delivery, answer))

    def _run(
        self, handler: Handler | None, delivery: Delivery, transaction: ApplicationConnection | None
    ) -> Answer | None:
        """The handler's answer, also where nobody waits for it; None: it has nothing to say.

        `Retry` goes through. Any other exception is the answer to a request; a one-way message
        has nobody to tell, so it runs again (RM-121).
        """
        if handler is None:
            reliability_log.warning("there is no handler for %s", delivery.action)
            return _fault(action_not_supported(delivery.party, delivery.action), delivery)
        context = RequestContext(
            delivery.principal,
            delivery.sequence,
            delivery.number,
            delivery.message_id,
            delivery.action,
            delivery.redelivered,
            transaction,
        )
        try:
            result = self._call(handler, delivery.body, context)
            if not delivery.two_way:
                return None
            action = handler.answer or f"{delivery.action}Response"
            return Answer(action, self._canonical(handler, result))
        except Retry:
            raise
        except Fault as fault:
            return self._declared(fault, delivery)
        except Exception as error:
            if transaction is not None and isinstance(error, StoreFull | StoreBusy):
                raise
            return self._broke(delivery, error)

    def _declared(self, fault: Fault, delivery: Delivery) -> Answer:
        """The fault that a handler chose."""
        if fault.declared is not None:
            return self._broke(delivery, UsageError("a handler of raw messages has no declared faults"))
        detail = fault.fault.detail
        if detail:
            try:
                root = parse(b"<detail>%b</detail>" % detail, self._party.settings.limits)
            except Malformed as error:
                return self._broke(delivery, error)
            detail = b"".join(canonical(child) for child in root)
        return _fault(replace(fault.fault, detail=detail), delivery)

    def _broke(self, delivery: Delivery, error: Exception) -> Answer:
        """The answer to whoever waits, without the reason; for a one-way message `_Failed`."""
        incident = self._party.new_id("incident")
        reliability_log.error("the handler of %s failed (%s)", delivery.action, incident, exc_info=error)
        if not delivery.two_way and delivery.sequence is not None:
            raise _Failed(incident) from error
        text = f"The service failed; its log has the reason as {incident}."
        return _fault(SOAPFault("Receiver", text), delivery)

    def _canonical(self, handler: Handler, body: object) -> bytes:
        """What a handler returned, as it is signed and sent."""
        if body is None or body == b"":
            return b""
        if not isinstance(body, bytes | Element):
            name = type(body).__name__
            wanted = "bytes of XML, an element or None is wanted"
            raise UsageError(f"the handler of {handler.action!r} returned {name}: {wanted}")
        return canonical_fragment(body, self._party.settings.limits)

    def _call(self, handler: Handler, body: bytes, context: RequestContext) -> object:
        arguments = (body, context) if handler.takes_context else (body,)
        result = handler.function(*arguments)
        if not inspect.iscoroutine(result):
            return result
        if self.loop is None:
            return asyncio.run(result)
        return asyncio.run_coroutine_threadsafe(result, self.loop).result()

    def _finish(self, tx: Transaction, delivery: Delivery, answer: Answer | None) -> Finished:
        """The reply and the mark "done", in one step (DESIGN 4); and what comes next."""
        if delivery.sequence is None or delivery.number is None:
            return None, None
        reply = number_reply(delivery.party, tx, delivery, answer if delivery.two_way else None)
        with self._lock:
            known = [each.number for each in self._queues.get(delivery.sequence, ())]
        if delivery.number + 1 in known or not tx.owner:
            return reply, None
        undone = tx.inbox(sequence=delivery.sequence, limit=1)
        ready = undone and undone[0].status == "ready"
        return reply, delivery_of(delivery.party, undone[0]) if ready else None

    def _direct(self, delivery: Delivery) -> Reply:
        handler = self._handlers.get(delivery.action)
        if handler is not None and handler.transactional:
            answer, _ = self._run_transaction(handler, delivery)
        else:
            answer = self._run(handler, delivery, None)
        if answer is None:
            return Reply.nothing()
        message = Outgoing(Kind.APPLICATION, answer.action, answer.body, relates_to=delivery.message_id)
        return Reply(message, 500 if answer.fault else 200)

    def _again_or_park(self, delivery: Delivery, failed: _Failed) -> float | None:
        settings = self._party.settings
        attempts = delivery.attempts + 1
        parked = attempts >= settings.handler_attempts
        sequence, number = delivery.sequence or "", delivery.number or 0

        def note(tx: Transaction) -> None:
            tx.update_inbox(
                sequence,
                number,
                attempts=attempts,
                status="parked" if parked else "ready",
                last_error=f"{type(failed.__cause__).__name__} ({failed})",
            )

        self._commit(note)
        if not parked:
            return float(settings.timers.handler_backoff * 2 ** (attempts - 1))
        reliability_log.error(
            "message %s of %s failed %s times and is parked; later ones of its sequence wait behind it",
            number,
            sequence,
            attempts,
        )
        return PARKED

    def _wake(self, sequence: str, number: int, reply: Reply) -> None:
        with self._lock:
            future = self._waiting.pop((sequence, number), None)
        if future is not None and not future.done():
            future.set_result(reply)


def _fault(fault: SOAPFault, delivery: Delivery) -> Answer:
    policy = delivery.party.policy
    action = fault.action or policy.addressing.soap_fault_action
    return Answer(action, soap.render_fault(fault, policy.soap), fault=True)


class _Failed(Exception):
    """A one-way handler raised."""


class _Undo(Exception):
    """Rolls a transactional handler's effects back; its fault is the answer all the same."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer
