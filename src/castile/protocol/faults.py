"""The faults of WS-RM, WS-SecureConversation and WS-Trust, ready to send.

The reason on the wire is the fixed text of the specification; what really happened is the text
of the `Violation`, for the log of this side (features 2.4, 3.5, 4.7).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from castile.errors import Exchange, FaultCode, SOAPFault, Violation
from castile.protocol.ranges import Range
from castile.versions import CONVERSATION_REASONS, TRUST_OF, WSRM

RM_REASONS: Final = {
    "SequenceTerminated": "The Sequence has been terminated due to an unrecoverable error.",
    "UnknownSequence": "The value of wsrm:Identifier is not a known Sequence identifier.",
    "InvalidAcknowledgement": (
        "The SequenceAcknowledgement violates the cumulative Acknowledgement invariant."
    ),
    "MessageNumberRollover": "The maximum value for wsrm:MessageNumber has been exceeded.",
    "CreateSequenceRefused": "The Create Sequence request has been refused by the RM Destination.",
    "SequenceClosed": "The Sequence is closed and cannot accept new messages.",
    "WSRMRequired": "The RM Destination requires the use of WSRM.",
    "LastMessageNumberExceeded": (
        "The value for wsrm:MessageNumber exceeds the value of the MessageNumber "
        "accompanying a LastMessage element in this Sequence."
    ),
}
"""WS-RM 1.2, 4.2 to 4.8; WS-RM 1.0, 4."""

TRUST_REASONS: Final = {
    "InvalidRequest": "The request was invalid or malformed.",
    "BadRequest": "The specified RequestSecurityToken is not understood.",
    "FailedAuthentication": "Authentication failed.",
    "AuthenticationBadElements": "Insufficient Digest Elements.",
    "RequestFailed": "The specified request failed.",
    "InvalidSecurityToken": "Security token has been revoked.",
    "ExpiredData": "The request data is out-of-date.",
    "InvalidTimeRange": "The requested time range is invalid or unsupported.",
    "InvalidScope": "The request scope is invalid or unsupported.",
    "RenewNeeded": "A renewable security token has expired.",
    "UnableToRenew": "The requested renewal failed.",
}
"""WS-Trust 1.3, 11."""


def rm_violation(
    edition: str,
    name: str,
    cause: str,
    *,
    identifier: str | None = None,
    code: FaultCode = "Sender",
    detail: bytes | None = None,
    number: int | None = None,
) -> Violation:
    """A broken rule of WS-RM with its fault.

    `edition` is the RM namespace, `name` a key of `RM_REASONS`, `cause` the text for this side.
    The detail is the sequence's Identifier unless another one is given (WS-RM 1.2, 4.1).
    """
    if detail is None:
        detail = identifier_element(edition, identifier) if identifier is not None else b""
    fault = SOAPFault(
        code,
        RM_REASONS[name],
        (edition, name),
        detail,
        action=WSRM[edition].fault_action,
        sequence=identifier,
    )
    return Violation(cause, fault=fault, exchange=Exchange(sequence=identifier, number=number))


def conversation_violation(edition: str, name: str, cause: str) -> Violation:
    """A refusal about a context; `edition` is the WS-SC namespace (WS-SC 1.3, 9)."""
    return Violation(cause, fault=SOAPFault("Sender", CONVERSATION_REASONS[name], (edition, name)))


def trust_violation(edition: str, name: str, cause: str) -> Violation:
    """A refused request to the trust service; `edition` is the WS-SC namespace (WS-Trust, 11)."""
    subcode = (TRUST_OF[edition].namespace, name)
    return Violation(cause, fault=SOAPFault("Sender", TRUST_REASONS[name], subcode))


def unknown_sequence(edition: str, identifier: str) -> Violation:
    """The answer to any message about a sequence that isn't known (WS-RM 1.2, 4.3)."""
    return rm_violation(
        edition, "UnknownSequence", "the peer names a sequence that is not known", identifier=identifier
    )


def refuse_creation(edition: str, cause: str, *, busy: bool = False) -> Violation:
    """CreateSequenceRefused; `busy` where the limit is ours and a later try may pass (RM-20)."""
    code: FaultCode = "Receiver" if busy else "Sender"
    return rm_violation(edition, "CreateSequenceRefused", cause, code=code)


def identifier_element(edition: str, identifier: str) -> bytes:
    """``wsrm:Identifier`` as its canonical bytes."""
    return f'<r:Identifier xmlns:r="{edition}">{_text(identifier)}</r:Identifier>'.encode()


def rollover_detail(edition: str, identifier: str, maximum: int) -> bytes:
    """Detail of MessageNumberRollover: 1.1 says the maximum too (WS-RM 1.2, 4.5)."""
    detail = identifier_element(edition, identifier)
    if WSRM[edition].can_close:
        detail += f'<r:MaxMessageNumber xmlns:r="{edition}">{maximum}</r:MaxMessageNumber>'.encode()
    return detail


def acknowledgement_element(
    edition: str, identifier: str, ranges: Iterable[Range], nacks: Iterable[int], final: bool
) -> bytes:
    """The refused SequenceAcknowledgement, as its canonical bytes (WS-RM 1.2, 4.4)."""
    parts = [f"<r:Identifier>{_text(identifier)}</r:Identifier>"]
    parts += [
        f'<r:AcknowledgementRange Lower="{lower}" Upper="{upper}"></r:AcknowledgementRange>'
        for lower, upper in ranges
    ]
    parts += [f"<r:Nack>{number}</r:Nack>" for number in nacks]
    if len(parts) == 1 and WSRM[edition].can_close:
        parts.append("<r:None></r:None>")
    if final:
        parts.append("<r:Final></r:Final>")
    content = "".join(parts)
    element = f'<r:SequenceAcknowledgement xmlns:r="{edition}">{content}</r:SequenceAcknowledgement>'
    return element.encode()


def _text(value: str) -> str:
    """Text by the rules of exclusive C14N (2.3): this layer has no XML library."""
    escaped = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("\r", "&#xD;")
