"""From an `EndpointPolicy` back to WS-Policy, in the layout that every peer reads alike.

What is signed stands at the endpoint, since CXF protects lifecycle messages by that alone; what is
encrypted stands at the messages, or lifecycle messages would be encrypted too, which some peers
refuse. Trust10 or Trust13 stands twice: CXF reads it outside the BootstrapPolicy, Metro inside.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from castile.errors import PolicyError
from castile.messages.policy import Alternative, Assertion
from castile.messages.policy import render as render_policy
from castile.policy import Direction, EndpointPolicy, ProtectionPolicy, SupportingToken
from castile.policy.bindings import SUPPORTING
from castile.policy.delivery import Delivery
from castile.policy.parts import NO_PARTS, HeaderPart, Parts
from castile.policy.reliability import ASSURANCES, TIMERS
from castile.policy.vocabulary import (
    CXF,
    HTTP,
    METRO_RM,
    MSSP,
    NETRMP,
    PREFIXES,
    RM_FLOW,
    RMP_1_0,
    RMP_1_1,
    SP_1_1,
    SP_1_2,
    SP_1_3,
    WSAM,
    WSAP,
    WSAW,
)
from castile.versions import WSA_1_0, WSP_1_2, WSP_1_5, WSSC_2005, PolicyLanguage

_REFERENCES: Final = {
    "thumbprint": "RequireThumbprintReference",
    "issuer-serial": "RequireIssuerSerialReference",
    "key-identifier": "RequireKeyIdentifierReference",
}
_PASSWORDS: Final = {"none": "NoPassword", "digest": "HashPassword"}
_WSS: Final = ("MustSupportRefKeyIdentifier", "MustSupportRefIssuerSerial")
_WSS_1_1: Final = (*_WSS, "MustSupportRefThumbprint", "MustSupportRefEncryptedKey")
_HTTP: Final = {
    "basic": "BasicAuthentication",
    "digest": "DigestAuthentication",
    "ntlm": "NtlmAuthentication",
    "negotiate": "NegotiateAuthentication",
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """The policies of an endpoint and of its messages."""

    language: PolicyLanguage
    endpoint: Alternative
    """To be attached to the binding."""
    message: Alternative
    """To be attached to the input and output of every operation; may be empty."""
    exceptions: tuple[tuple[str, Direction, Alternative], ...] = ()
    """Action and direction of messages that have another one instead."""

    def of(self, action: str, direction: Direction) -> Alternative:
        """What is to be attached to one message."""
        found = (row for name, where, row in self.exceptions if (name, where) == (action, direction))
        return next(found, self.message)

    def xml(self, alternative: Alternative) -> bytes:
        """One ``wsp:Policy``, in UTF-8."""
        return render_policy((alternative,), self.language, PREFIXES)


def render(policy: EndpointPolicy) -> Rendered:
    """A policy as WS-Policy. Raises `PolicyError` for one that no WS-Policy says."""
    writer = _Writer(policy)
    application = policy.application
    lifecycle = application
    message: Alternative = ()
    exceptions: tuple[tuple[str, Direction, Alternative], ...] = ()
    if policy.messages:
        exceptions = tuple(
            (row.action, row.direction, writer.difference(row.protection, application))
            for row in policy.messages
        )
    elif application is not None and not policy.encrypt_lifecycle:
        lifecycle = replace(application, parts=application.parts.in_clear)
        message = writer.difference(application, lifecycle)
    endpoint = (*writer.addressing(), *writer.reliability(), *writer.protection(lifecycle), *writer.http())
    return Rendered(writer.language, endpoint, message, exceptions)


class _Writer:
    """Writes the assertions of one policy in one edition of WS-SecurityPolicy."""

    def __init__(self, policy: EndpointPolicy) -> None:
        self._policy = policy
        self._old = policy.conversation is WSSC_2005
        self._sp = SP_1_1 if self._old else SP_1_2
        self.language = WSP_1_2 if self._old else WSP_1_5

    def addressing(self) -> list[Assertion]:
        if not self._policy.addressed:
            return []
        if self._policy.addressing is not WSA_1_0:
            return [_leaf(WSAP, "UsingAddressing")]
        return [_leaf(WSAW, "UsingAddressing")] if self._old else [_nested(WSAM, "Addressing")]

    def reliability(self) -> list[Assertion]:
        edition, delivery = self._policy.reliability, self._policy.delivery
        if edition is None:
            return []
        beside = []
        if delivery.window is not None:
            size = _leaf(RM_FLOW, "MaxReceiveBufferSize", text=str(delivery.window))
            beside.append(replace(_leaf(RM_FLOW, "RmFlowControl"), children=(size,)))
        if edition.can_close:
            inner = [_leaf(RMP_1_1, "SequenceSTR")] if self._policy.sequence_token == "require" else []
            assertion = _nested(RMP_1_1, "RMAssertion", *inner, *_assurance(delivery))
            return [replace(assertion, children=_timers(NETRMP, delivery)), *beside]
        if delivery.in_order:
            beside.append(_leaf(METRO_RM, "Ordered"))
        timers = _timers(RMP_1_0, delivery)
        if delivery.exponential:
            timers += (_leaf(RMP_1_0, "ExponentialBackoff"),)
        return [replace(_leaf(RMP_1_0, "RMAssertion"), children=timers), *beside]

    def protection(self, protection: ProtectionPolicy | None) -> list[Assertion]:
        """The application's level: its binding, the tokens beside it, and what is protected."""
        if protection is None:
            return []
        trust = [self._trust()] if self._policy.bootstrap is not None else []
        return [*self._section(protection), *trust, *self._parts(protection.parts)]

    def difference(
        self, protection: ProtectionPolicy | None, base: ProtectionPolicy | None
    ) -> Alternative:
        """What a message adds to the endpoint's protection. Raises `PolicyError` for anything else."""
        if protection == base:
            return ()
        if protection is None or base is None:
            raise PolicyError("a message without security on an endpoint with it can't be written")
        common = [row for row in protection.supporting if row in base.supporting]
        more = [row for row in protection.supporting if row not in base.supporting]
        bare = replace(protection, supporting=base.supporting, parts=base.parts)
        if bare != base or len(common) < len(base.supporting):
            raise PolicyError("messages of one endpoint may differ in parts and added tokens only")
        parts = (*self._parts(_added(protection.parts, base.parts)), *self._supporting(more, protection))
        return tuple(parts)

    def http(self) -> list[Assertion]:
        """What HTTP asks for, where no HttpsToken can say it."""
        asked = self._policy.http_authentication
        return [_leaf(HTTP, _HTTP[asked])] if asked is not None and not self._says_http else []

    @property
    def _says_http(self) -> bool:
        """1.2 has names for two kinds of HTTP authentication."""
        policy = self._policy
        secured = policy.application is not None and policy.application.binding == "transport"
        return secured and policy.tls and not self._old and policy.http_authentication in ("basic", "digest")

    def _section(self, protection: ProtectionPolicy) -> list[Assertion]:
        kind = protection.binding.capitalize()
        properties = [
            self._nest("AlgorithmSuite", self._suite(protection)),
            self._nest("Layout", self._flag(protection.layout)),
            *self._flags(
                IncludeTimestamp=protection.timestamp,
                EncryptBeforeSigning=protection.order == "encrypt-before-sign",
                EncryptSignature=protection.encrypt_signature,
                ProtectTokens=protection.protect_tokens,
                OnlySignEntireHeadersAndBody=protection.binding != "transport",
            ),
        ]
        binding = self._nest(f"{kind}Binding", *self._tokens(protection), *properties)
        return [binding, *self._supporting(protection.supporting, protection), self._wss(protection)]

    def _tokens(self, protection: ProtectionPolicy) -> list[Assertion]:
        if protection.binding == "transport":
            return [self._nest("TransportToken", self._https())]
        if protection.binding == "asymmetric":
            own = self._x509("AlwaysToRecipient", protection.initiator_reference)
            inclusion = "AlwaysToInitiator" if protection.recipient_included else "Never"
            return [
                self._nest("InitiatorToken", own),
                self._nest("RecipientToken", self._x509(inclusion, protection.reference)),
            ]
        if protection.protection_token == "context":
            return [self._nest("ProtectionToken", self._conversation(derived=protection.derived_keys))]
        token = self._x509("Never", protection.reference, derived=protection.derived_keys)
        return [self._nest("ProtectionToken", token)]

    def _https(self) -> Assertion:
        policy = self._policy
        if not policy.tls:
            return self._flag("HttpToken")
        if self._old:
            wanted = "true" if policy.tls_client_certificate else "false"
            return replace(self._flag("HttpsToken"), attributes=(("RequireClientCertificate", wanted),))
        asked = policy.http_authentication if self._says_http else None
        return self._nest(
            "HttpsToken",
            *self._flags(
                HttpBasicAuthentication=asked == "basic",
                HttpDigestAuthentication=asked == "digest",
                RequireClientCertificate=policy.tls_client_certificate,
            ),
        )

    def _conversation(self, *, derived: bool) -> Assertion:
        policy = self._policy
        if policy.bootstrap is None:
            raise PolicyError("security contexts without a bootstrap can't be written")
        cancel = Assertion(f"{{{MSSP if self._old else self._sp}}}MustNotSendCancel")
        inner = [
            *self._flags(RequireDerivedKeys=derived),
            self._nest(
                "BootstrapPolicy",
                *self._section(policy.bootstrap),
                self._trust(),
                *self._parts(policy.bootstrap.parts),
            ),
            *([] if policy.cancels_contexts else [cancel]),
            *([] if policy.renews_contexts else [_leaf(SP_1_2, "MustNotSendRenew")]),
            *([] if self._old else [self._flag("MustNotSendAmend")]),
        ]
        return self._including("AlwaysToRecipient", self._nest("SecureConversationToken", *inner))

    def _x509(self, inclusion: str, reference: str, *, derived: bool = False) -> Assertion:
        named = _REFERENCES.get(reference)
        token = self._nest(
            "X509Token",
            *self._flags(RequireDerivedKeys=derived),
            *([self._flag(named)] if named else []),
            self._flag("WssX509V3Token10"),
        )
        travels = inclusion == "AlwaysToRecipient" and named is not None
        return self._including("Never" if travels else inclusion, token)

    def _username(self, row: SupportingToken) -> Assertion:
        newer = [_leaf(SP_1_3, name) for name, asked in _asked(row) if asked]
        token = self._nest(
            "UsernameToken",
            *([self._flag(_PASSWORDS[row.password])] if row.password in _PASSWORDS else []),
            *newer,
            self._flag("WssUsernameToken10"),
        )
        return self._including("AlwaysToRecipient", token)

    def _supporting(
        self, rows: Iterable[SupportingToken], protection: ProtectionPolicy
    ) -> list[Assertion]:
        found = []
        for row in rows:
            if row.token == "username":
                token = self._username(row)
            elif row.token == "x509":
                token = self._x509("AlwaysToRecipient", row.reference)
            else:
                token = self._conversation(derived=row.derived_keys)
            # WS-SecurityPolicy 1.1 has no name for encrypted tokens; a password is encrypted anyway.
            hidden = row.encrypted and not self._old and protection.binding != "transport"
            name = SUPPORTING[row.signed, hidden, row.endorsing]
            found.append(self._nest(name, token, *(self._parts(row.parts) if row.parts != NO_PARTS else ())))
        return found

    def _wss(self, protection: ProtectionPolicy) -> Assertion:
        confirms = self._flags(RequireSignatureConfirmation=protection.signature_confirmation)
        if protection.encrypted_header:
            return self._nest("Wss11", *map(self._flag, _WSS_1_1), *confirms)
        return self._nest("Wss10", *map(self._flag, _WSS), *confirms)

    def _trust(self) -> Assertion:
        policy = self._policy
        return self._nest(
            "Trust10" if self._old else "Trust13",
            self._flag("MustSupportIssuedTokens"),
            *self._flags(
                RequireClientEntropy=policy.require_client_entropy,
                RequireServerEntropy=policy.require_server_entropy,
            ),
        )

    def _suite(self, protection: ProtectionPolicy) -> Assertion:
        suite = protection.suite
        return _leaf(CXF if suite.authenticates else self._sp, suite.name)

    def _parts(self, parts: Parts) -> list[Assertion]:
        rows = (
            ("SignedParts", parts.signed_body, parts.signed_headers),
            ("EncryptedParts", parts.encrypted_body, parts.encrypted_headers),
            ("RequiredParts", False, parts.required),
        )
        found = [self._named(name, body, headers) for name, body, headers in rows if body or headers]
        return [self._flag("SignedParts"), *found] if parts.every_header else found

    def _named(self, name: str, body: bool, headers: Iterable[HeaderPart]) -> Assertion:
        children = [self._flag("Body")] if body else []
        children += [
            replace(
                self._flag("Header"),
                attributes=(*((("Name", each.name),) if each.name else ()), ("Namespace", each.namespace)),
            )
            for each in sorted(headers)
        ]
        return replace(self._flag(name), children=tuple(children))

    def _including(self, inclusion: str, token: Assertion) -> Assertion:
        value = f"{self._sp}/IncludeToken/{inclusion}"
        return replace(token, attributes=((f"{{{self._sp}}}IncludeToken", value),))

    def _flags(self, **asked: bool) -> list[Assertion]:
        return [self._flag(name) for name, wanted in asked.items() if wanted]

    def _flag(self, name: str) -> Assertion:
        return _leaf(self._sp, name)

    def _nest(self, name: str, *inner: Assertion) -> Assertion:
        return _nested(self._sp, name, *inner)


def _leaf(namespace: str, name: str, *, text: str = "") -> Assertion:
    return Assertion(f"{{{namespace}}}{name}", text=text)


def _nested(namespace: str, name: str, *inner: Assertion) -> Assertion:
    return Assertion(f"{{{namespace}}}{name}", policy=(inner,))


def _asked(row: SupportingToken) -> tuple[tuple[str, bool], ...]:
    return ("Created", row.created), ("Nonce", row.nonce)


def _timers(namespace: str, delivery: Delivery) -> tuple[Assertion, ...]:
    rows = ((name, getattr(delivery, field)) for name, field in TIMERS.items())
    return tuple(
        replace(_leaf(namespace, name), attributes=(("Milliseconds", str(round(value * 1000))),))
        for name, value in rows
        if value is not None
    )


def _assurance(delivery: Delivery) -> list[Assertion]:
    names = [name for name, value in ASSURANCES.items() if value == delivery.assurance]
    names += ["InOrder"] if delivery.in_order else []
    return [_nested(RMP_1_1, "DeliveryAssurance", *(_leaf(RMP_1_1, name) for name in names))] if names else []


def _added(parts: Parts, base: Parts) -> Parts:
    """What `parts` have that `base` has not. Raises `PolicyError` where it is less."""
    added = Parts(
        signed_body=parts.signed_body and not base.signed_body,
        signed_headers=parts.signed_headers - base.signed_headers,
        every_header=parts.every_header and not base.every_header,
        encrypted_body=parts.encrypted_body and not base.encrypted_body,
        encrypted_headers=parts.encrypted_headers - base.encrypted_headers,
        required=parts.required - base.required,
    )
    together = Parts(
        signed_body=added.signed_body or base.signed_body,
        signed_headers=added.signed_headers | base.signed_headers,
        every_header=added.every_header or base.every_header,
        encrypted_body=added.encrypted_body or base.encrypted_body,
        encrypted_headers=added.encrypted_headers | base.encrypted_headers,
        required=added.required | base.required,
    )
    if together != parts:
        raise PolicyError("a message with fewer protected parts than its endpoint can't be written")
    return added
