"""A policy asks for credentials: what is missing is named with the option that gives it (CL-23)."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

import castile
from castile.policy.parse import needs
from castile.policy.wsdl import describe
from castile.reading import held_of, policy_of
from castile.transport.documents import Loader
from tests.endpoint.pair import FAST, certificate, identity
from tests.served import served
from tests.zeep.banks import SOAP12, Bank

ADA = castile.Username("ada", "secret")
OWN = castile.Certificate(identity("ada"))
SETS = (
    "wcf-wshttp-none-direct",
    "wcf-wshttp-username-direct",
    "wcf-wshttp-username-direct-reliable",
    "wcf-wshttp-certificate-direct",
    "wcf-ws2007http-none-direct",
    "wcf-ws2007http-username-direct",
    "wcf-ws2007http-username-direct-reliable",
    "wcf-ws2007http-certificate-direct-reliable",
    "secure-conversation",
    "secure-conversation-username",
    "cxf-rm",
    "trust-default",
)
OPTIONS = {
    "username": "credentials=castile.Username",
    "certificate": "credentials=castile.Certificate",
    "service-certificate": "service_certificate=",
}


@pytest.mark.row("CL-23")
@pytest.mark.parametrize("name", SETS)
def test_every_choice_of_credentials(name: str) -> None:
    policy = castile.policy_set(name)
    wanted = frozenset(needs(policy))
    trusted = {"trust": [certificate("ada")]}
    with served(Bank(policy).service(**trusted).asgi()) as url:
        documents = Loader().load(url.removesuffix("/soap") + "/bank?wsdl")
    port = describe(documents).port(port=SOAP12)
    for count in range(4):
        for given in combinations((ADA, OWN, "service"), count):
            own: Any = [each for each in given if not isinstance(each, str)]
            held = held_of(own, service_certificate="service" in given)
            missing = wanted - set(held)
            if not missing:
                assert policy_of(port, None, held, FAST).application is not None
                continue
            with pytest.raises(castile.PolicyError) as refused:
                policy_of(port, None, held, FAST)
            assert any(OPTIONS[each] in str(refused.value) for each in missing), str(refused.value)
