"""One policy per finding, and what a client or service does about errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

import castile
from castile.config import Settings, Timers
from castile.errors import PolicyError
from castile.policy import EndpointPolicy, MessagePolicy, ProtectionPolicy, SupportingToken
from castile.policy.delivery import Delivery
from castile.policy.lint import Deployment, check, lint
from castile.policy.parts import NO_PARTS, HeaderPart, Parts
from castile.policy.sets import policy_set
from castile.policy.suites import SUITES
from castile.versions import WSA_1_0, WSRM_1_1


def protected(policy: EndpointPolicy, **changes: object) -> EndpointPolicy:
    """With these changes to how messages are protected."""
    assert policy.application is not None
    return replace(policy, application=replace(policy.application, **changes))  # type: ignore[arg-type]


GOOD: Final = EndpointPolicy.of("1.3", suite="Basic256GCMSha256")
UNSIGNED: Final = Parts(signed_headers=frozenset({HeaderPart(WSA_1_0.namespace)}))
BARE: Final = ProtectionPolicy(
    "transport",
    SUITES["Basic256"],
    binding="transport",
    supporting=(SupportingToken("username"),),
    parts=NO_PARTS,
)

FINDINGS: Final[dict[str, tuple[str, str, EndpointPolicy, Deployment, str]]] = {
    "RM headers that nothing signs": (
        "F33",
        "error",
        protected(GOOD, parts=UNSIGNED),
        Deployment(),
        "messages don't sign wsrm:Sequence, wsrm:SequenceAcknowledgement, wsrm:AckRequested",
    ),
    "a Body that nothing signs": (
        "F33",
        "error",
        protected(GOOD, parts=replace(GOOD.application.parts, signed_body=False)),  # type: ignore[union-attr]
        Deployment(),
        "don't sign Body",
    ),
    "one message": (
        "F33",
        "error",
        replace(
            GOOD,
            messages=(
                MessagePolicy(
                    "urn:a",
                    "request",
                    replace(GOOD.application, parts=UNSIGNED),  # type: ignore[type-var]
                ),
            ),
        ),
        Deployment(),
        "the request urn:a don't sign wsrm:Sequence",
    ),
    "everybody reads": (
        "L-01",
        "warning",
        protected(GOOD, parts=GOOD.application.parts.in_clear),  # type: ignore[union-attr]
        Deployment(),
        "everybody on the way reads the Body",
    ),
    "encrypted lifecycle": (
        "L-03",
        "info",
        replace(GOOD, encrypt_lifecycle=True),
        Deployment(),
        "lifecycle messages are encrypted",
    ),
    "SHA-1": ("L-05", "warning", EndpointPolicy.of(suite="Basic128GCM"), Deployment(), "SHA-1 digests"),
    "CBC": ("L-05", "warning", EndpointPolicy.of(suite="Basic256Sha256"), Deployment(), "CBC encryption"),
    "3DES": ("L-05", "warning", EndpointPolicy.of(suite="TripleDesSha256"), Deployment(), "3DES"),
    "RSA 1.5": (
        "L-05",
        "warning",
        EndpointPolicy.of(suite="Basic256GCMSha256Rsa15"),
        Deployment(),
        r"RSA 1\.5 \(only with Settings\(legacy=True\)\)",
    ),
    "a password in clear": (
        "L-05",
        "warning",
        EndpointPolicy.of(secure=False, reliable=False, application=BARE),
        Deployment(),
        "the password goes in clear",
    ),
    "short tokens": (
        "L-07",
        "error",
        GOOD,
        Deployment(Settings(timers=Timers(token_lifetime=30.0))),
        "token_lifetime of 30 s is below 60 s",
    ),
    "a short memory": (
        "L-07",
        "warning",
        GOOD,
        Deployment(Settings(timers=Timers(token_cache_after_expiry=600.0)), durable=True),
        "token_cache_after_expiry of 600 s",
    ),
    "no Timestamp": ("L-10", "warning", protected(GOOD, timestamp=False), Deployment(), "have no Timestamp"),
    "a long life": (
        "L-10",
        "warning",
        GOOD,
        Deployment(Settings(timers=Timers(timestamp_ttl=7200.0))),
        "timestamp_ttl of 7200 s is more than 3600 s",
    ),
    "a wrong clock": (
        "L-10",
        "warning",
        GOOD,
        Deployment(Settings(timers=Timers(clock_skew=600.0))),
        "clock_skew of 600 s is more than 300 s",
    ),
    "order without reliability": (
        "L-11",
        "error",
        EndpointPolicy.of(reliable=False, suite="Basic256GCMSha256", delivery=Delivery(in_order=True)),
        Deployment(),
        "in order is asked for without reliable messaging",
    ),
    "no certificate": (
        "L-12",
        "error",
        GOOD,
        Deployment(service_certificate=False),
        "give service_certificate=",
    ),
    "many processes": ("L-13", "error", GOOD, Deployment(processes=2), "give them one store="),
}


@pytest.mark.row("F33", "L-01", "L-03", "L-05", "L-07", "L-10", "L-11", "L-12", "L-13")
@pytest.mark.parametrize("name", FINDINGS)
def test_findings(name: str) -> None:
    code, level, policy, deployment, text = FINDINGS[name]
    findings = lint(policy, deployment)
    assert {each.code for each in findings} <= {code, "L-01"}  # a password in clear is in a Body in clear
    (found,) = (each for each in findings if each.code == code)
    assert found.level == level
    assert re.search(text, found.text), found.text
    if level == "error":
        with pytest.raises(PolicyError, match=text):
            check(policy, deployment)
    else:
        assert check(policy, deployment) is policy


def test_a_good_policy_has_no_findings() -> None:
    assert lint(GOOD) == ()
    assert lint(GOOD, Deployment(Settings(), durable=True, processes=4)) == ()


def client(policy: EndpointPolicy) -> None:
    castile.Client("http://localhost/x", policy=policy).close()


def service(policy: EndpointPolicy) -> None:
    castile.Service(policy=policy)


@pytest.mark.row("F33")
@pytest.mark.parametrize("start", [client, service])
def test_unsigned_sequence_headers_are_refused_where_configuration_is_loaded(
    start: Callable[[EndpointPolicy], None],
) -> None:
    with pytest.raises(PolicyError, match=r"F33: .* don't sign wsrm:Sequence, .*: name them in SignedParts"):
        start(protected(policy_set("cxf-rm"), parts=UNSIGNED))


@pytest.mark.row("L-11")
def test_what_needs_addressing_is_refused_without() -> None:
    for policy in (EndpointPolicy.of(secure=False), EndpointPolicy.of(reliable=False)):
        with pytest.raises(PolicyError, match="need WS-Addressing headers"):
            replace(policy, addressed=False)
    assert EndpointPolicy.of(secure=False).reliability is WSRM_1_1
