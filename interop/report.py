"""The page docs/interop.md, from the table of cells and their latest results."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cell import HERE, Cell

PAGE: Final = HERE.parent / "docs" / "interop.md"
_HEAD: Final = """# Interoperability

castile against live peers, each cell a client and a service, each a process of its own, with a
recording proxy between them. A cell passes if the applications' own logs show every message once
and in order, every call answered, the sequence closed and terminated and the security context
given back, and `castile explain` finds nothing wrong in what was recorded. *Recorded* is what a peer
makes of something odd: nothing was delivered twice or out of order. An *expected failure* quotes
the peer's own words and names the rule. In those two `castile explain` has named the cause of
whatever is wrong; a cell under loss has shown repetitions. This page and `interop/results.json`
are written by `make interop`; `make interop ARGS=NAME` repeats one cell, and `interop/cells.toml`
says what each is.
"""
_STACKS: Final = {"cxf": "Apache CXF", "metro": "Eclipse Metro"}


def write(cells: Sequence[Cell], results: Mapping[str, Any], page: Path = PAGE) -> None:
    """Every cell of the table, with its latest result."""
    page.write_text("\n".join(_page(cells, results)) + "\n", "utf-8")


def _page(cells: Sequence[Cell], results: Mapping[str, Any]) -> Iterator[str]:
    yield _HEAD
    known = results["cells"]
    commits = sorted({each.get("commit", "earlier") for each in known.values()})
    ran = f"commit {commits[0]}" if len(commits) == 1 else "the commit of the last column"
    yield (
        f"Peers: {', '.join(versions())}. Machine: {results['machine']}, Python {results['python']}; "
        f"castile at {ran}."
    )
    outcomes = [known.get(cell.name, {}).get("outcome", "not run") for cell in cells]
    counted = {outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)}
    yield f"\n{len(cells)} cells: {', '.join(f'{count} {outcome}' for outcome, count in counted.items())}."
    for peer, name in _STACKS.items():
        for role in ("service", "client"):
            chosen = [cell for cell in cells if (cell.peer, cell.role) == (peer, role)]
            yield f"\n## {f'castile → {name}' if role == 'service' else f'{name} → castile'}\n"
            yield "| cell | what | outcome | delivered | repeated | date | commit |"
            yield "|---|---|---|---|---|---|---|"
            yield from (_row(cell, known.get(cell.name, {})) for cell in chosen)


def _row(cell: Cell, result: Mapping[str, Any]) -> str:
    what = f"{cell.traits}; {cell.title}" if cell.title else cell.traits
    outcome = result.get("outcome", "not run")
    if reason := result.get("reason", "" if result else "never run on this machine"):
        outcome += f": {_plain(reason)}"
    delivered = f"{result.get('delivered', 0)} of {cell.messages}"
    repeated = result.get("retransmissions", 0)
    run = f"{result.get('date', '')} | {result.get('commit', 'earlier')}"
    return f"| `{cell.name}` | {what} | {outcome} | {delivered} | {repeated} | {run} |"


def _plain(text: str) -> str:
    """A peer's words, for a cell of a table."""
    return re.sub(r"([|<>\[\]*_`{}])", r"\\\1", " ".join(text.split()))[:300]


def versions() -> list[str]:
    """Of the peers, as Maven builds them, and of the JDK."""
    text = (HERE / "pom.xml").read_text("utf-8")
    found = [
        f"{name} {match[1]}"
        for peer, name in _STACKS.items()
        if (match := re.search(rf"<{peer}\.version>([^<]+)<", text))
    ]
    try:
        said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
        return [*found, said.splitlines()[0].replace('"', "")]
    except (OSError, IndexError):
        return found
