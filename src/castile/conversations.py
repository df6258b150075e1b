"""The security contexts of a client: established when one is needed, renewed ahead of their end
while they are in use, given back at the end."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from castile.clock import Now
from castile.endpoint import bootstrap, requests
from castile.endpoint.contexts import context_keys, live
from castile.endpoint.inbound import Inbound, read
from castile.endpoint.outbound import prepare
from castile.endpoint.party import Party, reliability_log
from castile.errors import (
    CastileError,
    FaultReceived,
    PeerError,
    PolicyError,
    SecurityContextExpired,
    TransportError,
)
from castile.protocol import conversation
from castile.protocol.conversation import Conversation
from castile.protocol.source import backoff
from castile.security.keys import ContextKey
from castile.store import Transaction
from castile.store.records import ContextRecord
from castile.transport.carrier import Carrier
from castile.waiting import Commit, Pause, Turn, blocking

T = TypeVar("T")


@dataclass(slots=True)
class Life:
    """What is remembered of a context between two looks into the store."""

    created: float
    expires: float
    renew_at: float
    """UTC, all three."""
    failures: int = 0
    """Renewals that failed since the last one that didn't."""
    renewing: bool = False
    abandoned: bool = False
    """Nothing new is protected by it: the service seems not to know it any more, or refuses to
    renew it."""


def at_once(task: Callable[[], None]) -> None:
    """Run it here."""
    task()


@dataclass(slots=True)
class Conversations:
    """The context of this process, those of earlier ones, and the dialogues with the trust service."""

    party: Party
    carrier: Carrier
    now: Callable[[], Now]
    spawn: Callable[[Callable[[], None]], None] = at_once
    """Runs what nobody waits for."""
    identifier: str | None = None
    """Of the context of this process."""
    stopping: bool = False
    _establishing: Turn = field(default_factory=Turn)
    _renewing: Turn = field(default_factory=Turn)
    _lives: dict[str, Life] = field(default_factory=dict)
    _looking: threading.Lock = field(default_factory=threading.Lock)
    _quiet_until: float = -math.inf
    """Ticks: till then unauthenticated alarms change nothing."""

    # for new work

    async def identify(self, deadline: float) -> str | None:
        """Identifier of a usable context; the bootstrap runs if there is none (F05).

        One bootstrap at a time. An expired context is renewed first, where that is allowed (F14).
        Raises `TransportError` once `deadline` (ticks) has passed, `FaultReceived` or
        `SecurityFailure` at once.
        """
        if not self.party.policy.has_contexts:
            return None
        async with self._establishing.within(max(0.0, deadline - self.now().tick)):
            current = self.identifier
            if current is not None and (self.serves(current) or await self._revived(current, deadline)):
                return current
            state = await self._established(deadline)
            record = ContextRecord(
                state, self.party.side, self.party.realm, state.principal, expires=state.expires
            )
            await self.commit(lambda tx: tx.save_context(record))
            self._learn(record)
            self.identifier = state.identifier
            return self.identifier

    def serves(self, identifier: str | None) -> bool:
        """Whether new messages may be protected by this context of ours now (F12).

        Asks no store: it may be called inside a step.
        """
        if identifier is None:
            return not self.party.policy.has_contexts
        life, utc = self._lives.get(identifier), self.now().utc
        if life is None or life.abandoned:
            return False
        return life.created - self.party.settings.timers.clock_skew <= utc < life.expires

    def abandon(self, identifier: str, *, authenticated: bool) -> bool:
        """New work goes to another context from now on: the service seems to have lost this one, or
        doesn't renew it.

        What is bound to it goes on under it (CO-16). False where nothing changes, because the news
        isn't authenticated and such news has come a short while ago already.
        """
        life = self._life(identifier)
        if life.abandoned:
            return True
        if not self.heed(authenticated=authenticated):
            return False
        life.abandoned = True
        return True

    def abandoned(self, identifier: str | None) -> bool:
        """Whether new work goes to another context than this one."""
        life = self._lives.get(identifier) if identifier is not None else None
        return life is not None and life.abandoned

    def heed(self, *, authenticated: bool) -> bool:
        """Whether to act on an alarm: unauthenticated ones at most once in a while (SC-28)."""
        if authenticated:
            return True
        tick = self.now().tick
        with self._looking:
            if tick < self._quiet_until:
                return False
            self._quiet_until = tick + self.party.settings.timers.alarm_interval
            return True

    async def _established(self, deadline: float) -> Conversation:
        attempts = 0
        while True:
            try:
                return await self._converse(bootstrap.establish(self.party, self.now))
            except TransportError as error:
                attempts += 1
                pause = backoff(attempts, self.party.settings.timers, self.party.jitter())
                wait = max(pause, error.retry_after or 0)
                if self.stopping or self.now().tick + wait > deadline:
                    raise
                await Pause(wait)

    async def _revived(self, identifier: str, deadline: float) -> bool:
        """Whether the current context, which is past its end, could be renewed (F14)."""
        party = self.party
        allowed = party.settings.allow_renewal_after_expiry and party.policy.renews_contexts
        if not allowed or self._life(identifier).abandoned:
            return False
        try:
            await self.renew(identifier, deadline=deadline)
        except (FaultReceived, PeerError, SecurityContextExpired, TransportError) as error:
            reliability_log.warning("an expired security context wasn't renewed: %s", error)
            return False
        return True

    # renewal

    def freshen(self, identifier: str) -> None:
        """A context is in use: renew it if that is due, in the background (SC-25, SC-26).

        Idle contexts are not renewed, and a context is renewed by one thread at a time; everybody
        goes on with the current key meanwhile.
        """
        life = self._life(identifier)
        if self.now().utc < life.renew_at or self.stopping:
            return
        with self._looking:
            if life.renewing:
                return
            life.renewing = True
        self.spawn(lambda: self._renew_quietly(identifier, life))

    def _renew_quietly(self, identifier: str, life: Life) -> None:
        try:
            if not self.stopping:
                refused = next(iter(context_keys(self.record(identifier))[-1:]), None)
                blocking(self.renew(identifier, refused=refused))
        except SecurityContextExpired as error:
            life.renew_at = math.inf
            reliability_log.info("a security context ends: %s", error)
        except CastileError as error:
            life.failures += 1
            wait = backoff(life.failures, self.party.settings.timers, self.party.jitter())
            life.renew_at = self.now().utc + wait
            reliability_log.warning("renewal of a security context failed: %s; again in %.0f s", error, wait)
            # Refused again, not lost: what is bound to it can be finished while its key still lives.
            if life.failures > 1 and isinstance(error, FaultReceived):
                self.abandon(identifier, authenticated=error.authenticated)
        finally:
            life.renewing = False

    async def renew(
        self, identifier: str, *, refused: ContextKey | None = None, deadline: float | None = None
    ) -> Conversation:
        """A new key for a context, one renewal at a time (F13, SC-26).

        `refused`: the key that is too old; if it isn't the newest any more, somebody was faster,
        and nothing is done. Raises `SecurityContextExpired` where there is nothing to renew,
        `PolicyError` where the policy forbids it, else as the bootstrap does: then the old key
        goes on.
        """
        if not self.party.policy.renews_contexts:
            raise PolicyError("the policy says MustNotSendRenew: establish a new context instead")
        seconds = None if deadline is None else max(0.0, deadline - self.now().tick)
        async with self._renewing.within(seconds):
            now, settings = self.now(), self.party.settings
            record = await self.commit(lambda tx: self.party.context(tx, identifier))
            if record is None or record.ended is not None or not isinstance(record.state, Conversation):
                raise SecurityContextExpired("the security context is not in use any more")
            if refused is not None and record.state.current.instance != refused.instance:
                return record.state
            event = conversation.RenewalStarted(settings.allow_renewal_after_expiry)
            started, _ = conversation.step(
                record.state, event, now, settings.timers, testing=settings.testing
            )
            dialogue = bootstrap.renew(self.party, started, context_keys(record)[-1], self.now)
            state = await self._converse(dialogue)
            renewed = replace(record, state=state, expires=state.expires)
            before = record.state.current.instance
            await self.commit(lambda tx: _keep(tx, renewed, before))
            self._learn(renewed)
            return state

    def _learn(self, record: ContextRecord) -> None:
        """A context has a new key."""
        for key in context_keys(record):
            self.party.keyring.remember(key)
        newest = context_keys(record)[-1]
        if self.party.keylog is not None:
            self.party.keylog(newest.identifier, newest.secret, newest.instance)
        if isinstance(record.state, Conversation):
            self._lives[record.state.identifier] = self._life_of(record.state)

    def _life(self, identifier: str) -> Life:
        found = self._lives.get(identifier)
        if found is None:
            state = self.state_of(identifier)
            found = Life(0.0, 0.0, math.inf) if state is None else self._life_of(state)
            found = self._lives.setdefault(identifier, found)
        return found

    def _life_of(self, state: Conversation) -> Life:
        if state.phase not in (conversation.Phase.USABLE, conversation.Phase.RENEWING):
            return Life(0.0, 0.0, math.inf)
        jitter = self.party.jitter()
        renew_at = state.renew_at(jitter) if self.party.policy.renews_contexts else math.inf
        return Life(state.current.created, state.expires, renew_at)

    # the store

    async def commit(self, step: Callable[[Transaction], T]) -> T:
        """One step of the store, committed."""
        result: T = await Commit(self.party.store.run(step))
        return result

    def record(self, identifier: str) -> ContextRecord | None:
        """The stored context of this name."""
        return self.party.run(lambda tx: self.party.context(tx, identifier))

    def state_of(self, identifier: str) -> Conversation | None:
        """The state of a context that has not ended."""
        return live(self.record(identifier))

    def phase(self, state: Conversation) -> conversation.Phase:
        """Where a context stands this moment, also while nobody does anything about it."""
        life = self._lives.get(state.identifier)
        good = state.phase in (conversation.Phase.USABLE, conversation.Phase.RENEWING)
        if good and self.now().utc >= state.expires:
            return conversation.Phase.EXPIRED
        return conversation.Phase.RENEWING if good and life and life.renewing else state.phase

    def current(self) -> Conversation | None:
        """The context of this process, as it is now."""
        return self.state_of(self.identifier) if self.identifier else None

    # the dialogues

    async def _converse(self, dialogue: bootstrap.Dialogue) -> Conversation:
        """Drive a dialogue with the trust service over HTTP."""
        outgoing = next(dialogue)
        while True:
            protected = prepare(self.party, outgoing, self.party.now())
            with self.party.keyring.holding(protected.key):
                seconds = requests.patience(self.party.settings.timers, "create")
                payload = await self.carrier.post(outgoing.action, protected.payload, seconds)
                if payload is None:
                    raise TransportError("the trust service gave no answer")
                confirmations = (protected.signature_values,)
                now = self.party.now()
                inbound = read(self.party, payload, now, request=False, confirmations=confirmations)
                await self.reject_replay(inbound)
            try:
                outgoing = dialogue.send(inbound)
            except StopIteration as stop:
                state: Conversation = stop.value
                return state

    async def reject_replay(self, inbound: Inbound) -> None:
        """Refuse an answer that came before."""
        verified, now = inbound.verified, self.now()
        if verified.evidence:
            await self.commit(lambda tx: tx.reject_replay(verified.evidence, verified.expires, now))

    # the end

    async def cancel(self, state: Conversation) -> None:
        """Give a context back. Best effort: it ends by itself where the service can't be reached,
        and where the policy says that it is never cancelled (SC-32)."""
        record = self.record(state.identifier)
        keys = context_keys(record)
        if record is None or not keys:
            return
        ended, settings = state, self.party.settings
        known = state.recoverable(self.now(), settings.timers, testing=settings.testing) and not state.lost
        try:
            if self.party.policy.cancels_contexts and known:
                ended = await self._converse(bootstrap.cancel(self.party, state, keys[-1], self.now()))
        except CastileError as error:
            reliability_log.info("the security context could not be cancelled: %s", error)
        self._end(replace(record, state=ended))

    def lose(self, identifier: str, reason: str) -> None:
        """The service doesn't know a context any more: it is over (CO-16)."""
        record = self.record(identifier)
        if record is None or record.ended is not None or not isinstance(record.state, Conversation):
            return
        state, _ = conversation.step(record.state, conversation.Lost(reason), self.now())
        self._end(replace(record, state=state))

    def _end(self, record: ContextRecord) -> None:
        ended = replace(record, ended=self.now().utc)
        self.party.run(lambda tx: tx.save_context(ended))
        identifier = record.state.identifier
        self.party.keyring.forget(identifier)
        self._lives.pop(identifier, None)
        if self.identifier == identifier:
            self.identifier = None


def _keep(tx: Transaction, renewed: ContextRecord, before: str | None) -> None:
    """Save a renewed context, if it is still the one whose renewal was asked for."""
    state = renewed.state
    known = tx.context(state.identifier, side=renewed.side, endpoint=renewed.endpoint)
    if known is None or known.ended is not None or known.state.current.instance != before:
        raise SecurityContextExpired("the security context ended while it was renewed")
    tx.save_context(renewed)
