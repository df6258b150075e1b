"""Verify and decrypt messages with xmlsec, which shares nothing with castile but lxml.

Runs under the interpreter of the oracle's own environment and imports no castile. Its argument is
a JSON file: a list of messages, each with ``payload`` (base64) and, as what opens it, ``secret``
(hexadecimal: of the security context or of the EncryptedKey) or ``private_key`` (PEM), and
``context`` (hexadecimal) where a security context endorses what another key protects. ``signer``
(PEM) is the certificate of RSA signatures that don't carry theirs; ``order`` says
``encrypt-before-sign`` where what is encrypted was signed as it stands. It derives keys by its own
P_SHA1, decrypts, verifies every signature, and prints one JSON list: per message the covered and
the decrypted parts and the Body's content, or ``error``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from pathlib import Path
from typing import Any

import xmlsec  # type: ignore[import-not-found, unused-ignore]
from lxml import etree

WSU = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"
WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
DS = "http://www.w3.org/2000/09/xmldsig#"
XENC = "http://www.w3.org/2001/04/xmlenc#"
LABEL = b"WS-SecureConversationWS-SecureConversation"


def p_sha1(secret: bytes, seed: bytes, length: int) -> bytes:
    chain, out = seed, b""
    while len(out) < length:
        chain = hmac.new(secret, chain, hashlib.sha1).digest()
        out += hmac.new(secret, chain + seed, hashlib.sha1).digest()
    return out[:length]


def opened_secret(message: dict[str, Any], security: Any) -> bytes:
    if "secret" in message:
        return bytes.fromhex(message["secret"])
    manager = xmlsec.KeysManager()
    manager.add_key(xmlsec.Key.from_memory(message["private_key"], xmlsec.KeyFormat.PEM))
    key = security.find(f"{{{XENC}}}EncryptedKey")
    context = xmlsec.EncryptionContext(manager)
    context.key = xmlsec.Key.from_memory(message["private_key"], xmlsec.KeyFormat.PEM)
    octets = context.decrypt(key)
    if not isinstance(octets, bytes):
        raise ValueError("the EncryptedKey did not open to octets")
    return octets


def keys_of(security: Any, secret: bytes, context: bytes) -> dict[str, bytes]:
    """Derived keys by id, and contexts by their tokens'; the secret itself under the empty id.
    `context`: of a token beside it."""
    held = [token.get(f"{{{WSU}}}Id") for token in security.iterfind("{*}SecurityContextToken")]
    keys = {"": secret} | dict.fromkeys(held, context)
    tokens = {f"#{name}" for name in held}
    for token in security.iterfind("{*}DerivedKeyToken"):
        length = int(token.findtext("{*}Length") or "32")
        nonce = base64.b64decode(token.findtext("{*}Nonce"))
        source = token.find(f"{{{WSSE}}}SecurityTokenReference/{{{WSSE}}}Reference")
        octets = context if source is not None and source.get("URI") in tokens else secret
        keys[token.get(f"{{{WSU}}}Id")] = p_sha1(octets, LABEL + nonce, length)
    return keys


def key_for(element: Any, keys: dict[str, bytes]) -> bytes:
    reference = element.find(f"{{{DS}}}KeyInfo/{{{WSSE}}}SecurityTokenReference/{{{WSSE}}}Reference")
    name = "" if reference is None else reference.get("URI", "").lstrip("#")
    return keys.get(name, keys[""])


def open_signatures(root: Any, keys: dict[str, bytes]) -> list[str]:
    """Decrypt what turns out to be a signature, and leave the rest as it was signed."""
    done = []
    for data in root.findall(f".//{{{WSSE}}}Security/{{{XENC}}}EncryptedData"):
        alone = etree.fromstring(etree.tostring(root))
        twin = next(each for each in alone.iter(data.tag) if each.get("Id") == data.get("Id"))
        security: Any = twin.getparent()
        place = security.index(twin)
        for tree, element in ((alone, twin), (root, data)):
            context = xmlsec.EncryptionContext()
            context.key = xmlsec.Key.from_binary_data(xmlsec.KeyData.AES, key_for(element, keys))
            context.decrypt(element)
            if tree is alone and security[place].tag != f"{{{DS}}}Signature":
                break
        else:
            done.append("Signature")
    return done


def decrypt(root: Any, keys: dict[str, bytes]) -> list[str]:
    done = []
    while (data := root.find(f".//{{{XENC}}}EncryptedData")) is not None:
        parent = data.getparent()
        context = xmlsec.EncryptionContext()
        context.key = xmlsec.Key.from_binary_data(xmlsec.KeyData.AES, key_for(data, keys))
        content = data.get("Type", "").endswith("Content")
        before = set(parent)
        context.decrypt(data)
        if content:
            done.append(etree.QName(parent).localname)
        else:
            done += [etree.QName(child).localname for child in parent if child not in before]
    return done


def public_key(signature: Any, root: Any, message: dict[str, Any]) -> Any:
    """Of the certificate that the signature points to, or of the one that was given."""
    reference = signature.find(f"{{{DS}}}KeyInfo/{{{WSSE}}}SecurityTokenReference/{{{WSSE}}}Reference")
    if reference is None:
        return xmlsec.Key.from_memory(message["signer"], xmlsec.KeyFormat.CERT_PEM)
    tokens = root.iter(f"{{{WSSE}}}BinarySecurityToken")
    token = next(each for each in tokens if f"#{each.get(f'{{{WSU}}}Id')}" == reference.get("URI"))
    return xmlsec.Key.from_memory(base64.b64decode(token.text), xmlsec.KeyFormat.CERT_DER)


def verify(root: Any, keys: dict[str, bytes], message: dict[str, Any]) -> list[list[str]]:
    covered = []
    signatures = root.findall(f".//{{{DS}}}Signature")
    for signature in signatures:
        context = xmlsec.SignatureContext()
        for element in root.iter():
            if element.get(f"{{{WSU}}}Id") is not None:
                context.register_id(element, "Id", WSU)
            elif element.get("Id") is not None:
                context.register_id(element, "Id")
        if "rsa" in signature.find(f".//{{{DS}}}SignatureMethod").get("Algorithm", ""):
            context.key = public_key(signature, root, message)
        else:
            context.key = xmlsec.Key.from_binary_data(xmlsec.KeyData.HMAC, key_for(signature, keys))
        context.verify(signature)
        names = {
            element.get(f"{{{WSU}}}Id") or element.get("Id"): etree.QName(element).localname
            for element in root.iter()
        }
        uris = [each.get("URI")[1:] for each in signature.iterfind(f".//{{{DS}}}Reference")]
        covered.append([names[uri] for uri in uris])
    return covered


def judge(message: dict[str, Any]) -> dict[str, Any]:
    root = etree.fromstring(base64.b64decode(message["payload"]))
    security = root.find(f".//{{{WSSE}}}Security")
    if security is None:
        raise ValueError("no Security header")
    secret = opened_secret(message, security)
    context = bytes.fromhex(message["context"]) if "context" in message else secret
    keys = keys_of(security, secret, context)
    if message.get("order") == "encrypt-before-sign":
        decrypted = open_signatures(root, keys)
        covered = verify(root, keys, message)
        decrypted += decrypt(root, keys)
    else:
        decrypted = decrypt(root, keys)
        covered = verify(root, keys, message)
    content = [
        base64.b64encode(etree.tostring(child, method="c14n", exclusive=True)).decode() for child in root[1]
    ]
    return {"covered": covered, "decrypted": decrypted, "content": content}


def main() -> None:
    results = []
    for message in json.loads(Path(sys.argv[1]).read_text()):
        try:
            results.append(judge(message))
        except Exception as error:
            results.append({"error": f"{type(error).__name__}: {error}"})
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main()
