"""The rows of `versions.py`, written out apart as the specifications and the peers have them."""

from __future__ import annotations

import pytest

from castile.endpoint.kinds import Kind, actions, understood
from castile.policy import EndpointPolicy
from castile.versions import WSRM_1_0, WSRM_1_1, WST_1_3, WST_2005

RM10 = "http://schemas.xmlsoap.org/ws/2005/02/rm"
RM11 = "http://docs.oasis-open.org/ws-rx/wsrm/200702"
T05 = "http://schemas.xmlsoap.org/ws/2005/02/trust"
T13 = "http://docs.oasis-open.org/ws-sx/ws-trust/200512"
BOTH = {
    "AckRequested",
    "CreateSequence",
    "CreateSequenceResponse",
    "SequenceAcknowledgement",
    "TerminateSequence",
}
RELIABILITY = {
    "2005": {f"{RM10}/{name}" for name in BOTH | {"LastMessage"}},
    "1.3": {
        f"{RM11}/{name}"
        for name in BOTH | {"CloseSequence", "CloseSequenceResponse", "TerminateSequenceResponse", "fault"}
    },
}


@pytest.mark.row("RM-01")
@pytest.mark.parametrize("family", ["2005", "1.3"])
def test_actions_of_reliable_messaging(family: str) -> None:
    """WS-RM 1.2, 3: every action is understood in its edition, and no other."""
    policy = EndpointPolicy.of(family)
    known = {
        action
        for action in actions(policy)
        if action.startswith((RM10, RM11)) and understood(action, policy) and action in RELIABILITY[family]
    }
    ours = {action for action in actions(policy) if action.startswith((RM10, RM11))}
    strange = ours - known
    assert all(not understood(action, policy) or action == f"{RM11}/fault" for action in strange)
    assert known == RELIABILITY[family]


@pytest.mark.row("RM-01", "RM-02")
def test_names_of_editions() -> None:
    assert (WSRM_1_0.namespace, WSRM_1_0.can_close, WSRM_1_0.has_last_message) == (RM10, False, True)
    assert (WSRM_1_1.namespace, WSRM_1_1.can_close, WSRM_1_1.has_last_message) == (RM11, True, False)
    assert WSRM_1_1.fault_action == f"{RM11}/fault"
    assert WSRM_1_0.fault_action is None


@pytest.mark.row("SC-20")
@pytest.mark.parametrize("suffix", ["", "/Renew", "/Cancel"])
def test_actions_of_security_contexts(suffix: str) -> None:
    """WS-SC, 3 to 6: request and response, in the namespace of WS-Trust."""
    for row, namespace in ((WST_2005, T05), (WST_1_3, T13)):
        for leg in ("RST", "RSTR"):
            assert row.action(f"{leg}/SCT{suffix}") == f"{namespace}/{leg}/SCT{suffix}"
    assert {kind.value for kind in Kind if kind.value.startswith("RST/")} >= {f"RST/SCT{suffix}"}
