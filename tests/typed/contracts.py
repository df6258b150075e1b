"""The WSDLs of the typed layer's tests, and valid bodies for them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from castile.config import Limits
from castile.transport.documents import Loader
from castile.typed import Codec, Contract, Values, read

FOLDER = Path(__file__).parent / "wsdl"
BODIES = {
    "Transfer": (
        '<Transfer xmlns="urn:bank"><debtor>AB1234</debtor><creditor>CD5678</creditor>'
        '<amount currency="EUR">12.50</amount><when>2026-01-31T12:00:00Z</when><memo>rent</memo></Transfer>'
    ),
    "Statement": (
        '<b:Statement xmlns:b="urn:bank"><b:account>AB1234</b:account><b:days>30</b:days>'
        "<b:kinds>in out</b:kinds></b:Statement>"
    ),
    "Enrol": (
        '<Enrol xmlns="urn:bank" xmlns:p="urn:bank:people"><p:person vip="true"><p:name>Ada</p:name>'
        "<p:born>1815-12-10</p:born><p:friend><p:name>Charles</p:name><p:born>1791-12-26</p:born></p:friend>"
        "</p:person><p:person><p:name>Bo</p:name><p:born>2000-02-29</p:born></p:person>"
        "<phone>+44123</phone><photo>YWJj</photo></Enrol>"
    ),
    "Note": '<Note xmlns="urn:bank">hello</Note>',
    "Ping": '<Ping xmlns="urn:bank"></Ping>',
    "Add": '<t:Add xmlns:t="urn:sums:types"><a>1</a><b>2</b></t:Add>',
    "Move": (
        '<s:Move xmlns:s="urn:sums" xmlns:t="urn:sums:types"><from><t:x>1</t:x><t:y>2</t:y></from>'
        "<by><t:x>3</t:x><t:y>4</t:y></by></s:Move>"
    ),
    "Reset": '<s:Reset xmlns:s="urn:sums"></s:Reset>',
}
"""A valid request of each operation."""


@lru_cache(maxsize=8)
def contract(name: str) -> Contract:
    return read(Loader().load(FOLDER / f"{name}.wsdl"))


@lru_cache(maxsize=8)
def codec(name: str, validate: str) -> Codec:
    return Codec(contract(name), Limits(), validate)


def values(operation: str, validate: str = "strict") -> Values:
    """The codec of an operation, whichever WSDL it is of."""
    name = "bank" if operation in contract("bank").ports[0].operations else "rpc"
    return codec(name, validate).operation(contract(name).ports[0].operations[operation])
