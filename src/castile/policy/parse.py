"""From what a WSDL says to what castile does: one alternative, read into an `EndpointPolicy`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from castile.errors import PolicyError
from castile.messages.policy import Alternative, Assertion, Policy
from castile.policy import Direction, EndpointPolicy, MessagePolicy, ProtectionPolicy
from castile.policy.addressing import addressing_of
from castile.policy.bindings import Section, section_of
from castile.policy.description import Operation, Port
from castile.policy.findings import Finding
from castile.policy.reliability import Reliable, reliability_of
from castile.policy.scope import Notes, Scope, Unusable
from castile.policy.tokens import HTTPAuthentication, Session
from castile.versions import TRUST_OF, WSA_1_0, WSRM_1_1, Addressing, Conversation

Held = Collection[str]
"""Credentials that are at hand: of `CREDENTIALS`."""
CREDENTIALS: Final = {
    "username": "a user name and password (credentials=castile.Username(...))",
    "certificate": "a certificate and key of the client (credentials=castile.Certificate(...))",
    "service-certificate": "the service's certificate (service_certificate=)",
    "tls-certificate": "a certificate for TLS (tls=castile.TLS(certificate=...))",
}
"""What a policy can ask of a client, and the option that gives it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was made of a port's policy."""

    policy: EndpointPolicy
    alternative: int
    """The one that was taken, counted from 1 in the order of the policy."""
    findings: tuple[Finding, ...] = ()
    refused: tuple[tuple[int, str], ...] = ()
    """The others that can't be used, and why."""


def read(
    port: Port,
    held: Held = tuple(CREDENTIALS),
    *,
    strict: bool = False,
    alternative: int | None = None,
    ignore: Collection[str] = (),
) -> Reading:
    """The safest alternative of a port's policy that castile and these credentials can satisfy.

    `strict`: assertions of vendors that castile doesn't know are refused too, as a service does in
    its own WSDL. `alternative`: this one and no other, counted from 1. `ignore`: assertions that are
    passed over, by Clark or short name. Raises `PolicyError` with the reason against each
    alternative (features PO-06, PO-08).
    """
    return readings(port, held, strict=strict, alternative=alternative, ignore=ignore)[0]


def readings(
    port: Port,
    held: Held = tuple(CREDENTIALS),
    *,
    strict: bool = False,
    alternative: int | None = None,
    ignore: Collection[str] = (),
) -> tuple[Reading, ...]:
    """As `read`, but every alternative that can be satisfied, the safest first: a service takes
    requests under each that it publishes (features PO-07)."""
    rows = list(enumerate(port.alternatives, 1))
    if alternative is not None:
        rows = rows[alternative - 1 : alternative] if alternative > 0 else []
        if not rows:
            raise PolicyError(f"alternative={alternative}: the policy has {len(port.alternatives)}")
    found: list[Reading] = []
    refused: list[tuple[int, str]] = []
    for number, row in rows:
        notes = Notes(_subjects(port), strict=strict, ignore=ignore)
        try:
            policy = _endpoint(port, row, notes)
            _check_held(policy, held, port)
        except PolicyError as error:
            refused.append((number, str(error)))
            continue
        found.append(Reading(policy, number, notes.distinct))
    if not found:
        raise PolicyError(_nothing(port, refused))
    found.sort(key=_rank, reverse=True)
    return tuple(replace(each, refused=tuple(refused)) for each in found)


def needs(policy: EndpointPolicy) -> frozenset[str]:
    """The credentials that a client needs: of `CREDENTIALS`."""
    sections = [row.protection for row in policy.messages]
    rows = [row for row in (policy.bootstrap, policy.application, *sections) if row is not None]
    tokens = [token.token for row in rows for token in row.supporting]
    wanted = {
        "username": "username" in tokens or policy.http_authentication in ("basic", "digest"),
        "certificate": "x509" in tokens or any(row.binding == "asymmetric" for row in rows),
        "service-certificate": any(row.protection_token == "x509" for row in rows),
        "tls-certificate": policy.tls_client_certificate,
    }
    return frozenset(name for name, is_wanted in wanted.items() if is_wanted)


def _check_held(policy: EndpointPolicy, held: Held, port: Port) -> None:
    missing = [CREDENTIALS[name] for name in CREDENTIALS if name in needs(policy) - frozenset(held)]
    if missing:
        raise Unusable(f"{_subject(port)} asks for {' and for '.join(missing)}, and none was given")


def _subjects(port: Port) -> Callable[[Assertion], str]:
    """Where an assertion is attached, or the one that it stands in, in words."""

    def holds(assertion: Assertion, sought: Assertion) -> bool:
        inner = (*assertion.nested, *assertion.children)
        return assertion is sought or any(holds(each, sought) for each in inner)

    def subject_of(sought: Assertion) -> str:
        policies = (port.alternatives, *port.message_alternatives.values())
        rows = (row for policy in policies for alternative in policy for row in alternative)
        holder = next((row for row in rows if holds(row, sought)), sought)
        return port.subject_of(holder) or _subject(port)

    return subject_of


def _subject(port: Port) -> str:
    return f"port {port.name}" if port.name else "the endpoint"


def _nothing(port: Port, refused: list[tuple[int, str]]) -> str:
    if not refused:
        return f"{_subject(port)}: its policy has no alternative: nothing can satisfy it"
    reasons = refusals(refused)
    if len(reasons) == 1:
        return refused[0][1]
    rows = "".join(f"\n  {each}" for each in reasons)
    return f"{_subject(port)}: no alternative of its policy can be used:{rows}"


def refusals(refused: Iterable[tuple[int, str]]) -> list[str]:
    """A line for each reason, with the alternatives that it holds for."""
    numbers: dict[str, list[str]] = {}
    for number, reason in refused:
        numbers.setdefault(reason, []).append(str(number))
    return [
        f"alternative{'s' * (len(those) > 1)} {', '.join(those)}: {reason}"
        for reason, those in numbers.items()
    ]


def _rank(reading: Reading) -> tuple[object, ...]:
    """Higher is safer, then better understood; the first of equals is taken (features PO-06)."""
    policy = reading.policy
    application = policy.application
    strength = (0, 0, 0) if application is None else _strength(application)
    encrypts = application is not None and application.parts.encrypts
    return (
        application is not None or policy.tls,
        policy.has_contexts,
        policy.reliability is not None,
        policy.reliability is WSRM_1_1,
        encrypts or policy.tls,
        *strength,
        policy.addressed,
        -sum(each.level == "warning" for each in reading.findings),
    )


def _strength(protection: ProtectionPolicy) -> tuple[int, bool, bool]:
    suite = protection.suite
    return suite.minimum_bits, suite.authenticates, "Sha256" in suite.name


@dataclass(frozen=True, slots=True)
class _Level:
    """One alternative of an endpoint, or of a message with the endpoint's own in it."""

    addressing: Addressing | None
    reliable: Reliable
    section: Section | None
    http_authentication: HTTPAuthentication | None
    encrypts_lifecycle: bool

    @classmethod
    def of(cls, alternative: Alternative, notes: Notes) -> _Level:
        """Raises `Unusable` for what can't be honoured."""
        scope = Scope(alternative, notes)
        level = cls(
            addressing_of(scope),
            reliability_of(scope),
            section_of(scope),
            next((value for name, value in _HTTP.items() if scope.flag(f"http:{name}")), None),
            scope.flag("metro:EncryptRMLifecycleMessage"),
        )
        scope.end()
        return level

    @property
    def protection(self) -> ProtectionPolicy | None:
        """Parts that nobody names are signed, and stay in clear: nothing asks for more."""
        if self.section is None or self.section.named:
            return None if self.section is None else self.section.protection
        protection = self.section.protection
        return replace(protection, parts=protection.parts.in_clear)

    @property
    def encrypts(self) -> bool:
        """The endpoint's own policy, and so its lifecycle messages, are encrypted (features CO-09)."""
        protection = self.protection
        return self.encrypts_lifecycle or (protection is not None and protection.parts.encrypts)


_HTTP: Final[dict[str, HTTPAuthentication]] = {
    "BasicAuthentication": "basic",
    "DigestAuthentication": "digest",
    "NtlmAuthentication": "ntlm",
    "NegotiateAuthentication": "negotiate",
}


def _endpoint(port: Port, alternative: Alternative, notes: Notes) -> EndpointPolicy:
    level = _Level.of(alternative, notes)
    application, rows, edition = _messages(port, alternative, level, notes)
    section, reliable = level.section, level.reliable
    facts: dict[str, object] = {}
    if section is not None:
        facts = {
            "tls": section.tls,
            "tls_client_certificate": section.tls_client_certificate,
        }
        if section.session is not None:
            facts |= _contexts(section, section.session, notes)
        elif section.protection.binding != "transport":
            facts |= _edition(section.trusts or section.usual)
    if reliable.edition is WSRM_1_1:
        facts["uses_sequence_str"] = reliable.names_token
        facts["sequence_token"] = "require" if reliable.names_token else "infer"
    asked = section.http_authentication if section is not None else None
    return EndpointPolicy(
        soap=port.soap,
        addressing=edition or WSA_1_0,
        addressed=edition is not None or reliable.edition is not None or "bootstrap" in facts,
        reliability=reliable.edition,
        delivery=reliable.delivery,
        application=application,
        messages=rows,
        encrypt_lifecycle=level.encrypts,
        two_way=any(not each.one_way for each in port.operations) or not port.operations,
        http_authentication=asked or level.http_authentication,
        **{"bootstrap": None, "conversation": None, "trust": None} | facts,  # type: ignore[arg-type]
    )


def _edition(edition: Conversation) -> dict[str, object]:
    return {"conversation": edition, "trust": TRUST_OF[edition.namespace]}


def _contexts(section: Section, session: Session, notes: Notes) -> dict[str, object]:
    """What a SecureConversationToken brings. Raises `Unusable`."""
    if session.bootstrap is None:
        raise notes.refuse(session.assertion, "has no BootstrapPolicy", "one is wanted: it gets the token")
    with Scope((), notes).inside(session.bootstrap) as inner:
        addressing_of(inner)
        bootstrap = section_of(inner)
    if bootstrap is None or bootstrap.session is not None:
        raise notes.refuse(
            session.bootstrap, "names no token to get a context by", "a certificate or a user name is wanted"
        )
    edition = session.edition or section.trusts or bootstrap.trusts or section.usual
    return {
        **_edition(edition),
        "bootstrap": bootstrap.protection,
        "renews_contexts": session.renews,
        "cancels_contexts": session.cancels,
        "require_client_entropy": section.client_entropy or bootstrap.client_entropy,
        "require_server_entropy": section.server_entropy or bootstrap.server_entropy,
        "tls": section.tls or bootstrap.tls,
        "tls_client_certificate": section.tls_client_certificate or bootstrap.tls_client_certificate,
    }


def _messages(
    port: Port, alternative: Alternative, level: _Level, notes: Notes
) -> tuple[ProtectionPolicy | None, tuple[MessagePolicy, ...], Addressing | None]:
    """What protects the application's messages, those for which it is something else, and how they
    are addressed, which one message may ask for all.

    Where all messages agree, and differ from the endpoint's own policy in encryption only, that is
    the rule, and lifecycle messages are the exception: so WCF and CXF write it.
    """
    base = level.protection
    found = [
        row for each in port.operations for row in _rows(port, each, frozenset(alternative), level, notes)
    ]
    rows = [row for row, _ in found]
    asked = (each.addressing for each in (level, *(other for _, other in found)))
    addressing = next((each for each in asked if each is not None), None)
    spoken = {row.protection for row in rows}
    named = level.section is not None and level.section.named
    if not named and spoken - {base}:
        notes.findings.append(Finding("warning", "L-02", f"{_subject(port)}: {_ONLY_MESSAGES}", port.place))
    if len(spoken) == 1:
        (only,) = spoken
        if not named or _in_clear(only) == _in_clear(base):
            return only, (), addressing
    return base, tuple(row for row in rows if row.protection != base), addressing


_ONLY_MESSAGES: Final = (
    "parts are named at messages only, where Apache CXF doesn't look for lifecycle messages and leaves them "
    "unsigned: SignedParts belong to the binding, EncryptedParts to wsdl:input and wsdl:output"
)


def _in_clear(protection: ProtectionPolicy | None) -> ProtectionPolicy | None:
    return None if protection is None else replace(protection, parts=protection.parts.in_clear)


def _rows(
    port: Port, operation: Operation, own: frozenset[Assertion], base: _Level, notes: Notes
) -> Iterator[tuple[MessagePolicy, _Level]]:
    asked: ProtectionPolicy | None = None
    for action, direction in _directions(operation):
        policy = port.message_alternatives.get((operation.name, direction))
        if policy is None:
            continue
        candidates = _beside(policy, own, port)
        if direction == "fault" and any(frozenset(each) == own for each in candidates):
            continue  # nothing is attached to it: a fault is protected as the response
        if not candidates:
            text = f"what the {direction} of {operation.name} asks for can't be met"
            raise Unusable(f"{_subject(port)}: {text}")
        level = _safest(candidates, base, notes)
        protection = level.protection
        if direction == "request":
            asked = protection
        elif protection is not None and asked is not None:
            protection = replace(protection, supporting=asked.supporting)  # which are of requests
        answers = "" if direction == "request" else operation.action
        element = {"request": operation.body, "response": operation.response_body}.get(direction)
        yield MessagePolicy(action, direction, protection, answers, element or ""), level


def _beside(policy: Policy, own: frozenset[Assertion], port: Port) -> list[Alternative]:
    """What a message may have with the endpoint's alternative, rather than with another of its."""
    foreign = frozenset(chain(*port.alternatives)) - own
    found = [each for each in policy if own <= frozenset(each)]
    return [each for each in found if foreign.isdisjoint(each)] or found


def _directions(operation: Operation) -> Iterator[tuple[str, Direction]]:
    yield operation.action, "request"
    if operation.response_action is not None:
        yield operation.response_action, "response"
    for _, action in operation.fault_actions:
        yield action, "fault"


def _safest(candidates: list[Alternative], base: _Level, notes: Notes) -> _Level:
    """Of what a message may have beside the endpoint's alternative. Raises `Unusable`."""
    found: list[tuple[_Level, Notes]] = []
    failures: list[Unusable] = []
    for each in candidates:
        tried = notes.fresh()
        try:
            level = _Level.of(each, tried)
            session = level.section.session if level.section is not None else None
            if session is not None and (base.section is None or base.section.session is None):
                raise notes.refuse(session.assertion, "stands at a message", "contexts are the endpoint's")
            found.append((level, tried))
        except Unusable as error:
            failures.append(error)
    if not found:
        raise failures[0]
    level, chosen = max(found, key=lambda each: (*_coverage(each[0].protection), -each[1].warnings))
    notes.findings += chosen.findings
    return level


def _coverage(protection: ProtectionPolicy | None) -> tuple[object, ...]:
    if protection is None:
        return (False, False, 0, False, 0)
    parts = protection.parts
    headers = len(parts.encrypted_headers), len(parts.signed_headers)
    return True, parts.encrypted_body, headers[0], parts.signed_body, headers[1]
