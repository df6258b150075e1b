"""States of every machine in every phase, reached by the machine's own steps, and a table reader."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final, TypeVar

from castile.clock import Now
from castile.config import Settings, Timers
from castile.protocol import conversation, destination, issuer, source
from castile.protocol.actions import DestinationAction, SourceAction
from castile.versions import WSRM_1_0, WSRM_1_1, WSSC_1_3

P = TypeVar("P", bound=Enum)

RM10: Final = WSRM_1_0.namespace
RM11: Final = WSRM_1_1.namespace
SC13: Final = WSSC_1_3.namespace
EDITIONS: Final = (RM10, RM11)
START: Final = 1_700_000_000.0
NOW: Final = Now(START, 50.0)
TIMERS: Final = Timers()
SETTINGS: Final = Settings()


def after(seconds: float) -> Now:
    """That long after `NOW`."""
    return Now(NOW.utc + seconds, NOW.tick + seconds)


# ---------------------------------------------------------------- sequences


def run_source(
    state: source.Source, *events: source.Event, now: Now = NOW
) -> tuple[source.Source, tuple[SourceAction, ...]]:
    """All events in turn, and all that was to be done."""
    actions: tuple[SourceAction, ...] = ()
    for event in events:
        state, more = source.step(state, event, now)
        actions += more
    return state, actions


def run_destination(
    state: destination.Destination, *events: destination.Event, now: Now = NOW
) -> tuple[destination.Destination, tuple[DestinationAction, ...]]:
    """All events in turn, and all that was to be done."""
    actions: tuple[DestinationAction, ...] = ()
    for event in events:
        state, more = destination.step(state, event, now)
        actions += more
    return state, actions


def new_source(edition: str = RM11, **settings: object) -> source.Source:
    """A source whose CreateSequence is under way."""
    values: dict[str, object] = {"offered": "urn:offered", "context": "urn:context", **settings}
    return source.Source("key", edition, **values)  # type: ignore[arg-type]


def open_source(edition: str = RM11, sent: int = 0, **settings: object) -> source.Source:
    """An open source that has used `sent` numbers."""
    state, _ = run_source(new_source(edition, **settings), source.Created("urn:sequence"))
    return run_source(state, source.Submit(sent))[0] if sent else state


def new_destination(edition: str = RM11, **settings: object) -> destination.Destination:
    """A destination that has received nothing."""
    return destination.Destination("urn:sequence", edition, **settings)  # type: ignore[arg-type]


def source_in(phase: source.Phase, edition: str = RM11) -> source.Source:
    """A source in `phase` that has sent two messages, both acknowledged (creating: two waiting)."""
    waiting, _ = run_source(new_source(edition), source.Submit(2))
    opened, _ = run_source(waiting, source.Created("urn:sequence"), source.Acknowledged(((1, 2),)))
    closing, _ = run_source(opened, source.Close())
    closed, _ = run_source(closing, *closing_answer(edition))
    terminating, _ = run_source(closed, source.Terminate())
    states = {
        source.Phase.CREATING: waiting,
        source.Phase.OPEN: opened,
        source.Phase.SUSPECT: run_source(opened, source.Suspect("context lost"))[0],
        source.Phase.CLOSING: closing,
        source.Phase.CLOSED: closed,
        source.Phase.TERMINATING: terminating,
        source.Phase.TERMINATED: run_source(terminating, source.TerminateAnswered())[0],
        source.Phase.FAILED: run_source(opened, source.GiveUp("time is up"))[0],
    }
    assert states[phase].phase is phase
    return states[phase]


def closing_answer(edition: str) -> tuple[source.Event, ...]:
    """What ends the closing of a source with two messages."""
    if edition == RM11:
        return source.Acknowledged(((1, 2),), final=True), source.CloseAnswered()
    return (source.Acknowledged(((1, 3),)),)


def destination_in(phase: destination.Phase, edition: str = RM11) -> destination.Destination:
    """A destination in `phase` that has accepted the messages 1 and 2."""
    opened, _ = run_destination(new_destination(edition), destination.Arrived(1), destination.Arrived(2))
    states = {
        destination.Phase.OPEN: opened,
        destination.Phase.CLOSED: run_destination(opened, destination.Close(2))[0],
        destination.Phase.TERMINATED: run_destination(opened, destination.Terminate(2))[0],
        destination.Phase.FAILED: run_destination(opened, destination.Ended("inactive"))[0],
    }
    assert states[phase].phase is phase
    return states[phase]


# ---------------------------------------------------------------- contexts


def established(life: float = 7_200.0, name: str = "urn:sct", **settings: object) -> conversation.Established:
    """An answer of a trust service, given `NOW`."""
    values: dict[str, object] = {"created": START, "expires": START + life, **settings}
    return conversation.Established(name, bytes(range(32)), b"<sct/>", "id", **values)  # type: ignore[arg-type]


def renewed(number: int = 1, life: float = 7_200.0, start: float = START) -> conversation.Renewed:
    """The answer to a renewal, with a key of its own."""
    secret = bytes([number]) * 32
    return conversation.Renewed(
        "urn:sct", f"urn:instance-{number}", secret, b"<sct/>", "id", start, start + life
    )


def new_conversation() -> conversation.Conversation:
    """A context that is being established."""
    return conversation.Conversation(SC13, "https://service.example/", "ada")


def conversation_in(phase: conversation.Phase) -> conversation.Conversation:
    """A client's context in `phase`, two hours to live from `NOW`."""

    def run(state: conversation.Conversation, event: conversation.Event) -> conversation.Conversation:
        return conversation.step(state, event, NOW)[0]

    usable = run(new_conversation(), established())
    states = {
        conversation.Phase.ESTABLISHING: new_conversation(),
        conversation.Phase.USABLE: usable,
        conversation.Phase.RENEWING: run(usable, conversation.RenewalStarted()),
        conversation.Phase.EXPIRED: run(usable, conversation.Expired()),
        conversation.Phase.CANCELLED: run(usable, conversation.Cancelled()),
    }
    assert states[phase].phase is phase
    return states[phase]


def request(**settings: object) -> issuer.Request:
    """A good request for a context."""
    values: dict[str, object] = {"entropy": bytes(32), "key_size": 256, "confidential": True, **settings}
    return issuer.Request(SC13, "ada", "https://service.example/", **values)  # type: ignore[arg-type]


def issued(now: Now = NOW, settings: Settings = SETTINGS, **asked: object) -> issuer.Context:
    """A context made by the trust service."""
    asking = request(**asked)
    given = issuer.grant(asking, now, issuer.Census(0, 0), 256, settings)
    return issuer.issue(
        asking, given, identifier="urn:sct", secret=b"s" * given.key_bytes, entropy=b"e" * 32
    )[0]


def renewal(number: int = 1, start: float = START, life: float = 7_200.0, **settings: object) -> issuer.Renew:
    """A granted renewal with a key of its own, asked for by the owner."""
    key = conversation.Instance(f"urn:instance-{number}", bytes([number]) * 32, start, start + life)
    values: dict[str, object] = {"principal": "ada", "proof": "urn:sct", **settings}
    return issuer.Renew(key, **values)  # type: ignore[arg-type]


def context_in(phase: issuer.Phase) -> issuer.Context:
    """A service's context in `phase`, two hours to live from `NOW`."""
    states = {
        issuer.Phase.USABLE: issued(),
        issuer.Phase.EXPIRED: issuer.step(issued(), issuer.Expired(), NOW)[0],
        issuer.Phase.CANCELLED: issuer.cancel(issued(), NOW, proof="urn:sct")[0],
    }
    assert states[phase].phase is phase
    return states[phase]


# ---------------------------------------------------------------- tables


def cells(tables: tuple[str, ...], phases: type[P]) -> Iterator[tuple[str, P, str]]:
    """(event, phase, what happens) of a table in text, which may come in several parts.

    The first line of each names the phases. A cell is a phase, ``=`` for "stays", or the name of
    the error.
    """
    for table in tables:
        rows = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
        heads = [phases(head) for head in rows[0][1:]]
        for event, *outcomes in rows[1:]:
            assert len(outcomes) == len(heads), event
            yield from ((event, head, outcome) for head, outcome in zip(heads, outcomes, strict=True))
