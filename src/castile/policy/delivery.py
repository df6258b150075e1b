"""What a policy says of reliable delivery beside the edition: qualities and times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Assurance = Literal["exactly-once", "at-least-once", "at-most-once"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """The parameters of an RM assertion (WS-RM Policy 1.1, 2; seconds). None: it doesn't say.

    castile delivers exactly once and in order, which keeps every promise named here. The times are
    the peer's: they say when it repeats, acknowledges and forgets.
    """

    assurance: Assurance | None = None
    in_order: bool = False
    inactivity: float | None = None
    """A sequence without any message this long is over."""
    acknowledgement: float | None = None
    retransmission: float | None = None
    exponential: bool = False
    """The interval between repetitions doubles."""
    window: int | None = None
    """Messages that the destination holds (Microsoft's RmFlowControl)."""


NOTHING_SAID: Final = Delivery()
