"""What live peers were seen to do, played by a peer of our own making."""

from __future__ import annotations

import threading

import pytest

from castile.transport.http import HTTPResponse
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import action_of, body


@pytest.mark.row("RM-57", "F22")
@pytest.mark.parametrize("gaps", [(2,), (2, 3, 7, 20)])
def test_a_peer_that_answers_nothing_behind_a_gap(pairs: Pairs, gaps: tuple[int, ...]) -> None:
    """Metro holds the exchange of every one-way message open that waits for an earlier one. There
    are more of them than threads; the repetition of what is missing goes out all the same."""
    pair = pairs()
    lost, came = set(gaps), set[int]()
    arrived = threading.Condition()

    def number_of(payload: bytes) -> int:
        found = pair.opened(payload).reliability.sequence if action_of(payload) == "Tell" else None
        return found.number if found else 0

    def fate(exchange: int, payload: bytes) -> str | None:
        number = number_of(payload)
        if number in lost:
            lost.discard(number)
            return "drop-request"
        return None

    def hold(request: bytes, response: HTTPResponse) -> HTTPResponse:
        if number := number_of(request):
            with arrived:
                came.add(number)
                arrived.notify_all()
                arrived.wait_for(lambda: came >= set(range(1, number)), 15)
        return response

    pair.network.fate, pair.network.answer = fate, hold
    client = pair.client()
    for number in range(1, 41):
        client.send_raw("urn:test/Tell", body(number))
    assert client.sequence.wait_until_acknowledged(8)
    assert pair.settled(40) == [body(number) for number in range(1, 41)]
