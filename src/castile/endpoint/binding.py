"""Who must prove what: the central rule of castile, in one function and one table.

Every message that names a sequence proves possession of that sequence's security context, by
the parts that its signature really covers, before any state is read for a decision or changed
(WS-RM 1.2, 5 and 6.1). The same rule holds on both sides and in both directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from castile.endpoint.kinds import Kind
from castile.errors import SECURITY_FAULT, SecurityFailure
from castile.security.pipeline import Verified


@dataclass(frozen=True, slots=True)
class Cover:
    """Parts that one signature of the bound context must cover."""

    always: frozenset[str]
    """These must be there and covered."""
    present: tuple[str, ...] = ()
    """Every header whose name starts so must be covered where it occurs."""


_ADDRESSING: Final = ("wsa:",)
_ALL: Final = ("wsa:", "wsrm:")
_BODY: Final = frozenset({"Body"})

PARTS: Final[dict[Kind, Cover]] = {
    Kind.CREATE_SEQUENCE: Cover(_BODY, (*_ADDRESSING, "wsrm:UsesSequenceSTR")),
    Kind.CREATE_SEQUENCE_RESPONSE: Cover(_BODY, _ADDRESSING),
    Kind.APPLICATION: Cover(_BODY | {"wsrm:Sequence"}, _ADDRESSING),
    Kind.ACKNOWLEDGEMENT: Cover(
        frozenset({"wsrm:SequenceAcknowledgement", "wsa:Action"}), ("wsrm:SequenceAcknowledgement",)
    ),
    Kind.ACK_REQUESTED: Cover(frozenset({"wsrm:AckRequested", "wsa:Action"}), ("wsrm:AckRequested",)),
    Kind.LAST_MESSAGE: Cover(_BODY | {"wsrm:Sequence", "wsa:Action"}),
    Kind.CLOSE_SEQUENCE: Cover(_BODY, _ALL),
    Kind.CLOSE_SEQUENCE_RESPONSE: Cover(_BODY, _ALL),
    Kind.TERMINATE_SEQUENCE: Cover(_BODY, _ALL),
    Kind.TERMINATE_SEQUENCE_RESPONSE: Cover(_BODY, _ALL),
    Kind.FAULT: Cover(_BODY | {"wsa:Action"}, ("wsa:RelatesTo", "wsrm:SequenceFault")),
    Kind.PLAIN: Cover(_BODY, _ADDRESSING),
    Kind.CANCEL: Cover(_BODY, _ADDRESSING),
    Kind.CANCEL_RESPONSE: Cover(_BODY, _ADDRESSING),
}
"""Table under F08 of the feature list, as data."""


def prove_possession(verified: Verified, kind: Kind, context: str | None) -> None:
    """Check that `verified` proves possession of `context` for a message of this kind.

    `context` is the SCT's Identifier, or None for a sequence without security, which any
    message on an unsecured endpoint may name. Raises `SecurityFailure`, in the one shape that
    every refusal has, if no single signature by a key of that context covers the parts; over TLS
    see `_over_tls`.
    """
    if context is None:
        if verified.signatures:
            raise _refusal(kind, "the sequence has no security context, the message has one")
        return
    if verified.transport is not None:
        _over_tls(verified, kind, context)
        return
    cover = PARTS[kind]
    wanted = cover.always | {
        header.name for header in verified.headers if header.name.startswith(cover.present or ("\0",))
    }
    for signature in verified.signatures:
        if signature.key.kind == "context" and signature.key.name == context and wanted <= signature.covered:
            return
    raise _refusal(kind, "the message isn't signed by a key of the sequence's security context")


def _over_tls(verified: Verified, kind: Kind, context: str) -> None:
    """Under a TransportBinding TLS covers the parts, and a request proves its context by a signature
    over the Timestamp; what another key signs of the message is another's (CO-11).

    A response is the service's whose certificate TLS has verified: it signs nothing.
    """
    if verified.transport == "response":
        return
    own = [each for each in verified.signatures if (each.key.kind, each.key.name) == ("context", context)]
    others = {name for each in verified.signatures if each not in own for name in each.covered}
    if not any("wsu:Timestamp" in each.covered for each in own):
        raise _refusal(kind, "the Timestamp isn't signed by a key of the sequence's security context")
    if any(name == "Body" or name.startswith("wsrm:") for name in others):
        raise _refusal(kind, "a part of the sequence is signed by another key than its context's")


def _refusal(kind: Kind, reason: str) -> SecurityFailure:
    return SecurityFailure(f"{kind.value}: {reason}", part="wsse:Security", fault=SECURITY_FAULT)
