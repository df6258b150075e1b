"""The trust service inside a secured endpoint: RST/SCT and Cancel, at the application's own
address, outside any sequence (F01, F06).

An issue is one transaction: no context exists for a request that failed (TR-15).
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
from castile.protocol import issuer
from castile.protocol.faults import trust_violation
from castile.store.records import ContextRecord
from castile.versions import Conversation, Trust


def issue(turn: Turn) -> Outgoing:
    """Answer a RequestSecurityToken for a security context token (WS-SC, 3)."""
    party, body = turn.party, turn.body(trust.RequestSecurityToken)
    edition, row = _editions(turn)
    principal = turn.inbound.verified.principal or ""
    request = issuer.Request(
        edition=edition.namespace,
        principal=principal,
        endpoint=party.address,
        confidential=True,  # the bootstrap policy encrypts the answer's body
        request_type=body.request_type,
        token_type=body.token_type,
        key_size=body.key_size,
        entropy=body.entropy,
        created=body.created,
        expires=body.expires,
        context=body.context,
    )
    census = issuer.Census(
        turn.tx.count_contexts(party.side, principal), turn.tx.count_contexts(party.side)
    )
    policy = party.policy.bootstrap
    suite_bits = policy.suite.minimum_bits if policy else 256
    granted = issuer.grant(
        request,
        turn.now,
        census,
        suite_bits,
        party.settings,
        client_entropy=party.policy.require_client_entropy,
    )
    secret, entropy = agreement.make(party, body.entropy, granted.key_bytes)
    context, answer = issuer.issue(
        request, granted, identifier=party.new_id("context"), secret=secret, entropy=entropy
    )
    turn.tx.save_context(
        ContextRecord(context, party.side, party.address, principal, expires=context.expires)
    )
    if party.keylog is not None:
        party.keylog(context.identifier, None, secret)
    token = SecurityContextToken(context.identifier, answer.instance, f"_{party.random(8).hex()}")
    response = trust.RequestSecurityTokenResponse(
        token_type=answer.token_type,
        token=token,
        attached=token.attached(edition),
        unattached=token.unattached(edition),
        computed_key=entropy is not None,
        proof_secret=secret if entropy is None else None,
        entropy=entropy,
        created=answer.created,
        expires=answer.expires,
        key_size=answer.key_bits,
        context=answer.context,
    )
    return turn.response(Kind.ISSUE_RESPONSE, response.render(row))


def cancel(turn: Turn) -> Outgoing:
    """Cancel a context, for whoever proves its own key (WS-SC, 6; SC-29)."""
    party, body = turn.party, turn.body(trust.RequestSecurityToken)
    edition, row = _editions(turn)
    named = turn.inbound.verified.resolve_context(body.cancel_target) if body.cancel_target else None
    if body.request_type != "Cancel" or named is None:
        raise trust_violation(edition.namespace, "InvalidRequest", "a Cancel without a known CancelTarget")
    record = turn.tx.context(named, side=party.side, endpoint=party.address)
    if record is None or not isinstance(record.state, issuer.Context):
        raise issuer.unknown_context(edition.namespace)
    turn.prove(named)
    state, _ = issuer.cancel(record.state, turn.now, proof=turn.context())
    turn.tx.save_context(replace(record, state=state, ended=turn.now.utc))
    response = trust.RequestSecurityTokenResponse(cancelled=True)
    return turn.response(Kind.CANCEL_RESPONSE, response.render(row))


def _editions(turn: Turn) -> tuple[Conversation, Trust]:
    policy = turn.party.policy
    if policy.conversation is None or policy.trust is None:
        raise Violation("a request for a token at an endpoint that issues none")
    return policy.conversation, policy.trust
