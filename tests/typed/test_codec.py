"""Values to bodies and back, by WSDLs of every style that is spoken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from castile import xml
from castile.config import Limits
from castile.errors import Malformed, UsageError
from castile.transport.documents import Loader
from castile.typed import Codec, read
from tests.conftest import shared
from tests.typed.contracts import BODIES, FOLDER, contract, values

EUR = {"_value_1": Decimal("12.50"), "currency": "EUR"}


@pytest.mark.row("CL-22")
@pytest.mark.parametrize("operation", BODIES)
def test_a_request_comes_out_as_it_went_in(operation: str) -> None:
    codec = values(operation)
    arguments = codec.decode_request(BODIES[operation].encode())
    octets = codec.encode_request(arguments)
    assert xml.canonical_fragment(octets, Limits()) == octets
    again = codec.decode_request(octets)
    assert again == arguments


def test_values_have_their_types() -> None:
    got = values("Transfer").decode_request(BODIES["Transfer"].encode())
    amount = got.pop("amount")
    assert (amount["_value_1"], amount["currency"]) == (Decimal("12.50"), "EUR")  # type: ignore[index]
    when = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert got == {"debtor": "AB1234", "creditor": "CD5678", "when": when, "memo": "rent"}
    enrolled = values("Enrol").decode_request(BODIES["Enrol"].encode())
    people = enrolled["person"]
    assert [person.name for person in people] == ["Ada", "Bo"]  # type: ignore[attr-defined]
    assert people[0].friend.born == date(1791, 12, 26)  # type: ignore[index]
    assert (enrolled["mail"], enrolled["photo"]) == (None, b"abc")
    assert values("Statement").decode_request(BODIES["Statement"].encode())["kinds"] == ["in", "out"]
    assert values("Note").decode_request(BODIES["Note"].encode()) == {"text": "hello"}
    assert values("Ping").decode_request(BODIES["Ping"].encode()) == {}


def test_empty_and_nil_are_two_things() -> None:
    codec = values("Statement")
    entries = [
        {"amount": EUR, "text": text, "number": number} for number, text in ((1, None), (2, ""), (3, "x"))
    ]
    got = codec.decode_response(codec.encode_response({"balance": EUR, "entry": entries}))
    assert [entry.text for entry in got.entry] == [None, "", "x"]  # type: ignore[attr-defined]


def test_one_child_stands_for_the_response() -> None:
    codec = values("Transfer")
    octets = codec.encode_response("R-1")
    assert octets.endswith(b">R-1</ns0:receipt></ns0:TransferResponse>")
    assert codec.decode_response(octets) == "R-1"
    assert values("Add").decode_response(values("Add").encode_response(3)) == 3
    assert values("Ping").decode_response(values("Ping").encode_response(5)) == 5
    assert values("Enrol").decode_response(values("Enrol").encode_response(None)) is None


@dataclass
class Point:
    x: int
    y: int


def test_data_classes_and_mappings_are_values() -> None:
    codec = values("Move")
    octets = codec.encode_request({"from": Point(1, 2), "by": {"x": 3, "y": 4}})
    assert codec.decode_request(octets) == codec.decode_request(BODIES["Move"].encode())


def test_faults_have_typed_details() -> None:
    codec = values("Transfer")
    declared, detail = codec.encode_fault("Refused", {"balance": EUR, "limit": EUR})
    assert declared.action == "urn:bank/Refused"
    name, value = codec.decode_fault(b"<x></x>" + detail) or ("", None)
    assert (name, value.limit.currency) == ("Refused", "EUR")  # type: ignore[attr-defined]
    assert codec.decode_fault(b"<x></x>") is None
    assert codec.decode_fault(b"") is None
    with pytest.raises(UsageError, match=r"declares no fault 'Broke'; it declares: Refused"):
        codec.encode_fault("Broke", {})
    with pytest.raises(Malformed, match="/Refused/balance"):
        codec.decode_fault(detail.replace(b"12.50", b"x", 1))


@pytest.mark.parametrize(
    ("operation", "arguments", "told"),
    [
        ("Add", {"a": 1}, "b"),
        ("Add", {"a": 1, "b": 2, "c": 3}, "Add has no argument 'c'; it takes: a, b"),
        ("Add", {"a": 1, "b": 2**31}, "/Add/b"),
        ("Note", {}, "Note"),
        ("Ping", {"x": 1}, "Ping has no argument 'x'; it takes: none"),
        ("Transfer", {"debtor": "SECRET"}, "Transfer"),
        ("Statement", {"account": "AB1234", "days": "SECRET"}, "Statement"),
    ],
)
def test_arguments_that_don_t_fit(operation: str, arguments: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError) as refused:
        values(operation).encode_request(arguments)
    assert told in str(refused.value)
    assert "SECRET" not in str(refused.value)


def test_a_result_that_doesn_t_fit() -> None:
    with pytest.raises(UsageError, match="breaks the schema: line 1, /StatementResponse/balance/@currency"):
        values("Statement").encode_response({"balance": {"_value_1": 1, "currency": "EURO"}})
    with pytest.raises(UsageError):
        values("Ping").encode_response("five")


def test_a_derived_type_keeps_its_name() -> None:
    body = (
        BODIES["Enrol"]
        .replace('vip="true"', 'i:type="p:Clerk" xmlns:i="http://www.w3.org/2001/XMLSchema-instance"')
        .replace("</p:friend></p:person>", "</p:friend><p:desk>7</p:desk></p:person>")
    )
    codec = values("Enrol")
    clerk = codec.decode_request(body.encode())
    assert clerk["person"][0].desk == 7  # type: ignore[index]
    assert codec.decode_request(codec.encode_request(clerk)) == clerk


def test_encoded_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="Old is rpc/encoded, which castile doesn't speak"):
        values("Old")


def test_actions() -> None:
    """Explicit, SOAPAction, then the default pattern (WS-Addressing 1.0 - Metadata, 4.4)."""
    bank = contract("bank").ports[0].operations
    assert {name: (each.action, each.response_action) for name, each in bank.items()} == {
        "Transfer": ("urn:bank/Transfer", "urn:bank/Transferred"),
        "Statement": ("urn:bank/Statement", "urn:bank:Bank:StatementResponse"),
        "Enrol": ("urn:bank/Enrol", "urn:bank:Bank:EnrolResponse"),
        "Note": ("urn:bank/Note", None),
        "Ping": ("urn:bank:Bank:PingRequest", "urn:bank:Bank:PingResponse"),
    }
    assert contract("rpc").ports[0].operations["Add"].action == "urn:sums#Add"


def test_headers_are_read() -> None:
    transfer = contract("bank").ports[1].operations["Transfer"]
    assert [part.name for part in transfer.request.headers] == ["tenant"]
    assert transfer.response is not None
    assert [part.name for part in transfer.response.headers] == ["served"]


def test_recorded_wsdls() -> None:
    for path in sorted(shared("vectors", "wcf").glob("*/service.wsdl")):
        found = read(Loader().load(path))
        echo = Codec(found, Limits()).operation(found.ports[0].operations["Echo"])
        assert echo.decode_request(echo.encode_request({"s": "x"})) == {"s": "x"}
        assert echo.decode_response(echo.encode_response("y")) == "y"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            'schemaLocation="people.xsd"',
            'schemaLocation="nobody.xsd"',
            "nobody.xsd can't be had: .*no such file",
        ),
        (
            'schemaLocation="people.xsd"',
            'schemaLocation="http://x.test/p.xsd"',
            "http://x.test/p.xsd can't be had",
        ),
        ('type="m:Amount"/>', 'type="m:Nothing"/>', "no schema: .*Nothing"),
        ('binding="tns:Bank12"', 'binding="tns:Bank13"', "Bank13 of port Soap12 is defined nowhere"),
        ('message="tns:Note"', 'message="tns:Nota"', "the message .*Nota .*is defined nowhere"),
        ('part="served"', 'part="saved"', "the message has no part 'saved'"),
        ("<wsdl:types>", "<!DOCTYPE x><wsdl:types>", "DOCTYPE"),
        ('xmlns:tns="urn:bank"', 'xmlns:tnt="urn:bank"', "the prefix of"),
    ],
)
def test_a_wsdl_that_isn_t_whole(tmp_path: Path, old: str, new: str, told: str) -> None:
    for name in ("people.xsd", "phone.xsd"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    text = (FOLDER / "bank.wsdl").read_text("utf-8")
    (tmp_path / "bank.wsdl").write_text(text.replace(old, new), "utf-8")
    with pytest.raises(UsageError, match=told):
        Codec(read(Loader().load(tmp_path / "bank.wsdl")), Limits())


def test_prefixes_that_only_values_use(tmp_path: Path) -> None:
    """A generator declares a prefix where a value needs it, though the root has another for the same."""
    text = (FOLDER / "rpc.wsdl").read_text("utf-8")
    text = text.replace(
        '<xs:element name="Add" type="xs:string"/>',
        '<xs:element xmlns:q2="http://www.w3.org/2001/XMLSchema" name="Add" type="q2:string"/>'
        '<xs:element xmlns:q1="urn:sums:types" name="Point" type="q1:Point"/>',
    )
    (tmp_path / "rpc.wsdl").write_text(text, "utf-8")
    found = read(Loader().load(tmp_path / "rpc.wsdl"))
    add = Codec(found, Limits()).operation(found.ports[0].operations["Add"])
    assert add.decode_request(BODIES["Add"].encode()) == {"a": 1, "b": 2}
