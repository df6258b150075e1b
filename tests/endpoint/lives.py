"""Conversations on a clock that is moved, and a judge of every key that was used in them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import castile
from castile.clock import Now
from castile.config import Settings
from castile.endpoint import inbound
from castile.endpoint.contexts import keys_of
from castile.endpoint.inbound import Inbound
from castile.endpoint.kinds import Kind
from castile.errors import PeerError
from castile.messages import reliability
from castile.protocol import destination
from castile.protocol.conversation import Instance
from castile.security.keys import ContextKey
from castile.transport.http import HTTPRequest, HTTPResponse
from tests.endpoint.pair import Moved, Network, Pair, action_of, body, fast

LIFE = 200.0
"""Of a token: no longer than a Timestamp holds, so that a message may be under way at its end."""
GRACE = 60.0
DUE = 0.7 * LIFE
OVER = LIFE + 5.0


def settings(*, after_expiry: bool = False, **timers: float) -> Settings:
    """Lives of minutes, and patience without end: it is the clock that moves, not the world."""
    patience = dict.fromkeys(
        ("create_timeout", "terminate_timeout", "close_timeout", "call_timeout", "give_up_in_memory"), 1e6
    )
    values = {"token_lifetime": LIFE, "token_cache_after_expiry": LIFE, "instance_grace": GRACE, **patience}
    return replace(fast(**{**values, **timers}), allow_renewal_after_expiry=after_expiry)


@dataclass
class Seen:
    """A message at the moment when it arrived."""

    payload: bytes
    now: Now
    request: bool


class Watched(Network):
    """A network that keeps every message with its time, and asks what to do at each exchange."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair.loop, pair.service)
        self.pair = pair
        self.seen: list[Seen] = []
        self.before: Callable[[int], None] = lambda exchange: None
        self.after: Callable[[int], None] = lambda exchange: None
        self.keys: dict[tuple[str, str | None], tuple[Instance, ContextKey]] = {}
        """Every key that the service has made, also those that it keeps no more."""
        self._count = 0
        self._counting = threading.Lock()

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        with self._counting:
            self._count += 1
            number = self._count
        self.before(number)
        self.service = self.pair.service
        response = super().post(request, timeout)
        self.after(number)
        return response

    def deliver(self, payload: bytes, timeout: float = 30.0) -> HTTPResponse:
        self.seen.append(Seen(payload, self.pair.clock(), True))
        response = super().deliver(payload, timeout)
        if response.body:
            self.seen.append(Seen(response.body, self.pair.clock(), False))
        if action_of(payload).startswith("RST"):
            self._note_keys()
        return response

    def _note_keys(self) -> None:
        for record in self.pair.party.store.run(lambda tx: tx.contexts(ended=True)).result():
            for key, instance in zip(keys_of(record.state), record.state.instances, strict=True):
                self.keys[key.identifier, key.instance] = (instance, key)

    def count(self, action: str) -> int:
        """How many requests with this action have arrived."""
        return sum(seen.request and action_of(seen.payload) == action for seen in self.seen)


def converse(client: castile.Client) -> list[bytes]:
    """The whole life of a client: messages with and without replies, and the end."""
    client.send_raw("urn:test/Tell", body(1))
    replies = [client.call_raw("urn:test/Echo", body(2))]
    client.send_raw("urn:test/Tell", body(3))
    replies.append(client.call_raw("urn:test/Echo", body(4)))
    client.close()
    return replies


EXCHANGES = 9
"""RST, CreateSequence, four messages, two to end the sequence, Cancel."""


@dataclass
class Judge:
    """Whether every key was used inside its life, and no number was left out or given twice."""

    pair: Pair
    network: Watched
    switched: dict[str, list[tuple[str | None, float]]] = field(default_factory=dict)
    """By context: its instances in the order of their first use, and when that was."""
    sent: set[tuple[str, int]] = field(default_factory=set)

    def __call__(self) -> None:
        for _, key in self.network.keys.values():
            self.pair.party.keyring.remember(key)
        for seen in self.network.seen:
            found = self._read(seen)
            if found is None or found.verified.primary.kind != "context":
                continue
            primary = found.verified.primary
            self._judge(found, self.network.keys[primary.name, primary.instance][0], seen)
        records = self.pair.party.store.run(lambda tx: tx.destinations()).result()
        for record in records:
            assert record.state.phase is destination.Phase.TERMINATED
            upper = record.state.received.upper
            assert not record.state.received.gaps(upper), record.state.received
            numbers = {number for identifier, number in self.sent if identifier == record.state.identifier}
            assert numbers == set(range(1, upper + 1))

    def _read(self, seen: Seen) -> Inbound | None:
        party = self.pair.party
        try:
            return inbound.read(party, seen.payload, seen.now, request=seen.request)
        except (PeerError, castile.FaultReceived):
            return None  # of the bootstrap, or refused

    def _judge(self, found: Inbound, key: Instance, seen: Seen) -> None:
        timers = self.pair.settings.timers
        assert found.verified.timestamp is not None
        made, identity = found.verified.timestamp.created, found.verified.primary
        assert made >= key.created - 1
        assert made < key.expires + timers.token_cache_after_expiry
        history = self.switched.setdefault(identity.name, [])
        if seen.request and all(name != identity.instance for name, _ in history):
            history.append((identity.instance, seen.now.utc))
        place = next((place for place, (name, _) in enumerate(history) if name == identity.instance), None)
        if seen.request and place is not None and place + 1 < len(history):
            assert made < history[place + 1][1] + timers.instance_grace
        if not seen.request:
            return
        if found.kind is Kind.CREATE_SEQUENCE:
            assert made < key.expires
        header = found.reliability.sequence
        if header is not None:
            self._numbered(found, header, made, key)

    def _numbered(self, found: Inbound, header: reliability.Sequence, made: float, key: Instance) -> None:
        """What goes out for the first time needs a living key, unless it was numbered before."""
        first = (header.identifier, header.number) not in self.sent
        self.sent.add((header.identifier, header.number))
        if made >= key.expires and found.kind is Kind.APPLICATION:
            repeated = any(each.identifier == header.identifier for each in found.reliability.ack_requested)
            assert repeated or not first


__all__ = [
    "DUE",
    "EXCHANGES",
    "GRACE",
    "LIFE",
    "OVER",
    "Judge",
    "Moved",
    "Watched",
    "converse",
    "settings",
]
