"""The command line: ``castile NAME …``."""

from __future__ import annotations

from castile.cli.group import main

__all__ = ["main"]
