"""What a service's policy says is signed and encrypted, and what its messages have, part by part.

The policies are those that WCF and CXF published with the recorded conversations. The parts are
found by opening the messages with every key of the conversation and no policy at all.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from castile.errors import PolicyError
from castile.policy import Direction, EndpointPolicy, ProtectionPolicy
from castile.policy.parse import read
from castile.policy.parts import names
from castile.versions import WSRM, part_name
from castile.xml import name_of
from tests.conftest import shared
from tests.policy.asked import ports_of
from tests.replay.recording import Exchange, Recording, Spoken, load

REFUSED: Final = {
    "wcf/ws05-none-nego-sc-norm": "mssp:SslContextToken",
    "wcf/ws05-user-nego-sc-rm": "mssp:SslContextToken",
}
"""Conversations whose policy can't be honoured, by the assertion."""
OTHERWISE: Final = {
    "wcf/raw-ws05-nosec-nonego-nosc-rm": "messages made by hand, and no WSDL",
    "cxf/rm11-only": "run with echo.wsdl less its security, which isn't recorded",
}
"""Folders without a policy of their own."""
EXCEPTIONS: Final = {
    "wcf/fault-unsecured-client 01-request.xml": "a client without security: that was the test",
    "wcf/fault-badpassword 01-request.xml": "a wrong password: nothing of it is verified",
}
"""Messages that can't be compared. Beside them: faults about security, which WCF sends without any."""


def folders() -> list[str]:
    try:
        places = [shared("vectors", peer) for peer in ("wcf", "cxf")]
    except pytest.skip.Exception:
        return []
    found = [folder for place in places for folder in sorted(place.iterdir()) if folder.is_dir()]
    return [f"{each.parent.name}/{each.name}" for each in found if any(each.glob("*-request.xml"))]


def folder_of(name: str) -> Path:
    return shared("vectors", *name.split("/"))


@pytest.mark.row("N04", "PO-50", "MS-50", "MS-58", "CO-09", "MS-70")
@pytest.mark.parametrize("name", [each for each in folders() if each not in REFUSED | OTHERWISE] or ["wcf"])
def test_what_is_signed_and_encrypted_is_what_the_policy_says(name: str) -> None:
    recording = load(folder_of(name))
    (port,) = ports_of(recording.wsdl)
    policy = read(port).policy
    differences = [
        f"{message.name}: {kind}: {', '.join(sorted(expected ^ found))}"
        for exchange in recording.exchanges
        for message, direction in spoken(exchange)
        for kind, expected, found in compared(message, direction, policy, recording)
        if expected != found
    ]
    assert differences == []


@pytest.mark.row("PO-40", "PO-08")
@pytest.mark.parametrize("name", REFUSED)
def test_a_policy_that_cannot_be_honoured_is_refused_by_name(name: str) -> None:
    (port,) = ports_of(folder_of(name) / "service.wsdl")
    with pytest.raises(PolicyError, match=rf"service\.wsdl:\d+: {REFUSED[name]} .*negotiateService"):
        read(port)


def spoken(exchange: Exchange) -> list[tuple[Spoken, Direction]]:
    found: list[tuple[Spoken, Direction]] = [(exchange.request, "request")]
    return found if exchange.response is None else [*found, (exchange.response, "response")]


Row = tuple[str, frozenset[str], frozenset[str]]


def compared(
    message: Spoken, direction: Direction, policy: EndpointPolicy, recording: Recording
) -> list[Row]:
    """Kind, what the policy says, what the message has."""
    if f"{recording.name} {message.name}" in EXCEPTIONS:
        assert message.opened.verified is None
        return []
    protection = protecting(message, direction, policy)
    if not message.secured and (protection is None or message.fault is not None):
        return []
    verified = message.opened.verified
    assert verified is not None, f"{message.name}: {message.opened.error}"
    assert protection is not None, f"{message.name} is secured, and the policy says nothing of it"
    primary = [each.covered for each in verified.signatures if not each.endorsing]
    endorsers = [each.key.kind for each in verified.signatures if each.endorsing]
    return [
        ("signed", signed(message, direction, protection), frozenset().union(*primary)),
        ("encrypted", encrypted(direction, protection), verified.encrypted),
        ("endorsed", endorsed(message, direction, protection), frozenset(endorsers)),
    ]


def protecting(message: Spoken, direction: Direction, policy: EndpointPolicy) -> ProtectionPolicy | None:
    """The level that a message belongs to: lifecycle messages and Cancel are the application's, and
    nothing of them is encrypted (WCF and CXF have that built in; features CO-09)."""
    action = message.headers.action
    lifecycle = any(action.startswith(f"{namespace}/") for namespace in WSRM)
    if "/SCT" in action and not action.endswith("/Cancel"):
        return policy.bootstrap
    if lifecycle or action.endswith("/SCT/Cancel"):
        application = policy.application
        return None if application is None else replace(application, parts=application.parts.in_clear)
    return policy.protection(action, direction)


def signed(message: Spoken, direction: Direction, protection: ProtectionPolicy) -> frozenset[str]:
    """By the primary signature; over TLS by that of the endorsing token, if it is there."""
    if protection.binding == "transport":
        endorses = direction == "request" and any(row.endorsing for row in protection.supporting)
        return frozenset({"wsu:Timestamp"}) if endorses else frozenset()
    parts, envelope = protection.parts, message.opened.envelope
    found = {"Body"} if parts.signed_body else set()
    found |= {"wsu:Timestamp"} if protection.timestamp else set()
    blocks = [name_of(each) for each in envelope.headers if each is not envelope.security]
    found |= {part_name(*each) for each in blocks if names(parts.signed_headers, *each)}
    return frozenset(found | beside(direction, protection, "signed"))


def encrypted(direction: Direction, protection: ProtectionPolicy) -> frozenset[str]:
    found = {"Body"} if protection.parts.encrypted_body else set()
    found |= {"ds:Signature"} if found and protection.encrypt_signature else set()
    return frozenset(found | beside(direction, protection, "encrypted"))


def beside(direction: Direction, protection: ProtectionPolicy, how: str) -> set[str]:
    """The tokens of requests, and what responses confirm."""
    if direction == "request":
        username = protection.username
        return {"wsse:UsernameToken"} if username is not None and getattr(username, how) else set()
    seals = protection.encrypt_signature and protection.parts.encrypts
    confirms = protection.signature_confirmation and (how == "signed" or seals)
    return {"wsse11:SignatureConfirmation"} if confirms else set()


def endorsed(message: Spoken, direction: Direction, protection: ProtectionPolicy) -> frozenset[str]:
    """By what kinds of key; a renewal by the key that it renews, too (WS-SC 1.3, 5)."""
    if direction != "request" or protection.binding == "transport":
        return frozenset()
    renews = message.headers.action.endswith("/SCT/Renew")
    kinds = {"certificate"} if protection.endorsing is not None else set()
    return frozenset(kinds | ({"context"} if renews else set()))


@pytest.mark.row("N04")
def test_an_altered_policy_does_not_fit() -> None:
    """The comparison sees a header that isn't named, a Body that isn't encrypted, a token left out."""
    recording = load(folder_of("wcf/ws05-user-nonego-sc-rm"))
    (port,) = ports_of(recording.wsdl)
    policy = read(port).policy
    application, bootstrap = policy.application, policy.bootstrap
    assert application is not None
    assert bootstrap is not None
    unnamed = frozenset(each for each in application.parts.signed_headers if each.name != "Sequence")
    altered = (
        replace(policy, application=replace(application, parts=application.parts.in_clear)),
        replace(policy, application=replace(application, timestamp=False)),
        replace(
            policy,
            application=replace(application, parts=replace(application.parts, signed_headers=unnamed)),
        ),
        replace(policy, bootstrap=replace(bootstrap, supporting=())),
        replace(policy, bootstrap=replace(bootstrap, signature_confirmation=True)),
        replace(policy, bootstrap=replace(bootstrap, encrypt_signature=False)),
    )
    for each in altered:
        rows = [
            row
            for exchange in recording.exchanges
            for message, direction in spoken(exchange)
            for row in compared(message, direction, each, recording)
        ]
        assert any(expected != found for _, expected, found in rows)
