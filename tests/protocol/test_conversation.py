"""A context at the client: what it takes from an answer, how long it serves, renewal, loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castile.config import Timers
from castile.errors import CastileError, SecurityFailure, UsageError
from castile.protocol.conversation import (
    MAX_INSTANCES,
    Cancelled,
    Conversation,
    Established,
    Event,
    Expired,
    ForgetKey,
    Instance,
    Lost,
    Phase,
    RenewalFailed,
    RenewalStarted,
    Renewed,
    UseKey,
    at_least,
    step,
)
from tests.protocol.cases import (
    NOW,
    SC13,
    START,
    TIMERS,
    after,
    conversation_in,
    established,
    new_conversation,
    renewed,
)

LIFE = 7_200.0
WINDOW = 7_200.0


def usable(life: float = LIFE) -> Conversation:
    return step(new_conversation(), established(life), NOW)[0]


# ---------------------------------------------------------------- establishing


@pytest.mark.row("F11")
def test_established_keeps_what_the_issuer_said() -> None:
    state, actions = step(new_conversation(), established(), NOW)
    assert (state.identifier, state.token, state.token_id) == ("urn:sct", b"<sct/>", "id")
    assert (state.created, state.expires) == (START, START + LIFE)
    assert state.current == Instance(None, bytes(range(32)), START, START + LIFE)
    assert actions == (UseKey("urn:sct", None),)


def test_secrets_don_t_show() -> None:
    secret = bytes(range(32))
    for value in (usable(), usable().current, established(), renewed()):
        assert repr(secret) not in repr(value)
        assert "secret" not in repr(value)


@pytest.mark.row("SC-08")
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (established(name=""), "names no security context"),
        (replace(established(), secret=bytes(15)), "120 bits"),
        (established(requested_bits=512), "256 bits"),
        (established(created=START + 181, expires=START + LIFE), "compare the clocks"),
        (established(created=START, expires=START), "ended before"),
        (established(created=START - 50, expires=START), "ended before"),
        (established(created=START + 100, expires=START + 50), "ended before"),
        (established(created=START + 100, expires=START + 100), "ended before"),
    ],
    ids=[
        "no name",
        "weak",
        "smaller than asked",
        "post-dated",
        "over at once",
        "over",
        "reversed",
        "no life",
    ],
)
def test_an_answer_that_is_worth_nothing(answer: Established, text: str) -> None:
    with pytest.raises(SecurityFailure, match=text):
        step(new_conversation(), answer, NOW)


@pytest.mark.row("F15")
@pytest.mark.parametrize(("ahead", "good"), [(-181, True), (0, True), (179, True), (180, True), (181, False)])
def test_post_dated_by_no_more_than_the_skew(ahead: float, good: bool) -> None:
    answer = established(created=START + ahead, expires=START + LIFE)
    if good:
        assert step(new_conversation(), answer, NOW)[0].usable(NOW, TIMERS)
    else:
        with pytest.raises(SecurityFailure):
            step(new_conversation(), answer, NOW)


@pytest.mark.row("SC-05")
def test_the_smallest_key_that_serves() -> None:
    weakest = replace(established(requested_bits=128), secret=bytes(16))
    assert step(new_conversation(), weakest, NOW)[0].phase is Phase.USABLE


def test_an_answer_without_lifetime_lives_as_long_as_ours() -> None:
    state, _ = step(new_conversation(), established(created=None, expires=None), NOW)
    assert (state.created, state.expires) == (START, START + TIMERS.token_lifetime)


@pytest.mark.row("SC-08")
@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.ESTABLISHING])
def test_nobody_pushes_a_token(phase: Phase) -> None:
    with pytest.raises(SecurityFailure, match="nobody asked for"):
        step(conversation_in(phase), established(name="urn:other"), NOW)


# ---------------------------------------------------------------- time


@pytest.mark.row("F12")
@pytest.mark.parametrize(
    ("at", "new_message", "resend"),
    [
        (LIFE - 1, True, True),
        (LIFE, False, True),
        (LIFE + 1, False, True),
        (LIFE + WINDOW - 1, False, True),
        (LIFE + WINDOW, False, False),
        (LIFE + WINDOW + 1, False, False),
    ],
)
def test_an_expired_context_serves_recovery_only(at: float, new_message: bool, resend: bool) -> None:
    state = usable()
    assert state.usable(after(at), TIMERS) is new_message
    assert state.recoverable(after(at), TIMERS) is resend


@pytest.mark.row("F12")
def test_only_a_living_context_recovers() -> None:
    assert not new_conversation().recoverable(NOW, TIMERS)
    assert not conversation_in(Phase.CANCELLED).recoverable(NOW, TIMERS)
    assert conversation_in(Phase.EXPIRED).recoverable(NOW, TIMERS)
    assert not conversation_in(Phase.EXPIRED).usable(NOW, TIMERS)
    assert conversation_in(Phase.RENEWING).usable(NOW, TIMERS)
    assert not new_conversation().usable(NOW, TIMERS)


@pytest.mark.row("SC-27")
@pytest.mark.parametrize(
    ("seconds", "testing", "effective"),
    [
        (7_200, False, 7_200),
        (600, False, 600),
        (599, False, 600),
        (5, False, 600),
        (5, True, 5),
        (0, True, 0),
    ],
)
def test_lifetimes_have_a_floor_outside_tests(seconds: float, testing: bool, effective: float) -> None:
    assert at_least(seconds, testing) == effective
    timers = Timers(token_cache_after_expiry=seconds)
    state = usable()
    assert state.recoverable(after(LIFE + effective - 0.5), timers, testing=testing)
    assert not state.recoverable(after(LIFE + effective), timers, testing=testing)


def test_its_end_is_noticed_at_the_next_step() -> None:
    state, _ = step(usable(), RenewalStarted(), after(LIFE - 1))
    assert state.phase is Phase.RENEWING
    with pytest.raises(UsageError, match="establish a new one"):
        step(usable(), RenewalStarted(), after(LIFE))


@pytest.mark.row("SC-25")
@pytest.mark.parametrize(("life", "when"), [(7_200, 4_320), (300, 180), (36_000, 21_600)])
def test_renewal_is_due_at_60_percent(life: float, when: float) -> None:
    state = usable(life)
    assert state.renew_at(0.5) == START + when
    assert state.renew_at(0.0) - START == pytest.approx(when - 0.05 * life)
    assert state.renew_at(1.0) - START == pytest.approx(when + 0.05 * life)


# ---------------------------------------------------------------- renewal


@pytest.mark.row("SC-23")
def test_renewal_gives_a_new_key_under_the_same_name() -> None:
    state, _ = step(usable(), RenewalStarted(), after(4_000))
    assert state.current.instance is None
    answer = replace(renewed(1, start=START + 4_000), token=b"<new/>", token_id="new")
    state, actions = step(state, answer, after(4_001))
    assert (state.token, state.token_id, state.reason) == (b"<new/>", "new", None)
    assert (state.phase, state.identifier, state.expires) == (Phase.USABLE, "urn:sct", START + 11_200)
    assert actions == (UseKey("urn:sct", "urn:instance-1"),)
    assert [key.instance for key in state.instances] == [None, "urn:instance-1"]
    assert state.instance(None) == usable().current
    assert state.instance("urn:other") is None
    assert state.created == START


@pytest.mark.row("SC-24")
def test_three_keys_are_kept() -> None:
    state = usable()
    for number in range(1, 5):
        state, _ = step(state, RenewalStarted(), NOW)
        state, actions = step(state, renewed(number), NOW)
        assert len(state.instances) <= MAX_INSTANCES
    assert [key.instance for key in state.instances] == [f"urn:instance-{number}" for number in (2, 3, 4)]
    assert actions == (UseKey("urn:sct", "urn:instance-4"), ForgetKey("urn:sct", "urn:instance-1"))


@pytest.mark.row("SC-23")
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (replace(renewed(), identifier="urn:other"), "another security context"),
        (replace(renewed(), instance=None), "no new key"),
        (replace(renewed(), secret=bytes(range(32))), "no new key"),
        (replace(renewed(), secret=bytes(8)), "64 bits"),
        (renewed(start=START + 1_000), "compare the clocks"),
    ],
    ids=["other name", "same instance", "same secret", "weak", "post-dated"],
)
def test_a_renewal_that_is_none(answer: Renewed, text: str) -> None:
    renewing = conversation_in(Phase.RENEWING)
    with pytest.raises(SecurityFailure, match=text):
        step(renewing, answer, NOW)


@pytest.mark.row("SC-26")
def test_a_failed_renewal_leaves_the_old_key() -> None:
    state, actions = step(conversation_in(Phase.RENEWING), RenewalFailed("no answer"), NOW)
    assert (state.phase, state.reason, actions) == (Phase.USABLE, "no answer", ())
    state, _ = step(conversation_in(Phase.RENEWING), RenewalFailed("no answer"), after(LIFE))
    assert state.phase is Phase.EXPIRED


@pytest.mark.row("SC-26")
def test_one_renewal_at_a_time() -> None:
    with pytest.raises(UsageError, match="one at a time"):
        step(conversation_in(Phase.RENEWING), RenewalStarted(), NOW)
    with pytest.raises(UsageError, match="RenewalStarted while the security context is cancelled"):
        step(conversation_in(Phase.CANCELLED), RenewalStarted(), NOW)


def test_an_answer_under_way_saves_a_context_that_expires_meanwhile() -> None:
    late = after(LIFE + 1)
    state, _ = step(conversation_in(Phase.RENEWING), Expired(), late)
    assert not state.usable(late, TIMERS)
    state, _ = step(state, renewed(start=START + LIFE), late)
    assert state.usable(late, TIMERS)


@pytest.mark.row("F14")
@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize(
    ("at", "in_time"), [(LIFE + 1, True), (LIFE + WINDOW - 1, True), (LIFE + WINDOW + 1, False)]
)
def test_renewal_after_expiry(allowed: bool, at: float, in_time: bool) -> None:
    event = RenewalStarted(after_expiry=allowed)
    if allowed and in_time:
        assert step(usable(), event, after(at), TIMERS)[0].phase is Phase.RENEWING
    else:
        with pytest.raises(UsageError, match="establish a new one"):
            step(usable(), event, after(at), TIMERS)


def test_seconds_of_recovery_are_for_tests() -> None:
    timers, event = Timers(token_cache_after_expiry=3.0), RenewalStarted(after_expiry=True)
    assert step(usable(), event, after(LIFE + 300), timers)[0].phase is Phase.RENEWING
    with pytest.raises(UsageError):
        step(usable(), event, after(LIFE + 300), timers, testing=True)


# ---------------------------------------------------------------- loss and cancelling


@pytest.mark.row("CO-16")
def test_a_lost_context_serves_recovery_and_is_not_renewed() -> None:
    state, _ = step(usable(), Lost("BadContextToken"), NOW)
    assert (state.phase, state.reason, state.lost) == (Phase.EXPIRED, "BadContextToken", True)
    assert state.recoverable(NOW, TIMERS)
    assert not state.usable(NOW, TIMERS)
    with pytest.raises(UsageError):
        step(state, RenewalStarted(after_expiry=True), NOW)


def test_a_context_that_could_not_be_established_is_gone() -> None:
    state, _ = step(new_conversation(), Lost("wrong password"), NOW)
    assert (state.phase, state.reason) == (Phase.CANCELLED, "wrong password")
    with pytest.raises(UsageError, match="no key"):
        _ = state.current


@pytest.mark.row("SC-29")
@pytest.mark.row("SC-31")
@pytest.mark.parametrize("phase", [Phase.USABLE, Phase.RENEWING, Phase.EXPIRED, Phase.CANCELLED])
def test_cancelled_is_for_ever(phase: Phase) -> None:
    state, _ = step(conversation_in(phase), Cancelled(), NOW)
    assert state.phase is Phase.CANCELLED
    assert not state.usable(NOW, TIMERS)
    assert not state.recoverable(NOW, TIMERS)
    for event in (Expired(), Lost("late"), RenewalFailed("late"), Cancelled()):
        assert step(state, event, NOW)[0].phase is Phase.CANCELLED


@pytest.mark.row("SC-36")
def test_contexts_are_shared_within_one_scope_only() -> None:
    base = usable()
    assert base.scope == usable().scope
    for other in (
        replace(base, endpoint="https://other.example/"),
        replace(base, principal="eve"),
        replace(base, policy="digest"),
        replace(base, credential="digest"),
        replace(base, edition="urn:other"),
    ):
        assert other.scope != base.scope
    assert base.edition == SC13


EVENTS = st.one_of(
    st.just(established()),
    st.builds(RenewalStarted, st.booleans()),
    st.builds(renewed, st.integers(1, 6), st.just(LIFE)),
    st.builds(RenewalFailed, st.just("no answer")),
    st.sampled_from([Expired(), Cancelled(), Lost("lost")]),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 2_000)), max_size=30))
def test_whatever_happens(history: list[tuple[Event, float]]) -> None:
    """Few keys, the newest in use; expired is not usable; cancelled is the end."""
    state, elapsed = new_conversation(), 0.0
    for event, seconds in history:
        elapsed += seconds
        before, now = state, after(elapsed)
        try:
            state, _ = step(state, event, now)
        except CastileError:
            continue
        assert len(state.instances) <= MAX_INSTANCES
        names = [key.instance for key in state.instances]
        assert len(set(names)) == len(names)
        assert not (state.usable(now) and now.utc >= state.expires)
        assert not (before.phase is Phase.CANCELLED and state.phase is not Phase.CANCELLED)
        assert state.identifier in ("", "urn:sct")
        if state.instances:
            assert state.expires == state.current.expires
