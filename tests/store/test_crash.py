"""What was acknowledged is there after kill -9, and a full disk takes nothing away."""

from __future__ import annotations

import subprocess
import sys
import time
from base64 import b64encode
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Event

import pytest

from castile.errors import StoreBusy, StoreFull
from castile.store import Store, Transaction

from .samples import (
    ENDPOINT,
    KEY,
    MARKER,
    SECRET,
    conversation,
    destination,
    do,
    enqueue,
    fill,
    opened,
    outbox,
    plain,
    seeded,
    source,
    submit,
)

PROJECT = Path(__file__).resolve().parents[2]


def numbers(lines: list[str], kind: str) -> set[int]:
    return {int(line.split()[1]) for line in lines if line.startswith(f"{kind} ")}


def check(store: Store, said: list[str]) -> None:
    """Everything that was said is there, and state and rows are one."""
    sent = [row.number for row in do(store, lambda tx: tx.outbox("k1"))]
    record = do(store, lambda tx: tx.source("k1"))
    first = source().state.next_number
    assert sent == list(range(first, first + len(sent)))
    assert record is None or record.state.next_number == first + len(sent)
    assert numbers(said, "sent") <= set(sent)

    kept = do(store, lambda tx: tx.inbox() + tx.inbox(status="done"))
    into = do(store, lambda tx: tx.destination("urn:d:1"))
    accepted = {row.number for row in kept}
    assert accepted == (set(into.state.received.numbers()) if into else set())
    assert numbers(said, "accepted") <= accepted

    done = {row.number for row in kept if row.status == "done"}
    effects = set()
    if done:
        select = "SELECT number FROM effects"
        effects = {
            row[0] for row in do(store, lambda tx: list(tx.connection.execute(select)), exclusive=True)
        }
    assert effects == done
    assert numbers(said, "handled") <= done
    assert do(store, lambda tx: tx.damaged()) == []


@pytest.mark.row("ST-03")
@pytest.mark.row("ST-06")
@pytest.mark.row("N11")
def test_kill_at_any_moment(tmp_path: Path) -> None:
    random = seeded()
    place = tmp_path / "a.db"
    said: list[str] = []
    for _ in range(8):
        command = [sys.executable, "-m", "tests.store.crasher", str(place)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as child:
            assert child.stdout is not None
            said.append(child.stdout.readline().strip())  # it is at work
            time.sleep(random.uniform(0.0, 0.15))
            child.kill()
            # A last line without its end was cut by the kill.
            said += [line.strip() for line in child.stdout if line.endswith("\n")]
        store = opened(place)
        check(store, said)
        store.close()
    assert len(said) > 100
    connection = plain(place)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


@pytest.mark.row("ST-06")
def test_kill_while_the_store_is_being_made(tmp_path: Path) -> None:
    random = seeded()
    program = "import sys; from castile import store; store.open(sys.argv[1]); sys.stdout.write('x'); input()"
    for turn in range(4):
        place = tmp_path / f"{turn}.db"
        command = [sys.executable, "-c", program, str(place)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.PIPE) as child:
            while child.poll() is None and not place.with_name(place.name + ".lock").exists():
                time.sleep(0.001)
            time.sleep(random.uniform(0.0, 0.02))
            child.kill()
        store = opened(place, seal=None)
        enqueue(store, outbox())
        store.close()


@pytest.mark.row("ST-08")
def test_a_full_disk_takes_nothing_away(tmp_path: Path) -> None:
    store = opened(tmp_path / "a.db")
    do(store, lambda tx: tx.save_source(source()))

    def pages(limit: int) -> None:
        do(store, lambda tx: tx._connection.execute(f"PRAGMA max_page_count = {limit}") and None)  # type: ignore[attr-defined]

    used = do(store, lambda tx: tx._connection.execute("PRAGMA page_count").fetchone()[0])  # type: ignore[attr-defined]
    pages(used + 40)
    kept = []
    for number in range(1, 200):
        error = store.run(submit(number, body=b"x" * 3_000)).exception(10)
        if error is None:
            kept.append(number)
        else:
            assert isinstance(error, StoreFull), error
    assert 5 < len(kept) < 60
    assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))] == kept
    # What is done makes room, without a restart.
    do(store, lambda tx: tx.purge("k1", [(1, 3)]))
    enqueue(store, outbox(200, body=b"x" * 3_000))
    pages(1 << 30)
    enqueue(store, outbox(201, body=b"x" * 300_000))
    expected = [number for number in kept if number > 3] + [200, 201]
    assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))] == expected
    store.close()
    again = opened(tmp_path / "a.db")
    assert [row.number for row in do(again, lambda tx: tx.outbox("k1"))] == expected
    again.close()


LIMITED = """
import resource, sys
from pathlib import Path
from castile import store
from castile.errors import StoreFull
from tests.store.samples import KEY, do, outbox, submit, source

place = Path(sys.argv[1])
opened = store.open(place, seal=KEY)
do(opened, lambda tx: tx.save_source(source()))
size = place.with_name(place.name + "-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300_000, resource.RLIM_INFINITY))
kept, failed = [], 0
for turn in range(12):
    steps = {n: opened.run(submit(n, body=b"x" * 3_000)) for n in range(turn * 20 + 1, turn * 20 + 21)}
    for number, step in steps.items():
        error = step.exception(30)
        if error is None:
            kept.append(number)
        else:
            assert isinstance(error, StoreFull), repr(error)
            failed += 1
assert failed and kept, (failed, kept)
here = [row.number for row in do(opened, lambda tx: tx.outbox("k1"))]
assert here == kept, (here, kept)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
do(opened, lambda tx: tx.enqueue(outbox(1_000)))
kept.append(1_000)
assert [row.number for row in do(opened, lambda tx: tx.outbox("k1"))] == kept
print(*kept)
sys.stdout.flush()
if sys.argv[2] == "close":
    opened.close()
else:
    import os
    os._exit(0)
"""


@pytest.mark.row("ST-08")
@pytest.mark.parametrize("end", ["close", "crash"])
def test_writes_that_fail_for_want_of_room(tmp_path: Path, end: str) -> None:
    place = tmp_path / "a.db"
    command = [sys.executable, "-c", LIMITED, str(place), end]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    kept = [int(number) for number in done.stdout.split()]
    store = opened(place)
    assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))] == kept
    store.close()


@pytest.mark.row("ST-08")
def test_another_programs_lock_is_waited_for_and_then_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("castile.store.database.BUSY_SECONDS", 0.2)
    place = tmp_path / "a.db"
    store = opened(place)
    other = plain(place)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match="another program keeps it locked"):
        enqueue(store, outbox())
    step = store.run(submit(2))
    other.execute("COMMIT")
    step.result(10)
    assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))] == [2]
    other.close()
    store.close()


def test_an_error_that_ends_the_transaction_fails_its_whole_batch(tmp_path: Path) -> None:
    """Nothing may be acknowledged of which SQLite gave up the transaction."""
    store = opened(tmp_path / "a.db")
    gate, entered = Event(), Event()

    def hold(_tx: Transaction) -> None:
        entered.set()
        gate.wait(10)

    def spoil(tx: Transaction) -> None:
        tx.enqueue(outbox(2))
        tx._connection.execute("INSERT OR ROLLBACK INTO castile_meta VALUES ('key', 'twice')")  # type: ignore[attr-defined]

    held = store.run(hold)
    entered.wait(10)
    steps: list[Future[None]] = [store.run(submit(1)), store.run(spoil), store.run(submit(3))]
    gate.set()
    wait([held, *steps], 10)
    assert "nothing of this step was kept, because another one failed" in str(steps[0].exception())
    assert steps[1].exception() is not None
    assert steps[2].exception() is None  # it ran afterwards, in a transaction of its own
    assert [row.number for row in do(store, lambda tx: tx.outbox("k1"))] == [3]
    store.close()


@pytest.mark.row("ST-11")
def test_the_log_doesnt_grow_for_ever(tmp_path: Path) -> None:
    store = opened(tmp_path / "a.db")
    log = tmp_path / "a.db-wal"
    sizes = []
    for turn in range(12):
        steps = [store.run(submit(turn * 200 + n, body=b"x" * 5_000)) for n in range(200)]
        steps.append(store.run(lambda tx, low=turn * 200: tx.purge("k1", [(low, low + 200)]) and None))  # type: ignore[misc]
        wait(steps, 30)
        sizes.append(log.stat().st_size)
    assert sizes[-1] == sizes[-4] < 40_000_000
    assert (tmp_path / "a.db").stat().st_size < 10_000_000
    store.close()
    assert not log.exists()


@pytest.mark.row("F11")
@pytest.mark.row("F36")
def test_no_secret_and_no_body_is_readable(tmp_path: Path) -> None:
    """Every byte of the database and its log, before and after they are joined."""
    place = tmp_path / "a.db"
    store = opened(place)
    do(store, fill)
    do(store, lambda tx: tx.save_context(conversation()))
    do(store, lambda tx: tx.update_outbox("urn:m:k1:1", last_error="MARKER of an error"))
    do(store, lambda tx: tx.save_destination(destination()))
    forms = []
    for secret in (
        SECRET,
        KEY,
        MARKER,
        b"MARKER",
        b"invoice-",
        b"the-digest-of-the",
        b"SecurityContextToken",
    ):
        forms += [secret, secret.hex().encode(), secret.hex().upper().encode()]
        forms += [b64encode(b"\0" * shift + secret)[4:-4] for shift in range(3) if len(secret) > 12]

    def scan() -> bytes:
        content = b"".join(
            path.read_bytes() for path in sorted(tmp_path.iterdir()) if not path.name.endswith(".key")
        )
        for form in forms:
            assert form not in content, form
        return content

    assert (tmp_path / "a.db-wal").stat().st_size > 0
    assert ENDPOINT.encode() in scan()
    store.close()
    assert ENDPOINT.encode() in scan()
