"""The envelope: what is written, what is read, what is refused."""

from __future__ import annotations

from typing import Final

import pytest

from castile.config import Limits
from castile.errors import Malformed, SOAPFault, UsageError
from castile.messages import soap
from castile.messages.soap import Header, Message
from castile.versions import NETRM, SOAP_1_1, SOAP_1_2, WSA_1_0, WSRM_1_1, WSSE, WSU, SOAPVersion
from castile.xml import Element, canonical, canonical_fragment, inside, local_name, parse, text_of
from tests.messages.elements import element

LIMITS: Final = Limits()
BOTH: Final = (SOAP_1_1, SOAP_1_2)
both = pytest.mark.parametrize("version", BOTH, ids=lambda row: row.name)
BODY: Final = b'<m:Add xmlns:m="urn:m"><a>1</a></m:Add>'


def read(octets: bytes) -> soap.Envelope:
    return soap.parse(parse(octets, LIMITS), LIMITS, len(octets))


def envelope(version: SOAPVersion, content: str) -> bytes:
    return f'<s:Envelope xmlns:s="{version.namespace}">{content}</s:Envelope>'.encode()


@both
def test_a_message_is_canonical_part_by_part(version: SOAPVersion) -> None:
    headers = (
        Header("a", WSA_1_0.namespace, "Action", b"urn:x?a&amp;b", must_understand=True),
        Header("r", WSRM_1_1.namespace, "Sequence", b"<r:Identifier>urn:1</r:Identifier>"),
        Header("x", "urn:x", "Empty"),
    )
    octets = soap.render(Message(version, headers, BODY))
    found = read(octets)
    assert found.soap is version
    assert found.size == len(octets)
    assert found.security is None
    for written, back in zip(headers, found.headers, strict=True):
        assert canonical(back) == written.render(version)
        assert written.render(version) in octets
        assert soap.must_understand(back, version) is written.must_understand
    assert canonical(found.body) == soap.render_body(version, BODY)
    assert [header.name for header in headers] == ["wsa:Action", "wsrm:Sequence", "{urn:x}Empty"]


@both
def test_ids_and_must_understand_are_in_canonical_order(version: SOAPVersion) -> None:
    for header in (
        Header("a", WSA_1_0.namespace, "To", b"urn:x", must_understand=True),
        Header("x", "urn:x", "Y", b'<z xmlns="urn:z"></z>', must_understand=True),
        Header("a", WSA_1_0.namespace, "To", b"urn:x"),
        Header("a", "urn:a", "P", f'<u:Q xmlns:u="{WSU}"></u:Q>'.encode()),
        Header("a", "urn:a", "P", b'<b:Q xmlns:b="urn:b"><a:R xmlns:a="urn:a"></a:R></b:Q>'),
    ):
        for id_ in (None, "_1", 'x"&<'):
            octets = header.render(version, id_)
            back = element(octets)
            assert canonical(back) == octets
            assert back.get(f"{{{WSU}}}Id") == id_


@both
@pytest.mark.parametrize("id_", [None, "_0"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        BODY,
        b'<Add xmlns="urn:m"><a>1</a></Add>',
        b"<a></a>",
        b'<s:a xmlns:s="urn:s"></s:a>',
        b'<u:a xmlns:u="urn:u" u:b="1"></u:a>',
    ],
)
def test_bodies(version: SOAPVersion, id_: str | None, body: bytes) -> None:
    start, content, end = soap.body_frame(version, body, id_)
    assert content == body
    octets = soap.render_body(version, body, id_)
    assert octets == start + content + end
    assert canonical(element(octets)) == octets
    assert element(octets).get(f"{{{WSU}}}Id") == id_


@both
def test_a_body_that_declares_what_the_body_tag_declares(version: SOAPVersion) -> None:
    body = f'<x xmlns="urn:x"><s:y xmlns:s="{version.namespace}" xmlns:u="{WSU}" u:Id="1"></s:y></x>'.encode()
    for id_ in (None, "_0"):
        octets = soap.render_body(version, body, id_)
        assert canonical(element(octets)) == octets
        assert (b'<s:y u:Id="1">' in octets) is (id_ is not None)


@both
def test_prefixes_of_values_stand_on_the_envelope(version: SOAPVersion) -> None:
    given = (
        b'<a xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:x="urn:x?a&amp;b" xsi:type="x:t"/>'
    )
    body = canonical_fragment(given, LIMITS)
    message = Message(version, (), body)
    assert message.namespaces == (("x", "urn:x?a&b"),)
    found = read(soap.render(message))
    assert canonical(found.body) == soap.render_body(version, body)
    assert inside(found.body)[0].nsmap["x"] == "urn:x?a&b"
    assert b"xmlns:x=" not in soap.render_body(version, body)
    # what arrived is a caller's body again, with its prefix
    assert canonical_fragment(inside(found.body)[0], LIMITS) == body


@both
def test_a_value_with_the_prefix_that_soap_needs(version: SOAPVersion) -> None:
    body = canonical_fragment(b'<a xmlns:s="urn:s" t="s:b"/>', LIMITS)
    with pytest.raises(UsageError, match="'s'"):
        soap.render_body(version, body)


# --- reading ------------------------------------------------------------------------------------


@both
@pytest.mark.row("RE-17")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "one Body"),
        ("<s:Header/>", "one Body"),
        ("<s:Body/><s:Body/>", "one Body"),
        ("<s:Header/><s:Header/><s:Body/>", "one Header"),
        ("<s:Body/><s:Header/>", "one Body"),
        ("<s:Header/><s:Body/><x xmlns='urn:x'/>", "nothing else"),
        ("<x xmlns='urn:x'/><s:Body/>", "nothing else"),
        ("<s:Header/><x xmlns='urn:x'/><s:Body/>", "nothing else"),
        ("<s:Header/>text<s:Body/>", "text"),
        ("text<s:Body/>", "text"),
        ("<s:Body/>text", "text"),
        ("<Body/>", "nothing else"),
        ("<s:Header><x/></s:Header><s:Body/>", "without a namespace"),
        ("<s:Envelope><s:Body/></s:Envelope>", "one Body"),
    ],
)
def test_what_is_no_envelope(version: SOAPVersion, content: str, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        read(envelope(version, content))


@pytest.mark.row("RE-17")
def test_two_versions_in_one_envelope() -> None:
    content = f'<x:Body xmlns:x="{SOAP_1_1.namespace}"/>'
    with pytest.raises(Malformed):
        read(envelope(SOAP_1_2, content))


@pytest.mark.parametrize(
    "octets",
    [
        b"<Envelope><Body/></Envelope>",
        b"<s:Envelope xmlns:s='http://www.w3.org/2001/12/soap-envelope'><s:Body/></s:Envelope>",
        b"<html/>",
        f"<s:Body xmlns:s='{SOAP_1_2.namespace}'/>".encode(),
    ],
)
def test_another_version_asks_for_version_mismatch(octets: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        read(octets)
    assert caught.value.fault.code == "VersionMismatch"


@both
def test_header_blocks_are_counted(version: SOAPVersion) -> None:
    blocks = "<h xmlns='urn:h'/>" * 64
    assert len(read(envelope(version, f"<s:Header>{blocks}</s:Header><s:Body/>")).headers) == 64
    with pytest.raises(Malformed, match="64 header blocks"):
        read(envelope(version, f"<s:Header>{blocks}<h xmlns='urn:h'/></s:Header><s:Body/>"))


def test_comments_and_blanks_between_the_parts_are_nothing() -> None:
    content = "\n <!-- a --><s:Header><!-- b --> <h xmlns='urn:h'/></s:Header>\n<s:Body/> <!-- c -->"
    found = read(envelope(SOAP_1_2, content))
    assert [local_name(header) for header in found.headers] == ["h"]


def _security(attributes: str = "") -> str:
    return f'<o:Security xmlns:o="{WSSE}" {attributes}/>'


NEXT_11: Final = "http://schemas.xmlsoap.org/soap/actor/next"
NEXT_12: Final = f"{SOAP_1_2.namespace}/role/next"
ULTIMATE: Final = f"{SOAP_1_2.namespace}/role/ultimateReceiver"


@pytest.mark.row("MS-01")
@pytest.mark.parametrize(
    ("version", "attributes", "ours"),
    [
        (SOAP_1_2, "", True),
        (SOAP_1_2, 's:role=""', True),
        (SOAP_1_2, f's:role="{ULTIMATE}"', True),
        (SOAP_1_2, f's:role="{NEXT_12}"', True),
        (SOAP_1_2, 's:role="urn:another"', False),
        (SOAP_1_2, f's:role="{SOAP_1_2.namespace}/role/none"', False),
        (SOAP_1_1, "", True),
        (SOAP_1_1, f's:actor="{NEXT_11}"', True),
        (SOAP_1_1, 's:actor="urn:another"', False),
    ],
)
def test_which_security_header_is_ours(version: SOAPVersion, attributes: str, ours: bool) -> None:
    header = f"<s:Header>{_security(attributes)}</s:Header><s:Body/>"
    found = read(envelope(version, header))
    assert (found.security is not None) is ours
    both_of_them = f"<s:Header>{_security()}{_security(attributes)}</s:Header><s:Body/>"
    if ours:
        with pytest.raises(Malformed, match="more than one Security"):
            read(envelope(version, both_of_them))
    else:
        assert read(envelope(version, both_of_them)).security is not None


def _block(version: SOAPVersion, attributes: str) -> Element:
    content = f"<s:Header><h xmlns='urn:h' {attributes}/></s:Header><s:Body/>"
    return read(envelope(version, content)).headers[0]


@both
def test_must_understand(version: SOAPVersion) -> None:
    for value, expected in (("1", True), ("true", True), ("0", False), ("false", False), (" 1 ", True)):
        block = _block(version, f's:mustUnderstand="{value}"')
        assert soap.must_understand(block, version) is expected
    assert not soap.must_understand(_block(version, ""), version)
    with pytest.raises(Malformed, match="mustUnderstand"):
        soap.must_understand(_block(version, 's:mustUnderstand="yes"'), version)
    role = "role" if version is SOAP_1_2 else "actor"
    other = _block(version, f's:mustUnderstand="1" s:{role}="urn:another"')
    assert not soap.must_understand(other, version)


# --- faults -------------------------------------------------------------------------------------


DETAIL: Final = b'<d xmlns="urn:d">1</d><e></e>'
FAULTS: Final = [
    SOAPFault("Sender", "why & <how>"),
    SOAPFault("Receiver", "later", ("urn:q", "Busy")),
    SOAPFault("Sender", "no", (WSSE, "InvalidSecurity"), DETAIL),
    SOAPFault("Sender", "no", (WSRM_1_1.namespace, "X"), nested=(NETRM, "ConnectionLimitReached")),
    SOAPFault("Sender", "no", ("urn:q", "X"), nested=("urn:r", "Y")),
    SOAPFault("MustUnderstand", "what?"),
    SOAPFault("VersionMismatch", "which?"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.reason)
def test_a_soap_12_fault_reads_back(fault: SOAPFault) -> None:
    body = soap.render_fault(fault, SOAP_1_2)
    octets = soap.render(Message(SOAP_1_2, (), body))
    found = read(octets)
    assert canonical(found.body) == soap.render_body(SOAP_1_2, body)
    assert soap.read_fault(inside(found.body)[0], SOAP_1_2) == fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.reason)
def test_a_soap_11_fault_reads_back(fault: SOAPFault) -> None:
    body = soap.render_fault(fault, SOAP_1_1)
    found = read(soap.render(Message(SOAP_1_1, (), body)))
    assert canonical(found.body) == soap.render_body(SOAP_1_1, body)
    back = soap.read_fault(inside(found.body)[0], SOAP_1_1)
    assert back is not None
    assert (back.reason, back.detail) == (fault.reason, fault.detail)
    if fault.subcode is None:
        assert back.code == fault.code
    elif fault.subcode[0] != WSRM_1_1.namespace:
        assert back.subcode == fault.subcode


def test_an_rm_fault_names_its_sequence() -> None:
    fault = SOAPFault("Sender", "gone", (WSRM_1_1.namespace, "UnknownSequence"), sequence="urn:a&b")
    octets = soap.render(Message(SOAP_1_2, (), soap.render_fault(fault, SOAP_1_2)))
    back = soap.read_fault(inside(read(octets).body)[0], SOAP_1_2)
    assert back is not None
    assert back.sequence == "urn:a&b"
    assert text_of(element(back.detail)) == "urn:a&b"


def test_faults_of_others() -> None:
    text = (
        "<s:Fault><faultcode>s:Client.Authentication</faultcode><faultstring>no</faultstring>"
        "<faultactor>urn:x</faultactor></s:Fault>"
    )
    fault = soap.read_fault(inside(read(envelope(SOAP_1_1, f"<s:Body>{text}</s:Body>")).body)[0], SOAP_1_1)
    assert fault == SOAPFault("Sender", "no")
    text = (
        "<s:Fault><s:Code><s:Value>s:DataEncodingUnknown</s:Value></s:Code><s:Reason>"
        '<s:Text xml:lang="de">nein</s:Text><s:Text xml:lang="en-GB">no</s:Text></s:Reason>'
        "<s:Node>urn:n</s:Node></s:Fault>"
    )
    fault = soap.read_fault(inside(read(envelope(SOAP_1_2, f"<s:Body>{text}</s:Body>")).body)[0], SOAP_1_2)
    assert fault == SOAPFault("Sender", "no")
    assert soap.read_fault(element(b"<a/>"), SOAP_1_2) is None
    assert soap.read_fault(element(f'<s:Fault xmlns:s="{SOAP_1_1.namespace}"/>'.encode()), SOAP_1_2) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<s:Code><s:Value>s:Sender</s:Value></s:Code>",
        "<s:Reason><s:Text xml:lang='en'>x</s:Text></s:Reason>",
        "<s:Code/><s:Reason><s:Text xml:lang='en'>x</s:Text></s:Reason>",
        "<s:Code><s:Value>s:Sender</s:Value></s:Code><s:Reason/>",
        "<s:Code><s:Value>q:Sender</s:Value></s:Code><s:Reason><s:Text xml:lang='en'>x</s:Text></s:Reason>",
        "<s:Code><s:Value>s:Sender<!-- --></s:Value></s:Code><s:Reason><s:Text>x</s:Text></s:Reason>",
        "<s:Code><s:Value>s:Sender</s:Value></s:Code><s:Code><s:Value>s:Sender</s:Value></s:Code>",
    ],
)
def test_broken_faults(content: str) -> None:
    body = f"<s:Body><s:Fault>{content}</s:Fault></s:Body>"
    found = read(envelope(SOAP_1_2, body))
    with pytest.raises(Malformed):
        soap.read_fault(inside(found.body)[0], SOAP_1_2)


def test_nothing_of_a_body_shows_in_repr() -> None:
    assert "Add" not in repr(Message(SOAP_1_2, (), BODY))
