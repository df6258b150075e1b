"""Attacks on one message of a recorded conversation.

`outsider`: by somebody on the way, without any key. `insider`: by somebody who has the keys of
the conversation, and of a security context of his own.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from copy import deepcopy

from lxml import etree

from castile.security.coverage import header_name
from tests.explaining.insider import EVIL, EVIL_SECRET, ID, Context, protect
from tests.explaining.recording import SECURITY, Recording, plain

Attack = tuple[str, bytes]

_TOKENS = (
    "Signature",
    "EncryptedData",
    "Timestamp",
    "DerivedKeyToken",
    "SecurityContextToken",
    "EncryptedKey",
    "ReferenceList",
    "BinarySecurityToken",
)


def security_of(root: etree._Element) -> etree._Element | None:
    return next((block for block in root[0] if block.tag == SECURITY), None)


def headers_of(root: etree._Element) -> list[etree._Element]:
    return [block for block in root[0] if block.tag != SECURITY]


def part(root: etree._Element, name: str) -> etree._Element:
    return next(block for block in root[0] if header_name(block) == name)


def _required(element: etree._Element | None) -> etree._Element:
    assert element is not None
    return element


def outsider(recording: Recording, file: str) -> Iterator[Attack]:
    """Changes that need no key."""
    payload = recording.messages[file]
    protected = recording.open()[file].shape.protected
    yield "cut off", payload[: len(payload) * 2 // 3]
    yield "a DOCTYPE", b"<!DOCTYPE x>" + payload
    yield from _header_attacks(payload, protected)
    if protected:
        yield from _security_attacks(payload)
        yield from _value_attacks(payload)
        yield from _exchanges(recording, file)
        yield "opened and sent in clear", etree.tostring(plain(recording.open()[file]))


def _header_attacks(payload: bytes, protected: bool) -> Iterator[Attack]:
    for index, block in enumerate(headers_of(etree.fromstring(payload))):
        name = header_name(block)
        root = etree.fromstring(payload)
        root[0].insert(0, deepcopy(headers_of(root)[index]))
        yield f"{name} doubled", etree.tostring(root)
        root = etree.fromstring(payload)
        twin = deepcopy(headers_of(root)[index])
        twin.attrib.pop(ID, None)
        root[0].append(twin)
        yield f"{name} doubled without id", etree.tostring(root)
        if not protected:
            continue
        root = etree.fromstring(payload)
        root[0].remove(headers_of(root)[index])
        yield f"{name} removed", etree.tostring(root)
        root = etree.fromstring(payload)
        leaf = next(each for each in headers_of(root)[index].iter() if each.text and each.text.strip())
        leaf.text = "7" if (leaf.text or "").strip().isdigit() else "urn:evil:7"
        yield f"{name} changed", etree.tostring(root)


def _security_attacks(payload: bytes) -> Iterator[Attack]:
    root = etree.fromstring(payload)
    security = security_of(root)
    if security is None:
        return
    for index, child in enumerate(security):
        kind = etree.QName(child).localname
        if kind not in _TOKENS:
            continue
        changed = etree.fromstring(payload)
        inner = _required(security_of(changed))
        inner.remove(inner[index])
        yield f"{kind} removed", etree.tostring(changed)
        if kind in ("Signature", "EncryptedData", "Timestamp"):
            changed = etree.fromstring(payload)
            inner = _required(security_of(changed))
            inner.append(deepcopy(inner[index]))
            yield f"{kind} doubled", etree.tostring(changed)
    root[0].remove(security)
    yield "Security removed", etree.tostring(root)
    root = etree.fromstring(payload)
    _required(security_of(root)).set(f"{{{etree.QName(root).namespace}}}role", "urn:somebody-else")
    yield "Security for another role", etree.tostring(root)


def _value_attacks(payload: bytes) -> Iterator[Attack]:
    for tag in ("DigestValue", "SignatureValue", "CipherValue"):
        for index, _ in enumerate(etree.fromstring(payload).iter("{*}" + tag)):
            root = etree.fromstring(payload)
            element = list(root.iter("{*}" + tag))[index]
            octets = bytearray(b64decode(element.text or ""))
            octets[len(octets) // 2] ^= 1
            element.text = b64encode(bytes(octets)).decode()
            yield f"a bit of {tag} {index} flipped", etree.tostring(root)


def _exchanges(recording: Recording, file: str) -> Iterator[Attack]:
    """Body or Security header of another message that went the same way."""
    for other, payload in recording.messages.items():
        same_way = ("request" in other) == ("request" in file)
        if other == file or not same_way or not recording.open()[other].shape.protected:
            continue
        theirs = etree.fromstring(payload)
        root = etree.fromstring(recording.messages[file])
        root.replace(root[1], deepcopy(theirs[1]))
        if etree.tostring(theirs[1]) != etree.tostring(etree.fromstring(recording.messages[file])[1]):
            yield f"Body of {other}", etree.tostring(root)
        root = etree.fromstring(recording.messages[file])
        root[0].replace(_required(security_of(root)), deepcopy(_required(security_of(theirs))))
        yield f"Security of {other}", etree.tostring(root)


def insider(recording: Recording, file: str, context: Context) -> Iterator[Attack]:
    """Badly protected by somebody who has the key, or well protected under another one."""
    message = recording.open()[file]
    envelope, response, now = plain(message), "response" in file, message.now
    parts = ["Body", "wsu:Timestamp", *map(header_name, headers_of(envelope))]

    def made(*covers: list[str] | None, by: Context = context, **how: bool) -> bytes:
        return protect(envelope, by, covers, response=response, created=now, **how)

    for name in parts:
        yield f"{name} left out", made([each for each in parts if each != name])
    yield "Timestamp alone", made(["wsu:Timestamp"])
    yield "Timestamp alone, Body encrypted", made(["wsu:Timestamp"], encrypt_body=True)
    yield "two signatures for two halves", made(["Body"], [each for each in parts if each != "Body"])
    yield "two whole signatures", made(None, None)
    yield "no Timestamp", made(None, timestamp=False)
    yield "encrypted, not signed", made(encrypt_body=True)
    yield "another context", made(None, by=Context(EVIL, EVIL_SECRET, context.edition))
    yield from _sequence_attacks(envelope, context, response, now)


def _sequence_attacks(
    envelope: etree._Element, context: Context, response: bool, now: float
) -> Iterator[Attack]:
    names = [header_name(block) for block in headers_of(envelope)]
    if "wsrm:Sequence" in names:
        root = deepcopy(envelope)
        next(part(root, "wsrm:Sequence").iter("{*}Identifier")).text = "urn:uuid:of-somebody-else"
        yield "a sequence from elsewhere", protect(root, context, [None], response=response, created=now)
        root = deepcopy(envelope)
        root[0].append(deepcopy(part(root, "wsrm:Sequence")))
        yield "Sequence doubled", protect(root, context, [None], response=response, created=now)
    if "wsrm:SequenceAcknowledgement" in names:
        root = deepcopy(envelope)
        found = part(root, "wsrm:SequenceAcknowledgement").iter("{*}AcknowledgementRange")
        next(found).set("Upper", "77")
        yield "a number never sent", protect(root, context, [None], response=response, created=now)
