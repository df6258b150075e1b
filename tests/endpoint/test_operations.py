"""Operations of one endpoint that are protected each in its own way, and who takes one for another."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

import castile
from castile.errors import PolicyError
from castile.policy import ENDORSING, USERNAME, MessagePolicy, ProtectionPolicy
from castile.policy.parts import HeaderPart, Parts
from castile.policy.suites import SUITES
from castile.transport.http import HTTPRequest, HTTPResponse
from castile.versions import WSA_1_0, WSRM
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import BODY, Pair, body, certificate, fault_of, identity

SUITE = SUITES["Basic256"]
FULL = ProtectionPolicy("x509", SUITE)
"""An EncryptedKey signs everything and encrypts the Body."""
CLEAR = replace(FULL, parts=Parts().in_clear)
BLIND = replace(FULL, parts=replace(Parts(), signed_headers=frozenset(), encrypted_body=False))
"""The Body is signed, and no header: nobody proves the Action."""
SIGNED = ProtectionPolicy("x509", SUITE, "asymmetric", parts=Parts().in_clear, derived_keys=False)
ECHO, TELL = "urn:test/Echo", "urn:test/Tell"
ANSWER = "urn:test/EchoResponse"


def plain(application: ProtectionPolicy | None, *messages: MessagePolicy) -> castile.EndpointPolicy:
    made = castile.EndpointPolicy.of("1.3", reliable=False, secure=False)
    return replace(made, application=application, messages=messages)


def of(
    request: ProtectionPolicy | None,
    response: ProtectionPolicy | None,
    action: str = ECHO,
    element: str = "",
) -> tuple[MessagePolicy, MessagePolicy]:
    """An operation's request and response."""
    answer = MessagePolicy(f"{action}Response", "response", response, action)
    return MessagePolicy(action, "request", request, "", element), answer


def payloads(pair: Pair, client: castile.Client, action: str) -> list[bytes]:
    """The request that a client makes, which the service never sees."""
    kept: list[bytes] = []

    def post(request: HTTPRequest, timeout: float) -> HTTPResponse:
        kept.append(request.body)
        raise castile.TransportError("kept")

    own, pair.network.post = pair.network.post, post  # type: ignore[method-assign]
    with pytest.raises(castile.TransportError):
        client.call_raw(action, BODY)
    pair.network.post = own  # type: ignore[method-assign]
    return kept


@pytest.mark.row("MS-50", "MS-56")
@pytest.mark.parametrize("answer", [FULL, CLEAR, None], ids=["full", "clear", "none"])
@pytest.mark.parametrize("asked", [FULL, CLEAR, None], ids=["full", "clear", "none"])
def test_each_direction_has_its_own(
    pairs: Pairs, asked: ProtectionPolicy | None, answer: ProtectionPolicy | None
) -> None:
    """Requests and responses of one operation, beside an endpoint whose own policy is another."""
    if answer is not None and asked is None:
        answer = SIGNED  # there is no key of the request's to answer under
    pair = pairs(plain(FULL if asked is not FULL else CLEAR, *of(asked, answer, element="{urn:x}x")))
    client = pair.client(credentials=castile.Certificate(identity("ada")))
    assert client.call_raw(ECHO, BODY) == BODY
    exchange = pair.network.log[0]
    for payload, section in ((exchange.request, asked), (exchange.response, answer)):
        assert (b"o:Security" in payload) == (section is not None)
        assert (b"hi</x>" not in payload) == (section is FULL)


@pytest.mark.row("MS-50")
@pytest.mark.parametrize("side", ["service", "client"])
def test_a_message_that_is_less_than_its_operation_asks_for(pairs: Pairs, side: str) -> None:
    """It is what the endpoint asks for elsewhere, but not here."""
    strict = plain(CLEAR, *of(FULL, FULL))
    pair = pairs(strict)
    lax = plain(CLEAR, *of(CLEAR, FULL)) if side == "service" else plain(CLEAR, *of(FULL, CLEAR))
    if side == "service":
        with pytest.raises(castile.FaultReceived):
            pair.client(policy=lax).call_raw(ECHO, BODY)
        assert pair.bodies == []
        return
    other = pairs(lax)
    with pytest.raises(castile.errors.SecurityFailure, match="isn't encrypted"):
        other.client(policy=strict).call_raw(ECHO, BODY)


# ---------------------------------------------------------------- the Action that nobody proves


@pytest.mark.row("MS-50", "CL-44")
@pytest.mark.parametrize("element", ["{urn:x}x", ""], ids=["known", "unknown"])
def test_an_action_that_is_exchanged_on_the_way(pairs: Pairs, element: str) -> None:
    """The weak operation's Action on the strong one's message, and on a message of nobody's."""
    weak = of(BLIND, BLIND, TELL, "{urn:other}y")
    pair = pairs(plain(FULL, *of(FULL, FULL, ECHO, element), *weak))
    client = pair.client(credentials=None)
    (strong,) = payloads(pair, client, ECHO)
    (light,) = payloads(pair, client, TELL)
    for payload in (strong, light):
        for action in (ECHO, TELL):
            changed = re.sub(rb"(<a:Action[^>]*>)[^<]*", rb"\g<1>" + action.encode(), payload)
            if changed == strong:
                continue  # which nobody has changed
            answer = pair.receive(changed)
            assert answer.status == 500
            assert fault_of(answer.body) == "InvalidSecurity"
    assert pair.bodies == []
    assert client.call_raw(ECHO, BODY) == BODY


@pytest.mark.row("MS-50")
def test_an_action_that_the_body_proves(pairs: Pairs) -> None:
    """Where the Body's element is the operation's, its own protection is enough."""
    pair = pairs(plain(FULL, *of(BLIND, BLIND, ECHO, "{urn:x}x"), *of(FULL, FULL, TELL, "{urn:y}y")))
    client = pair.client(credentials=None)
    assert client.call_raw(ECHO, BODY) == BODY
    (payload,) = payloads(pair, client, ECHO)
    changed = re.sub(rb"(<a:Action[^>]*>)[^<]*", rb"\g<1>urn:test/Tell", payload)
    assert pair.receive(changed).status == 500
    assert pair.receive(payload).status == 200


@pytest.mark.row("CL-44", "CO-13")
def test_the_answer_of_a_weak_operation_is_none_to_a_strong_one(pairs: Pairs) -> None:
    """Its Action would choose a policy under which anybody can answer."""
    pair = pairs(plain(FULL, *of(FULL, FULL), *of(FULL, None, TELL)))
    client = pair.client(credentials=None)

    def forged(request: bytes, response: HTTPResponse) -> HTTPResponse:
        asked = re.search(rb"<a:MessageID[^>]*>([^<]*)", request)
        assert asked is not None
        space, soap = WSA_1_0.namespace.encode(), pair.policy.soap.namespace.encode()
        payload = (
            b'<s:Envelope xmlns:s="%b" xmlns:a="%b"><s:Header><a:Action>urn:test/TellResponse</a:Action>'
            b"<a:RelatesTo>%b</a:RelatesTo></s:Header><s:Body>%b</s:Body></s:Envelope>"
        ) % (soap, space, asked[1], body(666))
        return replace(response, status=200, body=payload)

    pair.network.answer = forged
    with pytest.raises(castile.errors.SecurityFailure):
        client.call_raw(ECHO, BODY)
    assert client.call_raw(TELL, BODY) == body(666)  # which its policy lets anybody say


# ---------------------------------------------------------------- application messages without contexts


@pytest.mark.row("MS-10", "MS-11", "MS-50")
def test_signatures_of_certificates_alone(pairs: Pairs) -> None:
    """Each side signs, nothing is encrypted: the client needs no key of the service, but must know
    whose signature it takes."""
    pair = pairs(plain(SIGNED))
    ada = castile.Certificate(identity("ada"))
    client = pair.client(credentials=ada)
    assert client.call_raw(ECHO, BODY) == BODY
    assert [who for who, _, _ in pair.received] == ["CN=ada"]
    assert b"Encrypted" not in pair.network.log[0].request + pair.network.log[0].response
    pinned = pair.client(credentials=ada, service_certificate=None, trust=certificate())
    assert pinned.call_raw(ECHO, BODY) == BODY
    for options in ({"service_certificate": certificate("mallory")}, {"trust": certificate("mallory")}):
        given: dict[str, Any] = {"service_certificate": None, **options}
        with pytest.raises(castile.errors.SecurityFailure):
            pair.client(credentials=ada, **given).call_raw(ECHO, BODY)
    with pytest.raises(PolicyError, match="service_certificate="):
        pair.client(credentials=ada, service_certificate=None).call_raw(ECHO, BODY)
    nobody = pair.client(credentials=None)
    with pytest.raises(PolicyError, match=r"castile\.Certificate"):
        nobody.call_raw(ECHO, BODY)


@pytest.mark.row("MS-56", "MS-12")
@pytest.mark.parametrize("name", ["user", "certificate", "both"])
def test_supporting_tokens_of_application_messages(pairs: Pairs, name: str) -> None:
    rows = {"user": (USERNAME,), "certificate": (ENDORSING,), "both": (USERNAME, ENDORSING)}[name]
    pair = pairs(plain(replace(FULL, supporting=rows)))
    user, own = castile.Username("ada", "lovelace-secret"), castile.Certificate(identity("ada"))
    client = pair.client(credentials=[user, own])
    assert client.call_raw(ECHO, BODY) == BODY
    assert [who for who, _, _ in pair.received] == ["CN=ada" if name == "certificate" else "ada"]
    old = pair.network.log[0].request
    assert pair.receive(old).status == 500
    assert len(pair.bodies) == 1


@pytest.mark.row("MS-52", "MS-70")
def test_parts_by_policy_end_to_end(pairs: Pairs) -> None:
    """To is encrypted, Action and Body are signed, ReplyTo is left alone; required headers are there."""
    space = WSA_1_0.namespace
    parts = Parts(
        signed_headers=frozenset({HeaderPart(space, "Action"), HeaderPart(space, "RelatesTo")}),
        encrypted_headers=frozenset({HeaderPart(space, "MessageID")}),
        required=frozenset({HeaderPart(space, "Action")}),
    )
    pair = pairs(plain(replace(FULL, parts=parts)))
    client = pair.client(credentials=None)
    assert client.call_raw(ECHO, BODY) == BODY
    request = pair.network.log[0].request
    assert b"EncryptedHeader" in request
    assert b"<a:MessageID" not in request
    lacking = replace(parts, required=frozenset({HeaderPart("urn:app", "Session")}))
    with pytest.raises(castile.errors.SecurityFailure, match="lacks"):
        pair.client(credentials=None, policy=plain(replace(FULL, parts=lacking))).call_raw(ECHO, BODY)


@pytest.mark.row("F08", "F33")
def test_a_sequence_is_signed_whatever_an_operation_s_parts_are(pairs: Pairs) -> None:
    """An operation that names no addressing headers still has its messages proven whole."""
    policy = castile.EndpointPolicy.of("1.3")
    assert policy.application is not None
    named = frozenset(HeaderPart(space) for space in WSRM)
    row = replace(policy.application, parts=replace(Parts(), signed_headers=named))
    pair = pairs(replace(policy, messages=of(row, row)))
    with pair.client() as client:
        assert client.call_raw(ECHO, BODY) == BODY
    verified = pair.opened(pair.network.requests("Echo")[0].request).verified
    assert {"wsrm:Sequence", "wsa:Action", "Body"} <= verified.signatures[0].covered
