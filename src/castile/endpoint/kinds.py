"""What a message is, told by its action: one row per kind.

The action is read before anything is verified, only to choose what must be proven; the same
header must then be covered by the signature, so a forged action proves the wrong thing.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache

from castile.policy import EndpointPolicy
from castile.versions import WSRM, WST


class Kind(Enum):
    """The kinds of message that castile knows."""

    APPLICATION = "application message"
    ISSUE = "RST/SCT"
    ISSUE_RESPONSE = "RSTR/SCT"
    RENEW = "RST/SCT/Renew"
    RENEW_RESPONSE = "RSTR/SCT/Renew"
    CANCEL = "RST/SCT/Cancel"
    CANCEL_RESPONSE = "RSTR/SCT/Cancel"
    CREATE_SEQUENCE = "CreateSequence"
    CREATE_SEQUENCE_RESPONSE = "CreateSequenceResponse"
    ACKNOWLEDGEMENT = "SequenceAcknowledgement"
    ACK_REQUESTED = "AckRequested"
    LAST_MESSAGE = "LastMessage"
    CLOSE_SEQUENCE = "CloseSequence"
    CLOSE_SEQUENCE_RESPONSE = "CloseSequenceResponse"
    TERMINATE_SEQUENCE = "TerminateSequence"
    TERMINATE_SEQUENCE_RESPONSE = "TerminateSequenceResponse"
    FAULT = "fault"
    PLAIN = "message outside a sequence"

    @property
    def bootstrap(self) -> bool:
        """Protected by the bootstrap policy; everything else is by the application's (F02)."""
        return self in (Kind.ISSUE, Kind.ISSUE_RESPONSE, Kind.RENEW, Kind.RENEW_RESPONSE)

    @property
    def renewal(self) -> bool:
        """May be protected by the context's own key alone, where a setting says so (SC-22)."""
        return self in (Kind.RENEW, Kind.RENEW_RESPONSE)

    @property
    def numbered(self) -> bool:
        """Carries a Sequence header that counts."""
        return self in (Kind.APPLICATION, Kind.LAST_MESSAGE)


_RELIABILITY = (
    Kind.CREATE_SEQUENCE,
    Kind.CREATE_SEQUENCE_RESPONSE,
    Kind.ACKNOWLEDGEMENT,
    Kind.ACK_REQUESTED,
    Kind.TERMINATE_SEQUENCE,
)
_RELIABILITY_1_1 = (
    Kind.CLOSE_SEQUENCE,
    Kind.CLOSE_SEQUENCE_RESPONSE,
    Kind.TERMINATE_SEQUENCE_RESPONSE,
)
_TRUST = (
    Kind.ISSUE,
    Kind.ISSUE_RESPONSE,
    Kind.RENEW,
    Kind.RENEW_RESPONSE,
    Kind.CANCEL,
    Kind.CANCEL_RESPONSE,
)

_TRUST_ALIASES = {
    "RST/SCT-Cancel": Kind.CANCEL,  # Microsoft's identity library
    "RSTR/Cancel": Kind.CANCEL_RESPONSE,  # Rampart
}
"""Read, never sent (features SC-21)."""


@lru_cache(maxsize=64)
def actions(policy: EndpointPolicy) -> dict[str, Kind]:
    """Every action of the machinery, also in editions that `policy` doesn't have, so that such a
    message is refused by name (`understood`)."""
    table: dict[str, Kind] = {
        policy.addressing.fault_action: Kind.FAULT,
        policy.addressing.soap_fault_action: Kind.FAULT,
    }
    for row in WSRM.values():
        kinds = _RELIABILITY + (_RELIABILITY_1_1 if row.can_close else (Kind.LAST_MESSAGE,))
        table |= {row.action(kind.value): kind for kind in kinds}
        if row.fault_action:
            table[row.fault_action] = Kind.FAULT
    for trust in WST.values() if policy.trust else ():
        table |= {trust.action(kind.value): kind for kind in _TRUST}
        table |= {trust.action(name): kind for name, kind in _TRUST_ALIASES.items()}
    return table


def understood(action: str, policy: EndpointPolicy) -> bool:
    """Whether an action of the machinery is one of this policy's editions."""
    if any(action.startswith(f"{name}/") for name in WST):
        return policy.trust is None or action.startswith(f"{policy.trust.namespace}/")
    other = next((row for name, row in WSRM.items() if action.startswith(f"{name}/")), None)
    return other is None or other == policy.reliability or action == other.fault_action


def kind_of(action: str, policy: EndpointPolicy) -> Kind:
    """The kind of a message with this wsa:Action; what isn't ours is the application's."""
    return actions(policy).get(action, Kind.APPLICATION)
