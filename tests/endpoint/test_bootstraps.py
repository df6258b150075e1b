"""Every bootstrap in every family and suite, end to end: who a client is, what protects what."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import castile
from castile import xml
from castile.config import Limits
from castile.errors import SecurityFailure
from castile.messages import soap
from castile.policy import ENDORSING, USERNAME, ProtectionPolicy
from castile.policy.parts import Parts
from castile.policy.suites import SUITES
from castile.security.certificates import CertificateKey
from castile.store import Transaction
from castile.transport.http import HTTPResponse
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import FAMILIES, FAST, Pair, body, certificate, fast, identity, until

Policy = castile.EndpointPolicy
ECHO: Final = "urn:test/Echo"
TELL: Final = "urn:test/Tell"
BOOTSTRAPS: Final = ("username", "certificate", "anonymous", "mutual")
EACH_CIPHER: Final = ("Basic256", "Basic256Sha256", "Basic128", "Basic192Sha256", "TripleDes", "Basic128GCM")
PRINCIPALS: Final = {"username": "ada", "certificate": "CN=ada", "anonymous": "", "mutual": "CN=ada"}


def of(bootstrap: str, family: str = "1.3", suite: str = "Basic256", **changes: Any) -> Policy:
    """A policy whose bootstrap differs from the usual one in these."""
    made = Policy.of(family, suite=suite, bootstrap=bootstrap)  # type: ignore[arg-type]
    assert made.bootstrap is not None
    return replace(made, bootstrap=replace(made.bootstrap, **changes))


def flow(pair: Pair, **options: Any) -> None:
    """Calls, one-way messages and the end, all in order."""
    with pair.client(**options) as client:
        assert client.call_raw(ECHO, body(1)) == body(1)
        client.send_raw(TELL, body(2))
        assert client.call_raw(ECHO, body(3)) == body(3)
        assert client.sequence.wait_until_acknowledged(10)
    assert pair.settled(3) == [body(1), body(2), body(3)]
    assert pair.network.actions[-1][1].startswith("RSTR/SCT")  # the context was given back


@pytest.mark.row("F01", "F02", "MS-30", "CO-20")
@pytest.mark.parametrize("suite", EACH_CIPHER)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_the_whole_flow(pairs: Pairs, bootstrap: str, family: str, suite: str) -> None:
    pair = pairs(of(bootstrap, family, suite))
    flow(pair)
    assert {context.principal for context in pair.contexts} == {PRINCIPALS[bootstrap]}
    request, response = pair.network.log[0].request, pair.network.log[0].response
    parts = tags(request)
    assert ("EncryptedKey" in parts, "BinarySecurityToken" in parts) == (
        True,
        bootstrap in ("certificate", "mutual"),
    )
    assert parts.count("DerivedKeyToken") == (0 if bootstrap == "mutual" else 2)
    assert ("EncryptedKey" in tags(response)) == (bootstrap == "mutual")
    sealed = {"username": 1, "certificate": 3, "anonymous": 2, "mutual": 1}
    assert tags(response).count("EncryptedData") == sealed[bootstrap]


def tags(payload: bytes) -> list[str]:
    """What stands in the Security header."""
    envelope = soap.parse(xml.parse(payload, Limits()), Limits(), len(payload))
    assert envelope.security is not None
    return [xml.local_name(child) for child in envelope.security]


@pytest.mark.row("MS-35")
@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
@pytest.mark.parametrize("suite", ["Basic256Rsa15", "Basic128Sha256Rsa15"])
def test_rsa_1_5_under_the_legacy_switch_only(pairs: Pairs, bootstrap: str, suite: str) -> None:
    pair = pairs(of(bootstrap, suite=suite), settings=replace(FAST, legacy=True))
    flow(pair)
    pair = pairs(of(bootstrap, suite=suite))
    with pytest.raises(castile.FaultReceived) as refusal, pair.client() as client:
        client.call_raw(ECHO, body(1))
    assert refusal.value.fault.subcode is not None
    assert refusal.value.fault.subcode[1] == "InvalidSecurity"


CHANGES: Final[list[dict[str, Any]]] = [
    {"order": "encrypt-before-sign"},
    {"encrypt_signature": False},
    {"order": "encrypt-before-sign", "encrypt_signature": False, "layout": "Lax"},
    {"layout": "LaxTsFirst", "protect_tokens": True},
    {"layout": "LaxTsLast"},
    {"protect_tokens": True, "reference": "issuer-serial", "initiator_reference": "thumbprint"},
    {"reference": "key-identifier", "initiator_reference": "issuer-serial"},
    {"reference": "direct", "initiator_reference": "key-identifier", "protect_tokens": True},
    {"signature_confirmation": True},
]


@pytest.mark.row("MS-02", "MS-04", "MS-18", "MS-50", "MS-54", "MS-55")
@pytest.mark.parametrize("changes", CHANGES, ids=lambda row: "-".join(map(str, row.values())))
@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_every_shape_of_a_bootstrap(pairs: Pairs, bootstrap: str, changes: dict[str, Any]) -> None:
    policy = of(bootstrap, **changes)
    assert policy.bootstrap is not None
    for derived in (True, False):
        made = replace(policy, bootstrap=replace(policy.bootstrap, derived_keys=derived))
        pair = pairs(made)
        with pair.client() as client:
            assert client.call_raw(ECHO, body(1)) == body(1)
        assert pair.contexts[0].principal == PRINCIPALS[bootstrap]


@pytest.mark.row("TR-09")
@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_a_bootstrap_in_clear_issues_nothing(pairs: Pairs, bootstrap: str) -> None:
    """Whoever listens would have the key."""
    pair = pairs(of(bootstrap, parts=Parts().in_clear))
    with pair.client() as client, pytest.raises(castile.FaultReceived, match="RequestFailed"):
        client.call_raw(ECHO, body(1))


@pytest.mark.row("MS-02", "MS-04", "SC-11")
@pytest.mark.parametrize(
    "changes", [*CHANGES, {"parts": Parts().in_clear}], ids=lambda row: "-".join(map(str, row))
)
@pytest.mark.parametrize("derived", [True, False])
def test_every_shape_of_the_application_s_messages(
    pairs: Pairs, changes: dict[str, Any], derived: bool
) -> None:
    made = Policy.of("2005")
    assert made.application is not None
    section = replace(made.application, derived_keys=derived, **changes)
    flow(pairs(replace(made, application=section)))


# ---------------------------------------------------------------- confirmations


def confirming(family: str = "1.3") -> Policy:
    made = of("certificate", family)
    assert made.application is not None
    return replace(made, application=replace(made.application, signature_confirmation=True))


@pytest.mark.row("MS-54")
@pytest.mark.parametrize("family", FAMILIES)
def test_confirmations_in_every_answer_through_loss_and_repetition(pairs: Pairs, family: str) -> None:
    pair = pairs(confirming(family))
    fates = itertools.cycle([None, "drop-response", None, "drop-request", "double"])
    pair.network.fate = lambda number, payload: next(fates) if number > 2 else None
    with pair.client() as client:
        for number in range(1, 9):
            assert client.call_raw(ECHO, body(number)) == body(number)
        pair.network.fate = lambda number, payload: None
        assert client.sequence.wait_until_acknowledged(10)
    assert pair.bodies == [body(number) for number in range(1, 9)]


@pytest.mark.row("MS-54")
def test_an_answer_to_another_request_is_refused(pairs: Pairs) -> None:
    """A response to one exchange, replayed on another: its signature is right, its confirmation isn't."""
    pair = pairs(confirming(), settings=fast(call_timeout=1.0))
    kept: list[HTTPResponse] = []

    def answer(request: bytes, response: HTTPResponse) -> HTTPResponse:
        if b"urn:test/Echo<" not in request:
            return response
        kept.append(response)
        return kept[0]

    with pair.client() as client:
        assert client.call_raw(ECHO, body(1)) == body(1)
        pair.network.answer = answer
        kept.append(pair.network.answer(pair.network.sent[-1], _response(pair)))
        with pytest.raises(castile.InDoubt, match="confirms other signatures"):
            client.call_raw(ECHO, body(2))
        pair.network.answer = lambda request, response: response
        assert client.call_raw(ECHO, body(3)) == body(3)


def _response(pair: Pair) -> HTTPResponse:
    exchange = next(each for each in reversed(pair.network.log) if each.asked == "Echo")
    return HTTPResponse(exchange.status, exchange.response, pair.policy.soap.content_type, None)


@pytest.mark.row("MS-54")
def test_what_may_be_confirmed_outlives_the_process(pairs: Pairs, tmp_path: object) -> None:
    pair = pairs(confirming(), settings=fast(call_timeout=0.3))
    pair.network.fate = lambda number, payload: "drop-response" if b"urn:test/Echo<" in payload else None
    store = f"{tmp_path}/client.db"
    client = pair.client(store=store)
    with pytest.raises(castile.InDoubt):
        client.call_raw(ECHO, body(1))

    def signed(tx: Transaction) -> list[int]:
        rows = [row for record in tx.sources() for row in tx.outbox(record.state.key)]
        return [len(row.signatures or ()) for row in rows if row.kind == "application"]

    counts = client._store.run(signed).result()
    client.close(keep=True)
    assert counts
    assert 1 <= counts[0] <= 8
    pair.network.fate = lambda number, payload: None
    with pair.client(store=store) as again:
        until(lambda: any(each.reply is not None for each in again.unfinished()))
        assert again.unfinished()[0].reply is not None
    assert pair.bodies == [body(1)]


# ---------------------------------------------------------------- who may sign


@pytest.mark.row("MS-11", "F02")
@pytest.mark.parametrize("bootstrap", ["certificate", "mutual"])
def test_a_client_whom_nobody_trusts_gets_no_context(pairs: Pairs, bootstrap: str) -> None:
    pair = pairs(of(bootstrap), trust=[certificate("mallory")])
    with pytest.raises(castile.FaultReceived) as refusal, pair.client("ada") as client:
        client.call_raw(ECHO, body(1))
    assert refusal.value.fault.subcode is not None
    assert refusal.value.fault.subcode[1] == "InvalidSecurityToken"
    assert pair.party.store.run(lambda tx: tx.contexts(ended=True)).result() == []
    with pair.client("mallory") as client:
        client.call_raw(ECHO, body(1))
    assert pair.contexts[0].principal == "CN=mallory"


@pytest.mark.row("F02", "MS-11", "MS-20")
@pytest.mark.parametrize("trust", [(), "mallory"])
def test_an_answer_signed_by_another_certificate_is_refused(pairs: Pairs, trust: tuple[()] | str) -> None:
    """Also by one of an issuer that is trusted: it is vouched for under its own name only."""
    pair = pairs(of("mutual", reference="direct"))
    key, leaf = castile.Certificate(identity("forger")).load()
    issuers: list[bytes] = []
    if trust:
        issuers, leaf = issued("forger", leaf)
    pair.party.keyring.own = (CertificateKey(leaf, key), *pair.party.keyring.own)
    with (
        pytest.raises(SecurityFailure, match=r"nobody who is trusted|another one") as refusal,
        pair.client(trust=issuers) as client,
    ):
        client.call_raw(ECHO, body(1))
    assert refusal.value.part == "wsse:BinarySecurityToken"
    assert client._store.location is None


def issued(name: str, leaf: x509.Certificate) -> tuple[list[bytes], x509.Certificate]:
    """An issuer's certificate, and this one as issued by it."""
    key = rsa.generate_private_key(65_537, 2_048)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])

    def made(subject: x509.Name, public: rsa.RSAPublicKey, *, authority: bool) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(leaf.not_valid_before_utc)
            .not_valid_after(leaf.not_valid_after_utc)
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .sign(key, hashes.SHA256())
        )

    public = leaf.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    top = made(issuer, key.public_key(), authority=True)
    return [top.public_bytes(Encoding.PEM)], made(leaf.subject, public, authority=False)


@pytest.mark.row("MS-11")
@pytest.mark.parametrize("bootstrap", ["certificate", "mutual"])
def test_a_client_whose_issuer_is_trusted_goes_by_its_name(pairs: Pairs, bootstrap: str) -> None:
    key, leaf = castile.Certificate(identity("ada")).load()
    issuers, leaf = issued("ada", leaf)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pair = pairs(of(bootstrap), trust=issuers)
    chained = castile.Certificate(issuers[0] + leaf.public_bytes(Encoding.PEM) + pem)
    with pair.client(credentials=chained) as client:
        client.call_raw(ECHO, body(1))
    assert pair.contexts[0].principal == "CN=ada"


@pytest.mark.row("CO-20")
@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_a_context_is_renewed_under_every_bootstrap(pairs: Pairs, bootstrap: str) -> None:
    pair = pairs(of(bootstrap))
    with pair.client() as client:
        assert client.call_raw(ECHO, body(1)) == body(1)
        context = client.context
        assert context is not None
        before = context.instance
        context.renew()
        assert client.context is not None
        assert client.context.instance != before
        assert client.call_raw(ECHO, body(2)) == body(2)
    assert pair.bodies == [body(1), body(2)]


@pytest.mark.row("MS-11")
def test_what_an_endpoint_must_be_given(pairs: Pairs) -> None:
    for bootstrap in ("certificate", "mutual"):
        with pytest.raises(castile.PolicyError, match="trust="):
            castile.Service(policy=of(bootstrap), credentials=castile.Certificate(identity("service")))
        pair = pairs(of(bootstrap))
        with pytest.raises(castile.PolicyError, match=r"castile\.Certificate"):
            pair.client(credentials=castile.Username("ada", "x")).call_raw(ECHO, body(1))


@pytest.mark.row("MS-12")
def test_a_user_and_a_certificate_together(pairs: Pairs) -> None:
    """A policy may want both: the user is the principal, and both are proven."""
    made = of("username", supporting=(USERNAME, ENDORSING))
    pair = pairs(made)
    both = [castile.Username("ada", "lovelace-secret"), castile.Certificate(identity("ada"))]
    with pair.client(credentials=both) as client:
        client.call_raw(ECHO, body(1))
    assert pair.contexts[0].principal == "ada"
    with pytest.raises(castile.PolicyError, match=r"castile\.Certificate"):
        pair.client(credentials=both[:1]).call_raw(ECHO, body(1))


@pytest.mark.row("SC-07")
@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_what_a_context_was_made_by_is_recorded_on_both_sides(pairs: Pairs, bootstrap: str) -> None:
    pair = pairs(of(bootstrap))
    client = pair.client()
    client.call_raw(ECHO, body(1))
    stores = {"client": client._store, "service": pair.party.store}
    for side, store in stores.items():
        (record,) = store.run(lambda tx: tx.contexts()).result()
        state = record.state
        assert (record.side, record.principal, state.principal) == (side, *[PRINCIPALS[bootstrap]] * 2)
        assert state.policy == pair.policy.digest
        assert state.endpoint == pair.party.address
        assert pair.policy.conversation is not None
        assert state.edition == pair.policy.conversation.namespace
    policies = [of(each, family, suite) for each in BOOTSTRAPS for family in FAMILIES for suite in SUITES]
    policies += [of("username", layout="Lax"), of("username", order="encrypt-before-sign")]
    assert len({each.digest for each in policies}) == len(policies)


def test_a_policy_is_a_policy() -> None:
    assert isinstance(of("mutual").bootstrap, ProtectionPolicy)
    assert re.match("Basic", of("mutual").bootstrap.suite.name)  # type: ignore[union-attr]
