"""60 real kills, client and service in turn, while the network loses, doubles and reorders."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.demo.runs import demo


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.row("F11", "F21", "F37", "N11", "RM-122", "ST-32", "ST-33")
@pytest.mark.parametrize(("edition", "seed"), [("1.3", "61"), ("2005", "62")])
def test_thirty_kills(tmp_path: Path, edition: str, seed: str) -> None:
    run = demo(
        tmp_path,
        *("--edition", edition, "--seed", seed, "--messages", "150", "--kills", "30"),
        *("--drop", "0.05", "--duplicate", "0.1", "--reorder"),
        keep=True,
        seconds=290,
    )
    assert run.status == 0, f"{run.errors}\n{run.output[-3000:]}"
    counts = run.counts
    assert counts["kills"] == 30
    assert isinstance(counts["kills_in_exchange"], int)
    assert counts["kills_in_exchange"] >= 9  # 30 %
    violations = {name: counts[name] for name in ("lost", "duplicated", "out_of_order", "unanswered")}
    assert violations == dict.fromkeys(violations, 0)
    assert counts["sent"] == counts["delivered"] == 150
