"""What two messages that may differ in values must have in common, and where they don't."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Final

from castile import xml
from castile.errors import SOAPFault
from castile.messages import reliability
from castile.messages.conversation import DerivedKeyToken
from castile.messages.security import SecurityTokenReference, Timestamp
from castile.messages.trust import RequestSecurityToken, RequestSecurityTokenResponse
from castile.security.trace import Decrypted
from castile.versions import DS, WSSC, WSU, XENC, part_name
from castile.xml import Element
from tests.replay.recording import Spoken

_UUID: Final = re.compile(r"uuid:[0-9A-Fa-f-]{36}")


@dataclass(frozen=True)
class Shape:
    """A message without its identifiers, nonces, ciphertexts and times.

    Names of fields are the words of a difference.
    """

    action: str
    headers: tuple[str, ...]
    """Header blocks in alphabetical order: peers differ in theirs, and nothing depends on it."""
    must_understand: tuple[str, ...]
    to: str | None
    relates_to: str | None
    sequence: str
    acknowledgements: tuple[str, ...]
    requested: tuple[str, ...]
    body: str
    """Its child, or a fault's code and subcode."""
    content: tuple[str, ...]
    """The Body as far as it must be the same: its fields, of an application's all."""
    signatures: tuple[str, ...]
    signed: tuple[str, ...]
    encrypted: tuple[str, ...]
    token: str
    """The SecurityContextToken that a request carries, whole: it is its issuer's."""
    security: tuple[str, ...]
    """Children of the Security header, decrypted, in their order."""
    keys: tuple[str, ...]
    """Of each derived key: what it is derived from, and its bounds."""
    algorithms: tuple[str, ...]
    lifetime: float | None
    """Of the Timestamp, in seconds."""


def shape(message: Spoken) -> Shape:
    """What a message looks like."""
    envelope, verified = message.opened.envelope, message.opened.verified
    signatures = verified.signatures if verified else ()
    blocks = [block for block in envelope.headers if block is not envelope.security]
    rm = message.rm
    return Shape(
        action=message.headers.action,
        headers=tuple(sorted(_child(block) for block in blocks)),
        must_understand=tuple(sorted(_understood(blocks, envelope.soap.namespace))),
        to=message.headers.to,
        relates_to=message.headers.relates_to,
        sequence=", ".join(_flat(rm.sequence)) if rm.sequence else "",
        acknowledgements=tuple(", ".join(_flat(_plain(each))) for each in rm.acknowledgements),
        requested=tuple(each.identifier for each in rm.ack_requested),
        body=_body(message),
        content=_content(message),
        signatures=tuple(
            f"{each.key.kind} {each.method.rpartition('#')[2]}{' endorsing' if each.endorsing else ''}"
            for each in signatures
        ),
        signed=tuple(sorted({part for each in signatures for part in each.covered})),
        encrypted=tuple(sorted(verified.encrypted if verified else ())),
        token=_token(envelope.security),
        security=_security(message),
        keys=tuple(_derived(envelope.security)),
        algorithms=tuple(sorted(_algorithms(envelope.root))),
        lifetime=_lifetime(envelope.security),
    )


def differences(captured: Shape, ours: Shape) -> list[str]:
    """Each field that isn't the same, in one line; sets by what is missing and what is more."""
    found = []
    for field in fields(Shape):
        theirs, mine = getattr(captured, field.name), getattr(ours, field.name)
        if theirs == mine:
            continue
        if isinstance(theirs, tuple) and sorted(set(theirs)) != sorted(set(mine)):
            missing = [each for each in theirs if each not in mine]
            more = [each for each in mine if each not in theirs]
            words = [f"without {each}" for each in missing] + [f"with {each}" for each in more]
            found += [f"{field.name}: {word}" for word in words]
        else:
            found.append(f"{field.name}: {_words(mine)} for {_words(theirs)}")
    return [_UUID.sub("uuid:…", each) for each in found]


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value or "none")


def _understood(blocks: list[Element], soap: str) -> list[str]:
    attribute = f"{{{soap}}}mustUnderstand"
    return [_child(block) for block in blocks if block.get(attribute, "0").strip() in ("1", "true")]


def _plain(header: reliability.SequenceAcknowledgement) -> reliability.SequenceAcknowledgement:
    """Room in a buffer is a hint of the moment."""
    return replace(header, buffer_remaining=None)


def _body(message: Spoken) -> str:
    fault = message.fault
    if isinstance(fault, SOAPFault):
        subcode = f" {part_name(*fault.subcode)}" if fault.subcode else ""
        return f"fault {fault.code}{subcode}"
    return part_name(*message.element) if len(message.body) else ""


def _content(message: Spoken) -> tuple[str, ...]:
    """The values that a replay makes the same, as text; of a token not its times."""
    if message.fault is not None:
        return ()
    if message.answer is not None:
        told, token = message.answer, message.answer.token
        named = (token.identifier, token.instance) if token else None
        references = [_reference(each) for each in (told.attached, told.unattached) if each]
        answer = replace(told, created=None, expires=None, attached=None, unattached=None, token=None)
        return (*_flat(answer), f"token={named}", *references, *_secrets(told))
    if message.request is not None:
        asked = replace(message.request, created=None, expires=None)
        return (*_flat(asked), *_secrets(asked))
    if message.lifecycle and message.reliability:
        element = getattr(reliability, message.lifecycle)
        return _flat(element.parse(message.body[0], message.reliability, message.addressing))
    return (message.content.decode(),) if message.content else ()


def _flat(value: object, name: str = "") -> tuple[str, ...]:
    """The fields of a dataclass that say something, one by one; secrets aren't among them."""
    found: tuple[str, ...] = ()
    for each in fields(value):  # type: ignore[arg-type]
        inner = getattr(value, each.name)
        if is_dataclass(inner):
            found += _flat(inner, f"{name}{each.name}.")
        elif each.repr and inner not in (None, (), False):
            found += (f"{name}{each.name}={inner}",)
    return found


def _secrets(message: RequestSecurityToken | RequestSecurityTokenResponse) -> tuple[str, ...]:
    """Which keys and entropies there are, and of what length."""
    names = ("entropy", "proof_secret", "proof_key")
    values = [(name, getattr(message, name, None)) for name in names]
    return tuple(f"{name}: {len(value)} bytes" for name, value in values if isinstance(value, bytes))


def _reference(reference: SecurityTokenReference) -> str:
    """Its form; an id is nobody's business."""
    if reference.local is not None:
        return f"local {_tail(reference.value_type)}"
    if reference.uri is not None:
        instance = " instance" if reference.instance is not None else ""
        return f"external{instance} {_tail(reference.value_type)}"
    if reference.issuer_serial is not None:
        return "issuer and serial"
    return _tail(reference.value_type)


def _tail(uri: str | None) -> str:
    return (uri or "").replace("/", "#").rpartition("#")[2] or "-"


def _token(header: Element | None) -> str:
    tags = [f"{{{namespace}}}SecurityContextToken" for namespace in WSSC]
    found = [child for child in header if child.tag in tags] if header is not None else []
    return xml.canonical(found[0]).decode() if found else ""


def _security(message: Spoken) -> tuple[str, ...]:
    """The children of the Security header as they are once opened, in the order they stand in."""
    header = message.opened.envelope.security
    if header is None:
        return ()
    findings = message.opened.trace.findings
    opened = {found.id: found.part for found in findings if isinstance(found, Decrypted)}
    return tuple(
        opened.get(child.get("Id"), "encrypted") if child.tag == f"{{{XENC}}}EncryptedData" else _child(child)
        for child in header
    )


def _child(element: Element) -> str:
    return part_name(*xml.name_of(element))


def _derived(header: Element | None) -> list[str]:
    found = []
    for namespace in WSSC:
        for element in header.iter(f"{{{namespace}}}DerivedKeyToken") if header is not None else ():
            token = DerivedKeyToken.parse(element)
            source = _reference(token.reference) if token.reference else "none"
            bounds = f"{token.offset}+{token.length}" if token.length else "default"
            nonce = f"nonce {len(token.nonce)}" if token.nonce else "no nonce"
            found.append(f"{source} {bounds} {nonce} label {token.label}")
    return found


def _algorithms(root: Element) -> set[str]:
    return {
        f"{xml.local_name(element)} {_tail(element.get('Algorithm'))}"
        for element in root.iter(f"{{{DS}}}*", f"{{{XENC}}}*")
        if element.get("Algorithm") is not None
    }


def _lifetime(header: Element | None) -> float | None:
    element = header.find(f"{{{WSU}}}Timestamp") if header is not None else None
    if element is None:
        return None
    timestamp = Timestamp.parse(element)
    return round(timestamp.expires - timestamp.created, 3) if timestamp.expires else None
