"""Policies of our own with slots to put assertions in, and what reading them changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from castile.config import DocumentLimits
from castile.messages.policy import Allowance, Policy, PolicyReader
from castile.policy import EndpointPolicy, ProtectionPolicy
from castile.policy.delivery import Delivery
from castile.policy.description import Port
from castile.policy.documents import kind_of
from castile.policy.parse import Reading, read
from castile.policy.parts import Parts
from castile.policy.wsdl import describe
from castile.versions import SOAP_1_2, WSP
from castile.xml import Element
from tests.policy import corpus
from tests.policy.made import port

SP = "http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200702"
TO_RECIPIENT = f'sp:IncludeToken="{SP}/IncludeToken/AlwaysToRecipient"'
NEVER = f'sp:IncludeToken="{SP}/IncludeToken/Never"'

ALONE = "<wsp:Policy>{top}</wsp:Policy>"
SEALED = """<wsp:Policy>{top}<sp:SymmetricBinding><wsp:Policy>
<sp:ProtectionToken><wsp:Policy><sp:X509Token NEVER><wsp:Policy>{token}<sp:WssX509V3Token10/></wsp:Policy>
</sp:X509Token></wsp:Policy></sp:ProtectionToken>
<sp:AlgorithmSuite><wsp:Policy>{suite}<sp:Basic256/></wsp:Policy></sp:AlgorithmSuite>{binding}
</wsp:Policy></sp:SymmetricBinding>
<sp:SignedParts><sp:Body/>{signed}</sp:SignedParts></wsp:Policy>"""
MUTUAL = """<wsp:Policy>{top}<sp:AsymmetricBinding><wsp:Policy>
<sp:InitiatorToken><wsp:Policy><sp:X509Token TO_RECIPIENT><wsp:Policy>{initiator}</wsp:Policy></sp:X509Token>
</wsp:Policy></sp:InitiatorToken>
<sp:RecipientToken><wsp:Policy><sp:X509Token NEVER><wsp:Policy>{token}</wsp:Policy></sp:X509Token>
</wsp:Policy></sp:RecipientToken>
<sp:AlgorithmSuite><wsp:Policy><sp:Basic256/></wsp:Policy></sp:AlgorithmSuite>{binding}
</wsp:Policy></sp:AsymmetricBinding></wsp:Policy>"""
OVER_TLS = """<wsp:Policy>{top}<sp:TransportBinding><wsp:Policy>
<sp:TransportToken><wsp:Policy>{token}</wsp:Policy></sp:TransportToken>
<sp:AlgorithmSuite><wsp:Policy><sp:Basic256/></wsp:Policy></sp:AlgorithmSuite>{binding}
</wsp:Policy></sp:TransportBinding></wsp:Policy>"""
CONVERSING = """<wsp:Policy>{top}<sp:SymmetricBinding><wsp:Policy>
<sp:ProtectionToken><wsp:Policy><sp:SecureConversationToken TO_RECIPIENT><wsp:Policy>{token}
<sp:BootstrapPolicy>{bootstrap}</sp:BootstrapPolicy></wsp:Policy></sp:SecureConversationToken>
</wsp:Policy></sp:ProtectionToken>
<sp:AlgorithmSuite><wsp:Policy><sp:Basic256/></wsp:Policy></sp:AlgorithmSuite>{binding}
</wsp:Policy></sp:SymmetricBinding>
<sp:SignedParts><sp:Body/>
<sp:Header Namespace="http://docs.oasis-open.org/ws-rx/wsrm/200702"/>{signed}</sp:SignedParts>
</wsp:Policy>"""


def filled(form: str, **slots: str) -> str:
    """A form with these in its slots, and nothing in the others."""
    empty = ("top", "token", "suite", "binding", "signed", "initiator")
    usual = {"bootstrap": filled(SEALED)} if form is CONVERSING else {}
    usual |= {"token": "<sp:HttpsToken/>"} if form is OVER_TLS else {}
    text = form.replace("NEVER", NEVER).replace("TO_RECIPIENT", TO_RECIPIENT)
    return text.format(**dict.fromkeys(empty, "") | usual | slots)


def reading(policy: str, **places: str) -> Reading:
    """What is made of a port whose binding has this policy."""
    return read(port(binding=policy, **places))


def changes(before: object, after: object, path: str = "") -> dict[str, object]:
    """Each field that differs, by its dotted name, with what it is now."""
    found: dict[str, object] = {}
    for each in fields(before):  # type: ignore[arg-type]
        old, new = getattr(before, each.name), getattr(after, each.name)
        name = f"{path}{each.name}"
        if old == new:
            continue
        if isinstance(old, ProtectionPolicy | Parts | Delivery) and type(old) is type(new):
            found |= changes(old, new, f"{name}.")
        else:
            found[name] = new
    return found


def changed(form: str, **slots: str) -> dict[str, object]:
    """What these assertions change in the policy that the form alone gives."""
    base: EndpointPolicy = reading(filled(form)).policy
    return changes(base, reading(filled(form, **slots)).policy)


def ports_of(path: Path) -> list[Port]:
    """The ports of a WSDL; of any other document a port for each policy in it.

    Raises the reason why a port of it was refused.
    """
    documents = corpus.loaded(path)
    root = documents.root(path.name)
    if root is None or kind_of(root) == "wsdl":
        description = describe(documents)
        for refused in description.refused:
            raise refused.reason
        return list(description.ports)
    return [
        Port("", f"policy {number}", "", SOAP_1_2, (), _normal(path.name, element), {})
        for number, element in enumerate(_policies(root), 1)
    ]


def _policies(root: Element) -> Iterator[Element]:
    tags = {f"{{{namespace}}}Policy" for namespace in WSP}
    for element in root.iter(*tags):
        if not any(each.tag in tags for each in element.iterancestors()):
            yield element


def _normal(name: str, element: Element) -> Policy:
    return PolicyReader(name, Allowance(DocumentLimits()), lambda _: ((),)).read(element)
