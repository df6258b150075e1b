"""An element in other canonical forms than castile's own, to try which of them was digested.

`castile.xml` writes the one form that is accepted. What is written here is held against a digest
that doesn't fit, and goes nowhere else: a verifier can't import it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Final

from lxml import etree

from castile.errors import Malformed
from castile.versions import EXC_C14N
from castile.xml import Element, escape_attribute, escape_text

C14N: Final = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
C14N_1_1: Final = "http://www.w3.org/2006/12/xml-c14n11"
BLANKS: Final = " \t\r\n"
"""White space of XML; Python's own has more."""
_XML: Final = "{http://www.w3.org/XML/1998/namespace}"

Scope = Mapping[str, str]
"""Namespace by prefix; the empty prefix is the default namespace."""
Texts = Callable[[list[str], int], list[str]]
"""Changes what stands before, between and behind the children of an element of this depth."""


@dataclass(frozen=True, slots=True)
class Form:
    """A canonicalisation."""

    name: str
    exclusive: bool = True
    comments: bool = False
    inherited: tuple[str, ...] = ()
    """Names of ``xml:`` attributes that the outermost element has from around it."""
    prefixes: tuple[str, ...] = ()
    """PrefixList of exclusive C14N."""


_INHERITED: Final = ("base", "id", "lang", "space")
FORMS: Final = {
    EXC_C14N: Form("exclusive C14N"),
    f"{EXC_C14N}WithComments": Form("exclusive C14N with comments", comments=True),
    C14N: Form("inclusive C14N 1.0", False, inherited=_INHERITED),
    f"{C14N}#WithComments": Form("inclusive C14N 1.0 with comments", False, True, _INHERITED),
    C14N_1_1: Form("inclusive C14N 1.1", False, inherited=("lang", "space")),
    f"{C14N_1_1}#WithComments": Form("inclusive C14N 1.1 with comments", False, True, ("lang", "space")),
}
"""By algorithm URI."""


def unchanged(segments: list[str], _: int) -> list[str]:
    """The text as it stands."""
    return segments


def stripped(segments: list[str], _: int) -> list[str]:
    """Without white space between elements."""
    return [each if each.strip(BLANKS) else "" for each in segments] if len(segments) > 1 else segments


def trimmed(segments: list[str], _: int) -> list[str]:
    """Without white space between elements and around every text."""
    return [each.strip(BLANKS) for each in segments]


def indented(step: str, newline: str, start: int) -> Texts:
    """As a pretty printer writes elements that hold nothing but elements."""

    def texts(segments: list[str], depth: int) -> list[str]:
        if len(segments) < 2 or any(each.strip(BLANKS) for each in segments):
            return segments
        inner, outer = newline + step * (start + depth + 1), newline + step * (start + depth)
        return [inner] * (len(segments) - 1) + [outer]

    return texts


_ATTRIBUTE_NAME: Final = etree.XPath("name(@*[$position])")


class Writer:
    """Writes one element in many forms; what it reads of the tree is read once."""

    __slots__ = ("_nodes", "around", "element")

    def __init__(self, element: Element) -> None:
        self.element = element
        self._nodes: dict[Element, _Node] = {}
        parent = element.getparent()
        self.around: Scope = _scope(parent) if parent is not None else {}
        """The namespaces in scope around the element."""

    def write(
        self,
        form: Form,
        texts: Texts = unchanged,
        *,
        around: Scope | None = None,
        renamed: Scope | None = None,
        without: str | None = None,
    ) -> bytes:
        """The element without its tail.

        `around`: the namespaces that are taken to be in scope around it; `renamed`: other
        prefixes by namespace; `without`: an attribute of the outermost element that is left out.
        """
        pieces: list[str] = []
        outer = dict(self.around if around is None else around)
        # A stack of elements to write and strings to put between, since depth is not recursion's.
        stack: list[tuple[Element, Scope, Scope, int] | str] = [(self.element, outer, {"": ""}, 0)]
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                pieces.append(item)
                continue
            node, scope, rendered, depth = item
            read = self._nodes.get(node)
            if read is None:
                read = self._nodes[node] = _read(node)
            attributes = read.attributes
            if depth == 0:
                inherited = _inherited(node, form.inherited) if around is None else ()
                attributes = (*inherited, *(each for each in attributes if each.label != without))
            name, start, scope, rendered = _start(read, attributes, scope, rendered, form, renamed or {})
            first, *rest = texts(read.segments, depth)
            if not rest:
                pieces.append(f"{start}{escape_text(first) if first else ''}</{name}>")
                continue
            pieces.append(start + escape_text(first))
            stack.append(f"</{name}>")
            for child, tail in zip(reversed(read.children), reversed(rest), strict=True):
                if tail:
                    stack.append(escape_text(tail))
                if not isinstance(child, str):
                    stack.append((child, scope, rendered, depth + 1))
                elif form.comments:
                    stack.append(child)
        return "".join(pieces).encode()

    def attributes(self) -> list[str]:
        """The attributes of the outermost element, as `write` leaves one out."""
        return [str(label) for label in self.element.attrib]

    def scope(self) -> Scope:
        """The namespaces in scope in the outermost element."""
        return _scope(self.element)


def _start(
    node: _Node,
    attributes: tuple[_Attribute, ...],
    scope: Scope,
    rendered: Scope,
    form: Form,
    renamed: Scope,
) -> tuple[str, str, Scope, Scope]:
    """Qualified name, start tag, and the namespaces in scope and rendered from here on."""
    prefix = renamed.get(node.namespace, node.prefix)
    name = f"{prefix}:{node.local}" if prefix else node.local
    used = {prefix: node.namespace}
    pairs: list[tuple[str, str, str]] = []
    for each in attributes:
        own = each.prefix if each.prefix == "xml" else renamed.get(each.namespace) or each.prefix
        if own and own != "xml":
            used[own] = each.namespace
        pairs.append((each.namespace, each.local, f"{own + ':' if own else ''}{each.local}={each.value}"))
    declared = {renamed.get(uri, each): uri for each, uri in node.declared.items()} | used
    if not declared.items() <= scope.items():
        scope = {**scope, **declared}
    written: Set[str] = scope.keys()
    if form.exclusive:
        written = used.keys()
        if form.prefixes:
            listed = {"" if each == "#default" else each for each in form.prefixes}
            written = written | (listed & (scope.keys() | {""}))
    fresh = {each: scope.get(each, "") for each in written if rendered.get(each) != scope.get(each, "")}
    if not fresh and not pairs:
        return name, f"<{name}>", scope, rendered
    parts = [
        f'xmlns:{each}="{escape_attribute(uri)}"' if each else f'xmlns="{escape_attribute(uri)}"'
        for each, uri in sorted(fresh.items())
        if each or uri or rendered.get("")
    ]
    parts += [text for _, _, text in sorted(pairs)]
    return name, f"<{' '.join([name, *parts])}>", scope, {**rendered, **fresh}


@dataclass(frozen=True, slots=True)
class _Attribute:
    namespace: str
    local: str
    prefix: str
    value: str
    """In quotes, as it is written."""

    @property
    def label(self) -> str:
        """As lxml calls it."""
        return f"{{{self.namespace}}}{self.local}" if self.namespace else self.local


@dataclass(frozen=True, slots=True)
class _Node:
    """What is read of an element once."""

    namespace: str
    local: str
    prefix: str
    attributes: tuple[_Attribute, ...]
    declared: Scope
    """Namespaces that it declares itself."""
    segments: list[str]
    """Text before, between and behind its children."""
    children: tuple[Element | str, ...]
    """Elements, and comments as they are written."""


def _read(node: Element) -> _Node:
    parent = node.getparent()
    outer = _scope(parent) if parent is not None else {}
    attributes: list[_Attribute] = []
    for position, (label, value) in enumerate(node.attrib.items(), 1):
        uri, _, local = str(label).rpartition("}")
        prefix = str(_ATTRIBUTE_NAME(node, position=position)).partition(":")[0] if uri else ""
        attributes.append(_Attribute(uri.removeprefix("{"), local, prefix, _quoted(str(value))))
    namespace, _, local = str(node.tag).rpartition("}")
    declared = {each: uri for each, uri in _scope(node).items() if outer.get(each, "") != uri}
    return _Node(
        namespace.removeprefix("{"),
        local,
        node.prefix or "",
        tuple(attributes),
        declared,
        [node.text or "", *(child.tail or "" for child in node)],
        tuple(map(_child, node)),
    )


def _child(node: Element) -> Element | str:
    if isinstance(node.tag, str):
        return node
    if isinstance(node, etree._Comment):
        return f"<!--{node.text or ''}-->"
    raise Malformed("a processing instruction or an unresolved entity")


def _inherited(node: Element, names: tuple[str, ...]) -> tuple[_Attribute, ...]:
    """The ``xml:`` attributes that inclusive C14N takes from around the outermost element."""
    found: list[_Attribute] = []
    for name in names:
        label = f"{_XML}{name}"
        value = next((each.get(label) for each in node.iterancestors() if each.get(label)), None)
        if value is not None and node.get(label) is None:
            found.append(_Attribute(_XML[1:-1], name, "xml", _quoted(value)))
    return tuple(found)


def _quoted(value: str) -> str:
    return f'"{escape_attribute(value)}"'


def _scope(element: Element) -> dict[str, str]:
    return {prefix or "": uri or "" for prefix, uri in element.nsmap.items() if prefix != "xml"}
