"""The walk out: a message of ours, from its parts to protected bytes.

`Outgoing` is everything about a message but its protection. It is protected afresh for every
attempt (CO-15): new Timestamp, new nonces, new signature, same numbers and body.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509

from castile.clock import Now
from castile.endpoint.kinds import Kind
from castile.endpoint.party import Party
from castile.errors import SOAPFault
from castile.messages import addressing, reliability, soap
from castile.messages.addressing import EPR, Headers
from castile.messages.soap import Header, Message
from castile.security.keys import ContextKey, SealedKey
from castile.security.pipeline import Protected, Protection, protect
from castile.versions import SOAP_1_1, Addressing

Key = ContextKey | SealedKey | x509.Certificate


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send: request or response."""

    kind: Kind
    action: str
    body: bytes = field(default=b"", repr=False)
    """Canonical children of Body."""
    headers: tuple[Header, ...] = ()
    """RM headers, which go first as WCF writes them."""
    message_id: str | None = None
    relates_to: str | None = None
    reply_expected: bool = False
    edition: Addressing | None = None
    """Of WS-Addressing; None: the policy's."""
    addressed: bool = True
    """It has WS-Addressing headers."""
    key: Key | None = None
    """What protects it; None: nothing does (a plain endpoint, or a fault before any key)."""
    endorsing: ContextKey | None = None
    """The old key of a renewal."""
    confirm: tuple[bytes, ...] = field(default=(), repr=False)
    """Values of the signatures of the request that it answers."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back on an HTTP exchange: a message, or nothing but a status."""

    message: Outgoing | None = None
    status: int = 200

    @classmethod
    def nothing(cls) -> Reply:
        """Accepted, and nothing to say yet (HTTP 202)."""
        return cls(None, 202)


@dataclass(frozen=True, slots=True)
class Pending:
    """The application must answer first."""

    sequence: str
    number: int


def prepare(party: Party, outgoing: Outgoing, now: Now) -> Protected:
    """Render and protect one attempt at a message."""
    message = render(party, outgoing)
    if outgoing.key is None:
        return Protected(soap.render(message), None, ())
    policy = party.policy
    section = party.section(outgoing.kind, own_key=isinstance(outgoing.key, ContextKey))
    if section is None or policy.conversation is None:
        return Protected(soap.render(message), None, ())
    request = party.side == "client"
    endorsing = [party.credential] if request and section.endorsing and party.credential else []
    protection = Protection(
        policy=section,
        edition=policy.conversation,
        key=outgoing.key,
        request=request,
        username=party.username if request and section.username else None,
        encrypt=_encrypts(party, outgoing) and section.parts.encrypted_body,
        signer=party.signer if section.binding == "asymmetric" else None,
        endorsing=(*endorsing, outgoing.endorsing) if outgoing.endorsing else tuple(endorsing),
        confirm=outgoing.confirm if section.signature_confirmation else (),
    )
    return protect(message, protection, now, party.random, party.settings.timers)


def render(party: Party, outgoing: Outgoing) -> Message:
    """The unprotected message: RM headers, addressing, body.

    Requests carry To and, where an answer is wanted, MessageID and an anonymous ReplyTo;
    responses carry Action and RelatesTo, as WCF's do, and in 2004/08, where To is required, To.
    """
    policy = party.policy
    request = party.side == "client"
    edition = outgoing.edition or policy.addressing
    headers = Headers(
        action=outgoing.action,
        to=party.to if request else edition.reply_address,
        message_id=outgoing.message_id,
        reply_to=EPR(edition.anonymous) if request and outgoing.reply_expected else None,
        relates_to=outgoing.relates_to,
    )
    addresses = addressing.render(headers, edition) if outgoing.addressed else ()
    return Message(policy.soap, outgoing.headers + addresses, outgoing.body)


def _encrypts(party: Party, outgoing: Outgoing) -> bool:
    """Whether this kind of body is encrypted (CO-09): lifecycle bodies and empty ones aren't."""
    if not outgoing.body:
        return False
    if outgoing.kind is Kind.APPLICATION or outgoing.kind.bootstrap:
        return True
    return party.policy.encrypt_lifecycle


def fault_message(
    party: Party, fault: SOAPFault, *, relates_to: str | None, key: Key | None
) -> Outgoing:
    """A fault as a message; secured when a key is known (features 5.6)."""
    policy = party.policy
    header = None
    if policy.soap is SOAP_1_1 and policy.reliability:
        header = reliability.SequenceFault.of(fault)
    headers = (header.render(policy.reliability),) if header and policy.reliability else ()
    return Outgoing(
        Kind.FAULT,
        fault.action or policy.addressing.soap_fault_action,
        soap.render_fault(fault, policy.soap),
        headers + soap.not_understood(fault, policy.soap),
        relates_to=relates_to,
        key=key if isinstance(key, ContextKey) else None,
    )
