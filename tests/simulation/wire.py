"""The auditor's own reading of the wire: what a message says, from its bytes alone.

Headers of WS-ReliableMessaging and WS-Addressing travel in clear in both tiers, so a few patterns
over the bytes are enough, and nothing of the product's parsers is trusted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

_SEQUENCE = re.compile(
    rb"<r:Sequence[ >].*?<r:Identifier[^>]*>([^<]*)</r:Identifier>"
    rb"<r:MessageNumber[^>]*>(\d+)</r:MessageNumber>(.*?)</r:Sequence>",
    re.DOTALL,
)
_ACKNOWLEDGEMENT = re.compile(
    rb"<r:SequenceAcknowledgement[ >].*?<r:Identifier[^>]*>([^<]*)</r:Identifier>(.*?)"
    rb"</r:SequenceAcknowledgement>",
    re.DOTALL,
)
_RANGE = re.compile(rb'<r:AcknowledgementRange[^>]*?Lower="(\d+)" Upper="(\d+)"')
_ACTION = re.compile(rb"<a:Action[^>]*>([^<]*)<")
_MESSAGE = re.compile(rb"<a:MessageID[^>]*>([^<]*)<")
_RELATES = re.compile(rb"<a:RelatesTo[^>]*>([^<]*)<")
_IDENTIFIER = re.compile(rb"<r:Identifier[^>]*>([^<]*)</r:Identifier>")
_BODY = re.compile(rb"<s:Body[^>]*>(.*)</s:Body>", re.DOTALL)
_TOKEN = re.compile(rb"(?:PLAINTEXT|EVIL)-\d+")
_TAG = re.compile(rb'<g:Tag xmlns:g="[^"]*">([^<]*)<')
_CONTEXT = re.compile(rb"(urn:context:\d+)")
_EXPIRES = re.compile(rb"<u:Expires[^>]*>([^<]*)<")
_INSTANCE = re.compile(rb"(urn:instance:\d+)")


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A SequenceAcknowledgement."""

    sequence: str
    ranges: tuple[tuple[int, int], ...]
    final: bool

    @property
    def numbers(self) -> frozenset[int]:
        """All of them; 0-0 is how RM 1.0 says none."""
        return frozenset(
            number
            for lower, upper in self.ranges
            for number in range(max(lower, 1), min(upper, lower + 9_999) + 1)
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """What a message says."""

    action: str
    message_id: str | None
    relates_to: str | None
    sequence: str | None
    number: int
    last: bool
    asks: bool
    """It has an AckRequested header."""
    acknowledged: tuple[Acknowledged, ...]
    named: str | None
    """The identifier that its Body is about."""
    body: bytes
    token: str | None
    tag: bytes
    fault: bool
    context: str | None
    """A security context that its Body names, and the instance of its key."""
    instance: str | None
    expires: float | None
    """UTC: until when that key is good."""

    @property
    def verb(self) -> str:
        """The last word of the action."""
        return self.action.rpartition("/")[2]


def _text(found: re.Match[bytes] | None) -> str | None:
    return found.group(1).decode() if found else None


def _utc(found: re.Match[bytes] | None) -> float | None:
    return datetime.fromisoformat(found.group(1).decode()).timestamp() if found else None


@lru_cache(maxsize=512)
def read(payload: bytes) -> Facts | None:
    """The facts of an envelope; None: it is none."""
    action = _ACTION.search(payload)
    if action is None:
        return None
    head = payload.partition(b"<s:Body")[0]  # a fault may quote headers in its Detail
    sequence = _SEQUENCE.search(head)
    body = _BODY.search(payload)
    content = body.group(1) if body else b""
    token = _TOKEN.search(content)
    return Facts(
        action.group(1).decode(),
        _text(_MESSAGE.search(payload)),
        _text(_RELATES.search(payload)),
        _text(sequence),
        int(sequence.group(2)) if sequence else 0,
        bool(sequence and b"LastMessage" in sequence.group(3)),
        b"<r:AckRequested" in head,
        tuple(
            Acknowledged(
                found.group(1).decode(),
                tuple((int(lower), int(upper)) for lower, upper in _RANGE.findall(found.group(2))),
                b"<r:Final" in found.group(2),
            )
            for found in _ACKNOWLEDGEMENT.finditer(head)
        ),
        _text(_IDENTIFIER.search(content)),
        content,
        token.group().decode() if token else None,
        (_TAG.search(payload) or [b"", b""])[1],
        b"<s:Fault" in content,
        _text(_CONTEXT.search(content)),
        _text(_INSTANCE.search(content)),
        _utc(_EXPIRES.search(content)),
    )
