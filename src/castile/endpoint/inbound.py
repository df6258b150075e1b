"""The walk in: bytes from the network to a committed step, and what to answer.

::

    xml.parse → soap.parse → unprotect → Inbound.read → one step in the store → Reply or Pending

Everything up to the step is a plain call; the step runs in the store's thread and its future
resolves after the commit that explains the answer. One place turns errors into faults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from castile import xml
from castile.clock import Now
from castile.config import Limits
from castile.endpoint.kinds import Kind, kind_of, understood
from castile.endpoint.party import Party, security_log
from castile.errors import (
    WSSE,
    Exchange,
    FaultReceived,
    Malformed,
    PeerError,
    SecurityFailure,
    SOAPFault,
    Unsupported,
)
from castile.messages import addressing, reliability, soap, trust
from castile.policy import EndpointPolicy, MessagePolicy, ProtectionPolicy
from castile.security.pipeline import Expectation, Verified, accept_plain, unprotect
from castile.versions import DS, WSA, WSRM, WSSE11, XENC, Addressing, Reliability

_CLAIMED_CHARACTERS = 1_024
_SECURITY: Final = {(WSSE, "Security"), (WSSE11, "EncryptedHeader")}
_RM_HEADERS: Final = frozenset(
    {"Sequence", "SequenceAcknowledgement", "AckRequested", "UsesSequenceSTR", "SequenceFault"}
)
"""What of WS-RM is understood; UsesSequenceSSL isn't (features CO-07)."""

Machinery = (
    reliability.CreateSequence
    | reliability.CreateSequenceResponse
    | reliability.CloseSequence
    | reliability.CloseSequenceResponse
    | reliability.TerminateSequence
    | reliability.TerminateSequenceResponse
    | trust.RequestSecurityToken
    | trust.RequestSecurityTokenResponse
)
"""Bodies of the machinery's own messages."""
Lifecycle = Machinery | SOAPFault
RELIABLE_BODIES: Final[dict[Kind, Callable[[xml.Element, Reliability, Addressing], Machinery]]] = {
    Kind.CREATE_SEQUENCE: reliability.CreateSequence.parse,
    Kind.CREATE_SEQUENCE_RESPONSE: reliability.CreateSequenceResponse.parse,
    Kind.CLOSE_SEQUENCE: reliability.CloseSequence.parse,
    Kind.CLOSE_SEQUENCE_RESPONSE: reliability.CloseSequenceResponse.parse,
    Kind.TERMINATE_SEQUENCE: reliability.TerminateSequence.parse,
    Kind.TERMINATE_SEQUENCE_RESPONSE: reliability.TerminateSequenceResponse.parse,
}
"""How the Body of each kind is read that WS-ReliableMessaging gives one."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """A verified message, typed: only what a signature covers is in here."""

    kind: Kind
    verified: Verified
    addressing: addressing.Headers
    reliability: reliability.RMHeaders
    body: Lifecycle | None
    """The typed body of a message of the machinery; None for the application's."""
    content: bytes = field(repr=False)
    """The canonical children of Body, which stand alone."""
    edition: Addressing
    """Of WS-Addressing: the policy's, but for a request for a token (SC-21)."""
    problem: PeerError | None = None
    """What is wrong with it all the same: a service refuses it under the key that it proved."""
    addressed: bool = True
    """It has WS-Addressing headers; without, `addressing` says only what its action must be."""

    @property
    def exchange(self) -> Exchange:
        """What an error about this message may tell."""
        sequence = self.reliability.sequence
        return Exchange(
            self.addressing.action,
            self.addressing.message_id,
            sequence.identifier if sequence else None,
            sequence.number if sequence else None,
        )

    @property
    def names_sequence(self) -> bool:
        """Whether the numbers of a sequence, not a replay cache, tell its repetitions."""
        headers = self.reliability
        return bool(
            headers.sequence
            or headers.acknowledgements
            or headers.ack_requested
            or isinstance(
                self.body,
                reliability.CreateSequence | reliability.CloseSequence | reliability.TerminateSequence,
            )
        )


Confirmations = tuple[tuple[bytes, ...], ...]
"""Signature values of each attempt at a request that an answer may confirm."""


@dataclass(frozen=True, slots=True)
class Around:
    """What is known of a message beside its octets."""

    request: bool
    """It is what a service receives."""
    tls: bool = False
    """Of a request: it came over TLS, or what the settings take for it."""
    asked: str | None = None
    """Of an answer: the action of its request; None: any."""
    confirmations: Confirmations | None = None
    """Of an answer: what it may confirm."""
    label: str | None = None
    """The action that HTTP names, for messages that needn't have one of their own."""


def read(
    party: Party,
    payload: bytes,
    now: Now,
    *,
    request: bool,
    tls: bool = False,
    confirmations: Confirmations | None = None,
    asked: str | None = None,
) -> Inbound:
    """`receive` of these bytes; see `Around`."""
    envelope = opened(payload, party.settings.limits)
    return receive(party, envelope, now, Around(request, tls, asked, confirmations))


def opened(payload: bytes, limits: Limits) -> soap.Envelope:
    """The envelope, of which nothing is known yet. Raises `Malformed`."""
    return soap.parse(xml.parse(payload, limits), limits, len(payload))


def receive(party: Party, envelope: soap.Envelope, now: Now, around: Around) -> Inbound:
    """Verify and type one message. Raises `PeerError`, or `FaultReceived` (client)."""
    policy, limits, request = party.policy, party.settings.limits, around.request
    if envelope.soap is not policy.soap:
        raise Malformed(
            "the message is of another SOAP version than this endpoint",
            expected=policy.soap.name,
            got=envelope.soap.name,
            fault=SOAPFault("VersionMismatch", f"This endpoint speaks {policy.soap.name}."),
        )
    refuse_not_understood(envelope, policy)
    if not request:
        refuse_unsecured_fault(envelope, policy)
    edition = _addressing(envelope, policy, request=request)
    alone = not addressed(envelope, policy)
    action = _labelled(policy, envelope, around) if alone else _claimed_action(envelope, edition)
    kind = Kind.APPLICATION if alone else kind_of(action, policy)
    verified = verify(party, envelope, kind, action, now, around)
    try:
        if alone:
            return _unaddressed(party, verified, around.label)
        return typed(verified, kind, policy, limits, edition)
    except PeerError as error:
        if not request:
            raise
        headers = addressing.Headers(action="")
        nothing = reliability.RMHeaders()
        return Inbound(kind, verified, headers, nothing, None, b"", edition, error, not alone)


def verify(
    party: Party, envelope: soap.Envelope, kind: Kind, action: str, now: Now, around: Around
) -> Verified:
    """`unprotect` under the section of the policy that this kind of message falls under.

    The claimed action only chooses among an application's operations; where nothing covers it, the
    message must satisfy every operation that it could be of.
    """
    policy = party.policy
    tls = around.tls if around.request else party.tls
    if policy.tls and not tls:
        raise SecurityFailure("the policy asks for TLS, and the connection has none")

    def under(section: ProtectionPolicy | None) -> Verified:
        if section is None:
            return accept_plain(envelope)
        encrypted = kind is Kind.APPLICATION or kind.bootstrap
        expectation = Expectation(
            policy=section,
            edition=policy.conversation,
            request=around.request,
            encrypted_body=True if encrypted else None,
            trust=party.anchors,
            confirmations=around.confirmations,
            tls=tls,
            clear_password=party.settings.allow_clear_password,
            legacy=party.settings.legacy,
        )
        return unprotect(
            envelope, party.keyring, expectation, now, party.settings.limits, party.settings.timers
        )

    if kind not in (Kind.APPLICATION, Kind.FAULT):
        return under(party.section(kind, own_key=_by_own_key(party, envelope)))
    chosen = policy.protection(action, "request")
    if not around.request:
        chosen = policy.answering(action, around.asked)
    verified = under(party.of_application(chosen))
    for other in _alternatives(policy, verified, action, chosen, around):
        under(party.of_application(other))
    return verified


def _alternatives(
    policy: EndpointPolicy,
    verified: Verified,
    action: str,
    chosen: ProtectionPolicy | None,
    around: Around,
) -> list[ProtectionPolicy]:
    """What else a message must satisfy whose Action nobody has proved: all that its Body, or where
    that isn't known either, that any operation asks for. Raises `SecurityFailure` where they differ."""
    if not policy.messages:
        return []
    actions = [header for header in verified.headers if header.name == "wsa:Action"]
    if actions and (verified.transport is not None or actions[0].key is not None):
        return []
    rows: tuple[MessagePolicy, ...] = policy.answers_to(around.asked)
    if around.request:
        rows = tuple(row for row in policy.messages if row.direction == "request")
    element = str(verified.body[0].tag) if len(verified.body) else ""
    named = [row for row in rows if row.element and row.element == element]
    if named and action and all(row.action != action for row in named):
        raise SecurityFailure("the Action isn't proved, and isn't the Body's", part="wsa:Action")
    found = [row.protection for row in named or rows]
    if not named and (around.request or not rows):
        found.append(policy.application)
    return [each for each in dict.fromkeys(found) if each is not None and each != chosen]


def _labelled(policy: EndpointPolicy, envelope: soap.Envelope, around: Around) -> str:
    """The action that a message without addressing seems to have: HTTP's label, else what its Body
    is the element of; "" where neither tells."""
    element = str(envelope.body[0].tag) if len(envelope.body) else ""
    rows = (row for row in policy.messages if row.direction == "request" and row.element == element)
    row = next(rows, None) if around.request and not around.label else None
    return row.action if row is not None else around.label or ""


def _by_own_key(party: Party, envelope: soap.Envelope) -> bool:
    """Whether a renewal is signed by its context's key: then it carries no other."""
    if party.side == "client":
        return party.settings.renew_proof == "key"
    tags = [] if envelope.security is None else [child.tag for child in envelope.security]
    if party.policy.bootstrap is not None and party.policy.bootstrap.binding == "transport":
        return f"{{{WSSE}}}UsernameToken" not in tags and tags.count(f"{{{DS}}}Signature") < 2
    return f"{{{XENC}}}EncryptedKey" not in tags


def typed(
    verified: Verified,
    kind: Kind,
    policy: EndpointPolicy,
    limits: Limits,
    wsa: Addressing,
) -> Inbound:
    """The headers and body of a verified message as the dataclasses of `messages`."""
    elements = [header.element for header in verified.headers]
    headers = addressing.parse(elements, wsa)
    if kind_of(headers.action, policy) is not kind:
        raise SecurityFailure("the verified action isn't the one that chose the policy", part="wsa:Action")
    rm = reliability.RMHeaders()
    edition = policy.reliability
    namespaces = {xml.namespace_of(element) for element in elements} & WSRM.keys()
    if edition and namespaces <= {edition.namespace}:
        rm = reliability.parse_headers(elements, edition, limits, soap=verified.soap)
    elif namespaces:
        raise Malformed(
            "the message carries headers of a WS-ReliableMessaging edition that this endpoint hasn't",
            expected=edition.name if edition else "none",
            got=", ".join(WSRM[namespace].name for namespace in sorted(namespaces)),
        )
    if rm.sequence and not kind.numbered and kind is not Kind.FAULT:
        raise Malformed(f"a Sequence header on {kind.value} (RE-89)")
    body = _typed_body(verified, kind, headers.action, policy)
    if isinstance(body, SOAPFault) and rm.fault and edition:
        body = rm.fault.joined(body, edition)
    return Inbound(kind, verified, headers, rm, body, verified.body_alone, wsa)


def addressed(envelope: soap.Envelope, policy: EndpointPolicy) -> bool:
    """Whether WS-Addressing counts for a message: the policy asks for it, or it is there anyway."""
    return policy.addressed or addressing.edition_of(envelope.headers) is not None


def _unaddressed(party: Party, verified: Verified, label: str | None) -> Inbound:
    """A message by HTTP's own request and response; its Body, which is verified, tells what it is."""
    policy, children = party.policy, list(verified.body)
    names = [xml.name_of(child) for child in children]
    if len(names) > 1:
        raise Malformed(f"the Body holds one element at most (WS-I R9981), not {len(names)}")
    fault = soap.read_fault(children[0], policy.soap) if children else None
    return Inbound(
        Kind.APPLICATION,
        verified,
        addressing.Headers(party.implied(label, names[0] if names else None)),
        reliability.RMHeaders(),
        fault,
        verified.body_alone,
        policy.addressing,
        addressed=False,
    )


def _typed_body(
    verified: Verified, kind: Kind, action: str, policy: EndpointPolicy
) -> Lifecycle | None:
    edition, children = policy.reliability, list(verified.body)
    if kind in (Kind.APPLICATION, Kind.ACKNOWLEDGEMENT, Kind.ACK_REQUESTED, Kind.LAST_MESSAGE):
        return soap.read_fault(children[0], policy.soap) if len(children) == 1 else None
    if len(children) != 1:
        raise Malformed(f"the Body of {kind.value} holds exactly one element", got=str(len(children)))
    child = children[0]
    if kind is Kind.FAULT:
        fault = soap.read_fault(child, policy.soap)
        if fault is None:
            raise Malformed("a message with a fault action has no Fault in its Body")
        return fault
    if not understood(action, policy):
        return None  # refused by its action
    if kind in (Kind.ISSUE, Kind.RENEW, Kind.CANCEL) and policy.trust:
        return trust.RequestSecurityToken.parse(child, policy.trust)
    if kind in (Kind.ISSUE_RESPONSE, Kind.RENEW_RESPONSE, Kind.CANCEL_RESPONSE) and policy.trust:
        return trust.RequestSecurityTokenResponse.parse(child, policy.trust)
    if edition is None:
        return None  # refused by its action
    return RELIABLE_BODIES[kind](child, edition, policy.addressing)


def _addressing(envelope: soap.Envelope, policy: EndpointPolicy, *, request: bool) -> Addressing:
    """The edition that the message must be addressed in: the policy's.

    A request for a token may be in the other one: Rampart's is, whatever its application's
    messages are in (features SC-21).
    """
    found = addressing.edition_of(envelope.headers)
    if not request or found is None or found is policy.addressing:
        return policy.addressing
    return found if kind_of(_claimed_action(envelope, found), policy).bootstrap else policy.addressing


def _claimed_action(envelope: soap.Envelope, edition: Addressing) -> str:
    actions = [
        element for element in envelope.headers if element.tag == f"{{{edition.namespace}}}Action"
    ]
    if len(actions) != 1:
        raise Malformed(
            f"the message has {len(actions)} wsa:Action headers of {edition.name}, one is needed",
            fault=SOAPFault(
                "Sender",
                "A required header representing a Message Addressing Property is not present",
                (edition.namespace, "MessageAddressingHeaderRequired"),
                action=edition.fault_action,
            ),
        )
    return xml.text_of(actions[0]).strip()


def claimed_message_id(envelope: soap.Envelope, edition: Addressing) -> str | None:
    """The MessageID that a message gives itself: for the fault that answers it, as proof of nothing."""
    found = [block for block in envelope.headers if block.tag == f"{{{edition.namespace}}}MessageID"]
    text = (found[0].text or "").strip() if len(found) == 1 and not len(found[0]) else ""
    return text if text and len(text) <= _CLAIMED_CHARACTERS and not any(map(str.isspace, text)) else None


def refuse_not_understood(envelope: soap.Envelope, policy: EndpointPolicy) -> None:
    """A header that must be understood and isn't (SOAP 1.2 part 1, 5.4.8)."""
    secured = bool(policy.protections)
    refused = []
    for block in envelope.headers:
        namespace, local = xml.name_of(block)
        known = namespace in WSA or (secured and (namespace, local) in _SECURITY)
        if policy.reliability is not None and namespace in WSRM:
            known = local in _RM_HEADERS  # of another edition: told below, by name
        if not known and soap.must_understand(block, envelope.soap):
            refused.append((namespace, local))
    if refused:
        named = ", ".join(f"{local} of {namespace}" for namespace, local in refused)
        text = "A header block was not understood."
        raise Unsupported(
            f"headers that must be understood, and aren't: {named}",
            fault=SOAPFault("MustUnderstand", text, not_understood=tuple(refused)),
        )


def refuse_unsecured_fault(envelope: soap.Envelope, policy: EndpointPolicy) -> None:
    """An unsecured fault where security is due: told to the caller, never to a rule (CO-14)."""
    if envelope.security is not None or not policy.protections:
        return
    if policy.application is not None and policy.application.answers_bare:
        return  # over TLS that is how an answer looks
    children = list(envelope.body)
    fault = soap.read_fault(children[0], policy.soap) if len(children) == 1 else None
    if fault is not None:
        raise FaultReceived(fault, authenticated=False)


def log_refusal(error: PeerError) -> None:
    """The one line that says why; the wire doesn't."""
    security_log.warning("refused: %s", error, extra={"code": error.code, "exchange": error.exchange})
