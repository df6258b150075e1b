"""Planted bugs: each patch of ``bugs`` is applied to a copy of the source, and must be found.

``python -m tests.simulation.planted [NAME ...]``: tier A, from a seed, on every core, at the most
so many runs for each; it stops at the first finding. A checker that finds none of its own bugs
proves nothing by finding none in the product.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.simulation.__main__ import PROJECT, Campaign

BUGS: Final = Path(__file__).parent / "bugs"
MOST: Final = 10_000
"""Runs within which a bug must be found."""


def apply(patch: Path, folder: Path, *, check: bool = False) -> str:
    """Apply a patch to the copy of ``src`` in `folder`; what went wrong, if anything did."""
    command = ["git", "apply", "-p1", *(["--check"] if check else []), str(patch.resolve())]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.resolve().parent)},
    )
    return done.stderr if done.returncode else ""


def copy_of(source: Path, folder: Path) -> Path:
    """A copy of the source in `folder`."""
    target = folder / "src"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def hunt(patch: Path, seed: int, most: int, source: Path) -> tuple[int, str]:
    """How many runs it took, and what was found; "" for nothing."""
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        folder = Path(name)
        copy = copy_of(source, folder)
        if trouble := apply(patch, folder):
            return 0, f"the patch doesn't apply: {trouble}"
        options = {
            "source": str(copy),
            "tier": "A",
            "only": None,
            "messages": None,
            "straight": False,
            "verbose": False,
            "shrink": False,
            "stop": True,
        }
        campaign = Campaign(options, seed, most, os.cpu_count() or 1, quiet=True)
        campaign.run()
    if not campaign.violations:
        return campaign.total, ""
    found = campaign.violations[0]
    if found["seed"] is None:  # a worker that ended in an error found nothing
        return campaign.total, found["violations"][0]
    return campaign.total, f"seed {found['seed']}: {found['violations'][0]}"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="planted", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=MOST)
    parser.add_argument("--source", type=Path, default=PROJECT / "src")
    arguments = parser.parse_args()
    patches = sorted(BUGS.glob("*.patch"))
    if arguments.names:
        patches = [patch for patch in patches if patch.stem in arguments.names]
    missed = 0
    for patch in patches:
        began = time.monotonic()
        runs, found = hunt(patch, arguments.seed, arguments.count, arguments.source)
        seconds = time.monotonic() - began
        good = found.startswith("seed")
        missed += not good
        verdict = f"{found}" if found else f"NOT FOUND in {runs} runs"
        print(f"{patch.stem}: {verdict[:150]} ({seconds:.0f} s)", flush=True)
    print(f"{len(patches)} planted bugs, {missed} missed")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
