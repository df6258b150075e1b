"""A scripted peer on a loopback socket: what it does to each connection is the test's."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[[socket.socket, "Peer"], None]


@dataclass
class Peer:
    """What came: heads and bodies in order, and how many connections."""

    port: int
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/service"

    def read(self, line: socket.socket) -> str | None:
        """One request, noted; None at the end of the connection."""
        head, _, rest = _until(line, b"\r\n\r\n").partition(b"\r\n\r\n")
        if not head:
            return None
        text = head.decode("latin-1")
        lengths = [
            row.split(":")[1] for row in text.split("\r\n") if row.lower().startswith("content-length:")
        ]
        body = rest
        while lengths and len(body) < int(lengths[0]):
            body += line.recv(65536)
        self.heads.append(text)
        self.bodies.append(body)
        return text


def _until(line: socket.socket, mark: bytes) -> bytes:
    got = b""
    while mark not in got:
        more = line.recv(65536)
        if not more:
            return b""
        got += more
    return got


def answer(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def echo(line: socket.socket, peer: Peer) -> None:
    """Answer each request with its own body, on one connection."""
    while peer.read(line) is not None:
        line.sendall(answer(peer.bodies[-1], "200 OK", "Content-Type: application/soap+xml"))


@contextmanager
def serving(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """Run `script` for every connection until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    peer = Peer(listener.getsockname()[1])
    threads: list[threading.Thread] = []
    lines: list[socket.socket] = []

    def talk(line: socket.socket) -> None:
        with suppress(OSError):
            if tls is not None:
                line = tls.wrap_socket(line, server_side=True)
            lines.append(line)
            script(line, peer)
        line.close()

    def accept() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            line.settimeout(10)
            lines.append(line)
            peer.connections += 1
            threads.append(threading.Thread(target=talk, args=(line,), daemon=True))
            threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield peer
    finally:
        peer.stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(5)
        for line in lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
