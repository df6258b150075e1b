"""Runs the cells of cells.toml: castile against live Java stacks, on this machine alone.

    python interop/run.py                 every cell; interop/results.json and the page docs/interop.md
    python interop/run.py --resume        those that have no result of this commit yet
    python interop/run.py --page          no cell: the page, with the latest result of each
    python interop/run.py --smoke         the four cells of the smoke run
    python interop/run.py NAME...         these cells; patterns as in the shell
    python interop/run.py --build         no cell: the Java peers and their keys alone
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import processes
import report
import wsdl
from cell import HERE, PASSWORD, USER, Cell, load
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from judge import Line, Verdict, judge
from network import Exchange, Network
from processes import NotRun, Places, Process

WORK = HERE / ".work"
LATEST = WORK / "results.json"
"""Of each cell its latest result, from whatever run."""
RESULTS = HERE / "results.json"
"""What the page is made from."""
START = 180.0
"""Seconds that a service may take to start: a JVM on a busy machine."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if every cell ended as its row says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--smoke", action="store_true", help="the four cells of the smoke run")
    parser.add_argument("--resume", action="store_true", help="leave out what has a result of this commit")
    parser.add_argument("--page", action="store_true", help="write the page from the latest results, and end")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many cells at once")
    parser.add_argument("--list", action="store_true", help="name the cells and end")
    parser.add_argument("--build", action="store_true", help="build the Java peers, make the keys, and end")
    options = parser.parse_args(arguments)
    if options.page:
        _publish(_latest())
        return 0
    if options.build:
        if missing := _prepare():
            print(missing, file=sys.stderr)
        return 1 if missing else 0
    cells = [cell for cell in load() if cell.smoke or not options.smoke]
    patterns = options.names or ["*"]
    cells = [cell for cell in cells if any(fnmatch.fnmatch(cell.name, each) for each in patterns)]
    if options.list or not cells:
        print("\n".join(f"{cell.name:44} {cell.direction:16} {cell.traits}" for cell in cells))
        return 0 if cells else 2
    whole = not options.names and not options.smoke
    missing, commit, latest = _prepare(), _commit(), _latest()
    if options.resume:
        cells = [cell for cell in cells if latest.get(cell.name, {}).get("commit") != commit]
    passed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        under_way = {pool.submit(_attempt, cell, missing): cell for cell in cells}
        for done, future in enumerate(as_completed(under_way), 1):
            cell, verdict = under_way[future], future.result()
            why = f": {verdict.reason}" if verdict.reason else ""
            print(
                f"[{done}/{len(cells)}] {cell.name:44} {verdict.outcome} ({verdict.seconds:.0f} s){why}",
                flush=True,
            )
            passed += verdict.outcome in ("pass", "expected failure", "recorded")
            today = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
            latest[cell.name] = asdict(verdict) | {"date": today, "commit": commit}
            _write(LATEST, latest)
    if whole:
        _publish(latest)
    print(f"{passed} passed, {len(cells) - passed} failed")
    return 0 if passed == len(cells) else 1


def _commit() -> str:
    """What is tried: the commit, and whether files that matter differ from it."""
    git = ["git", "-C", str(HERE.parent)]
    try:
        head = subprocess.check_output([*git, "rev-parse", "--short=12", "HEAD"], text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    paths = ["src", "interop", ":!interop/results.json"]
    differs = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *paths], check=False).returncode
    return f"{head} and changes" if differs else head


def _latest() -> dict[str, Any]:
    content = json.loads(LATEST.read_text("utf-8")) if LATEST.exists() else {}
    cells: dict[str, Any] = content.get("cells", {})
    return cells


def _publish(latest: dict[str, Any]) -> None:
    """The page and the figures behind it, for the project."""
    found = {cell.name: latest[cell.name] for cell in load() if cell.name in latest}
    report.write(load(), _write(RESULTS, found))


def _write(path: Path, cells: dict[str, Any]) -> dict[str, Any]:
    """Results with what they were found on; returns what was written."""
    machine = f"{platform.system()} on {platform.machine()}"
    content = {"machine": machine, "python": platform.python_version(), "cells": cells}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return content


def _prepare() -> str:
    """Build the peers and make the keys, once; why it can't be done, or nothing."""
    for tool in ("java", "keytool", "mvn"):
        if shutil.which(tool) is None:
            return f"{tool} isn't installed (Debian: default-jdk-headless and maven)"
    sources = [path for path in HERE.rglob("*") if path.suffix == ".java" or path.name == "pom.xml"]
    newest = max(path.stat().st_mtime for path in sources if "target" not in path.parts)
    stamp = HERE / "metro" / "target" / "built"
    if not stamp.exists() or stamp.stat().st_mtime < newest:
        print("building the Java peers; the first time Maven fetches what they need ...", flush=True)
        command = ["mvn", "--batch-mode", "--quiet", "--file", str(HERE / "pom.xml"), "package"]
        if subprocess.run(command, check=False).returncode:
            return "Maven couldn't build the peers"
        stamp.touch()
    try:
        processes.make_keys(WORK / "keys")
        _key_file(WORK / "keys")
    except NotRun as reason:
        return str(reason)
    return ""


def _key_file(folder: Path) -> None:
    """For `castile explain`: the keys of both, the users."""
    keys, certificates = [], []
    for who in ("alice", "bob"):
        loaded = pkcs12.load_key_and_certificates((folder / f"{who}.p12").read_bytes(), PASSWORD.encode())
        key, certificate, _ = loaded
        if key is None or certificate is None:
            raise NotRun(f"{who}.p12 holds no key")
        form = serialization.PrivateFormat.PKCS8
        pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        keys.append(pem.decode())
        certificates.append(certificate.public_bytes(serialization.Encoding.PEM).decode())
    content = {"keys": keys, "certificates": certificates, "users": {USER: PASSWORD}}
    (folder / "keys.json").write_text(json.dumps(content), "utf-8")


def _attempt(cell: Cell, missing: str) -> Verdict:
    started = time.monotonic()
    try:
        verdict = Verdict("not run", missing) if missing else Run(cell).play()
    except NotRun as reason:
        verdict = Verdict("not run", str(reason))
    verdict.seconds = round(time.monotonic() - started, 1)
    return verdict


class Run:
    """One run of one cell."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        folder = WORK / "cells" / cell.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._places = Places(folder, WORK / "keys")
        self._ends: dict[str, Process] = {}
        self._restarted = False
        self._busy = threading.Lock()

    def play(self) -> Verdict:
        """Start both ends, wait for the client, stop the service, judge."""
        cell, places = self._cell, self._places
        port = processes.free_port()
        with ExitStack() as stack:
            network = stack.enter_context(Network(cell, port, places.wire, self._passing))
            address = f"http://127.0.0.1:{network.port}/echo"
            wsdl.write(cell, places.folder, places.keys, address)
            # The first one to be closed last: what the service still does, the network sees.
            self._start(stack, "service", f"http://127.0.0.1:{port}/echo")
            self._start(stack, "client", address)
            ended = self._wait(time.monotonic() + cell.seconds)
            time.sleep(0.3)  # a one-way message may still be on its way to its handler
        return judge(cell, places, network.exchanges, ended=ended)

    def _start(self, stack: ExitStack, role: str, address: str) -> None:
        cell = self._cell
        make = processes.java if cell.role == role else processes.castile
        end = self._ends[role] = make(cell, self._places, role, address)
        end.start()
        stack.callback(lambda: self._ends[role].stop())
        if role == "service":
            end.ready(START)

    def _wait(self, deadline: float) -> bool:
        while time.monotonic() < deadline:
            with self._busy:
                client = self._ends["client"]
            if client.wait(0.5):
                with self._busy:
                    if client is self._ends["client"]:
                        return True
        return False

    def _passing(self, exchange: Exchange) -> None:
        """In mid-sequence somebody is killed, where the cell says so."""
        cell = self._cell
        middle = cell.messages // 2
        if cell.restart == "none" or self._restarted or exchange.request.number != middle:
            return
        self._restarted = True
        other = {"service": "client", "client": "service"}[cell.role]
        role = cell.role if cell.restart == "peer" else other
        threading.Thread(target=self._restart, args=(role,), daemon=True).start()

    def _restart(self, role: str) -> None:
        time.sleep(0.02)
        with self._busy:
            old = self._ends[role]
            old.kill()
            command = list(old.command)
            if self._cell.restart == "castile without its store":
                for path in self._places.folder.glob(f"{role}.db*"):
                    path.unlink()
            if self._cell.restart == "peer" and role == "client":
                # It has kept nothing; its application goes on behind the last message it has sent.
                sent = [line.number for line in Line.read(self._places.journal(role)) if line.event == "sent"]
                command.append(f"first={max(sent, default=0) + 1}")
            self._ends[role] = Process(command, old.output, old.environment)
            self._ends[role].start()


if __name__ == "__main__":
    sys.exit(main())
