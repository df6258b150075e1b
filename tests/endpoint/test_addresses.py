"""Where messages go and where their answers do (CL-42, CL-43)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import castile
from castile import xml
from castile.config import Limits
from castile.endpoint.kinds import Kind
from castile.messages import soap
from castile.messages.addressing import EPR
from castile.messages.soap import Header
from castile.versions import SOAP_1_1, WSA_1_0, WSA_2004, Addressing
from tests.endpoint.forge import Forger, key_of
from tests.endpoint.pair import Pair, body, opened, until

ECHO, TELL = "urn:test/Echo", "urn:test/Tell"
LIMITS = Limits()
COOKIE = b'<t:Cookie xmlns:t="urn:t" kind="x">7</t:Cookie>'
SPOOFED = b'<a:To xmlns:a="http://www.w3.org/2005/08/addressing">http://elsewhere.test/</a:To>'


def policies() -> list[castile.EndpointPolicy]:
    secured = replace(castile.EndpointPolicy.of("1.3"), reliability=None)
    old = replace(castile.EndpointPolicy.of("2005", soap=SOAP_1_1), reliability=None, addressing=WSA_2004)
    plain = replace(secured, conversation=None, trust=None, bootstrap=None, application=None)
    return [secured, old, plain]


@pytest.fixture(params=policies(), ids=["1.3", "2005", "plain"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(request.param)
    yield made
    made.close()


def forger(pair: Pair) -> Forger:
    client = pair.client()
    client.call_raw(ECHO, body(1))
    store = client._store
    return Forger(pair.policy, store, key_of(client) if pair.policy.conversation else None)


def header(local: str, reference: EPR, edition: Addressing) -> Header:
    return Header("a", edition.namespace, local, reference.content(edition, nested=True))


def blocks(payload: bytes | None) -> list[xml.Element]:
    envelope = soap.parse(xml.parse(payload or b"", LIMITS), LIMITS, len(payload or b""))
    return [each for each in envelope.headers if xml.name_of(each)[0] == "urn:t"]


@pytest.mark.row("CL-42", "CL-43")
def test_answers_copy_reference_parameters(pair: Pair) -> None:
    """In 2004/08 properties too. What means something to us is left out; the rest is signed."""
    edition = pair.policy.addressing
    field = "properties" if edition is WSA_2004 else "parameters"
    reference = EPR(edition.anonymous, **{field: (COOKIE, SPOOFED)})
    send = forger(pair)
    payload = send(Kind.APPLICATION, body(2), header("ReplyTo", reference, edition), action=ECHO)
    answer = pair.receive(payload)
    assert answer.status == 200
    [copy] = blocks(answer.body)
    assert (copy.text, copy.get("kind")) == ("7", "x")
    marked = copy.get(f"{{{edition.namespace}}}IsReferenceParameter")
    assert marked == ("true" if edition is WSA_1_0 else None)
    assert b"elsewhere.test" not in answer.body
    if pair.policy.application is not None:
        verified = opened(pair.clients[-1], answer.body).verified
        covered = {xml.name_of(each.element): each.key for each in verified.headers}
        assert covered["urn:t", "Cookie"] is not None


@pytest.mark.row("CL-42")
def test_a_fault_copies_those_of_fault_to(pair: Pair) -> None:
    edition = pair.policy.addressing
    send = forger(pair)
    payload = send(
        Kind.APPLICATION,
        body(2),
        header("ReplyTo", EPR(edition.anonymous, (COOKIE,)), edition),
        header("FaultTo", EPR(edition.anonymous, (COOKIE.replace(b"7", b"8"),)), edition),
        action="urn:test/Nobody",
    )
    answer = pair.receive(payload)
    assert answer.status == 500
    assert [each.text for each in blocks(answer.body)] == ["8"]


@pytest.mark.row("CL-42")
def test_to_alias() -> None:
    """A client writes another wsa:To than the URL it posts to; its context belongs to the URL."""
    pair = Pair(castile.EndpointPolicy.of("1.3"))
    try:
        alias = "urn:castile:alias"
        client = pair.client(to_alias=alias)
        with pytest.raises(castile.FaultReceived) as caught:
            client.call_raw(ECHO, body(1))
        assert "DestinationUnreachable" in str(caught.value.fault.subcode)
        assert f">{alias}<" in pair.network.log[0].request.decode()
    finally:
        pair.close()


@pytest.mark.row("CL-42", "F23")
@pytest.mark.parametrize("one_way", [None, True, False])
@pytest.mark.parametrize("asked", [True, False], ids=["ReplyTo", "nothing"])
def test_who_waits_for_an_answer(one_way: bool | None, asked: bool) -> None:
    """The message says it by its ReplyTo, unless the application says more (WS-A 1.0, 3.4)."""
    handled: list[bytes] = []

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Other", one_way=one_way)
        def other(content: bytes) -> bytes:
            handled.append(content)
            return content

    for policy in policies():
        pair = Pair(policy, extend=extend)
        try:
            send = forger(pair)
            answer = pair.receive(send(Kind.APPLICATION, body(2), action="urn:test/Other", reply=asked))
            implied = one_way is False and policy.addressing is WSA_1_0
            answered = (asked and one_way is not True) or implied
            assert bool(answer.body) == answered, policy.dialect
            assert answer.status == (200 if answered else 202)
            until(lambda: len(handled) == 1)
        finally:
            handled.clear()
            pair.close()
