"""A pytest plug-in: castile's transports wherever a test of zeep's own suite goes through zeep's.

In a checkout of zeep, with castile and this folder importable (docs/recipes/zeep.md says what comes out)::

    python -m pytest -p in_place tests \\
        --ignore tests/test_transports.py --ignore tests/test_async_transport.py

The two files that are left out test zeep's transports themselves.
"""

from __future__ import annotations

from typing import Any

import zeep
import zeep.client
import zeep.transports

import castile.zeep

_SYNC: Any = zeep.transports.Transport
_ASYNC: Any = zeep.transports.AsyncTransport
made = 0
"""Transports of castile that stood in."""


def transport(*arguments: Any, **named: Any) -> Any:
    """In place of ``zeep.Transport``."""
    global made
    made += 1
    return castile.zeep.Transport(inner=_SYNC(*arguments, **named))


def async_transport(*arguments: Any, **named: Any) -> Any:
    """In place of ``zeep.AsyncTransport``."""
    global made
    made += 1
    return castile.zeep.AsyncTransport(inner=_ASYNC(*arguments, **named))


def pytest_configure() -> None:
    for module in (zeep, zeep.client, zeep.transports):
        module.Transport = transport  # type: ignore[attr-defined]
        module.AsyncTransport = async_transport  # type: ignore[attr-defined]
    zeep.client.Client._default_transport = staticmethod(transport)  # type: ignore[assignment]
    zeep.client.AsyncClient._default_transport = staticmethod(async_transport)  # type: ignore[assignment]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"{made} transports of castile stood in for zeep's")
