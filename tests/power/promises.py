"""What was promised to somebody, read off the wire, and whether a store still holds it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from typing import Any

from castile.store import Transaction
from tests.endpoint.pair import action_of

Promise = tuple[object, ...]
NOT_COMPARED = ("castile_owners",)
"""Tables that each opening of a store writes."""
_SEQUENCE = re.compile(rb"<r:Sequence [^>]*>.*?</r:Sequence>", re.S)
_ACKNOWLEDGEMENT = re.compile(rb"<r:SequenceAcknowledgement[^>]*>.*?</r:SequenceAcknowledgement>", re.S)
_IDENTIFIER = re.compile(rb"<r:Identifier[^>]*>([^<]*)<")
_NUMBER = re.compile(rb"<r:MessageNumber[^>]*>(\d+)<")
_RANGE = re.compile(rb'<r:AcknowledgementRange[^>]*?Lower="(\d+)"[^>]*?Upper="(\d+)"')
_MESSAGE_ID = re.compile(rb"<a:MessageID[^>]*>([^<]*)<")


def made_by(message: bytes) -> Iterator[Promise]:
    """What a message promises for the store of its sender, just by leaving."""
    place = numbered(message)
    if place is not None:
        yield ("numbered", *place)
    for part in _ACKNOWLEDGEMENT.findall(message):
        identifier = _IDENTIFIER.search(part)
        for low, high in _RANGE.findall(part):
            if identifier and int(high):
                yield "received", identifier[1].decode(), int(low), int(high)


def made_by_answer(request: bytes, response: bytes, issued: int) -> Iterator[Promise]:
    """What an answer promises for the service's store. `issued`: contexts that were, with this one."""
    yield from made_by(response)
    match action_of(response):
        case "RSTR/SCT":
            yield "contexts", issued
        case "CreateSequenceResponse":
            found = _MESSAGE_ID.search(request)
            if found:
                yield "created", found[1].decode()
        case "EchoResponse":
            place = numbered(request)
            if place is not None:
                yield ("replied", *place)


def numbered(message: bytes) -> tuple[str, int] | None:
    """Sequence and number of a message."""
    part = _SEQUENCE.search(message)
    identifier, number = (_IDENTIFIER.search(part[0]), _NUMBER.search(part[0])) if part else (None, None)
    return (identifier[1].decode(), int(number[1])) if identifier and number else None


def holds(promise: Promise, tx: Transaction, handled: Collection[Promise] = ()) -> bool:
    """Whether a store holds a promise. `handled`: sequence and number of each message that the
    application has had, or that has nothing in it for one: its row may be gone."""
    match promise:
        case ("numbered", str(identifier), int(number)):  # it is never given to another message
            source = tx.source_of(identifier)
            return source is not None and source.state.next_number > number
        case ("received", str(identifier), int(low), int(high)):
            record = tx.destination(identifier)
            if record is None or any(number not in record.state.received for number in range(low, high + 1)):
                return False
            wanted = range(low, high + 1) if record.side == "service" else ()
            left = (number for number in wanted if (identifier, number) not in handled)
            return all(tx.inbox_row(identifier, number) is not None for number in left)
        case ("contexts", int(count)):
            return len(tx.contexts(ended=True)) >= count
        case ("created", str(message_id)):
            return tx.destination_by_create(message_id) is not None
        case ("replied", str(identifier), int(number)):
            return tx.reply_to(identifier, number) is not None or _done(tx, identifier, number)
        case ("submitted", int(count)):
            return sum(source.state.next_number - 1 for source in tx.sources(side="client")) >= count
    raise ValueError(promise)


def _done(tx: Transaction, identifier: str, number: int) -> bool:
    """The reply was acknowledged, and isn't kept any more."""
    row = tx.inbox_row(identifier, number)
    return row is not None and row.status == "done"


def consistent(tx: Transaction) -> list[str]:
    """What is wrong with a store by itself, whatever was promised."""
    wrong = [f"{each.table} {each.key} is damaged" for each in tx.damaged()]
    for source in tx.sources(side="client", unfinished=True):
        rows = {row.number for row in tx.outbox(source.state.key)}
        numbers = range(1, source.state.next_number)
        missing = [n for n in numbers if n not in source.state.acknowledged and n not in rows]
        if missing:
            wrong.append(f"messages {missing} of {source.state.identifier} are nowhere")
    for destination in tx.destinations(side="service"):
        identifier = destination.state.identifier
        rows_in = tx.inbox(sequence=identifier) + tx.inbox(sequence=identifier, status="done")
        extra = [row.number for row in rows_in if row.number not in destination.state.received]
        if extra:
            wrong.append(f"rows {extra} of {identifier} were not received")
        unanswered = [
            row.number
            for row in rows_in
            if row.status == "done" and row.two_way and row.reply_message_id is None
        ]
        if unanswered:
            wrong.append(f"calls {unanswered} of {identifier} are done without a reply")
    return wrong


def digest(connection: Any) -> bytes:
    """Of every row that isn't about who has the store open; empty for a store that has none."""
    summed, empty = hashlib.sha256(), True
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
    for (name,) in names:
        if name.startswith("sqlite_") or name in NOT_COMPARED:
            continue
        rows = sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr)
        empty = empty and (not rows or name == "castile_meta")
        summed.update(repr((name, rows)).encode())
    return b"" if empty else summed.digest()
