"""Figures as tables in Markdown, for the terminal and for docs/performance.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import workload
from calls import KINDS

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The whole result."""
    yield from _messages(result["messages"])
    yield ""
    yield from _calls(result["calls"])
    yield ""
    yield from _ratios(result["ratios"])
    yield ""
    yield from _machine(result)


def write(rows: Iterable[str], program: str) -> None:
    """Put what a program has found between its marks on the page."""
    text = PAGE.read_text("utf-8")
    marks = re.compile(rf"(<!-- {program}: begin -->\n).*(<!-- {program}: end -->\n)", re.DOTALL)
    if not marks.search(text):
        raise SystemExit(f"bench: {PAGE} has no marks of {program} between which its tables could stand")
    found = "\n".join(rows)
    PAGE.write_text(marks.sub(lambda mark: f"{mark[1]}\n{found}\n\n{mark[2]}", text), "utf-8")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A table whose columns line up in the terminal too; the first ones are words, the rest numbers."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    numbers = [all(row[column][:1].isdigit() for row in cells[1:]) for column in range(len(widths))]
    for position, row in enumerate(cells):
        padded = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numbers, strict=True)
        ]
        yield f"| {' | '.join(padded)} |"
        if position == 0:
            ends = [":" if number else "-" for number in numbers]
            yield f"| {' | '.join('-' * (w - 1) + end for w, end in zip(widths, ends, strict=True))} |"


def _pair(figures: dict[str, float]) -> list[str]:
    return [f"{figures['min']:,.0f}", f"{figures['median']:,.0f}"]


def _messages(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "CPU µs per message, one thread (minimum and median of the rounds):"
    yield ""
    yield from table(
        ["suite", "message", "body", "on the wire", "protect", "median", "unprotect", "median"],
        (
            [
                row["suite"],
                row["direction"],
                f"{row['body_bytes'] // 1_000} KB",
                f"{row['wire_bytes']:,}",
                *_pair(row["protect_us"]),
                *_pair(row["unprotect_us"]),
            ]
            for row in rows
        ),
    )


def _calls(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "Calls, 1 KB each way, client and service each a process (CPU: µs of both together per call):"
    yield ""
    yield from table(
        ["mode", "store", "exchange", "callers", "calls/s", "p50 ms", "p99 ms", "CPU", "median",
         "client", "service", "commits"],
        (
            [
                workload.MODES[row["mode"]],
                "durable" if row["durable"] else "in memory",
                KINDS[row["kind"]],
                str(row["callers"]),
                f"{row['calls_per_second']['median']:,.0f}",
                f"{row['milliseconds']['p50']:.1f}",
                f"{row['milliseconds']['p99']:.1f}",
                f"{row['cpu_us']['min']:,.0f}",
                f"{row['cpu_us']['median']:,.0f}",
                f"{row['cpu_us']['client_median']:,.0f}",
                f"{row['cpu_us']['service_median']:,.0f}",
                f"{row['commits_per_call']:.2f}",
            ]
            for row in rows
        ),
    )  # fmt: skip


def _ratios(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "Ratios of calls per second, round by round of this run:"
    yield ""
    yield from table(
        ["ratio", "exchange", "callers", "median", "least", "most"],
        (
            [
                row["ratio"],
                KINDS[row["kind"]],
                str(row["callers"]),
                f"{row['median']:.2f}",
                f"{row['min']:.2f}",
                f"{row['max']:.2f}",
            ]
            for row in rows
        ),
    )


def _machine(result: dict[str, Any]) -> Iterator[str]:
    machine = result["machine"]
    versions = [
        f"{name} {machine[name]}"
        for name in ("python", "castile", "lxml", "libxml2", "cryptography", "pybase64", "uvicorn", "sqlite")
        if name in machine
    ]
    sync = machine["fdatasync_us"]
    yield (
        f"{machine['processors']} × {machine['processor']}, {machine['system']}; {', '.join(versions)}; "
        f"{machine['openssl']}; HTTP parser of the server: {machine['http server']}. "
        f"Stores on {machine['file system']}, write and fdatasync of 4 KB {sync['median']:,.0f} µs "
        f"(p99 {sync['p99']:,.0f}). {machine['client and service'].capitalize()}. Load before the run "
        f"{machine['load_before']:.1f}; taken by the host during it {machine['stolen_percent']:.1f} % of the "
        f"processor. {result['rounds']['messages']} rounds of messages, {result['rounds']['calls']} of "
        f"calls, {result['seconds']:.0f} s, {result['date']}."
    )
