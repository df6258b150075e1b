"""What an endpoint asks for, as one frozen `EndpointPolicy`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from castile.errors import PolicyError
from castile.policy.suites import SUITES, AlgorithmSuite
from castile.versions import (
    FAMILIES,
    SOAP_1_2,
    WSA_1_0,
    Addressing,
    Conversation,
    Reliability,
    SOAPVersion,
    Trust,
)

Bootstrap = Literal["username"]
SequenceToken = Literal["require", "infer", "accept"]


@dataclass(frozen=True, slots=True)
class ProtectionPolicy:
    """How one kind of message is protected: the application's, or the bootstrap's.

    Signed parts are the default of features MS-51: Body, every WS-Addressing and WS-RM header
    present, and the Timestamp, under one signature.
    """

    protection_token: Literal["context", "x509"]
    """The symmetric key comes from an SCT, or from an EncryptedKey to the service's certificate."""
    suite: AlgorithmSuite
    username: bool = False
    """A signed and encrypted UsernameToken is required in requests."""
    encrypt_body: bool = True
    encrypt_signature: bool = True
    """Only where something else is encrypted too, as WCF does."""
    derived_keys: bool = True
    layout: Literal["Strict", "Lax", "LaxTsFirst", "LaxTsLast"] = "Strict"


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
    encrypt_lifecycle: bool = False
    """Encrypt the bodies of CreateSequence, Close, Terminate and their responses too (CO-09)."""
    two_way: bool = field(default=True)
    """The contract has request/response operations: CreateSequence makes an Offer (RM-12)."""

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
        if bootstrap != "username":
            raise PolicyError(f"unknown bootstrap {bootstrap!r}: 'username' is what works today")
        family, row = FAMILIES[edition], SUITES[suite]
        policy = cls(
            soap=soap,
            addressing=addressing,
            reliability=family.reliability if reliable else None,
            conversation=family.conversation if secure else None,
            trust=family.trust if secure else None,
            bootstrap=ProtectionPolicy("x509", row, username=True) if secure else None,
            application=ProtectionPolicy("context", row) if secure else None,
        )
        return replace(policy, **settings)  # type: ignore[arg-type]
