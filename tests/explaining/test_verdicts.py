"""Verdicts of a message and of a conversation, and what makes a problem (OP-19)."""

from __future__ import annotations

from base64 import b64encode

import pytest
from lxml import etree

from castile.errors import UsageError
from castile.explaining import explain
from castile.explaining.report import MessageReport, Verdict, verdict
from tests.conftest import shared
from tests.explaining.attacks import part, security_of
from tests.explaining.recording import Recording, blamed

pytestmark = pytest.mark.row("OP-19")

COMPOSITE = "ws05-user-nonego-sc-rm"


def report(*verdicts: Verdict) -> tuple[MessageReport, ...]:
    return tuple(MessageReport(f"{number}.xml", None, each) for number, each in enumerate(verdicts))


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        (("verified", "verified"), "verified"),
        (("unprotected", "unprotected"), "unprotected"),
        (("verified", "unprotected"), "partial"),
        (("unreadable",), "partial"),
        (("unreadable", "verified"), "partial"),
        (("verified", "failed", "unprotected"), "failed"),
        (("unreadable", "failed"), "failed"),
    ],
)
def test_conversation(verdicts: tuple[Verdict, ...], whole: Verdict) -> None:
    assert verdict(report(*verdicts)) == whole


def composite() -> Recording:
    return Recording.of(shared("vectors", "wcf", COMPOSITE))


def test_verified_has_no_problem() -> None:
    explanation = composite().explain()
    assert all(message.problems == () for message in explanation.messages)


def test_encryption_alone_is_verified() -> None:
    path = shared("vectors", "wss4j", "x509-enc-rsaoaep-aes256cbc-bst.xml")
    explanation = explain(path, path.parent / "explain-keys.json")
    message = explanation.messages[0]
    assert (message.verdict, message.signed, message.encrypted) == ("verified", (), ("Body",))


def test_a_timestamp_and_a_user_protect_nothing() -> None:
    path = shared("vectors", "wss4j", "usernametoken-text.xml")
    assert explain(path).verdict == "unprotected"


def test_a_sealed_key_that_seals_nothing_protects_nothing() -> None:
    recording = composite()
    root = etree.fromstring(recording.messages["01-request.xml"])
    security = security_of(root)
    assert security is not None
    for child in list(security):
        if etree.QName(child).localname in ("EncryptedData", "DerivedKeyToken", "ReferenceList"):
            security.remove(child)
    for child in list(root[1]):
        root[1].remove(child)
    message = recording.changed("01-request.xml", etree.tostring(root)).explain().messages[0]
    assert message.verdict == "unprotected"
    assert message.problems == ("RST/SCT is neither signed nor encrypted",)


def test_a_missing_key_is_named() -> None:
    recording = composite()
    keys = recording.keys.copy()
    keys.private = []
    explanation = recording.with_keys(keys).explain()
    assert {message.verdict for message in explanation.messages} == {"unreadable"}
    assert explanation.verdict == "partial"
    texts = [message.problems for message in explanation.messages]
    assert "the private key of CN=localhost" in texts[0][0]
    assert "thumbprint eec7900545fdaeda2e63f79b85ee488b7aafe31f" in texts[0][0]
    assert "EncryptedKeySHA1" in texts[1][0]
    assert "the secret of security context urn:uuid:9c4cb966" in texts[2][0]


def test_unknown_user_and_wrong_password() -> None:
    recording = composite()
    keys = recording.keys.copy()
    keys.users = {}
    explanation = recording.with_keys(keys).explain()
    assert explanation.messages[0].verdict == "unreadable"
    assert explanation.messages[0].problems == ("a key is missing: the password of user alice",)
    assert {message.verdict for message in explanation.messages[1:]} == {"verified"}
    keys.users = {"alice": "wrong"}
    explanation = recording.with_keys(keys).explain()
    assert explanation.messages[0].verdict == "failed"
    assert blamed(explanation) == "01-request.xml"


def test_a_signer_whom_nobody_knows() -> None:
    recording = Recording.of(shared("vectors", "wcf", "ws05-cert-nonego-nosc-norm-asym"))
    keys = recording.keys.copy()
    keys.private, keys.certificates = keys.private[:1], keys.certificates[:1]
    explanation = recording.with_keys(keys).explain()
    assert explanation.messages[0].verdict == "failed"
    assert "CN=alice" in explanation.messages[0].problems[0]
    keys.certificates = recording.keys.certificates
    assert recording.with_keys(keys).explain().messages[0].verdict == "verified"


def test_the_part_that_fails_is_named() -> None:
    recording = composite()
    root = etree.fromstring(recording.messages["03-request.xml"])
    part(root, "wsa:To").text = "http://elsewhere.example/"
    message = recording.changed("03-request.xml", etree.tostring(root)).explain().messages[2]
    (problem,) = message.problems
    assert problem.startswith("the digest of wsa:To is wrong: the cause is unknown")
    assert "wsa:To" not in message.signed
    assert "wsa:Action" in message.signed


def test_an_encrypted_part_that_fails_is_named() -> None:
    recording = composite()
    root = etree.fromstring(recording.messages["05-request.xml"])
    data = root[1][0].find(".//{*}CipherValue")
    assert data is not None
    data.text = "A" * 64
    message = recording.changed("05-request.xml", etree.tostring(root)).explain().messages[4]
    assert message.verdict == "failed"
    assert message.problems[0].startswith("the digest of Body is wrong") or "Body" in message.problems[0]


def test_a_failed_bootstrap_still_opens_what_follows() -> None:
    recording = composite()
    root = etree.fromstring(recording.messages["01-request.xml"])
    part(root, "wsa:To").text = "http://elsewhere.example/"
    explanation = recording.changed("01-request.xml", etree.tostring(root)).explain()
    assert [message.verdict for message in explanation.messages] == ["failed", *["verified"] * 13]


def test_a_cut_message_fails_in_a_folder_and_is_an_error_alone() -> None:
    recording = composite()
    payload = recording.messages["05-request.xml"][:3000]
    explanation = recording.changed("05-request.xml", payload).explain()
    message = explanation.messages[4]
    assert (message.verdict, message.action) == ("failed", None)
    assert "can't be read as a SOAP message" in message.problems[0]
    with pytest.raises(UsageError, match="can't be read as a SOAP message"):
        explain(payload)


def test_a_key_that_the_issuer_made_alone_opens_what_follows() -> None:
    """A whole key in the RSTR, over TLS."""
    recording = Recording.of(shared("vectors", "wcf", "ws05-user-nonego-sc-rm-tmc"))
    secret = recording.contexts()["03-request.xml"].secret
    root = etree.fromstring(recording.messages["02-response.xml"])
    proof = next(root[1].iter("{*}RequestedProofToken"))
    kind = etree.QName(proof).namespace
    proof.remove(proof[0])
    etree.SubElement(proof, f"{{{kind}}}BinarySecret").text = b64encode(secret).decode()
    entropy = next(root[1].iter("{*}Entropy"))
    parent = entropy.getparent()
    assert parent is not None
    parent.remove(entropy)
    explanation = recording.changed("02-response.xml", etree.tostring(root)).explain()
    assert (explanation.verdict, explanation.problems) == ("partial", ())
    assert "sent whole in 02-response.xml" in str(explanation)


def test_two_security_headers_are_a_problem_also_alone() -> None:
    root = etree.fromstring(composite().messages["05-request.xml"])
    security = security_of(root)
    assert security is not None
    root[0].append(etree.fromstring(etree.tostring(security)))
    assert explain(etree.tostring(root)).messages[0].problems


def test_a_capture_is_judged_at_its_own_time() -> None:
    recording = composite()
    assert recording.explain().verdict == "verified"
    late = recording.explain(now=4_000_000_000.0)
    assert late.verdict == "failed"
    assert len(late.messages[0].problems) == 1
    assert late.messages[0].problems[0].startswith("the Timestamp has expired: it was created 2")
    assert "lies in the future" in recording.explain(now=1_000_000_000.0).messages[0].problems[0]


def test_a_lone_message_of_a_sequence_is_no_problem() -> None:
    recording = composite()
    context = recording.contexts()["05-request.xml"]
    keys = recording.known
    assert context.identifier in {name for name, _ in keys.contexts}
    explanation = explain(recording.messages["05-request.xml"], keys)
    assert (explanation.verdict, explanation.problems) == ("verified", ())
    assert "doesn't show how sequence" in explanation.messages[0].warnings[0]
