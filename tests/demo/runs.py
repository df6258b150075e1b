"""Runs of ``castile demo`` as a person starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

COMMAND = (sys.executable, "-m", "castile.demo")


@dataclass(frozen=True)
class Run:
    """What one run left."""

    status: int
    output: str
    errors: str
    folder: Path
    glimpses: tuple[bytes, ...] = field(repr=False)
    """What stood in the write-ahead logs while it ran."""

    @property
    def counts(self) -> dict[str, object]:
        """The last line of standard output."""
        parsed: dict[str, object] = json.loads(self.output.splitlines()[-1])
        return parsed

    @property
    def diagram(self) -> list[str]:
        """Everything before the verdict."""
        return self.output.splitlines()[:-1]


def environment(temporary: Path) -> dict[str, str]:
    """The caller's, with a temporary folder of the test's own, and nothing that changes castile."""
    temporary.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CASTILE_")}
    return {**kept, "TMPDIR": str(temporary), "PYTHONUTF8": "1"}


def demo(folder: Path, *options: str, keep: bool = False, seconds: float = 110) -> Run:
    """Run it to its end; `folder` is the test's own."""
    kept = folder / "kept"
    with Watch(kept) as watch:
        done = subprocess.run(
            [*COMMAND, "--json", *(("--keep", str(kept)) if keep else ()), *options],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=seconds,
            env=environment(folder / "temporary"),
            check=False,
        )
    return Run(done.returncode, done.stdout, done.stderr, kept, tuple(watch.glimpses))


class Watch:
    """Reads the write-ahead logs of a folder again and again: a checkpoint empties them."""

    def __init__(self, folder: Path) -> None:
        self.glimpses: list[bytes] = []
        self._folder = folder
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        seen: dict[Path, bytes] = {}
        while not self._done.wait(0.2):
            for path in self._folder.glob("*-wal"):
                try:
                    octets = path.read_bytes()
                except OSError:
                    continue  # its last process has just ended
                before = seen.get(path, b"")
                if octets.startswith(before):  # it grew: keep the rest, and what may straddle
                    self.glimpses.append(octets[max(0, len(before) - 256) :])
                else:
                    self.glimpses.append(octets)
                seen[path] = octets
