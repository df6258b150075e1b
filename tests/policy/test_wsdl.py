"""What is read out of a WSDL: ports, operations, actions, subjects (WS-PolicyAttachment, WS-A Metadata)."""

from __future__ import annotations

import pytest

from castile.config import DocumentLimits
from castile.errors import CastileError, PolicyError, UsageError
from castile.policy.description import Description
from castile.versions import SOAP_1_1, SOAP_1_2
from tests.conftest import shared
from tests.policy.made import BODY, HEAD, PLACES, described, documents, line, port, shorts, wsdl


def policy(inner: str) -> str:
    return f"<wsp:Policy>{inner}</wsp:Policy>"


# ---- facts


def test_facts_of_a_port() -> None:
    made = port()
    assert (made.service, made.name, made.address, made.binding) == (
        "S",
        "P",
        "http://localhost/s",
        "{urn:t}B",
    )
    assert made.soap is SOAP_1_1
    assert made.alternatives == ((),)
    assert made.message_alternatives == {
        (name, direction): ((),)
        for name, directions in (("Ask", ("request", "response", "fault")), ("Tell", ("request", "fault")))
        for direction in directions
    }
    ask, tell = made.operations
    assert (ask.name, ask.style, ask.use, ask.one_way) == ("Ask", "document", "literal", False)
    assert (ask.body, ask.response_body) == ("{urn:t}Ask", "{urn:t}Answer")
    assert (tell.name, tell.one_way, tell.soap_action, tell.action) == ("Tell", True, "urn:tell", "urn:tell")
    assert (ask.place.document, ask.place.line) == (
        "a.wsdl",
        line(wsdl(), '<wsdl:operation name="Ask"><soap'),
    )


def test_soap_1_2() -> None:
    text = wsdl().replace(b"soap:", b"soap12:")
    assert described(text).port().soap is SOAP_1_2


ACTIONS = {
    "default pattern": ("", "urn:t", "", "urn:t:PT:AskRequest"),
    "default pattern of a URL": ("", "http://t", "", "http://t/PT/AskRequest"),
    "default pattern of a URL that ends in a slash": ("", "http://t/", "", "http://t/PT/AskRequest"),
    "message name": ('name="Question"', "urn:t", "", "urn:t:PT:Question"),
    "soapAction": ("", "urn:t", "urn:soap", "urn:soap"),
    "wsam": ('wsam:Action="urn:wsam"', "urn:t", "urn:soap", "urn:wsam"),
    "wsaw": ('wsaw:Action="urn:wsaw"', "urn:t", "urn:soap", "urn:wsaw"),
    "wsam before wsaw": ('wsaw:Action="urn:wsaw" wsam:Action="urn:wsam"', "urn:t", "", "urn:wsam"),
    "draft": ('d:Action="urn:draft"', "urn:t", "", "urn:draft"),
    "2004/08": ('wsa:Action="urn:2004"', "urn:t", "", "urn:2004"),
    "empty": ('wsam:Action=" "', "urn:t", "", "urn:t:PT:AskRequest"),
}


@pytest.mark.parametrize(
    ("attributes", "namespace", "soap_action", "expected"), ACTIONS.values(), ids=ACTIONS
)
def test_action_of_a_request(attributes: str, namespace: str, soap_action: str, expected: str) -> None:
    """WS-Addressing 1.0 Metadata, 4.4."""
    prefixes = (
        'xmlns:wsaw="http://www.w3.org/2006/05/addressing/wsdl" '
        'xmlns:d="http://www.w3.org/2007/02/addressing/metadata" '
        'xmlns:wsa="http://schemas.xmlsoap.org/ws/2004/08/addressing" '
    )
    text = wsdl().decode().replace('"urn:t"', f'"{namespace}"')
    text = text.replace('<wsdl:input message="t:In"', f'<wsdl:input message="t:In" {prefixes}{attributes}')
    text = text.replace('soapAction=""', f'soapAction="{soap_action}"')
    assert described(text).port().operations[0].action == expected


def test_actions_of_responses_and_faults() -> None:
    ask, tell = port().operations
    assert ask.response_action == "urn:t:PT:AskResponse"
    assert ask.fault_actions == (("Bad", "urn:t:PT:Ask:Fault:Bad"),)
    assert tell.fault_actions == ()
    text = wsdl().replace(b'name="Bad" message', b'wsam:Action="urn:bad" name="Bad" message')
    assert described(text).port().operations[0].fault_actions == (("Bad", "urn:bad"),)


def test_default_action_of_a_one_way_operation() -> None:
    text = wsdl().replace(b'soapAction="urn:tell"', b'soapAction=""')
    assert described(text).port().operations[1].action == "urn:t:PT:Tell"


def test_bodies() -> None:
    rpc = wsdl().replace(b'soapAction=""', b'soapAction="" style="rpc"')
    rpc = rpc.replace(b'<soap:body use="literal"/>', b'<soap:body use="literal" namespace="urn:r"/>')
    ask = described(rpc).port().operations[0]
    assert (ask.style, ask.body, ask.response_body) == ("rpc", "{urn:r}Ask", "{urn:r}AskResponse")
    whole = wsdl().replace(b"<soap:binding ", b'<soap:binding style="rpc" ')
    assert described(whole).port().operations[0].body == "Ask"
    parts = wsdl(message='<wsdl:part name="h" element="t:Header"/>')
    assert described(parts).port().operations[0].body == "{urn:t}Header"
    header = b'<soap:header message="t:In" part="h" use="literal"/><soap:body use="literal"/>'
    assert (
        described(parts.replace(b'<soap:body use="literal"/>', header, 1)).port().operations[0].body
        == "{urn:t}Ask"
    )
    named = parts.replace(b'<soap:body use="literal"/>', b'<soap:body parts="p" use="literal"/>', 1)
    assert described(named).port().operations[0].body == "{urn:t}Ask"
    none = parts.replace(b'<soap:body use="literal"/>', b'<soap:body parts="" use="literal"/>', 1)
    assert described(none).port().operations[0].body is None


def test_encoded_operations_are_named() -> None:
    found = described(wsdl().replace(b'use="literal"', b'use="encoded"'))
    assert found.port().operations[0].use == "encoded"
    assert {each.code for each in found.findings} == {"encoded"}


@pytest.mark.row("PO-46")
def test_facts_of_wcf_contracts() -> None:
    names = b'xmlns:m="http://schemas.microsoft.com/ws/2005/12/wsdl/contract" '
    text = wsdl().replace(
        b'<wsdl:portType name="PT"', b'<wsdl:portType name="PT" ' + names + b'm:usingSession="true"'
    )
    flags = names + b'm:isInitiating="false" m:isTerminating="true"'
    text = text.replace(b'<wsdl:operation name="Tell">', b'<wsdl:operation name="Tell" %b>' % flags)
    made = described(text).port()
    assert made.session
    assert [(each.initiating, each.terminating) for each in made.operations] == [(True, False), (False, True)]


@pytest.mark.row("PO-51")
def test_identity_of_the_endpoint() -> None:
    epr = (
        '<w:EndpointReference xmlns:w="http://www.w3.org/2005/08/addressing"><w:Address>urn:x</w:Address>'
        '<Identity xmlns="http://schemas.xmlsoap.org/ws/2006/02/addressingidentity">{}</Identity></w:EndpointReference>'
    )
    key = '<KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#"><X509Data><X509Certificate>{}</X509Certificate></X509Data></KeyInfo>'
    assert port().identity is None
    identity = port(port=epr.format("<Dns> a.example </Dns><Spn>host/a</Spn><Upn>me@a</Upn>")).identity
    assert identity is not None
    assert (identity.dns, identity.spn, identity.upn, identity.certificates) == (
        "a.example",
        "host/a",
        "me@a",
        (),
    )
    identity = port(port=epr.format(key.format("AQ\nID"))).identity
    assert identity is not None
    assert identity.certificates == (b"\x01\x02\x03",)
    found = described(wsdl(port=epr.format(key.format("*"))))
    assert [each.code for each in found.findings] == ["identity"]


@pytest.mark.row("PO-51")
def test_identity_of_a_recorded_service() -> None:
    path = shared("vectors", "wcf", "ws05-user-nonego-sc-rm", "service.wsdl")
    identity = described(path.read_bytes()).port().identity
    assert identity is not None
    assert len(identity.certificates) == 1


# ---- which port


def several() -> Description:
    extra = '<wsdl:port name="Q" binding="t:B"><soap:address location="http://localhost/q"/></wsdl:port>'
    broken = '<wsdl:port name="R" binding="t:Nowhere"/>'
    return described(wsdl(service=extra + broken))


@pytest.mark.row("CL-50")
def test_several_ports_need_a_choice() -> None:
    found = several()
    assert found.port(port="Q").address == "http://localhost/q"
    assert found.port("S", "P").address == "http://localhost/s"
    with pytest.raises(UsageError) as caught:
        found.port()
    assert str(caught.value) == (
        "a.wsdl: the WSDL has several ports; say which by service= and port=: "
        "S/Q (SOAP 1.1, http://localhost/q); S/P (SOAP 1.1, http://localhost/s); "
        f"S/R (refused: a.wsdl:{line(wsdl(), '<wsdl:service')}: the binding {{urn:t}}Nowhere of port R is "
        "defined nowhere)"
    )
    with pytest.raises(UsageError, match=r"no port with service 'T' and port 'P'; say which .*: S/Q"):
        found.port("T", "P")
    with pytest.raises(UsageError, match="Nowhere of port R is defined nowhere"):
        found.port(port="R")


@pytest.mark.row("CL-50")
def test_a_wsdl_without_service_has_its_bindings() -> None:
    head, _, tail = wsdl().decode().partition("<wsdl:service")
    found = described(head + tail.partition("</wsdl:service>")[2]).port()
    assert (found.service, found.name, found.address, len(found.operations)) == ("", "B", "", 2)


def test_what_is_not_soap_over_http_is_no_port() -> None:
    jms = wsdl().replace(b"http://schemas.xmlsoap.org/soap/http", b"http://www.w3.org/2010/soapjms/")
    with pytest.raises(UsageError, match=r"speaks SOAP over http://www.w3.org/2010/soapjms/, not over HTTP"):
        described(jms).port()
    rest = wsdl().replace(b"<soap:binding ", b'<h:binding xmlns:h="http://schemas.xmlsoap.org/wsdl/http/" ')
    with pytest.raises(UsageError, match="has no SOAP port"):
        described(rest).port()


NO_WSDL = {
    "policy": ('<w:Policy xmlns:w="http://www.w3.org/ns/ws-policy"/>', "a policy on its own, not a WSDL"),
    "page": (
        '<html xmlns="http://www.w3.org/1999/xhtml"/>',
        r"a web page, not a WSDL: try its address with \?wsdl",
    ),
    "other": ('<b:beans xmlns:b="urn:b"/>', "not a WSDL: its outermost element is {urn:b}beans"),
    "WSDL 2.0": ('<d:description xmlns:d="http://www.w3.org/ns/wsdl"/>', "WSDL 2.0 is not read"),
}


@pytest.mark.row("RE-102")
@pytest.mark.parametrize(("document", "reason"), NO_WSDL.values(), ids=NO_WSDL)
def test_what_is_no_wsdl_is_named(document: str, reason: str) -> None:
    with pytest.raises(UsageError, match=f"a.wsdl: {reason}"):
        described(document)


BROKEN = {
    "port type": ('type="t:PT"', 'type="t:X"', "the port type {urn:t}X of binding B is defined nowhere"),
    "message": ('message="t:In"', 'message="t:X"', "the message {urn:t}X of input  is defined nowhere"),
    "prefix": ('type="t:PT"', 'type="u:PT"', "the prefix of 'u:PT' is not declared"),
    "operation": (
        '<wsdl:operation name="Ask"><',
        '<wsdl:operation name="X"><',
        "missing in the port type PT",
    ),
    "twice": (
        "<wsdl:service",
        '<wsdl:binding name="B" type="t:PT"/><wsdl:service',
        "defined 2 times, as at a.wsdl:",
    ),
}


@pytest.mark.parametrize(("old", "new", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_wsdl_says_where(old: str, new: str, reason: str) -> None:
    text = wsdl().decode()
    assert old in text
    with pytest.raises(UsageError) as caught:
        described(text.replace(old, new)).port()
    assert reason in str(caught.value)
    assert str(caught.value).startswith("a.wsdl:")


def test_overloaded_operations() -> None:
    """Told apart by the names of their messages; a policy that differs can't be told apart."""
    twin = '<wsdl:operation name="Tell">{}<wsdl:input name="Second" message="t:In"/></wsdl:operation>'
    bound = '<wsdl:operation name="Tell"><soap:operation soapAction="urn:2"/><wsdl:input name="Second"/>'
    bound += "</wsdl:operation>"

    def made(inner: str) -> Description:
        text = wsdl(portType=twin.format(inner)).replace(
            b'<wsdl:input message="t:Told"/>', b'<wsdl:input name="First" message="t:Told"/>'
        )
        text = text.replace(
            b'soapAction="urn:tell"/>\n    <wsdl:input>',
            b'soapAction="urn:tell"/>\n    <wsdl:input name="First">',
        )
        return described(text.replace(b"</wsdl:binding>", bound.encode() + b"</wsdl:binding>"))

    operations = made("").port().operations
    assert [(each.action, each.body) for each in operations[1:]] == [
        ("urn:tell", "{urn:t}Tell"),
        ("urn:2", "{urn:t}Ask"),
    ]
    with pytest.raises(PolicyError, match="the policies of the requests of Tell differ"):
        made(policy("<a:X/>")).port()


# ---- subjects


SUBJECTS = {
    "service": ("endpoint",),
    "port": ("endpoint",),
    "binding": ("endpoint",),
    "portType": ("endpoint",),
    "operation": ("request", "response", "fault"),
    "bindingOperation": ("request", "response", "fault"),
    "input": ("request",),
    "bindingInput": ("request",),
    "message": ("request",),
    "output": ("response",),
    "bindingOutput": ("response",),
    "fault": ("fault",),
    "bindingFault": ("fault",),
    "definitions": (),
}


@pytest.mark.row("PO-04")
@pytest.mark.parametrize(("place", "where"), SUBJECTS.items(), ids=SUBJECTS)
@pytest.mark.parametrize("form", ["element", "reference", "nested reference", "attribute"])
def test_attachment_points(place: str, where: tuple[str, ...], form: str) -> None:
    """WS-PolicyAttachment 1.5, 4.1: every element of a WSDL, every form of attachment."""
    forms = {
        "element": policy("<a:X/>"),
        "reference": '<wsp:PolicyReference URI="#x"/>',
        "nested reference": policy('<wsp:PolicyReference URI="#x"/>'),
        "attribute": "",
    }
    definition = '<wsp:Policy wsu:Id="x"><a:X/></wsp:Policy>'
    places = {"definitions": definition}
    places[place] = places.get(place, "") + (forms[form] if place != "definitions" else "")
    text = wsdl(**places).decode()
    if form == "attribute" and place != "definitions":
        divide = text.rpartition if place == "bindingOperation" else text.partition
        start, mark, end = divide(f"{ELEMENTS[place]}>")
        text = f'{start}{mark[:-1]} wsp:PolicyURIs="#x">{end}'
        assert "PolicyURIs" in text
    made = described(text).port()
    assert shorts(made.alternatives) == (["X"] if where == ("endpoint",) else [""])
    for direction in ("request", "response", "fault"):
        expected = "X" if direction in where or where == ("endpoint",) else ""
        assert shorts(made.message_alternatives["Ask", direction]) == [expected]
    expected = "X" if where == ("endpoint",) else ""
    assert shorts(made.message_alternatives["Tell", "request"]) == [expected]


ELEMENTS = {
    "service": '<wsdl:service name="S"',
    "port": '<wsdl:port name="P" binding="t:B"',
    "binding": '<wsdl:binding name="B" type="t:PT"',
    "portType": '<wsdl:portType name="PT"',
    "operation": '<wsdl:operation name="Ask"',
    "bindingOperation": '<wsdl:operation name="Ask"',
    "input": '<wsdl:input message="t:In"',
    "bindingInput": "<wsdl:input",
    "message": '<wsdl:message name="In"',
    "output": '<wsdl:output message="t:Out"',
    "bindingOutput": "<wsdl:output",
    "fault": '<wsdl:fault name="Bad" message="t:Bad"',
    "bindingFault": '<wsdl:fault name="Bad"',
}


@pytest.mark.row("PO-04")
def test_the_merge_is_of_all_subjects() -> None:
    places = {place: policy(f"<a:{place}/>") for place in PLACES[1:]}
    made = port(**places)
    assert shorts(made.alternatives) == ["service port binding portType"]
    assert shorts(made.message_alternatives["Ask", "request"]) == [
        "service port binding portType bindingOperation operation bindingInput input message"
    ]
    assert shorts(made.message_alternatives["Ask", "fault"]) == [
        "service port binding portType bindingOperation operation bindingFault fault"
    ]
    assert shorts(made.message_alternatives["Tell", "request"]) == [
        "service port binding portType bindingTell tell"
    ]
    assert [each.subject for each in made.attachments][:5] == [
        "service S",
        "port P",
        "binding B",
        "port type PT",
        "operation Ask of binding B",
    ]


@pytest.mark.row("PO-04")
def test_alternatives_of_subjects_are_combined() -> None:
    made = port(
        binding=policy('<a:E wsp:Optional="true"/>'),
        bindingInput=policy("<wsp:ExactlyOne><a:X/><a:Y/></wsp:ExactlyOne>"),
    )
    assert shorts(made.alternatives) == ["E", ""]
    assert shorts(made.message_alternatives["Ask", "request"]) == ["E X", "E Y", "X", "Y"]
    assert shorts(made.message_alternatives["Ask", "response"]) == ["E", ""]


@pytest.mark.row("PO-04")
def test_an_assertion_knows_its_subject() -> None:
    made = port(portType=policy("<a:X/>"), bindingInput=policy("\n<a:X/>"), bindingTell=policy("<a:Y/>"))
    ((x,),) = made.alternatives
    assert made.subject_of(x) == "port type PT"
    ((_, y),) = made.message_alternatives["Tell", "request"]
    assert made.subject_of(y) == "operation Tell of binding B"


@pytest.mark.row("PO-04")
def test_faults_whose_policies_differ_are_refused() -> None:
    two = '</wsdl:fault><wsdl:fault name="Worse" message="t:Bad">'
    with pytest.raises(PolicyError, match="the policies of the faults of Ask differ"):
        described(wsdl(fault=policy("<a:X/>") + two)).port()


@pytest.mark.row("PO-20")
def test_wsdl_extensions_that_are_assertions() -> None:
    using = '<w:UsingAddressing xmlns:w="http://www.w3.org/2006/05/addressing/wsdl" {}/>'
    for attribute, optional in (("", True), ('wsdl:required="false"', True), ('wsdl:required="true"', False)):
        ((assertion,),) = port(binding=using.format(attribute)).alternatives
        assert (assertion.name[-15:], assertion.optional) == ("UsingAddressing", optional)
    anonymous = '<w:Anonymous xmlns:w="http://www.w3.org/2006/05/addressing/wsdl">required</w:Anonymous>'
    ((assertion,),) = port(bindingOperation=anonymous).message_alternatives["Ask", "request"]
    assert assertion.text == "required"


# ---- what only an endpoint can have


RM = "<rmp:RMAssertion/>"
BINDING = "<sp:SymmetricBinding/>"


@pytest.mark.row("PO-05")
@pytest.mark.parametrize(
    "places",
    [
        {"operation": RM, "tell": RM},
        {"bindingOperation": RM, "bindingTell": RM},
        {"input": RM, "output": RM, "tell": RM},
        {"binding": "<a:E/>", "bindingInput": RM, "bindingOutput": RM, "tell": RM},
        {"operation": BINDING + RM, "tell": RM + BINDING},
    ],
)
def test_what_stands_on_every_message_is_the_endpoints(places: dict[str, str]) -> None:
    found = described(wsdl(**{place: policy(inner) for place, inner in places.items()}))
    made = found.port()
    (finding,) = found.findings
    assert (finding.level, finding.code) == ("warning", "moved-to-endpoint")
    assert "RMAssertion" in shorts(made.alternatives)[0] or "SymmetricBinding" in shorts(made.alternatives)[0]
    for alternatives in made.message_alternatives.values():
        assert shorts(alternatives)[0].count("RMAssertion") == 1


@pytest.mark.row("PO-05")
@pytest.mark.parametrize(
    "places",
    [
        {"operation": RM},
        {"bindingInput": RM, "tell": RM},
        {"operation": RM, "tell": BINDING},
        {"operation": BINDING, "tell": "<sp:AsymmetricBinding/>"},
        {"binding": BINDING, "operation": "<sp:AsymmetricBinding/>"},
        {"binding": BINDING, "operation": "<sp:TransportBinding/>", "tell": "<sp:TransportBinding/>"},
    ],
)
def test_what_stands_on_some_messages_is_refused(places: dict[str, str]) -> None:
    with pytest.raises(PolicyError, match=r"^a\.wsdl:\d+: \{.*(RMAssertion|Binding) (stands on|contradicts)"):
        port(**{place: policy(inner) for place, inner in places.items()})


@pytest.mark.row("PO-05")
def test_what_the_endpoint_has_already_may_be_said_again() -> None:
    found = described(wsdl(binding=policy(BINDING), operation=policy(BINDING)))
    assert shorts(found.port().alternatives) == ["SymmetricBinding"]
    assert found.findings == ()
    choice = policy("<wsp:ExactlyOne><sp:SymmetricBinding/><sp:AsymmetricBinding/></wsp:ExactlyOne>")
    made = port(binding=choice, operation=policy(BINDING), tell=policy(BINDING))
    assert shorts(made.alternatives) == ["SymmetricBinding"]


# ---- documents


@pytest.mark.row("CL-50")
def test_definitions_spread_over_documents() -> None:
    text = wsdl(portType=policy("<a:X/>")).decode()
    head, _, tail = text.partition("<wsdl:binding")
    service = HEAD.replace('targetNamespace="urn:t"', 'targetNamespace="urn:u"').replace(
        'urn:t"', 'urn:t" xmlns:u="urn:u"', 1
    )
    service += '<wsdl:import namespace="urn:t" location="b.wsdl"/><wsdl:binding' + tail.replace("t:B", "u:B")
    made = described(service, head + "</wsdl:definitions>").port()
    assert shorts(made.alternatives) == ["X"]
    assert made.operations[0].action == "urn:t:PT:AskRequest"
    assert made.binding == "{urn:u}B"


@pytest.mark.row("CL-50")
def test_a_missing_document_is_named_where_it_is_needed() -> None:
    from castile.policy.wsdl import describe

    imports = '<wsdl:import namespace="urn:v" location="b.wsdl"/>'
    made = documents(wsdl(definitions=imports))
    made.missing["b.wsdl"] = "not found"
    found = describe(made)
    assert (
        str(found.findings[0])
        == "warning: a.wsdl:9: b.wsdl, which is imported there, could not be had: not found"
    )
    assert found.port().name == "P"
    made = documents(wsdl(definitions=imports).replace(b'type="t:PT"', b'type="t:Far"'))
    made.missing["b.wsdl"] = "not found"
    with pytest.raises(
        UsageError,
        match=r"port type \{urn:t\}Far of binding B is defined nowhere \(missing: b.wsdl: not found\)",
    ):
        describe(made).port()


@pytest.mark.row("CL-50")
def test_encodings_and_style_sheets() -> None:
    plain = wsdl().replace(b'name="Ask"', b'name="Fr\xe5ga"')
    head = b'<?xml version="1.0" encoding="ISO-8859-1"?>\n<?xml-stylesheet href="a.xsl"?>\n'
    found = described(head + plain).port()
    assert found.operations[0].name == "Fråga"
    assert found.operations[0].place.line == line(wsdl(), '<wsdl:operation name="Ask"><soap') + 2
    with pytest.raises(UsageError, match="the encoding rot13 is not one that is read here"):
        described(b'<?xml version="1.0" encoding="rot13"?>' + plain)
    assert described(b"\xef\xbb\xbf" + wsdl()).port().name == "P"
    assert described(wsdl().decode().encode("utf-16")).port().name == "P"


@pytest.mark.row("RE-43", "RE-14")
@pytest.mark.parametrize(
    "document",
    [
        '<!DOCTYPE a [<!ENTITY x "xxxxxxxx"><!ENTITY y "&x;&x;&x;&x;">]><a>&y;</a>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        '<?xml version="1.0" encoding="ISO-8859-1"?><!DOCTYPE a><a/>',
        "<?a <!--?><!DOCTYPE a><a/><!-- -->",
        "<!-- <? --><!DOCTYPE a><a/>",
        "<a>" * 65 + "</a>" * 65,
        "<a " + " ".join(f'b{n}=""' for n in range(65)) + "/>",
        "<a><?b",
        "<a><!--" * 1000,
        "<a><![CDATA[ <?b ?> ",
        "",
        "<a",
    ],
)
def test_hostile_documents_are_refused(document: str) -> None:
    with pytest.raises(UsageError, match=r"a\.wsdl: "):
        documents(document)


@pytest.mark.row("RE-43")
def test_limits_of_documents() -> None:
    limits = DocumentLimits(bytes=100, documents=2)
    made = documents("<a/>", "<b/>", limits=limits)
    with pytest.raises(UsageError, match="more than 2 documents"):
        made.add("c", b"<c/>")
    with pytest.raises(UsageError, match="has 101 bytes, more than 100"):
        documents("<a/>" + " " * 97, limits=limits)
    many = described(wsdl(), limits=DocumentLimits(operations=1))
    with pytest.raises(CastileError, match="more than 1 operations"):
        many.port()


def test_the_places_of_the_template_are_all_used() -> None:
    assert all(f"{{{place}}}" in BODY for place in PLACES)


@pytest.mark.row("CL-50")
def test_a_document_with_two_addresses_is_read_once() -> None:
    assert described(wsdl(), wsdl()).port().name == "P"


def test_an_extension_that_must_be_understood_is_an_assertion() -> None:
    """WSDL 1.1, 2.1.3."""
    required = (
        '<a:Session wsdl:required="{}"/><soap:x wsdl:required="true"/><wsp:UsingPolicy wsdl:required="true"/>'
    )
    assert shorts(port(binding=required.format("true")).alternatives) == ["Session"]
    assert shorts(port(binding=required.format("false")).alternatives) == [""]


@pytest.mark.row("CL-50")
def test_a_client_of_one_port_doesnt_mind_another_that_cant_be_used() -> None:
    from castile.typed.contract import read

    made = documents(wsdl(service='<wsdl:port name="R" binding="t:Nowhere"/>'))
    contract = read(made, whole=False)
    assert contract.port(name="P").name == "P"
    with pytest.raises(UsageError, match="Nowhere of port R is defined nowhere"):
        contract.port(name="R")
    with pytest.raises(UsageError, match="say which by service= and port="):
        contract.port()
    with pytest.raises(UsageError, match="Nowhere of port R is defined nowhere"):
        read(made)
