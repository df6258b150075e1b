"""What one run is: drawn from its seed, and printable."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

Bootstrap = Literal["username", "certificate", "mutual"]
Behaviour = Literal["ok", "slow", "fault", "raises", "retry", "transact"]

NETWORK = ("drop", "copies", "replay", "delay", "lost", "reset", "half", "status")
FORGED = "forged"
MOST = {"unknown": 0.3, "crash-after": 0.15}
"""The highest rates of what only a COMMIT can meet; any statement can meet the others."""
STATEMENTS = ("crash", "crash-after", "unknown", "full", "ioerr", "busy")


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing that the client's program wants done."""

    index: int
    kind: Literal["call", "send"]
    key: bool
    behaviour: Behaviour
    pause: float
    """Seconds before it."""
    timeout: float

    @property
    def token(self) -> str:
        """What its message carries, and no other."""
        return f"PLAINTEXT-{self.index}"

    @property
    def action(self) -> str:
        """Its wsa:Action."""
        return f"urn:sim/{self.behaviour}"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seed: int
    edition: str
    secure: bool
    two_way: bool
    intents: tuple[Intent, ...]
    callers: int
    client_store: bool
    service_store: bool
    rates: dict[str, float]
    kills: tuple[tuple[float, str], ...]
    """Moments at which a process dies for no reason of its own."""
    partitions: tuple[tuple[float, float, str], ...]
    skew: float
    """Of the service's clock against the client's."""
    lifetime: float
    """Seconds of a security context."""
    window: int
    ranges: int
    down: float
    """Seconds from the death of a process to its next start."""
    closes: bool
    """The client's program closes its client at the end, else it leaves without."""
    attacker: int
    """Things that somebody with an account of his own tries."""
    shuffle: bool
    preempt: float
    pairs: frozenset[str] = frozenset()
    """Sides of which two processes share the store."""
    jumps: tuple[tuple[float, str, float], ...] = ()
    """Moments at which the clock of a side is set, by so many seconds; at the end it is right again."""
    pauses: tuple[tuple[float, str, float, bool], ...] = ()
    """Moments at which a process is stopped, for so many seconds; whether somebody sweeps its lock file
    away meanwhile, so that its sibling takes it for dead."""
    restored: tuple[float, float, str] | None = None
    """When a copy of a side's store is made, when it is put in the store's place, and whose."""
    flips: tuple[tuple[float, str], ...] = ()
    """Moments at which a bit turns over in a row of a side's store."""
    duration: float = 20.0
    """Seconds until nothing goes wrong any more."""

    @property
    def fresh(self) -> bool:
        """Stores are made from nothing, which costs as much as ten messages: else they are copied."""
        return self.seed % 10 == 0

    @property
    def bootstrap(self) -> Bootstrap:
        """By what a client gets its context, in tier B: tags know only names and passwords."""
        kinds: tuple[Bootstrap, ...] = ("username", "certificate", "mutual")
        return kinds[self.seed % 3]

    @property
    def lasting(self) -> bool:
        """Nothing may be lost for good: both sides keep what they have, and no context ends."""
        kept = self.client_store and self.service_store and self.lifetime > 1_000
        return kept and not self.jumps and not self.flips and self.restored is None and not self.swept

    @property
    def swept(self) -> bool:
        """Whether a process may be taken for dead that isn't."""
        return any(swept for _, _, _, swept in self.pauses)


def _rate(chance: Random, most: float) -> float:
    """None in some runs, else from a wide distribution."""
    if chance.random() < 0.55:
        return 0.0
    return most * 10 ** (-2 * chance.random())


def draw(seed: int) -> Plan:
    """The run of this seed."""
    chance = Random(seed)
    secure = chance.random() < 0.8
    calm = chance.random()  # one kind of trouble alone finds what all together hide
    rates: dict[str, float] = {}
    if calm > 0.1:
        rates = {name: _rate(chance, 0.4) for name in NETWORK}
        if secure:
            rates[FORGED] = _rate(chance, 0.2)
    client_store, service_store = chance.random() < 0.75, chance.random() < 0.75
    if calm > 0.35:
        for side in ("client", "service"):
            rates |= {f"{side} {name}": _rate(chance, MOST.get(name, 0.05)) for name in STATEMENTS}
    duration = 20.0
    kills = []
    if calm > 0.3 and chance.random() < 0.5:
        for _ in range(1 + int(chance.random() * 3)):
            moment = chance.random() ** 3 * duration
            kills.append((moment, chance.choice(("client", "service", "both"))))
    partitions = []
    if calm > 0.2 and chance.random() < 0.25:
        since = chance.random() * 8
        until = since + 10 ** (chance.random() * 1.5)
        partitions.append((since, until, chance.choice(("requests", "responses", "both"))))
    renewing = secure and chance.random() < 0.3
    plan = Plan(
        seed=seed,
        edition="1.3" if chance.random() < 0.7 else "2005",
        secure=secure,
        two_way=chance.random() < 0.85,
        intents=tuple(_intents(chance)),
        callers=1 if chance.random() < 0.7 else chance.choice((2, 3)),
        client_store=client_store,
        service_store=service_store,
        rates=rates,
        kills=tuple(kills),
        partitions=tuple(partitions),
        skew=0.0 if chance.random() < 0.7 else (chance.random() - 0.5) * 300,
        lifetime=6.0 + chance.random() * 24 if renewing else 7_200.0,
        window=64 if chance.random() < 0.7 else chance.choice((1, 2, 4)),
        ranges=128 if chance.random() < 0.8 else chance.choice((1, 2, 4)),
        down=0.1 * 10 ** (chance.random() * 1.8),
        closes=chance.random() < 0.8,
        attacker=0 if not secure or chance.random() < 0.6 else 1 + int(chance.random() * 5),
        shuffle=chance.random() < 0.5,
        preempt=0.0 if chance.random() < 0.5 else 0.3 * chance.random(),
        duration=duration,
    )
    pairs = set()
    if service_store and chance.random() < 0.25:
        pairs.add("service")
    if client_store and chance.random() < 0.2:
        pairs.add("client")
    deaths = [(chance.random() ** 2 * 5, f"{side}-b") for side in sorted(pairs) if chance.random() < 0.6]
    if not pairs and chance.random() < 0.3:
        rates["power"] = 0.5  # a death takes along what isn't synced
    plan = replace(plan, pairs=frozenset(pairs), kills=plan.kills + tuple(deaths))
    return _rarer(plan, chance) if calm > 0.2 else plan


def _rarer(plan: Plan, chance: Random) -> Plan:
    """What few runs have, each beside everything else."""
    sides = ("client", "service")
    kept = [side for side, store in zip(sides, (plan.client_store, plan.service_store), strict=True) if store]
    if chance.random() < 0.15:
        pauses = []
        for _ in range(1 + int(chance.random() * 2)):
            side = chance.choice(sorted(plan.pairs) or sides)
            swept = side in plan.pairs and chance.random() < 0.6
            seconds = 8.0 if swept else 10 ** (chance.random() * 1.7 - 0.7)
            pauses.append((_soon(chance, 10.0), side, seconds, swept))
        plan = replace(plan, pauses=tuple(pauses))
    if chance.random() < 0.06:
        jumps = []
        for _ in range(1 + int(chance.random() * 2)):
            seconds = (chance.random() - 0.5) * 10 ** (1 + chance.random() * 2.8)
            jumps.append((_soon(chance, 8.0), chance.choice(sides), seconds))
        plan = replace(plan, jumps=tuple(jumps))
    alone = [side for side in kept if side not in plan.pairs]
    if alone and chance.random() < 0.1:
        since = _soon(chance, 3.0)
        plan = replace(plan, restored=(since, since + _soon(chance, 3.0), chance.choice(alone)))
    if kept and chance.random() < 0.06:
        flips = [(_soon(chance, 6.0), chance.choice(kept)) for _ in range(1 + int(chance.random() * 3))]
        plan = replace(plan, flips=tuple(flips))
    return plan


def _soon(chance: Random, most: float) -> float:
    """A moment: most runs have done what they do in the first second."""
    return 0.02 * float((most / 0.02) ** chance.random())


def _intents(chance: Random) -> list[Intent]:
    count = 1 + int(chance.random() ** 2 * 8)
    behaviours: tuple[Behaviour, ...] = ("ok",) * 4
    behaviours += ("slow", "fault", "raises", "retry", "transact")
    spread = chance.random() < 0.3
    intents = []
    for index in range(count):
        kind: Literal["call", "send"] = "call" if chance.random() < 0.65 else "send"
        behaviour = chance.choice(behaviours)
        if kind == "send" and behaviour == "fault":
            behaviour = "ok"  # a one-way message has nobody to tell: it would be parked
        pause = math.floor(chance.random() * 6) if spread else 0.0
        timeout = 15.0 if chance.random() < 0.7 else 0.2 + chance.random() * 4
        intents.append(Intent(index, kind, chance.random() < 0.35, behaviour, pause, timeout))
    return intents


@dataclass(slots=True)
class Overrides:
    """What a repetition of a run leaves out."""

    only: frozenset[int] | None = None
    intents: int | None = None
    straight: bool = False
    """Without chance in the order of tasks."""
    verbose: bool = False
    trace: list[str] = field(default_factory=list)
