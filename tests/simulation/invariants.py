"""What must hold, one function a rule, named as in the list of invariants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.simulation.world import EPOCH

if TYPE_CHECKING:
    from tests.simulation.auditor import Auditor, Run
    from tests.simulation.processes import Process
    from tests.simulation.storage import Connection
    from tests.simulation.wire import Acknowledged, Facts


def runs_once(model: Auditor, run: Run, earlier: list[Run]) -> None:
    """I1, I7: a message whose end is committed never runs again; one that a crash cut off does, and
    is marked as redelivered; two runs of it never overlap. Whoever was taken for dead may begin one
    more before its store tells it: then only what is committed counts (`transactional_effects_once`)."""
    if run.sequence is None or run.process.stale:
        return
    if run.key in model.done:
        model.violation("I1", f"{run.token} ({run.key}) runs again though it is done")
        return
    for other in earlier:
        if other.process is run.process or (other.process.alive and not other.process.stale):
            if other.ended is None:
                model.violation("I1", f"{run.token} runs twice at once")
            elif other.outcome in ("ok", "fault") and not other.transactional:
                model.violation("I1", f"{run.token} runs again after {other.outcome} in a living process")
        elif not run.redelivered:
            model.violation("I1", f"{run.token} runs again and isn't marked as redelivered")


def runs_in_order(model: Auditor, run: Run) -> None:
    """I2: the first runs of a sequence's messages go 1, 2, 3; one handler at a time."""
    if run.sequence is None or run.process.stale:
        return
    others = [each for each in model.runs if each.sequence == run.sequence]
    for each in others:
        living = each.process.alive and not each.process.stale
        if each.ended is None and living and each.number != run.number:
            model.violation("I2", f"{run.token} runs beside {each.token} of the same sequence")
    if run.key in model.by_key and any(each.number == run.number for each in others):
        return
    highest = max((each.number for each in others), default=0)
    if run.number < highest:
        model.violation("I2", f"number {run.number} runs after {highest}")
    before = range(highest + 1, run.number)
    gap = [number for number in before if (run.sequence, number) not in model.last_messages]
    if gap and run.sequence not in model.closing and "*" not in model.closing:
        model.violation("I2", f"number {run.number} runs before {gap}")


def one_number_for_a_message(model: Auditor, run: Run) -> None:
    """I1, I7: what the program asked for once never runs under two numbers."""
    told = model.of(run.token)
    for each in model.runs:
        if each.token == run.token and each.key != run.key and not told.doubt:
            model.violation("I7", f"{run.token} runs as {each.key} and as {run.key}")
            return


def delivered_to_its_owner(model: Auditor, run: Run) -> None:
    """I5: a delivery comes from who owns the sequence's context."""
    if not model.plan.secure:
        return
    owner = "mallory" if run.token.startswith("EVIL") else "ada"
    if run.principal not in (owner, f"CN={owner}"):
        model.violation("I5", f"{run.token} of {owner} is delivered as {run.principal}'s")
    for each in model.runs:
        if each.sequence == run.sequence and each.principal != run.principal:
            model.violation("I5", f"{run.token} of {run.principal} in a sequence of {each.principal}")
            return


def acknowledged_is_durable(model: Auditor, answer: Acknowledged) -> None:
    """I3: what an acknowledgement names was on the disk before it left."""
    for number in answer.numbers:
        key = answer.sequence, number
        if key not in model.accepted and key not in model.last_messages:
            model.violation("I3", f"{key} is acknowledged and isn't durable")


def acknowledgements_never_shrink(
    model: Auditor, answer: Acknowledged, before: dict[str, frozenset[int]]
) -> None:
    """I4: it holds all that had been acknowledged before its request came."""
    lost = before.get(answer.sequence, frozenset()) - answer.numbers
    if lost and all((answer.sequence, number) in model.accepted for number in lost):
        model.violation("I4", f"an acknowledgement of {answer.sequence} takes {sorted(lost)} back")


def acknowledgement_is_bounded(model: Auditor, answer: Acknowledged, *, refused: bool) -> None:
    """I4: only what came, in ranges that don't touch, no more than the limit; `refused`: it goes
    with a fault, which may have ended its sequence."""
    beyond = answer.numbers - model.arrived.get(answer.sequence, set())
    if beyond:
        model.violation("I4", f"{answer.sequence}: {sorted(beyond)} acknowledged and never sent")
    ranges = [each for each in answer.ranges if each != (0, 0)]
    if len(ranges) > model.plan.ranges:
        model.violation("I4", f"{len(ranges)} ranges")
    for (_, upper), (lower, _) in pairwise(ranges):
        if lower <= upper + 1:
            model.violation("I4", f"ranges that touch: {ranges}")
    if answer.final and not refused and answer.sequence not in model.closing and "*" not in model.closing:
        model.violation("I4", f"{answer.sequence}: final, and nobody closed it")


def reply_acknowledged_is_kept(model: Auditor, facts: Facts) -> None:
    """I3, at the client: a reply that it acknowledges is on its disk, or was handed on."""
    for each in facts.acknowledged:
        for number in each.numbers:
            known = model.answers.get((each.sequence, number))
            if known is None:
                continue
            request = known[1]
            if request is not None and request in model.owed and request not in model.replies:
                model.violation("I3", f"reply {number} of {each.sequence} is acknowledged and isn't kept")


def reply_is_stable(model: Auditor, facts: Facts) -> None:
    """I9: one reply a request, the same at each repetition."""
    if facts.sequence is None or facts.last or (facts.fault and not facts.relates_to):
        return
    key, content = (facts.sequence, facts.number), (facts.body, facts.relates_to)
    known = model.answers.setdefault(key, content)
    if model.plan_tier == "A" and known != content:
        model.violation("I9", f"reply {key} changes between repetitions")
    if facts.relates_to is not None:
        first = model.numbered.setdefault(facts.relates_to, key)
        if first != key and model.plan.service_store:
            model.violation("I9", f"{facts.relates_to} has two replies: {first} and {key}")


def one_sequence_for_a_request(model: Auditor, request: Facts, answer: Facts) -> None:
    """I7: a repeated CreateSequence makes no second sequence."""
    if answer.verb != "CreateSequenceResponse" or request.message_id is None or answer.named is None:
        return
    made = model.creates.setdefault(request.message_id, set())
    made.add(answer.named)
    if len(made) > 1 and model.plan.service_store:
        model.violation("I7", f"CreateSequence {request.message_id} made {sorted(made)}")


def transactional_effects_once(model: Auditor) -> None:
    """I1: effects of a transactional handler are there once."""
    for token, count in model.effects.items():
        if count > 1 and not model.of(token).doubt:
            model.violation("I1", f"{token} has {count} effects in the database")


def runs_what_is_durable(model: Auditor, run: Run) -> None:
    """I3: a handler gets what is on the disk already."""
    if run.sequence is not None and run.key not in model.accepted:
        model.violation("I3", f"{run.token} {run.key} runs before it is durable")


def window_is_kept(model: Auditor, rows: dict[tuple[str, int], str]) -> None:
    """I13: no sequence keeps more undone messages than its window."""
    waiting = Counter(sequence for (sequence, _), status in rows.items() if status != "done")
    for sequence, count in waiting.items():
        if count > model.plan.window:
            model.violation("I13", f"{count} messages wait in {sequence}, the window is {model.plan.window}")


def token_was_good(model: Auditor, service: Process, key: tuple[str, int]) -> None:
    """I11: past its end a key makes nothing new; what it may still do is repeat, fill gaps, ask."""
    arrivals = model.arrivals.get(key, [])
    tags = [model.tag(facts) for facts in arrivals]
    if not tags or any(facts.asks for facts in arrivals) or any(tag is None for tag in tags):
        return
    if any(number > key[1] for sequence, number in model.ever if sequence == key[0]):
        return
    now = EPOCH + model.world.now + min(service.skews)
    ends = [model.expiries.get((tag.key.identifier, tag.key.instance)) for tag in tags]
    if all(end is not None and now > end + 0.5 for end in ends):
        model.violation("I11", f"{key} is new and accepted under a key that has ended")


def nothing_readable(model: Auditor, written: Iterable[bytes]) -> None:
    """I14: no key, password or text of the application can be read in what was written."""
    for octets in written:
        for secret in (b"PLAINTEXT", b"SECRET-", b"KEYNAME-", b"SEALING KEY"):
            if secret in octets:
                place = octets.index(secret)
                model.violation("I14", f"{octets[max(0, place - 40) : place + 20]!r} was written")
                return


def protected_afresh(model: Auditor, facts: Facts) -> None:
    """CO-15: each attempt at a message is protected anew."""
    if facts.tag and facts.tag in model.tags:
        model.violation("CO-15", f"{facts.message_id} leaves with the protection of an earlier attempt")
    model.tags.add(facts.tag)


def newest_key(model: Auditor, client: Process, facts: Facts) -> None:
    """I12: soon after a renewal everything is under the new key."""
    tag = model.tag(facts)
    unsure = any(rate for name, rate in model.plan.rates.items() if name.startswith("client "))
    if tag is None or facts.verb in ("Renew", "SCT-Renew") or unsure:
        return  # an unsure disk may not have kept the new key
    known = model.renewed.get((client.name, tag.key.identifier)) if hasattr(tag.key, "identifier") else None
    if known is not None and known[0] != tag.key.instance and model.world.now > known[1] + 1.0:
        model.violation("I12", f"{facts.message_id} leaves under {tag.key.instance}, {known[0]} is newer")


def one_exchange_for_a_message(model: Auditor, client: Process, facts: Facts) -> None:
    """I8: a message has one sender at a time."""
    if facts.message_id is None:
        return
    other = model.under_way.get(facts.message_id)
    if other is not None and other not in model.stale and client.name not in model.stale:
        model.violation("I8", f"{client.name} sends {facts.message_id}, which {other} is sending")
    model.under_way[facts.message_id] = client.name


def tokens_are_asked_once(model: Auditor, request: Facts, answer: Facts) -> None:
    """I7: a request outside any sequence that comes again is refused."""
    if answer.fault or not request.tag or request.verb not in ("SCT", "Issue", "Renew", "Cancel"):
        return
    if request.tag in model.served and model.plan.service_store:
        model.violation("I7", f"{request.message_id} ({request.verb}) is answered twice")
    model.served[request.tag] = answer.tag


def rolled_back_is_noticed(model: Auditor, facts: Facts) -> None:
    """I17: nothing new is numbered in a sequence of which the store has forgotten something."""
    if facts.sequence in model.undone["client"] and facts.token is not None:
        model.violation("I17", f"{facts.token} leaves in {facts.sequence}, whose store was rolled back")


def rolled_back_runs_nothing(model: Auditor, run: Run) -> None:
    """I17: what had come before a store was rolled back is in doubt, and doesn't run again."""
    if run.sequence in model.undone["service"]:
        model.violation("I17", f"{run.token} runs in {run.sequence}, whose store was rolled back")


def stale_owners_are_fenced(model: Auditor, process: Process, connection: Connection) -> None:
    """I8: whoever was taken for dead commits nothing any more."""
    owners = connection.raw("SELECT id, pid, ended FROM castile_owners ORDER BY id")
    mine = max((owner for owner, pid, _ in owners if pid == process.pid), default=0)
    if (process.side, mine) in model.buried:
        model.violation("I8", f"{process.name} commits though another process has ended it")
    ended = {owner for owner, _, ended in owners if ended is not None}
    model.buried.update((process.side, owner) for owner in ended - {mine})


# at the end


def all_is_told(model: Auditor) -> None:
    """I18: each intent has one end."""
    for intent in model.plan.intents:
        told = model.of(intent.token)
        if told.started and not told.returned and told.error is None and not told.doubt:
            model.violation("I18", f"{intent.token} has no end")


def replies_are_true(model: Auditor) -> None:
    """I6, I9: a call gets the reply that its handler gave, and no other."""
    for intent in model.plan.intents:
        told = model.of(intent.token)
        got = told.returned + told.by_callback
        given = {run.reply for run in model.runs if run.token == intent.token}
        if intent.kind != "call":
            continue
        for reply in got:
            if reply not in given:
                model.violation("I6", f"{intent.token} got the reply {reply!r}, which nobody gave")
        if len(set(got)) > 1 and not told.doubt:
            model.violation("I9", f"{intent.token} got the replies {got}")


def nothing_is_lost(model: Auditor) -> None:
    """I6, I18: a message that was taken for sending arrives, or somebody is told that it didn't. Of a
    damaged row only the log can tell."""
    if model.plan.flips:
        return
    arrived = {token for key, tokens in model.tokens.items() if key in model.ever for token in tokens}
    arrived |= {run.token for run in model.runs if run.ended is not None}
    for intent in model.plan.intents:
        told = model.of(intent.token)
        if intent.kind == "call" or not told.returned or told.doubt or told.error or intent.token in arrived:
            continue
        listed = any(model.carried.get(name, intent.token) == intent.token for name in model.listed)
        if model.plan.lasting:
            model.violation("I18", f"{intent.token} was taken for sending and never arrives")
        elif not listed:
            model.violation("I6", f"{intent.token} was taken for sending and is lost silently")


def calm_is_calm(model: Auditor) -> None:
    """I6, I18: where both sides keep what they have, no sequence fails, and with nothing wrong any
    more every call is answered."""
    if not model.plan.lasting or model.plan.ranges < 4 or model.plan.window < 4:
        return  # with no room for what comes early it takes as long as the back-off
    for intent in model.plan.intents:
        told = model.of(intent.token)
        error = (told.error or "")[:150]
        if "the sequence failed" in error:
            model.violation("I6", f"{intent.token}: {error}")
        elif told.late_failure:
            model.violation("I18", f"{intent.token} fails with nothing wrong any more: {error}")


def nothing_is_left(model: Auditor) -> None:
    """I18: what was accepted was handled."""
    for name, rows in model.inbox.items():
        for key, status in rows.items():
            if status == "ready" and not model.plan.flips:
                model.violation("I18", f"{key} is accepted in {name} and never handled")
    if model.plan.service_store and not model.plan.flips and model.plan.restored is None:
        for token in {run.token for run in model.runs}:
            outcomes = {run.outcome for run in model.runs if run.token == token}
            if outcomes <= {"raised", "retry"} and any(
                intent.token == token and (intent.kind == "send" or "retry" in outcomes)
                for intent in model.plan.intents
            ):
                model.violation("I18", f"{token} failed and never ran again")


def sends_are_bounded(model: Auditor) -> None:
    """I18: repetitions keep to the back-off; after a crash, and where nothing can be kept, they
    begin anew."""
    unsure = any(rate for name, rate in model.plan.rates.items() if name.startswith("client "))
    for message_id, count in model.sends.items():
        span = model.world.now - model.first_sent[message_id]
        if count > 12 + span * (3 if unsure else 0.5) + 3 * model.deaths:
            model.violation("I18", f"{message_id} was sent {count} times in {span:.0f} s")


AT_THE_END = (
    all_is_told,
    replies_are_true,
    nothing_is_lost,
    calm_is_calm,
    nothing_is_left,
    sends_are_bounded,
)
