"""Policies by name: their contents stay as they are; what waits says for what."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from typing import Final

import pytest

import castile
from castile.errors import PolicyError
from castile.policy.lint import check, lint
from castile.policy.parse import needs
from castile.policy.sets import policy_set, policy_sets
from castile.versions import WSRM_1_0, WSRM_1_1, WSSC_1_3, WSSC_2005
from tests.conftest import shared
from tests.policy import golden


@pytest.mark.row("PO-60", "F32")
def test_contents_are_pinned() -> None:
    assert golden.pinned() == golden.PINNED.read_text()


@pytest.mark.row("F32")
def test_sets_are_read_only() -> None:
    found = castile.policy_set("metro-rm")
    with pytest.raises(FrozenInstanceError):
        found.tls = True  # type: ignore[misc]
    assert castile.policy_set("metro-rm") is found


WAITING: Final = {
    "rsp": "MakeConnection",
    "rsp-modern": "MakeConnection",
    "reliable-durable": "MakeConnection",
    "websphere-sct-rm": "MakeConnection",
    "wcf-wshttp-username": "negotiation",
    "wcf-ws2007http-certificate-reliable": "negotiation",
    "wcf-wshttp-windows": "SPNEGO",
    "wcf-ws2007http-windows-direct-reliable": "Kerberos",
    "sts-username-tls": "security token service",
    "oio-idws": "security token service",
}


@pytest.mark.row("F32", "PO-10")
@pytest.mark.parametrize("name", WAITING)
def test_what_waits_says_for_what(name: str) -> None:
    with pytest.raises(PolicyError, match=f"policy set '{name}' waits for .*{WAITING[name]}"):
        policy_set(name)


@pytest.mark.row("F32")
def test_every_set_of_the_list_is_there_or_waits() -> None:
    """By the names that features 6.4 has, its short forms written out."""
    section = shared("features.md").read_text().partition("### 6.4")[2].partition("### 6.5")[0]
    table = section.partition("| set |")[2]
    found: set[str] = set()
    for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", row):
            found |= set(_written_out(name))
    assert len(found) > 20
    for name in found - {"2007-"}:
        if name not in policy_sets():
            with pytest.raises(PolicyError, match="waits for"):
                policy_set(name)


def _written_out(name: str) -> list[str]:
    if name in ("sts-*", "wcf-*", "-reliable"):
        return []
    choice = re.search(r"\{([^}]*)\}", name)
    choices = choice[1].replace("…", "none,username,certificate,windows").split(",") if choice else [""]
    options = [name.replace(choice[0], each) for each in choices] if choice else [name]
    tails = [each.replace("[-direct]", tail) for each in options for tail in ("", "-direct")]
    return list(dict.fromkeys(tails))


@pytest.mark.row("PO-10")
def test_a_typo_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(PolicyError, match=r"unknown policy set 'metro_rm': did you mean 'metro-rm'\?"):
        policy_set("metro_rm")
    with pytest.raises(PolicyError, match="did you mean 'rsp-durable'"):
        policy_set("rsp-durabel")
    with pytest.raises(PolicyError, match=r"unknown policy set 'zzz': one of ramp-1\.0, .*cxf-rm"):
        policy_set("zzz")


@pytest.mark.row("F33", "L-01", "L-05")
@pytest.mark.parametrize("name", policy_sets())
def test_sets_lint_clean_at_their_own_level(name: str) -> None:
    """Nothing but what the suite of a set means, and that some sets encrypt nothing."""
    policy = check(policy_set(name))
    secured = policy.application is not None
    hidden = policy.tls or (policy.application is not None and policy.application.parts.encrypts)
    allowed = ({"L-05"} if secured and not policy.tls else set()) | (set() if hidden else {"L-01"})
    assert {each.code for each in lint(policy)} == allowed


@pytest.mark.row("F32")
def test_what_the_names_promise() -> None:
    assert policy_set("ramp-1.0").reliability is WSRM_1_0
    assert policy_set("ramp-1.0").conversation is WSSC_2005
    assert policy_set("cxf-rm").sequence_token == "infer"
    metro = policy_set("metro-rm")
    assert (metro.sequence_token, metro.uses_sequence_str, metro.delivery.window) == ("require", True, 32)
    assert policy_set("reliable-1.0").application is None
    for name in policy_sets():
        policy = policy_set(name)
        if name.startswith("wcf-"):
            newer = "2007" in name
            assert policy.conversation is (WSSC_1_3 if newer else WSSC_2005)
            edition = WSRM_1_1 if newer else WSRM_1_0
            assert policy.reliability is (edition if name.endswith("-reliable") else None)
        kinds = {"username": "username", "certificate": "certificate"}
        for part, wanted in kinds.items():
            assert part not in name.split("-") or wanted in needs(policy), name


@pytest.mark.row("PO-09")
def test_sets_in_words() -> None:
    assert golden.sets() == golden.SETS.read_text()
