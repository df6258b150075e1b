"""XML as castile reads and writes it: hardened parsing, exclusive C14N, escaping.

Only this module knows lxml's settings. A document is measured as bytes before lxml sees it, so a
bomb is refused before the work that it aims at; what lxml then accepts is namespace-well-formed,
has no DTD, no entities of its own, no processing instructions and absolute namespace URIs only.
"""

from __future__ import annotations

import re
from codecs import lookup
from collections.abc import Iterable, Mapping
from functools import lru_cache
from html import unescape
from typing import TYPE_CHECKING, Final, TypeAlias

from lxml import etree

from castile.config import Limits
from castile.errors import Malformed, QName, UsageError

if TYPE_CHECKING:
    from lxml.etree._docloader import _InputDocument

Element: TypeAlias = etree._Element
"""An element of a parsed document."""

_PARSER: Final = etree.XMLParser(
    encoding="utf-8",
    resolve_entities=False,
    no_network=True,
    load_dtd=False,
    dtd_validation=False,
    huge_tree=False,
    remove_blank_text=False,
    remove_comments=False,
    remove_pis=False,
    collect_ids=False,
)
"""Shared: lxml locks a parser while it works, and small documents are through in microseconds."""

_UTF8_BOM: Final = b"\xef\xbb\xbf"
_UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_DECLARATION: Final = re.compile(
    rb"""<\?xml\s+version\s*=\s*(?:"1\.0"|'1\.0')"""
    rb"""(?:\s+encoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]*)["'])?"""
    rb"""(?:\s+standalone\s*=\s*(?:"yes"|'yes'|"no"|'no'))?\s*\?>"""
)
_LABEL: Final = re.compile(r"""<\?xml\s[^>]*?(\sencoding\s*=\s*["']([^"']*)["'])""")
_SINGLE_BYTE: Final = frozenset(
    ("ascii", "cp1250", "cp1251", "cp1252", "iso8859-1", "iso8859-2", "iso8859-15")
)
"""By Python's names: what WSDLs are found in beside Unicode."""
_ASIDE_END: Final = {b"<?": b"?>", b"<!--": b"-->", b"<![CDATA[": b"]]>"}
_ASIDE: Final = re.compile(rb"<(?:\?|!--|!\[CDATA\[)")
_SPECIAL_MARKUP: Final = re.compile(rb"<[!?]")
_NAME: Final = re.compile(rb"[^\s/>]++")
_ATTRIBUTE: Final = re.compile(rb"""\s++([^\s=>]++)\s*+=\s*+("[^"]*+"|'[^']*+')""")
_UNBOUND: Final = re.compile(r"Namespace prefix (\S+) (?:for (\S+) )?on (\S+) is not defined")
"""libxml2's own text."""
_START_TAG: Final = re.compile(rb"""<([^\s>]++)((?: [^\s=]++="[^"]*+")*+)>""")
_PAIR: Final = re.compile(rb"""([^\s=]++)="([^"]*+)\"""")
_DECLARED_PREFIX: Final = re.compile(rb"xmlns:([^\s=]++)")
_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]*+:"
_ABSOLUTE: Final = re.compile(_SCHEME)
_MAYBE_RELATIVE: Final = re.compile(
    rb"""xmlns(?::[^\s=]*+)?\s*+=\s*+(?:"(?!S|")|'(?!S|'))""".replace(b"S", _SCHEME.encode())
)
_TEXT_SPECIAL: Final = re.compile("[^\t\n\x20-%'-;=?-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ATTRIBUTE_SPECIAL: Final = re.compile("[^\x20!#-%'-;=-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TEXT_ESCAPES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#xD;"}
_ATTRIBUTE_ESCAPES: Final = {
    "&": "&amp;",
    "<": "&lt;",
    '"': "&quot;",
    "\t": "&#x9;",
    "\n": "&#xA;",
    "\r": "&#xD;",
}


def parse(payload: bytes, limits: Limits) -> Element:
    """The root of a document, or `Malformed` (features RE-12, RE-14 to RE-17).

    `payload` is UTF-8, or UTF-16 with a byte order mark.
    """
    if len(payload) > limits.message_bytes:
        raise Malformed(f"the message has {len(payload)} bytes, more than {limits.message_bytes}")
    return _parse(_utf8(payload), limits)


def parse_document(octets: bytes, limits: Limits) -> Element:
    """The root of a WSDL, a schema or a policy: as `parse`, but more lenient where SOAP is stricter.

    A single-byte encoding that its declaration names is read too; processing instructions, such as
    a style sheet's, are passed over; relative namespace URIs, which have no canonical form, are
    read. Line numbers stay what they were.
    """
    if len(octets) > limits.message_bytes:
        raise Malformed(f"the document has {len(octets)} bytes, more than {limits.message_bytes}")
    declaration = _DECLARATION.match(octets)
    if declaration is not None and declaration[1] is not None:
        octets = _decoded(octets, declaration)
    document = _utf8(octets)
    return _parse(_without_instructions(document), limits, lenient=True)


def _decoded(octets: bytes, declaration: re.Match[bytes]) -> bytes:
    """The document in UTF-8, its declaration of a single-byte encoding taken out."""
    try:
        encoding = lookup(declaration[1].decode()).name
    except LookupError:
        encoding = ""
    if encoding == "utf-8":
        return octets
    if encoding not in _SINGLE_BYTE:
        raise Malformed(f"the encoding {declaration[1].decode()} is not one that is read here")
    try:
        text = octets[declaration.end() :].decode(encoding)
    except UnicodeDecodeError:
        raise Malformed(f"the document is not in the encoding {encoding} that it declares") from None
    return b"\n" * declaration[0].count(b"\n") + text.encode()


def _without_instructions(document: bytes) -> bytes:
    """The document without processing instructions outside of comments and CDATA sections."""
    if document.find(b"<?", 1) < 0:
        return document
    pieces: list[bytes] = []
    position = kept = 0
    while (found := _ASIDE.search(document, position)) is not None:
        end = _ASIDE_END[found[0]]
        position = document.find(end, found.end()) + len(end)
        if position < len(end):  # without end: lxml will say so
            break
        if found[0] == b"<?" and found.start() > 0:
            pieces += document[kept : found.start()], b"\n" * document.count(b"\n", found.start(), position)
            kept = position
    return b"".join((*pieces, document[kept:]))


def parse_fragment(
    octets: bytes, context: Element, limits: Limits, *, default: bool = True
) -> tuple[str | None, list[Element]]:
    """Decrypted UTF-8 content in the namespaces of its place: leading text, then elements.

    `context` is the element that the content belongs into; without `default` its default
    namespace is left out. Text between the elements is their
    tail. The elements live in a document of their own.
    """
    if len(octets) > limits.message_bytes:
        raise Malformed(f"the fragment has {len(octets)} bytes, more than {limits.message_bytes}")
    declarations = "".join(
        f' xmlns:{prefix}="{escape_attribute(uri)}"' if prefix else f' xmlns="{escape_attribute(uri or "")}"'
        for prefix, uri in context.nsmap.items()
        if prefix != "xml" and (prefix or default)
    )
    # The wrapper can't be closed from inside: what follows would be a second root.
    suspect = _measure(octets, limits)
    wrapper = _build(b"<fragment%b>%b</fragment>" % (declarations.encode(), octets))
    _check_tree(wrapper, limits, suspect)
    return wrapper.text, list(wrapper)


def _parse(document: bytes, limits: Limits, *, lenient: bool = False) -> Element:
    scan = document
    declaration = _DECLARATION.match(document)
    if declaration is not None:
        encoding = declaration[1]
        if encoding is not None and encoding.lower() != b"utf-8":
            raise Malformed("the XML declaration names another encoding than the bytes have")
        scan = document[declaration.end() :]
    suspect = _measure(scan, limits)
    root = _build(document)
    _check_tree(root, limits, suspect and not lenient)
    return root


def _utf8(payload: bytes) -> bytes:
    """The document in UTF-8 without byte order mark."""
    if payload.startswith(_UTF8_BOM):
        return payload[3:]
    if not payload.startswith(_UTF16_BOMS):
        return payload
    try:
        text = payload.decode("utf-16")
    except UnicodeDecodeError:
        raise Malformed("the message is not the UTF-16 that its byte order mark says") from None
    label = _LABEL.match(text)
    if label is not None:
        # The label is taken out once it was found to agree with the bytes.
        if label[2].lower() != "utf-16":
            raise Malformed("the XML declaration names another encoding than the bytes have")
        text = text[: label.start(1)] + text[label.end(1) :]
    return text.encode()


def _measure(scan: bytes, limits: Limits) -> bool:
    """Refuse by the bytes alone what is above a limit, a DOCTYPE, a processing instruction.

    Exact for well-formed markup; the rest is lxml's to refuse. Returns True where a namespace
    URI may be relative, for `_check_tree` to look at.
    """
    size, asides = len(scan), 0
    if _SPECIAL_MARKUP.search(scan) is not None:
        scan, asides = _without_asides(scan, limits)
        if b"<?" in scan:
            raise Malformed("a processing instruction, or a misplaced XML declaration")
    if size >= 4 * limits.elements:  # an element takes four bytes at least
        tags = scan.count(b"<") + asides
        if tags > limits.elements and tags - scan.count(b"</") > limits.elements:
            raise Malformed(f"more than {limits.elements} elements and comments")
    # A tag with too many or too long parts is itself long: all others need no closer look.
    bound = min(
        4 * limits.attributes,
        8 * limits.namespaces_per_element,
        limits.name_characters,
        limits.attribute_bytes,
    )
    for found in _longer_than(bound).finditer(scan):
        _measure_tag(found[1], limits)
    if scan.count(b"xmlns") > limits.namespaces:
        _measure_namespaces(scan.split(b"<"), limits)
    return _MAYBE_RELATIVE.search(scan) is not None


@lru_cache(maxsize=8)
def _longer_than(bound: int) -> re.Pattern[bytes]:
    """Finds start tags that take more bytes, with the text up to the next tag."""
    return re.compile(rb"<(?!/)([^<]{%d,}+)" % (bound + 1))


def _without_asides(scan: bytes, limits: Limits) -> tuple[bytes, int]:
    """The markup without CDATA sections and comments, and how many they were."""
    pieces: list[bytes] = []
    position = 0
    while (start := scan.find(b"<!", position)) >= 0:
        if scan.startswith(b"<!--", start):
            end = scan.find(b"-->", start + 4)
        elif scan.startswith(b"<![CDATA[", start):
            end = scan.find(b"]]>", start + 9)
        else:
            raise Malformed("a document type declaration (DOCTYPE) is not allowed")
        if end < 0:
            raise Malformed("a comment or CDATA section without end")
        pieces.append(scan[position:start])
        if len(pieces) > limits.elements:
            raise Malformed(f"more than {limits.elements} elements and comments")
        position = end + 3
    pieces.append(scan[position:])
    return b"".join(pieces), len(pieces) - 1


def _measure_tag(segment: bytes, limits: Limits) -> None:
    """Check one start tag (what stands between its ``<`` and the next)."""
    name = _NAME.match(segment)
    if name is None:
        raise Malformed("a tag without a name")
    _measure_name(name[0], limits)
    attributes = namespaces = 0
    position = name.end()
    while (found := _ATTRIBUTE.match(segment, position)) is not None:
        position = found.end()
        label, value = found.groups()
        _measure_name(label, limits)
        if len(value) - 2 > limits.attribute_bytes:
            raise Malformed(f"an attribute value of more than {limits.attribute_bytes} bytes")
        if label == b"xmlns" or label.startswith(b"xmlns:"):
            namespaces += 1
        else:
            attributes += 1
        if attributes > limits.attributes:
            raise Malformed(f"an element with more than {limits.attributes} attributes")
        if namespaces > limits.namespaces_per_element:
            raise Malformed(
                f"an element with more than {limits.namespaces_per_element} namespace declarations"
            )


def _measure_name(name: bytes, limits: Limits) -> None:
    if len(name) > limits.name_characters and len(name.decode(errors="replace")) > limits.name_characters:
        raise Malformed(f"a name of more than {limits.name_characters} characters")


def _measure_namespaces(segments: list[bytes], limits: Limits) -> None:
    """Count the namespace declarations of the whole document, text left out."""
    count = 0
    for segment in segments:
        if b"xmlns" not in segment:
            continue
        name = _NAME.match(segment)
        position = name.end() if name is not None else 0
        while (found := _ATTRIBUTE.match(segment, position)) is not None:
            position = found.end()
            if found[1].startswith(b"xmlns"):
                count += 1
                if count > limits.namespaces:
                    raise Malformed(f"more than {limits.namespaces} namespace declarations")


def _build(document: bytes) -> Element:
    try:
        return etree.fromstring(document, _PARSER)
    except etree.XMLSyntaxError as error:
        line = f"line {error.lineno}: " if error.lineno else ""
        text = (error.msg or "no document").partition(", line ")[0].strip()[:200]
    unbound = _UNBOUND.fullmatch(text)
    if unbound is not None:
        prefix, attribute, element = unbound.groups()
        place = f"the attribute {attribute} of {element}" if attribute else f"the element {element}"
        raise Malformed(f"{line}not namespace-well-formed: the prefix {prefix} of {place} is not declared")
    raise Malformed(f"{line}not well-formed XML: {text}")


@lru_cache(maxsize=8)
def _deeper_than(depth: int) -> etree.XPath:
    return etree.XPath(f"boolean({'/'.join(['*'] * depth)})")


def _check_tree(root: Element, limits: Limits, suspect: bool) -> None:
    """What only the tree tells exactly."""
    tree = root.getroottree()
    if tree.docinfo.internalDTD is not None:  # _without_asides refused it already
        raise Malformed("a document type declaration (DOCTYPE) is not allowed")
    if _deeper_than(limits.depth)(root):
        raise Malformed(f"elements nested more than {limits.depth} deep")
    if suspect:
        _check_namespaces(root)


def _check_namespaces(root: Element) -> None:
    for element in root.iter("*"):
        for uri in element.nsmap.values():
            if uri and _ABSOLUTE.match(uri) is None:
                raise Malformed(f"line {element.sourceline}: the namespace URI {uri[:80]!r} is relative")


def canonical(element: Element, prefixes: tuple[str, ...] = ()) -> bytes:
    """The element as exclusive C14N without comments, its tail left out.

    `prefixes` is the InclusiveNamespaces PrefixList; ``#default`` stands for the default
    namespace (Exclusive XML Canonicalization 1.0, 3).
    """
    if "#default" in prefixes:
        # libxml2's binding drops this token without a word.
        octets = _canonical_with_default(element, prefixes)
    else:
        try:
            # Half the time of write_c14n for a header block.
            octets = etree.tostring(
                element,
                method="c14n",
                exclusive=True,
                with_comments=False,
                inclusive_ns_prefixes=list(prefixes) or None,
            )
        except (etree.C14NError, etree.LxmlError, ValueError):
            raise Malformed("an element without canonical form (a relative namespace URI)") from None
    if not octets.startswith(b"<") or not octets.endswith(b">"):
        raise Malformed("an element without canonical form")
    return octets


_ATTRIBUTE_NAME: Final = etree.XPath("name(@*[$position])")


def _canonical_with_default(element: Element, prefixes: tuple[str, ...]) -> bytes:
    inclusive = {"" if prefix == "#default" else prefix for prefix in prefixes}
    pieces: list[str] = []
    # A stack of elements to write and strings to put between, since depth is not recursion's.
    stack: list[tuple[Element, dict[str, str]] | str] = [(element, {"": ""})]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            pieces.append(item)
            continue
        node, rendered = item
        name, start, rendered = _start_tag(node, rendered, inclusive)
        pieces.append(start + escape_text(node.text or ""))
        stack.append(f"</{name}>")
        for child in reversed(node):
            stack.append(escape_text(child.tail or ""))
            if isinstance(child.tag, str):
                stack.append((child, rendered))
            elif not isinstance(child, etree._Comment):
                raise Malformed("a processing instruction or an unresolved entity")
    return "".join(pieces).encode()


def _start_tag(
    node: Element, rendered: dict[str, str], inclusive: set[str]
) -> tuple[str, str, dict[str, str]]:
    """Qualified name, start tag, and the namespaces rendered from here on."""
    scope = {prefix or "": uri or "" for prefix, uri in node.nsmap.items()}
    local = etree.QName(node).localname
    name = f"{node.prefix}:{local}" if node.prefix else local
    used = {node.prefix or ""} | (inclusive & (scope.keys() | {""}))
    attributes: list[tuple[str, str, str, str]] = []
    for position, (label, value) in enumerate(node.attrib.items(), 1):
        uri, _, tag = str(label).rpartition("}")
        qualified = str(_ATTRIBUTE_NAME(node, position=position)) if uri else tag
        if uri and not qualified.startswith("xml:"):
            used.add(qualified.partition(":")[0])
        attributes.append((uri.removeprefix("{"), tag, qualified, str(value)))
    used.discard("xml")
    fresh = {
        prefix: scope.get(prefix, "") for prefix in used if rendered.get(prefix) != scope.get(prefix, "")
    }
    if any(uri and _ABSOLUTE.match(uri) is None for uri in scope.values()):
        raise Malformed("an element without canonical form (a relative namespace URI)")
    parts = [
        f'xmlns:{prefix}="{escape_attribute(uri)}"' if prefix else f'xmlns="{escape_attribute(uri)}"'
        for prefix, uri in sorted(fresh.items())
    ]
    parts += [f'{qualified}="{escape_attribute(value)}"' for _, _, qualified, value in sorted(attributes)]
    return name, f"<{' '.join([name, *parts])}>", rendered | fresh


def _escape(found: re.Match[str], escapes: dict[str, str]) -> str:
    try:
        return escapes[found[0]]
    except KeyError:
        raise UsageError(f"the character U+{ord(found[0]):04X} can't be written in XML") from None


def escape_text(text: str) -> str:
    """Text as C14N writes it; a character that XML forbids is a `UsageError`."""
    return _TEXT_SPECIAL.sub(lambda found: _escape(found, _TEXT_ESCAPES), text)


def escape_attribute(value: str) -> str:
    """An attribute value as C14N writes it, for double quotes."""
    return _ATTRIBUTE_SPECIAL.sub(lambda found: _escape(found, _ATTRIBUTE_ESCAPES), value)


def canonical_fragment(body: bytes | Element, limits: Limits) -> bytes:
    """A caller's own element, as bytes or from lxml, in exclusive C14N; else `UsageError`.

    A prefix that only a value uses (``xsi:type="xsd:int"``) has no place in that form and is
    declared on the outermost element nevertheless; `split_declarations` takes it off again.
    """
    try:
        root = parse(body, limits) if isinstance(body, bytes) else body
        octets = canonical(root)
        if not isinstance(body, bytes):
            parse(octets, limits)
    except Malformed as error:
        raise UsageError(f"the body is not one well-formed element within the limits: {error}") from error
    plain = isinstance(body, bytes) and not body.startswith(_UTF16_BOMS)
    candidates = _in_values(body if plain and isinstance(body, bytes) else _written(root), octets)
    return _declare(octets, _lost(root, octets, candidates)) if candidates else octets


def standing_alone(parent: Element, content: bytes, source: bytes | None = None) -> bytes:
    """Canonical children of `parent` that can be read by themselves, given their canonical octets.

    A prefix that only values use may be declared outside of them, as on the Envelope, or in a
    place where exclusive C14N leaves it out; then the children declare it, each where it is bound,
    as a PrefixList with these prefixes would have them do. `source`: the children as they came, if
    they needn't be written for this.
    """
    source = _written(parent) if source is None else source
    lost = _in_values(source, content, (str(prefix) for prefix in parent.nsmap if prefix))
    return b"".join(canonical(child, tuple(sorted(lost))) for child in parent) if lost else content


def _written(element: Element) -> bytes:
    return etree.tostring(element, encoding="utf-8", with_tail=False)


def _in_values(source: bytes, octets: bytes, others: Iterable[str] = ()) -> set[str]:
    """The prefixes that `source` declares, and others, as far as values in `octets` may use them."""
    declared = {prefix.decode(errors="replace") for prefix in _DECLARED_PREFIX.findall(source)}
    return {prefix for prefix in declared.union(others) if _in_value(prefix).search(octets) is not None}


@lru_cache(maxsize=256)
def _in_value(prefix: str) -> re.Pattern[bytes]:
    """Finds the prefix where it doesn't begin the name of an element or attribute."""
    label = re.escape(prefix.encode()) + b":"
    return re.compile(label + rb"""(?<=[">\s]""" + label + rb""")(?![^\s"<>=]*+=")""")


def _lost(root: Element, octets: bytes, candidates: set[str]) -> dict[str, str]:
    """What `candidates` stood for where the canonical form no longer says it."""
    lost: dict[str, str] = {}
    for before, after in zip(root.iter("*"), _build(octets).iter("*"), strict=True):
        scope, left = before.nsmap, after.nsmap
        values = [after.text or "", *after.attrib.values(), *(child.tail or "" for child in after)]
        for prefix in candidates & scope.keys():
            uri = scope[prefix] or ""
            if left.get(prefix) == uri or not any(f"{prefix}:" in str(value) for value in values):
                continue
            if prefix in left or lost.setdefault(prefix, uri) != uri:
                raise UsageError(f"the body binds the prefix {prefix!r} twice and uses it in a value")
    return lost


def _declare(octets: bytes, namespaces: dict[str, str]) -> bytes:
    """The element with further declarations on its start tag, in canonical order."""
    found = _START_TAG.match(octets)
    if found is None or not namespaces:
        return octets
    own = [pair for pair in _PAIR.findall(found[2]) if pair[0].startswith(b"xmlns")]
    others = found[2][sum(len(name) + len(value) + 4 for name, value in own) :]
    own += [(f"xmlns:{p}".encode(), escape_attribute(uri).encode()) for p, uri in namespaces.items()]
    scope = b"".join(b' %b="%b"' % pair for pair in sorted(own))
    return b"".join((b"<", found[1], scope, others, octets[found.end() - 1 :]))


def split_declarations(octets: bytes) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """A `canonical_fragment` as pure exclusive C14N, and the prefixes that its values need."""
    found = _START_TAG.match(octets)
    if found is None or b" xmlns:" not in found[2]:
        return octets, ()
    pairs = _PAIR.findall(found[2])
    used = {found[1].partition(b":")[0]} | {name.partition(b":")[0] for name, _ in pairs}
    moved = [(name, value) for name, value in pairs if name.startswith(b"xmlns:") and name[6:] not in used]
    if not moved:
        return octets, ()
    kept = b"".join(b' %b="%b"' % pair for pair in pairs if pair not in moved)
    bare = b"".join((b"<", found[1], kept, octets[found.end() - 1 :]))
    return bare, tuple((name[6:].decode(), unescape(value.decode())) for name, value in moved)


def settled(octets: bytes) -> bytes:
    """Our own bytes canonical again, after parts that declare the same prefixes were nested."""
    return canonical(_build(octets))


class _Given(etree.Resolver):
    """Of a schema's imports only what was given is read: neither a file nor the network."""

    def __init__(self, documents: Mapping[str, bytes]) -> None:
        self._documents = documents

    def resolve(
        self, system_url: str | None, _public_id: str | None, context: object
    ) -> _InputDocument | None:
        document = self._documents.get(system_url or "", b"")
        return self.resolve_string(document, context, base_url=system_url)


def schema(documents: Mapping[str, bytes], root: str) -> etree.XMLSchema:
    """The XML Schema of documents that import each other by their names in `documents`.

    Raises `UsageError` with libxml2's reasons where they are no schema together.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    parser.resolvers.add(_Given(documents))
    try:
        return etree.XMLSchema(etree.fromstring(documents[root], parser, base_url=root))
    except etree.LxmlError as error:
        reasons = [entry.message for entry in error.error_log if entry.level_name != "WARNING"]
        raise UsageError("no schema: " + (" ".join(reasons[:3]) or str(error))) from None


def indented(octets: bytes) -> str:
    """Our own bytes, an element a line, for people."""
    root = _build(octets)
    etree.indent(root)
    return etree.tostring(root, encoding="unicode")


def inside(element: Element) -> list[Element]:
    """The child elements, comments left out."""
    return [child for child in element if isinstance(child.tag, str)]


def text_of(element: Element) -> str:
    """The whole text of a leaf, as it stands; child elements and comments are `Malformed`.

    `Element.text` alone ends at a comment, which canonicalisation doesn't see.
    """
    if len(element):
        raise Malformed(f"{local_name(element)} must hold text only")
    return element.text or ""


def name_of(element: Element) -> QName:
    """Namespace URI (empty: none) and local name."""
    namespace, _, local = str(element.tag).rpartition("}")
    return namespace[1:], local


def namespace_of(element: Element) -> str:
    """The namespace URI; empty: none."""
    return name_of(element)[0]


def local_name(element: Element) -> str:
    """The local name, for texts that people read."""
    return str(element.tag).rpartition("}")[2]
