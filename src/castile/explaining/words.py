"""Findings in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from castile.explaining.opened import Opened
from castile.security.trace import Decrypted, ReferenceChecked, SignatureChecked
from castile.explaining.report import Explanation


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    style: str = ""


def lines(explanation: Explanation) -> Iterator[Line]:
    yield Line(explanation.verdict)
    for m in explanation.messages:
        yield Line(f"{m.file} {m.title} {m.verdict} {m.signed} {m.encrypted} {m.sequence}")
        for p in m.problems: yield Line("   ! "+p)
        for p in m.warnings: yield Line("   ~ "+p)


def signed(message: Opened) -> tuple[str, ...]:
    held = [f.signature for f in message.trace.findings if isinstance(f, SignatureChecked) and f.ok]
    return tuple(dict.fromkeys(f.part for f in message.trace.findings if isinstance(f, ReferenceChecked) and f.ok and f.signature in held))


def encrypted(message: Opened) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f.part for f in message.trace.findings if isinstance(f, Decrypted) and f.ok))


def title(message: Opened) -> str:
    return message.exchange or message.kind.value


def details(message: Opened) -> tuple[tuple[str, str], ...]:
    return ()
