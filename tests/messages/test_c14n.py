"""Exclusive C14N: examples, and our own writer for #default against libxml2."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castile.config import Limits
from castile.errors import Malformed
from castile.versions import EXC_C14N
from castile.xml import Element, _canonical_with_default, canonical, parse
from tests.conftest import shared

LIMITS: Final = Limits()


def at(document: str, *path: int) -> Element:
    element = parse(document.encode(), LIMITS)
    for position in path:
        element = element[position]
    return element


@pytest.mark.parametrize(
    ("document", "path", "expected"),
    [
        ("<a><b/>tail</a>", (0,), "<b></b>"),
        ("<a xmlns='urn:d'><b/></a>", (0,), '<b xmlns="urn:d"></b>'),
        ("<p:a xmlns:p='urn:p'><p:b/></p:a>", (0,), '<p:b xmlns:p="urn:p"></p:b>'),
        ("<p:a xmlns:p='urn:p'><b/></p:a>", (0,), "<b></b>"),
        ("<a xmlns='urn:d'><b xmlns=''><c/></b></a>", (0,), "<b><c></c></b>"),
        ("<a xmlns='urn:d'><b><c xmlns=''/></b></a>", (0,), '<b xmlns="urn:d"><c xmlns=""></c></b>'),
        (
            "<p:a xmlns:p='urn:1'><p:b xmlns:p='urn:2'/></p:a>",
            (),
            '<p:a xmlns:p="urn:1"><p:b xmlns:p="urn:2"></p:b></p:a>',
        ),
        ("<a c='1' b='2'/>", (), '<a b="2" c="1"></a>'),
        (
            "<a xmlns:q='urn:1' xmlns:p='urn:2' p:x='1' q:y='2' z='3'/>",
            (),
            '<a xmlns:p="urn:2" xmlns:q="urn:1" z="3" q:y="2" p:x="1"></a>',
        ),
        ("<a>1<!-- x -->2<![CDATA[<&]]>&#13;</a>", (), "<a>12&lt;&amp;&#xD;</a>"),
        ("<a b='&#9;&#10;&#13;\n&lt;&quot;&gt;'/>", (), '<a b="&#x9;&#xA;&#xD; &lt;&quot;>"></a>'),
        ("<a xml:lang='en'><b/></a>", (0,), "<b></b>"),
        ("<a xml:lang='en'/>", (), '<a xml:lang="en"></a>'),
        ("<p:a xmlns:p='urn:p'><b p:x='1'/></p:a>", (0,), '<b xmlns:p="urn:p" p:x="1"></b>'),
    ],
)
def test_exclusive_form(document: str, path: tuple[int, ...], expected: str) -> None:
    assert canonical(at(document, *path)).decode() == expected


@pytest.mark.parametrize(
    ("document", "path", "prefixes", "expected"),
    [
        ("<a xmlns:p='urn:p'><b/></a>", (0,), ("p",), '<b xmlns:p="urn:p"></b>'),
        ("<a xmlns:p='urn:p'><b><c/></b></a>", (0,), ("p",), '<b xmlns:p="urn:p"><c></c></b>'),
        ("<a><b xmlns:p='urn:p'/></a>", (), ("p",), '<a><b xmlns:p="urn:p"></b></a>'),
        ("<a/>", (), ("nosuch",), "<a></a>"),
        # "#default": the default namespace in scope is written though nothing uses it
        ("<a xmlns='urn:d'><p:b xmlns:p='urn:p'/></a>", (0,), (), '<p:b xmlns:p="urn:p"></p:b>'),
        (
            "<a xmlns='urn:d'><p:b xmlns:p='urn:p'/></a>",
            (0,),
            ("#default",),
            '<p:b xmlns="urn:d" xmlns:p="urn:p"></p:b>',
        ),
        (
            "<a xmlns='urn:d'><p:b xmlns:p='urn:p'><p:c xmlns=''/><p:d><e/></p:d></p:b></a>",
            (0,),
            ("#default",),
            '<p:b xmlns="urn:d" xmlns:p="urn:p"><p:c xmlns=""></p:c><p:d><e></e></p:d></p:b>',
        ),
        ("<a><p:b xmlns:p='urn:p'/></a>", (0,), ("#default",), '<p:b xmlns:p="urn:p"></p:b>'),
        ("<a xmlns='urn:d'><b xmlns=''/></a>", (0,), ("#default",), "<b></b>"),
        (
            "<a xmlns='urn:d' xmlns:q='urn:q'><p:b xmlns:p='urn:p' q:x='1'/></a>",
            (0,),
            ("#default", "q"),
            '<p:b xmlns="urn:d" xmlns:p="urn:p" xmlns:q="urn:q" q:x="1"></p:b>',
        ),
        (
            "<a xmlns:p='urn:1' xmlns:q='urn:1'><b q:x='1' p:y='2' xml:lang='e'/></a>",
            (0,),
            ("#default",),
            '<b xmlns:p="urn:1" xmlns:q="urn:1" xml:lang="e" q:x="1" p:y="2"></b>',
        ),
        ("<a>x<!-- c -->y<b>&amp;</b>z<!-- d -->&#13;</a>", (), ("#default",), "<a>xy<b>&amp;</b>z&#xD;</a>"),
    ],
)
def test_prefix_lists(document: str, path: tuple[int, ...], prefixes: tuple[str, ...], expected: str) -> None:
    written = canonical(at(document, *path), prefixes).decode()
    if "xml:lang" in expected:
        # Attributes sort by namespace URI: "http..." before "urn...".
        assert written.index("xml:lang") < written.index("q:x")
    assert written == expected


PREFIXES: Final = ("", "p", "q", "r")
URIS: Final = ("urn:1", "urn:2", "http://x/", "http://x/a?b=1")
TEXTS: Final = ("", "t", " \n", "&<>\"'", "\r\t", "é")


@st.composite
def elements(draw: st.DrawFn, depth: int = 3, scope: tuple[tuple[str, str], ...] = ()) -> str:
    """An element whose prefixes are all declared, as text."""
    declared = draw(st.dictionaries(st.sampled_from(PREFIXES), st.sampled_from(URIS), max_size=3))
    bound = dict(scope) | declared
    if draw(st.booleans()) and "" not in declared:
        declared[""] = bound[""] = ""
    names = [prefix for prefix in bound if prefix]
    element = draw(st.sampled_from(["", *names]))
    attributes: dict[tuple[str, str], str] = {}
    for _ in range(draw(st.integers(0, 3))):
        prefix, local = draw(st.sampled_from(["", *names])), draw(st.sampled_from("xyz"))
        uri = bound[prefix] if prefix else ""
        value = draw(st.sampled_from(TEXTS)).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
        attributes[uri, local] = f'{prefix + ":" if prefix else ""}{local}="{value}"'
    scope_text = "".join(
        f' xmlns:{prefix}="{uri}"' if prefix else f' xmlns="{uri}"' for prefix, uri in declared.items()
    )
    text = st.sampled_from(TEXTS).map(lambda value: value.replace("&", "&amp;").replace("<", "&lt;"))
    children = ""
    if depth:
        below = elements(depth - 1, tuple(bound.items()))
        for child in draw(st.lists(below | st.just("<!-- c -->"), max_size=3)):
            children += child + draw(text)
    tag = f"{element}:e" if element else "e"
    pieces = " ".join([*attributes.values()])
    return f"<{tag}{scope_text} {pieces}>{draw(text)}{children}</{tag}>"


@settings(max_examples=200, deadline=None)
@given(elements(), st.lists(st.sampled_from(["p", "q", "r", "nosuch"]), unique=True), st.integers(0, 5))
def test_our_own_writer_agrees_with_libxml2(document: str, prefixes: list[str], place: int) -> None:
    nodes = list(parse(document.encode(), LIMITS).iter("*"))
    element = nodes[place % len(nodes)]
    assert _canonical_with_default(element, tuple(prefixes)) == canonical(element, tuple(prefixes))


@settings(max_examples=100, deadline=None)
@given(elements())
def test_the_canonical_form_is_a_fixed_point(document: str) -> None:
    octets = canonical(parse(document.encode(), LIMITS))
    assert canonical(parse(octets, LIMITS)) == octets


@pytest.mark.row("RE-17")
@pytest.mark.parametrize("prefixes", [(), ("p",), ("#default",)])
def test_a_relative_namespace_has_no_canonical_form(prefixes: tuple[str, ...]) -> None:
    from lxml import etree  # parse() would refuse it before

    for document in ("<a xmlns='foo'/>", "<a xmlns:p='foo' p:x='1'/>", "<a><b xmlns='foo'/></a>"):
        with pytest.raises(Malformed, match="canonical"):
            canonical(etree.fromstring(document), prefixes)


@pytest.mark.parametrize("name", ["default.xml", "unbound-and-empty.xml"])
def test_prefix_lists_of_java_stacks(name: str) -> None:
    """Digests that another implementation made."""
    root = parse(shared("cases", "010-prefixlist-default", name).read_bytes(), LIMITS)
    by_id = {
        value: element
        for element in root.iter("*")
        for label, value in element.attrib.items()
        if str(label).endswith("}Id")
    }
    references = [element for element in root.iter("*") if str(element.tag).endswith("}Reference")]
    checked = 0
    for reference in references:
        uri = str(reference.get("URI"))
        lists = list(reference.iter(f"{{{EXC_C14N}}}InclusiveNamespaces"))
        digest = [element for element in reference if str(element.tag).endswith("}DigestValue")]
        if not digest:
            continue
        prefixes = tuple(str(lists[0].get("PrefixList")).split())
        octets = canonical(by_id[uri[1:]], prefixes)
        assert b64encode(sha256(octets).digest()).decode() == digest[0].text
        checked += 1
    assert checked == 2


INTEROP: Final = ("vectors", "xmlsec-interop")
MERLIN: Final = (*INTEROP, "ie", "baltimore", "merlin-examples", "merlin-exc-c14n-one")
APACHE: Final = (*INTEROP, "org", "apache", "xml", "security", "c14n", "inExcl")


@pytest.mark.parametrize(
    ("path", "prefixes", "output"),
    [((0, 3), (), "0"), ((0, 3), ("bar", "#default"), "1"), ((0, 0), (), "4")],
)
def test_merlins_vectors(path: tuple[int, ...], prefixes: tuple[str, ...], output: str) -> None:
    document = shared(*MERLIN, "exc-signature.xml").read_text()
    expected = shared(*MERLIN, f"c14n-{output}.txt").read_bytes()
    assert canonical(at(document, *path), prefixes) == expected


@pytest.mark.parametrize(
    ("source", "path", "output"),
    [
        ("example2_2_1.xml", (0,), "example2_2_c14nized_exclusive.xml"),
        ("example2_2_2.xml", (0,), "example2_2_c14nized_exclusive.xml"),
        ("example2_4.xml", (0, 0), "example2_4_c14nized.xml"),
    ],
)
def test_apaches_vectors(source: str, path: tuple[int, ...], output: str) -> None:
    element = at(shared(*APACHE, source).read_text(), *path)
    assert canonical(element) == shared(*APACHE, output).read_bytes()
    assert _canonical_with_default(element, ()) == canonical(element)
