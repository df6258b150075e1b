"""Each assertion, on and off: it changes the fields that it should, and nothing else."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from castile.errors import PolicyError
from castile.policy import SupportingToken
from castile.policy.parts import HeaderPart
from castile.policy.suites import SUITES
from castile.versions import (
    DS,
    WSA_1_0,
    WSA_2004,
    WSRM_1_0,
    WSRM_1_1,
    WSSC_2005,
    WSSE,
    WST_2005,
)
from tests.policy.asked import (
    ALONE,
    CONVERSING,
    MUTUAL,
    OVER_TLS,
    SEALED,
    SP,
    TO_RECIPIENT,
    changed,
    filled,
    reading,
)

S12: Final = "http://www.w3.org/2003/05/soap-envelope"
DRAFT: Final = "http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200512"
SP13: Final = "http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200802"
MSSP: Final = 'xmlns:mssp="http://schemas.microsoft.com/ws/2005/07/securitypolicy"'
RMP10: Final = 'xmlns="http://schemas.xmlsoap.org/ws/2005/02/rm/policy"'
RMP: Final = 'xmlns="http://docs.oasis-open.org/ws-rx/wsrmp/200702"'
NETRMP: Final = 'xmlns="http://schemas.microsoft.com/ws-rx/wsrmp/200702"'
HTTP: Final = 'xmlns="http://schemas.microsoft.com/ws/06/2004/policy/http"'
NO_STR: Final = {"uses_sequence_str": False}

ADDRESSED: Final = {
    '<wsam:Addressing xmlns:wsam="http://www.w3.org/2007/05/addressing/metadata"/>': WSA_1_0,
    "<wsam:Addressing><wsp:Policy><wsam:AnonymousResponses/></wsp:Policy></wsam:Addressing>": WSA_1_0,
    '<wsam:Addressing xmlns:wsam="http://www.w3.org/2007/02/addressing/metadata"/>': WSA_1_0,
    '<UsingAddressing xmlns="http://www.w3.org/2006/05/addressing/wsdl"/>': WSA_1_0,
    '<UsingAddressing xmlns="http://schemas.xmlsoap.org/ws/2004/08/addressing/policy"/>': WSA_2004,
    '<UsingAddressing xmlns="http://schemas.xmlsoap.org/ws/2004/09/policy/addressing"/>': WSA_2004,
}


@pytest.mark.row("PO-20")
@pytest.mark.parametrize("text", ADDRESSED)
def test_addressing(text: str) -> None:
    found = reading(filled(ALONE, top=text)).policy
    assert (found.addressed, found.addressing) == (True, ADDRESSED[text])
    assert not reading(filled(ALONE)).policy.addressed


@pytest.mark.row("PO-20")
@pytest.mark.parametrize(
    "text",
    [
        "<wsam:Addressing><wsp:Policy><wsam:NonAnonymousResponses/></wsp:Policy></wsam:Addressing>",
        '<Anonymous xmlns="http://www.w3.org/2006/05/addressing/wsdl">prohibited</Anonymous>',
    ],
)
def test_a_client_has_no_address_for_replies(text: str) -> None:
    with pytest.raises(PolicyError, match="wants replies at another address"):
        reading(filled(ALONE, top=text))


def assured(inner: str) -> str:
    return f"<DeliveryAssurance><wsp:Policy>{inner}</wsp:Policy></DeliveryAssurance>"


RELIABLE: Final[dict[str, dict[str, Any]]] = {
    f"<RMAssertion {RMP10}/>": {"reliability": WSRM_1_0},
    f'<RMAssertion {RMP10}><InactivityTimeout Milliseconds="600000"/></RMAssertion>': {
        "reliability": WSRM_1_0,
        "delivery.inactivity": 600.0,
    },
    f'<RMAssertion {RMP10}><BaseRetransmissionInterval Milliseconds="3000"/><ExponentialBackoff/>'
    '<AcknowledgementInterval Milliseconds="200"/></RMAssertion>': {
        "reliability": WSRM_1_0,
        "delivery.retransmission": 3.0,
        "delivery.exponential": True,
        "delivery.acknowledgement": 0.2,
    },
    f"<RMAssertion {RMP}/>": {"reliability": WSRM_1_1} | NO_STR,
    f"<RMAssertion {RMP}><wsp:Policy/></RMAssertion>": {"reliability": WSRM_1_1} | NO_STR,
    f"<RMAssertion {RMP}><wsp:Policy><SequenceSTR/></wsp:Policy></RMAssertion>": {
        "reliability": WSRM_1_1,
        "sequence_token": "require",
    },
    f"<RMAssertion {RMP}><wsp:Policy>{assured('<ExactlyOnce/><InOrder/>')}</wsp:Policy></RMAssertion>": {
        "reliability": WSRM_1_1,
        "delivery.assurance": "exactly-once",
        "delivery.in_order": True,
    }
    | NO_STR,
    f"<RMAssertion {RMP}><wsp:Policy>{assured('<AtMostOnce/>')}</wsp:Policy></RMAssertion>": {
        "reliability": WSRM_1_1,
        "delivery.assurance": "at-most-once",
    }
    | NO_STR,
    f"<RMAssertion {RMP}><wsp:Policy>{assured('<AtLeastOnce/>')}</wsp:Policy></RMAssertion>": {
        "reliability": WSRM_1_1,
        "delivery.assurance": "at-least-once",
    }
    | NO_STR,
    f'<RMAssertion {RMP}><wsp:Policy/><InactivityTimeout {NETRMP} Milliseconds="1000"/>'
    f'<AcknowledgementInterval {NETRMP} Milliseconds="200"/></RMAssertion>': {
        "reliability": WSRM_1_1,
        "delivery.inactivity": 1.0,
        "delivery.acknowledgement": 0.2,
    }
    | NO_STR,
    f'<RMAssertion {RMP10}/><RmFlowControl xmlns="http://schemas.microsoft.com/net/2005/02/rm/policy">'
    "<MaxReceiveBufferSize>32</MaxReceiveBufferSize></RmFlowControl>": {
        "reliability": WSRM_1_0,
        "delivery.window": 32,
    },
    f'<RMAssertion {RMP10}/><Ordered xmlns="http://sun.com/2006/03/rm"/>'
    '<Persistent xmlns="http://sun.com/2006/03/rm"/>': {
        "reliability": WSRM_1_0,
        "delivery.in_order": True,
    },
    f'<RMAssertion {RMP10}/><AllowDuplicates xmlns="http://sun.com/2006/03/rm"/>': {
        "reliability": WSRM_1_0,
        "delivery.assurance": "at-least-once",
    },
}


@pytest.mark.row("PO-21", "PO-22", "PO-43", "PO-47")
@pytest.mark.parametrize("text", RELIABLE)
def test_reliability(text: str) -> None:
    """RM needs addressing, said or not (WS-RM 1.2, 2)."""
    assert changed(ALONE, top=text) == {"addressed": True} | RELIABLE[text]


@pytest.mark.row("PO-22")
def test_one_edition_of_reliability_at_a_time() -> None:
    both = f"<RMAssertion {RMP10}/><RMAssertion {RMP}/>"
    with pytest.raises(PolicyError, match="stands beside the one of another edition"):
        reading(filled(ALONE, top=both))
    choice = f"<RMAssertion {RMP10}/><RMAssertion {RMP}/>"
    found = reading(filled(ALONE, top=f"<wsp:ExactlyOne>{choice}</wsp:ExactlyOne>"))
    assert (found.policy.reliability, found.alternative) == (WSRM_1_1, 2)


def https(inner: str) -> dict[str, str]:
    return {"token": f"<sp:HttpsToken><wsp:Policy>{inner}</wsp:Policy></sp:HttpsToken>"}


def layout(name: str) -> dict[str, str]:
    return {"binding": f"<sp:Layout><wsp:Policy><sp:{name}/></wsp:Policy></sp:Layout>"}


def trust(inner: str, name: str = "Trust13") -> str:
    return f"<sp:{name}><wsp:Policy>{inner}</wsp:Policy></sp:{name}>"


BINDINGS: Final[dict[str, tuple[str, dict[str, str], dict[str, Any]]]] = {
    "IncludeTimestamp": (SEALED, {"binding": "<sp:IncludeTimestamp/>"}, {"application.timestamp": True}),
    "EncryptSignature": (
        SEALED,
        {"binding": "<sp:EncryptSignature/>"},
        {"application.encrypt_signature": True},
    ),
    "EncryptBeforeSigning": (
        SEALED,
        {"binding": "<sp:EncryptBeforeSigning/>"},
        {"application.order": "encrypt-before-sign"},
    ),
    "SignBeforeEncrypting": (SEALED, {"binding": "<sp:SignBeforeEncrypting/>"}, {}),
    "ProtectTokens": (SEALED, {"binding": "<sp:ProtectTokens/>"}, {"application.protect_tokens": True}),
    "OnlySign…": (SEALED, {"binding": "<sp:OnlySignEntireHeadersAndBody/>"}, {}),
    "Strict": (SEALED, layout("Strict"), {"application.layout": "Strict"}),
    "Lax": (SEALED, layout("Lax"), {}),
    "LaxTsFirst": (SEALED, layout("LaxTsFirst"), {"application.layout": "LaxTsFirst"}),
    "LaxTsLast": (SEALED, layout("LaxTsLast"), {"application.layout": "LaxTsLast"}),
    "RequireDerivedKeys": (
        SEALED,
        {"token": "<sp:RequireDerivedKeys/>"},
        {"application.derived_keys": True},
    ),
    "RequireExplicitDerivedKeys": (
        SEALED,
        {"token": "<sp:RequireExplicitDerivedKeys/>"},
        {"application.derived_keys": True},
    ),
    "RequireIssuerSerialReference": (
        SEALED,
        {"token": "<sp:RequireIssuerSerialReference/>"},
        {"application.reference": "issuer-serial"},
    ),
    "RequireKeyIdentifierReference": (
        SEALED,
        {"token": "<sp:RequireKeyIdentifierReference/>"},
        {"application.reference": "key-identifier"},
    ),
    "RequireThumbprintReference": (SEALED, {"token": "<sp:RequireThumbprintReference/>"}, {}),
    "Wss11": (
        SEALED,
        {"top": "<sp:Wss11><wsp:Policy><sp:RequireSignatureConfirmation/></wsp:Policy></sp:Wss11>"},
        {"application.signature_confirmation": True},
    ),
    "Wss10": (
        SEALED,
        {"top": "<sp:Wss10><wsp:Policy><sp:MustSupportRefIssuerSerial/></wsp:Policy></sp:Wss10>"},
        {"application.reference": "issuer-serial", "application.encrypted_header": False},
    ),
    "the initiator's reference": (
        MUTUAL,
        {"initiator": "<sp:RequireIssuerSerialReference/>"},
        {},
    ),
    "the recipient's reference": (
        MUTUAL,
        {"token": "<sp:RequireIssuerSerialReference/>"},
        {"application.reference": "issuer-serial"},
    ),
    "RequireClientCertificate": (
        OVER_TLS,
        https("<sp:RequireClientCertificate/>"),
        {"tls_client_certificate": True},
    ),
    "RequireClientCertificate of 1.1": (
        OVER_TLS,
        {"token": '<sp:HttpsToken RequireClientCertificate="true"/>'},
        {"tls_client_certificate": True},
    ),
    "HttpBasicAuthentication": (
        OVER_TLS,
        https("<sp:HttpBasicAuthentication/>"),
        {"http_authentication": "basic"},
    ),
    "HttpDigestAuthentication": (
        OVER_TLS,
        https("<sp:HttpDigestAuthentication/>"),
        {"http_authentication": "digest"},
    ),
    "HttpToken": (OVER_TLS, {"token": "<sp:HttpToken/>"}, {"tls": False}),
    "BasicAuthentication": (
        OVER_TLS,
        {"top": f"<BasicAuthentication {HTTP}/>"},
        {"http_authentication": "basic"},
    ),
    "NtlmAuthentication": (
        OVER_TLS,
        {"top": f"<NtlmAuthentication {HTTP}/>"},
        {"http_authentication": "ntlm"},
    ),
    "NegotiateAuthentication": (
        OVER_TLS,
        {"top": f"<NegotiateAuthentication {HTTP}/>"},
        {"http_authentication": "negotiate"},
    ),
    "MustNotSendCancel": (CONVERSING, {"token": "<sp:MustNotSendCancel/>"}, {"cancels_contexts": False}),
    "mssp:MustNotSendCancel": (
        CONVERSING,
        {"token": f"<mssp:MustNotSendCancel {MSSP}/>"},
        {"cancels_contexts": False},
    ),
    "mssp:RequireCancel": (CONVERSING, {"token": f"<mssp:RequireCancel {MSSP}/>"}, {}),
    "MustNotSendRenew": (CONVERSING, {"token": "<sp:MustNotSendRenew/>"}, {"renews_contexts": False}),
    "MustNotSendAmend": (CONVERSING, {"token": "<sp:MustNotSendAmend/>"}, {}),
    "SC13SecurityContextToken": (CONVERSING, {"token": "<sp:SC13SecurityContextToken/>"}, {}),
    "SC10SecurityContextToken": (
        CONVERSING,
        {"token": "<sp:SC10SecurityContextToken/>"},
        {"conversation": WSSC_2005, "trust": WST_2005},
    ),
    "Trust10": (
        CONVERSING,
        {"top": trust("<sp:MustSupportIssuedTokens/>", "Trust10")},
        {"conversation": WSSC_2005, "trust": WST_2005},
    ),
    "RequireClientEntropy": (
        CONVERSING,
        {"top": trust("<sp:RequireClientEntropy/>")},
        {"require_client_entropy": True},
    ),
    "RequireServerEntropy": (
        CONVERSING,
        {"top": trust("<sp:RequireServerEntropy/><sp:MustSupportServerChallenge/>")},
        {"require_server_entropy": True},
    ),
    "RequireRequestSecurityTokenCollection": (
        CONVERSING,
        {"top": trust("<sp:RequireRequestSecurityTokenCollection/>")},
        {},
    ),
    "ScopePolicy15": (CONVERSING, {"top": trust(f'<ScopePolicy15 xmlns="{SP13}"/>')}, {}),
    "derived keys of a context": (
        CONVERSING,
        {"token": "<sp:RequireDerivedKeys/>"},
        {"application.derived_keys": True},
    ),
    "EncryptRMLifecycleMessage": (
        SEALED,
        {"top": '<EncryptRMLifecycleMessage xmlns="http://schemas.sun.com/2006/03/wss/server"/>'},
        {"encrypt_lifecycle": True},
    ),
}


@pytest.mark.row("PO-26", "PO-28", "PO-29", "PO-30", "PO-32", "PO-42", "PO-44", "PO-48")
@pytest.mark.parametrize("name", BINDINGS)
def test_bindings(name: str) -> None:
    form, slots, expected = BINDINGS[name]
    assert changed(form, **slots) == expected


@pytest.mark.row("PO-26")
def test_one_certificate_may_be_named_for_signature_and_encryption_apart() -> None:
    holder = re.search(r"<sp:ProtectionToken>(.*?)</sp:ProtectionToken>", filled(SEALED), re.DOTALL)
    assert holder is not None
    pair = "".join(f"<sp:{name}Token>{holder[1]}</sp:{name}Token>" for name in ("Signature", "Encryption"))
    assert reading(filled(SEALED).replace(holder[0], pair)).policy == reading(filled(SEALED)).policy
    mutual = filled(MUTUAL)
    for role in ("Initiator", "Recipient"):
        (found,) = re.findall(rf"<sp:{role}Token>(.*?)</sp:{role}Token>", mutual, re.DOTALL)
        uses = (f"{role}Signature", f"{role}Encryption")
        both = "".join(f"<sp:{use}Token>{found}</sp:{use}Token>" for use in uses)
        mutual = mutual.replace(f"<sp:{role}Token>{found}</sp:{role}Token>", both)
    assert reading(mutual).policy == reading(filled(MUTUAL)).policy


def supporting(kind: str, token: str) -> str:
    return f"<sp:{kind}SupportingTokens><wsp:Policy>{token}</wsp:Policy></sp:{kind}SupportingTokens>"


USER: Final = f"<sp:UsernameToken {TO_RECIPIENT}>{{}}</sp:UsernameToken>"
X509: Final = f"<sp:X509Token {TO_RECIPIENT}><wsp:Policy><sp:WssX509V3Token10/></wsp:Policy></sp:X509Token>"


def added(form: str, **slots: str) -> SupportingToken:
    """The one supporting token that these assertions bring."""
    (rows,) = changed(form, **slots).values()
    assert isinstance(rows, tuple)
    (row,) = rows
    assert isinstance(row, SupportingToken)
    return row


KINDS: Final = {
    "": (False, False, False),
    "Signed": (True, False, False),
    "Endorsing": (False, False, True),
    "SignedEndorsing": (True, False, True),
}


@pytest.mark.row("MS-56", "PO-29")
@pytest.mark.parametrize("kind", KINDS)
def test_supporting_certificates(kind: str) -> None:
    token = added(SEALED, top=supporting(kind, X509))
    assert (token.token, token.reference) == ("x509", "direct")
    assert (token.signed, token.encrypted, token.endorsing) == KINDS[kind]


@pytest.mark.row("PO-50", "MS-58", "PO-29", "PO-30")
@pytest.mark.parametrize("kind", ["", "Signed", "SignedEncrypted", "Encrypted"])
def test_a_password_is_encrypted_whatever_the_policy_says(kind: str) -> None:
    token = added(SEALED, top=supporting(kind, USER.format("")))
    assert (token.token, token.password, token.encrypted) == ("username", "text", True)
    assert token.signed == kind.startswith("Signed")


def test_over_tls_there_is_no_key_to_encrypt_a_password_with() -> None:
    assert not added(OVER_TLS, top=supporting("SignedEncrypted", USER.format(""))).encrypted


PASSWORDS: Final[dict[str, dict[str, Any]]] = {
    "<sp:WssUsernameToken11/>": {},
    "<sp:HashPassword/>": {"password": "digest"},
    "<sp:NoPassword/>": {"password": "none", "encrypted": False},
    f'<Created xmlns="{SP13}"/>': {"created": True},
    f'<Nonce xmlns="{SP13}"/>': {"nonce": True},
}


@pytest.mark.row("PO-30")
@pytest.mark.parametrize("text", PASSWORDS)
def test_passwords(text: str) -> None:
    token = USER.format(f"<wsp:Policy>{text}</wsp:Policy>")
    row = added(SEALED, top=supporting("Signed", token))
    usual = {"password": "text", "encrypted": True, "created": False, "nonce": False}
    assert {name: getattr(row, name) for name in usual} == usual | PASSWORDS[text]


@pytest.mark.row("MS-56", "MS-57")
def test_an_endorsing_token_says_what_it_signs() -> None:
    to = f'<sp:SignedParts><sp:Header Name="To" Namespace="{WSA_1_0.namespace}"/></sp:SignedParts>'
    row = added(OVER_TLS, top=supporting("Endorsing", X509 + to))
    assert row.parts.signed_headers == {HeaderPart(WSA_1_0.namespace, "To")}


INCLUDED: Final = {
    f"{SP}/IncludeToken/Never": ("thumbprint", False),
    f"{SP}/IncludeToken/Once": ("direct", False),
    f"{SP}/IncludeToken/AlwaysToRecipient": ("direct", False),
    f"{SP}/IncludeToken/AlwaysToInitiator": ("thumbprint", True),
    f"{SP}/IncludeToken/Always": ("direct", True),
    "http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200512/IncludeToken/Never": ("thumbprint", False),
    "http://docs.oasis-open.org/ws-sx/ws-trust/200702/ws-securitypolicy/IncludeToken/Never": (
        "thumbprint",
        False,
    ),
}


@pytest.mark.row("PO-30", "PO-31")
@pytest.mark.parametrize("uri", INCLUDED)
def test_which_way_a_token_travels(uri: str) -> None:
    text = (
        filled(MUTUAL)
        .replace(f"{SP}/IncludeToken/AlwaysToRecipient", uri)
        .replace(f"{SP}/IncludeToken/Never", uri)
    )
    found = reading(text).policy.application
    assert found is not None
    assert (found.initiator_reference, found.recipient_included) == INCLUDED[uri]


@pytest.mark.row("PO-30")
def test_an_unknown_inclusion_is_refused() -> None:
    text = filled(SEALED).replace("IncludeToken/Never", "IncludeToken/Sometimes")
    with pytest.raises(PolicyError, match="has an IncludeToken that isn't one of five"):
        reading(text)


@pytest.mark.row("PO-27", "MS-30")
@pytest.mark.parametrize("suite", SUITES)
def test_suites(suite: str) -> None:
    element = f"<sp:{suite}/>"
    if "GCM" in suite:
        element = f'<{suite} xmlns="http://cxf.apache.org/custom/security-policy"/>'
    found = reading(filled(SEALED).replace("<sp:Basic256/>", element)).policy.application
    assert found is not None
    assert found.suite is SUITES[suite]


@pytest.mark.row("PO-27")
def test_properties_of_suites() -> None:
    assert changed(SEALED, suite="<sp:STRTransform10/><sp:XPath10/><sp:AbsXPath/>") == {}
    for name in ("InclusiveC14N", "SOAPNormalization10", "XPathFilter20"):
        with pytest.raises(PolicyError, match=f"sp:{name}.*asks for"):
            reading(filled(SEALED, suite=f"<sp:{name}/>"))


@pytest.mark.row("PO-31")
@pytest.mark.parametrize("form", [SEALED, MUTUAL, OVER_TLS, CONVERSING])
def test_the_draft_of_1_2_is_read_as_1_2(form: str) -> None:
    text = filled(form, top=supporting("Signed", USER.format("")))
    draft = text.replace("<wsp:Policy>", f'<wsp:Policy xmlns:sp="{DRAFT}">', 1)
    assert reading(draft).policy == reading(text).policy


@pytest.mark.row("PO-31")
@pytest.mark.parametrize("name", ["RequireAppliesTo", "RequireAppiesTo"])
def test_both_spellings_of_applies_to(name: str) -> None:
    with pytest.raises(PolicyError, match=r"wants AppliesTo in requests for tokens"):
        reading(filled(CONVERSING, top=trust(f"<sp:{name}/>")))


def header(name: str) -> HeaderPart:
    return HeaderPart("urn:h", name)


PARTS: Final[dict[str, dict[str, Any]]] = {
    "<sp:SignedParts/>": {"every_header": True},
    '<sp:SignedParts><sp:Header Namespace="urn:h"/></sp:SignedParts>': {
        "signed_headers": frozenset({header("")})
    },
    '<sp:SignedParts><sp:Header Name="A" Namespace="urn:h"/></sp:SignedParts>'
    '<sp:SignedParts><sp:Header Name="B" Namespace="urn:h"/></sp:SignedParts>': {
        "signed_headers": frozenset({header("A"), header("B")})
    },
    "<sp:EncryptedParts><sp:Body/></sp:EncryptedParts>": {"encrypted_body": True},
    '<sp:EncryptedParts><sp:Header Name="A" Namespace="urn:h"/></sp:EncryptedParts>': {
        "encrypted_headers": frozenset({header("A")})
    },
    '<sp:RequiredParts><sp:Header Name="A" Namespace="urn:h"/></sp:RequiredParts>': {
        "required": frozenset({header("A")})
    },
    f'<sp:SignedElements><sp:XPath xmlns:s="{S12}" xmlns:h="urn:h">/s:Envelope/s:Header/h:A</sp:XPath>'
    "</sp:SignedElements>": {"signed_headers": frozenset({header("A")})},
    f"<sp:EncryptedElements><sp:XPath>/*[namespace-uri()='{S12}' and local-name()='Envelope']"
    f"/*[namespace-uri()='{S12}' and local-name()='Body']</sp:XPath></sp:EncryptedElements>": {
        "encrypted_body": True
    },
    f'<sp:RequiredElements><sp:XPath xmlns:s="{S12}" xmlns:h="urn:h">/s:Envelope/s:Header/h:A</sp:XPath>'
    "</sp:RequiredElements>": {"required": frozenset({header("A")})},
}


@pytest.mark.row("PO-33", "MS-50", "MS-52", "MS-53")
@pytest.mark.parametrize("text", PARTS)
def test_parts(text: str) -> None:
    found = changed(SEALED, top=text)
    found.pop("encrypt_lifecycle", None)  # what is encrypted at the endpoint is so in every message
    assert found == {f"application.parts.{name}": value for name, value in PARTS[text].items()}


@pytest.mark.row("MS-53", "PO-33")
def test_the_signature_named_by_a_path() -> None:
    start = f'<sp:XPath xmlns:s="{S12}" xmlns:o="{WSSE}" xmlns:d="{DS}">/s:Envelope/s:Header'
    text = f"<sp:EncryptedElements>{start}/o:Security/d:Signature</sp:XPath></sp:EncryptedElements>"
    assert changed(SEALED, top=text) == {"application.encrypt_signature": True}


@pytest.mark.row("MS-53", "PO-33")
@pytest.mark.parametrize(
    "path",
    [
        "//x",
        "/a:A/b:B",
        "/s:Envelope/s:Header/h:A/h:B",
        "/s:Envelope/s:Body/h:A",
        "/s:Envelope/s:Header/*",
        "/s:Envelope/s:Header/h:A[position()=1]",
        "/s:Envelope/s:Header/*[namespace-uri()='urn:h']",
        "/s:Envelope/s:Header/*[local-name()='A' or namespace-uri()='urn:h']",
        "count(/s:Envelope)",
        "/s:Envelope" * 300,
        "",
    ],
)
def test_any_other_path_is_refused_and_never_evaluated(path: str) -> None:
    start = f'<sp:SignedElements><sp:XPath xmlns:s="{S12}" xmlns:h="urn:h">'
    text = f"{start}{path}</sp:XPath></sp:SignedElements>"
    with pytest.raises(PolicyError, match="holds a path that leads to no header and not to the Body"):
        reading(filled(SEALED, top=text))


UNAVAILABLE: Final = {
    "sp:IssuedToken": supporting("Endorsing", "<sp:IssuedToken/>"),
    "sp:SamlToken": supporting("Signed", "<sp:SamlToken/>"),
    "sp:KerberosToken": supporting("Endorsing", "<sp:KerberosToken/>"),
    "sp:KeyValueToken": supporting("Endorsing", "<sp:KeyValueToken/>"),
    "sp:RelToken": supporting("", "<sp:RelToken/>"),
    "mssp:RsaToken": supporting("Endorsing", f"<mssp:RsaToken {MSSP}/>"),
    "mssp:SslContextToken": supporting("Endorsing", f"<mssp:SslContextToken {MSSP}/>"),
    "sp:SpnegoContextToken": supporting("Endorsing", "<sp:SpnegoContextToken/>"),
    "sp:Attachments": "<sp:SignedParts><sp:Attachments/></sp:SignedParts>",
    "rmp:SequenceTransportSecurity": f"<RMAssertion {RMP}><wsp:Policy><SequenceTransportSecurity/>"
    "</wsp:Policy></RMAssertion>",
    "mc:MCSupported": '<MCSupported xmlns="http://docs.oasis-open.org/ws-rx/wsmc/200702"/>',
    "mtom:OptimizedMimeSerialization": "<OptimizedMimeSerialization "
    'xmlns="http://schemas.xmlsoap.org/ws/2004/09/policy/optimizedmimeserialization"/>',
    "mtom:MTOM": '<MTOM xmlns="http://www.w3.org/2007/08/soap12-mtom-policy"/>',
    "net:BinaryEncoding": '<BinaryEncoding xmlns="http://schemas.microsoft.com/ws/06/2004/mspolicy/netbinary1"/>',
    "duplex:CompositeDuplex": '<CompositeDuplex xmlns="http://schemas.microsoft.com/net/2006/06/duplex"/>',
    "wsat:ATAssertion": '<ATAssertion xmlns="http://docs.oasis-open.org/ws-tx/wsat/2006/06"/>',
}


@pytest.mark.row("PO-08", "PO-10", "L-06", "PO-24", "PO-25", "PO-29")
@pytest.mark.row("PO-40", "PO-41", "PO-42", "PO-45", "PO-46", "PO-49")
@pytest.mark.parametrize("name", UNAVAILABLE)
def test_what_castile_knows_of_and_cannot_do_is_refused_by_name(name: str) -> None:
    """QName, file, line, subject, reason and remedy."""
    with pytest.raises(PolicyError) as caught:
        reading(filled(SEALED, top=UNAVAILABLE[name]))
    assert re.match(rf"a\.wsdl:\d+: {name} \({{.*}}\w+\) of binding B \w.*; \w", str(caught.value))


@pytest.mark.row("CO-07")
def test_sequences_bound_to_tls_are_refused() -> None:
    with pytest.raises(PolicyError, match="binds sequences to a TLS connection"):
        reading(filled(ALONE, top=UNAVAILABLE["rmp:SequenceTransportSecurity"]))
