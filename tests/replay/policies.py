"""What an endpoint asked for, read off its own WSDL and its messages.

This reads what the recorded peers write and nothing more; the product has no part in it.
"""

from __future__ import annotations

from typing import Any, Final, Literal, cast

from lxml import etree

import castile
from castile.policy import ENDORSING, USERNAME, ProtectionPolicy
from castile.policy.suites import SUITES
from castile.versions import (
    CONVERSATION_OF,
    WSRM_1_0,
    WSRM_1_1,
    WST,
    WST_1_3,
    WST_2005,
)
from castile.xml import Element
from tests.replay.recording import Recording

RM_POLICIES: Final = {
    "http://schemas.xmlsoap.org/ws/2005/02/rm/policy": WSRM_1_0,
    "http://docs.oasis-open.org/ws-rx/wsrmp/200702": WSRM_1_1,
}
REFERENCES: Final = {
    "RequireThumbprintReference": "thumbprint",
    "RequireIssuerSerialReference": "issuer-serial",
    "RequireKeyIdentifierReference": "key-identifier",
}


def policy_of(recording: Recording, *, client: bool = False) -> castile.EndpointPolicy:
    """The service's policy; what no message of the recording shows is left out. `client`: as the
    recorded client took it, who may have been wrong."""
    requests = [exchange.request for exchange in recording.exchanges]
    answers = [exchange.response for exchange in recording.exchanges]
    refused = not client and all(answer is None or answer.fault for answer in answers)
    plain = [message for message in requests if message.request is None] or requests
    facts: dict[str, Any] = {"soap": requests[0].opened.envelope.soap, "addressing": plain[-1].addressing}
    facts |= dict.fromkeys(("reliability", "conversation", "trust", "bootstrap", "application"))
    parser = etree.XMLParser(remove_comments=True, resolve_entities=False)
    root = etree.parse(str(recording.wsdl), parser).getroot() if recording.wsdl.exists() else None
    if root is not None and (refused or any(message.secured for message in requests)):
        facts |= _security(root, recording)
    if refused and root is not None:
        facts["reliability"] = _asserted(root)
    else:
        editions = [message.reliability for message in requests if message.reliability]
        facts["reliability"] = editions[0] if editions else None
    creations = [message for message in requests if message.lifecycle == "CreateSequence"]
    facts["uses_sequence_str"] = any(message.rm.uses_sequence_str for message in creations)
    facts["two_way"] = not creations or any(each.body[0].find("{*}Offer") is not None for each in creations)
    facts["encrypt_lifecycle"] = any(
        "Body" in message.opened.verified.encrypted for message in creations if message.opened.verified
    )
    return castile.EndpointPolicy(**facts)


def _asserted(root: Element) -> object:
    for element in root.iter("{*}RMAssertion"):
        return RM_POLICIES[str(etree.QName(element).namespace)]
    return None


def _security(root: Element, recording: Recording) -> dict[str, Any]:
    bindings = [
        element
        for name in ("SymmetricBinding", "AsymmetricBinding")
        for element in root.iter(f"{{*}}{name}")
        if not _inside(element, "BootstrapPolicy")
    ]
    if not bindings:
        return {}
    outer = bindings[0]
    token = next(outer.iter("{*}SecureConversationToken"), None)
    inner = None if token is None else next(token.iter("{*}SymmetricBinding", "{*}AsymmetricBinding"))
    row = WST_1_3 if next(root.iter("{*}Trust13"), None) is not None else WST_2005
    spoken = {message.element[0] for message in recording.messages} & WST.keys()
    trust = WST[spoken.pop()] if spoken else row
    assertion = next(root.iter("{*}Trust13", "{*}Trust10"), None)
    return {
        "conversation": CONVERSATION_OF[trust.namespace],
        "trust": trust,
        "bootstrap": None if inner is None else _section(inner, "x509"),
        "application": _section(outer, "x509" if token is None else "context"),
        "cancels_contexts": token is None or not _has(token, "MustNotSendCancel"),
        "renews_contexts": token is None or not _has(token, "MustNotSendRenew"),
        "require_client_entropy": assertion is not None and _has(assertion, "RequireClientEntropy"),
        "require_server_entropy": assertion is not None and _has(assertion, "RequireServerEntropy"),
    }


def _section(binding: Element, token: Literal["context", "x509"]) -> ProtectionPolicy:
    """One binding with the assertions beside it."""
    scope = binding.getparent()
    assert scope is not None
    supporting = [child for child in scope if str(child.tag).endswith("SupportingTokens")]
    endorsing = [child for child in supporting if "Endorsing" in str(child.tag)]
    suite = next(
        etree.QName(child).localname
        for child in _own(binding).iter()
        if isinstance(child.tag, str) and _inside(child, "AlgorithmSuite") and _local(child) in SUITES
    )
    asymmetric = _local(binding) == "AsymmetricBinding"
    reference = next((name for tag, name in REFERENCES.items() if _has(_own(binding), tag)), None)
    layout = next(
        (name for name in ("LaxTsFirst", "LaxTsLast", "Lax") if _has(_own(binding), name)), "Strict"
    )
    return ProtectionPolicy(
        protection_token=token,
        suite=SUITES[suite],
        binding="asymmetric" if asymmetric else "symmetric",
        supporting=(
            *(USERNAME for child in supporting if _has(child, "UsernameToken")),
            *(ENDORSING for _ in endorsing),
        ),
        signature_confirmation=any(
            _has(child, "RequireSignatureConfirmation") for child in scope if _local(child).startswith("Wss")
        ),
        encrypt_signature=_has(_own(binding), "EncryptSignature"),
        order="encrypt-before-sign" if _has(_own(binding), "EncryptBeforeSigning") else "sign-before-encrypt",
        derived_keys=_has(_own(binding), "RequireDerivedKeys"),
        layout=cast(Any, layout),
        reference=cast(Any, reference or ("key-identifier" if asymmetric else "thumbprint")),
    )


def _own(binding: Element) -> Element:
    """The binding without the BootstrapPolicy that may lie in it."""
    copy = etree.fromstring(etree.tostring(binding))
    for inner in list(copy.iter("{*}BootstrapPolicy")):
        parent = inner.getparent()
        assert parent is not None
        parent.remove(inner)
    return copy


def _has(element: Element, name: str) -> bool:
    return next(element.iter(f"{{*}}{name}"), None) is not None


def _inside(element: Element, name: str) -> bool:
    return any(_local(ancestor) == name for ancestor in element.iterancestors())


def _local(element: Element) -> str:
    return etree.QName(element).localname
