"""What an operator asks of a sequence or a context, as far as the store alone can do it.

It is one step, like any rule: a process that owns the target takes it, or one of the outside
where none is left. What takes the network is the client's own business (`castile.commands`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from castile.clock import Now
from castile.endpoint import requests
from castile.errors import UsageError
from castile.protocol import destination, source
from castile.protocol.actions import Deliver, Discard
from castile.store import Transaction
from castile.store.records import Command, DestinationRecord, SourceRecord

Kind = Literal["sequence", "context"]
FAREWELL: Final = "farewell"
"""Tell the peer of a sequence that was ended here: any client of the endpoint can."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a command."""

    text: str
    """For people."""
    failed: SourceRecord | None = None
    """A client's sequence that has ended by it: who waits is to be told."""
    ready: str | None = None
    """A service's sequence whose messages are to be handed on now."""


def target(tx: Transaction, command: Command) -> int | None:
    """The owner of what a command is about; None: it isn't there."""
    if command.verb == FAREWELL:
        return tx.owner
    if command.kind == "context":
        context = tx.context(command.target, side=command.side, endpoint=command.endpoint)
        return None if context is None else context.owner
    record = tx.source(command.target) if command.side == "client" else tx.destination(command.target)
    return None if record is None else record.owner


def carry_out(tx: Transaction, command: Command, now: Now) -> Done:
    """Do it. `UsageError`: refused, and nothing is changed."""
    if command.kind == "context":
        return _cancel(tx, command, now)
    if command.side == "client":
        record = tx.source(command.target)
        if record is None:
            raise UsageError("there is no such sequence any more")
        return _outgoing(tx, command, record, now)
    taken = tx.destination(command.target)
    if taken is None:
        raise UsageError("there is no such sequence any more")
    return _incoming(tx, command, taken, now)


def _outgoing(tx: Transaction, command: Command, record: SourceRecord, now: Now) -> Done:
    key, state = record.state.key, record.state
    match command.verb:
        case "delete":
            _check_ended(state.ended, "terminate")
            if state.missing and not command.force:
                raise UsageError(
                    f"messages {list(state.missing.numbers())} are in doubt and would be gone: "
                    "export the sequence first, then delete it with --force"
                )
            tx.forget_source(key)
            if record.destination is not None:
                tx.forget_destination(record.destination)
            return Done("deleted")
        case "terminate":
            _check_alive(state.ended)
            after = requests.give_up(tx, key, f"ended by {command.asked_by}", now)
            if state.identifier is not None:  # the peer is told by whichever client is there, or comes
                tx.ask(replace(command, verb=FAREWELL, asked=now.utc))
            doubt = list(after.state.missing.numbers())
            return Done(f"ended; in doubt: {doubt}" if doubt else "ended", failed=after)
        case "resume":
            _check_alive(state.ended)
            count = tx.wake(now.utc, side=record.side, endpoint=record.endpoint, sequence_key=key)
            return Done(f"{count} messages are due now")
        case _:
            raise UsageError(f"{command.verb} is for a client of {record.endpoint} to do")


def _incoming(tx: Transaction, command: Command, record: DestinationRecord, now: Now) -> Done:
    identifier = record.state.identifier
    match command.verb:
        case "delete":
            _check_ended(record.state.ended, "terminate")
            undone = [row.number for row in tx.inbox(sequence=identifier)]
            if undone and not command.force:
                raise UsageError(f"messages {undone} have not been handled: delete them with --force")
            tx.forget_destination(identifier)
            if record.source is not None:
                tx.forget_source(record.source)
            return Done("deleted")
        case "close" | "terminate":
            _check_alive(record.state.ended)
            terminating = command.verb == "terminate"
            event = destination.Ended(f"ended by {command.asked_by}") if terminating else destination.Close()
            state, actions = destination.step(record.state, event, now)
            for action in actions:
                if isinstance(action, Deliver):
                    tx.update_inbox(identifier, action.number, status="ready")
                elif isinstance(action, Discard):
                    for lower, upper in action.ranges:
                        for number in range(lower, upper + 1):
                            tx.update_inbox(identifier, number, status="done")
            ended = now.utc if terminating else record.ended
            tx.save_destination(replace(record, state=state, ended=ended))
            _end_replies(tx, record, now, terminated=terminating)
            ready = identifier if any(isinstance(action, Deliver) for action in actions) else None
            return Done("ended" if terminating else "closed: it accepts nothing new", ready=ready)
        case "resume" | "skip":
            parked = [row.number for row in tx.inbox(sequence=identifier, status="parked")]
            if not parked:
                raise UsageError("none of its messages is parked")
            again = command.verb == "resume"
            for number in parked if again else parked[:1]:
                tx.update_inbox(identifier, number, status="ready" if again else "done", attempts=0, due=None)
            tx.save_destination(replace(record, owner=tx.owner))
            text = f"messages {parked} are handled again" if again else f"message {parked[0]} is skipped"
            return Done(text, ready=identifier)
        case _:
            raise UsageError(f"{command.verb} is nothing for a service's sequence")


def _end_replies(tx: Transaction, record: DestinationRecord, now: Now, *, terminated: bool) -> None:
    """The reply sequence goes with the one that offered it."""
    replies = tx.source(record.source) if record.source else None
    if replies is None or replies.state.ended:
        return
    event = source.PeerTerminated() if terminated else source.PeerClosed()
    state, _ = source.step(replies.state, event, now)
    tx.save_source(replace(replies, state=state, ended=now.utc if terminated else replies.ended))


def _cancel(tx: Transaction, command: Command, now: Now) -> Done:
    """End a context here. The peer isn't told: its messages are refused, or it finds out."""
    if command.verb != "cancel":
        raise UsageError("only its client renews a security context, and none has this store open")
    record = tx.context(command.target, side=command.side, endpoint=command.endpoint)
    if record is None or record.ended is not None:
        raise UsageError("it has ended already")
    side, endpoint = command.side, command.endpoint
    sources = [
        each
        for each in tx.sources(side=side, endpoint=endpoint, unfinished=True)
        if each.state.context == command.target
    ]
    destinations = [
        each
        for each in tx.destinations(side=side, endpoint=endpoint, unfinished=True)
        if each.state.context == command.target
    ]
    bound = sources if side == "client" else destinations
    if bound and not command.force:
        raise UsageError(f"{len(bound)} sequences are bound to it: end them first, or cancel with --force")
    for each in sources if side == "client" else ():
        requests.give_up(tx, each.state.key, f"its security context was cancelled by {command.asked_by}", now)
    for taken in destinations:
        state, _ = destination.step(taken.state, destination.Ended("its security context was cancelled"), now)
        tx.save_destination(replace(taken, state=state, ended=now.utc))
        _end_replies(tx, taken, now, terminated=True)
    tx.save_context(replace(record, ended=now.utc))
    return Done(f"ended, with {len(bound)} sequences" if bound else "ended")


def _check_ended(ended: bool, verb: str) -> None:
    if not ended:
        raise UsageError(f"it hasn't ended: {verb} it first")


def _check_alive(ended: bool) -> None:
    if ended:
        raise UsageError("it has ended already")
