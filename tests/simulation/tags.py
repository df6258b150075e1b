"""Tier A: cryptography as tags.

A protected envelope carries the number of a tag. The world's registry of genuine tags says who
covered which parts with which key; nobody can make one with a key that he hasn't. What is judged
from a tag is what `unprotect` proves from the bytes of a signature: the same `Verified`, the same
refusals. Everything beside it, SOAP, addressing, RM and binding, is the product's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from castile.clock import Now
from castile.config import Limits, Timers
from castile.errors import WSSE, SecurityFailure, SOAPFault
from castile.messages import soap
from castile.messages.security import Timestamp
from castile.messages.soap import Envelope, Message
from castile.security import checks, coverage
from castile.security.keys import ContextKey, KeySource, SealedKey
from castile.security.outgoing import Protected, Protection
from castile.security.pipeline import Expectation, Verified, VerifiedHeader, VerifiedSignature
from castile.security.tokens import bad_context
from castile.versions import XENC
from castile.xml import canonical, standing_alone
from tests.simulation.world import world

if TYPE_CHECKING:
    from cryptography import x509

NAMESPACE: Final = "urn:simulation:tag"
_TAG: Final = f"{{{NAMESPACE}}}Tag"
_MARK: Final = f'<g:Tag xmlns:g="{NAMESPACE}">'.encode() + b"%b</g:Tag>"


@dataclass(frozen=True, slots=True)
class Tag:
    """What one signature covers, and with which key."""

    key: ContextKey | SealedKey
    sealed_for: x509.Certificate | None
    """Whose private key opens the EncryptedKey that travels with it."""
    parts: frozenset[bytes]
    """Canonical bytes of each header block and of the Body."""
    encrypted: bool
    created: float
    expires: float
    username: tuple[str, str] | None
    endorsing: ContextKey | None
    confirms: tuple[bytes, ...]
    value: bytes
    by: str
    """The process that made it: the auditor's knowledge, not the product's."""


@dataclass(slots=True)
class Registry:
    """Every genuine tag of a world."""

    tags: dict[bytes, Tag] = field(default_factory=dict)

    def add(self, tag: Tag) -> bytes:
        name = b"t%d" % (len(self.tags) + 1)
        self.tags[name] = tag
        return name


def registry() -> Registry:
    """The registry of the running world."""
    here = world()
    if here.tags is None:
        here.tags = Registry()
    found: Registry = here.tags
    return found


def protect(
    message: Message, protection: Protection, now: Now, random: Callable[[int], bytes], timers: Timers
) -> Protected:
    """`castile.security.pipeline.protect`, as a tag."""
    key, sealed_for = protection.key, None
    new: SealedKey | None = None
    if not isinstance(key, ContextKey | SealedKey):
        sealed_for, new = key, SealedKey(random(32), random(8).hex())
        key = new
    headers = [header.render(message.soap) for header in message.headers]
    body = soap.render_body(message.soap, message.body)
    endorsing = next((each for each in protection.endorsing if isinstance(each, ContextKey)), None)
    task = world().current
    tag = Tag(
        key,
        sealed_for,
        frozenset([*headers, body]),
        protection.encrypt and protection.policy.parts.encrypted_body,
        now.utc,
        now.utc + timers.timestamp_ttl,
        protection.username,
        endorsing,
        protection.confirm if protection.policy.signature_confirmation else (),
        random(12),
        task.process.name if task else "",
    )
    name = registry().add(tag)
    carrier = b'<e:EncryptedKey xmlns:e="%b"></e:EncryptedKey>' % XENC.encode() if new else b""
    start = f'<o:Security xmlns:o="{WSSE}" xmlns:s="{message.soap.namespace}" s:mustUnderstand="1">'
    security = start.encode() + carrier + _MARK % name + b"</o:Security>"
    payload = soap.assemble(message.soap, headers, security, body, message.namespaces)
    values = (tag.value, tag.value + b"e") if endorsing else (tag.value,)
    return Protected(payload, new, values)


def _refused(text: str, part: str = "wsse:Security") -> SecurityFailure:
    return SecurityFailure(text, part=part)


def unprotect(
    envelope: Envelope,
    keys: KeySource,
    expectation: Expectation,
    now: Now,
    limits: Limits,
    timers: Timers,
    trace: None = None,
) -> Verified:
    """`castile.security.pipeline.unprotect`, from a tag."""
    policy, edition = expectation.policy, expectation.edition
    if policy is None or edition is None:
        raise _refused("a policy is needed")
    if envelope.security is None:
        if policy.protection_token == "context":
            raise bad_context(edition, "the message has no Security header", missing=False)
        raise _refused("the message has no Security header")
    found = envelope.security.find(_TAG)
    tag = registry().tags.get((found.text or "").encode()) if found is not None else None
    if tag is None:
        raise _refused("no genuine tag")
    reply_key = _key(tag, keys, expectation)
    names = _covered(envelope, tag)
    if expectation.encrypted_body and not tag.encrypted:
        raise _refused("the Body must be encrypted", "Body")
    stamp = _Stamp(Timestamp(None, tag.created, tag.expires))
    timestamp, until = checks.check_timestamp(stamp, policy, now, timers)  # type: ignore[arg-type]
    principal = _user(tag, keys) if policy.username and expectation.request else None
    signatures = [VerifiedSignature(reply_key.identity, "tag", tag.value, names, endorsing=False)]
    if tag.endorsing is not None:
        known = keys.context(tag.endorsing.identifier, tag.endorsing.instance)
        if known is None or known.secret != tag.endorsing.secret:
            raise bad_context(edition, "the endorsing key isn't at hand")
        endorsed = frozenset(["ds:Signature"])
        signatures.append(
            VerifiedSignature(known.identity, "tag", tag.value + b"e", endorsed, endorsing=True)
        )
    content = b"".join(canonical(child) for child in envelope.body)
    return Verified(
        soap=envelope.soap,
        headers=tuple(
            VerifiedHeader(block, coverage.header_name(block), reply_key.identity, 0)
            for block in envelope.headers
            if block is not envelope.security
        ),
        body=envelope.body,
        body_content=content,
        body_alone=standing_alone(envelope.body, content),
        signatures=tuple(signatures),
        encrypted=frozenset(["Body"]) if tag.encrypted else frozenset(),
        timestamp=timestamp,
        principal=principal,
        reply_key=reply_key,
        evidence=tag.value,
        expires=until,
    )


def _key(tag: Tag, keys: KeySource, expectation: Expectation) -> ContextKey | SealedKey:
    """The receiver's own copy of the key: it must be the one that the sender used."""
    policy, edition = expectation.policy, expectation.edition
    if isinstance(tag.key, ContextKey):
        if policy is None or edition is None or policy.protection_token != "context":
            raise _refused("a context's key where certificates are wanted")
        found = keys.context(tag.key.identifier, tag.key.instance)
        if found is None:
            raise bad_context(edition, "the key isn't at hand")
        if found.secret != tag.key.secret:
            raise _refused("a digest is wrong", "ds:Signature")
        return found
    if policy is None or policy.protection_token != "x509":
        raise _refused("an EncryptedKey where a context is wanted")
    if tag.sealed_for is not None:
        own: Any = keys
        if all(each.certificate != tag.sealed_for for each in own.own) or not expectation.request:
            raise _refused("the key is sealed for somebody else")
        return tag.key
    sealed = keys.sealed_key(tag.key.sha1)
    if sealed is None or sealed.octets != tag.key.octets:
        raise _refused("an EncryptedKey that wasn't sent from here")
    return sealed


def _covered(envelope: Envelope, tag: Tag) -> frozenset[str]:
    """Names of what is covered; whatever must be covered and isn't is refused."""
    headers = [block for block in envelope.headers if block is not envelope.security]
    for name in coverage.doubled_headers(headers):
        raise _refused(f"{name} stands twice", name)
    names = {"Body", "wsu:Timestamp"}
    must = set(map(id, coverage.required_headers(headers)))
    for block in headers:
        if canonical(block) in tag.parts:
            names.add(coverage.header_name(block))
        elif id(block) in must:
            raise _refused("a header isn't signed together with the Body", coverage.header_name(block))
    if canonical(envelope.body) not in tag.parts:
        raise _refused("the digest of the Body is wrong", "Body")
    if "wsa:Action" not in names:
        raise _refused("the message has no Action", "wsa:Action")
    return frozenset(names)


def _user(tag: Tag, keys: KeySource) -> str:
    right = keys.authenticate(*tag.username) if tag.username is not None else None
    if tag.username is None:
        raise _refused("there must be exactly one UsernameToken", "wsse:UsernameToken")
    if not right:
        fault = SOAPFault(
            "Sender",
            "The security token could not be authenticated or authorized.",
            (WSSE, "FailedAuthentication"),
        )
        raise SecurityFailure("user name or password is wrong", part="wsse:UsernameToken", fault=fault)
    return tag.username[0]


class _Stamp:
    """As much of a reading as the check of a Timestamp asks for."""

    def __init__(self, timestamp: Timestamp) -> None:
        self.token = timestamp

    def of(self, kind: type) -> list[_Stamp]:
        return [self] if kind is Timestamp else []


def install() -> None:
    """From now on the product's walks protect and verify with tags."""
    from castile.endpoint import inbound, outbound

    vars(outbound)["protect"] = protect
    vars(inbound)["unprotect"] = unprotect
