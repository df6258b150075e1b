"""New work that waits behind what an earlier process left goes on, also when the disk is full."""

from __future__ import annotations

from pathlib import Path

import pytest

from castile.errors import StoreFull
from castile.retired import Retired
from castile.store import Transaction
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import body, fast


@pytest.mark.row("I6", "I18", "F37")
def test_a_full_disk_delays_what_waits_and_no_more(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pairs("1.3", settings=fast())
    first = pair.client(store=tmp_path / "client.db")
    assert first.call_raw("urn:test/Echo", body(1)) == body(1)
    pair.network.down = True
    first.send_raw("urn:test/Tell", body(2))
    first.close(keep=True)
    release, failures = Retired._release, [StoreFull("the disk is full")]

    def full(self: Retired, tx: Transaction) -> None:
        if failures:
            raise failures.pop()
        release(self, tx)

    monkeypatch.setattr(Retired, "_release", full)
    second = pair.client(store=tmp_path / "client.db")
    second.send_raw("urn:test/Tell", body(3))
    pair.network.down = False
    assert second.sequence.wait_until_acknowledged(30)
    assert not failures
    assert pair.bodies == [body(1), body(2), body(3)]
