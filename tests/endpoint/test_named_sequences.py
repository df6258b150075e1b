"""Several sequences to one endpoint, by names of the application's own."""

from __future__ import annotations

from pathlib import Path

import pytest

import castile
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import FAMILIES, body, fast, until
from tests.power.promises import numbered

pytestmark = pytest.mark.row("RM-133")


def identifier(sequence: object) -> str:
    return str(sequence.report()["identifier"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_name_has_a_sequence_of_its_own(pairs: Pairs, family: str) -> None:
    pair = pairs(family)
    client = pair.client()
    orders, prices = client.sequence_for("orders"), client.sequence_for("prices")
    with pytest.raises(castile.errors.SequenceUnknown):
        orders.report()
    assert orders.call_raw("urn:test/Echo", body(1)) == body(1)
    assert client.call_raw("urn:test/Echo", body(2)) == body(2)
    prices.send_raw("urn:test/Tell", body(3))
    client.sequence_for("orders").send_raw("urn:test/Tell", body(4))
    for sequence in (orders, prices, client.sequence):
        assert sequence.wait_until_acknowledged(10)
    names = {identifier(each) for each in (orders, prices, client.sequence)}
    assert len(names) == 3
    assert [orders.report()["highest"], prices.report()["highest"]] == [2, 1]
    assert len(pair.network.requests("RST/SCT")) == 1  # all under one security context
    assert prices.wait_until_completed(10)
    prices.send_raw("urn:test/Tell", body(5))  # in a new one, by the same name
    assert identifier(prices) not in names
    client.close()
    assert len(pair.network.requests("TerminateSequence")) >= 4
    assert sorted(pair.bodies) == [body(number) for number in range(1, 6)]


def test_one_that_is_stuck_holds_up_no_other(pairs: Pairs) -> None:
    pair = pairs()
    client = pair.client()
    slow = client.sequence_for("slow")
    slow.send_raw("urn:test/Tell", body(1))
    assert slow.wait_until_acknowledged(10)
    stuck = identifier(slow)
    pair.network.fate = lambda _, payload: (
        "drop-request" if (numbered(payload) or ("",))[0] == stuck else None
    )
    slow.send_raw("urn:test/Tell", body(2))
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    assert not slow.wait_until_acknowledged(0.1)
    pair.network.fate = lambda _, payload: None
    client.close()
    assert sorted(pair.bodies) == [body(1), body(2), body(3)]


def test_the_name_is_the_same_after_a_restart(pairs: Pairs, tmp_path: Path) -> None:
    """What was left in it comes first, and what is new has the next sequence of this name."""
    pair = pairs(settings=fast(close_timeout=0.1))
    client = pair.client(store=tmp_path / "client.db")
    orders = client.sequence_for("orders")
    assert orders.call_raw("urn:test/Echo", body(1)) == body(1)
    first = identifier(orders)
    pair.network.down = True
    orders.send_raw("urn:test/Tell", body(2))
    client.close(keep=True)
    pair.network.down = False
    client = pair.client(store=tmp_path / "client.db", settings=pair.settings)
    orders = client.sequence_for("orders")
    assert orders.call_raw("urn:test/Echo", body(3)) == body(3)
    assert identifier(orders) != first
    assert pair.bodies == [body(1), body(2), body(3)]
    records = client._store.run(lambda tx: tx.sources()).result(10)
    assert [record.name for record in records] == ["orders", "orders"]
    until(lambda: not client.unfinished())
    client.close()
