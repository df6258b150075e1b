"""Several processes, real ones, on one file: killed, stopped, forked; nothing is lost or doubled."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from castile.store import Sign
from castile.store.owners import owners

from .samples import ENDPOINT, do, enqueue, opened, outbox, plain, source
from .worker import submit

PROJECT = Path(__file__).resolve().parents[2]
PROGRAM = """
from castile.store import database
from tests.store import worker
database.BUSY_SECONDS = {busy}
worker.main()
"""


@contextmanager
def worker(place: Path, count: int = -1, busy: float = 30.0) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM.format(busy=busy), str(place), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as process:
        try:
            yield process
        finally:
            process.kill()


def rest(process: subprocess.Popen[str]) -> list[str]:
    """What it said; a last line without its end was cut by a kill."""
    assert process.stdout is not None
    return [line for line in process.stdout if line.endswith("\n")]


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.row("ST-09", "ST-04")
def test_four_processes_on_one_store(tmp_path: Path) -> None:
    """One of them is killed in the middle; all that any of them was told is there, once."""
    place = tmp_path / "a.db"
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(place, 60 if at else -1)) for at in range(4)]
        said = [line(process) for process in workers]
        time.sleep(0.2)
        workers[0].kill()
        for process in workers:
            said += rest(process)
        assert [process.wait(60) for process in workers] == [-signal.SIGKILL, 0, 0, 0]
    store = opened(place)
    numbers = [row.number for row in do(store, lambda tx: tx.outbox("k1"))]
    told = [int(text.split()[1]) for text in said]
    assert len(told) == len(set(told)) >= 181
    first = source().state.next_number
    assert numbers == list(range(first, first + len(numbers)))
    assert set(told) <= set(numbers)
    assert len(numbers) - len(told) <= 1  # committed, and killed before it could say so
    assert do(store, lambda tx: tx.damaged()) == []
    known = do(store, lambda tx: owners(tx._connection))  # type: ignore[attr-defined]
    assert [each.ended is None for each in known].count(True) == 2  # the killed one's, and this
    assert do(store, lambda tx: tx.adopt("client", ENDPOINT)).sources in ((), ("k1",))
    store.close()
    connection = plain(place)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert list(tmp_path.glob("*.owner-*")) == []
    assert not place.with_name("a.db-wal").exists()


@pytest.mark.row("ST-08", "ST-09")
def test_a_stopped_process_that_holds_the_lock_is_named(tmp_path: Path) -> None:
    """The others refuse new work, saying who it is; they go on when it does."""
    place = tmp_path / "a.db"
    with worker(place) as holder, worker(place, busy=0.3) as other:
        line(holder), line(other)
        deadline = time.monotonic() + 60
        text = ""
        while "busy" not in text:  # until it was stopped inside a transaction
            assert time.monotonic() < deadline
            holder.send_signal(signal.SIGCONT)
            time.sleep(0.002)
            holder.send_signal(signal.SIGSTOP)
            until = time.monotonic() + 1.0
            text = line(other)
            while text.startswith("sent") and time.monotonic() < until:
                text = line(other)
        assert f"process {holder.pid} holds the store" in text
        holder.send_signal(signal.SIGCONT)
        while not text.startswith("sent"):
            assert time.monotonic() < deadline
            text = line(other)


@pytest.mark.row("ST-09")
def test_a_death_is_noticed_soon(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    watcher = opened(place)
    signs: list[Sign] = []
    watcher.watch(signs.append)
    with worker(place) as process:
        line(process)
        watcher.look().result(10)
        assert Sign.DIED not in signs
        process.kill()
        process.wait()
    watcher.look().result(10)
    assert Sign.DIED in signs
    assert do(watcher, lambda tx: tx.adopt("client", ENDPOINT)).sources == ("k1",)
    watcher.close()


FORK = """
import os, sys
from castile import store
from castile.errors import UsageError
from tests.store.samples import KEY, do, outbox
from tests.store.worker import submit
mine = store.open(sys.argv[1], seal=KEY)
do(mine, submit)
children = []
for turn in range(3):
    mine.run(submit)  # under way while it forks
    child = os.fork()
    if child == 0:
        try:
            mine.run(lambda tx: tx.sources())
            os._exit(3)
        except UsageError as error:
            assert "before a fork" in str(error)
        mine.close()
        own = store.open(sys.argv[1], seal=KEY)
        for _ in range(20):
            do(own, submit)
        own.close()
        os._exit(0)
    children.append(child)
for _ in range(20):
    do(mine, submit)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
do(mine, submit)
mine.close()
"""


@pytest.mark.row("CL-30", "ST-09")
def test_forks_in_the_middle_of_work(tmp_path: Path) -> None:
    """The parent goes on, each child opens its own beside it, and closing one harms nobody."""
    place = tmp_path / "a.db"
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    store = opened(place)
    assert do(store, lambda tx: tx.outbox_count("k1")) == 1 + 3 + 3 * 20 + 20 + 1
    store.close()


INSIDE = """
import os, sys
from castile import store
from castile.errors import UsageError
from castile.store import actor
from tests.store.samples import KEY, do
from tests.store.worker import submit
actor.FORK = 0.1
mine = store.open(sys.argv[1], seal=KEY)
def fork(tx):
    submit(tx)
    child = os.fork()
    if child == 0:
        try:
            store.open(sys.argv[1], seal=KEY)
            os._exit(3)
        except UsageError as error:
            os._exit(0 if "inside a transaction" in str(error) else 4)
    return os.waitpid(child, 0)[1]
assert do(mine, fork) == 0
do(mine, submit)
mine.close()
"""


@pytest.mark.row("CL-30")
def test_a_fork_inside_a_transaction_spoils_the_store_for_the_child(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", INSIDE, str(tmp_path / "a.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    store = opened(tmp_path / "a.db")
    assert do(store, lambda tx: tx.outbox_count("k1")) == 2
    store.close()


def test_a_file_that_cant_be_had_again_after_a_fork(tmp_path: Path) -> None:
    """The next step says so, and those after the cause is gone work."""
    place = tmp_path / "a.db"
    store = opened(place)
    enqueue(store, outbox(1))
    hidden = tmp_path / "hidden"
    actor = store
    actor.pause()  # type: ignore[attr-defined]
    place.rename(hidden)
    place.mkdir()
    actor.resume()  # type: ignore[attr-defined]
    error = store.run(submit).exception(10)
    assert "unable to open" in str(error)
    place.rmdir()
    hidden.rename(place)
    assert do(store, submit) > 1
    store.close()
