"""One declaration per table, from which follow its statements and how a row is sealed and read.

Every row has

- *plain* columns: the record's fields that need no protection, and columns derived from its
  state for queries;
- *sealed* columns, whose associated data are the table, the column and all immutable plain
  columns: a sealed value opens in its own row only;
- `checksum`, keyed, over all plain columns and over which sealed ones are empty: a flipped bit
  of an attempt counter is found like one of a body;
- perhaps `owner`, outside the checksum: it changes for many rows in one statement when a process
  takes over from a dead one, and a wrong one only makes another process do the same work.
"""

# ruff: noqa: S608 - what is put into statements are names of this package only

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar, Union

from castile.store import codec
from castile.store.records import (
    ContextRecord,
    DestinationRecord,
    InboxRow,
    OutboxRow,
    ReplyRow,
    SourceRecord,
)
from castile.store.seal import BrokenSeal, Ring

R = TypeVar("R")
SQLValue = int | float | str | bytes | None
Row = Sequence[SQLValue]
_json: Final = json.JSONEncoder(separators=(",", ":"), default=bytes.hex).encode


class Owned(typing.Protocol):
    """A record that belongs to a process."""

    @property
    def owner(self) -> int: ...


class BrokenRow(Exception):
    """A row that can't be read; the text says why, without its content."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Sealed:
    name: str
    pack: Callable[[object], bytes]
    unpack: Callable[[bytes], object]


class Table(Generic[R]):
    """How records of one class are rows of one table.

    `key`: the columns that find a row. `sealed`: fields in sealed columns. `mutable`: fields
    that change after the row was written, sealed ones among them; all others are fixed, unless
    the whole row is written anew each time. `derived`: columns made from the record, for
    queries; `hidden`: like them, but through `Ring.lookup`.
    """

    def __init__(
        self,
        name: str,
        record: type[R],
        *,
        key: tuple[str, ...],
        sealed: tuple[str, ...],
        mutable: tuple[str, ...] = (),
        derived: Mapping[str, Callable[[R], SQLValue]] | None = None,
        hidden: Mapping[str, Callable[[R], str | None]] | None = None,
    ) -> None:
        self.name = name
        self.record = record
        self.key = key
        hints = typing.get_type_hints(record)
        fields = [field.name for field in dataclasses.fields(record)]  # type: ignore[arg-type]
        self.owned = "owner" in fields
        """Whether rows belong to a process."""
        fields = [field for field in fields if field != "owner"]
        self._sealed = tuple(_sealed(field, hints[field]) for field in fields if field in sealed)
        self.sealed = tuple(column.name for column in self._sealed)
        fixed = [field for field in fields if field not in sealed and field not in mutable]
        changing = [field for field in fields if field not in sealed and field in mutable]
        self._fields = (*fixed, *changing)
        self._derived = tuple((derived or {}).values())
        self._hidden = tuple((hidden or {}).values())
        self._values = codec.attributes(self._fields)
        self._extra = len(self._derived) + len(self._hidden)
        self._fixed = len(fixed) + self._extra
        self.rewritten = not mutable
        """Whether a row is always written whole."""
        self.plain = (*(derived or ()), *(hidden or ()), *fixed, *changing)
        self._prefix = {column.name: f"{name}.{column.name}\0".encode() for column in self._sealed}
        kinds = [_kind(hints[field]) for field in self._fields]
        self._floats = tuple(i for i, kind in enumerate(kinds, self._extra) if kind is float)
        self._bools = tuple(i for i, kind in enumerate(kinds) if kind is bool)
        owner = ("owner",) if self.owned else ()
        self.columns = (*self.plain, *(column.name for column in self._sealed), *owner, "checksum")
        self._statements()

    def _statements(self) -> None:
        names, key = ", ".join(self.columns), ", ".join(self.key)
        marks = ", ".join("?" * len(self.columns))
        changes = ", ".join(
            f"{column} = excluded.{column}" for column in self.columns if column not in self.key
        )
        self._key_places = [self.plain.index(name) for name in self.key]
        self.found = " AND ".join(f"{column} = ?" for column in self.key)
        self.select = f"SELECT {names} FROM {self.name}"
        self.insert = f"INSERT INTO {self.name} ({names}) VALUES ({marks})"
        self.upsert = f"{self.insert} ON CONFLICT ({key}) DO UPDATE SET {changes}"
        self.delete = f"DELETE FROM {self.name} WHERE {self.found}"
        empties = ", ".join(f"{column.name} IS NULL" for column in self._sealed)
        self.select_plain = (
            f"SELECT {', '.join(self.plain)}, {empties}, checksum FROM {self.name} WHERE {self.found}"
        )
        foreign = " OR ".join(f"substr({name}, 1, 5) <> ?" for name in self.sealed)
        self.select_foreign = (
            f"SELECT rowid, {names} FROM {self.name} WHERE rowid > ? AND ({foreign}) ORDER BY rowid LIMIT ?"
        )
        """Rows with anything in them that isn't sealed by one key, given its head for each column."""
        self._updates: dict[tuple[str, ...], str] = {}

    def write(self, record: R, sealer: Ring) -> list[SQLValue]:
        """The row of a record, in the order of `columns`."""
        values: list[SQLValue] = [column(record) for column in self._derived]
        for hidden in self._hidden:
            text = hidden(record)
            values.append(None if text is None else sealer.lookup(text))
        values += typing.cast("tuple[SQLValue, ...]", self._values(record))
        self._normalise(values)
        identity = self._identity(values)
        sealed: list[SQLValue] = []
        for column in self._sealed:
            value = getattr(record, column.name)
            sealed.append(
                None
                if value is None
                else sealer.seal(column.pack(value), self._prefix[column.name] + identity)
            )
        checksum = sealer.checksum(self._summed(identity, values, [value is None for value in sealed]))
        if self.owned:
            sealed.append(typing.cast("Owned", record).owner)
        return [*values, *sealed, checksum]

    def read(self, row: Row, sealer: Ring) -> R:
        """The record of a row.

        BrokenRow: a seal or the checksum is broken, or a value doesn't fit.
        """
        width = len(self.plain)
        plain, sealed, checksum = row[:width], row[width : width + len(self._sealed)], row[-1]
        try:
            identity = self._identity(plain)
            if not isinstance(checksum, bytes):
                raise BrokenSeal("its checksum is missing")
            sealer.verify(self._summed(identity, plain, [value is None for value in sealed]), checksum)
            values: dict[str, object] = dict(zip(self._fields, plain[self._extra :], strict=True))
            for position in self._bools:
                values[self._fields[position]] = bool(values[self._fields[position]])
            for column, value in zip(self._sealed, sealed, strict=True):
                if value is None:
                    values[column.name] = None
                elif isinstance(value, bytes):
                    opened = sealer.open(value, self._prefix[column.name] + identity)
                    values[column.name] = column.unpack(opened)
                else:
                    raise BrokenSeal(f"{column.name} is no sealed value")
            if self.owned:
                values["owner"] = row[-2]
            return self.record(**values)
        except (BrokenSeal, codec.CodecError, ValueError, TypeError) as error:
            raise BrokenRow(str(error)) from error

    def update(self, row: Row, changes: Mapping[str, object], sealer: Ring) -> tuple[str, list[SQLValue]]:
        """The statement that changes mutable columns of the row that `select_plain` found, and
        its values.

        BrokenRow: the row's checksum is broken.
        """
        width = len(self.plain)
        plain, empty = list(row[:width]), [bool(value) for value in row[width:-1]]
        identity = self._identity(plain)
        checksum = row[-1]
        try:
            if not isinstance(checksum, bytes):
                raise BrokenSeal("its checksum is missing")
            sealer.verify(self._summed(identity, plain, empty), checksum)
        except BrokenSeal as error:
            raise BrokenRow(str(error)) from error
        names, values = [], []
        for position, name in enumerate(self.plain):
            if name in changes:
                plain[position] = typing.cast(SQLValue, changes[name])
                names.append(name)
        self._normalise(plain)
        values = [plain[self.plain.index(name)] for name in names]
        for position, column in enumerate(self._sealed):
            if column.name in changes:
                value = changes[column.name]
                empty[position] = value is None
                names.append(column.name)
                values.append(
                    None
                    if value is None
                    else sealer.seal(column.pack(value), self._prefix[column.name] + identity)
                )
        statement = self._update_of(tuple(names))
        found = [plain[place] for place in self._key_places]
        return statement, [*values, sealer.checksum(self._summed(identity, plain, empty)), *found]

    def key_of(self, row: Row) -> str:
        """The row's key as a text for people."""
        return " ".join(str(row[place]) for place in self._key_places)

    def column_of(self, row: Row, name: str) -> SQLValue:
        """A plain column of a row, whether or not the row can be read."""
        return row[self.plain.index(name)]

    def _update_of(self, names: tuple[str, ...]) -> str:
        statement = self._updates.get(names)
        if statement is None:
            sets = "".join(f"{name} = ?, " for name in names)
            statement = f"UPDATE {self.name} SET {sets}checksum = ? WHERE {self.found}"
            self._updates[names] = statement
        return statement

    def _normalise(self, values: list[SQLValue]) -> None:
        """What SQLite gives back: an int in a REAL column is a float, a bool an int."""
        for position in self._floats:
            value = values[position]
            if value is not None:
                values[position] = float(value)
        for position in self._bools:
            values[position + self._extra] = int(typing.cast(bool, values[position + self._extra]))

    def _identity(self, plain: Sequence[SQLValue]) -> bytes:
        return _json(plain[: self._fixed]).encode("ascii")

    def _summed(self, identity: bytes, plain: Sequence[SQLValue], empty: list[bool]) -> bytes:
        rest = _json([*plain[self._fixed :], *empty])
        return self.name.encode("ascii") + identity + rest.encode("ascii")


def _kind(hint: object) -> object:
    """The type of a column: of ``float | None`` it is float."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        others = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        return others[0] if len(others) == 1 else object
    return hint


def _sealed(name: str, hint: object) -> _Sealed:
    kind = _kind(hint)
    if kind is bytes:
        return _Sealed(name, lambda value: typing.cast(bytes, value), lambda sealed: sealed)
    if kind is str:
        return _Sealed(name, lambda value: typing.cast(str, value).encode("utf-8"), _text)
    declared = hint if kind is object else kind
    return _Sealed(
        name,
        lambda value: codec.encode(value, declared),
        lambda text: codec.decode(declared, text),
    )


def _text(sealed: bytes) -> str:
    return sealed.decode("utf-8")


def call_key(endpoint: str, key: str) -> str:
    """What stands for a caller's own key of a call, which is unique per endpoint."""
    return f"{endpoint}\n{key}"


CONTEXTS: Final = Table(
    "castile_contexts",
    ContextRecord,
    key=("side", "endpoint", "identifier"),
    sealed=("state",),
    derived={"identifier": lambda record: record.state.identifier},
)
SOURCES: Final = Table(
    "castile_sources",
    SourceRecord,
    key=("key",),
    sealed=("state", "create_body"),
    derived={
        "key": lambda record: record.state.key,
        "identifier": lambda record: record.state.identifier,
    },
)
DESTINATIONS: Final = Table(
    "castile_destinations",
    DestinationRecord,
    key=("identifier",),
    sealed=("state",),
    derived={
        "identifier": lambda record: record.state.identifier,
        "offered": lambda record: record.state.offered,
    },
)
OUTBOX: Final = Table(
    "castile_outbox",
    OutboxRow,
    key=("message_id",),
    sealed=("body", "key", "signatures", "last_error"),
    mutable=("due", "attempts", "tried", "acknowledged", "signatures", "last_error"),
    hidden={"call": lambda row: None if row.key is None else call_key(row.endpoint, row.key)},
)
INBOX: Final = Table(
    "castile_inbox",
    InboxRow,
    key=("sequence", "number"),
    sealed=("body", "digest", "last_error"),
    mutable=("status", "attempts", "due", "reply_message_id", "body", "last_error"),
)
REPLIES: Final = Table(
    "castile_replies",
    ReplyRow,
    key=("message_id",),
    sealed=("body", "request_digest", "key"),
    mutable=("consumed",),
    hidden={"call": lambda row: None if row.key is None else call_key(row.endpoint, row.key)},
)
TABLES: Final[tuple[Table[typing.Any], ...]] = (CONTEXTS, SOURCES, DESTINATIONS, OUTBOX, INBOX, REPLIES)
