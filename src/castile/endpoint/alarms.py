"""Faults about the security context of a message, as a client understands them.

Most come unsecured, since the peer has no key to secure them with: anybody on the way can have
made them. So an alarm is a reason to look, not a fact (CO-14, CO-16, SC-28).
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from castile.errors import SOAPFault
from castile.versions import WSSC, WSSE

DNSE: Final = "http://schemas.microsoft.com/ws/2006/05/security"
"""Namespace of WCF's own faults about security sessions (SC-35)."""


class Alarm(Enum):
    """What a fault says of the security context."""

    RENEW = "its life is over, a new key is wanted"
    LOST = "it isn't known here"


_ALARMS: Final[dict[tuple[str, str], Alarm]] = {
    **{(edition, "RenewNeeded"): Alarm.RENEW for edition in WSSC},
    **{(edition, "BadContextToken"): Alarm.LOST for edition in WSSC},
    (DNSE, "ExpiredSecurityContextTokenKey"): Alarm.RENEW,
    (DNSE, "SecuritySessionAborted"): Alarm.LOST,
}
_REFUSALS: Final = frozenset(
    {
        (WSSE, "InvalidSecurity"),
        (WSSE, "SecurityTokenUnavailable"),
        ("http://ws.apache.org/wss4j", "SecurityError"),
    }
)
"""What a peer says that tells nobody why. Metro (the first) and CXF (the last) say nothing else to
a token that they knew before they were restarted."""


def alarm_of(fault: SOAPFault, *, secured: bool) -> Alarm | None:
    """What a fault says of the context, in any edition: it may be the peer's own. None: nothing.

    `secured`: by the context's key, so the peer knows it, whatever it refuses.
    """
    if fault.subcode in _REFUSALS:
        return None if secured else Alarm.LOST
    return _ALARMS.get(fault.subcode) if fault.subcode is not None else None
