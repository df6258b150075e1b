"""A run that hangs, or whose process fails, ends, and says what hangs."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from castile.demo import director
from castile.demo.command import demo
from castile.demo.plan import Plan


def run(tmp_path: Path, *options: str) -> Result:
    folder = tmp_path / "kept"
    options = ("--messages", "4", "--kill", "none", "--seed", "1", "--keep", str(folder), *options)
    return CliRunner().invoke(demo, options)


def test_a_silent_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(director.MODULES, "client", "tests.demo.silent")
    monkeypatch.setattr(director, "STILL_SECONDS", 2.0)
    result = run(tmp_path)
    assert result.exit_code == 3
    assert "nothing has happened for 2 seconds" in result.stderr
    assert "0 of 4 calls are answered" in result.stderr
    assert "the client runs and was never ready" in result.stderr


def test_a_run_that_takes_too_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(director.MODULES, "service", "tests.demo.silent")
    monkeypatch.setattr(Plan, "seconds", 3.0)
    result = run(tmp_path)
    assert result.exit_code == 3
    assert "it isn't done after 3 seconds" in result.stderr


def test_a_process_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(director.MODULES, "service", "castile.nothing_of_this_name")
    result = run(tmp_path)
    assert result.exit_code == 3
    assert "the service ended by itself with status 1" in result.stderr
    assert "castile.nothing_of_this_name" in (tmp_path / "kept" / "demo.log").read_text("utf-8")
