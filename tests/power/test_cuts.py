"""The power is cut at every write of each scenario: what was promised is there, and work goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.power.judge import STORES, Judge
from tests.power.resume import lives
from tests.power.trace import recorded

SCENARIOS = (
    "1-one-way",
    "2-offer",
    "5-bootstrap",
    "6-renewal",
    "7-expiry",
    "8-gap",
    "9-cancel",
    "10-window",
    "11-last-message",
    "12-take-over",
)
SEED = 1


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.row("ST-05", "ST-07", "I1", "I2", "I3", "I7")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_promised_is_lost(tmp_path: Path, scenario: str) -> None:
    trace = recorded(scenario)
    for store in STORES:
        verdict = Judge(trace, store)(SEED)
        assert verdict.wrong == []
        assert verdict.lost == 0
        assert verdict.commits > 8
        assert verdict.promises > 4
        assert verdict.images > 500
    for number, life in enumerate(lives(trace, SEED, 2)):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        assert life(folder) == [], (life.at, life.victims)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.row("ST-05", "ST-07")
@pytest.mark.parametrize("scenario", ["2-offer", "12-take-over"])
def test_normal_may_lose_the_last_commits_and_breaks_nothing(scenario: str) -> None:
    """Every store is at a state that some commit made, whole; that some are older shows what
    ``durability="normal"`` gives away."""
    trace = recorded(scenario, "normal")
    verdicts = [Judge(trace, store)(SEED, lossy=True) for store in STORES]
    assert [verdict.wrong for verdict in verdicts] == [[], []]
    assert all(verdict.lost > 0 for verdict in verdicts)


@pytest.mark.timeout(300)
@pytest.mark.row("ST-05", "ST-07")
def test_off_is_found_to_lose(tmp_path: Path) -> None:
    """What ``durability="off"`` is documented to lose, and that the judge would see it."""
    wrong = Judge(recorded("1-one-way", "off"), "service.db")(SEED, 4).wrong
    assert any("had returned, and the store is at" in text for text in wrong)


@pytest.mark.timeout(300)
@pytest.mark.row("ST-07", "I3")
def test_an_acknowledgement_before_its_commit_is_found() -> None:
    wrong = Judge(recorded("1-one-way", fault="early"), "service.db")(SEED, 4).wrong
    assert any("was promised, and the store is at" in text for text in wrong)
