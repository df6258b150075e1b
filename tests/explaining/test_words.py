"""The text for people: habits of peers, causes, and the report's form (OP-22, OP-25)."""

from __future__ import annotations

import pytest

import castile
from castile.explaining.habits import HABITS
from tests.conftest import shared

KEYS = ("cases", "keys", "keys.json")


@pytest.mark.row("OP-25")
def test_from_python() -> None:
    folder = shared("vectors", "wcf", "ws07-user-nonego-sc-norm")
    explanation = castile.explain(folder, keys=folder.parent / "explain-keys.json")
    assert explanation.verdict == "verified"
    report = explanation.as_json()
    messages = report["messages"]
    assert isinstance(messages, list)
    assert set(messages[0]) == {
        "file",
        "action",
        "verdict",
        "signed",
        "encrypted",
        "sequence",
        "problems",
        "warnings",
    }
    text = str(explanation)
    assert text.splitlines()[0] == "VERIFIED: 8 messages"
    assert "  1 --> RST/SCT (01-request.xml): verified" in text
    assert "  4 <-- EchoResponse (04-response.xml): verified" in text
    assert castile.explain(str(folder), [str(folder.parent / "explain-keys.json")]) == explanation


@pytest.mark.row("OP-22")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fault-unsecured-client", 'EndpointPolicy.of("2005")'),
        ("fault-badpassword", "check credentials="),
        ("fault-rmrequired-05", "WS-RM 1.0 only"),
        ("fault-rm10client-rm11server", "nothing but WS-RM 1.1"),
    ],
)
def test_what_a_fault_of_wcf_means(name: str, says: str) -> None:
    explanation = castile.explain(shared("vectors", "wcf", name))
    warnings = " ".join(explanation.messages[1].warnings)
    assert "isn't authenticated" in warnings
    assert says in warnings


@pytest.mark.row("OP-22")
def test_habits_name_what_helps() -> None:
    assert all(habit.hint and habit.code for habit in HABITS)
    special = [habit.code for habit in HABITS if habit.text]
    for code in special:  # the special text stands before the general one
        first = next(habit for habit in HABITS if habit.code == code)
        assert first.text


@pytest.mark.row("OP-22")
def test_cxf_sends_no_reference_and_gsoap_no_must_understand() -> None:
    folder = shared("vectors", "cxf", "rm11-sc13-echo")
    report = castile.explain(folder, folder.parent / "explain-keys.json")
    assert "no SecurityTokenReference" in " ".join(report.messages[2].warnings)
    folder = shared("vectors", "gsoap", "gecho")
    texts = str(castile.explain(folder, folder / "explain-keys.json"))
    assert "no mustUnderstand" in texts


@pytest.mark.row("OP-23")
def test_nothing_reaches_the_terminal_that_it_might_act_on() -> None:
    payload = (
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" '
        'xmlns:a="http://www.w3.org/2005/08/addressing"><s:Header><a:Action>urn:a\u009b2J\u202e</a:Action>'
        "<a:To>urn:b\nVERIFIED</a:To></s:Header><s:Body><x>\u009b</x></s:Body></s:Envelope>"
    )
    explanation = castile.explain(payload.encode())
    assert all(line.isprintable() for line in str(explanation).splitlines())
    assert "VERIFIED" not in [line.strip() for line in str(explanation).splitlines()]


@pytest.mark.row("OP-21")
def test_the_first_mistake_leads() -> None:
    path = shared("cases", "008-reindented", "as-sent.xml")
    lines = str(castile.explain(path, shared(*KEYS))).splitlines()
    assert lines[0] == "FAILED: 1 message"
    assert lines[1].startswith("First thing wrong: as-sent.xml: the digest of Body is wrong")
