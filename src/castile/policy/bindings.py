"""Security bindings and the tokens beside them: how messages are protected (WS-SP 1.2, 6 to 8)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from castile.errors import PolicyError
from castile.messages.policy import Assertion
from castile.policy import CertificateReference, ProtectionPolicy, SupportingToken, TokenKind
from castile.policy.parts import DEFAULT_PARTS, NO_PARTS, Parts
from castile.policy.protection import Named, named_parts
from castile.policy.scope import Scope
from castile.policy.suites import SUITES, AlgorithmSuite
from castile.policy.tokens import HTTPAuthentication, Session, Token, token_of, tokens_of
from castile.policy.vocabulary import CONVERSATION_OF_SP, split
from castile.versions import WSSC_1_3, WSSC_2005, Conversation

_BINDINGS: Final = ("sp:TransportBinding", "sp:SymmetricBinding", "sp:AsymmetricBinding")
_SUITE_NAMES: Final = tuple(f"{prefix}:{name}" for name in SUITES for prefix in ("sp", "cxf"))
_INITIATORS: Final = ("sp:InitiatorToken", "sp:InitiatorSignatureToken", "sp:InitiatorEncryptionToken")
_RECIPIENTS: Final = ("sp:RecipientToken", "sp:RecipientSignatureToken", "sp:RecipientEncryptionToken")
_PROTECTORS: Final = ("sp:ProtectionToken", "sp:SignatureToken", "sp:EncryptionToken")
SUPPORTING: Final[dict[tuple[bool, bool, bool], str]] = {
    (False, False, False): "SupportingTokens",
    (True, False, False): "SignedSupportingTokens",
    (False, False, True): "EndorsingSupportingTokens",
    (True, False, True): "SignedEndorsingSupportingTokens",
    (True, True, False): "SignedEncryptedSupportingTokens",
    (False, True, False): "EncryptedSupportingTokens",
    (False, True, True): "EndorsingEncryptedSupportingTokens",
    (True, True, True): "SignedEndorsingEncryptedSupportingTokens",
}
"""By signed, encrypted, endorsing (WS-SP 1.2, 8)."""
_TRUSTS: Final = {"Trust10": WSSC_2005, "Trust13": WSSC_1_3}
_KINDS: Final[dict[str, TokenKind]] = {"username": "username", "x509": "x509", "context": "context"}


@dataclass(frozen=True, slots=True)
class Section:
    """One level of protection, the application's or the bootstrap's, as an alternative has it."""

    protection: ProtectionPolicy
    named: bool
    """Its parts are the policy's own, not the default."""
    session: Session | None = None
    trusts: Conversation | None = None
    """The edition that goes with its Trust10 or Trust13."""
    usual: Conversation = WSSC_1_3
    """The edition that goes with the language that it is written in."""
    client_entropy: bool = False
    server_entropy: bool = False
    tls: bool = False
    tls_client_certificate: bool = False
    http_authentication: HTTPAuthentication | None = None


@dataclass(frozen=True, slots=True)
class _Properties:
    """What the nested policy of every binding may say (WS-SP 1.2, 6)."""

    suite: AlgorithmSuite
    layout: str
    timestamp: bool
    encrypt_signature: bool
    encrypts_first: bool
    protect_tokens: bool


@dataclass(frozen=True, slots=True)
class _Wss:
    """What a Wss10 or Wss11 assertion says (WS-SP 1.2, 9)."""

    confirms: bool
    reference: CertificateReference
    """What the peer can resolve, where the token says nothing itself."""
    old: bool
    """WSS 1.0, which has no EncryptedHeader."""


def section_of(scope: Scope) -> Section | None:
    """The protection that an alternative asks for; None: none at all. Raises `Unusable`."""
    binding = scope.one(*_BINDINGS)
    named = named_parts(scope)
    if binding is None:
        return _without_binding(scope, named)
    wss, trust = _wss(scope), scope.one("sp:Trust10", "sp:Trust13")
    client, server = _entropies(scope, trust)
    with scope.inside(binding) as inner:
        kind = split(binding.name)[1].removesuffix("Binding").lower()
        tokens = _READERS[kind](binding, inner)
        properties = _properties(binding, inner, kind)
    rows = _supporting(scope, transport=kind == "transport", suite=properties.suite)
    supporting = tuple(row for row, _ in rows)
    session = next((each.session for each in (*tokens, *(token for _, token in rows)) if each.session), None)
    try:
        protection = _protection(kind, tokens, properties, wss, named, supporting)
    except PolicyError as error:  # which knows no place
        raise scope.notes.refuse(binding, f"can't be honoured: {error}") from None
    transport = tokens[0] if kind == "transport" else None
    return Section(
        protection,
        bool(named.assertions),
        session,
        _TRUSTS[split(trust.name)[1]] if trust is not None else None,
        CONVERSATION_OF_SP[split(binding.name)[0]],
        client,
        server,
        tls=transport is not None and transport.kind == "https",
        tls_client_certificate=transport is not None and transport.client_certificate,
        http_authentication=transport.http_authentication if transport is not None else None,
    )


def _without_binding(scope: Scope, named: Named) -> Section | None:
    """A token on its own, as a plain UsernameToken: what the transport binding is without TLS."""
    others = [f"sp:{name}" for name in SUPPORTING.values() if name != "SupportingTokens"]
    for stray in (*named.assertions, *scope.take(*others)):
        raise scope.notes.refuse(stray, "stands without a security binding", "a binding is wanted")
    suite = SUITES["Basic256"]  # nothing is signed or encrypted by it
    rows = _supporting(scope, transport=True, suite=suite)
    scope.flag("sp:Wss10", "sp:Wss11")
    if not rows:
        return None
    properties = _Properties(suite, "Lax", False, False, False, False)
    wss = _Wss(confirms=False, reference="thumbprint", old=False)
    return Section(_protection("transport", (), properties, wss, named, tuple(row for row, _ in rows)), False)


def _protection(
    kind: str,
    tokens: tuple[Token, ...],
    properties: _Properties,
    wss: _Wss,
    named: Named,
    supporting: tuple[SupportingToken, ...],
) -> ProtectionPolicy:
    changes: dict[str, object] = {
        "supporting": supporting,
        "parts": _parts(named, transport=kind == "transport"),
        "timestamp": properties.timestamp,
        "layout": properties.layout,
        "derived_keys": False,
        "encrypt_signature": False,
    }
    holder = "transport"
    if kind != "transport":
        first, last = tokens[0], tokens[-1]
        holder = first.kind
        changes |= {
            "signature_confirmation": wss.confirms,
            "encrypted_header": not wss.old,
            "encrypt_signature": properties.encrypt_signature or named.signature,
            "order": "encrypt-before-sign" if properties.encrypts_first else "sign-before-encrypt",
            "protect_tokens": properties.protect_tokens,
            "derived_keys": kind == "symmetric" and first.derived,
        }
        if last.kind == "x509":
            changes["reference"] = last.reference or wss.reference
        if kind == "asymmetric":
            form = first.reference or wss.reference
            changes["initiator_reference"] = "direct" if first.to_recipient else form
            changes["recipient_included"] = last.to_initiator
    return ProtectionPolicy(holder, properties.suite, kind, **changes)  # type: ignore[arg-type]


def _parts(named: Named, *, transport: bool) -> Parts:
    if named.assertions and not transport:
        return named.parts
    return replace(NO_PARTS if transport else DEFAULT_PARTS, required=named.parts.required)


def _transport(binding: Assertion, inner: Scope) -> tuple[Token, ...]:
    holder = inner.one("sp:TransportToken")
    token = token_of(holder, inner) if holder is not None else None
    if token is None or token.kind not in ("https", "http"):
        raise inner.notes.refuse(binding, "has no HttpsToken", "a TransportToken with one is wanted")
    return (token,)


def _symmetric(binding: Assertion, inner: Scope) -> tuple[Token, ...]:
    tokens = [token_of(each, inner) for each in inner.take(*_PROTECTORS)]
    if not tokens or tokens[0].kind not in ("context", "x509") or len({each.kind for each in tokens}) > 1:
        raise inner.notes.refuse(
            binding,
            "has no one ProtectionToken that castile can use",
            "a SecureConversationToken or an X509Token for both signature and encryption is wanted",
        )
    return (tokens[0],)


def _asymmetric(binding: Assertion, inner: Scope) -> tuple[Token, ...]:
    ours = [token_of(each, inner) for each in inner.take(*_INITIATORS)]
    theirs = [token_of(each, inner) for each in inner.take(*_RECIPIENTS)]
    if not ours or not theirs or any(each.kind != "x509" for each in (*ours, *theirs)):
        raise inner.notes.refuse(
            binding, "isn't between two certificates", "an X509Token of initiator and recipient is wanted"
        )
    return ours[0], theirs[0]


_READERS: Final = {"transport": _transport, "symmetric": _symmetric, "asymmetric": _asymmetric}


def _properties(binding: Assertion, inner: Scope, kind: str) -> _Properties:
    inner.flag("sp:OnlySignEntireHeadersAndBody", "sp:SignBeforeEncrypting")
    layout = "Lax"
    for holder in inner.take("sp:Layout"):
        with inner.inside(holder) as within:
            named = ("Strict", "LaxTsFirst", "LaxTsLast", "Lax")
            layout = next((name for name in named if within.flag(f"sp:{name}")), layout)
    return _Properties(
        _suite(binding, inner),
        layout,
        timestamp=inner.flag("sp:IncludeTimestamp"),
        encrypt_signature=inner.flag("sp:EncryptSignature") and kind != "transport",
        encrypts_first=inner.flag("sp:EncryptBeforeSigning"),
        protect_tokens=inner.flag("sp:ProtectTokens"),
    )


def _suite(binding: Assertion, inner: Scope) -> AlgorithmSuite:
    holder = inner.one("sp:AlgorithmSuite")
    if holder is None:
        raise inner.notes.refuse(binding, "names no AlgorithmSuite", "WS-SecurityPolicy demands one")
    with inner.inside(holder) as within:
        within.flag("sp:STRTransform10", "sp:XPath10", "sp:AbsXPath")
        found = within.one(*_SUITE_NAMES)
    if found is None:
        raise inner.notes.refuse(holder, "names no suite", f"one of {', '.join(SUITES)} is wanted")
    return SUITES[split(found.name)[1]]


def _wss(scope: Scope) -> _Wss:
    """Old peers know no thumbprint: WSS 1.0 has only the other two."""
    confirms, able = False, set[CertificateReference]()
    found = scope.take("sp:Wss10", "sp:Wss11")
    old = bool(found) and all(split(each.name)[1] == "Wss10" for each in found)
    for assertion in found:
        with scope.inside(assertion) as inner:
            inner.flag("sp:MustSupportRefEmbeddedToken", "sp:MustSupportRefExternalURI")
            inner.flag("sp:MustSupportRefEncryptedKey")
            confirms |= inner.flag("sp:RequireSignatureConfirmation")
            for name, form in _MUST_SUPPORT.items():
                if inner.flag(name):
                    able.add(form)
    preferred = (form for form in _MUST_SUPPORT.values() if form in able)
    return _Wss(confirms, next(preferred, "key-identifier" if old else "thumbprint"), old)


_MUST_SUPPORT: Final[dict[str, CertificateReference]] = {
    "sp:MustSupportRefThumbprint": "thumbprint",
    "sp:MustSupportRefKeyIdentifier": "key-identifier",
    "sp:MustSupportRefIssuerSerial": "issuer-serial",
}


def _entropies(scope: Scope, trust: Assertion | None) -> tuple[bool, bool]:
    if trust is None:
        return False, False
    with scope.inside(trust) as inner:
        inner.flag("sp:MustSupportClientChallenge", "sp:MustSupportServerChallenge", "sp:ScopePolicy15")
        inner.flag("sp:MustSupportIssuedTokens", "sp:RequireRequestSecurityTokenCollection")
        return inner.flag("sp:RequireClientEntropy"), inner.flag("sp:RequireServerEntropy")


def _supporting(
    scope: Scope, *, transport: bool, suite: AlgorithmSuite
) -> list[tuple[SupportingToken, Token]]:
    """In one order, however the policy is written: user names, certificates, contexts."""
    found: list[tuple[SupportingToken, Token]] = []
    for (signed, encrypted, endorsing), name in SUPPORTING.items():
        for assertion in scope.take(f"sp:{name}"):
            with scope.inside(assertion) as inner:
                own = named_parts(inner).parts
                if inner.has("sp:AlgorithmSuite") and _suite(assertion, inner) != suite:
                    raise scope.notes.refuse(assertion, "has an AlgorithmSuite of its own")
                tokens = tokens_of(inner)
            found += [
                (_row(token, scope, (signed, encrypted, endorsing), own, transport=transport), token)
                for token in tokens
            ]
    return sorted(found, key=lambda each: (list(_KINDS).index(each[0].token), each[0].endorsing))


def _row(
    token: Token, scope: Scope, how: tuple[bool, bool, bool], own: Parts, *, transport: bool
) -> SupportingToken:
    signed, encrypted, endorsing = how
    if token.kind not in _KINDS or (token.kind == "context" and not endorsing):
        raise scope.notes.refuse(token.assertion, "can't be a supporting token here")
    if token.kind == "username" and endorsing:
        raise scope.notes.refuse(token.assertion, "signs with a key made of a password, which isn't done")
    if token.kind == "username":
        # WCF exports a user name as merely signed, and encrypts it all the same (features MS-58).
        encrypted |= token.password in ("text", "digest")
    if own.encrypts:
        raise scope.notes.refuse(token.assertion, "has EncryptedParts of its own, which can't be done yet")
    return SupportingToken(
        _KINDS[token.kind],
        signed=signed,
        encrypted=encrypted and not transport,
        endorsing=endorsing,
        password=token.password,
        reference="direct" if token.to_recipient else token.reference or "thumbprint",
        derived_keys=token.derived and token.kind == "context",
        created=token.created,
        nonce=token.nonce,
        parts=own,
    )
