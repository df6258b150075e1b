"""A WSDL's operations as a client calls them: arguments to a Body, a Body to its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from castile.config import Limits
from castile.errors import FaultReceived, Malformed, UsageError
from castile.typed.codec import Codec, Values
from castile.typed.contract import Contract, Operation, Port


@dataclass(frozen=True, slots=True)
class Request:
    """A call as it goes out, and how its answer is read."""

    values: Values = field(repr=False)
    action: str
    """Of the message: wsa:Action, or SOAPAction where it isn't addressed."""
    body: bytes = field(repr=False)

    @property
    def operation(self) -> Operation:
        """What is called."""
        return self.values.operation

    def result(self, content: bytes) -> object:
        """The response's value. Raises `Malformed` for one that breaks the schema."""
        return self.values.decode_response(content)

    def explain(self, fault: FaultReceived) -> None:
        """Note the fault's name, and its detail as a value, if the WSDL declares it."""
        try:
            declared = self.values.decode_fault(fault.fault.detail)
        except Malformed:  # what it says of itself isn't so: the fault stays as it came
            declared = None
        if declared is not None:
            fault.name, fault.detail = declared


class Calls:
    """The operations of one port."""

    def __init__(
        self, contract: Contract, port: Port, limits: Limits, *, addressed: bool, validate: str = "strict"
    ) -> None:
        self.port, self._addressed = port, addressed
        self._codec = Codec(contract, limits, validate)
        self._known: dict[str, Values] = {}

    def request(
        self,
        operation: str,
        arguments: Mapping[str, object] | None,
        named: Mapping[str, object],
        *,
        two_way: bool | None,
    ) -> Request:
        """A call of an operation, its arguments by name: in a mapping, or one by one.

        `two_way`: whether an answer is wanted; None: as the WSDL has it. Raises `UsageError` for an
        operation that isn't there or isn't called this way, and for arguments that don't fit.
        """
        values = self._values(operation)
        if two_way is not None and (values.operation.response is not None) != two_way:
            right = "send" if two_way else "call"
            kind = "one-way" if two_way else "answered"
            raise UsageError(f"{operation} is {kind} by the WSDL: use client.{right}")
        body = values.encode_request({**(arguments or {}), **named})
        wanted = values.operation
        return Request(values, wanted.action if self._addressed else wanted.soap_action, body)

    def operation(self, name: str) -> Operation:
        """What the contract says of an operation. Raises `UsageError` for one that isn't there."""
        return self._values(name).operation

    def _values(self, operation: str) -> Values:
        if operation not in self._known:
            found = self.port.operations.get(operation)
            if found is None:
                known = ", ".join(self.port.operations) or "none"
                raise UsageError(f"the port {self.port.name} has no operation {operation!r}; it has: {known}")
            self._known[operation] = self._codec.operation(found)
        return self._known[operation]


__all__ = ["Calls", "Request"]
