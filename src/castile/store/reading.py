"""Looking into a store that another process may have open: nothing is written, nothing is locked.

The write-ahead log lets a reader see the last commit while its owner goes on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from castile.clock import system
from castile.config import Settings
from castile.errors import StoreInvalid
from castile.store import migrations
from castile.store.database import BUSY_SECONDS, Database, SQLiteErrors, translated
from castile.store.keyring import Keyring
from castile.store.sqlite import SQLiteTransaction

if TYPE_CHECKING:
    from castile.store import Seal, Transaction

T = TypeVar("T")


def read(path: Path, seal: Seal, step: Callable[[Transaction], T]) -> T:
    """What `step` finds in the store at `path`, as of one moment. It may not write.

    StoreInvalid: it is no store, its key is another one, or an older castile wrote it.
    StoreTooNew, StoreBusy, StoreDamaged, StoreError: as `castile.store.open`.
    """
    database = Reading(path, seal)
    try:
        database.connection.execute("BEGIN")
        return step(SQLiteTransaction(database, system))
    except SQLiteErrors as error:
        raise translated(error, database.name) from error
    finally:
        database.connection.close()  # the log is its owner's to copy back


class Reading(Database):
    """A connection that can't write, and the sealer of its store."""

    def __init__(self, path: Path, seal: Seal) -> None:
        self.path, self.name, self.settings = path, str(path), Settings()
        # Without a log nobody has it open, and SQLite needn't make one to read.
        alone = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
        uri = f"{path.absolute().as_uri()}?mode=ro{alone}"
        try:
            self.connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        except sqlite3.Error as error:
            raise translated(error, self.name) from error
        try:
            self._prepare()
            self.keyring = Keyring(seal, path, self.name, new=False)
            # What an older key sealed, and that isn't at hand, is unreadable, and all else isn't.
            self.sealer = self.keyring.ring(self.connection, lenient=True)
        except SQLiteErrors as error:
            self.connection.close()
            raise translated(error, self.name) from error
        except BaseException:
            self.connection.close()
            raise

    def _prepare(self) -> None:
        connection = self.connection
        version = migrations.version_of(connection, self.name)
        if version < migrations.VERSION:
            raise StoreInvalid(
                f"{self.name} has schema {version or 'none'}, and reading it takes schema "
                f"{migrations.VERSION}: a program that opens the store brings it up to date"
            )
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        # Hides the store's own table: a row that is found damaged is noted here, and goes with the
        # connection.
        connection.execute(
            "CREATE TEMP TABLE castile_damage (name, key, sequence, reason, found, PRIMARY KEY (name, key))"
        )
