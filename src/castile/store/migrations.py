"""The schema, as numbered steps forward, each in one transaction (features ST-10).

A step that was released is never changed: a change is a new step. The number of the last one is
SQLite's `user_version`; `application_id` says that the file is a castile store at all.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from castile.errors import StoreInvalid, StoreTooNew

APPLICATION_ID: Final = int.from_bytes(b"cstl", "big")

_FIRST: Final = (
    """CREATE TABLE castile_meta (
        name TEXT NOT NULL PRIMARY KEY,
        value BLOB NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE castile_contexts (
        side TEXT NOT NULL, endpoint TEXT NOT NULL, identifier TEXT NOT NULL,
        principal TEXT, expires REAL, ended REAL,
        state BLOB NOT NULL, checksum BLOB NOT NULL,
        PRIMARY KEY (side, endpoint, identifier)
    )""",
    "CREATE INDEX castile_contexts_identifier ON castile_contexts (identifier)",
    """CREATE INDEX castile_contexts_alive ON castile_contexts (side, principal)
        WHERE ended IS NULL""",
    "CREATE INDEX castile_contexts_ended ON castile_contexts (ended) WHERE ended IS NOT NULL",
    """CREATE INDEX castile_contexts_expires ON castile_contexts (expires)
        WHERE expires IS NOT NULL AND ended IS NULL""",
    """CREATE TABLE castile_sources (
        key TEXT NOT NULL PRIMARY KEY, identifier TEXT,
        side TEXT NOT NULL, endpoint TEXT NOT NULL, name TEXT NOT NULL,
        created REAL NOT NULL, destination TEXT, ended REAL,
        state BLOB NOT NULL, create_body BLOB, checksum BLOB NOT NULL
    )""",
    """CREATE UNIQUE INDEX castile_sources_identifier ON castile_sources (identifier, side, endpoint)
        WHERE identifier IS NOT NULL""",
    """CREATE INDEX castile_sources_unfinished ON castile_sources (side, endpoint)
        WHERE ended IS NULL""",
    "CREATE INDEX castile_sources_ended ON castile_sources (ended) WHERE ended IS NOT NULL",
    """CREATE TABLE castile_destinations (
        identifier TEXT NOT NULL PRIMARY KEY, offered TEXT,
        side TEXT NOT NULL, endpoint TEXT NOT NULL, principal TEXT,
        created REAL NOT NULL, create_message_id TEXT, source TEXT, ended REAL,
        state BLOB NOT NULL, checksum BLOB NOT NULL
    )""",
    """CREATE INDEX castile_destinations_create ON castile_destinations (create_message_id)
        WHERE create_message_id IS NOT NULL""",
    """CREATE INDEX castile_destinations_offered ON castile_destinations (offered)
        WHERE offered IS NOT NULL""",
    """CREATE INDEX castile_destinations_unfinished
        ON castile_destinations (side, principal, endpoint) WHERE ended IS NULL""",
    """CREATE INDEX castile_destinations_ended ON castile_destinations (ended)
        WHERE ended IS NOT NULL""",
    """CREATE TABLE castile_outbox (
        message_id TEXT NOT NULL PRIMARY KEY, sequence_key TEXT, number INTEGER,
        kind TEXT NOT NULL, side TEXT NOT NULL, endpoint TEXT NOT NULL, action TEXT NOT NULL,
        submitted REAL NOT NULL, relates_to TEXT, two_way INTEGER NOT NULL,
        answers_sequence TEXT, answers_number INTEGER, fault INTEGER NOT NULL, call BLOB,
        due REAL, attempts INTEGER NOT NULL, tried REAL, acknowledged INTEGER NOT NULL,
        body BLOB NOT NULL, key BLOB, signatures BLOB, last_error BLOB, checksum BLOB NOT NULL
    )""",
    """CREATE INDEX castile_outbox_sequence ON castile_outbox (sequence_key, number)
        WHERE sequence_key IS NOT NULL""",
    """CREATE INDEX castile_outbox_due ON castile_outbox (side, endpoint, due)
        WHERE due IS NOT NULL""",
    """CREATE INDEX castile_outbox_answers ON castile_outbox (answers_sequence, answers_number)
        WHERE answers_sequence IS NOT NULL""",
    "CREATE UNIQUE INDEX castile_outbox_call ON castile_outbox (call) WHERE call IS NOT NULL",
    """CREATE TABLE castile_inbox (
        sequence TEXT NOT NULL, number INTEGER NOT NULL,
        side TEXT NOT NULL, endpoint TEXT NOT NULL, action TEXT NOT NULL,
        received REAL NOT NULL, message_id TEXT, relates_to TEXT, two_way INTEGER NOT NULL,
        principal TEXT, status TEXT NOT NULL, attempts INTEGER NOT NULL, due REAL,
        reply_message_id TEXT,
        body BLOB NOT NULL, digest BLOB, last_error BLOB, checksum BLOB NOT NULL,
        PRIMARY KEY (sequence, number)
    )""",
    """CREATE INDEX castile_inbox_open ON castile_inbox (sequence, number)
        WHERE status <> 'done'""",
    """CREATE TABLE castile_replies (
        message_id TEXT NOT NULL PRIMARY KEY, endpoint TEXT NOT NULL, action TEXT NOT NULL,
        received REAL NOT NULL, fault INTEGER NOT NULL, request_action TEXT, call BLOB,
        consumed REAL,
        body BLOB NOT NULL, request_digest BLOB, key BLOB, checksum BLOB NOT NULL
    )""",
    """CREATE INDEX castile_replies_unconsumed ON castile_replies (endpoint)
        WHERE consumed IS NULL""",
    """CREATE INDEX castile_replies_consumed ON castile_replies (consumed)
        WHERE consumed IS NOT NULL AND call IS NULL""",
    """CREATE INDEX castile_replies_keyed ON castile_replies (consumed)
        WHERE consumed IS NOT NULL AND call IS NOT NULL""",
    "CREATE UNIQUE INDEX castile_replies_call ON castile_replies (call) WHERE call IS NOT NULL",
    """CREATE TABLE castile_replays (
        evidence BLOB NOT NULL PRIMARY KEY, expires REAL NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX castile_replays_expires ON castile_replays (expires)",
    """CREATE TABLE castile_damage (
        name TEXT NOT NULL, key TEXT NOT NULL, sequence TEXT, reason TEXT NOT NULL,
        found REAL NOT NULL, PRIMARY KEY (name, key)
    ) WITHOUT ROWID""",
)

_PROCESSES: Final = (
    """CREATE TABLE castile_owners (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        pid INTEGER NOT NULL, host TEXT NOT NULL, since REAL NOT NULL,
        commits INTEGER NOT NULL, ended REAL
    )""",
    "CREATE INDEX castile_owners_open ON castile_owners (id) WHERE ended IS NULL",
    """CREATE TABLE castile_commands (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        verb TEXT NOT NULL, kind TEXT NOT NULL, target TEXT NOT NULL,
        side TEXT NOT NULL, endpoint TEXT NOT NULL, force INTEGER NOT NULL,
        asked REAL NOT NULL, asked_by TEXT NOT NULL, done REAL, refused INTEGER, result TEXT
    )""",
    """CREATE INDEX castile_commands_open ON castile_commands (side, endpoint, id)
        WHERE done IS NULL""",
    "CREATE INDEX castile_commands_done ON castile_commands (done) WHERE done IS NOT NULL",
    "ALTER TABLE castile_contexts ADD COLUMN owner INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE castile_sources ADD COLUMN owner INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE castile_destinations ADD COLUMN owner INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE castile_outbox ADD COLUMN owner INTEGER NOT NULL DEFAULT 0",
    "DROP INDEX castile_outbox_due",
    """CREATE INDEX castile_outbox_due ON castile_outbox (side, endpoint, owner, due)
        WHERE due IS NOT NULL""",
)

_KEYS: Final = (
    "ALTER TABLE castile_owners ADD COLUMN durability TEXT NOT NULL DEFAULT 'full'",
    "ALTER TABLE castile_owners ADD COLUMN keys TEXT NOT NULL DEFAULT ''",
)

MIGRATIONS: Final = (_FIRST, _PROCESSES, _KEYS)
VERSION: Final = len(MIGRATIONS)


def version_of(connection: sqlite3.Connection, name: str) -> int:
    """The schema's version; 0 for an empty file.

    StoreInvalid: it is a database of something else. StoreTooNew: of a newer castile.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION_ID:
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if application or version or tables:
            raise StoreInvalid(f"{name} is a SQLite database, but no castile store: name another file")
        return 0
    if version > VERSION:
        raise StoreTooNew(
            f"{name} has schema {version}, and this castile knows schemas up to {VERSION}: "
            "it was written by a newer castile, which is needed to open it"
        )
    return version


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the schema up to date, one transaction a step."""
    for number, statements in enumerate(MIGRATIONS[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
