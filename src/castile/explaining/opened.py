"""One captured message, opened: what `unprotect` found, and what the message says.

Nothing here judges: keys, digests and decryption are `unprotect`'s, headers and bodies are read
by the dataclasses of `castile.messages`. What those refuse is kept as text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from castile import xml
from castile.clock import Now
from castile.config import Limits, Timers
from castile.endpoint.inbound import RELIABLE_BODIES, Machinery
from castile.endpoint.kinds import Kind, kind_of
from castile.errors import Malformed, PeerError, SOAPFault, Unsupported
from castile.explaining.capture import Captured
from castile.messages import addressing, reliability, soap, trust
from castile.messages.security import ID, Timestamp
from castile.policy import EndpointPolicy
from castile.security.coverage import header_name
from castile.security.keys import KeySource
from castile.security.pipeline import Expectation, Verified, unprotect
from castile.security.trace import Trace
from castile.versions import (
    CONVERSATION_OF,
    DS,
    SOAP,
    SOAP_1_2,
    WSA_1_0,
    WSRM,
    WSSC,
    WSSE,
    WST,
    WSU,
    XENC,
    Addressing,
    Reliability,
    Trust,
)
from castile.xml import Element

LIMITS: Final = Limits()
TIMERS: Final = Timers()
_ANYTHING: Final = Expectation(policy=None, edition=None, request=True)
_ENVELOPES: Final = frozenset(f"{{{namespace}}}Envelope" for namespace in SOAP)
_DATA: Final = f"{{{XENC}}}EncryptedData"
_SIGNATURE: Final = f"{{{DS}}}Signature"
_REFERENCE: Final = f"{{{DS}}}SignedInfo/{{{DS}}}Reference"
_STR: Final = f".//{{{WSSE}}}Reference"
_SEALS: Final = (f".//{{{DS}}}SignatureValue", f"{_DATA}/{{{XENC}}}CipherData/{{{XENC}}}CipherValue")
_PROTECTING: Final = frozenset({_DATA, _SIGNATURE})
_CONTEXT_TOKENS: Final = frozenset(f"{{{namespace}}}SecurityContextToken" for namespace in WSSC)
_CONTEXT_TYPES: Final = frozenset(row.token_type for row in WSSC.values())

@dataclass(frozen=True, slots=True)
class Shape:
    """What a message's security looks like from outside, before any key is used."""

    protected: bool = False
    """Something in it is signed or encrypted, or says so."""
    full: bool = False
    """The Body is signed or encrypted, as far as can be seen: message security."""
    thin: bool = False
    """Signed, but not over the Body: what goes over TLS."""
    context: str | None = None
    """Identifier of the security context that its Security header names."""
    timestamp: bool = False
    seal: str | None = None
    """What stands for its signature: the first SignatureValue, else the first ciphertext."""


@dataclass(slots=True)
class Opened:
    """A message and all that is known of it."""

    captured: Captured
    envelope: soap.Envelope | None = None
    unfit: str | None = None
    """Why it can't be read as a SOAP message."""
    alien: bool = False
    """It isn't even XML, or not an envelope."""
    shape: Shape = field(default_factory=Shape)
    action: str | None = None
    kind: Kind = Kind.APPLICATION
    exchange: str = ""
    """Of WS-Trust, as its action says: ``RST/SCT``, ``RSTR/SCT/Cancel``, ``RST/Issue``."""
    addressing: addressing.Headers | None = None
    reliability: reliability.RMHeaders = field(default_factory=reliability.RMHeaders)
    edition: Addressing = WSA_1_0
    rm: Reliability | None = None
    trust: Trust | None = None
    misread: list[str] = field(default_factory=list)
    """What its headers say wrongly."""
    oddities: list[str] = field(default_factory=list)
    """What its Body says wrongly."""
    fault: SOAPFault | None = None
    body: Machinery | None = None
    response: bool = False
    answers: Opened | None = None
    """The request that it answers."""
    created: float | None = None
    """UTC: its own time, if its Timestamp tells."""
    now: float = 0.0
    """UTC: the moment at which it is judged."""
    granted: str | None = None
    """Identifier of the security context that it hands out."""
    finished: bool = False
    """Its Body was read, as far as it could be opened."""
    trace: Trace = field(default_factory=Trace)
    verified: Verified | None = None
    failure: PeerError | None = None
    other_key: bool = False
    """It was found to be under a key that has no place here: its answer need not be."""
    wanted: tuple[str, ...] = ()
    """Keys that were needed and aren't at hand."""

    @property
    def file(self) -> str:
        """The base name of its file."""
        return self.captured.file

    @property
    def handshake(self) -> bool:
        """A leg of a negotiation inside SOAP, which nothing can protect yet."""
        return self.exchange in ("RST/Issue", "RSTR/Issue", "RSTRC/IssueFinal") and _exchanges(self.envelope)

    @property
    def bootstrap(self) -> bool:
        """RST/SCT or its answer, also of a renewal."""
        return self.exchange in ("RST/SCT", "RSTR/SCT", "RST/SCT/Renew", "RSTR/SCT/Renew")


def begin(captured: Captured) -> Opened:
    """Parse a message and read what stands in clear."""
    opened = Opened(captured, alien=True)
    payload = captured.payload
    if captured.unfit is not None:
        opened.unfit = captured.unfit
        return opened
    try:
        root = xml.parse(payload, LIMITS)
        opened.alien = root.tag not in _ENVELOPES
        envelope = soap.parse(root, LIMITS, len(payload))
    except (Malformed, Unsupported) as error:
        opened.unfit = str(error)
        return opened
    opened.envelope = envelope
    opened.shape = _shape(envelope)
    _read_headers(opened, envelope)
    opened.response = _direction(opened)
    opened.created = _created(envelope)
    opened.now = opened.created or 0.0
    return opened


def finish(opened: Opened, keys: KeySource) -> None:
    """Have `unprotect` verify it at `opened.now`, then read its Body."""
    envelope = opened.envelope
    if envelope is None:
        return
    body: Element | None = envelope.body
    if envelope.security is not None or opened.shape.protected:
        expectation = replace(_ANYTHING, request=not opened.response)
        now = Now(opened.now, 0.0)
        try:
            opened.verified = unprotect(envelope, keys, expectation, now, LIMITS, TIMERS, opened.trace)
            body = opened.verified.body
        except PeerError as error:
            opened.failure = error
            body = opened.trace.body if opened.trace.body is not None else body
    opened.finished = True
    if body is not None and not (len(body) and body[0].tag == _DATA):
        _read_body(opened, body)
        if opened.exchange.startswith("RSTR"):
            opened.granted = _granted(body)


# ---- from outside


def _shape(envelope: soap.Envelope) -> Shape:
    body = envelope.body
    sealed = len(body) > 0 and body[0].tag == _DATA
    security = envelope.security
    if security is None:
        return Shape(protected=sealed, full=sealed)
    tags = [child.tag for child in security]
    signatures = [child for child in security if child.tag == _SIGNATURE]
    name = body.get(ID) or body.get("Id")
    over_body = any(
        reference.get("URI") == f"#{name}"
        for signature in signatures
        for reference in signature.findall(_REFERENCE)
    )
    full = sealed or over_body or _DATA in tags
    return Shape(
        protected=sealed or bool(_PROTECTING.intersection(map(str, tags))),
        full=full,
        thin=bool(signatures) and not full,
        context=_named_context(security),
        timestamp=f"{{{WSU}}}Timestamp" in tags,
        seal=next((security.findtext(path) for path in _SEALS if security.find(path) is not None), None),
    )


def _named_context(security: Element) -> str | None:
    """The context that the header carries, or that its keys refer to by Identifier."""
    for child in security:
        if child.tag in _CONTEXT_TOKENS:
            for part in child:
                if isinstance(part.tag, str) and part.tag.endswith("}Identifier"):
                    return (part.text or "").strip() or None
    for reference in security.iterfind(_STR):
        uri = reference.get("URI") or ""
        if reference.get("ValueType") in _CONTEXT_TYPES and not uri.startswith("#"):
            return uri
    return None


def _exchanges(envelope: soap.Envelope | None) -> bool:
    if envelope is None:
        return False
    return any(envelope.body.find(f".//{{{namespace}}}BinaryExchange") is not None for namespace in WST)


def _created(envelope: soap.Envelope) -> float | None:
    """The message's own time."""
    for child in envelope.security if envelope.security is not None else ():
        if child.tag == f"{{{WSU}}}Timestamp":
            try:
                return Timestamp.parse(child).created
            except (Malformed, Unsupported):
                return None
    return None


def _granted(body: Element) -> str | None:
    """The context in a RequestedSecurityToken, also of a negotiation."""
    for namespace in WSSC:
        space = f"{{{namespace}}}"
        for token in body.iter(f"{space}SecurityContextToken"):
            return (token.findtext(f"{space}Identifier") or "").strip() or None
    return None


# ---- headers


def _read_headers(opened: Opened, envelope: soap.Envelope) -> None:
    headers = [block for block in envelope.headers if block is not envelope.security]
    opened.action = next(
        ((block.text or "").strip() for block in headers if header_name(block) == "wsa:Action"), None
    )
    try:
        edition = addressing.edition_of(headers)
        if edition is not None:
            opened.edition = edition
            opened.addressing = addressing.parse(headers, edition)
    except PeerError as error:
        opened.misread.append(str(error))
    _classify(opened, envelope, headers)
    if opened.rm is None:
        return
    try:
        opened.reliability = reliability.parse_headers(headers, opened.rm)
    except PeerError as error:
        opened.misread.append(str(error))


def _classify(opened: Opened, envelope: soap.Envelope, headers: list[Element]) -> None:
    action = opened.action or ""
    found = [WSRM[space] for space in map(xml.namespace_of, headers) if space in WSRM]
    opened.rm = next((row for row in WSRM.values() if action.startswith(f"{row.namespace}/")), None)
    if opened.rm is None and found:
        opened.rm = found[0]
    opened.trust = next((row for row in WST.values() if action.startswith(f"{row.namespace}/")), None)
    policy = EndpointPolicy(
        soap=envelope.soap,
        addressing=opened.edition,
        reliability=opened.rm,
        conversation=CONVERSATION_OF[opened.trust.namespace] if opened.trust else None,
        trust=opened.trust,
        bootstrap=None,
        application=None,
    )
    opened.kind = kind_of(action, policy)
    if opened.trust is not None:
        opened.exchange = action.removeprefix(f"{opened.trust.namespace}/")


def _direction(opened: Opened) -> bool:
    """Whether it is a response: by its file's name, else by what it says."""
    if opened.captured.response is not None:
        return opened.captured.response
    if opened.addressing is not None and opened.addressing.relates_to is not None:
        return True
    if opened.exchange:
        return opened.exchange.startswith("RSTR")
    if opened.kind is Kind.FAULT or opened.kind.value.endswith("Response"):
        return True
    return (opened.action or "").endswith("Response")


# ---- the Body


def _read_body(opened: Opened, body: Element) -> None:
    children = xml.inside(body) if not (body.text or "").strip() else []
    if len(children) != 1:
        return
    child = children[0]
    version = opened.envelope.soap if opened.envelope is not None else SOAP_1_2
    try:
        opened.fault = soap.read_fault(child, version)
        if opened.fault is None:
            opened.body = _typed(opened, child)
    except PeerError as error:
        opened.oddities.append(f"the Body isn't as its specification has it: {error}")


def _typed(opened: Opened, child: Element) -> Machinery | None:
    if opened.trust is not None and not opened.handshake:
        if opened.exchange.startswith("RSTR"):
            return trust.RequestSecurityTokenResponse.parse(child, opened.trust)
        if opened.exchange.startswith("RST"):
            return trust.RequestSecurityToken.parse(child, opened.trust)
    parse = RELIABLE_BODIES.get(opened.kind)
    if parse is not None and opened.rm is not None:
        return parse(child, opened.rm, opened.edition)
    return None
