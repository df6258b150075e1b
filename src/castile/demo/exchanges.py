"""Whether a kill fell inside an exchange: from the commit of a submission to that of its reply.

Told from both stores just after the kill: copies of them are opened, as the dead process left
its own, and the living one's as it was at that moment.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from castile import store as stores
from castile.demo.plan import Files
from castile.store import Transaction
from castile.store.mark import mark_file
from castile.store.seal import key_file

T = TypeVar("T")


def open_exchanges(files: Files, killed: float) -> int:
    """How many messages were submitted and not yet answered at `killed`, seconds of UTC."""
    with tempfile.TemporaryDirectory(dir=files.root) as folder:
        client = _copy(files.client_store, Path(folder))
        service = _copy(files.service_store, Path(folder))
        if client is None:
            return 0
        submitted = _read(client, lambda tx: _submitted(tx, killed))
        if service is None or not submitted:
            return len(submitted)
        return len(submitted) - _read(service, lambda tx: _answered(tx, submitted, killed))


def contexts(files: Files) -> int:
    """How many security contexts the client established, all its processes together."""
    with tempfile.TemporaryDirectory(dir=files.root) as folder:
        client = _copy(files.client_store, Path(folder))
        if client is None:
            return 0
        return _read(client, lambda tx: len(tx.contexts(side="client", ended=True)))


def _submitted(tx: Transaction, killed: float) -> list[tuple[str | None, int]]:
    """Sequence and number of each call that was in the client's outbox."""
    return [
        (record.state.identifier, row.number or 0)
        for record in tx.sources(side="client")
        for row in tx.outbox(record.state.key)
        if row.kind == "application" and row.submitted <= killed
    ]


def _answered(tx: Transaction, submitted: list[tuple[str | None, int]], killed: float) -> int:
    """How many of them had a reply in the service's store."""
    replies = [tx.reply_to(sequence, number) for sequence, number in submitted if sequence]
    return sum(reply is not None and reply.submitted <= killed for reply in replies)


def _read(path: Path, step: Callable[[Transaction], T]) -> T:
    store = stores.open(path)
    try:
        return store.run(step).result()
    finally:
        store.close()


def _copy(path: Path, folder: Path) -> Path | None:
    """A consistent copy, also of a store that another process writes; None if there is none yet."""
    key = key_file(path)
    if not path.exists() or not key.exists():
        return None
    copy = folder / path.name
    with suppress(FileNotFoundError):  # before the store, that it doesn't lead
        shutil.copy(mark_file(path), mark_file(copy))
    with (
        closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5.0)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    shutil.copy(key, key_file(copy))
    return copy
