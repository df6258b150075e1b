"""Keys derived from a context's secret, fresh in each message or the same for its life (SC-15)."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import castile
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import key_of
from tests.endpoint.pair import FAMILIES, body


@pytest.mark.row("F03", "F04", "SC-07", "SC-15")
@pytest.mark.parametrize("family", FAMILIES)
def test_both_sides_have_one_secret_and_no_nonce_comes_twice(pairs: Pairs, family: str) -> None:
    pair = pairs(family)
    client = pair.client()
    for number in range(3):
        client.call_raw("urn:test/Echo", body(number))
    (theirs,) = pair.party.store.run(lambda tx: tx.contexts()).result()
    ours = key_of(client)
    assert theirs.state.current.secret == ours.secret
    assert (len(ours.secret), theirs.state.identifier, theirs.principal) == (32, ours.identifier, "ada")
    nonces = [
        nonce
        for exchange in pair.network.log
        for payload in (exchange.request, exchange.response)
        for nonce in re.findall(rb"Nonce>([^<]+)<", payload)
    ]
    assert len(nonces) == len(set(nonces)) == 2 * 2 + 2 + 3 * 4  # RST, CreateSequence, three calls


@pytest.mark.row("SC-15")
@pytest.mark.parametrize("family", FAMILIES)
def test_derived_keys_may_be_reused_for_the_life_of_a_key(pairs: Pairs, family: str) -> None:
    """Four tokens, one a purpose and direction, as WCF does; a renewed key has four others."""
    policy = castile.EndpointPolicy.of(family)
    assert policy.application is not None
    pair = pairs(replace(policy, application=replace(policy.application, reuse_derived_keys=True)))
    client = pair.client()

    def nonces() -> set[bytes]:
        pair.network.log.clear()
        for number in range(3):
            assert client.call_raw("urn:test/Echo", body(number)) == body(number)
        found = [
            nonce
            for exchange in pair.network.requests("Echo")
            for payload in (exchange.request, exchange.response)
            for nonce in re.findall(rb"Nonce>([^<]+)<", payload)
        ]
        assert len(found) == 3 * 4
        return set(found)

    first = nonces()
    assert client.context is not None
    client.context.renew()
    second = nonces()
    assert (len(first), len(second), first & second) == (4, 4, set())
