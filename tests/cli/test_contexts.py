"""``castile contexts``: what a person sees of a store's contexts, and what never shows."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from castile.cli import main
from tests.endpoint.conftest import Pairs, pairs
from tests.endpoint.pair import ADDRESS, BODY, Moved

__all__ = ["pairs"]  # the fixture


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["contexts", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.mark.row("OP-07", "F11")
def test_contexts_of_both_sides(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(folder=tmp_path)
    client = pair.client(store=tmp_path / "client.db")
    client.call_raw("urn:test/Echo", BODY)
    assert client.context is not None
    client.context.renew()
    client.call_raw("urn:test/Echo", BODY)
    context = client.context
    name, instance = context.identifier, context.instance
    secrets = [key.secret for key in pair.party._stored_keys(name)]
    client.close(keep=True)
    pair.loop.run(pair.service.stop())
    for store, side, bound in (("client.db", "client", 2), ("service.db", "service", 2)):
        status, text = run("list", tmp_path / store)
        assert status == 0
        assert name in text
        assert all(word in text for word in ("usable", side, ADDRESS, "ada", str(instance)))
        status, text = run("show", tmp_path / store, name, "--json")
        assert status == 0
        shown = json.loads(text)
        assert (shown["identifier"], shown["principal"], shown["side"]) == (name, "ada", side)
        assert (shown["endpoint"], shown["edition"]) == (ADDRESS, "WS-SC 1.3")
        assert [key["instance"] for key in shown["instances"]] == [None, instance]
        assert len(shown["sequences"]) == bound
        plain = run("show", tmp_path / store, name)[1] + run("list", tmp_path / store, "--json")[1] + text
        for secret in secrets:
            assert secret.hex() not in plain
            assert repr(secret) not in plain
    assert len(secrets) == 2


@pytest.mark.row("OP-07")
def test_what_is_not_there(pairs: Pairs, tmp_path: Path) -> None:
    assert run("list", tmp_path / "no.db")[0] == 2
    assert not (tmp_path / "no.db").exists()
    (tmp_path / "other").write_text("no store")
    assert run("list", tmp_path / "other")[0] == 3
    pair = pairs(folder=tmp_path)
    pair.loop.run(pair.service.stop())
    assert run("show", pair.store_file, "urn:nobody")[0] == 1
    assert run("list", pair.store_file) == (0, "no security contexts\n")
    assert run("list", pair.store_file, "--json") == (0, "[]\n")


@pytest.mark.row("OP-07")
def test_ended_ones_are_listed_on_request(pairs: Pairs, tmp_path: Path) -> None:
    clock = Moved()
    pair = pairs(folder=tmp_path, clock=clock)
    with pair.client() as client:
        client.call_raw("urn:test/Echo", BODY)
    pair.loop.run(pair.service.stop())
    assert run("list", pair.store_file) == (0, "no security contexts\n")
    status, text = run("list", pair.store_file, "--all", "--json")
    assert (status, [each["state"] for each in json.loads(text)]) == (0, ["cancelled"])
    assert json.loads(text)[0]["ended"] is not None


@pytest.mark.row("OP-07")
def test_an_open_store_is_read_and_left_alone(pairs: Pairs, tmp_path: Path) -> None:
    """While its owner works: the last commit is seen, no byte of the store changes, no lock is taken."""
    pair = pairs(folder=tmp_path)
    client = pair.client()
    client.call_raw("urn:test/Echo", BODY)
    assert client.context is not None

    def octets() -> dict[str, bytes]:
        files = tmp_path.glob("service.db*")
        return {path.name: path.read_bytes() for path in files if not path.name.endswith("-shm")}

    before = octets()
    status, text = run("list", pair.store_file)
    assert (status, client.context.identifier in text) == (0, True)
    assert run("show", pair.store_file, client.context.identifier, "--json")[0] == 0
    assert octets() == before
    assert client.call_raw("urn:test/Echo", BODY) == BODY
    client.context.cancel(force=True)
    assert run("list", pair.store_file) == (0, "no security contexts\n")
    client.close(keep=True)
    pair.restart_service()


@pytest.mark.row("OP-07")
def test_a_closed_store_is_left_as_it_is(pairs: Pairs, tmp_path: Path) -> None:
    """Damaged rows are left out and not noted; an older schema isn't brought up to date."""
    pair = pairs(folder=tmp_path)
    client = pair.client()
    client.call_raw("urn:test/Echo", BODY)
    client.close(keep=True)
    pair.loop.run(pair.service.stop())
    store = pair.store_file
    files = {path.name for path in tmp_path.iterdir()}
    assert len(json.loads(run("list", store, "--json")[1])) == 1
    assert {path.name for path in tmp_path.iterdir()} == files
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE castile_contexts SET expires = expires + 1")
    before = store.read_bytes()
    assert run("list", store) == (0, "no security contexts\n")
    assert store.read_bytes() == before
    with closing(sqlite3.connect(store)) as connection, connection:
        assert connection.execute("SELECT count(*) FROM castile_damage").fetchone() == (0,)
        connection.execute("PRAGMA user_version = 0")
    status, text = run("list", store)
    assert (status, "has schema none" in text) == (3, True)
    store.with_name("service.db.key").write_text("00" * 32)
    assert run("list", store)[0] == 3
