"""What fails while it opens its store lets the store go, so that it can be tried again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import castile
from castile.endpoint import recover
from castile.errors import StoreFull

PLAIN = castile.EndpointPolicy.of("1.3", secure=False)


def full(*_: object) -> None:
    raise StoreFull("the disk is full")


def test_a_client_that_can_t_recover_lets_its_store_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(recover, "take_over", full)
        with pytest.raises(StoreFull):
            castile.Client("http://service.test/", policy=PLAIN, store=tmp_path / "client.db")
    castile.Client("http://service.test/", policy=PLAIN, store=tmp_path / "client.db").close()


def test_a_service_that_can_t_recover_starts_at_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = castile.Service(policy=PLAIN, store=tmp_path / "service.db")

    async def start_twice() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(recover, "interrupted_deliveries", full)
            with pytest.raises(StoreFull):
                await service.start()
        await service.start()
        assert service.store.location is not None
        await service.stop()

    asyncio.run(start_twice())
