"""The application on both sides: what the client's program wants done, and the service's handlers.

It knows only what a user of castile knows: what a call returned or raised, and what its handlers
were given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography import x509

import castile
from castile.client import Reply
from castile.config import Settings
from castile.errors import (
    CastileError,
    FaultReceived,
    InDoubt,
    Retry,
    SequenceCreationFailed,
    StoreError,
    TransportError,
)
from castile.transport.http import HTTP
from tests.simulation.auditor import Auditor, Run
from tests.simulation.plan import Intent, Plan
from tests.simulation.world import World

if TYPE_CHECKING:
    from castile.endpoint.party import Purpose
    from tests.simulation.processes import Process

ADDRESS = "http://service.test/"
USERS = {"ada": "SECRET-ada", "mallory": "SECRET-mallory"}
SEAL = b"SEALING KEY of 32 bytes for both"
_AGAIN = 4
_OPEN = (TransportError, SequenceCreationFailed)
"""Errors that say: nothing was numbered, or it is known to have failed for good."""


@dataclass(slots=True)
class Stage:
    """What processes of both sides are made with."""

    world: World
    plan: Plan
    auditor: Auditor
    policy: castile.EndpointPolicy
    credentials: castile.Certificate
    certificate: x509.Certificate
    client_settings: Settings
    service_settings: Settings
    replies: int = 0
    calm: float | None = None
    """Since when nothing goes wrong any more."""
    living: set[str] = field(default_factory=set)
    """Processes of the client."""
    ended: set[int] = field(default_factory=set)
    """Intents that are settled."""
    taken: dict[int, str] = field(default_factory=dict)
    """By intent: the process that has taken it up."""
    through: set[str] = field(default_factory=set)
    """Processes of the client whose program is through."""
    closing_error: str | None = None
    people: dict[str, tuple[castile.Certificate, x509.Certificate]] = field(default_factory=dict)
    """Those who sign with a certificate of their own; empty where they have passwords."""

    def account(self, name: str) -> castile.Certificate | castile.Username | None:
        """What somebody shows to get a context."""
        if not self.plan.secure:
            return None
        return self.people[name][0] if self.people else castile.Username(name, USERS[name])

    def dead(self, name: str | None) -> bool:
        """Whether a process with this name was, and is no more."""
        return name is not None and name not in self.living

    def new_id(self, purpose: Purpose) -> str:
        """Identifiers that read well in a trace."""
        return f"urn:{purpose}:{next(self.world.names)}"


# the service


def service(stage: Stage, process: Process, store: str | None) -> castile.Service:
    """A service with the run's handlers, not yet started."""
    made = castile.Service(
        policy=stage.policy,
        credentials=stage.credentials if stage.plan.secure else None,
        users=USERS if stage.plan.secure and not stage.people else None,
        trust=[certificate for _, certificate in stage.people.values()],
        store=store,
        seal=SEAL,
        settings=stage.service_settings,
        clock=process.clock,
        random=stage.world.random_bytes,
        new_id=stage.new_id,
    )
    for behaviour in ("ok", "slow", "fault", "raises", "retry"):
        made.raw(f"urn:sim/{behaviour}")(_handler(stage, process, behaviour))
    made.raw("urn:sim/transact", transactional=True)(_handler(stage, process, "transact"))
    return made


def _token_of(body: bytes) -> str:
    return body.partition(b"<t>")[2].partition(b"<")[0].decode()


def _handler(stage: Stage, process: Process, behaviour: str) -> Callable[..., bytes]:
    auditor, world = stage.auditor, stage.world

    def handle(body: bytes, ctx: castile.RequestContext) -> bytes:
        token = _token_of(body)
        run = Run(
            token,
            ctx.sequence,
            ctx.number or 0,
            process,
            ctx.principal,
            ctx.redelivered,
            world.now,
            behaviour == "transact",
        )
        auditor.begins(run)
        earlier = len([each for each in auditor.runs if each.token == token])
        if behaviour == "slow":
            world.sleep(stage.plan.seed % 97 * 0.12 + 0.1)
        if behaviour == "transact" and ctx.transaction is not None:
            ctx.transaction.execute("CREATE TABLE IF NOT EXISTS effects (token TEXT)")
            ctx.transaction.execute("INSERT INTO effects (token) VALUES (?)", (token[5:],))
        if behaviour == "retry" and earlier == 1:
            auditor.ends(run, "retry")
            raise Retry(0.5)
        if behaviour == "raises" and earlier < 3:
            auditor.ends(run, "raised")
            raise ValueError("a handler's own trouble")
        if behaviour == "fault":
            stage.replies += 1
            auditor.ends(run, "fault", f"fault {token}")
            raise castile.Fault("Sender", f"fault {token}")
        stage.replies += 1
        reply = f"{token}.{stage.replies}"
        auditor.ends(run, "ok", reply)
        return f'<r xmlns="urn:sim"><t>{reply}</t></r>'.encode()

    return handle


# the client


def client(stage: Stage, process: Process, store: str | None, http: HTTP) -> castile.Client:
    """A client of this process."""
    return castile.Client(
        ADDRESS,
        policy=stage.policy,
        credentials=stage.account("ada"),
        service_certificate=stage.certificate if stage.plan.secure else None,
        store=store,
        seal=SEAL,
        settings=stage.client_settings,
        http=http,
        on_reply=lambda reply: _called_back(stage, reply),
        clock=process.clock,
        random=stage.world.random_bytes,
        new_id=stage.new_id,
    )


def _called_back(stage: Stage, reply: Reply) -> None:
    text = reply.fault.reason if reply.fault else _token_of(reply.body)
    token = text.removeprefix("fault ").partition(".")[0]
    stage.auditor.of(token).by_callback.append(text)
    stage.world.note("callback", text)


def run_client(stage: Stage, process: Process, store: str | None, http: HTTP) -> None:
    """The client's program, from its start to its end; after a crash it runs again."""
    plan, world = stage.plan, stage.world
    opened: castile.Client | None = None
    while opened is None:
        try:
            opened = client(stage, process, store, http)
        except StoreError as error:
            world.note("unopened", type(error).__name__)
            world.sleep(1.0)
    for intent in plan.intents:  # a process that was killed had taken these up
        dead = stage.dead(stage.taken.get(intent.index))
        if dead and intent.index not in stage.ended:
            told = stage.auditor.of(intent.token)
            if intent.key and store is not None:
                del stage.taken[intent.index]
            else:
                told.doubt = True
                stage.ended.add(intent.index)
    callers = [
        process.world.spawn(process, f"{process.name}/caller", lambda: _caller(stage, process, opened))
        for _ in range(plan.callers)
    ]
    while not all(task.greenlet.dead for task in callers):
        world.sleep(0.5)
    _leave(stage, opened)
    stage.through.add(process.name)


def _leave(stage: Stage, opened: castile.Client) -> None:
    """What the program does at its end."""
    listed: set[str] = set()
    patient = 0
    while patient < 60:
        try:
            listed = {each.message_id for each in opened.unfinished() if each.reply is None}
            if not listed or not stage.plan.lasting:
                break
            stage.world.sleep(5.0)
            patient += 2
        except StoreError:
            stage.world.sleep(1.0)
            patient += 1
    stage.auditor.listed = listed
    for _ in range(60):
        try:
            opened.close(keep=not stage.plan.closes)
            return
        except InDoubt as error:
            stage.closing_error = str(error)
            stage.world.note("closing", error.numbers)
            return
        except StoreError:
            stage.world.sleep(1.0)
        except CastileError as error:
            stage.closing_error = str(error)
            return


def _caller(stage: Stage, process: Process, opened: castile.Client) -> None:
    second = "client" in stage.plan.pairs and process.name.startswith("client-b")
    for intent in stage.plan.intents:
        mine = "client" not in stage.plan.pairs or intent.index % 2 == second or intent.key
        if intent.index in stage.taken or not mine:
            continue
        stage.taken[intent.index] = process.name
        if intent.pause:
            stage.world.sleep(intent.pause)
        _attempt(stage, opened, intent)
        stage.ended.add(intent.index)


def _attempt(stage: Stage, opened: castile.Client, intent: Intent) -> None:
    told, world = stage.auditor.of(intent.token), stage.world
    body = f'<m xmlns="urn:sim"><t>{intent.token}</t></m>'.encode()
    options: dict[str, Any] = {"key": f"KEYNAME-{intent.index}"} if intent.key else {}
    if intent.kind == "send" and "key" not in inspect.signature(opened.send_raw).parameters:
        options = {}
    patient = intent.timeout >= 15 and intent.behaviour != "slow"
    for attempt in range(_AGAIN):
        told.started += 1
        late = stage.calm is not None and world.now > stage.calm + 40.0 and patient
        world.note("asks", intent.token, attempt)
        try:
            if intent.kind == "call":
                reply = opened.call_raw(intent.action, body, timeout=intent.timeout, **options)
                told.returned.append(_token_of(reply))
            else:
                opened.send_raw(intent.action, body, **options)
                told.returned.append("")
        except FaultReceived as error:
            world.note("told", intent.token, "fault", error)
            told.error = str(error)
            if error.fault.reason == f"fault {intent.token}":
                told.returned.append(error.fault.reason)
            return
        except _OPEN as error:
            world.note("told", intent.token, type(error).__name__)
            told.error = str(error)
            told.late_failure = late
            if options and isinstance(error, SequenceCreationFailed):
                told.doubt = True
            world.sleep(1.0)
            continue
        except (InDoubt, StoreError) as error:
            world.note("told", intent.token, type(error).__name__)
            unsure = isinstance(error, StoreError) or "free again" in str(error)
            told.doubt = told.doubt or unsure or not options
            told.error = str(error)
            told.late_failure = late
            if not options or attempt == _AGAIN - 1:
                told.doubt = True
                return
            world.sleep(1.0)
            continue
        except CastileError as error:
            world.note("told", intent.token, type(error).__name__)
            told.error = str(error)
            told.doubt = True
            stage.auditor.counts[f"told {type(error).__name__}"] += 1
            return
        world.note("told", intent.token, "returned")
        told.error, told.late_failure = None, False
        return
