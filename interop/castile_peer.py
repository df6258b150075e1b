"""castile's own end of a cell: the same service and the same caller as the Java peers, and the
same journal.

    castile_peer.py serve|call SPEC

SPEC is a JSON object: the cell's members, ``address``, ``journal``, ``keys`` and ``store``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import uvicorn
from cell import NAMESPACE, PASSWORD, STRANGER, TRICK, USER, Cell

import castile
from castile.config import Settings, Timers
from castile.endpoint.requests import source_record
from castile.errors import CastileError
from castile.policy import EndpointPolicy
from castile.store.records import SourceRecord
from castile.versions import SOAP_1_1, SOAP_1_2, WSA_1_0, WSA_2004, WSRM_1_0, WSRM_1_1

_TEXT: Final = re.compile(rb"<(?:\w+:)?text[^>]*>([^<]*)<")
_RESULT: Final = re.compile(rb"<(?:\w+:)?result[^>]*>([^<]*)<")
_RM: Final = {"off": None, "1.0": WSRM_1_0, "1.1": WSRM_1_1}
_FAMILY: Final = {"off": "1.3", "2005/02": "2005", "1.3": "1.3"}


class Journal:
    """The application's own log, a line for each event, its facts apart by tabs."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 - open as long as the process
        self._lock = threading.Lock()

    def add(self, *facts: object) -> None:
        """Write one line, at once."""
        with self._lock:
            self._file.write("\t".join(" ".join(str(fact).split()) for fact in facts) + "\n")
            self._file.flush()


def policy(cell: Cell) -> EndpointPolicy:
    """What the cell's WSDL says, in castile's words."""
    base = EndpointPolicy.of(
        _FAMILY[cell.sc],
        suite=cell.suite,
        bootstrap=cell.bootstrap,
        secure=cell.secure,
        soap={"1.1": SOAP_1_1, "1.2": SOAP_1_2}[cell.soap],
        addressing={"2004/08": WSA_2004, "1.0": WSA_1_0}[cell.addressing],
        reliability=_RM[cell.rm],
    )
    application, bootstrap = base.application, base.bootstrap
    if application is None or bootstrap is None:
        return base
    return replace(
        base,
        # CXF doesn't understand UsesSequenceSTR, and its policy doesn't ask for it.
        uses_sequence_str=cell.peer != "cxf",
        sequence_token=cell.sequence_token,
        encrypt_lifecycle=cell.encrypt_lifecycle,
        application=replace(
            application, encrypt_signature=cell.encrypt_signature, derived_keys=cell.derived_keys
        ),
        bootstrap=replace(bootstrap, reference="issuer-serial", encrypt_signature=False)
        if cell.bootstrap == "mutual"
        else bootstrap,
    )


def settings(cell: Cell) -> Settings:
    """Defaults, but for short lives of tokens and impatient cells."""
    timers = Timers(
        create_timeout=240.0, close_timeout=60.0, terminate_timeout=10.0, call_timeout=cell.patience
    )
    if cell.restart != "none":
        timers = replace(timers, lost_context_after=5.0)
    if not cell.lifetime:
        return Settings(timers=timers)
    timers = replace(timers, token_lifetime=float(cell.lifetime))
    return Settings(timers=timers, testing=True, allow_renewal_after_expiry=True)


async def serve(cell: Cell, spec: dict[str, str], journal: Journal) -> None:
    """Until the input ends."""
    keys = Path(spec["keys"])
    service = castile.Service(
        policy=policy(cell),
        credentials=castile.Certificate(keys / "bob.p12", PASSWORD) if cell.secure else None,
        users={USER: PASSWORD},
        trust=[keys / "alice.cer"],
        store=spec["store"],
        settings=settings(cell),
    )

    def handle(operation: str, body: bytes) -> bytes:
        found = _TEXT.search(body)
        text = found[1] if found else b"?"
        journal.add("handled", operation, text.split(b" ")[0].decode(), len(text))
        time.sleep(cell.delay)
        return text

    @service.raw(f"{NAMESPACE}/echo")
    def echo(body: bytes) -> bytes:
        text = handle("echo", body)
        return b'<echoResponse xmlns="%b"><result>%b</result></echoResponse>' % (NAMESPACE.encode(), text)

    @service.raw(f"{NAMESPACE}/tell")
    def tell(body: bytes) -> None:
        handle("tell", body)

    port = int(spec["address"].split(":")[2].split("/")[0])
    config = uvicorn.Config(
        service.asgi(), port=port, log_config=None, access_log=False, timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await serving


def client_of(cell: Cell, spec: dict[str, str], store: str | None = None, **timers: float) -> castile.Client:
    """A client as the cell has it."""
    keys, chosen = Path(spec["keys"]), settings(cell)
    credentials: castile.Username | castile.Certificate = castile.Username(cell.user, cell.password)
    if cell.bootstrap != "username":
        credentials = castile.Certificate(keys / "alice.p12", PASSWORD)
    return castile.Client(
        spec["address"],
        policy=policy(cell),
        credentials=credentials if cell.secure else None,
        service_certificate=keys / "bob.cer" if cell.secure else None,
        store=store,
        settings=replace(chosen, timers=replace(chosen.timers, **timers)),
    )


def call(cell: Cell, spec: dict[str, str], journal: Journal, answered: set[int]) -> None:
    """Send the cell's messages; after a restart those again that weren't answered."""
    client = client_of(cell, spec, spec["store"])
    try:
        for number in range(1, cell.messages + 1):
            if number == cell.messages // 2:
                _trick(cell, spec, client, journal)
            if number not in answered:
                _send(cell, client, journal, number)
                time.sleep(cell.pause)
        time.sleep(cell.linger)
        for message in client.unfinished():
            journal.add("unfinished", cell.operation, message.number, message.sequence)
    finally:
        try:
            client.close()
            journal.add("closed")
        except CastileError as error:
            journal.add("failed", "close", 0, f"{type(error).__name__}: {error}")


def _trick(cell: Cell, spec: dict[str, str], client: castile.Client, journal: Journal) -> None:
    """Another client, with a context and a sequence of its own, names one that isn't its own in
    its last message, whose number would be the next one there."""
    if cell.trick not in ("unknown sequence", "foreign sequence"):
        return
    foreign = cell.trick == "foreign sequence"
    named = _source(client).state.identifier if foreign else "urn:uuid:00000000-0000-4000-8000-000000000000"
    other = client_of(cell, spec, call_timeout=8.0)
    for number in range(1, cell.messages // 2):
        _send(cell, other, journal, STRANGER + number)
    record = _source(other)
    changed = replace(record, state=replace(record.state, identifier=named))
    other._pump.run(lambda tx: tx.save_source(changed))
    _send(cell, other, journal, TRICK)
    other.close(keep=True)


def _source(client: castile.Client) -> SourceRecord:
    pump = client._pump
    return pump.run(lambda tx: source_record(tx, pump.key or ""))


def _send(cell: Cell, client: castile.Client, journal: Journal, number: int) -> None:
    text = f"{number} ".ljust(cell.size, ".")
    body = f'<{cell.operation} xmlns="{NAMESPACE}"><text>{text}</text></{cell.operation}>'.encode()
    action = f"{NAMESPACE}/{cell.operation}"
    journal.add("sent", cell.operation, number, len(text))
    try:
        if cell.operation == "tell":
            client.send_raw(action, body)
            journal.add("told", "tell", number, len(text))
        else:
            reply = client.call_raw(action, body, key=f"call {number}" if cell.reliable else None)
            found = _RESULT.search(reply)
            same = found is not None and found[1] == text.encode()
            journal.add("answered" if same else "garbled", "echo", number, len(found[1]) if found else 0)
    except CastileError as error:
        journal.add("failed", cell.operation, number, f"{type(error).__name__}: {error}")


def main() -> None:
    """The command line."""
    mode, spec = sys.argv[1], json.loads(sys.argv[2])
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("castile").setLevel(logging.DEBUG)
    cell = Cell(**spec.pop("cell"))
    if mode == "serve":
        asyncio.run(serve(cell, spec, Journal(spec["journal"])))
        return
    journal = Path(spec["journal"])
    lines = journal.read_text("utf-8").splitlines() if journal.exists() else []
    done = {int(line.split("\t")[2]) for line in lines if line.startswith(("answered", "told"))}
    call(cell, spec, Journal(spec["journal"]), done)


if __name__ == "__main__":
    main()
