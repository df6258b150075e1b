"""A cell of the matrix: who talks to whom, in which editions, and what must come of it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal

HERE: Final = Path(__file__).resolve().parent
TABLE: Final = HERE / "cells.toml"
NAMESPACE: Final = "urn:castile:echo"
PASSWORD: Final = "password"
"""Of the key stores, of the keys in them, and of the user."""
USER: Final = "ada"
STRANGER: Final = 900
"""Numbers of another client's messages begin after this."""
TRICK: Final = 999
"""Of its message in a sequence that isn't its own."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of cells.toml; what it leaves out is as here."""

    name: str
    peer: Literal["cxf", "metro"]
    role: Literal["service", "client"]
    """Of the peer; castile is the other."""
    title: str = ""
    """What is special about it."""
    rm: Literal["off", "1.0", "1.1"] = "1.1"
    sc: Literal["off", "2005/02", "1.3"] = "1.3"
    bootstrap: Literal["mutual", "certificate", "username"] = "mutual"
    soap: Literal["1.1", "1.2"] = "1.2"
    addressing: Literal["2004/08", "1.0"] = "1.0"
    suite: str = "Basic256"
    operation: Literal["echo", "tell"] = "echo"
    messages: int = 10
    size: int = 100
    """Characters of a message's text."""
    pause: float = 0.0
    """Seconds between messages."""
    delay: float = 0.0
    """Seconds that the handler takes."""
    linger: float = 0.5
    """Seconds that the client waits before it closes: some give up what isn't acknowledged then."""
    patience: float = 100.0
    """Seconds that castile's callers wait for a reply: a JVM on a busy machine is slow to start."""
    lifetime: int = 0
    """Seconds that a security context token lives; 0: as the stacks have it."""
    drop: float = 0.0
    duplicate: float = 0.0
    seed: int = 1
    restart: Literal["none", "castile", "castile without its store", "peer"] = "none"
    """Who is killed (SIGKILL) and started again in mid-sequence."""
    trick: Literal["none", "replay", "unknown sequence", "foreign sequence"] = "none"
    """What somebody does to the service in mid-sequence: on the network, or as castile's client."""
    encrypt_signature: bool = False
    encrypt_lifecycle: bool = False
    derived_keys: bool = True
    """Of the messages under the security context."""
    sequence_token: Literal["require", "infer", "accept"] = "infer"
    user: str = USER
    password: str = PASSWORD
    """What the client says; the service knows `PASSWORD`."""
    smoke: bool = False
    expect: Literal["pass", "failure", "in doubt", "recorded"] = "pass"
    """``in doubt``: whatever wasn't delivered, the caller knows. ``recorded``: whatever the peer
    makes of it, nothing is delivered twice."""
    says: str = ""
    """Of an expected failure: the peer's own words."""
    rule: str = ""
    """And the rule by which it fails, or what is to be seen."""
    seconds: float = 240.0
    """After this the cell is stopped, and has failed."""

    @property
    def reliable(self) -> bool:
        """It has sequences."""
        return self.rm != "off"

    @property
    def secure(self) -> bool:
        """It has a security context."""
        return self.sc != "off"

    @property
    def lossy(self) -> bool:
        """Its network loses or doubles messages."""
        return bool(self.drop or self.duplicate)

    @property
    def direction(self) -> str:
        """For people."""
        names = {"cxf": "CXF", "metro": "Metro"}
        pair = ["castile", names[self.peer]]
        return " → ".join(pair if self.role == "service" else reversed(pair))

    @property
    def traits(self) -> str:
        """Its editions, for people."""
        words = [f"RM {self.rm}" if self.reliable else "no RM"]
        words.append(f"SC {self.sc}, {self.bootstrap}" if self.secure else "no security")
        words.append(f"SOAP {self.soap}")
        if self.addressing != "1.0":
            words.append(f"WS-A {self.addressing}")
        words.append({"echo": "request/reply", "tell": "one-way"}[self.operation])
        return ", ".join(words)


def load(path: Path = TABLE) -> list[Cell]:
    """Every cell of the table. Raises `ValueError` naming the row that is wrong."""
    known = {field.name for field in fields(Cell)}
    cells, names = [], set()
    for row in tomllib.loads(path.read_text("utf-8"))["cell"]:
        name = row.get("name", "?")
        if unknown := sorted(set(row) - known):
            raise ValueError(f"{path.name}: the cell {name} has unknown members: {', '.join(unknown)}")
        cell = Cell(**row)
        if name in names:
            raise ValueError(f"{path.name}: there are two cells {name}")
        if cell.expect == "failure" and not cell.says:
            raise ValueError(f"{path.name}: the cell {name} must quote the peer (says)")
        if cell.expect != "pass" and not cell.rule:
            raise ValueError(f"{path.name}: the cell {name} must name the rule")
        if cell.smoke and cell.expect != "pass":
            raise ValueError(f"{path.name}: the cell {name} is of the smoke run, so it must pass")
        names.add(name)
        cells.append(cell)
    return cells
