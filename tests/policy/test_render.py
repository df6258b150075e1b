"""parse(render(p)) is p, and the layout is the one that every peer reads alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from castile.errors import CastileError, PolicyError
from castile.messages.policy import Alternative, Assertion
from castile.policy import (
    CertificateReference,
    EndpointPolicy,
    MessagePolicy,
    ProtectionPolicy,
    SupportingToken,
)
from castile.policy.delivery import Delivery
from castile.policy.description import Port
from castile.policy.parse import read
from castile.policy.parts import NO_PARTS, HeaderPart, Parts
from castile.policy.render import render
from castile.policy.sets import policy_set, policy_sets
from castile.policy.suites import SUITES
from castile.policy.vocabulary import label
from castile.versions import FAMILIES, SOAP_1_2, WSA_1_0, WSA_2004, WSRM_1_0, WSRM_1_1
from tests.policy import corpus, golden
from tests.policy.asked import changes, ports_of
from tests.policy.returned import PORT, returned


def same(policy: EndpointPolicy, port: Port = PORT) -> None:
    again = returned(policy, port)
    assert changes(policy, again) == {}
    assert again == policy
    assert again.digest == policy.digest


@pytest.mark.row("PO-09", "F32", "SV-09")
@pytest.mark.parametrize("name", policy_sets())
def test_named_sets_come_back(name: str) -> None:
    same(policy_set(name))


@pytest.mark.row("N04", "PO-08", "PO-09", "CO-23")
def test_every_port_at_hand_is_read_or_refused_with_a_reason() -> None:
    """What is said of each is written down: tests/policy/ports.txt."""
    assert golden.ports() == golden.PORTS.read_text()


@pytest.mark.row("PO-09")
def test_the_corpus_comes_back() -> None:
    count = 0
    for path in corpus.files():
        try:
            ports = ports_of(path)
        except CastileError:
            continue
        for port in ports:
            try:
                policy = read(port).policy
            except PolicyError:
                continue
            same(policy, port)
            count += 1
    assert count > 190


# ---- policies of any kind

HEADERS: Final = st.frozensets(
    st.builds(HeaderPart, st.sampled_from(["urn:h", WSA_1_0.namespace]), st.sampled_from(["", "A", "B"])),
    max_size=3,
)
TOKENS: Final = (
    SupportingToken("username", signed=True, encrypted=True),
    SupportingToken("username", encrypted=True, password="digest", nonce=True, created=True),
    SupportingToken("username", password="none"),
    SupportingToken("x509", endorsing=True),
    SupportingToken("x509", signed=True, reference="thumbprint"),
    SupportingToken("x509", signed=True, endorsing=True, reference="issuer-serial"),
)
OVER_TLS: Final = (
    SupportingToken("username", signed=True),
    SupportingToken("username", password="digest"),
    SupportingToken("x509", endorsing=True),
    SupportingToken(
        "x509", endorsing=True, parts=replace(NO_PARTS, signed_headers=frozenset({HeaderPart("urn:h", "A")}))
    ),
)
FORMS: Final[tuple[CertificateReference, ...]] = ("direct", "thumbprint", "issuer-serial", "key-identifier")


@st.composite
def parts(draw: st.DrawFn) -> Parts:
    """What a policy can name: something, at least."""
    everything = draw(st.booleans())
    made = Parts(
        signed_body=everything or draw(st.booleans()),
        signed_headers=draw(HEADERS),
        every_header=everything,
        encrypted_body=draw(st.booleans()),
        encrypted_headers=draw(HEADERS),
        required=draw(HEADERS),
    )
    named = made.signed_body or made.signed_headers or made.encrypts
    return made if named else replace(made, signed_body=True)


@st.composite
def protections(draw: st.DrawFn, token: str) -> ProtectionPolicy:
    common: dict[str, Any] = {
        "suite": draw(st.sampled_from(list(SUITES.values()))),
        "timestamp": draw(st.booleans()),
        "layout": draw(st.sampled_from(["Strict", "Lax", "LaxTsFirst", "LaxTsLast"])),
    }
    if token == "transport":
        tokens = (draw(st.sampled_from(OVER_TLS)),) if draw(st.booleans()) else ()
        made = ProtectionPolicy("transport", binding="transport", supporting=tokens, **common)
        return replace(made, parts=NO_PARTS, derived_keys=False, encrypt_signature=False)
    asymmetric = token == "x509" and draw(st.booleans())
    chosen = {each.token: each for each in draw(st.lists(st.sampled_from(TOKENS), max_size=2))}
    made = ProtectionPolicy(
        token,  # type: ignore[arg-type]
        binding="asymmetric" if asymmetric else "symmetric",
        supporting=tuple(sorted(chosen.values(), key=lambda row: TOKENS.index(row))),
        parts=draw(parts()),
        signature_confirmation=draw(st.booleans()),
        encrypt_signature=draw(st.booleans()),
        order=draw(st.sampled_from(["sign-before-encrypt", "encrypt-before-sign"])),
        derived_keys=not asymmetric and draw(st.booleans()),
        protect_tokens=draw(st.booleans()),
        encrypted_header=draw(st.booleans()),
        **common,
    )
    if token == "x509":
        made = replace(made, reference=draw(st.sampled_from(FORMS[1:])))
    if asymmetric:
        form = draw(st.sampled_from(FORMS))
        made = replace(made, initiator_reference=form, recipient_included=draw(st.booleans()))
    return made


@st.composite
def policies(draw: st.DrawFn) -> EndpointPolicy:
    family = draw(st.sampled_from(list(FAMILIES.values())))
    kind = draw(st.sampled_from(["plain", "x509", "transport", "context", "over-tls"]))
    contexts = kind in ("context", "over-tls")
    application = bootstrap = None
    if kind != "plain":
        application = draw(protections({"over-tls": "transport"}.get(kind, kind)))
    if kind == "over-tls" and application is not None:
        derived = draw(st.booleans())
        context = SupportingToken("context", endorsing=True, derived_keys=derived)
        application = replace(application, supporting=(context,))
    if contexts:
        bootstrap = draw(protections("transport" if kind == "over-tls" else "x509"))
    reliability = draw(st.sampled_from([None, WSRM_1_0, WSRM_1_1]))
    newer = reliability is WSRM_1_1
    names_token = newer and draw(st.booleans())
    times = st.sampled_from([None, 0.2, 600.0])
    delivery = Delivery(
        assurance=draw(st.sampled_from([None, "exactly-once", "at-most-once"])) if newer else None,
        in_order=draw(st.booleans()),
        inactivity=draw(times),
        acknowledgement=draw(times),
        retransmission=None if newer else draw(times),
        exponential=not newer and draw(st.booleans()),
        window=draw(st.sampled_from([None, 32])),
    )
    encrypts = application is not None and application.parts.encrypts
    tls = kind in ("transport", "over-tls") and draw(st.booleans())
    return EndpointPolicy(
        SOAP_1_2,
        WSA_1_0 if newer or draw(st.booleans()) else WSA_2004,
        reliability,
        family.conversation if contexts or kind == "x509" else None,
        family.trust if contexts or kind == "x509" else None,
        bootstrap,
        application,
        uses_sequence_str=names_token or not newer,
        sequence_token="require" if names_token else "infer",
        require_client_entropy=contexts and draw(st.booleans()),
        require_server_entropy=contexts and draw(st.booleans()),
        renews_contexts=not contexts or draw(st.booleans()),
        cancels_contexts=not contexts or draw(st.booleans()),
        encrypt_lifecycle=encrypts and draw(st.booleans()),
        tls=tls,
        tls_client_certificate=tls and draw(st.booleans()),
        http_authentication=draw(st.sampled_from([None, "basic", "digest", "ntlm", "negotiate"])),
        delivery=delivery if reliability else Delivery(),
        messages=() if application is None else draw(exceptions(application)),
    )


@st.composite
def exceptions(draw: st.DrawFn, application: ProtectionPolicy) -> tuple[MessagePolicy, ...]:
    """One message that is encrypted where the endpoint isn't."""
    if application.binding == "transport" or application.parts.encrypted_body or draw(st.booleans()):
        return ()
    more = replace(application, parts=replace(application.parts, encrypted_body=True))
    return (MessagePolicy("urn:tell", "request", more),)


def canonical(policy: EndpointPolicy) -> EndpointPolicy:
    """With exceptions the endpoint's own protection is what it is; so are lifecycle messages."""
    application = policy.application
    encrypts = application is not None and application.parts.encrypts
    return replace(policy, encrypt_lifecycle=encrypts) if policy.messages else policy


@pytest.mark.row("PO-09")
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(policies())
def test_any_policy_comes_back(policy: EndpointPolicy) -> None:
    same(canonical(policy))


# ---- the layout


def labels(alternative: Alternative) -> list[str]:
    return [label(each.name) for each in alternative]


def inner(alternative: Alternative, *path: str) -> Alternative:
    """The nested policy at the end of this path."""
    for name in path:
        (found,) = (each for each in alternative if label(each.name) == name)
        alternative = found.nested
    return alternative


@pytest.mark.row("SV-09", "PO-09")
def test_the_layout_that_suits_all() -> None:
    """Signed parts at the endpoint, encrypted ones at the messages, Trust13 twice."""
    rendered = render(policy_set("cxf-rm"))
    assert labels(rendered.endpoint) == [
        "wsam:Addressing",
        "rmp:RMAssertion",
        "sp:SymmetricBinding",
        "sp:Wss11",
        "sp:Trust13",
        "sp:SignedParts",
    ]
    assert labels(rendered.message) == ["sp:EncryptedParts"]
    path = ("sp:SymmetricBinding", "sp:ProtectionToken", "sp:SecureConversationToken", "sp:BootstrapPolicy")
    bootstrap = inner(rendered.endpoint, *path)
    assert labels(bootstrap) == [
        "sp:AsymmetricBinding",
        "sp:Wss11",
        "sp:Trust13",
        "sp:SignedParts",
        "sp:EncryptedParts",
    ]
    assert inner(bootstrap, "sp:Trust13") == inner(rendered.endpoint, "sp:Trust13")
    (signed,) = (each for each in rendered.endpoint if label(each.name) == "sp:SignedParts")
    assert {"Sequence", "SequenceAcknowledgement", "AckRequested", "UsesSequenceSTR", "To"} <= named(signed)


def named(assertion: Assertion) -> set[str]:
    return {dict(each.attributes).get("Name", "") for each in assertion.children}


@pytest.mark.row("PO-50")
def test_the_old_language_has_no_name_for_encrypted_tokens() -> None:
    for name, kind in (
        ("wcf-wshttp-username-direct", "sp:SignedSupportingTokens"),
        ("wcf-ws2007http-username-direct", "sp:SignedEncryptedSupportingTokens"),
    ):
        path = ("sp:SymmetricBinding", "sp:ProtectionToken", "sp:SecureConversationToken")
        bootstrap = inner(render(policy_set(name)).endpoint, *path, "sp:BootstrapPolicy")
        assert kind in labels(bootstrap)


@pytest.mark.row("PO-09")
def test_what_no_policy_says_is_refused() -> None:
    base = policy_set("cxf-rm")
    assert base.application is not None
    less = replace(base.application, parts=replace(base.application.parts, signed_body=False))
    other = replace(base.application, suite=SUITES["Basic128"])
    for protection in (less, other, None):
        odd = replace(base, messages=(MessagePolicy("urn:ask", "request", protection),))
        with pytest.raises(PolicyError, match=r"can't be written|may differ in parts"):
            render(odd)


@pytest.mark.row("PO-09")
def test_digests_tell_policies_apart() -> None:
    base = policy_set("metro-rm")
    assert base.application is not None
    others = [
        replace(base, delivery=replace(base.delivery, window=33)),
        replace(base, messages=(MessagePolicy("urn:ask", "request", None),)),
        replace(base, tls=True),
        replace(base, encrypt_lifecycle=True),
        replace(base, http_authentication="basic"),
        replace(base, application=replace(base.application, supporting=(TOKENS[0],))),
        replace(base, application=replace(base.application, suite=SUITES["Basic256"])),
        replace(base, application=replace(base.application, parts=NO_PARTS)),
    ]
    assert len({each.digest for each in (base, *others)}) == len(others) + 1
