"""A flood of requests for contexts, beside clients who have theirs (features SC-34)."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import action_of, body, fault_of
from tests.endpoint.test_bad_input import bootstrap

GOOD, ATTACKS, CAP = 10, 1_000, 64


@pytest.mark.row("SC-34", "TR-60")
def test_a_thousand_attackers_and_ten_good_clients(pairs: Pairs) -> None:
    """Half of them have a password, and get as many contexts as one principal may have; who has
    none gets nothing. Every call of the others is answered meanwhile, also a newcomer's."""
    pair = pairs()
    good = [pair.client() for _ in range(GOOD - 1)]
    for number, client in enumerate(good):
        assert client.call_raw("urn:test/Echo", body(number)) == body(number)
    answers: Counter[str] = Counter()
    for number in range(ATTACKS):
        password = "mallory-secret" if number % 2 else "wrong"
        answer = pair.receive(bootstrap(pair, "mallory", password))
        answers[action_of(answer.body) if answer.status == 200 else fault_of(answer.body)] += 1
        if number % 100 == 50:
            client = good[number // 100 % len(good)]
            assert client.call_raw("urn:test/Echo", body(number)) == body(number)
        if number == ATTACKS // 2:
            good.append(pair.client())
    assert answers == {"RSTR/SCT": CAP, "RequestFailed": ATTACKS // 2 - CAP, "FailedAuthentication": 500}
    for client in good:
        assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    held = pair.party.store.run(lambda tx: tx.count_contexts("service")).result()
    assert held == CAP + GOOD
