"""castile: secure, reliable SOAP for Python.

Each name is loaded when it is first used: whoever only explains a capture, or asks the command
line for help, waits for neither store nor network.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from castile import errors
    from castile.async_client import AsyncClient
    from castile.client import Client
    from castile.credentials import TLS, Certificate, Username
    from castile.endpoint.deliver import RequestContext
    from castile.errors import (
        CastileError,
        Fault,
        FaultReceived,
        InDoubt,
        PeerError,
        PolicyError,
        Retry,
        StoreError,
        TransportError,
        UsageError,
    )
    from castile.explaining import explain
    from castile.policy import EndpointPolicy
    from castile.policy.sets import policy_set
    from castile.service import Service

__all__ = [
    "TLS",
    "AsyncClient",
    "CastileError",
    "Certificate",
    "Client",
    "EndpointPolicy",
    "Fault",
    "FaultReceived",
    "InDoubt",
    "PeerError",
    "PolicyError",
    "RequestContext",
    "Retry",
    "Service",
    "StoreError",
    "TransportError",
    "UsageError",
    "Username",
    "errors",
    "explain",
    "policy_set",
]

_HOMES: Final = {
    "AsyncClient": "castile.async_client",
    "Certificate": "castile.credentials",
    "Client": "castile.client",
    "EndpointPolicy": "castile.policy",
    "RequestContext": "castile.endpoint.deliver",
    "Service": "castile.service",
    "TLS": "castile.credentials",
    "Username": "castile.credentials",
    "explain": "castile.explaining",
    "policy_set": "castile.policy.sets",
}
"""The module of each public name that isn't an error."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name (PEP 562)."""
        if name == "errors":
            return import_module("castile.errors")
        if name not in __all__:
            raise AttributeError(f"module 'castile' has no attribute {name!r}")
        found = getattr(import_module(_HOMES.get(name, "castile.errors")), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
