"""Policies that leave protection to TLS: alone, and with a security context that signs the Timestamp."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

import castile
from castile.endpoint.binding import prove_possession
from castile.endpoint.kinds import Kind
from castile.errors import WSSE, PolicyError, SecurityFailure
from castile.policy import ENDORSING, USERNAME, SupportingToken
from castile.policy.parse import read
from castile.transport.asgi import Arrival
from castile.transport.http import HTTPRequest, HTTPResponse
from tests.conftest import shared
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import Forger, key_of
from tests.endpoint.pair import BODY, FAMILIES, FAST, TLS_ADDRESS, USERS, body, fault_of, identity
from tests.endpoint.tls import CREDENTIALS, Credential, alone, contexts
from tests.policy.asked import ports_of

DIGEST = replace(USERNAME, password="digest")
ALONE: dict[str, tuple[SupportingToken, ...]] = {
    "text": (USERNAME,),
    "digest": (DIGEST,),
    "certificate": (CREDENTIALS["certificate"],),
    "certificate by thumbprint": (replace(ENDORSING, reference="thumbprint"),),
    "both": (USERNAME, ENDORSING),
    "nobody": (),
}


def credentials(user: str, *tokens: SupportingToken) -> list[castile.Username | castile.Certificate]:
    found: list[castile.Username | castile.Certificate] = []
    for token in tokens:
        if token.token == "username":
            found.append(castile.Username(user, USERS[user]))
        else:
            found.append(castile.Certificate(identity(user)))
    return found


@pytest.mark.row("MS-12", "MS-56", "MS-57")
@pytest.mark.parametrize("name", ALONE)
def test_tokens_over_tls_alone(pairs: Pairs, name: str) -> None:
    """Request and reply, one-way message and fault, with the principal of each message."""
    tokens = ALONE[name]

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Fail")
        def fail(content: bytes) -> bytes:
            raise castile.Fault("Sender", "no")

    pair = pairs(alone(*tokens), extend=extend)
    client = pair.client(credentials=credentials("ada", *tokens) or None)
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    client.send_raw("urn:test/Tell", body(2))
    with pytest.raises(castile.FaultReceived, match="no") as told:
        client.call_raw("urn:test/Fail", body(3))
    assert told.value.authenticated
    who = {"nobody": None, "certificate": "CN=ada", "certificate by thumbprint": "CN=ada"}.get(name, "ada")
    assert [principal for principal, _, _ in pair.received] == [who, who]
    request, response = pair.network.log[0].request, pair.network.log[0].response
    assert b"EncryptedData" not in request
    assert request.count(b"<ds:Signature ") == (0 if name in ("text", "digest", "nobody") else 1)
    security = re.search(rb"<o:Security.*</o:Security>", response)
    assert security is not None
    assert re.findall(rb"<(\w+:\w+)", security[0]) == [
        b"o:Security",
        b"u:Timestamp",
        b"u:Created",
        b"u:Expires",
    ]


@pytest.mark.row("MS-12")
def test_a_user_and_nothing_else(pairs: Pairs) -> None:
    """A UsernameToken over TLS without Timestamp, as most of the world has it: answers and faults
    have no Security header, and TLS says whose they are."""

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Fail")
        def fail(content: bytes) -> bytes:
            raise castile.Fault("Sender", "no")

    pair = pairs(alone(USERNAME, timestamp=False), extend=extend)
    client = pair.client()
    assert client.call_raw("urn:test/Echo", BODY) == BODY
    with pytest.raises(castile.FaultReceived, match="no") as told:
        client.call_raw("urn:test/Fail", BODY)
    assert told.value.authenticated
    wrong = pair.client(credentials=castile.Username("ada", "wrong"))
    with pytest.raises(castile.FaultReceived) as told:
        wrong.call_raw("urn:test/Echo", BODY)
    assert told.value.fault.subcode == (WSSE, "FailedAuthentication")
    assert all(b"o:Security" not in exchange.response for exchange in pair.network.log)


@pytest.mark.row("N13", "CO-11")
@pytest.mark.parametrize("derived", [False, True], ids=["direct", "derived"])
@pytest.mark.parametrize("credential", ["username", "certificate"])
@pytest.mark.parametrize("reliable", [False, True], ids=["SC", "RM"])
@pytest.mark.parametrize("family", FAMILIES)
def test_contexts_over_tls(
    pairs: Pairs, family: str, reliable: bool, credential: Credential, derived: bool
) -> None:
    """The whole life: bootstrap, calls, renewal, calls, end; the SCT signs the Timestamp alone."""
    pair = pairs(contexts(family, credential, derived=derived, reliable=reliable))
    client = pair.client()
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    assert client.context is not None
    client.context.renew()
    assert client.call_raw("urn:test/Echo", body(2)) == body(2)
    client.close()
    assert pair.bodies == [body(1), body(2)]
    who = {"username": "ada", "certificate": "CN=ada"}[credential]
    assert {principal for principal, _, _ in pair.received} == {who}
    assert pair.network.actions[-1] == ("RST/SCT/Cancel", "RSTR/SCT/Cancel")
    for exchange in pair.network.log:
        assert b"EncryptedData" not in exchange.request + exchange.response
        assert b"<ds:Signature " not in exchange.response
        wanted = {"RST/SCT": credential == "certificate", "RST/SCT/Renew": 1 + (credential == "certificate")}
        assert exchange.request.count(b"<ds:Signature ") == wanted.get(exchange.asked, 1), exchange.asked
        assert (b"DerivedKeyToken" in exchange.request) == (derived and exchange.asked != "RST/SCT")
    echo = pair.opened(pair.network.requests("Echo")[0].request)
    assert [each.covered for each in echo.verified.signatures] == [frozenset({"wsu:Timestamp"})]
    assert echo.verified.transport == "request"


@pytest.mark.row("N13", "SC-32")
def test_a_policy_without_cancel(pairs: Pairs) -> None:
    """MustNotSendCancel, as Altinn's second family has it."""
    pair = pairs(replace(contexts("2005", "certificate", reliable=False), cancels_contexts=False))
    client = pair.client()
    client.call_raw("urn:test/Echo", BODY)
    client.close()
    assert [asked for asked, _ in pair.network.actions] == ["RST/SCT", "Echo"]


@pytest.mark.row("N13")
@pytest.mark.parametrize("name", sorted(path.name for path in shared("wsdl", "altinn").glob("*.wsdl")))
def test_public_services_of_this_shape_are_served(pairs: Pairs, name: str) -> None:
    """Their policies, as their WSDLs say them: the bootstrap by certificate, the SCT over TLS. They
    name no TLS themselves, for it ends before them."""
    for port in ports_of(shared("wsdl", "altinn") / name):
        policy = read(port, ignore=["mtom:OptimizedMimeSerialization"]).policy
        assert policy.application is not None
        assert policy.application.supports("context")
        pair = pairs(replace(policy, tls=True))
        with pair.client(credentials=castile.Certificate(identity("ada"))) as client:
            assert client.call_raw("urn:test/Echo", BODY) == BODY
        request = pair.network.requests("Echo")[0].request
        assert (b"DerivedKeyToken" in request) == policy.application.supporting[0].derived_keys
        bootstrap = pair.opened(pair.network.log[0].request).verified
        assert bootstrap.signatures[0].covered == {"wsu:Timestamp", "wsa:To"}
        cancels = ("RST/SCT/Cancel", "RSTR/SCT/Cancel") in pair.network.actions
        assert cancels == policy.cancels_contexts


# ---------------------------------------------------------------- without TLS


@pytest.mark.row("CO-11", "MS-12")
@pytest.mark.parametrize("name", ["alone", "contexts", "only asked for"])
def test_no_tls_no_service(pairs: Pairs, name: str) -> None:
    """The same octets that are taken over TLS are refused without, and nothing is changed."""
    policy = contexts("1.3") if name == "contexts" else alone(USERNAME, tls=name != "alone")
    pair = pairs(replace(policy, tls=True))
    client = pair.client()
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    pair.network.tls = False
    for exchange in list(pair.network.log):
        answer = pair.receive(exchange.request)
        assert answer.status == 500
        assert fault_of(answer.body) == "InvalidSecurity"
    assert pair.bodies == [body(1)]


@pytest.mark.row("CO-11")
@pytest.mark.parametrize("policy", [alone(USERNAME), alone(USERNAME, tls=False), contexts("1.3")])
def test_a_client_without_https(pairs: Pairs, policy: castile.EndpointPolicy) -> None:
    with pytest.raises(PolicyError, match="https://"):
        castile.Client("http://service.test/echo", policy=policy)
    with pytest.raises(PolicyError, match="https://"):
        castile.Client("http://127.0.0.1/echo", policy=policy)
    loopback = replace(FAST, plain_transport="loopback")
    with pytest.raises(PolicyError, match="https://"):
        castile.Client("http://service.test/echo", policy=policy, settings=loopback)
    for host in ("127.0.0.1", "localhost", "[::1]"):
        castile.Client(f"http://{host}/echo", policy=policy, settings=loopback).close()


@pytest.mark.row("CO-11")
@pytest.mark.parametrize(
    ("arrival", "setting", "taken"),
    [
        ({"secure": True, "client": "192.0.2.1"}, "refuse", True),
        ({"client": "127.0.0.1"}, "refuse", False),
        ({"client": "127.0.0.1"}, "loopback", True),
        ({"client": "::1"}, "loopback", True),
        ({"client": "127.0.0.1", "forwarded": True}, "loopback", False),
        ({"client": "192.0.2.1"}, "loopback", False),
        ({"client": None}, "loopback", False),
    ],
)
def test_what_counts_as_tls(pairs: Pairs, arrival: dict[str, Any], setting: Any, taken: bool) -> None:
    pair = pairs(alone(USERNAME), settings=replace(FAST, plain_transport=setting))
    client = pair.client()
    sent: list[bytes] = []

    def post(request: HTTPRequest, timeout: float) -> HTTPResponse:
        sent.append(request.body)
        raise castile.TransportError("kept")

    pair.network.post = post  # type: ignore[method-assign]
    with pytest.raises(castile.TransportError):
        client.call_raw("urn:test/Echo", BODY)
    answer = pair.loop.run(pair.service.receive(sent[0], Arrival("/", "", **arrival)))
    assert answer.status == (200 if taken else 500)


@pytest.mark.row("MS-12")
def test_a_password_in_clear_only_where_it_is_allowed(pairs: Pairs) -> None:
    policy = alone(USERNAME, tls=False)
    allowed = replace(FAST, allow_clear_password=True)
    pair = pairs(policy, settings=allowed)
    client = pair.client()
    assert client.call_raw("urn:test/Echo", BODY) == BODY
    strict = pairs(policy)
    assert fault_of(strict.receive(pair.network.log[0].request).body) == "InvalidSecurity"
    for other in (alone(ENDORSING, tls=False), contexts("1.3"), alone(USERNAME), alone(tls=False)):
        with pytest.raises(PolicyError, match="https://"):
            castile.Client("http://service.test/echo", policy=other, settings=allowed)


# ---------------------------------------------------------------- replays


@pytest.mark.row("MS-12", "MS-76")
def test_a_nonce_is_good_once(pairs: Pairs) -> None:
    """Also in another message, and as long as its time is believed."""
    pair = pairs(alone(DIGEST))
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    old = pair.network.log[0].request
    other = re.sub(rb"urn:uuid:[0-9a-f-]{36}", b"urn:uuid:11111111-1111-4111-8111-111111111111", old)
    for payload in (old, other, other.replace(b">1</x>", b">2</x>")):
        answer = pair.receive(payload)
        assert answer.status == 500
    assert pair.bodies == [body(1)]


@pytest.mark.row("MS-12")
def test_a_digest_that_is_old_or_from_the_future(pairs: Pairs) -> None:
    """A fresh Timestamp doesn't make an old token fresh."""
    import hashlib
    from base64 import b64encode

    from castile.clock import iso, system

    pair = pairs(alone(DIGEST))
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    old = pair.network.log[0].request
    for offset in (-10_000, 10_000):
        created, nonce = iso(system().utc + offset).encode(), b"n" * 16
        digest = b64encode(hashlib.sha1(nonce + created + b"lovelace-secret").digest())
        payload = re.sub(rb"(<o:Nonce[^>]*>)[^<]*", rb"\g<1>" + b64encode(nonce), old)
        payload = re.sub(rb"(</o:Nonce><u:Created>)[^<]*", rb"\g<1>" + created, payload)
        payload = re.sub(rb"(#PasswordDigest\">)[^<]*", rb"\g<1>" + digest, payload)
        assert pair.receive(payload).status == 500
    assert pair.bodies == [body(1)]


@pytest.mark.row("MS-76", "MS-57")
def test_a_message_is_taken_once(pairs: Pairs) -> None:
    pair = pairs(contexts("1.3", reliable=False))
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    for exchange in list(pair.network.log):
        assert pair.receive(exchange.request).status == 500
    assert pair.bodies == [body(1)]


# ---------------------------------------------------------------- what the client takes


@pytest.mark.row("N13", "CO-13")
@pytest.mark.parametrize("change", ["no Timestamp", "no Security", "signed", "old"])
def test_answers_that_are_less_than_the_policy(pairs: Pairs, change: str) -> None:
    pair = pairs(contexts("1.3", reliable=False))
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    forged = Forger(pair.policy, client._store, key_of(client))(Kind.APPLICATION, BODY, action="x")
    signed = re.search(rb"<c:SecurityContextToken.*</ds:Signature>", forged)
    assert signed is not None

    def answer(request: bytes, response: HTTPResponse) -> HTTPResponse:
        octets = response.body
        if change == "no Timestamp":
            octets = re.sub(rb"<u:Timestamp.*</u:Timestamp>", b"", octets)
        if change == "no Security":
            octets = re.sub(rb"<o:Security.*</o:Security>", b"", octets)
        if change == "signed":
            octets = octets.replace(b"</o:Security>", signed[0] + b"</o:Security>")
        if change == "old":
            octets = re.sub(rb"Created>20\d\d", b"Created>2019", octets)
        return replace(response, body=octets)

    pair.network.answer = answer
    with pytest.raises(SecurityFailure):
        client.call_raw("urn:test/Echo", body(2))


@pytest.mark.row("CO-11", "CO-10")
def test_who_signs_a_part_of_a_sequence_proves_its_context(pairs: Pairs) -> None:
    """Another key's signature over the Body is no proof, and spoils one."""
    pair = pairs(contexts("1.3"))
    client = pair.client()
    client.call_raw("urn:test/Echo", BODY)
    context = key_of(client).identifier
    verified = pair.opened(pair.network.requests("Echo")[0].request).verified
    prove_possession(verified, Kind.APPLICATION, context)
    with pytest.raises(SecurityFailure):
        prove_possession(verified, Kind.APPLICATION, "urn:other")
    (own,) = verified.signatures
    other = replace(own, key=replace(own.key, name="urn:other"))
    for name in ("Body", "wsrm:Sequence"):
        both = (own, replace(other, covered=frozenset({"wsu:Timestamp", name})))
        less = (replace(own, covered=frozenset({name})),)
        for signatures in (both, less):
            with pytest.raises(SecurityFailure):
                prove_possession(replace(verified, signatures=signatures), Kind.APPLICATION, context)


# ---------------------------------------------------------------- what is missing, at the start


@pytest.mark.row("MS-12", "MS-11")
@pytest.mark.parametrize(
    ("policy", "words", "given"),
    [
        (alone(USERNAME), "users=", {}),
        (alone(DIGEST), "names and passwords", {"users": lambda name, password: True}),
        (alone(ENDORSING), "trust=", {}),
        (replace(alone(), tls_client_certificate=True), "RequireClientCertificate", {}),
        (replace(alone(), http_authentication="basic"), "HTTP basic", {}),
        (replace(contexts("1.3"), application=alone(USERNAME).application), "SecureConversationToken", {}),
    ],
)
def test_what_a_service_needs(policy: castile.EndpointPolicy, words: str, given: dict[str, Any]) -> None:
    given = given or ({"users": {}} if "SecureConversation" in words else {})
    with pytest.raises(PolicyError, match=words):
        castile.Service(policy=policy, **given)


@pytest.mark.parametrize(
    ("policy", "words"), [(alone(USERNAME), "castile.Username"), (alone(ENDORSING), "castile.Certificate")]
)
def test_what_a_client_needs(policy: castile.EndpointPolicy, words: str) -> None:
    with castile.Client(TLS_ADDRESS, policy=policy) as client, pytest.raises(PolicyError, match=words):
        client.call_raw("urn:test/Echo", BODY)


