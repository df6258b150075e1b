"""Draws a transition table as an SVG: phases in a row, moves ahead above, moves back below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from html import escape

BOX, GAP, HEIGHT, LINE = 96, 54, 32, 13
"""Width of a phase, space between two, height of a phase, height of a line of text (pixels)."""


def name_of(phase: object) -> str:
    """A phase as people say it."""
    return phase.name.lower() if isinstance(phase, Enum) else str(phase)


def draw(phases: Iterable[object], table: Mapping[tuple[object, type], object]) -> str:
    """An inline SVG of `table`; events that leave the phase as it is are left out."""
    order = {phase: place for place, phase in enumerate(phases)}
    moves: dict[tuple[int, int], list[str]] = {}
    for (before, event), after in table.items():
        if before is not after:
            names = moves.setdefault((order[before], order[after]), [])
            names += [] if event.__name__ in names else [event.__name__]
    rows = _stack(moves)
    above = max((height for (start, end), height in rows.items() if end > start), default=0)
    below = max((height for (start, end), height in rows.items() if end < start), default=0)
    middle = above + 4
    width, total = len(order) * (BOX + GAP) - GAP + 4, middle + HEIGHT + below + 8
    body = [_arrow(move, names, rows[move], middle) for move, names in moves.items()]
    body += [_box(place, name_of(phase), middle) for phase, place in order.items()]
    return (
        f'<div style="overflow-x: auto"><svg viewBox="0 0 {width} {total}" width="{width}" height="{total}" '
        'role="img" aria-label="phases and the events that lead from one to another" '
        'font-family="sans-serif" fill="none" stroke="currentColor">\n' + "\n".join(body) + "\n</svg></div>"
    )


def _stack(moves: Mapping[tuple[int, int], list[str]]) -> dict[tuple[int, int], int]:
    """How far from the boxes each arrow runs, so that no two lie on one another: short ones nearest."""
    heights: dict[tuple[int, int], int] = {}
    for move in sorted(moves, key=lambda move: (abs(move[1] - move[0]), move)):
        low, high = sorted(move)
        ahead = move[1] > move[0]
        floor = 0
        for other, height in heights.items():
            left, right = sorted(other)
            if (other[1] > other[0]) == ahead and left < high and low < right:
                floor = max(floor, height)
        heights[move] = floor + LINE * len(_wrapped(moves[move])) + 12
    return heights


def _wrapped(names: list[str]) -> list[str]:
    """Names in lines that end before the next box begins."""
    lines = [""]
    for name in names:
        if lines[-1] and len(lines[-1]) + len(name) + 2 > (BOX + GAP) // 6:
            lines.append("")
        lines[-1] += f"{', ' if lines[-1] else ''}{name}"
    return lines


def _box(place: int, name: str, middle: int) -> str:
    left = place * (BOX + GAP) + 2
    return (
        f'<rect x="{left}" y="{middle}" width="{BOX}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{left + BOX // 2}" y="{middle + HEIGHT // 2 + 5}" text-anchor="middle" font-size="14" '
        f'fill="currentColor" stroke="none">{escape(name)}</text>'
    )


def _arrow(move: tuple[int, int], names: list[str], height: int, middle: int) -> str:
    """An elbow from the top of one box to the top of another (ahead), or along the bottoms (back)."""
    start, end = (place * (BOX + GAP) + 2 + BOX // 2 for place in move)
    ahead = end > start
    start, end = (start + 12, end - 12) if ahead else (start - 12, end + 12)
    edge = middle if ahead else middle + HEIGHT
    out = -1 if ahead else 1
    level = edge + out * height
    tip = f"M{end - 4} {edge + out * 8}L{end} {edge}L{end + 4} {edge + out * 8}"
    lines = _wrapped(names)
    first = level + LINE if ahead else level - 4 - LINE * (len(lines) - 1)
    text = "".join(
        f'<text x="{start + 4 if ahead else end + 4}" y="{first + LINE * row}" font-size="11" '
        f'fill="currentColor" stroke="none">{escape(line)}</text>'
        for row, line in enumerate(lines)
    )
    return f'<path d="M{start} {edge}V{level}H{end}V{edge}{tip}" opacity="0.5"/>{text}'
