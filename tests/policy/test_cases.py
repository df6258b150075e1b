"""Cases of `shared/cases`: what people ran into, as far as it is policy (001, 003)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import castile
from castile.cli import main
from castile.config import Settings
from castile.errors import PolicyError
from castile.policy.parse import needs, read
from tests.conftest import shared
from tests.policy.asked import ports_of


def inspect(path: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["inspect", *options, str(path)])


VENDORS = ("Attachments", "Session", "commit", "blocking", "reliable")


@pytest.mark.row("PO-04", "PO-08", "PO-10", "CL-43")
def test_001_vendors_assertions() -> None:
    """Policies nested one level in port type, operation and binding; assertions without Optional."""
    path = shared("cases", "001-vendor-policy", "service.wsdl")
    (port,) = ports_of(path)
    reading = read(port)
    policy = reading.policy
    assert (policy.tls, policy.http_authentication) == (True, "basic")
    assert needs(policy) == {"username"}
    assert policy.application is not None
    assert (policy.application.layout, policy.application.timestamp) == ("Strict", False)
    told = [str(each) for each in reading.findings]
    assert len(told) == len(VENDORS)
    for name in VENDORS:
        where = rf"warning: service\.wsdl:\d+: {{urn:example:vendor:features}}{name} of \w+ .*Stock"
        assert any(re.match(where, each) for each in told), name
    shown = inspect(path)
    assert shown.exit_code == 0
    assert "Missing credentials:\n    a user name and password" in shown.output


@pytest.mark.row("PO-08", "PO-10")
def test_001_strict() -> None:
    shown = inspect(shared("cases", "001-vendor-policy", "service.wsdl"), "--strict")
    assert shown.exit_code == 1
    place = r"service\.wsdl:\d+: {urn:example:vendor:features}Attachments of binding StockBinding"
    setting = r"ignore_assertions=\('{urn:example:vendor:features}Attachments',\)"
    assert re.search(rf"{place} .*{setting}", shown.output)


@pytest.mark.row("PO-03", "CL-43")
def test_003_policies_by_attribute() -> None:
    path = shared("cases", "003-policyuris", "service.wsdl")
    (port,) = ports_of(path)
    policy = read(port).policy
    assert (policy.tls, policy.tls_client_certificate, policy.addressed) == (True, True, True)
    assert policy.application is not None
    assert policy.application.timestamp
    shown = inspect(path)
    assert shown.exit_code == 0
    assert "TLS is required, with a certificate of the client" in shown.output
    assert "Missing credentials:\n    a certificate for TLS" in shown.output


@pytest.mark.row("PO-03", "PO-10")
def test_003_a_reference_to_nowhere() -> None:
    shown = inspect(shared("cases", "003-policyuris", "dangling.wsdl"))
    assert shown.exit_code == 1
    assert re.search(r"dangling\.wsdl:24: portType refers to the policy '#nowhere'", shown.output)


@pytest.mark.row("PO-08")
def test_001_what_a_client_does_about_them(caplog: pytest.LogCaptureFixture) -> None:
    """It warns and goes on; strict it refuses, unless they are named."""
    path = shared("cases", "001-vendor-policy", "service.wsdl")
    who = castile.Username("ada", "secret")

    def client(**settings: Any) -> castile.Client:
        return castile.Client(path, credentials=who, settings=Settings(**settings))

    with caplog.at_level("WARNING", "castile.policy"), client():
        assert len(caplog.records) == len(VENDORS)
    names = tuple(f"{{urn:example:vendor:features}}{name}" for name in VENDORS)
    with client(strict_policy=True, ignore_assertions=names):
        pass
    with pytest.raises(PolicyError, match="Attachments of binding StockBinding is of a vendor"):
        client(strict_policy=True)
    with pytest.raises(PolicyError, match="asks for a user name and password"):
        castile.Client(path)


@pytest.mark.row("PO-06")
def test_001_an_alternative_by_number() -> None:
    path = shared("cases", "001-vendor-policy", "service.wsdl")
    with pytest.raises(PolicyError, match="wants MTOM messages"):
        castile.Client(path, settings=Settings(policy_alternative=1))
