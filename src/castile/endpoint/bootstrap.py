"""How a client gets a security context, renews it, and gives it back.

Each is one in-memory generator that yields the request and is sent the verified answer; only
its result is committed. These exchanges stand outside any sequence (F06).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

from cryptography import x509

from castile.clock import Now
from castile.endpoint import agreement
from castile.endpoint.inbound import Inbound
from castile.endpoint.kinds import Kind
from castile.endpoint.needs import check_client
from castile.endpoint.outbound import Key, Outgoing
from castile.endpoint.party import Party
from castile.errors import FaultReceived, PolicyError, SecurityFailure, SOAPFault
from castile.messages import trust
from castile.messages.conversation import SecurityContextToken
from castile.messages.security import SecurityTokenReference
from castile.policy import EndpointPolicy, ProtectionPolicy
from castile.protocol import conversation
from castile.protocol.conversation import Conversation
from castile.security.keys import ContextKey
from castile.versions import Conversation as Edition
from castile.versions import Trust

Dialogue = Generator[Outgoing, Inbound, Conversation]


def establish(party: Party, now: Callable[[], Now]) -> Dialogue:
    """RST/SCT under the bootstrap policy, with entropy of both sides (F01 to F05).

    `now` is asked once the answer is there too.

    Raises `FaultReceived` if the service refuses, `SecurityFailure` if its answer can't be
    trusted: then no token is stored.
    """
    edition, _ = editions(party.policy)
    section, certificate = _bootstrap(party)
    entropy, bits = party.random(32), section.suite.minimum_bits
    request = trust.RequestSecurityToken(
        request_type="Issue",
        token_type=edition.token_type,
        key_size=bits,
        entropy=entropy,
    )
    request = _for_a_time(party, request, now())
    _, answer = yield from _ask(party, Kind.ISSUE, Kind.ISSUE_RESPONSE, request, certificate)
    state = Conversation(
        edition=edition.namespace,
        endpoint=party.address,
        principal=party.principal,
        policy=party.policy.digest,
    )
    return _with_key(party, state, conversation.Established, answer, entropy, bits, now)


def renew(party: Party, state: Conversation, key: ContextKey, now: Callable[[], Now]) -> Dialogue:
    """RST/SCT/Renew: as the bootstrap, and endorsed by the newest key (WS-SC, 5; SC-22, SC-23).

    `state` is renewing already. With ``renew_proof="key"`` that key alone protects the request.
    Raises as `establish`: then the old key goes on.
    """
    edition, _ = editions(party.policy)
    section, certificate = _bootstrap(party)
    alone = party.settings.renew_proof == "key"
    entropy, bits = party.random(32), section.suite.minimum_bits
    target = SecurityTokenReference(
        uri=state.identifier, value_type=edition.token_type, instance=key.instance
    )
    request = trust.RequestSecurityToken(
        request_type="Renew",
        token_type=edition.token_type,
        key_size=bits,
        entropy=entropy,
        renew_target=target,
    )
    request = _for_a_time(party, request, now())
    inbound, answer = yield from _ask(
        party,
        Kind.RENEW,
        Kind.RENEW_RESPONSE,
        request,
        key if alone else certificate,
        endorsing=None if alone else key,
    )
    over_tls = inbound.verified.transport is not None
    if alone and not over_tls and inbound.verified.primary.name != state.identifier:
        raise SecurityFailure("the answer isn't signed by the context's key", part="ds:Signature")
    return _with_key(party, state, conversation.Renewed, answer, entropy, bits, now)


def _for_a_time(
    party: Party, request: trust.RequestSecurityToken, now: Now
) -> trust.RequestSecurityToken:
    """With the Lifetime that is asked for, where one is (SC-03)."""
    life = party.settings.timers.requested_lifetime
    return request if life is None else replace(request, created=now.utc, expires=now.utc + life)


def _with_key(
    party: Party,
    state: Conversation,
    event: type[conversation.Established | conversation.Renewed],
    answer: trust.RequestSecurityTokenResponse,
    entropy: bytes,
    bits: int,
    now: Callable[[], Now],
) -> Conversation:
    """The context with the key that an answer brings; `entropy` and `bits` are what was sent."""
    edition, _ = editions(party.policy)
    token = _token(answer, edition)
    news = event(
        identifier=token.identifier,
        instance=token.instance,
        secret=agreement.agreed(party, answer, entropy),
        token=token.render(edition),
        token_id=token.id or "",
        created=answer.created,
        expires=answer.expires,
        requested_bits=bits,
    )
    settings = party.settings
    state, _ = conversation.step(state, news, now(), settings.timers, testing=settings.testing)
    return state


def _bootstrap(party: Party) -> tuple[ProtectionPolicy, x509.Certificate | None]:
    """What protects a request for a token, and whom it is sealed for. Raises `PolicyError`."""
    section = party.policy.bootstrap
    if section is None:
        raise PolicyError("the policy has no BootstrapPolicy: nothing says how to ask for a security context")
    check_client(party, section)
    return section, party.certificate if section.binding != "transport" else None


def _token(answer: trust.RequestSecurityTokenResponse, edition: Edition) -> SecurityContextToken:
    if answer.token is None or answer.token_type not in (None, edition.token_type):
        raise SecurityFailure("the answer holds no security context token", part="Body")
    return answer.token


def cancel(party: Party, state: Conversation, key: ContextKey, now: Now) -> Dialogue:
    """RST/SCT/Cancel, signed by the context's own key (WS-SC, 6; SC-29)."""
    edition, _ = editions(party.policy)
    request = trust.RequestSecurityToken(
        request_type="Cancel",
        cancel_target=SecurityTokenReference(
            uri=state.identifier, value_type=edition.token_type, instance=key.instance
        ),
    )
    _, answer = yield from _ask(party, Kind.CANCEL, Kind.CANCEL_RESPONSE, request, key)
    if not answer.cancelled:
        raise SecurityFailure("the answer doesn't say that the context is cancelled", part="Body")
    state, _ = conversation.step(state, conversation.Cancelled(), now)
    return state


def _ask(
    party: Party,
    kind: Kind,
    wanted: Kind,
    request: trust.RequestSecurityToken,
    key: Key | None,
    *,
    endorsing: ContextKey | None = None,
) -> Generator[Outgoing, Inbound, tuple[Inbound, trust.RequestSecurityTokenResponse]]:
    """Send a request and take its answer, if it is that (SC-08, TR-04)."""
    _, row = editions(party.policy)
    message_id = party.new_id("request")
    inbound = yield Outgoing(
        kind,
        row.action(kind.value),
        request.render(row),
        message_id=message_id,
        reply_expected=True,
        key=key,
        endorsing=endorsing,
    )
    if isinstance(inbound.body, SOAPFault):
        raise FaultReceived(inbound.body, authenticated=True, exchange=inbound.exchange)
    if inbound.kind is not wanted or not isinstance(inbound.body, trust.RequestSecurityTokenResponse):
        raise SecurityFailure(f"the answer to {kind.value} is {inbound.kind.value}")
    if inbound.addressing.relates_to != message_id:
        raise SecurityFailure("the answer relates to another request", part="wsa:RelatesTo")
    return inbound, inbound.body


def editions(policy: EndpointPolicy) -> tuple[Edition, Trust]:
    """The policy's editions of WS-SecureConversation and WS-Trust."""
    if policy.conversation is None or policy.trust is None:
        raise PolicyError("the endpoint's policy has no secure conversation")
    return policy.conversation, policy.trust
