"""The judge itself: each kind of wrong is seen."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from castile.demo.effects import Effect
from castile.demo.verdict import Verdict, judge


def rows(*entries: str) -> list[Effect]:
    """``1``: message 1 handled; odd ones are transactional; ``2r``: it was told of redelivery."""
    made = []
    for tick, entry in enumerate(entries):
        message = int(entry.rstrip("r"))
        made.append(
            Effect(message, bool(message % 2), entry.endswith("r"), "urn:s", message, tick, float(tick))
        )
    return made


def judged(*entries: str, sent: Sequence[int] = (1, 2, 3, 4)) -> Verdict:
    return judge(rows(*entries), dict(zip(sent, sent, strict=True)))


def test_all_is_well() -> None:
    verdict = judged("1", "2", "3", "4")
    assert verdict.ok
    assert (verdict.sent, verdict.delivered) == (4, 4)


def test_a_lost_message() -> None:
    verdict = judged("1", "2", "4")
    assert not verdict.ok
    assert verdict.lost == 1


def test_transactional_effects_must_not_repeat_even_if_told() -> None:
    assert judged("1", "1r", "2", "3", "4").duplicated == 1
    assert not judged("1", "1r", "2", "3", "4").ok


def test_an_ordinary_repeat_must_be_told() -> None:
    untold = judged("1", "2", "2", "3", "4")
    assert untold.duplicated == 1
    assert not untold.ok
    told = judged("1", "2", "2r", "3", "4")
    assert (told.duplicated, told.redelivered) == (0, 1)
    assert told.ok


def test_a_first_handling_may_have_been_told_too() -> None:
    """Whether the killed process had begun isn't known to the next one."""
    verdict = judged("1", "2r", "3r", "4")
    assert verdict.ok
    assert verdict.redelivered == 0


@pytest.mark.parametrize(("order", "late"), [("1 3 2 4", 1), ("4 1 2 3", 3), ("2 1 4 3", 2)])
def test_order_is_that_of_first_handlings(order: str, late: int) -> None:
    verdict = judged(*order.split())
    assert verdict.out_of_order == late
    assert not verdict.ok


def test_a_late_repeat_is_not_out_of_order() -> None:
    assert judged("1", "2", "3", "2r", "4").ok


def test_calls_need_their_own_answers() -> None:
    assert judge(rows("1", "2"), {1: 1, 2: None}).unanswered == 1
    assert not judge(rows("1", "2"), {1: 1, 2: None}).ok
    assert judge(rows("1", "2"), {1: 2, 2: 1}).unanswered == 2


def test_a_message_that_nobody_sent() -> None:
    verdict = judge(rows("1", "2"), {1: 1})
    assert verdict.sent == 2  # handled, so it was sent, whatever the journal says
