"""Workers and clients as processes: killed by turns under load, forked in the middle of a call.
What counts are the rows that the handlers left."""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import pytest

import castile
from tests.endpoint.pair import FAST, USERS, body, certificate, identity, until

pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'castile[serve]'")
PROJECT = Path(__file__).resolve().parents[2]
WORKERS = 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Server:
    """A server and its worker processes."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def workers(self) -> list[int]:
        """Processes of the supervisor that serve."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(each) for each in children if b"resource_tracker" not in _command(int(each))]

    @property
    def effects(self) -> list[tuple[str, int, bytes, int]]:
        connection = sqlite3.connect(f"file:{self.folder / 'service.db'}?mode=ro", uri=True)
        try:
            select = "SELECT sequence, number, content, process FROM effects ORDER BY at"
            return connection.execute(select).fetchall()
        finally:
            connection.close()


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@contextmanager
def serving(command: list[str], port: int, folder: Path, **environment: str) -> Iterator[Server]:
    log = (folder / f"{command[0]}.log").open("wb")
    with (
        log,
        subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=PROJECT,
            env={**os.environ, "SERVED": str(folder), **environment},
            stdout=log,
            stderr=log,
        ) as process,
    ):
        server = Server(process, port, folder)
        try:
            until(lambda: _answers(port), 40.0)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "service.pem").write_bytes(identity("service"))
    (tmp_path / "service.crt").write_bytes(certificate())
    port = free_port()
    application = ["uvicorn", "tests.endpoint.serving:app", "--port", str(port)]
    with serving([*application, "--workers", str(WORKERS)], port, tmp_path) as server:
        until(lambda: len(server.workers) == WORKERS, 40.0)
        yield server


def connect(server: Server, store: str) -> castile.Client:
    """A client; "" for one in memory."""
    return castile.Client(
        server.url,
        policy=castile.EndpointPolicy.of("1.3"),
        credentials=castile.Username("ada", USERS["ada"]),
        service_certificate=server.folder / "service.crt",
        store=server.folder / store if store else None,
        settings=FAST,
        timeout=60.0,
    )


@pytest.mark.row("ST-09", "N11", "I1", "I3", "I7", "F21")
@pytest.mark.timeout(180)
def test_workers_are_killed_by_turns_under_load(service: Server) -> None:
    """Each call has had its effect exactly once, those of each sequence in their order."""
    clients, calls = 3, 40
    stop, killed = Event(), []
    chance = random.Random(7)

    def kill() -> None:
        while not stop.wait(0.6 + chance.random()):
            workers = service.workers
            if len(workers) == WORKERS:
                killed.append(chance.choice(workers))
                with suppress(ProcessLookupError):
                    os.kill(killed[-1], signal.SIGKILL)

    def work(number: int) -> None:
        with connect(service, "clients.db") as client:  # one store for all of them
            for call in range(calls):
                content = body(1_000 * number + call)
                action = "urn:test/Post" if call % 2 else "urn:test/Note"
                assert client.call_raw(action, content) == content

    killer = Thread(target=kill)
    killer.start()
    try:
        with ThreadPoolExecutor(clients) as pool:
            for done in [pool.submit(work, number) for number in range(clients)]:
                done.result()
    finally:
        stop.set()
        killer.join()
    assert len(killed) >= 2
    effects = service.effects
    contents = Counter(content for _, _, content, _ in effects)
    wanted = {body(1_000 * number + call) for number in range(clients) for call in range(1, calls, 2)}
    assert set(contents) == wanted
    assert set(contents.values()) == {1}
    assert len({process for *_, process in effects}) >= 2
    order = defaultdict(list)
    for sequence, number, _, _ in effects:
        order[sequence].append(number)
    assert len(order) == clients
    assert all(numbers == sorted(numbers) for numbers in order.values())
    noted: dict[str, list[int]] = defaultdict(list)
    for line in (service.folder / "notes.txt").read_text().splitlines():
        name, at, redelivered, _ = line.split()
        if int(at) in noted[name]:  # run again, and told so
            assert redelivered == "1", line
        else:
            noted[name].append(int(at))
    assert all(len(numbers) == calls // 2 and numbers == sorted(numbers) for numbers in noted.values())


CLIENT = """
import sys
from pathlib import Path
from tests.endpoint import test_processes as here
server = here.Server(None, int(sys.argv[1]), Path(sys.argv[2]))
client = here.connect(server, "clients.db")
first = int(sys.argv[3])
for number in range(first, first + int(sys.argv[4])):
    client.send_raw("urn:test/Post", here.body(number))
    print(number, flush=True)
if sys.argv[5] == "wait":
    sys.stdin.read()
client.close()
"""


@pytest.mark.row("ST-09", "F37", "ST-33", "RM-122")
def test_a_client_process_is_killed_beside_others(service: Server) -> None:
    """What it had made durable is sent by one that lives, within seconds."""

    def start(first: int, count: int, how: str) -> subprocess.Popen[str]:
        arguments = [str(service.port), str(service.folder), str(first), str(count), how]
        return subprocess.Popen(
            [sys.executable, "-c", CLIENT, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )

    living = [start(1_000, 20, "wait"), start(2_000, 20, "wait")]
    for process in living:
        assert process.stdout is not None
        for _ in range(20):
            assert process.stdout.readline()
    with start(3_000, 100, "wait") as dying:
        assert dying.stdout is not None
        told = [int(dying.stdout.readline()) for _ in range(5)]
        dying.kill()
        told += [int(line) for line in dying.stdout if line.endswith("\n")]

    def arrived() -> set[bytes]:
        with suppress(sqlite3.Error):
            return {content for _, _, content, _ in service.effects}
        return set()

    until(lambda: {body(number) for number in told} <= arrived(), 15.0)  # begun within 5 s, on a busy machine
    for process in living:
        process.communicate("", timeout=60)
        assert process.returncode == 0
    counts = Counter(content for _, _, content, _ in service.effects)
    assert set(counts.values()) == {1}
    assert {body(number) for first in (1_000, 2_000) for number in range(first, first + 20)} <= set(counts)
    order = defaultdict(list)
    for sequence, number, _, _ in service.effects:
        order[sequence].append(number)
    assert all(numbers == sorted(numbers) for numbers in order.values())


FORK = """
import os, sys, threading
from pathlib import Path
from tests.endpoint import test_processes as here
server = here.Server(None, int(sys.argv[1]), Path(sys.argv[2]))
with here.connect(server, sys.argv[3]) as client:
    assert client.call_raw("urn:test/Post", here.body(0)) == here.body(0)
    answers = []
    caller = threading.Thread(target=lambda: answers.append(client.call_raw("urn:test/Slow", here.body(1))))
    caller.start()
    here.until(lambda: len(client.unfinished()) == 1)
    children = []
    for number in (2, 3, 4):
        child = os.fork()
        if child == 0:
            assert client.call_raw("urn:test/Post", here.body(number)) == here.body(number)
            grandchild = os.fork()
            if grandchild == 0:
                assert client.call_raw("urn:test/Post", here.body(number + 10)) == here.body(number + 10)
                client.close()
                os._exit(0)
            assert os.waitpid(grandchild, 0)[1] == 0
            client.close()
            os._exit(0)
        children.append(child)
    unused = os.fork()
    if unused == 0:
        client.close()
        os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in [*children, unused]] == [0, 0, 0, 0]
    caller.join()
    assert answers == [here.body(1)]
    assert client.call_raw("urn:test/Post", here.body(5)) == here.body(5)
"""


@pytest.mark.row("CL-30", "ST-09")
@pytest.mark.parametrize("store", ["clients.db", ""], ids=["durable", "in memory"])
def test_a_fork_in_the_middle_of_a_call(service: Server, store: str) -> None:
    """Parent and children go on, each with a context and a sequence of its own."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(service.port)]
    done = subprocess.run(
        [*command, str(service.folder), store], capture_output=True, text=True, timeout=100, cwd=PROJECT
    )
    assert done.returncode == 0, done.stderr
    effects = service.effects
    assert sorted(content for _, _, content, _ in effects) == sorted(
        body(number) for number in (0, 2, 3, 4, 5, 12, 13, 14)
    )
    assert len({sequence for sequence, *_ in effects}) == 7


@pytest.mark.row("CL-30", "CL-31", "ST-09")
@pytest.mark.timeout(180)
def test_a_client_that_is_made_before_gunicorn_forks(service: Server) -> None:
    """``--preload``, with a worker killed in between: each call has one effect."""
    pytest.importorskip("gunicorn", reason="needs gunicorn: pip install 'castile[test]'")
    port = free_port()
    command = ["gunicorn", "--preload", "-w", "3", "-b", f"127.0.0.1:{port}", "tests.endpoint.web:app"]
    with serving(command, port, service.folder, SERVICE=service.url) as web:
        until(lambda: len(web.workers) == 3, 20.0)
        processes = set()

        def ask(number: int) -> None:
            for _ in range(30):
                address = f"{web.url}{number}"
                with suppress(OSError), urllib.request.urlopen(address, timeout=30) as answer:
                    assert answer.read() == body(number)
                    processes.add(answer.headers["X-Process"])
                    return
                time.sleep(0.2)
            raise AssertionError(f"no answer to {number}")

        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask, number) for number in range(1, 41)]
            until(lambda: sum(each.done() for each in asked) >= 10, 60.0)
            os.kill(web.workers[0], signal.SIGKILL)
            for each in asked:
                each.result()
        assert len(processes) >= 2
    counts = Counter(content for _, _, content, _ in service.effects)
    assert counts == {body(number): 1 for number in range(41)}
