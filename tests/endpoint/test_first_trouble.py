"""What a newcomer meets first: each error says what is wrong and what to do about it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest

import castile
from castile.clock import Clock, Now, system
from castile.credentials import load_certificate
from castile.versions import SOAP_1_1
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import body, certificate, identity

ECHO: Final = "urn:test/Echo"
POLICY: Final = castile.EndpointPolicy.of("1.3")


def off_by(seconds: float) -> Clock:
    def clock() -> Now:
        now = system()
        return replace(now, utc=now.utc + seconds)

    return clock


NOT_PROVEN: Final = " (not authenticated: anybody on the way can have made it); "
TROUBLE: Final[list[tuple[str, dict[str, Any], str]]] = [
    (
        "wrong password",
        {"credentials": castile.Username("ada", "wrong")},
        ("the peer answered FailedAuthentication: The security token could not be authenticated or "
        f"authorized.{NOT_PROVEN}look at credentials=, and at the clocks of both machines"),
    ),
    (
        "another certificate",
        {"service_certificate": certificate("ada")},
        ("the peer answered SecurityTokenUnavailable: Referenced security token could not be retrieved."
        f"{NOT_PROVEN}it lacks a key that the message names: is service_certificate= up to date?"),
    ),
    (
        "a clock ten minutes behind",
        {"clock": off_by(-600)},
        (f"the peer answered MessageExpired: The message has expired.{NOT_PROVEN}"
        "compare the clocks of both machines"),
    ),
    (
        "a clock ten minutes ahead",
        {"clock": off_by(600)},
        ("the peer answered InvalidSecurity: An error was discovered processing the wsse:Security header."
        f"{NOT_PROVEN}look at the certificates, at the clocks and at the policy; with CASTILE_WIRE and "
        "CASTILE_KEYLOG set, castile explain says more"),
    ),
    (
        "another edition",
        {"policy": castile.EndpointPolicy.of("2005")},
        ("the peer answered UnsupportedContextToken: The requested context token is not supported."
        f"{NOT_PROVEN}it speaks another edition of WS-SecureConversation than the policy says"),
    ),
    (
        "another SOAP version",
        {"policy": castile.EndpointPolicy.of("1.3", soap=SOAP_1_1)},
        "the message is of another SOAP version than this endpoint (expected SOAP 1.1, got SOAP 1.2)",
    ),
    (
        "no credentials",
        {"credentials": None},
        "the policy wants a UsernameToken: give credentials=castile.Username(name, password)",
    ),
    (
        "no certificate of the service",
        {"service_certificate": None},
        "give it as service_certificate=",
    ),
]


@pytest.mark.row("CL-23", "CL-25")
@pytest.mark.parametrize(("what", "options", "text"), TROUBLE, ids=[row[0] for row in TROUBLE])
def test_what_is_told(pairs: Pairs, what: str, options: dict[str, Any], text: str) -> None:
    pair = pairs(POLICY)
    with pytest.raises(castile.CastileError, match=re.escape(text)):  # noqa: SIM117 - either may raise
        with pair.client(**options) as client:
            client.call_raw(ECHO, body(1))


@pytest.mark.row("CL-25")
def test_a_certificate_that_has_expired_is_named_at_once(pairs: Pairs) -> None:
    end = load_certificate(certificate()).not_valid_after_utc
    late = off_by((end - timedelta(days=-2)).timestamp() - system().utc)
    with pytest.raises(castile.UsageError, match=rf"^service_certificate=: .* expired on {end:%Y-%m-%d}"):
        pairs(POLICY).client(clock=late)
    ours = castile.Certificate(identity("ada"))
    mutual = castile.EndpointPolicy.of("1.3", bootstrap="mutual")
    with pytest.raises(castile.UsageError, match=r"expired on .* or this machine's clock is wrong"):
        pairs(mutual).client(credentials=ours, clock=late)


@pytest.mark.row("CL-25")
def test_a_server_that_is_down() -> None:
    ada = castile.Username("ada", "secret")
    address, text = "http://127.0.0.1:9/", r"no connection to 127\.0\.0\.1:9: .*; does the service run there"
    options: dict[str, Any] = {"service_certificate": certificate(), "timeout": 1}
    with (
        castile.Client(address, policy=POLICY, credentials=ada, **options) as client,
        pytest.raises(castile.TransportError, match=text),
    ):
        client.call_raw(ECHO, body(1))
