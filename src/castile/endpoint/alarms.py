"""Faults about the security context of a message, as a client understands them.

Most come unsecured, since the peer has no key to secure them with: anybody on the way can have
made them. So an alarm is a reason to look, not a fact (CO-14, CO-16, SC-28).
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from castile.errors import SOAPFault
from castile.versions import WSSC

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


def alarm_of(fault: SOAPFault) -> Alarm | None:
    """What a fault says of the context, in any edition: it may be the peer's own. None: nothing."""
    return _ALARMS.get(fault.subcode) if fault.subcode is not None else None
