"""The namespaces of policy assertions, and the prefix that each goes by here.

Editions of one vocabulary share a prefix: an assertion means the same in each of them, and is
read by its label, such as ``sp:SignedParts``.
"""

from __future__ import annotations

from typing import Final

from castile.versions import WSP, WSSC_1_3, WSSC_2005, WST, Conversation

SP_1_1: Final = "http://schemas.xmlsoap.org/ws/2005/07/securitypolicy"
SP_1_2: Final = "http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200702"
SP_1_3: Final = "http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200802"
SP_DRAFT: Final = "http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200512"
"""Between 1.1 and 1.2: what every policy set shipped with WebSphere is written in. Read as 1.2."""
SP: Final = (SP_1_1, SP_1_2, SP_1_3, SP_DRAFT)
INCLUDE_TOKEN: Final = (
    f"{SP_1_1}/IncludeToken/",
    f"{SP_1_2}/IncludeToken/",
    f"{SP_DRAFT}/IncludeToken/",
    "http://docs.oasis-open.org/ws-sx/ws-trust/200702/ws-securitypolicy/IncludeToken/",  # a slip of 1.2
)
CONVERSATION_OF_SP: Final[dict[str, Conversation]] = {SP_1_1: WSSC_2005, SP_1_2: WSSC_1_3, SP_DRAFT: WSSC_1_3}
"""What a SecureConversationToken of an edition means where nothing says otherwise."""

RMP_1_0: Final = "http://schemas.xmlsoap.org/ws/2005/02/rm/policy"
RMP_1_1: Final = "http://docs.oasis-open.org/ws-rx/wsrmp/200702"
NETRMP: Final = "http://schemas.microsoft.com/ws-rx/wsrmp/200702"
MSSP: Final = "http://schemas.microsoft.com/ws/2005/07/securitypolicy"
WSAM: Final = "http://www.w3.org/2007/05/addressing/metadata"
WSAW: Final = "http://www.w3.org/2006/05/addressing/wsdl"
WSAP: Final = "http://schemas.xmlsoap.org/ws/2004/08/addressing/policy"
HTTP: Final = "http://schemas.microsoft.com/ws/06/2004/policy/http"
RM_FLOW: Final = "http://schemas.microsoft.com/net/2005/02/rm/policy"
METRO_RM: Final = "http://sun.com/2006/03/rm"
CXF: Final = "http://cxf.apache.org/custom/security-policy"
RSP: Final = "http://ws-i.org/profiles/rsp/1.0/"

_LABELS: Final = {
    **dict.fromkeys(SP, "sp"),
    RMP_1_0: "rmp10",
    RMP_1_1: "rmp",
    NETRMP: "netrmp",
    RM_FLOW: "netrmp",
    MSSP: "mssp",
    WSAM: "wsam",
    "http://www.w3.org/2007/02/addressing/metadata": "wsam",
    WSAW: "wsaw",
    WSAP: "wsap",
    "http://schemas.xmlsoap.org/ws/2004/09/policy/addressing": "wsap",
    "http://docs.oasis-open.org/ws-rx/wsmc/200702": "mc",
    "http://schemas.xmlsoap.org/ws/2004/09/policy/optimizedmimeserialization": "mtom",
    "http://www.w3.org/2007/08/soap12-mtom-policy": "mtom",
    HTTP: "http",
    "http://schemas.microsoft.com/ws/06/2004/mspolicy/netbinary1": "net",
    "http://schemas.microsoft.com/ws/2006/05/framing/policy": "net",
    "http://schemas.microsoft.com/ws/06/2004/mspolicy/msmq": "net",
    "http://schemas.microsoft.com/soap/websocket/policy": "net",
    "http://schemas.microsoft.com/net/2006/06/duplex": "duplex",
    "http://schemas.microsoft.com/ws/2005/05/routing/policy": "duplex",
    "http://docs.oasis-open.org/ws-tx/wsat/2006/06": "wsat",
    "http://schemas.xmlsoap.org/ws/2004/10/wsat": "wsat",
    "http://schemas.microsoft.com/ws/2006/02/tx/oletx": "wsat",
    CXF: "cxf",
    "http://java.sun.com/xml/ns/metro/ws-rx/wsrmp/200702": "metro",
    METRO_RM: "metro",
    "http://sun.com/2006/03/rm/client": "metro",
    "http://schemas.sun.com/2006/03/rm": "metro",
    "http://schemas.sun.com/2006/03/rm/client": "metro",
    "http://schemas.sun.com/2006/03/wss/server": "metro",
    "http://schemas.sun.com/2006/03/wss/client": "metro",
    "http://schemas.sun.com/ws/2006/05/sc/server": "metro",
    "http://schemas.sun.com/ws/2006/05/sc/client": "metro",
    "http://schemas.sun.com/ws/2006/05/trust/server": "metro",
    "http://schemas.sun.com/ws/2006/05/trust/client": "metro",
    "http://java.sun.com/xml/ns/wsit/policy": "metro",
    "http://java.sun.com/xml/ns/wsit/2006/09/policy/fastinfoset/service": "metro",
    "http://java.sun.com/xml/ns/wsit/2006/09/policy/encoding/client": "metro",
    "http://java.sun.com/xml/ns/wsit/2006/09/policy/soaptcp/service": "metro",
    "http://java.sun.com/xml/ns/wsit/2006/09/policy/transport/client": "metro",
    "http://ws.apache.org/rampart/policy": "rampart",
    "http://ws.apache.org/sandesha2/policy": "sandesha",
    "http://schemas.xmlsoap.org/ws/2004/09/policy/encoding": "encoding",
    RSP: "rsp",
    **dict.fromkeys(WST, "trust"),
}

PREFIXES: Final = _LABELS | dict.fromkeys(WSP, "wsp")
"""By namespace, for what is written."""


def label(name: str) -> str:
    """An assertion's short name, of a namespace that castile knows; else its Clark name."""
    namespace, local = split(name)
    prefix = _LABELS.get(namespace)
    return name if prefix is None else f"{prefix}:{local}"


def split(name: str) -> tuple[str, str]:
    """Namespace and local name of a Clark name."""
    namespace, _, local = name.rpartition("}")
    return namespace[1:], local


def is_known(name: str) -> bool:
    """Whether castile knows the namespace of an assertion at all."""
    return split(name)[0] in _LABELS
