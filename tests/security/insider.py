"""Messages of an insider, who has the key: only the rule under test can refuse them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import pytest
from lxml import etree

from castile import xml
from castile.clock import Now
from castile.errors import PeerError
from castile.messages.conversation import DerivedKeyToken
from castile.policy.suites import HMAC_SHA1
from castile.security.keys import derive
from castile.security.signature import DIGESTS, mac
from castile.versions import DS, FAMILIES, WSU
from tests.security.made import NOW, SECRET, Kind, Side, kinds, receive
from tests.security.recorded import Keys

SIDE = Side(FAMILIES["1.3"])
OLD = Side(FAMILIES["2005"])
ID = f"{{{WSU}}}Id"
Change = Callable[[etree._Element], None]


def kind_of(name: str, side: Side = SIDE) -> Kind:
    return next(kind for kind in kinds(side.family) if kind.name == name)


BOOT = kind_of("RST")
LIFE = kind_of("CreateSequence")
APP = kind_of("application")


def at(utc: float) -> Now:
    return Now(utc, 0.0)


def refusal(payload: bytes, kind: Kind, now: Now = NOW, keys: Keys | None = None) -> PeerError:
    """Why a message is refused; a test fails if it isn't."""
    with pytest.raises(PeerError) as error:
        receive(payload, SIDE.expectation(kind), keys or SIDE.keys(), now)
    return error.value


def first(root: etree._Element, path: str) -> etree._Element:
    """The first element of a path, which must be there."""
    found = root.find(path)
    assert found is not None, path
    return found


def drop(element: etree._Element) -> None:
    parent = element.getparent()
    assert parent is not None
    parent.remove(element)


def copy(element: etree._Element) -> etree._Element:
    return etree.fromstring(etree.tostring(element, with_tail=False))


def base64(octets: bytes) -> str:
    return b64encode(octets).decode()


def sign(root: etree._Element, signature: etree._Element) -> None:
    """The signature's value made anew over its SignedInfo as it stands, by HMAC-SHA1."""
    token = root.find(".//{*}DerivedKeyToken")
    key = SECRET if token is None else derive(SECRET, DerivedKeyToken.parse(token))
    value = first(signature, f"{{{DS}}}SignatureValue")
    value.text = base64(mac(HMAC_SHA1, key, xml.canonical(signature[0])))


def changed(payload: bytes, change: Change) -> bytes:
    """A message after a change, without the key."""
    root = etree.fromstring(payload)
    change(root)
    return etree.tostring(root)


def resigned(payload: bytes, change: Change) -> bytes:
    """A message after a change, its digests and the MAC of its clear signature made anew."""
    root = etree.fromstring(payload)
    change(root)
    signature = first(root, f".//{{{DS}}}Signature")
    by_id = {f"#{element.get(ID)}": element for element in root.iter("*") if element.get(ID)}
    for reference in signature.iterfind(f".//{{{DS}}}Reference"):
        target = by_id.get(reference.get("URI", ""))
        method = first(reference, f"{{{DS}}}DigestMethod").get("Algorithm", "")
        if target is not None and method in DIGESTS:
            value = first(reference, f"{{{DS}}}DigestValue")
            value.text = base64(DIGESTS[method](xml.canonical(target)))
    sign(root, signature)
    return etree.tostring(root)
