"""What vendors write beside the standards, and what castile knows of but can't do (features 6.3)."""

from __future__ import annotations

from typing import Final

_KNOWN_KEYS: Final = "an endpoint with negotiateServiceCredential='false' is wanted"
_OTHER_TOKEN: Final = "an endpoint that takes a user name or a certificate is wanted"
_OTHER_ENDPOINT: Final = "another endpoint of the service is wanted: SOAP over HTTP"
UNAVAILABLE: Final[dict[str, tuple[str, ...]]] = {
    "mssp:SslContextToken": ("asks for a TLS negotiation inside SOAP, which can't be done yet", _KNOWN_KEYS),
    "sp:SpnegoContextToken": ("asks for a negotiation inside SOAP, which can't be done yet", _KNOWN_KEYS),
    "mssp:RsaToken": ("asks for a bare RSA key as token, which can't be used yet", _OTHER_TOKEN),
    "sp:KeyValueToken": ("asks for a bare RSA key as token, which can't be used yet", _OTHER_TOKEN),
    "sp:IssuedToken": (
        "asks for a token from a security token service, which can't be fetched yet",
        _OTHER_TOKEN,
    ),
    "sp:SamlToken": ("asks for a SAML assertion, which can't be used yet", _OTHER_TOKEN),
    "sp:KerberosToken": ("asks for a Kerberos ticket, which can't be used yet", _OTHER_TOKEN),
    "sp:RelToken": ("asks for a REL licence, which castile doesn't do", _OTHER_TOKEN),
    "sp:SecurityContextToken": ("asks for a security context that was made elsewhere", _OTHER_TOKEN),
    "sp:RequireImpliedDerivedKeys": ("asks for implied derived keys; castile writes explicit ones",),
    "sp:WssX509V1Token10": ("asks for a certificate of version 1, which castile refuses", _OTHER_TOKEN),
    "sp:WssX509V1Token11": ("asks for a certificate of version 1, which castile refuses", _OTHER_TOKEN),
    "sp:Attachments": ("asks for signed or encrypted attachments, which can't be done yet",),
    "sp:InclusiveC14N": ("asks for inclusive canonicalisation, which castile doesn't write",),
    "sp:SOAPNormalization10": ("asks for SOAP message normalisation, which castile doesn't do",),
    "sp:XPathFilter20": ("asks for XPath transforms, which castile refuses",),
    "sp:MustSupportInteractiveChallenge": ("may ask questions that nobody is there to answer",),
    "sp:RequireAppliesTo": ("wants AppliesTo in requests for tokens, which can't be written yet",),
    "sp:RequireAppiesTo": ("wants AppliesTo in requests for tokens, which can't be written yet",),
    "rmp:SequenceTransportSecurity": ("binds sequences to a TLS connection, which castile doesn't do",),
    "mc:MCSupported": ("lets replies be fetched by MakeConnection only, which can't be done yet",),
    "mtom:OptimizedMimeSerialization": ("wants MTOM messages, which can't be written yet",),
    "mtom:MTOM": ("wants MTOM messages, which can't be written yet",),
    "duplex:CompositeDuplex": ("wants an address of the client's own to call back", _OTHER_ENDPOINT),
    "duplex:OneWay": ("is for routers of one-way messages, which castile isn't", _OTHER_ENDPOINT),
    "net:BinaryEncoding": ("says that this endpoint speaks .NET binary, not SOAP text", _OTHER_ENDPOINT),
    "net:Streamed": ("speaks .NET framing, not HTTP", _OTHER_ENDPOINT),
    "net:SslTransportSecurity": ("speaks .NET framing, not HTTP", _OTHER_ENDPOINT),
    "net:WindowsTransportSecurity": ("speaks .NET framing, not HTTP", _OTHER_ENDPOINT),
    "wsat:ATAssertion": ("wants a distributed transaction, which castile takes no part in",),
    "wsat:ATAlwaysCapability": ("wants a distributed transaction, which castile takes no part in",),
    "wsat:OleTxAssertion": ("wants a distributed transaction, which castile takes no part in",),
}
"""What castile knows of and can't honour: the reason, and what to do instead (features PO-08)."""

TOLERATED: Final = frozenset({"metro", "rampart", "sandesha", "encoding", "rsp", "cxf"})
"""Prefixes of what configures the other side only, or asks for nothing: key stores, timers,
visibility, the claim to conform to a profile, a character encoding that castile may choose."""
