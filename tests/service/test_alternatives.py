"""A request may satisfy any alternative that a service's own WSDL publishes (features PO-07)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

import castile
from tests.service.plain import OPERATIONS, served
from tests.typed.contracts import BODIES, FOLDER

POLICY: Final = '<wsp:Policy xmlns:wsp="http://www.w3.org/ns/ws-policy">{}</wsp:Policy>'
PING: Final = "urn:bank:Bank:PingRequest"


def service(folder: Path, policy: str) -> castile.Service:
    """The bank, with this policy at its SOAP 1.2 binding."""
    for each in FOLDER.iterdir():
        (folder / each.name).write_bytes(each.read_bytes())
    place = '<soap12:binding transport="http://schemas.xmlsoap.org/soap/http"/>'
    text = (folder / "bank.wsdl").read_text()
    assert place in text
    (folder / "bank.wsdl").write_text(text.replace(place, POLICY.format(policy) + place))
    made = castile.Service(folder / "bank.wsdl")
    for name, function in OPERATIONS.items():
        made.operation(name=name)(function)
    return made


@pytest.mark.row("PO-07")
def test_optional_addressing(tmp_path: Path) -> None:
    with served(service(tmp_path, '<wsam:Addressing wsp:Optional="true"/>')) as app:
        for action in (None, PING):
            answer = app.ask(BODIES["Ping"], action=action)
            assert (answer.status, answer.body[0].text) == (200, "7")
            assert any("Action" in str(each.tag) for each in answer.headers) == (action is not None)


@pytest.mark.row("PO-07")
def test_what_no_alternative_has_is_refused(tmp_path: Path) -> None:
    with served(service(tmp_path, "<wsam:Addressing/>")) as app:
        assert app.ask(BODIES["Ping"], action=PING).status == 200
        assert app.ask(BODIES["Ping"]).status == 500
