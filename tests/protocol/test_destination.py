"""What a destination does: accept, deliver, acknowledge, refuse, close."""

from __future__ import annotations

from itertools import permutations
from typing import TypeVar

import pytest

from castile.errors import Malformed, Violation
from castile.protocol.actions import (
    Accept,
    Acknowledge,
    Deliver,
    DestinationAction,
    Discard,
    Drop,
    Duplicate,
    Fail,
    Incomplete,
    Refuse,
)
from castile.protocol.destination import (
    BEHAVIORS,
    AckRequested,
    Arrived,
    Close,
    Destination,
    Ended,
    Phase,
    Released,
    Terminate,
    step,
)
from castile.protocol.ranges import MAX_NUMBER, RangeSet
from tests.protocol.cases import (
    EDITIONS,
    NOW,
    RM10,
    RM11,
    after,
    destination_in,
    new_destination,
    run_destination,
)

A = TypeVar("A")


def only(kind: type[A], actions: tuple[DestinationAction, ...]) -> list[A]:
    return [action for action in actions if isinstance(action, kind)]


def delivered(actions: tuple[DestinationAction, ...]) -> list[int]:
    return [action.number for action in only(Deliver, actions)]


def arrive(state: Destination, *numbers: int) -> tuple[Destination, tuple[DestinationAction, ...]]:
    return run_destination(state, *map(Arrived, numbers))


# ---------------------------------------------------------------- accepting and delivering


@pytest.mark.row("F21")
@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("order", list(permutations(range(1, 7))))
def test_every_order_of_six_is_delivered_in_order(edition: str, order: tuple[int, ...]) -> None:
    state, actions = arrive(new_destination(edition), *order)
    assert delivered(actions) == [1, 2, 3, 4, 5, 6]
    assert [action.number for action in only(Accept, actions)] == list(order)
    assert (state.received, state.delivered, state.held) == (RangeSet.upto(6), 6, 0)


@pytest.mark.row("F21")
def test_a_gap_holds_what_comes_after_it() -> None:
    state, actions = arrive(new_destination(), 1, 3, 4)
    assert delivered(actions) == [1]
    assert (state.held, state.missing, state.waiting_messages) == (2, ((2, 2),), 3)
    assert actions[-1] == Acknowledge(((1, 1), (3, 4)))
    state, actions = arrive(state, 2)
    assert actions == (Accept(2), Deliver(2), Deliver(3), Deliver(4), Acknowledge(((1, 4),)))


@pytest.mark.row("F21")
def test_without_order_each_is_delivered_on_arrival() -> None:
    state, actions = arrive(new_destination(in_order=False), 5, 2, 2, 9)
    assert delivered(actions) == [5, 2, 9]
    assert (state.delivered, state.held) == (3, 0)


@pytest.mark.row("RM-32")
@pytest.mark.parametrize("edition", EDITIONS)
def test_a_repetition_is_acknowledged_and_not_delivered(edition: str) -> None:
    state, _ = run_destination(new_destination(edition), Arrived(1, b"digest", 10))
    again = Arrived(1, b"digest", 10, known_digest=b"digest")
    assert step(state, again, NOW) == (state, (Duplicate(1), Acknowledge(((1, 1),))))
    forgotten = Arrived(1, b"digest", 10)
    assert step(state, forgotten, NOW) == (state, (Duplicate(1), Acknowledge(((1, 1),))))


@pytest.mark.row("RM-32")
@pytest.mark.row("RM-90")
@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("phase", [Phase.OPEN, Phase.CLOSED])
def test_another_payload_under_the_same_number_ends_the_sequence(edition: str, phase: Phase) -> None:
    state = destination_in(phase, edition)
    state, actions = step(state, Arrived(2, b"other", known_digest=b"first"), NOW)
    (refuse,) = only(Refuse, actions)
    assert refuse.fault.subcode == (edition, "SequenceTerminated")
    assert refuse.fault.sequence == "urn:sequence"
    assert b">urn:sequence<" in refuse.fault.detail
    assert state.ended
    assert only(Fail, actions) == [Fail("message 2 came again with another payload")]
    assert state.phase is Phase.FAILED
    assert not delivered(actions)
    for later in (Arrived(3), Arrived(2), AckRequested(), Terminate(2)):
        with pytest.raises(Violation) as caught:
            step(state, later, NOW)
        assert caught.value.fault.subcode == (edition, "SequenceTerminated")


@pytest.mark.row("RM-30")
@pytest.mark.parametrize("number", [0, -1, -(1 << 63)])
def test_no_message_number(number: int) -> None:
    with pytest.raises(Malformed):
        step(new_destination(), Arrived(number), NOW)


@pytest.mark.row("RM-94")
@pytest.mark.parametrize("edition", EDITIONS)
def test_a_number_above_the_limit(edition: str) -> None:
    state = new_destination(edition, max_number=3, in_order=False)
    assert delivered(arrive(state, 3)[1]) == [3]
    with pytest.raises(Violation) as caught:
        step(state, Arrived(4), NOW)
    fault = caught.value.fault
    assert fault.subcode == (edition, "MessageNumberRollover")
    assert (b">3</r:MaxMessageNumber>" in fault.detail) == (edition == RM11)
    assert delivered(arrive(new_destination(edition, in_order=False), MAX_NUMBER)[1]) == [MAX_NUMBER]


# ---------------------------------------------------------------- window


@pytest.mark.row("RM-34")
def test_a_gap_bomb_stays_within_the_window_and_ends_well() -> None:
    state, actions = arrive(new_destination(), *range(2, 1_000))
    assert state.waiting_messages == 63
    assert state.received == RangeSet(((2, 64),))
    assert len(only(Drop, actions)) == 998 - 63
    state, actions = arrive(state, 1)
    assert delivered(actions) == list(range(1, 65))
    assert state.waiting_messages == 64
    assert state.room == 0


@pytest.mark.row("RM-34")
def test_dropped_messages_are_not_acknowledged() -> None:
    state, _ = arrive(new_destination(window_messages=2), 2)
    after_drop, actions = arrive(state, 3)
    assert after_drop == state
    assert [type(action) for action in actions] == [Drop, Acknowledge]
    assert actions[-1] == Acknowledge(((2, 2),))


@pytest.mark.row("RM-34")
@pytest.mark.parametrize("in_order", [True, False])
def test_a_slow_application_fills_the_window(in_order: bool) -> None:
    state, actions = arrive(new_destination(window_messages=4, in_order=in_order), *range(1, 10))
    assert delivered(actions) == [1, 2, 3, 4]
    assert [action.number for action in only(Drop, actions)] == [5, 6, 7, 8, 9]
    state, _ = step(state, Released(2), NOW)
    assert state.room == 2
    assert delivered(arrive(state, 5, 6, 7)[1]) == [5, 6]


@pytest.mark.row("RM-34")
def test_the_window_in_bytes() -> None:
    state = new_destination(window_bytes=800)
    state, actions = run_destination(
        state, Arrived(2, size=400), Arrived(3, size=301), Arrived(4, size=300), Arrived(1, size=500)
    )
    assert [action.number for action in only(Drop, actions)] == [3]  # an eighth stays free
    assert delivered(actions) == [1, 2]  # what fills the gap is taken: nothing else can go on
    assert (state.received, state.waiting_bytes) == (RangeSet(((1, 2), (4, 4))), 1_200)
    state, actions = run_destination(state, Arrived(3, size=1))
    assert only(Drop, actions) == [Drop(3, "1200 bytes are waiting")]
    state, _ = step(state, Released(1, 500), NOW)
    assert state.waiting_bytes == 700
    assert delivered(run_destination(state, Arrived(3, size=100))[1]) == [3, 4]


@pytest.mark.row("RM-34")
@pytest.mark.parametrize("in_order", [True, False])
def test_a_message_larger_than_the_window_is_taken_alone(in_order: bool) -> None:
    state = new_destination(window_bytes=10, in_order=in_order)
    state, actions = run_destination(state, Arrived(1, size=100), Arrived(2, size=1))
    assert delivered(actions) == [1]
    state, _ = step(state, Released(1, 100), NOW)
    assert delivered(run_destination(state, Arrived(2, size=100))[1]) == [2]


def test_a_window_of_one_holds_nothing() -> None:
    state, actions = arrive(new_destination(window_messages=1), 2, 1)
    assert (delivered(actions), state.received) == ([1], RangeSet.upto(1))


def test_released_more_than_waits_is_nothing() -> None:
    state, _ = arrive(new_destination(), 1)
    state, _ = step(state, Released(5, 500), NOW)
    assert (state.waiting_messages, state.waiting_bytes) == (0, 0)


@pytest.mark.row("RM-47")
def test_the_129th_range_is_not_stored() -> None:
    state = new_destination(in_order=False, window_messages=1_000)
    state, actions = arrive(state, *range(1, 601, 2))
    assert len(state.received.ranges) == 128
    assert only(Drop, actions)[0] == Drop(257, "more than 128 ranges")
    assert len(only(Acknowledge, actions)[-1].ranges) == 128
    state, actions = arrive(state, 2)  # fills a gap: 127 ranges
    assert delivered(actions) == [2]
    assert delivered(arrive(state, 257, 259)[1]) == [257]


# ---------------------------------------------------------------- acknowledging


@pytest.mark.row("RM-41")
@pytest.mark.parametrize("edition", EDITIONS)
def test_nothing_is_acknowledged_at_first(edition: str) -> None:
    assert step(new_destination(edition), AckRequested(), NOW)[1] == (Acknowledge(()),)


@pytest.mark.row("RM-43")
@pytest.mark.parametrize(("edition", "final"), [(RM11, True), (RM10, False)])
@pytest.mark.parametrize("event", [AckRequested(), Arrived(2), Close(2), Terminate(2)])
def test_every_acknowledgement_of_a_closed_sequence_is_final(
    edition: str, final: bool, event: AckRequested | Arrived | Close | Terminate
) -> None:
    state, actions = step(destination_in(Phase.CLOSED, edition), event, NOW)
    assert only(Acknowledge, actions) == [Acknowledge(((1, 2),), final)]
    assert state.final is final


# ---------------------------------------------------------------- closing and terminating


@pytest.mark.row("RM-75")
@pytest.mark.row("RM-96")
def test_a_new_message_for_a_closed_sequence() -> None:
    state, _ = run_destination(new_destination(), Arrived(1), Arrived(3), Close(4))
    closed, actions = step(state, Arrived(2), NOW)
    refuse, acknowledge = actions
    assert isinstance(refuse, Refuse)
    assert refuse.fault.subcode == (RM11, "SequenceClosed")
    assert refuse.fault.sequence == "urn:sequence"
    assert acknowledge == Acknowledge(((1, 1), (3, 3)), final=True)
    assert closed == state


def test_1_0_has_no_sequence_closed() -> None:
    state, _ = run_destination(new_destination(RM10), Arrived(1), Close())
    (refuse,) = only(Refuse, step(state, Arrived(2), NOW)[1])
    assert refuse.fault.subcode == (RM10, "SequenceTerminated")


@pytest.mark.row("RM-73")
def test_a_message_above_the_last_number_in_1_1() -> None:
    state, _ = run_destination(new_destination(), Arrived(1), Close(1))
    state, actions = step(state, Arrived(2), NOW)
    assert only(Refuse, actions)[0].fault.subcode == (RM11, "SequenceTerminated")
    assert state.phase is Phase.FAILED


@pytest.mark.row("RM-98")
@pytest.mark.parametrize(
    "later",
    [Arrived(4), Arrived(2, last_message=True), Arrived(4, last_message=True)],
    ids=["above", "a second last one", "a second last one above"],
)
def test_a_message_against_the_last_message_in_1_0(later: Arrived) -> None:
    state, _ = run_destination(new_destination(RM10), Arrived(1), Arrived(3, last_message=True))
    state, actions = step(state, later, NOW)
    assert only(Refuse, actions)[0].fault.subcode == (RM10, "LastMessageNumberExceeded")
    assert (state.phase, len(only(Fail, actions))) == (Phase.FAILED, 1)


@pytest.mark.row("RM-98")
def test_a_last_message_below_what_came() -> None:
    state, _ = arrive(new_destination(RM10), 1, 5)
    state, actions = step(state, Arrived(3, last_message=True), NOW)
    assert only(Refuse, actions)[0].fault.subcode == (RM10, "LastMessageNumberExceeded")


@pytest.mark.row("RM-71")
def test_an_empty_last_message_counts_and_is_not_delivered() -> None:
    last = Arrived(3, last_message=True)
    state, actions = run_destination(new_destination(RM10), Arrived(1), last)
    assert delivered(actions) == [1]
    assert (state.last, state.missing, state.waiting_messages, state.held) == (3, ((2, 2),), 1, 0)
    state, actions = run_destination(state, Arrived(2))
    assert delivered(actions) == [2]
    assert actions[-1] == Acknowledge(((1, 3),))
    assert step(state, last, NOW)[1][0] == Duplicate(3)
    state, actions = run_destination(state, Terminate())
    assert actions == (Acknowledge(((1, 3),)),)
    unordered, actions = run_destination(new_destination(RM10, in_order=False), last)
    assert (delivered(actions), unordered.delivered) == ([], 0)


@pytest.mark.row("RM-71")
def test_a_last_message_with_a_payload_is_delivered() -> None:
    state, actions = run_destination(
        new_destination(RM10), Arrived(1), Arrived(2, last_message=True, with_payload=True)
    )
    assert delivered(actions) == [1, 2]
    assert (state.last, state.empty) == (2, None)


@pytest.mark.row("RM-72")
@pytest.mark.parametrize("kind", [Close, Terminate])
@pytest.mark.parametrize(
    ("arrivals", "last", "missing"),
    [
        ((1, 2, 3), 3, ()),
        ((1, 3), 3, ((2, 2),)),
        ((1, 2), 5, ((3, 5),)),
        ((2, 4), MAX_NUMBER, ((1, 1), (3, 3), (5, MAX_NUMBER))),
        ((1, 3), None, ((2, 2),)),
        ((), None, ()),
        ((), 2, ((1, 2),)),
    ],
)
def test_gaps_at_the_end_are_told(
    kind: type[Close] | type[Terminate],
    arrivals: tuple[int, ...],
    last: int | None,
    missing: tuple[tuple[int, int], ...],
) -> None:
    state, _ = arrive(new_destination(), *arrivals)
    state, actions = step(state, kind(last), NOW)
    assert only(Incomplete, actions) == ([Incomplete(missing)] if missing else [])
    assert actions[-1] == Acknowledge(state.received.ranges, final=True)


@pytest.mark.row("RM-21")
@pytest.mark.parametrize(
    ("behavior", "arrivals", "at_once", "at_the_end", "discarded"),
    [
        ("NoDiscard", (1, 2, 4, 6), [1, 2], [4, 6], []),
        ("DiscardFollowingFirstGap", (1, 2, 4, 6), [1, 2], [], [Discard(((4, 4), (6, 6)))]),
        ("DiscardEntireSequence", (1, 2, 4, 6), [], [], [Discard(((1, 2), (4, 4), (6, 6)))]),
        ("NoDiscard", (2, 3), [], [2, 3], []),
        ("DiscardFollowingFirstGap", (2, 3), [], [], [Discard(((2, 3),))]),
        ("DiscardEntireSequence", (2, 3), [], [], [Discard(((2, 3),))]),
        ("NoDiscard", (1, 2, 3, 4, 5), [1, 2, 3, 4, 5], [], []),
        ("DiscardFollowingFirstGap", (1, 2, 3, 4, 5), [1, 2, 3, 4, 5], [], []),
        ("DiscardEntireSequence", (1, 2, 3, 4, 5), [], [], [Discard(((1, 5),))]),
        ("DiscardEntireSequence", (2, 1, 3, 4, 5, 6), [], [1, 2, 3, 4, 5, 6], []),
    ],
)
@pytest.mark.parametrize("kind", [Close, Terminate])
def test_an_incomplete_sequence_does_what_was_announced(
    behavior: str,
    arrivals: tuple[int, ...],
    at_once: list[int],
    at_the_end: list[int],
    discarded: list[Discard],
    kind: type[Close] | type[Terminate],
) -> None:
    assert behavior in BEHAVIORS
    state, actions = arrive(new_destination(behavior=behavior), *arrivals)
    assert delivered(actions) == at_once
    state, actions = step(state, kind(6), NOW)
    assert delivered(actions) == at_the_end
    assert only(Discard, actions) == discarded
    again, actions = step(state, Terminate(6), NOW)
    assert (delivered(actions), only(Discard, actions)) == ([], [])
    assert again.phase is Phase.TERMINATED


@pytest.mark.row("RM-21")
def test_a_whole_sequence_is_discarded_out_of_order_too() -> None:
    state = new_destination(behavior="DiscardEntireSequence", in_order=False)
    state, actions = arrive(state, 1, 3)
    assert delivered(actions) == []
    assert only(Discard, step(state, Close(3), NOW)[1]) == [Discard(((1, 1), (3, 3)))]
    assert delivered(run_destination(state, Arrived(2), Close(3))[1]) == [1, 2, 3]


@pytest.mark.row("RM-73")
@pytest.mark.parametrize(
    ("before", "event"),
    [
        ((), Close(2)),
        ((), Terminate(2)),
        ((Close(3),), Terminate(4)),
        ((Close(3),), Close(5)),
        ((Close(5),), Terminate(3)),
    ],
)
def test_last_numbers_that_contradict(before: tuple[Close, ...], event: Close | Terminate) -> None:
    state, _ = run_destination(new_destination(), Arrived(1), Arrived(3), *before)
    expected = before[0].last if before else 3
    state, actions = step(state, event, NOW)
    assert only(Refuse, actions)[0].fault.subcode == (RM11, "SequenceTerminated")
    assert only(Fail, actions) == [Fail(f"the last number is {event.last} now, and {expected} is known")]
    assert state.phase is Phase.FAILED


@pytest.mark.row("RM-77")
def test_repeated_endings_get_the_same_answer() -> None:
    state, _ = arrive(new_destination(), 1, 2)
    closed, first = step(state, Close(2), NOW)
    assert step(closed, Close(2), NOW) == (closed, first)
    assert step(closed, Close(), NOW) == (closed, first)
    ended, last = step(closed, Terminate(2), NOW)
    assert step(ended, Terminate(2), NOW) == (ended, last) == (ended, first)
    assert step(ended, Close(2), NOW) == (ended, first)
    with pytest.raises(Violation) as caught:
        step(ended, Terminate(7), NOW)
    assert caught.value.fault.subcode == (RM11, "SequenceTerminated")


@pytest.mark.row("RM-91")
@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("event", [Arrived(1), Arrived(3), AckRequested()])
def test_a_terminated_sequence_is_unknown(edition: str, event: Arrived | AckRequested) -> None:
    with pytest.raises(Violation) as caught:
        step(destination_in(Phase.TERMINATED, edition), event, NOW)
    assert caught.value.fault.subcode == (edition, "UnknownSequence")


@pytest.mark.row("RM-60")
def test_ending_from_this_side() -> None:
    state, actions = step(destination_in(Phase.OPEN), Ended("inactive"), NOW)
    assert (state.phase, state.reason, actions) == (Phase.FAILED, "inactive", (Fail("inactive"),))
    state, actions = step(destination_in(Phase.CLOSED), Ended("inactive"), NOW)
    assert (state.phase, actions) == (Phase.TERMINATED, ())
    for phase in (Phase.TERMINATED, Phase.FAILED):
        before = destination_in(phase)
        assert step(before, Ended("again"), NOW) == (before, ())


def test_when_a_sequence_has_ended() -> None:
    ended = {phase for phase in Phase if destination_in(phase).ended}
    assert ended == {Phase.TERMINATED, Phase.FAILED}


def test_a_running_handler_may_finish_after_the_end() -> None:
    for phase in Phase:
        state, actions = step(destination_in(phase), Released(), NOW)
        assert (state.phase, state.waiting_messages, actions) == (phase, 1, ())


def test_idle_since_the_peers_last_word() -> None:
    state, _ = step(new_destination(), Arrived(1), after(3))
    assert state.idle_at == NOW.utc + 3
    assert step(state, Released(), after(9))[0].idle_at == NOW.utc + 3
    assert step(state, Close(1), after(9))[0].idle_at == NOW.utc + 9


def test_a_million_messages_stay_flat() -> None:
    state = new_destination()
    for number in range(1, 20_001):
        state, _ = step(state, Arrived(number), NOW)
        state, _ = step(state, Released(), NOW)
    assert state.received == RangeSet.upto(20_000)
    state = new_destination(received=RangeSet.upto(1_000_000), delivered=1_000_000)
    state, actions = arrive(state, 1_000_001, 1_000_003)
    assert delivered(actions) == [1_000_001]
    assert state.received.ranges == ((1, 1_000_001), (1_000_003, 1_000_003))


@pytest.mark.row("RM-34", "RM-47")
@pytest.mark.parametrize("ranges", [1, 2, 4])
def test_a_range_stays_free_for_the_first_message(ranges: int) -> None:
    """Else early messages could fill ranges and window so that the one they wait for has no room."""
    state = new_destination(RM11, max_ranges=ranges, window_messages=ranges + 1)
    for number in range(3, 3 + 2 * ranges, 2):
        state, _ = step(state, Arrived(number), NOW)
    state, actions = step(state, Arrived(1), NOW)
    assert Accept(1) in actions
    assert len(state.received.ranges) <= ranges
