"""`AsyncClient` is `Client`, awaited: the same walks, and a loop that nothing holds up."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import castile
from castile import async_client, client
from tests.endpoint.pair import FAMILIES, FAST, USERS, body, certificate, identity, until
from tests.served import served


class Bank:
    """A service, what it got, and how long it takes."""

    def __init__(self, family: str) -> None:
        self.policy = castile.EndpointPolicy.of(family)
        self.received: list[bytes] = []
        self.numbers: list[int | None] = []
        self.seconds = 0.0
        self.service = castile.Service(
            policy=self.policy,
            credentials=castile.Certificate(identity("service")),
            users=USERS,
            settings=FAST,
        )
        self.service.raw("urn:test/Echo")(self.echo)
        self.service.raw("urn:test/Tell")(self.tell)
        self.url = ""

    def echo(self, content: bytes, ctx: castile.RequestContext) -> bytes:
        time.sleep(self.seconds)
        self.tell(content, ctx)
        return content

    def tell(self, content: bytes, ctx: castile.RequestContext) -> None:
        self.received.append(content)
        self.numbers.append(ctx.number)

    def arguments(self, **options: Any) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "credentials": castile.Username("ada", USERS["ada"]),
            "service_certificate": certificate(),
            "settings": FAST,
        } | options

    def client(self, **options: Any) -> castile.AsyncClient:
        return castile.AsyncClient(self.url, **self.arguments(**options))


@pytest.fixture(params=FAMILIES)
def bank(request: pytest.FixtureRequest) -> Iterator[Bank]:
    made = Bank(request.param)
    with served(made.service.asgi()) as made.url:
        yield made


TWINS = {
    client.Client: async_client.AsyncClient,
    client.ClientContext: async_client.AsyncContext,
    client.ClientSequence: async_client.AsyncSequence,
}
CALLED_OTHERWISE = {"close": "aclose"}


@pytest.mark.row("CL-20")
@pytest.mark.parametrize("sync", TWINS, ids=lambda each: each.__name__)
def test_both_clients_have_the_same_methods(sync: type) -> None:
    twin = TWINS[sync]

    def public(kind: type) -> dict[str, Any]:
        return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_")}

    ours, theirs = public(sync), public(twin)
    names = {CALLED_OTHERWISE.get(name, name) if sync is client.Client else name for name in ours}
    assert names == set(theirs)
    assert inspect.signature(sync) == inspect.signature(twin)
    for name, method in ours.items():
        other = theirs[CALLED_OTHERWISE.get(name, name) if sync is client.Client else name]
        if isinstance(method, property):
            assert isinstance(other, property)
            continue
        if method is other:  # what waits for nothing is the same in both
            continue
        if name == "sequence_for":  # it only names one
            assert inspect.signature(method).parameters == inspect.signature(other).parameters
            continue
        assert inspect.iscoroutinefunction(other), name
        assert not inspect.iscoroutinefunction(method), name
        assert inspect.signature(method) == inspect.signature(other), name


@pytest.mark.row("CL-20", "CL-26")
def test_calls_messages_and_the_sequence(bank: Bank, tmp_path: Path) -> None:
    async def main() -> None:
        async with bank.client(store=tmp_path / "c.db") as client:
            answers = await asyncio.gather(
                *(client.call_raw("urn:test/Echo", body(number)) for number in range(40))
            )
            assert answers == [body(number) for number in range(40)]
            await client.send_raw("urn:test/Tell", body(99))
            assert await client.sequence.wait_until_acknowledged(10)
            context = client.context
            assert context is not None
            assert context.state == "usable"
            await context.renew()
            assert context.instance is not None
            assert await client.call_raw("urn:test/Echo", body(100), key="a") == body(100)
            assert await client.call_raw("urn:test/Echo", body(100), key="a") == body(100)
            assert (await client.sequence.report())["state"] == "open"
            assert await client.unfinished() == []
            assert await client.sequence.wait_until_completed(10)

    asyncio.run(main())
    until(lambda: len(bank.received) == 42)
    assert sorted(number or 0 for number in bank.numbers) == list(range(1, 43))


@pytest.mark.row("CL-20")
def test_nothing_is_opened_before_it_is_entered(bank: Bank, tmp_path: Path) -> None:
    made = bank.client(store=tmp_path / "c.db", service_certificate=tmp_path / "not-there.pem")
    assert list(tmp_path.iterdir()) == []

    async def main() -> None:
        with pytest.raises(castile.UsageError, match="async with"):
            await made.call_raw("urn:test/Echo", body(1))
        with pytest.raises(castile.UsageError, match=r"not-there\.pem"):
            async with made:
                pass

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.row("CL-26", "CL-49")
def test_a_waiting_call_holds_up_nothing_else(bank: Bank) -> None:
    async def main() -> None:
        async with bank.client() as client:
            await client.call_raw("urn:test/Echo", body(1))
            bank.seconds = 0.5
            call = asyncio.create_task(client.call_raw("urn:test/Echo", body(2)))
            longest, last = 0.0, time.monotonic()
            while not call.done():
                await asyncio.sleep(0.005)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            assert await call == body(2)
            assert longest < 0.3
            bank.seconds = 1.0
            with pytest.raises(castile.InDoubt, match="message 3"):
                await client.call_raw("urn:test/Echo", body(3), timeout=0.2)
            assert [each.number for each in await client.unfinished()] in ([3], [None])

    asyncio.run(main())


@pytest.mark.row("CL-49", "CL-26")
@pytest.mark.parametrize("seed", range(3))
def test_a_cancelled_call_leaves_a_store_that_can_go_on(bank: Bank, tmp_path: Path, seed: int) -> None:
    """Cancelled at any moment, from the bootstrap on: every message that has a number arrives, once,
    in order, and whoever calls after it isn't held up."""
    chance = random.Random(seed)
    bank.seconds = 0.005
    store, replies = tmp_path / "c.db", list[castile.client.Reply]()

    async def main() -> None:
        async with bank.client(store=store, on_reply=replies.append) as client:
            for number in range(30):
                call = asyncio.create_task(client.call_raw("urn:test/Echo", body(number), key=str(number)))
                if number % 5 == 4:
                    assert await call == body(number)
                    continue
                await asyncio.sleep(chance.random() * 0.03)
                call.cancel()
                with contextlib.suppress(asyncio.CancelledError):  # or it was faster
                    assert await call == body(number)
            assert await client.sequence.wait_until_acknowledged(10)
            while client._pump._leased:  # by threads that hear the last answers
                await asyncio.sleep(0.01)
            assert not client._pump.callers.waiting
            for number in range(0, 30, 3):  # the key finds what came of it, or sends it now
                assert await client.call_raw("urn:test/Echo", body(number), key=str(number)) == body(number)

    asyncio.run(main())
    assert len(set(bank.received)) == len(bank.received)
    assert bank.numbers == list(range(1, len(bank.numbers) + 1))
