"""Real kills, judged by the rows that the handlers left: ``make kills COUNT=300 SEED=1``.

Each run is a ``castile demo`` of its own: a client, a service of one or two processes and a bad
network, of which one after another is killed (SIGKILL) and started again. Several run beside each other. The
last line counts over all of them; the exit status is 1 if anything was lost, doubled, repeated
without being told, out of order or unanswered, if a run hung, or if too few kills fell inside an
exchange.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-m", "castile.demo", "--json")
KILLS = 25
"""Of one run: enough that recoveries meet what earlier ones left."""
MESSAGES = 3
"""For each kill."""
INSIDE = 0.3
"""So many of the kills must fall inside an exchange."""
VIOLATIONS = ("lost", "duplicated", "out_of_order", "unanswered")


@dataclass(frozen=True, slots=True)
class Run:
    """One demo, by its number."""

    seed: int
    number: int
    kills: int

    @property
    def options(self) -> list[str]:
        """What comes from the seed: the conversation's kind and how bad the network is."""
        chance = random.Random(f"run {self.seed} {self.number}")
        options = {
            "edition": chance.choice(["1.3", "2005"]),
            "soap": chance.choice(["1.1", "1.2"]),
            "bootstrap": chance.choice(["username", "username", "certificate", "anonymous", "mutual"]),
            "drop": chance.choice([0.0, 0.03, 0.1]),
            "duplicate": chance.choice([0.0, 0.1, 0.3]),
            "kill": chance.choice(["both", "both", "client", "service"]),
            "kills": self.kills,
            "workers": 1 + self.number % 2,
            "messages": MESSAGES * self.kills,
            "seed": chance.randrange(1_000_000),
        }
        if options["workers"] == 2 and options["kill"] == "client":
            options["kill"] = "service"
        flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        flags.append(chance.choice(["--reorder", "--no-reorder"]))
        if chance.random() < 0.3:
            flags += ["--renew-every", str(chance.randrange(5, 20))]
        return flags

    def play(self) -> Counter[str]:
        """Its counts; a run that failed or hung counts as ``failed``, and says where its log is."""
        folder = Path(tempfile.mkdtemp(prefix="castile-kills-"))
        kept = folder / "kept"
        begun = time.monotonic()
        done = subprocess.run(
            [*COMMAND, "--keep", str(kept), *self.options], capture_output=True, text=True, check=False
        )
        try:
            counts = Counter(
                {name: int(n) for name, n in json.loads(done.stdout.splitlines()[-1]).items() if _number(n)}
            )
        except (IndexError, ValueError):
            counts = Counter()
        if done.returncode or any(counts[name] for name in VIOLATIONS):
            counts["failed"] = 1
            (folder / "output").write_text(done.stdout + done.stderr)
            print(f"\nrun {self.number} failed, see {folder}: castile demo {' '.join(self.options)}")
        else:
            shutil.rmtree(folder)
        counts["seconds"] = int(time.monotonic() - begun)
        return counts


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def runs(count: int, seed: int) -> Iterator[Run]:
    """Runs that kill so often together."""
    for number, done in enumerate(range(0, count, KILLS)):
        yield Run(seed, number, min(KILLS, count - done))


def kill(count: int, seed: int, pairs: int) -> Counter[str]:
    """All runs, so many at once; the sum of their counts."""
    total: Counter[str] = Counter()
    with ThreadPoolExecutor(pairs) as pool:
        for future in as_completed([pool.submit(run.play) for run in runs(count, seed)]):
            total += future.result()
            print(f"\r{total['kills']} of {count} kills", end="", flush=True)
    print()
    return total


def verdict(total: Counter[str], count: int) -> int:
    """Print the last line; the exit status."""
    violations = sum(total[name] for name in VIOLATIONS)
    share = total["kills_in_exchange"] / max(1, total["kills"])
    print(
        f"{total['kills']} kills, {total['kills_in_exchange']} inside an exchange ({share:.0%}), "
        f"{total['kills_beside']} of one of two services, "
        f"{total['sent']} messages, {total['redelivered']} handled again and told so, "
        f"{total['failed']} runs failed, {violations} violations"
    )
    return int(bool(violations or total["failed"]) or total["kills"] < count or share < INSIDE)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="make kills", description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=2 * (os.cpu_count() or 1), help="runs beside each other")
    chosen = parser.parse_args()
    begun = time.monotonic()
    total = kill(chosen.count, chosen.seed, chosen.pairs)
    print(f"seed {chosen.seed}, {time.monotonic() - begun:.0f} s")
    sys.exit(verdict(total, chosen.count))


if __name__ == "__main__":
    main()
