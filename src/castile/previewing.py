"""``client.preview``: the message that a call would send, before and after protection.

Nothing is sent, stored or numbered. Where there is no security context or sequence yet, made-up
ones stand in for them, so that the message is of the shape that it would have.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from castile.endpoint.contexts import keys_of
from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Key, Outgoing, prepare, render
from castile.endpoint.party import Party
from castile.errors import PolicyError
from castile.messages import reliability, soap
from castile.messages.conversation import SecurityContextToken
from castile.messages.soap import Header
from castile.pump import Pump
from castile.security.keys import ContextKey

_STAND_IN = "urn:castile:preview"


@dataclass(frozen=True, slots=True)
class Preview:
    """A message as it would go out."""

    message: bytes = field(repr=False)
    """Before protection."""
    protected: bytes = field(repr=False)
    """After it: as it would go over the wire."""


def preview(pump: Pump, action: str, body: bytes, *, two_way: bool) -> Preview:
    """The message of a call. Raises `PolicyError` where its key can't be had."""
    party = pump.party
    outgoing = Outgoing(
        Kind.APPLICATION,
        action,
        body,
        _sequence(pump),
        message_id=party.new_id(),
        reply_expected=two_way,
        addressed=party.policy.addressed,
        key=_key(pump),
    )
    return Preview(soap.render(render(party, outgoing)), prepare(party, outgoing, party.now()).payload)


def _sequence(pump: Pump) -> tuple[Header, ...]:
    """The number that the next message would have."""
    edition, key = pump.party.policy.reliability, pump.keys.get("")
    if edition is None:
        return ()
    record = pump.party.run(lambda tx: tx.source(key)) if key is not None else None
    if record is None or record.state.identifier is None or record.state.ended:
        return (reliability.Sequence(_STAND_IN, 1).render(edition),)
    return (reliability.Sequence(record.state.identifier, record.state.highest + 1).render(edition),)


def _key(pump: Pump) -> Key | None:
    party, state = pump.party, pump.conversations.current()
    if party.policy.application is None:
        return None
    if not party.policy.has_contexts:
        if party.certificate is None:
            raise PolicyError(
                "the message is sealed for the service's certificate: give service_certificate="
            )
        return party.certificate
    return keys_of(state)[-1] if state is not None else _made_up(party)


def _made_up(party: Party) -> ContextKey:
    edition = party.policy.conversation
    if edition is None:
        raise PolicyError("the policy has security contexts and no edition of WS-SecureConversation")
    token = SecurityContextToken(_STAND_IN, None, "SecurityContextToken").render(edition)
    return ContextKey(_STAND_IN, None, party.random(32), edition, "SecurityContextToken", token)


__all__ = ["Preview", "preview"]
