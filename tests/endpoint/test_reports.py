"""What a sequence says of itself, and waiting for it (features 4.10)."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

import castile
from castile.config import Settings, Timers
from castile.endpoint.reports import report
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import FAMILIES, body

FIELDS: dict[str, type | tuple[type, ...]] = {
    "direction": str,
    "side": str,
    "state": str,
    "reason": (str, type(None)),
    "identifier": (str, type(None)),
    "peer": str,
    "edition": str,
    "secure": bool,
    "context": (str, type(None)),
    "created": (str, type(None)),
    "ended": (str, type(None)),
    "highest": int,
    "acknowledged": list,
    "missing": list,
    "depth": int,
    "last_error": (str, type(None)),
    "next_attempt": (str, type(None)),
}
"""What every report has (RM-132)."""


def checked(shown: dict[str, object]) -> dict[str, object]:
    """The report, if it has the form of all reports."""
    assert json.loads(json.dumps(shown)) == shown
    for name, kind in FIELDS.items():
        assert isinstance(shown[name], kind), name
    for name in ("created", "ended", "next_attempt", "last_error_at"):
        if shown.get(name) is not None:
            assert datetime.fromisoformat(str(shown[name])).tzinfo is not None
    return shown


@pytest.mark.row("RM-132")
@pytest.mark.parametrize("family", FAMILIES)
def test_both_ends_report_alike(pairs: Pairs, family: str) -> None:
    pair = pairs(family)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    mine = checked(client.sequence.report())
    assert (mine["direction"], mine["side"], mine["state"]) == ("out", "client", "open")
    assert (mine["highest"], mine["acknowledged"], mine["missing"]) == (1, [[1, 1]], [])

    def theirs() -> dict[str, object]:
        return pair.party.store.run(lambda tx: report(tx, tx.destinations()[0])).result()

    there = checked(theirs())
    assert (there["direction"], there["side"], there["identifier"]) == ("in", "service", mine["identifier"])
    assert there["context"] == mine["context"] is not None
    client.close()
    assert checked(theirs())["state"] == "terminated"


@pytest.mark.row("RM-132")
def test_a_report_names_the_last_error_and_the_next_attempt(pairs: Pairs) -> None:
    pair = pairs(settings=Settings(timers=Timers(retransmit_interval=30.0)))
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    pair.network.down = True
    with pytest.raises(castile.InDoubt):
        client.call_raw("urn:test/Echo", body(2), timeout=0.3)
    shown = checked(client.sequence.report())
    assert (shown["missing"], shown["depth"]) == ([[2, 2]], 1)
    assert "lost" in str(shown["last_error"])
    failed, again = (datetime.fromisoformat(str(shown[name])) for name in ("last_error_at", "next_attempt"))
    assert 20 < (again - failed).total_seconds() < 40
    client.close(keep=True)


@pytest.mark.row("RM-130")
@pytest.mark.parametrize("family", FAMILIES)
def test_waiting_until_completed(pairs: Pairs, family: str) -> None:
    """True: terminated, and nothing is left in the store but that it was. False: nothing changed."""
    pair = pairs(family)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    pair.network.down = True
    client.send_raw("urn:test/Tell", body(2))
    before = client.sequence.report()
    assert client.sequence.wait_until_completed(0.3) is False
    after = client.sequence.report()
    assert (after["state"], after["highest"], after["missing"]) == ("open", before["highest"], [[2, 2]])
    pair.network.down = False
    assert client.sequence.wait_until_completed(20) is True
    shown = client.sequence.report()
    assert (shown["state"], shown["missing"], shown["depth"]) == ("terminated", [], 0)
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)  # in a new sequence
    assert pair.bodies == [body(1), body(2), body(3)]
