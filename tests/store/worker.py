"""A process among several on one store: numbers messages in one shared sequence, and says which.

Each line on its standard output is written only once the future of that step has resolved.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from castile import store
from castile.errors import StoreBusy
from castile.store import Transaction

from .samples import KEY, outbox, source


def submit(tx: Transaction) -> int:
    """One message: the sequence's state and the row, together."""
    record = tx.source("k1") or source()
    number = record.state.next_number
    tx.save_source(replace(record, state=replace(record.state, next_number=number + 1)))
    tx.enqueue(outbox(number, body=b"<m/>" * (number % 500)))
    return number


def main() -> None:
    opened = store.open(Path(sys.argv[1]), seal=KEY)
    limit = int(sys.argv[2])
    while limit:
        try:
            said = f"sent {opened.run(submit).result()}\n"
            limit -= 1
        except StoreBusy as error:
            said = f"busy {error}\n"
        os.write(1, said.encode())
    opened.close()


if __name__ == "__main__":
    main()
