"""One received message, from its Security header to parts that are known to be signed.

The steps run in this order: ids, tokens, opening what stands encrypted in the header, the value
of each signature over its SignedInfo, the digests, and only then the Body's plaintext is parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from lxml import etree

from castile.clock import Now
from castile.config import Limits
from castile.errors import Malformed, PeerError, SecurityFailure, Unsupported
from castile.messages.conversation import DerivedKeyToken, SecurityContextToken
from castile.messages.security import (
    ELEMENT_TYPE,
    ID,
    BinarySecurityToken,
    EncryptedData,
    EncryptedKey,
    ReferenceList,
    SignatureConfirmation,
    Timestamp,
    UsernameToken,
    only_child,
)
from castile.messages.signature import Reference, Signature, Transform
from castile.messages.soap import Envelope, is_for_us, must_understand
from castile.security.body import ASIDES, BODY_PLACE, Body
from castile.security.certificates import dereferenced, with_default_namespace
from castile.security.coverage import SIGNED_NAMESPACES, header_name
from castile.security.encryption import undecryptable
from castile.security.expectation import Expectation
from castile.security.opening import Opening
from castile.security.signature import (
    Key as RawKey,
)
from castile.security.signature import (
    canonical_part,
    check_algorithms,
    digest_holds,
    value_holds,
)
from castile.security.tokens import Entry, Key, Token, Tokens
from castile.security.trace import (
    Decrypted,
    Problem,
    ReferenceChecked,
    SignatureChecked,
    TimestampSeen,
    TokenSeen,
    Trace,
)
from castile.versions import DS, WSSC, WSSE, WSSE11, WSU, XENC
from castile.xml import Element, namespace_of, parse_fragment


def _context_token(element: Element) -> SecurityContextToken:
    return SecurityContextToken.parse(element, verbatim=False)


_PARSERS: Final[dict[str, Callable[[Element], Token]]] = {
    f"{{{WSU}}}Timestamp": Timestamp.parse,
    f"{{{XENC}}}EncryptedKey": EncryptedKey.parse,
    f"{{{XENC}}}EncryptedData": EncryptedData.parse,
    f"{{{XENC}}}ReferenceList": ReferenceList.parse,
    f"{{{WSSE}}}UsernameToken": UsernameToken.parse,
    f"{{{WSSE}}}BinarySecurityToken": BinarySecurityToken.parse,
    f"{{{WSSE11}}}SignatureConfirmation": SignatureConfirmation.parse,
    **{f"{{{namespace}}}DerivedKeyToken": DerivedKeyToken.parse for namespace in WSSC},
    **{f"{{{namespace}}}SecurityContextToken": _context_token for namespace in WSSC},
}
"""Children of the Security header; ds:Signature alone takes a limit too."""
_SIGNATURE: Final = f"{{{DS}}}Signature"
_DATA: Final = f"{{{XENC}}}EncryptedData"
_SECURITY: Final = f"{{{WSSE}}}Security"
_ENCRYPTED_HEADER: Final = f"{{{WSSE11}}}EncryptedHeader"
_IDS: Final = etree.XPath(
    "/descendant::*/@u:Id | /descendant::*/@xml:id"
    " | /*/*[1]/descendant::*/@Id | /*/*[1]/descendant::*/@ID | /*/*[1]/descendant::*/@AssertionID"
    " | /*/*[2]/descendant::ds:*/@Id | /*/*[2]/descendant::e:*/@Id",
    namespaces={"u": WSU, "ds": DS, "e": XENC},
    smart_strings=False,
)
"""Every id of an envelope with a Header. What application data in the Body calls ``Id`` is its own
affair: nothing there is ever looked up."""
_ELEMENT_IDS: Final = etree.XPath(
    " | ".join(f"descendant-or-self::*/@{name}" for name in ("u:Id", "xml:id", "Id", "ID", "AssertionID")),
    namespaces={"u": WSU},
    smart_strings=False,
)


@dataclass(frozen=True, slots=True)
class Part:
    """Something that a signature may cover: a header block, the Body, a child of Security."""

    name: str
    element: Element
    place: int | None = None
    """Of a child of Security."""
    signer: Entry | None = None
    """The Signature whose KeyInfo holds this token reference."""
    token: bool = False
    """It stands for the token that the reference leads to."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature whose value and references all held."""

    index: int
    entry: Entry
    signature: Signature
    key: Key
    covered: dict[str, Part]
    """By id."""

    @property
    def endorsing(self) -> bool:
        """Whether it signs another signature."""
        return any(part.name == "ds:Signature" for part in self.covered.values())

    def covers(self, entry: Entry) -> bool:
        """Whether it signs this child of Security, in clear or as it came."""
        return any(
            part.element is entry.element or part.element is entry.cipher for part in self.covered.values()
        )


class Reading:
    """The state of one message under examination."""

    __slots__ = (
        "_budget",
        "_ids",
        "_keys",
        "body",
        "entries",
        "envelope",
        "expectation",
        "failure",
        "headers",
        "limits",
        "now",
        "opening",
        "parts",
        "security",
        "signed",
        "tokens",
        "trace",
    )

    def __init__(
        self,
        envelope: Envelope,
        security: Element,
        tokens: Tokens,
        expectation: Expectation,
        now: Now,
        limits: Limits,
        trace: Trace | None,
    ) -> None:
        self.envelope, self.security, self.tokens = envelope, security, tokens
        self.expectation, self.now, self.limits, self.trace = expectation, now, limits, trace
        self.opening = Opening(tokens, expectation, trace)
        self.headers: list[Element] = list(envelope.headers)
        """The header blocks; those that came encrypted as they are in clear."""
        self.entries: list[Entry] = []
        self.parts: dict[str, Part] = {}
        """What a reference may point to, by id."""
        self.signed: list[Signed] = []
        self.body = Body(envelope, self.opening, limits, self._claim, self._spend)
        self.failure: PeerError | None = None
        """The first thing wrong, where a trace lets checking go on."""
        self._ids: set[str] = set()
        self._keys: dict[int, Key] = {}
        """Of the signatures, by place: resolved once, for their values and for their references."""
        self._budget = limits.digested_factor * max(envelope.size, 4096)

    def wrong(self, error: PeerError) -> None:
        """Raises; with a trace, notes the failure and lets the caller go on."""
        if self.trace is None:
            raise error
        part = error.part if isinstance(error, SecurityFailure) else None
        missing = isinstance(error, SecurityFailure) and error.missing_key
        self.trace.add(Problem(str(error), part, missing))
        self.failure = self.failure or error

    def run(self) -> None:
        """All steps; afterwards `signed` and `body` hold what can be relied on."""
        self._scan()
        self._read_header()
        self._open_header()
        self._open_blocks()
        self._collect_parts()
        for index, entry in enumerate(self.of(Signature)):
            self._verify(index, entry)
        self._finish_body()
        if self.opening.listed.keys() - self.opening.placed:
            self.wrong(SecurityFailure("something is listed as encrypted where nothing may be encrypted"))

    def covered_headers(self, signed: Signed | None) -> list[Element]:
        """The header blocks that a signature covers, in clear or as they came."""
        if signed is None:
            return []
        elements = [part.element for part in signed.covered.values()]
        pairs = zip(self.headers, self.envelope.headers, strict=True)
        return [block for block, came in pairs if block in elements or came in elements]

    @property
    def blocks(self) -> list[Element]:
        """The header blocks but those of WS-Security."""
        return [block for block in self.headers if block.tag != _SECURITY]

    def of(self, *kinds: type[Token]) -> list[Entry]:
        """The header's entries of these kinds, in document order."""
        return [entry for entry in self.entries if isinstance(entry.token, kinds)]

    # ---- ids and tokens

    def _scan(self) -> None:
        if ASIDES(self.envelope.root):
            self.wrong(SecurityFailure("a comment or processing instruction in a protected message"))
        self._claim(_IDS(self.envelope.root))

    def _claim(self, names: object) -> None:
        found = [str(name) for name in names] if isinstance(names, list) else []
        known = len(self._ids)
        self._ids.update(found)
        if len(self._ids) != known + len(found):
            self.wrong(SecurityFailure("an id occurs twice in the message"))

    def _read_header(self) -> None:
        counts = {Signature: 0, EncryptedData: 0, DerivedKeyToken: 0}
        bounds = {
            Signature: self.limits.signatures,
            EncryptedData: self.limits.encrypted_data,
            DerivedKeyToken: self.limits.derived_keys,
        }
        for place, element in enumerate(self.security):
            entry = self._entry(place, element)
            if entry is None:
                continue
            kind = type(entry.token)
            if kind in counts:
                counts[kind] += 1
                if counts[kind] > bounds[kind]:
                    raise SecurityFailure(f"more than {bounds[kind]} {entry.part}", part=entry.part)
            self._register(entry)

    def _entry(self, place: int, element: Element) -> Entry | None:
        """What stands at this place of the header; None where it is passed over."""
        if not isinstance(element.tag, str):
            return None  # a comment, which _scan has refused
        part = header_name(element)
        try:
            token = self._parsed(element)
        except (Malformed, Unsupported) as error:
            self.wrong(SecurityFailure(str(error), part=part))
            return None
        return Entry(place, part, element, token)

    def _parsed(self, element: Element) -> Token:
        if element.tag == _SIGNATURE:
            return Signature.parse(element, self.limits.references)
        parser = _PARSERS.get(str(element.tag))
        if parser is None:
            name = header_name(element)
            raise Unsupported(f"the Security header holds {name}, which isn't taken")
        return parser(element)

    def _register(self, entry: Entry) -> None:
        token = entry.token
        self.entries.append(entry)
        name = _id_of(token)
        if isinstance(token, ReferenceList | EncryptedKey):
            for listed in token.ids if isinstance(token, ReferenceList) else token.references:
                self.opening.listed.setdefault(listed, entry.place)
        if self.trace is not None:
            self.trace.add(TokenSeen(entry.part, name, _described(token)))
            if isinstance(token, Timestamp):
                self.trace.add(TimestampSeen(token.created, token.expires))
        try:
            self.tokens.add(entry, name)
        except SecurityFailure as error:
            self.wrong(error)

    # ---- what is encrypted in the header

    def _open_header(self) -> None:
        for index, entry in enumerate(self.entries):
            data = entry.token
            if not isinstance(data, EncryptedData):
                continue
            try:
                element, token, key = self._opened(data, entry.place, self.security, "Security header")
                if token is None or isinstance(token, EncryptedData):
                    raise undecryptable("an encrypted part of the Security header")
            except SecurityFailure as error:
                self.wrong(error)
                continue
            opened = Entry(entry.place, header_name(element), element, token, key, entry.element)
            self.entries[index] = opened
            self.tokens.entries.pop(data.id or "", None)
            name = _id_of(opened.token)
            if self.trace is not None:
                self.trace.add(TokenSeen(opened.part, name, _described(opened.token)))
            try:
                self.tokens.add(opened, name)
            except SecurityFailure as error:
                self.wrong(error)

    def _open_blocks(self) -> None:
        """Header blocks that came encrypted: as WSS 1.1.1, 9.3 says, or bare as old peers do."""
        for index, block in enumerate(self.envelope.headers):
            if block.tag not in (_ENCRYPTED_HEADER, _DATA) or not is_for_us(block, self.envelope.soap):
                continue
            try:
                self.headers[index] = self._opened_block(block)
            except SecurityFailure as error:
                self.wrong(error)
            except (Malformed, Unsupported) as error:
                self.wrong(SecurityFailure(str(error), part=header_name(block)))

    def _opened_block(self, block: Element) -> Element:
        data = EncryptedData.parse(block if block.tag == _DATA else only_child(block, _DATA))
        if (name := block.get(ID)) is not None and name in self.opening.listed:
            self.opening.placed.add(name)
        element, _, _ = self._opened(data, BODY_PLACE, block, "header", block=True)
        namespace = namespace_of(element)
        if namespace in (WSSE, WSSE11, XENC):
            raise undecryptable("an encrypted header")
        if namespace not in SIGNED_NAMESPACES and must_understand(element, self.envelope.soap):
            text = "an encrypted header must be understood, and isn't"
            raise SecurityFailure(text, part=header_name(element))
        return element

    def _opened(
        self, data: EncryptedData, place: int, around: Element, where: str, *, block: bool = False
    ) -> tuple[Element, Token | None, Key]:
        """The element that an EncryptedData of the header stands for; of a header block no token."""
        part = f"an encrypted part of the {where}"
        if data.type != ELEMENT_TYPE:
            reason = f"only whole elements of the {where} may be encrypted"
            raise SecurityFailure(reason, part="xenc:EncryptedData")
        self.opening.placed.add(data.id or "")
        plaintext, key = self.opening.decrypted(data, place, part)
        try:
            text, elements = parse_fragment(plaintext, around, self.limits)
            if len(elements) != 1 or text or elements[0].tail or ASIDES(elements[0]):
                raise undecryptable(part)
            element = elements[0]
            token = None if block else self._parsed(element)
        except (Malformed, Unsupported):
            self.opening.noted(Decrypted(part, False, key.identity, data.algorithm, data.id))
            raise undecryptable(part) from None
        self._claim(_ELEMENT_IDS(element))
        self.opening.opened(header_name(element), data, key)
        return element, token, key

    # ---- signatures

    def _collect_parts(self) -> None:
        """What a reference may point to: by position, never by a search for an id."""
        policy = self.expectation.policy
        ciphertext = policy is None or policy.order == "encrypt-before-sign"
        for block, came in zip(self.headers, self.envelope.headers, strict=True):
            name = block.get(ID)
            if name is not None and block is not self.security:
                self.parts[name] = Part(header_name(block), block)
            if block is not came and ciphertext:
                name = came.get("Id") if came.tag == _DATA else came.get(ID)
                if name is not None:
                    self.parts[name] = Part(header_name(block), came)
        name = self.envelope.body.get(ID)
        if name is not None:
            self.parts[name] = Part("Body", self.envelope.body)
        for entry in self.entries:
            name = _id_of(entry.token)
            if name is not None:
                self.parts[name] = Part(entry.part, entry.element, entry.place)
            if entry.cipher is not None and ciphertext and (name := entry.cipher.get("Id")) is not None:
                self.parts[name] = Part(entry.part, entry.cipher, entry.place)
            if isinstance(entry.token, Signature):
                reference = entry.token.key.reference
                if reference is not None and reference.id is not None:
                    self._add_token_reference(entry, reference.id)

    def _add_token_reference(self, entry: Entry, name: str) -> None:
        """The token reference in a signature's KeyInfo, which an STR-Transform may lead from."""
        element = entry.element[-1][0]
        self.parts[name] = Part("wsse:SecurityTokenReference", element, None, entry)

    def _key(self, entry: Entry) -> Key:
        """The key of a signature, resolved once."""
        known = self._keys.get(entry.place)
        if known is None:
            if not isinstance(entry.token, Signature):
                raise SecurityFailure("no signature", part=entry.part)
            known = self._keys[entry.place] = self.tokens.key(entry.token.key, entry.place)
            if isinstance(known.source, x509.Certificate) and self.expectation.policy is not None:
                # Before it is used: a stranger's key costs no work.
                self.expectation.trust.check(known.source, known.path, self.now.utc)
        return known

    def _verify(self, index: int, entry: Entry) -> None:
        signature = entry.token
        if not isinstance(signature, Signature):
            return
        policy = self.expectation.policy
        key: Key | None = None
        ok = False
        missing = False
        held: dict[str, Part] = {}
        try:
            check_algorithms(signature, None if policy is None else policy.suite)
            key = self._key(entry)
            raw: RawKey = key.public if key.public is not None else key.octets
            if key.public is None:
                self.opening.bind(key, "signature", signature.method)
            ok = value_holds(signature, raw)
            if not ok:
                raise SecurityFailure("the signature's value is wrong", part="ds:Signature")
        except (SecurityFailure, Malformed) as error:
            missing = isinstance(error, SecurityFailure) and error.missing_key
            self.wrong(error if isinstance(error, SecurityFailure) else SecurityFailure(str(error)))
        whole = False
        if key is not None:
            held, whole = self._check_references(index, signature)
        if self.trace is not None:
            certificate = key.source if key is not None and isinstance(key.source, x509.Certificate) else None
            self.trace.add(
                SignatureChecked(
                    ok,
                    key.identity if key is not None else None,
                    signature.method,
                    index,
                    tuple(part.name for part in held.values()),
                    missing,
                    certificate,
                )
            )
        if ok and key is not None and whole:
            self.signed.append(Signed(index, entry, signature, key, held))

    def _check_references(self, index: int, signature: Signature) -> tuple[dict[str, Part], bool]:
        """The parts whose digests hold, by id, and whether all do; a wrong one is a failure.

        A part that is referred to twice is no fault: Metro does it.
        """
        held: dict[str, Part] = {}
        whole = True
        for reference in signature.references:
            part = self.parts.get(reference.id)
            name = part.name if part is not None else f"#{reference.id}"
            ok = False
            try:
                if part is None:
                    raise SecurityFailure("a reference leads to no part that may be signed", part=name)
                covered = self._covered(part, reference)
                ok = covered is not None
                if covered is None:
                    raise SecurityFailure(f"the digest of {name} is wrong", part=name)
                held[reference.id] = covered
            except SecurityFailure as error:
                self.wrong(error)
            except (Malformed, Unsupported) as error:
                self.wrong(SecurityFailure(str(error), part=name))
            finally:
                whole = whole and ok
                if self.trace is not None:
                    self.trace.add(ReferenceChecked(name, ok, reference.digest_method, reference.id, index))
        return held, whole

    def _covered(self, part: Part, reference: Reference) -> Part | None:
        """The part that a reference covers; None where its digest is wrong."""
        transform, method, digest = reference.transforms[0], reference.digest_method, reference.digest
        if transform.inner is not None:
            return self._dereferenced(part, transform.inner, method, digest)
        if part.element is self.envelope.body:
            return part if self.body.octets(transform, method, digest) is not None else None
        octets = canonical_part(part.element, transform)
        self._spend(octets)
        return part if digest_holds(octets, method, digest) else None

    def _dereferenced(self, part: Part, inner: Transform, method: str, digest: bytes) -> Part | None:
        """The token behind a token reference (WSS 1.1.1, 8.3): the one whose key the signature has.

        A token that isn't in the message is covered as its reference.
        """
        if part.signer is None:
            raise SecurityFailure("an STR-Transform of something else than a key's reference", part=part.name)
        key = self._key(part.signer)
        if not isinstance(key.source, x509.Certificate):
            raise SecurityFailure("an STR-Transform of a token that isn't a certificate", part=part.name)
        if key.token is not None:
            token = Part(key.token.part, key.token.element, key.token.place)
            forms: tuple[bytes, ...] = (with_default_namespace(canonical_part(token.element, inner)),)
        else:
            token = Part("wsse:BinarySecurityToken", part.element, None, part.signer, True)
            forms = dereferenced(key.source, part.element.prefix or "")
        self._spend(forms[0])
        return token if any(digest_holds(octets, method, digest) for octets in forms) else None

    def _spend(self, octets: bytes) -> None:
        self._budget -= len(octets)
        if self._budget < 0:
            raise SecurityFailure("more octets to digest than a message of this size may ask for")

    def _finish_body(self) -> None:
        """Open a Body that no signature has led to: because the policy leaves it unsigned, or so that
        a trace shows it."""
        policy = self.expectation.policy
        if self.trace is None and (policy is None or policy.signs_body):
            return
        try:
            self.body.finish()
        except SecurityFailure as error:
            if self.failure is None or error.missing_key:
                self.wrong(error)
        except (Malformed, Unsupported) as error:
            self.wrong(SecurityFailure(str(error), part="Body"))


def _id_of(token: Token) -> str | None:
    return None if isinstance(token, ReferenceList) else token.id


def _described(token: Token) -> str:
    """What a person wants to know of a token; no secret."""
    match token:
        case SecurityContextToken():
            return str(token.identifier)
        case UsernameToken():
            return token.name
        case EncryptedKey() | EncryptedData():
            return token.algorithm
        case Signature():
            return token.method
        case BinarySecurityToken():
            return token.value_type
        case SignatureConfirmation():
            return token.value.hex() if token.value is not None else ""
        case _:
            return ""
