"""What a policy needs of its user: each lack by the argument that mends it."""

from __future__ import annotations

from collections.abc import Iterable

from castile.endpoint.keyring import Users
from castile.endpoint.party import Party
from castile.errors import PolicyError
from castile.policy import EndpointPolicy, ProtectionPolicy


def check_client(party: Party, section: ProtectionPolicy) -> None:
    """Whether a client has what messages under this section need. Raises `PolicyError`."""
    if section.binding != "transport" and party.certificate is None and _seals(section):
        raise PolicyError(
            "the policy has messages sealed for the service's certificate: give it as service_certificate="
        )
    if section.binding == "asymmetric" and party.certificate is None:
        if not party.anchors.pinned:
            raise PolicyError("the service signs with its certificate: give it as service_certificate=")
        if party.anchors.issuers:
            # Whatever they issued would pass for the service.
            raise PolicyError("issuers in trust= vouch for the name in service_certificate=: give that too")
    if section.username and party.username is None:
        raise PolicyError(
            "the policy wants a UsernameToken: give credentials=castile.Username(name, password)"
        )
    signs = section.binding == "asymmetric" and section.signs
    if (section.supports("x509") or signs) and party.credential is None:
        raise PolicyError(
            "the policy wants the client's own certificate: give credentials=castile.Certificate(source)"
        )


def _seals(section: ProtectionPolicy) -> bool:
    """Whether requests are encrypted for the service's certificate."""
    if section.protection_token != "x509":
        return False
    token = section.username
    return section.binding == "symmetric" or section.parts.encrypts or bool(token and token.encrypted)


def check_service(
    policies: Iterable[EndpointPolicy], *, certificate: bool, trust: bool, users: Users | None
) -> None:
    """Whether a service has what its policies need. Raises `PolicyError`."""
    rows = tuple(policies)
    sections = [each for row in rows for each in row.protections]
    if not certificate and any(each.protection_token == "x509" for each in sections):
        raise PolicyError(
            "the policy seals keys for the service, or has it sign: give "
            "credentials=castile.Certificate(...)"
        )
    tokens = [each.username for each in sections if each.username]
    if users is None and any(each.password != "none" for each in tokens):
        raise PolicyError("the policy wants a UsernameToken: give users= with names and passwords")
    if callable(users) and any(each.password == "digest" for each in tokens):
        raise PolicyError(
            "a password digest is checked with the password itself: give users= as names and passwords"
        )
    if not trust and any(each.supports("x509") or each.binding == "asymmetric" for each in sections):
        raise PolicyError("clients sign with certificates: give trust= with theirs, or with issuers")
    for row in rows:
        _check_http(row)
        check_sequences(row)


def _check_http(policy: EndpointPolicy) -> None:
    if policy.tls_client_certificate:
        raise PolicyError(
            "the policy wants TLS with a certificate of the client, of which an ASGI application isn't "
            "told: have the server in front require it, and leave RequireClientCertificate out here"
        )
    if policy.http_authentication is not None:
        raise PolicyError(
            f"the policy wants HTTP {policy.http_authentication} authentication, which castile's service "
            "doesn't check: have the server in front do it, and leave it out here"
        )


def check_sequences(policy: EndpointPolicy) -> None:
    """A sequence under security belongs to a security context. Raises `PolicyError`."""
    if policy.reliability is not None and policy.application is not None and not policy.has_contexts:
        raise PolicyError(
            "reliable messaging under security without a SecureConversationToken: a sequence would belong "
            "to nobody, which isn't offered"
        )
