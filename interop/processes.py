"""Starting and stopping the two ends of a cell. Each process is ended by its own id."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from cell import HERE, Cell

_JAVA: Final = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
_MAIN: Final = {"cxf": "castile.interop.cxf.CXF", "metro": "castile.interop.metro.Metro"}
_ADDRESSING: Final = "http://www.w3.org/2005/08/addressing"


class NotRun(Exception):
    """The cell can't run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one run of a cell."""

    folder: Path
    keys: Path

    @property
    def wire(self) -> Path:
        return self.folder / "wire"

    @property
    def keylog(self) -> Path:
        return self.folder / "keys.jsonl"

    def journal(self, role: str) -> Path:
        return self.folder / f"{role}.log"

    def output(self, role: str) -> Path:
        return self.folder / f"{role}.out"

    def store(self, role: str) -> Path:
        return self.folder / f"{role}.db"


@dataclass(slots=True)
class Process:
    """One end, as a process of its own."""

    command: Sequence[str]
    output: Path
    environment: dict[str, str] = field(default_factory=dict)
    _running: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Its error output is appended to the file `output`, its standard output is read."""
        with self.output.open("ab") as log:
            self._running = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | self.environment,
            )

    def ready(self, seconds: float) -> None:
        """Wait for its word. Raises `NotRun` if it ends or says nothing."""
        deadline = time.monotonic() + seconds
        process = self._process
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
            while selector.select(max(0.0, deadline - time.monotonic())):
                line = process.stdout.readline() if process.stdout else ""
                if line.strip() == "ready":
                    return
                if not line:
                    raise NotRun(f"it ended before it was ready: {self.last_words()}")
        raise NotRun(f"it wasn't ready after {seconds:.0f} s: {self.last_words()}")

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Whether it ended by itself in this time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return True
            if until():
                return False
            time.sleep(0.05)
        return False

    def kill(self) -> None:
        """At once, as a crash would."""
        self._process.kill()
        self._process.wait()

    def stop(self, seconds: float = 10.0) -> None:
        """End its input, and wait for it; it is killed if it doesn't end."""
        if self._running is None:
            return
        process = self._running
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        if process.stdout is not None:
            process.stdout.close()

    def last_words(self) -> str:
        """The last lines of its error output."""
        text = self.output.read_text("utf-8", "replace") if self.output.exists() else ""
        return " | ".join(text.splitlines()[-3:])

    @property
    def _process(self) -> subprocess.Popen[str]:
        if self._running is None:
            raise NotRun("it was never started")
        return self._running


def java(cell: Cell, places: Places, role: str, address: str) -> Process:
    """The Java peer, as service at `address` or as client."""
    home = HERE / cell.peer / "target"
    libraries = [places.folder, home / "classes", home / "lib" / "*"]
    arguments = {
        "journal": places.journal(role),
        "keys": places.keys,
        "soap": cell.soap,
        "operation": cell.operation,
        "messages": cell.messages,
        "size": cell.size,
        "pause": round(cell.pause * 1000),
        "delay": round(cell.delay * 1000),
        "linger": round(cell.linger * 1000),
        "user": cell.user,
        "password": cell.password if role == "client" else "password",
    }
    if role == "service":
        arguments["serve"] = address
    if cell.lifetime:
        arguments["lifetime"] = cell.lifetime
    if cell.addressing == "1.0":
        arguments["addressing"] = _ADDRESSING
    # The JDK would repeat a POST by itself, beside the stack's own repetitions.
    switches = (*_JAVA, "-Dsun.net.http.retryPost=false")
    words = [f"{name}={value}" for name, value in arguments.items()]
    path = ":".join(map(str, libraries))
    return Process(["java", *switches, "-cp", path, _MAIN[cell.peer], *words], places.output(role))


def castile(cell: Cell, places: Places, role: str, address: str) -> Process:
    """castile's end."""
    spec = {
        "cell": asdict(cell),
        "address": address,
        "journal": str(places.journal(role)),
        "keys": str(places.keys),
        "store": str(places.store(role)),
    }
    mode = "serve" if role == "service" else "call"
    command = [sys.executable, str(HERE / "castile_peer.py"), mode, json.dumps(spec)]
    return Process(command, places.output(role), {"CASTILE_KEYLOG": str(places.keylog)})


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_keys(folder: Path) -> None:
    """alice's and bob's key stores, each with the other's certificate in it."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for who in ("alice", "bob"):
        _keytool(
            folder, who, "-genkeypair", "-alias", who, "-keyalg", "RSA", "-keysize", "2048", "-sigalg",
            "SHA256withRSA", "-validity", "3650", "-dname", f"CN={who},O=castile-interop",
        )  # fmt: skip
        _keytool(folder, who, "-exportcert", "-alias", who, "-file", f"{who}.cer")
    for who, other in (("alice", "bob"), ("bob", "alice")):
        _keytool(folder, who, "-importcert", "-noprompt", "-alias", other, "-file", f"{other}.cer")
    (folder / "done").touch()


def _keytool(folder: Path, who: str, *arguments: str) -> None:
    store = ["-storetype", "PKCS12", "-keystore", f"{who}.p12", "-storepass", "password"]
    done = subprocess.run(
        ["keytool", *arguments, *store], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotRun(f"keytool: {done.stdout.strip() or done.stderr.strip()}")

