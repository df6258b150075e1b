"""What a source does: numbering, acknowledgements, the two ways to end, faults, back-off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castile.config import Timers
from castile.errors import MessageNumberRollover, SequenceClosed, SequenceTerminated, UsageError, Violation
from castile.protocol import source
from castile.protocol.actions import (
    Complete,
    Fail,
    Number,
    Purge,
    Resend,
    SendClose,
    SendLastMessage,
    SendTerminate,
)
from castile.protocol.ranges import MAX_NUMBER, RangeSet
from castile.protocol.source import (
    Acknowledged,
    Close,
    CloseAnswered,
    Created,
    Faulted,
    GiveUp,
    PeerClosed,
    PeerTerminated,
    Phase,
    Refused,
    Source,
    Submit,
    Suspect,
    Terminate,
    TerminateAnswered,
    backoff,
    step,
)
from tests.protocol.cases import (
    EDITIONS,
    NOW,
    RM10,
    RM11,
    after,
    new_source,
    open_source,
    run_source,
    source_in,
)

# ---------------------------------------------------------------- creating and numbering


@pytest.mark.row("RM-30")
@pytest.mark.parametrize("edition", EDITIONS)
def test_numbers_rise_by_one_from_one(edition: str) -> None:
    state, actions = run_source(new_source(edition), Submit(), Submit(3), Created("urn:s"), Submit())
    assert actions == tuple(map(Number, range(1, 6)))
    assert (state.next_number, state.highest, state.phase) == (6, 5, Phase.OPEN)


@pytest.mark.row("RM-31")
@pytest.mark.parametrize("edition", EDITIONS)
def test_the_last_number_is_used_and_no_other(edition: str) -> None:
    state, actions = run_source(open_source(edition, max_number=3), Submit(2), Submit())
    assert actions[-1] == Number(3)
    for count in (1, 5):
        with pytest.raises(MessageNumberRollover, match="create another sequence"):
            step(state, Submit(count), NOW)
    with pytest.raises(MessageNumberRollover):
        step(open_source(edition, max_number=3), Submit(4), NOW)


@pytest.mark.row("RM-31")
def test_the_largest_number_there_is() -> None:
    assert new_source().max_number == MAX_NUMBER == 9_223_372_036_854_775_807
    state = open_source(next_number=MAX_NUMBER, acknowledged=RangeSet.upto(MAX_NUMBER - 1))
    state, actions = step(state, Submit(), NOW)
    assert actions == (Number(MAX_NUMBER),)
    state, actions = step(state, Acknowledged(((1, MAX_NUMBER),)), NOW)
    assert actions == (Purge(((MAX_NUMBER, MAX_NUMBER),)),)
    with pytest.raises(MessageNumberRollover):
        step(state, Submit(), NOW)


def test_nothing_is_no_submission() -> None:
    with pytest.raises(UsageError):
        step(open_source(), Submit(0), NOW)


@pytest.mark.row("RM-10")
def test_created_takes_what_the_answer_says() -> None:
    answer = Created("urn:s", accepted=True, behavior="DiscardFollowingFirstGap", expires=NOW.utc + 60)
    state, _ = step(new_source(reason="busy"), answer, after(2))
    assert (state.identifier, state.offered, state.behavior) == ("urn:s", "urn:offered", answer.behavior)
    assert (state.expires, state.idle_at, state.reason) == (NOW.utc + 60, NOW.utc + 2, None)


@pytest.mark.row("RM-15")
def test_an_offer_may_go_unaccepted() -> None:
    state, _ = step(new_source(), Created("urn:s", accepted=False), NOW)
    assert (state.phase, state.offered) == (Phase.OPEN, None)


@pytest.mark.row("RM-18")
def test_create_sequence_makes_one_sequence() -> None:
    state, _ = step(new_source(), Created("urn:s"), NOW)
    assert step(state, Created("urn:s"), NOW) == (state, ())
    with pytest.raises(Violation, match="another sequence") as caught:
        step(state, Created("urn:t"), NOW)
    assert caught.value.fault.sequence == "urn:s"
    assert b">urn:s<" in caught.value.fault.detail


@pytest.mark.row("RM-17")
@pytest.mark.parametrize("identifier", ["", "urn:offered"])
def test_an_answer_must_name_a_new_sequence(identifier: str) -> None:
    with pytest.raises(Violation, match="no new sequence"):
        step(new_source(), Created(identifier), NOW)


@pytest.mark.row("RM-95")
def test_a_busy_peer_is_asked_again_and_a_refusal_is_final() -> None:
    waiting, _ = run_source(new_source(), Submit(2))
    state, actions = step(waiting, Refused("busy", retry=True), NOW)
    assert (state.phase, state.reason, actions) == (Phase.CREATING, "busy", ())
    state, actions = step(state, Refused("no such policy"), NOW)
    assert (state.phase, actions) == (Phase.FAILED, (Fail("no such policy", (1, 2)),))


# ---------------------------------------------------------------- acknowledgements


@pytest.mark.row("RM-51")
@pytest.mark.parametrize("edition", EDITIONS)
def test_what_is_new_is_purged_once(edition: str) -> None:
    state = open_source(edition, sent=6)
    state, actions = step(state, Acknowledged(((2, 3), (5, 5))), NOW)
    assert actions == (Purge(((2, 3), (5, 5))),)
    assert state.unacknowledged == ((1, 1), (4, 4), (6, 6))
    state, actions = step(state, Acknowledged(((1, 5),)), NOW)
    assert actions == (Purge(((1, 1), (4, 4))),)
    assert step(state, Acknowledged(((1, 5),)), NOW) == (state, ())


@pytest.mark.row("RM-41")
@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("nothing", [(), ((0, 0),)])
def test_nothing_received_yet(edition: str, nothing: tuple[tuple[int, int], ...]) -> None:
    state = open_source(edition, sent=2)
    assert step(state, Acknowledged(nothing), NOW) == (state, ())


@pytest.mark.row("RM-44")
def test_nack_resends_what_is_not_acknowledged() -> None:
    state, _ = step(open_source(sent=4), Acknowledged(((1, 2),)), NOW)
    after_nack, actions = step(state, Acknowledged(nacks=(2, 3)), NOW)
    assert actions == (Resend((3,)),)
    assert after_nack.acknowledged == state.acknowledged
    assert step(state, Acknowledged(nacks=(1,)), NOW)[1] == ()


@pytest.mark.row("RM-35")
def test_the_peers_room_is_kept() -> None:
    state, _ = step(open_source(sent=4), Acknowledged(((1, 2),), buffer_remaining=3), NOW)
    assert state.peer_room == 3
    assert step(state, Acknowledged(((1, 1),), buffer_remaining=4), NOW)[0].peer_room == 3
    assert step(state, Acknowledged(((1, 4),)), NOW)[0].peer_room is None


BAD = {
    "a number never sent": Acknowledged(((1, 5),)),
    "only numbers never sent": Acknowledged(((7, 7),)),
    "lower 0": Acknowledged(((0, 2),)),
    "lower 0 beside another range": Acknowledged(((0, 0), (1, 1))),
    "negative": Acknowledged(((-3, -1),)),
    "reversed": Acknowledged(((3, 2),)),
    "overlapping": Acknowledged(((1, 3), (3, 4))),
    "overlapping, unordered": Acknowledged(((3, 4), (1, 3))),
    "twice": Acknowledged(((1, 2), (1, 2))),
    "takes one back, gives another": Acknowledged(((1, 1), (3, 3))),
    "final for an open sequence": Acknowledged(((1, 4),), final=True),
    "takes back where nothing overtakes": Acknowledged(((1, 1),), ordered=True),
    "a Nack of a number never sent": Acknowledged(nacks=(5,)),
    "a Nack of 0": Acknowledged(nacks=(0,)),
    "a Nack with a range": Acknowledged(((1, 2),), nacks=(3,)),
    "a Nack with Final": Acknowledged(nacks=(3,), final=True),
}


@pytest.mark.row("RM-48")
@pytest.mark.row("RM-92")
@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("phase", ["open", "suspect"])
@pytest.mark.parametrize("event", BAD.values(), ids=BAD)
def test_invalid_acknowledgements(edition: str, phase: str, event: Acknowledged) -> None:
    state, _ = step(open_source(edition, sent=4), Acknowledged(((1, 2),)), NOW)
    if phase == "suspect":
        state, _ = step(state, Suspect("lost"), NOW)
    with pytest.raises(Violation) as caught:
        step(state, event, NOW)
    fault = caught.value.fault
    assert fault.subcode == (edition, "InvalidAcknowledgement")
    assert fault.sequence == "urn:sequence"
    assert b"<r:SequenceAcknowledgement " in fault.detail


@pytest.mark.row("RM-48")
@pytest.mark.parametrize("edition", EDITIONS)
def test_an_overtaken_acknowledgement_changes_nothing(edition: str) -> None:
    """Answers of exchanges that are open at once come in any order."""
    state, _ = step(open_source(edition, sent=5), Acknowledged(((1, 2), (4, 4))), NOW)
    for older in ((), ((0, 0),), ((1, 1),), ((4, 4),), ((1, 1), (4, 4))):
        assert step(state, Acknowledged(older), NOW) == (state, ())


@pytest.mark.row("RM-43")
def test_after_final_nothing_changes() -> None:
    state, _ = run_source(open_source(sent=4), Close(incomplete=True), Acknowledged(((1, 2),), final=True))
    assert state.final
    assert step(state, Acknowledged(((1, 2),), final=True), NOW) == (state, ())
    for wrong in (Acknowledged(((1, 3),)), Acknowledged(((1, 1),), final=True), Acknowledged((), final=True)):
        with pytest.raises(Violation, match="acknowledgement refused"):
            step(state, wrong, NOW)


@pytest.mark.row("RM-43")
def test_1_0_has_no_final() -> None:
    closing = source_in(Phase.CLOSING, RM10)
    with pytest.raises(Violation, match="final"):
        step(closing, Acknowledged(((1, 3),), final=True), NOW)


@pytest.mark.row("CO-16")
def test_suspicion_counts_from_its_beginning() -> None:
    state, _ = step(open_source(sent=2), Suspect("context lost"), NOW)
    later = after(100)
    again, _ = step(state, Suspect("context lost"), later)
    assert (state.suspect_at, again.suspect_at) == (NOW.utc, NOW.utc)
    healed, _ = step(again, Acknowledged(((1, 1),)), later)
    assert healed.suspect_at is None
    failed, _ = step(again, GiveUp("security context lost"), later)
    assert step(failed, Suspect("late"), later)[0] == failed


def test_an_acknowledgement_heals_suspicion() -> None:
    state, _ = run_source(open_source(sent=2), Suspect("context lost"))
    with pytest.raises(SequenceClosed, match="context lost"):
        step(state, Submit(), NOW)
    state, actions = step(state, Acknowledged(((1, 1),)), NOW)
    assert (state.phase, state.reason) == (Phase.OPEN, None)
    assert actions == (Purge(((1, 1),)),)


# ---------------------------------------------------------------- closing and terminating


@pytest.mark.row("RM-70")
@pytest.mark.row("RM-72")
def test_the_end_in_1_1() -> None:
    state, _ = run_source(open_source(RM11, sent=3), Acknowledged(((1, 2),)))
    with pytest.raises(UsageError, match=r"1 messages are not acknowledged.*incomplete=True"):
        step(state, Close(), NOW)
    with pytest.raises(UsageError):
        step(state, Terminate(), NOW)
    state, actions = run_source(state, Acknowledged(((1, 3),)), Close())
    assert actions == (Purge(((3, 3),)), SendClose(3))
    state, actions = run_source(state, Acknowledged(((1, 3),), final=True), CloseAnswered())
    assert (state.phase, actions) == (Phase.CLOSED, ())
    state, actions = run_source(state, Terminate())
    assert actions == (SendTerminate(3),)
    state, actions = run_source(state, TerminateAnswered(), TerminateAnswered())
    assert (state.phase, actions) == (Phase.TERMINATED, (Complete(()),))


@pytest.mark.row("RM-71")
def test_the_end_in_1_0() -> None:
    state, actions = run_source(open_source(RM10, sent=2), Acknowledged(((1, 2),)), Close())
    assert actions[-1] == SendLastMessage(3)
    assert (state.phase, state.last, state.highest) == (Phase.CLOSING, 3, 3)
    state, actions = run_source(state, Acknowledged(((1, 3),)))
    assert (state.phase, actions) == (Phase.CLOSED, (Purge(((3, 3),)),))
    state, actions = run_source(state, Terminate(), TerminateAnswered())
    assert actions == (SendTerminate(None), Complete(()))


@pytest.mark.row("RM-71")
def test_a_last_message_that_is_never_acknowledged_is_no_loss() -> None:
    """WCF answers it, but what the answer holds is not said (1.0)."""
    state, _ = run_source(open_source(RM10, sent=1), Acknowledged(((1, 1),)), Close())
    state, actions = run_source(state, Terminate(), TerminateAnswered())
    assert actions == (SendTerminate(None), Complete(()))


@pytest.mark.row("RM-70")
@pytest.mark.parametrize(
    ("edition", "closing", "ending"),
    [(RM11, SendClose(None), SendTerminate(None)), (RM10, SendLastMessage(1), SendTerminate(None))],
)
def test_a_sequence_without_messages(edition: str, closing: object, ending: object) -> None:
    state, actions = run_source(open_source(edition), Close())
    assert actions == (closing,)
    answer = CloseAnswered() if edition == RM11 else Acknowledged(((1, 1),))
    _, actions = run_source(state, answer, Terminate(), TerminateAnswered())
    assert actions[-2:] == (ending, Complete(()))


@pytest.mark.row("RM-71")
def test_without_a_number_for_the_last_message_1_0_just_terminates() -> None:
    state, _ = run_source(open_source(RM10, max_number=2), Submit(2), Acknowledged(((1, 2),)))
    state, actions = run_source(state, Close())
    assert (state.phase, actions, state.last) == (Phase.CLOSED, (), 2)
    assert run_source(state, Terminate(), TerminateAnswered())[1] == (SendTerminate(None), Complete(()))


@pytest.mark.row("RM-72")
@pytest.mark.parametrize("edition", EDITIONS)
def test_giving_up_names_what_is_missing(edition: str) -> None:
    state, _ = run_source(open_source(edition, sent=5), Acknowledged(((1, 1), (3, 3))))
    state, actions = run_source(state, Close(incomplete=True))
    if edition == RM11:
        state, _ = run_source(state, Acknowledged(((1, 1), (3, 3)), final=True), CloseAnswered())
    else:
        assert actions == (SendLastMessage(6),)
        state, _ = run_source(state, Acknowledged(((1, 1), (3, 3), (6, 6))))
    assert state.phase is Phase.CLOSED
    _, actions = run_source(state, Terminate(), TerminateAnswered())
    assert actions[-1] == Complete((2, 4, 5))


@pytest.mark.row("RM-21")
@pytest.mark.parametrize(
    ("behavior", "missing"),
    [
        ("NoDiscard", (2, 5)),
        ("DiscardFollowingFirstGap", (2, 3, 4, 5)),
        ("DiscardEntireSequence", (1, 2, 3, 4, 5)),
    ],
)
def test_what_the_peer_discards_is_missing_too(behavior: str, missing: tuple[int, ...]) -> None:
    state, _ = run_source(new_source(), Created("urn:s", behavior=behavior), Submit(5))
    state, _ = run_source(state, Acknowledged(((1, 1), (3, 4))), Terminate(incomplete=True))
    assert run_source(state, TerminateAnswered())[1] == (Complete(missing),)


@pytest.mark.parametrize("behavior", ["NoDiscard", "DiscardFollowingFirstGap", "DiscardEntireSequence"])
def test_a_whole_sequence_is_never_discarded(behavior: str) -> None:
    state, _ = run_source(new_source(), Created("urn:s", behavior=behavior), Submit(5))
    state, _ = run_source(state, Acknowledged(((1, 5),)), Terminate(), TerminateAnswered())
    assert not state.missing


@pytest.mark.parametrize("edition", EDITIONS)
def test_closing_twice_is_closing_once(edition: str) -> None:
    state = source_in(Phase.CLOSING, edition)
    assert step(state, Close(), NOW) == (state, ())
    terminating = source_in(Phase.TERMINATING, edition)
    assert step(terminating, Terminate(), NOW) == (terminating, ())


def test_a_closing_1_0_sequence_can_still_be_given_up() -> None:
    state, _ = run_source(open_source(RM10, sent=2, max_number=2), Close(incomplete=True))
    assert state.phase is Phase.CLOSED  # there is nothing left to wait for


@pytest.mark.row("RM-74")
@pytest.mark.row("RM-78")
@pytest.mark.parametrize("edition", EDITIONS)
def test_an_offered_sequence_ends_with_its_twin(edition: str) -> None:
    """The client's CloseSequence has the final acknowledgement of our replies on it (WCF)."""
    state, _ = run_source(open_source(edition, sent=2), Acknowledged(((1, 1),)), PeerClosed())
    assert (state.phase, state.last) == (Phase.CLOSED, 2)
    with pytest.raises(SequenceClosed):
        step(state, Submit(), NOW)
    final = edition == RM11
    state, actions = run_source(state, Acknowledged(((1, 2),), final=final), PeerTerminated())
    assert actions == (Purge(((2, 2),)), Complete(()))
    assert run_source(state, PeerTerminated())[1] == ()


@pytest.mark.row("RM-74")
def test_a_peer_that_ends_it_early_leaves_a_report() -> None:
    _, actions = run_source(open_source(sent=3), Acknowledged(((1, 1),)), PeerTerminated())
    assert actions[-1] == Complete((2, 3))


@pytest.mark.parametrize("phase", [Phase.TERMINATED, Phase.FAILED])
def test_an_ended_sequence_says_why(phase: Phase) -> None:
    with pytest.raises(SequenceTerminated, match=phase.value):
        step(source_in(phase), Submit(), NOW)


# ---------------------------------------------------------------- giving up and faults


@pytest.mark.row("RM-58")
@pytest.mark.parametrize("edition", EDITIONS)
def test_failing_names_the_numbers(edition: str) -> None:
    state, _ = run_source(open_source(edition, sent=4), Acknowledged(((1, 1), (3, 3))))
    state, actions = run_source(state, GiveUp("nobody answered for a day"))
    assert actions == (Fail("nobody answered for a day", (2, 4)),)
    assert state.reason == "nobody answered for a day"
    assert run_source(state, GiveUp("again"), Faulted("UnknownSequence", "x"))[1] == ()
    state, actions = run_source(state, Acknowledged(((1, 4),)))
    assert (state.phase, actions) == (Phase.FAILED, (Purge(((2, 2), (4, 4))),))
    assert not state.missing


def test_giving_up_the_good_bye_is_no_failure() -> None:
    for phase in (Phase.CLOSED, Phase.TERMINATING):
        state, actions = run_source(source_in(phase), GiveUp("no answer"))
        assert (state.phase, actions) == (Phase.TERMINATED, (Complete(()),))


@pytest.mark.row("RM-90")
@pytest.mark.row("RM-91")
@pytest.mark.row("RM-98")
@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize(
    "code", ["SequenceTerminated", "UnknownSequence", "LastMessageNumberExceeded", "Odd"]
)
def test_faults_that_end_the_sequence(edition: str, code: str) -> None:
    state, _ = run_source(open_source(edition, sent=3), Acknowledged(((1, 1),)))
    state, actions = step(state, Faulted(code, "said the peer"), NOW)
    assert (state.phase, actions) == (Phase.FAILED, (Fail(f"{code}: said the peer", (2, 3)),))


@pytest.mark.row("RM-94")
def test_rollover_stops_numbering_in_1_1_and_the_sequence_in_1_0() -> None:
    state, actions = step(open_source(RM11, sent=3), Faulted("MessageNumberRollover", "enough"), NOW)
    assert (state.phase, actions) == (Phase.OPEN, ())
    assert step(state, Acknowledged(((1, 3),)), NOW)[1] == (Purge(((1, 3),)),)
    with pytest.raises(MessageNumberRollover):
        step(state, Submit(), NOW)
    state, actions = step(open_source(RM10, sent=3), Faulted("MessageNumberRollover", "enough"), NOW)
    assert state.phase is Phase.FAILED


@pytest.mark.row("RM-96")
def test_sequence_closed_stops_sending() -> None:
    """The final acknowledgement beside the fault says what the peer has."""
    state, _ = step(open_source(RM11, sent=4), Faulted("SequenceClosed", "closed"), NOW)
    assert state.phase is Phase.CLOSED
    state, _ = step(state, Acknowledged(((1, 2),), final=True), NOW)
    _, actions = run_source(state, Terminate(), TerminateAnswered())
    assert actions == (SendTerminate(4), Complete((3, 4)))


@pytest.mark.row("RM-96")
def test_sequence_closed_is_no_fault_of_1_0() -> None:
    assert step(open_source(RM10, sent=1), Faulted("SequenceClosed", "x"), NOW)[0].phase is Phase.FAILED


@pytest.mark.row("RM-92")
def test_a_fault_about_our_acknowledgement_is_not_about_our_messages() -> None:
    state = open_source(sent=2)
    assert step(state, Faulted("InvalidAcknowledgement", "x"), NOW) == (state, ())


@pytest.mark.row("RM-91")
@pytest.mark.parametrize("phase", [Phase.CLOSING, Phase.CLOSED, Phase.TERMINATING])
def test_a_peer_that_forgot_a_complete_sequence_is_done(phase: Phase) -> None:
    state, actions = step(source_in(phase), Faulted("UnknownSequence", "gone"), NOW)
    assert (state.phase, actions) == (Phase.TERMINATED, (Complete(()),))


@pytest.mark.row("RM-91")
def test_a_peer_that_forgot_an_incomplete_sequence_is_a_failure() -> None:
    state, _ = run_source(open_source(sent=2), Close(incomplete=True))
    state, actions = step(state, Faulted("UnknownSequence", "gone"), NOW)
    assert (state.phase, actions) == (Phase.FAILED, (Fail("UnknownSequence: gone", (1, 2)),))


@pytest.mark.row("RM-73")
@pytest.mark.parametrize("phase", [Phase.CLOSED, Phase.TERMINATING])
def test_sequence_terminated_is_never_success(phase: Phase) -> None:
    state, actions = step(source_in(phase), Faulted("SequenceTerminated", "numbers differ"), NOW)
    assert (state.phase, actions) == (Phase.FAILED, (Fail("SequenceTerminated: numbers differ", ()),))


# ---------------------------------------------------------------- time


def test_idle_since_the_peers_last_word() -> None:
    state, _ = run_source(open_source(sent=2), now=NOW)
    assert state.idle_at == NOW.utc
    assert step(state, Submit(), after(5))[0].idle_at == NOW.utc
    assert step(state, Acknowledged(((1, 1),)), after(7))[0].idle_at == NOW.utc + 7


@pytest.mark.row("RM-57")
def test_backoff_doubles_up_to_the_limit() -> None:
    timers = Timers()
    assert [backoff(attempt, timers, 0.5) for attempt in range(8)] == [0, 2, 4, 8, 16, 32, 60, 60]
    assert backoff(10_000, timers, 0.5) == 60


@pytest.mark.row("RM-57")
@given(st.integers(1, 100), st.floats(0, 1))
def test_jitter_stays_within_a_fifth(attempts: int, jitter: float) -> None:
    timers = Timers()
    middle = backoff(attempts, timers, 0.5)
    assert 0.8 * middle - 1e-9 <= backoff(attempts, timers, jitter) <= 1.2 * middle + 1e-9
    assert backoff(attempts, timers, 0.0) == pytest.approx(0.8 * middle)
    assert backoff(attempts, timers, 1.0) == pytest.approx(1.2 * middle)


def test_an_interval_above_the_limit_is_kept() -> None:
    assert backoff(3, Timers(retransmit_interval=90.0), 0.5) == 90.0


def test_a_million_messages_stay_flat() -> None:
    state = open_source(sent=1_000_000)
    state, actions = step(state, Acknowledged(((1, 400_000), (400_002, 1_000_000))), NOW)
    assert state.unacknowledged == ((400_001, 400_001),)
    assert isinstance(state, Source)
    assert actions == (Purge(((1, 400_000), (400_002, 1_000_000))),)
    assert source.step(state, Acknowledged(((1, 1_000_000),)), NOW)[1] == (Purge(((400_001, 400_001),)),)
