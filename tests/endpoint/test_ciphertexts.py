"""5,000 malformed ciphertexts at a service: its answers don't tell where a decryption failed."""

from __future__ import annotations

import asyncio
import logging
import re
from base64 import b64decode

import pytest
from lxml import etree

import castile
from castile.transport.asgi import Arrival, HTTPAnswer
from castile.versions import XENC
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import FAMILIES, body
from tests.security.insider import base64
from tests.security.made import seeded
from tests.security.test_encryption import malformed_ciphertexts

VALUES = f".//{{{XENC}}}EncryptedData//{{{XENC}}}CipherValue"
RELATES = re.compile(rb"<a:RelatesTo[^>]*>[^<]*</a:RelatesTo>")
COUNT = {"application": 2_000, "bootstrap": 600}


def malformed(payload: bytes, seed: int, count: int) -> list[bytes]:
    """Each EncryptedData of a message, made wrong in each way, until there are so many."""
    root, random, made = etree.fromstring(payload), seeded(seed), list[bytes]()
    while len(made) < count:
        for value in root.findall(VALUES):
            original = value.text or ""
            for octets in malformed_ciphertexts(b64decode(original), random):
                value.text = base64(octets)
                made.append(etree.tostring(root))
            value.text = original
    return made[:count]


@pytest.mark.row("MS-37", "MS-60", "RE-50")
@pytest.mark.parametrize("family", FAMILIES)
def test_malformed_ciphertexts_have_one_answer(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """Status, content type, headers and every octet but the name of the request: the same."""
    monkeypatch.setattr(logging.getLogger("castile"), "disabled", True)
    monkeypatch.setattr(logging.getLogger("castile.security"), "disabled", True)
    pair = pairs(castile.EndpointPolicy.of(family))
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    messages = {
        "application": pair.network.requests("Echo")[0].request,
        "bootstrap": pair.network.requests("RST/SCT")[0].request,
    }
    received = list(pair.received)

    async def answers(payloads: list[bytes]) -> list[HTTPAnswer]:
        await asyncio.sleep(0)
        return [await pair.service.receive(payload, Arrival("/", "")) for payload in payloads]

    shapes, count = set(), 0
    for seed, (name, payload) in enumerate(messages.items()):
        for answer in pair.loop.run(answers(malformed(payload, seed, COUNT[name])), 120):
            count += 1
            shapes.add((answer.status, RELATES.sub(b"", answer.body), answer.content_type, answer.headers))
    assert count * len(FAMILIES) >= 5_000
    assert len(shapes) == 1
    ((status, text, _, _),) = shapes
    assert status == 500
    assert b"InvalidSecurity<" in text
    assert pair.received == received
    assert client.call_raw("urn:test/Echo", body(2)) == body(2)
