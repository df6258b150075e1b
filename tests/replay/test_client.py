"""What Microsoft's and Apache's services answered, into a castile client (features SV-25, F35)."""

from __future__ import annotations

from pathlib import Path

import pytest

import castile
from castile.errors import SOAPFault
from castile.security import outgoing
from tests.replay.caller import Caller
from tests.replay.recording import Recording, folders, load
from tests.replay.table import expected, known, surprising

FOLDERS = [folder for folder in folders() if not folder.name.startswith("raw-")]
"""The raw requests were made by hand: there is no client to stand in for."""


@pytest.mark.row("F35", "F02", "F03", "CO-01", "CO-13", "CO-14", "SC-01", "SC-04", "RM-05")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_captured_responses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client makes the recorded requests in the recorded order, takes every answer, and holds
    the recorded keys; a fault is told as it came."""
    recording = load(folder)
    caller = Caller(recording)
    monkeypatch.setattr(outgoing, "Protected", caller.kept)  # see tests/replay/caller.py
    caller.play()
    print(f"\n{recording.name}: {caller.policy.dialect}")
    for sent in caller.wire.sent:
        print(f"  {sent.request}", *sent.differences, sep="\n      ")
    for sent in caller.wire.sent:
        stated = expected(recording.name, "client", sent.request)
        if stated is not None:
            assert sent.differences == stated, sent.request
            continue
        assert not known(recording.name), f"{sent.request} is missing from the table"
        assert surprising("client", sent.differences) == [], sent.request
    _ending(recording, caller)


def _ending(recording: Recording, caller: Caller) -> None:
    last = recording.exchanges[-1].response
    fault = last.fault if last is not None else None
    if isinstance(fault, SOAPFault):
        _told(caller.told, fault)
    else:
        assert caller.told is None
    left = [exchange.request for exchange in caller.wire.waiting]
    if known(recording.name):
        assert all(expected(recording.name, "client", each.name) == ("not sent",) for each in left), left
        assert tuple(caller.wire.extra) == (expected(recording.name, "client", "more") or ())
    else:  # acknowledgements after the end, and tokens given back
        assert all(each.headers.action.endswith("/SequenceAcknowledgement") for each in left), left
        assert all(action.endswith("/Cancel") for action in caller.wire.extra)
    assert caller.secrets == set(recording.secrets)


def _told(error: castile.CastileError | None, fault: SOAPFault) -> None:
    """The caller hears what the peer said, and how far it can be believed (CO-14)."""
    assert error is not None
    if isinstance(error, castile.FaultReceived):
        assert error.fault.subcode == fault.subcode
        assert not error.authenticated
    else:
        assert fault.reason in str(error)
