"""The simulator runs, repeats itself, finds a planted bug; and every planted bug still applies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import planted
from tests.simulation.__main__ import PROJECT


def simulated(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.row("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I9", "I12", "I13", "I18", "ST-34", "ST-47")
def test_worlds_of_tags_keep_every_rule() -> None:
    """The whole run is ``make simulate``; this shows that it works at all."""
    done = simulated("1", "40")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "40 schedules, 0 violations"), done.stdout


@pytest.mark.slow
@pytest.mark.row("I14")
def test_worlds_of_bytes_keep_every_rule() -> None:
    done = simulated("1", "6", "--tier", "B")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "6 schedules, 0 violations"), done.stdout


@pytest.mark.slow
@pytest.mark.row("I19", "N08")
def test_the_same_seed_leaves_the_same_trace() -> None:
    first, second = (simulated("7", "1", "--verbose").stdout for _ in "12")
    assert first == second
    assert "asks PLAINTEXT-0" in first


@pytest.mark.slow
def test_a_planted_bug_is_found() -> None:
    patch = planted.BUGS / "answered-request-runs-again.patch"
    runs, found = planted.hunt(patch, 1, 500, PROJECT / "src")
    assert found.startswith("seed"), f"nothing in {runs} runs: {found}"


def test_forty_bugs_are_planted() -> None:
    assert len(list(planted.BUGS.glob("*.patch"))) >= 40


def test_every_planted_bug_applies(tmp_path: Path) -> None:
    """A patch that doesn't is made anew on the source of today."""
    planted.copy_of(PROJECT / "src", tmp_path)
    patches = sorted(planted.BUGS.glob("*.patch"))
    troubles = {patch.stem: planted.apply(patch, tmp_path, check=True) for patch in patches}
    assert not {name: trouble for name, trouble in troubles.items() if trouble}
