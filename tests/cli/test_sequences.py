"""``castile sequences``, and what changes contexts, beside living owners and without any."""

from __future__ import annotations

import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import castile
from castile.cli import main
from tests.endpoint.conftest import Pairs, pairs
from tests.endpoint.pair import BODY, Pair, body, fast, fault_of, until
from tests.power.promises import numbered

__all__ = ["pairs"]  # the fixture


def run(*arguments: str | Path, given: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(each) for each in arguments], input=given)
    return result.exit_code, result.output


def listed(store: Path, *more: str) -> list[dict[str, object]]:
    status, text = run("sequences", "list", store, "--json", *more)
    assert status == 0, text
    found: list[dict[str, object]] = json.loads(text)
    return found


def under_way(pairs: Pairs, folder: Path, **options: Any) -> tuple[Pair, castile.Client, str]:
    """A client with an answered call and a message that can't get through, and its sequence."""
    pair = pairs(folder=folder, **options)
    client = pair.client(store=folder / "client.db")
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    pair.network.down = True
    client.send_raw("urn:test/Tell", body(2))
    return pair, client, str(client.sequence.report()["identifier"])


@pytest.mark.row("OP-06", "RM-132")
def test_what_is_shown_beside_a_living_owner(pairs: Pairs, tmp_path: Path) -> None:
    _, client, name = under_way(pairs, tmp_path)
    [out] = [each for each in listed(tmp_path / "client.db") if each["direction"] == "out"]
    assert (out["identifier"], out["state"], out["missing"], out["depth"]) == (name, "open", [[2, 2]], 1)
    assert out["owner"] is not None
    status, text = run("sequences", "list", tmp_path / "client.db")
    assert status == 0
    assert name in text
    assert "missing 2" in text
    status, text = run("sequences", "show", tmp_path / "client.db", name)
    assert status == 0
    assert all(word in text for word in ("open", "http://service.test/echo", "owner"))
    status, text = run("sequences", "export", tmp_path / "client.db", name)
    assert status == 0
    [message] = json.loads(text)[0]["messages"]
    assert (message["number"], message["body"]) == (2, body(2).decode())
    assert run("sequences", "show", tmp_path / "client.db", "urn:nobody")[0] == 1
    assert run("sequences", "export", tmp_path / "client.db", "urn:nobody")[0] == 2
    assert run("sequences", "list", tmp_path / "no.db")[0] == 2
    client.close(keep=True)
    [out] = [each for each in listed(tmp_path / "client.db") if each["direction"] == "out"]
    assert out["owner"] is None


@pytest.mark.row("OP-06")
def test_a_living_client_resumes_closes_and_ends_its_sequence(pairs: Pairs, tmp_path: Path) -> None:
    store = tmp_path / "client.db"
    pair, client, name = under_way(pairs, tmp_path, settings=fast(retransmit_interval=60.0))
    until(lambda: len(pair.network.sent) >= 4)  # its own attempt has failed
    pair.network.down = False
    assert run("sequences", "resume", store, name) == (0, "1 messages are due now\n")
    until(lambda: body(2) in pair.bodies)
    status, text = run("sequences", "close", store, name, "--json")
    assert (status, json.loads(text)["done"]) == (0, True)
    until(lambda: name not in {each["identifier"] for each in listed(store)})
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)  # in another one
    second = str(client.sequence.report()["identifier"])
    assert second != name
    pair.network.down = True
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.call_raw, "urn:test/Echo", body(4))
        until(lambda: bool(client.unfinished()))
        assert run("sequences", "terminate", store, second, given="n\n")[0] == 1
        status, text = run("sequences", "terminate", store, second, "--yes")
        assert (status, text) == (0, "ended; in doubt: [2]\n")
        with pytest.raises(castile.InDoubt, match=r"ended by \w+"):
            call.result(10)
    assert run("sequences", "terminate", store, second, "--yes")[0] == 1
    assert run("sequences", "delete", store, second, "--yes")[0] == 1
    assert run("sequences", "delete", store, second, "--yes", "--force") == (0, "deleted\n")
    assert second not in {each["identifier"] for each in listed(store, "--all")}


@pytest.mark.row("OP-06")
def test_without_any_owner_the_store_is_changed_itself(pairs: Pairs, tmp_path: Path) -> None:
    store = tmp_path / "client.db"
    pair, client, name = under_way(pairs, tmp_path)
    client.close(keep=True)
    status, text = run("sequences", "close", store, name)
    assert (status, "the next one" in text) == (0, True)
    pair.network.down = False
    later = pair.client(store=store)
    until(lambda: not [each for each in listed(store) if each["identifier"] == name])
    assert body(2) in pair.bodies
    with sqlite3.connect(store) as connection:
        commands = connection.execute("SELECT verb, done IS NOT NULL FROM castile_commands").fetchall()
    connection.close()
    assert commands == [("close", 1)]
    pair.network.down = True
    later.send_raw("urn:test/Tell", body(3))
    until(lambda: len(listed(store)) >= 1)
    [key] = [str(each["key"]) for each in listed(store) if each["direction"] == "out"]
    later.close(keep=True)
    assert run("sequences", "delete", store, key, "--yes")[0] == 1
    assert run("sequences", "terminate", store, key, "--yes")[0] == 0
    assert run("sequences", "delete", store, key, "--yes", "--force") == (0, "deleted\n")


@pytest.mark.row("OP-06", "RM-74")
@pytest.mark.parametrize("alive", [True, False])
def test_the_peer_is_told_of_an_end_by_hand(pairs: Pairs, tmp_path: Path, alive: bool) -> None:
    """At once by the process that has the sequence, else by the next one."""
    store = tmp_path / "client.db"
    pair, client, name = under_way(pairs, tmp_path)
    if not alive:
        client.close(keep=True)
    pair.network.fate = lambda number, payload: "drop-request" if numbered(payload) else None
    pair.network.down = False
    assert run("sequences", "terminate", store, name, "--yes") == (0, "ended; in doubt: [2]\n")
    if not alive:
        client = pair.client(store=store)
    # A next process gives the context back, too, by which the peer ends the sequence just as well.
    until(
        lambda: (
            {each["state"] for each in listed(pair.store_file, "--all") if each["identifier"] == name}
            <= {"terminated", "terminated" if alive else "failed"}
        )
    )
    pair.network.fate = lambda number, payload: None
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    (doubt,) = client.unfinished()
    assert doubt.number == 2
    with sqlite3.connect(store) as connection:
        left = """SELECT count(*) FROM castile_commands WHERE done IS NULL
            UNION ALL SELECT count(*) FROM castile_outbox WHERE kind = 'terminate'"""
        until(lambda: connection.execute(left).fetchall() == [(0,), (0,)])
    connection.close()


@pytest.mark.row("OP-06")
def test_an_owner_that_doesnt_answer(pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, client, name = under_way(pairs, tmp_path)
    monkeypatch.setattr(client._pump.siblings, "_asked", threading.Event())
    client._pump.siblings._asked.set = lambda: None  # type: ignore[method-assign]
    status, text = run("sequences", "terminate", tmp_path / "client.db", name, "--yes", "--wait", "0.2")
    assert status == 3
    assert "hasn't done it within 0.2 s" in text


@pytest.mark.row("OP-06", "RM-121")
@pytest.mark.parametrize("verb", ["resume", "skip"])
@pytest.mark.parametrize("alive", [True, False])
def test_a_parked_message_is_handled_again_or_skipped(
    pairs: Pairs, tmp_path: Path, verb: str, alive: bool
) -> None:
    broken = threading.Event()
    broken.set()
    runs: list[bytes] = []

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Fragile")
        def fragile(content: bytes) -> None:
            if broken.is_set():
                raise OSError("no database")
            runs.append(content)

    pair = pairs(folder=tmp_path, extend=extend)
    client = pair.client()
    client.send_raw("urn:test/Fragile", body(1))
    client.send_raw("urn:test/Fragile", body(2))
    store = pair.store_file
    until(lambda: any(each.get("parked") == [1] for each in listed(store)))
    name = str(client.sequence.report()["identifier"])
    broken.clear()
    assert client.sequence.wait_until_acknowledged(10)
    if not alive:
        pair.loop.run(pair.service.stop())
    status, _ = run("sequences", verb, store, name)
    assert status == 0
    if not alive:
        pair.start_service()
    wanted = [body(1), body(2)] if verb == "resume" else [body(2)]
    until(lambda: runs == wanted)
    assert run("sequences", verb, store, name)[0] == 1


@pytest.mark.row("OP-06", "OP-07", "CO-17")
@pytest.mark.parametrize("alive", [True, False])
def test_a_service_ends_a_sequence_and_a_context(pairs: Pairs, tmp_path: Path, alive: bool) -> None:
    pair = pairs(folder=tmp_path)
    client = pair.client()
    assert client.call_raw("urn:test/Echo", BODY) == BODY
    name = str(client.sequence.report()["identifier"])
    assert client.context is not None
    context, store = client.context.identifier, pair.store_file
    last = pair.network.requests("Echo")[-1].request
    if not alive:
        pair.loop.run(pair.service.stop())
    assert run("contexts", "cancel", store, context)[0] == 1  # a sequence is bound to it
    assert run("sequences", "terminate", store, name, "--yes") == (0, "ended\n")
    assert run("contexts", "cancel", store, context)[0] == 0
    assert run("contexts", "cancel", store, context)[0] == 1
    assert run("contexts", "renew", store, context)[0] == 1  # a client's business
    assert run("sequences", "delete", store, name, "--yes")[0] == 0
    if not alive:
        pair.start_service()
    answer = pair.receive(last)
    assert (answer.status, fault_of(answer.body)) == (500, "BadContextToken")


@pytest.mark.row("OP-07")
def test_a_living_client_renews_and_cancels_its_context(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(folder=tmp_path)
    client = pair.client(store=tmp_path / "client.db")
    assert client.call_raw("urn:test/Echo", BODY) == BODY
    assert client.context is not None
    name, store = client.context.identifier, tmp_path / "client.db"
    status, text = run("contexts", "renew", store, name)
    assert (status, text) == (0, f"renewed: instance {client.context.instance}\n")
    assert run("contexts", "cancel", store, name)[0] == 1
    assert run("contexts", "cancel", store, name, "--force", "--yes") == (0, "cancelled\n")
    assert client.call_raw("urn:test/Echo", BODY) == BODY  # in a new one
    assert client.context.identifier != name
    assert run("contexts", "cancel", store, "urn:nobody")[0] == 2
