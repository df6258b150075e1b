"""Whoever has the keys: protects a message again, as well or as badly as an attack wants it."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from castile import xml
from castile.clock import iso
from castile.messages.conversation import DerivedKeyToken
from castile.policy.suites import AES256_CBC, HMAC_SHA1, RSA_SHA1, SHA1
from castile.security.coverage import header_name
from castile.security.encryption import CIPHERS
from castile.security.keys import derive
from castile.security.signature import DIGESTS, mac
from castile.versions import BASE64_BINARY, DS, EXC_C14N, WSSE, WSU, X509_V3, XENC, Conversation

ID = f"{{{WSU}}}Id"
SECURITY = f"{{{WSSE}}}Security"


@dataclass(frozen=True)
class Context:
    """A security context that somebody holds."""

    identifier: str
    secret: bytes
    edition: Conversation
    instance: str | None = None


EVIL = "urn:uuid:00000000-0000-4000-8000-00000000e41c"
"""Identifier of a security context that somebody else holds, rightly."""
EVIL_SECRET = bytes(range(32))


def _e(
    parent: etree._Element, namespace: str, local: str, text: str | None = None, **attributes: str
) -> etree._Element:
    element = etree.SubElement(parent, f"{{{namespace}}}{local}")
    for name, value in attributes.items():
        element.set(ID if name == "id_" else name, value)
    element.text = text
    return element


def protect(
    root: etree._Element,
    context: Context,
    covers: Sequence[Sequence[str] | None],
    *,
    response: bool,
    created: float,
    encrypt_body: bool = False,
    timestamp: bool = True,
) -> bytes:
    """The envelope with a Security header of its own; `covers` has the parts of each signature.

    None: everything that has to be covered. A part left out of all gets no id.
    """
    root = deepcopy(root)
    header, body = root[0], root[1]
    parts: dict[str, etree._Element] = {"Body": body}
    for block in header:
        parts.setdefault(header_name(block), block)
    security = etree.SubElement(header, SECURITY)
    soap = etree.QName(root).namespace
    security.set(f"{{{soap}}}mustUnderstand", "1")
    if timestamp:
        stamp = _e(security, WSU, "Timestamp", id_="ts")
        _e(stamp, WSU, "Created", iso(created))
        _e(stamp, WSU, "Expires", iso(created + 300))
        parts["wsu:Timestamp"] = stamp
    space = context.edition.namespace
    if not response:
        token = _e(security, space, "SecurityContextToken", id_="sct")
        _e(token, space, "Identifier", context.identifier)
        if context.instance is not None:
            _e(token, space, "Instance", context.instance)
    for index, (name, part) in enumerate(parts.items()):
        if part.get(ID) is None or name != "wsu:Timestamp":
            part.set(ID, f"p{index}")
    keys = [_derived(security, context, f"dk{number}", response) for number in range(len(covers) + 1)]
    signatures = []
    for number, cover in enumerate(covers):
        names = list(parts) if cover is None else [name for name in parts if name in cover]
        signatures.append(_signature(parts, names, keys[number], f"dk{number}", context))
    if encrypt_body:
        _encrypt(security, body, keys[-1], f"dk{len(covers)}", context)
    security.extend(signatures)
    return etree.tostring(root)


def _derived(security: etree._Element, context: Context, name: str, response: bool) -> bytes:
    space = context.edition.namespace
    token = _e(security, space, "DerivedKeyToken", id_=name)
    uri = context.identifier if response else "#sct"
    reference = _refer(token, uri, context.edition.token_type)
    if response and context.instance is not None:
        reference.set(f"{{{space}}}Instance", context.instance)
    _e(token, space, "Length", "32")
    _e(token, space, "Nonce", b64encode(os.urandom(16)).decode())
    return derive(context.secret, DerivedKeyToken.parse(token))


def _refer(parent: etree._Element, uri: str, kind: str) -> etree._Element:
    reference = _e(_e(parent, WSSE, "SecurityTokenReference"), WSSE, "Reference")
    reference.set("URI", uri)
    reference.set("ValueType", kind)
    return reference


def _signature(
    parts: dict[str, etree._Element], names: list[str], key: bytes, token: str, context: Context
) -> etree._Element:
    signature = etree.Element(f"{{{DS}}}Signature", nsmap={"ds": DS})
    info = _e(signature, DS, "SignedInfo")
    _e(info, DS, "CanonicalizationMethod", Algorithm=EXC_C14N)
    _e(info, DS, "SignatureMethod", Algorithm=HMAC_SHA1)
    _refer_to(info, parts, names)
    value = b64encode(mac(HMAC_SHA1, key, xml.canonical(info))).decode()
    _e(signature, DS, "SignatureValue", value)
    _refer(_e(signature, DS, "KeyInfo"), f"#{token}", context.edition.derived_key_type)
    return signature


def _refer_to(info: etree._Element, parts: dict[str, etree._Element], names: list[str]) -> None:
    for name in names:
        reference = _e(info, DS, "Reference", URI=f"#{parts[name].get(ID)}")
        _e(_e(reference, DS, "Transforms"), DS, "Transform", Algorithm=EXC_C14N)
        _e(reference, DS, "DigestMethod", Algorithm=SHA1)
        _e(reference, DS, "DigestValue", b64encode(DIGESTS[SHA1](xml.canonical(parts[name]))).decode())


def _encrypt(
    security: etree._Element, body: etree._Element, key: bytes, token: str, context: Context
) -> None:
    content = b"".join(xml.canonical(child) for child in body)
    listed = _e(security, XENC, "ReferenceList")
    _e(listed, XENC, "DataReference", URI="#ed")
    for child in list(body):
        body.remove(child)
    data = _e(body, XENC, "EncryptedData", Id="ed", Type=f"{XENC}Content")
    _e(data, XENC, "EncryptionMethod", Algorithm=AES256_CBC)
    _refer(_e(data, DS, "KeyInfo"), f"#{token}", context.edition.derived_key_type)
    cipher = CIPHERS[AES256_CBC].seal(key, os.urandom(16), content)
    _e(_e(data, XENC, "CipherData"), XENC, "CipherValue", b64encode(cipher).decode())


def sign_as(root: etree._Element, certificate: x509.Certificate, key: RSAPrivateKey, created: float) -> bytes:
    """The envelope signed by a certificate that it carries: every header, Timestamp and Body."""
    root = deepcopy(root)
    header, body = root[0], root[1]
    parts = {"Body": body, **{header_name(block): block for block in header}}
    security = etree.SubElement(header, SECURITY)
    stamp = _e(security, WSU, "Timestamp", id_="ts")
    _e(stamp, WSU, "Created", iso(created))
    _e(stamp, WSU, "Expires", iso(created + 300))
    parts["wsu:Timestamp"] = stamp
    for index, block in enumerate(parts.values()):
        block.set(ID, f"p{index}")
    octets = b64encode(certificate.public_bytes(Encoding.DER)).decode()
    token = _e(security, WSSE, "BinarySecurityToken", octets, id_="bst", ValueType=X509_V3)
    token.set("EncodingType", BASE64_BINARY)
    signature = etree.SubElement(security, f"{{{DS}}}Signature", nsmap={"ds": DS})
    info = _e(signature, DS, "SignedInfo")
    _e(info, DS, "CanonicalizationMethod", Algorithm=EXC_C14N)
    _e(info, DS, "SignatureMethod", Algorithm=RSA_SHA1)
    _refer_to(info, parts, list(parts))
    value = key.sign(xml.canonical(info), PKCS1v15(), hashes.SHA1())
    _e(signature, DS, "SignatureValue", b64encode(value).decode())
    _refer(_e(signature, DS, "KeyInfo"), "#bst", X509_V3)
    return etree.tostring(root)
