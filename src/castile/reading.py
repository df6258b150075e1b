"""The policy of a port, for who has these credentials."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import Final

from cryptography import x509

from castile.config import Settings
from castile.credentials import Certificate, Username
from castile.errors import PolicyError, SecurityFailure
from castile.messages.policy import NO_POLICY
from castile.policy import EndpointPolicy
from castile.policy.description import Description, Port
from castile.policy.lint import check
from castile.policy.parse import Held, read
from castile.security.anchors import Anchors

policy_log: Final = logging.getLogger("castile.policy")

Given = Username | Certificate | Iterable[Username | Certificate] | None


def policy_of(port: Port, given: EndpointPolicy | None, held: Held, settings: Settings) -> EndpointPolicy:
    """What governs the messages of a port: `given`, else what its WSDL says that these credentials
    can satisfy.

    Raises `PolicyError` for what can't be met, or is unsafe by itself (F33).
    """
    if given is not None:
        if given.soap is not port.soap:
            raise PolicyError(
                f"policy= is for {given.soap.name}, and the port {port.name} speaks {port.soap.name}: "
                "choose another port, or give the policy with soap="
            )
        return given
    if certificate_of(port) is not None:
        held = {*held, "service-certificate"}
    reading = read(
        port,
        held,
        strict=settings.strict_policy,
        alternative=settings.policy_alternative,
        ignore=settings.ignore_assertions,
    )
    for finding in reading.findings:
        if finding.level == "warning":
            policy_log.warning("%s", finding)
    return check(reading.policy)


def certificate_of(port: Port) -> bytes | None:
    """The certificate that the port's endpoint reference says to expect, DER (features PO-51).

    None for a WSDL that came over plain HTTP: whoever is on the way could put his own there, and have
    the password sealed for himself.
    """
    if port.place.document.lower().startswith("http:"):
        return None
    return next(iter(port.identity.certificates), None) if port.identity is not None else None


def check_named(certificate: x509.Certificate, trust: Collection[x509.Certificate], utc: float) -> None:
    """Refuse a service's certificate that only the WSDL names, where trust= is given and doesn't stand
    for it (UTC seconds). Raises `PolicyError`."""
    try:
        if trust:
            Anchors.of(trust).check(certificate, (), utc)
    except SecurityFailure as error:
        raise PolicyError(
            f"{error}: it is the one that the WSDL names as the service's. Give the right one as "
            "service_certificate="
        ) from None


def held_of(credentials: Given, *, service_certificate: bool, tls_certificate: bool = False) -> Held:
    """Which credentials there are, by their names in `castile.policy.parse` (features CL-23)."""
    rows = (credentials,) if isinstance(credentials, Username | Certificate) else credentials or ()
    held = {"username" if isinstance(each, Username) else "certificate" for each in rows}
    held |= {"service-certificate"} if service_certificate else set()
    return frozenset(held | ({"tls-certificate"} if tls_certificate else set()))


def is_plain(policy: EndpointPolicy) -> bool:
    """Whether messages go out as the application wrote them: nothing is protected, numbered or
    addressed."""
    sections = (policy.application, policy.bootstrap, *(each.protection for each in policy.messages))
    return policy.reliability is None and not policy.addressed and not any(sections)


def is_unconcerned(description: Description) -> bool:
    """Whether nothing in a WSDL has a policy, nor was refused because of one."""
    return not any(isinstance(each.reason, PolicyError) for each in description.refused) and all(
        _says_nothing(port) for port in description.ports
    )


def _says_nothing(port: Port) -> bool:
    return all(each == NO_POLICY for each in (port.alternatives, *port.message_alternatives.values()))
