"""HTTP dumps and MIME packages around an envelope."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path

import pytest
from lxml import etree

from castile.errors import UsageError
from castile.explaining import explain
from castile.explaining.package import unpack
from tests.conftest import shared

pytestmark = pytest.mark.row("N07")

ENVELOPE = b'<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><x/></s:Body></s:Envelope>'
DRAWING = "e61c01d749eaabf7d45e49088eaa76cfe8dd6e744bafb18c8922bef617374d25"


def package(*parts: bytes, kind: bytes = b"multipart/related; boundary=b", end: bytes = b"--b--") -> bytes:
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end
    return b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n" + body


@pytest.mark.parametrize("name", ["020-mtom-fault/response.http", "020-mtom-fault/no-start.http"])
def test_packages_without_attachments(name: str) -> None:
    explanation = explain(shared("cases", *name.split("/")))
    assert (explanation.verdict, explanation.problems) == ("unprotected", ())
    assert explanation.messages[0].response
    if "response" in name:
        assert "stock file is closed" in str(explanation)


@pytest.mark.parametrize("name", ["folded-and-semicolon.http", "unquoted.http"])
def test_forms_of_headers(name: str) -> None:
    path = shared("cases", "021-mtom-header-forms", name)
    explanation = explain(path)
    assert explanation.problems == ()
    assert f"83 octets, SHA-256 {DRAWING}" in str(explanation)
    assert any("quotes" in text for text in explanation.messages[0].warnings) == name.startswith("unquoted")
    drawing = etree.fromstring(unpack(path.read_bytes()).envelope).find(".//{*}drawing")
    assert drawing is not None
    assert len(base64.b64decode(drawing.text or "")) == 83


def test_an_envelope_alone_is_left_as_it_is() -> None:
    for octets in (ENVELOPE, b"\xef\xbb\xbf" + ENVELOPE, b"<?xml version='1.0'?>\n" + ENVELOPE):
        assert unpack(octets).envelope == octets


def test_a_request_in_chunks() -> None:
    halves = (ENVELOPE[:40], ENVELOPE[40:])
    body = b"".join(b"%x;note\r\n%b\r\n" % (len(half), half) for half in halves) + b"0\r\n\r\n"
    found = unpack(b"POST /orders HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert (found.envelope, found.response) == (ENVELOPE, False)
    already = unpack(b"POST /orders HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + ENVELOPE)
    assert already.envelope == ENVELOPE


def test_a_part_in_base64_and_one_that_is_missing() -> None:
    head = b"Content-ID: <r>\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    assert unpack(package(head + base64.encodebytes(ENVELOPE))).envelope == ENVELOPE
    include = b'<i xmlns:x="http://www.w3.org/2004/08/xop/include"><x:Include href="cid:no"/></i>'
    assert unpack(package(b"\r\n" + include)).envelope == include


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        (package(b"\r\n<x/>", kind=b"multipart/related"), "without boundary"),
        (package(), "doesn't occur"),
        (package(b"\r\n<x/>", kind=b'multipart/related; boundary=b; start="<other>"'), "no part other"),
        (package(b"Content-Transfer-Encoding: base64\r\n\r\n\xff\xff="), "isn't base64"),
        (package(*[b"\r\n<x/>"] * 300), "more than 256 parts"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300, "more than 256 lines"),
    ],
)
def test_packages_that_cannot_be_taken_apart(octets: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        explain(octets)
    (tmp_path / "01-request.xml").write_bytes(ENVELOPE)
    (tmp_path / "02-response.xml").write_bytes(octets)
    message = explain(tmp_path).messages[1]
    assert message.verdict == "failed"
    assert says in message.problems[0]


def test_what_is_no_text_is_one_clear_error() -> None:
    for octets in (gzip.compress(ENVELOPE), b"\0" * 100, b"a: b", b"HTTP/1.1 202 Accepted\r\n\r\n"):
        with pytest.raises(UsageError, match="can't be read as a SOAP message"):
            explain(octets)
