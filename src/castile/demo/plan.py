"""What a run of the demo is to do, decided before it begins, and where its files are."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from castile.config import Settings, Timers
from castile.policy import Bootstrap, EndpointPolicy
from castile.versions import SOAP_1_1, SOAP_1_2

Victim = Literal["client", "service", "second"]
"""``second``: the other process of the service, on the same store."""
Moment = Literal["request", "response", "handled"]
SOAPName = Literal["1.1", "1.2"]

PASSWORD_VARIABLE: Final = "CASTILE_DEMO_PASSWORD"
USER: Final = "ada"
NAMESPACE: Final = "urn:castile:demo"
TRANSACTIONAL: Final = f"{NAMESPACE}/Book"
ORDINARY: Final = f"{NAMESPACE}/Notify"

# A reader of the diagram doesn't wait a minute for a repetition; nothing else is changed.
SETTINGS: Final = Settings(
    timers=Timers(
        retransmit_interval=0.2,
        retransmit_limit=0.5,
        reply_wait=5.0,
        call_timeout=8.0,
        connect_timeout=2.0,
        close_timeout=8.0,
        terminate_timeout=8.0,
        handler_backoff=0.1,
        drain=3.0,
    )
)


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL, at a moment that comes from the seed."""

    victim: Victim
    message: int
    """Not before this many messages were seen on the network."""
    moment: Moment
    """What starts the clock after that: an application message on its way, its answer on its way
    back, or a handler that has had its effect and goes on working."""
    delay: float
    """Seconds from there."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    messages: int = 40
    drop: float = 0.1
    """How likely each request, and each response, is lost."""
    duplicate: float = 0.1
    """How likely each request is delivered twice."""
    reorder: bool = True
    workers: int = 1
    """Processes of the service, one or two."""
    kill: Literal["client", "service", "both", "none"] = "both"
    kills: int | None = None
    """In all, taking turns; None: one of each victim."""
    edition: str = "1.3"
    soap: SOAPName = "1.2"
    bootstrap: Bootstrap = "username"
    renew_every: int | None = None
    """The security context gets a new key after this many messages, again and again; None: the
    first one serves them all."""
    seed: int = 1
    callers: int = 4
    """Calls under way at once."""
    latency: float = 0.0
    """Seconds that the network takes each way."""
    work: float = 0.01
    """Seconds that a handler still works after its effect; a transactional one not so long, for it
    holds the store."""
    marker: str = "for the addressee only"
    """A text in each message; it must not be found in any store or log."""

    @property
    def policy(self) -> EndpointPolicy:
        """What the endpoint asks for."""
        soap = SOAP_1_1 if self.soap == "1.1" else SOAP_1_2
        return EndpointPolicy.of(self.edition, soap=soap, bootstrap=self.bootstrap)

    @property
    def certified(self) -> bool:
        """Whether the client has a certificate of its own."""
        return self.bootstrap in ("certificate", "mutual")

    @property
    def victims(self) -> tuple[Victim, ...]:
        """Who is killed in turn."""
        if self.kill == "none":
            return ()
        if self.kill == "client":
            return ("client",)
        between: tuple[Victim, ...] = ("client",) if self.kill == "both" else ()
        return tuple(victim for worker in self.services for victim in (worker, *between))

    @property
    def services(self) -> tuple[Victim, ...]:
        """The processes of the service."""
        return ("service", "second") if self.workers > 1 else ("service",)

    def schedule(self) -> tuple[Kill, ...]:
        """The kills, spread over the messages."""
        victims = self.victims
        count = len(victims) if self.kills is None else self.kills
        if not victims:
            return ()
        chance = random.Random(f"kills {self.seed}")  # noqa: S311 - a scenario, not a secret
        kills = []
        for turn in range(count):
            moment: Moment = chance.choice(("request", "response", "handled", "handled"))
            kills.append(
                Kill(
                    victim=victims[turn % len(victims)],
                    message=max(1, int(self.messages * (turn + chance.uniform(0.2, 0.8)) / count)),
                    moment=moment,
                    delay=chance.uniform(0.0, self.work if moment == "handled" else 0.03),
                )
            )
        return tuple(kills)

    def action(self, message: int) -> str:
        """Half of the messages go to each handler."""
        return TRANSACTIONAL if message % 2 else ORDINARY

    @property
    def seconds(self) -> float:
        """The longest that the whole run may take."""
        kills = len(self.schedule())
        loss = 1 / max(0.05, (1 - self.drop) ** 2)
        renewals = self.messages / self.renew_every if self.renew_every else 0
        steps = self.messages * (0.5 + 2 * self.latency) + renewals * (1.0 + 2 * self.latency)
        return 45 + 8 * kills + steps * loss


@dataclass(frozen=True, slots=True)
class Files:
    """The folder of a run."""

    root: Path

    @property
    def client_store(self) -> Path:
        """The client's store."""
        return self.root / "client.db"

    @property
    def service_store(self) -> Path:
        """The service's store; the rows of the transactional handler are in it."""
        return self.root / "service.db"

    @property
    def effects(self) -> Path:
        """The ordinary handler's own database."""
        return self.root / "effects.db"

    @property
    def journal(self) -> Path:
        """What the client application knows of its calls."""
        return self.root / "journal.db"

    @property
    def log(self) -> Path:
        """Of all processes."""
        return self.root / "demo.log"

    @property
    def identity(self) -> Path:
        """The service's private key and certificate."""
        return self.root / "service.pem"

    @property
    def certificate(self) -> Path:
        """The certificate alone, for the client."""
        return self.root / "service.crt"

    @property
    def client_identity(self) -> Path:
        """The client's private key and certificate, where it has them."""
        return self.root / "client.pem"

    @property
    def client_certificate(self) -> Path:
        """The client's certificate alone, for the service."""
        return self.root / "client.crt"

    @property
    def wire(self) -> Path:
        """The messages as they were sent."""
        return self.root / "wire"

    @property
    def keylog(self) -> Path:
        """Secrets of the contexts, while the demo runs."""
        return self.root / "keylog.jsonl"

    @property
    def bytecode(self) -> Path:
        """Where the processes keep compiled modules if they may keep none at home."""
        return self.root / "bytecode"
