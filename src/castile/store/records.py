"""What the store keeps: one frozen dataclass per row.

State dataclasses of `castile.protocol` are kept whole and sealed. The bodies of messages, the
digests of payloads, callers' keys and error texts are sealed too. What stays readable are
identifiers, numbers, addresses, actions, times and sizes (features ST-23).

All times are UTC seconds. A record whose `owner` is 0 belongs to whoever writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from castile.protocol.conversation import Conversation
from castile.protocol.destination import Destination
from castile.protocol.issuer import Context
from castile.protocol.source import Source

Side = Literal["client", "service"]
OutboxKind = Literal["application", "create", "close", "last", "terminate", "reply"]
InboxStatus = Literal["held", "ready", "running", "done", "parked"]


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """A security context and its secrets; key: `side`, `endpoint` and the state's identifier."""

    state: Context | Conversation = field(repr=False)
    side: Side
    endpoint: str
    """The address whose messages it protects."""
    principal: str | None = None
    expires: float | None = None
    """When the last instance ends."""
    ended: float | None = None
    """When it was cancelled or lost; swept after the retention."""
    owner: int = field(default=0, compare=False)
    """Which opening of the store uses it: id of a `castile.store.owners.Owner`."""


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """The sending half of a sequence; key: the state's `key`."""

    state: Source
    side: Side
    endpoint: str
    name: str = ""
    """A client's own name for the sequence; "" is the default one."""
    created: float = 0.0
    create_body: bytes | None = field(default=None, repr=False)
    """The Body of our CreateSequence, so that a repetition is the same one; sealed."""
    destination: str | None = None
    """The sequence in the other direction: identifier of a `DestinationRecord`."""
    ended: float | None = None
    """When it was terminated or failed; swept after the retention. None: unfinished."""
    owner: int = field(default=0, compare=False)
    """Which opening of the store sends its messages."""


@dataclass(frozen=True, slots=True)
class DestinationRecord:
    """The receiving half of a sequence; key: the state's `identifier`."""

    state: Destination
    side: Side
    endpoint: str
    principal: str | None = None
    created: float = 0.0
    create_message_id: str | None = None
    """MessageID of the peer's CreateSequence, by which a repetition is known."""
    source: str | None = None
    """The sequence in the other direction: key of a `SourceRecord`."""
    ended: float | None = None
    owner: int = field(default=0, compare=False)
    """Which opening of the store hands its messages to the application, while there are any."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A message that must get through; key: `message_id`."""

    message_id: str
    sequence_key: str | None
    """Key of the `SourceRecord`; None for a reply outside any sequence."""
    number: int | None
    kind: OutboxKind
    side: Side
    endpoint: str
    action: str
    body: bytes = field(repr=False)
    """Canonical XML, the children of Body; sealed."""
    submitted: float
    due: float | None
    """When it is to be sent next; None: not before someone sets it."""
    relates_to: str | None = None
    two_way: bool = False
    answers_sequence: str | None = None
    """The request that this reply answers: its sequence's identifier and its number."""
    answers_number: int | None = None
    fault: bool = False
    """A reply that is a fault."""
    key: str | None = field(default=None, repr=False)
    """The caller's own key of the call; sealed, found by its keyed digest."""
    attempts: int = 0
    tried: float | None = None
    """When the last attempt failed."""
    acknowledged: bool = False
    signatures: tuple[tuple[bytes, ...], ...] | None = field(default=None, repr=False)
    """Values of the signatures of each attempt, where an answer must confirm them; sealed."""
    last_error: str | None = field(default=None, repr=False)
    """Sealed: a peer's fault may quote application text."""
    owner: int = field(default=0, compare=False)
    """That of its sequence: which opening of the store sends it."""


@dataclass(frozen=True, slots=True)
class InboxRow:
    """A message that was accepted; key: `sequence` and `number`."""

    sequence: str
    """Identifier of the `DestinationRecord`."""
    number: int
    side: Side
    endpoint: str
    action: str
    body: bytes = field(repr=False)
    """Canonical XML, the children of Body; sealed. Dropped when the row is done."""
    received: float
    message_id: str | None = None
    relates_to: str | None = None
    two_way: bool = False
    """The sender waits for a reply (an anonymous ReplyTo)."""
    principal: str | None = None
    digest: bytes | None = field(default=None, repr=False)
    """Of the payload, by which another payload under the same number is known; sealed."""
    status: InboxStatus = "ready"
    attempts: int = 0
    """How often the handler was started: more than none before a start means redelivered."""
    due: float | None = None
    """When a handler that failed runs again."""
    reply_message_id: str | None = None
    """The outbox row of its reply."""
    last_error: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ReplyRow:
    """A reply that a client received; key: MessageID of the request."""

    message_id: str
    endpoint: str
    action: str
    """Of the reply."""
    body: bytes = field(repr=False)
    """Canonical XML, the children of Body; sealed."""
    received: float
    fault: bool = False
    request_action: str | None = None
    request_digest: bytes | None = field(default=None, repr=False)
    """Of the request's body: a call with the same key must have the same body; sealed."""
    key: str | None = field(default=None, repr=False)
    """The caller's own key of the call; sealed, found by its keyed digest."""
    consumed: float | None = None
    """When the caller had it; swept after the retention."""


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody outside asks the owner of a sequence or a context to do."""

    verb: str
    kind: Literal["sequence", "context"]
    target: str
    """Key of a source, or the identifier of a destination or a context."""
    side: Side
    endpoint: str
    force: bool
    asked: float
    asked_by: str
    """User and process, for the log."""
    id: int = 0
    """Given by the store."""
    done: float | None = None
    refused: bool | None = None
    result: str | None = None
    """What came of it, for people."""


@dataclass(frozen=True, slots=True)
class Resealing:
    """How far a store has come on its way to another sealing key."""

    key: str
    """Id of the new key."""
    waits_for: tuple[int, ...] = ()
    """Pids of processes that don't know it: nothing has changed yet."""
    table: int = 0
    row: int = 0
    rows: int = 0
    """So many were sealed anew."""
    unreadable: int = 0
    done: bool = False
    """The old key is retired."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A row that can't be read any more."""

    table: str
    key: str
    """The row's key, its parts separated by blanks."""
    sequence: str | None
    """The sequence that it takes down: `sequence_key`, identifier of a destination or None."""
    reason: str
    found: float
