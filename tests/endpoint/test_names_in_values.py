"""A body whose values are qualified names: their prefixes may be declared on the Envelope only, and
whoever gets the body's bytes can still tell what they stand for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import castile
from castile import xml
from castile.config import Limits
from castile.endpoint import inbound
from castile.versions import SOAP_1_2, WSA_1_0
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import key_of
from tests.endpoint.pair import FAMILIES, action_of, kill, opened, until

TYPED = (
    b'<order xmlns:kinds="urn:kinds" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    b' xsi:type="kinds:express"></order>'
)
PLAIN = castile.EndpointPolicy(SOAP_1_2, WSA_1_0, None, None, None, None, None)


def envelope_only(payload: bytes) -> bool:
    """The prefix is declared on the Envelope and nowhere else, so far as it can be read."""
    return payload.count(b"xmlns:kinds=") == 1 and b"xmlns:kinds=" in payload[: payload.index(b">")]


@pytest.mark.parametrize("policy", [*FAMILIES, PLAIN], ids=[*FAMILIES, "plain"])
def test_a_handler_and_a_client_read_them(pairs: Pairs, policy: str | castile.EndpointPolicy) -> None:
    pair = pairs(policy)
    client = pair.client()
    assert client.call_raw("urn:test/Echo", TYPED) == TYPED
    assert pair.bodies == [TYPED]
    exchange = pair.network.requests("Echo")[0]
    assert envelope_only(exchange.request)
    assert envelope_only(exchange.response)


@pytest.mark.row("F37")
@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_stored(pairs: Pairs, tmp_path: Path, family: str) -> None:
    """A message that was held for an earlier one, and a reply that comes after a restart."""
    pair = pairs(family)

    def fate(number: int, payload: bytes) -> str | None:
        return "drop-response" if action_of(payload) == "Echo" else None

    first = pair.client(store=tmp_path / "client.db")
    pair.network.fate = fate
    key = "order-1"
    with pytest.raises(castile.CastileError):
        first.call_raw("urn:test/Echo", TYPED, key=key, timeout=0.3)
    kill(first)
    pair.network.fate = lambda number, payload: None
    second = pair.client(store=tmp_path / "client.db")
    assert second.call_raw("urn:test/Echo", TYPED, key=key) == TYPED
    assert set(pair.bodies) == {TYPED}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_held_message(pairs: Pairs, family: str) -> None:
    pair = pairs(family)
    client = pair.client()
    client.send_raw("urn:test/Tell", TYPED)
    late = iter(["late"])

    def fate(number: int, payload: bytes) -> str | None:
        return next(late, None) if action_of(payload) == "Tell" else None

    pair.network.fate = fate
    client.send_raw("urn:test/Tell", TYPED.replace(b"express", b"first"))
    client.send_raw("urn:test/Tell", TYPED.replace(b"express", b"second"))
    until(lambda: len(pair.bodies) == 3)
    names = [re.findall(rb'"kinds:(\w+)"', content) for content in pair.bodies]
    assert names == [[b"express"], [b"first"], [b"second"]]
    assert all(b' xmlns:kinds="urn:kinds"' in content for content in pair.bodies)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_default_namespace_around_changes_nothing(pairs: Pairs, family: str) -> None:
    """Nor does it hide the declarations that stand beside it; and the digest is of what was signed."""
    pair = pairs(family)
    client = pair.client()
    client.call_raw("urn:test/Echo", TYPED)
    payload = pair.network.requests("Echo")[0].request
    changed = payload.replace(b"<s:Envelope ", b'<s:Envelope xmlns="urn:evil" ', 1)
    found = inbound.read(pair.party, changed, pair.party.now(), request=True)
    assert found.content == TYPED
    assert b"xmlns:kinds" not in found.verified.body_content
    answer = opened(client, pair.network.requests("Echo")[0].response)
    assert answer.content == TYPED
    assert xml.parse(answer.content, Limits()).nsmap["kinds"] == "urn:kinds"
    assert key_of(client).identifier == found.verified.primary.name
