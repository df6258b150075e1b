"""Messages of our own with one kind of damage each: what a signer or somebody on the way does."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from lxml import etree

from castile import xml
from castile.explaining import Explanation, explain
from castile.explaining.causes import CAUSES
from castile.messages.conversation import DerivedKeyToken
from castile.messages.soap import Message
from castile.policy.suites import HMAC_SHA1, SHA1
from castile.security.keys import derive
from castile.security.signature import DIGESTS, mac
from castile.versions import DS, EXC_C14N, WSU
from tests.security.insider import LIFE, SIDE, first
from tests.security.made import CONTEXT, SECRET

ID = f"{{{WSU}}}Id"
ORDER = (
    b'<m:Order xmlns:m="urn:orders"><m:item size="m:large">p\xc3\xbcmp</m:item>'
    b"<m:note>two\nlines</m:note><m:empty></m:empty></m:Order>"
)
OTHER = b"\x07" * 32
KEYS = json.dumps(
    {
        "contexts": {
            CONTEXT: b64encode(SECRET).decode(),
            "urn:other": b64encode(OTHER).decode(),
        }
    }
).encode()

Change = Callable[[bytes], bytes]


def order() -> bytes:
    """A signed message whose Body and Signature stand in clear."""
    kind = replace(LIFE, message=Message(LIFE.message.soap, LIFE.message.headers, ORDER))
    return SIDE.protected(kind).payload


def body_of(root: etree._Element) -> etree._Element:
    return first(root, "{*}Body")


def info_of(root: etree._Element) -> etree._Element:
    return first(root, f".//{{{DS}}}SignedInfo")


def key_of(root: etree._Element) -> bytes:
    """The key that signs."""
    uri = first(root, f".//{{{DS}}}KeyInfo/{{*}}SecurityTokenReference/{{*}}Reference").get("URI", "")
    token = next(each for each in root.iter("*") if each.get(ID) == uri[1:])
    return derive(SECRET, DerivedKeyToken.parse(token))


def reference_of(root: etree._Element, target: etree._Element) -> etree._Element:
    name = f"#{target.get(ID)}"
    return next(each for each in root.iter(f"{{{DS}}}Reference") if each.get("URI") == name)


def with_digest(root: etree._Element, target: etree._Element, value: bytes) -> None:
    """The digest of a part, and the signature's value made anew."""
    first(reference_of(root, target), f"{{{DS}}}DigestValue").text = b64encode(value).decode()
    with_value(root, xml.canonical(info_of(root)))


def with_value(
    root: etree._Element, octets: bytes, key: bytes | None = None, method: str = HMAC_SHA1
) -> None:
    """The signature's value over these octets."""
    value = mac(method, key if key is not None else key_of(root), octets)
    first(root, f".//{{{DS}}}SignatureValue").text = b64encode(value).decode()


def digested(octets: Callable[[etree._Element], bytes]) -> Change:
    """A signer who digests these octets for the Body."""

    def change(payload: bytes) -> bytes:
        root = etree.fromstring(payload)
        body = body_of(root)
        with_digest(root, body, DIGESTS[SHA1](octets(body)))
        return etree.tostring(root)

    return change


def signed(octets: Callable[[etree._Element], bytes]) -> Change:
    """A signer whose signature's value is over these octets for SignedInfo."""

    def change(payload: bytes) -> bytes:
        root = etree.fromstring(payload)
        with_value(root, octets(info_of(root)))
        return etree.tostring(root)

    return change


def keyed(key: Callable[[bytes, DerivedKeyToken], bytes]) -> Change:
    """A signer who makes another key of the secret and the token."""

    def change(payload: bytes) -> bytes:
        root = etree.fromstring(payload)
        token = DerivedKeyToken.parse(first(root, ".//{*}DerivedKeyToken"))
        with_value(root, xml.canonical(info_of(root)), key(SECRET, token))
        return etree.tostring(root)

    return change


def listed(prefixes: str) -> Callable[[etree._Element], None]:
    """Gives the Body's transform this PrefixList."""

    def change(root: etree._Element) -> None:
        transform = first(reference_of(root, body_of(root)), f".//{{{DS}}}Transform")
        etree.SubElement(transform, f"{{{EXC_C14N}}}InclusiveNamespaces", PrefixList=prefixes)

    return change


def replaced(old: bytes, new: bytes) -> Change:
    """Something on the way that replaces octets."""

    def change(payload: bytes) -> bytes:
        assert old in payload
        return payload.replace(old, new)

    return change


def look(payload: bytes, keys: bytes = KEYS) -> Explanation:
    return explain(payload, keys)


def told(explanation: Explanation) -> set[str]:
    """Names of the causes whose whole sentence stands in a problem."""
    texts = [text for _, text in explanation.problems]
    return {
        cause.name
        for cause in CAUSES
        if any(all(piece in text for piece in cause.text.split("{}")) for text in texts)
    }


def with_rsa_value(root: etree._Element, private: RSAPrivateKey, algorithm: type[HashAlgorithm]) -> None:
    """The signature's value over SignedInfo by a private key."""
    value = private.sign(xml.canonical(info_of(root)), PKCS1v15(), algorithm())
    first(root, f".//{{{DS}}}SignatureValue").text = b64encode(value).decode()
