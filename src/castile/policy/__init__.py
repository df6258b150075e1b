"""What an endpoint asks for, as one frozen `EndpointPolicy`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import Final, Literal

from castile.errors import PolicyError
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


@dataclass(frozen=True, slots=True)
class ProtectionPolicy:
    """How one kind of message is protected: the application's, or the bootstrap's.

    Signed parts are the default of features MS-51: Body, every WS-Addressing and WS-RM header
    present, and the Timestamp, under one signature.
    """

    protection_token: Literal["context", "x509"]
    """The keys come from an SCT, or from certificates."""
    suite: AlgorithmSuite
    binding: Literal["symmetric", "asymmetric"] = "symmetric"
    """Symmetric with ``x509``: an EncryptedKey to the service's certificate signs and encrypts.
    Asymmetric: each side signs with its own key and encrypts for the other's (WS-SP 1.2, 7.5)."""
    username: bool = False
    """A signed and encrypted UsernameToken is required in requests."""
    endorsing: bool = False
    """An X.509 token of the client signs the primary signature in requests (WS-SP 1.2, 8.3)."""
    signature_confirmation: bool = False
    """Responses confirm each signature of their request (WSS 1.1.1, 8.5)."""
    encrypt_body: bool = True
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
    protect_tokens: bool = False
    """A signature covers the token of its key too, as far as one is there (WS-SP 1.2, 6.5)."""
    password_digest: bool = False
    """A UsernameToken may give its password as digest (UsernameToken profile 1.1, 3.1)."""


_BOOTSTRAPS: Final[dict[str, Callable[[AlgorithmSuite], ProtectionPolicy]]] = {
    # What WCF does without negotiation, by clientCredentialType.
    "username": lambda suite: ProtectionPolicy("x509", suite, username=True),
    "certificate": lambda suite: ProtectionPolicy("x509", suite, endorsing=True, signature_confirmation=True),
    "anonymous": lambda suite: ProtectionPolicy("x509", suite, signature_confirmation=True),
    # What CXF and Metro do.
    "mutual": lambda suite: ProtectionPolicy("x509", suite, binding="asymmetric", derived_keys=False),
}


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
    two_way: bool = field(default=True)
    """The contract has request/response operations: CreateSequence makes an Offer (RM-12)."""

    def __post_init__(self) -> None:
        """Raises `PolicyError` for editions that don't go together."""
        rm, conversation = self.reliability, self.conversation
        if rm is not None and rm.can_close and self.addressing is not WSA_1_0:
            raise PolicyError(f"{rm.name} goes with {WSA_1_0.name} only, not with {self.addressing.name}")
        if conversation is not None and self.trust is not TRUST_OF[conversation.namespace]:
            twin = TRUST_OF[conversation.namespace].name
            given = self.trust.name if self.trust else "none"
            raise PolicyError(f"{conversation.name} goes with {twin}, not with {given}")

    @property
    def has_contexts(self) -> bool:
        """Whether messages are protected by a security context; else by certificates, or not."""
        return self.application is not None and self.application.protection_token == "context"

    @property
    def dialect(self) -> str:
        """The editions of its messages, by name: a sequence stays with them for life (RM-03)."""
        rows = (self.soap, self.addressing, self.reliability, self.conversation)
        return ", ".join(row.name for row in rows if row is not None)

    @property
    def digest(self) -> str:
        """A name for how its messages are spoken and protected: the same in every process (SC-07)."""
        facts: list[object] = [self.dialect]
        for section in (self.bootstrap, self.application):
            if section is not None:
                facts += [getattr(section, each.name) for each in fields(section) if each.name != "suite"]
                facts.append(section.suite.name)
            facts.append(None)
        return sha256(repr(facts).encode()).hexdigest()

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
