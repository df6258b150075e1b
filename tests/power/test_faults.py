"""A disk that is full, fails or is locked: told by name, nothing promised is lost, work goes on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.power.trace import PROJECT

KINDS = ("full", "sync", "truncate", "read", "size", "busy", "any")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.row("ST-06", "ST-08")
@pytest.mark.parametrize("kind", KINDS)
def test_every_nth_call_fails_once_and_for_ever(kind: str) -> None:
    """n rises until a run is clean; see `tests.power.faults`."""
    command = [sys.executable, "-m", "tests.power.faults", kind]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert found["runs"] >= 4
