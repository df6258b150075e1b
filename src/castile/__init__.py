"""castile: secure, reliable SOAP for Python."""

from __future__ import annotations

from castile import errors
from castile.client import Client
from castile.credentials import Certificate, Username
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
from castile.policy import EndpointPolicy
from castile.service import Service

__all__ = [
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
    "Username",
    "UsageError",
    "errors",
]
