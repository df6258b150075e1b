"""What Microsoft's and Apache's clients sent, into a castile service (features SV-25, F35)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endpoint.pair import Loop
from tests.replay.recording import Recording, folders, load
from tests.replay.server import Answered, Server
from tests.replay.table import expected, known, surprising


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.mark.row("SV-25", "SV-26", "F01", "F03", "CO-09", "RM-05", "SC-09")
@pytest.mark.parametrize("folder", folders(), ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_captured_requests(folder: Path, loop: Loop) -> None:
    """Each is taken, or refused as its own peer refused it; the answers have the recorded shape,
    but for the differences that the table lists."""
    recording = load(folder)
    server = Server(recording, loop)
    answers = server.play()
    print(f"\n{recording.name}: {server.policy.dialect}")
    for answer in answers:
        print(f"  {answer.request}: {answer.verdict}", *answer.differences, sep="\n      ")
    for answer in answers:
        _judge(recording, answer)
    assert server.secrets >= set(recording.secrets)
    taken = {answer.request for answer in answers if answer.verdict.startswith("accepted")}
    assert server.delivered == _applications(server, taken)


def _judge(recording: Recording, answer: Answered) -> None:
    stated = expected(recording.name, "service", answer.request)
    if stated is not None:
        assert (answer.verdict, *answer.differences) == stated, answer.request
        return
    assert not known(recording.name), f"{answer.request} is missing from the table"
    refused = answer.expected.startswith("refused")
    if recording.handmade and answer.expected != "accepted":
        return  # where WCF refuses or is silent another endpoint may have more to say
    assert answer.verdict.startswith("refused") == refused, (answer.request, answer)
    assert surprising("service", answer.differences) == [], answer.request


def _applications(server: Server, taken: set[str]) -> list[bytes]:
    """What the application must have had: each message that was taken, once, in its order."""
    found: dict[tuple[str, int] | str, bytes] = {}
    for exchange in server.recording.exchanges:
        request = exchange.request
        if request.headers.action not in server.actions or request.name not in taken:
            continue
        number = request.rm.sequence
        key = (number.identifier, number.number) if number else request.name
        found.setdefault(key, request.content)
    ordered = sorted(found.items(), key=lambda item: item[0][1] if isinstance(item[0], tuple) else 0)
    return [content for _, content in ordered]
