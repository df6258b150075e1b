"""WSDLs and policies of our own, small enough to see what they say."""

from __future__ import annotations

from collections.abc import Mapping

from castile.config import DocumentLimits
from castile.messages.policy import Alternative, Policy
from castile.policy.attachment import Attachments
from castile.policy.description import Description, Port
from castile.policy.documents import Documents
from castile.policy.wsdl import describe

HEAD = """<wsdl:definitions xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/" xmlns:t="urn:t"
  targetNamespace="urn:t"
  xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:wsp="http://www.w3.org/ns/ws-policy"
  xmlns:soap12="http://schemas.xmlsoap.org/wsdl/soap12/" xmlns:a="urn:a"
  xmlns:wsam="http://www.w3.org/2007/05/addressing/metadata"
  xmlns:wsu="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"
  xmlns:rmp="http://docs.oasis-open.org/ws-rx/wsrmp/200702"
  xmlns:sp="http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200702">
"""
PLACES = (
    "definitions",
    "service",
    "port",
    "binding",
    "portType",
    "bindingOperation",
    "operation",
    "bindingInput",
    "input",
    "message",
    "bindingOutput",
    "output",
    "bindingFault",
    "fault",
    "bindingTell",
    "tell",
)
BODY = """{definitions}
<wsdl:message name="In">{message}<wsdl:part name="p" element="t:Ask"/></wsdl:message>
<wsdl:message name="Out"><wsdl:part name="p" element="t:Answer"/></wsdl:message>
<wsdl:message name="Told"><wsdl:part name="p" element="t:Tell"/></wsdl:message>
<wsdl:message name="Bad"><wsdl:part name="p" element="t:Bad"/></wsdl:message>
<wsdl:portType name="PT">{portType}
  <wsdl:operation name="Ask">{operation}
    <wsdl:input message="t:In">{input}</wsdl:input><wsdl:output message="t:Out">{output}</wsdl:output>
    <wsdl:fault name="Bad" message="t:Bad">{fault}</wsdl:fault>
  </wsdl:operation>
  <wsdl:operation name="Tell">{tell}<wsdl:input message="t:Told"/></wsdl:operation>
</wsdl:portType>
<wsdl:binding name="B" type="t:PT">{binding}
  <soap:binding transport="http://schemas.xmlsoap.org/soap/http"/>
  <wsdl:operation name="Ask">{bindingOperation}<soap:operation soapAction=""/>
    <wsdl:input>{bindingInput}<soap:body use="literal"/></wsdl:input>
    <wsdl:output>{bindingOutput}<soap:body use="literal"/></wsdl:output>
    <wsdl:fault name="Bad">{bindingFault}<soap:fault name="Bad" use="literal"/></wsdl:fault>
  </wsdl:operation>
  <wsdl:operation name="Tell">{bindingTell}<soap:operation soapAction="urn:tell"/>
    <wsdl:input><soap:body use="literal"/></wsdl:input>
  </wsdl:operation>
</wsdl:binding>
<wsdl:service name="S">{service}
  <wsdl:port name="P" binding="t:B">{port}<soap:address location="http://localhost/s"/></wsdl:port>
</wsdl:service>
</wsdl:definitions>"""


def wsdl(**places: str) -> bytes:
    """A service with an operation of each kind; `places` are what stands in its elements."""
    return (HEAD + BODY.format(**dict.fromkeys(PLACES, "") | places)).encode()


def documents(
    *octets: bytes | str, limits: DocumentLimits | None = None, more: Mapping[str, bytes | str] | None = None
) -> Documents:
    """Documents ``a.wsdl``, ``b.wsdl`` … and those of `more` by name."""
    made = Documents(limits)
    named = dict(zip(("a.wsdl", "b.wsdl", "c.wsdl"), octets, strict=False))
    for location, each in (named | dict(more or {})).items():
        made.add(location, each.encode() if isinstance(each, str) else each)
    return made


def described(
    *octets: bytes | str, limits: DocumentLimits | None = None, more: Mapping[str, bytes | str] | None = None
) -> Description:
    return describe(documents(*octets, limits=limits, more=more))


def port(**places: str) -> Port:
    return described(wsdl(**places)).port()


def normal(policy: str, limits: DocumentLimits | None = None) -> Policy:
    """The normal form of one policy document."""
    return Attachments(documents(policy, limits=limits)).policy("a.wsdl")


def short(alternative: Alternative) -> str:
    """An alternative without namespaces: ``A B[C]``."""
    return " ".join(
        each.name.rpartition("}")[2] + ("" if each.policy is None else f"[{short(each.nested)}]")
        for each in alternative
    )


def shorts(policy: Policy) -> list[str]:
    return [short(each) for each in policy]


def line(text: bytes, mark: str) -> int:
    """Of the first place where `mark` stands."""
    return text.decode().partition(mark)[0].count("\n") + 1
