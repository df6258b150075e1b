"""Which policies hold for what: references, subjects, the merge (WS-PolicyAttachment 1.5, 3 and 4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from castile.errors import PolicyError, UsageError
from castile.messages.policy import (
    NO_POLICY,
    NOWHERE,
    Allowance,
    Alternative,
    Assertion,
    Place,
    Policy,
    PolicyReader,
    is_policy,
    merge,
)
from castile.policy.definitions import SOAP_EXTENSIONS
from castile.policy.documents import POLICY_URIS, WSDL, Documents, resolve
from castile.policy.findings import Finding
from castile.policy.vocabulary import RMP_1_0, RMP_1_1, SP, WSAW
from castile.versions import WSP, WSU
from castile.xml import Element, inside, local_name, name_of

_IDS: Final = (f"{{{WSU}}}Id", "{http://www.w3.org/XML/1998/namespace}id", "Id")
_EXTENSIONS: Final = frozenset({f"{{{WSAW}}}UsingAddressing", f"{{{WSAW}}}Anonymous"})
"""WSDL elements that say what an assertion says (WS-Addressing 1.0 WSDL Binding, 3)."""
_REQUIRED: Final = f"{{{WSDL}}}required"
_UNDERSTOOD: Final = frozenset({*SOAP_EXTENSIONS, *WSP})
_BINDINGS: Final = frozenset(
    f"{{{namespace}}}{name}Binding" for namespace in SP for name in ("Transport", "Symmetric", "Asymmetric")
)
_RELIABILITY: Final = frozenset(f"{{{namespace}}}RMAssertion" for namespace in (RMP_1_0, RMP_1_1))
OF_ENDPOINTS: Final = _BINDINGS | _RELIABILITY
"""What an endpoint has one of: on an operation or a message it can't be an answer for that alone
(WS-RM Policy 1.2, 2.3; WS-SP 1.2, 7)."""

Direction = str


class Attachments:
    """The policies of a set of documents, and what each WSDL element has of them."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._limits = documents.limits
        self._allowance = Allowance(documents.limits)
        self._ids: dict[tuple[str, str], list[Element]] = {}
        self._names: dict[str, list[tuple[str, Element]]] = {}
        self._read: dict[tuple[str, Element], Policy] = {}
        self._open: dict[tuple[str, Element], PolicyReader] = {}
        self._of: dict[Element, Policy] = {}
        self._merged: dict[tuple[int, ...], tuple[Policy, list[Policy]]] = {}
        for location, root in documents:
            for namespace in WSP:
                for policy in root.iter(f"{{{namespace}}}Policy"):
                    self._index(location, policy)

    def _index(self, location: str, policy: Element) -> None:
        for name in _IDS:
            if (value := policy.get(name)) is not None:
                self._ids.setdefault((location, value), []).append(policy)
        if (uri := policy.get("Name")) is not None:
            self._names.setdefault(uri, []).append((location, policy))

    def of(self, location: str, element: Element) -> Policy:
        """What is attached to a WSDL element, as children or by ``wsp:PolicyURIs`` (3.3).

        Raises `PolicyError` for a reference that leads nowhere or in a circle, for an edition
        that castile doesn't read, and beyond the limits.
        """
        if element not in self._of:
            self._of[element] = self.merged(self._parts(location, element), _place(location, element))
        return self._of[element]

    def merged(self, policies: Iterable[Policy], place: Place = NOWHERE) -> Policy:
        """`merge`, made once for the same policies: most messages of a WSDL have the same ones."""
        parts = [policy for policy in policies if policy != NO_POLICY]
        if len(parts) < 2:
            return parts[0] if parts else NO_POLICY
        key = tuple(map(id, parts))
        if key not in self._merged:
            # With its parts, so that their ids stay theirs.
            self._merged[key] = (merge(parts, self._allowance, place), parts)
        return self._merged[key][0]

    def _parts(self, location: str, element: Element) -> list[Policy]:
        parts: list[Policy] = []
        for child in inside(element):
            namespace, local = name_of(child)
            if is_policy(child, "Policy"):
                parts.append(self._policy(location, child))
            elif is_policy(child, "PolicyReference"):
                parts.append(self._follow(location, child, child.get("URI") or ""))
            elif local in ("Policy", "PolicyReference"):
                place = _place(location, child)
                raise PolicyError(f"{place}: a policy of the edition {namespace}, which castile can't read")
            elif child.tag in _EXTENSIONS or (_required(child) and namespace not in _UNDERSTOOD):
                parts.append(((_extension(location, child),),))
        for name, uris in sorted(element.attrib.items()):
            if str(name).rpartition("}")[2] != "PolicyURIs":
                continue
            if name not in POLICY_URIS:
                place = _place(location, element)
                raise PolicyError(f"{place}: the attribute {name!s} is of no edition that castile can read")
            parts += [self._follow(location, element, uri) for uri in str(uris).split()]
        return parts

    def policy(self, location: str) -> Policy:
        """The policy that a document is. Raises `UsageError` where its root isn't ``wsp:Policy``."""
        root = self._documents.root(location)
        if root is None or not is_policy(root, "Policy"):
            raise UsageError(f"{location}: not a policy")
        return self._policy(location, root)

    def _policy(self, location: str, element: Element) -> Policy:
        key = (location, element)
        if key in self._read:
            return self._read[key]
        place = _place(location, element)
        if key in self._open:
            raise PolicyError(f"{place}: the policy refers to itself")
        if len(self._open) >= self._limits.imports:
            raise PolicyError(f"{place}: policies refer to each other more than {self._limits.imports} deep")
        reader = PolicyReader(
            location,
            self._allowance,
            lambda reference: self._follow(location, reference, reference.get("URI") or ""),
            max((each.depth for each in self._open.values()), default=0),
        )
        self._open[key] = reader
        try:
            self._read[key] = reader.read(element)
        finally:
            del self._open[key]
        return self._read[key]

    def _follow(self, location: str, element: Element, uri: str) -> Policy:
        """What a reference refers to (WS-Policy 1.5, 4.3.4; WS-PolicyAttachment, 3.4)."""
        uri = uri.strip()
        target, _, fragment = uri.partition("#")
        found = [] if uri.startswith("#") else list(self._names.get(uri, ()))
        if not found:
            where = resolve(location, target) if target else location
            root = self._documents.root(where)
            if fragment:
                found = [(where, each) for each in self._ids.get((where, fragment), ())]
            elif root is not None and is_policy(root, "Policy"):
                found = [(where, root)]
        if len(found) == 1:
            return self._policy(*found[0])
        raise PolicyError(self._dangling(location, element, uri, len(found)))

    def _dangling(self, location: str, element: Element, uri: str, found: int) -> str:
        start = f"{_place(location, element)}: {local_name(element)} refers to the policy {uri!r}, "
        if found:
            return start + f"which stands there {found} times: an Id or Name must be unique"
        reason = self._documents.missing.get(resolve(location, uri.partition("#")[0])) if uri else None
        if reason is not None and not uri.startswith("#"):
            return start + f"which could not be had: {reason}"
        known = chain((name for where, name in self._ids if where == location), self._names)
        some = ", ".join(islice(known, 5))
        there = f"there are {some}" if some else "no policy has an Id there"
        return start + f"which is nowhere to be found ({there})"

    def external(self) -> Iterator[Place]:
        """Where policies are attached from outside, by ``wsp:PolicyAttachment``, which isn't read."""
        for location, root in self._documents:
            for namespace in WSP:
                for element in root.iter(f"{{{namespace}}}PolicyAttachment"):
                    yield _place(location, element)


def _place(location: str, element: Element) -> Place:
    return Place(location, element.sourceline or 0)


def _extension(location: str, element: Element) -> Assertion:
    text = "".join(element.itertext("*")).strip()
    return Assertion(str(element.tag), _place(location, element), text=text, optional=not _required(element))


def _required(element: Element) -> bool:
    """A WSDL extension that must be understood counts as an assertion (WSDL 1.1, 2.1.3)."""
    return (element.get(_REQUIRED) or "").strip() in ("true", "1")


@dataclass(frozen=True, slots=True)
class Effective:
    """The policies that hold for an endpoint and for each of its messages."""

    endpoint: Policy
    messages: Mapping[tuple[str, Direction], Policy]
    findings: tuple[Finding, ...] = ()


def effective(
    endpoint: Policy, messages: Mapping[tuple[str, Direction], Policy], attachments: Attachments, name: str
) -> Effective:
    """Merge the endpoint's policy into that of each message (WS-PolicyAttachment, 4.1).

    `messages` have what is attached to operation and message. What only an endpoint can have is
    moved there if all messages agree about it, else `PolicyError` (features PO-05).
    """
    merged = {key: attachments.merged([endpoint, policy]) for key, policy in messages.items()}
    there = _of_endpoint(endpoint)
    unlike = {id(policy): policy for policy in merged.values()}
    parts = {each: _of_endpoint(policy) for each, policy in unlike.items()}
    asked = {key: parts[id(policy)] for key, policy in merged.items() if policy and key[1] != "fault"}
    if all(each == there for each in asked.values()):
        return Effective(endpoint, merged)
    stray = _stray(there, asked.values())
    first = next(iter(asked.values()))
    if any(each != first for each in asked.values()):
        holders = [f"{op} ({direction})" for (op, direction), each in asked.items() if each != there]
        raise PolicyError(
            f"{stray.place}: {stray.name} stands on {', '.join(holders[:3])} but not alike on every message "
            f"of {name}: it is the endpoint's (attach it to the binding)"
        )
    moved = tuple(dict.fromkeys(tuple(_ours(each)) for each in next(filter(None, merged.values()))))
    whole = _consistent(attachments.merged([endpoint, moved], stray.place), stray)
    finding = Finding(
        "warning",
        "moved-to-endpoint",
        f"{stray.name} stands on every message of {name}: taken as the endpoint's, where it belongs",
        stray.place,
    )
    whole_messages = {key: attachments.merged([whole, policy]) for key, policy in messages.items()}
    return Effective(whole, whole_messages, (finding,))


def _ours(alternative: Alternative) -> Iterator[Assertion]:
    return (each for each in alternative if each.name in OF_ENDPOINTS)


def _of_endpoint(policy: Policy) -> frozenset[frozenset[Assertion]]:
    return frozenset(frozenset(_ours(each)) for each in policy)


def _stray(
    there: frozenset[frozenset[Assertion]], asked: Iterable[frozenset[frozenset[Assertion]]]
) -> Assertion:
    """The first assertion that isn't where it belongs."""
    known = frozenset(chain(*there))
    found = {each for policy in asked for alternative in policy for each in alternative}
    return min(found - known or found, key=lambda each: (each.place.document, each.place.line))


def _consistent(policy: Policy, stray: Assertion) -> Policy:
    """Without the alternatives that have two bindings, which the merge of two choices makes."""

    def single(alternative: Alternative, names: frozenset[str]) -> bool:
        return sum(each.name in names for each in alternative) < 2

    kept = tuple(each for each in policy if single(each, _BINDINGS) and single(each, _RELIABILITY))
    if not kept:
        raise PolicyError(f"{stray.place}: {stray.name} contradicts the endpoint's own")
    return kept
