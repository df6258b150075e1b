"""The message flow as it happens: a sequence diagram, a line for each thing seen.

On a terminal it is coloured and a status line stays below it; elsewhere it is plain lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

HALF: Final = 28
"""Characters from one lifeline to the next: with the notes it fits into 80 columns."""
_TRUST: Final = ("RST", "RSTR")
_MACHINERY: Final = ("Sequence", "LastMessage")
_NOTES: Final = {
    "RSTR/SCT": "security context",
    "RSTR/SCT/Renew": "its next key",
    "CreateSequenceResponse": "sequence bound to it",
    "RSTR/SCT/Cancel": "context given back",
}

Event = Mapping[str, object]


@dataclass(slots=True)
class Tally:
    """What the status line and the verdict say about the network."""

    lost: int = 0
    doubled: int = 0
    held: int = 0
    retransmissions: int = 0
    answered: int = 0
    kills: int = 0
    renewals: int = 0
    """Keys of renewed contexts that the client was seen to use."""


@dataclass(slots=True)
class Diagram:
    """Draws."""

    console: Console
    messages: int
    tally: Tally = field(default_factory=Tally)
    _sequences: dict[str, str] = field(default_factory=dict)
    _requests: dict[object, str] = field(default_factory=dict)
    _instances: set[object] = field(default_factory=set)
    _live: Live | None = None

    def open(self) -> None:
        """The head; on a terminal, the status line."""
        title = f" {'client':<{HALF}} {'network':<{HALF}}service"
        self.console.print(Text(title, "bold"), soft_wrap=True)
        if self.console.is_terminal:
            self._live = Live(self._status(), console=self.console, transient=True, refresh_per_second=8)
            self._live.start()

    def close(self) -> None:
        """The status line goes."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def draw(self, event: Event) -> None:
        """One event of a process."""
        match event["event"]:
            case "request":
                self._request(event)
            case "response":
                self._response(event)
            case "silence":
                self._line(" " * HALF, "✗" + " " * (HALF - 1), "no answer", "red")
            case "handled":
                again = ", again?" if event["redelivered"] else ""
                note = f"● {event['handler']} {event['message']}{again}"
                self._line(" " * HALF, "│" + " " * (HALF - 1), note, "bold green" if again else "green")
            case "answered":
                self.tally.answered += 1
        if self._live is not None:
            self._live.update(self._status())

    def say(self, text: str, style: str = "bold") -> None:
        """Something that happens to a process, or to the whole run."""
        self.console.print(Text(f" {text}", style), soft_wrap=True)

    def _request(self, event: Event) -> None:
        fate = event["fate"]
        words = fate if isinstance(fate, list) else []
        self.tally.lost += "lost" in words
        self.tally.doubled += "doubled" in words and "lost" not in words
        self.tally.held += "held" in words
        again = bool(event["repeated"])
        self.tally.retransmissions += again
        fresh = self._is_fresh(event["instance"])
        label = self._label(event)
        self._requests[event["exchange"]] = label
        style = self._style(str(event["word"]))
        text = f"─ {label}{' again' if again else ''} "
        if "lost" in words:
            self._line(text.ljust(HALF, "─"), "✗" + " " * (HALF - 1), "lost", "red")
            return
        rule = "═" if "doubled" in words else "─"
        note = {"doubled": "twice", "held": "held back"}
        notes = ", ".join(note[word] for word in words) or ("by the next key" if fresh else "")
        self._line(text.ljust(HALF, "─"), "┼" + rule * (HALF - 2) + "▶", notes, style)

    def _is_fresh(self, instance: object) -> bool:
        """Whether a renewed key is in use for the first time: the proof of its renewal, for an
        answer that is on its way may find its client dead."""
        if not instance or instance in self._instances:
            return False
        self._instances.add(instance)
        self.tally.renewals += 1
        return True

    def _response(self, event: Event) -> None:
        lost = bool(event["fate"])
        self.tally.lost += lost
        text = f" {self._reply_label(event)} ─"
        if len(text) == HALF:
            text = text.lstrip()
        style = "red" if lost else self._style(str(event["word"]))
        near = " " * HALF if lost else "◀" + "─" * (HALF - 1)
        note = "lost" if lost else _NOTES.get(str(event["word"]), "")
        self._line(near, ("✗" if lost else "┼") + text.rjust(HALF - 1, "─"), note, style)

    def _label(self, event: Event) -> str:
        word, number, sequence = str(event["word"]), event["number"], str(event["sequence"])
        if not number:
            return word
        letter = self._sequences.setdefault(sequence, self._letter())
        return f"{word} {letter}{number}"

    def _letter(self) -> str:
        turn, place = divmod(len(self._sequences), len(ascii_uppercase))
        return ascii_uppercase[place] + (str(turn) if turn else "") + ("." if turn else "")

    def _reply_label(self, event: Event) -> str:
        word = str(event["word"])
        if not word:
            return f"{event['status']}, nothing yet"
        if word == "SequenceAcknowledgement":
            return f"acknowledged {_ranges(str(event['acknowledged']))}"
        if word == "fault":
            return "fault"
        if event["number"] and word != "LastMessage":
            return f"reply to {self._requests.get(event['exchange'], '?').rpartition(' ')[2]}"
        return word

    @staticmethod
    def _style(word: str) -> str:
        if word.startswith(_TRUST):
            return "magenta"
        if word == "fault":
            return "yellow"
        return "cyan" if any(part in word for part in _MACHINERY) else "blue"

    def _line(self, near: str, far: str, note: str, style: str) -> None:
        line = Text()
        line.append(" │", "dim")
        line.append(near, style)
        line.append(far, style)
        line.append("│", "dim")
        line.append(f" {note}" if note else "", style)
        self.console.print(line, soft_wrap=True)

    def _status(self) -> Text:
        tally = self.tally
        return Text(
            f" {tally.answered} of {self.messages} calls answered · {tally.lost} messages lost, "
            f"{tally.doubled} doubled · {tally.renewals} renewals · {tally.kills} kills ",
            "reverse",
        )


def _ranges(text: str) -> str:
    """``1-4 6-6`` as ``1-4, 6``."""
    parts = [part.split("-") for part in text.split()]
    return ", ".join(low if low == high else f"{low}-{high}" for low, high in parts) or "nothing"
