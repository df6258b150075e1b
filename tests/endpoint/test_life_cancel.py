"""Contexts that are given back: by whom, what becomes of their sequences, and what no more is."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import castile
from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Outgoing, prepare
from castile.messages import trust
from castile.messages.security import SecurityTokenReference
from castile.protocol import destination, issuer
from castile.protocol.source import Phase
from castile.security.keys import ContextKey
from castile.waiting import blocking
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import OTHER, Forger, key_of, planted
from tests.endpoint.lives import LIFE, Moved, Watched, settings
from tests.endpoint.pair import BODY, FAMILIES, Pair, action_of, body, fault_of, tables, until

CANCEL = "RST/SCT/Cancel"


def cancel(pair: Pair, key: ContextKey, target: str | None = None) -> bytes:
    """A Cancel of this context, or of another one, signed by this key."""
    policy = pair.policy
    assert policy.conversation is not None
    assert policy.trust is not None
    reference = SecurityTokenReference(
        uri=target or key.identifier, value_type=policy.conversation.token_type
    )
    request = trust.RequestSecurityToken("Cancel", cancel_target=reference)
    party = pair.clients[0]._party
    outgoing = Outgoing(
        Kind.CANCEL,
        policy.trust.action(Kind.CANCEL.value),
        request.render(policy.trust),
        message_id=party.new_id(),
        reply_expected=True,
        key=key,
    )
    return prepare(party, outgoing, pair.clock()).payload


@pytest.mark.row("CO-17", "SC-29", "F16")
@pytest.mark.parametrize("family", FAMILIES)
def test_with_live_sequences_only_by_force(pairs: Pairs, family: str) -> None:
    """Then they fail, with the numbers that are in doubt, and the next message has a new context."""
    inside, gate = threading.Event(), threading.Event()

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Work")
        def work(content: bytes) -> bytes:
            inside.set()
            gate.wait(20)
            return content

    pair = pairs(family, extend=extend)
    network = Watched(pair)
    client = pair.client(http=network)
    client.call_raw("urn:test/Echo", body(1))
    context = client.context
    assert context is not None
    with pytest.raises(castile.UsageError, match="force=True"):
        context.cancel()
    assert network.count(CANCEL) == 0
    assert context.state == "usable"
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(client.call_raw, "urn:test/Work", body(2))
        assert inside.wait(10)
        context.cancel(force=True)
        with pytest.raises(castile.InDoubt, match="cancelled") as told:
            working.result(10)
        gate.set()
    assert told.value.numbers == (2,)
    assert (context.state, client.context) == ("cancelled", None)
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    assert client.context is not None
    assert client.context.identifier != context.identifier
    client.sequence.close()
    second = client.context
    second.cancel()  # nothing is bound to it
    assert second.state == "cancelled"
    client.close()
    assert network.count(CANCEL) == network.count("RST/SCT") == 2


@pytest.mark.row("CO-17", "SC-29", "I1", "I2")
@pytest.mark.parametrize("family", FAMILIES)
def test_cancel_at_every_step(pairs: Pairs, family: str) -> None:
    """The service ends what was bound to it: nothing new is taken, what was acknowledged is known."""
    for step in range(5):
        pair = pairs(family)
        client = pair.client()
        for number in range(1, step + 1):
            if number % 2:
                client.call_raw("urn:test/Echo", body(number))
            else:
                client.send_raw("urn:test/Tell", body(number))
                assert client.sequence.wait_until_acknowledged(10)
        if step == 0:
            blocking(client._pump.conversations.identify(1e9))
        key = key_of(client)
        sequence = str(client.sequence.report()["identifier"]) if step else "urn:nobody"
        assert pair.receive(cancel(pair, key)).status == 200
        forge = Forger(pair.policy, pair.party.store, key)
        for number in (step, step + 1):
            message = forge(
                Kind.APPLICATION,
                body(number),
                forge.sequence(sequence, max(number, 1)),
                action="urn:test/Echo",
                reply=True,
            )
            answer = pair.receive(message)
            assert (answer.status, fault_of(answer.body)) == (500, "BadContextToken")
        records = pair.party.store.run(lambda tx: tx.destinations()).result()
        assert len(records) == (step > 0)
        for record in records:
            assert record.ended is not None
            assert record.state.phase is destination.Phase.TERMINATED
            assert record.state.received.ranges == ((1, step),)
        assert pair.party.store.run(lambda tx: tx.sources(unfinished=True)).result() == []
        assert pair.bodies == [body(number) for number in range(1, step + 1)]


@pytest.mark.row("CO-17")
@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_accepted_is_delivered(pairs: Pairs, family: str) -> None:
    """A message behind a gap was acknowledged: it is delivered as at the end of a sequence."""
    pair = pairs(family)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    key, sequence = key_of(client), str(client.sequence.report()["identifier"])
    forge = Forger(pair.policy, pair.party.store, key)
    assert pair.receive(forge(Kind.APPLICATION, body(3), forge.sequence(sequence, 3), action="urn:test/Tell"))
    assert pair.bodies == [body(1)]
    assert pair.receive(cancel(pair, key)).status == 200
    until(lambda: pair.bodies == [body(1), body(3)])


@pytest.mark.row("SC-29", "F16")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_cancel_is_answered_as_the_first(pairs: Pairs, family: str, tmp_path: Path) -> None:
    """While it is remembered; it changes nothing. Renewal, use and a foreign Cancel are refused."""
    clock = Moved()
    pair = pairs(family, clock=clock, settings=settings(retention=1_000.0), folder=tmp_path)
    client, mallory = pair.client(), pair.client("mallory")
    for each in (client, mallory):
        each.call_raw("urn:test/Echo", BODY)
    key, other = key_of(client), key_of(mallory)
    before = tables(pair.store_file)
    assert pair.receive(cancel(pair, other, key.identifier)).status == 500
    assert tables(pair.store_file) == before
    first = pair.receive(cancel(pair, key))
    assert (first.status, action_of(first.body)) == (200, "RSTR/SCT/Cancel")
    clock.seconds += 100
    kept = state(pair, key)
    assert kept.phase is issuer.Phase.CANCELLED
    second = pair.receive(cancel(pair, key))
    assert (second.status, action_of(second.body)) == (200, "RSTR/SCT/Cancel")
    assert state(pair, key) == kept
    assert fault_of(pair.receive(cancel(pair, key, other.identifier)).body) == "BadContextToken"
    clock.seconds += 1_000
    assert state(pair, other).phase is issuer.Phase.USABLE
    pair.client().call_raw("urn:test/Echo", BODY)  # a new context makes room
    assert fault_of(pair.receive(cancel(pair, key)).body) == "BadContextToken"


def state(pair: Pair, key: ContextKey) -> issuer.Context:
    record = pair.party.store.run(lambda tx: tx.context(key.identifier, side="service")).result()
    assert record is not None
    assert isinstance(record.state, issuer.Context)
    return record.state


@pytest.mark.row("SC-29", "SC-32")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_that_must_not_cancel(pairs: Pairs, family: str) -> None:
    """It only forgets; and a Cancel that gets no answer keeps nobody from closing."""
    policy = castile.EndpointPolicy.of(family, cancels_contexts=False)
    for chosen, cancels in ((policy, 0), (castile.EndpointPolicy.of(family), 1)):
        pair = pairs(chosen)
        network = Watched(pair)
        network.fate = lambda number, payload: "drop-response" if action_of(payload) == CANCEL else None
        client = pair.client(http=network)
        client.call_raw("urn:test/Echo", BODY)
        client.close()
        assert network.count(CANCEL) == cancels


@pytest.mark.row("CO-17", "SC-29")
def test_a_cancelled_context_serves_nobody_in_the_store(pairs: Pairs, tmp_path: Path) -> None:
    """Force with a store: the next process finds failed sequences, and no context."""
    pair = pairs(clock=Moved(), settings=settings())
    client = pair.client(store=tmp_path / "client.db")
    client.call_raw("urn:test/Echo", body(1))
    pair.network.down = True
    client.send_raw("urn:test/Tell", body(2))
    assert client.context is not None
    assert client.context.expires.timestamp() - client.context.created.timestamp() == pytest.approx(
        LIFE, abs=1
    )
    client.context.cancel(force=True)  # best effort: nobody hears it
    client.close(keep=True)
    pair.network.down = False
    later = pair.client(store=tmp_path / "client.db")
    (record,) = later._store.run(lambda tx: tx.sources()).result()
    assert (record.state.phase, record.state.missing.ranges) == (Phase.FAILED, ((2, 2),))
    assert later._store.run(lambda tx: tx.contexts()).result() == []
    (doubt,) = later.unfinished()
    assert (doubt.number, doubt.action, doubt.reply) == (2, "urn:test/Tell", None)
    assert doubt.in_doubt == "the security context was cancelled"
    later.take(doubt.message_id)
    assert later.unfinished() == []
    assert later.call_raw("urn:test/Echo", body(3)) == body(3)
    assert pair.bodies == [body(1), body(3)]


@pytest.mark.row("SC-40", "RE-70")
@pytest.mark.parametrize("family", FAMILIES)
def test_one_text_for_every_context_that_is_no_good(pairs: Pairs, family: str) -> None:
    """Unknown, cancelled, another service's, none: whoever refuses it, the answer is the same."""
    pair = pairs(family)
    client = pair.client()
    client.call_raw("urn:test/Echo", BODY)
    cancelled = key_of(client)
    client.close()
    here = planted(pair.party.store, pair.policy, "service", pair.party.realm)
    nowhere = "urn:uuid:00000000-0000-4000-8000-000000000000"
    token = here.token.replace(here.identifier.encode(), nowhere.encode())
    unknown = replace(here, identifier=nowhere, token=token)
    elsewhere = planted(pair.party.store, pair.policy, "service", OTHER)
    answers = set()
    for key in (cancelled, unknown, elsewhere, None):
        forge = Forger(pair.policy, pair.party.store, key)
        sequence = forge.sequence("urn:any", 1)
        answer = pair.receive(forge(Kind.APPLICATION, BODY, sequence, action="urn:test/Echo"))
        assert answer.status == 500
        answers.add(re.sub(rb"urn:uuid:[0-9a-f-]{36}", b"", answer.body))
    assert len(answers) == 1
    assert b"The requested context elements are insufficient or unsupported." in answers.pop()
