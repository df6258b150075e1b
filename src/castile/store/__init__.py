"""The store: what must survive a crash, behind one actor with shared commits.

`open` gives a `Store`; ``store.run(step)`` queues a function of a `Transaction` and returns a
future that resolves only once the step's transaction is committed (features ST-03, ST-04). A
step that raises undoes itself alone. A commit that fails fails every step in it, and keeps
nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from castile.clock import Clock, Now, system
from castile.config import Settings
from castile.store.records import (
    Command,
    ContextRecord,
    Damage,
    DestinationRecord,
    InboxRow,
    InboxStatus,
    OutboxKind,
    OutboxRow,
    ReplyRow,
    Resealing,
    Side,
    SourceRecord,
)

if TYPE_CHECKING:
    from castile.store.application import ApplicationConnection
    from castile.store.owners import Owner

__all__ = [
    "UNCHANGED",
    "Adopted",
    "Seal",
    "Sign",
    "Store",
    "Transaction",
    "Unchanged",
    "open",
]

T = TypeVar("T")
Seal = bytes | Sequence[bytes] | str | Path | Callable[[], bytes | Sequence[bytes]] | None
"""The key-encryption key: 32 bytes, ``"env:NAME"``, ``"file:PATH"``, a path, or a function that
fetches it. ``"require"``: the environment must name one. None: ``CASTILE_STORE_KEY``, else a key
file beside the store, made at need. Each may hold several keys, in a text with white space between
them: the first one is to seal, and what older ones have sealed opens too (features ST-21)."""


class Unchanged(Enum):
    """The type of `UNCHANGED`: this column stays as it is."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


class Sign(Enum):
    """What is seen of the other processes that have the store open."""

    CHANGED = "changed"
    """One has committed something."""
    DIED = "died"
    """One is gone, and it may have left something (`Transaction.adopt`)."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was taken over from dead owners."""

    sources: tuple[str, ...] = ()
    """Keys, in the order of their making."""
    contexts: frozenset[str] = frozenset()
    """Identifiers."""
    destinations: frozenset[str] = frozenset()
    """Identifiers."""


class Transaction(Protocol):
    """What one step may do. Only valid inside the step.

    Methods that return one row raise `StoreDamaged` if it can't be read; methods that return
    several leave such rows out and note them (`damaged`). Writing a row whose key is taken, where
    nothing says that it replaces, is a `StoreError`.
    """

    @property
    def connection(self) -> ApplicationConnection:
        """The application's way into this transaction (``ctx.transaction``).

        UsageError: the step isn't exclusive.
        """

    @property
    def owner(self) -> int:
        """Which opening of the store this is: its id, which only grows; 0 in memory."""

    def adopt(self, side: Side, endpoint: str) -> Adopted:
        """Take over what dead owners have of this endpoint, and mark them as ended.

        A client's unfinished sequences with their rows, and its contexts; a service's sequences
        that have messages for the application.
        """

    def attempt(self) -> AbstractContextManager[None]:
        """``with tx.attempt():`` undoes what was written inside if the block raises, so that the
        step can still say so: a handler's effects go, the fault that answers is kept."""

    # contexts
    def context(
        self, identifier: str, *, side: Side | None = None, endpoint: str | None = None
    ) -> ContextRecord | None:
        """The context of this Identifier. A client asks with its side and endpoint: two peers
        may give the same Identifier."""

    def save_context(self, record: ContextRecord) -> None:
        """Insert or replace."""

    def contexts(
        self,
        *,
        side: Side | None = None,
        endpoint: str | None = None,
        owner: int | None = None,
        ended: bool = False,
    ) -> list[ContextRecord]:
        """The contexts that haven't ended, or with `ended` all."""

    def count_contexts(self, side: Side, principal: str | None = None) -> int:
        """How many haven't ended, of everybody or of one principal."""

    # sequences
    def source(self, key: str) -> SourceRecord | None:
        """By local key."""

    def source_of(
        self, identifier: str, *, side: Side | None = None, endpoint: str | None = None
    ) -> SourceRecord | None:
        """By the identifier on the wire, which is unique per side and endpoint."""

    def save_source(self, record: SourceRecord) -> None:
        """Insert or replace. StoreError: another source of this side and endpoint has this
        identifier."""

    def sources(
        self,
        *,
        side: Side | None = None,
        endpoint: str | None = None,
        owner: int | None = None,
        unfinished: bool = False,
    ) -> list[SourceRecord]:
        """In the order of their making."""

    def destination(self, identifier: str) -> DestinationRecord | None: ...

    def destination_by_create(
        self, message_id: str, *, endpoint: str | None = None
    ) -> DestinationRecord | None:
        """The one that this CreateSequence made."""

    def destination_by_offer(self, offered: str, *, endpoint: str | None = None) -> DestinationRecord | None:
        """The one whose CreateSequence offered this identifier."""

    def save_destination(self, record: DestinationRecord) -> None:
        """Insert or replace."""

    def destinations(
        self,
        *,
        side: Side | None = None,
        endpoint: str | None = None,
        principal: str | None = None,
        unfinished: bool = False,
    ) -> list[DestinationRecord]:
        """In the order of their making."""

    def count_destinations(self, side: Side, principal: str | None = None) -> int:
        """How many are unfinished, of everybody or of one principal."""

    def forget_source(self, key: str) -> None:
        """Delete it and its outbox rows."""

    def forget_destination(self, identifier: str) -> None:
        """Delete it and its inbox rows, and replies outside a sequence that answer them."""

    # outbox
    def enqueue(self, row: OutboxRow) -> None: ...

    def outbox_row(self, message_id: str) -> OutboxRow | None: ...

    def outbox_by_key(self, endpoint: str, key: str) -> OutboxRow | None:
        """The call that a caller gave this key."""

    def reply_to(self, sequence: str, number: int) -> OutboxRow | None:
        """The reply to this request."""

    def update_outbox(
        self,
        message_id: str,
        *,
        due: float | Unchanged | None = UNCHANGED,
        attempts: int | Unchanged = UNCHANGED,
        tried: float | Unchanged = UNCHANGED,
        acknowledged: bool | Unchanged = UNCHANGED,
        signatures: tuple[tuple[bytes, ...], ...] | Unchanged = UNCHANGED,
        last_error: str | Unchanged | None = UNCHANGED,
    ) -> bool:
        """Whether there is such a row."""

    def dequeue(self, message_id: str, *, one_way: bool = False) -> bool:
        """Delete, with `one_way` only a message that waits for no reply; whether there was such a row."""

    def outbox(self, sequence_key: str) -> list[OutboxRow]:
        """All rows of one sequence, lifecycle messages first, then by number."""

    def oldest(self, sequence_key: str) -> OutboxRow | None:
        """The lowest row that isn't acknowledged; its lifecycle comes before its messages."""

    def outbox_count(self, sequence_key: str, *, kind: OutboxKind | None = None) -> int: ...

    def due(
        self,
        utc: float,
        limit: int,
        *,
        endpoint: str,
        side: Side = "client",
        besides: Collection[str] = (),
    ) -> list[OutboxRow]:
        """Rows of this owner whose time has come, the longest due first; equal ones in the order of
        enqueueing.

        `besides`: MessageIDs of rows that are being sent already.
        """

    def next_due(
        self, *, endpoint: str, side: Side = "client", besides: Collection[str] = ()
    ) -> float | None:
        """When the next row of this owner is due, those `besides` left out."""

    def wake(
        self, utc: float, *, side: Side, endpoint: str | None = None, sequence_key: str | None = None
    ) -> int:
        """At recovery: every row that isn't acknowledged, or waits for a reply, is due at `utc`."""

    def mark_acknowledged(self, sequence_key: str, ranges: Iterable[tuple[int, int]]) -> list[str]:
        """Mark rows as acknowledged; MessageIDs of those newly marked, by number."""

    def purge(self, sequence_key: str, ranges: Iterable[tuple[int, int]]) -> int:
        """Delete the rows with these numbers; how many."""

    # inbox
    def accept(self, row: InboxRow) -> None: ...

    def inbox_row(self, sequence: str, number: int) -> InboxRow | None: ...

    def inbox(
        self,
        *,
        sequence: str | None = None,
        status: InboxStatus | None = None,
        side: Side | None = None,
        endpoint: str | None = None,
        limit: int | None = None,
    ) -> list[InboxRow]:
        """By sequence and number; without `status` all but the done ones."""

    def update_inbox(
        self,
        sequence: str,
        number: int,
        *,
        status: InboxStatus | Unchanged = UNCHANGED,
        attempts: int | Unchanged = UNCHANGED,
        due: float | Unchanged | None = UNCHANGED,
        reply_message_id: str | Unchanged | None = UNCHANGED,
        last_error: str | Unchanged | None = UNCHANGED,
    ) -> bool:
        """Whether there is such a row. ``status="done"`` drops the body."""

    def trim_inbox(self, sequence: str, below: int) -> int:
        """Delete done rows with numbers under `below`; how many."""

    # replies received by a client
    def save_reply(self, row: ReplyRow) -> None:
        """Insert; a second reply to the same request is left out."""

    def reply(self, message_id: str) -> ReplyRow | None: ...

    def reply_by_key(self, endpoint: str, key: str) -> ReplyRow | None: ...

    def forget_reply(self, message_id: str) -> None:
        """Delete it."""

    def consume(self, message_id: str, utc: float) -> bool:
        """Mark as handed to the caller; whether there is such a row."""

    def unconsumed(self, endpoint: str | None = None) -> list[ReplyRow]:
        """In the order of arrival."""

    # from outside
    def owners(self) -> list[Owner]:
        """Who has, or had, the store open; the oldest first."""

    def ask(self, command: Command) -> int:
        """Leave it for the owner of its target; its id."""

    def command(self, number: int) -> Command | None: ...

    def commands(self, side: Side, endpoint: str) -> list[Command]:
        """Those of this endpoint that nobody has carried out, in the order of asking."""

    def carried_out(self, number: int, utc: float, result: str, *, refused: bool = False) -> bool:
        """What came of it; False if somebody was faster."""

    # keeping house
    def reject_replay(self, evidence: bytes, expires: float, now: Now) -> None:
        """Remember a message until `expires` (its Timestamp's end plus the skew).

        SecurityFailure: it was seen before. StoreFull: `Limits.replay_rows` are remembered.
        """

    def sweep(self, now: Now, limit: int) -> int:
        """Delete up to `limit` rows that have outlived their retention; how many. Call again
        while it returns `limit`."""

    def reseal(self, before: Resealing | None, limit: int) -> Resealing:
        """Go on to another sealing key, by up to `limit` rows; call again with what it returns until
        that is done (`castile.store.resealing`). UsageError: there is no new key."""

    def damaged(self) -> list[Damage]:
        """Rows that were found unreadable."""

    def forget_damage(self, table: str, key: str) -> None:
        """Strike one from the list."""


class Store(Protocol):
    """An open store."""

    @property
    def location(self) -> Path | None:
        """The file; None in memory."""

    @property
    def owner(self) -> int:
        """As `Transaction.owner`."""

    @property
    def commits(self) -> int:
        """Durable commits so far."""

    def run(
        self,
        step: Callable[[Transaction], T],
        *,
        exclusive: bool = False,
        patient: bool = False,
        seconds: float | None = None,
    ) -> Future[T]:
        """Queue a step. The future resolves after the commit, in the store's thread.

        An `exclusive` step is a transaction of its own, in which the application may use
        `Transaction.connection`; it may take `seconds` (`Timers.handler_seconds`), after which
        it is rolled back with a StoreError. A `patient` step is one that nobody waits for: alone
        it may be held back for a few milliseconds, to share the commit of the next one.

        UsageError: the store is closed, was inherited over a fork, or this is called from inside
        a step. StoreFull, StoreBusy, StoreDamaged, StoreFenced, StoreError: by the future, and
        nothing of the step was kept.
        """

    def watch(self, listener: Callable[[Sign], None]) -> None:
        """Tell of other processes from now on. The listener runs in the store's thread and may
        start steps, but not wait for them."""

    def look(self) -> Future[None]:
        """Look at the other processes now. It happens by itself each second, and each few
        milliseconds while somebody `awaits` one of them."""

    def awaits(self) -> AbstractContextManager[None]:
        """``with store.awaits():`` somebody waits for what another process will commit."""

    def close(self) -> None:
        """Finish what is queued, then close the file. A second call does nothing."""


def open(  # noqa: A001 - the word of the standard library for it
    location: str | Path | None = None,
    *,
    seal: Seal = None,
    settings: Settings | None = None,
    clock: Clock = system,
) -> Store:
    """Open or make a store; None: in memory, gone when it is closed. What a power cut may take of a
    file is `Settings.durability`.

    Other processes of this machine may have the same file open. StoreBusy: one of them, named by
    its pid, doesn't let go of it. StoreInvalid: the file is no castile store, is on a network file
    system, or the key or the mark doesn't fit. StoreTooNew: a newer castile wrote it. StoreFull,
    StoreError: the file can't be made or read.
    """
    from castile.store.actor import Actor

    return Actor.open(location, seal=seal, settings=settings or Settings(), clock=clock)
