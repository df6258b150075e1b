"""The WSDLs and policies of others, described; what they import and isn't there is made up for.

Some of the files import a port type from a file that was not kept. `described` writes it from the
binding: the same operations, each with a response where the binding has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from castile.policy.description import Description
from castile.policy.documents import WSDL, Documents, children
from castile.policy.wsdl import describe
from castile.xml import Element, escape_attribute
from tests.conftest import shared

PORT_TYPE = """<w:definitions xmlns:w="http://schemas.xmlsoap.org/wsdl/" xmlns:t="{ns}"
 targetNamespace="{ns}">
<w:message name="Any"/><w:portType name="{name}">{operations}</w:portType></w:definitions>"""
OPERATION = '<w:operation name="{}"><w:input message="t:Any"/>{}</w:operation>'
OUTPUT = '<w:output message="t:Any"/>'


def files() -> list[Path]:
    """Every WSDL, policy and configuration in `wsdl`, and the WSDL of every recording."""
    wsdls = [path for path in shared("wsdl").rglob("*") if path.is_file() and path.suffix != ".md"]
    return sorted(wsdls) + sorted(shared("vectors").rglob("*.wsdl"))


def loaded(path: Path) -> Documents:
    """A file by its name alone, with the port types that it lacks."""
    documents = Documents()
    root = documents.add(path.name, path.read_bytes())
    for number, octets in enumerate(_port_types(root)):
        documents.add(f"made-{number}.wsdl", octets.encode())
    return documents


def described(path: Path) -> Description:
    return describe(loaded(path))


def _port_types(root: Element) -> Iterator[str]:
    known = {each.get("name") for each in children(root, "portType")}
    made: dict[tuple[str, str], dict[str, bool]] = {}
    for binding in children(root, "binding"):
        prefix, _, name = (binding.get("type") or "").rpartition(":")
        if name in known:
            continue
        operations = made.setdefault((binding.nsmap.get(prefix or None) or "", name), {})
        for operation in children(binding, "operation"):
            operations[operation.get("name") or ""] = bool(children(operation, "output"))
    for (namespace, name), operations in made.items():
        if namespace != WSDL:
            lines = (
                OPERATION.format(each, OUTPUT if two_way else "") for each, two_way in operations.items()
            )
            yield PORT_TYPE.format(ns=escape_attribute(namespace), name=name, operations="".join(lines))
