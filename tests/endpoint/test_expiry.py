"""An expired context serves recovery only, inside its window (F12); the clock is moved."""

from __future__ import annotations

from pathlib import Path

import pytest

import castile
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import FAMILIES, Moved, body, fast, image, kill, until

LIFE = 600.0
SETTINGS = fast(
    token_lifetime=LIFE, token_cache_after_expiry=LIFE, give_up_in_memory=1e6, inactivity_timeout=1e6
)
MOMENTS = {"before its end": LIFE - 5, "after its end": LIFE + 5, "late in the window": 2 * LIFE - 5}


@pytest.mark.row("F11", "F12", "F37", "ST-31", "SC-27", "I11")
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_inside_the_window(pairs: Pairs, tmp_path: Path, family: str, moment: str, restarted: bool) -> None:
    """What was numbered under it gets through under it, what is new under another one."""
    clock = Moved()
    pair = pairs(family, clock=clock, settings=SETTINGS, folder=tmp_path)
    client = pair.client(store=tmp_path / "client.db")
    client.call_raw("urn:test/Echo", body(1))
    pair.network.down = True
    client.send_raw("urn:test/Tell", body(2))
    until(lambda: len(pair.network.sent) > 3)
    if restarted:
        store = image(client._store, tmp_path / "after")
        kill(client)
    clock.seconds = MOMENTS[moment]
    if restarted:
        client = pair.client(store=store)
        pair.restart_service()
    pair.network.down = False
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    assert pair.bodies == [body(1), body(2), body(3)]
    contexts = 2 if restarted or moment != "before its end" else 1
    assert [asked for asked, _ in pair.network.actions].count("RST/SCT") == contexts
    client.close()


@pytest.mark.row("F12", "RM-58", "ST-31", "I6", "I11")
@pytest.mark.parametrize("family", FAMILIES)
def test_outside_the_window(pairs: Pairs, family: str) -> None:
    """Nothing is sent under it any more: the numbers are in doubt, and new work goes on."""
    clock = Moved()
    pair = pairs(family, clock=clock, settings=SETTINGS)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    pair.network.down = True
    client.send_raw("urn:test/Tell", body(2))
    sequence = client.sequence
    until(lambda: len(pair.network.sent) > 3)
    clock.seconds = 2 * LIFE + 5
    pair.network.down = False
    with pytest.raises(castile.InDoubt) as told:
        sequence.wait_until_acknowledged(5)
    assert told.value.numbers == (2,)
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    assert pair.bodies == [body(1), body(3)]
