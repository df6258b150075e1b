"""What is wrong, weak or unusual about a policy (features 6.5).

`check` is run wherever a configuration is loaded; what must not be used at all is refused there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from castile.config import Settings
from castile.errors import PolicyError
from castile.policy import EndpointPolicy, ProtectionPolicy
from castile.policy.findings import Finding
from castile.policy.parse import needs
from castile.policy.parts import names
from castile.policy.suites import RSA_1_5, SHA1, TRIPLEDES_CBC, AlgorithmSuite
from castile.versions import part_name

_RELIABILITY_HEADERS: Final = ("Sequence", "SequenceAcknowledgement", "AckRequested")


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is known of who uses a policy; everything may be left out."""

    settings: Settings | None = None
    durable: bool = False
    """Messages are kept in a store."""
    processes: int = 1
    service_certificate: bool = True
    """A client has been given the service's certificate."""


_UNKNOWN: Final = Deployment()


def lint(policy: EndpointPolicy, deployment: Deployment = _UNKNOWN) -> tuple[Finding, ...]:
    """Every finding, errors first."""
    found = [each for rule in _RULES for each in rule(policy, deployment)]
    order = ("error", "warning", "info")
    return tuple(sorted(found, key=lambda each: order.index(each.level)))


def check(policy: EndpointPolicy, deployment: Deployment = _UNKNOWN) -> EndpointPolicy:
    """The policy itself. Raises `PolicyError` with every finding that is an error."""
    errors = [f"{each.code}: {each.text}" for each in lint(policy, deployment) if each.level == "error"]
    if errors:
        raise PolicyError("; ".join(errors))
    return policy


def _levels(policy: EndpointPolicy) -> Iterator[tuple[str, ProtectionPolicy]]:
    """Every level of protection, with the words for it."""
    rows = [("messages", policy.application), ("requests for contexts", policy.bootstrap)]
    rows += [(f"the {row.direction} {row.action}", row.protection) for row in policy.messages]
    for name, protection in rows:
        if protection is not None:
            yield name, protection


def _unsigned_headers(policy: EndpointPolicy, _: Deployment) -> Iterator[Finding]:
    """Anybody with a context of his own could end a sequence whose headers aren't signed."""
    edition = policy.reliability
    if edition is None or not policy.has_contexts:
        return
    for name, protection in _levels(policy):
        parts = protection.parts
        if protection.binding == "transport" or protection is policy.bootstrap or parts.every_header:
            continue
        missing = [
            part_name(edition.namespace, header)
            for header in _RELIABILITY_HEADERS
            if not names(parts.signed_headers, edition.namespace, header)
        ]
        missing += [] if parts.signed_body else ["Body"]
        if missing:
            text = f"reliable messaging under a security context, but {name} don't sign {', '.join(missing)}"
            yield Finding("error", "F33", f"{text}: name them in SignedParts")


def _readable(policy: EndpointPolicy, _: Deployment) -> Iterator[Finding]:
    spoken = [row.protection for row in policy.messages] or [policy.application]
    if not policy.tls and any(each is None or not each.parts.encrypted_body for each in spoken):
        yield Finding("warning", "L-01", "neither TLS nor encryption: everybody on the way reads the Body")


def _encrypted_lifecycle(policy: EndpointPolicy, _: Deployment) -> Iterator[Finding]:
    if policy.encrypt_lifecycle and policy.reliability is not None:
        text = "EncryptedParts stand at the endpoint: lifecycle messages are encrypted, and some peers refuse"
        yield Finding("info", "L-03", f"{text}; attach them to wsdl:input and wsdl:output")


def _weak(policy: EndpointPolicy, _: Deployment) -> Iterator[Finding]:
    used: dict[str, list[str]] = {}
    for name, protection in _levels(policy):
        if protection.binding != "transport" and (weak := _weaknesses(protection.suite)):
            used.setdefault(f"{protection.suite.name} means {', '.join(weak)}", []).append(name)
        username = protection.username
        if username is not None and username.password in _READABLE and not (username.encrypted or policy.tls):
            yield Finding("warning", "L-05", f"{name}: the password goes in clear, without TLS or encryption")
    for text, holders in used.items():
        yield Finding("warning", "L-05", f"{', '.join(dict.fromkeys(holders))}: {text}")


def _weaknesses(suite: AlgorithmSuite) -> list[str]:
    """Most are there because the peers of 2005 know nothing better."""
    weak = ["SHA-1 digests"] if suite.digest in _OLD_DIGESTS else []
    weak += ["3DES"] if suite.encryption == TRIPLEDES_CBC else []
    weak += ["CBC encryption, which shows no tampering"] if not suite.authenticates else []
    weak += ["RSA 1.5 (only with Settings(legacy=True))"] if suite.key_transport == RSA_1_5 else []
    return weak


def _cached(policy: EndpointPolicy, deployment: Deployment) -> Iterator[Finding]:
    settings = deployment.settings
    if settings is None or not policy.has_contexts:
        return
    timers = settings.timers
    if timers.token_lifetime < _SHORTEST and not settings.testing:
        text = f"token_lifetime of {timers.token_lifetime:g} s is below {_SHORTEST:g} s"
        yield Finding("error", "L-07", f"{text}: contexts would be renewed all the time")
    if deployment.durable and timers.token_cache_after_expiry < _LONG:
        text = f"token_cache_after_expiry of {timers.token_cache_after_expiry:g} s is below {_LONG:g} s"
        yield Finding("warning", "L-07", f"{text}: a longer outage strands durable messages")


def _fresh(policy: EndpointPolicy, deployment: Deployment) -> Iterator[Finding]:
    for name, protection in _levels(policy):
        if not protection.timestamp and protection.binding != "transport":
            yield Finding("warning", "L-10", f"{name} have no Timestamp: an old one can be sent again")
    if deployment.settings is not None:
        timers = deployment.settings.timers
        rows = (("timestamp_ttl", timers.timestamp_ttl, 3600.0), ("clock_skew", timers.clock_skew, 300.0))
        for field, value, most in rows:
            if value > most:
                text = f"{field} of {value:g} s is more than {most:g} s: replays are remembered as long"
                yield Finding("warning", "L-10", text)


def _ordered(policy: EndpointPolicy, _: Deployment) -> Iterator[Finding]:
    if policy.delivery.in_order and policy.reliability is None:
        yield Finding("error", "L-11", "delivery in order is asked for without reliable messaging")


def _sealable(policy: EndpointPolicy, deployment: Deployment) -> Iterator[Finding]:
    if "service-certificate" in needs(policy) and not deployment.service_certificate:
        text = "keys are sealed for the service's certificate, and none was given"
        yield Finding("error", "L-12", f"{text}: give service_certificate=")


def _remembered(policy: EndpointPolicy, deployment: Deployment) -> Iterator[Finding]:
    if policy.reliability is not None and deployment.processes > 1 and not deployment.durable:
        text = f"{deployment.processes} processes and no store: none knows the sequences of another"
        yield Finding("error", "L-13", f"{text}; give them one store=")


_OLD_DIGESTS: Final = frozenset({SHA1})
_READABLE: Final = frozenset({"text"})
_SHORTEST: Final = 60.0
_LONG: Final = 7_200.0
_RULES: Final[tuple[Callable[[EndpointPolicy, Deployment], Iterator[Finding]], ...]] = (
    _unsigned_headers,
    _readable,
    _encrypted_lifecycle,
    _weak,
    _cached,
    _fresh,
    _ordered,
    _sealable,
    _remembered,
)
