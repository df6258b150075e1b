"""What one step does, as SQL: the `Transaction` of the SQLite store."""

# ruff: noqa: S608 - what is put into statements are names of this package only

from __future__ import annotations

import logging
import sqlite3
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from typing import Final, TypeVar

from castile.clock import Clock, Now
from castile.errors import Exchange, SecurityFailure, StoreDamaged, StoreError, StoreFull, UsageError
from castile.protocol.conversation import at_least
from castile.store import UNCHANGED, Adopted, Unchanged, resealing
from castile.store.application import ApplicationConnection, Loan
from castile.store.database import Database
from castile.store.owners import Owner, owners
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
from castile.store.tables import (
    CONTEXTS,
    DESTINATIONS,
    INBOX,
    OUTBOX,
    REPLIES,
    SOURCES,
    BrokenRow,
    Row,
    SQLValue,
    Table,
    call_key,
)

R = TypeVar("R")
_PAGE: Final = 4_096
_STATES: Final = 1_024
"""So many states of sequences and contexts are kept opened: about 4 MB."""
_NO_DOUBT: Final = (
    " AND NOT (side = 'client' AND EXISTS (SELECT 1 FROM castile_outbox "
    "WHERE sequence_key = castile_sources.key AND kind = 'application'))"
)
_COMMAND: Final = (
    *("id", "verb", "kind", "target", "side", "endpoint", "force"),
    *("asked", "asked_by", "done", "refused", "result"),
)
_SEQUENCE: Final = {
    SOURCES.name: "key",
    DESTINATIONS.name: "identifier",
    OUTBOX.name: "sequence_key",
    INBOX.name: "sequence",
}
"""The column that names the sequence which a damaged row takes down."""

reliability_log = logging.getLogger("castile.reliability")


class SQLiteTransaction:
    """The one transaction object of a store; see `castile.store.Transaction`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._connection = database.connection
        self._clock = clock
        self._application: ApplicationConnection | None = None
        self._states: dict[tuple[str, str], tuple[Row, object]] = {}
        self._replays = self._count("SELECT count(*) FROM castile_replays")

    def reconnected(self) -> None:
        """The database has another connection."""
        self._connection = self._database.connection

    @property
    def owner(self) -> int:
        return self._database.owner

    def adopt(self, side: Side, endpoint: str) -> Adopted:
        ownership, place = self._database.ownership, [side, endpoint]
        if ownership is None:
            return Adopted()
        living = ownership.bury(self._connection, self._clock())
        orphan = f"side = ? AND endpoint = ? AND owner NOT IN ({', '.join(map(str, living))})"

        def take(table: str, key: str, which: str) -> list[str]:
            found = self._connection.execute(f"SELECT {key} FROM {table} WHERE {which} ORDER BY rowid", place)
            keys = [name for (name,) in found.fetchall()]
            if keys:
                self._change(f"UPDATE {table} SET owner = {self.owner} WHERE {which}", place)
            return keys

        if side == "client":
            sources = take("castile_sources", "key", f"{orphan} AND ended IS NULL")
            if sources:
                take("castile_outbox", "message_id", orphan)
            contexts = take("castile_contexts", "identifier", f"{orphan} AND ended IS NULL")
            return Adopted(tuple(sources), frozenset(contexts))
        undone = "SELECT sequence FROM castile_inbox INDEXED BY castile_inbox_open WHERE status <> 'done'"
        return Adopted(
            destinations=frozenset(
                take("castile_destinations", "identifier", f"{orphan} AND identifier IN ({undone})")
            )
        )

    # the application's part

    @property
    def connection(self) -> ApplicationConnection:
        if self._application is None:
            raise UsageError("only an exclusive step lends the store's connection to the application")
        return self._application

    def lend(self, seconds: float) -> Loan:
        """From now on the application may use `connection`, for so long."""
        loan = Loan(self._connection, self._database.name, self._clock, seconds)
        self._application = ApplicationConnection(loan)
        return loan

    def take_back(self, loan: Loan) -> None:
        """The end of `lend`."""
        self._application = None
        loan.end()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        self._connection.execute("SAVEPOINT castile_attempt")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO castile_attempt")
                self._connection.execute("RELEASE castile_attempt")
            raise
        self._connection.execute("RELEASE castile_attempt")

    # contexts

    def context(
        self, identifier: str, *, side: Side | None = None, endpoint: str | None = None
    ) -> ContextRecord | None:
        where, values = _all_of(identifier=identifier, side=side, endpoint=endpoint)
        return self._one(CONTEXTS, f"{where} ORDER BY rowid LIMIT 1", values)

    def save_context(self, record: ContextRecord) -> None:
        self._write(CONTEXTS, CONTEXTS.upsert, record)

    def contexts(
        self,
        *,
        side: Side | None = None,
        endpoint: str | None = None,
        owner: int | None = None,
        ended: bool = False,
    ) -> list[ContextRecord]:
        where, values = _all_of(side=side, endpoint=endpoint, owner=owner)
        return self._many(CONTEXTS, _open(where, ended) + " ORDER BY rowid", values)

    def count_contexts(self, side: Side, principal: str | None = None) -> int:
        where, values = _all_of(side=side, principal=principal)
        return self._count(f"SELECT count(*) FROM castile_contexts {_open(where, False)}", values)

    # sequences

    def source(self, key: str) -> SourceRecord | None:
        return self._one(SOURCES, "WHERE key = ?", [key])

    def source_of(
        self, identifier: str, *, side: Side | None = None, endpoint: str | None = None
    ) -> SourceRecord | None:
        where, values = _all_of(identifier=identifier, side=side, endpoint=endpoint)
        return self._one(SOURCES, f"{where} LIMIT 1", values)

    def save_source(self, record: SourceRecord) -> None:
        self._write(SOURCES, SOURCES.upsert, record)

    def sources(
        self,
        *,
        side: Side | None = None,
        endpoint: str | None = None,
        owner: int | None = None,
        unfinished: bool = False,
    ) -> list[SourceRecord]:
        where, values = _all_of(side=side, endpoint=endpoint, owner=owner)
        return self._many(SOURCES, _open(where, not unfinished) + " ORDER BY rowid", values)

    def forget_source(self, key: str) -> None:
        self._change("DELETE FROM castile_outbox WHERE sequence_key = ?", [key])
        self._change(SOURCES.delete, [key])

    def destination(self, identifier: str) -> DestinationRecord | None:
        return self._one(DESTINATIONS, "WHERE identifier = ?", [identifier])

    def destination_by_create(
        self, message_id: str, *, endpoint: str | None = None
    ) -> DestinationRecord | None:
        where, values = _all_of(create_message_id=message_id, endpoint=endpoint)
        return self._one(DESTINATIONS, f"{where} ORDER BY rowid LIMIT 1", values)

    def destination_by_offer(self, offered: str, *, endpoint: str | None = None) -> DestinationRecord | None:
        where, values = _all_of(offered=offered, endpoint=endpoint)
        return self._one(DESTINATIONS, f"{where} ORDER BY rowid LIMIT 1", values)

    def save_destination(self, record: DestinationRecord) -> None:
        self._write(DESTINATIONS, DESTINATIONS.upsert, record)

    def destinations(
        self,
        *,
        side: Side | None = None,
        endpoint: str | None = None,
        principal: str | None = None,
        unfinished: bool = False,
    ) -> list[DestinationRecord]:
        where, values = _all_of(side=side, endpoint=endpoint, principal=principal)
        return self._many(DESTINATIONS, _open(where, not unfinished) + " ORDER BY rowid", values)

    def count_destinations(self, side: Side, principal: str | None = None) -> int:
        where, values = _all_of(side=side, principal=principal)
        return self._count(f"SELECT count(*) FROM castile_destinations {_open(where, False)}", values)

    def forget_destination(self, identifier: str) -> None:
        self._change("DELETE FROM castile_inbox WHERE sequence = ?", [identifier])
        self._change(
            "DELETE FROM castile_outbox WHERE answers_sequence = ? AND sequence_key IS NULL", [identifier]
        )
        self._change(DESTINATIONS.delete, [identifier])

    # outbox

    def enqueue(self, row: OutboxRow) -> None:
        self._database.note_writes(len(row.body) // _PAGE)
        self._write(OUTBOX, OUTBOX.insert, row)

    def outbox_row(self, message_id: str) -> OutboxRow | None:
        return self._one(OUTBOX, "WHERE message_id = ?", [message_id])

    def outbox_by_key(self, endpoint: str, key: str) -> OutboxRow | None:
        return self._one(OUTBOX, *self._called(endpoint, key))

    def reply_to(self, sequence: str, number: int) -> OutboxRow | None:
        return self._one(OUTBOX, "WHERE answers_sequence = ? AND answers_number = ?", [sequence, number])

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
        changes = _changes(
            due=due,
            attempts=attempts,
            tried=tried,
            acknowledged=acknowledged,
            signatures=signatures,
            last_error=last_error,
        )
        return self._update(OUTBOX, [message_id], changes)

    def dequeue(self, message_id: str, *, one_way: bool = False) -> bool:
        return self._change(OUTBOX.delete + (" AND two_way = 0" if one_way else ""), [message_id]) > 0

    def outbox(self, sequence_key: str) -> list[OutboxRow]:
        return self._many(OUTBOX, "WHERE sequence_key = ? ORDER BY number, rowid", [sequence_key])

    def oldest(self, sequence_key: str) -> OutboxRow | None:
        tail = "WHERE sequence_key = ? AND acknowledged = 0 ORDER BY number, rowid LIMIT 1"
        return self._one(OUTBOX, tail, [sequence_key])

    def outbox_count(self, sequence_key: str, *, kind: OutboxKind | None = None) -> int:
        where, values = _all_of(sequence_key=sequence_key, kind=kind)
        return self._count(f"SELECT count(*) FROM castile_outbox {where}", values)

    def due(
        self,
        utc: float,
        limit: int,
        *,
        endpoint: str,
        side: Side = "client",
        besides: Collection[str] = (),
    ) -> list[OutboxRow]:
        own = "side = ? AND endpoint = ? AND owner = ?"
        tail = f"WHERE {own} AND due <= ?{_none_of(besides)} ORDER BY due, rowid LIMIT ?"
        found, broken = self._sorted(OUTBOX, tail, [side, endpoint, self.owner, utc, *besides, limit])
        for row in broken:  # never again: the next look would find them first
            self._change("UPDATE castile_outbox SET due = NULL WHERE message_id = ?", [row[0]])
        return found

    def next_due(
        self, *, endpoint: str, side: Side = "client", besides: Collection[str] = ()
    ) -> float | None:
        found = self._connection.execute(
            "SELECT due FROM castile_outbox WHERE side = ? AND endpoint = ? AND owner = ? "
            f"AND due IS NOT NULL{_none_of(besides)} ORDER BY due LIMIT 1",
            [side, endpoint, self.owner, *besides],
        ).fetchone()
        return None if found is None else float(found[0])

    def wake(
        self, utc: float, *, side: Side, endpoint: str | None = None, sequence_key: str | None = None
    ) -> int:
        where, values = _all_of(side=side, endpoint=endpoint, sequence_key=sequence_key)
        keys = self._connection.execute(
            f"SELECT message_id FROM castile_outbox {where} "
            "AND (acknowledged = 0 OR (two_way = 1 AND kind = 'application'))",
            values,
        ).fetchall()
        return sum(self._update_or_note(OUTBOX, [key], {"due": utc}) for (key,) in keys)

    def mark_acknowledged(self, sequence_key: str, ranges: Iterable[tuple[int, int]]) -> list[str]:
        marked = []
        for low, high in ranges:
            keys = self._connection.execute(
                "SELECT message_id FROM castile_outbox "
                "WHERE sequence_key = ? AND number BETWEEN ? AND ? AND acknowledged = 0 ORDER BY number",
                [sequence_key, low, high],
            ).fetchall()
            marked += [key for (key,) in keys if self._update_or_note(OUTBOX, [key], {"acknowledged": True})]
        return marked

    def purge(self, sequence_key: str, ranges: Iterable[tuple[int, int]]) -> int:
        return sum(
            self._change(
                "DELETE FROM castile_outbox WHERE sequence_key = ? AND number BETWEEN ? AND ?",
                [sequence_key, low, high],
            )
            for low, high in ranges
        )

    # inbox

    def accept(self, row: InboxRow) -> None:
        self._database.note_writes(len(row.body) // _PAGE)
        self._write(INBOX, INBOX.insert, row)

    def inbox_row(self, sequence: str, number: int) -> InboxRow | None:
        return self._one(INBOX, "WHERE sequence = ? AND number = ?", [sequence, number])

    def inbox(
        self,
        *,
        sequence: str | None = None,
        status: InboxStatus | None = None,
        side: Side | None = None,
        endpoint: str | None = None,
        limit: int | None = None,
    ) -> list[InboxRow]:
        where, values = _all_of(sequence=sequence, status=status, side=side, endpoint=endpoint)
        if status != "done":
            joint = "AND" if where else "WHERE"
            where = f"INDEXED BY castile_inbox_open {where} {joint} status <> 'done'"
        tail = f"{where} ORDER BY sequence, number LIMIT ?"
        return self._many(INBOX, tail, [*values, -1 if limit is None else limit])

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
        changes = _changes(
            status=status,
            attempts=attempts,
            due=due,
            reply_message_id=reply_message_id,
            last_error=last_error,
        )
        if status == "done":
            changes["body"] = b""
        return self._update(INBOX, [sequence, number], changes)

    def trim_inbox(self, sequence: str, below: int) -> int:
        return self._change(
            "DELETE FROM castile_inbox WHERE sequence = ? AND number < ? AND status = 'done'",
            [sequence, below],
        )

    # replies received by a client

    def save_reply(self, row: ReplyRow) -> None:
        known = self._connection.execute(
            "SELECT 1 FROM castile_replies WHERE message_id = ?", [row.message_id]
        ).fetchone()
        if known is None:
            self._database.note_writes(len(row.body) // _PAGE)
            self._write(REPLIES, REPLIES.insert, row)

    def reply(self, message_id: str) -> ReplyRow | None:
        return self._one(REPLIES, "WHERE message_id = ?", [message_id])

    def reply_by_key(self, endpoint: str, key: str) -> ReplyRow | None:
        return self._one(REPLIES, *self._called(endpoint, key))

    def _called(self, endpoint: str, key: str) -> tuple[str, list[bytes]]:
        wanted = self._database.sealer.lookups(call_key(endpoint, key))
        return f"WHERE call IN ({', '.join('?' * len(wanted))})", wanted

    def forget_reply(self, message_id: str) -> None:
        self._change(REPLIES.delete, [message_id])

    def consume(self, message_id: str, utc: float) -> bool:
        return self._update(REPLIES, [message_id], {"consumed": utc})

    def unconsumed(self, endpoint: str | None = None) -> list[ReplyRow]:
        where, values = _all_of(endpoint=endpoint)
        joint = "AND" if where else "WHERE"
        return self._many(REPLIES, f"{where} {joint} consumed IS NULL ORDER BY rowid", values)

    # from outside

    def owners(self) -> list[Owner]:
        return owners(self._connection)

    def ask(self, command: Command) -> int:
        columns = ", ".join(_COMMAND[1:])
        statement = f"INSERT INTO castile_commands ({columns}) VALUES ({', '.join('?' * len(_COMMAND[1:]))})"
        return (
            self._connection.execute(statement, [getattr(command, name) for name in _COMMAND[1:]]).lastrowid
            or 0
        )

    def command(self, number: int) -> Command | None:
        return next(iter(self._commands("WHERE id = ?", [number])), None)

    def commands(self, side: Side, endpoint: str) -> list[Command]:
        return self._commands(
            "WHERE side = ? AND endpoint = ? AND done IS NULL ORDER BY id", [side, endpoint]
        )

    def carried_out(self, number: int, utc: float, result: str, *, refused: bool = False) -> bool:
        statement = (
            "UPDATE castile_commands SET done = ?, refused = ?, result = ? WHERE id = ? AND done IS NULL"
        )
        return self._change(statement, [utc, refused, result, number]) > 0

    def _commands(self, tail: str, values: Sequence[SQLValue]) -> list[Command]:
        found = self._connection.execute(f"SELECT {', '.join(_COMMAND)} FROM castile_commands {tail}", values)
        rows = [dict(zip(_COMMAND, row, strict=True)) for row in found.fetchall()]
        return [Command(**{**row, "force": bool(row["force"])}) for row in rows]

    # keeping house

    def reject_replay(self, evidence: bytes, expires: float, now: Now) -> None:
        limit = self._database.settings.limits.replay_rows
        if self._replays >= limit:
            self._change("DELETE FROM castile_replays WHERE expires < ?", [now.utc])
            self._replays = self._count("SELECT count(*) FROM castile_replays")
            if self._replays >= limit:
                raise StoreFull(f"{limit} messages are remembered against replay: no room for more")
        new = self._change(
            "INSERT INTO castile_replays (evidence, expires) VALUES (?, ?) "
            "ON CONFLICT (evidence) DO UPDATE SET expires = excluded.expires WHERE expires < ?",
            [sha256(evidence).digest(), expires, now.utc],
        )
        if not new:
            raise SecurityFailure("the message was seen before (replay)", part="wsu:Timestamp")
        self._replays += 1

    def sweep(self, now: Now, limit: int) -> int:
        timers = self._database.settings.timers
        kept, keyed = now.utc - timers.retention, now.utc - timers.key_retention
        window = at_least(timers.token_cache_after_expiry, self._database.settings.testing)
        swept = self._change(
            "DELETE FROM castile_replays WHERE evidence IN "
            "(SELECT evidence FROM castile_replays WHERE expires < ? ORDER BY expires LIMIT ?)",
            [now.utc, limit],
        )
        self._replays -= swept
        for table, column, boundary, besides in (
            ("castile_contexts", "ended", kept, ""),
            ("castile_contexts", "expires", now.utc - window, " AND ended IS NULL"),
            ("castile_replies", "consumed", kept, " AND call IS NULL"),
            ("castile_replies", "consumed", keyed, " AND call IS NOT NULL"),
            ("castile_commands", "done", kept, ""),
        ):
            swept += self._change(
                f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} "
                f"WHERE {column} < ?{besides} ORDER BY {column} LIMIT ?)",
                [boundary, limit - swept],
            )
        swept += self._sweep_sequences("source", kept, limit - swept)
        swept += self._sweep_sequences("destination", kept, limit - swept)
        return swept

    def reseal(self, before: Resealing | None, limit: int) -> Resealing:
        return resealing.step(self._database, self._connection, before, limit)

    def damaged(self) -> list[Damage]:
        rows = self._connection.execute("SELECT name, key, sequence, reason, found FROM castile_damage")
        return [Damage(*row) for row in rows]

    def forget_damage(self, table: str, key: str) -> None:
        self._change("DELETE FROM castile_damage WHERE name = ? AND key = ?", [table, key])

    def _sweep_sequences(self, half: str, kept: float, limit: int) -> int:
        """Ended sequences, their rows first, so that one step stays bounded; none of a client's with
        messages in doubt (RM-58). A client's takes its replies' sequence along, which has no end of
        its own where the first one failed."""
        table, key, twin, rows, of, besides = {
            "source": ("castile_sources", "key", "destination", "castile_outbox", "sequence_key", _NO_DOUBT),
            "destination": ("castile_destinations", "identifier", "NULL", "castile_inbox", "sequence", ""),
        }[half]
        swept = 0
        while swept < limit:
            found = self._connection.execute(
                f"SELECT {key}, iif(side = 'client', {twin}, NULL) FROM {table} "
                f"WHERE ended < ?{besides} ORDER BY ended LIMIT 1",
                [kept],
            ).fetchone()
            if found is None:
                break
            swept += self._change(
                f"DELETE FROM {rows} WHERE rowid IN (SELECT rowid FROM {rows} WHERE {of} = ? LIMIT ?)",
                [found[0], limit - swept],
            )
            if swept < limit:
                (self.forget_source if half == "source" else self.forget_destination)(found[0])
                if found[1] is not None:
                    self.forget_destination(found[1])
                swept += 1
        return swept

    # rows

    def _change(self, statement: str, values: Sequence[SQLValue] = ()) -> int:
        """Run a statement that writes; how many rows it changed.

        After an error that has undone the transaction, in a handler that went on all the same,
        SQLite would keep each further statement by itself.
        """
        if not self._connection.in_transaction:
            raise StoreError(f"the store {self._database.name}: an error has undone this transaction")
        return self._connection.execute(statement, values).rowcount

    def _count(self, statement: str, values: Sequence[SQLValue] = ()) -> int:
        return int(self._connection.execute(statement, values).fetchone()[0])

    def _write(self, table: Table[R], statement: str, record: R) -> None:
        if table.owned and self.owner and not record.owner:  # type: ignore[attr-defined]
            record = replace(record, owner=self.owner)  # type: ignore[type-var]
        row = table.write(record, self._database.sealer)
        try:
            self._change(statement, row)
        except sqlite3.IntegrityError as error:
            raise StoreError(f"{table.name} can't hold this row beside another one: {error}") from error
        if table.rewritten:
            self._remember(table, row, record)

    def _one(self, table: Table[R], tail: str, values: Sequence[SQLValue]) -> R | None:
        row = self._connection.execute(f"{table.select} {tail}", values).fetchone()
        if row is None:
            return None
        try:
            return self._read(table, row)
        except BrokenRow as error:
            raise self._damaged(table, table.key_of(row), _sequence_of(table, row), error) from error

    def _read(self, table: Table[R], row: Row) -> R:
        """The record of a row; a state that was read or written before isn't opened again.

        The row itself decides, not what this process believes: it must be the same to the bit.
        """
        if not table.rewritten:
            return table.read(row, self._database.sealer)
        known = self._states.get((table.name, table.key_of(row)))
        if known is not None and known[0] == row:
            return typing.cast(R, known[1])
        record = table.read(row, self._database.sealer)
        self._remember(table, row, record)
        return record

    def _remember(self, table: Table[R], row: Row, record: R) -> None:
        if len(self._states) >= _STATES:
            del self._states[next(iter(self._states))]
        self._states[table.name, table.key_of(row)] = (tuple(row), record)

    def _many(self, table: Table[R], tail: str, values: Sequence[SQLValue]) -> list[R]:
        return self._sorted(table, tail, values)[0]

    def _sorted(
        self, table: Table[R], tail: str, values: Sequence[SQLValue]
    ) -> tuple[list[R], list[list[SQLValue]]]:
        """The readable rows, and the keys of the others, which are noted."""
        found, broken = [], []
        for row in self._connection.execute(f"{table.select} {tail}", values).fetchall():
            try:
                found.append(self._read(table, row))
            except BrokenRow as error:
                broken.append([table.column_of(row, name) for name in table.key])
                self._note(table, table.key_of(row), _sequence_of(table, row), error)
        return found, broken

    def _update(self, table: Table[R], key: Sequence[SQLValue], changes: Mapping[str, object]) -> bool:
        row = self._connection.execute(table.select_plain, key).fetchone()
        if row is None:
            return False
        try:
            statement, values = table.update(row, changes, self._database.sealer)
        except BrokenRow as error:
            raise self._damaged(table, table.key_of(row), _sequence_of(table, row), error) from error
        self._change(statement, values)
        return True

    def _update_or_note(
        self, table: Table[R], key: Sequence[SQLValue], changes: Mapping[str, object]
    ) -> bool:
        try:
            return self._update(table, key, changes)
        except StoreDamaged as error:
            self._note(table, " ".join(map(str, key)), error.exchange.sequence, error)
            return False

    def _damaged(self, table: Table[R], key: str, sequence: str | None, error: BrokenRow) -> StoreDamaged:
        text = f"the store {self._database.name}: the row {key} of {table.name} can't be read: {error}"
        return StoreDamaged(text, exchange=Exchange(sequence=sequence))

    def _note(self, table: Table[R], key: str, sequence: str | None, error: Exception) -> None:
        new = self._change(
            "INSERT INTO castile_damage (name, key, sequence, reason, found) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (name, key) DO NOTHING",
            [_clean(table.name), _clean(key), sequence and _clean(sequence), str(error), self._clock().utc],
        )
        if new:
            reliability_log.error("%s: the row %s can't be read: %s", table.name, _clean(key), error)


def _all_of(**wanted: SQLValue) -> tuple[str, list[SQLValue]]:
    """A WHERE over the columns that are asked for; "" for none."""
    asked = {column: value for column, value in wanted.items() if value is not None}
    where = " AND ".join(f"{column} = ?" for column in asked)
    return (f"WHERE {where}" if asked else ""), list(asked.values())


def _none_of(message_ids: Collection[str]) -> str:
    """The end of a WHERE that leaves these rows out; "" for none."""
    return f" AND message_id NOT IN ({', '.join('?' * len(message_ids))})" if message_ids else ""


def _open(where: str, ended: bool) -> str:
    """The same WHERE, without `ended` only what hasn't ended."""
    if ended:
        return where
    return f"{where} AND ended IS NULL" if where else "WHERE ended IS NULL"


def _changes(**wanted: object) -> dict[str, object]:
    return {column: value for column, value in wanted.items() if value is not UNCHANGED}


def _sequence_of(table: Table[R], row: Row) -> str | None:
    column = _SEQUENCE.get(table.name)
    value = None if column is None else table.column_of(row, column)
    return None if value is None else str(value)


def _clean(text: str) -> str:
    """A text that may be damaged, so that it can be stored and shown."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
