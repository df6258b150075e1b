"""From one sealing key to another: every row sealed anew, a few in each transaction (ST-21).

First the new key seals whatever is written, then the rows that are left are written anew, and
then the old key is retired. Whoever stops in between leaves a store that opens with both keys,
and that the next run finishes.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from castile import store as stores
from castile.errors import StoreBusy, UsageError
from castile.store.records import Resealing
from castile.store.seal import ENVIRONMENT, KEY_BYTES, key_file, load_keys, write_keys
from castile.store.tables import TABLES, BrokenRow, R, Table

if TYPE_CHECKING:
    import sqlite3

    from castile.store import Seal
    from castile.store.database import Database

ROWS: Final = 200
"""In one transaction: others wait for it some ten milliseconds."""
_POLL: Final = 0.1


@dataclass(frozen=True, slots=True)
class Resealed:
    """What was done."""

    key: str
    """The id of the key that seals now, alone."""
    rows: int
    unreadable: int
    """Rows that stay as they are: they could not be read before, either."""


def reseal(path: Path, seal: Seal, *, seconds: float) -> Resealed:
    """Seal all of a store with the first key of `seal`; processes may have it open meanwhile.

    Where castile made the key, in the file beside the store, it makes a new one.

    UsageError: there is no new key. StoreBusy: a process that has the store open doesn't know the
    new key within `seconds`. Else as `castile.store.open`.
    """
    own = seal is None and not os.environ.get(ENVIRONMENT)
    if own:
        keys = load_keys(None, path, new=False)
        if len(keys) == 1:
            write_keys(key_file(path), os.urandom(KEY_BYTES), *keys)
    store = stores.open(path, seal=seal)
    try:
        before = store.run(lambda tx: tx.reseal(None, ROWS)).result()
        deadline = time.monotonic() + seconds
        while not before.done:
            if before.waits_for:
                if time.monotonic() > deadline:
                    pids = ", ".join(map(str, before.waits_for))
                    raise StoreBusy(
                        f"processes {pids} have the store {path} open without the new sealing key: restart "
                        "them with both keys, the new one first, and then ask again. Nothing was changed"
                    )
                time.sleep(_POLL)
            before = store.run(lambda tx: tx.reseal(before, ROWS)).result()  # noqa: B023 - it runs here
    finally:
        store.close()
    if own:
        write_keys(key_file(path), load_keys(None, path, new=False)[0])
    return Resealed(before.key, before.rows, before.unreadable)


def step(
    database: Database, connection: sqlite3.Connection, before: Resealing | None, limit: int
) -> Resealing:
    """Go on a little: up to `limit` rows."""
    keyring, sealer = database.keyring, database.sealer
    if before is None or before.waits_for or before.key != sealer.id:
        if wanted := keyring.wanted():
            waits_for = database.turn()
            if waits_for:
                keyring.announce(connection)
            database.forget_keys()
            return Resealing(key=wanted, waits_for=tuple(waits_for))
        if not keyring.older:
            raise UsageError(
                f"the store {database.name} is sealed with this key ({sealer.id}) alone: give a new one, "
                "with the old one behind it"
            )
        before = Resealing(key=sealer.id)
    if before.table == len(TABLES):
        keyring.retire(connection)
        database.forget_keys()
        return replace(before, done=True)
    return _rewrite(database, connection, TABLES[before.table], before, limit)


def _rewrite(
    database: Database, connection: sqlite3.Connection, table: Table[R], before: Resealing, limit: int
) -> Resealing:
    sealer, broken = database.sealer, 0
    heads = [sealer.head] * len(table.sealed)
    rows = connection.execute(table.select_foreign, [before.row, *heads, limit]).fetchall()
    for _, *row in rows:
        try:
            record = table.read(row, sealer)
        except BrokenRow:
            broken += 1
        else:
            connection.execute(table.upsert, table.write(record, sealer))
    table_done = len(rows) < limit
    return replace(
        before,
        table=before.table + table_done,
        row=0 if table_done else rows[-1][0],
        rows=before.rows + len(rows) - broken,
        unreadable=before.unreadable + broken,
    )
