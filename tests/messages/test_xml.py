"""What xml.py refuses, and what it must not refuse."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from castile.config import Limits
from castile.errors import Malformed, UsageError
from castile.xml import (
    canonical,
    canonical_fragment,
    escape_attribute,
    escape_text,
    inside,
    local_name,
    name_of,
    parse,
    parse_fragment,
    split_declarations,
    standing_alone,
    text_of,
)

LIMITS = Limits()
BOMB = (
    '<!DOCTYPE a [<!ENTITY x0 "lol">'
    + "".join(f'<!ENTITY x{n} "{f"&x{n - 1};" * 10}">' for n in range(1, 10))
    + "]><a>&x9;</a>"
)


def refused(payload: bytes, *words: str, limits: Limits = LIMITS) -> None:
    """The payload is Malformed, the text says why."""
    with pytest.raises(Malformed) as caught:
        parse(payload, limits)
    for word in words:
        assert word in str(caught.value)


# --- DOCTYPE, entities, encodings ---------------------------------------------------------------


@pytest.mark.row("RE-14")
@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE a><a/>",
        '<?xml version="1.0"?>\n<!-- first --><!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd"><a/>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1/p"> %p;]><a/>',
        "<!DOCTYPE a [<!ATTLIST a id ID #REQUIRED>]><a id='_1'/>",
        "<!doctype a><a/>",
        "<a><!ENTITY x 'y'></a>",
        BOMB,
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_doctype_is_refused_in_every_encoding(text: str, encoding: str) -> None:
    bom = b"\xfe\xff" if encoding == "utf-16-be" else b""
    refused(bom + text.encode(encoding), "DOCTYPE")


@pytest.mark.row("RE-14")
def test_doctype_as_text_is_text() -> None:
    root = parse(b"<a><b><![CDATA[<!DOCTYPE html><?php ?>]]></b><!-- <!DOCTYPE x> --></a>", LIMITS)
    assert text_of(root[0]) == "<!DOCTYPE html><?php ?>"
    assert text_of(parse(b"<a>&lt;!DOCTYPE html&gt;</a>", LIMITS)) == "<!DOCTYPE html>"


@pytest.mark.row("RE-14")
def test_an_entity_that_nobody_declared() -> None:
    refused(b"<a>&x;</a>", "Entity 'x' not defined")


@pytest.mark.row("RE-12")
@pytest.mark.parametrize(
    "payload",
    [
        b'<?xml version="1.0" encoding="ISO-8859-1"?><a>\xe9</a>',
        b'<?xml version="1.0" encoding="utf-16"?><a/>',
        b'<?xml version="1.0" encoding="UTF-7"?><a>+ADwAIQ-DOCTYPE</a>',
        '<?xml version="1.0" encoding="utf-8"?><a/>'.encode("utf-16"),
        "<a/>".encode("utf-16-le"),
        "<a/>".encode("utf-16-be"),
        "<a/>".encode("utf-32"),
        "<a/>".encode("cp037"),
        b"\xff\xfe<\x00a",
        b"<a>\xe9</a>",
        b"<a>\xed\xa0\x80</a>",
        b"<a>\xc0\xbcb/></a>",
        b'<?xml version="1.1"?><a/>',
        b' <?xml version="1.0"?><a/>',
    ],
)
def test_encodings_that_are_not_read(payload: bytes) -> None:
    refused(payload)


@pytest.mark.row("RE-12")
@pytest.mark.parametrize(
    "payload",
    [
        "<a>é</a>".encode(),
        "<a>é</a>".encode("utf-8-sig"),
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n<a>é</a>'.encode(),
        "<?xml version='1.0' encoding='utf-8'?><a>é</a>".encode(),
        "<a>é</a>".encode("utf-16"),
        '<?xml version="1.0" encoding="UTF-16"?><a>é</a>'.encode("utf-16"),
        b"\xfe\xff" + '<?xml version="1.0"?><a>é</a>'.encode("utf-16-be"),
    ],
)
def test_encodings_that_are_read(payload: bytes) -> None:
    assert text_of(parse(payload, LIMITS)) == "é"


# --- structure ----------------------------------------------------------------------------------


@pytest.mark.row("RE-15")
@pytest.mark.parametrize(
    "payload",
    [
        b"<a><?x y?></a>",
        b"<?x y?><a/>",
        b"<a/><?x y?>",
        b"<a><?xml version='1.0'?></a>",
        b"<?xml-stylesheet href='x'?><a/>",
        b"<?x <!-- ?><a/><!-- -->",
    ],
)
def test_processing_instructions_are_refused_anywhere(payload: bytes) -> None:
    refused(payload, "processing instruction")


@pytest.mark.row("RE-17")
@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"<a/><b/>", "Extra content"),
        (b"<a></a>text", "Extra content"),
        (b"<a><b></a></b>", "mismatch"),
        (b"<a", ""),
        (b"", "empty"),
        (b"text", "Start tag expected"),
        (b"<a x='1' x='2'/>", "redefined"),
        (b"<a xmlns:p='urn:x' xmlns:q='urn:x' p:b='1' q:b='2'/>", "redefined"),
        (b"<a xmlns='urn:x' xmlns='urn:y'/>", "redefined"),
        (b"<a xmlns:p=''/>", "Empty XML namespace"),
        (b"<a xmlns:xml='urn:x'/>", "xml namespace prefix"),
        (b"<a xmlns:xmlns='urn:x'/>", "xmlns prefix is forbidden"),
        (b"<a xmlns='http://www.w3.org/XML/1998/namespace'/>", "cannot be the default"),
        (b"<a xmlns:p='http://www.w3.org/2000/xmlns/'/>", "reuse of the xmlns namespace"),
        (b"<a:b:c xmlns:a='urn:x'/>", "QName"),
        (b"<a:  xmlns:a='urn:x'/>", "QName"),
        (b"<a>\x00</a>", "Char 0x0"),
        (b"<a>&#0;</a>", "xmlChar"),
        (b"<a>&#xFFFE;</a>", "xmlChar"),
        (b"<a>]]></a>", "]]>"),
        (b"<a b='<'/>", ""),
        (b"<!-- <a/>", "without end"),
        (b"<a><![CDATA[ </a>", "without end"),
        (b"<a><!-- -- --></a>", ""),
    ],
)
def test_what_is_not_namespace_well_formed(payload: bytes, words: str) -> None:
    refused(payload, words)


@pytest.mark.row("RE-17")
def test_an_undeclared_prefix_is_named_with_its_line() -> None:
    refused(b"<a>\n<b>\n<c x:y='1'/></b></a>", "line 3", "prefix x", "attribute y of c")
    refused(b"<a>\n<x:b/></a>", "line 2", "prefix x", "element b")


@pytest.mark.row("RE-17")
@pytest.mark.parametrize(
    "declaration",
    [
        b"xmlns='foo'",
        b"xmlns:p='foo'",
        b"xmlns:p='../x'",
        b"xmlns:p='/x'",
        b"xmlns:p='//host/x'",
        b"xmlns = 'foo'",
        b"xmlns:p='&#102;oo'",
        b"xmlns:p='#'",
    ],
)
def test_relative_namespaces_are_refused(declaration: bytes) -> None:
    refused(b"<a>\n<b " + declaration + b"/></a>", "line 2", "relative")


@pytest.mark.row("RE-17")
@pytest.mark.parametrize(
    "payload",
    [
        b"<a xmlns='urn:x'><b xmlns=''/></a>",
        b'<a xmlns=""/>',
        b"<a xmlns:p='&#117;rn:x'/>",
        b"<a>xmlns='foo' &lt;b xmlns=\"foo\"/&gt;</a>",
        b"<a><![CDATA[<b xmlns='foo' xmlns:p='bar'/>]]></a>",
        b"<a><!-- <b xmlns='foo'/> --></a>",
    ],
)
def test_what_only_looks_like_a_relative_namespace(payload: bytes) -> None:
    assert local_name(parse(payload, LIMITS)) == "a"


# --- limits -------------------------------------------------------------------------------------


def _attributes(count: int, name: str = "a") -> bytes:
    return " ".join(f'{name}{n}="1"' for n in range(count)).encode()


def _namespaces(count: int) -> bytes:
    return " ".join(f'xmlns:n{n}="urn:{n}"' for n in range(count)).encode()


BOMBS = {
    "10,000 attributes": (b"<a><b " + _attributes(10_000) + b"/></a>", "64 attributes"),
    "40,000 attributes": (b"<a " + _attributes(40_000) + b"/>", "64 attributes"),
    "2,500 prefixed attributes": (
        b"<a " + _namespaces(30) + b" " + _attributes(2_500, "n1:a") + b"/>",
        "64 attributes",
    ),
    "5,000 namespaces": (
        b"<a " + _namespaces(5_000) + b">" + b"<b/>" * 200 + b"</a>",
        "32 namespace declarations",
    ),
    "33 namespaces 100 times": (
        b"<a>" + (b"<b " + _namespaces(33) + b"/>") * 100 + b"</a>",
        "32 namespace declarations",
    ),
    "2 namespaces 5,000 times": (
        b"<a>" + b'<b xmlns:p="urn:p" xmlns:q="urn:q"/>' * 5_000 + b"</a>",
        "256 namespace declarations",
    ),
    "20,001 elements": (b"<a>" + b"<b/>" * 20_000 + b"</a>", "20000 elements"),
    "200,000 elements": (b"<a>" + b"<b/>" * 200_000 + b"</a>", "20000 elements"),
    "100,000 comments": (b"<a>" + b"<!---->" * 100_000 + b"</a>", "20000 elements"),
    "unclosed comments": (b"<!--" * 200_000, "without end"),
    "unclosed tags": (b"<" * 1_000_000, "20000 elements"),
    "65 levels": (b"<a>" * 65 + b"</a>" * 65, "64 deep"),
    "255 levels": (b"<a>" * 255 + b"</a>" * 255, "64 deep"),
    "100,000 levels": (b"<a>" * 100_000, "20000 elements"),
    "15,000 levels": (b"<a>" * 15_000 + b"</a>" * 15_000, "depth"),
    "a name of 1,025": (b"<" + b"a" * 1_025 + b"/>", "1024 characters"),
    "a name of 900,000": (b"<" + b"a" * 900_000 + b"/>", "1024 characters"),
    "an attribute's name": (b"<a " + b"b" * 1_025 + b"='1'/>", "1024 characters"),
    "a prefix": (b"<a xmlns:" + b"b" * 1_025 + b"='urn:x'/>", "1024 characters"),
    "an attribute's value": (b"<a b='" + b"c" * 65_537 + b"'/>", "65536 bytes"),
    "a namespace URI": (b"<a xmlns='urn:" + b"c" * 70_000 + b"'/>", "65536 bytes"),
    "a message": (b"<a>" + b"c" * (1 << 20) + b"</a>", "1048576"),
}


@pytest.mark.row("RE-16")
@pytest.mark.row("RE-20")
@pytest.mark.parametrize("name", BOMBS)
def test_what_is_above_a_limit(name: str) -> None:
    payload, words = BOMBS[name]
    refused(payload, words, limits=Limits(message_bytes=1 << 21) if name == "40,000 attributes" else LIMITS)


@pytest.mark.row("RE-16")
@pytest.mark.row("RE-20")
@pytest.mark.parametrize("name", BOMBS)
def test_a_refusal_is_cheap(name: str) -> None:
    payload, _ = BOMBS[name]
    spent = []
    for _ in range(3):
        start = time.thread_time()
        with pytest.raises(Malformed):
            parse(payload, LIMITS)
        spent.append(time.thread_time() - start)
    assert min(spent) <= 0.050


@pytest.mark.row("RE-16")
def test_entities_are_refused_before_they_grow() -> None:
    start = time.thread_time()
    refused(BOMB.encode(), "DOCTYPE")
    assert time.thread_time() - start < 0.01


@pytest.mark.row("RE-16")
@pytest.mark.parametrize(
    "payload",
    [
        b"<a " + _attributes(64) + b"/>",
        b"<a " + _namespaces(32) + b"/>",
        b"<a " + _namespaces(32) + b" " + _attributes(64) + b"/>",
        b"<a>" + (b"<b " + _namespaces(32) + b"/>") * 8 + b"</a>",
        b"<a>" * 64 + b"</a>" * 64,
        b"<a>" * 63 + b"<b/>" * 100 + b"</a>" * 63,
        b"<" + b"a" * 1_024 + b"/>",
        ("<" + "é" * 1_024 + "/>").encode(),
        b"<a b='" + b"c" * 65_536 + b"'/>",
        b"<a>" + b"<b/>" * 19_999 + b"</a>",
        b"<a>" + b"c" * ((1 << 20) - 7) + b"</a>",
        b"<a>" + b"x = 'y' " * 5_000 + b"</a>",
        b"<a>" + b"xmlns:p='urn:x' " * 5_000 + b"</a>",
        b"<a><![CDATA[" + b"<b " + _attributes(100) + b"/>" * 30_000 + b"]]></a>",
        b"<a b='/>' c=\"x='1' y='2'>\"><d>></d></a>",
    ],
)
def test_what_is_just_within_the_limits(payload: bytes) -> None:
    parse(payload, LIMITS)


# --- pieces -------------------------------------------------------------------------------------


@pytest.mark.row("RE-15")
def test_a_comment_does_not_cut_a_text() -> None:
    root = parse(b"<a>admin<!-- -->.evil</a>", LIMITS)
    assert root.text == "admin"
    with pytest.raises(Malformed, match="text only"):
        text_of(root)
    with pytest.raises(Malformed, match="text only"):
        text_of(parse(b"<a>x<b/></a>", LIMITS))
    assert text_of(parse(b"<a>one<![CDATA[ & ]]>two</a>", LIMITS)) == "one & two"
    assert text_of(parse(b"<a/>", LIMITS)) == ""


def test_positions_and_names() -> None:
    root = parse(b"<p:a xmlns:p='urn:p'><!-- x --><b/>text<p:c/></p:a>", LIMITS)
    assert [name_of(child) for child in inside(root)] == [("", "b"), ("urn:p", "c")]


@pytest.mark.row("RE-17")
def test_a_fragment_has_the_namespaces_of_its_place() -> None:
    context = parse(b"<a xmlns='urn:d' xmlns:p='urn:p?a&amp;b'><p:b/></a>", LIMITS)[0]
    text, elements = parse_fragment(b"before<p:x/>between<y><z xmlns=''/></y>after", context, LIMITS)
    assert text == "before"
    assert [element.tag for element in elements] == ["{urn:p?a&b}x", "{urn:d}y"]
    assert elements[1][0].tag == "z"
    assert [element.tail for element in elements] == ["between", "after"]
    assert parse_fragment(b"", context, LIMITS) == (None, [])


@pytest.mark.row("RE-17")
@pytest.mark.parametrize(
    "octets",
    [
        b"</fragment><fragment>",
        b"</fragment>",
        b"<a>",
        b"<q:x/>",
        b"<a xmlns='foo'/>",
        b"<?xml version='1.0'?><a/>",
        b"<!DOCTYPE a><a/>",
        b"<a>" * 70 + b"</a>" * 70,
        b"\xff\xfe",
        b"<a " + _attributes(65) + b"/>",
        b"c" * ((1 << 20) + 1),
    ],
)
def test_fragments_that_are_refused(octets: bytes) -> None:
    context = parse(b"<a/>", LIMITS)
    with pytest.raises(Malformed):
        parse_fragment(octets, context, LIMITS)


def test_escapes() -> None:
    assert escape_text("&<>\"'\r\n\t é \U0001f600") == "&amp;&lt;&gt;\"'&#xD;\n\t é \U0001f600"
    assert escape_attribute("&<>\"'\r\n\t") == "&amp;&lt;>&quot;'&#xD;&#xA;&#x9;"
    for character in ("\x00", "\x0b", "\x1f", "\ufffe", "\uffff", "\ud800"):
        with pytest.raises(UsageError, match=r"U\+"):
            escape_text(f"a{character}")
        with pytest.raises(UsageError):
            escape_attribute(character)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_escaped_reads_back(text: str) -> None:
    try:
        written = f'<a b="{escape_attribute(text)}">{escape_text(text)}</a>'
    except UsageError:
        return
    root = parse(written.encode(), LIMITS)
    assert (text_of(root), root.get("b")) == (text, text)


@pytest.mark.row("RE-20")
@given(st.binary(max_size=200) | st.text("<>/!?&;:='\"-[]ax \n", max_size=60).map(str.encode))
def test_only_malformed_leaves(payload: bytes) -> None:
    try:
        parse(payload, LIMITS)
    except Malformed:
        return


def test_threads_share_the_parser() -> None:
    documents = [f"<a xmlns='urn:{n}'><b>{n}</b></a>".encode() for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        roots = list(pool.map(lambda octets: parse(octets, LIMITS), documents * 25))
    assert [text_of(root[0]) for root in roots] == [str(n) for n in range(40)] * 25


# --- a caller's own body ------------------------------------------------------------------------


XSI = "http://www.w3.org/2001/XMLSchema-instance"


def test_a_body_becomes_canonical() -> None:
    body = b"<?xml version='1.0'?>\n<p:a xmlns:q='urn:q' xmlns:p='urn:p' y='2' x='1'><b/><!-- c --></p:a>\n"
    expected = b'<p:a xmlns:p="urn:p" x="1" y="2"><b></b></p:a>'
    assert canonical_fragment(body, LIMITS) == expected
    assert canonical_fragment(etree.fromstring(body), LIMITS) == expected
    assert canonical_fragment(expected, LIMITS) == expected


@pytest.mark.parametrize(
    "body", [b"", b"text", b"<a/><b/>", b"<a", b"<!DOCTYPE a><a/>", b"<a xmlns='foo'/>", b"<?x?><a/>"]
)
def test_a_body_that_is_no_element(body: bytes) -> None:
    with pytest.raises(UsageError, match="body"):
        canonical_fragment(body, LIMITS)


def test_an_element_of_the_caller_is_held_to_the_limits() -> None:
    root = etree.Element("a")
    for _ in range(20_000):
        etree.SubElement(root, "b")
    with pytest.raises(UsageError, match="20000"):
        canonical_fragment(root, LIMITS)
    root = etree.fromstring("<a><?x y?></a>")
    with pytest.raises(UsageError):
        canonical_fragment(root, LIMITS)


def test_a_prefix_that_only_a_value_uses_is_kept() -> None:
    body = (
        f'<a xmlns="urn:a" xmlns:xsi="{XSI}"><n xmlns:x="urn:&amp;x" xsi:type="x:int">1</n>'
        '<m xmlns:y="urn:y">y:name</m><o xmlns:z="urn:z" z:b="">z:used</o></a>'
    ).encode()
    octets = canonical_fragment(body, LIMITS)
    assert octets.startswith(b'<a xmlns="urn:a" xmlns:x="urn:&amp;x" xmlns:y="urn:y">')
    pure, namespaces = split_declarations(octets)
    assert dict(namespaces) == {"x": "urn:&x", "y": "urn:y"}
    assert pure.startswith(b'<a xmlns="urn:a"><n ')
    assert b"xmlns:x=" not in pure
    assert canonical_fragment(octets, LIMITS) == octets
    assert canonical_fragment(body.decode().encode("utf-16"), LIMITS) == octets


def test_a_prefix_bound_twice_cannot_be_kept() -> None:
    body = b"<a><b xmlns:x='urn:1'>x:n</b><b xmlns:x='urn:2'>x:n</b></a>"
    with pytest.raises(UsageError, match="'x'"):
        canonical_fragment(body, LIMITS)


def test_ordinary_bodies_declare_nothing_more() -> None:
    for body in (
        b'<p:a xmlns:p="urn:p" p:b="1">http://p:80/ p: xp:y</p:a>',
        b'<a xmlns:p="urn:p"><p:b>p:n</p:b></a>',
        b"<a>no prefix: at all</a>",
    ):
        pure, namespaces = split_declarations(canonical_fragment(body, LIMITS))
        assert namespaces == ()
        assert pure == canonical_fragment(body, LIMITS)


def test_what_came_says_what_the_prefixes_of_its_values_stand_for() -> None:
    """Each where it is bound: outside, or in a place where exclusive C14N leaves it out."""
    outer = parse(
        f"<e xmlns:t='urn:t' xmlns:no='urn:no' xmlns:xsi='{XSI}'><a xsi:type='t:a'><no:b/></a>"
        f"<b xmlns:x='urn:1' xsi:type='x:n'><c xmlns:x='urn:2'>x:n</c></b></e>".encode(),
        LIMITS,
    )
    content = b"".join(canonical(child) for child in outer)
    assert b"urn:t" not in content
    assert b"urn:1" not in content
    octets = standing_alone(outer, content)
    assert octets == (
        f'<a xmlns:t="urn:t" xmlns:xsi="{XSI}" xsi:type="t:a"><no:b xmlns:no="urn:no"></no:b></a>'
        f'<b xmlns:t="urn:t" xmlns:x="urn:1" xmlns:xsi="{XSI}" xsi:type="x:n">'
        f'<c xmlns:x="urn:2">x:n</c></b>'
    ).encode()
    ordinary = parse("<e xmlns:m='urn:m' xmlns:é='urn:e'><m:a b='m'>urn:m xé:y</m:a></e>".encode(), LIMITS)
    same = canonical(ordinary[0])
    assert standing_alone(ordinary, same) is same
    accented = parse("<e xmlns:é='urn:e'><a>é:b</a></e>".encode(), LIMITS)
    assert standing_alone(accented, canonical(accented[0])) == '<a xmlns:é="urn:e">é:b</a>'.encode()
