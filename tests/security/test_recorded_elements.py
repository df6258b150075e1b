"""What WCF and CXF wrote, also what they encrypted: read, written and read again as the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from castile import xml
from castile.messages import addressing, reliability, trust
from castile.messages.conversation import DerivedKeyToken, SecurityContextToken
from castile.messages.security import (
    BinarySecurityToken,
    EncryptedData,
    EncryptedKey,
    ReferenceList,
    SecurityTokenReference,
    SignatureConfirmation,
    Timestamp,
    UsernameToken,
)
from castile.versions import WSRM, WSSC, WST
from tests.conftest import shared
from tests.messages.elements import tree
from tests.security.recorded import LIMITS, Opened, keys_of, read

SAME = (SecurityContextToken, DerivedKeyToken, SignatureConfirmation)
"""Kinds of which nothing is left out, so that whole trees are compared."""
Parse = Callable[[xml.Element], Any]
Render = Callable[[Any], bytes]


def spoken(kind: Any, element: xml.Element, message: Opened) -> tuple[Parse, Render]:
    """How an element of this kind is read and written in the edition that it is of."""
    space = xml.name_of(element)[0]
    if kind in (trust.RequestSecurityToken, trust.RequestSecurityTokenResponse):
        return (
            lambda each: replace(kind.parse(each, WST[space]), extensions=()),
            lambda each: each.render(WST[space]),
        )
    if kind is SecurityContextToken:  # a cookie is its issuer's own, and sent back as it came
        cookie = any(xml.name_of(child)[0] not in WSSC for child in element)
        return lambda each: kind.parse(each, verbatim=cookie), lambda each: each.render(WSSC[space])
    if kind is DerivedKeyToken:
        return kind.parse, lambda each: each.render(WSSC[space])
    if kind in LIFE:
        edition = addressing.edition_of(message.envelope.headers)
        assert edition is not None
        return (
            lambda each: kind.parse(each, WSRM[space], edition),
            lambda each: each.render(WSRM[space], edition),
        )
    if kind in HEADERS:
        return (
            lambda each: kind.parse(each, WSRM[space]),
            lambda each: each.render(WSRM[space]).render(message.envelope.soap),
        )
    return kind.parse, lambda each: each.render()


LIFE = (
    reliability.CreateSequence,
    reliability.CreateSequenceResponse,
    reliability.CloseSequence,
    reliability.CloseSequenceResponse,
    reliability.TerminateSequence,
    reliability.TerminateSequenceResponse,
)
HEADERS = (
    reliability.Sequence,
    reliability.SequenceAcknowledgement,
    reliability.AckRequested,
    reliability.UsesSequenceSTR,
)
KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *LIFE,
        *HEADERS,
        trust.RequestSecurityToken,
        trust.RequestSecurityTokenResponse,
        SecurityContextToken,
        DerivedKeyToken,
        SecurityTokenReference,
        UsernameToken,
        BinarySecurityToken,
        SignatureConfirmation,
        ReferenceList,
        EncryptedData,
        EncryptedKey,
        Timestamp,
    )
}


def elements(message: Opened) -> Iterator[xml.Element]:
    """Everything of a message, before and after decryption."""
    yield from message.envelope.root.iter("*")
    if message.verified is not None:
        yield from message.verified.body.iter("*")
        for header in message.verified.headers:
            yield from header.element.iter("*")


def folders(peer: str) -> list[Path]:
    return sorted(path for path in shared("vectors", peer).iterdir() if path.is_dir())


@pytest.mark.row("F22", "RM-05", "TR-03", "SC-10", "MS-18")
@pytest.mark.parametrize("peer", ["wcf", "cxf"])
def test_every_recorded_element_is_written_again(peer: str) -> None:
    seen: Counter[str] = Counter()
    for folder in folders(peer):
        for message in read(folder, keys_of(folder)):
            for element in elements(message):
                local = xml.local_name(element)
                kind = KINDS.get(local)
                if kind is None:
                    continue
                where = (folder.name, message.name, local)
                parse, render = spoken(kind, element, message)
                found = parse(element)
                written = render(found)
                again = xml.parse(written, LIMITS)
                assert parse(again) == found, where
                assert xml.canonical(again) == written, where
                if kind in SAME:
                    assert tree(again) == tree(element), where
                seen[local] += 1
    assert len(seen) >= 18
    assert sum(seen.values()) >= 350
    assert {"RequestSecurityTokenResponse", "RequestSecurityToken", "DerivedKeyToken"} <= set(seen)
