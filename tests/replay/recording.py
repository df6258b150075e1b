"""A captured conversation as exchanges, opened with the keys that belong to it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from castile import xml
from castile.messages import addressing, reliability, soap, trust
from castile.messages.addressing import Headers
from castile.messages.reliability import RMHeaders
from castile.security import SealedKey
from castile.versions import WSRM, WST, Addressing, Reliability
from castile.xml import Element
from tests.conftest import shared
from tests.security import recorded
from tests.security.recorded import Keys, Opened

LEFT_OUT = re.compile(r"-nego-")
"""Negotiation inside SOAP is no part of this."""


@dataclass(frozen=True)
class Spoken:
    """One message of a recording."""

    name: str
    payload: bytes
    content_type: str
    status: int
    opened: Opened

    @cached_property
    def body(self) -> Element:
        """Decrypted, as far as the keys at hand allow."""
        if self.opened.verified is not None:
            return self.opened.verified.body
        return self.opened.trace.body if self.opened.trace.body is not None else self.opened.envelope.body

    @cached_property
    def content(self) -> bytes:
        """The canonical children of the Body."""
        return b"".join(xml.canonical(child) for child in self.body)

    @property
    def secured(self) -> bool:
        return self.opened.envelope.security is not None

    @cached_property
    def addressing(self) -> Addressing:
        edition = addressing.edition_of(self.opened.envelope.headers)
        assert edition is not None, f"{self.name} is not addressed"
        return edition

    @cached_property
    def headers(self) -> Headers:
        return addressing.parse(self.opened.envelope.headers, self.addressing)

    @cached_property
    def reliability(self) -> Reliability | None:
        """The edition that shows in headers or body; None: none."""
        elements = [*self.opened.envelope.headers, *self.body]
        spaces = {xml.namespace_of(element) for element in elements} & WSRM.keys()
        owner = next((space for space in WSRM if self.headers.action.startswith(f"{space}/")), None)
        found = owner or next(iter(spaces), None)
        return WSRM[found] if found else None

    @cached_property
    def rm(self) -> RMHeaders:
        if self.reliability is None:
            return RMHeaders()
        version = self.opened.envelope.soap
        return reliability.parse_headers(self.opened.envelope.headers, self.reliability, soap=version)

    @cached_property
    def fault(self) -> object:
        children = list(self.body)
        return soap.read_fault(children[0], self.opened.envelope.soap) if len(children) == 1 else None

    @cached_property
    def element(self) -> tuple[str, str]:
        """Namespace and local name of the Body's child; empty for an empty Body."""
        return xml.name_of(self.body[0]) if len(self.body) else ("", "")

    @cached_property
    def answer(self) -> trust.RequestSecurityTokenResponse | None:
        """The answer of a trust service, if it is one."""
        if not self.element[1].startswith("RequestSecurityTokenResponse"):
            return None
        return trust.RequestSecurityTokenResponse.parse(self.body[0], WST[self.element[0]])

    @cached_property
    def request(self) -> trust.RequestSecurityToken | None:
        """The request to a trust service, if it is one."""
        if self.element[1] != "RequestSecurityToken":
            return None
        return trust.RequestSecurityToken.parse(self.body[0], WST[self.element[0]])

    @property
    def lifecycle(self) -> str:
        """Local name of an element of WS-ReliableMessaging in the Body; empty for others."""
        return self.element[1] if self.element[0] in WSRM else ""

    @cached_property
    def created(self) -> float | None:
        """UTC of the Timestamp; None without security."""
        return recorded.created(self.opened.envelope) or None


@dataclass(frozen=True)
class Exchange:
    """A request and what came back."""

    request: Spoken
    response: Spoken | None
    """None: nothing was recorded, or HTTP 202."""
    lost: bool = False
    """The client never had the response."""
    doubled: bool = False
    """The network repeated an earlier request."""


@dataclass(frozen=True)
class Recording:
    """A folder."""

    folder: Path
    exchanges: tuple[Exchange, ...]
    keys: Keys
    names: dict[str, str]
    """``service`` and ``client``: PEM of key and certificate."""
    secrets: tuple[tuple[str, str | None, bytes], ...]
    """Identifier, instance and secret of each security context."""

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def handmade(self) -> bool:
        """The requests are no peer's, but made to see what a service says to them."""
        return self.folder.name.startswith("raw-")

    @property
    def messages(self) -> list[Spoken]:
        return [each for exchange in self.exchanges for each in (exchange.request, exchange.response) if each]

    @property
    def wsdl(self) -> Path:
        own = self.folder / "service.wsdl"
        return own if own.exists() else self.folder.parent / "echo.wsdl"


def folders() -> list[Path]:
    """Every recording that is replayed, of WCF and of CXF."""
    found = [
        folder
        for peer in ("wcf", "cxf")
        for folder in sorted(shared("vectors", peer).iterdir())
        if folder.is_dir() and LEFT_OUT.search(folder.name) is None
    ]
    return [folder for folder in found if any(folder.glob("*-request.xml"))]


def load(folder: Path) -> Recording:
    """A recording, every message opened at its own time."""
    data = json.loads((folder / "conversation.json").read_text())
    described = {each["file"]: each for each in data["messages"]}
    keys = recorded.keys_of(folder)
    spoken = [_spoken(each, folder, described) for each in recorded.read(folder, keys)]
    secrets = tuple(
        (each["identifier"], each.get("instance"), bytes.fromhex(each["secret_hex"]))
        for each in data.get("security_contexts", [])
    )
    exchanges = _exchanges(spoken, lossy=folder.name.startswith("lossy"))
    return Recording(folder, exchanges, keys, _identities(folder.parent), secrets)


def _spoken(opened: Opened, folder: Path, described: dict[str, dict[str, str]]) -> Spoken:
    about = described.get(opened.name, {})
    found = re.search(r"HTTP/\S+ (\d{3})", about.get("start_line", ""))
    status = int(found[1]) if found else 200
    content_type = about.get("content_type") or f"{opened.envelope.soap.content_type}; charset=utf-8"
    return Spoken(opened.name, (folder / opened.name).read_bytes(), content_type, status, opened)


def _exchanges(messages: list[Spoken], *, lossy: bool) -> tuple[Exchange, ...]:
    """A response belongs to the request right before it. Without loss, equal octets that come
    again are the network's doing."""
    made: list[Exchange] = []
    requests = [message for message in messages if message.name.endswith("-request.xml")]
    for request in requests:
        place = messages.index(request)
        after = messages[place + 1] if place + 1 < len(messages) else None
        response = after if after is not None and after.name.endswith("-response.xml") else None
        later = [other for other in requests if other is not request and messages.index(other) > place]
        lost = lossy and any(_same(request, other) for other in later)
        earlier = any(other.payload == request.payload for other in requests[: requests.index(request)])
        made.append(Exchange(request, response, lost, earlier and not lossy))
    return tuple(made)


def _same(request: Spoken, other: Spoken) -> bool:
    """Whether one repeats the other."""
    if request.headers.message_id is not None or other.headers.message_id is not None:
        return request.headers.message_id == other.headers.message_id
    return request.rm.sequence is not None and request.rm.sequence == other.rm.sequence


def _identities(folder: Path) -> dict[str, str]:
    """PEM of key and certificate of both sides, as the peer's folder names them."""
    data = json.loads((folder / "keys.json").read_text())["keys"]
    service, client = ("svc", "cli") if "svc" in data else ("bob", "alice")
    return {"service": _pem(data[service]), "client": _pem(data[client])}


def _pem(entry: dict[str, str]) -> str:
    if "private_key_pem" in entry:
        return entry["private_key_pem"] + entry["certificate_pem"]
    private, certificate = entry["private_key_pkcs8_der_base64"], entry["certificate_der_base64"]
    return _armoured("PRIVATE KEY", private) + _armoured("CERTIFICATE", certificate)


def _armoured(label: str, text: str) -> str:
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"


def sealed(message: Spoken) -> SealedKey | None:
    """The key of the EncryptedKey that a request made."""
    key = message.opened.verified.reply_key if message.opened.verified else None
    if isinstance(key, SealedKey):
        return key
    return message.opened.trace.sealed[0] if message.opened.trace.sealed else None
