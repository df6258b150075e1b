"""Typed calls by a WSDL: `call`, `send`, faults with their details, `preview` (CL-20 to CL-22)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import castile
from castile.transport.asgi import Arrival
from castile.transport.http import HTTPRequest, HTTPResponse
from tests.endpoint.pair import ADDRESS, FAST, USERS, Loop, action_of, certificate, until
from tests.service.plain import EUR, bank, served
from tests.service.test_secured import Bank, ran
from tests.typed.contracts import FOLDER

WSDL = FOLDER / "bank.wsdl"
TRANSFER: dict[str, Any] = {
    "debtor": "AB1234",
    "creditor": "CD5678",
    "amount": EUR,
    "when": datetime(2026, 1, 31, tzinfo=UTC),
}


@dataclass
class Wire:
    """Between a client and a service that is served by hand, with what HTTP says of each message."""

    service: castile.Service
    loop: Loop
    sent: list[HTTPRequest]

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        self.sent.append(request)
        headers = {name.lower(): value for name, value in request.headers}
        content_type = headers["content-type"]
        label = headers.get("soapaction") or content_type.partition("action=")[2]
        arrival = Arrival("/bank", content_type.partition(";")[0], label.strip('"') or None)
        answer = self.loop.run(self.service.receive(request.body, arrival))
        return HTTPResponse(answer.status, answer.body, answer.content_type, None)

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        return await asyncio.to_thread(self.post, request, timeout)

    def close(self) -> None: ...


@pytest.fixture
def wire() -> Iterator[Wire]:
    service = bank()

    @service.before
    def limit(call: Any) -> None:
        if call.operation == "Transfer" and call.arguments["memo"] == "refuse":
            raise castile.Fault("Sender", "No money.", {"Refused": {"balance": EUR, "limit": EUR}})

    with served(service) as app:
        yield Wire(service, app.loop, [])


@pytest.mark.row("CL-20")
@pytest.mark.row("CL-22")
@pytest.mark.parametrize("port", ["Soap11", "Soap12"])
def test_a_plain_client_of_a_wsdl(wire: Wire, port: str) -> None:
    """The WSDL has no policy: no header is sent that nobody asked for."""
    with castile.Client(WSDL, port=port, http=wire) as client:
        assert client.call("Transfer", TRANSFER, memo="x") == "AB1234>CD5678:1.00EUR:2026:x"
        assert client.call("Ping") == 7
        statement: Any = client.call("Statement", account="AB1234", kinds=["in"])
        assert statement.entry[0].text == "AB1234"
        client.send("Note", text="hello")
        assert client.call("Enrol", person=[{"name": "Ada", "born": "1815-12-10"}], mail="a:b") is None
    assert all(b"Header" not in request.body for request in wire.sent)
    labels = [dict(request.headers) for request in wire.sent]
    if port == "Soap11":
        assert labels[0]["SOAPAction"] == '"urn:bank/Transfer"'
        assert labels[1]["SOAPAction"] == '""'


def test_asyncio(wire: Wire) -> None:
    async def main() -> None:
        async with castile.AsyncClient(WSDL, port="Soap12", http=wire) as client:
            assert await client.call("Transfer", TRANSFER, memo="x") == "AB1234>CD5678:1.00EUR:2026:x"
            await client.send("Note", text="hello")
            with pytest.raises(castile.FaultReceived) as refused:
                await client.call("Transfer", TRANSFER, memo="refuse")
            assert refused.value.name == "Refused"
            assert b"CD5678" in (await client.preview("Transfer", TRANSFER)).message

    asyncio.run(main())


@pytest.mark.row("CL-20")
def test_signatures_are_twins() -> None:
    for name in ("call", "send", "preview"):
        one, other = (
            inspect.signature(getattr(kind, name)) for kind in (castile.Client, castile.AsyncClient)
        )
        assert one == other


@pytest.mark.row("CL-22")
def test_a_declared_fault_is_typed(wire: Wire) -> None:
    with castile.Client(WSDL, port="Soap12", http=wire) as client:
        with pytest.raises(castile.FaultReceived) as refused:
            client.call("Transfer", TRANSFER, memo="refuse")
        detail: Any = refused.value.detail
        assert (refused.value.name, detail.limit.currency) == ("Refused", "EUR")
        with pytest.raises(castile.FaultReceived) as other:
            client.call_raw("urn:bank/Transfer", b'<Transfer xmlns="urn:bank"/>')
        assert (other.value.name, other.value.detail) == (None, None)


def test_what_a_caller_gets_wrong(wire: Wire) -> None:
    with castile.Client(WSDL, port="Soap12", http=wire) as client:
        for call, told in (
            (lambda: client.call("Transfers"), "no operation 'Transfers'; it has: Transfer, Statement"),
            (lambda: client.call("Note", text="x"), "Note is one-way by the WSDL: use client.send"),
            (lambda: client.send("Ping"), "Ping is answered by the WSDL: use client.call"),
            (
                lambda: client.call("Transfer", TRANSFER, amounts=1),
                "no argument 'amounts'; it takes: debtor,",
            ),
            (lambda: client.call("Statement", account="x"), "/Statement/account"),
        ):
            with pytest.raises(castile.UsageError, match=told):
                call()  # type: ignore[no-untyped-call]
    assert wire.sent == []
    with pytest.raises(
        castile.UsageError, match=r"say which by service= and port=: Bank/Soap12 .*; Bank/Soap11"
    ):
        castile.Client(WSDL, http=wire)
    plain = castile.EndpointPolicy.of(secure=False)
    with (
        castile.Client(ADDRESS, policy=plain) as client,
        pytest.raises(castile.UsageError, match="need a WSDL"),
    ):
        client.call("Ping")
    with pytest.raises(castile.UsageError, match="are of a WSDL"):
        castile.Client(ADDRESS, policy=plain, port="Soap12")


def test_an_answer_that_breaks_the_schema() -> None:
    loose = bank(validate="off")
    loose._operations._offered.clear()  # type: ignore[union-attr]
    loose._partial = True
    loose.operation(name="Transfer")(lambda **arguments: "x")
    with served(loose) as app:
        wire = Wire(loose, app.loop, [])
        answer = HTTPResponse(
            200,
            b'<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body>'
            b'<Pong xmlns="urn:bank">seven</Pong></s:Body></s:Envelope>',
            "application/soap+xml",
            None,
        )
        wire.post = lambda request, timeout: answer  # type: ignore[method-assign]
        told = "/Pong: the value is not a valid value"
        with (
            castile.Client(WSDL, port="Soap12", http=wire) as client,
            pytest.raises(castile.PeerError, match=told),
        ):
            client.call("Ping")
        with castile.Client(WSDL, port="Soap12", http=wire, validate="off") as client:
            assert client.call("Ping") is None


def secured(pair: Bank, **options: Any) -> castile.Client:
    client = castile.Client(
        WSDL,
        port="Soap12",
        policy=pair.policy,
        to_alias=ADDRESS,
        credentials=castile.Username("ada", USERS["ada"]),
        service_certificate=certificate(),
        http=pair.network,
        settings=FAST,
        **options,
    )
    pair.clients.append(client)
    return client


@pytest.mark.row("CL-21")
def test_calls_and_keys_under_security(tmp_path: Path) -> None:
    ran.clear()
    pair = Bank(castile.EndpointPolicy.of("1.3"), folder=tmp_path)
    try:
        with secured(pair, store=tmp_path / "client.db") as client:
            client.send("Note", text="first")
            assert client.call("Transfer", TRANSFER, key="invoice-7") == "1.00"
            assert client.call("Transfer", TRANSFER, key="invoice-7") == "1.00"
            until(lambda: "first" in ran)
        with secured(pair, store=tmp_path / "client.db") as client:
            assert client.call("Transfer", TRANSFER, key="invoice-7") == "1.00"
            with pytest.raises(castile.UsageError):
                client.call("Transfer", TRANSFER, memo="other", key="invoice-7")
        assert [each for each in ran if each != "first"] == [("ada", 2, "Transfer")]
    finally:
        pair.close()


@pytest.mark.row("CL-21")
@pytest.mark.parametrize("reliable", [True, False])
def test_a_preview_uses_no_number(reliable: bool) -> None:
    ran.clear()
    pair = Bank(castile.EndpointPolicy.of("1.3", reliable=reliable))
    try:
        with secured(pair) as client:
            before = client.preview("Transfer", TRANSFER)
            assert pair.network.sent == []
            assert client.call("Transfer", TRANSFER) == "1.00"
            after = client.preview("Transfer", TRANSFER)
            count = len(pair.network.sent)
            for shown in (before, after):
                assert (b"CD5678" in shown.message, b"CD5678" in shown.protected) == (True, False)
                assert action_of(shown.message) == "urn:bank/Transfer"
                assert shown.protected.count(b"EncryptedData") >= 2
            assert (b"MessageNumber>2<" in after.message) is reliable
            assert len(pair.network.sent) == count
            assert client.call("Transfer", TRANSFER) == "1.00"
        numbers = [number for _, number, _ in ran]
        assert numbers == ([1, 2] if reliable else [None, None])
    finally:
        pair.close()
