"""What ``castile demo`` shows and leaves (CO-21, OP-01)."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from castile.demo import effects
from castile.demo.command import demo as command
from castile.demo.plan import Files
from tests.demo.runs import COMMAND, Run, demo, environment

COUNTS = {
    "sent",
    "delivered",
    "lost",
    "duplicated",
    "redelivered",
    "out_of_order",
    "contexts",
    "renewals",
    "kills",
    "kills_beside",
    "kills_in_exchange",
    "retransmissions",
    "edition",
    "soap",
    "bootstrap",
    "renew_every",
    "ok",
}


WRONG = [["--soap", "1.0"], ["--bootstrap", "kerberos"], ["--renew-every", "0"]]


@pytest.mark.row("CO-21", "OP-01")
def test_every_message_once_in_order(kept: Run) -> None:
    assert kept.status == 0, kept.errors
    counts = kept.counts
    assert counts.keys() >= COUNTS
    assert counts["sent"] == counts["delivered"] == 40
    for fault in ("lost", "duplicated", "out_of_order", "unanswered"):
        assert counts[fault] == 0
    assert counts["kills"] == 2
    assert counts["renewals"]
    assert counts["contexts"] == 2  # a killed client's next life makes a new one
    assert counts["ok"] is True


@pytest.mark.row("CO-21")
def test_draws_what_happens(kept: Run) -> None:
    text = "\n".join(kept.diagram)
    expected = [
        r"RST/SCT ─+┼─+▶",
        r"◀─+┼─+ RSTR/SCT ─│ security context",
        r"CreateSequence ─+┼",
        r"CreateSequenceResponse ─│ sequence bound to it",
        r"Book A1 ",
        r"reply to A1 ─│",
        r"✗ .*lost",
        r"═▶│ twice",
        r" again ─",
        r"☠ service killed \(SIGKILL, pid \d+\)",
        r"↻ service started again",
        r"☠ client killed",
        r"↻ client started again",
        r"unfinished calls of its earlier life",
        r"TerminateSequence ─",
        r"─ RST/SCT/Renew ─",
        r"◀─+┼─+ RSTR/SCT/Renew ─│ its next key",
        r"RST/SCT/Cancel ─",
        r"● Book 39",
        r"● Notify 40",
        r"each message exactly once, in order",
    ]
    for pattern in expected:
        assert re.search(pattern, text), pattern
    ending = "LastMessage" if kept.counts["edition"] == "2005" else "CloseSequence"
    assert re.search(rf"{ending}(?: A\d+)? ─", text) or re.search(rf"{ending} ", text)


def test_lines_fit_a_terminal(kept: Run) -> None:
    drawn = [line for line in kept.diagram if "│" in line]
    assert max(map(len, drawn)) <= 80


def test_keeps_the_handlers_rows(kept: Run) -> None:
    lines = (kept.folder / "effects.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert {row["message"] for row in rows} == set(range(1, 41))
    booked = [row["message"] for row in rows if row["transactional"]]
    assert sorted(booked) == list(range(1, 41, 2))  # half of them, each once
    again = len(rows) - 40
    assert again == kept.counts["redelivered"]
    assert len(rows) == len(effects.read(Files(kept.folder)))


def test_keeps_stores_log_messages_and_keys(kept: Run) -> None:
    names = {path.name for path in kept.folder.iterdir()}
    assert names >= {"client.db", "service.db", "effects.db", "demo.log", "effects.jsonl", "wire"}
    keys = json.loads((kept.folder / "wire" / "keys.json").read_text("utf-8"))
    assert len(keys["keys"]) == len(keys["certificates"]) == 1
    assert len(keys["contexts"]) >= 2
    assert list(keys["users"]) == ["ada"]
    assert (kept.folder / "wire" / "keys.json").stat().st_mode & 0o077 == 0
    requests = sorted(path.name for path in (kept.folder / "wire").glob("*-request.xml"))
    assert requests == [f"{number:03d}-request.xml" for number in range(1, len(requests) + 1)]
    assert not (kept.folder / "keylog.jsonl").exists()


def test_writes_down_what_it_then_loses(kept: Run) -> None:
    sent = sum(1 for line in kept.diagram if line.startswith((" │─", " │ ─")))
    assert len(list((kept.folder / "wire").glob("*-request.xml"))) == sent


@pytest.mark.row("OP-19")
def test_explain_verifies_all_of_it(kept: Run) -> None:
    explaining = pytest.importorskip("castile.explaining", reason="castile.explain isn't there yet")
    if not hasattr(explaining, "explain"):
        pytest.skip("castile.explain isn't there yet")
    wire = kept.folder / "wire"
    explanation = explaining.explain(wire, keys=[wire / "keys.json"])
    wrong = [(each.file, each.problems) for each in explanation.messages if each.problems]
    assert wrong == []
    assert explanation.verdict == "verified"


@pytest.mark.parametrize("edition", ["1.3", "2005"])
def test_without_harm(tmp_path: Path, edition: str) -> None:
    run = demo(
        tmp_path,
        *("--edition", edition, "--messages", "6", "--kill", "none"),
        *("--drop", "0", "--duplicate", "0", "--no-reorder"),
    )
    assert run.status == 0, run.errors
    assert run.counts["kills"] == run.counts["redelivered"] == 0
    assert run.counts["contexts"] == 1
    assert run.counts["renewals"] == 0  # nobody asked for one
    assert run.counts["renew_every"] is None
    assert list((tmp_path / "temporary").iterdir()) == []  # nothing is left behind


@pytest.mark.parametrize("victim", ["client", "service"])
def test_one_victim(tmp_path: Path, victim: str) -> None:
    run = demo(tmp_path, "--messages", "8", "--kill", victim, "--drop", "0.2", "--seed", "11")
    assert run.status == 0, run.errors
    assert run.counts["kills"] == 1
    other = {"client": "service", "service": "client"}[victim]
    text = "\n".join(run.diagram)
    assert f"☠ {victim}" in text
    assert f"☠ {other}" not in text


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C ends every process and leaves nothing."""
    chosen = environment(tmp_path / "temporary")
    process = subprocess.Popen(
        [*COMMAND, "--messages", "5000", "--kill", "none"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=chosen,
    )
    if process.stdout is None:
        pytest.fail("no output to read")
    for line in process.stdout:
        if "● Notify" in line:
            break
    children = _children(process.pid)
    assert len(children) == 3
    process.send_signal(how)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "castile demo: interrupted\n"
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [child for child in children if Path(f"/proc/{child}").exists()] == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_children_end_with_their_director(tmp_path: Path) -> None:
    """Even if it is killed itself."""
    process = subprocess.Popen(
        [*COMMAND, "--messages", "5000", "--kill", "none"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=environment(tmp_path / "temporary"),
    )
    if process.stdout is None:
        pytest.fail("no output to read")
    for line in process.stdout:
        if "● Notify" in line:
            break
    children = _children(process.pid)
    process.kill()
    process.communicate(timeout=20)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [child for child in children if Path(f"/proc/{child}").exists()] == []


@pytest.mark.parametrize(
    "options", [["--kill", "nobody"], ["--messages", "0"], ["--drop", "2"], ["--edition", "1.2"], *WRONG]
)
def test_wrong_use(options: list[str]) -> None:
    assert CliRunner().invoke(command, options).exit_code == 2


def test_keeps_only_in_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    result = CliRunner().invoke(command, ["--keep", str(tmp_path)])
    assert result.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


def test_help_has_an_example() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    options = "messages drop duplicate reorder kill renew-every edition soap bootstrap seed keep json"
    for option in (f"--{name}" for name in options.split()):
        assert option in text
    assert "Example: castile demo" in text


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]
