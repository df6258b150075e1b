"""The client's engine: contexts, sequences and every attempt at a message.

The caller's own thread or task sends its own message: what it does is written as coroutines
(`castile.waiting`). The pump's thread, started when there is something that nobody waits for,
does the rest: repetitions, what an earlier process left, closing. It stops with the client.

A row is leased while an exchange is open, which suspends its timer. Due times run on the tick
clock and are stored as UTC, so a jump of the wall clock changes no repetition (RM-61).
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from castile import commands
from castile.callers import Call, Callers
from castile.clock import Now
from castile.conversations import Conversations
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
    StoreDamaged,
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
from castile.waiting import Commit, Result, Turn, blocking

T = TypeVar("T")
_CLOSED: Final = "the client was closed before its reply came"
WORKERS: Final = 16
"""Threads for what nobody waits for: an exchange may stay open for a reply."""
SPARE: Final = 4
"""And those for the oldest message of each sequence: a peer that delivers in order may answer
nothing until it comes, so its repetition can't wait for a thread (RM-57)."""


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
    keys: dict[str, str] = field(default_factory=dict)
    """The sequences of this process by their names; "" is the default one."""
    conversations: Conversations = field(init=False)
    retired: Retired = field(init=False)
    doubts: Doubts = field(init=False)
    siblings: Siblings = field(init=False)
    callers: Callers = field(default_factory=Callers)
    _creating: Turn = field(default_factory=Turn)
    _choosing: Turn = field(default_factory=Turn)
    _leasing: threading.Lock = field(default_factory=threading.Lock)
    _starting: threading.Lock = field(default_factory=threading.Lock)
    _change: Future[None] = field(default_factory=Future)
    """Done when what a commit changes has changed; another one takes its place then."""
    _wake: threading.Event = field(default_factory=threading.Event)
    _leased: set[str] = field(default_factory=set)
    _sending: set[str] = field(default_factory=set)
    """Those of them that the pool has."""
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

    async def commit(self, step: Callable[[Transaction], T]) -> T:
        """The same, for whoever mustn't hold a loop up."""
        result: T = await Commit(self.party.store.run(step))
        return result

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

    async def sequence(self, name: str) -> str:
        """The sequence of this name, made in the store if there is none that takes messages."""
        while True:
            async with self._choosing.within():
                now, stale = self.now(), self.keys.get(name)

                def step(tx: Transaction) -> str | None:
                    record = requests.readable(tx, stale)  # noqa: B023 - it runs before the next turn
                    if record is not None and self._takes(record):
                        return record.state.key
                    if record is not None and self._retirable(record):
                        return None
                    record = requests.new_sequence(self.party, tx, now, name)  # noqa: B023
                    if not self.retired.clear.is_open():
                        for row in tx.outbox(record.state.key):
                            tx.update_outbox(row.message_id, due=None)
                    return record.state.key

                key = await self.commit(step)
                if key is not None:
                    self.keys[name] = key
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

    async def send(self, action: str, body: bytes, call: str | None = None, name: str = "") -> None:
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

        async with self._freeing(call):
            found = (await self.commit(earlier) if call else None) or await self._numbered(step, name)
            self._rouse()
            if call and isinstance(found, OutboxRow):
                await self._check_failed(found)

    async def call(
        self, action: str, body: bytes, timeout: float, call: str | None = None, name: str = ""
    ) -> ReplyRow:
        """Send a message and wait for its reply; with the key of an earlier `call`, for its reply.

        Raises `InDoubt` at the time-out, with the number; the message stays in the outbox. An
        unauthenticated fault is told only then, as its cause (CO-14): whoever made it, the message
        may have been handled, or may still be. Where the sequence has failed, the key is free again
        once that is told.
        """
        asked = Call(action, body, call, timeout, self.now().tick + timeout, name)
        try:
            async with self._freeing(call):
                return await self._call(asked)
        finally:
            self._gone(asked)

    async def _call(self, asked: Call) -> ReplyRow:
        if asked.key is not None:
            again = await self.commit(lambda tx: self._again(tx, asked))
            if again is not None:
                return await self._joined(again, asked)
        await self.conversations.identify(asked.deadline)
        now = self.now()

        def step(tx: Transaction, key: str) -> OutboxRow | ReplyRow | _Own:
            # Once more, in the step that submits: another thread may have come first.
            known = self._again(tx, asked) if asked.key is not None else None
            if known is not None:
                return known
            row = requests.submit(
                self.party, tx, key, asked.action, asked.body, now, two_way=True, own=True, call=asked.key
            )
            self._leased.add(row.message_id)
            asked.leased = True
            self.callers.join(asked, row)
            return _Own(row, self._rendered(tx, row, now))

        found = await self._numbered(step, asked.sequence)
        if not isinstance(found, _Own):
            return await self._joined(found, asked)
        row = found.row
        try:
            if found.outgoing is not None or await self._open(row.sequence_key or "", asked.deadline):
                await self._attempt(row, asked.deadline, found.outgoing)
        except TransportError as error:
            reliability_log.info("message %s waits for its sequence: %s", row.number, error)
        except UsageError:
            if not self._stopping:
                raise
            raise self._doubt(row, _CLOSED) from None
        finally:
            self._yielded(asked)
        return await self._joined(row, asked)

    def _yielded(self, asked: Call) -> None:
        """Its message is whoever's now that finds it due."""
        if asked.leased:
            asked.leased = False
            self._leased.discard(asked.joined)

    def _gone(self, asked: Call) -> None:
        """Its caller waits no more, whatever made him go: what is still to be done the thread does."""
        self._yielded(asked)
        if asked.joined and not asked.reply.done():
            self._rouse()
        self.callers.leave(asked)

    async def _numbered(self, step: Callable[[Transaction, str], T], name: str) -> T:
        """Number a message in the sequence of this name: one step, where there is one that takes it."""

        def current(tx: Transaction) -> T | None:
            key = self.keys.get(name)
            record = requests.readable(tx, key)
            if key is None or record is None or not self._takes(record):
                return None
            return step(tx, key)

        while (found := await self.commit(current)) is None:
            await self.sequence(name)  # which another thread may end meanwhile
        return found

    def _rendered(self, tx: Transaction, row: OutboxRow, now: Now) -> Outgoing | None:
        """The message of a new row, if it can go now; what is in its way its attempt will tell."""
        try:
            return requests.outgoing(self.party, tx, row, now)
        except CastileError:
            return None

    def _again(self, tx: Transaction, asked: Call) -> OutboxRow | ReplyRow | None:
        known = requests.call_again(self.party, tx, asked.key or "", asked.action, asked.body, two_way=True)
        if isinstance(known, OutboxRow):
            self.callers.join(asked, known)
        return known

    async def _joined(self, row: OutboxRow | ReplyRow, asked: Call) -> ReplyRow:
        """Wait for the reply to a message that is under way, here or in another process."""
        if isinstance(row, ReplyRow):
            return row
        try:
            if not asked.reply.done():
                await self._check_failed(row)
                with self.siblings.joined(row):
                    self._rouse()
                    await Result(asked.reply, self._left(asked.deadline))
            return asked.reply.result()
        except TimeoutError:
            fault = self._heard(row)
            raise self._unanswered(row, asked.timeout, fault) from fault

    async def _check_failed(self, row: OutboxRow) -> None:
        """Raises what there is to tell of a message whose sequence has failed."""
        record = await self.commit(lambda tx: tx.source(row.sequence_key) if row.sequence_key else None)
        if record is not None and record.state.phase is source.Phase.FAILED:
            raise self._failure(record, row)

    @asynccontextmanager
    async def _freeing(self, call: str | None) -> AsyncIterator[None]:
        """A caller who is told that his call has failed for good may use its key anew (CL-31)."""
        try:
            yield
        except (InDoubt, SequenceCreationFailed):
            if call is not None:
                await self.commit(lambda tx: requests.free_key(self.party, tx, call))
            raise

    def consumed(self, reply: ReplyRow) -> None:
        """The caller has it. Nobody waits for this commit: the next message's may serve."""
        utc = self.now().utc
        self.party.store.run(lambda tx: tx.consume(reply.message_id, utc), patient=True)

    async def direct(self, action: str, body: bytes, timeout: float, *, two_way: bool) -> bytes:
        """A message outside any sequence."""
        deadline = self.now().tick + timeout
        return await exchange(self.conversations, self.carrier, action, body, deadline, two_way=two_way)

    # attempts

    async def _open(self, key: str, deadline: float) -> bool:
        """The sequence exists at the peer. One caller creates it, the others wait for that."""
        if not await self.retired.clear.passed(self._left(deadline)):
            return False
        async with self._creating.within(self._left(deadline)):
            record, rows = await self.commit(lambda tx: (requests.source_record(tx, key), tx.outbox(key)))
            if record.state.phase is source.Phase.CREATING:
                create = next((row for row in rows if row.kind == "create"), None)
                if create is not None and self._lease(create.message_id):
                    try:
                        await self._attempt(create, deadline)
                    finally:
                        self._leased.discard(create.message_id)
                record = await self.commit(lambda tx: requests.source_record(tx, key))
        if record.state.phase is source.Phase.FAILED:
            raise SequenceCreationFailed(f"no sequence could be created: {record.state.reason}")
        return record.state.phase is not source.Phase.CREATING

    async def _attempt(
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
            if row.kind == "create" and not await self._bound(row, deadline):
                return
            moment = self.party.now()  # one for all that is decided about this attempt
            now = self._steady(moment)
            key = outgoing.key if outgoing is not None and isinstance(outgoing.key, ContextKey) else None
            if outgoing is None or (key is not None and not self.conversations.serves(key.identifier)):
                outgoing = await self.commit(
                    lambda tx: requests.outgoing(self.party, tx, tx.outbox_row(row.message_id), now)
                )
            if outgoing is None:  # gone, or its sequence isn't created yet: that will wake it
                await self.commit(lambda tx: tx.update_outbox(row.message_id, due=None))
                return
            if isinstance(outgoing.key, ContextKey):
                key = outgoing.key
                self.conversations.freshen(key.identifier)
            protected = prepare(self.party, outgoing, moment)
            confirmations = await self._confirmations(row, protected)
            patience = self._patience(row, deadline)
            payload = await self.carrier.post(outgoing.action, protected.payload, patience)
            if payload is not None:
                await self._receive(row, payload, confirmations)
                self.doubts.settled(row.message_id)
                return
            if row.kind == "terminate" and not requests.edition_of(self.party).can_close:
                now = self.now()
                self._tell(await self.commit(lambda tx: self._terminated(tx, row, now)))
                return
        except TransportError as failure:
            error, after = str(failure), failure.retry_after
        except (SecurityContextExpired, StoreDamaged) as failure:
            await self._give_up(row, str(failure))
            return
        except FaultReceived as failure:
            error = str(failure)
            self.callers.note(row, failure)
            at_once = key is not None and await self.doubts.heard(row, failure, key)
        except PeerError as failure:
            log_refusal(failure)
            error = str(failure)
        now = self.now()
        await self.commit(
            lambda tx: requests.repeat_later(
                self.party, tx, row.message_id, now, error, after, at_once=at_once
            )
        )
        self._wake.set()

    async def _give_up(self, row: OutboxRow, reason: str) -> None:
        now = self.now()
        failed = await self.commit(lambda tx: requests.give_up(tx, row.sequence_key or "", reason, now))
        self.tell_failed(failed)

    def tell_failed(self, record: SourceRecord) -> None:
        """A sequence has failed, and that is committed."""
        self._fail(record)
        self._changed()
        self._wake.set()

    def _terminated(self, tx: Transaction, row: OutboxRow, now: Now) -> Answered:
        record = requests.source_record(tx, row.sequence_key or "")
        return answers.terminated(tx, record, row, now)

    async def _bound(self, row: OutboxRow, deadline: float | None) -> bool:
        """The sequence that this row creates has a security context; False: another row does now."""
        key, now = row.sequence_key or "", self.now()
        context, good = await self.commit(
            lambda tx: (
                requests.source_record(tx, key).state.context,
                requests.bound(self.party, tx, key, now),
            )
        )
        if good and not self.conversations.abandoned(context):
            return True
        context = await self.conversations.identify(now.tick if deadline is None else deadline)
        return await self.commit(lambda tx: requests.bind(self.party, tx, row, context, now))

    async def _confirmations(self, row: OutboxRow, protected: Protected) -> Confirmations:
        """What the answer to this attempt may confirm; committed where the policy asks for it."""
        section, values = self.party.policy.application, protected.signature_values
        if section is None or not section.signature_confirmation:
            return (values,)
        return await self.commit(lambda tx: requests.signed(tx, row.message_id, values))

    async def _receive(self, row: OutboxRow, payload: bytes, confirmations: Confirmations) -> None:
        """The walk in, for the answer on this row's exchange."""
        moment = self.party.now()
        inbound: Inbound = read(self.party, payload, moment, request=False, confirmations=confirmations)
        now = self.now()

        def step(tx: Transaction) -> Answered:
            result = answers.answered(self.party, tx, inbound, row, now)
            if result.fault is None:
                requests.repeat_later(self.party, tx, row.message_id, now, None)
            return result

        result = await self.commit(step)
        self._tell(result)
        if result.fault is not None:
            raise FaultReceived(result.fault, authenticated=True, exchange=inbound.exchange)

    def _tell(self, result: Answered) -> None:
        """After the commit: wake whoever waits in this process."""
        for reply in result.replies:
            if not self.callers.answer(reply) and self.on_reply is not None:
                self.on_reply(reply)
                self.consumed(reply)
        if result.source is not None and result.source.state.phase is source.Phase.FAILED:
            self._fail(result.source)
        self._changed()
        if result.source is not None or self.retired.pending:
            self._wake.set()

    def _fail(self, record: SourceRecord) -> None:
        """Everybody who waits for a reply in this sequence is told, with the number."""
        for row in self.run(lambda tx: tx.outbox(record.state.key)):
            self.callers.fail(row.message_id, self._failure(record, row))

    def _failure(self, record: SourceRecord, row: OutboxRow) -> CastileError:
        """What its caller is told of a message whose sequence has failed."""
        freed = "" if row.key is None else "; its key= is free again"
        if record.state.identifier is None:
            return SequenceCreationFailed(f"no sequence could be created: {record.state.reason}{freed}")
        return self._doubt(row, f"the sequence failed: {record.state.reason}{freed}")

    def _heard(self, row: OutboxRow) -> FaultReceived | None:
        """The unauthenticated fault that answered this message, or the sequence that it waits for."""
        rows = self.run(lambda tx: tx.outbox(row.sequence_key or ""))
        creates = (each.message_id for each in rows if each.kind == "create")
        return self.callers.noted([row.message_id, *creates])

    def _unanswered(self, row: OutboxRow, timeout: float, fault: FaultReceived | None) -> InDoubt:
        current = self.run(lambda tx: tx.outbox_row(row.message_id))
        last = str(fault) if fault else current.last_error if current else None
        why = f"; the last attempt: {last}" if last else ""
        return self._doubt(row, f"no reply within {timeout:g} s{why}; the message stays in the outbox")

    @staticmethod
    def _doubt(row: OutboxRow, text: str) -> InDoubt:
        return in_doubt(f"message {row.number}: {text}", [row], exchange=_exchange(row))

    @staticmethod
    def in_doubt(tx: Transaction, record: SourceRecord, numbers: tuple[int, ...]) -> InDoubt:
        """What is told of a sequence that has failed without these numbers."""
        rows = tx.outbox(record.state.key)
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
        self.retired.sweep()
        self.siblings.orphans(self.retired.adopt)
        if self.siblings.asked():
            self._background(lambda: commands.attend(self))
        replies, failed = self.siblings.news()
        if replies:
            waiting = self.callers.waiting
            self._tell(Answered(tuple(reply for reply in replies if reply.message_id in waiting)))
        for record in failed:
            self._fail(record)
        if self.retired.pending:
            self.retired.finish(self._background)
        room = WORKERS - len(self._sending)
        with self._leasing:
            leased = set(self._leased)
        if room > 0:
            rows, due, broken = self.run(
                lambda tx: (*requests.due(self.party, tx, now, room, leased), self.callers.unreadable(tx))
            )
            for name, error in broken.items():
                self.callers.fail(name, error)
        else:  # the end of an attempt wakes it
            rows = self.run(lambda tx: requests.oldest(self.party, tx, now, leased))[: room + SPARE]
            due = None
        for row in rows:
            if self._stopping or self._pool is None or not self._lease(row.message_id):
                continue
            if self._overdue(row, now):
                self._leased.discard(row.message_id)
                continue
            self._sending.add(row.message_id)
            self._pool.submit(self._sent, row)
        return 1.0 if due is None else min(max(due - self.now().utc, 0.02), 1.0)

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

    async def _leased_attempt(self, row: OutboxRow) -> None:
        try:
            await self._attempt(row)
        except CastileError as error:
            reliability_log.warning("an attempt failed: %s", error)
            if isinstance(error, StoreDamaged):
                self.callers.fail(row.message_id, error)
            with suppress(TimeoutError):  # what is wrong with the store doesn't pass at once
                await Result(Future(), 1.0)
        finally:
            self._leased.discard(row.message_id)
            self._sending.discard(row.message_id)
            self._wake.set()

    def _sent(self, row: OutboxRow) -> None:
        blocking(self._leased_attempt(row))

    def _overdue(self, row: OutboxRow, now: Now) -> bool:
        """Whether this row was given up: by time, never by count (RM-58, RM-19)."""
        if (reason := requests.overdue(self.party, row, now)) is None:
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

    async def finish(self, key: str, timeout: float, *, incomplete: bool = False) -> SourceRecord:
        """Close and terminate a sequence; its record as it is when done or out of time."""
        deadline = self.now().tick + timeout

        def step(tx: Transaction) -> tuple[SourceRecord, OutboxRow | None]:
            record, row = requests.close(self.party, tx, key, self.now(), incomplete=incomplete)
            if row is not None:  # ours before the commit, so that the pump's thread leaves it alone
                self._lease(row.message_id)
            return record, row

        while True:
            record, row = await self.commit(step)
            if row is not None:
                await self._leased_attempt(row)
                continue
            phase = record.state.phase
            if record.state.ended or not await self.wait(
                lambda tx: requests.source_record(tx, key).state.phase is not phase,  # noqa: B023
                deadline,
            ):
                return record

    async def wait(self, ready: Callable[[Transaction], bool], deadline: float) -> bool:
        """Wait until something that a commit changes is so; False at the deadline (ticks)."""
        self._rouse()
        while True:
            change = self._change
            if await self.commit(ready):
                return True
            left = deadline - self.now().tick
            if left <= 0:
                return False
            with suppress(TimeoutError):
                await Result(change, min(left, 0.5))

    def _changed(self) -> None:
        """Whoever waits looks again."""
        with self._leasing:
            change, self._change = self._change, Future()
        change.set_result(None)

    def stop(self) -> None:
        """Open exchanges end with their answers; everything else stays in the store."""
        self._stopping = self.conversations.stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        for message_id in list(self.callers.waiting):
            try:
                row = self.run(lambda tx, name=message_id: tx.outbox_row(name))  # type: ignore[misc]
                error: CastileError | None = None if row is None else self._doubt(row, _CLOSED)
            except StoreError as failure:  # another process has taken over
                error = failure
            if error is not None:
                self.callers.fail(message_id, error)


def _exchange(row: OutboxRow) -> Exchange:
    return Exchange(row.action, row.message_id, row.sequence_key, row.number)
