"""A store that was rolled back: an older copy of it was put in its place (features N10).

What was sent, received and done since the copy was made isn't known here any more. Going on would
number other messages alike, and run handlers again without a word. So everything that was under
way is in doubt, and says so: to the caller by `InDoubt`, to a peer by SequenceTerminated and
BadContextToken. Nothing of it is deleted.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from castile.clock import Now
from castile.protocol import destination, source
from castile.store import Transaction

REASON: Final = "the store was rolled back to an older copy"

reliability_log = logging.getLogger("castile.reliability")


def put_in_doubt(tx: Transaction, now: Now, where: str, lost: str) -> None:
    """End what is unfinished in a store that was rolled back, in this transaction."""
    reliability_log.error("the store %s: %s. Lost are the commits of %s", where, REASON, lost)
    for sent in tx.sources(unfinished=True):
        reason = f"{REASON}: what became of messages after number {sent.state.highest} isn't known"
        after, _ = source.step(sent.state, source.GiveUp(reason), now)
        tx.save_source(replace(sent, state=after, ended=now.utc))
        for row in tx.outbox(sent.state.key):
            tx.update_outbox(row.message_id, due=None)
        reliability_log.error(
            "in doubt: %s of %s, its messages %s and any after %s",
            sent.state.identifier or "a sequence without a name",
            sent.endpoint,
            list(after.missing.numbers()),
            sent.state.highest,
        )
    for got in tx.destinations(unfinished=True):
        ended, _ = destination.step(got.state, destination.Ended(REASON), now)
        tx.save_destination(replace(got, state=ended, ended=now.utc))
        reliability_log.error("in doubt: %s at %s", got.state.identifier, got.endpoint)
    for taken in tx.inbox():
        if taken.status != "parked":  # whether its handler has run since isn't known
            tx.update_inbox(taken.sequence, taken.number, status="parked", last_error=REASON)
            reliability_log.error("in doubt: message %s of %s is parked", taken.number, taken.sequence)
    for context in tx.contexts():
        tx.save_context(replace(context, ended=now.utc))
