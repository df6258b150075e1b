"""Loading WSDLs and what they import, from files and servers.

What is read is what the caller named, and what that names in turn on the same host or in files
beside it: a WSDL from the network can't make us open a file or ask another server (SSRF).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit
from urllib.request import url2pathname

from castile.clock import Clock, system
from castile.config import DocumentLimits
from castile.endpoint.channel import is_loopback
from castile.errors import CastileError, Exchange, TransportError, UsageError
from castile.policy.documents import Documents, Reference, kind_of, names, references
from castile.transport.http import HTTPClient

Fetch = Callable[[str], bytes]
"""Brings the document at a URL; raises whatever says why it can't."""

policy_log: Final = logging.getLogger("castile.policy")
_PORTS: Final = {"http": 80, "https": 443}


class Loader:
    """Loads a WSDL, a schema or a policy together with all that it needs.

    `allow` names further servers that may be asked, as ``schemas.example.com``,
    ``schemas.example.com:8443`` or ``https://schemas.example.com``. `fetch` is asked for URLs
    instead of castile's own HTTP client: it brings the user's proxy, certificates and passwords.
    With `cache`, a folder, documents from servers are kept for `cache_seconds`.
    """

    def __init__(
        self,
        limits: DocumentLimits | None = None,
        *,
        allow: Collection[str] = (),
        fetch: Fetch | None = None,
        cache: Path | None = None,
        cache_seconds: float = 86_400.0,
        clock: Clock = system,
    ) -> None:
        self._limits = limits or DocumentLimits()
        self._allow = frozenset(entry.strip().rstrip("/").lower() for entry in allow)
        self._fetch = fetch or self._get
        self._cache = _Cache(cache, cache_seconds, clock) if cache is not None else None

    def load(self, source: str | Path | bytes, location: str = "") -> Documents:
        """The document and everything it imports; what can't be had is among `missing`.

        `source` is a path, an http(s) URL (of a service too: ``?wsdl`` is tried then), or the
        document itself, whose imports are looked for beside `location`. Raises `UsageError` for
        what isn't there, isn't XML or is beyond the limits, `TransportError` for a server that
        doesn't give it.
        """
        documents = Documents(self._limits)
        if isinstance(source, bytes):
            root = location or "<document>"
            documents.add(root, source)
            origin = _Origin(root if location else "", self._allow)
        else:
            root, origin = self._root(str(source), documents)
        self._load_references(documents, origin)
        _warn([origin.asked(location) for location, _ in documents])
        return documents

    def _root(self, source: str, documents: Documents) -> tuple[str, _Origin]:
        parts = _split(source)
        if parts is None:
            documents.add(source, self._file(_path(source)))
            return source, _Origin(source, self._allow)
        url = urlunsplit(parts._replace(netloc=_host(parts), fragment=""))
        origin = _Origin(url, self._allow, parts.netloc.rpartition("@")[0])
        for attempt in [url] if parts.query else [url, f"{url}?wsdl"]:
            last = attempt.endswith("?wsdl") or bool(parts.query)
            try:
                octets = self._remote(origin.asked(attempt), attempt)
                if not last and not kind_of(Documents(self._limits).add(attempt, octets)):
                    continue
            except CastileError as error:
                if last or (isinstance(error, TransportError) and error.exchange.status is None):
                    raise
                continue
            documents.add(attempt, octets)
            return attempt, origin
        raise UsageError(f"{url}: no WSDL")

    def _load_references(self, documents: Documents, origin: _Origin) -> None:
        """Breadth first; references to policies last, since a name needs no document."""
        depths = {documents.location: 0}
        waiting: deque[str] = deque(depths)
        known: tuple[int, frozenset[str]] = (0, frozenset())
        policies: deque[Reference] = deque()
        while waiting or policies:
            if not waiting:
                reference = policies.popleft()
                if known[0] != len(documents):
                    known = (len(documents), names(documents))
                if reference.uri in known[1]:
                    continue
                found = [reference]
            else:
                location = waiting.popleft()
                root = documents.root(location)
                every = list(references(location, root)) if root is not None else []
                policies += (each for each in every if each.kind == "policy")
                found = [each for each in every if each.kind != "policy"]
            for reference in found:
                if reference.location in depths:
                    continue
                depths[reference.location] = depth = depths[reference.place.document] + 1
                if depth > self._limits.imports:
                    raise UsageError(f"{reference.place}: imports nest more than {self._limits.imports} deep")
                if self._add(documents, origin, reference):
                    waiting.append(reference.location)

    def _add(self, documents: Documents, origin: _Origin, reference: Reference) -> bool:
        location = reference.location
        if len(documents) + len(documents.missing) >= self._limits.documents:
            raise UsageError(f"{reference.place}: more than {self._limits.documents} documents")
        try:
            origin.permit(location)
            if _split(location) is None:
                octets = self._file(_path(location))
            else:
                octets = self._remote(origin.asked(location), location)
            documents.add(location, octets)
        except CastileError as error:
            documents.missing[location] = str(error).removeprefix(f"{location}: ")
            return False
        return True

    def _file(self, path: Path) -> bytes:
        if not path.is_file():
            raise UsageError(f"{path}: there is no such file")
        try:
            with path.open("rb") as file:
                return file.read(self._limits.bytes + 1)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None

    def _remote(self, url: str, location: str) -> bytes:
        """`url` may hold a password, `location` is for people."""
        kept = self._cache.read(location) if self._cache else None
        if kept is not None:
            return kept
        octets = self._fetch(url)
        if self._cache is not None:
            self._cache.write(location, octets)
        return octets

    def _get(self, url: str) -> bytes:
        client = HTTPClient(self._limits.xml)
        try:
            response = client.get(url, self._limits.seconds)
        finally:
            client.close()
        if response.status == 200:
            return response.body
        parts = urlsplit(url)
        place = urlunsplit(parts._replace(netloc=_host(parts)))
        hint = ""
        if 300 <= response.status < 400:
            target = next((value for name, value in response.headers if name == "location"), "elsewhere")
            hint = f", a redirect to {target[:200]}, which is not followed: give that address"
        elif response.status == 401:
            hint = ": it asks for a user name and password"
        raise TransportError(
            f"{place}: the server answered HTTP {response.status}{hint}",
            exchange=Exchange(status=response.status),
        )


def _warn(asked: Iterable[str]) -> None:
    """Say what a document is worth that anybody on the way could have changed."""
    for parts in map(urlsplit, asked):
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            place = urlunsplit(parts._replace(netloc=_host(parts)))
            policy_log.warning(
                "%s came by plain http: whoever stands between chooses the address, the policy and the "
                "certificate that it names; fetch it by https, or keep a copy in a file",
                place,
            )
            return


class _Origin:
    """Where the root came from, and so what it may lead to."""

    def __init__(self, root: str, allow: frozenset[str], user: str = "") -> None:
        self._root = root
        self._parts = _split(root)
        self._allow = allow
        self._user = user
        """Name and password of the root's URL: for its own server only."""

    def permit(self, location: str) -> None:
        """Raises `UsageError` with the reason where a document may not be had from there."""
        parts = _split(location)
        if parts is None:
            if not self._root:
                raise UsageError("the document was given as bytes: say its location= too")
            if self._parts is not None:
                raise UsageError("it is a file, and a document from a server may not name files")
            if location.startswith(("//", "\\\\")):
                raise UsageError("it is a file of another machine")
            return
        if parts.scheme not in _PORTS or not parts.hostname:
            raise UsageError(f"{parts.scheme}: addresses are not read")
        if "@" in parts.netloc:
            raise UsageError("its address holds a user name")
        host = parts.hostname
        listed = {host, f"{host}:{_port(parts)}", f"{parts.scheme}://{_host(parts)}".lower()}
        if not self._same_host(parts) and not self._allow & listed:
            raise UsageError(
                f"it is on another server, which is asked only if it is listed: "
                f"Settings(documents_from=({host!r},)), or --allow {host}"
            )

    def _same_host(self, parts: SplitResult) -> bool:
        own = self._parts
        if own is None or own.hostname != parts.hostname:
            return False
        return _port(parts) == _port(own) or _port(parts) == _PORTS[parts.scheme]

    def asked(self, location: str) -> str:
        """The URL to ask for a permitted document.

        Where the root came by https, its server is asked by https for the rest too: behind a proxy
        services often name themselves by http, and what is read here decides what is protected.
        """
        parts, own = urlsplit(location), self._parts
        if own is None or not self._same_host(parts):
            return location
        host = _host(parts)
        if own.scheme == "https" and parts.scheme == "http":
            parts, host = parts._replace(scheme="https"), _host(own)
        elif _port(parts) != _port(own) or not self._user:
            return location
        return urlunsplit(parts._replace(netloc=f"{self._user}@{host}" if self._user else host))


class _Cache:
    """Documents in a folder, each behind the digest of what it was and the time when it came."""

    def __init__(self, folder: Path, seconds: float, clock: Clock) -> None:
        self._folder = folder
        self._seconds = seconds
        self._clock = clock

    def _path(self, location: str) -> Path:
        return self._folder / f"{sha256(location.encode()).hexdigest()}.document"

    def read(self, location: str) -> bytes | None:
        """A document that is young enough and whole; else None."""
        try:
            head, _, octets = self._path(location).read_bytes().partition(b"\n")
            digest, _, moment = head.decode("ascii").partition(" ")
            age = self._clock().utc - float(moment)
        except (OSError, ValueError):
            return None
        whole = compare_digest(digest, sha256(octets).hexdigest())
        return octets if whole and 0 <= age < self._seconds else None

    def write(self, location: str, octets: bytes) -> None:
        """Keep a document; a folder that can't be written to keeps none."""
        path = self._path(location)
        draft = path.with_suffix(f".{os.getpid()}")
        head = f"{sha256(octets).hexdigest()} {self._clock().utc:.0f}\n"
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_bytes(head.encode() + octets)
            draft.replace(path)


def _split(location: str) -> SplitResult | None:
    """A URL taken apart; None: a path, or a ``file:`` URL."""
    try:
        parts = urlsplit(location)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"{location[:200]}: not a URL: {error}") from None
    return None if len(parts.scheme) < 2 or parts.scheme == "file" else parts


def _path(location: str) -> Path:
    if location[:5].lower() == "file:":
        return Path(url2pathname(urlsplit(location).path))
    return Path(location)


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _port(parts: SplitResult) -> int | None:
    return parts.port or _PORTS.get(parts.scheme)
