"""Addressing assertions of all editions (features PO-20)."""

from __future__ import annotations

from castile.policy.scope import Scope
from castile.versions import WSA_1_0, WSA_2004, Addressing


def addressing_of(scope: Scope) -> Addressing | None:
    """The edition that an alternative asks for; None: it asks for none. Raises `Unusable`.

    Replies come on the back channel: who wants an address to send them to is refused.
    """
    found: Addressing | None = None
    for assertion in scope.take("wsap:UsingAddressing"):
        found = WSA_2004
        with scope.inside(assertion):
            pass
    for assertion in scope.take("wsam:Addressing", "wsaw:UsingAddressing"):
        found = WSA_1_0
        with scope.inside(assertion) as inner:
            inner.flag("wsam:AnonymousResponses")
            other = inner.one("wsam:NonAnonymousResponses")
        if other is not None:
            raise scope.notes.refuse(other, "wants replies at another address, and a client has none")
    for assertion in scope.take("wsaw:Anonymous"):
        if assertion.text == "prohibited":
            raise scope.notes.refuse(assertion, "wants replies at another address, and a client has none")
    return found
