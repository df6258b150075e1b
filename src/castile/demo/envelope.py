"""What anybody on the network can read of a message: its action, its number, its MessageID, its key's name.

The proxy labels what it sees for the diagram. Nothing is decided by these labels, so they are
read by pattern from the clear headers; whoever judges messages uses `castile.explain`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_HEAD: Final = 64 << 10
_ACTION: Final = re.compile(rb"<(?:\w+:)?Action(?:\s[^>]*)?>([^<]+)<")
_MESSAGE_ID: Final = re.compile(rb"<(?:\w+:)?MessageID(?:\s[^>]*)?>([^<]+)<")
_SEQUENCE: Final = re.compile(rb"<(\w+:)?Sequence(?:\s[^>]*)?>(.*?)</(?:\w+:)?Sequence>", re.DOTALL)
_IDENTIFIER: Final = re.compile(rb"<(?:\w+:)?Identifier(?:\s[^>]*)?>([^<]+)<")
_NUMBER: Final = re.compile(rb"<(?:\w+:)?MessageNumber(?:\s[^>]*)?>(\d+)<")
_CONTEXT: Final = re.compile(
    rb"<(?:\w+:)?SecurityContextToken(?:\s[^>]*)?>(.*?)</(?:\w+:)?SecurityContextToken>", re.DOTALL
)
_INSTANCE: Final = re.compile(rb"<(?:\w+:)?Instance(?:\s[^>]*)?>([^<]+)<")
_RANGE: Final = re.compile(rb"<(?:\w+:)?AcknowledgementRange\s([^>]*)>")
_BOUND: Final = re.compile(rb'(Lower|Upper)="(\d+)"')


@dataclass(frozen=True, slots=True)
class Label:
    """A message from outside."""

    action: str = ""
    sequence: str = ""
    """Identifier in its Sequence header."""
    number: int = 0
    message_id: str = ""
    acknowledged: str = ""
    """The ranges in its acknowledgement: ``1-4 6-6``."""
    instance: str = ""
    """The renewed key of its security context: Identifier and Instance."""

    @property
    def word(self) -> str:
        """The last part of the action, with what it needs to be told apart."""
        parts = self.action.rstrip("/").split("/")
        if "RST" in parts or "RSTR" in parts or "SCT" in parts:
            start = next(place for place, part in enumerate(parts) if part in ("RST", "RSTR", "SCT"))
            return "/".join(parts[start:])
        return parts[-1]

    @property
    def identity(self) -> str:
        """The same for each transmission of one message; empty if nothing tells."""
        return f"{self.sequence}/{self.number}" if self.number else self.message_id


def label(envelope: bytes) -> Label:
    """Read the clear headers of an envelope."""
    head = envelope[:_HEAD]
    found = _SEQUENCE.search(head)
    block = found[2] if found else b""
    ranges = []
    for each in _RANGE.finditer(head):
        bounds = dict(_BOUND.findall(each[1]))
        ranges.append(f"{_text(bounds.get(b'Lower'))}-{_text(bounds.get(b'Upper'))}")
    return Label(
        action=_first(_ACTION, head),
        sequence=_first(_IDENTIFIER, block),
        number=int(_first(_NUMBER, block) or 0),
        message_id=_first(_MESSAGE_ID, head),
        acknowledged=" ".join(ranges),
        instance=_instance(head),
    )


def _instance(head: bytes) -> str:
    token = _CONTEXT.search(head)
    name = _first(_INSTANCE, token[1]) if token else ""
    return f"{_first(_IDENTIFIER, token[1])} {name}" if token and name else ""


def _first(pattern: re.Pattern[bytes], text: bytes) -> str:
    match = pattern.search(text)
    return _text(match[1]).strip() if match else ""


def _text(octets: bytes | None) -> str:
    return (octets or b"").decode("utf-8", "replace")
