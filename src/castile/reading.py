"""The policy of a port, for who has these credentials."""

from __future__ import annotations

from collections.abc import Iterable

from castile.credentials import Certificate, Username
from castile.errors import PolicyError
from castile.messages.policy import NO_POLICY
from castile.policy import EndpointPolicy
from castile.policy.description import Description, Port
from castile.policy.parse import Held, read

Given = Username | Certificate | Iterable[Username | Certificate] | None


def policy_of(port: Port, given: EndpointPolicy | None, held: Held) -> EndpointPolicy:
    """What governs the messages of a port: `given`, else what its WSDL says that these credentials
    can satisfy.

    Raises `PolicyError` for what can't be met.
    """
    if given is None:
        return read(port, held).policy
    if given.soap is not port.soap:
        raise PolicyError(
            f"policy= is for {given.soap.name}, and the port {port.name} speaks {port.soap.name}: "
            "choose another port, or give the policy with soap="
        )
    return given


def held_of(credentials: Given, *, service_certificate: bool) -> frozenset[str]:
    """Which credentials there are, by their names in `castile.policy.parse` (features CL-23)."""
    if isinstance(credentials, Username | Certificate):
        credentials = (credentials,)
    held = {"service-certificate"} if service_certificate else set[str]()
    for each in credentials or ():
        held |= {"username"} if isinstance(each, Username) else {"certificate", "tls-certificate"}
    return frozenset(held)


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
