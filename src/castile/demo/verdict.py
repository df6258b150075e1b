"""The verdict: what happened to each message, counted from the handlers' rows alone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from castile.clock import iso
from castile.demo.effects import Effect
from castile.demo.plan import USER, Files, Plan


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts over one run."""

    sent: int
    """Messages that the client application submitted, by its own journal."""
    delivered: int
    """Messages that a handler has handled at least once."""
    lost: int
    """Submitted, and never handled."""
    duplicated: int
    """Runs of a handler too many: a second row of the transactional one, or a repeat of the
    ordinary one that was not told of it."""
    redelivered: int
    """Repeats of the ordinary handler that were told by ``ctx.redelivered``."""
    out_of_order: int
    """Messages whose first handling came after that of a later one."""
    unanswered: int
    """Submitted calls that got no reply, or that of another message."""

    @property
    def ok(self) -> bool:
        """Each message once, in order, repeats told, calls answered."""
        wrong = (self.lost, self.duplicated, self.out_of_order, self.unanswered)
        return not any(wrong) and self.delivered == self.sent


def judge(effects: Sequence[Effect], answers: Mapping[int, int | None]) -> Verdict:
    """Count. `effects`: in the order of their happening. `answers`: by submitted message, the
    message that its reply named; None: no reply."""
    handled: set[int] = set()
    duplicated = redelivered = 0
    firsts: list[int] = []
    for effect in effects:
        if effect.message not in handled:
            handled.add(effect.message)
            firsts.append(effect.message)
        elif effect.transactional or not effect.redelivered:
            duplicated += 1
        else:
            redelivered += 1
    return Verdict(
        sent=len(answers.keys() | handled),
        delivered=len(handled),
        lost=len(answers.keys() - handled),
        duplicated=duplicated,
        redelivered=redelivered,
        out_of_order=overtaken(firsts),
        unanswered=sum(answer != message for message, answer in answers.items()),
    )


def overtaken(messages: Iterable[int]) -> int:
    """How many numbers come after a larger one."""
    count = highest = 0
    for message in messages:
        if message < highest:
            count += 1
        highest = max(highest, message)
    return count


def answers(path: Path) -> dict[int, int | None]:
    """What the client application's journal holds."""
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT message, answer FROM calls").fetchall())


def export(effects: Iterable[Effect], path: Path) -> None:
    """A JSON object a line for each run of a handler, in the order of their happening."""
    with path.open("w", encoding="utf-8") as file:
        for effect in effects:
            file.write(json.dumps({**asdict(effect), "utc": iso(effect.utc)}) + "\n")


def key_file(plan: Plan, files: Files, password: str) -> dict[str, object]:
    """All that the wire folder's messages can be read with (``castile explain --keys``)."""
    pairs = [(files.identity, files.certificate)]
    if plan.certified:
        pairs.append((files.client_identity, files.client_certificate))
    certificates = [certificate.read_text("ascii") for _, certificate in pairs]
    identities = [identity.read_text("ascii") for identity, _ in pairs]
    return {
        "keys": [pem.removesuffix(alone) for pem, alone in zip(identities, certificates, strict=True)],
        "certificates": certificates,
        "contexts": _contexts(files.keylog),
        "users": {USER: password} if plan.bootstrap == "username" else {},
    }


def _contexts(keylog: Path) -> dict[str, str | dict[str, str]]:
    """The secrets of a key log: of a context that was renewed, one for each instance."""
    instances: dict[str, dict[str, str]] = {}
    lines = keylog.read_text("utf-8").splitlines() if keylog.exists() else []
    for line in lines:
        for identifier, keys in json.loads(line)["contexts"].items():
            known = instances.setdefault(identifier, {})
            known.update(keys if isinstance(keys, dict) else {"": keys})
    return {name: keys[""] if keys.keys() == {""} else keys for name, keys in instances.items()}
