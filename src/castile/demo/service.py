"""The service: two handlers under uvicorn."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import threading
import time

import uvicorn

from castile import xml
from castile.config import Limits
from castile.credentials import Certificate
from castile.demo import effects
from castile.demo.child import Child
from castile.demo.plan import NAMESPACE, ORDINARY, PASSWORD_VARIABLE, SETTINGS, TRANSACTIONAL, USER
from castile.endpoint.deliver import RequestContext
from castile.errors import UsageError
from castile.service import Service


def make_service(child: Child) -> Service:
    """The demo's endpoint."""
    files, plan = child.files, child.plan
    service = Service(
        policy=plan.policy,
        credentials=Certificate(files.identity),
        users={USER: os.environ[PASSWORD_VARIABLE]} if plan.bootstrap == "username" else None,
        trust=[files.client_certificate] if plan.certified else (),
        store=files.service_store,
        public_url=child.url,
        settings=SETTINGS,
    )
    ledger = sqlite3.connect(files.effects, check_same_thread=False)
    ledger.execute("PRAGMA journal_mode = WAL")
    ledger.execute("PRAGMA synchronous = FULL")
    ledger_lock = threading.Lock()

    @service.raw(TRANSACTIONAL, transactional=True)
    def book(body: bytes, ctx: RequestContext) -> bytes:
        message = _message(body)
        if ctx.transaction is None:
            raise UsageError("a transactional handler without a transaction")
        effects.write(ctx.transaction, message, ctx)
        child.tell("handled", message=message, handler="Book", redelivered=ctx.redelivered)
        time.sleep(plan.work / 3)  # whoever is killed here has had no effect: it isn't committed
        return _answer("Booked", message)

    @service.raw(ORDINARY)
    def notify(body: bytes, ctx: RequestContext) -> bytes:
        message = _message(body)
        with ledger_lock, ledger:
            effects.write(ledger, message, ctx)
        child.tell("handled", message=message, handler="Notify", redelivered=ctx.redelivered)
        time.sleep(plan.work)  # whoever is killed here has had the effect and not answered
        return _answer("Notified", message)

    return service


def _message(body: bytes) -> int:
    return int(xml.parse(body, Limits()).get("message", "0"))


def _answer(word: str, message: int) -> bytes:
    return f'<{word} xmlns="{NAMESPACE}" message="{message}"></{word}>'.encode()


async def _main(child: Child) -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    application = make_service(child).asgi()
    config = uvicorn.Config(
        application, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=3
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    child.listen()
    if server.started:
        child.tell("ready", port=listener.getsockname()[1])
    await serving


if __name__ == "__main__":
    asyncio.run(_main(Child.start("service")))
