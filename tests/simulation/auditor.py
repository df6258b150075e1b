"""The auditor: a model of its own, fed by the wire, the effects and the disk.

It never looks at an object of the product. What left and what arrived it reads from the bytes;
what is durable it reads with SQL after each commit; what happened it hears from the handlers and
from the client's program. The rules are in `invariants`, one function each.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation import invariants, wire
from tests.simulation.plan import Plan
from tests.simulation.storage import Connection
from tests.simulation.world import Task, World

if TYPE_CHECKING:
    from castile.transport.asgi import HTTPAnswer
    from tests.simulation.processes import Process


@dataclass(slots=True)
class Run:
    """A handler that was started."""

    token: str
    sequence: str | None
    number: int
    process: Process
    principal: str | None
    redelivered: bool
    began: float
    transactional: bool
    ended: float | None = None
    outcome: str = "cut off"
    reply: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.sequence or "", self.number


@dataclass(slots=True)
class Told:
    """What the client's program was told of one intent."""

    started: int = 0
    returned: list[str] = field(default_factory=list)
    """Replies, "" for a message that has none."""
    error: str | None = None
    doubt: bool = False
    """It may or may not have happened."""
    by_callback: list[str] = field(default_factory=list)
    late_failure: bool = False
    """It failed when nothing went wrong any more."""


@dataclass(slots=True)
class Auditor:
    """The model."""

    world: World
    plan: Plan
    plan_tier: str = "A"
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    # the disk, as SQL reads it
    inbox: dict[str, dict[tuple[str, int], str]] = field(default_factory=dict)
    """By store: the status of each accepted message."""
    accepted: dict[tuple[str, int], float] = field(default_factory=dict)
    ever: set[tuple[str, int]] = field(default_factory=set)
    """Whatever was accepted, also by a service whose store died with it."""
    done: set[tuple[str, int]] = field(default_factory=set)
    replies: set[str] = field(default_factory=set)
    """MessageIDs of requests whose reply a client has on its disk, or had."""
    owed: set[str] = field(default_factory=set)
    """MessageIDs in a client's outbox, now or earlier."""
    effects: Counter[str] = field(default_factory=Counter)
    """Rows that transactional handlers have written."""
    # the wire
    arrived: dict[str, set[int]] = field(default_factory=dict)
    """By sequence: the numbers that reached the service."""
    tokens: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    last_messages: set[tuple[str, int]] = field(default_factory=set)
    closing: set[str] = field(default_factory=set)
    acknowledged: dict[str, frozenset[int]] = field(default_factory=dict)
    """By sequence: all that has ever been acknowledged on the wire."""
    exchanges: dict[int, dict[str, frozenset[int]]] = field(default_factory=dict)
    answers: dict[tuple[str, int], tuple[bytes, str | None]] = field(default_factory=dict)
    numbered: dict[str, tuple[str, int]] = field(default_factory=dict)
    seen: dict[str, set[str]] = field(
        default_factory=lambda: {"sequences": set(), "offered": set(), "contexts": set()}
    )
    """Identifiers of the client's that anybody on the way can know."""
    payloads: list[bytes] = field(default_factory=list)
    tags: set[bytes] = field(default_factory=set)
    """Protections that have left."""
    under_way: dict[str, str] = field(default_factory=dict)
    """By MessageID of each open exchange: the process that has it."""
    served: dict[bytes, bytes] = field(default_factory=dict)
    """Requests for tokens, by their protection, and the answer's."""
    expiries: dict[tuple[str, str | None], float] = field(default_factory=dict)
    """By context and instance: UTC at which the key ends, as the service has said."""
    arrivals: dict[tuple[str, int], list[wire.Facts]] = field(default_factory=dict)
    renewed: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)
    """By process and context: the instance of the newest key that it was given, and when."""
    creates: dict[str, set[str]] = field(default_factory=dict)
    sends: Counter[str] = field(default_factory=Counter)
    first_sent: dict[str, float] = field(default_factory=dict)
    # the effects
    runs: list[Run] = field(default_factory=list)
    by_key: dict[tuple[str, int], list[Run]] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)
    """MessageIDs that the client's program finds listed as unfinished at its end."""
    carried: dict[str, str] = field(default_factory=dict)
    """By MessageID: the token that the message carries, as far as it was on the wire."""
    deaths: int = 0
    commits: Counter[str] = field(default_factory=Counter)
    """By side."""
    buried: set[tuple[str, int]] = field(default_factory=set)
    """By side: owners that somebody else has ended."""
    stale: set[str] = field(default_factory=set)
    """Processes that may have been taken for dead."""
    undone: dict[str, set[str]] = field(default_factory=lambda: {"client": set(), "service": set()})
    """By side, the sequences of a store that was rolled back."""

    def violation(self, invariant: str, text: str) -> None:
        """A rule is broken."""
        self.world.note("violation", invariant, text)
        self.violations.append(f"{invariant}: {text}")

    def unexpected(self, text: str) -> None:
        """Something of the product broke that may not."""
        self.violation("defect", text)

    def died(self, task: Task, error: BaseException) -> None:
        """A thread of the product ended with an error."""
        self.unexpected(f"the thread {task.name} died of {error!r}")

    # the wire

    def left(self, client: Process, payload: bytes) -> None:
        facts = wire.read(payload)
        if facts is None:
            return
        self.world.note("left", client.name, facts.verb, facts.sequence, facts.number, facts.message_id)
        self.counts["requests"] += 1
        if client.side != "client":
            return
        self._known(facts, payload)
        invariants.protected_afresh(self, facts)
        invariants.newest_key(self, client, facts)
        invariants.one_exchange_for_a_message(self, client, facts)
        if facts.message_id is not None:
            self.sends[facts.message_id] += 1
            self.first_sent.setdefault(facts.message_id, self.world.now)
            if facts.token is not None:
                self.carried[facts.message_id] = facts.token
        invariants.reply_acknowledged_is_kept(self, facts)
        invariants.rolled_back_is_noticed(self, facts)

    def _known(self, facts: wire.Facts, payload: bytes) -> None:
        if facts.sequence is not None:
            self.seen["sequences"].add(facts.sequence)
        self.seen["offered"].update(each.sequence for each in facts.acknowledged)
        if len(self.payloads) < 20:
            self.payloads.append(payload)

    def closed(self, client: Process, payload: bytes) -> None:
        facts = wire.read(payload)
        if facts is not None and facts.message_id is not None:
            self.under_way.pop(facts.message_id, None)

    def arrived_at(self, service: Process, exchange: int, payload: bytes) -> None:
        facts = wire.read(payload)
        self.exchanges[exchange] = dict(self.acknowledged)
        if facts is None:
            return
        self.world.note("arrived", service.name, facts.verb, facts.sequence, facts.number)
        if facts.sequence is not None:
            self.arrived.setdefault(facts.sequence, set()).add(facts.number)
            key = facts.sequence, facts.number
            self.arrivals.setdefault(key, []).append(facts)
            if facts.token is not None:
                self.tokens.setdefault(key, set()).add(facts.token)
            if facts.last:
                self.last_messages.add(key)
        if facts.verb in ("CloseSequence", "TerminateSequence") and facts.named is not None:
            self.closing.add(facts.named)
        if facts.verb == "Cancel":
            self.closing.add("*")

    def answered(self, service: Process, exchange: int, payload: bytes, answer: HTTPAnswer) -> None:
        facts, request = wire.read(answer.body), wire.read(payload)
        before = self.exchanges.pop(exchange, {})
        self.world.note("answer", service.name, answer.status, facts.verb if facts else "-")
        self.counts[f"answer {answer.status}"] += 1
        if facts is None:
            return
        for each in facts.acknowledged:
            invariants.acknowledged_is_durable(self, each)
            invariants.acknowledgements_never_shrink(self, each, before)
            invariants.acknowledgement_is_bounded(self, each, refused=facts.fault)
            earlier = self.acknowledged.get(each.sequence, frozenset())
            self.acknowledged[each.sequence] = earlier | each.numbers
        invariants.reply_is_stable(self, facts)
        if facts.context is not None and facts.expires is not None:
            self.expiries[facts.context, facts.instance] = facts.expires
        if request is not None:
            invariants.one_sequence_for_a_request(self, request, facts)
            invariants.tokens_are_asked_once(self, request, facts)

    def reached(self, client: Process, payload: bytes) -> None:
        facts = wire.read(payload)
        if facts is not None:
            self.world.note("reached", client.name, facts.verb, facts.relates_to, facts.number)
            if facts.context is not None and client.side == "client" and not facts.fault:
                self.seen["contexts"].add(facts.context)
                if facts.instance is not None:
                    self.renewed[client.name, facts.context] = facts.instance, self.world.now

    # the disk

    def committed(self, process: Process, connection: Connection) -> None:
        """Read what is durable now."""
        self.commits[process.side] += 1
        if process.side in self.plan.pairs:
            invariants.stale_owners_are_fenced(self, process, connection)
        if process.side == "service":
            self._service_disk(process, connection)
        elif process.side == "client":
            rows = connection.raw("SELECT message_id FROM castile_outbox WHERE kind = 'application'")
            self.owed.update(row[0] for row in rows)
            self.replies.update(row[0] for row in connection.raw("SELECT message_id FROM castile_replies"))

    def _service_disk(self, process: Process, connection: Connection) -> None:
        rows = connection.raw("SELECT sequence, number, status FROM castile_inbox WHERE side = 'service'")
        name = connection.path if connection.path != ":memory:" else process.name
        current = {(row[0], row[1]): row[2] for row in rows}
        for key, status in current.items():
            if key not in self.accepted:
                invariants.token_was_good(self, process, key)
                self.accepted[key] = self.world.now
                self.ever.add(key)
                self.world.note("accepted", *key)
            if status == "done" and key not in self.done:
                self.done.add(key)
                self.world.note("done", *key)
        self.inbox[name] = current
        invariants.window_is_kept(self, current)
        if self.plan_has_transactions:
            found = connection.raw("SELECT name FROM sqlite_schema WHERE name = 'effects'")
            if found:
                rows = connection.raw("SELECT token FROM effects")
                self.effects = Counter(f"PLAIN{row[0]}" for row in rows)
                invariants.transactional_effects_once(self)

    @property
    def plan_has_transactions(self) -> bool:
        return any(intent.behaviour == "transact" for intent in self.plan.intents)

    def dead(self, process: Process, *, lasting: bool) -> None:
        """A process has died; `lasting`: its store survives it."""
        self.deaths += 1
        for message_id in [name for name, owner in self.under_way.items() if owner == process.name]:
            del self.under_way[message_id]
        if process.side == "service" and not lasting:
            for key in self.inbox.pop(process.name, {}):
                self.accepted.pop(key, None)
                self.done.discard(key)
            for run in self.runs:  # nobody knows any more that these have run
                if run.process is process:
                    self.of(run.token).doubt = True
        elif process.side == "client" and not lasting:
            for told in self.told.values():  # what it had was gone with it
                told.doubt = True

    def rolled_back(self, side: str) -> None:
        """An old copy was put in the place of a store: what has happened since is in doubt."""
        for told in self.told.values():
            told.doubt = True
        if side == "client":
            self.undone["client"] |= self.seen["sequences"]
            return
        self.undone["service"] |= {sequence for sequence, _ in self.ever}
        for forgotten in (self.creates, self.served, self.answers, self.numbered):
            forgotten.clear()

    # the effects

    def begins(self, run: Run) -> None:
        """A handler starts."""
        self.world.note("run", run.process.name, run.token, run.sequence, run.number, run.redelivered)
        earlier = self.by_key.setdefault(run.key, [])
        invariants.runs_what_is_durable(self, run)
        invariants.runs_once(self, run, earlier)
        invariants.runs_in_order(self, run)
        invariants.one_number_for_a_message(self, run)
        invariants.delivered_to_its_owner(self, run)
        invariants.rolled_back_runs_nothing(self, run)
        self.runs.append(run)
        earlier.append(run)

    def ends(self, run: Run, outcome: str, reply: str | None = None) -> None:
        """A handler is through."""
        run.ended, run.outcome, run.reply = self.world.now, outcome, reply
        self.world.note("ran", run.token, outcome)

    def idle(self) -> bool:
        """Whether all that was accepted is done."""
        return all(status != "ready" for rows in self.inbox.values() for status in rows.values())

    def tag(self, facts: wire.Facts) -> Any:
        """What is behind a message's tag, in tier A."""
        return getattr(self.world, "tags", None) and self.world.tags.tags.get(facts.tag)

    def of(self, token: str) -> Told:
        return self.told.setdefault(token, Told())

