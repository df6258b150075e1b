"""Every WSDL and policy of others that is at hand is read, or refused with its reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from castile.errors import CastileError, UsageError
from castile.messages.policy import render
from castile.policy.attachment import Attachments
from castile.policy.documents import Documents, kind_of
from castile.policy.wsdl import describe
from castile.versions import WSP
from tests.conftest import shared
from tests.policy import corpus

REFUSED = {
    "test100.wsdl": "line 76: not well-formed XML",
    "using-metro.xml": "a document type declaration",
    "porttype.wsdl": "the WSDL has no SOAP port",
    "perf_policy.wsdl": "the WSDL has no SOAP port",
}
"""Of the files whose root is a WSDL, or isn't known: by the end of the name."""


def refusal(path: Path) -> str:
    return next((reason for name, reason in REFUSED.items() if path.name.endswith(name)), "")


@pytest.mark.row("N04", "PO-01", "PO-03", "PO-04")
def test_every_file_is_described_or_refused_with_a_reason() -> None:
    kinds: Counter[str] = Counter()
    for path in corpus.files():
        documents = Documents()
        if "line 76" in refusal(path) or "document type" in refusal(path):
            with pytest.raises(UsageError, match=f"{path.name}: {refusal(path)}"):
                documents.add(path.name, path.read_bytes())
            kinds["unreadable"] += 1
            continue
        root = documents.add(path.name, path.read_bytes())
        if kind_of(root) == "policy":
            assert Attachments(documents).policy(path.name)
            kinds["policy"] += 1
        elif kind_of(root) == "wsdl":
            described = corpus.described(path)
            assert not described.refused, path
            if refusal(path):
                assert not described.ports
                with pytest.raises(UsageError, match=refusal(path)):
                    described.port()
            else:
                assert all(port.operations and port.alternatives for port in described.ports), path
                kinds["ports"] += len(described.ports)
            kinds["wsdl"] += 1
        else:
            with pytest.raises(UsageError, match=f"{path.name}: not a WSDL: its outermost element is "):
                describe(documents)
            kinds["neither"] += 1
    assert kinds == {"wsdl": 58, "ports": 99, "policy": 114, "neither": 16, "unreadable": 2}


@pytest.mark.row("PO-09")
def test_the_normal_form_of_every_policy_survives_writing() -> None:
    seen = 0
    for path in corpus.files():
        try:
            documents = corpus.loaded(path)
        except CastileError:
            continue
        root = documents.root(path.name)
        policies = (
            [Attachments(documents).policy(path.name)]
            if root is not None and kind_of(root) == "policy"
            else []
        )
        for port in (
            describe(documents).ports if not policies and root is not None and kind_of(root) == "wsdl" else ()
        ):
            policies += [port.alternatives, *port.message_alternatives.values()]
        for policy in dict.fromkeys(policies):
            for language in WSP.values():
                again = Documents()
                again.add("again", render(policy, language))
                assert Attachments(again).policy("again") == policy, path
                seen += 1
    assert seen > 300


CASE = ("cases", "001-vendor-policy", "service.wsdl")


@pytest.mark.row("PO-04", "PO-10")
def test_nested_references_of_a_vendor() -> None:
    """Case 001: policies that hold only a reference, in port type, operation and binding."""
    path = shared(*CASE)
    port = corpus.described(path).port()
    assert len(port.alternatives) == 12
    names = {each.name for alternative in port.alternatives for each in alternative}
    assert "{http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200702}TransportBinding" in names
    (session,) = {each for line in port.alternatives for each in line if each.name.endswith("}Session")}
    assert port.subject_of(session) == "port type Stock"
    assert str(session.place) == "service.wsdl:40"
    (commit,) = {
        each
        for line in port.message_alternatives["GetStock", "request"]
        for each in line
        if each.name.endswith("}commit")
    }
    assert port.subject_of(commit) == "operation GetStock of port type Stock"


@pytest.mark.row("PO-03", "PO-10")
def test_policy_uris() -> None:
    """Case 003: a policy attached by an attribute alone, and a reference that leads nowhere."""
    port = corpus.described(shared("cases", "003-policyuris", "service.wsdl")).port()
    assert all(any(each.name.endswith("}TransportBinding") for each in line) for line in port.alternatives)
    with pytest.raises(CastileError) as caught:
        corpus.described(shared("cases", "003-policyuris", "dangling.wsdl")).port()
    assert str(caught.value) == (
        "dangling.wsdl:24: portType refers to the policy '#nowhere', which is nowhere to be found "
        "(there are servicePolicy)"
    )
