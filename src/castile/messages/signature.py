"""XML Signature's elements, detached as WS-Security wants them; `parse` and templates to render.

Parsing refuses by name what WS-Security forbids or nobody needs: Object and Manifest,
HMACOutputLength, references without id, implied inclusive C14N.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Self

from castile.messages.security import KeyInfo, base64_of, malformed, only_child, required, unsupported
from castile.versions import DS, EXC_C14N, STR_TRANSFORM, WSSE
from castile.xml import Element, escape_attribute

_REFERENCE: Final = f"{{{DS}}}Reference"
_DIGEST_METHOD: Final = f"{{{DS}}}DigestMethod"
_INCLUSIVE_NAMESPACES: Final = f"{{{EXC_C14N}}}InclusiveNamespaces"
_TRANSFORMATION_PARAMETERS: Final = f"{{{WSSE}}}TransformationParameters"
_CANONICALIZATION_METHOD: Final = f"{{{DS}}}CanonicalizationMethod"
_DIGEST_VALUE: Final = f"{{{DS}}}DigestValue"
_TRANSFORMS: Final = f"{{{DS}}}Transforms"
_TRANSFORM: Final = f"{{{DS}}}Transform"
_SIGNED_INFO: Final = f"{{{DS}}}SignedInfo"
_SIGNATURE_VALUE: Final = f"{{{DS}}}SignatureValue"
_SIGNATURE_METHOD: Final = f"{{{DS}}}SignatureMethod"
_KEY_INFO: Final = f"{{{DS}}}KeyInfo"


@dataclass(frozen=True, slots=True)
class Transform:
    """One step from a referenced element to the octets that are digested."""

    algorithm: str
    prefixes: tuple[str, ...] = ()
    """PrefixList of exclusive C14N; ``#default`` is the default namespace."""
    inner: Transform | None = None
    """CanonicalizationMethod inside an STR-Transform."""

    @classmethod
    def parse(cls, element: Element) -> Transform:
        """Reads Transform and CanonicalizationMethod alike; parameters only where known."""
        algorithm = required(element, "Algorithm")
        if len(element) == 0:
            return _plain(algorithm)
        if algorithm == EXC_C14N:
            child = only_child(element, _INCLUSIVE_NAMESPACES)
            return cls(algorithm, tuple(child.get("PrefixList", "").split()))
        if algorithm == STR_TRANSFORM:
            child = only_child(element, _TRANSFORMATION_PARAMETERS)
            return cls(algorithm, (), Transform.parse(only_child(child, _CANONICALIZATION_METHOD)))
        return _plain(algorithm)


@lru_cache(maxsize=32)
def _plain(algorithm: str) -> Transform:
    return Transform(algorithm)


@dataclass(frozen=True, slots=True)
class Reference:
    """``ds:Reference``: what is signed (XML Signature, 4.3.3)."""

    uri: str
    transforms: tuple[Transform, ...]
    digest_method: str
    digest: bytes

    @property
    def id(self) -> str:
        """The id of the element that is pointed to."""
        return self.uri[1:]

    @classmethod
    def parse(cls, element: Element) -> Self:
        """Only ``#id`` references; an absent Transforms means inclusive C14N, which is refused."""
        uri = element.get("URI")
        if uri is None or len(uri) < 2 or not uri.startswith("#") or "(" in uri:
            raise unsupported("a ds:Reference must point to an id of this message")
        children = list(element)
        tags = [child.tag for child in children]
        if tags == [_DIGEST_METHOD, _DIGEST_VALUE]:
            raise unsupported("a ds:Reference without Transforms means inclusive C14N, which isn't taken")
        if tags != [_TRANSFORMS, _DIGEST_METHOD, _DIGEST_VALUE]:
            raise malformed("ds:Reference must hold Transforms, DigestMethod and DigestValue")
        transforms: list[Transform] = []
        for child in children[0]:
            if child.tag != _TRANSFORM:
                raise malformed("ds:Transforms must hold ds:Transform only")
            transforms.append(Transform.parse(child))
        return cls(uri, tuple(transforms), required(children[1], "Algorithm"), base64_of(children[2]))


@dataclass(frozen=True, slots=True)
class Signature:
    """``ds:Signature``, detached (XML Signature, 4.1)."""

    id: str | None
    element: Element = field(compare=False, repr=False)
    signed_info: Element = field(compare=False, repr=False)
    canonicalization: Transform
    method: str
    references: tuple[Reference, ...]
    value: bytes
    key: KeyInfo

    @classmethod
    def parse(cls, element: Element, most_references: int) -> Self:
        """Refuses Object, Manifest, HMACOutputLength and a SignedInfo without reference."""
        tags = [child.tag for child in element]
        if tags != [_SIGNED_INFO, _SIGNATURE_VALUE, _KEY_INFO]:
            raise malformed("ds:Signature must hold SignedInfo, SignatureValue and KeyInfo, nothing else")
        signed_info, value, key = element
        head = [child.tag for child in signed_info[:2]]
        if head != [_CANONICALIZATION_METHOD, _SIGNATURE_METHOD]:
            raise malformed("ds:SignedInfo must begin with its two methods")
        if len(signed_info[1]):
            raise unsupported("ds:SignatureMethod has parameters (HMACOutputLength), which are refused")
        if not 0 < len(signed_info) - 2 <= most_references:
            raise malformed(f"ds:SignedInfo must hold between 1 and {most_references} references")
        references = signed_info[2:]
        if any(child.tag != _REFERENCE for child in references):
            raise malformed("ds:SignedInfo holds something other than references")
        return cls(
            element.get("Id"),
            element,
            signed_info,
            Transform.parse(signed_info[0]),
            required(signed_info[1], "Algorithm"),
            tuple([Reference.parse(child) for child in references]),
            base64_of(value),
            KeyInfo.parse(key),
        )


def signed_info_content(
    method: str,
    digest: str,
    references: list[tuple[str, bytes]],
    token: tuple[str, bytes] | None = None,
) -> bytes:
    """The canonical children of ``ds:SignedInfo`` for references of (id, base64 of the digest).

    `token`: id of a wsse:SecurityTokenReference, and the digest of the token that it leads to.
    """
    head, middle = _signed_info_frame(method, digest)
    parts = [head]
    for name, value in references:
        parts += (b'<ds:Reference URI="#', name.encode(), middle, value, _REFERENCE_END)
    if token is not None:
        name, value = token
        parts += (b'<ds:Reference URI="#', name.encode(), _token_frame(digest), value, _REFERENCE_END)
    return b"".join(parts)


@lru_cache(maxsize=16)
def _signed_info_frame(method: str, digest: str) -> tuple[bytes, bytes]:
    """What stands before the references, and between the id and the digest of each."""
    head = (
        f'<ds:CanonicalizationMethod Algorithm="{EXC_C14N}"></ds:CanonicalizationMethod>'
        f'<ds:SignatureMethod Algorithm="{method}"></ds:SignatureMethod>'
    )
    middle = (
        f'"><ds:Transforms><ds:Transform Algorithm="{EXC_C14N}"></ds:Transform></ds:Transforms>'
        f'<ds:DigestMethod Algorithm="{digest}"></ds:DigestMethod><ds:DigestValue>'
    )
    return head.encode(), middle.encode()


@lru_cache(maxsize=8)
def _token_frame(digest: str) -> bytes:
    """What stands between the id of a token reference and the digest of its token."""
    return (
        f'"><ds:Transforms><ds:Transform Algorithm="{STR_TRANSFORM}">'
        f'<o:TransformationParameters xmlns:o="{WSSE}"><ds:CanonicalizationMethod Algorithm="{EXC_C14N}">'
        "</ds:CanonicalizationMethod></o:TransformationParameters></ds:Transform></ds:Transforms>"
        f'<ds:DigestMethod Algorithm="{digest}"></ds:DigestMethod><ds:DigestValue>'
    ).encode()


_REFERENCE_END: Final = b"</ds:DigestValue></ds:Reference>"
_SIGNED_INFO_START: Final = f'<ds:SignedInfo xmlns:ds="{DS}">'.encode()


def signed_info(content: bytes) -> bytes:
    """``ds:SignedInfo`` as it is signed: standing alone."""
    return b"%b%b</ds:SignedInfo>" % (_SIGNED_INFO_START, content)


_SIGNATURE: Final = f'<ds:Signature xmlns:ds="{DS}"'.encode()


def signature(content: bytes, value: bytes, key: bytes, name: str | None = None) -> bytes:
    """``ds:Signature`` of SignedInfo's `content`, the base64 of its value, and a rendered reference."""
    identity = f' Id="{escape_attribute(name)}"'.encode() if name is not None else b""
    return (
        b"%b%b><ds:SignedInfo>%b</ds:SignedInfo><ds:SignatureValue>%b</ds:SignatureValue>"
        b"<ds:KeyInfo>%b</ds:KeyInfo></ds:Signature>"
    ) % (_SIGNATURE, identity, content, value, key)
