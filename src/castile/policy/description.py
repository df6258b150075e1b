"""What a WSDL says, as castile needs it: ports, operations, actions, the policy of each message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from castile.errors import CastileError, UsageError
from castile.messages.policy import NOWHERE, Assertion, Place, Policy
from castile.policy.findings import Finding
from castile.versions import SOAPVersion

Style = Literal["document", "rpc"]
Use = Literal["literal", "encoded"]


_CHOICES: Final = 40
"""Ports that an error lists."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the port's endpoint reference says to expect (WS-AddressingIdentity; features PO-51)."""

    certificates: tuple[bytes, ...] = ()
    """DER."""
    dns: str | None = None
    spn: str | None = None
    upn: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of a port."""

    name: str
    action: str
    """wsa:Action of the request (WS-Addressing 1.0 Metadata, 4.4): the attribute in the port type,
    else soapAction, else the default pattern."""
    response_action: str | None = None
    """None: one-way."""
    fault_actions: tuple[tuple[str, str], ...] = ()
    """Name and wsa:Action of each declared fault."""
    soap_action: str | None = None
    """As the binding has it; None: it says nothing."""
    style: Style = "document"
    use: Use = "literal"
    body: str | None = None
    """Clark name of the request's body element; None: it is empty, or typed by no element."""
    response_body: str | None = None
    place: Place = NOWHERE
    initiating: bool = True
    """It may begin a session (WCF's IsInitiating)."""
    terminating: bool = False
    """It ends the session (WCF's IsTerminating)."""

    @property
    def one_way(self) -> bool:
        """No response is declared."""
        return self.response_action is None


@dataclass(frozen=True, slots=True)
class Attachment:
    """What is attached to one WSDL element."""

    subject: str
    """In words: ``operation Add of port type Calculator``."""
    policy: Policy


@dataclass(frozen=True, slots=True)
class Port:
    """An endpoint: where it is, what it offers, and what it asks for."""

    service: str
    name: str
    address: str
    """Empty where the WSDL names none."""
    soap: SOAPVersion
    operations: tuple[Operation, ...]
    alternatives: Policy
    """Of the endpoint: service, port, binding and port type together."""
    message_alternatives: Mapping[tuple[str, str], Policy]
    """By operation name and direction (``request``, ``response``, ``fault``): all that holds for
    the message, the endpoint's included (WS-PolicyAttachment, 4.1)."""
    binding: str = ""
    """Clark name."""
    identity: Identity | None = None
    attachments: tuple[Attachment, ...] = ()
    """Where what was attached, element by element."""
    session: bool = False
    """The contract asks for a session (WCF's UsingSession)."""
    place: Place = NOWHERE

    def subject_of(self, assertion: Assertion) -> str:
        """To which WSDL elements an assertion is attached, in words; empty: to none."""
        found = (
            each.subject
            for each in self.attachments
            if any(row == assertion and row.place == assertion.place for line in each.policy for row in line)
        )
        return ", ".join(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class RefusedPort:
    """A port that can't be used, and why."""

    service: str
    name: str
    reason: CastileError


@dataclass(frozen=True, slots=True)
class Description:
    """What a set of documents describes."""

    location: str
    """Where the WSDL came from."""
    target_namespace: str
    ports: tuple[Port, ...]
    refused: tuple[RefusedPort, ...] = ()
    findings: tuple[Finding, ...] = ()

    def port(self, service: str | None = None, port: str | None = None) -> Port:
        """The only port, or the only one of these names.

        Raises `UsageError` with the choices where there are several or none, and the reason why
        the one that is meant is refused.
        """

        def meant(each: Port | RefusedPort) -> bool:
            return service in (None, each.service) and port in (None, each.name)

        found: list[Port | RefusedPort] = [*filter(meant, self.ports), *filter(meant, self.refused)]
        if len(found) == 1:
            if isinstance(found[0], RefusedPort):
                raise found[0].reason
            return found[0]
        rows = [f"{_named(each)} ({each.soap.name}, {each.address})" for each in self.ports]
        rows += [f"{_named(each)} (refused: {each.reason})" for each in self.refused]
        if len(rows) > _CHOICES:
            rows[_CHOICES:] = [f"and {len(rows) - _CHOICES} more"]
        if not rows:
            raise UsageError(f"{self.location}: the WSDL has no SOAP port")
        wanted = " and ".join(
            f"{label} {name!r}" for label, name in (("service", service), ("port", port)) if name
        )
        what = "several ports" if not wanted else f"{'several ports' if found else 'no port'} with {wanted}"
        raise UsageError(
            f"{self.location}: the WSDL has {what}; say which by service= and port=: {'; '.join(rows)}"
        )


def _named(port: Port | RefusedPort) -> str:
    return f"{port.service}/{port.name}" if port.service else port.name
