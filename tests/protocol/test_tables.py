"""Every cell of every transition table: the phase it leads to, or the error that it is.

The tables below are written out from the rows of features 4.2 to 4.7 (sequences) and 2.3, 3.1
(contexts), apart from the machines' own: `TRANSITIONS` must have the same cells, and a step from
a state in that phase must do what the cell says. ``=`` stays in the phase; an error is its class,
or with ``!`` the local name of the fault that a `Violation` carries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, TypeVar

import pytest

from castile.errors import CastileError, PeerError, Violation
from castile.protocol import conversation, destination, issuer, source
from tests.protocol import cases
from tests.protocol.cases import EDITIONS, NOW, RM10, RM11

P = TypeVar("P", bound=Enum)
E = TypeVar("E")

# WS-RM 1.2, 3.4 to 3.9 and 4; rows RM-19, RM-48, RM-70 to RM-75, RM-90 to RM-98, CO-16.
SOURCE: Final = (
    """
event             | creating            | open                | suspect             | closing
Submit            | =                   | =                   | SequenceClosed      | SequenceClosed
Created           | open                | =                   | =                   | =
Refused           | failed              | !SequenceTerminated | !SequenceTerminated | !SequenceTerminated
Acknowledged      | !SequenceTerminated | =                   | open                | =
Close             | UsageError          | closing             | closing             | =
CloseAnswered     | !SequenceTerminated | !SequenceTerminated | !SequenceTerminated | closed
Drained           | UsageError          | UsageError          | SequenceClosed      | closed
Terminate         | UsageError          | terminating         | terminating         | terminating
TerminateAnswered | !SequenceTerminated | !SequenceTerminated | !SequenceTerminated | !SequenceTerminated
PeerClosed        | !SequenceTerminated | closed              | closed              | closed
PeerTerminated    | !SequenceTerminated | terminated          | terminated          | terminated
Faulted           | failed              | failed              | failed              | failed
Suspect           | =                   | suspect             | =                   | =
GiveUp            | failed              | failed              | failed              | failed
Broken            | failed              | failed              | failed              | failed
""",
    """
event             | closed              | terminating         | terminated          | failed
Submit            | SequenceClosed      | SequenceClosed      | SequenceTerminated  | SequenceTerminated
Created           | =                   | =                   | =                   | !SequenceTerminated
Refused           | !SequenceTerminated | !SequenceTerminated | !SequenceTerminated | !SequenceTerminated
Acknowledged      | =                   | =                   | =                   | =
Close             | =                   | =                   | =                   | SequenceTerminated
CloseAnswered     | =                   | =                   | =                   | =
Drained           | SequenceClosed      | SequenceClosed      | SequenceTerminated  | SequenceTerminated
Terminate         | terminating         | =                   | =                   | SequenceTerminated
TerminateAnswered | !SequenceTerminated | terminated          | =                   | =
PeerClosed        | =                   | =                   | =                   | =
PeerTerminated    | terminated          | terminated          | =                   | =
Faulted           | failed              | failed              | =                   | =
Suspect           | =                   | =                   | =                   | =
GiveUp            | terminated          | terminated          | =                   | =
Broken            | failed              | failed              | SequenceTerminated  | SequenceTerminated
""",
)
SOURCE_EVENTS: Final[dict[str, source.Event]] = {
    "Submit": source.Submit(),
    "Created": source.Created("urn:sequence"),
    "Refused": source.Refused("no token"),
    "Acknowledged": source.Acknowledged(((1, 2),)),
    "Close": source.Close(),
    "CloseAnswered": source.CloseAnswered(),
    "Drained": source.Drained(),
    "Terminate": source.Terminate(),
    "TerminateAnswered": source.TerminateAnswered(),
    "PeerClosed": source.PeerClosed(),
    "PeerTerminated": source.PeerTerminated(),
    "Faulted": source.Faulted("SequenceTerminated", "gone"),
    "Suspect": source.Suspect("context lost"),
    "GiveUp": source.GiveUp("time is up"),
    "Broken": source.Broken("gone"),
}
SOURCE_BY_ITSELF: Final = {"Refused": "creating", "Faulted": "="}
"""These two lead on by an event that the machine makes: the table's own cell stays."""

# WS-RM 1.2, 3.5 to 3.9 and 4.2 to 4.7; rows F21, RM-32, RM-42, RM-72, RM-73, RM-75, RM-77, CO-17.
DESTINATION: Final = (
    """
event        | open       | closed     | terminated       | failed
Arrived      | =          | =          | !UnknownSequence | !SequenceTerminated
AckRequested | =          | =          | !UnknownSequence | !SequenceTerminated
Close        | closed     | =          | =                | !SequenceTerminated
Terminate    | terminated | terminated | =                | !SequenceTerminated
Released     | =          | =          | =                | =
Ended        | failed     | terminated | =                | =
Broken       | failed     | failed     | !UnknownSequence | !SequenceTerminated
""",
)
DESTINATION_EVENTS: Final[dict[str, destination.Event]] = {
    "Arrived": destination.Arrived(2),
    "AckRequested": destination.AckRequested(),
    "Close": destination.Close(2),
    "Terminate": destination.Terminate(2),
    "Released": destination.Released(),
    "Ended": destination.Ended("inactive"),
    "Broken": destination.Broken("contradiction"),
}

# WS-SC 1.3, 3 to 6; rows SC-08, SC-23, SC-26, SC-29, F12, F14, CO-16.
CONVERSATION: Final = (
    """
event          | establishing    | usable          | renewing        | expired         | cancelled
Established    | usable          | SecurityFailure | SecurityFailure | SecurityFailure | SecurityFailure
RenewalStarted | UsageError      | renewing        | UsageError      | renewing        | UsageError
Renewed        | SecurityFailure | SecurityFailure | usable          | SecurityFailure | SecurityFailure
RenewalFailed  | UsageError      | UsageError      | usable          | =               | =
Expired        | UsageError      | expired         | =               | =               | =
Cancelled      | UsageError      | cancelled       | cancelled       | cancelled       | =
Lost           | cancelled       | expired         | expired         | =               | =
""",
)
CONVERSATION_EVENTS: Final[dict[str, conversation.Event]] = {
    "Established": cases.established(),
    "RenewalStarted": conversation.RenewalStarted(after_expiry=True),
    "Renewed": cases.renewed(),
    "RenewalFailed": conversation.RenewalFailed("no answer"),
    "Expired": conversation.Expired(),
    "Cancelled": conversation.Cancelled(),
    "Lost": conversation.Lost("BadContextToken"),
}

# WS-SC 1.3, 5, 6 and 9; rows SC-22, SC-28, SC-29, F12, F14.
ISSUER: Final = (
    """
event   | usable    | expired   | cancelled
Used    | =         | =         | !BadContextToken
Renew   | =         | usable    | !UnableToRenew
Cancel  | cancelled | cancelled | =
Expired | expired   | =         | =
""",
)
ISSUER_EVENTS: Final[dict[str, issuer.Event]] = {
    "Used": issuer.Used(None, recovery=True),
    "Renew": cases.renewal(after_expiry=True),
    "Cancel": issuer.Cancel("urn:sct"),
    "Expired": issuer.Expired(),
}


def outcome(step: Callable[[], Enum]) -> str:
    """The phase that a step leads to, or the name of its error or fault."""
    try:
        return str(step().value)
    except PeerError as error:
        if isinstance(error, Violation) and error.fault.subcode:
            return f"!{error.fault.subcode[1]}"
        return type(error).__name__
    except CastileError as error:
        return type(error).__name__


def expected(phase: Enum, cell: str) -> str:
    return str(phase.value) if cell == "=" else cell


def agree(
    text: tuple[str, ...],
    transitions: Mapping[tuple[P, type[E]], P],
    phases: type[P],
    by_itself: Mapping[str, str],
) -> None:
    """The machine has exactly the cells of the text, with the same targets."""
    own = {(event.__name__, phase): target for (phase, event), target in transitions.items()}
    legal = {}
    for event, phase, cell in cases.cells(text, phases):
        if cell == "=" or cell in {each.value for each in phases}:
            target = by_itself.get(event, cell)
            legal[event, phase] = phase if target == "=" or cell == "=" else phases(target)
    assert own == legal


@pytest.mark.row("RM-80")
def test_the_tables_have_the_same_cells() -> None:
    agree(SOURCE, source.TRANSITIONS, source.Phase, SOURCE_BY_ITSELF)
    agree(DESTINATION, destination.TRANSITIONS, destination.Phase, {})
    agree(CONVERSATION, conversation.TRANSITIONS, conversation.Phase, {})
    agree(ISSUER, issuer.TRANSITIONS, issuer.Phase, {})


@pytest.mark.row("RM-80")
def test_no_event_is_left_out() -> None:
    for text, machine, phases, events in (
        (SOURCE, source.Event, source.Phase, SOURCE_EVENTS),
        (DESTINATION, destination.Event, destination.Phase, DESTINATION_EVENTS),
        (CONVERSATION, conversation.Event, conversation.Phase, CONVERSATION_EVENTS),
        (ISSUER, issuer.Event, issuer.Phase, ISSUER_EVENTS),
    ):
        names = {kind.__name__ for kind in machine.__args__}
        found = [(event, phase) for event, phase, _ in cases.cells(text, phases)]
        assert names == set(events)
        assert len(found) == len(set(found)) == len(names) * len(phases)


@pytest.mark.row("RM-80")
@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize(("event", "phase", "cell"), list(cases.cells(SOURCE, source.Phase)))
def test_source(edition: str, event: str, phase: source.Phase, cell: str) -> None:
    if event == "CloseAnswered" and edition == RM10:
        cell = "!SequenceTerminated"  # 1.0 has no CloseSequence
    state = cases.source_in(phase, edition)
    if event == "Acknowledged" and edition == RM10 and state.highest == 3:
        cell = "closed" if phase is source.Phase.CLOSING else cell  # all is acknowledged: Drained
        acknowledged: source.Event = source.Acknowledged(((1, 3),))
    else:
        acknowledged = SOURCE_EVENTS[event]
    found = outcome(lambda: source.step(state, acknowledged, NOW)[0].phase)
    assert found == expected(phase, cell)


@pytest.mark.row("RM-80")
@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize(("event", "phase", "cell"), list(cases.cells(DESTINATION, destination.Phase)))
def test_destination(edition: str, event: str, phase: destination.Phase, cell: str) -> None:
    state = cases.destination_in(phase, edition)
    found = outcome(lambda: destination.step(state, DESTINATION_EVENTS[event], NOW)[0].phase)
    assert found == expected(phase, cell)


@pytest.mark.row("SC-29")
@pytest.mark.parametrize(("event", "phase", "cell"), list(cases.cells(CONVERSATION, conversation.Phase)))
def test_conversation(event: str, phase: conversation.Phase, cell: str) -> None:
    state = cases.conversation_in(phase)
    found = outcome(lambda: conversation.step(state, CONVERSATION_EVENTS[event], NOW)[0].phase)
    assert found == expected(phase, cell)


@pytest.mark.row("SC-29")
@pytest.mark.parametrize(("event", "phase", "cell"), list(cases.cells(ISSUER, issuer.Phase)))
def test_issuer(event: str, phase: issuer.Phase, cell: str) -> None:
    state = cases.context_in(phase)
    found = outcome(lambda: issuer.step(state, ISSUER_EVENTS[event], NOW)[0].phase)
    assert found == expected(phase, cell)


@pytest.mark.parametrize("edition", EDITIONS)
def test_a_refused_step_names_the_sequence(edition: str) -> None:
    """The fault of every illegal cell can be sent as it is: RM code, Identifier, header data."""
    for event, phase, cell in cases.cells(DESTINATION, destination.Phase):
        if not cell.startswith("!"):
            continue
        with pytest.raises(PeerError) as caught:
            destination.step(cases.destination_in(phase, edition), DESTINATION_EVENTS[event], NOW)
        assert caught.value.fault.subcode == (edition, cell[1:])
        assert caught.value.fault.sequence == "urn:sequence"
        assert b">urn:sequence</r:Identifier>" in caught.value.fault.detail


# The rows of WS-RM 1.2, 3 and 4 that a table of phases can say, in the states that RM-80 names.
SPECIFICATION: Final = [
    # source: none → creating → created → closing → closed → terminating → none
    ("RM-19", "creating", "Created", "open"),
    ("RM-95", "creating", "Refused", "failed"),
    ("RM-30", "open", "Submit", "open"),
    ("RM-42", "open", "Acknowledged", "open"),
    ("RM-72", "open", "Close", "closing"),
    ("RM-70", "closing", "CloseAnswered", "closed"),
    ("RM-70", "closed", "Terminate", "terminating"),
    ("RM-70", "terminating", "TerminateAnswered", "terminated"),
    ("RM-74", "open", "PeerClosed", "closed"),
    ("RM-74", "open", "PeerTerminated", "terminated"),
    ("RM-90", "open", "Faulted", "failed"),
    ("RM-91", "open", "Faulted:UnknownSequence", "failed"),
    ("RM-92", "open", "Faulted:InvalidAcknowledgement", "open"),
    ("RM-94", "open", "Faulted:MessageNumberRollover", "open"),
    ("RM-96", "open", "Faulted:SequenceClosed", "closed"),
    ("RM-58", "open", "GiveUp", "failed"),
]


@pytest.mark.row("RM-80")
@pytest.mark.parametrize(("row", "before", "event", "following"), SPECIFICATION)
def test_the_source_follows_the_specification(row: str, before: str, event: str, following: str) -> None:
    name, _, code = event.partition(":")
    happened = source.Faulted(code, "said the peer") if code else SOURCE_EVENTS[name]
    state = cases.source_in(source.Phase(before), RM11)
    assert source.step(state, happened, NOW)[0].phase.value == following, row
