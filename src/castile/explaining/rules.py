"""What is wrong with a captured message although its keys fit: an attack's marks (OP-18).

`RULES` is a table: each row looks at one message in its surroundings and says in one sentence
what is wrong, or nothing. What needs a cryptographic check was done by `unprotect` before; what
needs the state of a sequence is in `sequences`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Final

from castile.endpoint.kinds import Kind
from castile.explaining.keys import Keys
from castile.explaining.opened import Opened
from castile.messages import reliability, trust
from castile.security.coverage import doubled_headers, header_name, required_headers
from castile.security.pipeline import VerifiedSignature
from castile.security.trace import KeyDerived, SignatureChecked, TokenSeen


@dataclass(slots=True)
class Surroundings:
    """What a conversation has shown around the message that is looked at."""

    keys: Keys
    context: bool = False
    """The conversation has a security context."""
    granted: bool = False
    """It has been handed out already."""
    established: frozenset[str] | None = None
    """Identifiers of the contexts that this conversation hands out; None: they aren't all known."""
    thin: bool = False
    """It goes over TLS: the context signs the Timestamp alone, if anything (CO-11)."""
    full: bool = False
    """An earlier message was under message security."""
    answer: Opened | None = None
    """What answered this message later."""
    later: bool = False
    """Its RelatesTo names a request that comes only later, and its own time does so too."""
    used: set[str] = field(default_factory=set)
    """Contexts that have signed already."""
    ended: dict[str, str] = field(default_factory=dict)
    """Cancelled contexts, and the file that cancelled them."""
    octets: dict[bytes, str] = field(default_factory=dict, repr=False)
    """Files by digest of all octets that came."""
    signatures: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)
    """File and digest of the message that had a signature value first."""
    digest: bytes = b""
    """Of this message's octets."""
    forerunner: str | None = None
    """A later message whose signature stands here, out of its time."""


Check = Callable[[Opened, Surroundings], Iterator[str]]


def _doubled(message: Opened, _: Surroundings) -> Iterator[str]:
    if message.envelope is not None:
        for name in doubled_headers(message.envelope.headers):
            yield f"the header {name} stands twice"


def _unprotected(message: Opened, around: Surroundings) -> Iterator[str]:
    if message.shape.protected or message.fault is not None or message.handshake:
        return
    asked = message.answers
    if around.thin:
        if not message.response and (around.used or around.granted) and not message.bootstrap:
            yield "the security context doesn't sign it, as it has to sign every request"
    elif message.bootstrap:
        yield f"{message.exchange} is neither signed nor encrypted"
    elif message.response and asked is not None and asked.shape.protected:
        yield f"it answers the protected {asked.file}, and is neither signed nor encrypted"
    elif around.context:
        yield "it is neither signed nor encrypted, and the conversation has a security context"
    elif around.answer is not None and around.answer.shape.protected:
        yield f"it is neither signed nor encrypted, and {around.answer.file}, which answers it, is"
    elif around.full and not message.response:
        yield "it is neither signed nor encrypted, and the messages before it are"


def _shrunk(message: Opened, around: Surroundings) -> Iterator[str]:
    if not message.shape.protected or message.fault is not None or around.thin:
        return
    if message.verified is None:
        if message.shape.thin and around.full:
            yield "its signature leaves out the Body, which earlier messages have signed"
        return
    primary = _primary(message)
    if any("Body" in signature.covered for signature in primary):
        stamped = any("wsu:Timestamp" in signature.covered for signature in primary)
        if message.bootstrap and message.shape.timestamp and not stamped:
            yield f"{message.exchange} leaves its Timestamp unsigned"
        return
    covered = sorted({name for signature in primary for name in signature.covered})
    said = f"signs only {', '.join(covered)}" if covered else "is encrypted without a signature"
    if around.full:
        yield f"it {said}, while earlier messages have signed the Body"
    elif message.bootstrap:
        yield f"{message.exchange} {said}"


def _one_signature(message: Opened, around: Surroundings) -> Iterator[str]:
    """Under an SCT: one signature over Body, RM headers, every WS-A header and Timestamp."""
    verified, envelope = message.verified, message.envelope
    if verified is None or envelope is None:
        return
    primary = _primary(message)
    if around.thin:
        if len(primary) > 1:
            yield f"{len(primary)} signatures, where the security context signs once"
        return
    others = [each for each in primary if each.key.kind != "context"]
    contexts = {
        each.key.name
        for each in message.trace.findings
        if isinstance(each, KeyDerived) and each.key.kind == "context"
    }
    if not contexts or (others and len(others) == len(primary)):
        return
    if not primary:
        yield "a key of the security context encrypts it, and none signs it"
        return
    if len(primary) > 1:
        yield f"{len(primary)} signatures cover its parts, where one has to cover them all"
    wanted = {"Body", "wsu:Timestamp", *map(header_name, required_headers(envelope.headers))}
    best = max(primary, key=lambda each: len(wanted & each.covered))
    missing = sorted(wanted - best.covered)
    if missing:
        yield f"the security context's signature leaves out {', '.join(missing)}"
    for name in sorted(contexts - {best.key.name}):
        yield f"security context {name} is used in it beside {best.key.name}, which signs"


def _beside(message: Opened, around: Surroundings) -> Iterator[str]:
    """Addressing and RM headers stand under the signature, or none does (MS-07)."""
    primary, envelope = _primary(message), message.envelope
    if envelope is None or around.thin or any(each.key.kind == "context" for each in primary):
        return
    covered = {name for signature in primary for name in signature.covered}
    wanted = {header_name(block) for block in required_headers(envelope.headers)}
    if covered & wanted and wanted - covered:
        yield f"{', '.join(sorted(wanted - covered))} stands unsigned beside headers that are signed"


def _stranger(message: Opened, around: Surroundings) -> Iterator[str]:
    for finding in message.trace.findings:
        if not isinstance(finding, SignatureChecked) or not finding.ok or finding.certificate is None:
            continue
        if not around.keys.trusts(finding.certificate):
            name = finding.certificate.subject.rfc4514_string()
            yield f"the signer's certificate ({name}) is not among the keys given, nor issued by one that is"


def _signed_twice(message: Opened, around: Surroundings) -> Iterator[str]:
    if around.forerunner is not None:
        yield f"its signature is that of {around.forerunner}, which is another message"
        return
    for signature in message.verified.signatures if message.verified is not None else ():
        first = around.signatures.get(signature.value)
        if first is not None and not compare_digest(first[1], around.digest):
            yield f"its signature is that of {first[0]}, which is another message"
            return


def _again(message: Opened, around: Surroundings) -> Iterator[str]:
    """The same octets twice: inside a sequence its numbers tell, outside nothing does."""
    first = around.octets.get(around.digest)
    headers = message.reliability
    numbered = headers.sequence or headers.acknowledgements or headers.ack_requested
    if first is None or numbered or message.kind in _IDEMPOTENT:
        return
    if not message.shape.protected and message.kind is Kind.CREATE_SEQUENCE:
        return  # repeated until it is answered
    identified = message.addressing is not None and message.addressing.message_id is not None
    if message.shape.protected or (identified and message.fault is None):
        yield f"it is {first} again, octet for octet, outside a sequence"


_IDEMPOTENT: Final = (
    Kind.CLOSE_SEQUENCE,
    Kind.CLOSE_SEQUENCE_RESPONSE,
    Kind.TERMINATE_SEQUENCE,
    Kind.TERMINATE_SEQUENCE_RESPONSE,
    Kind.CREATE_SEQUENCE_RESPONSE,
)
"""They name a sequence in their Body, and to repeat them changes nothing (RM-77)."""


def _other_key(message: Opened, around: Surroundings) -> Iterator[str]:
    """The contexts are those of this conversation, and an answer is under its request's key."""
    primary = _primary(message)[:1]
    if not primary:
        return
    key, asked = primary[0].key, message.answers
    if key.kind == "context" and around.established is not None and key.name not in around.established:
        yield f"security context {key.name} was not established in this conversation"
        return
    if not message.response:
        other = around.answer.shape.context if around.answer is not None else None
        unclear = key.kind == "context" and around.established is None
        if unclear and other in around.used and other != key.name not in around.used:
            yield f"it is signed under {key}, its answer and the messages before it under context {other}"
        return
    expected = _primary(asked)[:1] if asked is not None else []
    if asked is None or not expected or asked.other_key:
        return
    first = expected[0].key
    if key.kind == first.kind:
        wrong = key.kind != "certificate" and key.name != first.name
    else:
        wrong = "context" in (key.kind, first.kind)
    if wrong:
        yield f"it answers {asked.file}, signed under {first}, and is signed under {key}"


def _confirmation(message: Opened, _: Surroundings) -> Iterator[str]:
    """SignatureConfirmation repeats the request's signature values, each once, signed (WSS 1.1.1, 8.5)."""
    confirmed = [
        finding.text
        for finding in message.trace.findings
        if isinstance(finding, TokenSeen) and finding.part == "wsse11:SignatureConfirmation"
    ]
    if not confirmed or message.verified is None:
        return
    covered = {name for signature in _primary(message) for name in signature.covered}
    if message.shape.protected and "wsse11:SignatureConfirmation" not in covered:
        yield "its SignatureConfirmation isn't signed, so anybody can have put it in"
    asked = message.answers
    if asked is None or asked.verified is None:
        return
    sent = {signature.value.hex() for signature in asked.verified.signatures}
    if any(text not in sent for text in confirmed if text or sent):
        yield f"its SignatureConfirmation isn't the value of {asked.file}'s signature: it answers another one"
    elif sent - set(confirmed):
        yield f"it confirms only {len(set(confirmed))} of the {len(sent)} signatures of {asked.file}"
    elif len(set(confirmed)) < len(confirmed):
        yield "it confirms one signature twice"


def _unasked(message: Opened, around: Surroundings) -> Iterator[str]:
    """An answer answers a request that was sent, and an RSTR its own RST (SC-08)."""
    headers = message.addressing
    if headers is None or headers.relates_to is None:
        return
    if around.later:
        yield f"it relates to {headers.relates_to}, a request that is only sent later"
    asked = message.answers
    if asked is None or message.granted is None:
        return
    if not (isinstance(asked.body, trust.RequestSecurityToken) or asked.failure or asked.handshake):
        yield f"it hands out a token, and {asked.file}, to which it relates, asked for none"


def _cancelled(message: Opened, around: Surroundings) -> Iterator[str]:
    verified = message.verified
    if verified is None or message.response:
        return
    for signature in verified.signatures:
        if signature.key.kind == "context" and signature.key.name in around.ended:
            yield f"security context {signature.key.name} was cancelled by {around.ended[signature.key.name]}"
    body = message.body
    if isinstance(body, trust.RequestSecurityToken) and body.cancel_target is not None:
        named = verified.resolve_context(body.cancel_target)
        if named not in {signature.key.name for signature in verified.signatures}:
            yield f"it asks to cancel security context {named}, whose key doesn't sign it"


def _unreachable(message: Opened, _: Surroundings) -> Iterator[str]:
    """Addresses to which nothing can be sent (WS-RM 1.2, 3.4)."""
    body, none = message.body, message.edition.none
    if none is None or not isinstance(body, reliability.CreateSequence):
        return
    if body.acks_to.address == none:
        yield "its AcksTo is the address none, so that no acknowledgement can ever be sent"
    if body.offer is not None and body.offer.endpoint is not None and body.offer.endpoint.address == none:
        yield "the Endpoint of its Offer is the address none, so that the offered sequence can't be used"


def _misread(message: Opened, _: Surroundings) -> Iterator[str]:
    yield from message.misread


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is wrong also without a policy at hand."""

    name: str
    what: str
    check: Check


RULES: Final = (
    Rule("doubled-header", "a header that occurs once stands twice", _doubled),
    Rule("unreachable", "a CreateSequence with an address to which nothing can be sent", _unreachable),
    Rule("headers", "WS-Addressing or WS-RM headers that break their specification", _misread),
    Rule("unprotected", "an unprotected message where protection is due", _unprotected),
    Rule("cover-shrinks", "cover that shrinks in mid-conversation", _shrunk),
    Rule("one-signature", "under an SCT anything but one signature over all", _one_signature),
    Rule("beside", "an unsigned header beside signed ones", _beside),
    Rule("stranger", "a signer whose certificate nobody knows", _stranger),
    Rule("signature-twice", "one signature on two different messages", _signed_twice),
    Rule("octets-twice", "the same octets twice outside a sequence", _again),
    Rule("other-key", "a context from elsewhere, an answer under another key than its request", _other_key),
    Rule("confirmation", "a SignatureConfirmation of another request", _confirmation),
    Rule("unasked", "an answer to what was not asked", _unasked),
    Rule("cancelled", "a context used after it was cancelled, or cancelled by another", _cancelled),
)
"""In the order in which they are told."""


def _primary(message: Opened) -> list[VerifiedSignature]:
    """The signatures over the message itself."""
    if message.verified is None:
        return []
    return [signature for signature in message.verified.signatures if not signature.endorsing]


def broken(message: Opened, around: Surroundings) -> list[str]:
    """Everything that `RULES` find wrong with a message."""
    found = [(rule, text) for rule in RULES for text in rule.check(message, around)]
    message.other_key = any(rule.check is _other_key for rule, _ in found)
    return [text for _, text in found]
