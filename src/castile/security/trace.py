"""What `unprotect` saw and did, in plain data: for people who look at a captured message.

The product passes no trace. With one, checking goes on behind a failure wherever that is
possible, so that every part that fails is listed; the failure is raised in the end all the same.
No finding holds a secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from cryptography import x509

from castile.xml import Element

if TYPE_CHECKING:
    from castile.security.keys import SealedKey

Kind = Literal["context", "encrypted-key", "certificate", "user"]


@dataclass(frozen=True, slots=True)
class KeyIdentity:
    """Whose key it is, whatever was derived from it.

    `name` is the context's Identifier, the EncryptedKeySHA1, the certificate's SHA-1 thumbprint
    in hexadecimal, or the name that both sides gave the key.
    """

    kind: Literal["context", "encrypted-key", "certificate", "name"]
    name: str
    instance: str | None = None

    def __str__(self) -> str:
        instance = f" (instance {self.instance})" if self.instance is not None else ""
        return f"{self.kind} {self.name}{instance}"


@dataclass(frozen=True, slots=True)
class TokenSeen:
    """A child of the Security header, in document order."""

    part: str
    id: str | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class KeyDerived:
    """A key that was had: unwrapped, looked up or derived."""

    key: KeyIdentity
    text: str
    """``DerivedKeyToken _0: 24 bytes of P_SHA1(context urn:…)``."""
    token: str | None = None
    """Id of the token."""


@dataclass(frozen=True, slots=True)
class Decrypted:
    """An EncryptedData that was opened, or not."""

    part: str
    ok: bool
    key: KeyIdentity | None
    algorithm: str
    id: str | None = None
    missing_key: bool = False


@dataclass(frozen=True, slots=True)
class ReferenceChecked:
    """One ds:Reference of a signature."""

    part: str
    ok: bool
    digest: str
    """Algorithm URI."""
    id: str
    signature: int
    """Which signature of the message, from 0."""


@dataclass(frozen=True, slots=True)
class SignatureChecked:
    """A signature's value over its SignedInfo."""

    ok: bool
    key: KeyIdentity | None
    method: str
    signature: int
    covered: tuple[str, ...] = ()
    """Parts whose references held."""
    missing_key: bool = False
    certificate: x509.Certificate | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class UsernameChecked:
    """A UsernameToken; `ok` None: nobody knows that user."""

    name: str
    ok: bool | None
    signed: bool
    encrypted: bool


@dataclass(frozen=True, slots=True)
class TimestampSeen:
    """The Timestamp, UTC seconds."""

    created: float
    expires: float | None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong, in the order found."""

    text: str
    part: str | None = None
    missing_key: bool = False


Finding: TypeAlias = (
    TokenSeen
    | KeyDerived
    | Decrypted
    | ReferenceChecked
    | SignatureChecked
    | UsernameChecked
    | TimestampSeen
    | Problem
)


@dataclass(slots=True)
class Trace:
    """Collects findings in the order in which they were made."""

    findings: list[Finding] = field(default_factory=list)
    sealed: list[SealedKey] = field(default_factory=list, repr=False)
    """Keys that were unwrapped, also in a message that failed: an answer may be under them."""
    body: Element | None = field(default=None, repr=False)
    """The Body as far as it was opened, also in a message that failed: to read on, proof of nothing."""

    def add(self, finding: Finding) -> None:
        """Keeps a finding."""
        self.findings.append(finding)

    @property
    def problems(self) -> list[Problem]:
        """What is wrong, first thing first."""
        return [finding for finding in self.findings if isinstance(finding, Problem)]
