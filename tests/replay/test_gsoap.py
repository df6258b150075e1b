"""gSOAP's client, which gives no ReplyTo and no mustUnderstand, at a castile service (RM-05, F35)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

import castile
from castile import xml
from castile.config import Limits
from castile.messages import addressing, soap
from castile.versions import WSA_1_0, WSRM
from tests.conftest import shared
from tests.endpoint.pair import Loop
from tests.replay.stage import Source, post

ECHO = "urn:gecho/gechoPort/echo"
LIMITS = Limits()


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def bodies(payload: bytes) -> tuple[soap.Envelope, bytes]:
    envelope = soap.parse(xml.parse(payload, LIMITS), LIMITS, len(payload))
    return envelope, b"".join(xml.canonical(child) for child in envelope.body)


@pytest.mark.row("RM-05", "CL-42", "F23")
@pytest.mark.parametrize("edition", ["1.0", "1.1"])
def test_its_conversation(edition: str, loop: Loop) -> None:
    """Every message is taken, and each echo is answered in the offered sequence on its exchange."""
    folder = shared("vectors", "gsoap") / "gecho"
    requests = sorted(folder.glob(f"wsrm{edition.replace('.', '')}-none-*-request.xml"))
    recorded = [_recorded(path) for path in requests]
    created = re.search(rb"Identifier>([^<]+)<", recorded[0])
    assert created is not None
    assert len(requests) == 6
    version = bodies(requests[0].read_bytes())[0].soap
    reliability = next(row for row in WSRM.values() if row.can_close == (edition == "1.1"))
    source = Source(names={"sequence": deque([created[1].decode()])})
    service = castile.Service(
        policy=castile.EndpointPolicy(version, WSA_1_0, reliability, None, None, None, None),
        new_id=source.new_id,
    )
    echoes = iter([content for payload in recorded[1:] if payload for content in [bodies(payload)[1]]])

    @service.raw(ECHO, one_way=False)
    def echo(_: bytes) -> bytes:
        return next(echoes)

    app = service.asgi()
    for path, answer in zip(requests, recorded, strict=True):
        content_type = f"{version.content_type}; charset=utf-8"
        status, body = loop.run(post(app, "/", content_type, path.read_bytes()))
        assert status in (200, 202), (path.name, body)
        if not answer:
            continue
        theirs, content = bodies(answer)
        ours, got = bodies(body)
        headers = addressing.parse(ours.headers, WSA_1_0)
        assert headers.action == addressing.parse(theirs.headers, WSA_1_0).action
        request = addressing.parse(bodies(path.read_bytes())[0].headers, WSA_1_0)
        assert headers.relates_to == request.message_id
        if ECHO in headers.action:
            assert got == content
            assert b"Sequence>" in body
            assert b"SequenceAcknowledgement" in body
    loop.run(service.stop())


def _recorded(request: Path) -> bytes:
    path = request.with_name(request.name.replace("request", "response"))
    return path.read_bytes() if path.exists() else b""
