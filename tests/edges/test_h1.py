"""HTTP/1.1 as bytes: what is read, what is refused, what is sent."""

from __future__ import annotations

import gzip
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castile.errors import UsageError
from castile.transport.h1 import Broken, Reader, address_of, compose

MOST = 1000

GOOD = {
    "counted": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", 200, True),
    "no reason": (b"HTTP/1.1 500\r\nContent-Length: 0\r\n\r\n", b"", 500, True),
    "same length twice": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length:2\r\n\r\nhi",
        b"hi",
        200,
        True,
    ),
    "closing": (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nhi", b"hi", 200, False),
    "old": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", 200, False),
    "old but kept": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        b"hi",
        200,
        True,
    ),
    "continue first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        b"",
        202,
        True,
    ),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", 204, True),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nX: y\r\n\r\n",
        b"hello",
        200,
        True,
    ),
    "gzip": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s"
        % (len(packed := gzip.compress(b"hello", mtime=0)), packed),
        b"hello",
        200,
        True,
    ),
}

BAD = {
    "not http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "http 2": b"HTTP/2 200\r\n\r\n",
    "bad status": b"HTTP/1.1 99 OK\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching\r\n\r\n",
    "interim for ever": b"HTTP/1.1 103 Hints\r\n\r\n" * 20,
    "bare lf": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "space before colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
    "length and chunked": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nh",
    "huge length": b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n" % (b"9" * 40),
    "too long": b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
    "chunk too long": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n",
    "chunk without size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
    "negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    "chunk longer than said": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n",
    "endless chunk line": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1" + b";" * 300,
    "head too large": b"HTTP/1.1 200 OK\r\nX: " + b"x" * (65 << 10),
    "until close too long": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
    "not gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    "gzip cut": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 15\r\n\r\n"
    + gzip.compress(b"hello")[:15],
    "coding not asked for": b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.row("CL-47")
@pytest.mark.parametrize(("octets", "body", "status", "reusable"), GOOD.values(), ids=GOOD)
def test_answers_are_read_however_they_arrive(
    octets: bytes, body: bytes, status: int, reusable: bool
) -> None:
    for size in (1, 2, 3, 7, len(octets)):
        reader = Reader(MOST)
        pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
        assert [reader.feed(piece) for piece in pieces][-1]
        assert (reader.body, reader.status, reader.reusable) == (body, status, reusable)


@given(st.data(), st.sampled_from(sorted(GOOD)))
@settings(max_examples=100, deadline=None)
def test_any_split_gives_the_same(data: st.DataObject, name: str) -> None:
    octets, body, status, _ = GOOD[name]
    cut = data.draw(st.integers(0, len(octets)))
    reader = Reader(MOST)
    reader.feed(octets[:cut])
    reader.feed(octets[cut:])
    assert (reader.body, reader.status) == (body, status)


@pytest.mark.parametrize("octets", BAD.values(), ids=BAD)
def test_what_two_readers_could_read_differently_is_refused(octets: bytes) -> None:
    reader = Reader(MOST)
    with pytest.raises(Broken):
        reader.feed(octets)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", *(good[0][:-3] for good in GOOD.values())]),
)
@settings(max_examples=200, deadline=None)
def test_junk_is_broken_or_waits(junk: bytes, start: bytes) -> None:
    reader = Reader(MOST)
    try:
        reader.feed(start + junk)
        reader.end()
    except Broken:
        return
    assert reader.done
    assert len(reader.body) <= MOST


@pytest.mark.parametrize("octets", [value[0] for value in GOOD.values()], ids=GOOD)
@pytest.mark.row("RE-10")
def test_every_cut_is_noticed(octets: bytes) -> None:
    for cut in range(len(octets)):
        reader = Reader(MOST)
        assert not reader.feed(octets[:cut])
        with pytest.raises(Broken, match="closed"):
            reader.end()


def test_a_body_without_length_ends_with_the_connection() -> None:
    reader = Reader(MOST)
    assert not reader.feed(b"HTTP/1.0 200 OK\r\n\r\nhel")
    assert not reader.feed(b"lo")
    reader.end()
    assert (reader.body, reader.reusable, reader.done) == (b"hello", False, True)


def test_a_connection_with_something_after_the_answer_is_not_used_again() -> None:
    reader = Reader(MOST)
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n")
    assert (reader.body, reader.reusable) == (b"hi", False)


@pytest.mark.row("RE-11")
def test_a_gzip_bomb_is_cut_at_the_limit() -> None:
    bomb = gzip.compress(bytes(50 << 20))
    reader = Reader(1 << 20)
    start = time.process_time()
    with pytest.raises(Broken, match="larger than 1048576 bytes"):
        reader.feed(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(bomb), bomb)
        )
    assert time.process_time() - start < 0.1


def test_tiny_chunks_are_bounded() -> None:
    reader = Reader(100_000)
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(Broken, match="too many"):
        reader.feed(b"1\r\nx\r\n" * 60_000)


@pytest.mark.parametrize(
    ("url", "tls", "place", "authority", "target"),
    [
        ("http://a.example/x?y=1&z", False, "a.example:80", "a.example", "/x?y=1&z"),
        ("https://a.example", True, "a.example:443", "a.example", "/"),
        ("https://a.example:8443/x%20y/ö#part", True, "a.example:8443", "a.example:8443", "/x%20y/%C3%B6"),
        ("http://[::1]:8080/a b", False, "[::1]:8080", "[::1]:8080", "/a%20b"),
        ("HTTP://Bücher.example/", False, "xn--bcher-kva.example:80", "xn--bcher-kva.example", "/"),
    ],
)
def test_addresses(url: str, tls: bool, place: str, authority: str, target: str) -> None:
    address = address_of(url)
    assert (address.tls, address.place, address.authority, address.target) == (tls, place, authority, target)


@pytest.mark.row("RE-100")
@pytest.mark.parametrize(
    "url", ["", "foo", "ftp://a/", "urn:x:y", "http://", "http://a:port/", "http://a:99999/", "http://[x/"]
)
def test_an_address_that_can_t_be_posted_to_is_wrong_use(url: str) -> None:
    with pytest.raises(UsageError, match="address"):
        address_of(url)


def test_a_post_as_bytes() -> None:
    octets = compose(
        address_of("http://a.example:81/x"),
        "/x",
        (("Content-Type", "text/xml"), ("SOAPAction", '"urn:a"')),
        b"<a/>",
    )
    assert octets == (
        b"POST /x HTTP/1.1\r\nHost: a.example:81\r\nContent-Length: 4\r\n"
        b'Content-Type: text/xml\r\nSOAPAction: "urn:a"\r\nUser-Agent: castile\r\n\r\n<a/>'
    )


def test_credentials_of_a_url_become_a_header_and_never_show() -> None:
    address = address_of("http://ada:s%40crt@a.example/")
    assert b"Authorization: Basic YWRhOnNAY3J0\r\n" in compose(address, "/", (), b"")
    assert "YWRh" not in repr(address)
    assert "crt" not in repr(address)


@pytest.mark.parametrize(
    "header",
    [
        ("Content-Type", 'text/xml; action="urn:a\r\nX: y"'),
        ("X\r\nY", "z"),
        ("X Y", "z"),
        ("X", "a\0b"),
        ("X", "€"),
        ("Content-Length", "7"),
        ("transfer-encoding", "chunked"),
        ("Host", "b.example"),
    ],
)
def test_a_header_can_t_change_the_framing(header: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="header"):
        compose(address_of("http://a.example/"), "/", (header,), b"")
