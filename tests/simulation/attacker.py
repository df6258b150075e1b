"""Somebody with a valid account of his own, who tries other people's sequences and contexts.

He knows everything that was on the wire, has his own key and nobody else's, and builds messages
that are flawless but for what they claim. Each must be answered by a fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import castile
from castile.endpoint import bootstrap
from castile.endpoint.contexts import keys_of
from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Outgoing, prepare
from castile.endpoint.party import Party
from castile.errors import CastileError, TransportError
from castile.messages import reliability, trust
from castile.messages.addressing import EPR
from castile.messages.security import SecurityTokenReference
from castile.protocol.conversation import Conversation
from castile.security.keys import ContextKey
from castile.transport.http import HTTP, HTTPRequest
from castile.versions import Reliability
from castile.waiting import blocking
from tests.simulation import wire
from tests.simulation.program import ADDRESS, Stage

if TYPE_CHECKING:
    from tests.simulation.processes import Process

_TRIES = 5


@dataclass(slots=True)
class Attacker:
    """Mallory."""

    stage: Stage
    process: Process
    http: HTTP
    chance: Random
    own: Conversation | None = None

    def run(self) -> None:
        """Become a user like any other, then misbehave."""
        stage = self.stage
        client = castile.Client(
            ADDRESS,
            policy=stage.policy,
            credentials=stage.account("mallory"),
            service_certificate=stage.certificate,
            settings=stage.client_settings,
            http=self.http,
            clock=self.process.clock,
            random=stage.world.random_bytes,
            new_id=stage.new_id,
        )
        party, conversations = client._pump.party, client._pump.conversations
        for _ in range(stage.plan.attacker):
            stage.world.sleep(self.chance.random() * 3)
            try:
                blocking(conversations.identify(party.now().tick + 5.0))
            except CastileError:
                continue
            self.own = conversations.current()
            if self.own is not None:
                self._once(party, keys_of(self.own)[-1])

    def _once(self, party: Party, key: ContextKey) -> None:
        attack = self.chance.choice(ATTACKS)
        message = attack(self, party, key)
        if message is None:
            return
        name = attack.__name__.strip("_")
        self.stage.world.note("attack", name)
        answer = self.post(party, message)
        if answer is None:
            return
        self.stage.auditor.counts[f"attack {name}"] += 1
        facts = wire.read(answer)
        if facts is None or not facts.fault:
            verb = facts.verb if facts else "acceptance"
            self.stage.auditor.violation("I5", f"mallory's {name} is answered by {verb}")

    def post(self, party: Party, message: Outgoing | bytes) -> bytes | None:
        """The service's answer, b"" for an empty one; None: none came through."""
        payload = message if isinstance(message, bytes) else prepare(party, message, party.now()).payload
        headers = (("Content-Type", "application/soap+xml; charset=utf-8"),)
        for _ in range(_TRIES):
            try:
                response = self.http.post(HTTPRequest(ADDRESS, payload, headers), 5.0)
            except TransportError:
                continue
            if response.status == 202 or response.body.endswith(b"Envelope>"):
                return response.body
        return None

    def identifier(self, kind: str) -> str | None:
        """Something of somebody else's that was seen on the wire."""
        seen = sorted(self.stage.auditor.seen[kind])
        return self.chance.choice(seen) if seen else None

    def message(self, kind: Kind, action: str, body: bytes, key: ContextKey, *headers: object) -> Outgoing:
        return Outgoing(
            kind,
            action,
            body,
            tuple(headers),  # type: ignore[arg-type]
            message_id=self.stage.new_id("message"),
            reply_expected=True,
            key=key,
        )


def _edition(party: Party) -> Reliability | None:
    return party.policy.reliability


def _inject(self: Attacker, party: Party, key: ContextKey) -> Outgoing | None:
    """A message in a foreign sequence."""
    edition, sequence = _edition(party), self.identifier("sequences")
    if edition is None or sequence is None:
        return None
    header = reliability.Sequence(sequence, 1 + int(self.chance.random() * 9)).render(edition)
    body = b'<m xmlns="urn:sim"><t>EVIL-1</t></m>'
    return self.message(Kind.APPLICATION, "urn:sim/ok", body, key, header)


def _acknowledge(self: Attacker, party: Party, key: ContextKey) -> Outgoing | None:
    """An acknowledgement of replies that somebody else waits for."""
    edition, offered = _edition(party), self.identifier("offered")
    if edition is None or offered is None:
        return None
    header = reliability.SequenceAcknowledgement(offered, ((1, 1),)).render(edition)
    return self.message(Kind.ACKNOWLEDGEMENT, edition.action(Kind.ACKNOWLEDGEMENT.value), b"", key, header)


def _ask(self: Attacker, party: Party, key: ContextKey) -> Outgoing | None:
    """What has come in a foreign sequence."""
    edition, sequence = _edition(party), self.identifier("sequences")
    if edition is None or sequence is None:
        return None
    header = reliability.AckRequested(sequence).render(edition)
    return self.message(Kind.ACK_REQUESTED, edition.action(Kind.ACK_REQUESTED.value), b"", key, header)


def _close(self: Attacker, party: Party, key: ContextKey) -> Outgoing | None:
    """The end of a foreign sequence."""
    edition, sequence = _edition(party), self.identifier("sequences")
    if edition is None or sequence is None or not edition.can_close:
        return None
    body = reliability.CloseSequence(sequence, None).render(edition, party.policy.addressing)
    return self.message(Kind.CLOSE_SEQUENCE, edition.action(Kind.CLOSE_SEQUENCE.value), body, key)


def _terminate(self: Attacker, party: Party, key: ContextKey) -> Outgoing | None:
    """The end of a foreign sequence."""
    edition, sequence = _edition(party), self.identifier("sequences")
    if edition is None or sequence is None:
        return None
    body = reliability.TerminateSequence(sequence, None).render(edition, party.policy.addressing)
    return self.message(Kind.TERMINATE_SEQUENCE, edition.action(Kind.TERMINATE_SEQUENCE.value), body, key)


def _bind(self: Attacker, party: Party, key: ContextKey) -> Outgoing | None:
    """A sequence bound to a foreign context."""
    edition, context, row = _edition(party), self.identifier("contexts"), party.policy.conversation
    if edition is None or context is None or row is None or (self.own and context == self.own.identifier):
        return None
    token = SecurityTokenReference(uri=context, value_type=row.token_type)
    anonymous = EPR(party.policy.addressing.anonymous)
    body = reliability.CreateSequence(anonymous, token=token).render(edition, party.policy.addressing)
    return self.message(Kind.CREATE_SEQUENCE, edition.action(Kind.CREATE_SEQUENCE.value), body, key)


def _offer(self: Attacker, party: Party, key: ContextKey) -> Outgoing | None:
    """A sequence that offers what somebody else has offered."""
    edition, offered = _edition(party), self.identifier("offered")
    kept = self.stage.plan.service_store and self.stage.plan.restored is None
    if edition is None or offered is None or not kept:
        return None  # a service that has forgotten everything may take it
    anonymous = EPR(party.policy.addressing.anonymous)
    offer = reliability.Offer(offered, anonymous if edition.can_close else None)
    body = reliability.CreateSequence(anonymous, offer=offer).render(edition, party.policy.addressing)
    return self.message(Kind.CREATE_SEQUENCE, edition.action(Kind.CREATE_SEQUENCE.value), body, key)


def _target(self: Attacker, party: Party) -> SecurityTokenReference | None:
    context, row = self.identifier("contexts"), party.policy.conversation
    if context is None or row is None or (self.own and context == self.own.identifier):
        return None
    return SecurityTokenReference(uri=context, value_type=row.token_type)


def _cancel(self: Attacker, party: Party, key: ContextKey) -> Outgoing | None:
    """The end of a foreign context."""
    target = _target(self, party)
    if target is None:
        return None
    _, row = bootstrap.editions(party.policy)
    request = trust.RequestSecurityToken(request_type="Cancel", cancel_target=target)
    return self.message(Kind.CANCEL, row.action(Kind.CANCEL.value), request.render(row), key)


def _renew(self: Attacker, party: Party, key: ContextKey) -> Outgoing | None:
    """A new key for a foreign context."""
    target = _target(self, party)
    if target is None:
        return None
    edition, row = bootstrap.editions(party.policy)
    request = trust.RequestSecurityToken(
        request_type="Renew",
        token_type=edition.token_type,
        key_size=256,
        entropy=party.random(32),
        renew_target=target,
    )
    return Outgoing(
        Kind.RENEW,
        row.action(Kind.RENEW.value),
        request.render(row),
        message_id=self.stage.new_id("request"),
        reply_expected=True,
        key=self.stage.certificate,
        endorsing=key,
    )


def _shift(self: Attacker, party: Party, key: ContextKey) -> bytes | None:
    """Somebody's own message, under another number."""
    past = [each for each in self.stage.auditor.payloads if b"<r:MessageNumber" in each]
    if not past:
        return None
    payload = self.chance.choice(past)
    facts = wire.read(payload)
    if facts is None or facts.sequence is None:
        return None
    before, after = (b">%d</r:MessageNumber>" % number for number in (facts.number, facts.number + 1))
    return payload.replace(before, after)


def _naked(self: Attacker, party: Party, key: ContextKey) -> bytes | None:
    """Somebody's own message without its security."""
    if not self.stage.auditor.payloads:
        return None
    payload = self.chance.choice(self.stage.auditor.payloads)
    before, _, rest = payload.partition(b"<o:Security")
    return before + rest.partition(b"</o:Security>")[2]


def _contradict(self: Attacker, party: Party, key: ContextKey) -> Outgoing | None:
    """Two contents under one number, in a sequence of his own (I10)."""
    edition = _edition(party)
    if edition is None:
        return None
    anonymous = EPR(party.policy.addressing.anonymous)
    body = reliability.CreateSequence(anonymous).render(edition, party.policy.addressing)
    create = self.message(Kind.CREATE_SEQUENCE, edition.action(Kind.CREATE_SEQUENCE.value), body, key)
    facts = wire.read(self.post(party, create) or b"")
    if facts is None or facts.verb != "CreateSequenceResponse" or facts.named is None:
        return None
    header = reliability.Sequence(facts.named, 1).render(edition)
    first, second = (b'<m xmlns="urn:sim"><t>EVIL-%d</t></m>' % next(self.stage.world.names) for _ in "12")
    message = self.message(Kind.APPLICATION, "urn:sim/ok", first, key, header)
    known = wire.read(self.post(party, message) or b"")
    if known is None or known.fault:
        return None
    return self.message(Kind.APPLICATION, "urn:sim/ok", second, key, header)


Attack = Callable[[Attacker, Party, ContextKey], "Outgoing | bytes | None"]
ATTACKS: tuple[Attack, ...] = (
    _inject,
    _inject,
    _acknowledge,
    _ask,
    _close,
    _terminate,
    _bind,
    _offer,
    _cancel,
    _renew,
    _shift,
    _naked,
    _contradict,
)
