"""Possession at a renewal: an answer under any key but that of its own request changes nothing."""

from __future__ import annotations

import pytest

import castile
from castile.endpoint.kinds import Kind
from castile.messages import trust
from castile.messages.conversation import SecurityContextToken
from castile.messages.security import SecurityTokenReference
from castile.security.keys import ContextKey
from castile.transport.http import HTTPRequest, HTTPResponse
from castile.versions import SOAP_1_1, SOAP_1_2, SOAPVersion
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import OTHER, Forger, key_of, planted
from tests.endpoint.pair import FAMILIES, Pair, action_of, body, states


def forged(pair: Pair, forge: Forger, request: bytes, identifier: str) -> bytes:
    """An answer that would give the client a key of the attacker's."""
    conversation, trusted = pair.policy.conversation, pair.policy.trust
    assert conversation is not None
    assert trusted is not None
    token = SecurityContextToken(identifier, "urn:uuid:evil", "uuid-evil-1")
    response = trust.RequestSecurityTokenResponse(
        conversation.token_type,
        SecurityContextToken(identifier, "urn:uuid:evil", "uuid-evil-1", token.render(conversation)),
        SecurityTokenReference(uri="#uuid-evil-1", value_type=conversation.token_type),
        SecurityTokenReference(uri=identifier, value_type=conversation.token_type),
        proof_secret=bytes(32),
        created=1_800_000_000.0,
        expires=2_800_000_000.0,
        key_size=256,
    )
    asked = pair.opened(request).addressing.message_id
    return forge(Kind.RENEW_RESPONSE, response.render(trusted), relates_to=asked)


@pytest.mark.row("F08", "SC-22", "SC-08", "CO-13")
@pytest.mark.parametrize("version", [SOAP_1_2, SOAP_1_1], ids=lambda version: version.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_forged_answers_to_a_renewal(pairs: Pairs, family: str, version: SOAPVersion) -> None:
    pair = pairs(castile.EndpointPolicy.of(family, soap=version))
    client = pair.client()
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    assert client.context is not None
    identifier, realm = client.context.identifier, client._party.realm

    def plant(endpoint: str, *, ended: bool = False) -> ContextKey:
        return planted(client._store, pair.policy, "client", endpoint, ended=ended)

    keys: dict[str, ContextKey | None] = {
        "none": None,
        "other principal": plant(realm),
        "other service": plant(OTHER),
        "cancelled": plant(realm, ended=True),
        "the old key alone": key_of(client),
    }
    post, asked = pair.network.post, 0
    for where, key in keys.items():
        forge = Forger(pair.policy, client._store, key, "service")

        def answer(request: HTTPRequest, timeout: float, forge: Forger = forge) -> HTTPResponse:
            nonlocal asked
            if action_of(request.body) != "RST/SCT/Renew":
                return post(request, timeout)
            asked += 1
            payload = forged(pair, forge, request.body, identifier)
            return HTTPResponse(200, payload, pair.policy.soap.content_type)

        pair.network.post = answer  # type: ignore[method-assign]
        before = states(client._store)
        with pytest.raises(castile.CastileError):
            client.context.renew()
        assert states(client._store) == before, where
    assert asked >= len(keys)
    pair.network.post = post  # type: ignore[method-assign]
    assert client.call_raw("urn:test/Echo", body(2)) == body(2)
    client.context.renew()
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    client.close()
    assert pair.bodies == [body(1), body(2), body(3)]
