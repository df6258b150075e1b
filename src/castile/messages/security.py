"""WS-Security's elements: one frozen dataclass each, `parse` and `render` side by side.

Parsing is strict about structure and looks at no key. What breaks a schema is `Malformed`, what
is legal but not spoken here `Unsupported`; both carry the one security fault. Rendering gives
exclusive-C14N bytes that stand alone, or, with ``nested=True``, as they stand under a parent
that has declared the prefix already.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, Self

import pybase64

from castile.clock import iso
from castile.errors import SECURITY_FAULT, Malformed, Unsupported
from castile.versions import (
    BASE64_BINARY,
    DS,
    ENCRYPTED_KEY,
    PASSWORD_TEXT,
    WSSC,
    WSSE,
    WSSE11,
    WSU,
    XENC,
    XENC11,
)
from castile.xml import Element, escape_attribute, escape_text, local_name, text_of

ID: Final = f"{{{WSU}}}Id"
ELEMENT_TYPE: Final = f"{XENC}Element"
CONTENT_TYPE: Final = f"{XENC}Content"
_STR: Final = f"{{{WSSE}}}SecurityTokenReference"
_INSTANCES: Final = {f"{{{namespace}}}Instance": namespace for namespace in WSSC}
_IMPLIED: Final = tuple((f"{{{namespace}}}Nonce", f"{{{namespace}}}Length") for namespace in WSSC)
_TYPES: Final = {row.token_type: row.namespace for row in WSSC.values()}
_CREATED: Final = f"{{{WSU}}}Created"
_EXPIRES: Final = f"{{{WSU}}}Expires"
_TOKEN_TYPE: Final = f"{{{WSSE11}}}TokenType"
_WSSE_REFERENCE: Final = f"{{{WSSE}}}Reference"
_KEY_IDENTIFIER: Final = f"{{{WSSE}}}KeyIdentifier"
_X509_DATA: Final = f"{{{DS}}}X509Data"
_X509_ISSUER_SERIAL: Final = f"{{{DS}}}X509IssuerSerial"
_X509_ISSUER_NAME: Final = f"{{{DS}}}X509IssuerName"
_X509_SERIAL_NUMBER: Final = f"{{{DS}}}X509SerialNumber"
_KEY_NAME: Final = f"{{{DS}}}KeyName"
_USERNAME: Final = f"{{{WSSE}}}Username"
_PASSWORD: Final = f"{{{WSSE}}}Password"
_NONCE: Final = f"{{{WSSE}}}Nonce"
_DATA_REFERENCE: Final = f"{{{XENC}}}DataReference"
_ENCRYPTION_METHOD: Final = f"{{{XENC}}}EncryptionMethod"
_KEY_INFO: Final = f"{{{DS}}}KeyInfo"
_CIPHER_DATA: Final = f"{{{XENC}}}CipherData"
_CIPHER_REFERENCE: Final = f"{{{XENC}}}CipherReference"
_CIPHER_VALUE: Final = f"{{{XENC}}}CipherValue"
_DIGEST_METHOD: Final = f"{{{DS}}}DigestMethod"
_MGF: Final = f"{{{XENC11}}}MGF"
_OAEP_PARAMETERS: Final = f"{{{XENC}}}OAEPparams"
_REFERENCE_LIST: Final = f"{{{XENC}}}ReferenceList"
_CARRIED_KEY_NAME: Final = f"{{{XENC}}}CarriedKeyName"


def malformed(text: str) -> Malformed:
    """A structure that breaks a schema of the Security header (features MS-81)."""
    return Malformed(text, fault=SECURITY_FAULT)


def unsupported(text: str) -> Unsupported:
    """A structure that is legal elsewhere but refused here, with its reason."""
    return Unsupported(text, fault=SECURITY_FAULT)


def base64_of(element: Element) -> bytes:
    """The octets of a base64 leaf; blanks and line ends inside are allowed (features MS-21)."""
    return decode_base64(text_of(element))


def decode_base64(text: str) -> bytes:
    """The octets that strict base64 stands for, white space left out; raises `Malformed`."""
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        pass
    try:
        return pybase64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise malformed("a value isn't base64") from None


def integer_of(element: Element) -> int:
    """A non-negative integer of at most ten digits; raises `Malformed`."""
    text = text_of(element).strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        raise malformed(f"{local_name(element)} isn't a small non-negative integer")
    return int(text)


def required(element: Element, name: str) -> str:
    """An attribute that must be there; raises `Malformed`."""
    value = element.get(name)
    if value is None:
        raise malformed(f"{local_name(element)} lacks {name}")
    return value


def only_child(element: Element, tag: str) -> Element:
    """The one child, which must be of this tag; raises `Malformed`."""
    if len(element) != 1 or element[0].tag != tag:
        raise malformed(f"{local_name(element)} must hold exactly one {tag.rpartition('}')[2]}")
    return element[0]


_DATETIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,20}))?(Z|[+-]\d\d:\d\d)?", re.ASCII
)


def parse_instant(text: str) -> float:
    """The UTC seconds of an xs:dateTime.

    An offset is read as the instant that it is; up to twenty fraction digits are taken. A
    missing zone and a leap second are refused by name (BSP R3213, R3217; features MS-74).
    """
    found = _DATETIME.fullmatch(text.strip())
    if found is None:
        raise malformed("a time isn't an xs:dateTime of a four-digit year")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    if zone is None:
        raise malformed("a time has no zone: it must end in Z or an offset")
    if second == "60":
        raise malformed("a time is a leap second (:60), which WS-Security forbids")
    offset: timezone = UTC
    if zone != "Z":
        shift = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:]))
        if shift > timedelta(hours=14) or int(zone[4:]) > 59:
            raise malformed("a time has an offset beyond 14:00")
        offset = timezone(shift if zone[0] == "+" else -shift)
    try:
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=offset)
        seconds = moment.timestamp()
    except (ValueError, OverflowError):
        raise malformed("a time names no day or hour that exists") from None
    return seconds + (float(f"0.{fraction}") if fraction else 0.0)


@dataclass(frozen=True, slots=True)
class Timestamp:
    """``wsu:Timestamp`` (WSS 1.1.1, 10): UTC seconds."""

    id: str | None
    created: float
    expires: float | None

    @classmethod
    def parse(cls, element: Element) -> Self:
        """Created first, at most one Expires, nothing else (BSP R3203, R3221-R3224)."""
        children = list(element)
        tags = [child.tag for child in children]
        if tags not in ([_CREATED], [_CREATED, _EXPIRES]):
            raise malformed("wsu:Timestamp must hold one Created, then at most one Expires")
        if any(child.attrib for child in children):
            raise malformed("Created and Expires take no attributes")
        times = [parse_instant(text_of(child)) for child in children]
        return cls(element.get(ID), times[0], times[1] if len(times) == 2 else None)

    def render(self) -> bytes:
        """Canonical bytes, times with milliseconds."""
        name = f' u:Id="{escape_attribute(self.id)}"' if self.id is not None else ""
        expires = f"<u:Expires>{iso(self.expires)}</u:Expires>" if self.expires is not None else ""
        return (
            f'<u:Timestamp xmlns:u="{WSU}"{name}><u:Created>{iso(self.created)}</u:Created>'
            f"{expires}</u:Timestamp>"
        ).encode()


@dataclass(frozen=True, slots=True)
class SecurityTokenReference:
    """``wsse:SecurityTokenReference`` in every form that is spoken (WSS 1.1.1, 7).

    Exactly one of `uri`, `key_identifier` and `issuer_serial` is set.
    """

    uri: str | None = None
    """``#id`` of a token in this header, or the Identifier of a security context."""
    value_type: str | None = None
    token_type: str | None = None
    instance: str | None = None
    """Which key of a renewed context (attribute Instance, as WCF writes it)."""
    key_identifier: str | None = None
    issuer_serial: tuple[str, int] | None = None
    id: str | None = None
    nonce: bytes | None = None
    """An implied derived key (WS-SC 1.3, 7.3)."""
    length: int | None = None

    @property
    def local(self) -> str | None:
        """The id that is pointed to, or None where the reference leaves the message."""
        return self.uri[1:] if self.uri is not None and self.uri.startswith("#") else None

    @classmethod
    def parse(cls, element: Element) -> Self:
        """Raises `Malformed` unless there is exactly one reference of a known form."""
        if element.tag != _STR:
            raise malformed("a wsse:SecurityTokenReference was expected")
        if len(element) != 1:
            raise malformed("wsse:SecurityTokenReference must hold exactly one reference (BSP R3061)")
        nonce, length = _implied(element)
        name, token_type = element.get(ID), element.get(_TOKEN_TYPE)
        child = element[0]
        if child.tag == _WSSE_REFERENCE:
            instance = next((child.get(tag) for tag in _INSTANCES if tag in child.attrib), None)
            uri, kind = required(child, "URI"), child.get("ValueType")
            return cls(uri, kind, token_type, instance, id=name, nonce=nonce, length=length)
        if child.tag == _KEY_IDENTIFIER:
            if child.get("EncodingType", BASE64_BINARY) != BASE64_BINARY:
                raise unsupported("a wsse:KeyIdentifier has an encoding other than base64")
            text, kind = "".join(text_of(child).split()), required(child, "ValueType")
            return cls(None, kind, token_type, None, text, id=name, nonce=nonce, length=length)
        if child.tag == _X509_DATA:
            pair = _issuer_serial(child)
            return cls(token_type=token_type, issuer_serial=pair, id=name, nonce=nonce, length=length)
        raise unsupported(f"a token reference of this form isn't taken: {local_name(child)}")

    def render(self, *, nested: bool = False, in_key_info: bool = False) -> bytes:
        """Canonical bytes; `nested`: the parent has declared the prefix ``o``; `in_key_info`: ``ds``."""
        scope = "" if nested else f' xmlns:o="{WSSE}"'
        before = f' xmlns:k="{WSSE11}"' if self.token_type is not None else ""
        after = f' xmlns:u="{WSU}"' if self.id is not None else ""
        attributes = f' u:Id="{escape_attribute(self.id)}"' if self.id is not None else ""
        if self.token_type is not None:
            attributes += f' k:TokenType="{escape_attribute(self.token_type)}"'
        return (
            f"<o:SecurityTokenReference{before}{scope}{after}{attributes}>"
            f"{self._form(in_key_info)}</o:SecurityTokenReference>"
        ).encode()

    def _form(self, in_key_info: bool) -> str:
        kind = f' ValueType="{escape_attribute(self.value_type)}"' if self.value_type is not None else ""
        if self.uri is not None:
            scope = instance = ""
            if self.instance is not None:
                namespace = _TYPES.get(self.value_type or "")
                if namespace is None:
                    raise malformed("only a reference to a security context has an instance")
                scope = f' xmlns:c="{namespace}"'
                instance = f' c:Instance="{escape_attribute(self.instance)}"'
            return f'<o:Reference{scope} URI="{escape_attribute(self.uri)}"{kind}{instance}></o:Reference>'
        if self.key_identifier is not None:
            text = escape_text(self.key_identifier)
            return f'<o:KeyIdentifier EncodingType="{BASE64_BINARY}"{kind}>{text}</o:KeyIdentifier>'
        if self.issuer_serial is None:
            raise malformed("a token reference without a reference")
        name, serial = self.issuer_serial
        scope = "" if in_key_info else f' xmlns:ds="{DS}"'
        return (
            f"<ds:X509Data{scope}><ds:X509IssuerSerial>"
            f"<ds:X509IssuerName>{escape_text(name)}</ds:X509IssuerName>"
            f"<ds:X509SerialNumber>{serial}</ds:X509SerialNumber></ds:X509IssuerSerial></ds:X509Data>"
        )


def _implied(element: Element) -> tuple[bytes | None, int | None]:
    if len(element.attrib) == 0:
        return None, None
    for nonce_name, length_name in _IMPLIED:
        nonce = element.get(nonce_name)
        if nonce is not None:
            length = element.get(length_name, "32")
            if not (length.isascii() and length.isdigit()) or len(length) > 4:
                raise malformed("the Length of an implied derived key isn't a small integer")
            return decode_base64(nonce), int(length)
    return None, None


def _issuer_serial(data: Element) -> tuple[str, int]:
    pair = only_child(data, _X509_ISSUER_SERIAL)
    if [child.tag for child in pair] != [_X509_ISSUER_NAME, _X509_SERIAL_NUMBER]:
        raise malformed("ds:X509IssuerSerial must hold a name, then a number")
    digits = text_of(pair[1]).strip()
    if not re.fullmatch(r"-?\d{1,60}", digits, re.ASCII):
        raise malformed("ds:X509SerialNumber isn't an integer")
    return text_of(pair[0]).strip(), int(digits)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """``ds:KeyInfo``: one reference, or a name where both sides configured one (BSP R5402)."""

    reference: SecurityTokenReference | None = None
    name: str | None = None

    @classmethod
    def parse(cls, element: Element) -> Self:
        """Raises `Unsupported` for embedded keys, RetrievalMethod and the like (features MS-19)."""
        if len(element) != 1:
            raise malformed("ds:KeyInfo must hold exactly one child")
        child = element[0]
        if child.tag == _STR:
            return cls(reference=SecurityTokenReference.parse(child))
        if child.tag == _KEY_NAME:
            return cls(name=text_of(child).strip())
        raise unsupported(f"ds:KeyInfo must hold a wsse:SecurityTokenReference, not {local_name(child)}")


@dataclass(frozen=True, slots=True)
class UsernameToken:
    """``wsse:UsernameToken`` (UsernameToken profile 1.1, 3.1)."""

    id: str | None
    name: str
    password: str | None = field(default=None, repr=False)
    password_type: str | None = PASSWORD_TEXT
    nonce: bytes | None = field(default=None, repr=False)
    created: str | None = None

    @classmethod
    def parse(cls, element: Element) -> Self:
        """One Username, at most one Password, Nonce and Created (BSP R4222-R4225)."""
        found: dict[str, Element] = {}
        for child in element:
            if not isinstance(child.tag, str) or child.tag in found:
                raise malformed("wsse:UsernameToken holds something twice, or a comment")
            found[child.tag] = child
        name = found.pop(_USERNAME, None)
        if name is None:
            raise malformed("wsse:UsernameToken lacks a Username")
        password = found.pop(_PASSWORD, None)
        nonce = found.pop(_NONCE, None)
        created = found.pop(_CREATED, None)
        if found:
            raise unsupported(f"wsse:UsernameToken holds {next(iter(found))}")
        kind = None if password is None else password.get("Type", PASSWORD_TEXT)
        return cls(
            id=element.get(ID),
            name=text_of(name),
            password=None if password is None else text_of(password),
            password_type=kind,
            nonce=None if nonce is None else base64_of(nonce),
            created=None if created is None else text_of(created),
        )

    def render(self) -> bytes:
        """Canonical bytes in WCF's child order."""
        scope = f' xmlns:u="{WSU}"' if self.id is not None else ""
        name = f' u:Id="{escape_attribute(self.id)}"' if self.id is not None else ""
        text = f'<o:UsernameToken xmlns:o="{WSSE}"{scope}{name}>'
        text += f"<o:Username>{escape_text(self.name)}</o:Username>"
        if self.password is not None:
            kind = escape_attribute(self.password_type or PASSWORD_TEXT)
            text += f'<o:Password Type="{kind}">{escape_text(self.password)}</o:Password>'
        if self.nonce is not None:
            octets = pybase64.b64encode(self.nonce).decode()
            text += f'<o:Nonce EncodingType="{BASE64_BINARY}">{octets}</o:Nonce>'
        if self.created is not None:
            scope = f' xmlns:u="{WSU}"' if self.id is None else ""
            text += f"<u:Created{scope}>{escape_text(self.created)}</u:Created>"
        return f"{text}</o:UsernameToken>".encode()


@dataclass(frozen=True, slots=True)
class BinarySecurityToken:
    """``wsse:BinarySecurityToken`` (WSS 1.1.1, 6.3)."""

    id: str | None
    value_type: str
    octets: bytes

    @classmethod
    def parse(cls, element: Element) -> Self:
        """Raises `Unsupported` for an encoding other than base64."""
        if element.get("EncodingType", BASE64_BINARY) != BASE64_BINARY:
            raise unsupported("a wsse:BinarySecurityToken has an encoding other than base64")
        return cls(element.get(ID), required(element, "ValueType"), base64_of(element))

    def render(self) -> bytes:
        """Canonical bytes."""
        scope = f' xmlns:u="{WSU}"' if self.id is not None else ""
        name = f' u:Id="{escape_attribute(self.id)}"' if self.id is not None else ""
        return (
            f'<o:BinarySecurityToken xmlns:o="{WSSE}"{scope} EncodingType="{BASE64_BINARY}" '
            f'ValueType="{escape_attribute(self.value_type)}"{name}>'
            f"{pybase64.b64encode(self.octets).decode()}</o:BinarySecurityToken>"
        ).encode()


@dataclass(frozen=True, slots=True)
class SignatureConfirmation:
    """``wsse11:SignatureConfirmation`` (WSS 1.1.1, 8.5); no value: nothing had been signed."""

    id: str | None
    value: bytes | None

    @classmethod
    def parse(cls, element: Element) -> Self:
        """Raises `Malformed` where it isn't empty."""
        if len(element) or text_of(element).strip():
            raise malformed("wsse11:SignatureConfirmation must be empty")
        value = element.get("Value")
        return cls(element.get(ID), None if value is None else decode_base64(value))

    def render(self) -> bytes:
        """Canonical bytes."""
        scope = f' xmlns:u="{WSU}"' if self.id is not None else ""
        name = f' u:Id="{escape_attribute(self.id)}"' if self.id is not None else ""
        value = ""
        if self.value is not None:
            value = f' Value="{pybase64.b64encode(self.value).decode()}"'
        return (
            f'<k:SignatureConfirmation xmlns:k="{WSSE11}"{scope}{value}{name}></k:SignatureConfirmation>'
        ).encode()


@dataclass(frozen=True, slots=True)
class ReferenceList:
    """``xenc:ReferenceList``: the ids of what is encrypted (XML Encryption, 3.6)."""

    ids: tuple[str, ...]

    @classmethod
    def parse(cls, element: Element) -> Self:
        """Raises `Malformed` for anything but references into this message."""
        ids = []
        for child in element:
            if child.tag != _DATA_REFERENCE:
                raise malformed("xenc:ReferenceList must hold DataReferences only")
            uri = required(child, "URI")
            if len(uri) < 2 or not uri.startswith("#"):
                raise malformed("xenc:DataReference must point into this message")
            ids.append(uri[1:])
        if not ids or len(set(ids)) != len(ids):
            raise malformed("xenc:ReferenceList is empty or names something twice")
        return cls(tuple(ids))

    def render(self, *, nested: bool = False) -> bytes:
        """Canonical bytes; `nested`: the parent has declared the prefix ``e``."""
        scope = "" if nested else f' xmlns:e="{XENC}"'
        references = "".join(
            f'<e:DataReference URI="#{escape_attribute(name)}"></e:DataReference>' for name in self.ids
        )
        return f"<e:ReferenceList{scope}>{references}</e:ReferenceList>".encode()


@dataclass(frozen=True, slots=True)
class EncryptedData:
    """``xenc:EncryptedData`` (XML Encryption, 3.4)."""

    id: str | None
    type: str
    algorithm: str
    key: KeyInfo | None
    cipher: bytes

    @classmethod
    def parse(cls, element: Element) -> Self:
        """Raises `Unsupported` for ciphertext that lies elsewhere and types other than these two."""
        kind = element.get("Type", "")
        if kind not in (ELEMENT_TYPE, CONTENT_TYPE):
            raise unsupported("xenc:EncryptedData must be of type Element or Content")
        method, key, cipher, rest = _encrypted(element)
        if rest or len(method):
            raise unsupported("xenc:EncryptedData holds more than method, key and ciphertext")
        return cls(element.get("Id"), kind, required(method, "Algorithm"), key, cipher)

    def render(self) -> bytes:
        """Canonical bytes."""
        start, end = self.frame(self.id or "", self.type, self.algorithm, self.key)
        return start + pybase64.b64encode(self.cipher) + end

    @staticmethod
    def frame(name: str, kind: str, algorithm: str, key: KeyInfo | None) -> tuple[bytes, bytes]:
        """What stands before and after the base64 of the ciphertext."""
        info = b""
        if key is not None and key.reference is not None:
            info = b'<ds:KeyInfo xmlns:ds="%b">%b</ds:KeyInfo>' % (
                DS.encode(),
                key.reference.render(in_key_info=True),
            )
        start = (
            f'<e:EncryptedData xmlns:e="{XENC}" Id="{escape_attribute(name)}" Type="{kind}">'
            f'<e:EncryptionMethod Algorithm="{algorithm}"></e:EncryptionMethod>'
        ).encode()
        return (
            start + info + b"<e:CipherData><e:CipherValue>",
            b"</e:CipherValue></e:CipherData></e:EncryptedData>",
        )


def _encrypted(element: Element) -> tuple[Element, KeyInfo | None, bytes, list[Element]]:
    children = list(element)
    if not children or children[0].tag != _ENCRYPTION_METHOD:
        raise malformed(f"{local_name(element)} must begin with its EncryptionMethod")
    method = children.pop(0)
    key = None
    if children and children[0].tag == _KEY_INFO:
        key = KeyInfo.parse(children.pop(0))
    if not children or children[0].tag != _CIPHER_DATA:
        raise malformed(f"{local_name(element)} lacks its CipherData")
    data = children.pop(0)
    if len(data) == 1 and data[0].tag == _CIPHER_REFERENCE:
        raise unsupported("xenc:CipherReference isn't followed")
    return method, key, base64_of(only_child(data, _CIPHER_VALUE)), children


@dataclass(frozen=True, slots=True)
class EncryptedKey:
    """``xenc:EncryptedKey`` (XML Encryption, 3.5.1)."""

    id: str | None
    algorithm: str
    key: KeyInfo | None
    cipher: bytes
    digest: str | None = None
    """DigestMethod of RSA-OAEP; None: SHA-1."""
    mgf: str | None = None
    """MGF of xmlenc11's RSA-OAEP; None: MGF1 with SHA-1."""
    references: tuple[str, ...] = ()
    """Ids that this key encrypts, where the list stands inside the key."""
    label: bytes = b""
    """OAEPparams of RSA-OAEP."""

    @classmethod
    def parse(cls, element: Element) -> Self:
        """Raises `Unsupported` for parameters that aren't spoken."""
        method, key, cipher, rest = _encrypted(element)
        digest = mgf = label = None
        for child in method:
            if child.tag == _DIGEST_METHOD and digest is None:
                digest = required(child, "Algorithm")
            elif child.tag == _MGF and mgf is None:
                mgf = required(child, "Algorithm")
            elif child.tag == _OAEP_PARAMETERS and label is None:
                label = base64_of(child)
            else:
                raise unsupported(f"a parameter of the key transport isn't taken: {local_name(child)}")
        references: tuple[str, ...] = ()
        for child in rest:
            if child.tag == _REFERENCE_LIST and not references:
                references = ReferenceList.parse(child).ids
            elif child.tag != _CARRIED_KEY_NAME:
                raise unsupported(f"xenc:EncryptedKey holds {local_name(child)}")
        algorithm = required(method, "Algorithm")
        return cls(element.get("Id"), algorithm, key, cipher, digest, mgf, references, label or b"")

    def render(self) -> bytes:
        """Canonical bytes."""
        name = f' Id="{escape_attribute(self.id)}"' if self.id is not None else ""
        text = f'<e:EncryptedKey xmlns:e="{XENC}"{name}><e:EncryptionMethod Algorithm="{self.algorithm}">'
        if self.digest is not None:
            text += f'<ds:DigestMethod xmlns:ds="{DS}" Algorithm="{self.digest}"></ds:DigestMethod>'
        if self.mgf is not None:
            text += f'<f:MGF xmlns:f="{XENC11}" Algorithm="{self.mgf}"></f:MGF>'
        if self.label:
            text += f"<e:OAEPparams>{pybase64.b64encode(self.label).decode()}</e:OAEPparams>"
        text += "</e:EncryptionMethod>"
        if self.key is not None and self.key.reference is not None:
            reference = self.key.reference.render(in_key_info=True).decode()
            text += f'<ds:KeyInfo xmlns:ds="{DS}">{reference}</ds:KeyInfo>'
        value = pybase64.b64encode(self.cipher).decode()
        text += f"<e:CipherData><e:CipherValue>{value}</e:CipherValue></e:CipherData>"
        if self.references:
            text += ReferenceList(self.references).render(nested=True).decode()
        return f"{text}</e:EncryptedKey>".encode()

    def as_reference(self) -> SecurityTokenReference:
        """How the same message points to this key, as WCF writes it."""
        return SecurityTokenReference(uri=f"#{self.id}", value_type=ENCRYPTED_KEY, token_type=ENCRYPTED_KEY)
