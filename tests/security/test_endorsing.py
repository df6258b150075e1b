"""Endorsing signatures: the old key of a renewal signs the signature of the message."""

from __future__ import annotations

from dataclasses import replace

import pytest

from castile import xml
from castile.errors import SecurityFailure
from castile.messages import soap
from castile.messages.soap import Message
from castile.policy import EndpointPolicy
from castile.security import Expectation, Protection, outgoing, protect, unprotect
from castile.versions import FAMILIES
from tests.security.made import NOW, SECRET, addressing, context_key, seeded, service
from tests.security.recorded import LIMITS, TIMERS, Keys


def renewal(
    family: str, *, encrypt_signature: bool = True, derived: bool = True
) -> tuple[bytes, Expectation]:
    """A message under the bootstrap policy that an old key endorses, and what is expected of it."""
    policy = EndpointPolicy.of(family)
    assert policy.bootstrap is not None
    section = replace(policy.bootstrap, encrypt_signature=encrypt_signature, derived_keys=derived)
    protection = Protection(
        section,
        FAMILIES[family].conversation,
        service()[0],
        request=True,
        username=("ada", "secret"),
        endorsing=(context_key(FAMILIES[family]),),
    )
    message = Message(policy.soap, addressing("urn:renew"), b'<x xmlns="urn:x"></x>')
    protected = protect(message, protection, NOW, seeded(1), TIMERS)
    assert len(protected.signature_values) == 2
    return protected.payload, Expectation(section, FAMILIES[family].conversation, True, True)


def keys(secret: bytes = SECRET) -> Keys:
    found = Keys(users={"ada": "secret"}, private=[service()])
    key = context_key(FAMILIES["1.3"], secret)
    found.contexts[key.identifier, None] = key
    return found


@pytest.mark.row("MS-57", "SC-22")
@pytest.mark.parametrize("encrypt_signature", [True, False])
@pytest.mark.parametrize("derived", [True, False])
@pytest.mark.parametrize("family", ["2005", "1.3"])
def test_the_old_key_endorses(family: str, derived: bool, encrypt_signature: bool) -> None:
    payload, expectation = renewal(family, derived=derived, encrypt_signature=encrypt_signature)
    envelope = soap.parse(xml.parse(payload, LIMITS), LIMITS, len(payload))
    verified = unprotect(envelope, keys(), expectation, NOW, LIMITS, TIMERS)
    primary, endorsing = verified.signatures
    assert (primary.key.kind, primary.endorsing) == ("encrypted-key", False)
    assert (endorsing.key.kind, endorsing.endorsing) == ("context", True)
    assert endorsing.covered == {"ds:Signature"}
    assert verified.principal == "ada"
    assert (b"<ds:Signature" in payload) != encrypt_signature


@pytest.mark.row("MS-57", "SC-22")
def test_another_secret_endorses_nothing() -> None:
    payload, expectation = renewal("1.3")
    envelope = soap.parse(xml.parse(payload, LIMITS), LIMITS, len(payload))
    with pytest.raises(SecurityFailure, match="value is wrong"):
        unprotect(envelope, keys(bytes(32)), expectation, NOW, LIMITS, TIMERS)


@pytest.mark.row("MS-57", "MS-03")
@pytest.mark.parametrize(("clear", "taken"), [("g1", True), ("g0", False)])
def test_only_the_primary_signature_must_be_encrypted(
    monkeypatch: pytest.MonkeyPatch, clear: str, taken: bool
) -> None:
    """EncryptSignature is about the primary one (WS-SP 1.2, 6.4): Metro sends the endorsing one in
    clear."""
    seal = outgoing._Sealer.__call__

    def leave(self: outgoing._Sealer, name: str, kind: str, octets: bytes, *, behind: bool = False) -> bytes:
        return octets if name.endswith(clear) else seal(self, name, kind, octets, behind=behind)

    monkeypatch.setattr(outgoing._Sealer, "__call__", leave)
    payload, expectation = renewal("1.3")
    assert payload.count(b"<ds:Signature ") == 1
    envelope = soap.parse(xml.parse(payload, LIMITS), LIMITS, len(payload))
    if taken:
        verified = unprotect(envelope, keys(), expectation, NOW, LIMITS, TIMERS)
        assert [each.endorsing for each in verified.signatures] == [False, True]
    else:
        with pytest.raises(SecurityFailure, match="Signature isn't encrypted"):
            unprotect(envelope, keys(), expectation, NOW, LIMITS, TIMERS)
