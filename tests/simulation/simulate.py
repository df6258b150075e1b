"""One run: a world from a seed, its processes, its end, and what the auditor says."""

from __future__ import annotations

import atexit
import datetime
import functools
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

import castile
from castile import store as stores
from castile.config import Limits, Settings, Timers
from castile.errors import StoreError
from castile.store import actor
from tests.simulation import invariants
from tests.simulation.attacker import Attacker
from tests.simulation.auditor import Auditor
from tests.simulation.faults import Fault, Faults
from tests.simulation.network import Network
from tests.simulation.plan import Overrides, Plan, draw
from tests.simulation.primitives import drive
from tests.simulation.processes import Process, remove
from tests.simulation.program import SEAL, USERS, Stage, run_client, service
from tests.simulation.storage import image_of
from tests.simulation.trouble import Trouble
from tests.simulation.world import Stuck, World, running

TIMERS = Timers(
    retransmit_limit=15.0,
    give_up_in_memory=150.0,
    create_timeout=400.0,
    close_timeout=8.0,
    terminate_timeout=8.0,
    reply_wait=8.0,
    call_timeout=15.0,
    lost_context_after=75.0,
    alarm_interval=15.0,
    drain=8.0,
)
"""A quarter of the usual: what polls each second costs the simulator as much as a message."""
vars(actor)["HASTY_LOOK"] = 0.05
"""Ten times the usual, for the same reason."""
PATIENCE = 900.0
"""Virtual seconds after the last fault, within which everything must have come to an end."""


LOGGED: list[str] = []
"""What the product has logged, where that is listened to."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run."""

    seed: int
    violations: tuple[str, ...]
    trace: str
    faults: tuple[Fault, ...]
    counts: Counter[str]
    log: tuple[str, ...] = ()
    steps: int = 0
    seconds: float = 0.0


class Loaded(castile.Certificate):
    """A key and its certificate that no file holds: reading one costs more than a whole run."""

    __slots__ = ("_found",)

    def __init__(self, key: rsa.RSAPrivateKey, certificate: x509.Certificate) -> None:
        super().__init__("in memory")
        object.__setattr__(self, "_found", (key, certificate))

    def load(self) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
        found: tuple[rsa.RSAPrivateKey, x509.Certificate] = object.__getattribute__(self, "_found")
        return found


@functools.cache
def identity(owner: str = "service") -> tuple[castile.Certificate, x509.Certificate]:
    """Somebody's key with its certificate, and the certificate alone."""
    key = rsa.generate_private_key(65_537, 2_048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner)])
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=36_500))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Loaded(key, certificate), certificate


@dataclass(slots=True)
class Run:
    """A world with a client, a service and what lies between them."""

    plan: Plan
    folder: Path
    world: World
    faults: Faults
    auditor: Auditor
    network: Network = field(init=False)
    stage: Stage = field(init=False)
    trouble: Trouble = field(init=False)
    up: dict[str, Process] = field(default_factory=dict)
    _starts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        plan = self.plan
        self.trouble = Trouble(self)
        self.network = Network(self.world, self.faults, self.auditor, partitions=plan.partitions)
        credentials, certificate = identity()
        bootstrap = plan.bootstrap if self.auditor.plan_tier == "B" else "username"
        policy = castile.EndpointPolicy.of(
            plan.edition, secure=plan.secure, two_way=plan.two_way, bootstrap=bootstrap
        )
        skew = 5.0 if not plan.skew else TIMERS.clock_skew
        timers = replace(TIMERS, token_lifetime=plan.lifetime, clock_skew=skew, instance_grace=5.0)
        limits = Limits(window_messages=plan.window, acknowledgement_ranges=plan.ranges)
        settings = Settings(timers=timers, testing=True)
        self.stage = Stage(
            self.world,
            plan,
            self.auditor,
            policy,
            credentials,
            certificate,
            settings,
            replace(settings, limits=limits),
        )
        if bootstrap != "username":
            self.stage.people = {name: identity(name) for name in USERS}

    def start(self, role: str) -> None:
        """A process begins: ``client``, ``service``, or the second one of either."""
        self._starts[role] += 1
        side, plan, name = role.partition("-")[0], self.plan, f"{role}{self._starts[role]}"
        process = Process(
            self.world,
            name,
            side,
            self.faults,
            lasting=plan.client_store if side == "client" else plan.service_store,
            skew=plan.skew if side == "service" else 0.0,
            committed=self.auditor.committed,
            unexpected=self.auditor.unexpected,
        )
        process.set_clock(process.skew + self.trouble.wrong[side])
        process.ended = functools.partial(self._ended, role)
        self.up[role] = process
        self.world.note("start", name)
        lasting = plan.client_store if side == "client" else plan.service_store
        store = str(self.folder / f"{side}.db") if lasting else None
        if lasting and self._starts[role] == 1 and role == side:
            self._prepare(side)
        if side == "service":
            self.network.services = [each for each in self.network.services if each.alive] + [process]
            process.spawn("main", lambda: self._serve(process, store))
        else:
            line = self.network.line(process)
            self.stage.living.add(name)
            process.spawn("main", lambda: run_client(self.stage, process, store, line))

    def _prepare(self, side: str) -> None:
        """Most runs begin with an empty store that was made before."""
        if not self.plan.fresh:
            for path in template(side).iterdir():
                shutil.copyfile(path, self.folder / path.name)

    def _serve(self, process: Process, store: str | None) -> None:
        while process.service is None:
            made = service(self.stage, process, store)
            try:
                drive(made.start())
            except StoreError as error:
                self.world.note("unopened", process.name, type(error).__name__)
                self.world.sleep(1.0)
            else:
                process.service = made

    def _ended(self, role: str, process: Process) -> None:
        """It has died: another one starts after a while, unless its sibling has to do without."""
        lasting = self.plan.client_store if process.side == "client" else self.plan.service_store
        self.auditor.dead(process, lasting=lasting)
        self.stage.living.discard(process.name)
        if role.endswith("-b") and self.plan.seed % 2:
            self.stage.through.add(process.name)
            for intent in self.plan.intents:
                if self.stage.taken.get(intent.index) == process.name:
                    self.auditor.of(intent.token).doubt = True
        else:
            self.world.after(self.plan.down, lambda: self.start(role))

    def kill(self, side: str) -> None:
        """A process dies for no reason of its own."""
        for role, process in list(self.up.items()):
            over = process.name in self.stage.through
            wanted = side in (role, "both") or (side == process.side and self.faults.chance.random() < 0.5)
            if wanted and process.alive and not over and self.faults.planned("kill", role):
                process.kill("killed")

    def settled(self) -> bool:
        """Whether every program of the client is through."""
        clients = [process for process in self.up.values() if process.side == "client"]
        return all(process.name in self.stage.through for process in clients)

    def _attack(self) -> None:
        process = Process(
            self.world,
            "mallory",
            "mallory",
            self.faults,
            lasting=False,
            committed=lambda *_: None,
            unexpected=lambda text: None,
        )
        attacker = Attacker(self.stage, process, self.network.line(process), Random(self.plan.seed ^ 0xE51))
        process.spawn("attack", attacker.run)

    def go(self) -> None:
        """From the start to the end."""
        for moment, side in self.plan.kills:
            self.world.after(moment, functools.partial(self.kill, side))
        for side in ("service", "client"):
            self.start(side)
        for side in sorted(self.plan.pairs):
            self.start(f"{side}-b")
        if self.plan.attacker:
            self._attack()
        self.trouble.prepare()
        stage = self.stage
        self.world.run(self.settled, self.plan.duration)
        self.faults.active = False
        self.trouble.over()
        stage.calm = self.world.now
        self.world.note("calm")
        limit = self.world.now + PATIENCE
        if not self.world.run(self.settled, limit):
            self.auditor.violation("I18", "the client's program doesn't come to its end")
        self.world.run(self.auditor.idle, self.world.now + 60.0)
        self.world.run(lambda: False, self.world.now + 3.0)
        for rule in invariants.AT_THE_END:
            rule(self.auditor)
        files = [path.read_bytes() for path in self.folder.iterdir() if path.is_file()]
        invariants.nothing_readable(self.auditor, files)
        invariants.nothing_readable(self.auditor, (line.encode() for line in LOGGED))
        LOGGED.clear()


@functools.cache
def image() -> bytes:
    """An empty store in memory."""
    with tempfile.TemporaryDirectory(prefix="image-", dir=_memory()) as folder:
        copy = shutil.copy(template("service") / "service.db", folder)
        return image_of(Path(copy))


@functools.cache
def template(side: str) -> Path:
    """A folder with an empty store."""
    folder = Path(tempfile.mkdtemp(prefix="template-", dir=_memory()))
    atexit.register(remove, folder)
    with running(World(0, shuffle=False, preempt=0.0)) as world:
        faults = Faults(world, Random(0), {})
        process = Process(
            world,
            side,
            side,
            faults,
            lasting=True,
            committed=lambda *_: None,
            unexpected=lambda text: None,
        )
        process.pid = 1  # of nobody in the worlds that begin with it
        path = folder / f"{side}.db"
        process.spawn("make", lambda: stores.open(path, seal=SEAL, clock=process.clock).close())
        world.run(lambda: False, 60.0)
    return folder


def simulate(seed: int, tier: str = "A", overrides: Overrides | None = None) -> Result:
    """The run of this seed."""
    given = overrides or Overrides()
    plan = draw(seed)
    if given.intents is not None:
        plan = replace(plan, intents=plan.intents[: given.intents])
    if given.straight:
        plan = replace(plan, shuffle=False, preempt=0.0)
    world = World(seed, shuffle=plan.shuffle, preempt=plan.preempt)
    if given.verbose:
        world.log = []
    if not plan.fresh:
        world.memory = image()
    folder = Path(tempfile.mkdtemp(prefix="world-", dir=_memory()))
    auditor = Auditor(world, plan, tier)
    faults = Faults(world, Random(seed ^ 0xFA17), plan.rates, given.only)
    world.died = auditor.died
    try:
        with running(world):
            run = Run(plan, folder, world, faults, auditor)
            try:
                run.go()
            except Stuck as error:
                auditor.violation("I18", str(error))
            for process in run.up.values():
                process.ended = lambda process: None
                process.kill("the end")
    finally:
        remove(folder)
    return Result(
        seed,
        tuple(auditor.violations),
        world.trace,
        tuple(faults.happened),
        auditor.counts,
        tuple(world.log or ()),
        world.steps,
        world.now,
    )


@functools.cache
def _memory() -> str | None:
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() else None


