"""HTTP/1.1 as bytes, without a socket: one request out, one answer in (RFC 9112).

Strict where leniency lets two readers of one stream disagree: a length in two ways, folded or
bare line ends, an unknown transfer coding. Bounded before the work: head, body, and what a
chunked body may cost around its content.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from castile.errors import UsageError

HEAD_BYTES: Final = 64 << 10
"""Of an answer: what servers and proxies allow each other."""
INTERIM_ANSWERS: Final = 8
"""100-continue and its kind, before the answer itself."""
_CHUNK_LINE: Final = 256

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STATUS: Final = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: .*)?")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_FORBIDDEN: Final = re.compile(r"[\r\n\0]")
_OWN: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect"})


class Broken(Exception):
    """The answer isn't HTTP/1.1, is cut off or is larger than allowed; the text is for people."""


@dataclass(frozen=True, slots=True)
class Address:
    """An http or https URL taken apart."""

    tls: bool
    host: str
    port: int
    target: str
    """Path and query as the request line has them."""
    credentials: str = field(repr=False)
    """The value of a Basic Authorization header from user and password in the URL; else empty."""

    @property
    def authority(self) -> str:
        """``host`` or ``host:port`` for the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def place(self) -> str:
        """``host:port``, for people and for CONNECT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@lru_cache(maxsize=256)
def address_of(url: str) -> Address:
    """Take a URL apart; `UsageError` if it isn't one that can be posted to."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError as error:  # UnicodeError is one
        raise UsageError(f"the address isn't a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError("the address must be an http:// or https:// URL with a host")
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        target += "?" + quote(parts.query, safe="/?%:@!$&'()*+,;=~-._[]")
    credentials = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = "Basic " + base64.b64encode(pair.encode("utf-8")).decode("ascii")
    tls = parts.scheme == "https"
    return Address(tls, host, port or (443 if tls else 80), target, credentials)


def compose(
    address: Address, target: str, headers: tuple[tuple[str, str], ...], body: bytes | None
) -> bytes:
    """The bytes of a POST; of a GET without `body`.

    `UsageError` for a header that would change its framing.
    """
    lines = [f"{'GET' if body is None else 'POST'} {target} HTTP/1.1", f"Host: {address.authority}"]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    names = set()
    for name, value in headers:
        names.add(lower := name.lower())
        if lower in _OWN or not _TOKEN.fullmatch(name) or _FORBIDDEN.search(value):
            raise UsageError(f"the HTTP header {name!r} can't be sent")
        lines.append(f"{name}: {value}")
    if "user-agent" not in names:
        lines.append("User-Agent: castile")
    if address.credentials and "authorization" not in names:
        lines.append(f"Authorization: {address.credentials}")
    try:
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")
    except UnicodeEncodeError:
        raise UsageError("an HTTP header holds a character outside Latin-1") from None


class Reader:
    """One answer, fed as it comes.

    `most` is the largest body in bytes, before and after decompression. `tunnel` is for the
    answer to CONNECT, which has no body if it is a yes.
    """

    def __init__(self, most: int, *, tunnel: bool = False) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        """Names in lower case."""
        self.body = b""
        self.reusable = False
        """The connection can carry another request."""
        self.done = False
        self._most = most
        self._tunnel = tunnel
        self._buffer = bytearray()
        self._searched = 0
        self._interim = 0
        self._fed = 0
        self._length = 0
        self._chunks: list[bytes] = []
        self._size = 0
        # Plain functions: a bound method here would be a reference cycle an answer.
        self._step: Callable[[Reader], bool] = Reader._read_head

    @property
    def begun(self) -> bool:
        """Any byte of the answer has come."""
        return self._fed > 0

    def feed(self, data: bytes) -> bool:
        """Take what came; True once the answer is whole. Raises `Broken`."""
        self._fed += len(data)
        self._buffer += data
        while not self.done and self._step(self):
            pass
        return self.done

    def end(self) -> None:
        """The peer closed the connection. Raises `Broken` unless that ends the body."""
        if self.done:
            return
        if self._step is not Reader._read_rest:
            what = "in the middle of its answer" if self.begun else "without an answer"
            raise Broken(f"the connection was closed {what}")
        self._finish(bytes(self._buffer))

    def header(self, name: str) -> str | None:
        """The first value of a header, by its name in lower case."""
        return next((value for key, value in self.headers if key == name), None)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", self._searched)
        if end < 0:
            self._searched = max(len(self._buffer) - 3, 0)
            if len(self._buffer) > HEAD_BYTES:
                raise Broken("the head of the answer is too large")
            return False
        if end > HEAD_BYTES:
            raise Broken("the head of the answer is too large")
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        self._searched = 0
        status = _STATUS.fullmatch(first)
        if status is None:
            raise Broken("the answer isn't HTTP/1.1")
        self.status = int(status[2])
        self.headers = [_header(line) for line in lines]
        if self.status < 200:
            self._interim += 1
            if self.status == 101 or self._interim > INTERIM_ANSWERS:
                raise Broken("the answer isn't one to this request")
            return True
        connection = ",".join(value for name, value in self.headers if name == "connection").lower()
        options = {option.strip() for option in connection.split(",")}
        self.reusable = "close" not in options and (status[1] == "1" or "keep-alive" in options)
        self._frame()
        return True

    def _frame(self) -> None:
        """Where the body ends (RFC 9112, 6.3)."""
        codings = [value for name, value in self.headers if name == "transfer-encoding"]
        lengths = {value for name, value in self.headers if name == "content-length"}
        if self.status in (204, 304) or (self._tunnel and self.status < 300):
            self._finish(b"")
        elif codings:
            if lengths or len(codings) > 1 or codings[0].lower() != "chunked":
                raise Broken("the answer says its length in more than one way")
            self._step = Reader._read_chunk
        elif lengths:
            length = lengths.pop()
            if lengths or not (length.isascii() and length.isdigit() and len(length) < 19):
                raise Broken("the answer's Content-Length isn't one number")
            self._length = int(length)
            self._bound(self._length)
            self._step = Reader._read_counted
        else:
            self.reusable = False
            self._step = Reader._read_rest

    def _read_counted(self) -> bool:
        if len(self._buffer) >= self._length:
            body = bytes(self._buffer[: self._length])
            del self._buffer[: self._length]
            self._finish(body)
        return False

    def _read_rest(self) -> bool:
        self._bound(len(self._buffer))
        return False

    def _read_chunk(self) -> bool:
        # A body in one-byte chunks costs six times its size and a turn of this loop for each.
        if self._fed > 2 * self._most + 2 * HEAD_BYTES:
            raise Broken("the chunks of the answer are too many")
        end = self._buffer.find(b"\r\n", 0, _CHUNK_LINE)
        if end < 0:
            if len(self._buffer) >= _CHUNK_LINE:
                raise Broken("a chunk of the answer has no size")
            return False
        size = _CHUNK.fullmatch(self._buffer[:end])
        if size is None:
            raise Broken("a chunk of the answer has no size")
        length = int(size[1], 16)
        if length == 0:
            del self._buffer[: end + 2]
            self._step = Reader._read_trailer
            return True
        self._bound(self._size + length)
        whole = end + 2 + length + 2
        if len(self._buffer) < whole:
            return False
        if self._buffer[whole - 2 : whole] != b"\r\n":
            raise Broken("a chunk of the answer is longer than it says")
        self._chunks.append(bytes(self._buffer[end + 2 : whole - 2]))
        self._size += length
        del self._buffer[:whole]
        return True

    def _read_trailer(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if len(self._buffer) > HEAD_BYTES:
            raise Broken("the trailer of the answer is too large")
        if end < 0:
            return False
        del self._buffer[: end + 2]
        if end == 0:
            self._finish(b"".join(self._chunks))
            return False
        return True  # a trailer field, which means nothing here

    def _bound(self, size: int) -> None:
        if size > self._most:
            raise Broken(f"the answer is larger than {self._most} bytes")

    def _finish(self, body: bytes) -> None:
        coding = (self.header("content-encoding") or "").strip().lower()
        if body and coding in ("gzip", "x-gzip"):
            body = self._unzip(body)
        elif body and coding not in ("", "identity"):
            raise Broken("the answer has a content encoding that wasn't asked for")
        self.body = body
        self.done = True
        if self._buffer:
            self.reusable = False  # more than was asked for: nothing after it can be trusted

    def _unzip(self, body: bytes) -> bytes:
        unzipping = zlib.decompressobj(wbits=31)
        try:
            plain = unzipping.decompress(body, self._most + 1)
        except zlib.error:
            raise Broken("the answer isn't the gzip it says it is") from None
        self._bound(len(plain))
        if not unzipping.eof or unzipping.unused_data:
            raise Broken("the answer isn't the gzip it says it is")
        return plain


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _TOKEN.fullmatch(name) or _FORBIDDEN.search(value):
        raise Broken("a header of the answer is malformed")
    return name.lower(), value.strip(" \t")
