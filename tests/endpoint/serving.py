"""A service for uvicorn's workers: ``uvicorn tests.endpoint.serving:app``, in a folder that
``SERVED`` names. Its effects are rows of its store; its ordinary handlers write lines."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import castile
from tests.endpoint.pair import FAST, TIMERS, USERS

FOLDER = Path(os.environ["SERVED"])
EFFECTS = (
    "CREATE TABLE IF NOT EXISTS effects "
    "(at INTEGER PRIMARY KEY, sequence TEXT, number INTEGER, content BLOB, process INTEGER)"
)

service = castile.Service(
    policy=castile.EndpointPolicy.of("1.3"),
    credentials=castile.Certificate(FOLDER / "service.pem"),
    users=USERS,
    store=FOLDER / "service.db",
    settings=replace(FAST, timers=replace(TIMERS, reply_wait=5.0, drain=5.0)),
)


@service.raw("urn:test/Post", transactional=True)
def post(content: bytes, ctx: castile.RequestContext) -> bytes:
    """The effect is in the store's own transaction."""
    assert ctx.transaction is not None
    ctx.transaction.execute(EFFECTS)
    ctx.transaction.execute(
        "INSERT INTO effects (sequence, number, content, process) VALUES (?, ?, ?, ?)",
        (ctx.sequence, ctx.number, content, os.getpid()),
    )
    return content


@service.raw("urn:test/Note")
def note(content: bytes, ctx: castile.RequestContext) -> bytes:
    """Runs at least once; each run is a line."""
    line = f"{ctx.sequence} {ctx.number} {int(ctx.redelivered)} {os.getpid()}\n"
    with (FOLDER / "notes.txt").open("ab", buffering=0) as file:
        file.write(line.encode())
    return content


@service.raw("urn:test/Slow")
def slow(content: bytes) -> bytes:
    """Takes its time."""
    time.sleep(1.0)
    return content


app = service.asgi()
