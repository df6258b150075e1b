"""A process that is made to be killed: submits from several threads, and says what was committed.

Each line on its standard output is written only once the future of that step has resolved.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

from castile import store
from castile.protocol.ranges import RangeSet
from castile.store import Store, Transaction

from .samples import KEY, destination, inbox, outbox, source

THREADS = 4
EFFECTS = "CREATE TABLE IF NOT EXISTS effects (number INTEGER PRIMARY KEY)"


def submit(tx: Transaction) -> str:
    """One message out: the sequence's state and the row, together."""
    record = tx.source("k1") or source()
    number = record.state.next_number
    tx.save_source(replace(record, state=replace(record.state, next_number=number + 1)))
    tx.enqueue(outbox(number, body=b"<m/>" * (number % 500)))
    return f"sent {number}"


def accept(tx: Transaction) -> str:
    """One message in."""
    record = tx.destination("urn:d:1") or replace(
        destination(), state=replace(destination().state, received=RangeSet())
    )
    number = record.state.received.upper + 1
    received = record.state.received.add(number)
    tx.save_destination(replace(record, state=replace(record.state, received=received)))
    tx.accept(inbox(number))
    return f"accepted {number}"


def handle(tx: Transaction) -> str:
    """A transactional handler: its effect and the mark, together."""
    ready = tx.inbox(status="ready", limit=1)
    if not ready:
        return "idle 0"
    row = ready[0]
    tx.connection.execute(EFFECTS)
    tx.connection.execute("INSERT INTO effects VALUES (?)", (row.number,))
    tx.update_inbox(row.sequence, row.number, status="done")
    return f"handled {row.number}"


def work(opened: Store, turn: int) -> None:
    while True:
        step = (submit, accept, handle, submit)[turn % THREADS]
        said = opened.run(step, exclusive=step is handle).result()
        os.write(1, (said + "\n").encode())


def main() -> None:
    opened = store.open(Path(sys.argv[1]), seal=KEY)
    for turn in range(THREADS):
        threading.Thread(target=work, args=(opened, turn), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
