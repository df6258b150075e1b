"""What there is to tell of a sequence: one report for programs, the command line and people."""

from __future__ import annotations

from castile.clock import iso
from castile.protocol.destination import Destination
from castile.protocol.source import Source
from castile.store import Transaction
from castile.store.records import DestinationRecord, InboxRow, OutboxRow, SourceRecord
from castile.versions import WSRM


def report(tx: Transaction, record: SourceRecord | DestinationRecord) -> dict[str, object]:
    """The report of a sequence, ready for JSON (RM-132).

    `numbers` are ranges, both ends included; times are ISO 8601, in UTC; `next_attempt` is null
    where nothing is due; `depth` counts messages that aren't done with.
    """
    if isinstance(record, SourceRecord):
        return _source(record, tx.outbox(record.state.key))
    return _destination(record, tx.inbox(sequence=record.state.identifier))


def _source(record: SourceRecord, rows: list[OutboxRow]) -> dict[str, object]:
    state = record.state
    failed = max((row for row in rows if row.last_error), key=lambda row: row.tried or 0.0, default=None)
    due = min((row.due for row in rows if row.due is not None), default=None)
    return {
        "direction": "out",
        **_common(record, state),
        "highest": state.highest,
        "acknowledged": [list(each) for each in state.acknowledged.ranges],
        "missing": [list(each) for each in state.unacknowledged],
        "depth": len(rows),
        "last_error": failed.last_error if failed is not None else None,
        "last_error_at": _moment(failed.tried) if failed is not None else None,
        "next_attempt": None if state.ended else _moment(due),
    }


def _destination(record: DestinationRecord, rows: list[InboxRow]) -> dict[str, object]:
    state = record.state
    highest = state.received.ranges[-1][1] if state.received else 0
    failed = next((row for row in rows if row.last_error), None)
    due = min((row.due for row in rows if row.due is not None), default=None)
    return {
        "direction": "in",
        **_common(record, state),
        "highest": highest,
        "acknowledged": [list(each) for each in state.received.ranges],
        "missing": [list(each) for each in state.received.gaps(max(highest, state.last or 0))],
        "depth": len(rows),
        "parked": [row.number for row in rows if row.status == "parked"],
        "last_error": failed.last_error if failed is not None else None,
        "next_attempt": _moment(due),
    }


def _common(
    record: SourceRecord | DestinationRecord, state: Source | Destination
) -> dict[str, object]:
    edition = WSRM.get(state.edition)
    return {
        "side": record.side,
        "state": state.phase.value,
        "reason": state.reason,
        "identifier": state.identifier,
        "peer": record.endpoint,
        "edition": edition.name if edition is not None else state.edition,
        "secure": state.context is not None,
        "context": state.context,
        "created": _moment(record.created),
        "ended": _moment(record.ended),
    }


def _moment(utc: float | None) -> str | None:
    return None if utc is None else iso(utc)
