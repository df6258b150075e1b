"""zeep's own bindings, which also say what is being called: `binding_classes` of the transport.

zeep hands a transport nothing but an address and an envelope. Which operation of which port that is
can't always be told from these: several bindings may share an address, several operations a body.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from zeep.wsdl import bindings

# The class attributes and methods of zeep's bindings have no types.


@dataclass(frozen=True, slots=True)
class Called:
    """What a program called."""

    client: Any
    """The ``zeep.Client``."""
    binding: Any
    """zeep's binding, parsed by one of the classes here."""
    operation: str

    @property
    def wsdl(self) -> Any:
        """``zeep.wsdl.Document``."""
        return self.binding.wsdl


_called: Final[ContextVar[Called | None]] = ContextVar("castile.zeep.called", default=None)


def called() -> Called | None:
    """The call under way in this thread or task; None where zeep's own bindings were parsed."""
    return _called.get()


@contextmanager
def calling(client: Any, binding: Any, operation: str) -> Iterator[None]:
    """While zeep sends this."""
    token = _called.set(Called(client, binding, operation))
    try:
        yield
    finally:
        _called.reset(token)


class _Telling:
    """A SOAP binding that says what it is about to send."""

    root: Any
    """Of the document that defines it."""

    @classmethod
    def parse(cls, definitions: Any, xmlelement: Any) -> Any:
        binding = super().parse(definitions, xmlelement)  # type: ignore[misc]
        binding.root = xmlelement.getroottree().getroot()
        definitions.wsdl.transport.seen.append(binding)
        return binding

    def send(self, client: Any, options: Any, operation: str, args: Any, kwargs: Any) -> Any:
        with calling(client, self, operation):
            return super().send(client, options, operation, args, kwargs)  # type: ignore[misc]

    async def send_async(self, client: Any, options: Any, operation: str, args: Any, kwargs: Any) -> Any:
        with calling(client, self, operation):
            return await super().send_async(client, options, operation, args, kwargs)  # type: ignore[misc]


class Soap11Binding(_Telling, bindings.Soap11Binding):
    """SOAP 1.1."""


class Soap12Binding(_Telling, bindings.Soap12Binding):
    """SOAP 1.2."""


BINDINGS: Final = (Soap11Binding, Soap12Binding, bindings.HttpGetBinding, bindings.HttpPostBinding)
"""In the order in which zeep tries its own."""
