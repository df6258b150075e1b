"""A policy in words, for people: what `castile inspect` and error texts say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from castile.policy import Direction, EndpointPolicy, ProtectionPolicy, SupportingToken
from castile.policy.delivery import Delivery
from castile.policy.parts import HeaderPart
from castile.versions import DS, NETRM, WSMC, WSSE, WSU, part_name

_REFERENCES: Final = {
    "thumbprint": "thumbprint",
    "issuer-serial": "issuer and serial number",
    "key-identifier": "subject key identifier",
    "direct": "being sent along",
}
_KINDS: Final = {NETRM: "Microsoft's RM", WSMC: "WS-MakeConnection"}


def words(policy: EndpointPolicy) -> list[str]:
    """What an endpoint asks for, a line each: versions, reliability, contexts, protection."""
    lines = [_spoken(policy)]
    if policy.reliability is not None:
        lines.append(f"reliable messaging: {policy.reliability.name}{_delivery(policy.delivery)}")
        if policy.sequence_token == "require":
            lines.append("CreateSequence must name the token of its sequence (SequenceSTR)")
    if policy.tls:
        lines.append(f"TLS is required{', with a certificate of the client' * policy.tls_client_certificate}")
    elif policy.application is not None and policy.application.binding == "transport":
        lines.append("TLS isn't asked for: somebody before the service ends it, or there is none")
    if policy.http_authentication is not None:
        lines.append(f"HTTP asks for a user name and password ({policy.http_authentication})")
    if policy.bootstrap is not None and policy.conversation is not None:
        lines.append(_contexts(policy))
        lines += _under("to get a context", policy.bootstrap)
    if policy.application is None and not any(row.protection for row in policy.messages):
        return [*lines, "no message is signed or encrypted"]
    lines += _under("messages", policy.application)
    for row in policy.messages:
        lines += _under(f"{row.direction} {row.action}", row.protection)
    if policy.application is not None and policy.application.parts.encrypts and policy.reliability:
        how = "encrypted too" if policy.encrypt_lifecycle else "signed only"
        lines.append(f"lifecycle messages of sequences are {how}")
    return lines


def _under(title: str, protection: ProtectionPolicy | None) -> list[str]:
    """The first line behind a title, the others below it."""
    first, *others = protection_words(protection)
    return [f"{title}: {first}", *(f"  {line}" for line in others)]


def protection_words(protection: ProtectionPolicy | None) -> list[str]:
    """How one level protects its messages, a line each."""
    if protection is None:
        return ["neither signed nor encrypted"]
    lines = [f"{_keys(protection)}, {protection.suite.name}, layout {protection.layout}"]
    lines += [_token(row, protection) for row in protection.supporting]
    if protection.binding == "transport":
        lines += ["a Timestamp is required"] if protection.timestamp else []
        return lines
    signed, encrypted = parts_of(protection)
    lines.append(f"signed: {', '.join(signed) or 'nothing'}")
    lines.append(f"encrypted: {', '.join(encrypted) or 'nothing'}")
    if protection.parts.required:
        lines.append(f"required: {', '.join(_headers(protection.parts.required))}")
    if protection.order == "encrypt-before-sign":
        lines.append("what is encrypted is encrypted before it is signed")
    if protection.signature_confirmation:
        lines.append("responses confirm the signatures of their request")
    if protection.protect_tokens:
        lines.append("signatures cover their own tokens")
    return lines


def parts_of(
    protection: ProtectionPolicy, direction: Direction = "request"
) -> tuple[list[str], list[str]]:
    """What is signed and what is encrypted, by the names that parts have for people."""
    parts = protection.parts
    signed = _parts(parts.signed_body or parts.every_header, parts.signed_headers)
    signed += ["every header"] if parts.every_header else []
    signed += [part_name(WSU, "Timestamp")] if protection.timestamp else []
    encrypted = _parts(parts.encrypted_body, parts.encrypted_headers)
    encrypted += [part_name(DS, "Signature")] if encrypted and protection.encrypt_signature else []
    username = protection.username
    if username is not None and direction == "request":
        name = part_name(WSSE, "UsernameToken")
        signed += [name] if username.signed else []
        encrypted += [name] if username.encrypted else []
    return signed, encrypted


def _parts(body: bool, headers: Iterable[HeaderPart]) -> list[str]:
    return (["Body"] if body else []) + _headers(headers)


def _headers(headers: Iterable[HeaderPart]) -> list[str]:
    return [
        part_name(each.namespace, each.name) if each.name else f"every header of {_space(each.namespace)}"
        for each in sorted(headers)
    ]


def _space(namespace: str) -> str:
    return _KINDS.get(namespace, namespace)


def _spoken(policy: EndpointPolicy) -> str:
    addressing = f"{policy.addressing.name} headers" if policy.addressed else "no addressing headers"
    return f"{policy.soap.name}, {addressing}"


def _delivery(delivery: Delivery) -> str:
    facts = [delivery.assurance.replace("-", " ")] if delivery.assurance else []
    facts += ["in order"] if delivery.in_order else []
    rows = (
        ("sequences end after {} without a message", delivery.inactivity),
        ("acknowledged within {}", delivery.acknowledgement),
        ("repeated after {}", delivery.retransmission),
    )
    facts += [text.format(f"{value:g} s") for text, value in rows if value is not None]
    facts += [f"at most {delivery.window} messages held"] if delivery.window is not None else []
    return "".join(f", {each}" for each in facts)


def _contexts(policy: EndpointPolicy) -> str:
    facts = [] if policy.renews_contexts else ["never renewed"]
    facts += [] if policy.cancels_contexts else ["never cancelled"]
    sides = [
        name
        for name, asked in (
            ("the client", policy.require_client_entropy),
            ("the service", policy.require_server_entropy),
        )
        if asked
    ]
    facts += [f"keys are made with entropy of {' and '.join(sides)}"] if sides else []
    name = policy.conversation.name if policy.conversation is not None else ""
    return f"security contexts: {name}{''.join(f', {each}' for each in facts)}"


def _keys(protection: ProtectionPolicy) -> str:
    derived = " and keys derived from it" if protection.derived_keys else ""
    if protection.binding == "transport":
        return "the transport protects the whole message"
    if protection.binding == "asymmetric":
        reference = _REFERENCES[protection.reference]
        return f"certificates of both sides, the service's known by {reference}"
    if protection.protection_token == "context":
        return f"the key of a security context{derived}"
    reference = _REFERENCES[protection.reference]
    return f"a key sealed for the service's certificate (known by {reference}){derived}"


def _token(row: SupportingToken, protection: ProtectionPolicy) -> str:
    does = [name for name, asked in (("signed", row.signed), ("encrypted", row.encrypted)) if asked]
    target = "Timestamp" if protection.binding == "transport" else "signature"
    does += [f"endorsing: it signs the {target}"] if row.endorsing else []
    own = _parts(row.parts.signed_body, row.parts.signed_headers)
    does += [f"it covers {', '.join(own)} too"] if own else []
    context = f"a security context{' and a key derived from it' * row.derived_keys}"
    name = {"username": _password(row), "x509": "the client's certificate", "context": context}
    return name[row.token] + (f" ({'; '.join(does)})" if does else "")


def _password(row: SupportingToken) -> str:
    kinds = {"text": "a user name and password", "digest": "a user name and a digest of the password"}
    return kinds.get(row.password, "a user name")
