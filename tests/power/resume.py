"""After the power is back: both sides go on, and every message has its one effect."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import castile
from castile.clock import system
from castile.errors import CastileError
from tests.endpoint.pair import Moved, body, until
from tests.power.judge import STORES
from tests.power.scenarios import SCENARIOS, Bank
from tests.power.trace import Disk, Trace

LAST = 99
"""The call that the next life of the client makes."""


@dataclass
class Life:
    """What was there at a cut, and what came of it."""

    trace: Trace
    at: int
    """The cut comes before this event."""
    victims: tuple[str, ...]
    """Stores whose machine lost its power; the other machine goes on."""
    chance: random.Random
    wrong: list[str] = field(default_factory=list)

    def __call__(self, folder: Path) -> list[str]:
        """Go on in this folder; what is wrong."""
        for store in STORES:
            disk = Disk()
            for event in self.trace.events[: self.at]:
                if event.name.startswith(store) and event.operation not in ("commit", "promise", "handled"):
                    disk.apply(event)
            image = disk.cut(self.chance, 3) if store in self.victims else disk.whole()
            for name, content in image.items():
                (folder / name).write_bytes(content)
        with patch.dict(os.environ, CASTILE_STORE_KEY=self.trace.key.hex()):
            self._go_on(folder)
        return self.wrong

    def _go_on(self, folder: Path) -> None:
        chosen = SCENARIOS[self.trace.scenario]
        past = self.trace.events[: self.at]
        handled = [event for event in past if event.operation == "handled" and event.data]
        runs = [(event.data, bool(event.offset)) for event in handled]
        submitted = [event.promise[1] for event in past if event.promise[:1] == ("submitted",)]
        clock = Moved()
        clock.seconds = max([event.utc for event in past if event.utc], default=system().utc) - system().utc
        pair = Bank(
            castile.EndpointPolicy.of(chosen.family), folder=folder, settings=chosen.settings, clock=clock
        )
        try:
            client = pair.client(store=folder / "client.db")
            # What is in doubt stays so; it was told with the end of its sequence.
            until(lambda: all(each.reply or each.in_doubt for each in client.unfinished()), 20)
            if client.call_raw("urn:test/Echo", body(LAST)) != body(LAST):
                self.wrong.append("a new call got another reply")
            client.close()
            runs += zip(pair.bodies, [ctx.redelivered for ctx in pair.contexts], strict=True)
        except (CastileError, AssertionError) as error:
            self.wrong.append(f"it doesn't go on: {error!r}")
        finally:
            pair.close()
        self._effects(runs, max([int(str(each)) for each in submitted], default=0))

    def _effects(self, runs: list[tuple[bytes, bool]], submitted: int) -> None:
        """Each message once, repeats told, none lost that was handed over."""
        first: list[bytes] = []
        for content, redelivered in runs:
            if content not in first:
                first.append(content)
            elif not redelivered:
                self.wrong.append(f"{content!r} was handled twice")
        if first != sorted(first, key=lambda content: int(content.split(b">")[1].split(b"<")[0])):
            self.wrong.append(f"out of order: {first}")
        missing = [number for number in range(1, submitted + 1) if body(number) not in first]
        if missing and self.trace.scenario not in ("8-gap", "9-cancel"):  # there they are in doubt
            self.wrong.append(f"messages {missing} are lost")


def lives(trace: Trace, seed: int, count: int) -> list[Life]:
    """So many cuts of each machine, and of both at once."""
    chance = random.Random(f"lives {trace.scenario} {seed}")
    return [
        Life(trace, chance.randrange(len(trace.events)), victims, random.Random(chance.random()))
        for victims in (("client.db",), ("service.db",), STORES)
        for _ in range(count)
    ]
