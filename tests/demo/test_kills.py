"""300 real kills of clients, services and one of two processes of a service, while the network
loses, doubles and reorders."""

from __future__ import annotations

import os

import pytest

from tests.kills.__main__ import INSIDE, VIOLATIONS, kill


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.row("F11", "F21", "F37", "N11", "RM-122", "ST-06", "ST-32", "ST-33")
def test_three_hundred_kills() -> None:
    total = kill(300, seed=61, pairs=2 * (os.cpu_count() or 1))
    assert total["failed"] == 0
    assert total["kills"] == 300
    assert total["kills_in_exchange"] >= INSIDE * 300
    assert total["kills_beside"] >= 80, "kills of one of two processes of the service"
    assert {name: total[name] for name in VIOLATIONS} == dict.fromkeys(VIOLATIONS, 0)
    assert total["sent"] == total["delivered"]
