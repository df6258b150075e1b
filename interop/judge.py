"""What came of a cell, by the applications' own logs, the wire, and `castile explain`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from cell import STRANGER, TRICK, Cell
from network import Exchange
from processes import Places

from castile.demo.envelope import label

Outcome = Literal["pass", "fail", "expected failure", "recorded", "not run"]
_REASON: Final = re.compile(rb"<(?:\w+:)?(?:Text|faultstring)(?:\s[^>]*)?>([^<]*)<")
_EXPLAIN: Final = "from castile.cli import main; main()"
_UNKNOWN: Final = "the cause is unknown"
"""So `castile explain` says it."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a journal."""

    event: str
    operation: str = ""
    number: int = 0
    rest: str = ""

    @classmethod
    def read(cls, path: Path) -> list[Line]:
        """Every line; none if there is no journal."""
        lines = []
        for text in path.read_text("utf-8").splitlines() if path.exists() else []:
            event, operation, number, rest = [*text.split("\t", 3), "", "", "", ""][:4]
            lines.append(cls(event, operation, int(number) if number.isdigit() else 0, rest))
        return lines


@dataclass(slots=True)
class Verdict:
    """The outcome of one cell."""

    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    delivered: int = 0
    retransmissions: int = 0
    problems: list[str] = field(default_factory=list)
    """What is not as a good cell has it."""
    explained: str = ""
    """The verdict of `castile explain`, with what it names first."""


def judge(cell: Cell, places: Places, exchanges: Sequence[Exchange], *, ended: bool) -> Verdict:
    """Hold what happened against what the cell expects."""
    service, client = Line.read(places.journal("service")), Line.read(places.journal("client"))
    everything = [line.number for line in service if line.event == "handled"]
    handled = [number for number in everything if number < STRANGER]
    verdict = Verdict("pass", delivered=len(handled))
    verdict.retransmissions = sum(each.repeated for each in exchanges)
    problems = verdict.problems
    if not ended:
        problems.append(f"the client didn't end within {cell.seconds:.0f} s")
    problems += _delivery(cell, service, handled)
    failures = [line for line in client if line.event in ("failed", "garbled")]
    problems += [f"{line.event}: {line.operation} {line.number} {line.rest}" for line in failures]
    problems += _lifecycle(cell, exchanges)
    verdict.explained, wrong, unnamed = _explained(places, cell.expect)
    if wrong:
        problems.append(f"castile explain: {wrong}")
    match cell.expect:
        case "pass" if problems:
            verdict.outcome, verdict.reason = "fail", problems[0]
        case "failure":
            _expected_failure(cell, places, verdict)
        case "in doubt":
            _in_doubt(cell, handled, client, verdict)
        case "recorded":
            _recorded(cell, everything, client, exchanges, verdict)
        case _:
            pass
    # Whatever was expected:
    if unnamed:
        _fail(verdict, f"castile explain names no cause: {unnamed}")
    elif cell.lossy and not verdict.retransmissions:
        _fail(verdict, "nothing was retransmitted, so the network was none of loss")
    return verdict


def _fail(verdict: Verdict, reason: str) -> None:
    """A reason that there is already stays."""
    if verdict.outcome != "fail":
        verdict.outcome, verdict.reason = "fail", reason


def _delivery(cell: Cell, service: Sequence[Line], handled: Sequence[int]) -> list[str]:
    problems = []
    if handled != list(range(1, cell.messages + 1)):
        problems.append(f"delivered was {_numbers(handled)}, not 1 to {cell.messages} once and in order")
    sizes = {int(line.rest) for line in service if line.event == "handled"}
    if sizes - {cell.size}:
        problems.append(f"messages came with {sorted(sizes)} characters, not with {cell.size}")
    return problems


def _lifecycle(cell: Cell, exchanges: Sequence[Exchange]) -> list[str]:
    """The sequence is terminated, the context given back."""
    problems = []
    good = {each.request.word for each in exchanges if 200 <= each.status < 300}
    if cell.reliable:
        wanted = ["CreateSequence", "TerminateSequence"] + (["CloseSequence"] if cell.rm == "1.1" else [])
        problems += [f"{word} was not done" for word in wanted if word not in good]
    # CXF's own client can't give a token back while it has sequences: it stays out. Nobody repeats
    # a Cancel that the network lost.
    heard = {each.request.word for each in exchanges} if cell.lossy else good
    if cell.secure and not (cell.peer == "cxf" and cell.role == "client") and "RST/SCT/Cancel" not in heard:
        problems.append("the security context token was not cancelled")
    return problems


def _expected_failure(cell: Cell, places: Places, verdict: Verdict) -> None:
    said = "\n".join(
        path.read_text("utf-8", "replace")
        for role in ("service", "client")
        for path in (places.journal(role), places.output(role))
        if path.exists()
    )
    handled = [line.number for line in Line.read(places.journal("service")) if line.event == "handled"]
    if not verdict.problems:
        verdict.outcome, verdict.reason = "fail", "it was expected to fail and didn't"
    elif _unsorted(handled):
        verdict.outcome, verdict.reason = "fail", f"delivered was {_numbers(handled)}"
    elif cell.says not in said:
        verdict.outcome, verdict.reason = "fail", f"nobody said “{cell.says}”; {verdict.problems[0]}"
    else:
        verdict.outcome, verdict.reason = "expected failure", f"“{cell.says}”: {cell.rule}"


def _in_doubt(cell: Cell, handled: Sequence[int], client: Sequence[Line], verdict: Verdict) -> None:
    """Nothing is delivered twice or out of order, and the caller knows of each message that may
    not have been delivered, and of each answer that he hasn't got."""
    good = {
        line.number for line in client if line.event == ("told" if cell.operation == "tell" else "answered")
    }
    unfinished = {line.number for line in client if line.event == "unfinished"}
    doubts = sorted({line.number for line in client if line.event == "sent"} - good | unfinished)
    others = [line for line in client if line.event == "failed" and not line.rest.startswith("InDoubt")]
    missing = set(range(1, cell.messages + 1)) - set(handled)
    wrong = ""
    if _unsorted(handled):
        wrong = f"delivered was {_numbers(handled)}"
    elif missing - set(doubts):
        wrong = f"{_numbers(sorted(missing - set(doubts)))} were lost, and nobody knows"
    elif cell.role == "service" and any(line.operation in ("echo", "tell") for line in others):
        wrong = next(f"failed: {line.number} {line.rest}" for line in others)
    verdict.outcome = "fail" if wrong else "pass"
    lost = f", {_numbers(sorted(missing))} not" if missing else ""
    doubtful = f"in doubt for the caller: {_numbers(doubts)}"
    verdict.reason = wrong or f"{cell.rule}. Delivered once{lost}; {doubtful}"


def _recorded(
    cell: Cell,
    everything: Sequence[int],
    client: Sequence[Line],
    exchanges: Sequence[Exchange],
    verdict: Verdict,
) -> None:
    """What the peer makes of it; only what must not happen to anybody is a failure."""
    handled = [number for number in everything if number < STRANGER]
    failed = next((line for line in client if line.event == "failed" and line.number != TRICK), None)
    facts = [f"delivered {_numbers(handled)}"]
    facts += [
        f"the replay was answered HTTP {each.status} {_fault(each.said)}"
        for each in exchanges
        if each.replayed
    ]
    if cell.trick in ("unknown sequence", "foreign sequence"):
        answer = next((line.rest for line in client if line.number == TRICK and line.event == "failed"), "")
        taken = "delivered" if TRICK in everything else "not delivered"
        facts.append(f"the message in the other sequence was {taken}{f': {answer}' if answer else ''}")
    if failed is not None:
        facts.append(f"the client said of {failed.operation} {failed.number}: {failed.rest}")
    if _unsorted(handled):
        verdict.outcome, verdict.reason = "fail", f"delivered was {_numbers(handled)}"
    else:
        verdict.outcome, verdict.reason = "recorded", f"{cell.rule}. {'; '.join(facts)}"


def _unsorted(numbers: Sequence[int]) -> bool:
    """One came twice, or out of order."""
    return list(numbers) != sorted(set(numbers))


def _fault(payload: bytes) -> str:
    """The reason of an unsecured fault, or what the answer is."""
    if found := _REASON.search(payload):
        return f"“{found[1].decode('utf-8', 'replace').strip()}”"
    return f"with {label(payload).word or 'a secured fault'}" if payload else "without a word"


def _explained(places: Places, expect: str) -> tuple[str, str, str]:
    """The verdict of `castile explain`, the first thing that is wrong, and the first message of
    which it can't say what is wrong."""
    keys = [places.keys / "keys.json", places.keylog]
    options = [word for path in keys if path.exists() for word in ("--keys", str(path))]
    command = [sys.executable, "-c", _EXPLAIN, "explain", "--json", *options, str(places.wire)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 2 or not done.stdout:
        word = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return "not explained", word, word
    (places.folder / "explained.json").write_text(done.stdout, "utf-8")
    messages = json.loads(done.stdout)["messages"]
    wrong = next((_named(each) for each in messages if each["problems"]), "")
    unnamed = next((_named(each) for each in messages if _unnamed(each)), "")
    if expect == "failure" and not any(each["problems"] or each["warnings"] for each in messages):
        unnamed = "whatever failed"
    return json.loads(done.stdout)["verdict"], wrong, unnamed


def _unnamed(message: Mapping[str, Any]) -> bool:
    """It can't read this message, or has found fault with it and doesn't say why."""
    if message["verdict"] == "unreadable" or any(_UNKNOWN in text for text in message["problems"]):
        return True
    return message["verdict"] == "failed" and not message["problems"]


def _named(message: Mapping[str, Any]) -> str:
    words = [*message["problems"], message["verdict"]]
    return f"{Path(message['file']).name}: {words[0]}"


def _numbers(numbers: Sequence[int]) -> str:
    """Ranges of them, in their order: ``1-4, 6``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{low}-{high}" if low < high else f"{low}" for low, high in ranges) or "nothing"
