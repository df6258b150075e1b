"""What a peer means by its fault, or may mind in a message, and the setting that helps (OP-22).

Everything here is a warning: it changes no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from castile.explaining.opened import Opened
from castile.messages import reliability, trust
from castile.policy import suites
from castile.security.coverage import header_name
from castile.security.trace import ReferenceChecked, SignatureChecked
from castile.versions import DS, PASSWORD_DIGEST, WSSE, WSSE11, WSU
from castile.xml import local_name

_SIGNATURE: Final = f"{{{DS}}}Signature"
_XSI_TYPE: Final = "{http://www.w3.org/2001/XMLSchema-instance}type"
_CONFIRMATION: Final = f"{{{WSSE11}}}SignatureConfirmation"


@dataclass(frozen=True, slots=True)
class Habit:
    """What a peer means by a fault, and what helps."""

    code: str
    text: str
    """Part of the fault's reason; empty: any."""
    hint: str


HABITS: Final = (
    Habit(
        "BadContextToken",
        "",
        "the peer doesn't know the security context: it was restarted, or has dropped an idle session; WCF "
        'says so to a message without one or of another edition: EndpointPolicy.of("2005") or .of("1.3")',
    ),
    Habit(
        "InvalidSecurityToken",
        "",
        "user name or password is wrong, or the clocks differ by more than five minutes: check credentials=",
    ),
    Habit(
        "FailedAuthentication",
        "",
        "the peer doesn't accept the credential: check credentials=; WCF's default starts with a TLS "
        "handshake inside SOAP (negotiateServiceCredential)",
    ),
    Habit(
        "InvalidSecurity",
        "",
        "signature or algorithms are not what the peer's policy says: check suite= (WCF's Basic256Sha256 "
        "also signs with SHA-256) and service_certificate=",
    ),
    Habit("MessageExpired", "", "the clocks differ, or the message was under way for too long"),
    Habit(
        "ActionNotSupported",
        "February 2005",
        'the endpoint speaks WS-RM 1.0 only: EndpointPolicy.of("2005"), and let the client open a sequence',
    ),
    Habit(
        "WsrmRequired",
        "",
        'the endpoint takes nothing but WS-RM 1.1: EndpointPolicy.of("1.3") with reliable messaging',
    ),
    Habit(
        "WSRMRequired",
        "",
        'the endpoint takes nothing but WS-RM 1.1: EndpointPolicy.of("1.3") with reliable messaging',
    ),
    Habit(
        "CreateSequenceRefused",
        "offer",
        "the contract has answers, so CreateSequence must offer a sequence for them: two_way=True",
    ),
    Habit(
        "CreateSequenceRefused",
        "",
        "under secure conversation WCF and Metro want a SecurityTokenReference in CreateSequence, WCF with "
        "WS-RM 1.1 also the header UsesSequenceSTR (uses_sequence_str=True); CXF faults on that header",
    ),
    Habit("UnknownSequence", "", "the peer has forgotten the sequence: WCF drops it after ten idle minutes"),
    Habit("RenewNeeded", "", "the security context has expired and must be renewed"),
)
"""By subcode, the more special text first."""


def habits(message: Opened) -> list[str]:
    """What a peer may mind, or means by its fault, and the setting that helps (OP-22)."""
    return list(_habits(message))


def _habits(message: Opened) -> Iterator[str]:
    fault = message.fault
    if fault is not None:
        name = fault.subcode[1] if fault.subcode else fault.code
        if message.verified is None or not message.verified.signatures:
            yield f"this fault isn't authenticated, anybody on the way can have made it: {fault.reason}"
        for habit in HABITS:
            if habit.code == name and habit.text in fault.reason:
                yield habit.hint
                break
    if isinstance(message.body, reliability.CreateSequence):
        yield from _create_habits(message, message.body)
    yield from _entropy_habits(message)
    yield from _time_habits(message)
    yield from _user_habits(message)
    yield from _habits_of_form(message)
    yield from _unbound_types(message)


def _create_habits(message: Opened, body: reliability.CreateSequence) -> Iterator[str]:
    headers = message.addressing
    addresses = {"AcksTo": body.acks_to.address}
    addresses["ReplyTo"] = (
        headers.reply_to.address
        if headers is not None and headers.reply_to is not None
        else message.edition.anonymous
    )
    if body.offer is not None and body.offer.endpoint is not None:
        addresses["Offer/Endpoint"] = body.offer.endpoint.address
    if len(set(addresses.values())) > 1:
        said = ", ".join(f"{name} {address}" for name, address in addresses.items())
        yield f"its addresses differ ({said}): legal, but WCF wants them equal octet for octet"
    if body.token is None and message.shape.context is not None:
        yield "CreateSequence has no SecurityTokenReference: WCF and Metro refuse that, CXF always does so"


def _entropy_habits(message: Opened) -> Iterator[str]:
    body = message.body
    if not isinstance(body, trust.RequestSecurityToken | trust.RequestSecurityTokenResponse):
        return
    shown = body.entropy is not None or getattr(body, "proof_secret", None) is not None
    if shown and (message.verified is None or "Body" not in message.verified.encrypted):
        yield "what the context's key is made from stands in clear: it needs TLS"


def _time_habits(message: Opened) -> Iterator[str]:
    security = message.envelope.security if message.envelope is not None else None
    for stamp in security.iterfind(f"{{{WSU}}}Timestamp") if security is not None else ():
        texts = [(child.text or "").strip() for child in stamp]
        if any(text and not text.endswith("Z") and _zoned(text) for text in texts):
            yield "the Timestamp has an offset: the same instant, but WS-Security wants UTC with Z"


def _user_habits(message: Opened) -> Iterator[str]:
    security = message.envelope.security if message.envelope is not None else None
    for token in security.iterfind(f"{{{WSSE}}}UsernameToken") if security is not None else ():
        password = token.find(f"{{{WSSE}}}Password")
        digest = password is not None and password.get("Type") == PASSWORD_DIGEST
        if digest and token.find(f"{{{WSSE}}}Nonce") is None and token.find(f"{{{WSU}}}Created") is None:
            yield "a password digest without Nonce and Created can be replayed: services refuse it"
        if password is not None and not digest:
            yield "the password stands in clear: it needs TLS"


def _zoned(text: str) -> bool:
    return text[-6:-5] in ("+", "-") and text[-3:-2] == ":" and text[-6:] not in ("+00:00", "-00:00")


def _habits_of_form(message: Opened) -> Iterator[str]:
    headers = message.envelope.headers if message.envelope is not None else ()
    for block in headers:
        if header_name(block) == "wsrm:Sequence":
            marked = any(name.endswith("}mustUnderstand") for name in map(str, block.attrib))
            if not marked:
                yield "the Sequence header has no mustUnderstand, which WS-RM wants (gSOAP leaves it out)"
    security = message.envelope.security if message.envelope is not None else None
    tags = [child.tag for child in security] if security is not None else []
    if _SIGNATURE in tags and _CONFIRMATION in tags[tags.index(_SIGNATURE) :]:
        yield (
            "a SignatureConfirmation stands behind the Signature: legal unless the policy's layout is "
            "Strict, and WCF refuses it"
        )
    digests = {each.digest for each in message.trace.findings if isinstance(each, ReferenceChecked)}
    methods = {each.method for each in message.trace.findings if isinstance(each, SignatureChecked)}
    if suites.SHA256 in digests and suites.HMAC_SHA1 in methods:
        yield "SHA-256 digests under HMAC-SHA1, as WS-SecurityPolicy has it: WCF wants HMAC-SHA256"


def _unbound_types(message: Opened) -> Iterator[str]:
    """A prefix in a value breaks no parser, and means nothing where nobody declares it."""
    root = message.envelope.root if message.envelope is not None else None
    for each in root.iter("*") if root is not None else ():
        prefix, colon, _ = each.get(_XSI_TYPE, "").strip().partition(":")
        if colon and prefix not in each.nsmap:
            where = f"line {each.sourceline}: xsi:type of {local_name(each)}"
            yield f"{where} uses the prefix {prefix[:40]}, which isn't declared"
            return
