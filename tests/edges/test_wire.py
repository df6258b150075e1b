"""The wire folder and the key log: what is written, where, and that neither ever harms."""

from __future__ import annotations

import json
import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybase64
import pytest

from castile.transport.wire import KeyLog, WireLog


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def exchange(log: WireLog, request: bytes, response: bytes = b"") -> int | None:
    one = log.exchange()
    one.request(request)
    one.response(response)
    return one.number


def test_both_are_off_unless_asked_for() -> None:
    assert WireLog.from_environment({}) is None
    assert WireLog.from_environment({"CASTILE_WIRE": ""}) is None
    assert KeyLog.from_environment({}) is None


def test_both_are_announced_at_every_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "castile.wire"):
        WireLog.from_environment({"CASTILE_WIRE": str(tmp_path / "wire")})
        KeyLog.from_environment({"CASTILE_KEYLOG": str(tmp_path / "keys")})
    assert [record.name for record in caplog.records] == ["castile.wire"] * 2
    assert "CASTILE_WIRE" in caplog.messages[0]
    assert "CASTILE_KEYLOG" in caplog.messages[1]


def test_the_environment_of_the_process_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASTILE_WIRE", str(tmp_path))
    monkeypatch.setenv("CASTILE_KEYLOG", str(tmp_path / "keys"))
    assert WireLog.from_environment() is not None
    assert KeyLog.from_environment() is not None


def test_exchanges_are_numbered_in_the_order_sent(tmp_path: Path) -> None:
    log = WireLog.from_environment({"CASTILE_WIRE": str(tmp_path)})
    assert log is not None
    first, second = log.exchange(), log.exchange()
    second.request(b"<two/>")
    first.request(b"<one/>")
    first.response(b"<one-answer/>")
    second.response(b"")  # 202: no file
    folder = tmp_path / str(os.getpid())
    assert names(folder) == ["001-request.xml", "002-request.xml", "002-response.xml"]
    assert (folder / "001-request.xml").read_bytes() == b"<two/>"
    assert (folder / "002-response.xml").read_bytes() == b"<one-answer/>"


def test_numbering_goes_on_after_a_restart(tmp_path: Path) -> None:
    earlier = tmp_path / "1"  # the folder of an earlier life with another process id
    earlier.mkdir()
    (earlier / "041-request.xml").write_bytes(b"<old/>")
    (earlier / "notes.xml").write_bytes(b"")
    environment = {"CASTILE_WIRE": str(tmp_path)}
    log = WireLog.from_environment(environment)
    again = WireLog.from_environment(environment)
    assert log is not None
    assert again is not None
    assert exchange(log, b"<a/>") == 42
    assert exchange(again, b"<b/>", b"<c/>") == 43
    assert exchange(log, b"<d/>") == 44
    folder = tmp_path / str(os.getpid())
    assert names(folder) == ["042-request.xml", "043-request.xml", "043-response.xml", "044-request.xml"]


def test_a_folder_of_ones_own_holds_the_files_itself(tmp_path: Path) -> None:
    (tmp_path / "1000-response.xml").write_bytes(b"")
    assert exchange(WireLog(tmp_path), b"<a/>") == 1001
    assert names(tmp_path) == ["1000-response.xml", "1001-request.xml"]


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    log = WireLog.from_environment({"CASTILE_WIRE": str(tmp_path / "new" / "wire")})
    assert log is not None
    exchange(log, b"<a/>", b"<b/>")
    keys = KeyLog(tmp_path / "keys")
    keys.write("urn:uuid:1", b"secret")
    folder = tmp_path / "new" / "wire" / str(os.getpid())
    for path in (*folder.iterdir(), keys.path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_threads_never_share_a_number(tmp_path: Path) -> None:
    logs = [WireLog(tmp_path), WireLog(tmp_path)]
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda n: exchange(logs[n % 2], b"%d" % n, b"%d" % n), range(200)))
    assert sorted(number or 0 for number in numbers) == list(range(1, 201))
    for path in tmp_path.glob("*-request.xml"):
        assert path.read_bytes() == path.with_name(path.name.replace("request", "response")).read_bytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_a_folder_of_its_own(tmp_path: Path) -> None:
    log = WireLog.from_environment({"CASTILE_WIRE": str(tmp_path)})
    assert log is not None
    exchange(log, b"<parent/>")
    child = os.fork()
    if child == 0:
        exchange(log, b"<child/>")
        os._exit(0)
    os.waitpid(child, 0)
    exchange(log, b"<parent/>")
    assert (tmp_path / str(child) / "002-request.xml").read_bytes() == b"<child/>"
    assert names(tmp_path / str(os.getpid())) == ["001-request.xml", "002-request.xml"]


def test_a_folder_that_can_t_be_written_costs_the_record_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    log = WireLog(tmp_path / "file" / "wire")
    keys = KeyLog(tmp_path / "file" / "keys")
    with caplog.at_level(logging.WARNING, "castile.wire"):
        assert [exchange(log, b"<a/>", b"<b/>") for _ in range(3)] == [None] * 3
        keys.write("urn:uuid:1", b"secret")
        keys.write("urn:uuid:1", b"secret")
    assert len(caplog.messages) == 2  # said once each
    assert not any("secret" in message for message in caplog.messages)


def test_the_key_log_is_key_files_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    KeyLog(path).write("urn:uuid:1", b"\x00\x01\x02")
    KeyLog(path).write("urn:uuid:1", b"\x03", "urn:uuid:2")
    KeyLog(path).write('urn:"x"\n', b"\x04", "")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"contexts": {"urn:uuid:1": pybase64.b64encode(b"\x00\x01\x02").decode()}},
        {"contexts": {"urn:uuid:1": {"urn:uuid:2": "Aw=="}}},
        {"contexts": {'urn:"x"\n': "BA=="}},
    ]
