"""Services made from the WSDLs of recorded ones, and nothing else but their keys (issue of the typed
layer): they take what was sent to those, and publish what those published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import castile
from castile.config import Limits
from castile.policy.parse import read as policy_of
from castile.policy.wsdl import describe
from castile.transport.documents import Loader
from castile.typed import Codec, read
from tests.edges.test_asgi import asked, scope
from tests.endpoint.pair import Loop
from tests.replay.recording import folders, load
from tests.replay.server import Server


class ByWSDL(Server):
    """Its operations are functions, its policy is the WSDL's."""

    def offered(self, **options: Any) -> castile.Service:
        service = castile.Service(self.recording.wsdl, **options)
        contract = read(Loader().load(self.recording.wsdl))
        self.codec = Codec(contract, Limits())
        self.typed: list[dict[str, object]] = []
        for operation in contract.ports[0].operations.values():
            values = self.codec.operation(operation)

            def answer(values: Any = values, **arguments: object) -> object:
                self.typed.append(arguments)
                content = self.handle(b"")
                return values.decode_response(content) if content is not None else None

            service.operation(name=operation.name)(answer)
        return service


def by_wsdl(folder: Path) -> bool:
    return (folder / "service.wsdl").exists() and "-sc-" in folder.name and "-nego-" not in folder.name


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


FOLDERS = [folder for folder in folders() if by_wsdl(folder)]


@pytest.mark.row("SV-01", "SV-25")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_captured_requests(folder: Path, loop: Loop) -> None:
    recording = load(folder)
    server = ByWSDL(recording, loop)
    answers = server.play()
    assert [(each.request, each.verdict) for each in answers] == [
        (each.request, each.expected) for each in answers
    ]
    assert server.typed
    assert server.secrets >= set(recording.secrets)


@pytest.mark.row("SV-08", "SV-09")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_is_published_says_the_same(folder: Path, tmp_path: Path, loop: Loop) -> None:
    server = ByWSDL(load(folder), loop)
    [given] = describe(Loader().load(folder / "service.wsdl")).ports
    path = tmp_path / "published.wsdl"
    answer = asked(
        server.service.asgi(),
        scope("GET", path="/echo", headers={"host": "h.example"}, query_string=b"singleWsdl"),
    )
    path.write_bytes(answer.body)
    [published] = describe(Loader().load(path)).ports
    assert published.address == "http://h.example/echo"
    assert policy_of(published).policy == policy_of(given).policy
    operations = tuple(replace(each, place=given.place) for each in published.operations)
    assert operations == tuple(replace(each, place=given.place) for each in given.operations)
    assert published.binding == given.binding
