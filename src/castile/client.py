"""The client of one endpoint.

::

    with castile.Client("https://bank.example/Transfers?wsdl", store="transfers.db",
                        credentials=castile.Username("ada", "secret"),
                        service_certificate="bank.pem") as client:
        receipt = client.call("Transfer", debtor="AB1234", amount=100, key="invoice-7")
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from castile.commands import cancel_context
from castile.front import (
    Body,
    Context,
    Front,
    Given,
    Reply,
    Unfinished,
    acknowledged,
    completed,
    ended,
    reported,
)
from castile.previewing import Preview
from castile.pump import Pump
from castile.waiting import blocking


class Client(Front):
    """A client of one endpoint, safe to share between threads.

    `address`: the endpoint's URL, or path or URL of a WSDL, of whose `port` and `service` it then
    is a client; `to_alias`: another URL to write as wsa:To. `policy`: what it asks for, where the
    WSDL doesn't say. `validate` "off" takes answers that break the WSDL's schemas.
    `credentials`: who we are; a policy may want a user and a certificate together.
    `service_certificate`: PEM, a file or an `x509.Certificate`; keys are sealed for it, and it may
    sign to us. `trust`: further certificates that may sign for the service, and issuers. `store`:
    a path; without one the quality of service is ``in_memory``. `timeout`: seconds for a call.
    `on_reply`: told of replies that nobody waits for. `http`: another HTTP client. `tls`: what the own
    one shows and believes, for https. `random`, `new_id`: sources of random bytes and of identifiers,
    for tests that must repeat.

    Several clients, in as many processes of a machine, may have the same store. One that was made
    before a ``fork()`` works in the child, too, where its first use opens everything anew (CL-30).

    Raises `UsageError` for arguments that don't fit, `StoreError` if the store can't be opened.
    """

    @property
    def sequence(self) -> ClientSequence:
        """The default sequence. Raises `NotReliable` where the policy has none."""
        return self.sequence_for("")

    def sequence_for(self, name: str) -> ClientSequence:
        """Another sequence to the same endpoint: what is sent in it has an order, and waits, by itself.

        Its name is the application's, and the same after a restart: the next process makes a new
        sequence of this name, once what an earlier one left is finished. Raises `NotReliable` where
        the policy has no sequences.
        """
        return ClientSequence(self, self._sequences(), name)

    @property
    def context(self) -> ClientContext | None:
        """The security context of this client; None before the first message."""
        state = self._pump.conversations.current()
        return ClientContext(self._pump, state) if state is not None else None

    def call_raw(
        self, action: str, body: Body, *, key: str | None = None, timeout: float | None = None
    ) -> bytes:
        """Send a request and wait for its reply: the canonical content of its Body.

        `key`: the caller's own key of this call. Made again with the same key, in this process
        or a later one on the same store, it returns the stored reply or waits for the message
        that is under way, and sends nothing a second time (CL-31).

        Raises `UsageError` for a key with another action or body, `FaultReceived` for a fault,
        `InDoubt` (with the number; an unauthenticated fault is its ``__cause__``) at the time-out,
        `TransportError` if not even a security context could be had in time.
        """
        return blocking(self._call(action, body, key, timeout))

    def send_raw(self, action: str, body: Body, *, key: str | None = None) -> None:
        """Send a one-way message; returns once it is durable, before the network is touched.

        `key`: the caller's own key of this message: sent again with the same key, in this process
        or a later one on the same store, nothing goes out a second time (CL-31).

        Raises `UsageError` for a key with another action or body, `InDoubt` where an earlier
        message with this key has failed for good: the key is free again then.
        """
        blocking(self._send(action, body, key))

    def call(
        self,
        operation: str,
        arguments: Given = None,
        /,
        *,
        key: str | None = None,
        timeout: float | None = None,
        **named: object,
    ) -> object:
        """Call an operation of the WSDL with arguments by name; its result, typed by the schema.

        A response that holds one element gives that element's value. `key` and `timeout` as in
        `call_raw`; arguments of these names go in `arguments`.

        Raises what `call_raw` does, `UsageError` for arguments that don't fit; a `FaultReceived` has
        `name` and `detail` where the WSDL declares it.
        """
        return blocking(self._call_typed(operation, arguments, named, key, timeout))

    def send(
        self, operation: str, arguments: Given = None, /, *, key: str | None = None, **named: object
    ) -> None:
        """Send a one-way operation of the WSDL, as `send_raw` does."""
        blocking(self._send_typed(operation, arguments, named, key))

    def preview(self, operation: str, arguments: Given = None, /, **named: object) -> Preview:
        """The message that a call would send, before and after protection. Nothing is sent."""
        return self._preview(operation, arguments, named)

    def unfinished(self) -> list[Unfinished]:
        """What an earlier process, or a call that timed out, left in this store."""
        return blocking(self._unfinished())

    def take(self, message_id: str) -> None:
        """A reply of `unfinished`, or a message in doubt, has been dealt with: it is listed no more.

        Raises `UsageError` if there is none, or if the message is still under way.
        """
        blocking(self._take(message_id))

    def close(self, *, keep: bool = False) -> None:
        """Close and terminate the sequence, cancel the context, close the store.

        With `keep`, and where something is unanswered, everything stays in the store for the
        next process. A second call does nothing.
        """
        blocking(self._close(keep))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep=error is not None)


class ClientContext(Context):
    """``client.context``."""

    def renew(self) -> None:
        """A new key, now (WS-SC 1.4, 5): same identifier, sequences go on.

        Raises `SecurityContextExpired` where there is nothing to renew, `PolicyError`, `FaultReceived`,
        `SecurityFailure` or `TransportError` as the bootstrap does: then the old key goes on.
        """
        blocking(self._pump.conversations.renew(self.identifier))

    def cancel(self, *, force: bool = False) -> None:
        """Give it back (WS-SC 1.4, 6): from now on it is good for nothing.

        Raises `UsageError` while a sequence is bound to it, unless `force`: then these sequences
        fail, and what is not acknowledged in them is in doubt. The next message makes a new one.
        """
        blocking(cancel_context(self._pump, self.identifier, force=force))


class ClientSequence:
    """``client.sequence`` and ``client.sequence_for(name)``: a sequence under the caller's hand
    (features 4.10)."""

    def __init__(self, client: Front, pump: Pump, name: str) -> None:
        self._client = client
        self._pump = pump
        self._name = name

    def call_raw(
        self, action: str, body: Body, *, key: str | None = None, timeout: float | None = None
    ) -> bytes:
        """`Client.call_raw`, in this sequence."""
        return blocking(self._client._call(action, body, key, timeout, self._name))

    def send_raw(self, action: str, body: Body, *, key: str | None = None) -> None:
        """`Client.send_raw`, in this sequence."""
        blocking(self._client._send(action, body, key, self._name))

    def call(
        self,
        operation: str,
        arguments: Given = None,
        /,
        *,
        key: str | None = None,
        timeout: float | None = None,
        **named: object,
    ) -> object:
        """`Client.call`, in this sequence."""
        return blocking(self._client._call_typed(operation, arguments, named, key, timeout, self._name))

    def send(
        self, operation: str, arguments: Given = None, /, *, key: str | None = None, **named: object
    ) -> None:
        """`Client.send`, in this sequence."""
        blocking(self._client._send_typed(operation, arguments, named, key, self._name))

    def wait_until_acknowledged(self, timeout: float | None = None) -> bool:
        """True once every message submitted so far is acknowledged and every call answered.

        False at the time-out (seconds; None: for ever), with nothing changed. Raises `InDoubt`
        with the numbers, and the digests of what is in them, if the sequence failed.
        """
        return blocking(acknowledged(self._pump, timeout, self._name))

    def wait_until_completed(self, timeout: float | None = None) -> bool:
        """`wait_until_acknowledged`, then close and terminate it, all in `timeout` seconds.

        True once it is terminated: nothing of it is left but that it was. False at the time-out.
        """
        return blocking(completed(self._pump, timeout, self._name))

    def close(self, timeout: float = 30.0) -> None:
        """Close and terminate it: no more messages. Raises `UsageError` while messages are
        unacknowledged."""
        blocking(ended(self._pump, timeout, self._name))

    def report(self) -> dict[str, object]:
        """Its state, numbers, acknowledgements and last error (RM-132), ready for JSON."""
        return blocking(reported(self._pump, self._name))


__all__ = ["Client", "ClientContext", "ClientSequence", "Reply", "Unfinished"]
