"""What several test folders need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent


def shared(*parts: str) -> Path:
    """A file or folder of `shared`, the recorded conversations and schemas beside the project.

    ``CASTILE_SHARED`` names that folder, else it is looked for beside the project's folder and
    each of its ancestors. Skips the test, saying so, where it is missing.
    """
    named = os.environ.get("CASTILE_SHARED")
    places = [Path(named)] if named else [folder / "shared" for folder in PROJECT.parents]
    for place in places:
        path = place.joinpath(*parts)
        if path.exists():
            return path
    pytest.skip(f"{'/'.join(('shared', *parts))} is missing: set CASTILE_SHARED to the folder of recordings")


def oracle() -> Path:
    """The interpreter of the environment that holds signxml and xmlsec (``make oracle``).

    ``CASTILE_ORACLE`` names it. Skips the test, saying so, where there is none.
    """
    named = os.environ.get("CASTILE_ORACLE")
    python = Path(named) if named else PROJECT / ".venv-oracle" / "bin" / "python"
    if not python.exists():
        pytest.skip("no independent signature library: run make oracle")
    return python
