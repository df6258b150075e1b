"""Every edition, SOAP version and bootstrap, each with kills, loss, doubling, reordering and renewals.

Both editions of a SOAP version and bootstrap run at once, for a run waits more than it works. The
seeds are fixed: what goes wrong in a run, and about when, is the same each time.
"""

from __future__ import annotations

import itertools
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from castile.explaining import explain
from castile.versions import SOAP_1_1, SOAP_1_2
from tests.demo.runs import Run, demo

EDITIONS = ("1.3", "2005")
SOAPS = {"1.1": SOAP_1_1.namespace, "1.2": SOAP_1_2.namespace}
BOOTSTRAPS = ("username", "certificate", "anonymous", "mutual")
COMBINATIONS = list(itertools.product(SOAPS, BOOTSTRAPS))
MESSAGES, EVERY = 9, 3
VICTIMS = ("both", "service", "client")

_TOKEN = re.compile(rb"<c:SecurityContextToken\b.*?</c:SecurityContextToken>", re.DOTALL)
_NAMED = re.compile(rb"<c:(Identifier|Instance)\b[^>]*>([^<]+)<")


def options(edition: str, soap: str, bootstrap: str) -> list[str]:
    """Of one run; who is killed, and the seed, come from its place."""
    place = COMBINATIONS.index((soap, bootstrap)) * len(EDITIONS) + EDITIONS.index(edition)
    chosen = {
        "edition": edition,
        "soap": soap,
        "bootstrap": bootstrap,
        "messages": MESSAGES,
        "renew-every": EVERY,
        "drop": 0.1,
        "duplicate": 0.2,
        "kill": VICTIMS[place % len(VICTIMS)],
        "seed": 400 + place,
    }
    return [text for name, value in chosen.items() for text in (f"--{name}", str(value))] + ["--reorder"]


def instances_used(wire: Path) -> set[tuple[str, str]]:
    """Identifier and Instance of each renewed key under which the client sent something."""
    found = set()
    for path in wire.glob("*-request.xml"):
        for token in _TOKEN.findall(path.read_bytes()):
            names = {name.decode(): text.decode() for name, text in _NAMED.findall(token)}
            if "Instance" in names:
                found.add((names["Identifier"], names["Instance"]))
    return found


def victims(run: Run) -> set[str]:
    """Who was killed."""
    text = "\n".join(run.diagram)
    return {victim for victim in ("client", "service") if f"☠ {victim} killed" in text}


def check_counts(run: Run) -> None:
    """Each message once, in order, although all went wrong that was to go wrong."""
    assert run.status == 0, f"{run.errors}\n{run.output[-3000:]}"
    counts = run.counts
    wrong = {name: counts[name] for name in ("lost", "duplicated", "out_of_order", "unanswered")}
    assert wrong == dict.fromkeys(wrong, 0)
    assert counts["ok"] is True
    assert counts["sent"] == counts["delivered"] == MESSAGES
    text, killed = "\n".join(run.diagram), victims(run)
    assert counts["kills"] == len(killed) >= 1
    # A restarted client makes a context of its own, unless all had been submitted already.
    assert counts["contexts"] in ((1, 2) if "client" in killed else (1,))
    assert "RST/SCT/Renew" in text
    assert "◀" in next(line for line in run.diagram if "RSTR/SCT/Renew ─│ its next key" in line)


def check_renewals(run: Run) -> None:
    """They are counted as the wire shows them, and each of their keys is in the key file."""
    used = instances_used(run.folder / "wire")
    assert run.counts["renewals"] == len(used)
    due = MESSAGES // EVERY
    if "client" in victims(run):  # whose kill may cost a renewal, or repeat one
        assert 1 <= len(used) <= due + 1
    else:
        assert len(used) == due
    known = json.loads((run.folder / "wire" / "keys.json").read_text("utf-8"))["contexts"]
    for identifier, instance in used:
        assert {"", instance} <= known[identifier].keys()


def check_bootstrap(run: Run, bootstrap: str) -> None:
    """Who signs what on the wire, not what the options say."""
    wire = run.folder / "wire"
    requests = [path.read_bytes() for path in sorted(wire.glob("*-request.xml"))]
    asked = [payload for payload in requests if re.search(rb"/RST/SCT(?:/Renew)?</", payload)]
    assert len(asked) >= 2
    certified = bootstrap in ("certificate", "mutual")
    for payload in asked:
        assert (b"<o:BinarySecurityToken" in payload) is certified
    keys = json.loads((wire / "keys.json").read_text("utf-8"))
    assert len(keys["keys"]) == len(keys["certificates"]) == 1 + certified
    assert list(keys["users"]) == (["ada"] if bootstrap == "username" else [])


@pytest.mark.slow
@pytest.mark.row("CO-21", "OP-01", "F11", "F13", "SC-23", "SC-24", "SC-26", "OP-19")
@pytest.mark.parametrize(("soap", "bootstrap"), COMBINATIONS)
def test_all_at_once(tmp_path: Path, soap: str, bootstrap: str) -> None:
    def run(edition: str) -> Run:
        folder = tmp_path / edition
        folder.mkdir()
        return demo(folder, *options(edition, soap, bootstrap), keep=True)

    with ThreadPoolExecutor(len(EDITIONS)) as pool:
        runs = list(pool.map(run, EDITIONS))
    for edition, done in zip(EDITIONS, runs, strict=True):
        check_counts(done)
        check_renewals(done)
        check_bootstrap(done, bootstrap)
        assert (done.counts["edition"], done.counts["soap"]) == (edition, soap)
        assert done.counts["bootstrap"] == bootstrap
        wire = done.folder / "wire"
        assert all(SOAPS[soap].encode() in path.read_bytes() for path in wire.glob("*.xml"))
        explanation = explain(wire, keys=[wire / "keys.json"])
        wrong = [(each.file, each.problems) for each in explanation.messages if each.problems]
        assert wrong == []
        assert explanation.verdict == "verified"


def test_renews_after_each_n_messages(tmp_path: Path) -> None:
    """Nothing goes wrong: then it is exactly so often, and the last one serves the farewell."""
    run = demo(
        tmp_path,
        *("--messages", "6", "--renew-every", "2", "--kill", "none"),
        *("--drop", "0", "--duplicate", "0", "--no-reorder"),
        keep=True,
    )
    assert run.status == 0, run.errors
    assert run.counts["renewals"] == 3
    assert run.counts["contexts"] == 1
    assert sum("RSTR/SCT/Renew" in line for line in run.diagram) == 3
    assert sum("by the next key" in line for line in run.diagram) == 3
    keys = json.loads((run.folder / "wire" / "keys.json").read_text("utf-8"))
    ((_, instances),) = keys["contexts"].items()
    assert len(instances) == 4
    assert {instance for _, instance in instances_used(run.folder / "wire")} | {""} == instances.keys()
