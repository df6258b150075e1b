"""castile inspect and castile lint: exit status, what is said, an example that can be pasted."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from castile.cli import main
from castile.policy.documents import Documents
from castile.policy.wsdl import describe
from tests.conftest import shared
from tests.policy import corpus
from tests.policy.made import wsdl


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def case(*parts: str) -> Path:
    return shared("cases", *parts)


def example(output: str) -> str:
    """The Python in a report: what stands at the margin from the import on."""
    return output[output.index("import castile") :].partition("\n\n\n")[0]


# ---- inspect


@pytest.mark.row("OP-02", "PO-08", "PO-10")
def test_a_vendors_policy() -> None:
    """Case 001."""
    result = run("inspect", case("001-vendor-policy", "service.wsdl"))
    assert result.exit_code == 0
    text = result.output
    for expected in (
        "TLS is required",
        "HTTP asks for a user name and password (basic)",
        "layout Strict",
        "Missing credentials:\n    a user name and password",
        'credentials=castile.Username("NAME", "env:PASSWORD")',
        "service.wsdl:40: {urn:example:vendor:features}Session of port type Stock",
        "service.wsdl:45: {urn:example:vendor:features}commit of operation GetStock of port type Stock",
    ):
        assert expected in text
    for name in ("Attachments", "Session", "commit", "blocking", "reliable"):
        assert text.count(f"warning: {case('001-vendor-policy')}") == 5
        assert f"{{urn:example:vendor:features}}{name} of" in text
    strict = run("inspect", "--strict", case("001-vendor-policy", "service.wsdl"))
    assert strict.exit_code == 1
    assert "can't be used" in strict.output
    assert "service.wsdl:9: {urn:example:vendor:features}Attachments of binding StockBinding" in strict.output
    assert "ignore_assertions=('{urn:example:vendor:features}Attachments',)" in strict.output


@pytest.mark.row("OP-02", "PO-03")
def test_policy_uris() -> None:
    """Case 003."""
    result = run("inspect", case("003-policyuris", "service.wsdl"))
    assert result.exit_code == 0
    assert "TLS is required, with a certificate of the client" in result.output
    assert "a Timestamp is required" in result.output
    assert "Missing credentials:\n    a certificate for TLS" in result.output
    assert 'tls=castile.TLS(certificate="client.pem"),' in result.output
    dangling = run("inspect", case("003-policyuris", "dangling.wsdl"))
    assert dangling.exit_code == 1
    assert "dangling.wsdl:24: portType refers to the policy '#nowhere'" in dangling.output


@pytest.mark.row("OP-02")
def test_a_composite() -> None:
    result = run("inspect", shared("vectors", "wcf", "ws05-user-nonego-sc-rm", "service.wsdl"))
    assert result.exit_code == 0
    request = next(line for line in result.output.splitlines() if line.startswith("      request:"))
    assert request.startswith("      request: signed Body, wsrm:AckRequested, wsrm:Sequence,")
    assert request.endswith("encrypted Body, ds:Signature")
    assert 'service_certificate="service.pem"' in result.output


@pytest.mark.row("OP-02", "OP-16")
def test_json() -> None:
    result = run("inspect", "--json", shared("vectors", "cxf", "echo.wsdl"))
    report = json.loads(result.output)
    assert result.exit_code == 0
    assert report["usable"] is True
    (port,) = report["ports"]
    assert (port["service"], port["port"], port["soap"]) == ("EchoService", "EchoPort", "SOAP 1.2")
    assert list(port["missing"]) == ["certificate", "service-certificate"]
    echo, tell = port["operations"]
    assert (echo["name"], echo["one_way"], tell["one_way"]) == ("echo", False, True)
    assert "wsrm:Sequence" in echo["messages"]["request"]["signed"]
    assert echo["messages"]["response"]["encrypted"] == ["Body"]
    assert set(tell["messages"]) == {"request"}
    refused = json.loads(run("inspect", "--json", case("003-policyuris", "dangling.wsdl")).output)
    assert refused["usable"] is False
    assert "#nowhere" in refused["refused"][0]["reason"]


@pytest.mark.row("OP-02")
def test_policies_as_xml() -> None:
    result = run("inspect", "--policy", shared("vectors", "cxf", "echo.wsdl"))
    comments = [line for line in result.output.splitlines() if line.startswith("<!--")]
    assert comments == [
        "<!-- EchoService/EchoPort: the endpoint, the fault of echo, the fault of tell -->",
        "<!-- EchoService/EchoPort: the request of echo, the response of echo, the request of tell -->",
    ]
    assert result.output.count("EncryptedParts>") > 2


@pytest.mark.row("OP-02", "RE-102")
@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (None, "there is no such file"),
        (b"", "not well-formed XML"),
        (b"root:x:0:0", "not well-formed XML"),
        (b"<html/>", "a web page, not a WSDL"),
        (b'<w:Policy xmlns:w="http://www.w3.org/ns/ws-policy"/>', "a policy on its own, not a WSDL"),
        (b'<d:description xmlns:d="http://www.w3.org/ns/wsdl"/>', "WSDL 2.0 is not read"),
        (wsdl().replace(b"soap:", b"http:").replace(b"xmlns:http", b"xmlns:soap"), "prefix"),
        (wsdl().replace(b"<soap:binding", b"<soap:nothing"), "the WSDL has no SOAP port"),
    ],
)
def test_what_is_no_wsdl_is_status_2(tmp_path: Path, octets: bytes | None, reason: str) -> None:
    path = tmp_path / "a.wsdl"
    if octets is not None:
        path.write_bytes(octets)
    result = run("inspect", path)
    assert result.exit_code == 2
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.output.replace(result.stderr, "") == ""


@pytest.mark.row("OP-02", "CL-50")
def test_choosing_a_port(tmp_path: Path) -> None:
    path = tmp_path / "a.wsdl"
    path.write_bytes(wsdl(service='<wsdl:port name="Q" binding="t:Nowhere"/>'))
    both = run("inspect", path)
    assert both.exit_code == 1
    assert "S/Q\n  can't be used: " in both.output
    assert 'service="S", port="P",' in both.output
    assert run("inspect", path, "--port", "P").exit_code == 0
    none = run("inspect", path, "--port", "X")
    assert none.exit_code == 2
    assert "no port with port 'X'" in none.stderr


@pytest.mark.row("OP-02")
def test_a_service_without_any_policy(tmp_path: Path) -> None:
    path = tmp_path / "a.wsdl"
    path.write_bytes(wsdl())
    result = run("inspect", path)
    assert result.exit_code == 0
    assert "no message is signed or encrypted" in result.output
    assert "Missing credentials" not in result.output


@pytest.mark.row("OP-02")
def test_every_file_of_others_has_a_report() -> None:
    """Never a traceback, never an empty report; what can't be used says why."""
    kinds = {0: 0, 1: 0, 2: 0}
    for path in corpus.files():
        if "wss4j" in str(path):
            continue
        result = run("inspect", path)
        assert result.exception is None or isinstance(result.exception, SystemExit), path
        assert result.exit_code in kinds, path
        assert result.output.strip(), path
        assert (result.exit_code == 1) == ("can't be used" in result.output), path
        kinds[result.exit_code] += 1
    assert kinds[0] > 40
    assert kinds[2] > 15


@pytest.mark.row("OP-02", "CL-27")
def test_the_example_runs_when_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against nobody: the message is made, and shown instead of sent."""
    schema = """<wsdl:types><x:schema xmlns:x="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:t"
      elementFormDefault="qualified" xmlns="urn:t">
      <x:simpleType name="Kind"><x:restriction base="x:int"/></x:simpleType>
      <x:element name="Ask"><x:complexType><x:sequence><x:element name="text" type="x:string"/>
      <x:element name="number" type="Kind" maxOccurs="3"/><x:element name="day" type="x:date"/>
      <x:element name="sure" type="x:boolean"/><x:element name="key" type="x:decimal"/>
      <x:element name="inner"><x:complexType><x:sequence><x:element name="at" type="x:dateTime"/></x:sequence>
      <x:attribute name="id" type="x:long" use="required"/></x:complexType></x:element>
      <x:element name="left" type="x:string" minOccurs="0"/></x:sequence></x:complexType></x:element>
      <x:element name="Answer" type="x:string"/><x:element name="Bad" type="x:string"/>
      <x:element name="Tell" type="x:string"/></x:schema></wsdl:types>"""
    path = tmp_path / "a.wsdl"
    path.write_bytes(wsdl(definitions=schema))
    text = example(run("inspect", path).output)
    ast.parse(text)
    assert "{'text': '...', 'number': [1], 'day': '2026-01-31', 'sure': True, 'key': '1.0'," in text
    assert "'inner': {'at': '2026-01-31T12:00:00Z', 'id': 1}}" in text
    shown: list[object] = []
    monkeypatch.setattr("builtins.print", shown.append)
    exec(text.replace("client.call(", "client.preview("), {})
    assert len(shown) == 1


@pytest.mark.row("OP-02")
def test_examples_of_others_are_python() -> None:
    seen = 0
    for path in shared("wsdl", "altinn").glob("*.wsdl"):
        documents = Documents()
        documents.add(str(path), path.read_bytes())
        assert describe(documents).ports
        result = run("inspect", path)
        if result.exit_code == 1:  # MTOM can't be written yet
            assert "wants MTOM messages" in result.output
            continue
        text = example(result.output)
        ast.parse(text)
        assert text.startswith("import castile\n\nwith castile.Client(\n")
        seen += 1
    assert seen == 8


# ---- lint


@pytest.mark.row("OP-10")
def test_lint_of_a_wsdl() -> None:
    result = run("lint", shared("vectors", "cxf", "echo.wsdl"))
    assert result.exit_code == 0
    assert result.output.startswith("EchoService/EchoPort: warning: ")
    assert "[L-05]" in result.output
    report = json.loads(run("lint", "--json", shared("vectors", "cxf", "echo.wsdl")).output)
    assert report[0]["of"] == "EchoService/EchoPort"
    assert report[0]["level"] == "warning"


@pytest.mark.row("OP-10")
def test_lint_of_what_cant_be_honoured(tmp_path: Path) -> None:
    assert run("lint", case("003-policyuris", "dangling.wsdl")).exit_code == 1
    assert run("lint", "--strict", case("001-vendor-policy", "service.wsdl")).exit_code == 1
    unsigned = (
        shared("vectors", "cxf", "echo.wsdl")
        .read_text()
        .replace('<sp:Header Name="Sequence"', '<sp:Header Name="X"')
    )
    path = tmp_path / "a.wsdl"
    path.write_text(unsigned)
    result = run("lint", path)
    assert result.exit_code == 1
    assert "wsrm:Sequence" in result.output
    assert "[F33]" in result.output


@pytest.mark.row("OP-10")
def test_lint_of_policies_and_sets(tmp_path: Path) -> None:
    policy = tmp_path / "policy.xml"
    policy.write_text('<w:Policy xmlns:w="http://www.w3.org/ns/ws-policy"><a xmlns="urn:a"/></w:Policy>')
    found = run("lint", policy)
    assert found.exit_code == 0
    assert "policy.xml:1: {urn:a}a" in found.output
    assert run("lint", "--strict", policy).exit_code == 1
    assert run("lint", "wcf-wshttp-username-direct").exit_code == 0
    assert run("lint", "ramp-1.0").exit_code == 0
    for unknown in ("wcf-wshttp", tmp_path / "missing.xml", "/etc/passwd"):
        result = run("lint", unknown)
        assert result.exit_code == 2
        assert result.stderr.startswith("castile: ")


@pytest.mark.row("OP-02", "RE-102")
@pytest.mark.parametrize(
    "inner",
    [
        '<x:element name="Ask" type="Missing"/>',
        '<x:element name="Ask"><x:complexType><x:element name="a"/></x:complexType></x:element>',
        '<x:element name="Ask" type="u:Missing"/>',
        '<x:element name=""/>',
        "<x:message/>",
    ],
)
def test_schemas_that_are_broken_leave_the_arguments_open(tmp_path: Path, inner: str) -> None:
    types = '<wsdl:types><x:schema xmlns:x="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:t">'
    path = tmp_path / "a.wsdl"
    path.write_bytes(wsdl(definitions=f"{types}{inner}</x:schema></wsdl:types>"))
    result = run("inspect", path)
    assert result.exit_code == 0
    assert 'client.call("Ask", {})' in result.output
