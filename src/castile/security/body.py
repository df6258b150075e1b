"""The Body of one message: the octets that a signature is over, and the content they stand for.

Its plaintext is parsed only once its octets are known to be what was signed, or not to be
canonical. Nothing is moved or replaced in the document that came: what was encrypted is parsed in
the namespaces of its place, beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from lxml import etree

from castile.config import Limits
from castile.errors import Malformed, SecurityFailure
from castile.messages.security import CONTENT_TYPE, EncryptedData
from castile.messages.signature import Transform
from castile.messages.soap import Envelope
from castile.security.encryption import undecryptable
from castile.security.opening import Opening
from castile.security.signature import canonical_part, digest_holds
from castile.versions import DS, WSU, XENC
from castile.xml import Element, canonical, parse_fragment

BODY_PLACE: Final = 1 << 30
"""Behind everything in the header."""
ASIDES: Final = etree.XPath("boolean(//comment() | //processing-instruction())")
_DATA: Final = f"{{{XENC}}}EncryptedData"
_START_TAG: Final = re.compile(rb'<([^\s>]+)(?:[^">]|"[^"]*")*>')
_DECLARED: Final = re.compile(rb'\sxmlns(?::([^=\s]+))?="')
_IDS: Final = etree.XPath(
    "descendant::*/@u:Id | descendant::*/@xml:id | descendant::ds:*/@Id | descendant::e:*/@Id",
    namespaces={"u": WSU, "ds": DS, "e": XENC},
    smart_strings=False,
)


class Body:
    """What is known of a message's Body so far."""

    __slots__ = (
        "_claim",
        "_opening",
        "_order",
        "_spend",
        "content",
        "element",
        "envelope",
        "limits",
        "plaintext",
    )

    def __init__(
        self,
        envelope: Envelope,
        opening: Opening,
        limits: Limits,
        claim: Callable[[object], None],
        spend: Callable[[bytes], None],
    ) -> None:
        """`claim` takes ids, `spend` octets that are digested; both refuse what is too much."""
        self.envelope, self.limits = envelope, limits
        self.element: Element | None = None
        """The Body once its octets are known to be what was signed."""
        self.content = b""
        """Its canonical children."""
        self._opening, self._claim, self._spend = opening, claim, spend
        self.plaintext: bytes | None = None
        """What stands in the Body, if it came encrypted and has been opened."""
        policy = opening.expectation.policy
        self._order = policy.order if policy is not None else None

    def octets(self, transform: Transform, method: str, digest: bytes) -> bytes | None:
        """The Body's canonical octets if they have this digest; keeps the element they stand for.

        They are of the plaintext or of the ciphertext, as the policy's order of protection says;
        without a policy of either (features MS-04).
        """
        if self.element is not None and self._order != "encrypt-before-sign":
            octets = canonical_part(self.element, transform)
            self._spend(octets)
            if digest_holds(octets, method, digest):
                return octets
        frame = canonical_part(self.envelope.body, transform)
        data = self._data()
        if data is None or self._order != "sign-before-encrypt":
            self._spend(frame)
            if digest_holds(frame, method, digest):
                return self._signed_as_it_stands(data, frame)
        if data is None or self.element is not None or self._order == "encrypt-before-sign":
            return None
        return self._signed_in_plaintext(data, frame, transform, method, digest)

    def _signed_as_it_stands(self, data: EncryptedData | None, frame: bytes) -> bytes:
        if self.element is not None:
            return frame
        if data is None:
            return self._take(self.envelope.body, start_of(frame), frame)
        element = self._opened_element(self._open(data))
        octets = canonical(element)
        self._claim(_IDS(element))
        self._take(element, start_of(octets), octets)
        return frame

    def _signed_in_plaintext(
        self, data: EncryptedData, frame: bytes, transform: Transform, method: str, digest: bytes
    ) -> bytes | None:
        start, end = start_of(frame), frame[frame.rindex(b"</") :]
        plaintext = self._open(data)
        octets = b"".join((start, plaintext, end))
        self._spend(octets)
        # The digest first: octets that have it were written by the key's holder, and only those
        # are parsed. Else the peer's plaintext may be merely not canonical.
        if digest_holds(octets, method, digest):
            element = self._parsed(octets, canonical_octets=True)
        else:
            element = self._opened_element(plaintext)
            octets = canonical_part(element, transform)
            start = start_of(octets)
            self._spend(octets)
            if not digest_holds(octets, method, digest):
                return None
        self._claim(_IDS(element))
        return self._take(element, start, octets)

    def _data(self) -> EncryptedData | None:
        """The EncryptedData that is the Body's content, if it is encrypted."""
        body = self.envelope.body
        if len(body) == 0 or body[0].tag != _DATA or body[0].get("Id") not in self._opening.listed:
            return None
        if len(body) != 1 or body.text or body[0].tail or body[0].get("Type") != CONTENT_TYPE:
            raise SecurityFailure("the Body must be encrypted whole, as content", part="Body")
        self._opening.placed.add(body[0].get("Id") or "")
        return EncryptedData.parse(body[0])

    def _open(self, data: EncryptedData) -> bytes:
        """The plaintext of the Body's content."""
        if self.plaintext is None:
            self.plaintext, key = self._opening.decrypted(data, BODY_PLACE, "Body")
            self._opening.opened("Body", data, key)
        return self.plaintext

    def _opened_element(self, plaintext: bytes) -> Element:
        frame = canonical(self.envelope.body)
        start, end = start_of(frame), frame[frame.rindex(b"</") :]
        return self._parsed(b"".join((start, plaintext, end)), canonical_octets=False)

    def _parsed(self, octets: bytes, canonical_octets: bool) -> Element:
        body = self.envelope.body
        # A default namespace around it would change what canonical octets mean.
        default = not canonical_octets or body.prefix is None
        try:
            text, elements = parse_fragment(octets, body, self.limits, default=default)
        except Malformed:
            raise undecryptable("Body") from None
        if len(elements) != 1 or text or elements[0].tail:
            raise undecryptable("Body")  # the plaintext has closed the Body by itself
        return _without_asides(elements[0])

    def _take(self, element: Element, start: bytes, octets: bytes) -> bytes:
        content = octets[len(start) : octets.rindex(b"</")]
        if any(_uses(prefix, content) for prefix in _DECLARED.findall(start)):
            # A child that uses what the Body declares, as a Fault does, must stand alone too.
            content = b"".join(canonical(child) for child in element)
        self.element, self.content = element, content
        return octets

    def finish(self) -> None:
        """Open a Body that no signature has led to, so that a trace shows it."""
        if self.element is not None:
            return
        data = self._data()
        element = self.envelope.body if data is None else self._opened_element(self._open(data))
        octets = canonical(element)
        self._take(element, start_of(octets), octets)


def _without_asides(element: Element) -> Element:
    if ASIDES(element):
        raise SecurityFailure("a comment or processing instruction in a protected message", part="Body")
    return element


def start_of(frame: bytes) -> bytes:
    """The start tag of canonical octets."""
    found = _START_TAG.match(frame)
    if found is None:
        raise Malformed("an element without start tag")
    return found[0]


def _uses(prefix: bytes, content: bytes) -> bool:
    """Whether canonical content may use a prefix, or the default namespace, in its markup."""
    if not prefix:
        return b"<" in content
    return b"<%b:" % prefix in content or b" %b:" % prefix in content
