"""No secret and no word of the application outside the wire and the process (I14).

A run with loss and restarts of both sides at the most talkative logging; then every byte of both
stores, their journals, the log and all errors is searched for all keys, passwords, entropies and
marked words, as they are, in hexadecimal and in base64.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

import castile
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import FAMILIES, USERS, body, fast, image, kill, until
from tests.endpoint.test_loss import schedule
from tests.endpoint.test_restart import die

MARKERS = ("Amsterdam-marker-1", "Buenos-Aires-marker-2", "Casablanca-marker-3", "Djibouti-marker-4")
"""In a request, a one-way message, a fault and a handler's exception."""


def forms(secret: bytes) -> Iterator[bytes]:
    """How bytes may be written down."""
    yield secret
    for text in (secret.hex(), secret.hex().upper(), repr(secret)[2:-1]):
        yield text.encode()
    for offset in range(3):  # wherever they stand in something that is base64 itself
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * offset + secret)[4 if offset else 0 :].rstrip(b"=")[:-1]


@pytest.mark.row("F11", "F36", "I14", "ST-23", "MS-78")
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_leaks(
    pairs: Pairs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    family: str,
) -> None:
    drawn: list[bytes] = []

    def draw(count: int) -> bytes:
        octets = os.urandom(count)
        if count >= 32:  # entropies and keys; nonces and names are public
            drawn.append(octets)
        return octets

    keylog = tmp_path / "keys.jsonl"
    monkeypatch.setenv("CASTILE_KEYLOG", str(keylog))
    caplog.set_level(logging.DEBUG)
    errors: list[BaseException] = []
    inside, stores = iter(range(99)), [tmp_path / "service", tmp_path / "client"]
    for folder in stores:
        folder.mkdir()

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Fault")
        def fault(content: bytes) -> bytes:
            raise castile.Fault("Sender", MARKERS[2], f"<d>{MARKERS[2]}</d>".encode())

        @service.raw("urn:test/Fail")
        def fail(content: bytes) -> bytes:
            if next(inside) == 0:
                raise castile.Retry(0.01, "not yet")
            raise castile.Fault("Receiver", "later")

    pair = pairs(
        family,
        folder=stores[0],
        extend=extend,
        settings=fast(reply_wait=0.2),
        random=draw,
    )
    pair.network.fate = schedule(3)
    request, told = (f"<m>{marker}</m>".encode() for marker in MARKERS[:2])

    def life(client: castile.Client) -> None:
        assert client.call_raw("urn:test/Echo", request) == request
        client.send_raw("urn:test/Tell", told)
        for action in ("urn:test/Fault", "urn:test/Fail", "urn:test/Nobody"):
            try:
                client.call_raw(action, request)
            except castile.CastileError as error:
                errors.append(error)
        for payload in (b"<m>", request + request, b"<!DOCTYPE x><m/>"):
            try:
                client.call_raw("urn:test/Echo", payload)
            except castile.CastileError as error:
                errors.append(error)

    store = stores[1] / "client.db"
    for _ in range(2):
        client = pair.client(store=store, random=draw)
        life(client)
        client.send_raw("urn:test/Tell", told)
        pair.network.down = True
        client.send_raw("urn:test/Tell", told)
        try:
            client.call_raw("urn:test/Echo", request, timeout=0.1)
        except castile.CastileError as error:
            errors.append(error)
        stores.append(tmp_path / f"client {len(stores)}")
        store = image(client._store, stores[-1])
        kill(client)
        pair.network.down = False
        die(pair)
        assert pair.folder is not None
        stores.append(pair.folder)
    wrong = pair.client(credentials=castile.Username("ada", "Eldorado-password"))
    try:
        wrong.call_raw("urn:test/Echo", request)
    except castile.CastileError as error:
        errors.append(error)
    client = pair.client(store=store, random=draw)
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    until(lambda: len(client._store.run(lambda tx: tx.sources(unfinished=True)).result()) == 1)
    stores.append(tmp_path / "last")
    image(client._store, stores[-1])  # with its journal, which a close would fold in
    texts = [repr(client), repr(client._party), repr(client._pump), repr(client.context), repr(pair.party)]
    texts += [repr(client._store.run(lambda tx: tx.contexts(ended=True)).result())]
    client.close()

    secrets = [*drawn, *(password.encode() for password in USERS.values()), b"Eldorado-password"]
    for line in keylog.read_text().splitlines():
        secrets += [base64.b64decode(text) for text in json.loads(line)["contexts"].values()]
    assert len(secrets) > 12
    secrets += [marker.encode() for marker in MARKERS]
    haystacks = {
        str(path): path.read_bytes()
        for folder in {*stores}
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".key")
    }
    assert any(name.endswith("-wal") and content for name, content in haystacks.items())
    haystacks["the log"] = caplog.text.encode() + b"\n".join(
        repr(record.__dict__).encode() for record in caplog.records
    )
    # What the application itself said in a fault is for its caller.
    said = [error for error in errors if not isinstance(error, castile.FaultReceived)]
    haystacks["errors"] = "\n".join(
        "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__) for error in said
    ).encode()
    assert len(said) >= 6
    haystacks["repr"] = "\n".join(texts).encode()
    for name, content in haystacks.items():
        for secret in secrets:
            for form in forms(secret):
                assert form not in content, (name, secret)
