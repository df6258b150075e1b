"""Which of a service's policies a message is written for.

A service may take several editions at one address (F31). A message shows its own before
anything is verified: the namespaces of its envelope, addressing, action, sequence headers and
security tokens. They only choose the policy; what is verified under it must then agree with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from castile import xml
from castile.endpoint.party import Party
from castile.messages import addressing
from castile.messages.soap import Envelope
from castile.policy import EndpointPolicy
from castile.versions import (
    CONVERSATION_OF,
    WSRM,
    WSSC,
    WST,
    Addressing,
    Conversation,
    Reliability,
    SOAPVersion,
)


@dataclass(frozen=True, slots=True)
class Marks:
    """What a message shows of its editions; None: nothing."""

    soap: SOAPVersion
    addressing: Addressing | None
    secured: bool
    conversation: Conversation | None
    reliability: Reliability | None
    plain: bool
    """It is of no machinery: an application's message outside any sequence."""

    @classmethod
    def of(cls, envelope: Envelope) -> Marks:
        """Of several editions of one kind the first counts: the policy refuses the rest."""
        edition = addressing.edition_of(envelope.headers)
        action = next((b.text or "" for b in envelope.headers if xml.local_name(b) == "Action"), "").strip()
        spaces = [xml.namespace_of(block) for block in envelope.headers if block is not envelope.security]
        spaces += [xml.namespace_of(child) for child in envelope.body]
        tokens = [] if envelope.security is None else [xml.namespace_of(item) for item in envelope.security]
        reliability = next((WSRM[space] for space in spaces if space in WSRM), None)
        conversation = next((WSSC[space] for space in tokens if space in WSSC), None)
        owner = next((space for space in (*WSRM, *WST) if action.startswith(f"{space}/")), None)
        if owner in WSRM:
            reliability = WSRM[owner]
        elif owner in WST:
            conversation = CONVERSATION_OF[owner]
        plain = reliability is None and owner is None
        return cls(envelope.soap, edition, envelope.security is not None, conversation, reliability, plain)


_TESTS: Final[tuple[Callable[[Marks, EndpointPolicy], bool], ...]] = (
    lambda marks, policy: policy.soap is marks.soap,
    lambda marks, policy: marks.addressing in (None, policy.addressing),
    lambda marks, policy: marks.addressing is not None or not policy.addressed,
    lambda marks, policy: marks.secured == (policy.application is not None),
    lambda marks, policy: marks.conversation in (None, policy.conversation),
    lambda marks, policy: marks.reliability in (None, policy.reliability),
    lambda marks, policy: not marks.plain or policy.reliability is None,
)
"""In this order: what an earlier one decides, a later one doesn't turn."""


def choose(parties: Sequence[Party], envelope: Envelope) -> Sequence[Party]:
    """The parties that a message may be for, at least one: several where only keys can tell.

    A mark that no policy has is passed over: the party that is left refuses it by its name.
    """
    if len(parties) == 1:
        return parties
    marks, left = Marks.of(envelope), parties
    for test in _TESTS:
        left = [party for party in left if test(marks, party.policy)] or left
    return left
