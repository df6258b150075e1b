"""The three qualities of service, cell by cell of the table in `docs/delivery.md` (F20).

Cells that have a test elsewhere are named there; these are the others.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

import castile
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import FAMILIES, Pair, body, fast, kill, until
from tests.endpoint.test_loss import schedule

WORK = "urn:test/Work"
QUALITIES = ("in_memory", "durable", "transactional")


def effects(service: castile.Service) -> None:
    """A handler whose effect is a row in the store's own database."""

    @service.raw(WORK, transactional=True)
    def work(content: bytes, ctx: castile.RequestContext) -> bytes:
        assert ctx.transaction is not None
        ctx.transaction.execute("CREATE TABLE IF NOT EXISTS effects (number INTEGER)")
        ctx.transaction.execute("INSERT INTO effects VALUES (?)", (ctx.number,))
        return content


def numbers(pair: Pair) -> list[int]:
    with closing(sqlite3.connect(pair.store_file)) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM effects ORDER BY rowid")]


@pytest.mark.row("F20", "N11", "RM-122")
@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_doubling_and_disorder_lose_nothing(
    pairs: Pairs, tmp_path: Path, family: str, quality: str
) -> None:
    in_memory, transactional = quality == "in_memory", quality == "transactional"
    pair = pairs(family, folder=None if in_memory else tmp_path, extend=effects)
    pair.network.fate = schedule(3)
    client = pair.client(store=None if in_memory else tmp_path / "client.db")
    action = WORK if transactional else "urn:test/Echo"
    for number in range(1, 9):
        assert client.call_raw(action, body(number)) == body(number)
    client.close()
    if transactional:
        assert numbers(pair) == list(range(1, 9))
    else:
        assert pair.bodies == [body(number) for number in range(1, 9)]


@pytest.mark.row("F20")
def test_in_memory_a_sender_that_dies_takes_its_messages_with_it(pairs: Pairs) -> None:
    """Nobody was promised more: the next process knows nothing, and repeats nothing."""
    pair = pairs()
    client = pair.client(quality="in_memory")
    client.call_raw("urn:test/Echo", body(1))
    pair.network.down = True
    client.send_raw("urn:test/Tell", body(2))
    kill(client)
    pair.network.down = False
    with pair.client(quality="in_memory") as client:
        assert client.unfinished() == []
        assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    assert pair.bodies == [body(1), body(3)]


@pytest.mark.row("F20", "RM-134")
def test_in_memory_a_client_that_closes_says_what_is_in_doubt(pairs: Pairs) -> None:
    pair = pairs(settings=fast(close_timeout=0.2))
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    pair.network.down = True
    client.send_raw("urn:test/Tell", body(2))
    with pytest.raises(castile.InDoubt) as told:
        client.close()
    assert told.value.numbers == (2,)
    assert set(told.value.digests) == {2}


@pytest.mark.row("F20", "RM-19", "RM-122")
@pytest.mark.parametrize("family", FAMILIES)
def test_durable_a_peer_that_is_away_for_long_loses_nothing(
    pairs: Pairs, tmp_path: Path, family: str
) -> None:
    """Not even where no sequence could be made for longer than `create_timeout`."""
    pair = pairs(family)
    client = pair.client(store=tmp_path / "client.db", settings=fast(create_timeout=0.1))
    pair.network.down = True
    client.send_raw("urn:test/Tell", body(1))
    until(lambda: len(pair.network.sent) > 3)
    time.sleep(0.2)
    pair.network.down = False
    assert client.sequence.wait_until_acknowledged(20)
    client.close()
    assert pair.settled(1) == [body(1)]


@pytest.mark.row("F20")
def test_a_callers_own_rollback_takes_no_message_back(pairs: Pairs, tmp_path: Path) -> None:
    """Nor is one lost by it: `send_raw` is a commit of its own."""
    pair = pairs(folder=tmp_path)
    client = pair.client(store=tmp_path / "client.db")
    with closing(sqlite3.connect(tmp_path / "own.db")) as own:
        own.execute("CREATE TABLE mine (number INTEGER)")
        own.commit()
        own.execute("INSERT INTO mine VALUES (1)")
        client.send_raw("urn:test/Tell", body(1))
        own.rollback()
    assert client.sequence.wait_until_acknowledged(20)
    client.close()
    until(lambda: pair.bodies == [body(1)])


@pytest.mark.row("F20")
def test_a_quality_that_cannot_be_had_is_refused(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs()
    with pytest.raises(castile.UsageError, match="store="):
        pair.client(quality="durable")
    with pytest.raises(castile.UsageError, match="transactional=True"):
        pair.client(quality="transactional", store=tmp_path / "client.db")
    with pytest.raises(castile.UsageError, match="in_memory, durable"):
        pair.client(quality="best")
