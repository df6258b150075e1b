"""Loading WSDLs: from files and servers, within what was allowed (features CL-50, RE-43)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from castile.clock import Now
from castile.config import DocumentLimits
from castile.errors import CastileError, TransportError, UsageError
from castile.policy.documents import Documents
from castile.policy.wsdl import describe
from castile.transport.documents import Loader
from tests.policy.made import HEAD, documents, port, shorts, wsdl

POLICY = '<w:Policy xmlns:w="http://www.w3.org/ns/ws-policy"><X xmlns="urn:a"/>{}</w:Policy>'
SCHEMA = '<x:schema xmlns:x="http://www.w3.org/2001/XMLSchema">{}</x:schema>'


@dataclass
class Site:
    """What a server holds, and what it was asked for."""

    port: int
    pages: dict[str, bytes | tuple[int, str]]
    asked: list[str] = field(default_factory=list)
    heads: list[Mapping[str, str]] = field(default_factory=list)

    def url(self, path: str, host: str = "localhost", user: str = "") -> str:
        return f"http://{user}{host}:{self.port}{path}"


@contextmanager
def serving(pages: Mapping[str, bytes | tuple[int, str]]) -> Iterator[Site]:
    """A server on the loopback; a page is its octets, or a status and a Location."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            site.heads.append(dict(self.headers))
            page = site.pages.get(self.path, (404, ""))
            status, location = (200, "") if isinstance(page, bytes) else page
            body = page if isinstance(page, bytes) else b"<html/>"
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(server.server_address[1], dict(pages))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def imports(*locations: str, policies: tuple[str, ...] = ()) -> bytes:
    """A WSDL that imports these WSDLs and schemas."""
    schemas = "".join(f'<x:include schemaLocation="{each}"/>' for each in locations if "xsd" in each)
    lines = "".join(
        f'<wsdl:import namespace="urn:x" location="{each}"/>' for each in locations if "xsd" not in each
    )
    lines += f"<wsdl:types>{SCHEMA.format(schemas)}</wsdl:types>"
    return wsdl(
        definitions=lines, binding="".join(f'<wsp:PolicyReference URI="{each}"/>' for each in policies)
    )


def reasons(loaded: Documents) -> str:
    return " | ".join(f"{location}: {reason}" for location, reason in loaded.missing.items())


# ---- files


@pytest.mark.row("CL-50")
def test_files_and_what_they_import(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.wsdl").write_bytes(imports("sub/b.wsdl", "sub/one.xsd", policies=("p.xml",)))
    (tmp_path / "sub" / "b.wsdl").write_bytes(imports("../a.wsdl", "two.xsd"))
    (tmp_path / "sub" / "one.xsd").write_text(SCHEMA.format('<x:import schemaLocation="two.xsd"/>'))
    (tmp_path / "sub" / "two.xsd").write_text(SCHEMA.format('<x:redefine schemaLocation="one.xsd"/>'))
    (tmp_path / "p.xml").write_text(POLICY.format('<w:PolicyReference URI="sub/p.xml"/>'))
    (tmp_path / "sub" / "p.xml").write_text(POLICY.format("").replace("<X", "<Y"))
    names = ["a.wsdl", "p.xml", "sub/b.wsdl", "sub/one.xsd", "sub/p.xml", "sub/two.xsd"]
    for source in (tmp_path / "a.wsdl", str(tmp_path / "a.wsdl")):
        loaded = Loader().load(source)
        assert sorted(str(Path(location).relative_to(tmp_path)) for location, _ in loaded) == names
        assert loaded.missing == {}
        assert loaded.octets(str(tmp_path / "p.xml")) == (tmp_path / "p.xml").read_bytes()
        assert loaded.location == str(tmp_path / "a.wsdl")
    (tmp_path / "sub" / "b.wsdl").write_bytes(b"<a/>")
    assert shorts(describe(Loader().load(tmp_path / "a.wsdl")).port().alternatives) == ["X Y"]


@pytest.mark.row("CL-50")
def test_file_urls(tmp_path: Path) -> None:
    (tmp_path / "a b.wsdl").write_bytes(imports((tmp_path / "c.xsd").as_uri()))
    (tmp_path / "c.xsd").write_text(SCHEMA.format(""))
    loaded = Loader().load((tmp_path / "a b.wsdl").as_uri())
    assert len(loaded) == 2
    assert loaded.missing == {}


@pytest.mark.row("CL-50", "RE-102")
def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.wsdl: there is no such file"):
        Loader().load(tmp_path / "missing.wsdl")
    with pytest.raises(UsageError, match="there is no such file"):
        Loader().load(tmp_path)
    (tmp_path / "a.wsdl").write_bytes(imports("b.wsdl", "c.xsd", "d.xsd"))
    (tmp_path / "d.xsd").write_text("no XML")
    loaded = Loader().load(tmp_path / "a.wsdl")
    assert "b.wsdl: there is no such file" in reasons(loaded)
    assert "d.xsd: line 1: not well-formed XML" in reasons(loaded)
    codes = [each.code for each in describe(loaded).findings]
    assert codes == ["wsdl-missing", "schema-missing", "schema-missing"]


@pytest.mark.row("CL-50")
def test_bytes(tmp_path: Path) -> None:
    loaded = Loader().load(imports("b.wsdl"))
    assert reasons(loaded) == "b.wsdl: the document was given as bytes: say its location= too"
    (tmp_path / "b.wsdl").write_bytes(wsdl())
    loaded = Loader().load(imports("b.wsdl"), str(tmp_path / "a.wsdl"))
    assert len(loaded) == 2
    assert describe(Loader().load(wsdl())).port().name == "P"


@pytest.mark.row("RE-43")
@pytest.mark.parametrize(
    "target", ["http://localhost:{port}/b.xsd", "//evil.example/b.xsd", "ftp://a/b.xsd", "urn:xsd"]
)
def test_a_file_makes_us_ask_nobody(tmp_path: Path, target: str) -> None:
    with serving({"/b.xsd": SCHEMA.encode()}) as site:
        (tmp_path / "a.wsdl").write_bytes(imports(target.format(port=site.port)))
        loaded = Loader().load(tmp_path / "a.wsdl")
        assert len(loaded) == 1
        assert len(loaded.missing) == 1
        assert site.asked == []


# ---- servers


@pytest.mark.row("CL-50")
def test_a_server_and_what_its_wsdl_imports() -> None:
    pages = {
        "/s?wsdl": imports("/s?wsdl=2", "s?xsd=1", policies=("p.xml#x", "urn:named")),
        "/s?wsdl=2": (HEAD + '<wsp:Policy Name="urn:named"/></wsdl:definitions>').encode(),
        "/s?xsd=1": SCHEMA.format("").encode(),
        "/p.xml": POLICY.format("").encode().replace(b"<w:Policy", b'<w:Policy xml:id="x"'),
    }
    with serving(pages) as site:
        loaded = Loader().load(site.url("/s?wsdl"))
        assert sorted(site.asked) == sorted(pages)
        assert loaded.missing == {}
        assert describe(loaded).ports[0].alternatives[0][0].place.document == site.url("/p.xml")


@pytest.mark.row("CL-50")
@pytest.mark.parametrize(
    "first", [b"<html/>", b"no XML", (500, ""), (405, "")], ids=["page", "text", "500", "405"]
)
def test_the_address_of_a_service_will_do(first: bytes | tuple[int, str]) -> None:
    with serving({"/s": first, "/s?wsdl": wsdl()}) as site:
        loaded = Loader().load(site.url("/s"))
        assert loaded.location == site.url("/s?wsdl")
        assert describe(loaded).port().name == "P"


@pytest.mark.row("CL-50")
def test_one_document_with_all_of_it() -> None:
    with serving({"/s?singleWsdl": wsdl()}) as site:
        assert describe(Loader().load(site.url("/s?singleWsdl"))).port().name == "P"


@pytest.mark.row("CL-50", "RE-43")
def test_redirects_are_not_followed() -> None:
    with serving({"/s?wsdl": (302, "https://elsewhere.example/s?wsdl")}) as site:
        with pytest.raises(
            TransportError, match=r"HTTP 302, a redirect to https://elsewhere.example/"
        ) as caught:
            Loader().load(site.url("/s?wsdl"))
        assert caught.value.exchange.status == 302
        site.pages["/a?wsdl"] = imports("/s?wsdl")
        assert "HTTP 302, a redirect to" in reasons(Loader().load(site.url("/a?wsdl")))


@pytest.mark.row("RE-43")
@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("file:///etc/passwd", "a document from a server may not name files"),
        ("FILE:///etc/passwd", "a document from a server may not name files"),
        ("http://127.0.0.1:{port}/b.xsd", "it is on another server"),
        ("http://127.1:{port}/b.xsd", "it is on another server"),
        ("http://[::1]:{port}/b.xsd", "it is on another server"),
        ("http://2130706433:{port}/b.xsd", "it is on another server"),
        ("http://0x7f000001:{port}/b.xsd", "it is on another server"),
        ("http://localhost.:{port}/b.xsd", "it is on another server"),
        ("http://localhost:{port}@evil.example/b.xsd", "its address holds a user name"),
        ("http://evil.example:80\\@localhost:{port}/b.xsd", ""),
        ("http://user@localhost:{port}/b.xsd", "its address holds a user name"),
        ("//evil.example/b.xsd", "it is on another server"),
        ("http://169.254.169.254/latest/meta-data?xsd", "it is on another server"),
        ("http://metadata.google.internal/?xsd", "it is on another server"),
        ("http://localhost:1/b.xsd", "it is on another server"),
        ("http://localhost:99999/b.xsd", "not a URL"),
        ("http://[::1/b.xsd", "not a URL"),
        ("ftp://localhost/b.xsd", "ftp: addresses are not read"),
        ("gopher://localhost/b.xsd", "gopher: addresses are not read"),
        ("jar:http://localhost/b.xsd", "jar: addresses are not read"),
        ("data:text/xml,xsd", "data: addresses are not read"),
        ("urn:x:xsd", "urn: addresses are not read"),
        ("C:/b.xsd", "a document from a server may not name files"),
    ],
)
@pytest.mark.parametrize("kind", ["import", "policy"])
def test_a_document_from_a_server_leads_nowhere_else(target: str, reason: str, kind: str) -> None:
    with serving({"/b.xsd": SCHEMA.encode(), "/latest": b""}) as site:
        location = target.format(port=site.port)
        site.pages["/s?wsdl"] = imports(location) if kind == "import" else imports(policies=(location,))
        loaded = Loader().load(site.url("/s?wsdl"))
        assert len(loaded) == 1
        assert reason in reasons(loaded)
        assert site.asked == ["/s?wsdl"]


@pytest.mark.row("RE-43")
@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.1:{port}", "http://127.0.0.1:{port}/"])
def test_servers_that_are_allowed(entry: str) -> None:
    with serving({"/b.xsd": SCHEMA.format("").encode()}) as site:
        site.pages["/s?wsdl"] = imports(site.url("/b.xsd", host="127.0.0.1"))
        loaded = Loader(allow=[entry.format(port=site.port)]).load(site.url("/s?wsdl"))
        assert len(loaded) == 2
        assert "another server" in reasons(Loader(allow=["127.0.0.2"]).load(site.url("/s?wsdl")))


@pytest.mark.row("RE-43")
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://bank.example/s?wsdl", True),
        ("https://bank.example/s?wsdl", False),
        ("http://localhost/s?wsdl", False),
        ("http://127.0.0.1:8080/s?wsdl", False),
    ],
)
def test_what_a_wsdl_by_plain_http_is_worth(url: str, said: bool, caplog: pytest.LogCaptureFixture) -> None:
    """It says where passwords go and how they are protected."""
    Loader(fetch=lambda _: wsdl()).load(url.replace("//", "//ada:secret@"))
    assert ("plain http" in caplog.text) is said
    assert "secret" not in caplog.text
    caplog.clear()
    Loader().load(wsdl(), url)
    assert ("plain http" in caplog.text) is said


@pytest.mark.row("RE-43")
def test_what_came_by_https_is_completed_by_https() -> None:
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return (
            imports("http://localhost/b.xsd", "http://localhost:8080/c.xsd")
            if "wsdl" in url
            else SCHEMA.encode()
        )

    loaded = Loader(fetch=fetch).load("https://localhost:8443/s?wsdl")
    assert asked == ["https://localhost:8443/s?wsdl", "https://localhost:8443/b.xsd"]
    assert loaded.root("http://localhost/b.xsd") is not None
    assert "http://localhost:8080/c.xsd: it is on another server" in reasons(loaded)


@pytest.mark.row("CL-50")
def test_a_password_in_the_address_is_for_its_server_and_in_no_text() -> None:
    pages = {"/s?wsdl": imports("b.xsd", "missing.xsd"), "/b.xsd": SCHEMA.format("").encode()}
    with serving(pages) as site:
        loaded = Loader().load(site.url("/s?wsdl", user="me:secret@"))
        assert [head.get("Authorization", "")[:6] for head in site.heads] == ["Basic "] * 3
        described = describe(loaded)
        assert "secret" not in f"{described} {loaded.missing} {[location for location, _ in loaded]}"
        with pytest.raises(TransportError) as caught:
            Loader().load(site.url("/missing?wsdl", user="me:secret@"))
        assert "secret" not in str(caught.value)
        site.pages["/locked?wsdl"] = (401, "")
        with pytest.raises(TransportError, match="HTTP 401: it asks for a user name and password"):
            Loader().load(site.url("/locked?wsdl"))


@pytest.mark.row("CL-50", "RE-43")
def test_limits() -> None:
    endless = {
        f"/{n}.xsd": SCHEMA.format(f'<x:include schemaLocation="{n + 1}.xsd"/>').encode() for n in range(20)
    }
    with serving({**endless, "/s?wsdl": imports("0.xsd")}) as site:
        with pytest.raises(UsageError, match="imports nest more than 10 deep"):
            Loader().load(site.url("/s?wsdl"))
        assert len(site.asked) == 11
        site.pages["/s?wsdl"] = imports(*(f"m{n}.xsd" for n in range(101)))
        with pytest.raises(UsageError, match="more than 100 documents"):
            Loader().load(site.url("/s?wsdl"))
        site.pages["/s?wsdl"] = wsdl() + b" " * 5000
        with pytest.raises(TransportError, match="larger than 4000 bytes"):
            Loader(DocumentLimits(bytes=4000)).load(site.url("/s?wsdl"))
    with pytest.raises(TransportError, match="no connection"):
        Loader().load(site.url("/s?wsdl"))


@pytest.mark.row("RE-43")
def test_large_files_are_refused_before_they_are_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.wsdl"
    path.write_bytes(wsdl() + b" " * 5000)
    with pytest.raises(UsageError, match="more than 4000"):
        Loader(DocumentLimits(bytes=4000)).load(path)
    (tmp_path / "b.wsdl").write_bytes(imports("/dev/zero", "c.xsd"))
    assert "/dev/zero: there is no such file" in reasons(Loader().load(tmp_path / "b.wsdl"))


@pytest.mark.row("CL-50")
def test_cache(tmp_path: Path) -> None:
    now = [Now(1_000_000.0, 0.0)]
    folder = tmp_path / "cache"
    loader = Loader(cache=folder, cache_seconds=60, clock=lambda: now[0])
    with serving({"/s?wsdl": imports("b.xsd"), "/b.xsd": SCHEMA.format("").encode()}) as site:
        for _ in range(2):
            assert len(loader.load(site.url("/s?wsdl"))) == 2
        assert len(site.asked) == 2
        now[0] = Now(1_000_061.0, 0.0)
        loader.load(site.url("/s?wsdl"))
        assert len(site.asked) == 4
        for path in folder.iterdir():  # what was changed in the folder isn't believed
            path.write_bytes(path.read_bytes().replace(b"schema", b"schemb"))
        loader.load(site.url("/s?wsdl"))
        assert len(site.asked) == 6
        for path in folder.iterdir():
            path.write_bytes(b"\xff")
        loader.load(site.url("/s?wsdl"))
        assert len(site.asked) == 8
    assert len(loader.load(site.url("/s?wsdl"))) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(TransportError):
        Loader(cache=tmp_path / "file").load(site.url("/s?wsdl"))


def test_every_error_is_castiles(tmp_path: Path) -> None:
    for source in (
        "http://",
        "http://a b/",
        "https://[",
        "file://",
        "ftp://a/b",
        "",
        "\0",
        "http://localhost:x/",
    ):
        with pytest.raises(CastileError):
            Loader().load(source)
    assert len(documents(wsdl())) == 1
    assert port().name == "P"
    assert not list(tmp_path.iterdir())
