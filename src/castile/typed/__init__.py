"""Typed messages by a WSDL: its contract read, bodies validated, decoded and encoded."""

from __future__ import annotations

from castile.typed.codec import Codec, Values
from castile.typed.contract import Contract, Operation, Port, read

__all__ = ["Codec", "Contract", "Operation", "Port", "Values", "read"]
