"""Findings in plain words: what people read of a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from castile import xml
from castile.clock import iso
from castile.endpoint.kinds import Kind
from castile.explaining.keys import Keys
from castile.explaining.opened import Opened
from castile.explaining.report import Explanation, MessageReport
from castile.explaining.sequences import SequenceState
from castile.messages.security import ID
from castile.policy import suites
from castile.protocol.ranges import Range
from castile.security.certificates import identity_of
from castile.security.coverage import header_name
from castile.security.keys import DEFAULT_LABEL
from castile.security.trace import (
    Decrypted,
    KeyDerived,
    KeyIdentity,
    ReferenceChecked,
    SignatureChecked,
    TimestampSeen,
    TokenSeen,
    UsernameChecked,
)
from castile.versions import DS
from castile.xml import Element

_ALGORITHMS: Final = {
    suites.HMAC_SHA1: "HMAC-SHA1",
    suites.HMAC_SHA256: "HMAC-SHA256",
    suites.RSA_SHA1: "RSA-SHA1",
    suites.RSA_SHA256: "RSA-SHA256",
    suites.AES128_CBC: "AES-128-CBC",
    suites.AES256_CBC: "AES-256-CBC",
    suites.RSA_OAEP: "RSA-OAEP",
    suites.RSA_1_5: "RSA 1.5",
}
_KINDS: Final = {
    "context": "security context",
    "encrypted-key": "the EncryptedKey",
    "certificate": "the certificate",
    "name": "the key named",
}
_NICKNAMES: Final = {
    "context": "context",
    "encrypted-key": "sealed key",
    "certificate": "certificate",
    "name": "named key",
}
_TRUST: Final = {
    "RST/SCT": "asks for a security context",
    "RSTR/SCT": "grants a security context",
    "RST/SCT/Renew": "asks to renew a security context",
    "RSTR/SCT/Renew": "grants a new key for a security context",
    "RST/SCT/Cancel": "asks to cancel a security context",
    "RSTR/SCT/Cancel": "says that a security context is cancelled",
    "RST/Issue": "begins a negotiation",
    "RSTR/Issue": "goes on with a negotiation",
    "RSTRC/IssueFinal": "ends a negotiation",
}
_PURPOSE: Final = {
    Kind.CREATE_SEQUENCE: "asks for a sequence",
    Kind.CREATE_SEQUENCE_RESPONSE: "grants a sequence",
    Kind.ACKNOWLEDGEMENT: "acknowledges what has come",
    Kind.ACK_REQUESTED: "asks what has come",
    Kind.LAST_MESSAGE: "says that nothing more will come in its sequence",
    Kind.CLOSE_SEQUENCE: "closes a sequence",
    Kind.CLOSE_SEQUENCE_RESPONSE: "says that a sequence is closed",
    Kind.TERMINATE_SEQUENCE: "ends a sequence",
    Kind.TERMINATE_SEQUENCE_RESPONSE: "says that a sequence has ended",
}
Seen = TypeVar("Seen")
_LABEL: Final = 10
"""Width of the labels before what is said of a message."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report for people."""

    text: str
    style: str = ""
    """A verdict, ``problem``, ``warning``, ``title``, or empty."""


def lines(explanation: Explanation) -> Iterator[Line]:
    """The whole report: the verdict, the flow, then each message.

    Characters that a terminal might act on, and breaks of a line, are written as escapes.
    """
    for line in _lines(explanation):
        yield line if line.text.isprintable() else Line(_escaped(line.text), line.style)


def _escaped(text: str) -> str:
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _lines(explanation: Explanation) -> Iterator[Line]:
    count = len(explanation.messages)
    yield Line(f"{explanation.verdict.upper()}: {count} message{'s' * (count != 1)}", explanation.verdict)
    if explanation.problems:
        file, text = explanation.problems[0]
        yield Line(f"First thing wrong: {file}: {text}", "problem")
    for number, message in enumerate(explanation.messages, 1):
        yield Line("")
        yield Line(_heading(number, message), message.verdict)
        for text in message.problems:
            yield Line(_labelled("WRONG", text), "problem")
        for label, text in message.details:
            yield Line(_labelled(label, text))
        if message.sequence is not None:
            yield Line(_labelled("sequence", state(message.sequence)))
        for text in message.warnings:
            yield Line(_labelled("note", text), "warning")


def _heading(number: int, message: MessageReport) -> str:
    arrow = "<--" if message.response else "-->"
    return f"{number:>3} {arrow} {message.title} ({message.file}): {message.verdict}"


def _labelled(label: str, text: str) -> str:
    return f"      {label:<{_LABEL}} {text}"


def title(message: Opened) -> str:
    """What a message is, in two or three words."""
    if message.fault is not None:
        name = message.fault.subcode[1] if message.fault.subcode else message.fault.code
        return f"Fault {name}"
    if message.exchange:
        return message.exchange
    if message.kind is not Kind.APPLICATION:
        return str(message.kind.value)
    if message.action is not None:
        return message.action.rstrip("/").rpartition("/")[2] or message.action
    body = xml.inside(message.envelope.body) if message.envelope is not None else []
    return xml.local_name(body[0]) if body else "message"


def signed(message: Opened) -> tuple[str, ...]:
    """Names of the parts whose digest held under a signature that held."""
    held = {each.signature for each in _of(message, SignatureChecked) if each.ok}
    parts = (each for each in _of(message, ReferenceChecked) if each.ok and each.signature in held)
    return tuple(dict.fromkeys(each.part for each in parts))


def encrypted(message: Opened) -> tuple[str, ...]:
    """Names of the parts that were decrypted."""
    return tuple(dict.fromkeys(each.part for each in _of(message, Decrypted) if each.ok))


def details(message: Opened, keys: Keys) -> tuple[tuple[str, str], ...]:
    """Label and text of everything that is worth telling of a message, problems apart."""
    return tuple(_details(message, keys))


def _details(message: Opened, keys: Keys) -> Iterator[tuple[str, str]]:
    purpose = _TRUST.get(message.exchange) or _PURPOSE.get(message.kind)
    if purpose is not None:
        yield "purpose", purpose
    yield "written in", ", ".join(_editions(message))
    if message.action is not None:
        yield "action", message.action
    yield from _addresses(message)
    for stamp in _of(message, TimestampSeen):
        yield "time", _moment(stamp.created) + (f" to {_moment(stamp.expires)}" if stamp.expires else "")
    tokens = [f"{each.part} {algorithm(each.text)}".strip() for each in _of(message, TokenSeen)]
    tokens = [text for text in tokens if text.partition(" ")[0] in _TOKENS]
    if tokens:
        yield "tokens", ", ".join(dict.fromkeys(tokens))
    for key in dict.fromkeys(each.key for each in _of(message, KeyDerived)):
        if key not in keys.nicknames:
            yield "key", f"{nickname(key, keys)} is {identity(key, keys)}"
    for derived in dict.fromkeys(_of(message, KeyDerived)):
        if "P_SHA1" in derived.text:
            text = derived.text.replace(str(derived.key), nickname(derived.key, keys))
            yield "derived", text.replace(f"label {DEFAULT_LABEL!r}", "the usual label")
    yield from _signatures(message, keys)
    yield from _ciphertexts(message)
    for user in _of(message, UsernameChecked):
        password = {True: "right", False: "wrong", None: "not known here"}[user.ok]
        cover = [word for word, so in (("signed", user.signed), ("encrypted", user.encrypted)) if so]
        yield "user", f"{user.name}, password {password}, {' and '.join(cover) or 'in clear'}"
    if message.fault is not None:
        proof = "" if message.shape.protected else " (not authenticated)"
        yield "fault", f"{message.fault.code}: {message.fault.reason}{proof}"


_TOKENS: Final = frozenset(
    {
        "wsc:SecurityContextToken",
        "wsse:BinarySecurityToken",
        "wsse:UsernameToken",
        "xenc:EncryptedKey",
        "wsse11:SignatureConfirmation",
    }
)


def _moment(utc: float) -> str:
    try:
        return iso(utc)
    except (ValueError, OverflowError):  # an offset has carried it out of the calendar
        return "a time outside the calendar"


def _of(message: Opened, kind: type[Seen]) -> Iterator[Seen]:
    return (finding for finding in message.trace.findings if isinstance(finding, kind))


def _editions(message: Opened) -> Iterator[str]:
    if message.envelope is not None:
        yield message.envelope.soap.name
    if message.addressing is not None:
        yield message.edition.name
    if message.rm is not None:
        yield message.rm.name
    if message.trust is not None:
        yield message.trust.name


def _addresses(message: Opened) -> Iterator[tuple[str, str]]:
    headers = message.addressing
    if headers is None:
        return
    if headers.to is not None:
        yield "to", headers.to
    if headers.reply_to is not None:
        yield "reply to", headers.reply_to.address
    if headers.message_id is not None:
        yield "message id", headers.message_id
    if headers.relates_to is not None:
        answered = f" ({message.answers.file})" if message.answers is not None else ""
        yield "relates to", f"{headers.relates_to}{answered}"


def _signatures(message: Opened, keys: Keys) -> Iterator[tuple[str, str]]:
    references: dict[int, list[ReferenceChecked]] = {}
    for reference in _of(message, ReferenceChecked):
        references.setdefault(reference.signature, []).append(reference)
    for each in _of(message, SignatureChecked):
        own = references.get(each.signature, [])
        held = ", ".join(reference.part for reference in own if reference.ok)
        method = algorithm(each.method)
        if each.missing_key or each.key is None:
            said = ", ".join(_claimed(message, each.signature))
            yield "signature", f"{method}, can't be checked" + (f"; it claims {said}" if said else "")
            continue
        by = nickname(each.key, keys)
        if each.certificate is not None:
            by = f"the key of {each.certificate.subject.rfc4514_string()}"
        yield ("signed" if each.ok else "signature"), (
            f"{held or 'nothing'} with {method} under {by}" + ("" if each.ok else ": the value is wrong")
        )
        wrong = [reference.part for reference in own if not reference.ok]
        if wrong:
            yield "not held", ", ".join(wrong)


def _claimed(message: Opened, index: int) -> Iterator[str]:
    """The parts that a signature in clear refers to, whatever that is worth without its key."""
    envelope = message.envelope
    if envelope is None or envelope.security is None:
        return
    signatures = [each for each in envelope.security if each.tag == f"{{{DS}}}Signature"]
    parts = [*envelope.headers, envelope.body, *envelope.security]
    names = {f"#{each.get(ID) or each.get('Id')}": header_name(each) for each in parts if _is_element(each)}
    for reference in signatures[index].iter(f"{{{DS}}}Reference") if index < len(signatures) else ():
        uri = reference.get("URI", "")
        yield names.get(uri, uri)


def _is_element(element: Element) -> bool:
    return isinstance(element.tag, str)


def _ciphertexts(message: Opened) -> Iterator[tuple[str, str]]:
    opened: dict[str, list[str]] = {}
    closed: list[str] = []
    for each in _of(message, Decrypted):
        if each.ok:
            opened.setdefault(algorithm(each.algorithm), []).append(each.part)
        else:
            closed.append(each.part)
    for method, parts in opened.items():
        yield "encrypted", f"{', '.join(dict.fromkeys(parts))} with {method}"
    if closed:
        yield "not opened", ", ".join(dict.fromkeys(closed))


def algorithm(uri: str) -> str:
    """The short name of an algorithm; an unknown one by its URI."""
    return _ALGORITHMS.get(uri, uri)


def nickname(key: KeyIdentity, keys: Keys) -> str:
    """A short name for a key, the same in the whole report: ``context 1``."""
    known = keys.nicknames.get(key)
    if known is None:
        count = sum(each.kind == key.kind for each in keys.nicknames)
        known = keys.nicknames[key] = f"{_NICKNAMES[key.kind]} {count + 1}"
    return known


def identity(key: KeyIdentity, keys: Keys) -> str:
    """Whose key it is, and where it came from."""
    name = key.name + (f", instance {key.instance}" if key.instance is not None else "")
    if key.kind == "certificate":
        known = [each.subject.rfc4514_string() for each in keys.certificates if identity_of(each) == key]
        name = " ".join((*known[:1], f"with thumbprint {key.name}"))
    origin = keys.origins.get(key, "from the key files" if key.kind != "certificate" else "")
    return f"{_KINDS[key.kind]} {name}" + (f": {origin}" if origin else "")


def state(sequence: SequenceState) -> str:
    """How a sequence stands, in one line."""
    if sequence.identifier is None:
        return "is being created"
    said = [sequence.identifier]
    if sequence.number is not None:
        said.append(f"message {sequence.number}{' again' if sequence.repeated else ''}")
    said.append(sequence.state)
    said.append(f"received {ranges(sequence.received)}")
    said.append(f"acknowledged {ranges(sequence.acknowledged)}")
    if sequence.missing:
        said.append(f"missing {ranges(sequence.missing)}")
    return ", ".join(said)


def ranges(found: tuple[Range, ...]) -> str:
    """Ranges of message numbers: ``1-3, 5``."""
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in found) or "none"
