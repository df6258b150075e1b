"""What people really run into: the shared cases whose command is explain."""

from __future__ import annotations

import pytest

from castile.errors import UsageError
from castile.explaining import explain
from castile.explaining.report import Explanation
from castile.messages.security import parse_instant
from tests.conftest import shared

NOW = parse_instant("2026-11-25T10:01:00Z")


def look(case: str, name: str, now: float | None = None) -> Explanation:
    return explain(shared("cases", case, name), shared("cases", "keys", "keys.json"), now)


@pytest.mark.row("MS-74")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("01-utc-z", None),
        ("02-offset-zero", None),
        ("03-offset-west", None),
        ("04-seven-digits", None),
        ("05-nine-digits", None),
        ("06-one-digit", None),
        ("07-no-expires", None),
        ("08-no-zone", "no zone"),
        ("09-reversed", "expires before it was created"),
        ("10-two-created", "one Created"),
        ("11-expires-first", "one Created, then at most one Expires"),
        ("12-epoch", "clock or time source is unset"),
    ],
)
def test_forms_of_a_timestamp(name: str, says: str | None) -> None:
    explanation = look("005-timestamp-formats", f"{name}.xml", NOW)
    texts = [text for _, text in explanation.problems]
    warnings = explanation.messages[0].warnings
    assert any("wants UTC" in text for text in warnings) == (name == "03-offset-west")
    if says is None:
        assert texts == []
    else:
        assert len(texts) == 1
        assert says in texts[0]
        assert "Timestamp" in texts[0]


@pytest.mark.row("OP-18")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("01-right", None),
        ("02-hex-in-base64", "hex text"),
        ("03-nonce-not-decoded", "base64 text of the nonce"),
        ("04-md5-first", "hash of the password"),
        ("05-created-left-out", "left out of the digest"),
        ("06-no-nonce-no-created", None),
        ("07-text-with-nonce", None),
    ],
)
def test_password_digests(name: str, says: str | None) -> None:
    explanation = look("006-username-digest", f"{name}.xml")
    texts = [text for _, text in explanation.problems]
    assert (texts == []) == (says is None)
    assert says is None or says in texts[0]
    if name.startswith("06"):
        assert "can be replayed" in explanation.messages[0].warnings[0]


@pytest.mark.row("N07")
def test_an_indented_message() -> None:
    signed = look("008-reindented", "as-signed.xml")
    assert (signed.verdict, set(signed.messages[0].signed)) == ("verified", {"wsu:Timestamp", "Body"})
    sent = look("008-reindented", "as-sent.xml")
    assert sent.verdict == "failed"
    assert "white space between elements" in sent.problems[0][1]
    assert sent.messages[0].signed == ("wsu:Timestamp",)


@pytest.mark.row("N07")
@pytest.mark.parametrize("name", ["default.xml", "unbound-and-empty.xml"])
def test_prefix_lists(name: str) -> None:
    explanation = look("010-prefixlist-default", name)
    assert (explanation.verdict, explanation.problems) == ("verified", ())


@pytest.mark.row("N07")
@pytest.mark.parametrize(
    ("case", "says"),
    [("012-no-transforms", "without Transforms"), ("014-str-without-keyinfo", "KeyInfo is due")],
)
def test_signatures_of_another_form(case: str, says: str) -> None:
    explanation = look(case, "message.xml")
    assert explanation.verdict == "failed"
    assert says in explanation.problems[0][1]


@pytest.mark.row("N07")
def test_digests_and_signature_hold_inclusively_where_no_transform_is_named() -> None:
    ((_, text),) = look("012-no-transforms", "message.xml").problems
    assert "the digests of wsu:Timestamp, Body hold under inclusive C14N 1.0" in text
    assert "the signature's value holds" in text
    assert "is wrong" not in text
    assert "BSP R5416, R5411, R5412" in text


@pytest.mark.row("OP-18")
@pytest.mark.parametrize("name", ["first", "last", "wrong"])
def test_signature_confirmation(name: str) -> None:
    explanation = look("018-signature-confirmation", name)
    assert explanation.verdict == ("failed" if name == "wrong" else "verified")
    if name == "wrong":
        assert explanation.problems[0][0] == "01-response.xml"
        assert "SignatureConfirmation" in explanation.problems[0][1]


@pytest.mark.row("N07")
def test_a_path_of_certificates() -> None:
    right = look("016-pkipath-token", "message.xml")
    assert right.verdict == "verified"
    assert set(right.messages[0].signed) == {"wsu:Timestamp", "Body", "wsse:BinarySecurityToken"}
    wrong = look("016-pkipath-token", "wrong-order.xml")
    assert wrong.verdict == "failed"
    assert "reverse order" in wrong.problems[0][1]


@pytest.mark.row("OP-21")
def test_acknowledgements_that_stand_alone() -> None:
    explanation = look("024-ack-alone", "one-way")
    assert explanation.problems == ()
    last = explanation.messages[5].sequence
    assert last is not None
    assert (last.sent, last.acknowledged) == (2, ((1, 2),))


@pytest.mark.row("OP-22")
@pytest.mark.parametrize(("name", "warned"), [("same", False), ("slash", True), ("acks-anonymous", True)])
def test_addresses_of_create_sequence(name: str, warned: bool) -> None:
    explanation = look("026-createsequence-addresses", f"{name}.xml")
    assert explanation.problems == ()
    assert any("octet for octet" in text for text in explanation.messages[0].warnings) == warned


@pytest.mark.row("OP-19")
def test_an_undeclared_prefix_is_shown_with_its_place() -> None:
    with pytest.raises(UsageError, match=r"line 4.*SOAP-ENV"):
        look("030-unbound-prefix", "response.xml")
