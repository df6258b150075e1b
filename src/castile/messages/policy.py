"""WS-Policy expressions: from elements to their normal form and back (WS-Policy 1.5, 3 and 4).

The editions differ in their namespace only, and one document may mix them: what is read is the
same whichever of them an operator comes from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, count, product
from math import prod
from typing import Final

from castile.config import DocumentLimits
from castile.errors import PolicyError
from castile.versions import PREFIXES, WSP, PolicyLanguage
from castile.xml import Element, escape_attribute, escape_text, inside, local_name, name_of

OPERATORS: Final = ("Policy", "All", "ExactlyOne", "PolicyReference")
_XML: Final = "http://www.w3.org/XML/1998/namespace"
_PREFIX: Final = re.compile(r"(?<![\w.-])([A-Za-z_][\w.-]*):")
_DEPTH: Final = 64
"""Of expressions, through references too: a document nests no deeper either (`Limits.depth`)."""
_TRUE: Final = frozenset({"true", "1"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was read."""

    document: str
    """Path or URL."""
    line: int

    def __str__(self) -> str:
        return f"{self.document}:{self.line}" if self.line else self.document


NOWHERE: Final = Place("", 0)
"""Of what was made rather than read."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """One policy assertion of a normalised alternative. Equal are those that say the same, wherever."""

    name: str
    """Clark notation, as ``xml`` writes it."""
    place: Place = field(default=NOWHERE, compare=False)
    attributes: tuple[tuple[str, str], ...] = ()
    """Clark names and values, sorted; those of WS-Policy itself are left out."""
    text: str = ""
    children: tuple[Assertion, ...] = ()
    """Parameters: child elements that are no nested policy, as they stand."""
    policy: tuple[Alternative, ...] | None = None
    """The nested policy, which has one alternative: an assertion whose nested policy has more is
    as many assertions (WS-Policy 1.5, 4.3.2). None: the assertion has none."""
    optional: bool = field(default=False, compare=False)
    """Of a normalised assertion: the alternative without it stands elsewhere too."""
    ignorable: bool = False
    namespaces: tuple[tuple[str, str], ...] = ()
    """Prefixes that its text or attribute values may use, as an XPath does, and their namespaces."""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Once, since a normal form is made by comparing whole assertions many times over.
        facts = (self.name, self.attributes, self.text, self.children, self.policy, self.ignorable)
        object.__setattr__(self, "_hash", hash(facts))

    def __hash__(self) -> int:
        return self._hash

    @property
    def nested(self) -> Alternative:
        """The assertions of its nested policy; none where it has no policy, or an empty one."""
        return self.policy[0] if self.policy else ()


Alternative = tuple[Assertion, ...]
"""Assertions that hold together (WS-Policy 1.5, 4.1)."""
Policy = tuple[Alternative, ...]
"""A normal form: one of these alternatives is to hold. None at all: nothing is acceptable."""
NO_POLICY: Final[Policy] = ((),)
"""Nothing is asked for."""

Follow = Callable[[Element], Policy]
"""What a PolicyReference refers to."""


def is_policy(element: Element, *kinds: str) -> bool:
    """Whether an element is WS-Policy's, of any edition, and of one of these local names."""
    namespace, local = name_of(element)
    return namespace in WSP and local in kinds


class Allowance:
    """How much may be made of the policies of one set of documents, within their limits."""

    def __init__(self, limits: DocumentLimits) -> None:
        self.limits = limits
        self._left = 100 * limits.policy_nodes

    def charge(self, alternatives: int, assertions: int, place: Place) -> None:
        """Before a normal form is made: `PolicyError` where it, or all of them, are too large."""
        if alternatives > self.limits.policy_alternatives:
            raise PolicyError(
                f"{place}: the policy has more than {self.limits.policy_alternatives} alternatives "
                "(each wsp:Optional doubles them)"
            )
        self._left -= assertions
        if assertions > self.limits.policy_nodes or self._left < 0:
            raise PolicyError(f"{place}: the policy has more than {self.limits.policy_nodes} elements")


def merge(policies: Iterable[Policy], allowance: Allowance, place: Place = NOWHERE) -> Policy:
    """What satisfies all of them: each with each (WS-Policy 1.5, 4.3.3; WS-PolicyAttachment 4).

    Counted before it is made; `PolicyError` where it is more than is allowed.
    """
    parts = [policy for policy in policies if policy != NO_POLICY]
    if len(parts) == 1:
        return parts[0]
    number = prod(map(len, parts))
    if not number:
        return ()
    allowance.charge(number, sum(number // len(part) * sum(map(len, part)) for part in parts), place)
    return _unlike(tuple(dict.fromkeys(chain(*each))) for each in product(*parts))


def _unlike(alternatives: Iterable[Alternative]) -> Policy:
    return tuple(dict.fromkeys(alternatives))


class PolicyReader:
    """Reads the expressions of one document; `follow` resolves its PolicyReferences.

    A reader reads one policy: the limits bound all that it reads.
    """

    def __init__(self, document: str, allowance: Allowance, follow: Follow, depth: int = 0) -> None:
        self._document = document
        self._allowance = allowance
        self._follow = follow
        self._nodes = 0
        self.depth = depth
        """Of what it is reading just now, with what refers to it."""

    def read(self, element: Element) -> Policy:
        """The normal form of an operator or of an assertion (WS-Policy 1.5, 4.3).

        Raises `PolicyError` for what is no policy expression, or one beyond the limits.
        """
        place = self._visit(element)
        self.depth += 1
        if self.depth > _DEPTH:
            raise PolicyError(f"{place}: the policy is nested more than {_DEPTH} deep")
        try:
            return self._expression(element, place)
        finally:
            self.depth -= 1

    def _expression(self, element: Element, place: Place) -> Policy:
        if is_policy(element, "PolicyReference"):
            return self._follow(element)
        if is_policy(element, "ExactlyOne"):
            alternatives = _unlike(chain.from_iterable(self.read(each) for each in inside(element)))
            self._allowance.charge(len(alternatives), sum(map(len, alternatives)), place)
            return alternatives
        if is_policy(element, "Policy", "All"):
            return merge([self.read(each) for each in inside(element)], self._allowance, place)
        if name_of(element)[0] in WSP:
            raise PolicyError(f"{place}: {local_name(element)} is no operator of WS-Policy")
        return self._assertion(element, place)

    def _visit(self, element: Element) -> Place:
        place = Place(self._document, element.sourceline or 0)
        self._nodes += 1
        if self._nodes > self._allowance.limits.policy_nodes:
            raise PolicyError(f"{place}: the policy has more than {self._nodes - 1} elements")
        return place

    def _assertion(self, element: Element, place: Place) -> Policy:
        operators = [each for each in inside(element) if is_policy(each, *OPERATORS)]
        nested = merge(map(self.read, operators), self._allowance, place) if operators else None
        marks = {
            name.rpartition("}")[2]: str(value).strip() in _TRUE
            for name, value in _attributes(element)
            if _of_policy(name)
        }
        optional = marks.get("Optional", False)
        bare = Assertion(
            str(element.tag),
            place,
            tuple((name, value) for name, value in _attributes(element) if not _of_policy(name)),
            _text(element),
            tuple(self._parameter(each) for each in inside(element) if not is_policy(each, *OPERATORS)),
            optional=optional,
            ignorable=marks.get("Ignorable", False),
            namespaces=_in_values(element),
        )
        variants = [bare] if nested is None else [replace(bare, policy=(each,)) for each in nested]
        return tuple((each,) for each in variants) + (NO_POLICY if optional else ())

    def _parameter(self, element: Element) -> Assertion:
        """An element below an assertion as it stands: what it means is the assertion's business."""
        place = self._visit(element)
        children = tuple(map(self._parameter, inside(element)))
        attributes = tuple(_attributes(element))
        return Assertion(
            str(element.tag), place, attributes, _text(element), children, namespaces=_in_values(element)
        )


def _attributes(element: Element) -> list[tuple[str, str]]:
    return sorted((str(name), str(value)) for name, value in element.attrib.items())


def _of_policy(name: str) -> bool:
    return name.startswith("{") and name[1:].partition("}")[0] in WSP


def _text(element: Element) -> str:
    """Its own text, whole even where a comment stands in it."""
    return "".join([element.text or "", *(each.tail or "" for each in element)]).strip()


def _in_values(element: Element) -> tuple[tuple[str, str], ...]:
    values = [_text(element), *(str(value) for value in element.attrib.values())]
    used = {prefix for value in values for prefix in _PREFIX.findall(value)}
    return tuple(sorted((str(p), str(uri)) for p, uri in element.nsmap.items() if p and p in used))


def render(policy: Policy, language: PolicyLanguage, prefixes: Mapping[str, str] = PREFIXES) -> bytes:
    """A normal form as one ``wsp:Policy`` in UTF-8, all its prefixes declared on it.

    `prefixes`: by namespace, where they are free; any others are made up.
    """
    return _Writer(policy, language, prefixes).written.encode()


class _Writer:
    """Writes a policy: the prefixes first, since values may hold some of their own."""

    def __init__(self, policy: Policy, language: PolicyLanguage, prefixes: Mapping[str, str]) -> None:
        self._wsp = language.namespace
        rows = list(_walk(policy))
        taken = {prefix for row in rows for prefix, _ in row.namespaces}
        names = chain.from_iterable((row.name, *(name for name, _ in row.attributes)) for row in rows)
        uris = dict.fromkeys((self._wsp, *(name[1:].partition("}")[0] for name in names if name[0] == "{")))
        self._prefixes = {_XML: "xml"}
        for uri in uris:
            if uri not in self._prefixes:
                self._prefixes[uri] = self._fresh(prefixes.get(uri, "n"), taken)
        declared = "".join(
            f' xmlns:{prefix}="{escape_attribute(uri)}"'
            for uri, prefix in self._prefixes.items()
            if uri != _XML
        )
        self.written = self._policy(policy, declared)

    def _fresh(self, wanted: str, taken: set[str]) -> str:
        numbers = chain([""] if wanted != "n" else [], map(str, count(1)))
        prefix = next(wanted + each for each in numbers if wanted + each not in taken)
        taken.add(prefix)
        return prefix

    def _qualified(self, name: str) -> str:
        uri, _, local = name.rpartition("}")
        return f"{self._prefixes[uri[1:]]}:{local}" if uri else local

    def _policy(self, policy: Policy, declared: str = "") -> str:
        wsp = self._prefixes[self._wsp]
        inner = "".join(f"<{wsp}:All>{''.join(map(self._assertion, each))}</{wsp}:All>" for each in policy)
        return f"<{wsp}:Policy{declared}><{wsp}:ExactlyOne>{inner}</{wsp}:ExactlyOne></{wsp}:Policy>"

    def _assertion(self, row: Assertion) -> str:
        name = self._qualified(row.name)
        own = [(f"xmlns:{prefix}", uri) for prefix, uri in row.namespaces]
        own += [(self._qualified(label), value) for label, value in row.attributes]
        if row.ignorable:
            own.append((f"{self._prefixes[self._wsp]}:Ignorable", "true"))
        start = "".join(f' {label}="{escape_attribute(value)}"' for label, value in own)
        inner = "" if row.policy is None else self._policy(row.policy)
        inner += "".join(map(self._assertion, row.children)) + escape_text(row.text)
        return f"<{name}{start}>{inner}</{name}>"


def _walk(policy: Policy) -> Iterator[Assertion]:
    for assertion in chain(*policy):
        yield assertion
        yield from _walk(assertion.policy or ())
        yield from _walk((assertion.children,))
