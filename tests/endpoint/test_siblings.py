"""Several clients of one endpoint on one store: each sends its own, and who lives finishes what a
dead one left. Each client here has its own opening of the store, as a process of its own would."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import castile
from castile.client import Reply
from castile.commands import cancel_context
from castile.errors import StoreFenced
from castile.protocol.source import Phase
from castile.store.lock import owner_file
from castile.transport.http import HTTPRequest, HTTPResponse
from castile.waiting import blocking
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import BODY, FAMILIES, Network, body, kill, until


def die(client: castile.Client) -> None:
    """Its process is gone: its lock is free, it says nothing more, and can't."""
    store = client._store
    client._pump._stopping = True
    owner_file(store.location or Path(), store.owner).unlink()
    until(lambda: isinstance(store.run(lambda tx: tx.wake(0.0, side="client")).exception(), StoreFenced), 5.0)
    kill(client)


class Deaf(Network):
    """What it sends arrives, and nothing comes back."""

    deaf = False

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        response = super().post(request, timeout)
        if self.deaf:
            raise castile.TransportError("the response was lost")
        return response


@pytest.mark.row("ST-09", "ST-33")
@pytest.mark.parametrize("family", FAMILIES)
def test_two_clients_on_one_store_work_side_by_side(pairs: Pairs, tmp_path: Path, family: str) -> None:
    """Each in a context and a sequence of its own; the end of one is nothing to the other."""
    pair = pairs(family)
    first, second = (pair.client(store=tmp_path / "c.db") for _ in range(2))
    with ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(client.call_raw, "urn:test/Echo", body(number))
            for number in range(1, 11)
            for client in (first, second)
        ]
        assert [call.result() for call in calls] == [body(number // 2 + 1) for number in range(20)]
    names = {client.sequence.report()["identifier"] for client in (first, second)}
    assert len(names) == 2
    contexts = {client.context.identifier for client in (first, second) if client.context}
    assert len(contexts) == 2
    assert len(pair.network.requests("RST/SCT")) == 2
    first.close()
    assert second.call_raw("urn:test/Echo", BODY) == BODY
    second.close()
    assert len(pair.received) == 21
    assert len(pair.network.requests("RST/SCT/Cancel")) == 2


@pytest.mark.row("ST-09", "F37", "ST-33")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_other_client_finishes_what_a_dead_one_left(pairs: Pairs, tmp_path: Path, family: str) -> None:
    pair = pairs(family)
    cut = Deaf(pair.loop, pair.service)
    replies: list[Reply] = []
    living = pair.client(store=tmp_path / "c.db", on_reply=replies.append)
    dying = pair.client(store=tmp_path / "c.db", http=cut)
    assert living.call_raw("urn:test/Echo", body(0)) == body(0)
    assert dying.call_raw("urn:test/Echo", body(1)) == body(1)
    cut.deaf = True
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(dying.call_raw, "urn:test/Echo", body(2), key="invoice")
        until(lambda: body(2) in pair.bodies)
        cut.down = True
        dying.send_raw("urn:test/Tell", body(3))
        assert len(living.unfinished()) == 2
        die(dying)
        with pytest.raises(StoreFenced):
            lost.result()
    assert living.call_raw("urn:test/Echo", body(4)) == body(4)  # it held nothing up
    until(lambda: body(3) in pair.bodies and bool(replies), 5.0)
    assert [reply.body for reply in replies] == [body(2)]
    assert living.call_raw("urn:test/Echo", body(2), key="invoice") == body(2)
    assert sorted(pair.bodies) == [body(number) for number in range(5)]
    until(lambda: not living._pump.retired.pending)
    living.close()
    states = {exchange.asked for exchange in pair.network.log}
    assert "TerminateSequence" in states
    assert len(pair.network.requests("RST/SCT/Cancel")) == 2  # the dead one's context, too


@pytest.mark.row("ST-33", "F37")
def test_who_comes_later_takes_over_only_from_the_dead(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs()
    cut = Network(pair.loop, pair.service)
    living = pair.client(store=tmp_path / "c.db", http=cut)
    assert living.call_raw("urn:test/Echo", body(1)) == body(1)
    cut.down = True
    living.send_raw("urn:test/Tell", body(2))
    other = pair.client(store=tmp_path / "c.db")
    assert other.call_raw("urn:test/Echo", body(3)) == body(3)  # without waiting
    assert [row.number for row in other.unfinished()] == [2]
    assert pair.bodies == [body(1), body(3)]
    die(living)
    third = pair.client(store=tmp_path / "c.db")
    until(lambda: body(2) in pair.bodies, 5.0)
    for client in (other, third):
        client.close()
    assert sorted(pair.bodies) == [body(1), body(2), body(3)]


@pytest.mark.row("CL-31", "ST-09")
@pytest.mark.parametrize("dies", [False, True])
def test_a_key_joins_a_call_that_another_client_has_under_way(
    pairs: Pairs, tmp_path: Path, dies: bool
) -> None:
    gate = threading.Event()
    runs: list[bytes] = []

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Slow")
        def slow(content: bytes) -> bytes:
            runs.append(content)
            gate.wait(20)
            return content

    pair = pairs(extend=extend)
    first, second = (pair.client(store=tmp_path / "c.db") for _ in range(2))
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first.call_raw, "urn:test/Slow", BODY, key="invoice-7")
        until(lambda: bool(runs))
        two = pool.submit(second.call_raw, "urn:test/Slow", BODY, key="invoice-7")
        until(lambda: bool(second._pump.callers.waiting))
        if dies:
            die(first)
        gate.set()
        assert two.result(20) == BODY
        if not dies:
            assert one.result(20) == BODY
        else:
            with pytest.raises(castile.CastileError):
                one.result(20)
    assert runs == [BODY]
    with pytest.raises(castile.UsageError, match="another action or body"):
        second.call_raw("urn:test/Slow", body(2), key="invoice-7")


@pytest.mark.row("CL-31")
def test_a_joined_call_that_fails_in_the_other_client(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs()
    cut = Network(pair.loop, pair.service)
    first, second = pair.client(store=tmp_path / "c.db", http=cut), pair.client(store=tmp_path / "c.db")
    assert first.call_raw("urn:test/Echo", body(1)) == body(1)
    cut.down = True
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first.call_raw, "urn:test/Echo", body(2), key="invoice-8")
        until(lambda: bool(first.unfinished()))
        two = pool.submit(second.call_raw, "urn:test/Echo", body(2), key="invoice-8")
        until(lambda: bool(second._pump.callers.waiting))
        [identifier] = [each.identifier for each in [first.context] if each]
        blocking(cancel_context(first._pump, identifier, force=True))
        for call in (one, two):
            with pytest.raises(castile.InDoubt, match="cancelled"):
                call.result(20)
    [failed] = [
        record for record in second._party.run(lambda tx: tx.sources()) if record.state.phase is Phase.FAILED
    ]
    assert failed.owner == first._store.owner
