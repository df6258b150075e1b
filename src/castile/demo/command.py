"""The command line of the demo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from castile.demo import effects, verdict
from castile.demo.certificates import make_identities
from castile.demo.diagram import Diagram, Tally
from castile.demo.director import Director, Stuck
from castile.demo.exchanges import contexts
from castile.demo.plan import Files, Plan, SOAPName
from castile.demo.verdict import Verdict
from castile.policy import Bootstrap

WATCHED_SECONDS = 0.03
"""For the network each way and for a handler's work, so that a person can follow."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A whole run."""

    plan: Plan
    verdict: Verdict
    tally: Tally
    contexts: int
    kills: int
    kills_in_exchange: int
    kills_beside: int

    def to_json(self) -> str:
        """One object on one line."""
        counts = asdict(self.verdict)
        return json.dumps(
            {
                **counts,
                "contexts": self.contexts,
                "renewals": self.tally.renewals,
                "kills": self.kills,
                "kills_in_exchange": self.kills_in_exchange,
                "kills_beside": self.kills_beside,
                "retransmissions": self.tally.retransmissions,
                "dropped": self.tally.lost,
                "doubled": self.tally.doubled,
                "edition": self.plan.edition,
                "soap": self.plan.soap,
                "bootstrap": self.plan.bootstrap,
                "renew_every": self.plan.renew_every,
                "seed": self.plan.seed,
                "ok": self.verdict.ok,
            }
        )


def run(plan: Plan, files: Files, console: Console, *, keep: bool) -> Outcome:
    """One run in this folder. Raises `Stuck`."""
    password = secrets.token_urlsafe(18)
    make_identities(plan, files)
    if keep:
        files.wire.mkdir(mode=0o700)
    diagram = Diagram(console, plan.messages)
    director = Director(plan, files, diagram, password, keep)
    diagram.open()
    try:
        asyncio.run(director.run())
    finally:
        diagram.close()
        if keep:
            _write_keys(plan, files, password)
        shutil.rmtree(files.bytecode, ignore_errors=True)
    seen = effects.read(files)
    if keep:
        verdict.export(seen, files.root / "effects.jsonl")
    judged = verdict.judge(seen, verdict.answers(files.journal))
    return Outcome(
        plan,
        judged,
        diagram.tally,
        contexts(files),
        diagram.tally.kills,
        director.kills_in_exchange,
        director.kills_beside,
    )


def _write_keys(plan: Plan, files: Files, password: str) -> None:
    path = files.wire / "keys.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(verdict.key_file(plan, files, password), indent=1), "utf-8")
    files.keylog.unlink(missing_ok=True)


def _explain(outcome: Outcome, console: Console) -> None:
    """The verdict in words."""
    judged, tally, plan = outcome.verdict, outcome.tally, outcome.plan
    text = f"""
    network   lost {tally.lost} requests and responses, doubled {tally.doubled}, held {tally.held} back
    castile   sent {tally.retransmissions} again
    contexts  {outcome.contexts}, renewed {tally.renewals} times
    kills     {outcome.kills}, of which {outcome.kills_in_exchange} inside an exchange
    messages  {judged.sent} sent, {judged.delivered} delivered: {judged.lost} lost,
              {judged.duplicated} doubled, {judged.out_of_order} out of order, {judged.unanswered} unanswered;
              {judged.redelivered} handled again after a crash, and told so
    run       edition {plan.edition}, SOAP {plan.soap}, bootstrap {plan.bootstrap}, seed {plan.seed}
"""
    console.print(text, soft_wrap=True)
    word = "each message exactly once, in order" if judged.ok else "NOT every message exactly once, in order"
    console.print(f"    {word}", style="bold green" if judged.ok else "bold red", soft_wrap=True)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Files]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="castile-demo-") as folder:
            yield Files(Path(folder).resolve())
        return
    with contextlib.suppress(FileExistsError):
        keep.mkdir(parents=True)
    if not keep.is_dir() or any(keep.iterdir()):
        raise click.UsageError(f"--keep {keep}: give a new or empty folder")
    yield Files(keep.resolve())


@click.command(
    epilog="Example: castile demo --messages 100 --drop 0.2 --kill both --keep run && "
    "castile explain run/wire --keys run/wire/keys.json"
)
@click.option("--messages", default=40, show_default=True, type=click.IntRange(1, 100_000), help="Calls.")
@click.option(
    "--drop",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 0.9),
    help="How likely a request is lost, and a response.",
)
@click.option(
    "--duplicate",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="How likely a request is delivered twice.",
)
@click.option("--reorder/--no-reorder", default=True, show_default=True, help="Some requests are overtaken.")
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 2),
    help="Processes of the service, on one store.",
)
@click.option(
    "--kill",
    default="both",
    show_default=True,
    type=click.Choice(["client", "service", "both", "none"]),
    help="Whose process is killed (SIGKILL) and started again.",
)
@click.option("--kills", type=click.IntRange(1, 1_000), help="How often, in turn.  [default: once each]")
@click.option(
    "--edition",
    default="1.3",
    show_default=True,
    type=click.Choice(["2005", "1.3"]),
    help="2005: RM 1.0, SC and Trust 2005/02. 1.3: RM 1.1, SC and Trust 1.3.",
)
@click.option(
    "--soap", default="1.2", show_default=True, type=click.Choice(["1.1", "1.2"]), help="Version of SOAP."
)
@click.option(
    "--bootstrap",
    default="username",
    show_default=True,
    type=click.Choice(["username", "certificate", "anonymous", "mutual"]),
    help="By what the client gets its security context: a password, an endorsing certificate, "
    "nothing, or certificates on both sides (asymmetric).",
)
@click.option(
    "--renew-every",
    metavar="N",
    type=click.IntRange(1),
    help="Renew the security context after each N messages.  [default: it needs none]",
)
@click.option("--seed", type=click.IntRange(0), help="What goes wrong, and when.  [default: always another]")
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Leave the stores, the log, the messages and their keys there.",
)
@click.option("--json", "as_json", is_flag=True, help="The last line is the verdict as one JSON object.")
def demo(
    messages: int,
    drop: float,
    duplicate: float,
    reorder: bool,
    workers: int,
    kill: Literal["client", "service", "both", "none"],
    kills: int | None,
    edition: str,
    soap: SOAPName,
    bootstrap: Bootstrap,
    renew_every: int | None,
    seed: int | None,
    keep: Path | None,
    as_json: bool,
) -> None:
    """A client, a service and a bad network between them, on this computer.

    Shows a security context being established, a sequence bound to it, messages lost and sent
    again, processes killed and recovered, and every message delivered exactly once, in order.
    Half of the messages go to a transactional handler, half to an ordinary one; the verdict is
    counted from the rows that they wrote.

    Exit status: 0 if so, 1 if a message was lost, doubled, repeated without being told or out of
    order, 3 if the run hung or a process failed.
    """
    if not sys.stdout.isatty():
        with contextlib.suppress(AttributeError):
            sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    console = Console(highlight=False, markup=False)
    plan = Plan(
        messages=messages,
        drop=drop,
        duplicate=duplicate,
        reorder=reorder,
        workers=workers,
        kill=kill,
        kills=kills,
        edition=edition,
        soap=soap,
        bootstrap=bootstrap,
        renew_every=renew_every,
        seed=secrets.randbelow(1_000_000) if seed is None else seed,
    )
    if console.is_terminal:
        plan = replace(plan, latency=WATCHED_SECONDS, work=WATCHED_SECONDS)
    try:
        with _folder(keep) as files:
            outcome = run(plan, files, console, keep=keep is not None)
    except Stuck as stuck:
        log = f"{keep}/demo.log" if keep else "kept with --keep DIR"
        click.echo(f"castile demo: {stuck} (seed {plan.seed}; its log: {log})", err=True)
        sys.exit(3)
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("castile demo: interrupted", err=True)
        sys.exit(130)
    _explain(outcome, console)
    if keep is not None:
        console.print(f"    castile explain {keep}/wire --keys {keep}/wire/keys.json", soft_wrap=True)
    if as_json:
        click.echo(outcome.to_json())
    sys.exit(0 if outcome.verdict.ok else 1)
