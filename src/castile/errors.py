"""The errors of castile, and the SOAP fault that each peer error is ready to send.

::

    CastileError             .code: stable and documented; .exchange: what it was about, no secret
    ├── UsageError           castile was called wrongly
    │   ├── NotReliable  ├── SequenceUnknown  ├── SequenceClosed  ├── SequenceTerminated
    │   ├── SequenceCreationFailed  ├── MessageNumberRollover
    │   └── SecurityContextExpired
    ├── PolicyError          the policy can't be met
    ├── PeerError            the peer sent something wrong; .fault is ready to send
    │   ├── Malformed  ├── Unsupported  ├── Violation  └── SecurityFailure (uniform outwards)
    ├── FaultReceived        the peer says that we were wrong; .authenticated
    ├── TransportError       connect, time-out, HTTP status
    ├── InDoubt              completion can't be known; .numbers says of which messages
    └── StoreError
        ├── StoreBusy  ├── StoreFull  ├── StoreFenced
        ├── StoreInvalid  ├── StoreTooNew  └── StoreDamaged

Two more are not errors of the stack but words of a handler: `Fault` (the answer is this fault)
and `Retry` (run me again later).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

FaultCode = Literal["Sender", "Receiver", "MustUnderstand", "VersionMismatch"]
QName = tuple[str, str]
"""A namespace URI and a local name."""


@dataclass(frozen=True, slots=True)
class SOAPFault:
    """A fault ready to render in either SOAP version (SOAP 1.2 part 1, 5.4)."""

    code: FaultCode
    reason: str
    subcode: QName | None = None
    detail: bytes = b""
    """Canonical XML: the children of Detail."""
    action: str | None = None
    """wsa:Action of the message; None: the SOAP fault action of the addressing edition."""
    sequence: str | None = None
    """The sequence that an RM fault is about (SOAP 1.1 carries it in a header)."""
    nested: QName | None = None
    """A Subcode inside the Subcode (WS-Addressing 1.0 SOAP binding, 6.4; SOAP 1.2 only)."""
    not_understood: tuple[QName, ...] = ()
    """Header blocks that it names in NotUnderstood blocks (SOAP 1.2 part 1, 5.4.8)."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What an error was about: identifiers and numbers only, never content."""

    action: str | None = None
    message_id: str | None = None
    sequence: str | None = None
    number: int | None = None
    status: int | None = None
    """HTTP status."""


class CastileError(Exception):
    """Root of every error that castile raises on purpose."""

    code: ClassVar[str] = "castile"

    def __init__(self, message: str, *, exchange: Exchange | None = None) -> None:
        super().__init__(message)
        self.exchange = exchange or Exchange()


class UsageError(CastileError):
    """castile was called in a way that can't work; the text says what to do instead."""

    code = "usage"


class NotReliable(UsageError):
    """A sequence was asked for on an endpoint whose policy has no reliable messaging."""

    code = "not-reliable"


class SequenceUnknown(UsageError):
    """The peer, or this store, knows no such sequence (WS-RM 1.2, 4.3)."""

    code = "sequence-unknown"


class SequenceClosed(UsageError):
    """The sequence takes no new messages (WS-RM 1.2, 4.7)."""

    code = "sequence-closed"


class SequenceTerminated(UsageError):
    """The sequence has ended (WS-RM 1.2, 4.2)."""

    code = "sequence-terminated"


class SequenceCreationFailed(UsageError):
    """No sequence could be created (WS-RM 1.2, 4.6); the text holds the last cause."""

    code = "sequence-creation-failed"


class MessageNumberRollover(UsageError):
    """The sequence has used its last number (WS-RM 1.2, 4.5)."""

    code = "message-number-rollover"


class SecurityContextExpired(UsageError):
    """The security context has ended and can't be renewed; the text holds the reason (WS-SC 1.4, 5)."""

    code = "security-context-expired"


class PolicyError(CastileError):
    """The endpoint's policy can't be met: the text names the assertion and what is missing."""

    code = "policy"


class PeerError(CastileError):
    """The peer sent something wrong. `fault` is ready to send."""

    code = "peer"

    def __init__(
        self,
        message: str,
        *,
        fault: SOAPFault | None = None,
        expected: str | None = None,
        got: str | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        text = message
        if expected is not None:
            text += f" (expected {expected}"
            text += f", got {got})" if got is not None else ")"
        super().__init__(text, exchange=exchange)
        self.fault = fault or SOAPFault("Sender", message)
        self.expected = expected
        self.got = got


class Malformed(PeerError):
    """The message isn't well formed, or breaks a schema or a limit."""

    code = "malformed"


class Unsupported(PeerError):
    """Legal, but not understood here: a header, an algorithm, an action, a version."""

    code = "unsupported"


class Violation(PeerError):
    """A rule of WS-ReliableMessaging, WS-Trust or WS-Addressing was broken."""

    code = "violation"


WSSE: str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
SECURITY_FAULT = SOAPFault(
    "Sender",
    "An error was discovered processing the wsse:Security header.",
    (WSSE, "InvalidSecurity"),
)
"""The one shape of every cryptographic refusal (WSS 1.1.1, 12)."""


class SecurityFailure(PeerError):
    """A security check failed. Its text is for this side only; `fault` is uniform."""

    code = "security"

    def __init__(
        self,
        message: str,
        *,
        part: str | None = None,
        missing_key: bool = False,
        fault: SOAPFault = SECURITY_FAULT,
        exchange: Exchange | None = None,
    ) -> None:
        super().__init__(message, fault=fault, exchange=exchange)
        self.part = part
        """The part of the message that failed, as names.md names parts."""
        self.missing_key = missing_key
        """True where a key isn't at hand, rather than a check having failed."""


_CREDENTIAL: Final = "look at credentials=, and at the clocks of both machines"
_ADVICE: Final = {
    "FailedAuthentication": _CREDENTIAL,
    "InvalidSecurityToken": _CREDENTIAL,
    "SecurityTokenUnavailable": "it lacks a key that the message names: is service_certificate= up to date?",
    "UnsupportedContextToken": "it speaks another edition of WS-SecureConversation than the policy says",
    "MessageExpired": "compare the clocks of both machines",
    "InvalidSecurity": "look at the certificates, at the clocks and at the policy; with CASTILE_WIRE and "
    "CASTILE_KEYLOG set, castile explain says more",
    "VersionMismatch": "it speaks another SOAP version than the policy says",
    "MustUnderstand": "it speaks another edition, or has less of it, than the policy says",
    "ActionNotSupported": "it knows no such action, or speaks another edition than the policy says",
    "WSRMRequired": "it takes messages of WS-ReliableMessaging only",
}
"""What to look at first, by the local name of a fault's code."""


class FaultReceived(CastileError):
    """The peer answered with a SOAP fault."""

    code = "fault-received"

    def __init__(
        self, fault: SOAPFault, *, authenticated: bool, exchange: Exchange | None = None
    ) -> None:
        name = fault.subcode[1] if fault.subcode else fault.code
        proof = "" if authenticated else " (not authenticated: anybody on the way can have made it)"
        advice = f"; {_ADVICE[name]}" if name in _ADVICE else ""
        super().__init__(f"the peer answered {name}: {fault.reason}{proof}{advice}", exchange=exchange)
        self.fault = fault
        self.authenticated = authenticated
        self.name: str | None = None
        """Of the fault that the WSDL declares for this detail; None: it declares none."""
        self.detail: object = None
        """The value of a declared fault's detail."""


class TransportError(CastileError):
    """The message could not be carried: connection, time-out or HTTP status."""

    code = "transport"

    def __init__(
        self, message: str, *, retry_after: float | None = None, exchange: Exchange | None = None
    ) -> None:
        super().__init__(message, exchange=exchange)
        self.retry_after = retry_after
        """Seconds the peer asks to wait, from Retry-After."""


class InDoubt(CastileError):
    """Whether these messages were delivered can't be known from here."""

    code = "in-doubt"

    def __init__(
        self,
        message: str,
        *,
        numbers: tuple[int, ...],
        digests: Mapping[int, str] | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        super().__init__(message, exchange=exchange)
        self.numbers = numbers
        self.digests: dict[int, str] = dict(digests or {})
        """SHA-256, in hex, of the canonical body of each that is still here (RM-134)."""


class StoreError(CastileError):
    """The store can't do what was asked; nothing acknowledged is lost."""

    code = "store"


class StoreBusy(StoreError):
    """Another process holds the store, or a lock was not to be had in time."""

    code = "store-busy"


class StoreFenced(StoreError):
    """Another process has taken over what this one had in the store, which must be opened again."""

    code = "store-fenced"


class StoreFull(StoreError):
    """The disk is full or failed; work goes on when the cause is gone."""

    code = "store-full"


class StoreInvalid(StoreError):
    """The file is no castile store, or its sealing key doesn't fit."""

    code = "store-invalid"


class StoreTooNew(StoreError):
    """The store was written by a newer castile."""

    code = "store-too-new"


class StoreDamaged(StoreError):
    """A row can't be read or its seal is broken; only its own sequence is affected."""

    code = "store-damaged"


class Fault(Exception):
    """Raised by a handler: answer the caller with this SOAP fault.

    `code` is ``"Sender"`` or ``"Receiver"``; `detail` is XML, or ``{name: value}`` for the fault
    of this name that the WSDL declares. Raises `UsageError` for several names.
    """

    def __init__(
        self,
        code: FaultCode,
        reason: str,
        detail: bytes | Mapping[str, object] = b"",
        subcode: QName | None = None,
    ) -> None:
        super().__init__(reason)
        self.declared: tuple[str, object] | None = None
        """Name and value of a fault of the WSDL."""
        if not isinstance(detail, bytes):
            if len(detail) != 1:
                raise UsageError("the detail of a declared fault is {name: value}, with one name")
            self.declared = next(iter(detail.items()))
            detail = b""
        self.fault = SOAPFault(code, reason, subcode, detail)


@dataclass
class Retry(Exception):
    """Raised by a handler: nothing was done, run me again after `after_seconds`."""

    after_seconds: float = 1.0
    reason: str = field(default="")
