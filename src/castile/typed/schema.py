"""The schemas of a WSDL, joined: one validator and one set of types, from the same documents.

A WSDL has its schemas embedded, imported and included, several for one namespace, in circles. Here
each becomes a document that imports others by namespace alone, and the documents of a namespace
are one. What isn't among them is never looked for.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from lxml import etree

from castile import xml
from castile.config import DocumentLimits, Limits
from castile.errors import QName, UsageError
from castile.typed.contract import XSD, Contract, Message, Part, location, schemas
from castile.xml import Element

RPC: Final = "urn:castile:rpc"
"""The namespace in which the wrappers of rpc messages are declared, for the validator only."""
XML: Final = "http://www.w3.org/XML/1998/namespace"
_DRIVER: Final = "castile-driver"
_STEP: Final = re.compile(r"(@?)(?:([^:\[\]]+):)?([^:\[\]]+)(?:\[(\d+)\])?")
_START: Final = re.compile(rb"<[^\s/>]+")
_SUBJECT: Final = re.compile(r"^(?:Element|Attribute) '[^']*'(?:, attribute '([^']*)')?: ")
_VALUES: Final = (
    (re.compile(r"^'.*' is not a valid value", re.DOTALL), "the value is not a valid value"),
    (re.compile(r"The (value|actual value|element content) '.*'(?= [a-z])", re.DOTALL), r"The \1"),
    (re.compile(r"The QName value '.*'(?= of )", re.DOTALL), "The value"),
    (re.compile(r"The (value|actual value|element content) '.*", re.DOTALL), r"The \1 isn't allowed"),
    (re.compile(r"key-sequence \[.*\]", re.DOTALL), "key-sequence"),
)
"""Where libxml2's words quote the message, whose content belongs into no log."""
_XML_ATTRIBUTES: Final = f"""<xs:schema xmlns:xs="{XSD}" targetNamespace="{XML}">
  <xs:attribute name="lang" type="xs:language"/>
  <xs:attribute name="base" type="xs:anyURI"/>
  <xs:attribute name="id" type="xs:ID"/>
  <xs:attribute name="space">
    <xs:simpleType><xs:restriction base="xs:NCName">
      <xs:enumeration value="default"/><xs:enumeration value="preserve"/>
    </xs:restriction></xs:simpleType>
  </xs:attribute>
  <xs:attributeGroup name="specialAttrs">
    <xs:attribute ref="xml:base"/><xs:attribute ref="xml:lang"/>
    <xs:attribute ref="xml:space"/><xs:attribute ref="xml:id"/>
  </xs:attributeGroup>
</xs:schema>"""
"""The attributes of XML itself, which every schema may use and few WSDLs bring along."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Where an element breaks its schema, and how."""

    line: int
    """In the document that was validated."""
    path: str
    """From its root, by local names; a number where there are several of a name."""
    text: str
    """libxml2's words, without the value."""

    def __str__(self) -> str:
        return f"line {self.line}, {self.path}: {self.text}"


class Schemas:
    """The schemas of a contract as top documents, each with its target namespace."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._seen: set[tuple[str, str]] = set()
        self.documents: list[Element] = []
        for at, schema in schemas(contract.documents):
            self._take(schema, at, None)
        if all(each.get("targetNamespace") != XML for each in self.documents):
            self.documents.append(xml.parse(_XML_ATTRIBUTES.encode(), Limits()))

    def _take(self, schema: Element, at: str, adopted: str | None) -> None:
        """This document and all that it leads to. `adopted`: the namespace of who includes it."""
        namespace = schema.get("targetNamespace") or adopted or ""
        document = _alone(schema, namespace)
        for child in xml.inside(document):
            if child.tag == f"{{{XSD}}}redefine":
                raise UsageError(f"{at}, line {child.sourceline}: xs:redefine isn't supported")
            if child.tag not in (f"{{{XSD}}}import", f"{{{XSD}}}include"):
                continue
            including = child.tag == f"{{{XSD}}}include"
            if relative := child.get("schemaLocation"):
                self._follow(location(at, relative), namespace if including else None)
            if including or child.get("namespace") == XSD:
                document.remove(child)
            child.attrib.pop("schemaLocation", None)
        self.documents.append(document)

    def _follow(self, at: str, adopted: str | None) -> None:
        documents = self._contract.documents
        document = documents.root(at)
        if document is None:
            raise UsageError(f"the schema {at} can't be had: {documents.missing.get(at, 'it is missing')}")
        key = (at, "" if document.get("targetNamespace") else adopted or "")
        if key not in self._seen:
            self._seen.add(key)
            self._take(document, at, adopted)

    def validator(self, messages: Mapping[str, Message]) -> Validator:
        """Of every global element, and of rpc messages by the names that they have here."""
        spaces = list(dict.fromkeys(each.get("targetNamespace", "") for each in self.documents))
        names = {space: f"castile-namespace-{index}" for index, space in enumerate(spaces)}
        files: dict[str, bytes] = {}
        for space, name in names.items():
            members = [each for each in self.documents if each.get("targetNamespace", "") == space]
            joint = etree.Element(f"{{{XSD}}}schema", nsmap={"xs": XSD})
            if space:
                joint.set("targetNamespace", space)
            for index, member in enumerate(members):
                file = f"{name}-{index}"
                etree.SubElement(joint, f"{{{XSD}}}include", schemaLocation=file)
                files[file] = etree.tostring(_linked(member, names))
            files[name] = etree.tostring(joint)
        files[_DRIVER] = etree.tostring(_driver(names, messages))
        return Validator(xml.schema(files, _DRIVER))


class Validator:
    """Holds elements against the schemas."""

    def __init__(self, schema: etree.XMLSchema) -> None:
        self._schema = schema
        self._lock = threading.Lock()  # lxml keeps the reasons on the schema itself

    def problem(self, element: Element, rpc: str | None = None) -> Problem | None:
        """The first thing that is wrong with a root element; `rpc`: the name of its message here.

        For an rpc message the element is renamed, so it must be the caller's own copy.
        """
        shown = xml.local_name(element)
        if rpc is not None:
            element.tag = f"{{{RPC}}}{rpc}"
        with self._lock:
            try:
                if self._schema.validate(element):
                    return None
            except etree.XMLSchemaValidateError:  # libxml2 has given up on a value and its pattern
                return Problem(element.sourceline or 0, f"/{shown}", "it is too much work to validate")
            error = self._schema.error_log[0]
            path, line, text = error.path or "", error.line, error.message
        attribute = (found := _SUBJECT.match(text)) and found[1]
        text = _SUBJECT.sub("", text).rstrip(".")
        for pattern, instead in _VALUES:
            text = pattern.sub(instead, text)
        where = _readable(element, path, shown) + (f"/@{attribute.rpartition('}')[2]}" if attribute else "")
        return Problem(line, where, text)


def written(element: Element) -> bytes:
    """An element as it stands, with every prefix in scope declared on it, for values that use them.

    Where an element is moved in a tree lxml drops declarations that no name needs, though a value
    may: so what is put together is put together as text.
    """
    return etree.tostring(element, encoding="utf-8", with_tail=False)


def _alone(schema: Element, namespace: str) -> Element:
    """A copy of a schema; one without target namespace takes on its includer's."""
    octets = written(schema)
    adopts = bool(namespace) and not schema.get("targetNamespace")
    if adopts and None not in schema.nsmap:
        default = f' xmlns="{xml.escape_attribute(namespace)}"'.encode()
        octets = _START.sub(lambda found: found[0] + default, octets, count=1)
    copy = xml.parse_document(octets, DocumentLimits().xml)
    if adopts:
        copy.set("targetNamespace", namespace)
    return copy


def _linked(document: Element, names: Mapping[str, str]) -> Element:
    """Each import leads to the one document of its namespace; what isn't there to none."""
    copy = deepcopy(document)
    imported = set()
    for child in copy.findall(f"{{{XSD}}}import"):
        space = child.get("namespace", "")
        imported.add(space)
        if space in names:
            child.set("schemaLocation", names[space])
    if XML in names and XML not in imported and document.get("targetNamespace") != XML:
        copy.insert(0, etree.Element(f"{{{XSD}}}import", namespace=XML, schemaLocation=names[XML]))
    return copy


def _driver(names: Mapping[str, str], messages: Mapping[str, Message]) -> Element:
    """A document that imports all others, and declares the wrappers of rpc messages."""
    scope = {"xs": XSD} | {f"n{index}": space for index, space in enumerate(names) if space not in ("", XML)}
    prefixes = {space: prefix for prefix, space in scope.items()}
    driver = etree.Element(f"{{{XSD}}}schema", nsmap=scope, targetNamespace=RPC)
    for space, name in names.items():
        entry = etree.SubElement(driver, f"{{{XSD}}}import", schemaLocation=name)
        if space:
            entry.set("namespace", space)
    for name, message in messages.items():
        if message.wrapper is None or message.encoded:
            continue
        element = etree.SubElement(driver, f"{{{XSD}}}element", name=name)
        content = etree.SubElement(etree.SubElement(element, f"{{{XSD}}}complexType"), f"{{{XSD}}}sequence")
        for part in message.parts:
            etree.SubElement(content, f"{{{XSD}}}element", _declaration(part, prefixes))
    return driver


def _declaration(part: Part, prefixes: Mapping[str, str]) -> dict[str, str]:
    """The accessor of a part: unqualified, of its type (WS-I Basic Profile 1.1, R2735)."""

    def written(name: QName) -> str:
        prefix = prefixes.get(name[0])
        if prefix is None and name[0]:
            raise UsageError(f"the part {part.name!r} is of {{{name[0]}}}{name[1]}, which no schema has")
        return f"{prefix}:{name[1]}" if prefix else name[1]

    if part.element is not None:
        return {"ref": written(part.element)}
    return {"name": part.name, "type": written(part.type or (XSD, "anyType")), "form": "unqualified"}


def _readable(root: Element, path: str, shown: str) -> str:
    """libxml2's path by names: it has ``*`` for whatever is in a default namespace."""
    steps = [f"/{shown}"]
    at = root
    for prefix, attribute, name, index in _steps(path):
        if attribute:
            return "".join(steps) + f"/@{name}"
        children = xml.inside(at)
        if name != "*":
            children = [c for c in children if xml.local_name(c) == name and (c.prefix or "") == prefix]
        if len(children) < index:
            break
        child = children[index - 1]
        same = [each for each in xml.inside(at) if each.tag == child.tag]
        number = f"[{same.index(child) + 1}]" if len(same) > 1 else ""
        steps.append(f"/{xml.local_name(child)}{number}")
        at = child
    return "".join(steps)


def _steps(path: str) -> Iterator[tuple[str, bool, str, int]]:
    for step in path.split("/")[2:]:
        found = _STEP.fullmatch(step)
        if found is not None:
            yield found[2] or "", bool(found[1]), found[3], int(found[4] or 1)


__all__ = ["Problem", "Schemas", "Validator", "written"]
