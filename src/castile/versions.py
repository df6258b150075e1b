"""One frozen row per edition of each specification.

A row holds what differs: namespaces, actions, names and abilities. Nothing else in castile
branches on an edition; the next edition is a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WSSE: Final = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
WSU: Final = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"
WSSE11: Final = "http://docs.oasis-open.org/wss/oasis-wss-wssecurity-secext-1.1.xsd"
DS: Final = "http://www.w3.org/2000/09/xmldsig#"
XENC: Final = "http://www.w3.org/2001/04/xmlenc#"
XENC11: Final = "http://www.w3.org/2009/xmlenc11#"
EXC_C14N: Final = "http://www.w3.org/2001/10/xml-exc-c14n#"
WSMC: Final = "http://docs.oasis-open.org/ws-rx/wsmc/200702"
NETRM: Final = "http://schemas.microsoft.com/ws/2006/05/rm"

_WSS_SOAP_10: Final = (
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0"
)
_WSS_SOAP_11: Final = "http://docs.oasis-open.org/wss/oasis-wss-soap-message-security-1.1"
BASE64_BINARY: Final = f"{_WSS_SOAP_10}#Base64Binary"
STR_TRANSFORM: Final = f"{_WSS_SOAP_10}#STR-Transform"
THUMBPRINT_SHA1: Final = f"{_WSS_SOAP_11}#ThumbprintSHA1"
ENCRYPTED_KEY: Final = f"{_WSS_SOAP_11}#EncryptedKey"
ENCRYPTED_KEY_SHA1: Final = f"{_WSS_SOAP_11}#EncryptedKeySHA1"
_UT: Final = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0"
PASSWORD_TEXT: Final = f"{_UT}#PasswordText"
PASSWORD_DIGEST: Final = f"{_UT}#PasswordDigest"
_X509: Final = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-x509-token-profile-1.0"
X509_V3: Final = f"{_X509}#X509v3"
X509_PKIPATH: Final = f"{_X509}#X509PKIPathv1"
X509_SKI: Final = f"{_X509}#X509SubjectKeyIdentifier"


@dataclass(frozen=True, slots=True)
class SOAPVersion:
    """A version of SOAP."""

    name: str
    namespace: str
    content_type: str
    sender: str
    """Local name of the fault code for the sender's mistakes."""
    receiver: str


SOAP_1_1: Final = SOAPVersion(
    "SOAP 1.1", "http://schemas.xmlsoap.org/soap/envelope/", "text/xml", "Client", "Server"
)
SOAP_1_2: Final = SOAPVersion(
    "SOAP 1.2",
    "http://www.w3.org/2003/05/soap-envelope",
    "application/soap+xml",
    "Sender",
    "Receiver",
)
SOAP: Final = {row.namespace: row for row in (SOAP_1_1, SOAP_1_2)}


@dataclass(frozen=True, slots=True)
class Addressing:
    """An edition of WS-Addressing."""

    name: str
    namespace: str
    anonymous: str
    none: str | None
    fault_action: str
    """Action of WS-Addressing's own faults."""
    soap_fault_action: str
    """Action of all other faults."""
    reply_to_required: bool
    """2004/08 has no default for ReplyTo."""

    @property
    def reply_address(self) -> str | None:
        """To of a message on the back channel; None where leaving it out says the same (1.0)."""
        return self.anonymous if self.reply_to_required else None


_WSA04: Final = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
_WSA05: Final = "http://www.w3.org/2005/08/addressing"
WSA_2004: Final = Addressing(
    "WS-Addressing 2004/08",
    _WSA04,
    f"{_WSA04}/role/anonymous",
    None,
    f"{_WSA04}/fault",
    f"{_WSA04}/fault",
    reply_to_required=True,
)
WSA_1_0: Final = Addressing(
    "WS-Addressing 1.0",
    _WSA05,
    f"{_WSA05}/anonymous",
    f"{_WSA05}/none",
    f"{_WSA05}/fault",
    f"{_WSA05}/soap/fault",
    reply_to_required=False,
)
WSA: Final = {row.namespace: row for row in (WSA_2004, WSA_1_0)}
UNSPECIFIED: Final = frozenset({f"{_WSA04}/id/unspecified", f"{_WSA05}/unspecified"})
"""RelatesTo of what answers no message in particular, as CXF's acknowledgements that ride on
nothing (WS-Addressing 1.0 core, 3.2); CXF writes the one of 1.0 in both editions."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """An edition of WS-ReliableMessaging."""

    name: str
    namespace: str
    fault_action: str | None
    """Action of its faults; None: the SOAP fault action of the addressing edition."""
    can_close: bool
    """CloseSequence, TerminateSequenceResponse, Final, None and LastMsgNumber exist (1.1)."""
    wsrm_required: str | None
    """Local name of the fault that asks for reliable messaging."""

    def action(self, name: str) -> str:
        """The wsa:Action of a message (WS-RM 1.2, 3)."""
        return f"{self.namespace}/{name}"

    @property
    def has_last_message(self) -> bool:
        """The LastMessage element ends a sequence (1.0)."""
        return not self.can_close


_RM10: Final = "http://schemas.xmlsoap.org/ws/2005/02/rm"
_RM11: Final = "http://docs.oasis-open.org/ws-rx/wsrm/200702"
WSRM_1_0: Final = Reliability("WS-RM 1.0", _RM10, None, False, None)
WSRM_1_1: Final = Reliability("WS-RM 1.1", _RM11, f"{_RM11}/fault", True, "WSRMRequired")
WSRM: Final = {row.namespace: row for row in (WSRM_1_0, WSRM_1_1)}


@dataclass(frozen=True, slots=True)
class Trust:
    """An edition of WS-Trust. SCT actions live here too, as the field writes them."""

    name: str
    namespace: str
    collection: bool
    """Answers are wrapped in RequestSecurityTokenResponseCollection."""

    def action(self, name: str) -> str:
        """A wsa:Action such as ``RST/SCT`` or ``RSTR/SCT/Cancel`` (WS-SC, 3 to 6)."""
        return f"{self.namespace}/{name}"

    def uri(self, name: str) -> str:
        """A request type, entropy type or algorithm such as ``Issue``, ``CK/PSHA1``."""
        return f"{self.namespace}/{name}"


WST_2005: Final = Trust("WS-Trust 2005/02", "http://schemas.xmlsoap.org/ws/2005/02/trust", False)
WST_1_3: Final = Trust("WS-Trust 1.3", "http://docs.oasis-open.org/ws-sx/ws-trust/200512", True)
WST: Final = {row.namespace: row for row in (WST_2005, WST_1_3)}


@dataclass(frozen=True, slots=True)
class Conversation:
    """An edition of WS-SecureConversation."""

    name: str
    namespace: str
    token_type: str
    derived_key_type: str

    @property
    def p_sha1(self) -> str:
        """Algorithm URI of the key derivation (WS-SC, 7)."""
        return f"{self.derived_key_type}/p_sha1"


_SC05: Final = "http://schemas.xmlsoap.org/ws/2005/02/sc"
_SC13: Final = "http://docs.oasis-open.org/ws-sx/ws-secureconversation/200512"
WSSC_2005: Final = Conversation("WS-SC 2005/02", _SC05, f"{_SC05}/sct", f"{_SC05}/dk")
WSSC_1_3: Final = Conversation("WS-SC 1.3", _SC13, f"{_SC13}/sct", f"{_SC13}/dk")
WSSC: Final = {row.namespace: row for row in (WSSC_2005, WSSC_1_3)}
CONVERSATION_REASONS: Final = {
    "BadContextToken": "The requested context elements are insufficient or unsupported.",
    "UnsupportedContextToken": "Not all of the values associated with the SCT are supported.",
    "UnknownDerivationSource": "The specified source for the derivation is unknown.",
    "RenewNeeded": "The provided context token has expired.",
    "UnableToRenew": "The specified context token could not be renewed.",
}
"""What a fault about a context says, in either edition (WS-SC 1.3, 9)."""

TRUST_OF: Final = {WSSC_2005.namespace: WST_2005, WSSC_1_3.namespace: WST_1_3}
"""The WS-Trust twin of each WS-SecureConversation edition."""
CONVERSATION_OF: Final = {WST_2005.namespace: WSSC_2005, WST_1_3.namespace: WSSC_1_3}


@dataclass(frozen=True, slots=True)
class Family:
    """The pairs that exist in the field, under the name a person uses for them."""

    name: str
    reliability: Reliability
    conversation: Conversation
    trust: Trust


FAMILIES: Final = {
    row.name: row
    for row in (
        Family("2005", WSRM_1_0, WSSC_2005, WST_2005),
        Family("1.3", WSRM_1_1, WSSC_1_3, WST_1_3),
    )
}



@dataclass(frozen=True, slots=True)
class PolicyLanguage:
    """An edition of WS-Policy."""

    name: str
    namespace: str


WSP_1_2: Final = PolicyLanguage("WS-Policy 1.2", "http://schemas.xmlsoap.org/ws/2004/09/policy")
WSP_DRAFT: Final = PolicyLanguage("WS-Policy draft 2006/07", "http://www.w3.org/2006/07/ws-policy")
WSP_1_5: Final = PolicyLanguage("WS-Policy 1.5", "http://www.w3.org/ns/ws-policy")
WSP: Final = {row.namespace: row for row in (WSP_1_2, WSP_DRAFT, WSP_1_5)}

PREFIXES: Final = {
    SOAP_1_1.namespace: "s",
    SOAP_1_2.namespace: "s",
    _WSA04: "wsa",
    _WSA05: "wsa",
    _RM10: "wsrm",
    _RM11: "wsrm",
    WSSE: "wsse",
    WSU: "wsu",
    WSSE11: "wsse11",
    DS: "ds",
    XENC: "xenc",
    WST_2005.namespace: "wst",
    WST_1_3.namespace: "wst",
    _SC05: "wsc",
    _SC13: "wsc",
    WSMC: "wsmc",
}
"""How parts are named for people (``wsa:To``, ``wsrm:Sequence``), whatever the edition."""


def part_name(namespace: str | None, local: str) -> str:
    """The name of a part as people read it; ``Body`` stands bare."""
    prefix = PREFIXES.get(namespace or "")
    if prefix == "s" and local == "Body":
        return "Body"
    if prefix is None:
        return f"{{{namespace}}}{local}" if namespace else local
    return f"{prefix}:{local}"
