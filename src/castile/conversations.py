"""The security contexts of a client: established when one is needed, given back at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from castile.clock import Now
from castile.endpoint import bootstrap
from castile.endpoint.contexts import context_keys
from castile.endpoint.inbound import Inbound, read
from castile.endpoint.outbound import prepare
from castile.endpoint.party import Party, reliability_log
from castile.errors import CastileError, TransportError
from castile.protocol.conversation import Conversation
from castile.protocol.source import backoff
from castile.store.records import ContextRecord
from castile.transport.carrier import Carrier


@dataclass(slots=True)
class Conversations:
    """The context of this process, and the dialogues with the trust service."""

    party: Party
    carrier: Carrier
    now: Callable[[], Now]
    identifier: str | None = None
    """Of the context of this process."""
    stopping: bool = False
    _establishing: threading.Lock = field(default_factory=threading.Lock)

    def identify(self, deadline: float) -> str | None:
        """Identifier of a usable context; the bootstrap runs if there is none (F05).

        One bootstrap at a time. Raises `TransportError` once `deadline` (ticks) has passed,
        `FaultReceived` or `SecurityFailure` at once.
        """
        if self.party.policy.application is None:
            return None
        with held(self._establishing, max(0.0, deadline - self.now().tick)):
            now = self.now()
            if self.identifier is not None:
                known = self._conversation(self.identifier)
                if known is not None and known.usable(now, self.party.settings.timers):
                    return self.identifier
            state = self._established(deadline)
            record = ContextRecord(
                state, self.party.side, self.party.address, state.principal, expires=state.expires
            )
            self.party.run(lambda tx: tx.save_context(record))
            for key in context_keys(record):
                self.party.keyring.remember(key)
                if self.party.keylog is not None:
                    self.party.keylog(key.identifier, key.instance, key.secret)
            self.identifier = state.identifier
            return self.identifier

    def _established(self, deadline: float) -> Conversation:
        attempts = 0
        while True:
            try:
                return self._converse(bootstrap.establish(self.party, self.now()))
            except TransportError as error:
                attempts += 1
                jitter = self.party.random(1)[0] / 255
                wait = max(backoff(attempts, self.party.settings.timers, jitter), error.retry_after or 0)
                if self.stopping or self.now().tick + wait > deadline:
                    raise
                threading.Event().wait(wait)

    def _conversation(self, identifier: str) -> Conversation | None:
        record = self.record(identifier)
        return record.state if record and isinstance(record.state, Conversation) else None

    def record(self, identifier: str) -> ContextRecord | None:
        """The stored context of this name."""
        side, endpoint = self.party.side, self.party.address
        return self.party.run(lambda tx: tx.context(identifier, side=side, endpoint=endpoint))

    def current(self) -> Conversation | None:
        """The context of this process, as it is now."""
        return self._conversation(self.identifier) if self.identifier else None

    def _converse(self, dialogue: bootstrap.Dialogue) -> Conversation:
        """Drive a dialogue with the trust service over HTTP."""
        outgoing = next(dialogue)
        while True:
            protected = prepare(self.party, outgoing, self.party.now())
            if protected.key is not None:
                self.party.keyring.sealed_keys[protected.key.sha1] = protected.key
            try:
                payload = self.carrier.post(outgoing.action, protected.payload)
                if payload is None:
                    raise TransportError("the trust service gave no answer")
                inbound = read(self.party, payload, self.party.now(), request=False)
                self._reject_replay(inbound)
            finally:
                if protected.key is not None:
                    del self.party.keyring.sealed_keys[protected.key.sha1]
            try:
                outgoing = dialogue.send(inbound)
            except StopIteration as stop:
                state: Conversation = stop.value
                return state

    def _reject_replay(self, inbound: Inbound) -> None:
        evidence, expires, now = inbound.verified.evidence, inbound.verified.expires, self.now()
        if evidence:
            self.party.run(lambda tx: tx.reject_replay(evidence, expires, now))

    def cancel(self, state: Conversation) -> None:
        """Give a context back. Best effort: it ends by itself where the service can't be reached."""
        record = self.record(state.identifier)
        keys = context_keys(record)
        if record is None or not keys:
            return
        ended = state
        try:
            ended = self._converse(bootstrap.cancel(self.party, state, keys[-1], self.now()))
        except CastileError as error:
            reliability_log.info("the security context could not be cancelled: %s", error)
        utc = self.now().utc
        done = replace(record, state=ended, ended=utc)
        self.party.run(lambda tx: tx.save_context(done))
        self.party.keyring.forget(state.identifier)
        if self.identifier == state.identifier:
            self.identifier = None

@contextmanager
def held(lock: threading.Lock, seconds: float) -> Iterator[None]:
    """Hold a lock, or be out of time: another caller may be waiting for the network in it."""
    if not lock.acquire(timeout=seconds):
        raise TransportError("no answer from the peer in time, to another caller's first message")
    try:
        yield
    finally:
        lock.release()
