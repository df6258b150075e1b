"""The specifications' own schemas, as one: for whoever checks what castile writes."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from lxml import etree

from castile.versions import WSA_1_0, WSA_2004
from tests.conftest import shared
from tests.messages.elements import element

FILES: Final = (
    "soap-1.1.xsd",
    "soap-1.2.xsd",
    "ws-addr200408.xsd",
    "ws-addr200508.xsd",
    "wsrm-200502.xsd",
    "wsrm-200702.xsd",
    "ws-trust-1.3.xsd",
    "ws-secureconversation-1.3.xsd",
    "oasis-200401-wss-wssecurity-secext-1.0.xsd",
    "oasis-200401-wss-wssecurity-utility-1.0.xsd",
    "xmldsig-core-schema.xsd",
    "xenc-schema.xsd",
    "ws-policy-200409.xsd",
    "xml.xsd",
    "xop-include.xsd",
)


class _Local(etree.Resolver):
    """Gives each import, named by its namespace, from memory; nothing is ever fetched."""

    def __init__(self, texts: dict[str, str]) -> None:
        super().__init__()
        self.texts = texts

    def resolve(self, system_url: str | None, public_id: str | None, context: Any) -> Any:
        return self.resolve_string(self.texts[system_url or ""], context, base_url=system_url)


def _prepared(name: str, addressing_of_1_0: str) -> tuple[str, str]:
    """The namespace of a schema, and its text with every import led to its namespace."""
    text = shared("schemas", name).read_text()
    if name == "wsrm-200502.xsd":
        text = text.replace(WSA_2004.namespace, addressing_of_1_0)
    text = re.sub(r"<!DOCTYPE[^\[>]*(\[.*?\])?\s*>", "", text, flags=re.DOTALL)
    text = re.sub(
        r"""(<\w+:import)\b[^>]*?(namespace=["'][^"']+["'])[^>]*?(/?>)""",
        lambda found: f"{found[1]} {found[2]} schemaLocation{found[2].removeprefix('namespace')}{found[3]}",
        text,
    )
    target = re.search(r"""targetNamespace\s*=\s*["']([^"']+)""", text)
    assert target is not None
    return target[1], text


@cache
def schema(addressing_of_1_0: str = WSA_1_0.namespace) -> etree.XMLSchema:
    """All of them; skips where the folder is missing.

    `addressing_of_1_0`: RM 1.0's schema knows only WS-Addressing 2004/08; the field writes both.
    """
    texts = dict(_prepared(name, addressing_of_1_0) for name in FILES)
    parser = etree.XMLParser(no_network=True)
    parser.resolvers.add(_Local(texts))
    imports = "".join(f'<xs:import namespace="{uri}" schemaLocation="{uri}"/>' for uri in texts)
    root = f'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">{imports}</xs:schema>'
    return etree.XMLSchema(etree.fromstring(root, parser))


def valid(octets: bytes, addressing_of_1_0: str = WSA_1_0.namespace) -> None:
    """Fails with the schema's own words and the bytes."""
    rules = schema(addressing_of_1_0)
    assert rules.validate(element(octets)), f"{rules.error_log}\n{octets.decode()}"
