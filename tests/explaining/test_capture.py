"""Which files are a conversation, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from castile.errors import UsageError
from castile.explaining.capture import capture

pytestmark = pytest.mark.row("N07")


def files(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"<x/>")
    return folder


def named(path: Path) -> list[str]:
    return [message.file for message in capture([path]).messages]


def test_a_folder_in_the_order_of_its_names(tmp_path: Path) -> None:
    names = ("999-request.xml", "1000-request.xml", "002-response.xml", "002-request.xml")
    folder = files(tmp_path / "a", *names)
    (folder / "service.wsdl").write_bytes(b"<w/>")
    (folder / "other.xml").write_bytes(b"<w/>")
    assert named(folder) == ["002-request.xml", "002-response.xml", "999-request.xml", "1000-request.xml"]


def test_an_inserted_message_keeps_its_place(tmp_path: Path) -> None:
    folder = files(tmp_path / "a", "05-request.xml", "05b-request.xml", "06-response.xml")
    assert named(folder) == ["05-request.xml", "05b-request.xml", "06-response.xml"]
    ways = [(message.response, message.number) for message in capture([folder]).messages]
    assert ways == [(False, 5), (False, None), (True, 6)]


def test_names_of_no_usual_form(tmp_path: Path) -> None:
    folder = files(tmp_path / "a", "b.xml", "a.xml")
    assert named(folder) == ["a.xml", "b.xml"]
    assert capture([folder]).messages[0].response is None


def test_a_folder_of_folders_is_a_wire_folder(tmp_path: Path) -> None:
    files(tmp_path / "4711", "001-request.xml", "003-request.xml")
    files(tmp_path / "4712", "002-request.xml")
    assert named(tmp_path) == ["001-request.xml", "002-request.xml", "003-request.xml"]


def test_threads_and_pairs(tmp_path: Path) -> None:
    folder = files(tmp_path / "a", "plain-001-request.xml", "plain-001-response.xml", "sct-001-request.xml")
    found = capture([folder])
    assert [message.thread for message in found.messages] == ["plain-", "plain-", "sct-"]
    assert found.paired
    assert not capture([files(tmp_path / "b", "01-request.xml", "02-response.xml")]).paired


def test_empty_files_are_passed_over(tmp_path: Path) -> None:
    folder = files(tmp_path / "a", "01-request.xml")
    (folder / "02-response.xml").write_bytes(b"\n")
    assert named(folder) == ["01-request.xml"]


def test_several_paths_in_the_order_given(tmp_path: Path) -> None:
    folder = files(tmp_path / "a", "01-request.xml", "02-response.xml")
    found = capture([folder / "02-response.xml", folder])
    second = "02-response.xml"
    assert [message.file for message in found.messages] == [second, "01-request.xml", second]
    assert not found.lone
    assert capture([folder / "01-request.xml"]).lone


def test_what_holds_no_message(tmp_path: Path) -> None:
    (tmp_path / "empty.xml").write_bytes(b"")
    (tmp_path / "none").mkdir()
    for path, says in (
        (tmp_path / "missing", "can't be read"),
        (tmp_path / "none", "holds no message"),
        (tmp_path / "empty.xml", "only empty files"),
    ):
        with pytest.raises(UsageError, match=says):
            capture([path])
