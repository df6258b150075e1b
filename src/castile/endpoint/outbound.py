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
from castile.errors import SOAPFault, UsageError
from castile.messages import addressing, reliability, soap
from castile.messages.addressing import EPR, Headers
from castile.messages.soap import Header, Message
from castile.policy import EndpointPolicy, ProtectionPolicy
from castile.security.certificates import CertificateKey
from castile.security.keys import ContextKey, SealedKey
from castile.security.pipeline import Protected, Protection, protect
from castile.versions import SOAP_1_1, WSSC_1_3, Addressing

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
    """What protects it; None: TLS does, or a certificate of ours alone."""
    unsecured: bool = False
    """It goes out as it is: a fault before any key."""
    asked: str | None = None
    """Action of the application's request that it answers."""
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
    """Render and protect one attempt at a message. Raises `UsageError` where key and policy don't
    fit: nothing goes unprotected that the policy has protected."""
    message = render(party, outgoing)
    section = None if outgoing.unsecured else _section(party, outgoing)
    if section is None:
        return Protected(soap.render(message), None, ())
    request, timers, kind = party.side == "client", party.settings.timers, outgoing.kind
    protection = Protection(
        policy=section,
        edition=party.policy.conversation or WSSC_1_3,
        key=outgoing.key,
        request=request,
        username=party.username if request and section.username else None,
        encrypt=kind is Kind.APPLICATION or kind.bootstrap or party.policy.encrypt_lifecycle,
        signer=party.signer if section.binding == "asymmetric" else None,
        endorsing=_endorsing(party, outgoing, section) if request else (),
        certificate=party.credential.certificate if request and party.credential else None,
        confirm=outgoing.confirm if section.signature_confirmation else (),
        clear_password=party.settings.allow_clear_password,
    )
    return protect(message, protection, now, party.random, timers)


def _section(party: Party, outgoing: Outgoing) -> ProtectionPolicy | None:
    """What protects a message that goes out."""
    if outgoing.kind not in (Kind.APPLICATION, Kind.FAULT):
        return party.section(outgoing.kind, own_key=isinstance(outgoing.key, ContextKey))
    policy = party.policy
    if party.side == "client":
        return party.of_application(policy.protection(outgoing.action, "request"))
    action = outgoing.action if outgoing.addressed else ""
    return party.of_application(policy.answering(action, outgoing.asked))


def _endorsing(
    party: Party, outgoing: Outgoing, section: ProtectionPolicy
) -> tuple[CertificateKey | ContextKey, ...]:
    """Keys that sign beside the binding's: of a certificate, and of an SCT, the old one of a renewal
    or over TLS the message's own."""
    found: list[CertificateKey | ContextKey] = []
    if section.endorsing and party.credential is not None:
        found.append(party.credential)
    if outgoing.endorsing is not None:
        found.append(outgoing.endorsing)
    elif section.binding == "transport" and section.supports("context"):
        if not isinstance(outgoing.key, ContextKey):
            raise UsageError("the policy has a security context sign, and there is none")
        found.append(outgoing.key)
    return tuple(found)


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
        unsecured=not (isinstance(key, ContextKey) or _by_transport(policy)),
    )


def _by_transport(policy: EndpointPolicy) -> bool:
    return policy.application is not None and policy.application.binding == "transport"
