"""What goes between zeep and castile: zeep's envelope taken apart, and the answer put together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from castile import xml
from castile.config import Limits
from castile.credentials import Username
from castile.errors import WSSE, SOAPFault, UsageError
from castile.messages import soap
from castile.messages.soap import Message
from castile.versions import SOAP, WSA, SOAPVersion
from castile.xml import Element

_PASSWORD_TEXT: Final = "#PasswordText"


@dataclass(frozen=True, slots=True)
class Asked:
    """What zeep wants to be sent."""

    soap: SOAPVersion
    body: bytes = field(repr=False)
    """The canonical element in the Body; empty if there is none."""
    name: str | None
    """Its Clark name."""
    username: Username | None = None
    """The credential of a UsernameToken that zeep has put in."""


def taken_apart(envelope: Element, limits: Limits) -> Asked:
    """Body and credential of an envelope of zeep's. Its WS-Addressing headers are left out: castile
    writes its own (CL-05).

    Raises `UsageError` for what castile can't take over: headers of the application, more than one
    element in the Body, signatures made by zeep (CL-11).
    """
    version = SOAP.get(xml.namespace_of(envelope))
    if version is None:
        raise UsageError("the envelope is of no SOAP version")
    username, children = username_of(envelope), list[Element]()
    for part in xml.inside(envelope):
        if part.tag == f"{{{version.namespace}}}Header":
            _check(part)
        elif part.tag == f"{{{version.namespace}}}Body":
            children = xml.inside(part)
    if len(children) > 1:
        raise UsageError(f"the Body has {len(children)} elements: WS-I wants one at the most")
    if not children:
        return Asked(version, b"", None, username)
    return Asked(version, xml.canonical_fragment(children[0], limits), str(children[0].tag), username)


def username_of(envelope: Element) -> Username | None:
    """The credential that zeep's UsernameToken has put into an envelope. Raises `UsageError` for one
    that can't be taken over."""
    token = next(envelope.iter(f"{{{WSSE}}}UsernameToken"), None)
    return None if token is None else _credential(token)


def _check(header: Element) -> None:
    for block in xml.inside(header):
        namespace, local = xml.name_of(block)
        if namespace in WSA:
            continue
        if (namespace, local) != (WSSE, "Security"):
            raise UsageError(
                f"the header {local} of _soapheaders= can't be sent to an endpoint with a policy: "
                "castile keeps the Body of a message in its store, and writes the headers itself"
            )
        for token in xml.inside(block):
            if xml.local_name(token) not in ("UsernameToken", "Timestamp"):
                raise UsageError(
                    f"wsse= has put a {xml.local_name(token)} into the message: castile signs and "
                    "encrypts by the endpoint's policy. Remove wsse= and give the key as credentials="
                )


def _credential(token: Element) -> Username:
    values = {xml.local_name(each): each for each in xml.inside(token)}
    name, password = values.get("Username"), values.get("Password")
    kind = "" if password is None else password.get("Type") or _PASSWORD_TEXT
    if name is None or password is None or not kind.endswith(_PASSWORD_TEXT):
        raise UsageError(
            "a password can't be taken from a digest: give it as credentials=castile.Username(name, "
            "password) and remove wsse="
        )
    return Username(xml.text_of(name), xml.text_of(password))


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as zeep reads it; of ``raw_response`` too. What is in it was verified and
    decrypted (CL-08)."""

    status_code: int
    content: bytes = field(default=b"", repr=False)
    headers: dict[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"

    @property
    def text(self) -> str:
        """The content as text."""
        return self.content.decode(self.encoding)


TAKEN: Final = Answer(202)
"""Of a one-way message: zeep makes None of it (CL-03)."""


def answer(version: SOAPVersion, content: bytes) -> Answer:
    """The content of a reply's Body, in an envelope again."""
    return _answer(200, version, content)


def fault(version: SOAPVersion, what: SOAPFault) -> Answer:
    """A fault, for zeep to raise as its own (CL-07)."""
    return _answer(500, version, soap.render_fault(what, version))


def _answer(status: int, version: SOAPVersion, content: bytes) -> Answer:
    headers = {"Content-Type": f"{version.content_type}; charset=utf-8"}
    return Answer(status, soap.render(Message(version, (), content)), headers)
