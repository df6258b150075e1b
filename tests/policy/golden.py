"""What is said of every named set and of every port at hand: compared with the texts beside this.

``python -m tests.policy.golden`` writes them anew; read the difference before it is committed. A set
that has changed is a change of what peers are told: it needs a line in CHANGELOG.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from castile.errors import CastileError
from castile.policy.description import Port
from castile.policy.parse import needs, read
from castile.policy.render import render
from castile.policy.sets import policy_set, policy_sets
from castile.policy.words import words
from tests.policy import corpus
from tests.policy.asked import ports_of

PINNED: Final = Path(__file__).with_name("sets.toml")
SETS: Final = Path(__file__).with_name("sets.txt")
PORTS: Final = Path(__file__).with_name("ports.txt")


def sets() -> str:
    """Each named set in words."""
    return "".join(f"{line}\n" for name in policy_sets() for line in (name, *_under(words(policy_set(name)))))


def pinned() -> str:
    """SHA-256 of what each named set is as WS-Policy: the endpoint's part and the messages'."""
    return "".join(f'"{name}" = "{_digest(name)}"\n' for name in policy_sets())


def _digest(name: str) -> str:
    rendered = render(policy_set(name))
    octets = (rendered.xml(each) for each in (rendered.endpoint, rendered.message))
    return sha256(b"\n".join(octets)).hexdigest()


def ports() -> str:
    """Each file of others: its policies in words, or why not."""
    return "".join(f"{line}\n" for path in corpus.files() for line in _file(path))


def _file(path: Path) -> Iterator[str]:
    yield f"{path.parent.name}/{path.name}"
    try:
        found = ports_of(path)
    except CastileError as error:
        yield f"  {error}"
        return
    for port in found:
        yield f"  {port.name}"
        yield from _under(list(_port(port)), 4)
    if not found:
        yield "  no policy"


def _port(port: Port) -> Iterator[str]:
    try:
        reading = read(port)
    except CastileError as error:
        yield from str(error).splitlines()
        return
    yield from words(reading.policy)
    yield f"wanted: {', '.join(sorted(needs(reading.policy))) or 'nothing'}"
    for finding in reading.findings:
        yield f"{finding.level} {finding.code}: {finding.text}"


def _under(lines: list[str], depth: int = 2) -> list[str]:
    return [f"{' ' * depth}{line}" for line in lines]


if __name__ == "__main__":
    PINNED.write_text(pinned())
    SETS.write_text(sets())
    PORTS.write_text(ports())
