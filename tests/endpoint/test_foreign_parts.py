"""Parts that are true somewhere else: headers of other messages, tokens and addresses of others."""

from __future__ import annotations

import itertools

import pytest

import castile
from castile import xml
from castile.config import Limits
from castile.endpoint import inbound
from castile.endpoint.kinds import Kind
from castile.messages import reliability
from castile.messages.addressing import EPR
from castile.messages.security import SecurityTokenReference
from castile.versions import WSU
from castile.waiting import blocking
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import Forger, key_of
from tests.endpoint.pair import FAMILIES, body, fault_of
from tests.endpoint.test_hijack import NEW


@pytest.mark.row("CO-10", "RE-51", "RE-52")
@pytest.mark.parametrize("family", FAMILIES)
def test_headers_of_other_messages(pairs: Pairs, family: str) -> None:
    """Every header of each of 20 messages in the place of the same header of each other one."""
    pair = pairs(family)
    client = pair.client()
    for number in range(20):
        client.call_raw("urn:test/Echo", body(number))
    payloads = [exchange.request for exchange in pair.network.requests("Echo")]
    party, refused, same = pair.party, 0, 0
    parts = [headers_of(payload) for payload in payloads]
    for (payload, ours), theirs in itertools.permutations(zip(payloads, parts, strict=True), 2):
        for name, (octets, identifier) in ours.items():
            other, other_id = theirs[1].get(name, (b"", b""))
            changed = payload.replace(octets, other.replace(other_id, identifier))
            if not other or changed == payload:
                same += 1
                continue
            assert payload.count(octets) == 1
            with pytest.raises(castile.errors.SecurityFailure):
                inbound.read(party, changed, party.now(), request=True)
            refused += 1
    # Sequence, MessageID, Timestamp and the acknowledgement differ; Action, ReplyTo and To don't.
    assert refused >= 380 * 3 + 342
    assert same >= 380 * 3


def headers_of(payload: bytes) -> dict[str, tuple[bytes, bytes]]:
    """Each header, and the Timestamp, as it stands in the message, with its wsu:Id."""
    root = xml.parse(payload, Limits())
    found = [each for each in root[0] if xml.local_name(each) != "Security"]
    found += [each for each in root[0][-1] if xml.local_name(each) == "Timestamp"]
    return {
        xml.local_name(each): (xml.canonical(each), each.get(f"{{{WSU}}}Id", "").encode()) for each in found
    }


# ---------------------------------------------------------------- tokens of CreateSequence


@pytest.mark.row("CO-03", "CO-04", "CO-06", "RE-86")
@pytest.mark.parametrize("setting", ["require", "infer", "accept"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_token_of_create_sequence(pairs: Pairs, family: str, setting: str) -> None:
    """Present, absent, foreign, nowhere; by Identifier or locally; with the header and without."""
    policy = castile.EndpointPolicy.of(family, sequence_token=setting)
    pair = pairs(policy)
    client, mallory = pair.client(), pair.client("mallory")
    for each in (client, mallory):
        blocking(each._pump.conversations.identify(each._pump.now().tick + 10))
    forge = Forger(pair.policy, pair.party.store, key_of(client))
    assert policy.conversation is not None
    assert forge.key is not None
    kind = policy.conversation.token_type
    foreign = key_of(mallory).identifier
    tokens: dict[str, tuple[SecurityTokenReference | None, bool]] = {
        "by identifier": (SecurityTokenReference(uri=forge.key.identifier, value_type=kind), True),
        "without ValueType": (SecurityTokenReference(uri=forge.key.identifier), True),
        "local": (SecurityTokenReference(uri=f"#{forge.key.token_id}", value_type=kind), True),
        "absent": (None, setting != "require"),
        "foreign": (SecurityTokenReference(uri=foreign, value_type=kind), False),
        "nowhere": (SecurityTokenReference(uri="urn:uuid:nowhere", value_type=kind), False),
        "local and nowhere": (SecurityTokenReference(uri="#nowhere", value_type=kind), False),
    }
    made = 0
    for (name, (token, right)), header in itertools.product(tokens.items(), (False, True)):
        if header and not forge.edition.can_close:
            continue
        create = reliability.CreateSequence(EPR(forge.addressing.anonymous), token=token)
        content = create.render(forge.edition, forge.addressing)
        headers = (reliability.UsesSequenceSTR().render(forge.edition),) if header else ()
        answer = pair.receive(forge(Kind.CREATE_SEQUENCE, content, *headers, reply=True))
        right = right and not (header and token is None)
        made += right
        assert answer.status == (200 if right else 500), (name, header)
        if not right:
            assert fault_of(answer.body) == "CreateSequenceRefused"
        assert len(pair.party.store.run(lambda tx: tx.destinations()).result()) == made


@pytest.mark.row("RE-40", "RM-10", "RE-86", "I16")
@pytest.mark.parametrize("family", FAMILIES)
def test_addresses_that_are_not_here(pairs: Pairs, family: str) -> None:
    """AcksTo, ReplyTo and Offer/Endpoint elsewhere, or none: refused, and nothing is connected to."""
    pair = pairs(family)
    client = pair.client()
    blocking(client._pump.conversations.identify(client._pump.now().tick + 10))
    forge = Forger(pair.policy, pair.party.store, key_of(client))
    anonymous = EPR(forge.addressing.anonymous)
    for url in (
        "http://127.0.0.1:9/",
        "http://evil.example/x",
        "file:///etc/passwd",
        forge.addressing.none or "",
    ):
        wrong = [(EPR(url), anonymous)]
        if forge.edition.can_close:
            wrong.append((anonymous, EPR(url)))
        for acks_to, endpoint in wrong:
            offer = reliability.Offer(NEW, endpoint if forge.edition.can_close else None)
            create = reliability.CreateSequence(acks_to, offer=offer)
            content = create.render(forge.edition, forge.addressing)
            answer = pair.receive(forge(Kind.CREATE_SEQUENCE, content, reply=True))
            assert (answer.status, fault_of(answer.body)) == (500, "CreateSequenceRefused")
    assert pair.party.store.run(lambda tx: tx.destinations()).result() == []
