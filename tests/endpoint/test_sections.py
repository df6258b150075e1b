"""F19: what is asked of the trust service under the wrong section of the policy is refused.

Issue and renew go under the bootstrap's, cancel and all of the application's under its own. A
policy can't be configured otherwise: which kind has which section is one function, not a setting.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

import castile
from castile.clock import system
from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Key, Outgoing, prepare
from castile.endpoint.party import Party
from castile.messages import trust
from castile.messages.security import SecurityTokenReference
from castile.security.keys import ContextKey
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import key_of
from tests.endpoint.pair import ADDRESS, BODY, FAMILIES, Pair, fault_of

BOOTSTRAP, APPLICATION = "bootstrap", "application"
RIGHT = {
    Kind.ISSUE: BOOTSTRAP,
    Kind.RENEW: BOOTSTRAP,
    Kind.CANCEL: APPLICATION,
    Kind.APPLICATION: APPLICATION,
}


def asked(policy: castile.EndpointPolicy, kind: Kind, key: ContextKey) -> tuple[str, bytes]:
    """Action and Body of a request that is as it should be."""
    assert policy.trust is not None
    assert policy.conversation is not None
    if kind is Kind.APPLICATION:
        return "urn:test/Echo", BODY
    token = policy.conversation.token_type
    target = SecurityTokenReference(uri=key.identifier, value_type=token, instance=key.instance)
    request = trust.RequestSecurityToken(
        kind.value.rpartition("/")[2] if kind is not Kind.ISSUE else "Issue",
        token_type=None if kind is Kind.CANCEL else token,
        key_size=None if kind is Kind.CANCEL else 256,
        entropy=None if kind is Kind.CANCEL else os.urandom(32),
        renew_target=target if kind is Kind.RENEW else None,
        cancel_target=target if kind is Kind.CANCEL else None,
    )
    return policy.trust.action(kind.value), request.render(policy.trust)


def message(pair: Pair, kind: Kind, section: str, key: ContextKey) -> bytes:
    """It, under this section's protection, by whoever has every key."""
    known, policy = pair.clients[0]._party, pair.policy
    right = RIGHT[kind] == section
    assert policy.bootstrap is not None
    swapped = replace(policy, bootstrap=policy.application, application=policy.bootstrap)
    if kind is Kind.RENEW:  # a context's key may sign a renewal, but not without a credential (SC-22)
        swapped = replace(policy, bootstrap=replace(policy.bootstrap, supporting=()))
    party = Party(
        "client",
        ADDRESS,
        policy if right else swapped,
        known.store,
        os.urandom,
        certificate=known.certificate,
        username=known.username,
    )
    action, body = asked(policy, kind, key)
    sealed: Key | None = known.certificate if section == BOOTSTRAP else key
    outgoing = Outgoing(
        kind,
        action,
        body,
        message_id=party.new_id(),
        reply_expected=True,
        key=sealed,
        endorsing=key if kind is Kind.RENEW and section == BOOTSTRAP else None,
    )
    return prepare(party, outgoing, system()).payload


@pytest.mark.row("F19", "F02")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("section", [BOOTSTRAP, APPLICATION])
@pytest.mark.parametrize("kind", RIGHT, ids=lambda kind: kind.name)
def test_the_matrix(pairs: Pairs, family: str, kind: Kind, section: str) -> None:
    pair = pairs(castile.EndpointPolicy.of(family, reliable=False))
    client = pair.client()
    client.call_raw("urn:test/Echo", BODY)
    key, before = key_of(client), len(pair.received)
    payload = message(pair, kind, section, key)
    answer = pair.network.deliver(payload)
    if RIGHT[kind] == section:
        assert answer.status == 200
        return
    assert answer.status == 500
    assert fault_of(answer.body)
    assert len(pair.received) == before
    client.call_raw("urn:test/Echo", BODY)  # the context is as it was
