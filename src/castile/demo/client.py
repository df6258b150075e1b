"""The client application: several calls at once, and the same calls again after a crash.

Messages are numbered 1, 2, 3 and submitted in that order: the next call begins once the one
before is in the store. What was answered stands in a journal of the application's own. After a
crash every call that isn't answered there is simply made again with its key; castile knows
which of them were submitted, and sends none twice.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from castile import xml
from castile.client import Client
from castile.config import Limits
from castile.credentials import Certificate, Username
from castile.demo.child import Child
from castile.demo.plan import NAMESPACE, PASSWORD_VARIABLE, SETTINGS, TRANSACTIONAL, USER
from castile.errors import CastileError

logger = logging.getLogger("demo")


class Journal:
    """What the application itself keeps of its calls."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS calls (message INTEGER PRIMARY KEY, answer INTEGER)"
        )
        self._connection.execute("CREATE TABLE IF NOT EXISTS renewals (renewal INTEGER PRIMARY KEY)")
        self._lock = threading.Lock()

    def submitted(self, message: int) -> None:
        """The call is in castile's store."""
        with self._lock:
            self._connection.execute("INSERT OR IGNORE INTO calls (message) VALUES (?)", (message,))

    def answered(self, message: int, answer: int) -> None:
        """Its reply, which names the message that it answers."""
        with self._lock:
            self._connection.execute(
                "INSERT INTO calls VALUES (?, ?) ON CONFLICT DO UPDATE SET answer = excluded.answer",
                (message, answer),
            )

    def renewed(self) -> None:
        """The context has a new key."""
        with self._lock:
            self._connection.execute("INSERT INTO renewals DEFAULT VALUES")

    def renewals(self) -> int:
        """How often it got one, in all lives."""
        with self._lock:
            ((count,),) = self._connection.execute("SELECT count(*) FROM renewals")
        return int(count)

    def unanswered(self, messages: int) -> list[int]:
        """Numbers of the calls that are still to be made, or to be made again."""
        with self._lock:
            rows = self._connection.execute("SELECT message FROM calls WHERE answer IS NOT NULL")
            done = {message for (message,) in rows}
        return [message for message in range(1, messages + 1) if message not in done]


@dataclass(slots=True)
class Gate:
    """How far the director lets the application go: a kill needs calls to interrupt."""

    allowed: int = 0
    finish: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def command(self, word: str, number: int) -> None:
        """``allow N`` or ``finish``."""
        with self._changed:
            if word == "allow":
                self.allowed = number
            elif word == "finish":
                self.finish = True
            self._changed.notify_all()

    def wait_for(self, message: int) -> None:
        """Until this message may be submitted."""
        with self._changed:
            self._changed.wait_for(lambda: self.allowed >= message)

    def wait_for_finish(self) -> None:
        """Until nothing more is to come."""
        with self._changed:
            self._changed.wait_for(lambda: self.finish)


class Application:
    """Makes the calls."""

    def __init__(self, child: Child, client: Client, journal: Journal, gate: Gate) -> None:
        self._child = child
        self._client = client
        self._journal = journal
        self._gate = gate
        self._slots = threading.Semaphore(child.plan.callers)

    def run(self) -> None:
        """Every call that isn't answered yet, in order, several at once."""
        plan = self._child.plan
        calls: list[Future[None]] = []
        with ThreadPoolExecutor(plan.callers, "caller") as callers:
            for message in self._journal.unanswered(plan.messages):
                self._gate.wait_for(message)
                self._slots.acquire()
                call = callers.submit(self._call, message)
                calls.append(call)
                self._await_submission(message, call)
                self._renew(message)
        for call in calls:
            call.result()

    def _renew(self, message: int) -> None:
        """A new key for the context, if one is due after this message; earlier calls go on.

        A restarted client has no context of its own before its first new call: what is due then
        is made up for later.
        """
        every = self._child.plan.renew_every
        if every is None or message // every <= self._journal.renewals():
            return
        while (context := self._client.context) is not None:
            try:
                context.renew()
            except CastileError as error:
                logger.warning("the context is renewed again: %s", error)
                time.sleep(0.2)
                continue
            self._journal.renewed()
            return

    def _call(self, message: int) -> None:
        plan, key = self._child.plan, _key(message)
        word = "Book" if plan.action(message) == TRANSACTIONAL else "Notify"
        body = f'<{word} xmlns="{NAMESPACE}" message="{message}">{plan.marker}</{word}>'.encode()
        try:
            while True:
                try:
                    reply = self._client.call_raw(plan.action(message), body, key=key)
                    break
                except CastileError as error:
                    logger.warning("call %s is made again: %s", message, error)
                    time.sleep(0.2)
            answer = int(xml.parse(reply, Limits()).get("message", "0"))
            self._journal.answered(message, answer)
            self._child.tell("answered", message=message)
        finally:
            self._slots.release()

    def _await_submission(self, message: int, call: Future[None]) -> None:
        """The order of the messages is the order in which they got into the store."""
        key = _key(message)
        while not call.done():
            if any(each.key == key for each in self._client.unfinished()):
                self._journal.submitted(message)
                return
            time.sleep(0.001)
        call.result()


def _key(message: int) -> str:
    return f"message-{message}"


def _credentials(child: Child) -> Username | Certificate | None:
    """What the bootstrap wants."""
    if child.plan.certified:
        return Certificate(child.files.client_identity)
    return Username(USER, f"env:{PASSWORD_VARIABLE}") if child.plan.bootstrap == "username" else None


def _main(child: Child) -> None:
    gate = Gate()
    child.listen(gate.command)
    files, plan = child.files, child.plan
    journal = Journal(files.journal)
    client = Client(
        child.url,
        policy=plan.policy,
        credentials=_credentials(child),
        service_certificate=files.certificate,
        store=files.client_store,
        settings=SETTINGS,
    )
    child.tell("ready", unfinished=len(client.unfinished()))
    Application(child, client, journal, gate).run()
    gate.wait_for_finish()
    client.close()
    child.tell("closed")


if __name__ == "__main__":
    _main(Child.start("client"))
