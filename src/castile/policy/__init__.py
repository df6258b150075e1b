"""What an endpoint asks for, as one frozen `EndpointPolicy`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from hashlib import sha256
from typing import Final, Literal

from castile.errors import PolicyError
from castile.policy.delivery import NOTHING_SAID, Delivery
from castile.policy.parts import DEFAULT_HEADERS, DEFAULT_PARTS, NO_PARTS, Parts
from castile.policy.suites import SUITES, AlgorithmSuite
from castile.versions import (
    FAMILIES,
    SOAP_1_2,
    TRUST_OF,
    WSA_1_0,
    Addressing,
    Conversation,
    Reliability,
    SOAPVersion,
    Trust,
)

Bootstrap = Literal["username", "certificate", "anonymous", "mutual"]
SequenceToken = Literal["require", "infer", "accept"]
CertificateReference = Literal["thumbprint", "issuer-serial", "key-identifier", "direct"]
TokenKind = Literal["username", "x509", "context"]
Password = Literal["text", "digest", "none"]


@dataclass(frozen=True, slots=True)
class SupportingToken:
    """A token in requests beside the one of the binding (WS-SP 1.2, 8)."""

    token: TokenKind
    signed: bool = False
    encrypted: bool = False
    """A UsernameToken with a password is encrypted wherever there is a key to do it, whatever the
    policy says: WCF exports it as merely signed (features MS-58)."""
    endorsing: bool = False
    """Its key signs the primary signature, and over TLS the Timestamp (WS-SP 1.2, 8.3)."""
    password: Password = "text"
    """``digest``: HashPassword; text is read too. ``none``: NoPassword (WS-SP 1.2, 5.4.1)."""
    reference: CertificateReference = "direct"
    """How a certificate is referred to; ``direct``: it travels."""
    derived_keys: bool = False
    """Its signature is made by a key derived from it: an SCT's."""
    created: bool = False
    """A UsernameToken with text password has Created (WS-SP 1.3, 5.4.1); one with a digest always."""
    nonce: bool = False
    """As `created`, of Nonce."""
    parts: Parts = NO_PARTS
    """SignedParts of the token: what its signature covers beside the primary signature, or over TLS
    beside the Timestamp, as WCF's To (WS-SP 1.2, 8)."""

    def __post_init__(self) -> None:
        """Raises `PolicyError` for what no token of its kind can do."""
        if self.derived_keys and self.token != "context":
            raise PolicyError(f"RequireDerivedKeys of a supporting {self.token} token: only an SCT has them")
        if self.endorsing and self.token == "username":
            raise PolicyError("an endorsing UsernameToken needs a key made of its password: not offered")
        if self.parts.encrypts:
            raise PolicyError("EncryptedParts inside a supporting token aren't offered")


@dataclass(frozen=True, slots=True)
class ProtectionPolicy:
    """How messages are protected: the application's in one direction, or the bootstrap's."""

    protection_token: Literal["context", "x509", "transport"]
    """The keys come from an SCT, or from certificates; ``transport``: TLS protects the parts."""
    suite: AlgorithmSuite
    binding: Literal["symmetric", "asymmetric", "transport"] = "symmetric"
    """Symmetric with ``x509``: an EncryptedKey to the service's certificate signs and encrypts.
    Asymmetric: each side signs with its own key and encrypts for the other's (WS-SP 1.2, 7.5)."""
    supporting: tuple[SupportingToken, ...] = ()
    """Of requests."""
    parts: Parts = DEFAULT_PARTS
    """Over the transport binding `NO_PARTS`: TLS covers the whole message (WS-SP 1.2, 7.3)."""
    timestamp: bool = True
    """IncludeTimestamp: a Timestamp is required, and signed where anything is (WS-SP 1.2, 6.2)."""
    signature_confirmation: bool = False
    """Responses confirm each signature of their request (WSS 1.1.1, 8.5)."""
    encrypt_signature: bool = True
    """Only where something else is encrypted too, as WCF does."""
    order: Literal["sign-before-encrypt", "encrypt-before-sign"] = "sign-before-encrypt"
    derived_keys: bool = True
    reuse_derived_keys: bool = False
    """The same two DerivedKeyTokens for the life of a context's key, as WCF does; by default each
    message has fresh ones."""
    layout: Literal["Strict", "Lax", "LaxTsFirst", "LaxTsLast"] = "Strict"
    reference: CertificateReference = "thumbprint"
    """How the service's certificate, and in its responses the client's, is referred to in what is
    sent; every form is read."""
    initiator_reference: CertificateReference = "direct"
    """How a client refers to its own certificate; ``direct``: it travels with each request."""
    recipient_included: bool = False
    """The service's certificate travels with each response (IncludeToken of the RecipientToken)."""
    protect_tokens: bool = False
    """A signature covers the token of its key too, as far as one is there (WS-SP 1.2, 6.5)."""
    encrypted_header: bool = True
    """Encrypted headers go out as wsse11:EncryptedHeader (WSS 1.1.1, 9.3), else as WSS 1.0 has them,
    an EncryptedData in their place; both are read (features MS-70)."""

    def __post_init__(self) -> None:
        """Raises `PolicyError` for what doesn't go together."""
        if (self.binding == "transport") != (self.protection_token == "transport"):
            raise PolicyError(f"a {self.binding} binding has no protection token {self.protection_token!r}")
        if self.binding == "asymmetric" and self.protection_token != "x509":
            raise PolicyError("the tokens of an asymmetric binding are certificates")
        kinds = [(row.token, row.endorsing) for row in self.supporting]
        if len(set(kinds)) != len(kinds):
            raise PolicyError("two supporting tokens of one kind: nothing tells whose is whose")
        if self.binding == "transport":
            return
        if any(row.encrypted for row in self.supporting if row.token != "username"):
            raise PolicyError("an encrypted supporting token is a UsernameToken here, nothing else")

    @property
    def username(self) -> SupportingToken | None:
        """The UsernameToken of requests."""
        return self.supports("username")

    @property
    def endorsing(self) -> SupportingToken | None:
        """The client's certificate that signs the primary signature of requests, over TLS the
        Timestamp."""
        return self.supports("x509", endorsing=True)

    def supports(self, kind: TokenKind, *, endorsing: bool = False) -> SupportingToken | None:
        """The supporting token of a kind; `endorsing`: only one that signs."""
        return next(
            (row for row in self.supporting if row.token == kind and row.endorsing >= endorsing), None
        )

    @property
    def answers_bare(self) -> bool:
        """Whether responses need no Security header: TLS does all that is asked for."""
        return self.binding == "transport" and not (self.timestamp or self.signature_confirmation)

    @property
    def of_a_user(self) -> bool:
        """Whether it asks for a UsernameToken and nothing else that proves anything."""
        users = bool(self.supporting) and all(row.token == "username" for row in self.supporting)
        return self.binding == "transport" and users

    @property
    def of_machinery(self) -> ProtectionPolicy:
        """The same for messages of WS-ReliableMessaging and of the trust service: whatever the
        policy's parts are, Body and headers of these are signed (features F08)."""
        parts = self.parts
        if self.binding == "transport" or (parts.signed_body and parts.signed_headers >= DEFAULT_HEADERS):
            return self
        wider = replace(parts, signed_body=True, signed_headers=parts.signed_headers | DEFAULT_HEADERS)
        return replace(self, parts=wider)

    @property
    def signs(self) -> bool:
        """Whether the binding signs anything: a policy may only encrypt, and TLS signs nothing."""
        parts = self.parts
        named = parts.signed_body or parts.every_header or bool(parts.signed_headers)
        tokens = self.signature_confirmation or any(row.signed for row in self.supporting)
        return self.binding != "transport" and (named or self.timestamp or tokens)

    @property
    def signs_body(self) -> bool:
        """Whether the binding signs the Body."""
        return self.binding != "transport" and (self.parts.signed_body or self.parts.every_header)

    @property
    def has_contexts(self) -> bool:
        """Whether an SCT protects these messages, or endorses them over TLS."""
        return self.protection_token == "context" or self.supports("context") is not None


USERNAME: Final = SupportingToken("username", signed=True, encrypted=True)
ENDORSING: Final = SupportingToken("x509", endorsing=True)
CONTEXT: Final = SupportingToken("context", endorsing=True)
"""An SCT over TLS."""

_BOOTSTRAPS: Final[dict[str, Callable[[AlgorithmSuite], ProtectionPolicy]]] = {
    # What WCF does without negotiation, by clientCredentialType.
    "username": lambda suite: ProtectionPolicy("x509", suite, supporting=(USERNAME,)),
    "certificate": lambda suite: ProtectionPolicy(
        "x509", suite, supporting=(ENDORSING,), signature_confirmation=True
    ),
    "anonymous": lambda suite: ProtectionPolicy("x509", suite, signature_confirmation=True),
    # What CXF and Metro do.
    "mutual": lambda suite: ProtectionPolicy("x509", suite, binding="asymmetric", derived_keys=False),
}


Direction = Literal["request", "response", "fault"]


@dataclass(frozen=True, slots=True)
class MessagePolicy:
    """How the messages of one operation are protected in one direction (WS-PolicyAttachment, 4)."""

    action: str
    """wsa:Action of the message."""
    direction: Direction
    protection: ProtectionPolicy | None
    answers: str = ""
    """Of a response or fault: the action of its request. "": of any."""
    element: str = ""
    """Clark name of what stands in the Body. "": not known."""


@dataclass(frozen=True, slots=True)
class EndpointPolicy:
    """All that an endpoint asks for.

    ``EndpointPolicy.of("1.3")`` gives the pairs that exist in the field; a field that is None
    switches that machinery off.
    """

    soap: SOAPVersion
    addressing: Addressing
    reliability: Reliability | None
    conversation: Conversation | None
    """Of its contexts, and without any of the keys that are derived from another secret."""
    trust: Trust | None
    bootstrap: ProtectionPolicy | None
    application: ProtectionPolicy | None
    uses_sequence_str: bool = True
    """CreateSequence carries the UsesSequenceSTR header (1.1 only; WS-RM 1.2, 6.1)."""
    sequence_token: SequenceToken = "infer"
    """What a service does with a CreateSequence without SecurityTokenReference (CO-03)."""
    require_client_entropy: bool = False
    """Every key is made with the client's entropy: a service makes no other, a client takes none
    (WS-SP 1.2, 9.1)."""
    require_server_entropy: bool = False
    """As `require_client_entropy`: a client takes no key that it has made alone."""
    renews_contexts: bool = True
    """A client renews its contexts; False: MustNotSendRenew (WS-SP 1.2, 5.4.7)."""
    cancels_contexts: bool = True
    """A client gives its contexts back; False: MustNotSendCancel."""
    encrypt_lifecycle: bool = False
    """Encrypt the bodies of CreateSequence, Close, Terminate and their responses too (CO-09)."""
    two_way: bool = True
    """The contract has request/response operations: CreateSequence makes an Offer (RM-12)."""
    messages: tuple[MessagePolicy, ...] = ()
    """Messages whose protection is another than `application`, which is the endpoint's own and what
    lifecycle messages have."""
    tls: bool = False
    """An HttpsToken: only TLS will do (WS-SP 1.2, 5.4.8)."""
    tls_client_certificate: bool = False
    """TLS with a certificate of the client (RequireClientCertificate)."""
    http_authentication: Literal["basic", "digest", "ntlm", "negotiate"] | None = None
    """What HTTP itself asks of a client."""
    addressed: bool = True
    """Messages have WS-Addressing headers; False: no assertion asks for any, and none is sent."""
    delivery: Delivery = NOTHING_SAID

    def __post_init__(self) -> None:
        """Raises `PolicyError` for editions that don't go together."""
        rm, conversation = self.reliability, self.conversation
        if rm is not None and rm.can_close and self.addressing is not WSA_1_0:
            raise PolicyError(f"{rm.name} goes with {WSA_1_0.name} only, not with {self.addressing.name}")
        if not self.addressed and (rm is not None or self.has_contexts):
            raise PolicyError("reliable messaging and security contexts need WS-Addressing headers")
        if conversation is not None and self.trust is not TRUST_OF[conversation.namespace]:
            twin = TRUST_OF[conversation.namespace].name
            given = self.trust.name if self.trust else "none"
            raise PolicyError(f"{conversation.name} goes with {twin}, not with {given}")

    @property
    def has_contexts(self) -> bool:
        """Whether messages are protected by a security context; else by certificates, or not."""
        return self.application is not None and self.application.has_contexts

    def protection(self, action: str, direction: Direction) -> ProtectionPolicy | None:
        """What protects an application's message; None: nothing does."""
        for row in self.messages:
            if row.action == action and row.direction == direction:
                return row.protection
        return self.application

    def answering(self, action: str, asked: str | None) -> ProtectionPolicy | None:
        """What protects an answer with this action to a request with the action `asked` (None: to any).

        One that the operation doesn't name, as most faults are, has what its faults have, else
        what its response has.
        """
        rows = self.answers_to(asked)
        for row in rows:
            if row.action == action:
                return row.protection
        if asked is None or not rows:
            return self.application
        wanted = "fault" if action else "response"  # without addressing most are responses
        return min(rows, key=lambda row: row.direction != wanted).protection

    def answers_to(self, asked: str | None) -> tuple[MessagePolicy, ...]:
        """The rows of responses and faults to a request with this action; None: of all."""
        return tuple(
            row
            for row in self.messages
            if row.direction != "request" and (asked is None or row.answers in ("", asked))
        )

    @property
    def protections(self) -> tuple[ProtectionPolicy, ...]:
        """Every protection that some message has."""
        found = [self.bootstrap, self.application, *(row.protection for row in self.messages)]
        return tuple(dict.fromkeys(each for each in found if each is not None))

    @property
    def dialect(self) -> str:
        """The editions of its messages, by name: a sequence stays with them for life (RM-03)."""
        rows = (self.soap, self.addressing, self.reliability, self.conversation)
        return ", ".join(row.name for row in rows if row is not None)

    @property
    def digest(self) -> str:
        """A name for how its messages are spoken and protected: the same in every process (SC-07)."""
        return sha256(repr(_plain(self)).encode()).hexdigest()

    @classmethod
    def of(
        cls,
        edition: str = "1.3",
        *,
        suite: str = "Basic256",
        bootstrap: Bootstrap = "username",
        reliable: bool = True,
        secure: bool = True,
        soap: SOAPVersion = SOAP_1_2,
        addressing: Addressing = WSA_1_0,
        **settings: object,
    ) -> EndpointPolicy:
        """The policy of a family, ``"1.3"`` or ``"2005"``; raises `PolicyError` for an unknown name."""
        if edition not in FAMILIES:
            raise PolicyError(f"unknown edition {edition!r}: one of {', '.join(FAMILIES)}")
        if suite not in SUITES:
            raise PolicyError(f"unknown algorithm suite {suite!r}: one of {', '.join(SUITES)}")
        if bootstrap not in _BOOTSTRAPS:
            raise PolicyError(f"unknown bootstrap {bootstrap!r}: one of {', '.join(_BOOTSTRAPS)}")
        family, row = FAMILIES[edition], SUITES[suite]
        fields: dict[str, object] = {
            "soap": soap,
            "addressing": addressing,
            "reliability": family.reliability if reliable else None,
            "conversation": family.conversation if secure else None,
            "trust": family.trust if secure else None,
            "bootstrap": _BOOTSTRAPS[bootstrap](row) if secure else None,
            "application": ProtectionPolicy("context", row) if secure else None,
        }
        return cls(**fields | settings)  # type: ignore[arg-type]


def _plain(value: object) -> object:
    """A policy as nested tuples, the same in every process: rows of an edition or suite by name."""
    if isinstance(value, frozenset):
        return sorted(map(_plain, value), key=repr)
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, _ROWS):
        return value.name
    if is_dataclass(value):
        return tuple((each.name, _plain(getattr(value, each.name))) for each in fields(value))
    return value


_ROWS: Final = (SOAPVersion, Addressing, Reliability, Conversation, Trust, AlgorithmSuite)
