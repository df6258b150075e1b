"""Why something failed, as far as the message itself shows it, and what peers mind."""

from __future__ import annotations

from castile.explaining.opened import Opened
from castile.explaining.rules import Surroundings
from castile.security.trace import Problem


def causes(message: Opened, problem: Problem) -> str:
    """What probably made a check fail, as a continuation of its text; empty if nothing shows."""
    return ""


def habits(message: Opened, around: Surroundings) -> list[str]:
    """What a peer may mind, or means by its fault, and the setting that helps (OP-22)."""
    if message.fault is not None and not message.shape.protected:
        name = message.fault.subcode[1] if message.fault.subcode else message.fault.code
        return [f"an unauthenticated fault, anybody on the way can have made it: {name}: {message.fault.reason}"]
    return []
