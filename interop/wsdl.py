"""The WSDL of a cell, as its peer reads it: the contract is always the same, the policies are the
cell's.

Policies stand where all stacks look for them: the binding with its signed parts at the
endpoint, encrypted parts at the messages, and the Trust assertion both inside the bootstrap
policy (Metro) and beside it (CXF).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cell import NAMESPACE, PASSWORD, Cell

from castile.versions import WSA_1_0, WSA_2004, WSRM_1_0, WSRM_1_1

WSDL_PATH: Final = "META-INF/wsdl/echo.wsdl"
CLIENT_PATH: Final = "META-INF/wsit-client.xml"


@dataclass(frozen=True, slots=True)
class Dialect:
    """The policy languages of one edition of WS-SecureConversation."""

    policy: str
    security: str
    trust: str


_SP11: Final = "http://schemas.xmlsoap.org/ws/2005/07/securitypolicy"
_SP12: Final = "http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200702"
_WSP12: Final = "http://schemas.xmlsoap.org/ws/2004/09/policy"
_WSP15: Final = "http://www.w3.org/ns/ws-policy"
DIALECTS: Final = {
    "2005/02": Dialect(_WSP12, _SP11, "Trust10"),
    "1.3": Dialect(_WSP15, _SP12, "Trust13"),
    "off": Dialect(_WSP15, _SP12, "Trust13"),
}
_RM: Final = {"1.0": WSRM_1_0.namespace, "1.1": WSRM_1_1.namespace}
_RM_POLICY: Final = {
    "1.0": "http://schemas.xmlsoap.org/ws/2005/02/rm/policy",
    "1.1": "http://docs.oasis-open.org/ws-rx/wsrmp/200702",
}
_ADDRESSING: Final = {"2004/08": WSA_2004.namespace, "1.0": WSA_1_0.namespace}
_SOAP: Final = {"1.1": "http://schemas.xmlsoap.org/wsdl/soap/", "1.2": "http://schemas.xmlsoap.org/wsdl/soap12/"}
_METRO: Final = "http://schemas.sun.com/2006/03/wss"


def write(cell: Cell, folder: Path, keys: Path, address: str) -> None:
    """Lay the files of the cell under `folder`, which goes on the peer's class path."""
    files = {WSDL_PATH: _definitions(cell, keys, address)}
    if cell.peer == "metro" and cell.role == "client":
        files[CLIENT_PATH] = _metro_client(cell, keys)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def _definitions(cell: Cell, keys: Path, address: str) -> str:
    dialect = DIALECTS[cell.sc]
    message = _encrypted_body() if cell.secure and not cell.encrypt_lifecycle else ""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<wsdl:definitions name="Echo" targetNamespace="{NAMESPACE}" xmlns:tns="{NAMESPACE}"
    xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/" xmlns:soap="{_SOAP[cell.soap]}"
    xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:wsp="{dialect.policy}" xmlns:sp="{dialect.security}"
    xmlns:wsam="http://www.w3.org/2007/05/addressing/metadata"
    xmlns:wsu="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd">
  {_policy("Endpoint", _addressing(cell) + _reliability(cell) + _security(cell) + _metro_service(cell, keys))}
  {_policy("Message", message)}
  <wsdl:types><xs:schema targetNamespace="{NAMESPACE}" elementFormDefault="qualified">
    {_element("echo", "text")}{_element("echoResponse", "result")}{_element("tell", "text")}
  </xs:schema></wsdl:types>
  <wsdl:message name="echo"><wsdl:part name="in" element="tns:echo"/></wsdl:message>
  <wsdl:message name="echoResponse"><wsdl:part name="out" element="tns:echoResponse"/></wsdl:message>
  <wsdl:message name="tell"><wsdl:part name="in" element="tns:tell"/></wsdl:message>
  <wsdl:portType name="Echo">
    <wsdl:operation name="echo">
      <wsdl:input message="tns:echo" wsam:Action="{NAMESPACE}/echo"/>
      <wsdl:output message="tns:echoResponse" wsam:Action="{NAMESPACE}/echoResponse"/>
    </wsdl:operation>
    <wsdl:operation name="tell">
      <wsdl:input message="tns:tell" wsam:Action="{NAMESPACE}/tell"/>
    </wsdl:operation>
  </wsdl:portType>
  <wsdl:binding name="EchoBinding" type="tns:Echo">
    <wsp:PolicyReference URI="#Endpoint"/>
    <soap:binding style="document" transport="http://schemas.xmlsoap.org/soap/http"/>
    <wsdl:operation name="echo">
      <soap:operation soapAction="{NAMESPACE}/echo"/>
      <wsdl:input><wsp:PolicyReference URI="#Message"/><soap:body use="literal"/></wsdl:input>
      <wsdl:output><wsp:PolicyReference URI="#Message"/><soap:body use="literal"/></wsdl:output>
    </wsdl:operation>
    <wsdl:operation name="tell">
      <soap:operation soapAction="{NAMESPACE}/tell"/>
      <wsdl:input><wsp:PolicyReference URI="#Message"/><soap:body use="literal"/></wsdl:input>
    </wsdl:operation>
  </wsdl:binding>
  <wsdl:service name="EchoService"><wsdl:port name="EchoPort" binding="tns:EchoBinding">
    <soap:address location="{address}"/>
  </wsdl:port></wsdl:service>
</wsdl:definitions>
"""


def _policy(name: str, assertions: str) -> str:
    inner = f"<wsp:ExactlyOne><wsp:All>{assertions}</wsp:All></wsp:ExactlyOne>"
    return f'<wsp:Policy wsu:Id="{name}">{inner}</wsp:Policy>'


def _element(name: str, child: str) -> str:
    inner = f'<xs:element name="{child}" type="xs:string"/>'
    return (
        f'<xs:element name="{name}"><xs:complexType><xs:sequence>{inner}</xs:sequence>'
        "</xs:complexType></xs:element>"
    )


def _nested(name: str, *assertions: str) -> str:
    """An assertion with a policy of its own."""
    return f"<{name}><wsp:Policy>{''.join(assertions)}</wsp:Policy></{name.split(' ')[0]}>"


def _addressing(cell: Cell) -> str:
    if cell.addressing == "2004/08":
        return '<a:UsingAddressing xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing/policy"/>'
    return _nested("wsam:Addressing")


def _reliability(cell: Cell) -> str:
    if not cell.reliable:
        return ""
    name = f'r:RMAssertion xmlns:r="{_RM_POLICY[cell.rm]}"'
    if cell.rm == "1.0":  # delivery assurances are each stack's own matter: Metro's stands beside it
        ordered = '<o:Ordered xmlns:o="http://sun.com/2006/03/rm"/>' if cell.peer == "metro" else ""
        return f"<{name}/>{ordered}"
    token = "<r:SequenceSTR/>" if cell.sequence_token == "require" else ""
    return _nested(name, token, _nested("r:DeliveryAssurance", "<r:ExactlyOnce/><r:InOrder/>"))


def _security(cell: Cell) -> str:
    if not cell.secure:
        return ""
    space = DIALECTS[cell.sc].security
    conversation = _nested(
        f'sp:SecureConversationToken sp:IncludeToken="{space}/IncludeToken/AlwaysToRecipient"',
        "<sp:RequireDerivedKeys/>" if cell.derived_keys else "",
        _nested("sp:BootstrapPolicy", _bootstrap(cell)),
    )
    binding = _nested(
        "sp:SymmetricBinding",
        _nested("sp:ProtectionToken", conversation),
        _common(cell, "Lax"),
        "<sp:EncryptSignature/>" if cell.encrypt_signature else "",
    )
    encrypted = _encrypted_body() if cell.encrypt_lifecycle else ""
    return binding + _wss11() + _trust(cell) + _signed_parts(cell, application=True) + encrypted


def _bootstrap(cell: Cell) -> str:
    space = DIALECTS[cell.sc].security
    always, never = f"{space}/IncludeToken/AlwaysToRecipient", f"{space}/IncludeToken/Never"
    parts = _wss11(confirm=cell.bootstrap == "certificate") + _trust(cell)
    parts += _signed_parts(cell, application=False) + _encrypted_body()
    if cell.bootstrap == "mutual":
        binding = _nested(
            "sp:AsymmetricBinding",
            _nested("sp:InitiatorToken", _x509(always)),
            _nested("sp:RecipientToken", _x509(never, "<sp:RequireIssuerSerialReference/>")),
            _common(cell, "Strict"),
        )
        return binding + parts
    token = _x509(never, "<sp:RequireDerivedKeys/><sp:RequireThumbprintReference/>")
    binding = _nested(
        "sp:SymmetricBinding",
        _nested("sp:ProtectionToken", token),
        _common(cell, "Strict"),
        "<sp:EncryptSignature/>",
    )
    if cell.bootstrap == "certificate":
        return binding + parts + _nested("sp:EndorsingSupportingTokens", _x509(always))
    supporting = "SignedSupportingTokens" if space == _SP11 else "SignedEncryptedSupportingTokens"
    user = _nested(f'sp:UsernameToken sp:IncludeToken="{always}"', "<sp:WssUsernameToken10/>")
    return binding + parts + _nested(f"sp:{supporting}", user)


def _x509(include: str, reference: str = "") -> str:
    return _nested(f'sp:X509Token sp:IncludeToken="{include}"', reference, "<sp:WssX509V3Token10/>")


def _common(cell: Cell, layout: str) -> str:
    return (
        _nested("sp:AlgorithmSuite", f"<sp:{cell.suite}/>")
        + _nested("sp:Layout", f"<sp:{layout}/>")
        + "<sp:IncludeTimestamp/><sp:OnlySignEntireHeadersAndBody/>"
    )


def _wss11(*, confirm: bool = False) -> str:
    forms = ("KeyIdentifier", "IssuerSerial", "Thumbprint", "EncryptedKey")
    supported = [f"<sp:MustSupportRef{form}/>" for form in forms]
    return _nested("sp:Wss11", *supported, "<sp:RequireSignatureConfirmation/>" if confirm else "")


def _trust(cell: Cell) -> str:
    name = f"sp:{DIALECTS[cell.sc].trust}"
    return _nested(name, "<sp:MustSupportIssuedTokens/><sp:RequireClientEntropy/><sp:RequireServerEntropy/>")


def _signed_parts(cell: Cell, *, application: bool) -> str:
    space = _ADDRESSING[cell.addressing]
    names = ["To", "From", "FaultTo", "ReplyTo", "MessageID", "RelatesTo", "Action"]
    headers = [(name, space) for name in names]
    if application and cell.reliable:
        names = ["Sequence", "SequenceAcknowledgement", "AckRequested"]
        names += ["UsesSequenceSTR"] if cell.rm == "1.1" else []
        headers += [(name, _RM[cell.rm]) for name in names]
    listed = "".join(f'<sp:Header Name="{name}" Namespace="{namespace}"/>' for name, namespace in headers)
    return f"<sp:SignedParts><sp:Body/>{listed}</sp:SignedParts>"


def _encrypted_body() -> str:
    return "<sp:EncryptedParts><sp:Body/></sp:EncryptedParts>"


# ---------------------------------------------------------------- what only Metro reads


def _stores(side: str, keys: Path, who: str, peer: str = "") -> str:
    store = f'location="{keys / f"{who}.p12"}" type="PKCS12" storepass="{PASSWORD}"'
    other = f' peeralias="{peer}"' if peer else ""
    private = 'xmlns:vis="http://java.sun.com/xml/ns/wsit/policy" vis:visibility="private"'
    return (
        f'<m:KeyStore xmlns:m="{_METRO}/{side}" {private} {store} alias="{who}"/>'
        f'<m:TrustStore xmlns:m="{_METRO}/{side}" {private} {store}{other}/>'
    )


def _metro_service(cell: Cell, keys: Path) -> str:
    if cell.peer != "metro" or cell.role != "service" or not cell.secure:
        return ""
    parts = _stores("server", keys, "bob")
    if cell.bootstrap == "username":
        validator = '<m:Validator name="usernameValidator" classname="castile.interop.metro.Metro$Users"/>'
        parts += (
            f'<m:ValidatorConfiguration xmlns:m="{_METRO}/server">{validator}</m:ValidatorConfiguration>'
        )
    if cell.lifetime:
        space = "http://schemas.sun.com/ws/2006/05/sc/server"
        parts += _life("SCConfiguration", space, cell.lifetime)
    return parts


def _metro_client(cell: Cell, keys: Path) -> str:
    assertions = ""
    if cell.secure:
        assertions = _stores("client", keys, "alice", "bob")
        space = "http://schemas.sun.com/ws/2006/05/sc/client"
        options = 'renewExpiredSCT="true" requireCancelSCT="true"'
        assertions += _life("SCClientConfiguration", space, cell.lifetime, options)
    if cell.secure and cell.bootstrap == "username":
        handlers = (
            f'<m:CallbackHandler name="usernameHandler" default="{cell.user}"/>'
            f'<m:CallbackHandler name="passwordHandler" default="{cell.password}"/>'
        )
        name = "CallbackHandlerConfiguration"
        assertions += f'<m:{name} xmlns:m="{_METRO}/client">{handlers}</m:{name}>'
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<wsdl:definitions name="Echo" targetNamespace="{NAMESPACE}" xmlns:tns="{NAMESPACE}"
    xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/" xmlns:soap="{_SOAP[cell.soap]}"
    xmlns:wsp="{DIALECTS[cell.sc].policy}"
    xmlns:wsu="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd">
  {_policy("Client", assertions)}
  <wsdl:portType name="Echo"/>
  <wsdl:binding name="EchoBinding" type="tns:Echo"><wsp:PolicyReference URI="#Client"/></wsdl:binding>
  <wsdl:service name="EchoService"><wsdl:port name="EchoPort" binding="tns:EchoBinding"/></wsdl:service>
</wsdl:definitions>
"""


def _life(name: str, space: str, seconds: int, options: str = "") -> str:
    life = f"<c:LifeTime>{seconds * 1000}</c:LifeTime>" if seconds else ""
    return f'<c:{name} xmlns:c="{space}" {options}>{life}</c:{name}>'
