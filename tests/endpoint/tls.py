"""Policies of the transport binding, as WCF's TransportWithMessageCredential and Altinn's have them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import castile
from castile.policy import CONTEXT, ENDORSING, USERNAME, ProtectionPolicy, SupportingToken
from castile.policy.parts import NO_PARTS, HeaderPart
from castile.policy.suites import SUITES
from castile.versions import SOAP_1_2, WSA_1_0, SOAPVersion

Credential = Literal["username", "certificate"]
TO = replace(NO_PARTS, signed_headers=frozenset({HeaderPart(WSA_1_0.namespace, "To")}))
CREDENTIALS = {"username": USERNAME, "certificate": replace(ENDORSING, parts=TO)}


def transport(*supporting: SupportingToken, **changes: Any) -> ProtectionPolicy:
    """A TransportBinding with these supporting tokens."""
    section = ProtectionPolicy("transport", SUITES["Basic256"], "transport", supporting)
    return replace(section, **changes)


def alone(*supporting: SupportingToken, tls: bool = True, **changes: Any) -> castile.EndpointPolicy:
    """Messages over TLS with these tokens, and no machinery."""
    plain = castile.EndpointPolicy.of("1.3", reliable=False, secure=False)
    return replace(plain, application=transport(*supporting, **changes), tls=tls)


def contexts(
    family: str,
    credential: Credential = "username",
    *,
    derived: bool = False,
    soap: SOAPVersion = SOAP_1_2,
    **settings: Any,
) -> castile.EndpointPolicy:
    """Secure conversation over TLS: the SCT signs the Timestamp of each request."""
    return replace(
        castile.EndpointPolicy.of(family, soap=soap, **settings),
        bootstrap=transport(CREDENTIALS[credential]),
        application=transport(replace(CONTEXT, derived_keys=derived)),
        tls=True,
    )
