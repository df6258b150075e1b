"""Token assertions: what a token is, whether it travels, and how it is referred to (WS-SP 1.2, 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from castile.messages.policy import Assertion
from castile.policy import CertificateReference, Password
from castile.policy.scope import Scope
from castile.policy.vocabulary import INCLUDE_TOKEN, SP, split
from castile.versions import WSSC_1_3, WSSC_2005, Conversation

HTTPAuthentication = Literal["basic", "digest", "ntlm", "negotiate"]
Inclusion = Literal["Never", "Once", "AlwaysToRecipient", "AlwaysToInitiator", "Always"]
TOKENS: Final = (
    "sp:UsernameToken",
    "sp:X509Token",
    "sp:SecureConversationToken",
    "sp:HttpsToken",
    "sp:HttpToken",
)
"""Those that castile has."""
_INCLUSIONS: Final[dict[str, Inclusion]] = {each: each for each in get_args(Inclusion)}
_REFERENCES: Final[dict[str, CertificateReference]] = {
    "sp:RequireThumbprintReference": "thumbprint",
    "sp:RequireIssuerSerialReference": "issuer-serial",
    "sp:RequireKeyIdentifierReference": "key-identifier",
}
_PROFILES: Final = (
    "sp:WssX509V3Token10",
    "sp:WssX509V3Token11",
    "sp:WssX509Pkcs7Token10",
    "sp:WssX509Pkcs7Token11",
    "sp:WssX509PkiPathV1Token10",
    "sp:WssX509PkiPathV1Token11",
    "sp:WssUsernameToken10",
    "sp:WssUsernameToken11",
)
"""How a token is written; a certificate alone is every one of its kinds' content."""


@dataclass(frozen=True, slots=True)
class Session:
    """A SecureConversationToken: the contexts of an endpoint (WS-SP 1.2, 5.4.7)."""

    assertion: Assertion
    bootstrap: Assertion | None
    cancels: bool
    renews: bool
    edition: Conversation | None
    """Where the assertion names it."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token assertion."""

    assertion: Assertion
    kind: Literal["username", "x509", "context", "https", "http"]
    inclusion: Inclusion = "Always"
    reference: CertificateReference | None = None
    """How it must be referred to; None: nothing is said."""
    derived: bool = False
    password: Password = "text"
    created: bool = False
    nonce: bool = False
    session: Session | None = None
    client_certificate: bool = False
    http_authentication: HTTPAuthentication | None = None

    @property
    def to_recipient(self) -> bool:
        """It travels with requests."""
        return self.inclusion in ("Always", "AlwaysToRecipient", "Once")

    @property
    def to_initiator(self) -> bool:
        """It travels with responses."""
        return self.inclusion in ("Always", "AlwaysToInitiator")


def tokens_of(scope: Scope) -> list[Token]:
    """Every token that stands in a nested policy, in the order of the policy."""
    return [_READERS[split(each.name)[1]](each, scope) for each in scope.take(*TOKENS)]


def token_of(holder: Assertion, scope: Scope) -> Token:
    """The one token of a ProtectionToken and its kin. Raises `Unusable`."""
    with scope.inside(holder) as inner:
        found = tokens_of(inner)
    if len(found) != 1:
        raise scope.notes.refuse(holder, "names no token", "exactly one is wanted in its nested policy")
    return found[0]


def _inclusion(assertion: Assertion, scope: Scope) -> Inclusion:
    value = _attribute(assertion, "IncludeToken")
    if value is None:
        return "Always"
    for base in INCLUDE_TOKEN:
        tail = _INCLUSIONS.get(value.strip().removeprefix(base))
        if tail is not None:
            return tail
    raise scope.notes.refuse(assertion, f"has an IncludeToken that isn't one of five: {value}")


def _attribute(assertion: Assertion, local: str) -> str | None:
    """An attribute of WS-SecurityPolicy's, qualified or not: 1.1 writes some without a prefix."""
    names = {local, *(f"{{{namespace}}}{local}" for namespace in SP)}
    return next((value for name, value in assertion.attributes if name in names), None)


def _issuer(assertion: Assertion, inner: Scope) -> None:
    """Whose token it must be is a matter of trust, which is set where castile is configured."""
    for each in inner.take("sp:Issuer", "sp:IssuerName", "trust:Claims"):
        inner.notes.unsure(each, f"isn't checked: whose {split(assertion.name)[1]} it may be")


def _x509(assertion: Assertion, scope: Scope) -> Token:
    with scope.inside(assertion) as inner:
        inner.flag(*_PROFILES)
        _issuer(assertion, inner)
        references = [form for name, form in _REFERENCES.items() if inner.flag(name)]
        derived = inner.flag("sp:RequireDerivedKeys", "sp:RequireExplicitDerivedKeys")
    reference = references[0] if references else None
    return Token(assertion, "x509", _inclusion(assertion, scope), reference, derived)


def _username(assertion: Assertion, scope: Scope) -> Token:
    with scope.inside(assertion) as inner:
        inner.flag(*_PROFILES)
        _issuer(assertion, inner)
        password: Password = "text"
        if inner.flag("sp:HashPassword"):
            password = "digest"
        if inner.flag("sp:NoPassword"):
            password = "none"
        created, nonce = inner.flag("sp:Created"), inner.flag("sp:Nonce")
        derived = inner.flag("sp:RequireDerivedKeys", "sp:RequireExplicitDerivedKeys")
    if derived:
        raise scope.notes.refuse(assertion, "asks for keys derived from a password, which can't be done yet")
    inclusion = _inclusion(assertion, scope)
    return Token(assertion, "username", inclusion, password=password, created=created, nonce=nonce)


def _conversation(assertion: Assertion, scope: Scope) -> Token:
    with scope.inside(assertion) as inner:
        issuer = inner.one("sp:Issuer", "sp:IssuerName")
        if issuer is not None:
            raise scope.notes.refuse(issuer, "sends for contexts to another address, which can't be done yet")
        inner.flag("sp:RequireExternalUriReference", "sp:RequireExternalReference")
        inner.flag("sp:RequireInternalReference", "mssp:RequireCancel", "sp:MustNotSendAmend")
        derived = inner.flag("sp:RequireDerivedKeys", "sp:RequireExplicitDerivedKeys")
        editions = {"sp:SC10SecurityContextToken": WSSC_2005, "sp:SC13SecurityContextToken": WSSC_1_3}
        session = Session(
            assertion,
            inner.one("sp:BootstrapPolicy"),
            cancels=not inner.flag("mssp:MustNotSendCancel", "sp:MustNotSendCancel"),
            renews=not inner.flag("sp:MustNotSendRenew"),
            edition=next((row for name, row in editions.items() if inner.flag(name)), None),
        )
    return Token(assertion, "context", _inclusion(assertion, scope), derived=derived, session=session)


def _https(assertion: Assertion, scope: Scope) -> Token:
    with scope.inside(assertion) as inner:
        _issuer(assertion, inner)
        basic = inner.flag("sp:HttpBasicAuthentication")
        digest = inner.flag("sp:HttpDigestAuthentication")
        certificate = inner.flag("sp:RequireClientCertificate")
    certificate |= (_attribute(assertion, "RequireClientCertificate") or "").strip() in ("true", "1")
    return Token(
        assertion,
        "https",
        client_certificate=certificate,
        http_authentication="basic" if basic else "digest" if digest else None,
    )


def _http(assertion: Assertion, scope: Scope) -> Token:
    """Microsoft's own: what isn't TLS here, since somebody before the service ends it."""
    with scope.inside(assertion):
        return Token(assertion, "http")


_READERS: Final = {
    "UsernameToken": _username,
    "X509Token": _x509,
    "SecureConversationToken": _conversation,
    "HttpsToken": _https,
    "HttpToken": _http,
}
