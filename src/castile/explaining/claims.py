"""What the signatures of a message claim, read leniently: also in forms that `unprotect` refuses.

A `Claim` says that some octets have a digest, or that SignedInfo has a signature's value. Trying
one proves nothing: what comes of it is only told to people.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hmac import HMAC

from castile.errors import PeerError
from castile.explaining.forms import C14N, FORMS, Form, Scope, Texts, Writer, unchanged
from castile.explaining.keys import Keys
from castile.messages.security import KeyInfo, base64_of
from castile.policy import suites
from castile.security.certificates import dereferenced, with_default_namespace
from castile.security.reading import Part, Reading
from castile.security.signature import Key as RawKey
from castile.security.tokens import Key
from castile.versions import DS, EXC_C14N, STR_TRANSFORM, XENC
from castile.xml import Element, canonical

_DS: Final = f"{{{DS}}}"
_MORE: Final = "http://www.w3.org/2001/04/xmldsig-more#"
_LISTED: Final = f"{{{EXC_C14N}}}InclusiveNamespaces"
_REFERENCES: Final = 32
_SIGNATURES: Final = 4
_ENVELOPED: Final = f"{DS}enveloped-signature"

HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "SHA-1": hashes.SHA1(),  # noqa: S303 - to name what somebody else has used
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
    "MD5": hashes.MD5(),  # noqa: S303 - likewise
}
"""By their names for people."""
_DIGESTS: Final = {
    suites.SHA1: "SHA-1",
    suites.SHA256: "SHA-256",
    f"{_MORE}sha384": "SHA-384",
    f"{XENC}sha512": "SHA-512",
    f"{_MORE}md5": "MD5",
}
_METHODS: Final = {
    suites.HMAC_SHA1: "SHA-1",
    suites.RSA_SHA1: "SHA-1",
    **{
        f"{_MORE}{kind}-{name.lower().replace('-', '')}": name
        for kind in ("hmac", "rsa")
        for name in HASHES
        if name != "SHA-1"
    },
}


class Exhausted(Exception):
    """So much was tried for one message that trying ends."""


@dataclass(slots=True)
class Budget:
    """What may still be tried for one message: the whole thing is exposed to hostile files."""

    tries: int = 1_500
    octets: int = 8 << 20

    def spend(self, octets: bytes) -> None:
        """Count one try over these octets; raises `Exhausted`."""
        self.tries -= 1
        self.octets -= len(octets)
        if self.tries < 0 or self.octets < 0:
            raise Exhausted


@dataclass(frozen=True, slots=True)
class Try:
    """What could have been digested or signed; None: as the message has it."""

    octets: bytes | None = field(default=None, repr=False)
    hash: str | None = None
    key: RawKey | None = field(default=None, repr=False)
    value: bytes | None = None
    note: str = ""
    """Goes into the text of the cause."""


@dataclass(frozen=True, slots=True)
class Claim:
    """These octets have this digest; or, with a key, this signature value."""

    part: str
    writer: Writer
    form: Form
    hash: str
    value: bytes
    reading: Reading
    keys: Keys
    budget: Budget
    key: RawKey | None = field(default=None, repr=False)
    signer: Key | None = field(default=None, repr=False)
    """Whose key that is, of a signature's value."""
    info: KeyInfo | None = None
    finish: Callable[[bytes], bytes] = bytes
    """What is done to the canonical octets."""
    reference: Element | None = None
    """The token reference whose token was to be digested."""
    tokens: tuple[bytes, ...] = field(default=(), repr=False)
    """The token behind it in the forms that peers digest."""

    def write(
        self,
        texts: Texts = unchanged,
        form: Form | None = None,
        *,
        around: Scope | None = None,
        renamed: Scope | None = None,
        without: str | None = None,
    ) -> bytes:
        """The element's octets, in its own form or in another one."""
        how = form if form is not None else self.form
        return self.finish(self.writer.write(how, texts, around=around, renamed=renamed, without=without))

    def digest(self) -> bytes:
        """What its octets as they are have for a digest."""
        hashing = hashes.Hash(HASHES[self.hash])
        hashing.update(self.write())
        return hashing.finalize()

    def holds(self, attempt: Try | None = None) -> bool:
        """Whether the claim is true, as it stands or of what is tried; may raise `Exhausted`."""
        attempt = attempt if attempt is not None else Try()
        octets = attempt.octets if attempt.octets is not None else self.write()
        self.budget.spend(octets)
        algorithm = HASHES[attempt.hash if attempt.hash is not None else self.hash]
        value = attempt.value if attempt.value is not None else self.value
        key = attempt.key if attempt.key is not None else self.key
        try:
            if key is None:
                hashing = hashes.Hash(algorithm)
                hashing.update(octets)
                return hmac.compare_digest(hashing.finalize(), value)
            if isinstance(key, bytes):
                keyed = HMAC(key, algorithm)
                keyed.update(octets)
                return hmac.compare_digest(keyed.finalize(), value)
            key.verify(value, octets, PKCS1v15(), algorithm)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Checked:
    """A claim, and whether it is true as it is written."""

    claims: tuple[Claim, ...]
    """What it may be about: of an encrypted Body the plaintext, then the ciphertext."""
    holds: bool | None
    """None: trying has ended before."""

    @classmethod
    def of(cls, claims: tuple[Claim, ...]) -> Checked:
        """Claims that are checked once, as they are written."""
        try:
            return cls(claims, any(claim.holds() for claim in claims))
        except Exhausted:
            return cls(claims, None)

    @property
    def part(self) -> str:
        """The part that it is about."""
        return self.claims[0].part


@dataclass(frozen=True, slots=True)
class Stated:
    """One signature, as far as it can be read."""

    value: Checked | None
    """None: its key or its method isn't known here."""
    references: tuple[Checked, ...]
    unread: bool
    """Some reference or algorithm is beyond what can be tried."""
    transforms: bool
    """Every reference has a Transforms."""


def stated(reading: Reading, keys: Keys, budget: Budget) -> Iterator[Stated]:
    """The signatures of a message in document order, those that came encrypted too."""
    found = {place: each for place, each in enumerate(reading.security) if each.tag == f"{_DS}Signature"}
    found |= {each.place: each.element for each in reading.entries if each.part == "ds:Signature"}
    for place, element in sorted(found.items())[:_SIGNATURES]:
        references = element.findall(f"{_DS}SignedInfo/{_DS}Reference")[:_REFERENCES]
        read = [tuple(_referenced(reading, each, keys, budget)) for each in references]
        value = _value(reading, element, place, keys, budget)
        yield Stated(
            Checked.of((value,)) if value is not None else None,
            tuple(Checked.of(claims) for claims in read if claims),
            value is None or not all(read),
            all(each.find(f"{_DS}Transforms") is not None for each in references),
        )


def _value(reading: Reading, element: Element, place: int, keys: Keys, budget: Budget) -> Claim | None:
    """The claim that SignedInfo has this value under the key that KeyInfo names."""
    info, value = element.find(f"{_DS}SignedInfo"), element.find(f"{_DS}SignatureValue")
    named = element.find(f"{_DS}KeyInfo")
    if info is None or value is None or named is None:
        return None
    form = _form(info.find(f"{_DS}CanonicalizationMethod"))
    method = _algorithm(info.find(f"{_DS}SignatureMethod"))
    if form is None or method not in _METHODS:
        return None
    try:
        key_info, octets = KeyInfo.parse(named), base64_of(value)
        signer = reading.tokens.key(key_info, place)
    except PeerError:
        return None
    key: RawKey = signer.public if signer.public is not None else signer.octets
    if isinstance(key, bytes) == ("rsa-" in method):
        return None
    return Claim(
        part="ds:SignedInfo",
        writer=Writer(info),
        form=form,
        hash=_METHODS[method],
        value=octets,
        reading=reading,
        keys=keys,
        budget=budget,
        key=key,
        signer=signer,
        info=key_info,
    )


def _referenced(reading: Reading, element: Element, keys: Keys, budget: Budget) -> Iterator[Claim]:
    """The claim that a part has this digest; none: it can't be told."""
    part = reading.parts.get(element.get("URI", "")[1:])
    method = _algorithm(element.find(f"{_DS}DigestMethod"))
    value = element.find(f"{_DS}DigestValue")
    steps = [
        each
        for each in element.iterfind(f"{_DS}Transforms/{_DS}Transform")
        if _algorithm(each) != _ENVELOPED
    ]
    if part is None or value is None or method not in _DIGESTS or len(steps) > 1:
        return
    dereferences = bool(steps) and _algorithm(steps[0]) == STR_TRANSFORM
    inner = steps[0].find(f".//{_DS}CanonicalizationMethod") if dereferences else None
    form = FORMS[C14N] if not steps else _form(inner if dereferences else steps[0])
    try:
        octets = base64_of(value)
        key = _behind(reading, part)
    except PeerError:
        return
    if form is None or (dereferences and (key is None or key.public is None)):
        return
    claim = Claim(part.name, Writer(part.element), form, _DIGESTS[method], octets, reading, keys, budget)
    if key is not None:
        yield _of_token(claim, part.element, key, dereferences)
        return
    if part.element is reading.envelope.body and reading.body.element is not None:
        yield replace(claim, writer=Writer(reading.body.element))
    if part.element is not reading.body.element:
        yield claim


def _behind(reading: Reading, part: Part) -> Key | None:
    """The key behind a token reference, if the part is one; raises `PeerError`."""
    token = part.signer.token if part.signer is not None else None
    info = getattr(token, "key", None)
    if part.signer is None or not isinstance(info, KeyInfo):
        return None
    return reading.tokens.key(info, part.signer.place)


def _of_token(claim: Claim, reference: Element, key: Key, dereferences: bool) -> Claim:
    """The claim about a token reference, or about the token that it leads to (WSS 1.1.1, 8.3)."""
    made: tuple[bytes, ...] = ()
    if isinstance(key.source, x509.Certificate):
        prefixes = dict.fromkeys((reference.prefix or "", "wsse", "o"))
        made = tuple(form for each in prefixes for form in dereferenced(key.source, each))
    if key.token is not None:
        octets = canonical(key.token.element)
        forms = (with_default_namespace(octets), octets, *made)
    else:
        forms = made
    if not dereferences:
        return replace(claim, tokens=forms)
    if key.token is not None:
        writer = Writer(key.token.element)
        return replace(claim, writer=writer, finish=with_default_namespace, reference=reference, tokens=forms)
    return replace(claim, finish=lambda _: forms[0] if forms else b"", reference=reference, tokens=forms)


def _algorithm(element: Element | None) -> str:
    return element.get("Algorithm", "") if element is not None else ""


def _form(element: Element | None) -> Form | None:
    """The canonicalisation that a Transform or CanonicalizationMethod names, if it is one."""
    form = FORMS.get(_algorithm(element))
    if form is None or element is None or not form.exclusive:
        return form
    listed = element.find(_LISTED)
    prefixes = tuple(listed.get("PrefixList", "").split()) if listed is not None else ()
    return replace(form, prefixes=prefixes)
