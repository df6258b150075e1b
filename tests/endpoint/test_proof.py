"""How a client gets the key of its context: every form that a trust service answers in, and what
a service answers to clients that bring no entropy (features SC-04, SC-05, F03)."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

import castile
from castile import store
from castile.clock import system
from castile.credentials import load_certificate
from castile.endpoint import agreement, inbound
from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Outgoing, prepare
from castile.endpoint.party import Party
from castile.errors import PeerError, SecurityFailure
from castile.messages import trust
from castile.messages.conversation import SecurityContextToken
from castile.messages.security import EncryptedKey, KeyInfo, SecurityTokenReference
from castile.messages.trust import RequestSecurityToken, RequestSecurityTokenResponse
from castile.policy.suites import RSA_OAEP
from castile.protocol.conversation import Conversation
from castile.security.encryption import seal_key
from castile.security.keys import p_sha1
from castile.transport.http import HTTPRequest, HTTPResponse
from castile.versions import THUMBPRINT_SHA1, WST_1_3, X509_SKI, Trust
from castile.waiting import blocking
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import ADDRESS, FAMILIES, FAST, USERS, certificate, fault_of, identity
from tests.messages.elements import element

SERVER: Final = bytes(range(100, 132))
WHOLE: Final = bytes(range(32))
TOKEN: Final = SecurityContextToken("urn:uuid:1", id="sct-1")
families = pytest.mark.parametrize("family", FAMILIES)
Answer = Callable[[RequestSecurityToken], RequestSecurityTokenResponse]


@dataclass
class TrustService:
    """A client's HTTP protocol that answers a request for a token with whatever a test says."""

    policy: castile.EndpointPolicy
    answer: Answer
    collection: bool | None = None
    """None: as the edition has it."""
    asked: list[RequestSecurityToken] = field(default_factory=list)

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        key, leaf = castile.Certificate(identity("service")).load()
        party = Party(
            "service", "/", self.policy, store.open(None), os.urandom, certificate=leaf, key=key, users=USERS
        )
        try:
            found = inbound.read(party, request.body, system(), request=True)
            assert isinstance(found.body, RequestSecurityToken)
            assert self.policy.trust is not None
            self.asked.append(found.body)
            row: Trust = self.policy.trust
            if self.collection is not None:
                row = replace(row, collection=self.collection)
            answer = Outgoing(
                Kind.ISSUE_RESPONSE,
                row.action(Kind.ISSUE_RESPONSE.value),
                self.answer(found.body).render(row),
                relates_to=found.addressing.message_id,
                key=found.verified.reply_key,
            )
            payload = prepare(party, answer, system()).payload
        finally:
            party.store.close()
        return HTTPResponse(200, payload, "application/soap+xml")

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        return self.post(request, timeout)

    def close(self) -> None:
        """Nothing is kept open."""


def bootstrapped(service: TrustService) -> Conversation:
    """The context that a client makes of this service's answer."""
    client = castile.Client(
        ADDRESS,
        policy=service.policy,
        credentials=castile.Username("ada", USERS["ada"]),
        service_certificate=certificate(),
        http=service,
        settings=FAST,
    )
    try:
        blocking(client._pump.conversations.identify(1e6))
        state = client._pump.conversations.current()
        assert isinstance(state, Conversation)
        return state
    finally:
        client.close(keep=True)


def secret(service: TrustService) -> bytes:
    return bootstrapped(service).instances[-1].secret


def policy(family: str, **settings: bool) -> castile.EndpointPolicy:
    return castile.EndpointPolicy.of(family, **settings)  # type: ignore[arg-type]


def computed(asked: RequestSecurityToken) -> RequestSecurityTokenResponse:
    return RequestSecurityTokenResponse(token=TOKEN, computed_key=True, entropy=SERVER)


def whole(asked: RequestSecurityToken) -> RequestSecurityTokenResponse:
    return RequestSecurityTokenResponse(token=TOKEN, proof_secret=WHOLE)


def echoed(asked: RequestSecurityToken) -> RequestSecurityTokenResponse:
    return RequestSecurityTokenResponse(token=TOKEN, proof_secret=asked.entropy)


def taken(asked: RequestSecurityToken) -> RequestSecurityTokenResponse:
    return RequestSecurityTokenResponse(token=TOKEN)


@pytest.mark.row("SC-04", "F03", "SC-05")
@families
@pytest.mark.parametrize("collection", [True, False])
def test_members_that_may_be_missing(family: str, collection: bool) -> None:
    """CXF sends no TokenType and no KeySize; bare or wrapped in either edition."""
    for bits in (None, 256, 512):
        service = TrustService(policy(family), _answer(key_size=bits), collection)
        state = bootstrapped(service)
        (asked,) = service.asked
        assert asked.entropy is not None
        assert state.instances[-1].secret == p_sha1(asked.entropy, SERVER, (bits or 256) // 8)
        assert state.identifier == TOKEN.identifier


@pytest.mark.row("SC-05")
@families
def test_a_key_of_one_side(family: str) -> None:
    assert secret(TrustService(policy(family), whole)) == WHOLE
    for answer in (echoed, taken):
        service = TrustService(policy(family), answer)
        assert secret(service) == service.asked[0].entropy


@pytest.mark.row("SC-05")
@families
@pytest.mark.parametrize(
    ("answer", "setting"),
    [
        (whole, "require_client_entropy"),
        (echoed, "require_server_entropy"),
        (taken, "require_server_entropy"),
    ],
)
def test_a_key_of_one_side_that_the_policy_forbids(family: str, answer: Answer, setting: str) -> None:
    with pytest.raises(SecurityFailure, match="alone"):
        secret(TrustService(policy(family, **{setting: True}), answer))
    other = {"require_client_entropy", "require_server_entropy"} - {setting}
    assert len(secret(TrustService(policy(family, **dict.fromkeys(other, True)), answer))) == 32
    both = dict.fromkeys(("require_client_entropy", "require_server_entropy"), True)
    assert len(secret(TrustService(policy(family, **both), computed))) == 32


def _answer(**changes: object) -> Answer:
    return lambda asked: replace(computed(asked), **changes)  # type: ignore[arg-type]


@pytest.mark.row("SC-05", "SC-06")
@families
@pytest.mark.parametrize(
    "answer",
    [
        _answer(entropy=None),
        _answer(entropy=b""),
        _answer(entropy=SERVER[:15]),
        _answer(key_size=64),
        _answer(key_size=129),
        _answer(key_size=1024),
        _answer(computed_key=False),
        _answer(computed_key=False, entropy=None, proof_secret=b""),
        _answer(computed_key=False, entropy=None, proof_secret=WHOLE[:15]),
        _answer(computed_key=False, entropy=None, proof_secret=bytes(65)),
        _answer(token=None),
        _answer(token_type="urn:another"),
    ],
    ids=range(12),
)
def test_keys_that_are_refused(family: str, answer: Answer) -> None:
    with pytest.raises(SecurityFailure):
        secret(TrustService(policy(family), answer))


@pytest.mark.row("SC-05")
@families
def test_a_key_computed_in_another_way(family: str) -> None:
    class Hashed(RequestSecurityTokenResponse):
        def render(self, edition: Trust) -> bytes:
            return RequestSecurityTokenResponse.render(self, edition).replace(b"/CK/PSHA1", b"/CK/HASH")

    def answer(asked: RequestSecurityToken) -> RequestSecurityTokenResponse:
        return Hashed(token=TOKEN, computed_key=True, entropy=SERVER)

    with pytest.raises(PeerError, match="PSHA1"):
        secret(TrustService(policy(family), answer))


@pytest.mark.row("SC-05")
@pytest.mark.parametrize("form", [THUMBPRINT_SHA1, X509_SKI])
def test_a_key_encrypted_for_the_client(form: str) -> None:
    key, leaf = castile.Certificate(identity("client")).load()
    party = Party("client", ADDRESS, policy("1.3"), store.open(None), os.urandom, certificate=leaf, key=key)
    public = leaf.public_key()
    assert isinstance(public, RSAPublicKey)

    def answer(name: str, who: RSAPublicKey, octets: bytes = WHOLE) -> RequestSecurityTokenResponse:
        reference = _named(name, form)
        sealed = EncryptedKey(
            id=None,
            algorithm=RSA_OAEP,
            key=KeyInfo(reference),
            cipher=seal_key(who, octets, RSA_OAEP),
            digest=None,
        )
        written = RequestSecurityTokenResponse(token=TOKEN, proof_key=sealed).render(WST_1_3)
        return RequestSecurityTokenResponse.parse(element(written), WST_1_3)

    try:
        assert agreement.agreed(party, answer("client", public), SERVER) == WHOLE
        with pytest.raises(SecurityFailure, match="somebody else"):
            agreement.agreed(party, answer("service", public), SERVER)
        stranger = load_certificate(certificate()).public_key()
        assert isinstance(stranger, RSAPublicKey)
        with pytest.raises(SecurityFailure):
            agreement.agreed(party, answer("client", stranger), SERVER)
    finally:
        party.store.close()


def _named(name: str, form: str) -> SecurityTokenReference:
    leaf = load_certificate(certificate(name))
    if form == THUMBPRINT_SHA1:
        octets = leaf.fingerprint(hashes.SHA1())
    else:
        octets = leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    return SecurityTokenReference(key_identifier=b64encode(octets).decode(), value_type=form)


# ---------------------------------------------------------------- the service's side


def _without_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on clients bring no entropy."""
    written = RequestSecurityToken.render
    monkeypatch.setattr(
        RequestSecurityToken, "render", lambda self, edition: written(replace(self, entropy=None), edition)
    )


@pytest.mark.row("SC-05", "TR-09")
@families
def test_a_client_without_entropy_gets_the_whole_key(
    pairs: Pairs, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pairs(family)
    _without_entropy(monkeypatch)
    with pair.client() as client:
        assert client.call_raw("urn:test/Echo", b'<x xmlns="urn:x"></x>') == b'<x xmlns="urn:x"></x>'
        response = pair.network.log[0].response
        state = client._pump.conversations.current()
        assert isinstance(state, Conversation)
        held = pair.service.store.run(lambda tx: tx.contexts()).result()[0]
        assert held.state.instances[-1].secret == state.instances[-1].secret
    assert b"BinarySecret" not in response  # it travels encrypted


@pytest.mark.row("SC-05")
@families
def test_a_service_that_wants_the_clients_entropy(
    pairs: Pairs, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pairs(policy(family, require_client_entropy=True))
    _without_entropy(monkeypatch)
    with pytest.raises(castile.FaultReceived, match="RequestFailed"):
        pair.client().call_raw("urn:test/Echo", b'<x xmlns="urn:x"></x>')
    assert fault_of(pair.network.log[0].response) == "RequestFailed"
    assert pair.service.store.run(lambda tx: tx.contexts()).result() == []


@pytest.mark.row("SC-22")
@families
def test_targets_as_cxf_writes_them(family: str) -> None:
    """The token itself stands where a reference is usual."""
    edition = policy(family)
    row, conversation = edition.trust, edition.conversation
    assert row is not None
    assert conversation is not None
    token = SecurityContextToken("urn:uuid:1", "urn:uuid:2", "a").render(conversation).decode()
    for name in ("RenewTarget", "CancelTarget"):
        text = (
            f'<t:RequestSecurityToken xmlns:t="{row.namespace}"><t:RequestType>{row.uri("Renew")}'
            f"</t:RequestType><t:{name}>{token}</t:{name}></t:RequestSecurityToken>"
        )
        asked = trust.RequestSecurityToken.parse(element(text.encode()), row)
        target = asked.renew_target if name == "RenewTarget" else asked.cancel_target
        assert target == SecurityTokenReference(
            uri="urn:uuid:1", value_type=conversation.token_type, instance="urn:uuid:2"
        )
