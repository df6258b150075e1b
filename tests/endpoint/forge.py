"""Messages that nobody sent: protected by whatever key a test chooses."""

from __future__ import annotations

import os
from dataclasses import dataclass

import castile
from castile.clock import system
from castile.endpoint.contexts import context_keys
from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Outgoing, prepare
from castile.endpoint.party import Party, Side
from castile.messages import soap
from castile.messages.reliability import AckRequested, Sequence, SequenceAcknowledgement, SequenceFault
from castile.messages.soap import Header
from castile.protocol import conversation, issuer
from castile.protocol.conversation import Conversation, Instance
from castile.security.keys import ContextKey
from castile.store import Store
from castile.store.records import ContextRecord
from castile.versions import SOAP_1_1, Addressing, Reliability
from tests.endpoint.pair import ADDRESS, TLS_ADDRESS

OTHER = "http://service.test/other"
"""Another service, whose contexts are worth nothing here."""


@dataclass
class Forger:
    """Renders messages of one side under one key; None: unsecured."""

    policy: castile.EndpointPolicy
    store: Store
    key: ContextKey | None
    side: Side = "client"

    def __call__(
        self,
        kind: Kind,
        body: bytes = b"",
        *headers: Header,
        action: str | None = None,
        message_id: str | None = None,
        relates_to: str | None = None,
        reply: bool = False,
    ) -> bytes:
        address = TLS_ADDRESS if self.policy.tls else ADDRESS
        party = Party(self.side, address, self.policy, self.store, os.urandom)
        outgoing = Outgoing(
            kind,
            action or action_of(kind, self.policy),
            body,
            headers,
            message_id=message_id or (party.new_id("message") if self.side == "client" else None),
            relates_to=relates_to,
            reply_expected=reply,
            key=self.key,
            unsecured=self.key is None,
        )
        return prepare(party, outgoing, system()).payload

    def fault(self, found: castile.errors.SOAPFault, *, relates_to: str | None = None) -> bytes:
        """A fault, in SOAP 1.1 with the header that names it."""
        header = SequenceFault.of(found) if self.policy.soap is SOAP_1_1 else None
        headers = (header.render(self.edition),) if header else ()
        return self(Kind.FAULT, soap.render_fault(found, self.policy.soap), *headers, relates_to=relates_to)

    @property
    def edition(self) -> Reliability:
        assert self.policy.reliability is not None
        return self.policy.reliability

    @property
    def addressing(self) -> Addressing:
        return self.policy.addressing

    def sequence(self, identifier: str, number: int, *, last: bool = False) -> Header:
        return Sequence(identifier, number, last).render(self.edition)

    def acknowledgement(self, identifier: str, *ranges: tuple[int, int], final: bool = False) -> Header:
        header = SequenceAcknowledgement(identifier, ranges, none=not ranges, final=final)
        return header.render(self.edition)

    def requested(self, identifier: str) -> Header:
        return AckRequested(identifier).render(self.edition)


def action_of(kind: Kind, policy: castile.EndpointPolicy) -> str:
    """The action of a kind of the machinery."""
    if kind is Kind.FAULT:
        fault = policy.reliability.fault_action if policy.reliability else None
        return fault or policy.addressing.soap_fault_action
    if kind.value.startswith("RST"):
        assert policy.trust is not None
        return policy.trust.action(kind.value)
    assert policy.reliability is not None
    return policy.reliability.action(kind.value)


def key_of(client: castile.Client) -> ContextKey:
    """The key of a client's context."""
    state = client.context
    assert state is not None
    record = client._store.run(
        lambda tx: tx.context(state.identifier, side="client", endpoint=client._party.realm)
    ).result()
    return context_keys(record)[-1]


def planted(
    store: Store, policy: castile.EndpointPolicy, side: Side, endpoint: str, *, ended: bool = False
) -> ContextKey:
    """A context that lies in a store although nobody bootstrapped it there; its key."""
    assert policy.conversation is not None
    now = system().utc
    identifier = f"urn:uuid:{os.urandom(16).hex()}"
    instance = Instance(None, os.urandom(32), now, now + 3_600)
    state: Conversation | issuer.Context
    if side == "client":
        state = Conversation(
            policy.conversation.namespace,
            endpoint,
            "mallory",
            identifier,
            phase=conversation.Phase.CANCELLED if ended else conversation.Phase.USABLE,
            created=now,
            expires=now + 3_600,
            instances=(instance,),
        )
    else:
        state = issuer.Context(
            identifier, policy.conversation.namespace, "mallory", endpoint, now, now + 3_600, (instance,)
        )
    record = ContextRecord(state, side, endpoint, "mallory", now + 3_600)
    keys = context_keys(record)
    if ended:
        record = ContextRecord(state, side, endpoint, "mallory", now + 3_600, now)
    store.run(lambda tx: tx.save_context(record)).result()
    return keys[-1]
