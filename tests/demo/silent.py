"""A process that never says anything: what the demo's watchdog is for."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    for _ in sys.stdin:
        pass
