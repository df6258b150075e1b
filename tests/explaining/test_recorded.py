"""Real conversations of real peers: verdict, parts, keys, sequences (N07, OP-21)."""

from __future__ import annotations

from pathlib import Path

import pytest

from castile.errors import CastileError
from castile.explaining import explain
from castile.explaining.keys import load
from tests.conftest import shared
from tests.explaining.recording import Recording

VERDICTS = {
    "wcf/dup3-07": ("unprotected", {"unprotected": 13}),
    "wcf/fault-badpassword": ("failed", {"failed": 1, "unprotected": 1}),
    "wcf/fault-rm10client-rm11server": ("unprotected", {"unprotected": 2}),
    "wcf/fault-rmrequired-05": ("unprotected", {"unprotected": 2}),
    "wcf/fault-unsecured-client": ("unprotected", {"unprotected": 2}),
    "wcf/lossy-dropresp3-05": ("unprotected", {"unprotected": 12}),
    "wcf/ws05-cert-nonego-nosc-norm-asym": ("verified", {"verified": 4}),
    "wcf/ws05-cert-nonego-sc-norm": ("verified", {"verified": 8}),
    "wcf/ws05-cert-nonego-sc-norm-nodk": ("verified", {"verified": 8}),
    "wcf/ws05-cert-nonego-sc-norm-renew": ("verified", {"verified": 18}),
    "wcf/ws05-cert-nonego-sc-rm-sha256": ("verified", {"verified": 14}),
    "wcf/ws05-none-nego-sc-norm": ("partial", {"unprotected": 4, "verified": 8}),
    "wcf/ws05-nosec-nonego-nosc-rm": ("unprotected", {"unprotected": 10}),
    "wcf/ws05-user-nego-sc-rm": ("partial", {"unprotected": 4, "verified": 14}),
    "wcf/ws05-user-nonego-sc-norm-nocancel": ("verified", {"verified": 6}),
    "wcf/ws05-user-nonego-sc-rm": ("verified", {"verified": 14}),
    "wcf/ws05-user-nonego-sc-rm-tmc": ("partial", {"unprotected": 8, "verified": 6}),
    "wcf/ws07-nosec-nonego-nosc-rm": ("unprotected", {"unprotected": 10}),
    "wcf/ws07-user-nonego-nosc-norm": ("verified", {"verified": 4}),
    "wcf/ws07-user-nonego-sc-norm": ("verified", {"verified": 8}),
    "cxf/rm11-only": ("unprotected", {"unprotected": 13}),
    "cxf/rm11-sc13-echo": ("verified", {"verified": 15}),
    "cxf/rm11-sc13-tell": ("verified", {"verified": 14}),
    "cxf/sc13-only": ("verified", {"verified": 8}),
}
"""Verdict of the conversation, and how many messages have which."""


@pytest.mark.row("N07", "OP-19", "OP-21")
@pytest.mark.parametrize("name", VERDICTS)
def test_recorded_conversation(name: str) -> None:
    recording = Recording.of(shared("vectors", *name.split("/")))
    explanation = recording.explain()
    counts: dict[str, int] = {}
    for message in explanation.messages:
        counts[message.verdict] = counts.get(message.verdict, 0) + 1
    assert (explanation.verdict, counts) == VERDICTS[name]
    if explanation.verdict != "failed":
        assert explanation.problems == ()
    assert [message.file for message in explanation.messages] == list(recording.messages)


@pytest.mark.row("N07", "OP-21")
def test_the_composite_from_its_bootstrap_on() -> None:
    """Nothing but the service's key: contexts, digests, plaintexts and the sequence follow."""
    folder = shared("vectors", "wcf", "ws05-user-nonego-sc-rm")
    explanation = explain(folder, folder.parent / "explain-keys.json")
    by_file = {message.file: message for message in explanation.messages}
    request = by_file["05-request.xml"]
    assert set(request.signed) == {
        "Body",
        "wsrm:Sequence",
        "wsa:Action",
        "wsa:MessageID",
        "wsa:ReplyTo",
        "wsa:To",
        "wsu:Timestamp",
    }
    assert set(request.encrypted) == {"Body", "ds:Signature"}
    assert by_file["03-request.xml"].encrypted == ()  # lifecycle bodies stand in clear
    assert "wsse:UsernameToken" in by_file["01-request.xml"].encrypted
    states = [by_file[file].sequence for file in ("05-request.xml", "07-request.xml", "11-request.xml")]
    seen = [(state.number, state.state, state.received, state.acknowledged) for state in states if state]
    assert seen == [
        (1, "open", ((1, 1),), ()),
        (2, "open", ((1, 2),), ((1, 1),)),
        (None, "terminated", ((1, 3),), ((1, 3),)),
    ]
    text = str(explanation)
    assert "32 bytes of P_SHA1(entropy of 01-request.xml, entropy of 02-response.xml)" in text
    assert "alice, password right, signed and encrypted" in text
    assert "24 bytes of P_SHA1(context 1, the usual label, nonce of 16 bytes)" in text


@pytest.mark.row("OP-21")
def test_a_renewed_context_goes_on_under_its_new_key() -> None:
    folder = shared("vectors", "wcf", "ws05-cert-nonego-sc-norm-renew")
    text = str(explain(folder, folder.parent / "explain-keys.json"))
    assert "entropy of 05-request.xml, entropy of 06-response.xml" in text
    assert "context 4 is security context" in text


@pytest.mark.row("OP-21")
def test_a_repetition_is_told() -> None:
    recording = Recording.of(shared("vectors", "wcf", "lossy-dropresp3-05"))
    states = {message.file: message.sequence for message in recording.explain().messages}
    again = states["07-request.xml"]
    assert again is not None
    assert (again.number, again.repeated) == (2, True)


@pytest.mark.row("OP-18")
def test_hand_made_messages_that_wcf_refused() -> None:
    recording = Recording.of(shared("vectors", "wcf", "raw-ws05-nosec-nonego-nosc-rm"))
    explanation = recording.explain()
    assert [file for file, _ in explanation.problems][:2] == [
        "04-unknown-sequence-request.xml",
        "11-badack-request.xml",
    ]
    assert {file for file, _ in explanation.problems[2:]} == {"14-after-terminate-request.xml"}
    assert explanation.verdict == "unprotected"


@pytest.mark.row("N07", "OP-20")
@pytest.mark.parametrize("variant", ["gecho", "gsc"])
def test_gsoap(variant: str) -> None:
    """Several conversations in one folder, told apart by what stands before the number."""
    folder = shared("vectors", "gsoap", variant)
    explanation = explain(folder, folder / "explain-keys.json")
    assert explanation.problems == ()
    assert {message.verdict for message in explanation.messages if "none" not in message.file} == {"verified"}


@pytest.mark.row("N07", "OP-23")
def test_every_vector_is_explained() -> None:
    """Each file alone, with the keys beside it: a report, or one clear error."""
    root = shared("vectors")
    errors = []
    for path in sorted(root.rglob("*.xml")):
        try:
            explanation = explain(path, _keys_beside(path))
        except CastileError as error:
            errors.append(str(error))
        else:
            assert str(explanation).startswith(explanation.verdict.upper())
            assert explanation.as_json()["verdict"] == explanation.verdict
    assert len(errors) > 100  # the interop sets of XML Signature are no SOAP
    assert all("can't be read as a SOAP message" in text or "empty" in text for text in errors)


def _keys_beside(path: Path) -> list[Path]:
    places = [folder / "explain-keys.json" for folder in (path.parent, path.parent.parent)]
    return [place for place in places if place.exists()]


@pytest.mark.row("OP-20")
def test_without_keys_the_claims_are_told() -> None:
    folder = shared("vectors", "wcf", "ws05-user-nonego-sc-rm")
    explanation = explain([folder / "03-request.xml", folder / "04-response.xml"])
    assert [message.verdict for message in explanation.messages] == ["unreadable", "unreadable"]
    assert "it claims Body, wsa:Action, wsa:MessageID, wsa:To, wsu:Timestamp" in str(explanation)


@pytest.mark.row("OP-20")
def test_wss4j_with_the_secret_of_each_message() -> None:
    folder = shared("vectors", "wss4j")
    keys = load([folder / "explain-keys.json"])
    assert explain(folder / "x509-sign-ski-rsasha256.xml", keys).verdict == "verified"
    assert explain(folder / "x509-enc-rsaoaep-aes256gcm-thumbprint.xml", keys).verdict == "verified"
    for name in ("usernametoken-text.xml", "usernametoken-digest.xml"):
        explanation = explain(folder / name, keys)
        assert (explanation.verdict, explanation.problems) == ("unprotected", ())
        assert "password of user alice" in " ".join(explanation.messages[0].warnings)
