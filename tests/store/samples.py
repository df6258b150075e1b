"""Records and stores for the tests of the store."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from castile import store
from castile.clock import Now
from castile.protocol.conversation import Conversation
from castile.protocol.conversation import Instance as Instance
from castile.protocol.destination import Destination
from castile.protocol.issuer import Context
from castile.protocol.ranges import RangeSet
from castile.protocol.source import Phase, Source
from castile.store import Store, Transaction
from castile.store.records import (
    ContextRecord,
    DestinationRecord,
    InboxRow,
    OutboxRow,
    ReplyRow,
    SourceRecord,
)

T = TypeVar("T")
ENDPOINT = "http://bank.example/Transfers"
RM = "http://docs.oasis-open.org/ws-rx/wsrm/200702"
SC = "http://docs.oasis-open.org/ws-sx/ws-secureconversation/200512"
KEY = bytes(range(32))
SECRET = b"the secret of the context -- 32."
MARKER = b"<m:Transfer xmlns:m='urn:bank'>MARKER-of-the-body</m:Transfer>"
START = Now(1_000_000.0, 50.0)


def do(opened: Store, step: Callable[[Transaction], T], *, exclusive: bool = False) -> T:
    """Run one step and wait for its commit."""
    return opened.run(step, exclusive=exclusive).result(30)


def opened(path: Path | None, seal: store.Seal = KEY) -> Store:
    """A store that tells a fixed time."""
    return store.open(path, seal=seal, clock=lambda: START)


def enqueue(opened: Store, *rows: OutboxRow) -> None:
    """Rows of the outbox, in one step."""

    def step(tx: Transaction) -> None:
        for row in rows:
            tx.enqueue(row)

    do(opened, step)


def accept(opened: Store, *rows: InboxRow) -> None:
    """Rows of the inbox, in one step."""

    def step(tx: Transaction) -> None:
        for row in rows:
            tx.accept(row)

    do(opened, step)


def submit(number: int, **more: object) -> Callable[[Transaction], None]:
    """A step that enqueues one message."""
    return lambda tx: tx.enqueue(outbox(number, **more))  # type: ignore[arg-type]


def conversation(identifier: str = "urn:c:1", endpoint: str = ENDPOINT) -> ContextRecord:
    state = Conversation(
        edition=SC,
        endpoint=endpoint,
        principal="ada",
        identifier=identifier,
        created=1.0,
        expires=7_201.5,
        instances=(Instance(None, SECRET, 1.0, 7_201.5), Instance("urn:i:2", SECRET[::-1], 2.0, 7_202.5)),
        token=b"<c:SecurityContextToken/>",
        token_id="_t",
    )
    return ContextRecord(state, "client", endpoint, "ada", 7_202.5)


def context(identifier: str = "urn:c:1", principal: str = "ada") -> ContextRecord:
    state = Context(
        identifier=identifier,
        edition=SC,
        principal=principal,
        endpoint=ENDPOINT,
        created=1.0,
        expires=7_201.5,
        instances=(Instance(None, SECRET, 1.0, 7_201.5),),
    )
    return ContextRecord(state, "service", ENDPOINT, principal, 7_201.5)


def source(key: str = "k1", identifier: str | None = "urn:s:1", **more: object) -> SourceRecord:
    state = Source(
        key=key,
        edition=RM,
        identifier=identifier,
        phase=Phase.OPEN,
        next_number=9,
        acknowledged=RangeSet(((1, 3), (5, 6))),
        context="urn:c:1",
    )
    return SourceRecord(state, "client", ENDPOINT, create_body=b"<r:CreateSequence/>", **more)  # type: ignore[arg-type]


def destination(identifier: str = "urn:d:1", **more: object) -> DestinationRecord:
    state = Destination(
        identifier=identifier, edition=RM, context="urn:c:1", offered="urn:o:1", received=RangeSet(((1, 4),))
    )
    return DestinationRecord(state, "service", ENDPOINT, "ada", create_message_id="urn:m:create", **more)  # type: ignore[arg-type]


def outbox(number: int = 1, sequence_key: str = "k1", **more: object) -> OutboxRow:
    fields: dict[str, object] = {
        "message_id": f"urn:m:{sequence_key}:{number}",
        "sequence_key": sequence_key,
        "number": number,
        "kind": "application",
        "side": "client",
        "endpoint": ENDPOINT,
        "action": "urn:bank:Transfer",
        "body": MARKER,
        "submitted": 10.0,
        "due": 10.0 + number,
    }
    return OutboxRow(**{**fields, **more})  # type: ignore[arg-type]


def inbox(number: int = 1, sequence: str = "urn:d:1", **more: object) -> InboxRow:
    fields: dict[str, object] = {
        "sequence": sequence,
        "number": number,
        "side": "service",
        "endpoint": ENDPOINT,
        "action": "urn:bank:Transfer",
        "body": MARKER,
        "received": 10.5,
        "message_id": f"urn:m:in:{number}",
        "two_way": True,
        "principal": "ada",
        "digest": b"the-digest-of-the-payload-------",
    }
    return InboxRow(**{**fields, **more})  # type: ignore[arg-type]


def reply(number: int = 1, **more: object) -> ReplyRow:
    fields: dict[str, object] = {
        "message_id": f"urn:m:k1:{number}",
        "endpoint": ENDPOINT,
        "action": "urn:bank:TransferResponse",
        "body": MARKER,
        "received": 11.0,
        "request_digest": b"the-digest-of-the-request-------",
    }
    return ReplyRow(**{**fields, **more})  # type: ignore[arg-type]


def fill(tx: Transaction, messages: int = 3) -> None:
    """One of everything, and some messages."""
    tx.save_context(conversation())
    tx.save_context(context())
    tx.save_source(source())
    tx.save_destination(destination())
    for number in range(1, messages + 1):
        tx.enqueue(outbox(number, key=f"invoice-{number}", last_error="MARKER-of-an-error"))
        tx.accept(inbox(number, last_error="MARKER-of-an-error"))
        tx.save_reply(reply(number, key=f"invoice-{number}"))
    tx.reject_replay(b"evidence", START.utc + 300, START)


def plain(path: Path) -> sqlite3.Connection:
    """The file of a closed store, as anybody may open it."""
    return sqlite3.connect(path, isolation_level=None)


def seeded() -> random.Random:
    """Random choices that a failure can be repeated with (CASTILE_SEED)."""
    seed = int(os.environ.get("CASTILE_SEED", "0")) or int.from_bytes(os.urandom(4), "big")
    print(f"CASTILE_SEED={seed}")  # noqa: T201 - pytest shows it with the failure
    return random.Random(seed)
