"""Expiry and renewal at every step of a sequence's life, in both directions, on a moved clock.

At each exchange in turn, while its request or its answer is under way, the token becomes due for
renewal or ends. No number is left out, nothing is delivered twice or out of order, and no key is
used outside its life.
"""

from __future__ import annotations

from typing import Any, Literal

import pytest

from castile.pump import Pump
from castile.store.records import OutboxRow
from tests.endpoint.conftest import Pairs
from tests.endpoint.lives import DUE, EXCHANGES, OVER, Judge, Moved, Watched, converse, settings
from tests.endpoint.pair import FAMILIES, body

Moment = Literal["request", "response"]


def life(
    pairs: Pairs, family: str, exchange: int, moment: Moment, seconds: float, *, after_expiry: bool = False
) -> Watched:
    """One life with one jump of the clock."""
    clock = Moved()
    pair = pairs(family, clock=clock, settings=settings(after_expiry=after_expiry))
    network = Watched(pair)

    def jump(number: int) -> None:
        if number == exchange:
            clock.seconds += seconds

    if moment == "request":
        network.before = jump
    else:
        network.after = jump
    replies = converse(pair.client(http=network))
    assert replies == [body(2), body(4)], exchange
    assert pair.bodies == [body(number) for number in range(1, 5)], exchange
    assert {principal for principal, _, _ in pair.received} == {"ada"}
    Judge(pair, network)()
    return network


@pytest.mark.row("CO-12", "CO-20", "F13", "SC-23", "SC-25", "I1", "I2", "I7")
@pytest.mark.parametrize("moment", ["request", "response"])
@pytest.mark.parametrize("family", FAMILIES)
def test_renewal_at_every_step(pairs: Pairs, family: str, moment: Moment) -> None:
    """One sequence under one context: the renewal shows in nothing but the key."""
    for exchange in range(1, EXCHANGES + 1):
        network = life(pairs, family, exchange, moment, DUE)
        assert network.count("RST/SCT") == network.count("CreateSequence") == 1
        renewals = network.count("RST/SCT/Renew")
        if moment == "request" and exchange == 1:
            assert renewals == 0  # the token was made after the jump
        elif exchange < 6:
            assert renewals == 1, exchange
        else:  # what ends may end before
            assert renewals <= 1, exchange


@pytest.mark.row("F12", "SC-28", "SC-43", "I1", "I2", "I7")
@pytest.mark.parametrize("moment", ["request", "response"])
@pytest.mark.parametrize("family", FAMILIES)
def test_expiry_at_every_step(pairs: Pairs, family: str, moment: Moment) -> None:
    """What was numbered is recovered under the expired token; what is new goes under a new one."""
    for exchange in range(1 if moment == "request" else 2, EXCHANGES + 1):
        network = life(pairs, family, exchange, moment, OVER)
        assert network.count("RST/SCT") <= 2


@pytest.mark.row("F12", "I11")
@pytest.mark.parametrize("family", FAMILIES)
def test_expiry_between_the_commit_and_the_attempt(
    pairs: Pairs, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit may take long: what was numbered before the end leaves as what it is by then."""
    clock = Moved()
    pair = pairs(family, clock=clock, settings=settings())
    network = Watched(pair)
    client = pair.client(http=network)
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    attempt, jumps = Pump._attempt, [OVER]

    async def late(self: Pump, row: OutboxRow, *rest: Any) -> None:
        if row.kind == "application" and jumps:
            clock.seconds += jumps.pop()
        await attempt(self, row, *rest)

    monkeypatch.setattr(Pump, "_attempt", late)
    assert client.call_raw("urn:test/Echo", body(2)) == body(2)
    client.close()
    assert not jumps
    Judge(pair, network)()
    assert network.count("RST/SCT/Renew") == 0


@pytest.mark.row("F14", "I1", "I2", "I7")
@pytest.mark.parametrize("moment", ["request", "response"])
@pytest.mark.parametrize("family", FAMILIES)
def test_renewal_after_expiry_at_every_step(pairs: Pairs, family: str, moment: Moment) -> None:
    """Where both sides allow it the sequence goes on under its context."""
    for exchange in range(1 if moment == "request" else 2, EXCHANGES + 1):
        network = life(pairs, family, exchange, moment, OVER, after_expiry=True)
        assert network.count("RST/SCT") == 1 or exchange == 1, exchange
