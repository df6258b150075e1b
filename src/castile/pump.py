"""The client's engine: contexts, sequences and every attempt at a message.

The caller's own thread sends its own message. The pump's thread, started when there is
something that nobody waits for, does the rest: repetitions, what an earlier process left,
closing. It stops with the client.

A row is leased while an exchange is open, which suspends its timer. Due times run on the tick
clock and are stored as UTC, so a jump of the wall clock changes no repetition (RM-61).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from castile import commands
from castile.clock import Now
from castile.conversations import Conversations, held
from castile.doubts import Doubts
from castile.endpoint import answers, requests
from castile.endpoint.answers import Answered
from castile.endpoint.inbound import Confirmations, Inbound, log_refusal, read
from castile.endpoint.outbound import Outgoing, prepare
from castile.endpoint.party import Party, reliability_log
from castile.endpoint.requests import in_doubt
from castile.errors import (
    CastileError,
    Exchange,
    FaultReceived,
    InDoubt,
    PeerError,
    SecurityContextExpired,
    SequenceCreationFailed,
    StoreError,
    TransportError,
    UsageError,
)
from castile.plain import exchange
from castile.protocol import source
from castile.retired import Retired
from castile.security.keys import ContextKey
from castile.security.pipeline import Protected
from castile.siblings import Siblings
from castile.store import Sign, Transaction
from castile.store.records import OutboxRow, ReplyRow, SourceRecord
from castile.transport.carrier import Carrier

T = TypeVar("T")
_CLOSED: Final = "the client was closed before its reply came"
WORKERS: Final = 16
"""Threads for what nobody waits for: an exchange may stay open for a reply."""
SPARE: Final = 4
"""And those for the oldest message of each sequence. A peer that delivers in order may answer
nothing until the one that is missing comes: its repetition can't wait for a thread (RM-57)."""


@dataclass(frozen=True, slots=True)
class _Own:
    """A message that its caller sends itself."""

    row: OutboxRow
    outgoing: Outgoing | None
    """None: it can't go yet."""


@dataclass(slots=True)
class Pump:
    """Everything of a client that moves."""

    party: Party
    carrier: Carrier
    on_reply: Callable[[ReplyRow], None] | None = None
    key: str | None = None
    """The default sequence of this process."""
    conversations: Conversations = field(init=False)
    retired: Retired = field(init=False)
    doubts: Doubts = field(init=False)
    siblings: Siblings = field(init=False)
    _creating: threading.Lock = field(default_factory=threading.Lock)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _leasing: threading.Lock = field(default_factory=threading.Lock)
    _starting: threading.Lock = field(default_factory=threading.Lock)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _wake: threading.Event = field(default_factory=threading.Event)
    _leased: set[str] = field(default_factory=set)
    _sending: set[str] = field(default_factory=set)
    """Those of them that the pool has."""
    _waiting: dict[str, list[Future[ReplyRow]]] = field(default_factory=dict)
    _faults: dict[str, FaultReceived] = field(default_factory=dict)
    _thread: threading.Thread | None = None
    _pool: ThreadPoolExecutor | None = None
    _stopping: bool = False
    _origin: Now | None = None

    def __post_init__(self) -> None:
        self.conversations = Conversations(self.party, self.carrier, self.now, self._background)
        self.retired = Retired(self.party, self.conversations, self.now)
        self.doubts = Doubts(self.party, self.conversations, self.now, self.retire, self.tell_failed)
        self.siblings = Siblings(self.party, self._rouse)

    def now(self) -> Now:
        """This moment on a UTC that doesn't jump: ticks since the pump began."""
        return self._steady(self.party.now())

    def _steady(self, moment: Now) -> Now:
        if self._origin is None:
            self._origin = moment
        return Now(self._origin.at(moment.tick), moment.tick)

    def run(self, step: Callable[[Transaction], T]) -> T:
        """One step of the store, committed."""
        return self.party.run(step)

    def recover(self) -> None:
        """Take over what an earlier process left in the store, and watch those beside this one."""
        reliable = self.party.policy.reliability is not None
        if reliable:
            self.party.store.watch(self.siblings.noticed)
        if self.retired.recover():
            self._start()
        if reliable:
            self.siblings.noticed(Sign.CHANGED)  # something may have been asked meanwhile

    # messages

    def sequence(self) -> str:
        """The default sequence, made in the store if there is none that takes messages."""
        while True:
            with self._lock:
                now, stale = self.now(), self.key

                def step(tx: Transaction) -> str | None:
                    record = tx.source(stale) if stale else None  # noqa: B023 - it runs before the next turn
                    if record is not None and self._takes(record):
                        return record.state.key
                    if record is not None and self._retirable(record):
                        return None
                    record = requests.new_sequence(self.party, tx, now)  # noqa: B023
                    if not self.retired.clear.is_set():
                        for row in tx.outbox(record.state.key):
                            tx.update_outbox(row.message_id, due=None)
                    return record.state.key

                key = self.run(step)
                if key is not None:
                    self.key = key
                    return key
            self.retire(stale or "")

    def _takes(self, record: SourceRecord) -> bool:
        """Whether a sequence takes new messages: its context must be good for them (F12)."""
        state = record.state
        if state.key in self.retired.keys:
            return False
        if state.phase is source.Phase.OPEN:
            return self.conversations.serves(state.context)
        return state.phase is source.Phase.CREATING

    def _retirable(self, record: SourceRecord) -> bool:
        return record.state.phase is source.Phase.OPEN and record.state.key not in self.retired.keys

    def retire(self, key: str) -> None:
        """A sequence takes nothing new any more: what is in it is finished (F12, CO-16)."""
        self.retired.add(key)
        self._rouse()

    def send(self, action: str, body: bytes, call: str | None = None) -> None:
        """Number a one-way message and make it durable; with the key of an earlier one, nothing.

        Raises `InDoubt` where the earlier one has failed: then its key is free again.
        """
        now = self.now()

        def earlier(tx: Transaction) -> OutboxRow | ReplyRow | None:
            return requests.call_again(self.party, tx, call, action, body, two_way=False) if call else None

        def step(tx: Transaction, key: str) -> OutboxRow | ReplyRow:
            known = earlier(tx)
            return known or requests.submit(
                self.party, tx, key, action, body, now, two_way=False, own=False, call=call
            )

        with self._freeing(call):
            found = (self.run(earlier) if call else None) or self._numbered(step)
            self._rouse()
            if call and isinstance(found, OutboxRow):
                self._check_failed(found)

    def call(self, action: str, body: bytes, timeout: float, call: str | None = None) -> ReplyRow:
        """Send a message and wait for its reply; with the key of an earlier `call`, for its reply.

        Raises `InDoubt` at the time-out, with the number; the message stays in the outbox. An
        unauthenticated fault is told only then, as its cause (CO-14): whoever made it, the message
        may have been handled, or may still be. Where the sequence has failed, the key is free again
        once that is told.
        """
        with self._freeing(call):
            return self._call(action, body, timeout, call)

    def _call(self, action: str, body: bytes, timeout: float, call: str | None) -> ReplyRow:
        deadline = self.now().tick + timeout
        future: Future[ReplyRow] = Future()
        if call is not None:
            again = self.run(lambda tx: self._again(tx, call, action, body, future))
            if again is not None:
                return self._joined(again, future, deadline, timeout)
        self.conversations.identify(deadline)
        now = self.now()

        def step(tx: Transaction, key: str) -> OutboxRow | ReplyRow | _Own:
            # Once more, in the step that submits: another thread may have come first.
            known = self._again(tx, call, action, body, future) if call is not None else None
            if known is not None:
                return known
            row = requests.submit(self.party, tx, key, action, body, now, two_way=True, own=True, call=call)
            self._waiting[row.message_id] = [future]
            self._leased.add(row.message_id)
            return _Own(row, self._rendered(tx, row, now))

        found = self._numbered(step)
        if not isinstance(found, _Own):
            return self._joined(found, future, deadline, timeout)
        row = found.row
        try:
            if found.outgoing is not None or self._open(row.sequence_key or "", deadline):
                self._attempt(row, deadline, found.outgoing)
        except TransportError as error:
            reliability_log.info("message %s waits for its sequence: %s", row.number, error)
        except UsageError:
            if not self._stopping:
                raise
            raise self._doubt(row, _CLOSED) from None
        finally:
            self._leased.discard(row.message_id)
        return self._joined(row, future, deadline, timeout)

    def _numbered(self, step: Callable[[Transaction, str], T]) -> T:
        """Number a message in the default sequence: one step, where there is one that takes it."""

        def current(tx: Transaction) -> T | None:
            key = self.key
            record = tx.source(key) if key else None
            if key is None or record is None or not self._takes(record):
                return None
            return step(tx, key)

        while (found := self.run(current)) is None:
            self.sequence()  # which another thread may end meanwhile
        return found

    def _rendered(self, tx: Transaction, row: OutboxRow, now: Now) -> Outgoing | None:
        """The message of a new row, if it can go now; what is in its way its attempt will tell."""
        try:
            return requests.outgoing(self.party, tx, row, now)
        except CastileError:
            return None

    def _again(
        self, tx: Transaction, call: str, action: str, body: bytes, future: Future[ReplyRow]
    ) -> OutboxRow | ReplyRow | None:
        known = requests.call_again(self.party, tx, call, action, body, two_way=True)
        if isinstance(known, OutboxRow):
            self._waiting.setdefault(known.message_id, []).append(future)
        return known

    def _joined(
        self, row: OutboxRow | ReplyRow, future: Future[ReplyRow], deadline: float, timeout: float
    ) -> ReplyRow:
        """Wait for the reply to a message that is under way, here or in another process."""
        if isinstance(row, ReplyRow):
            return row
        try:
            if not future.done():
                self._check_failed(row)
                with self.siblings.joined(row):
                    self._rouse()
                    return future.result(self._left(deadline))
            return future.result(self._left(deadline))
        except TimeoutError:
            fault = self._heard(row)
            raise self._unanswered(row, timeout, fault) from fault
        finally:
            waiting = self._waiting.get(row.message_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiting.pop(row.message_id, None)
                self._faults.pop(row.message_id, None)

    def _check_failed(self, row: OutboxRow) -> None:
        """Raises what there is to tell of a message whose sequence has failed."""
        record = self.run(lambda tx: tx.source(row.sequence_key) if row.sequence_key else None)
        if record is not None and record.state.phase is source.Phase.FAILED:
            raise self._failure(record, row)

    @contextmanager
    def _freeing(self, call: str | None) -> Iterator[None]:
        """A caller who is told that his call has failed for good may use its key anew (CL-31)."""
        try:
            yield
        except (InDoubt, SequenceCreationFailed):
            if call is not None:
                self.run(lambda tx: requests.free_key(self.party, tx, call))
            raise

    def consumed(self, reply: ReplyRow) -> None:
        """The caller has it. Nobody waits for this commit: the next message's may serve."""
        utc = self.now().utc
        self.party.store.run(lambda tx: tx.consume(reply.message_id, utc), patient=True)

    def direct(self, action: str, body: bytes, timeout: float, *, two_way: bool) -> bytes:
        """A message outside any sequence."""
        deadline = self.now().tick + timeout
        return exchange(self.conversations, self.carrier, action, body, deadline, two_way=two_way)

    # attempts

    def _open(self, key: str, deadline: float) -> bool:
        """The sequence exists at the peer. One caller creates it, the others wait for that."""
        if not self.retired.clear.wait(self._left(deadline)):
            return False
        with held(self._creating, self._left(deadline)):
            record, rows = self.run(lambda tx: (requests.source_record(tx, key), tx.outbox(key)))
            if record.state.phase is source.Phase.CREATING:
                create = next((row for row in rows if row.kind == "create"), None)
                if create is not None and self._lease(create.message_id):
                    try:
                        self._attempt(create, deadline)
                    finally:
                        self._leased.discard(create.message_id)
                record = self.run(lambda tx: requests.source_record(tx, key))
        if record.state.phase is source.Phase.FAILED:
            raise SequenceCreationFailed(f"no sequence could be created: {record.state.reason}")
        return record.state.phase is not source.Phase.CREATING

    def _attempt(
        self, row: OutboxRow, deadline: float | None = None, outgoing: Outgoing | None = None
    ) -> None:
        """One exchange for one row: protect afresh, post, read, commit (CO-15).

        A caller who waits until `deadline` isn't held by an exchange that stays open longer.
        `outgoing`: the row's message, where the step that made the row has given it.
        """
        error: str | None = None
        after: float | None = None
        at_once = False
        key: ContextKey | None = None
        try:
            if row.kind == "create" and not self._bound(row, deadline):
                return
            moment = self.party.now()  # one for all that is decided about this attempt
            now = self._steady(moment)
            key = outgoing.key if outgoing is not None and isinstance(outgoing.key, ContextKey) else None
            if outgoing is None or (key is not None and not self.conversations.serves(key.identifier)):
                outgoing = self.run(
                    lambda tx: requests.outgoing(self.party, tx, tx.outbox_row(row.message_id), now)
                )
            if outgoing is None:  # gone, or its sequence isn't created yet: that will wake it
                self.run(lambda tx: tx.update_outbox(row.message_id, due=None))
                return
            if isinstance(outgoing.key, ContextKey):
                key = outgoing.key
                self.conversations.freshen(key.identifier)
            protected = prepare(self.party, outgoing, moment)
            confirmations = self._confirmations(row, protected)
            payload = self.carrier.post(outgoing.action, protected.payload, self._patience(row, deadline))
            if payload is not None:
                self._receive(row, payload, confirmations)
                self.doubts.settled(row.message_id)
                return
            if row.kind == "terminate" and not requests.edition_of(self.party).can_close:
                now = self.now()
                self._tell(self.run(lambda tx: self._terminated(tx, row, now)))
                return
        except TransportError as failure:
            error, after = str(failure), failure.retry_after
        except SecurityContextExpired as failure:
            self._give_up(row, str(failure))
            return
        except FaultReceived as failure:
            error = str(failure)
            self._note(row, failure)
            at_once = key is not None and self.doubts.heard(row, failure, key)
        except PeerError as failure:
            log_refusal(failure)
            error = str(failure)
        now = self.now()
        self.run(
            lambda tx: requests.repeat_later(
                self.party, tx, row.message_id, now, error, after, at_once=at_once
            )
        )
        self._wake.set()

    def _give_up(self, row: OutboxRow, reason: str) -> None:
        now = self.now()
        self.tell_failed(self.run(lambda tx: requests.give_up(tx, row.sequence_key or "", reason, now)))

    def tell_failed(self, record: SourceRecord) -> None:
        """A sequence has failed, and that is committed."""
        self._fail(record)
        with self._changed:
            self._changed.notify_all()
        self._wake.set()

    def _terminated(self, tx: Transaction, row: OutboxRow, now: Now) -> Answered:
        record = requests.source_record(tx, row.sequence_key or "")
        return answers.terminated(tx, record, row, now)

    def _bound(self, row: OutboxRow, deadline: float | None) -> bool:
        """The sequence that this row creates has a security context; False: another row does now."""
        key, now = row.sequence_key or "", self.now()
        context, good = self.run(
            lambda tx: (
                requests.source_record(tx, key).state.context,
                requests.bound(self.party, tx, key, now),
            )
        )
        if good and not self.conversations.abandoned(context):
            return True
        context = self.conversations.identify(now.tick if deadline is None else deadline)
        return self.run(lambda tx: requests.bind(self.party, tx, row, context, now))

    def _note(self, row: OutboxRow, fault: FaultReceived) -> None:
        """Kept for whoever waits for this message, or for its sequence."""
        if row.kind == "create" or row.message_id in self._waiting:
            self._faults[row.message_id] = fault

    def _confirmations(self, row: OutboxRow, protected: Protected) -> Confirmations:
        """What the answer to this attempt may confirm; committed where the policy asks for it."""
        section, values = self.party.policy.application, protected.signature_values
        if section is None or not section.signature_confirmation:
            return (values,)
        return self.run(lambda tx: requests.signed(tx, row.message_id, values))

    def _receive(self, row: OutboxRow, payload: bytes, confirmations: Confirmations) -> None:
        """The walk in, for the answer on this row's exchange."""
        moment = self.party.now()
        inbound: Inbound = read(
            self.party, payload, moment, request=False, confirmations=confirmations
        )
        now = self.now()

        def step(tx: Transaction) -> Answered:
            result = answers.answered(self.party, tx, inbound, row, now)
            if result.fault is None:
                requests.repeat_later(self.party, tx, row.message_id, now, None)
            return result

        result = self.run(step)
        self._tell(result)
        if result.fault is not None:
            raise FaultReceived(result.fault, authenticated=True, exchange=inbound.exchange)

    def _tell(self, result: Answered) -> None:
        """After the commit: wake whoever waits in this process."""
        for reply in result.replies:
            waiting = self._waiting.pop(reply.message_id, None)
            if waiting:
                for future in waiting:
                    future.set_result(reply)
            elif self.on_reply is not None:
                self.on_reply(reply)
                self.consumed(reply)
        if result.source is not None and result.source.state.phase is source.Phase.FAILED:
            self._fail(result.source)
        with self._changed:
            self._changed.notify_all()
        if result.source is not None or self.retired.pending:
            self._wake.set()

    def _fail(self, record: SourceRecord) -> None:
        """Everybody who waits for a reply in this sequence is told, with the number."""
        for row in self.run(lambda tx: tx.outbox(record.state.key)):
            for future in self._waiting.pop(row.message_id, []):
                future.set_exception(self._failure(record, row))

    def _failure(self, record: SourceRecord, row: OutboxRow) -> CastileError:
        """What its caller is told of a message whose sequence has failed."""
        freed = "" if row.key is None else "; its key= is free again"
        if record.state.identifier is None:
            return SequenceCreationFailed(f"no sequence could be created: {record.state.reason}{freed}")
        return self._doubt(row, f"the sequence failed: {record.state.reason}{freed}")

    def _heard(self, row: OutboxRow) -> FaultReceived | None:
        """The unauthenticated fault that answered this message, or the sequence that it waits for."""
        rows = self.run(lambda tx: tx.outbox(row.sequence_key or ""))
        causes = (row.message_id, *(each.message_id for each in rows if each.kind == "create"))
        return next((self._faults[name] for name in causes if name in self._faults), None)

    def _unanswered(self, row: OutboxRow, timeout: float, fault: FaultReceived | None) -> InDoubt:
        current = self.run(lambda tx: tx.outbox_row(row.message_id))
        last = str(fault) if fault else current.last_error if current else None
        why = f"; the last attempt: {last}" if last else ""
        return self._doubt(row, f"no reply within {timeout:g} s{why}; the message stays in the outbox")

    @staticmethod
    def _doubt(row: OutboxRow, text: str) -> InDoubt:
        return in_doubt(f"message {row.number}: {text}", [row], exchange=_exchange(row))

    def in_doubt(self, record: SourceRecord, numbers: tuple[int, ...]) -> InDoubt:
        """What is told of a sequence that has failed without these numbers."""
        rows = self.run(lambda tx: tx.outbox(record.state.key))
        text = f"the sequence failed: {record.state.reason}"
        return in_doubt(text, rows, numbers, Exchange(sequence=record.state.identifier))

    # the thread

    def _start(self) -> None:
        with self._starting:  # the store's thread may come here: nobody holds this and waits for it
            if self._thread is not None or self._stopping:
                return
            self._pool = ThreadPoolExecutor(WORKERS + SPARE, "castile-pump")
            self._thread = threading.Thread(target=self._loop, name="castile-pump", daemon=True)
            self._thread.start()

    def _rouse(self) -> None:
        """There is something to do for the thread."""
        self._start()
        self._wake.set()

    def _loop(self) -> None:
        while not self._stopping:
            self._wake.clear()
            wait = 1.0
            try:
                wait = self._round(self.now())
            except StoreError as error:
                reliability_log.warning("the pump waits for the store: %s", error)
            except CastileError as error:
                reliability_log.warning("the pump goes on after: %s", error)
            self._wake.wait(wait)

    def _round(self, now: Now) -> float:
        """Send what is due; seconds until there may be more."""
        self.siblings.orphans(self.retired.adopt)
        if self.siblings.asked():
            self._background(lambda: commands.attend(self))
        replies, failed = self.siblings.news()
        if replies:
            self._tell(Answered(tuple(reply for reply in replies if reply.message_id in self._waiting)))
        for record in failed:
            self._fail(record)
        if self.retired.pending:
            self.retired.finish(self._background)
        room = WORKERS - len(self._sending)
        with self._leasing:
            leased = set(self._leased)
        if room > 0:
            rows, due = self.run(lambda tx: self._due(tx, now, room, leased))
        else:  # the end of an attempt wakes it
            rows, due = self.run(lambda tx: self._oldest(tx, now, leased))[: room + SPARE], None
        for row in rows:
            if self._stopping or self._pool is None or not self._lease(row.message_id):
                continue
            if self._overdue(row, now):
                self._leased.discard(row.message_id)
                continue
            self._sending.add(row.message_id)
            self._pool.submit(self._leased_attempt, row)
        return 1.0 if due is None else min(max(due - self.now().utc, 0.02), 1.0)

    def _due(
        self, tx: Transaction, now: Now, room: int, leased: set[str]
    ) -> tuple[list[OutboxRow], float | None]:
        """What is due now, and when more will be."""
        side, endpoint = self.party.side, self.party.realm
        rows = tx.due(now.utc, room, side=side, endpoint=endpoint, besides=leased)
        besides = leased | {row.message_id for row in rows}
        return rows, tx.next_due(side=side, endpoint=endpoint, besides=besides)

    def _oldest(self, tx: Transaction, now: Now, leased: set[str]) -> list[OutboxRow]:
        """Of each sequence the oldest that isn't acknowledged, if it is due."""
        side, endpoint = self.party.side, self.party.realm
        records = tx.sources(side=side, endpoint=endpoint, owner=tx.owner, unfinished=True)
        rows = (tx.oldest(record.state.key) for record in records)
        return [
            row
            for row in rows
            if row is not None and row.due is not None and row.due <= now.utc and row.message_id not in leased
        ]

    def _background(self, task: Callable[[], None]) -> None:
        self._start()
        if self._pool is not None and not self._stopping:
            with suppress(RuntimeError):  # it is being shut down
                self._pool.submit(task)

    def _lease(self, message_id: str) -> bool:
        """Whether the message is ours to send now: nobody else has an exchange open for it."""
        with self._leasing:
            if message_id in self._leased:
                return False
            self._leased.add(message_id)
            return True

    def _leased_attempt(self, row: OutboxRow) -> None:
        try:
            self._attempt(row)
        except CastileError as error:
            reliability_log.warning("an attempt failed: %s", error)
        finally:
            self._leased.discard(row.message_id)
            self._sending.discard(row.message_id)
            self._wake.set()

    def _overdue(self, row: OutboxRow, now: Now) -> bool:
        """Whether this row was given up: by time, never by count (RM-58, RM-19)."""
        reason = requests.overdue(self.party, row, now)
        if reason is None:
            return False

        def step(tx: Transaction) -> SourceRecord:
            record = requests.give_up(tx, row.sequence_key or "", reason, now)
            if row.kind != "application":
                tx.dequeue(row.message_id)
            return record

        self.tell_failed(self.run(step))
        return True

    def _patience(self, row: OutboxRow, deadline: float | None) -> float | None:
        """Seconds for one exchange; None: as long as the transport allows."""
        left = None if deadline is None else self._left(deadline)
        if row.kind == "application":
            return left
        quick = requests.patience(self.party.settings.timers, row.kind)
        return quick if left is None else min(left, quick)

    def _left(self, deadline: float) -> float:
        return max(0.0, deadline - self.now().tick)

    # the end

    def finish(self, key: str, timeout: float, *, incomplete: bool = False) -> SourceRecord:
        """Close and terminate a sequence; its record as it is when done or out of time."""
        deadline = self.now().tick + timeout

        def step(tx: Transaction) -> tuple[SourceRecord, OutboxRow | None]:
            record, row = requests.close(self.party, tx, key, self.now(), incomplete=incomplete)
            if row is not None:  # ours before the commit, so that the pump's thread leaves it alone
                self._lease(row.message_id)
            return record, row

        while True:
            record, row = self.run(step)
            if row is not None:
                self._leased_attempt(row)
                continue
            if record.state.ended or not self.wait(
                lambda: self._advanced(key, record),  # noqa: B023
                deadline,
            ):
                return record

    def _advanced(self, key: str, before: SourceRecord) -> bool:
        record = self.run(lambda tx: requests.source_record(tx, key))
        return record.state.phase is not before.state.phase

    def wait(self, ready: Callable[[], bool], deadline: float) -> bool:
        """Wait until something that a commit changes is so; False at the deadline (ticks)."""
        self._rouse()
        with self._changed:
            while not ready():
                left = deadline - self.now().tick
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.5))
        return True

    def stop(self) -> None:
        """Open exchanges end with their answers; everything else stays in the store."""
        self._stopping = self.conversations.stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        for message_id in list(self._waiting):
            try:
                row = self.run(lambda tx, name=message_id: tx.outbox_row(name))  # type: ignore[misc]
                error: CastileError | None = None if row is None else self._doubt(row, _CLOSED)
            except StoreError as failure:  # another process has taken over
                error = failure
            for future in self._waiting.pop(message_id, ()):
                if error is not None and not future.done():
                    future.set_exception(error)


def _exchange(row: OutboxRow) -> Exchange:
    return Exchange(row.action, row.message_id, row.sequence_key, row.number)
