"""Other messages of the kinds that the shared cases show, made by ourselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from castile.explaining import Explanation, explain
from castile.messages.security import parse_instant
from castile.versions import DS, SOAP_1_1, WSA_1_0, WSRM_1_1, WSSE, WSSE11, WSU
from tests.conftest import shared
from tests.explaining.damage import look, order
from tests.security.insider import APP, SIDE, first

NOW = parse_instant("2026-11-25T10:01:00Z")


def stamped(created: str, expires: str = "<u:Expires>2026-11-25T10:05:00Z</u:Expires>") -> Explanation:
    text = (
        f'<s:Envelope xmlns:s="{SOAP_1_1.namespace}"><s:Header><o:Security xmlns:o="{WSSE}" xmlns:u="{WSU}">'
        f"<u:Timestamp><u:Created>{created}</u:Created>{expires}</u:Timestamp></o:Security></s:Header>"
        "<s:Body></s:Body></s:Envelope>"
    )
    return explain(text.encode(), now=NOW)


@pytest.mark.row("MS-74")
@pytest.mark.parametrize(
    "created",
    [
        "2026-11-25T10:00:00.1Z",
        "2026-11-25T10:00:00.12345678901234567890Z",
        "2026-11-25T15:30:00+05:30",
        "2026-11-24T20:00:00-14:00",
        "2026-11-25T10:00:00-00:00",
        " 2026-11-25T10:00:00Z\n",
    ],
)
def test_legal_times(created: str) -> None:
    explanation = stamped(created)
    assert explanation.problems == ()
    offset = created.strip()[-6:] in ("+05:30", "-14:00")
    assert any("wants UTC" in text for text in explanation.messages[0].warnings) == offset


@pytest.mark.row("MS-74")
@pytest.mark.parametrize(
    ("created", "says"),
    [
        ("2026-11-25T10:00:00", "no zone"),
        ("2026-11-25T10:00:60Z", "leap second"),
        ("1764064800", "Created '1764064800'"),
        ("2026-11-25 10:00:00Z", "Created '2026-11-25 10:00:00Z'"),
        ("2026-11-25T10:00:00+0100", "Created '2026-11-25T10:00:00+0100'"),
        ("2026-02-30T10:00:00Z", "no day or hour"),
        ("2026-11-25T11:00:00Z", "a wrong time zone makes 1 hours"),
        ("2026-11-25T10:00:00+01:00", "a wrong time zone makes 1 hours"),
        ("2026-11-25T10:20:00Z", "created 1140 seconds after the time of judging: compare the clocks"),
        ("1970-01-01T00:00:00Z", "clock or time source is unset"),
        ("2026-11-25T10:05:00Z", "expires before it was created"),
    ],
)
def test_times_that_are_wrong(created: str, says: str) -> None:
    expires = "" if "11:" in created or "20:" in created else "<u:Expires>2026-11-25T10:05:00Z</u:Expires>"
    if created.endswith("+01:00"):
        expires = "<u:Expires>2026-11-25T10:05:00+01:00</u:Expires>"
    ((_, text),) = stamped(created, expires).problems
    assert "Timestamp" in text
    assert says in text


def create(acks_to: str, reply_to: str | None, endpoint: str | None) -> Explanation:
    """A CreateSequence with these addresses."""
    space = f'xmlns:a="{WSA_1_0.namespace}" xmlns:r="{WSRM_1_1.namespace}"'
    reply = f"<a:ReplyTo><a:Address>{reply_to}</a:Address></a:ReplyTo>" if reply_to is not None else ""
    offer = (
        f"<r:Offer><r:Identifier>urn:o</r:Identifier><r:Endpoint><a:Address>{endpoint}</a:Address></r:Endpoint>"
        "</r:Offer>"
        if endpoint is not None
        else ""
    )
    text = (
        f'<s:Envelope xmlns:s="{SOAP_1_1.namespace}" {space}><s:Header>'
        f"<a:Action>{WSRM_1_1.action('CreateSequence')}</a:Action><a:MessageID>urn:m</a:MessageID>"
        f"<a:To>http://service.example/</a:To>{reply}</s:Header><s:Body><r:CreateSequence>"
        f"<r:AcksTo><a:Address>{acks_to}</a:Address></r:AcksTo>{offer}</r:CreateSequence></s:Body></s:Envelope>"
    )
    return explain(text.encode())


HERE = "http://client.example/callback"


@pytest.mark.row("OP-22")
@pytest.mark.parametrize(
    ("addresses", "warned"),
    [
        ((HERE, HERE, HERE), False),
        ((WSA_1_0.anonymous, None, WSA_1_0.anonymous), False),
        ((HERE, HERE, None), False),
        ((WSA_1_0.anonymous, HERE, HERE), True),
        (("http://foreign.example/", HERE, HERE), True),
        ((HERE, HERE, "http://CLIENT.example/callback"), True),
        ((HERE, WSA_1_0.none, HERE), True),
        ((HERE, None, HERE), True),
    ],
)
def test_addresses_of_create_sequence(addresses: tuple[str, str | None, str | None], warned: bool) -> None:
    explanation = create(*addresses)
    assert explanation.problems == ()
    warnings = [text for text in explanation.messages[0].warnings if "octet for octet" in text]
    assert bool(warnings) == warned
    assert not warned or f"AcksTo {addresses[0]}" in warnings[0]


@pytest.mark.row("OP-18")
def test_addresses_that_nothing_can_reach() -> None:
    none = WSA_1_0.none or ""
    assert "AcksTo is the address none" in create(none, HERE, HERE).problems[0][1]
    assert "Endpoint of its Offer is the address none" in create(HERE, HERE, none).problems[0][1]


@pytest.mark.row("OP-19")
def test_prefixes_that_nobody_declares() -> None:
    text = (
        f'<s:Envelope xmlns:s="{SOAP_1_1.namespace}">\n<s:Body>\n'
        '<m xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="q:thing"/></s:Body></s:Envelope>'
    )
    warnings = explain(text.encode()).messages[0].warnings
    assert any("line 3: xsi:type of m uses the prefix q" in each for each in warnings)


@pytest.mark.row("N07")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("drop", "has no ds:KeyInfo, so it doesn't say whose key it is"),
        ("unwrap", "a wsse:SecurityTokenReference stands where KeyInfo is due"),
        ("beside", "stands beside ds:KeyInfo and not in it"),
    ],
)
def test_key_info_of_other_forms(change: str, says: str) -> None:
    root = etree.fromstring(order())
    info = first(root, f".//{{{DS}}}KeyInfo")
    parent, reference = info.getparent(), info[0]
    assert parent is not None
    if change != "drop":
        parent.append(etree.fromstring(etree.tostring(reference)))
    if change != "beside":
        parent.remove(info)
    explanation = look(etree.tostring(root))
    assert explanation.verdict == "failed"
    assert says in explanation.problems[0][1]


@pytest.mark.row("N07")
def test_an_encrypted_message_that_was_indented() -> None:
    root = etree.fromstring(SIDE.protected(APP).payload)
    assert look(etree.tostring(root)).verdict == "verified"
    etree.indent(root)
    texts = [text for _, text in look(etree.tostring(root)).problems]
    assert any("white space stands around its EncryptedData" in text for text in texts)
    assert not any("unknown" in text for text in texts)


@pytest.mark.row("OP-18")
def test_confirmations_that_are_doubled_or_stand_behind(tmp_path: Path) -> None:
    folder = shared("cases", "018-signature-confirmation")
    keys = shared("cases", "keys", "keys.json")
    notes = explain(folder / "last", keys).messages[1].warnings
    assert any("stands behind the Signature" in text for text in notes)
    root = etree.fromstring((folder / "first" / "01-response.xml").read_bytes())
    confirmation = first(root, f".//{{{WSSE11}}}SignatureConfirmation")
    twin = etree.fromstring(etree.tostring(confirmation))
    twin.set(f"{{{WSU}}}Id", "twin")
    confirmation.addnext(twin)
    (tmp_path / "01-request.xml").write_bytes((folder / "first" / "01-request.xml").read_bytes())
    (tmp_path / "01-response.xml").write_bytes(etree.tostring(root))
    explanation = explain(tmp_path, keys)
    assert explanation.verdict == "failed"
    assert "confirms one signature twice" in explanation.problems[0][1]
