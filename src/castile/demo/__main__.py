"""``python -m castile.demo``."""

from __future__ import annotations

from castile.demo.command import demo

if __name__ == "__main__":
    demo()
