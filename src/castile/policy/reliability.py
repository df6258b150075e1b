"""Assertions of reliable messaging: WS-RM Policy, and the timers that vendors put beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from castile.messages.policy import Assertion
from castile.policy.delivery import NOTHING_SAID, Assurance, Delivery
from castile.policy.scope import Scope
from castile.versions import WSRM_1_0, WSRM_1_1, Reliability

ASSURANCES: Final[dict[str, Assurance]] = {
    "ExactlyOnce": "exactly-once",
    "AtLeastOnce": "at-least-once",
    "AtMostOnce": "at-most-once",
}
TIMERS: Final = {
    "InactivityTimeout": "inactivity",
    "AcknowledgementInterval": "acknowledgement",
    "BaseRetransmissionInterval": "retransmission",
}
"""Milliseconds in the assertion, seconds here."""


@dataclass(frozen=True, slots=True)
class Reliable:
    """What an alternative says of reliable messaging."""

    edition: Reliability | None = None
    delivery: Delivery = NOTHING_SAID
    names_token: bool = False
    """SequenceSTR: CreateSequence names the token of its sequence (WS-RM Policy 1.1, 2.2)."""


def reliability_of(scope: Scope) -> Reliable:
    """Raises `Unusable` for two editions at once."""
    old, new = scope.one("rmp10:RMAssertion"), scope.one("rmp:RMAssertion")
    if old is not None and new is not None:
        raise scope.notes.refuse(old, "stands beside the one of another edition: a sequence has one")
    beside = _times(scope)  # Metro's examples have them beside the assertion instead of inside
    window = _window(scope)
    ordered = scope.flag("metro:Ordered")
    repeats = scope.flag("metro:AllowDuplicates")
    assertion = new if new is not None else old
    if assertion is None:
        return Reliable()
    with scope.inside(assertion) as inner:
        delivery = _delivery(inner, beside)
        names_token = inner.flag("rmp:SequenceSTR")
        window = _window(inner) or window
    delivery = replace(
        delivery,
        window=window,
        in_order=delivery.in_order or ordered,
        assurance=delivery.assurance or ("at-least-once" if repeats else None),
    )
    return Reliable(WSRM_1_1 if new is not None else WSRM_1_0, delivery, names_token)


def _times(scope: Scope) -> dict[str, float]:
    return {
        field: _milliseconds(each, scope)
        for name, field in TIMERS.items()
        for each in scope.take(f"rmp10:{name}", f"netrmp:{name}")
    }


def _delivery(inner: Scope, beside: dict[str, float]) -> Delivery:
    times = beside | _times(inner)
    delivery = Delivery(exponential=inner.flag("rmp10:ExponentialBackoff"), **times)  # type: ignore[arg-type]
    for assertion in inner.take("rmp:DeliveryAssurance"):
        with inner.inside(assertion) as within:
            named = [value for name, value in ASSURANCES.items() if within.flag(f"rmp:{name}")]
            delivery = replace(
                delivery, assurance=named[0] if named else None, in_order=within.flag("rmp:InOrder")
            )
    return delivery


def _milliseconds(assertion: Assertion, scope: Scope) -> float:
    """As seconds."""
    value = dict(assertion.attributes).get("Milliseconds", assertion.text).strip()
    if not value.isdecimal() or len(value) > 12:
        raise scope.notes.refuse(assertion, f"says {value[:40]!r} for a number of milliseconds")
    return int(value) / 1000


def _window(scope: Scope) -> int | None:
    """Of Microsoft's RmFlowControl."""
    for assertion in scope.take("netrmp:RmFlowControl"):
        with scope.inside(assertion) as inner:
            for each in inner.take("netrmp:MaxReceiveBufferSize"):
                if each.text.isdecimal() and len(each.text) < 10:
                    return int(each.text)
    return None
