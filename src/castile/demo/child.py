"""What the three processes of a run share: how they hear the director, and how they tell it.

The first line of a child's standard input is the run; each later one is a command. When the
input ends, the director is gone, and the child ends too. Standard output is events, a JSON
object a line.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from castile.demo.plan import Files, Plan


@dataclass(frozen=True, slots=True)
class Child:
    """This process, as a child of the director."""

    plan: Plan
    files: Files
    url: str
    """Of the proxy, which is the address that the client knows."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def start(cls, name: str) -> Child:
        """Read the run from standard input and open the log."""
        given = json.loads(sys.stdin.readline())
        files = Files(Path(given["folder"]))
        logging.basicConfig(
            filename=files.log,
            level=logging.INFO,
            format=f"%(asctime)s.%(msecs)03d {name} {os.getpid()} %(levelname)s %(name)s: %(message)s",
            datefmt="%H:%M:%S",
        )
        logging.getLogger("castile").setLevel(logging.DEBUG)
        return cls(Plan(**given["plan"]), files, given["url"])

    def tell(self, event: str, **facts: object) -> None:
        """Report to the director."""
        line = json.dumps({"event": event, **facts}) + "\n"
        with self._lock:
            sys.stdout.write(line)
            sys.stdout.flush()

    def listen(self, command: Callable[[str, int], None] | None = None) -> None:
        """Hear commands, each a word and a number, in a thread of their own."""

        def hear() -> None:
            for line in sys.stdin:
                word, _, number = line.strip().partition(" ")
                if command is not None:
                    command(word, int(number or 0))
            os._exit(1)  # the director is gone: nobody would end this process

        threading.Thread(target=hear, name="director", daemon=True).start()
