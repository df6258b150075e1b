"""CreateSequence and its SecurityTokenReference: forms, settings, and UsesSequenceSTR as peers
write it (features CO-03, CO-04, CO-06, SV-26)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

import castile
from castile.endpoint.kinds import Kind
from castile.messages import reliability
from castile.messages.addressing import EPR
from castile.messages.security import SecurityTokenReference
from castile.messages.soap import Header
from castile.protocol.issuer import Context
from castile.security import outgoing
from castile.store.records import ContextRecord
from castile.versions import SOAP_1_1, SOAP_1_2, WSA_1_0, WSRM_1_1, WSSC, SOAPVersion
from castile.waiting import blocking
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import Forger, key_of
from tests.endpoint.pair import FAMILIES, Pair, fault_of

ANONYMOUS: Final = EPR(WSA_1_0.anonymous)
soaps = pytest.mark.parametrize("version", [SOAP_1_1, SOAP_1_2], ids=lambda row: row.name)


def forger(pair: Pair) -> Forger:
    """Signs with the key of a client that the service knows."""
    client = pair.client()
    blocking(client._pump.conversations.identify(client._pump.now().tick + 10))
    return Forger(pair.policy, pair.party.store, key_of(client))


def ask(forge: Forger, pair: Pair, token: SecurityTokenReference | None, *headers: Header) -> str:
    """What the service says to a CreateSequence: its fault, or nothing."""
    before = pair.party.store.run(lambda tx: tx.destinations()).result()
    content = reliability.CreateSequence(ANONYMOUS, token=token).render(forge.edition, forge.addressing)
    answer = pair.receive(forge(Kind.CREATE_SEQUENCE, content, *headers, reply=True))
    after = pair.party.store.run(lambda tx: tx.destinations()).result()
    if answer.status == 200:
        assert len(after) == len(before) + 1
        return ""
    assert after == before
    return fault_of(answer.body)


def renewed(pair: Pair, identifier: str, instance: str) -> None:
    """The context gets an instance more, as a renewal gives it."""

    def step(tx: castile.store.Transaction) -> None:
        record = tx.context(identifier, side="service", endpoint=pair.party.address)
        assert isinstance(record, ContextRecord)
        assert isinstance(record.state, Context)
        key = replace(record.state.instances[0], instance=instance, secret=bytes(32))
        state = replace(record.state, instances=(*record.state.instances, key))
        tx.save_context(replace(record, state=state))

    pair.party.store.run(step).result()


@pytest.mark.row("CO-04", "RE-86")
@soaps
@pytest.mark.parametrize("family", FAMILIES)
def test_forms(pairs: Pairs, family: str, version: SOAPVersion) -> None:
    pair = pairs(castile.EndpointPolicy.of(family, soap=version))
    forge, other = forger(pair), forger(pair)
    assert forge.key is not None
    assert other.key is not None
    edition = forge.key.edition
    kind = edition.token_type
    wrong = next(row.token_type for row in WSSC.values() if row is not edition)
    own, theirs, local = forge.key.identifier, other.key.identifier, f"#{forge.key.token_id}"
    renewed(pair, own, "urn:uuid:second")

    def token(uri: str, **more: str | None) -> SecurityTokenReference:
        return replace(SecurityTokenReference(uri=uri, value_type=kind), **more)  # type: ignore[arg-type]

    for right in (
        token(own),
        token(own, value_type=None),
        token(local),
        token(local, value_type=None),
        token(own, instance="urn:uuid:second"),
        token(local, instance="urn:uuid:second"),
    ):
        assert ask(forge, pair, right) == ""
    for bad in (
        token(theirs),
        token(theirs, value_type=None),
        token(theirs, instance="urn:uuid:second"),
        token("urn:uuid:nowhere"),
        token("#nowhere"),
        token(own, instance="urn:uuid:third"),
        token(local, instance="urn:uuid:third"),
        token(own, value_type=wrong),
        token(local, value_type=wrong),
        token(own, value_type="urn:another"),
        SecurityTokenReference(key_identifier="AAAA", value_type=kind),
    ):
        assert ask(forge, pair, bad) == "CreateSequenceRefused"


@pytest.mark.row("CO-03")
@pytest.mark.parametrize("setting", ["require", "infer", "accept"])
@pytest.mark.parametrize("family", FAMILIES)
def test_without_security(pairs: Pairs, family: str, setting: str) -> None:
    """Where a policy has no security, a sequence has no owner, unless a reference is required."""
    pair = pairs(castile.EndpointPolicy.of(family, secure=False, sequence_token=setting))
    forge = Forger(pair.policy, pair.party.store, None)
    assert ask(forge, pair, None) == ("CreateSequenceRefused" if setting == "require" else "")
    assert ask(forge, pair, SecurityTokenReference(uri="urn:uuid:1")) == "CreateSequenceRefused"


@pytest.mark.row("CO-03", "CO-19")
@pytest.mark.parametrize("family", FAMILIES)
def test_an_unsecured_sequence_where_one_of_the_policies_allows_it(pairs: Pairs, family: str) -> None:
    secure, plain = (castile.EndpointPolicy.of(family, secure=each) for each in (True, False))
    pair = pairs(secure, policies=[secure, plain])
    assert ask(Forger(plain, pair.party.store, None), pair, None) == ""
    alone = pairs(secure)
    assert ask(Forger(plain, alone.party.store, None), alone, None) == "BadContextToken"


@pytest.mark.row("CO-06", "SV-26", "RE-86")
@soaps
@pytest.mark.parametrize("flag", ["1", "true"])
def test_uses_sequence_str(
    pairs: Pairs, version: SOAPVersion, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metro writes mustUnderstand="true", in SOAP 1.1 as well."""
    written = Header.render
    monkeypatch.setattr(
        Header,
        "render",
        lambda self, *arguments: written(self, *arguments).replace(
            b'mustUnderstand="1"', f'mustUnderstand="{flag}"'.encode()
        ),
    )
    outgoing._header_frame.cache_clear()
    try:
        pair = pairs(castile.EndpointPolicy.of("1.3", soap=version))
        forge = forger(pair)
        assert forge.key is not None
        header = reliability.UsesSequenceSTR().render(WSRM_1_1)
        token = SecurityTokenReference(uri=forge.key.identifier, value_type=forge.key.edition.token_type)
        assert ask(forge, pair, token, header) == ""
        assert ask(forge, pair, None, header) == "CreateSequenceRefused"
        assert ask(forge, pair, replace(token, uri="urn:uuid:nowhere"), header) == "CreateSequenceRefused"
        content = reliability.CreateSequence(ANONYMOUS, token=token).render(WSRM_1_1, WSA_1_0)
        payload = forge(Kind.CREATE_SEQUENCE, content, reply=True)
        unsigned = payload.replace(b"<s:Header>", b"<s:Header>" + header.render(version))
        assert f'mustUnderstand="{flag}"'.encode() in unsigned
        assert pair.receive(unsigned).status == 500
    finally:
        outgoing._header_frame.cache_clear()


@pytest.mark.row("CO-06")
def test_rm_1_0_knows_no_such_header(pairs: Pairs) -> None:
    pair = pairs("2005")
    client = pair.client(policy=replace(pair.policy, uses_sequence_str=True))
    client.call_raw("urn:test/Echo", b'<x xmlns="urn:x"></x>')
    assert all(b"UsesSequenceSTR" not in exchange.request for exchange in pair.network.log)
    create = pair.network.requests("CreateSequence")[0].request
    assert b"SecurityTokenReference" in create
