"""A source and a destination over a network that loses, doubles and reorders, run by Hypothesis.

The auditor is the list of deliveries: it is 1, 2, 3 … without gap or repetition at all times, and
complete once the network behaves.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from castile.protocol import destination, source
from castile.protocol.actions import (
    Accept,
    Acknowledge,
    Complete,
    Deliver,
    DestinationAction,
    Drop,
    Duplicate,
    Number,
    SendLastMessage,
)
from castile.protocol.ranges import EMPTY, RangeSet
from castile.versions import WSRM
from tests.protocol.cases import EDITIONS, NOW, new_destination, open_source

SIZE = 10


class Sequence(RuleBasedStateMachine):
    """Everything that can happen to one sequence before it is closed."""

    in_order = True

    @initialize(edition=st.sampled_from(EDITIONS), window=st.integers(2, 6))
    def start(self, edition: str, window: int) -> None:
        self.source = open_source(edition)
        self.destination = new_destination(
            edition, in_order=self.in_order, window_messages=window, window_bytes=10 * window * SIZE
        )
        self.wire: list[int] = []
        self.answers: list[Acknowledge] = []
        self.delivered: list[int] = []
        self.accepted: list[int] = []
        self.running = 0
        self.promised = EMPTY

    @rule(count=st.integers(1, 4))
    def submit(self, count: int) -> None:
        self.source, actions = source.step(self.source, source.Submit(count), NOW)
        self.wire += [action.number for action in actions if isinstance(action, Number)]

    @precondition(lambda self: self.source.unacknowledged)
    @rule(data=st.data())
    def resend(self, data: st.DataObject) -> None:
        """A timer runs out, rightly or not."""
        self.wire.append(data.draw(st.sampled_from(list(RangeSet(self.source.unacknowledged).numbers()))))

    @precondition(lambda self: self.wire)
    @rule(data=st.data(), copies=st.integers(0, 2))
    def carry(self, data: st.DataObject, copies: int) -> None:
        """Any message under way arrives, twice, or never."""
        number = self.wire.pop(data.draw(st.integers(0, len(self.wire) - 1)))
        for _ in range(copies):
            self.arrive(number)

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), arrives=st.booleans())
    def answer(self, data: st.DataObject, arrives: bool) -> None:
        """Any acknowledgement under way arrives, or never."""
        found = self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))
        if arrives:
            self.source, _ = source.step(self.source, source.Acknowledged(found.ranges), NOW)

    @rule()
    def ask(self) -> None:
        self.act(destination.step(self.destination, destination.AckRequested(), NOW))

    @precondition(lambda self: self.running)
    @rule()
    def finish(self) -> None:
        """The application is done with a message."""
        self.running -= 1
        self.destination, _ = destination.step(self.destination, destination.Released(1, SIZE), NOW)

    def arrive(self, number: int, last: bool = False) -> None:
        event = destination.Arrived(number, b"%d" % number, SIZE, last_message=last)
        self.act(destination.step(self.destination, event, NOW))

    def act(self, done: tuple[destination.Destination, tuple[DestinationAction, ...]]) -> None:
        self.destination, actions = done
        kinds = [type(action) for action in actions]
        assert sum(kind in (Accept, Duplicate, Drop) for kind in kinds) <= 1
        for action in actions:
            match action:
                case Accept(number):
                    self.accepted.append(number)
                case Deliver(number):
                    self.delivered.append(number)
                    self.running += 1
                case Acknowledge(ranges):
                    promise = RangeSet(ranges)
                    assert self.promised.issubset(promise)  # acknowledgements never shrink
                    assert set(promise.numbers()) <= set(self.accepted)  # and hold what was stored
                    self.promised = promise
                    self.answers.append(action)
                case _:
                    pass

    @invariant()
    def delivered_once_and_in_order(self) -> None:
        if not hasattr(self, "delivered"):
            return
        if self.in_order:
            assert self.delivered == list(range(1, len(self.delivered) + 1))
        assert len(set(self.delivered)) == len(self.delivered)
        assert len(set(self.accepted)) == len(self.accepted)

    @invariant()
    def nothing_is_acknowledged_that_was_not_accepted(self) -> None:
        if hasattr(self, "source"):
            assert self.source.acknowledged.issubset(self.destination.received)
            assert self.destination.received.upper <= self.source.highest

    @invariant()
    def the_window_holds(self) -> None:
        if hasattr(self, "destination"):
            state = self.destination
            assert state.waiting_messages <= state.window_messages
            assert state.waiting_messages == self.running + state.held
            assert state.waiting_bytes == state.waiting_messages * SIZE

    def teardown(self) -> None:
        """The network behaves: everything is delivered, and the sequence ends without doubt."""
        if not hasattr(self, "source"):
            return
        for _ in range(2 * self.source.highest + 1):
            for number in RangeSet(self.source.unacknowledged).numbers():
                while self.running:
                    self.finish()
                self.arrive(number)
            self.hear()
            self.delivered_once_and_in_order()
            self.the_window_holds()
        assert sorted(self.delivered) == list(range(1, self.source.highest + 1))
        count = self.source.highest
        self.close()
        assert self.destination.phase is destination.Phase.TERMINATED
        assert len(self.delivered) == count
        assert not self.destination.missing

    def hear(self, final: bool = False) -> None:
        """The newest acknowledgement arrives."""
        self.ask() if not final else None
        found = self.answers[-1]
        event = source.Acknowledged(found.ranges, final=found.final)
        self.source, _ = source.step(self.source, event, NOW)

    def close(self) -> None:
        self.source, actions = source.step(self.source, source.Close(), NOW)
        if WSRM[self.source.edition].can_close:
            self.act(destination.step(self.destination, destination.Close(self.source.last), NOW))
            self.hear(final=True)
            self.source, _ = source.step(self.source, source.CloseAnswered(), NOW)
        else:
            assert actions == (SendLastMessage(self.source.highest),)
            while self.running:
                self.finish()
            self.arrive(self.source.highest, last=True)
            self.hear()
        assert self.source.phase is source.Phase.CLOSED
        self.source, _ = source.step(self.source, source.Terminate(), NOW)
        self.act(destination.step(self.destination, destination.Terminate(self.last_number()), NOW))
        self.source, ended = source.step(self.source, source.TerminateAnswered(), NOW)
        assert ended == (Complete(()),)

    def last_number(self) -> int | None:
        return self.source.last if WSRM[self.source.edition].can_close else None


class Unordered(Sequence):
    """The same, each message delivered on arrival."""

    in_order = False


PROFILE = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestSequence: Any = pytest.mark.row("RM-32")(
    pytest.mark.row("RM-42")(pytest.mark.row("F21")(Sequence.TestCase))
)
TestSequence.settings = PROFILE
TestUnordered: Any = pytest.mark.row("RM-32")(Unordered.TestCase)
TestUnordered.settings = PROFILE
