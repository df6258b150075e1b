"""What `explain` has to say, as data: printable, and as JSON in the shape of names.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from castile.explaining.sequences import SequenceState

Verdict = Literal["verified", "unprotected", "unreadable", "failed", "partial"]
"""Of a message one of the first four, of a conversation any but ``unreadable`` (OP-19)."""


@dataclass(frozen=True, slots=True)
class MessageReport:
    """One message in plain words."""

    file: str
    action: str | None
    verdict: Verdict
    signed: tuple[str, ...] = ()
    """Names of the parts whose signature and digest held."""
    encrypted: tuple[str, ...] = ()
    """Names of the parts that were decrypted."""
    sequence: SequenceState | None = None
    """How the sequence that it is about stands after it."""
    problems: tuple[str, ...] = ()
    """Everything that is wrong, the first thing first."""
    warnings: tuple[str, ...] = ()
    """Legal, but a peer may mind."""
    title: str = ""
    """What it is: ``CreateSequence``, ``RST/SCT``, ``application message``."""
    response: bool = False
    details: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Label and text, for people: who signed with which key, how that was derived, and so on."""

    def as_json(self) -> dict[str, object]:
        """The members that names.md lists."""
        return {
            "file": self.file,
            "action": self.action,
            "verdict": self.verdict,
            "signed": list(self.signed),
            "encrypted": list(self.encrypted),
            "sequence": self.sequence.as_json() if self.sequence is not None else None,
            "problems": list(self.problems),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """A captured conversation in plain words. `str()` gives it as text."""

    verdict: Verdict
    messages: tuple[MessageReport, ...]

    @property
    def problems(self) -> tuple[tuple[str, str], ...]:
        """File and text of everything that is wrong, the first thing first."""
        return tuple((message.file, text) for message in self.messages for text in message.problems)

    def as_json(self) -> dict[str, object]:
        """The report of ``castile explain --json``."""
        return {"verdict": self.verdict, "messages": [message.as_json() for message in self.messages]}

    def __str__(self) -> str:
        """Plain text without colours, a line for each thing."""
        from castile.explaining.words import lines

        return "\n".join(line.text for line in lines(self))


def verdict(messages: tuple[MessageReport, ...]) -> Verdict:
    """Of a conversation (OP-19)."""
    found = {message.verdict for message in messages}
    if "failed" in found:
        return "failed"
    if found == {"unprotected"}:
        return "unprotected"
    return "verified" if found == {"verified"} else "partial"
