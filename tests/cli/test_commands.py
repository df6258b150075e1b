"""The command line: exit status, one clear line for an error, JSON, colours, speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from castile.cli import main
from castile.cli.group import Group
from castile.errors import FaultReceived, PolicyError, SOAPFault, StoreBusy, TransportError, UsageError
from tests.conftest import shared

COMPOSITE = ("vectors", "wcf", "ws05-user-nonego-sc-rm")
CASTILE = (sys.executable, "-c", "from castile.cli import main; main()")
KEYS = ("vectors", "wcf", "explain-keys.json")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def process(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """castile in a process of its own, its output piped."""
    command = [*CASTILE, *map(str, arguments)]
    variables = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=variables)


def processor_seconds() -> float:
    """What the processes started so far have used: other work on this machine doesn't count."""
    times = os.times()
    return times.children_user + times.children_system


# ---- explain


@pytest.mark.row("OP-08", "OP-19")
def test_explain_says_what_is_there() -> None:
    result = run("explain", shared(*COMPOSITE), "--keys", shared(*KEYS))
    assert result.exit_code == 0
    assert result.output.splitlines()[0] == "VERIFIED: 14 messages"


@pytest.mark.row("OP-08")
def test_explain_as_json() -> None:
    result = run("explain", shared(*COMPOSITE), "--keys", shared(*KEYS), "--json")
    report = json.loads(result.output)
    assert report["verdict"] == "verified"
    first = report["messages"][0]
    assert list(first) == [
        "file",
        "action",
        "verdict",
        "signed",
        "encrypted",
        "sequence",
        "problems",
        "warnings",
    ]
    assert first["file"] == "01-request.xml"
    assert "wsse:UsernameToken" in first["encrypted"]
    assert report["messages"][4]["sequence"]["number"] == 1


@pytest.mark.row("OP-19")
def test_exit_status_of_explain(tmp_path: Path) -> None:
    folder = shared(*COMPOSITE)
    fault = shared("vectors", "wcf", "fault-unsecured-client")
    cut = tmp_path / "message.xml"
    cut.write_bytes((folder / "01-request.xml").read_bytes()[:2000])
    bad = tmp_path / "keys.json"
    bad.write_text("{")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "01-request.xml").write_bytes(cut.read_bytes())
    assert run("explain", fault).exit_code == 0
    assert run("explain", folder).exit_code == 1  # without keys: unreadable
    assert run("explain", tmp_path / "folder").exit_code == 1
    for arguments in (
        ("explain", cut),
        ("explain", tmp_path / "missing"),
        ("explain", folder, "--keys", bad),
        ("explain", folder, "--keys", tmp_path / "missing"),
        ("explain", folder, "--now", "yesterday"),
        ("explain",),
        ("explain", folder, "--unknown"),
    ):
        assert run(*arguments).exit_code == 2, arguments


@pytest.mark.row("OP-08")
def test_explain_judges_at_a_given_time() -> None:
    arguments = (shared(*COMPOSITE), "--keys", shared(*KEYS), "--json", "--now", "2027-01-01T00:00:00Z")
    report = json.loads(run("explain", *arguments).output)
    (problem,) = report["messages"][0]["problems"]
    assert problem.startswith("the Timestamp has expired: it was created 3430732 seconds before")


@pytest.mark.row("OP-08", "OP-20")
def test_several_key_files_and_paths(tmp_path: Path) -> None:
    folder = shared(*COMPOSITE)
    document = json.loads(shared(*KEYS).read_text())
    pem, users = tmp_path / "service.pem", tmp_path / "users.json"
    pem.write_text("".join((*document["keys"], *document["certificates"])))
    users.write_text(json.dumps({"users": document["users"]}))
    paths = [folder / "01-request.xml", folder / "02-response.xml", folder / "03-request.xml"]
    result = run("explain", *paths, "--keys", pem, "--keys", users)
    assert result.output.splitlines()[0] == "VERIFIED: 3 messages"


@pytest.mark.row("OP-08")
def test_ten_messages_take_less_than_a_second() -> None:
    arguments = ("explain", shared("vectors", "wcf", "ws07-user-nonego-sc-norm"), "--keys", shared(*KEYS))
    process(*arguments)  # what Python compiles once is compiled
    times = []
    for _ in range(3):
        before = processor_seconds()
        assert process(*arguments).returncode == 0
        times.append(processor_seconds() - before)
    assert min(times) < 1.0


@pytest.mark.row("OP-16")
def test_output_that_is_piped_has_no_colours_and_no_breaks() -> None:
    shown = process("explain", shared(*COMPOSITE), "--keys", shared(*KEYS))
    assert "\x1b" not in shown.stdout
    assert "\x1b" not in process("explain", shared(*COMPOSITE), NO_COLOR="1").stdout
    assert max(map(len, shown.stdout.splitlines())) > 100  # a line is a line, however narrow the terminal
    assert shown.stderr == ""


@pytest.mark.row("OP-16")
def test_a_pipe_that_closes_early_is_no_error_message() -> None:
    command = [*CASTILE, "explain", str(shared(*COMPOSITE))]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == ""
    running.wait(30)
    running.stderr.close()


# ---- the group


@pytest.mark.row("OP-16")
def test_version_names_libraries_and_editions() -> None:
    lines = run("--version").output.splitlines()
    assert lines[0].startswith("castile ")
    assert "libxml2" in lines[1]
    assert "OpenSSL" in lines[1]
    assert "WS-RM 1.1" in lines[2]


@pytest.mark.row("OP-16")
def test_help_shows_every_command_with_an_example() -> None:
    assert set(main.commands) >= {"demo", "explain"}
    for name, command in main.commands.items():
        shown = run(name, "--help")
        assert shown.exit_code == 0
        assert f"castile {name}" in shown.output, name
        assert name in run("--help").output
        assert isinstance(command, click.Command)


def test_an_unknown_command_is_wrong_use() -> None:
    assert run("explane").exit_code == 2


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("so not"), 2),
        (PolicyError("so not"), 2),
        (TransportError("so not"), 3),
        (StoreBusy("so not"), 3),
        (FaultReceived(SOAPFault("Sender", "so\nnot"), authenticated=True), 1),
    ],
)
def test_an_error_is_one_line_and_a_status(error: Exception, status: int) -> None:
    group = Group("castile")

    @group.command()
    def fail() -> None:
        raise error

    result = CliRunner().invoke(group, ["fail"])
    assert result.exit_code == status
    assert result.stderr.startswith("castile: ")
    assert result.stderr.count("\n") == 1
    assert "so not" in result.stderr
    assert result.stdout == ""


def test_commands_are_a_mapping_that_loads_late() -> None:
    code = (
        "import sys; from castile.cli import main; print(sorted(main.commands), len(main.commands), "
        "*sorted({'castile.demo', 'castile.explaining', 'rich', 'uvicorn'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert shown.stdout.split("]")[1].split() == [str(len(main.commands))]
    assert (shown.returncode, shown.stderr) == (0, "")
