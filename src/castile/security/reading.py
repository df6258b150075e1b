"""One received message, from its Security header to parts that are known to be signed.

The steps run in this order: ids, tokens, opening what stands encrypted in the header, the MAC
over each SignedInfo, the digests, and only then the Body's plaintext is parsed. Nothing is moved
or replaced in the document that came: what was encrypted is parsed in the namespaces of its
place, beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from cryptography import x509
from lxml import etree

from castile.config import Limits
from castile.errors import Malformed, PeerError, SecurityFailure, Unsupported
from castile.messages.conversation import DerivedKeyToken, SecurityContextToken
from castile.messages.security import (
    CONTENT_TYPE,
    ELEMENT_TYPE,
    ID,
    BinarySecurityToken,
    EncryptedData,
    EncryptedKey,
    ReferenceList,
    SignatureConfirmation,
    Timestamp,
    UsernameToken,
)
from castile.messages.signature import Reference, Signature, Transform
from castile.messages.soap import Envelope
from castile.policy.suites import AlgorithmSuite
from castile.security.coverage import header_name
from castile.security.encryption import CIPHERS, decrypt, undecryptable
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
from castile.xml import Element, canonical, parse, parse_fragment


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
_BODY_PLACE: Final = 1 << 30

_NAMES: Final = {"u": WSU, "ds": DS, "e": XENC}
_IDS: Final = etree.XPath(
    "/descendant::*/@u:Id | /descendant::*/@xml:id"
    " | /*/*[1]/descendant::*/@Id | /*/*[1]/descendant::*/@ID | /*/*[1]/descendant::*/@AssertionID"
    " | /*/*[2]/descendant::ds:*/@Id | /*/*[2]/descendant::e:*/@Id",
    namespaces=_NAMES,
    smart_strings=False,
)
"""Every id of an envelope with a Header. What application data in the Body calls ``Id`` is its own
affair: nothing there is ever looked up."""
_CONTENT_IDS: Final = etree.XPath(
    "descendant::*/@u:Id | descendant::*/@xml:id | descendant::ds:*/@Id | descendant::e:*/@Id",
    namespaces=_NAMES,
    smart_strings=False,
)
_ELEMENT_IDS: Final = etree.XPath(
    " | ".join(f"descendant-or-self::*/@{name}" for name in ("u:Id", "xml:id", "Id", "ID", "AssertionID")),
    namespaces=_NAMES,
    smart_strings=False,
)
_ASIDES: Final = etree.XPath("boolean(//comment() | //processing-instruction())")
_START_TAG: Final = re.compile(rb'<([^\s>]+)(?:[^">]|"[^"]*")*>')
_DECLARED: Final = re.compile(rb'\sxmlns(?::([^=\s]+))?="')


@dataclass(frozen=True, slots=True)
class Part:
    """Something that a signature may cover: a header block, the Body, a child of Security."""

    name: str
    element: Element


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature whose value and references all held."""

    index: int
    signature: Signature
    key: Key
    covered: dict[str, Part]
    """By id."""

    @property
    def endorsing(self) -> bool:
        """Whether it signs another signature."""
        return any(part.name == "ds:Signature" for part in self.covered.values())


class Reading:
    """The state of one message under examination."""

    __slots__ = (
        "_budget",
        "_ids",
        "_listed",
        "_placed",
        "_plaintext",
        "_uses",
        "body",
        "body_content",
        "encrypted",
        "entries",
        "envelope",
        "failure",
        "limits",
        "parts",
        "security",
        "signed",
        "suite",
        "tokens",
        "trace",
    )

    def __init__(
        self,
        envelope: Envelope,
        security: Element,
        tokens: Tokens,
        suite: AlgorithmSuite | None,
        limits: Limits,
        trace: Trace | None,
    ) -> None:
        """`suite` None: all that castile can read."""
        self.envelope, self.security, self.tokens = envelope, security, tokens
        self.suite, self.limits, self.trace = suite, limits, trace
        self.entries: list[Entry] = []
        self.parts: dict[str, Part] = {}
        """What a reference may point to, by id."""
        self.signed: list[Signed] = []
        self.encrypted: list[tuple[str, Key]] = []
        """Names of the parts that were encrypted, and under which keys."""
        self.body: Element | None = None
        """The Body once its octets are known to be what was signed."""
        self.body_content = b""
        self.failure: PeerError | None = None
        """The first thing wrong, where a trace lets checking go on."""
        self._ids: set[str] = set()
        self._listed: set[str] = set()
        """Ids that a ReferenceList says are encrypted."""
        self._placed: set[str] = set()
        """Ids of EncryptedData that stand where something may be encrypted."""
        self._uses: dict[tuple[bytes, bool], tuple[str, str]] = {}
        self._plaintext: bytes | None = None
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
        self._collect_parts()
        for index, entry in enumerate(self.of(Signature)):
            self._verify(index, entry)
        self._finish_body()
        if self._listed - self._placed:
            self.wrong(SecurityFailure("something is listed as encrypted where nothing may be encrypted"))

    def of(self, *kinds: type[Token]) -> list[Entry]:
        """The header's entries of these kinds, in document order."""
        return [entry for entry in self.entries if isinstance(entry.token, kinds)]

    # ---- ids and tokens

    def _scan(self) -> None:
        if _ASIDES(self.envelope.root):
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
        if isinstance(token, ReferenceList):
            self._listed.update(token.ids)
            name = None
        else:
            name = token.id
        if isinstance(token, EncryptedKey):
            self._listed.update(token.references)
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
        for entry in self.of(EncryptedData):
            data = entry.token
            if not isinstance(data, EncryptedData):
                continue
            self._placed.add(data.id or "")
            try:
                opened = self._opened(entry, data)
            except SecurityFailure as error:
                self.wrong(error)
                continue
            self.entries[self.entries.index(entry)] = opened
            self.tokens.entries.pop(data.id or "", None)
            name = _id_of(opened.token)
            if self.trace is not None:
                self.trace.add(TokenSeen(opened.part, name, _described(opened.token)))
            try:
                self.tokens.add(opened, name)
            except SecurityFailure as error:
                self.wrong(error)

    def _opened(self, entry: Entry, data: EncryptedData) -> Entry:
        """The entry that stands in the place of an EncryptedData of the header."""
        part = "an encrypted part of the Security header"
        if data.type != ELEMENT_TYPE:
            raise SecurityFailure(
                "only whole elements of the Security header may be encrypted", part=entry.part
            )
        plaintext, key = self._decrypted(data, entry.place, part)
        try:
            text, elements = parse_fragment(plaintext, self.security, self.limits)
            if len(elements) != 1 or text or elements[0].tail or _ASIDES(elements[0]):
                raise undecryptable(part)
            element = elements[0]
            token = self._parsed(element)
            if isinstance(token, EncryptedData):
                raise undecryptable(part)
        except (Malformed, Unsupported):
            self._noted(Decrypted(part, False, key.identity, data.algorithm, data.id))
            raise undecryptable(part) from None
        self._claim(_ELEMENT_IDS(element))
        name = header_name(element)
        self.encrypted.append((name, key))
        self._noted(Decrypted(name, True, key.identity, data.algorithm, data.id))
        return Entry(entry.place, name, element, token, key)

    def _decrypted(self, data: EncryptedData, place: int, part: str) -> tuple[bytes, Key]:
        """The plaintext octets, after algorithm and key were checked."""
        allowed = CIPHERS.keys() if self.suite is None else (self.suite.encryption,)
        if data.algorithm not in CIPHERS or data.algorithm not in allowed:
            raise SecurityFailure(f"the encryption algorithm {data.algorithm} isn't allowed here", part=part)
        try:
            key = self.tokens.key(data.key, place) if data.key is not None else self._listing(data, place)
        except SecurityFailure as error:
            self._noted(Decrypted(part, False, None, data.algorithm, data.id, error.missing_key))
            raise
        self._bind(key, "encryption", data.algorithm)
        try:
            return decrypt(key.octets, data.algorithm, data.cipher, part), key
        except SecurityFailure:
            self._noted(Decrypted(part, False, key.identity, data.algorithm, data.id))
            raise

    def _listing(self, data: EncryptedData, place: int) -> Key:
        """The EncryptedKey that lists this data, where the data names no key."""
        for entry in self.of(EncryptedKey):
            if isinstance(entry.token, EncryptedKey) and data.id in entry.token.references:
                return self.tokens.resolve(entry.token.as_reference(), place, 0)
        raise SecurityFailure("an EncryptedData names no key", part="xenc:EncryptedData")

    def _bind(self, key: Key, purpose: Literal["signature", "encryption"], algorithm: str) -> None:
        """A derived key serves one algorithm, another key one algorithm a purpose (features SC-19)."""
        shared = not key.derived or self.suite is None
        slot = (key.octets, purpose == "signature" if shared else False)
        if self._uses.setdefault(slot, (purpose, algorithm)) != (purpose, algorithm):
            raise SecurityFailure("one key is used for two purposes or algorithms", part="ds:KeyInfo")

    def _noted(self, finding: Decrypted) -> None:
        if self.trace is not None:
            self.trace.add(finding)

    # ---- signatures

    def _collect_parts(self) -> None:
        """What a reference may point to: by position, never by a search for an id."""
        for block in self.envelope.headers:
            name = block.get(ID)
            if name is not None and block is not self.security:
                self.parts[name] = Part(header_name(block), block)
        name = self.envelope.body.get(ID)
        if name is not None:
            self.parts[name] = Part("Body", self.envelope.body)
        for entry in self.entries:
            name = _id_of(entry.token)
            if name is not None:
                self.parts[name] = Part(entry.part, entry.element)

    def _verify(self, index: int, entry: Entry) -> None:
        signature = entry.token
        if not isinstance(signature, Signature):
            return
        key: Key | None = None
        ok = False
        missing = False
        held: dict[str, Part] = {}
        try:
            check_algorithms(signature, self.suite)
            key = self.tokens.key(signature.key, entry.place)
            raw: RawKey = key.public if key.public is not None else key.octets
            if key.public is None:
                self._bind(key, "signature", signature.method)
            ok = value_holds(signature, raw)
            if not ok:
                raise SecurityFailure("the signature's value is wrong", part="ds:Signature")
        except (SecurityFailure, Malformed) as error:
            missing = isinstance(error, SecurityFailure) and error.missing_key
            self.wrong(error if isinstance(error, SecurityFailure) else SecurityFailure(str(error)))
        if key is not None:
            held = self._check_references(index, signature)
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
        if ok and key is not None and len(held) == len(signature.references):
            self.signed.append(Signed(index, signature, key, held))

    def _check_references(self, index: int, signature: Signature) -> dict[str, Part]:
        """The parts whose digests hold, by id; a wrong one is a failure."""
        held: dict[str, Part] = {}
        for reference in signature.references:
            part = self.parts.get(reference.id)
            name = part.name if part is not None else f"#{reference.id}"
            ok = False
            try:
                if part is None or reference.id in held:
                    raise SecurityFailure("a reference leads to no part that may be signed", part=name)
                ok = self._octets(part, reference) is not None
                if not ok:
                    raise SecurityFailure(f"the digest of {name} is wrong", part=name)
                held[reference.id] = part
            except SecurityFailure as error:
                self.wrong(error)
            except (Malformed, Unsupported) as error:
                self.wrong(SecurityFailure(str(error), part=name))
            finally:
                if self.trace is not None:
                    self.trace.add(ReferenceChecked(name, ok, reference.digest_method, reference.id, index))
        return held

    def _octets(self, part: Part, reference: Reference) -> bytes | None:
        """The canonical octets of a part if they have the digest that the reference names."""
        transform, method, digest = reference.transforms[0], reference.digest_method, reference.digest
        if part.element is self.envelope.body:
            return self._body_octets(transform, method, digest)
        octets = canonical_part(part.element, transform)
        self._spend(octets)
        return octets if digest_holds(octets, method, digest) else None

    def _spend(self, octets: bytes) -> None:
        self._budget -= len(octets)
        if self._budget < 0:
            raise SecurityFailure("more octets to digest than a message of this size may ask for")

    # ---- the Body

    def _body_data(self) -> EncryptedData | None:
        """The EncryptedData that is the Body's content, if it is encrypted."""
        body = self.envelope.body
        if len(body) == 0 or body[0].tag != _DATA or body[0].get("Id") not in self._listed:
            return None
        if len(body) != 1 or body.text or body[0].tail or body[0].get("Type") != CONTENT_TYPE:
            raise SecurityFailure("the Body must be encrypted whole, as content", part="Body")
        self._placed.add(body[0].get("Id") or "")
        return EncryptedData.parse(body[0])

    def _body_octets(self, transform: Transform, method: str, digest: bytes) -> bytes | None:
        """The Body's canonical octets if they have this digest; keeps the element they stand for."""
        if self.body is not None:
            octets = canonical_part(self.body, transform)
            self._spend(octets)
            return octets if digest_holds(octets, method, digest) else None
        frame = canonical_part(self.envelope.body, transform)
        start = _start_of(frame)
        plaintext = self._open_body()
        if plaintext is None:
            self._spend(frame)
            if not digest_holds(frame, method, digest):
                return None
            return self._take_body(self.envelope.body, start, frame)
        end = frame[frame.rindex(b"</") :]
        octets = b"".join((start, plaintext, end))
        self._spend(octets)
        # The digest first: octets that have it were written by the key's holder, and only those
        # are parsed. Else the peer's plaintext may be merely not canonical.
        matched = digest_holds(octets, method, digest)
        if matched:
            element = self._parse_body(octets, canonical_octets=True)
        else:
            start = _start_of(canonical(self.envelope.body))
            element = self._parse_body(b"".join((start, plaintext, end)), canonical_octets=False)
            octets = canonical_part(element, transform)
            start = _start_of(octets)
            self._spend(octets)
            if not digest_holds(octets, method, digest):
                return None
        self._claim(_CONTENT_IDS(element))
        return self._take_body(element, start, octets)

    def _take_body(self, element: Element, start: bytes, octets: bytes) -> bytes:
        content = octets[len(start) : octets.rindex(b"</")]
        if any(_uses(prefix, content) for prefix in _DECLARED.findall(start)):
            # A child that uses what the Body declares, as a Fault does, must stand alone too.
            content = b"".join(canonical(child) for child in element)
        self.body, self.body_content = element, content
        return octets

    def _open_body(self) -> bytes | None:
        """The plaintext of the Body's content; None where it stands in clear."""
        if self._plaintext is None:
            data = self._body_data()
            if data is None:
                return None
            self._plaintext, key = self._decrypted(data, _BODY_PLACE, "Body")
            self.encrypted.append(("Body", key))
            self._noted(Decrypted("Body", True, key.identity, data.algorithm, data.id))
        return self._plaintext

    def _parse_body(self, octets: bytes, canonical_octets: bool) -> Element:
        scope = self.envelope.body.nsmap
        try:
            if canonical_octets and None in scope and self.envelope.body.prefix is not None:
                # A default namespace around it would change what canonical octets mean.
                return self._without_asides(parse(octets, self.limits))
            text, elements = parse_fragment(octets, self.envelope.body, self.limits)
        except Malformed:
            raise undecryptable("Body") from None
        if len(elements) != 1 or text or elements[0].tail:
            raise undecryptable("Body")  # the plaintext has closed the Body by itself
        return self._without_asides(elements[0])

    def _without_asides(self, element: Element) -> Element:
        if _ASIDES(element):
            raise SecurityFailure("a comment or processing instruction in a protected message", part="Body")
        return element

    def _finish_body(self) -> None:
        """Open a Body that no signature has led to, so that a trace shows it."""
        if self.body is not None or self.trace is None:
            return
        try:
            plaintext = self._open_body()
            frame = canonical(self.envelope.body)
            start, end = _start_of(frame), frame[frame.rindex(b"</") :]
            element = self.envelope.body
            if plaintext is not None:
                element = self._parse_body(b"".join((start, plaintext, end)), canonical_octets=False)
            self._take_body(element, start, canonical(element))
        except SecurityFailure as error:
            if self.failure is None or error.missing_key:
                self.wrong(error)
        except (Malformed, Unsupported) as error:
            self.wrong(SecurityFailure(str(error), part="Body"))


def _start_of(frame: bytes) -> bytes:
    found = _START_TAG.match(frame)
    if found is None:
        raise Malformed("an element without start tag")
    return found[0]


def _uses(prefix: bytes, content: bytes) -> bool:
    """Whether canonical content may use a prefix, or the default namespace, in its markup."""
    if not prefix:
        return b"<" in content
    return b"<%b:" % prefix in content or b" %b:" % prefix in content


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
