"""The product, imported from a folder of source, with the simulator's standard library.

Only castile's own import statements see the substitutes: each of its modules is executed with an
`__import__` of its own. So the source has no switches, and everybody else's threads stay real.
Call `install` before anything imports castile.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from tests.simulation import primitives, storage

REAL = ("castile.transport", "castile.cli", "castile.demo")
"""What never runs inside a world keeps the real library."""


class _Loader(SourceFileLoader):
    """Executes a module under other builtins."""

    builtins: dict[str, Any]

    def exec_module(self, module: ModuleType) -> None:
        code = self.get_code(module.__name__)
        if not isinstance(code, CodeType):
            raise ImportError(f"{module.__name__} has no code")
        module.__dict__["__builtins__"] = self.builtins
        exec(code, module.__dict__)


class _Finder:
    """Finds castile in one folder."""

    def __init__(self, source: Path, substitutes: Mapping[str, ModuleType]) -> None:
        self._source = str(source)
        self._substitutes = substitutes
        self._builtins = {**vars(builtins), "__import__": self._import}

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        substitute = self._substitutes.get(name) if level == 0 else None
        return substitute or __import__(name, globals, locals, fromlist or (), level)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] != "castile":
            return None
        spec = PathFinder.find_spec(name, [self._source] if path is None else list(path))
        if spec is not None and spec.origin and not name.startswith(REAL):
            loader = _Loader(name, spec.origin)
            loader.builtins = self._builtins
            spec.loader = loader
        return spec


def install(source: Path) -> None:
    """From now on castile comes from `source`, in the simulator's time."""
    if any(name.partition(".")[0] == "castile" for name in sys.modules):
        raise ImportError("castile is imported already: the simulator needs a process of its own")
    substitutes = {**primitives.modules(), "sqlite3": storage.module()}
    sys.meta_path.insert(0, _Finder(source, substitutes))
