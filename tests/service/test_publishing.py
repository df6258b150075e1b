"""SV-08: the WSDL that a running service gives is its own, and whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import zeep

import castile
from castile.config import Limits
from castile.policy.documents import Documents, references
from castile.policy.parse import read as policy_of
from castile.policy.sets import policy_set
from castile.policy.wsdl import describe
from castile.transport.documents import Loader
from castile.typed import Codec, Contract, read
from castile.versions import WSU
from tests.edges.test_asgi import asked, scope
from tests.endpoint.pair import USERS, certificate, identity
from tests.service.plain import SOAP_1_2, bank, served
from tests.typed.contracts import BODIES, FOLDER, contract


def got(service: castile.Service, query: str, *, path: str = "/bank", host: str = "bank.example") -> Any:
    headers = {"host": host} if host else {}
    return asked(service.asgi(), scope("GET", path=path, headers=headers, query_string=query.encode()))


def fetched(service: castile.Service, start: str) -> Documents:
    """The documents as a client gets them, by following their links."""

    def fetch(url: str) -> bytes:
        parts = urlsplit(url)
        answer = got(service, parts.query, path=parts.path, host=parts.netloc)
        assert answer.status == 200, url
        assert answer.headers["content-type"] == "text/xml; charset=utf-8"
        return bytes(answer.body)

    return Loader(fetch=fetch).load(start)


def facts(found: Contract) -> object:
    """What is said of messages, wherever the documents are."""
    return [(port.service, port.name, port.soap, tuple(port.operations.values())) for port in found.ports]


@pytest.mark.row("SV-08")
@pytest.mark.parametrize("query", ["wsdl", "singleWsdl"])
@pytest.mark.parametrize("name", ["bank", "split"])
def test_what_is_published_says_what_was_given(query: str, name: str) -> None:
    service = castile.Service(FOLDER / f"{name}.wsdl", partial=True)
    documents = fetched(service, f"http://bank.example/bank?{query}")
    published = read(documents)
    assert facts(published) == facts(contract(name))
    echo = Codec(published, Limits()).operation(published.ports[0].operations["Enrol"])
    assert echo.decode_request(BODIES["Enrol"].encode())["phone"] == "+44123"
    assert {port.described.address for port in published.ports} == {"http://bank.example/bank"}
    assert documents.missing == {}
    assert (len(documents) == 1) == (query == "singleWsdl")


@pytest.mark.row("SV-08")
def test_addresses_are_the_public_ones() -> None:
    service = bank(public_url="https://www.bank.example/soap/bank")
    for query in ("wsdl", "singleWsdl"):
        text = got(service, query).body.decode()
        assert text.count('location="https://www.bank.example/soap/bank"') == 2
        assert "bank.test" not in text
    assert 'schemaLocation="https://www.bank.example/soap/bank?xsd=1"' in got(service, "wsdl").body.decode()


def test_ports_at_paths_of_their_own() -> None:
    service = castile.Service(FOLDER / "paths.wsdl", partial=True)
    published = read(fetched(service, "http://h.example:8080/new?wsdl"))
    assert [port.described.address for port in published.ports] == [
        "http://h.example:8080/new",
        "http://h.example:8080/old",
    ]
    assert got(service, "wsdl", path="/elsewhere").status == 405


def test_only_ports_that_are_offered() -> None:
    service = bank(policy={"Soap11": castile.EndpointPolicy.of(secure=False, reliable=False)})
    published = read(fetched(service, "http://bank.example/bank?wsdl"))
    assert [port.name for port in published.ports] == ["Soap11"]


@pytest.mark.parametrize(
    ("query", "status"),
    [("wsdl", 200), ("WSDL", 200), ("xsd=1", 200), ("xsd=9", 405), ("wsdl=../x", 405), ("", 405), ("x", 405)],
)
def test_other_queries(query: str, status: int) -> None:
    assert got(bank(), query).status == status


@pytest.mark.parametrize("host", ["", 'x" onload="', "a b", "user@h", "x/../y"])
def test_a_host_that_is_none_is_not_written(host: str) -> None:
    text = got(bank(), "wsdl", host=host).body.decode()
    assert text.count('location="/bank"') == 2


def test_what_is_for_the_server_alone_stays(tmp_path: Path) -> None:
    text = (FOLDER / "rpc.wsdl").read_text("utf-8")
    private = (
        '<!-- remember: PIN --><sc:KeyStore xmlns:sc="http://schemas.sun.com/2006/03/wss/server" '
        'location="/etc/keys" storepass="PIN"/>'
    )
    (tmp_path / "rpc.wsdl").write_text(text.replace("<wsdl:portType", private + "<wsdl:portType"), "utf-8")
    service = castile.Service(tmp_path / "rpc.wsdl", partial=True)
    for query in ("wsdl", "singleWsdl"):
        assert "PIN" not in got(service, query).body.decode()


def test_zeep_reads_it(tmp_path: Path) -> None:
    (tmp_path / "single.wsdl").write_bytes(got(bank(), "singleWsdl").body)
    client = zeep.Client(str(tmp_path / "single.wsdl"))
    assert sorted(client.wsdl.services["Bank"].ports) == ["Soap11", "Soap12"]


def test_a_service_without_wsdl_publishes_none() -> None:
    service = castile.Service(policy=castile.EndpointPolicy.of(secure=False))
    assert got(service, "wsdl").status == 405


def test_links_lead_to_documents_of_the_service() -> None:
    service = bank()
    root = fetched(service, "http://bank.example/bank?wsdl")
    for at, document in root:
        for reference in references(at, document):
            assert reference.location.startswith("http://bank.example/bank?")


KEYS: dict[str, Any] = {
    "partial": True,
    "credentials": castile.Certificate(identity("service")),
    "users": USERS,
    "trust": [certificate()],
}
POLICIES: dict[str, castile.EndpointPolicy | str] = {
    "plain": castile.EndpointPolicy.of(secure=False, reliable=False, addressed=False),
    "addressed": castile.EndpointPolicy.of(secure=False, reliable=False),
    "reliable": castile.EndpointPolicy.of("2005", secure=False),
    "wcf-wshttp-username": "wcf-wshttp-username-direct",
    "cxf-rm": "cxf-rm",
    "1.3": castile.EndpointPolicy.of("1.3"),
    "2005": castile.EndpointPolicy.of("2005"),
    "certificate": castile.EndpointPolicy.of("1.3", bootstrap="certificate"),
    "mutual": castile.EndpointPolicy.of("1.3", bootstrap="mutual"),
}


@pytest.mark.row("SV-08")
@pytest.mark.parametrize("query", ["wsdl", "singleWsdl"])
@pytest.mark.parametrize("name", POLICIES)
def test_what_is_published_is_the_policy_in_force(name: str, query: str) -> None:
    """Parsed again it is what the program gave."""
    given = POLICIES[name]
    service = castile.Service(
        FOLDER / "bank.wsdl",
        policy={"Soap12": given},
        **KEYS,
    )
    documents = fetched(service, f"http://bank.example/bank?{query}")
    [port] = describe(documents).ports
    wanted = policy_set(given) if isinstance(given, str) else given
    # A service takes either, with and without the header; WS-Policy has a word for neither.
    told = replace(wanted, soap=SOAP_1_2, uses_sequence_str=wanted.sequence_token == "require")
    if wanted.reliability is None or not wanted.reliability.can_close:
        told = replace(told, uses_sequence_str=wanted.uses_sequence_str)
    assert policy_of(port, strict=True).policy == told


@pytest.mark.row("SV-01")
def test_the_wsdl_s_own_policy_is_in_force(tmp_path: Path) -> None:
    """What is published for a policy serves as a WSDL again, with nothing said in the program."""
    first = castile.Service(FOLDER / "bank.wsdl", policy={"Soap12": "wcf-wshttp-username-direct"}, **KEYS)
    path = tmp_path / "again.wsdl"
    path.write_bytes(got(first, "singleWsdl").body)
    second = castile.Service(path, **KEYS)
    [offer] = second._offers
    assert offer.policy == policy_set("wcf-wshttp-username-direct")
    again = describe(fetched(second, "http://bank.example/bank?singleWsdl"))
    assert policy_of(again.ports[0], strict=True).policy == offer.policy


@pytest.mark.row("SV-21")
@pytest.mark.parametrize("with_wsdl", [True, False])
def test_health(with_wsdl: bool) -> None:
    plain = castile.EndpointPolicy.of(secure=False)
    service = bank() if with_wsdl else castile.Service(policy=plain)

    def health(path: str = "/health", *, on: bool = True) -> tuple[int, bytes]:
        app = service.asgi(health="/health" if on else None)
        got = asked(app, scope("GET", path=path, headers={}))
        return got.status, got.body

    closed = (503, b'{"ready": false, "store": "closed"}')
    assert health() == closed
    with served(service):
        assert health() == (200, b'{"ready": true, "store": "answers"}')
        assert health("/healthy")[0] == 405
        assert health(on=False)[0] == 405

        def fails(step: object) -> object:
            raise castile.StoreError("SECRET")

        service.store.run = fails  # type: ignore[method-assign, assignment]
        assert health() == (503, b'{"ready": false, "store": "fails"}')
        del service.store.run
    assert health() == closed


@pytest.mark.row("SV-08")
@pytest.mark.parametrize("query", ["wsdl", "singleWsdl"])
def test_policies_in_other_documents(query: str, tmp_path: Path) -> None:
    """A reference to a policy beside the WSDL leads to the service's own copy of it."""
    wsp = "http://www.w3.org/ns/ws-policy"
    text = (FOLDER / "rpc.wsdl").read_text("utf-8")
    text = text.replace(
        '<soap:binding style="rpc"',
        f'<w:PolicyReference xmlns:w="{wsp}" URI="policies.xml#addressed"/><soap:binding style="rpc"',
    )
    (tmp_path / "rpc.wsdl").write_text(text, "utf-8")
    (tmp_path / "policies.xml").write_text(
        f'<w:Policy xmlns:w="{wsp}" xmlns:u="{WSU}" u:Id="addressed">'
        '<m:Addressing xmlns:m="http://www.w3.org/2007/05/addressing/metadata"/></w:Policy>'
    )
    service = castile.Service(tmp_path / "rpc.wsdl", partial=True)
    [offer] = service._offers
    assert offer.policy.addressed
    documents = fetched(service, f"http://sums.example/?{query}")
    assert documents.missing == {}
    [port] = describe(documents).ports
    assert policy_of(port, strict=True).policy == offer.policy
