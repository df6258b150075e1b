"""What both replays share: a clock that is set, random bytes and identifiers from a recording.

Everything else is the product's: it parses, verifies, decides, protects and answers by itself.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from castile.clock import Now
from castile.endpoint.agreement import ENTROPY_BYTES
from castile.endpoint.party import Purpose
from castile.errors import PeerError
from castile.security import Expectation, Trace, unprotect
from castile.transport.asgi import Application
from tests.replay.recording import Spoken, sealed
from tests.security import recorded
from tests.security.recorded import LIMITS, TIMERS, Keys


@dataclass
class Clock:
    """Set to the time of each message; runs on from there."""

    utc: float = 1_795_000_000.0
    _since: float = field(default_factory=time.monotonic)

    def __call__(self) -> Now:
        utc = self.utc + time.monotonic() - self._since
        return Now(utc, utc - 1_700_000_000.0)

    def set(self, utc: float | None) -> None:
        """Time doesn't run backwards, whatever two machines' clocks say."""
        if utc is not None and utc > self().utc:
            self.utc, self._since = utc, time.monotonic()


@dataclass
class Source:
    """Random bytes and identifiers: the recorded ones in their order, then the machine's."""

    entropies: deque[bytes] = field(default_factory=deque)
    """Drawn first for a request for a token, or an answer to one; of any length."""
    drawn: bool = False
    """The next draw is for a key of this message, not for the entropy of the next one."""
    keys: deque[bytes] = field(default_factory=deque)
    """Keys that a service made alone."""
    names: dict[str, deque[str]] = field(default_factory=dict)
    """By purpose."""
    _made: int = 0

    def random(self, length: int) -> bytes:
        if self.keys and length == len(self.keys[0]):
            return self.keys.popleft()
        if self.entropies and length == ENTROPY_BYTES and not self.drawn:
            self.drawn = True
            return self.entropies.popleft()
        return os.urandom(length)

    def new_id(self, purpose: Purpose) -> str:
        waiting = self.names.get(purpose)
        if waiting:
            return waiting.popleft()
        self._made += 1
        return f"urn:uuid:00000000-0000-4000-8000-{self._made:012d}"

    def expect(
        self, entropies: Iterable[bytes | None], keys: Iterable[bytes | None] = (), **names: str | None
    ) -> None:
        """These come next; None: nothing of the kind."""
        self.entropies = deque(each for each in entropies if each is not None)
        self.keys = deque(each for each in keys if each is not None)
        self.drawn = False
        for purpose, name in names.items():
            self.names[purpose] = deque([name] if name is not None else [])


def opened(
    payload: bytes, name: str, keys: Keys, *, status: int = 200, answers: Spoken | None = None
) -> Spoken:
    """A message of ours, read with every key of the recording and of the request it answers."""
    trace, error, verified = Trace(), None, None
    envelope = recorded.opened(payload)
    if answers is not None and (key := sealed(answers)) is not None:
        keys.sealed[key.sha1] = key
    try:
        expectation = Expectation(None, None, answers is None)
        moment = Now(recorded.created(envelope), 0.0)
        verified = unprotect(envelope, keys, expectation, moment, LIMITS, TIMERS, trace)
    except PeerError as failure:
        error = failure
    found = recorded.Opened(name, envelope, verified, trace, error)
    return Spoken(name, payload, "", status, found)


async def post(app: Application, path: str, content_type: str, payload: bytes) -> tuple[int, bytes]:
    """One HTTP exchange with an ASGI application; status and body."""
    events = deque([{"type": "http.request", "body": payload, "more_body": False}])
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return events.popleft() if events else await asyncio.Future()

    async def send(event: MutableMapping[str, Any]) -> None:
        sent.append(event)

    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(payload)).encode()),
        ],
        "client": ("127.0.0.1", 40_000),
    }
    await app(scope, receive, send)
    return int(sent[0]["status"]), b"".join(event.get("body", b"") for event in sent[1:])
