"""`zeep.Client` with castile's transport, against an endpoint with security and reliable messaging."""

from __future__ import annotations

import asyncio
import contextlib
import io
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zeep
from lxml import etree
from zeep.plugins import HistoryPlugin
from zeep.wsa import WsAddressingPlugin
from zeep.wsdl import Document
from zeep.wsse.username import UsernameToken
from zeep.wsse.utils import WSSE, get_security_header

import castile
import castile.zeep
from tests.endpoint.pair import FAMILIES, USERS, until
from tests.typed.contracts import FOLDER
from tests.zeep.banks import SOAP12, TRANSFER, Bank, Wire, bank

ANSWER = "12.50 EUR rent"


@pytest.fixture(scope="module", params=[(family, rm) for family in FAMILIES for rm in (True, False)], ids=str)
def secured(request: pytest.FixtureRequest) -> Iterator[Bank]:
    family, reliable = request.param
    with bank(castile.EndpointPolicy.of(family, reliable=reliable)) as made:
        yield made


@pytest.fixture(scope="module")
def one() -> Iterator[Bank]:
    with bank() as made:
        yield made


@pytest.fixture
def wire() -> Iterator[Wire]:
    with contextlib.closing(Wire()) as made:
        yield made


class Proxy:
    """zeep's, with the receipt of a transfer taken out of what comes back: the WSDL declares a header
    too, so that zeep gives both."""

    def __init__(self, proxy: Any) -> None:
        self.proxy = proxy

    def __getattr__(self, name: str) -> Any:
        return self.proxy[name]

    def Transfer(self, **arguments: Any) -> Any:  # noqa: N802
        found = self.proxy.Transfer(**arguments)
        if asyncio.iscoroutine(found):
            return awaited(found)
        return found.body.receipt if hasattr(found, "body") else found


async def awaited(found: Any) -> Any:
    return (await found).body.receipt


def service(client: Any) -> Proxy:
    return Proxy(client.bind(next(iter(client.wsdl.services)), SOAP12))


@pytest.mark.row("N05", "CL-01", "CL-03", "CL-07", "CL-08")
def test_every_kind_of_call(secured: Bank, wire: Wire) -> None:
    history = HistoryPlugin()
    with castile.zeep.Transport(http=wire, **secured.options()) as transport:
        client = zeep.Client(secured.wsdl, transport=transport, plugins=[history])
        proxy = service(client)
        assert proxy.Transfer(**TRANSFER) == ANSWER
        assert b"12.50 EUR rent" in bytes_of(history.last_received)
        assert proxy.Note(f"hello {secured.url}") is None
        until(lambda: f"hello {secured.url}" in secured.notes)
        with pytest.raises(zeep.exceptions.Fault, match="No money") as refused:
            proxy.Transfer(**TRANSFER | {"memo": "refuse"})
        assert refused.value.code.endswith("Sender")
        assert refused.value.detail[0].tag == "{urn:bank}Refused"
        with client.settings(raw_response=True):
            raw = proxy.Transfer(**TRANSFER)
        assert raw.status_code == 200
        assert "12.50 EUR rent" in raw.text
    assert not any(b"AB1234" in each.body or b"hello" in each.body for each in wire.sent)
    assert not any(b"12.50 EUR" in each.body for each in wire.received)


def bytes_of(message: Any) -> bytes:
    return bytes(etree.tostring(message["envelope"]))


@pytest.mark.row("N05", "CL-01", "CL-03", "CL-07")
def test_every_kind_of_call_awaited(secured: Bank) -> None:
    async def main() -> None:
        async with zeep.AsyncClient(
            secured.wsdl, transport=castile.zeep.AsyncTransport(**secured.options())
        ) as client:
            proxy = service(client)
            answers = await asyncio.gather(*(proxy.Transfer(**TRANSFER) for _ in range(10)))
            assert answers == [ANSWER] * 10
            assert await proxy.Note(f"awaited {secured.url}") is None
            until(lambda: f"awaited {secured.url}" in secured.notes)
            with pytest.raises(zeep.exceptions.Fault, match="No money"):
                await proxy.Transfer(**TRANSFER | {"memo": "refuse"})

    asyncio.run(main())


@pytest.mark.row("CL-31", "N05")
def test_a_call_with_a_key_is_made_once(one: Bank, tmp_path: Path) -> None:
    for _ in "12":  # run again
        with castile.zeep.Transport(store=tmp_path / "c.db", **one.options()) as transport:
            proxy = service(zeep.Client(one.wsdl, transport=transport))
            for _ in "12":
                with castile.zeep.key("invoice-7"):
                    assert proxy.Transfer(**TRANSFER | {"memo": "once"}) == "12.50 EUR once"
    assert one.transfers.count("once") == 1


@pytest.mark.row("CL-26", "N05")
def test_ten_threads_share_a_client(one: Bank) -> None:
    with castile.zeep.Transport(**one.options()) as transport, ThreadPoolExecutor(10) as pool:
        proxy = service(zeep.Client(one.wsdl, transport=transport))
        answers = list(pool.map(lambda _: proxy.Transfer(**TRANSFER), range(30)))
    assert answers == [ANSWER] * 30


@pytest.mark.row("CL-05", "CL-06")
def test_one_set_of_addressing_headers(one: Bank, wire: Wire) -> None:
    """zeep writes its own where the WSDL has wsam:Action, and a user's plug-in writes a second."""
    plain = zeep.Client(str(FOLDER / "bank.wsdl"), plugins=[WsAddressingPlugin()])
    binding: Any = plain.wsdl.bindings["{urn:bank}Bank12"]
    envelope, _ = binding._create("Transfer", (), TRANSFER, client=plain)
    assert envelope.xpath("count(//*[local-name() = 'MessageID'])") == 2.0
    with castile.zeep.Transport(http=wire, **one.options()) as transport:
        client = zeep.Client(one.wsdl, transport=transport, plugins=[WsAddressingPlugin()])
        with pytest.warns(UserWarning, match="WsAddressingPlugin does nothing here"):
            assert service(client).Transfer(**TRANSFER) == ANSWER
        with warnings.catch_warnings():  # it says so once
            warnings.simplefilter("error")
            assert service(client).Transfer(**TRANSFER) == ANSWER
    for request in wire.sent:
        assert request.body.count(b":MessageID") == 2  # a start and an end
        [content_type] = [value for name, value in request.headers if name == "Content-Type"]
        assert content_type.startswith("application/soap+xml; charset=utf-8; action=")
        assert "None" not in content_type


@pytest.mark.row("CL-11")
def test_wsse_username_is_taken_as_credential(one: Bank) -> None:
    options = one.options(credentials=None)
    with castile.zeep.Transport(**options) as transport:
        client = zeep.Client(one.wsdl, transport=transport, wsse=UsernameToken("ada", USERS["ada"]))
        with pytest.warns(UserWarning, match="UsernameToken of wsse= is taken as credentials="):
            assert service(client).Transfer(**TRANSFER) == ANSWER


@pytest.mark.row("CL-11", "SC-36")
def test_users_of_one_transport_are_told_apart(one: Bank) -> None:
    """The second user's call goes out as his own, not under what the first one has proved."""
    with castile.zeep.Transport(**one.options(credentials=None)) as transport, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ada, stranger = (
            zeep.Client(one.wsdl, transport=transport, wsse=UsernameToken(name, USERS["ada"]))
            for name in ("ada", "mallory")
        )
        assert service(ada).Transfer(**TRANSFER) == ANSWER
        with pytest.raises(castile.CastileError):
            service(stranger).Transfer(**TRANSFER)
        assert service(ada).Transfer(**TRANSFER) == ANSWER


@pytest.mark.row("CL-11")
def test_wsse_signatures_are_refused(one: Bank) -> None:
    class Signing:
        def apply(self, envelope: Any, headers: Any) -> Any:
            get_security_header(envelope).append(WSSE.BinarySecurityToken("MII"))
            return envelope, headers

        def verify(self, envelope: Any) -> None: ...

    digest = UsernameToken("ada", USERS["ada"], use_digest=True)
    with castile.zeep.Transport(**one.options()) as transport:
        for wsse, text in ((Signing(), "BinarySecurityToken"), (digest, "digest")):
            client = zeep.Client(one.wsdl, transport=transport, wsse=wsse)
            with pytest.raises(castile.UsageError, match=text):
                service(client).Transfer(**TRANSFER)


@pytest.mark.row("CL-09")
def test_a_document_that_another_transport_has_loaded(one: Bank) -> None:
    document = Document(one.wsdl, zeep.Transport())  # type: ignore[arg-type]
    with castile.zeep.Transport(**one.options()) as transport:
        client = zeep.Client(document, transport=transport)
        with pytest.raises(castile.PolicyError, match="give the WSDL to castile's transport too, as wsdl="):
            service(client).Transfer(**TRANSFER)
    with castile.zeep.Transport(wsdl=one.wsdl, **one.options()) as transport:
        assert service(zeep.Client(document, transport=transport)).Transfer(**TRANSFER) == ANSWER


@pytest.mark.row("CL-01")
def test_a_wsdl_that_zeep_has_read_from_a_file_object(one: Bank) -> None:
    octets = zeep.Transport().load(one.wsdl)
    with castile.zeep.Transport(**one.options()) as transport:
        client = zeep.Client(io.BytesIO(octets), transport=transport)
        assert service(client).Transfer(**TRANSFER) == ANSWER


@pytest.mark.row("CL-10")
def test_a_preview_takes_no_number_and_asks_nobody(one: Bank, wire: Wire) -> None:
    with castile.zeep.Transport(http=wire, **one.options()) as transport:
        client = zeep.Client(one.wsdl, transport=transport)
        assert b"AB1234" in zeep_bytes(client)  # zeep's own, which no transport sees
        shown = transport.preview("Transfer", **TRANSFER)
        assert wire.sent == []
        assert b"AB1234" not in shown
        for part in (b"EncryptedData", b":Sequence", b":Action", b":Timestamp"):
            assert part in shown or part == b":Timestamp"
        proxy = service(client)
        proxy.Transfer(**TRANSFER)
        transport.preview("Transfer", **TRANSFER)
        proxy.Transfer(**TRANSFER)
        [made] = transport._clients.values()
        assert made.sequence.report()["highest"] == 2
        with pytest.raises(castile.UsageError, match="has an operation 'Nothing'"):
            transport.preview("Nothing")


def zeep_bytes(client: zeep.Client) -> bytes:
    return bytes(etree.tostring(client.create_message(service(client).proxy, "Transfer", **TRANSFER)))


@pytest.mark.row("CL-49")
def test_a_time_out_for_some_calls(one: Bank) -> None:
    one.pause.clear()
    with castile.zeep.Transport(**one.options()) as transport:
        proxy = service(zeep.Client(one.wsdl, transport=transport))
        proxy.Transfer(**TRANSFER)
        with transport.settings(timeout=0.3), pytest.raises(castile.InDoubt, match=r"within 0\.3 s"):
            proxy.Transfer(**TRANSFER | {"memo": "slow"})
        one.pause.set()
        assert proxy.Transfer(**TRANSFER) == ANSWER


@pytest.mark.row("CL-08")
@pytest.mark.parametrize("reliable", [False, True])
def test_a_wrapped_answer_is_refused(reliable: bool) -> None:
    """The signed and encrypted Body goes into a header, and another Body takes its place: zeep's own
    verification finds the signature good, and the program gets the attacker's value."""

    class Wrapping(Wire):
        def answer(self, request: Any, response: Any) -> Any:
            if b"/Transferred" not in response.body:
                return response
            start = response.body.index(b"<s:Body")
            signed = response.body[start : response.body.rindex(b"</s:Envelope>")]
            forged = b'<s:Body><r:TransferResponse xmlns:r="urn:bank">EVIL</r:TransferResponse></s:Body>'
            head, tail = response.body[:start].replace(b"</s:Header>", b"", 1), b"</s:Envelope>"
            octets = head + b'<w xmlns="urn:w">' + signed + b"</w></s:Header>" + forged + tail
            return type(response)(response.status, octets, response.content_type)

    history = HistoryPlugin()
    policy = castile.EndpointPolicy.of("1.3", reliable=reliable)
    with contextlib.closing(Wrapping()) as wire, bank(policy) as made:
        transport = castile.zeep.Transport(http=wire, timeout=1.0, **made.options())
        proxy = service(zeep.Client(made.wsdl, transport=transport, plugins=[history]))
        with pytest.raises(castile.InDoubt if reliable else castile.errors.PeerError) as refused:
            proxy.Transfer(**TRANSFER)
        assert "EVIL" not in str(refused.value)
        assert history.last_received is None
        for client in transport._clients.values():
            client.close(keep=True)
