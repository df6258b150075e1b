"""The service's certificate out of its WSDL: from a file or over TLS, never over plain HTTP (PO-51)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from castile.messages.policy import Place
from castile.policy.description import Identity
from castile.policy.wsdl import describe
from castile.reading import certificate_of
from castile.transport.documents import Loader
from tests.typed.contracts import FOLDER


@pytest.mark.row("PO-51")
@pytest.mark.parametrize(
    ("where", "taken"),
    [("bank.wsdl", True), ("https://bank.example/?wsdl", True), ("http://bank.example/?wsdl", False)],
)
def test_where_a_certificate_is_taken_from(where: str, taken: bool) -> None:
    port = describe(Loader().load(FOLDER / "bank.wsdl")).port(port="Soap12")
    known = replace(port, identity=Identity(certificates=(b"DER",)), place=Place(where, 1))
    assert certificate_of(known) == (b"DER" if taken else None)
    assert certificate_of(replace(known, identity=None)) is None
