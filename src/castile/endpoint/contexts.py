"""Security contexts between the store and the keys: one record, the keys of its instances."""

from __future__ import annotations

from castile.messages.conversation import SecurityContextToken
from castile.protocol.conversation import Conversation
from castile.protocol.issuer import Context
from castile.security.keys import ContextKey
from castile.store.records import ContextRecord
from castile.versions import WSSC


def context_keys(record: ContextRecord | None) -> list[ContextKey]:
    """A key for each instance that a context keeps, the newest last.

    None once it has ended; but a service reads a repeated Cancel of a cancelled one (SC-29).
    """
    if record is None or (record.ended is not None and isinstance(record.state, Conversation)):
        return []
    return keys_of(record.state)


def live(record: ContextRecord | None) -> Conversation | None:
    """The state of a client's context that has not ended."""
    state = record.state if record is not None and record.ended is None else None
    return state if isinstance(state, Conversation) else None


def keys_of(state: Context | Conversation) -> list[ContextKey]:
    """A key for each instance, the newest last."""
    edition = WSSC[state.edition]
    keys = []
    for instance in state.instances:
        # What the issuer wrote is sent back as it is (SC-01); a service never sends its own.
        token_id, token = "SecurityContextToken", b""
        if isinstance(state, Conversation) and instance is state.instances[-1]:
            token_id, token = state.token_id, state.token
        if not token:
            written = SecurityContextToken(state.identifier, instance.instance, token_id)
            token = written.render(edition)
        keys.append(
            ContextKey(state.identifier, instance.instance, instance.secret, edition, token_id, token)
        )
    return keys
