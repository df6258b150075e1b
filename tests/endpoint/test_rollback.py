"""An older copy of a store is put back: nothing is lost or repeated without a word (N10)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import castile
from castile.protocol.source import Phase
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import FAMILIES, body, until


def copy(place: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for path in place.parent.glob(f"{place.name}*"):
        if path.name.removeprefix(place.name) in ("", "-wal"):
            shutil.copy(path, folder / path.name)


def put_back(place: Path, folder: Path) -> None:
    for end in ("", "-wal", "-shm"):
        place.with_name(place.name + end).unlink(missing_ok=True)
    for path in folder.iterdir():
        shutil.copy(path, place.parent / path.name)


@pytest.mark.row("N10")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_clients_store(pairs: Pairs, tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture) -> None:
    pair = pairs(family)
    store = tmp_path / "client.db"
    client = pair.client(store=store)
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    pair.network.down = True
    client.send_raw("urn:test/Tell", body(2), key="tell-2")
    client._store.run(lambda tx: copy(store, tmp_path / "backup")).result()
    pair.network.down = False
    client.send_raw("urn:test/Tell", body(3))
    until(lambda: len(pair.received) == 3)
    client.close()
    put_back(store, tmp_path / "backup")
    pair.network.log.clear()
    again = pair.client(store=store)
    assert "was rolled back to an older copy" in caplog.text
    assert "any after 2" in caplog.text
    [left] = again.unfinished()
    assert (left.number, left.key) == (2, "tell-2")
    with pytest.raises(castile.InDoubt, match="messages after number 2 isn't known") as doubt:
        again.send_raw("urn:test/Tell", body(2), key="tell-2")
    assert doubt.value.numbers == (2,)
    assert again.call_raw("urn:test/Echo", body(4)) == body(4)
    again.close()
    assert sorted(pair.bodies) == [body(number) for number in range(1, 5)]  # nothing came twice
    asked = [exchange.asked for exchange in pair.network.log]
    assert asked[:3] == ["RST/SCT", "CreateSequence", "Echo"]
    [failed] = [
        record
        for record in pair.client(store=store)._store.run(lambda tx: tx.sources()).result()
        if record.state.phase is Phase.FAILED
    ]
    assert failed.state.highest == 2


@pytest.mark.row("N10")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_services_store(
    pairs: Pairs, tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its clients are told; what had been accepted at the time isn't run again."""
    pair = pairs(family, folder=tmp_path)
    client = pair.client()
    for number in (1, 2):
        assert client.call_raw("urn:test/Echo", body(number)) == body(number)
    pair.party.store.run(lambda tx: copy(pair.store_file, tmp_path / "backup")).result()
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    pair.loop.run(pair.service.stop())
    put_back(pair.store_file, tmp_path / "backup")
    pair.start_service()
    assert "was rolled back to an older copy" in caplog.text
    assert pair.party.store.run(lambda tx: tx.contexts()).result() == []
    assert pair.party.store.run(lambda tx: tx.destinations(unfinished=True)).result() == []
    with pytest.raises(castile.CastileError, match="BadContextToken"):
        client.call_raw("urn:test/Echo", body(4), timeout=2.0)
    assert client.call_raw("urn:test/Echo", body(5)) == body(5)  # in a new context and sequence
    assert pair.bodies == [body(number) for number in (1, 2, 3, 5)]
