"""The trust service: what it grants, and who may use, renew and cancel what it issued."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castile.config import Limits, Settings, Timers
from castile.errors import UsageError, Violation
from castile.protocol.conversation import MAX_INSTANCES, ForgetKey, UseKey
from castile.protocol.issuer import (
    Answer,
    Cancel,
    Census,
    Context,
    EndSequences,
    Event,
    Expired,
    Grant,
    Phase,
    Renew,
    Request,
    Used,
    answer,
    cancel,
    grant,
    issue,
    new_instance,
    step,
    unknown_context,
)
from castile.versions import TRUST_OF, WSSC, WSSC_1_3, WSSC_2005
from tests.protocol.cases import NOW, SC13, SETTINGS, START, after, context_in, issued, renewal, request

TRUST = TRUST_OF[SC13].namespace
LIFE = 7_200.0
WINDOW = 7_200.0
NOBODY = Census(0, 0)


def granted(asking: Request, settings: Settings = SETTINGS, census: Census = NOBODY) -> Grant:
    return grant(asking, NOW, census, 256, settings)


def refused(asking: Request, settings: Settings = SETTINGS, census: Census = NOBODY) -> tuple[str, str]:
    """The subcode of the fault."""
    with pytest.raises(Violation) as caught:
        granted(asking, settings, census)
    fault = caught.value.fault
    assert fault.code == "Sender"
    assert fault.subcode is not None
    return fault.subcode


def fault_of(state: Context, event: Event, seconds: float = 0.0, settings: Settings = SETTINGS) -> str:
    """The local name of the fault, all in the context's own edition or its trust twin."""
    with pytest.raises(Violation) as caught:
        step(state, event, after(seconds), settings)
    subcode = caught.value.fault.subcode
    assert subcode is not None
    assert subcode[0] in (state.edition, TRUST)
    return subcode[1]


# ---------------------------------------------------------------- granting


@pytest.mark.row("SC-04")
def test_issue() -> None:
    asking = request(context="urn:leg", expires=START + 3_600)
    given_ = granted(asking)
    context, told = issue(
        asking, given_, identifier="urn:sct", secret=b"s" * 32, entropy=b"e" * 32, policy="digest"
    )
    assert told == Answer(
        "urn:sct", None, WSSC_1_3.token_type, 256, b"e" * 32, START, START + 3_600, "urn:leg"
    )
    assert (context.principal, context.endpoint, context.policy) == ("ada", asking.endpoint, "digest")
    assert (context.created, context.expires) == (START, START + 3_600)
    assert [key.secret for key in context.instances] == [b"s" * 32]
    assert context.usable(NOW)
    assert repr(b"s" * 32) not in repr(context)
    assert repr(b"e" * 32) not in repr(told)
    assert "entropy" not in repr(asking)


@pytest.mark.row("SC-06")
@pytest.mark.parametrize("bits", [128, 136, 192, 256, 504, 512])
def test_key_sizes(bits: int) -> None:
    given_ = granted(request(key_size=bits))
    assert (given_.key_bits, given_.key_bytes) == (bits, bits // 8)


@pytest.mark.row("SC-06")
@pytest.mark.row("TR-62")
@pytest.mark.parametrize("bits", [-256, 0, 1, 8, 120, 127, 129, 255, 257, 511, 513, 520, 1 << 40])
def test_key_sizes_out_of_bounds(bits: int) -> None:
    assert refused(request(key_size=bits)) == (TRUST, "RequestFailed")


@pytest.mark.row("SC-06")
@pytest.mark.parametrize("suite_bits", [128, 192, 256])
def test_without_a_key_size_the_suite_decides(suite_bits: int) -> None:
    assert grant(request(key_size=None), NOW, NOBODY, suite_bits).key_bits == suite_bits


@pytest.mark.row("SC-05")
@pytest.mark.parametrize(
    ("entropy", "fault"),
    [
        (None, "RequestFailed"),
        (b"", "InvalidRequest"),
        (bytes(15), "InvalidRequest"),
        (bytes(129), "InvalidRequest"),
    ],
    ids=["one-sided", "empty", "weak", "long"],
)
def test_entropy_that_makes_no_key(entropy: bytes | None, fault: str) -> None:
    assert refused(request(entropy=entropy)) == (TRUST, fault)
    for size in (16, 128):
        assert granted(request(entropy=bytes(size))).key_bits == 256


@pytest.mark.row("TR-60")
@pytest.mark.parametrize("kind", ["", "Validate", "Cancel", "issue", "STSCancel"])
def test_request_types_that_make_no_token(kind: str) -> None:
    assert refused(request(request_type=kind)) == (TRUST, "InvalidRequest")


@pytest.mark.row("SC-02")
@pytest.mark.row("SC-41")
def test_token_types() -> None:
    assert granted(request(token_type=WSSC_1_3.token_type))
    assert refused(request(token_type="urn:saml")) == (TRUST, "RequestFailed")
    assert refused(request(token_type=WSSC_2005.token_type)) == (SC13, "UnsupportedContextToken")


@pytest.mark.row("TR-09")
def test_nothing_is_issued_in_the_clear() -> None:
    assert refused(request(confidential=False)) == (TRUST, "RequestFailed")


@pytest.mark.row("SC-27")
@pytest.mark.parametrize(
    ("configured", "testing", "asked", "given_"),
    [
        (7_200, False, None, 7_200),
        (7_200, False, 3_600, 3_600),
        (7_200, False, 7_200, 7_200),
        (7_200, False, 7_201, 7_200),
        (7_200, False, 1e11, 7_200),
        (7_200, False, 5, 5),
        (60, False, None, 600),
        (60, True, None, 60),
        (60, True, 61, 60),
        (3, True, None, 3),
    ],
)
def test_lifetimes(configured: float, testing: bool, asked: float | None, given_: float) -> None:
    settings = Settings(timers=Timers(token_lifetime=configured), testing=testing)
    found = granted(request(expires=None if asked is None else START + asked), settings)
    assert (found.created, found.expires) == (START, START + given_)


@pytest.mark.row("TR-66")
@pytest.mark.row("F15")
@pytest.mark.parametrize(
    ("created", "expires"),
    [
        (None, START),
        (None, START - 1),
        (START - 100, START - 50),
        (START - 100, START - 100),
        (START + 10, START + 5),
        (START + 181, START + 3_600),
        (START + 1e9, START + 2e9),
    ],
    ids=["zero", "over", "in the past", "zero in the past", "reversed", "post-dated", "far future"],
)
def test_impossible_lifetimes(created: float | None, expires: float) -> None:
    assert refused(request(created=created, expires=expires)) == (TRUST, "InvalidTimeRange")


@pytest.mark.row("F15")
@pytest.mark.parametrize(
    ("ahead", "asked", "allowed", "start"),
    [
        (-3_600, False, False, 0),
        (180, False, False, 0),  # clocks differ: no post-dating
        (181, False, False, None),
        (181, True, False, None),
        (181, False, True, None),
        (181, True, True, 181),
    ],
)
def test_post_dating(ahead: float, asked: bool, allowed: bool, start: float | None) -> None:
    asking = request(created=START + ahead, expires=START + 20_000, postdating=asked)
    if start is None:
        with pytest.raises(Violation):
            grant(asking, NOW, NOBODY, 256, allow_postdated=allowed)
    else:
        found = grant(asking, NOW, NOBODY, 256, allow_postdated=allowed)
        assert (found.created, found.expires) == (START + start, START + start + LIFE)


@pytest.mark.row("SC-34")
@pytest.mark.row("TR-62")
@pytest.mark.parametrize(
    ("of_principal", "total", "good"),
    [(0, 0, True), (2, 5, True), (3, 3, False), (4, 4, False), (0, 9, True), (0, 10, False), (2, 11, False)],
)
def test_caps(of_principal: int, total: int, good: bool) -> None:
    settings = Settings(limits=Limits(contexts_per_principal=3, contexts=10))
    census = Census(of_principal, total)
    if good:
        assert granted(request(), settings, census)
    else:
        assert refused(request(), settings, census) == (TRUST, "RequestFailed")
    assert granted(request(request_type="Renew"), settings, census)  # makes no more contexts


def test_a_key_is_made_as_granted() -> None:
    given_ = granted(request())
    for secret, entropy in ((bytes(31), bytes(32)), (bytes(33), bytes(32)), (bytes(32), bytes(15))):
        with pytest.raises(UsageError):
            new_instance(given_, None, secret=secret, entropy=entropy)


@given(st.integers(-64, 700), st.one_of(st.none(), st.integers(0, 200)), st.integers(-10_000, 100_000))
def test_whatever_is_granted_is_within_bounds(bits: int, entropy: int | None, life: int) -> None:
    asking = request(key_size=bits, entropy=None if entropy is None else bytes(entropy), expires=START + life)
    try:
        found = granted(asking)
    except Violation:
        return
    assert entropy is not None
    assert 16 <= entropy <= 128
    assert 128 <= found.key_bits <= 512
    assert 0 < found.expires - found.created <= LIFE


# ---------------------------------------------------------------- using


@pytest.mark.row("F12")
@pytest.mark.row("SC-28")
@pytest.mark.parametrize(
    ("at", "new_message", "resend"),
    [
        (LIFE - 1, None, None),
        (LIFE, "RenewNeeded", None),
        (LIFE + 1, "RenewNeeded", None),
        (LIFE + WINDOW - 1, "RenewNeeded", None),
        (LIFE + WINDOW, "BadContextToken", "BadContextToken"),
        (LIFE + WINDOW + 1, "BadContextToken", "BadContextToken"),
    ],
)
@pytest.mark.parametrize("noticed", [False, True])
def test_expiry(at: float, new_message: str | None, resend: str | None, noticed: bool) -> None:
    state = issued()
    if noticed and at >= LIFE:
        state, _ = step(state, Expired(), after(at))
    for event, fault in ((Used(None), new_message), (Used(None, recovery=True), resend)):
        if fault is None:
            assert step(state, event, after(at))[1] == ()
        else:
            assert fault_of(state, event, at) == fault


@pytest.mark.row("SC-40")
def test_keys_that_are_none() -> None:
    assert fault_of(issued(), Used("urn:other")) == "BadContextToken"
    assert fault_of(context_in(Phase.CANCELLED), Used(None)) == "BadContextToken"
    for edition in WSSC:
        assert unknown_context(edition).fault.subcode == (edition, "BadContextToken")


@pytest.mark.row("F15")
@pytest.mark.parametrize(("before", "good"), [(0, True), (180, True), (181, False)])
def test_a_token_that_is_not_valid_yet(before: float, good: bool) -> None:
    state = issued()
    if good:
        assert step(state, Used(None), after(-before)) == (state, ())
    else:
        assert fault_of(state, Used(None), -before) == "BadContextToken"
    assert state.usable(after(-before)) is good


@pytest.mark.row("SC-24")
def test_the_old_key_goes_a_while_after_the_new_one_came_into_use() -> None:
    state, actions = step(issued(), renewal(start=START + 100), after(100))
    assert actions == (UseKey("urn:sct", "urn:instance-1"),)
    assert state.expires == START + 100 + LIFE
    state, _ = step(state, Used(None), after(5_000))  # nobody has used the new one
    assert state.switched_at is None
    state, _ = step(state, Used("urn:instance-1"), after(5_010))
    assert state.switched_at == START + 5_010
    again, _ = step(state, Used("urn:instance-1"), after(5_100))
    assert again == state
    assert step(state, Used(None), after(5_309))[0] == state
    assert fault_of(state, Used(None), 5_310) == "BadContextToken"
    assert fault_of(state, Used(None, recovery=True), 5_310) == "BadContextToken"


@pytest.mark.row("F12")
def test_an_old_key_has_its_own_end() -> None:
    state, _ = step(issued(), renewal(start=START + 7_000), after(7_000))
    assert fault_of(state, Used(None), LIFE + 1) == "RenewNeeded"
    assert step(state, Used(None, recovery=True), after(LIFE + 1))[0] == state


def test_a_use_changes_nothing_that_needs_storing() -> None:
    state = issued()
    assert step(state, Used(None), after(5))[0] is state


# ---------------------------------------------------------------- renewing


@pytest.mark.row("SC-22")
@pytest.mark.parametrize("proof", [None, "", "urn:other"])
def test_renewal_needs_proof_of_the_key(proof: str | None) -> None:
    state = issued()
    assert fault_of(state, renewal(proof=proof)) == "UnableToRenew"


@pytest.mark.row("SC-22")
def test_renewal_is_for_the_owner() -> None:
    assert fault_of(issued(), renewal(principal="eve")) == "UnableToRenew"


@pytest.mark.row("SC-44")
def test_a_cancelled_context_is_not_renewed() -> None:
    assert fault_of(context_in(Phase.CANCELLED), renewal(after_expiry=True)) == "UnableToRenew"


@pytest.mark.row("F14")
@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize(
    ("at", "in_time"),
    [(LIFE, True), (LIFE + 1, True), (LIFE + WINDOW - 1, True), (LIFE + WINDOW, False)],
)
def test_renewal_after_expiry(allowed: bool, at: float, in_time: bool) -> None:
    event = renewal(start=START + at, after_expiry=allowed)
    if allowed and in_time:
        state, _ = step(issued(), event, after(at))
        assert state.phase is Phase.USABLE
        assert step(state, Used("urn:instance-1"), after(at))[0].switched_at == START + at
    else:
        assert fault_of(issued(), event, at) == "UnableToRenew"


@pytest.mark.row("SC-23")
def test_a_key_is_never_issued_again() -> None:
    old = issued().current
    for key in (old, replace(old, instance="urn:new"), replace(renewal().key, instance=None)):
        with pytest.raises(UsageError, match="new key"):
            step(issued(), Renew(key, "ada", "urn:sct"), NOW)


@pytest.mark.row("SC-24")
def test_three_keys_are_kept() -> None:
    state = issued()
    for number in range(1, 5):
        state, actions = step(state, renewal(number, instance=state.current.instance), NOW)
        assert len(state.instances) <= MAX_INSTANCES
    assert actions == (UseKey("urn:sct", "urn:instance-4"), ForgetKey("urn:sct", "urn:instance-1"))
    assert state.instance("urn:instance-4") == state.current
    assert state.instance(None) is None


@pytest.mark.row("SC-24")
def test_answers_that_are_lost_cost_no_key_in_use() -> None:
    state = issued()
    for number in range(1, 6):
        state, actions = step(state, renewal(number), NOW)
        assert state.instance(None) is not None
    assert [key.instance for key in state.instances] == [None, "urn:instance-4", "urn:instance-5"]
    assert actions == (UseKey("urn:sct", "urn:instance-5"), ForgetKey("urn:sct", "urn:instance-3"))


@pytest.mark.row("SC-24", "SC-44")
def test_a_key_that_was_replaced_renews_nothing() -> None:
    state, _ = step(issued(), renewal(1), NOW)
    state, _ = step(state, Used("urn:instance-1"), after(10))
    assert step(state, renewal(2), after(309))[0].phase is Phase.USABLE
    assert fault_of(state, renewal(2), 310) == "UnableToRenew"
    assert fault_of(state, renewal(2, instance="urn:nobody"), 20) == "UnableToRenew"
    assert step(state, renewal(2, instance="urn:instance-1"), after(310))[0].phase is Phase.USABLE


@pytest.mark.row("F14")
def test_an_old_key_renews_until_its_own_end() -> None:
    state, _ = step(issued(), renewal(1, start=START + 7_000), after(7_000))
    late = renewal(2, start=START + LIFE)
    assert fault_of(state, late, LIFE) == "UnableToRenew"
    assert step(state, replace(late, after_expiry=True), after(LIFE))[0].phase is Phase.USABLE


@pytest.mark.row("F15", "SC-44")
def test_a_key_that_is_not_valid_yet_renews_nothing() -> None:
    assert step(issued(), renewal(), after(-180))[0].phase is Phase.USABLE
    assert fault_of(issued(), renewal(), -181) == "UnableToRenew"


@pytest.mark.row("SC-23")
def test_the_facts_of_a_renewal() -> None:
    asking = request(request_type="Renew", key_size=128)
    told = answer(asking, granted(asking), "urn:sct", "urn:instance-1", bytes(16))
    assert (told.identifier, told.instance, told.key_bits) == ("urn:sct", "urn:instance-1", 128)


# ---------------------------------------------------------------- cancelling


@pytest.mark.row("SC-29")
@pytest.mark.parametrize("phase", [Phase.USABLE, Phase.EXPIRED])
def test_cancel(phase: Phase) -> None:
    state, actions = cancel(context_in(phase), after(9), proof="urn:sct")
    assert (state.phase, state.cancelled_at) == (Phase.CANCELLED, START + 9)
    assert actions == (EndSequences("urn:sct"),)
    assert cancel(state, after(20), proof="urn:sct") == (state, ())
    for event in (Used(None), Used(None, recovery=True)):
        assert fault_of(state, event) == "BadContextToken"
    assert not state.usable(NOW)


@pytest.mark.row("SC-29")
@pytest.mark.row("TR-61")
@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("proof", [None, "", "urn:other", "URN:SCT"])
def test_a_foreign_cancel_is_refused(phase: Phase, proof: str | None) -> None:
    assert fault_of(context_in(phase), Cancel(proof)) == "FailedAuthentication"


EVENTS = st.one_of(
    st.builds(Used, st.sampled_from([None, "urn:instance-1", "urn:instance-2"]), st.booleans()),
    st.builds(renewal, st.integers(1, 5), st.just(START), st.just(LIFE), after_expiry=st.booleans()),
    st.just(Expired()),
    st.builds(Cancel, st.sampled_from(["urn:sct", "urn:other", None])),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 2_000)), max_size=30))
def test_whatever_happens(history: list[tuple[Event, float]]) -> None:
    """Few keys; a cancelled context does nothing; no new message under a key that has ended."""
    state, elapsed, dead = issued(), 0.0, False
    for event, seconds in history:
        elapsed += seconds
        now = after(elapsed)
        try:
            following, _ = step(state, event, now)
        except (Violation, UsageError):
            continue
        if isinstance(event, Used):
            key = state.instance(event.instance)
            assert key is not None
            assert not dead
            assert event.recovery or now.utc < key.expires
        dead = dead or isinstance(event, Cancel)
        assert (following.phase is Phase.CANCELLED) == dead
        assert len({key.instance for key in following.instances}) == len(following.instances) <= MAX_INSTANCES
        assert following.identifier == "urn:sct"
        state = following
