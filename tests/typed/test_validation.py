"""SV-04: what the schema doesn't allow is refused, with its path; zeep alone lets much of it pass."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest
from lxml import etree

from castile.errors import Malformed
from castile.typed.schema import Validator
from tests.typed.contracts import BODIES, values

XSI = "http://www.w3.org/2001/XMLSchema-instance"


@dataclass(frozen=True)
class Row:
    """A valid body with `old` replaced by `new`; `path` is where the refusal must point.

    `passes`: zeep's XSD machinery alone gives a value for it all the same.
    """

    operation: str
    old: str
    new: str
    path: str
    passes: bool

    def __str__(self) -> str:
        return f"{self.operation}-{self.old[:20]}-{self.new[:24]}"

    @property
    def body(self) -> bytes:
        valid = BODIES[self.operation]
        assert valid.count(self.old) == 1
        return valid.replace(self.old, self.new).encode()


def row(operation: str, old: str, new: str, path: str, *, zeep: bool) -> Row:
    return Row(operation, old, new, path, zeep)


LETS_PASS, REFUSES = True, False
TABLE = [
    # simple types
    row("Transfer", ">12.50<", ">abc<", "/Transfer/amount", zeep=REFUSES),
    row("Transfer", ">12.50<", "><", "/Transfer/amount", zeep=LETS_PASS),
    row("Transfer", ">12.50<", ">-1<", "/Transfer/amount", zeep=LETS_PASS),
    row("Transfer", ">12.50<", ">1000000.01<", "/Transfer/amount", zeep=LETS_PASS),
    row("Transfer", ">12.50<", ">0.005<", "/Transfer/amount", zeep=LETS_PASS),
    row("Transfer", ">12.50<", ">1e3<", "/Transfer/amount", zeep=LETS_PASS),
    row("Transfer", ">12.50<", ">NaN<", "/Transfer/amount", zeep=LETS_PASS),
    row("Transfer", ">12.50<", ">12,50<", "/Transfer/amount", zeep=REFUSES),
    row("Transfer", ">12.50<", ">12 50<", "/Transfer/amount", zeep=REFUSES),
    row("Transfer", ">12.50<", ">12<b/>50<", "/Transfer/amount", zeep=LETS_PASS),
    row("Transfer", ">AB1234<", ">ab1234<", "/Transfer/debtor", zeep=LETS_PASS),
    row("Transfer", ">AB1234<", "><", "/Transfer/debtor", zeep=LETS_PASS),
    row("Transfer", ">AB1234<", "> AB1234<", "/Transfer/debtor", zeep=LETS_PASS),
    row("Transfer", ">CD5678<", ">CD56789<", "/Transfer/creditor", zeep=LETS_PASS),
    row("Transfer", ">2026-01-31T12:00:00Z<", ">yesterday<", "/Transfer/when", zeep=LETS_PASS),
    row("Transfer", ">2026-01-31T12:00:00Z<", ">2026-02-30T12:00:00Z<", "/Transfer/when", zeep=LETS_PASS),
    row("Transfer", ">2026-01-31T12:00:00Z<", ">2026-01-31<", "/Transfer/when", zeep=LETS_PASS),
    row("Transfer", ">2026-01-31T12:00:00Z<", ">2026-01-31 12:00:00<", "/Transfer/when", zeep=LETS_PASS),
    row("Transfer", ">2026-01-31T12:00:00Z<", "><", "/Transfer/when", zeep=LETS_PASS),
    row("Statement", ">30<", ">256<", "/Statement/days", zeep=LETS_PASS),
    row("Statement", ">30<", ">-1<", "/Statement/days", zeep=LETS_PASS),
    row("Statement", ">30<", ">thirty<", "/Statement/days", zeep=LETS_PASS),
    row("Statement", ">30<", ">30.0<", "/Statement/days", zeep=LETS_PASS),
    row("Statement", ">30<", "><", "/Statement/days", zeep=LETS_PASS),
    row("Statement", ">in out<", ">in under<", "/Statement/kinds", zeep=LETS_PASS),
    row("Statement", ">in out<", ">in,out<", "/Statement/kinds", zeep=LETS_PASS),
    row("Enrol", ">Ada<", "><", "/Enrol/person[1]/name", zeep=LETS_PASS),
    row("Enrol", ">Ada<", ">Ada, Countess of Lovelace<", "/Enrol/person[1]/name", zeep=LETS_PASS),
    row("Enrol", ">1815-12-10<", ">10.12.1815<", "/Enrol/person[1]/born", zeep=LETS_PASS),
    row("Enrol", ">2000-02-29<", ">2001-02-29<", "/Enrol/person[2]/born", zeep=LETS_PASS),
    row("Enrol", ">+44123<", ">44123<", "/Enrol/phone", zeep=LETS_PASS),
    row("Enrol", ">+44123<", ">+12<", "/Enrol/phone", zeep=LETS_PASS),
    row("Enrol", ">YWJj<", ">YWJ<", "/Enrol/photo", zeep=LETS_PASS),
    row("Enrol", ">YWJj<", ">not base64!<", "/Enrol/photo", zeep=LETS_PASS),
    row("Add", ">1<", ">one<", "/Add/a", zeep=LETS_PASS),
    row("Add", ">1<", "><", "/Add/a", zeep=LETS_PASS),
    row("Add", ">1<", ">2147483648<", "/Add/a", zeep=LETS_PASS),
    row("Add", ">1<", ">0x1<", "/Add/a", zeep=LETS_PASS),
    row("Move", ">4<", ">four<", "/Move/by/y", zeep=LETS_PASS),
    # attributes
    row("Transfer", ' currency="EUR"', "", "/Transfer/amount", zeep=LETS_PASS),
    row("Transfer", '"EUR"', '"EURO"', "/Transfer/amount/@currency", zeep=LETS_PASS),
    row("Transfer", '"EUR"', '""', "/Transfer/amount/@currency", zeep=LETS_PASS),
    row("Transfer", "<debtor>", '<debtor kind="x">', "/Transfer/debtor/@kind", zeep=LETS_PASS),
    row("Transfer", "<amount ", '<amount factor="100" ', "/Transfer/amount/@factor", zeep=LETS_PASS),
    row(
        "Transfer",
        '<Transfer xmlns="urn:bank">',
        '<Transfer xmlns="urn:bank" all="yes">',
        "/Transfer/@all",
        zeep=LETS_PASS,
    ),
    row("Enrol", 'vip="true"', 'vip="yes"', "/Enrol/person[1]/@vip", zeep=LETS_PASS),
    row("Note", '<Note xmlns="urn:bank">', '<Note xmlns="urn:bank" to="all">', "/Note/@to", zeep=LETS_PASS),
    row("Ping", '<Ping xmlns="urn:bank">', '<Ping xmlns="urn:bank" loud="1">', "/Ping/@loud", zeep=LETS_PASS),
    row("Add", "<a>", '<a hint="x">', "/Add/a/@hint", zeep=LETS_PASS),
    row(
        "Add",
        '<t:Add xmlns:t="urn:sums:types">',
        '<t:Add xmlns:t="urn:sums:types" q="1">',
        "/Add/@q",
        zeep=LETS_PASS,
    ),
    # what is missing
    row("Transfer", "<debtor>AB1234</debtor>", "", "/Transfer/creditor", zeep=REFUSES),
    row("Transfer", "<when>2026-01-31T12:00:00Z</when>", "", "/Transfer/memo", zeep=REFUSES),
    row("Transfer", "<when>2026-01-31T12:00:00Z</when><memo>rent</memo>", "", "/Transfer", zeep=LETS_PASS),
    row("Statement", "<b:account>AB1234</b:account>", "", "/Statement/days", zeep=REFUSES),
    row("Enrol", "<p:name>Charles</p:name>", "", "/Enrol/person[1]/friend/born", zeep=REFUSES),
    row("Enrol", "<phone>+44123</phone>", "", "/Enrol/photo", zeep=LETS_PASS),
    row("Add", "<b>2</b>", "", "/Add", zeep=LETS_PASS),
    row("Add", "<a>1</a><b>2</b>", "", "/Add", zeep=LETS_PASS),
    row("Add", "<a>1</a>", "", "/Add/b", zeep=REFUSES),
    row("Move", "<t:y>2</t:y>", "", "/Move/from", zeep=LETS_PASS),
    # what is too much, or out of order
    row(
        "Transfer",
        "<memo>rent</memo>",
        "<memo>rent</memo><memo>more</memo>",
        "/Transfer/memo[2]",
        zeep=REFUSES,
    ),
    row(
        "Transfer", "<memo>rent</memo>", "<memo>rent</memo><admin>1</admin>", "/Transfer/admin", zeep=REFUSES
    ),
    row("Transfer", "<memo>rent</memo>", "rent", "/Transfer", zeep=LETS_PASS),
    row(
        "Transfer",
        "<debtor>AB1234</debtor><creditor>CD5678</creditor>",
        "<creditor>CD5678</creditor><debtor>AB1234</debtor>",
        "/Transfer/creditor",
        zeep=REFUSES,
    ),
    row(
        "Enrol",
        "<phone>+44123</phone>",
        "<mail>a:b</mail><phone>+44123</phone>",
        "/Enrol/phone",
        zeep=REFUSES,
    ),
    row(
        "Enrol",
        "<p:person><p:name>Bo",
        "<p:person/><p:person/><p:person><p:name>Bo",
        "/Enrol/person[2]",
        zeep=REFUSES,
    ),
    row("Note", ">hello<", ">hello<b/><", "/Note", zeep=LETS_PASS),
    row("Ping", "></Ping>", "><x/></Ping>", "/Ping", zeep=LETS_PASS),
    row("Ping", "></Ping>", ">text</Ping>", "/Ping", zeep=LETS_PASS),
    row("Add", "<b>2</b>", "<b>2</b><c>3</c>", "/Add/c", zeep=REFUSES),
    row("Add", "<a>1</a><b>2</b>", "<b>2</b><a>1</a>", "/Add/b", zeep=REFUSES),
    row("Reset", "></s:Reset>", "><now>1</now></s:Reset>", "/Reset", zeep=LETS_PASS),
    # namespaces
    row(
        "Transfer",
        "<debtor>AB1234</debtor>",
        '<debtor xmlns="">AB1234</debtor>',
        "/Transfer/debtor",
        zeep=LETS_PASS,
    ),
    row("Transfer", "<debtor>", '<debtor xmlns="urn:x">', "/Transfer/debtor", zeep=REFUSES),
    row("Add", "<a>1</a>", "<t:a>1</t:a>", "/Add/a", zeep=LETS_PASS),
    row("Move", "<t:y>2</t:y>", "<y>2</y>", "/Move/from/y", zeep=LETS_PASS),
    # what a schema instance may say
    row("Transfer", "<debtor>", f'<debtor xmlns:i="{XSI}" i:nil="true">', "/Transfer/debtor", zeep=LETS_PASS),
    row(
        "Enrol",
        '<p:person vip="true">',
        f'<p:person xmlns:i="{XSI}" i:type="p:Phone" vip="true">',
        "/Enrol/person[1]/@type",
        zeep=LETS_PASS,
    ),
    row(
        "Enrol",
        '<p:person vip="true">',
        f'<p:person xmlns:i="{XSI}" i:type="p:Nobody" vip="true">',
        "/Enrol/person[1]/@type",
        zeep=REFUSES,
    ),
    row(
        "Enrol",
        '<p:person vip="true">',
        f'<p:person xmlns:i="{XSI}" i:type="p:Clerk" vip="true">',
        "/Enrol/person[1]",
        zeep=LETS_PASS,
    ),
]


@pytest.mark.row("SV-04")
@pytest.mark.parametrize("case", TABLE, ids=str)
def test_an_invalid_body_is_refused_with_its_path(case: Row) -> None:
    assert values(case.operation).decode_request(BODIES[case.operation].encode()) is not None
    with pytest.raises(Malformed) as refused:
        values(case.operation).decode_request(case.body)
    assert f"line 1, {case.path}: " in refused.value.fault.reason
    assert refused.value.fault.code == "Sender"


@pytest.mark.parametrize("case", TABLE, ids=str)
def test_what_zeep_alone_lets_pass(case: Row, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    lenient = values(case.operation, "off")
    try:
        lenient.decode_request(case.body)
        passes = True
    except Malformed:
        passes = False
    assert passes is case.passes


def test_the_table_is_large_and_zeep_passes_most_of_it() -> None:
    assert len(TABLE) >= 60
    assert sum(case.passes for case in TABLE) >= 40


def test_the_line_is_told() -> None:
    body = BODIES["Transfer"].replace("<creditor>", "\n\n<creditor>").replace("CD5678", "x").encode()
    with pytest.raises(Malformed, match=r"line 3, /Transfer/creditor: "):
        values("Transfer").decode_request(body)


def test_a_refusal_doesn_t_quote_the_message() -> None:
    for old, new in (("12.50", "SECRET"), ("AB1234", "SECRET"), ('"EUR"', '"SECRET"')):
        with pytest.raises(Malformed) as refused:
            values("Transfer").decode_request(BODIES["Transfer"].replace(old, new).encode())
        assert "SECRET" not in str(refused.value) + refused.value.fault.reason


def test_a_refusal_doesn_t_quote_a_value_that_libxml2_cuts_off() -> None:
    with pytest.raises(Malformed) as refused:
        values("Transfer").decode_request(BODIES["Transfer"].replace("12.50", "9" * 100_000).encode())
    assert "999" not in str(refused.value) + refused.value.fault.reason


@pytest.mark.parametrize("when", ["10000-01-31T12:00:00Z", "2026-01-31T24:00:00Z", "-0044-03-15T12:00:00Z"])
def test_a_value_that_python_can_not_hold_is_not_taken_for_none(when: str) -> None:
    """The schema allows it, and zeep would hand None to a handler that is promised a time."""
    body = BODIES["Transfer"].replace("2026-01-31T12:00:00Z", when).encode()
    with pytest.raises(Malformed, match="can't be read"):
        values("Transfer").decode_request(body)


@pytest.mark.parametrize("hint", ["schemaLocation", "noNamespaceSchemaLocation"])
def test_a_message_brings_no_schema_of_its_own(hint: str, tmp_path: Path) -> None:
    """A document can name schemas for itself: nobody here goes and reads them."""
    schema = tmp_path / "evil.xsd"
    schema.write_text(
        '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:bank">'
        '<xs:element name="Evil" type="xs:string"/></xs:schema>'
    )
    where = f"urn:bank {schema}" if hint == "schemaLocation" else str(schema)
    said = f'xmlns:i="{XSI}" i:{hint}="{where}"'
    body = BODIES["Note"].replace("<Note", f"<Note {said}").encode()
    assert values("Note").decode_request(body) == {"text": "hello"}
    evil = f'<Enrol xmlns="urn:bank" {said}><Evil>x</Evil></Enrol>'.encode()
    with pytest.raises(Malformed, match="/Enrol/Evil: This element is not expected"):
        values("Enrol").decode_request(evil)


@pytest.mark.parametrize(
    ("operation", "body", "told"),
    [
        ("Transfer", b"", "the Body is empty; Transfer is wanted"),
        ("Transfer", b'<Statement xmlns="urn:bank"/>', "the element Statement isn't the one"),
        ("Transfer", b'<Transfer xmlns="urn:other"/>', "the element Transfer isn't the one"),
        ("Transfer", b"<Transfer/>", "the element Transfer isn't the one"),
        ("Add", b'<Add xmlns="urn:sums"><a>1</a><b>2</b></Add>', "the element Add isn't the one"),
        ("Reset", b"", "the Body is empty; Reset is wanted"),
    ],
)
def test_another_element(operation: str, body: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        values(operation).decode_request(body)


def test_a_value_that_libxml2_gives_up_on_is_refused() -> None:
    """Some patterns take it back and forth over a value, until it has an error of its own."""
    schema = etree.XMLSchema(
        etree.fromstring(
            '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:element name="r"><xs:simpleType>'
            '<xs:restriction base="xs:string"><xs:pattern value="(a|aa)+b"/></xs:restriction>'
            "</xs:simpleType></xs:element></xs:schema>"
        )
    )
    problem = Validator(schema).problem(etree.fromstring(f"<r>{'a' * 2_000}</r>"))
    assert problem is not None
    assert "too much work" in str(problem)
