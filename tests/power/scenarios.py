"""The canonical scenarios: one conversation each, with whatever goes wrong in it but the power."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import castile
from castile.config import Settings
from tests.endpoint.lives import DUE, OVER, settings
from tests.endpoint.pair import Moved, Pair, action_of, body, until
from tests.power.promises import numbered

FAMILY: Final = "1.3"
SETTINGS: Final = settings(retransmit_interval=0.05, retransmit_limit=0.2, close_timeout=5.0)


@dataclass
class Stage:
    """A pair whose stores are recorded, and what its client was told."""

    pair: Pair
    client: castile.Client
    clock: Moved
    submitted: Callable[[int], None]
    """Told how many messages the application has handed over."""
    count: int = field(default=0)

    def tell(self, number: int) -> None:
        """A one-way message."""
        self.client.send_raw("urn:test/Tell", body(number))
        self.count += 1
        self.submitted(self.count)

    def call(self, number: int, action: str = "urn:test/Echo") -> None:
        """A call."""
        assert self.client.call_raw(action, body(number)) == body(number)
        self.count += 1
        self.submitted(self.count)

    def acknowledged(self) -> None:
        """Wait until everything is."""
        assert self.client.sequence.wait_until_acknowledged(10)

    def lose(
        self, *, requests: dict[str, int] | None = None, responses: dict[str, int] | None = None
    ) -> None:
        """Lose the first so many exchanges with these actions."""
        left = {"drop-request": dict(requests or {}), "drop-response": dict(responses or {})}

        def fate(number: int, payload: bytes) -> str | None:
            action = action_of(payload)
            for kind, counts in left.items():
                if counts.get(action, 0) > 0:
                    counts[action] -= 1
                    return kind
            return None

        self.pair.network.fate = fate


def one_way(stage: Stage) -> None:
    """1: one-way messages, anonymous acknowledgements."""
    for number in range(1, 6):
        stage.tell(number)
    stage.acknowledged()
    stage.client.close()


def with_offer(stage: Stage) -> None:
    """2: calls, the replies in an offered sequence."""
    for number in range(1, 6):
        stage.call(number)
    stage.client.close()


def bootstrap(stage: Stage) -> None:
    """5: the answers of bootstrap and CreateSequence are lost, and one reply."""
    stage.lose(responses={"RST/SCT": 1, "CreateSequence": 2, "Echo": 1})
    try:
        stage.call(1)
    except castile.CastileError:  # of the bootstrap, which is the caller's to repeat
        stage.call(1)
    stage.tell(2)
    stage.acknowledged()
    stage.client.close()


def renewal(stage: Stage) -> None:
    """6: the context is renewed in the middle, an answer of it lost."""
    stage.call(1)
    stage.tell(2)
    stage.clock.seconds += DUE
    stage.call(3)
    stage.lose(responses={"RST/SCT/Renew": 1})
    stage.clock.seconds += DUE
    stage.tell(4)
    stage.call(5)
    stage.client.close()


def expiry(stage: Stage) -> None:
    """7: the token ends while the service is down; what was numbered is recovered."""
    stage.call(1)
    stage.pair.network.down = True
    stage.tell(2)
    sent = len(stage.pair.network.sent)
    until(lambda: len(stage.pair.network.sent) > sent)
    stage.clock.seconds += OVER
    stage.pair.restart_service()
    stage.pair.network.down = False
    stage.call(3)
    stage.client.close()


def gap(stage: Stage) -> None:
    """8: close and terminate with a gap, which is never filled."""
    stage.tell(1)
    stage.acknowledged()
    second = (stage.client.sequence.report()["identifier"], 2)
    stage.pair.network.fate = lambda number, payload: "drop-request" if numbered(payload) == second else None
    for number in range(2, 5):
        stage.tell(number)
    sent = len(stage.pair.network.log)
    until(lambda: len(stage.pair.network.log) >= sent + 2)
    with contextlib.suppress(castile.CastileError):
        stage.client.sequence.close()
    stage.client.close()


def cancel(stage: Stage) -> None:
    """9: cancel with messages in flight."""
    stage.call(1)
    stage.pair.network.fate = lambda number, payload: "drop-request" if action_of(payload) == "Tell" else None
    for number in range(2, 5):
        stage.tell(number)
    context = stage.client.context
    assert context is not None
    context.cancel(force=True)
    stage.pair.network.fate = lambda number, payload: None
    stage.call(5)
    stage.client.close()


def window(stage: Stage) -> None:
    """10: a gap fills the window; the gap filled, all is released in order."""
    stage.call(1)
    stage.lose(requests={"Tell": 3}, responses={"Tell": 2})
    for number in range(2, 9):
        stage.tell(number)
    stage.acknowledged()
    stage.pair.settled(8)
    stage.client.close()


def last_message(stage: Stage) -> None:
    """11: RM 1.0, which ends with LastMessage."""
    stage.tell(1)
    stage.call(2)
    stage.tell(3)
    stage.call(4)
    stage.client.close()


def take_over(stage: Stage) -> None:
    """12: another process takes the service over in the middle, with a transactional handler."""
    stage.call(1, "urn:test/Book")
    stage.lose(responses={"Book": 1})
    stage.call(2, "urn:test/Book")
    stage.pair.restart_service()
    stage.call(3, "urn:test/Book")
    stage.tell(4)
    stage.call(5, "urn:test/Book")
    stage.client.close()


@dataclass(frozen=True)
class Scenario:
    """How to play one."""

    play: Callable[[Stage], None]
    family: str = FAMILY
    settings: Settings = SETTINGS


class Bank(Pair):
    """A pair that has a transactional handler, too."""

    def make_service(self) -> castile.Service:
        service = super().make_service()

        @service.raw("urn:test/Book", transactional=True)
        def book(content: bytes, ctx: castile.RequestContext) -> bytes:
            transaction: Any = ctx.transaction
            transaction.execute("CREATE TABLE IF NOT EXISTS effects (body BLOB PRIMARY KEY)")
            transaction.execute("INSERT INTO effects VALUES (?)", (content,))
            self.note(content, ctx)
            return content

        return service


_GIVES_UP: Final = replace(SETTINGS, timers=replace(SETTINGS.timers, close_timeout=0.3))
_NARROW: Final = replace(SETTINGS, limits=replace(SETTINGS.limits, window_messages=4))
SCENARIOS: Final = {
    "1-one-way": Scenario(one_way),
    "2-offer": Scenario(with_offer),
    "5-bootstrap": Scenario(bootstrap),
    "6-renewal": Scenario(renewal),
    "7-expiry": Scenario(expiry),
    "8-gap": Scenario(gap, settings=_GIVES_UP),
    "9-cancel": Scenario(cancel),
    "10-window": Scenario(window, settings=_NARROW),
    "11-last-message": Scenario(last_message, family="2005"),
    "12-take-over": Scenario(take_over),
}
