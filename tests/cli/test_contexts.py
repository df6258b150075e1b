"""``castile contexts``: what a person sees of a store's contexts, and what never shows."""

from __future__ import annotations

import json
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
    status, text = run("list", pair.store_file)
    assert (status, "holds the store" in text or "open already" in text) == (3, True)
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
