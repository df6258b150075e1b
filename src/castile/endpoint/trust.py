"""The trust service inside a secured endpoint: RST/SCT, Renew and Cancel, at the application's own
address, outside any sequence (F01, F06).

Each is one transaction: no context or key exists for a request that failed (TR-15).
"""

from __future__ import annotations

from dataclasses import replace

from castile.endpoint import agreement
from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Outgoing
from castile.endpoint.turn import Turn
from castile.errors import Violation
from castile.messages import trust
from castile.messages.conversation import SecurityContextToken
from castile.messages.security import SecurityTokenReference
from castile.policy import ProtectionPolicy
from castile.protocol import issuer
from castile.protocol.faults import trust_violation
from castile.store.records import ContextRecord
from castile.versions import Conversation, Trust


def issue(turn: Turn) -> Outgoing:
    """Answer a RequestSecurityToken for a security context token (WS-SC, 3)."""
    party, body = turn.party, turn.body(trust.RequestSecurityToken)
    edition, _ = _editions(turn)
    if body.request_type != "Issue":
        raise trust_violation(edition.namespace, "InvalidRequest", "the action asks for an Issue")
    request = _request(turn, body, turn.inbound.verified.principal or "")
    turn.make_room()
    # Of whom nobody knows the name there may be many.
    own = turn.tx.count_contexts(party.side, request.principal) if request.principal else 0
    census = issuer.Census(own, turn.tx.count_contexts(party.side))
    granted = _granted(turn, request, census)
    secret, entropy = agreement.make(party, body.entropy, granted.key_bytes)
    context, answer = issuer.issue(
        request,
        granted,
        identifier=party.new_id("context"),
        secret=secret,
        entropy=entropy,
        policy=party.policy.digest,
    )
    turn.tx.save_context(
        ContextRecord(context, party.side, party.realm, request.principal, expires=context.expires)
    )
    return _issued(turn, Kind.ISSUE_RESPONSE, answer, secret)


def renew(turn: Turn) -> Outgoing:
    """A new key for a context, for whoever proves one that it has (WS-SC, 5; SC-22, SC-23).

    The request is as the bootstrap wants it, so its principal is known again, and an old key of
    the context endorses it. `Settings.renew_proof` may leave the credential out.
    """
    party, body = turn.party, turn.body(trust.RequestSecurityToken)
    edition, _ = _editions(turn)
    record, context = _target(turn, "Renew", body.renew_target)
    if context.edition != edition.namespace:
        raise issuer.unknown_context(edition.namespace)
    principal, proof = turn.inbound.verified.principal, turn.proof()
    if principal is None and turn.context() is not None and party.settings.renew_proof == "key":
        principal = context.principal  # the key is its proof
    request = _request(turn, body, principal or "")
    granted = _granted(turn, request, issuer.Census(0, 0))
    secret, entropy = agreement.make(party, body.entropy, granted.key_bytes)
    instance = party.new_id("instance")
    event = issuer.Renew(
        issuer.new_instance(granted, instance, secret=secret, entropy=entropy),
        request.principal,
        proof=proof.name if proof else None,
        instance=proof.instance if proof else None,
        after_expiry=party.settings.allow_renewal_after_expiry,
    )
    state, _ = issuer.step(context, event, turn.now, party.settings)
    turn.make_room()
    turn.tx.save_context(replace(record, state=state, expires=state.expires))
    party.keyring.forget(state.identifier)  # which keys it has now is read again at need
    answer = issuer.answer(request, granted, state.identifier, instance, entropy)
    return _issued(turn, Kind.RENEW_RESPONSE, answer, secret)


def _request(turn: Turn, body: trust.RequestSecurityToken, principal: str) -> issuer.Request:
    edition, _ = _editions(turn)
    return issuer.Request(
        edition=edition.namespace,
        principal=principal,
        endpoint=turn.party.address,
        confidential=_confidential(turn.party.policy.bootstrap),
        request_type=body.request_type,
        token_type=body.token_type,
        key_size=body.key_size,
        entropy=body.entropy,
        created=body.created,
        expires=body.expires,
        postdating="AllowPostdating" in body.extensions,
        context=body.context,
    )


def _confidential(section: ProtectionPolicy | None) -> bool:
    """Whether nobody else reads the answer: its Body is encrypted, or TLS covers it (TR-09)."""
    return section is not None and (section.binding == "transport" or section.parts.encrypted_body)


def _granted(turn: Turn, request: issuer.Request, census: issuer.Census) -> issuer.Grant:
    party, section = turn.party, turn.party.policy.bootstrap
    return issuer.grant(
        request,
        turn.now,
        census,
        section.suite.minimum_bits if section else 256,
        party.settings,
        allow_postdated=party.settings.allow_postdated,
        client_entropy=party.policy.require_client_entropy,
    )


def _issued(turn: Turn, kind: Kind, answer: issuer.Answer, secret: bytes) -> Outgoing:
    """The answer to an issue or a renewal, in WCF's order (SC-04)."""
    party = turn.party
    edition, row = _editions(turn)
    if party.keylog is not None:
        party.keylog(answer.identifier, secret, answer.instance)
    token = SecurityContextToken(answer.identifier, answer.instance, f"_{party.random(8).hex()}")
    response = trust.RequestSecurityTokenResponse(
        token_type=answer.token_type,
        token=token,
        attached=token.attached(edition),
        unattached=token.unattached(edition),
        computed_key=answer.entropy is not None,
        proof_secret=secret if answer.entropy is None else None,
        entropy=answer.entropy,
        created=answer.created,
        expires=answer.expires,
        key_size=answer.key_bits,
        context=answer.context,
    )
    return turn.response(kind, response.render(row))


def cancel(turn: Turn) -> tuple[Outgoing, tuple[issuer.Action, ...]]:
    """Cancel a context, for whoever proves its own key, and what that means for its sequences
    (WS-SC, 6; SC-29, CO-17)."""
    body = turn.body(trust.RequestSecurityToken)
    _, row = _editions(turn)
    record, context = _target(turn, "Cancel", body.cancel_target)
    turn.prove(context.identifier)
    state, actions = issuer.cancel(context, turn.now, proof=turn.context())
    if state != context:
        turn.tx.save_context(replace(record, state=state, ended=turn.now.utc))
    response = trust.RequestSecurityTokenResponse(cancelled=True)
    return turn.response(Kind.CANCEL_RESPONSE, response.render(row)), actions


def _target(
    turn: Turn, wanted: str, reference: SecurityTokenReference | None
) -> tuple[ContextRecord, issuer.Context]:
    """The context that a Renew or Cancel names."""
    edition, _ = _editions(turn)
    named = turn.inbound.verified.resolve_context(reference) if reference else None
    if turn.body(trust.RequestSecurityToken).request_type != wanted or named is None:
        cause = f"a {wanted} without a known {wanted}Target"
        raise trust_violation(edition.namespace, "InvalidRequest", cause)
    record = turn.stored_context(named)
    if record is None or not isinstance(record.state, issuer.Context):
        raise issuer.unknown_context(edition.namespace)
    return record, record.state


def _editions(turn: Turn) -> tuple[Conversation, Trust]:
    policy = turn.party.policy
    if policy.conversation is None or policy.trust is None:
        raise Violation("a request for a token at an endpoint that issues none")
    return policy.conversation, policy.trust
