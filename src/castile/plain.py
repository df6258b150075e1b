"""Messages of a client outside any sequence: plain, or under the security context alone."""

from __future__ import annotations

from cryptography import x509

from castile.conversations import Conversations
from castile.endpoint.alarms import Alarm, alarm_of
from castile.endpoint.binding import prove_possession
from castile.endpoint.contexts import context_keys
from castile.endpoint.inbound import read
from castile.endpoint.kinds import Kind
from castile.endpoint.needs import check_client
from castile.endpoint.outbound import Outgoing, prepare
from castile.endpoint.party import Party
from castile.errors import (
    CastileError,
    FaultReceived,
    PeerError,
    SecurityFailure,
    SOAPFault,
    TransportError,
)
from castile.policy import ProtectionPolicy
from castile.security.keys import ContextKey
from castile.transport.carrier import Carrier


async def exchange(
    conversations: Conversations,
    carrier: Carrier,
    action: str,
    body: bytes,
    deadline: float,
    *,
    two_way: bool,
) -> bytes:
    """Send one message and give the content of the answer; b"" for a one-way message.

    `deadline`: ticks. Asked to renew, the context is renewed and the message sent once more
    (SC-28). A context that the peer seems to have lost isn't used for the next message; this one
    isn't repeated, since without a sequence nobody would know it again.
    """
    section = conversations.party.policy.protection(action, "request")
    for again in (True, False):
        contexts = section is not None and section.has_contexts
        context = await conversations.identify(deadline) if contexts else None
        key = _key(conversations, context)
        try:
            return await _exchange(conversations, carrier, action, body, deadline, key, two_way=two_way)
        except FaultReceived as fault:
            if key is None or not (again and await _renewed(conversations, fault, key)):
                raise
    raise TransportError("the peer wants a renewal again and again")


async def _renewed(conversations: Conversations, fault: FaultReceived, key: ContextKey) -> bool:
    alarm = alarm_of(fault.fault, secured=fault.authenticated)
    if alarm is Alarm.LOST:
        conversations.abandon(key.identifier, authenticated=fault.authenticated)
    if alarm is not Alarm.RENEW or not conversations.heed(authenticated=fault.authenticated):
        return False
    try:
        await conversations.renew(key.identifier, refused=key)
    except CastileError:
        conversations.abandon(key.identifier, authenticated=True)
    return True


async def _exchange(
    conversations: Conversations,
    carrier: Carrier,
    action: str,
    body: bytes,
    deadline: float,
    key: ContextKey | None,
    *,
    two_way: bool,
) -> bytes:
    party = conversations.party
    section = party.policy.protection(action, "request")
    message_id = party.new_id()
    outgoing = Outgoing(
        Kind.APPLICATION,
        action,
        body,
        message_id=message_id,
        reply_expected=two_way,
        addressed=party.policy.addressed,
        key=key or _certificate(party, section),
    )
    if key is not None:
        conversations.freshen(key.identifier)
    protected = prepare(party, outgoing, party.now())
    with party.keyring.holding(protected.key):
        payload = await carrier.post(action, protected.payload, max(0.0, deadline - conversations.now().tick))
        if payload is None:
            if two_way:
                raise TransportError("the peer took the message and gave no answer")
            return b""
        confirmations = (protected.signature_values,)
        inbound = read(
            party, payload, party.now(), request=False, confirmations=confirmations, asked=action
        )
    protected_too = party.policy.answering(inbound.addressing.action, action) is not None
    if key is not None and protected_too:
        prove_possession(inbound.verified, Kind.PLAIN, key.identifier)
    elif protected_too:
        await conversations.reject_replay(inbound)
    sealed = section is not None and section.binding == "symmetric" and protected.key is not None
    if sealed and protected_too and inbound.verified.reply_key != protected.key:
        raise SecurityFailure("the answer is under the key of another request", part="wsse:Security")
    if two_way and party.policy.addressed and inbound.addressing.relates_to != message_id:
        raise PeerError("the answer relates to another message")
    if isinstance(inbound.body, SOAPFault):
        secured = bool(inbound.verified.signatures) or inbound.verified.transport is not None
        raise FaultReceived(inbound.body, authenticated=secured, exchange=inbound.exchange)
    return inbound.content


def _certificate(party: Party, section: ProtectionPolicy | None) -> x509.Certificate | None:
    """The service's certificate, where messages are sealed for it. Raises `PolicyError` where a
    credential is missing."""
    if section is None or section.has_contexts:
        return None
    check_client(party, section)
    return party.certificate if section.binding != "transport" else None


def _key(conversations: Conversations, context: str | None) -> ContextKey | None:
    return context_keys(conversations.record(context))[-1] if context is not None else None


__all__ = ["exchange"]
