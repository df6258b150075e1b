"""The client of one endpoint, for asyncio: `castile.Client`, awaited.

::

    async with castile.AsyncClient("https://bank.example/Transfers", policy=..., credentials=...,
                                   store="transfers.db") as client:
        answer = await client.call_raw("urn:bank/Transfer", b"<Transfer xmlns='urn:bank'>...</Transfer>")
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import ClassVar, Self

from castile.commands import cancel_context
from castile.errors import UsageError
from castile.front import Body, Context, Front, Given, Unfinished, acknowledged, completed, ended, reported
from castile.previewing import Preview
from castile.pump import Pump
from castile.waiting import looping


class AsyncClient(Front):
    """`castile.Client` for the tasks of an event loop: same arguments, same methods, awaited.

    Nothing is opened, read or sent before ``async with``. A small message is verified on the loop's
    thread; everything that waits lets other tasks go on. A task that is cancelled in a call stops
    waiting for its reply: the message stays in the outbox and is sent until it is answered, as at a
    time-out.
    """

    _at_once: ClassVar[bool] = False
    _entered = False

    @property
    def sequence(self) -> AsyncSequence:
        """See `Client.sequence`."""
        return self.sequence_for("")

    def sequence_for(self, name: str) -> AsyncSequence:
        """See `Client.sequence_for`."""
        return AsyncSequence(self, self._sequences(), name)

    @property
    def context(self) -> AsyncContext | None:
        """See `Client.context`."""
        state = self._pump.conversations.current()
        return AsyncContext(self._pump, state) if state is not None else None

    async def call_raw(
        self, action: str, body: Body, *, key: str | None = None, timeout: float | None = None
    ) -> bytes:
        """See `Client.call_raw`."""
        return await looping(self._call(action, body, key, timeout))

    async def send_raw(self, action: str, body: Body, *, key: str | None = None) -> None:
        """See `Client.send_raw`."""
        await looping(self._send(action, body, key))

    async def call(
        self,
        operation: str,
        arguments: Given = None,
        /,
        *,
        key: str | None = None,
        timeout: float | None = None,
        **named: object,
    ) -> object:
        """See `Client.call`."""
        return await looping(self._call_typed(operation, arguments, named, key, timeout))

    async def send(
        self, operation: str, arguments: Given = None, /, *, key: str | None = None, **named: object
    ) -> None:
        """See `Client.send`."""
        await looping(self._send_typed(operation, arguments, named, key))

    async def preview(self, operation: str, arguments: Given = None, /, **named: object) -> Preview:
        """See `Client.preview`."""
        return await asyncio.to_thread(self._preview, operation, arguments, named)

    async def unfinished(self) -> list[Unfinished]:
        """See `Client.unfinished`."""
        return await looping(self._unfinished())

    async def take(self, message_id: str) -> None:
        """See `Client.take`."""
        await looping(self._take(message_id))

    async def aclose(self, *, keep: bool = False) -> None:
        """See `Client.close`."""
        await looping(self._close(keep))

    async def __aenter__(self) -> Self:
        self._entered = True
        await asyncio.to_thread(lambda: self._pump)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose(keep=error is not None)

    @property
    def _pump(self) -> Pump:
        if not self._entered:
            raise UsageError("an AsyncClient is opened by `async with`: use it inside")
        return super()._pump


class AsyncContext(Context):
    """``client.context`` of an `AsyncClient`."""

    async def renew(self) -> None:
        """See `ClientContext.renew`."""
        await looping(self._pump.conversations.renew(self.identifier))

    async def cancel(self, *, force: bool = False) -> None:
        """See `ClientContext.cancel`."""
        await looping(cancel_context(self._pump, self.identifier, force=force))


class AsyncSequence:
    """``client.sequence`` and ``client.sequence_for(name)`` of an `AsyncClient`."""

    def __init__(self, client: Front, pump: Pump, name: str) -> None:
        self._client = client
        self._pump = pump
        self._name = name

    async def call_raw(
        self, action: str, body: Body, *, key: str | None = None, timeout: float | None = None
    ) -> bytes:
        """See `ClientSequence.call_raw`."""
        return await looping(self._client._call(action, body, key, timeout, self._name))

    async def send_raw(self, action: str, body: Body, *, key: str | None = None) -> None:
        """See `ClientSequence.send_raw`."""
        await looping(self._client._send(action, body, key, self._name))

    async def call(
        self,
        operation: str,
        arguments: Given = None,
        /,
        *,
        key: str | None = None,
        timeout: float | None = None,
        **named: object,
    ) -> object:
        """See `ClientSequence.call`."""
        request = self._client._call_typed(operation, arguments, named, key, timeout, self._name)
        return await looping(request)

    async def send(
        self, operation: str, arguments: Given = None, /, *, key: str | None = None, **named: object
    ) -> None:
        """See `ClientSequence.send`."""
        await looping(self._client._send_typed(operation, arguments, named, key, self._name))

    async def wait_until_acknowledged(self, timeout: float | None = None) -> bool:
        """See `ClientSequence.wait_until_acknowledged`."""
        return await looping(acknowledged(self._pump, timeout, self._name))

    async def wait_until_completed(self, timeout: float | None = None) -> bool:
        """See `ClientSequence.wait_until_completed`."""
        return await looping(completed(self._pump, timeout, self._name))

    async def close(self, timeout: float = 30.0) -> None:
        """See `ClientSequence.close`."""
        await looping(ended(self._pump, timeout, self._name))

    async def report(self) -> dict[str, object]:
        """See `ClientSequence.report`."""
        return await looping(reported(self._pump, self._name))


__all__ = ["AsyncClient", "AsyncContext", "AsyncSequence"]
