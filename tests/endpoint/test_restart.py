"""Restarts: either side dies between any two messages, and nothing is lost, doubled or reordered.

A death is an image of the store's files at that moment: the next process opens the image, and
what the old one does after it counts for nothing.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import castile
from castile.client import Reply
from castile.protocol import destination
from castile.transport.http import HTTPRequest, HTTPResponse
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import BODY, FAMILIES, Network, Pair, body, fast, image, kill, until

EXCHANGES = 9
"""RST, CreateSequence, four messages, two to end the sequence, Cancel."""


def converse(client: castile.Client) -> None:
    """The whole life of a client."""
    client.send_raw("urn:test/Tell", body(1))
    assert client.call_raw("urn:test/Echo", body(2)) == body(2)
    client.send_raw("urn:test/Tell", body(3))
    assert client.call_raw("urn:test/Echo", body(4)) == body(4)
    client.close()


@pytest.mark.row("F11", "CO-20", "RM-42", "RM-93", "ST-30", "ST-32", "I1", "I3", "I7")
@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_service_restarts_between_any_two_messages(
    pairs: Pairs, tmp_path: Path, family: str, crash: bool
) -> None:
    """In good order before each request; or it dies with the answer committed and not yet sent."""
    for moment in range(1, EXCHANGES + 1):
        (tmp_path / f"{moment}").mkdir()
        pair = pairs(family, folder=tmp_path / f"{moment}")
        pair = restarted(pair, moment, crash)
        assert first_runs(pair) == [body(number) for number in range(1, 5)], moment
        assert {who for who, _, _ in pair.received} == {"ada"}
        (record,) = pair.party.store.run(lambda tx: tx.destinations()).result()
        assert record.state.phase is destination.Phase.TERMINATED
        asked = [asked for asked, _ in pair.network.actions]
        assert asked.count("RST/SCT") <= (2 if moment == 1 else 1)  # the context was rebuilt
        assert asked.count("CreateSequence") <= 2


def first_runs(pair: Pair) -> list[bytes]:
    """What the handlers got, less what they got again and were told so."""
    seen: list[bytes] = []
    for content, ctx in zip(pair.bodies, pair.contexts, strict=True):
        if not (ctx.redelivered and content in seen):
            seen.append(content)
    return seen


def restarted(pair: Pair, moment: int, crash: bool) -> Pair:
    """One conversation with a restart of the service at one exchange."""

    def fate(number: int, payload: bytes) -> str | None:
        if number != moment:
            return None
        if not crash:
            pair.restart_service()
            return None
        pair.network.deliver(payload)
        die(pair)
        return "drop-request"  # it has arrived; its sender hears nothing

    pair.network.fate = fate
    converse(pair.client())
    return pair


def die(pair: Pair) -> None:
    """The service's process is gone; the next one opens what it left on the disk."""
    old, folder = pair.service, pair.folder
    assert folder is not None
    pair.network.down = True  # what other exchanges commit after the image was taken never was
    copied = image(pair.party.store, folder / "after")
    pair.loop.run(old.stop())
    pair.folder = copied.parent
    pair.start_service()
    pair.network.down = False


@pytest.mark.row("F11", "F36", "I1", "I7", "N11", "ST-30")
@pytest.mark.parametrize("transactional", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_service_dies_inside_a_handler(
    pairs: Pairs, tmp_path: Path, family: str, transactional: bool
) -> None:
    """An ordinary handler runs again and is told; a transactional one's effects are there once."""
    runs: list[bool] = []
    inside, gate = threading.Event(), threading.Event()

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Work", transactional=transactional)
        def work(content: bytes, ctx: castile.RequestContext) -> bytes:
            runs.append(ctx.redelivered)
            if ctx.transaction is not None:
                ctx.transaction.execute("CREATE TABLE IF NOT EXISTS effects (number INTEGER)")
                ctx.transaction.execute("INSERT INTO effects VALUES (?)", (ctx.number,))
            if len(runs) == 1:
                inside.set()
                gate.wait(20)
            return content

    pair = pairs(family, folder=tmp_path, extend=extend)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(0))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(client.call_raw, "urn:test/Work", BODY)
        assert inside.wait(20)
        # A transactional handler holds the store's thread, so the files are copied beside it.
        old = pair.service
        target = tmp_path / "after"
        copied = copy(pair, target) if transactional else image(pair.party.store, target)
        pair.folder = copied.parent
        pair.start_service()
        assert pair.receive(pair.network.sent[-1]).status == 200  # as a repetition would be
        gate.set()
        pair.loop.run(old.stop())
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    client.close()
    assert runs == [False, True]
    if transactional:
        connection = sqlite3.connect(pair.store_file)
        assert connection.execute("SELECT number FROM effects").fetchall() == [(2,)]
        connection.close()


def copy(pair: Pair, target: Path) -> Path:
    target.mkdir()
    for path in pair.store_file.parent.glob("service.db*"):
        if not path.name.endswith((".lock", "-shm")):
            shutil.copy(path, target / path.name)
    return target / pair.store_file.name


# ---------------------------------------------------------------- the client


class Dying(Network):
    """The link of a client that dies in its n-th exchange, before or after the request arrives."""

    def __init__(self, pair: Pair, moment: int, arrives: bool) -> None:
        super().__init__(pair.loop, pair.service)
        self.moment, self.arrives = moment, arrives
        self.client: castile.Client | None = None
        self.target: Path | None = None
        self.dead = threading.Event()

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        number = len(self.sent) + 1
        if number == self.moment:
            self.sent.append(request.body)
            if self.arrives:
                self.deliver(request.body)
            assert self.client is not None
            assert self.target is not None
            image(self.client._store, self.target)
            self.down = True
            self.dead.set()
        return super().post(request, timeout)


@pytest.mark.row("F11", "F37", "RM-18", "RM-79", "ST-30", "ST-33", "I1", "I2", "I6", "I7")
@pytest.mark.parametrize("arrives", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_client_dies_in_any_exchange(pairs: Pairs, tmp_path: Path, family: str, arrives: bool) -> None:
    """The next process finishes what is unfinished under its own context, then ends it; what it
    does itself comes after that, in order, in a sequence of its own."""
    for moment in range(1, EXCHANGES + 1):
        pair = pairs(family, settings=fast(reply_wait=0.2))
        network = Dying(pair, moment, arrives)
        settings = fast(close_timeout=0.01, terminate_timeout=0.01, reply_wait=0.2)
        client = pair.client(store=tmp_path / f"{moment}.db", http=network, settings=settings)
        network.client, network.target = client, tmp_path / f"{moment}"
        with ThreadPoolExecutor(1) as pool:
            life = pool.submit(converse, client)
            assert network.dead.wait(20)
            kill(client)
            life.exception(20)
        reborn(pair, tmp_path / f"{moment}" / f"{moment}.db", moment)


def reborn(pair: Pair, store: Path, moment: int) -> None:
    """The next process of the client."""
    replies: list[Reply] = []
    before = list(pair.bodies)
    client = pair.client(store=store, on_reply=replies.append)
    left = client.unfinished()
    assert client.call_raw("urn:test/Echo", body(9)) == body(9)

    def settled() -> bool:
        step = client._store.run(lambda tx: (tx.sources(unfinished=True), tx.contexts()))
        sources, contexts = step.result()
        return len(sources) == len(contexts) == 1  # its own

    until(settled)
    client.close()
    delivered = pair.bodies
    assert delivered[-1] == body(9), moment
    assert delivered[:-1] == [body(number) for number in range(1, len(delivered))], moment
    # What was in the store has got through, and its reply with it, unless the caller had it.
    waiting = {each.message_id for each in left if each.action == "urn:test/Echo" and each.reply is None}
    assert {reply.message_id for reply in replies} >= waiting, moment
    assert len(delivered) - 1 >= max(len(before), len(left)), moment
    assert {reply.body for reply in replies} <= {body(2), body(4)}
    for record in pair.party.store.run(lambda tx: tx.destinations()).result():
        assert record.state.phase is destination.Phase.TERMINATED, moment
    contexts = pair.party.store.run(lambda tx: tx.contexts()).result()
    assert len(contexts) <= (moment == 1)  # one whose answer never came ends by itself


@pytest.mark.row("F37", "ST-33", "RM-79")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_kept_client_goes_on(pairs: Pairs, tmp_path: Path, family: str) -> None:
    """`close(keep=True)` and leaving by an exception keep everything; the next process finishes it
    at once, with no new traffic."""
    pair = pairs(family)
    store = tmp_path / "client.db"

    def life() -> None:
        with pair.client(store=store) as client:
            client.call_raw("urn:test/Echo", body(1))
            pair.network.down = True
            client.send_raw("urn:test/Tell", body(2))
            with pytest.raises(castile.InDoubt):
                client.call_raw("urn:test/Echo", body(3), timeout=0.05)
            raise KeyError

    with pytest.raises(KeyError):
        life()
    pair.network.down = False
    replies: list[Reply] = []
    client = pair.client(store=store, on_reply=replies.append)
    until(lambda: bool(replies))
    assert pair.bodies == [body(1), body(2), body(3)]
    assert [(reply.body, reply.action, reply.fault) for reply in replies] == [
        (body(3), "urn:test/EchoResponse", None)
    ]
    until(lambda: client._store.run(lambda tx: not tx.sources(unfinished=True)).result())
    until(lambda: client._store.run(lambda tx: not tx.contexts()).result())
    assert client.unfinished() == []
    asked = [asked for asked, _ in pair.network.actions]
    assert asked.count("RST/SCT") == 1  # under the stored context, and no new one is needed
    assert asked[-1] == "RST/SCT/Cancel"
    with pytest.raises(castile.errors.SequenceUnknown):
        client.sequence.report()
    client.close()


@pytest.mark.row("F37", "ST-33")
def test_replies_that_nobody_took(pairs: Pairs, tmp_path: Path) -> None:
    """A reply that was committed when the process died is listed until it is taken."""

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Fail")
        def fail(content: bytes) -> bytes:
            raise castile.Fault("Sender", "no")

    pair = pairs(extend=extend)
    client = pair.client(store=tmp_path / "client.db")
    client._pump.__class__.consumed, original = lambda self, reply: None, client._pump.__class__.consumed  # type: ignore[method-assign]
    try:
        client.call_raw("urn:test/Echo", body(1))
        with pytest.raises(castile.FaultReceived):
            client.call_raw("urn:test/Fail", body(2))
    finally:
        client._pump.__class__.consumed = original  # type: ignore[method-assign]
    copied = image(client._store, tmp_path / "after")
    kill(client)
    second = pair.client(store=copied)
    left = second.unfinished()
    assert [(each.action, each.reply is not None) for each in left] == [
        ("urn:test/Echo", True),
        ("urn:test/Fail", True),
    ]
    assert left[0].reply is not None
    assert left[1].reply is not None
    assert left[0].reply.body == body(1)
    assert left[1].reply.fault is not None
    assert left[1].reply.fault.reason == "no"
    for each in left:
        second.take(each.message_id)
    assert second.unfinished() == []
    with pytest.raises(castile.UsageError):
        second.take("urn:uuid:nothing")
    second.close()


@pytest.mark.row("F11", "F37", "ST-33", "I1", "I2")
@pytest.mark.parametrize("family", FAMILIES)
def test_both_die_together_again_and_again(pairs: Pairs, tmp_path: Path, family: str) -> None:
    """Three lives of both sides, each cut off with work under way: each message once, in order."""
    pair = pairs(family, folder=tmp_path)
    store = tmp_path / "client.db"
    expected: list[bytes] = []
    for life in range(3):
        client = pair.client(store=store)
        for number in range(4):
            client.send_raw("urn:test/Tell", body(10 * life + number))
            expected.append(body(10 * life + number))
        until(lambda: len(pair.network.sent) > 3)
        pair.network.sent.clear()
        target = tmp_path / f"life {life}"
        store = image(client._store, target)
        network, pair.network = pair.network, Network(pair.loop, pair.service)
        network.down = True
        kill(client)
        die(pair)
    last = pair.client(store=store)
    assert last.call_raw("urn:test/Echo", body(99)) == body(99)
    assert first_runs(pair) == [*expected, body(99)]
    until(lambda: len(last._store.run(lambda tx: tx.sources(unfinished=True)).result()) == 1)
    last.close()
    records = pair.party.store.run(lambda tx: tx.destinations()).result()
    assert {record.state.phase for record in records} == {destination.Phase.TERMINATED}
