"""A service without any policy: with castile's transport everything is as with zeep's own."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import zeep
from zeep.plugins import HistoryPlugin
from zeep.wsdl.utils import etree_to_string
from zeep.wsse.username import UsernameToken

import castile.zeep
from tests.edges.peer import Peer, answer, serving
from tests.endpoint.pair import until
from tests.served import served
from tests.typed.contracts import FOLDER
from tests.zeep.banks import TRANSFER, Bank

STOCK, DROP_IN = zeep.Transport, castile.zeep.Transport
BOTH = pytest.mark.parametrize("transport", [STOCK, DROP_IN], ids=["stock", "drop-in"])
PORTS = pytest.mark.parametrize("port", ["Soap12", "Soap11"])


class Plain(Bank):
    """The bank without a policy at either port."""

    def service(self, **options: Any) -> castile.Service:
        return super().service(policy=None, **options)


@pytest.fixture(scope="module")
def plain() -> Iterator[Bank]:
    made = Plain(castile.EndpointPolicy.of("1.3"))
    with served(made.service().asgi()) as url:
        made.url = url.removesuffix("/soap") + "/bank"
        yield made


def proxy_of(client: Any, port: str) -> Any:
    return client.bind(next(iter(client.wsdl.services)), port)


@pytest.mark.row("N05")
@BOTH
@PORTS
def test_calls_faults_and_plug_ins(plain: Bank, transport: Callable[..., Any], port: str) -> None:
    history = HistoryPlugin()
    client = zeep.Client(plain.wsdl, transport=transport(), plugins=[history])
    proxy = proxy_of(client, port)
    assert proxy.Transfer(**TRANSFER).body.receipt == "12.50 EUR rent"
    assert b"AB1234" in sent(history)
    with pytest.raises(zeep.exceptions.Fault, match="No money"):
        proxy.Transfer(**TRANSFER | {"memo": "refuse"})
    word = f"{transport} {port}"
    assert proxy.Note(word) is None
    until(lambda: word in plain.notes)
    assert proxy.Ping() == 7
    with client.settings(raw_response=True):
        assert b"12.50 EUR rent" in proxy.Transfer(**TRANSFER).content
    wsse = UsernameToken("ada", "secret")  # nobody asks for it: it goes as zeep writes it
    secured = zeep.Client(plain.wsdl, transport=transport(), wsse=wsse)
    with pytest.raises(zeep.exceptions.Fault, match="wsse:Security"):
        proxy_of(secured, port).Ping()


def sent(history: Any) -> bytes:
    return bytes(etree_to_string(history.last_sent["envelope"]))


@pytest.mark.row("N05")
@PORTS
def test_awaited(plain: Bank, port: str) -> None:
    async def main() -> None:
        async with zeep.AsyncClient(plain.wsdl, transport=castile.zeep.AsyncTransport()) as client:
            proxy = proxy_of(client, port)
            assert (await proxy.Transfer(**TRANSFER)).body.receipt == "12.50 EUR rent"
            with pytest.raises(zeep.exceptions.Fault, match="No money"):
                await proxy.Transfer(**TRANSFER | {"memo": "refuse"})

    asyncio.run(main())


@pytest.mark.row("CL-02")
def test_the_users_session_carries_it_and_stays_as_it_is(plain: Bank) -> None:
    with requests.Session() as session:
        session.headers["X-Own"] = "mine"
        before, adapters = dict(session.headers), dict(session.adapters)
        client = zeep.Client(plain.wsdl, transport=castile.zeep.Transport(session=session))
        assert proxy_of(client, "Soap12").Ping() == 7
        assert dict(session.headers) == before
        assert dict(session.adapters) == adapters


NOTHING = (
    answer(b"", "200 OK"),
    answer(b"", "202 Accepted"),
    b"HTTP/1.1 204 No Content\r\n\r\n",
)


@pytest.mark.row("CL-03")
@pytest.mark.parametrize("octets", NOTHING, ids=["200", "202", "204"])
def test_answers_to_a_one_way_message(octets: bytes, tmp_path: Any) -> None:
    def script(line: socket.socket, peer: Peer) -> None:
        while peer.read(line) is not None:
            line.sendall(octets)

    with serving(script) as peer:
        text = (FOLDER / "bank.wsdl").read_text().replace("http://bank.test/bank", peer.url)
        shutil.copytree(FOLDER, tmp_path / "wsdl")
        path = tmp_path / "wsdl" / "bank.wsdl"
        path.write_text(text)
        assert proxy_of(zeep.Client(str(path), transport=DROP_IN()), "Soap12").Note("hello") is None
        stock = proxy_of(zeep.Client(str(path)), "Soap12")
        if b" 202 " in octets:
            assert stock.Note("hello") is None
        else:
            with pytest.raises(zeep.exceptions.TransportError):
                stock.Note("hello")
