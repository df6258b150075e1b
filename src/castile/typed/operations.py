"""A WSDL's operations as functions: the walk from a verified Body to a function and back.

Body and action must be of one operation, the Body valid by its schema; then hooks, the function,
and its result as a valid Body, or its fault with a declared detail.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Final

from castile.config import Limits
from castile.endpoint.deliver import Handler, RequestContext
from castile.errors import Fault, PeerError, QName, SOAPFault, UsageError, Violation
from castile.typed.codec import Arguments, Codec, Values
from castile.typed.contract import Contract, Operation, Port

Function = Callable[..., object]
"""An operation: it takes the arguments by name, and ``ctx`` if it asks for it; it may be a coroutine."""
CONTEXT: Final = "ctx"
Allow = Callable[[str | None], bool]
"""Whether a principal may; None: nobody has said who he is."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A function that is an operation, and how it is run."""

    function: Function
    transactional: bool = False
    allow: Allow | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """What a hook sees of a message: verified, valid, and its own copy."""

    operation: str
    arguments: Arguments
    context: RequestContext
    result: object = None
    """Of the function; None before it has run."""


Hook = Callable[[Call], None]
Answered = bytes | Coroutine[object, object, bytes | None] | None


class Operations:
    """The functions of a contract's operations, shared by its ports."""

    def __init__(self, contract: Contract, limits: Limits, validate: str = "strict") -> None:
        self.contract = contract
        self._codec = Codec(contract, limits, validate)
        self._offered: dict[str, Offered] = {}
        self.before: list[Hook] = []
        self.after: list[Hook] = []

    def add(self, name: str, offered: Offered) -> None:
        """Let a function be an operation. Raises `UsageError` where their names don't agree."""
        bound = self._bound(name)
        if not bound:
            known = ", ".join(self.names) or "none"
            raise UsageError(f"the WSDL has no operation {name!r}; it has: {known}")
        if name in self._offered:
            raise UsageError(f"there is a function for the operation {name!r} already")
        if offered.transactional and inspect.iscoroutinefunction(offered.function):
            raise UsageError(
                f"{name} is a coroutine and can't be transactional: it would hold the store's "
                "transaction across awaits; make it a plain function"
            )
        for operation in bound:
            _check(offered.function, self._codec.operation(operation))
        self._offered[name] = offered

    @property
    def names(self) -> tuple[str, ...]:
        """Every operation of every port, once."""
        return tuple(dict.fromkeys(name for port in self.contract.ports for name in port.operations))

    @property
    def missing(self) -> tuple[str, ...]:
        """Operations without a function."""
        return tuple(name for name in self.names if name not in self._offered)

    def handlers(self) -> dict[str, Handler]:
        """By action, for the dispatcher. Raises `UsageError` where two operations share one."""
        found: dict[str, Handler] = {}
        owners: dict[str, str] = {}
        for name, offered in self._offered.items():
            for operation in self._bound(name):
                if owners.setdefault(operation.action, name) != name:
                    raise UsageError(
                        f"{name} and {owners[operation.action]} have the same wsa:Action, {operation.action}"
                    )
                found[operation.action] = Handler(
                    operation.action,
                    _Runner(self, offered, self._codec.operation(operation)).run,
                    offered.transactional,
                    one_way=operation.response is None,
                    answer=operation.response_action,
                )
        return found

    def _bound(self, name: str) -> list[Operation]:
        return [port.operations[name] for port in self.contract.ports if name in port.operations]


def implied(port: Port, label: str | None, body: QName | None) -> str:
    """The action of an operation told by its Body, which HTTP's label mustn't contradict (SV-05)."""
    fitting = [each for each in port.operations.values() if each.request.body == body]
    agreeing = [each for each in fitting if not label or label in (each.soap_action, each.action)]
    if agreeing:
        return agreeing[0].action
    if fitting:
        text = "The action that HTTP names isn't the one of the element in the Body."
        raise Violation("SOAPAction and Body disagree", fault=SOAPFault("Sender", text))
    text = "No operation of this service takes this Body."
    raise Violation("no operation takes this Body", fault=SOAPFault("Sender", text))


class _Runner:
    """One operation of one port, from bytes to bytes."""

    def __init__(self, operations: Operations, offered: Offered, values: Values) -> None:
        self._operations, self._offered, self._values = operations, offered, values
        self._takes_context = CONTEXT in inspect.signature(offered.function).parameters

    def run(self, body: bytes, ctx: RequestContext) -> Answered:
        """Decode, run, encode; a coroutine's rest is a coroutine. Raises `Fault`."""
        context = replace(ctx, operation=self._values.operation.name)
        if self._offered.allow is not None and not self._offered.allow(context.principal):
            raise Fault("Sender", "The sender may not do this.")
        try:
            arguments = self._values.decode_request(body)
            self._hooks(self._operations.before, Call(context.operation or "", arguments, context))
            extra = {CONTEXT: context} if self._takes_context else {}
            result = self._offered.function(**arguments, **extra)
        except PeerError as error:
            raise _refused(error) from error
        except Fault as fault:
            raise self._typed(fault) from fault
        if inspect.iscoroutine(result):
            return self._awaited(result, arguments, context)
        return self._answer(result, arguments, context)

    async def _awaited(
        self, result: Coroutine[object, object, object], arguments: Arguments, context: RequestContext
    ) -> bytes | None:
        try:
            value = await result
        except Fault as fault:
            raise self._typed(fault) from fault
        return self._answer(value, arguments, context)

    def _answer(self, result: object, arguments: Arguments, context: RequestContext) -> bytes | None:
        operation = self._values.operation
        try:
            self._hooks(self._operations.after, Call(operation.name, arguments, context, result))
        except Fault as fault:
            raise self._typed(fault) from fault
        if operation.response is None:
            return None
        return self._values.encode_response(result)

    def _hooks(self, hooks: Sequence[Hook], call: Call) -> None:
        for hook in hooks:
            hook(replace(call, arguments=deepcopy(call.arguments)))

    def _typed(self, fault: Fault) -> Fault:
        """A fault whose detail is declared, as it is sent."""
        if fault.declared is None:
            return fault
        name, value = fault.declared
        declared, detail = self._values.encode_fault(name, value)
        typed = Fault(fault.fault.code, fault.fault.reason, subcode=fault.fault.subcode)
        typed.fault = replace(fault.fault, detail=detail, action=declared.action)
        return typed


def _refused(error: PeerError) -> Fault:
    fault = Fault(error.fault.code, error.fault.reason)
    fault.fault = error.fault
    return fault


def _check(function: Function, values: Values) -> None:
    """The function takes what the operation gives it, by name."""
    parameters = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {each.name: each for each in parameters if each.kind in kinds and each.name != CONTEXT}
    anything = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    missing = [name for name in values.names if name not in named and not anything]
    extra = [n for n, each in named.items() if n not in values.names and each.default is each.empty]
    if missing or extra or any(each.kind is each.POSITIONAL_ONLY for each in parameters):
        wanted = ", ".join(values.names)
        raise UsageError(
            f"the function of {values.operation.name} must take ({wanted}) by name, and ctx if it likes"
        )


__all__ = ["Call", "Hook", "Offered", "Operations", "implied"]
