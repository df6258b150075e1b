"""Attacks on one protected message: every signed part × every form, as bytes.

The forms are those of the literature on XML signature wrapping, read for SOAP: a part is
doubled, moved, wrapped, emptied, renamed or aimed at another receiver, with the same, a new or
no id, before or behind the original. Nothing here knows a key, as an attacker on the way doesn't.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from random import Random

from lxml import etree

from castile.versions import DS, WSA, WSRM, WSSE, WSU, XENC

ID = f"{{{WSU}}}Id"
EVIL = "evil"
_XML_ID = "{http://www.w3.org/XML/1998/namespace}id"


@dataclass(frozen=True)
class Mutant:
    """A changed message and how it was changed."""

    part: str
    form: str
    payload: bytes

    @property
    def name(self) -> str:
        return f"{self.part}: {self.form}"


class Document:
    """A message taken apart by position."""

    def __init__(self, payload: bytes) -> None:
        self.root = etree.fromstring(payload)
        self.header, self.body = self.root[0], self.root[1]
        self.security = next(block for block in self.header if block.tag == f"{{{WSSE}}}Security")

    def parts(self) -> list[etree._Element]:
        """Everything that is signed, and the tokens that keys come from."""
        blocks = [block for block in self.header if block is not self.security]
        return [self.body, *blocks, *self.security]

    def at(self, index: int) -> etree._Element:
        return self.parts()[index]

    def bytes(self) -> bytes:
        return etree.tostring(self.root)


Form = Callable[[Document, etree._Element], None]


def evil(part: etree._Element) -> etree._Element:
    """A copy that says something else."""
    twin = deepcopy(part)
    twin.tail = None
    if part_name(part) == "Body":
        for child in list(twin):
            twin.remove(child)
        transfer = etree.SubElement(twin, "{urn:transfers}Transfer")
        etree.SubElement(transfer, "{urn:transfers}amount").text = "1000000"
        return twin
    for leaf in twin.iter():
        if leaf.text and not len(leaf):
            leaf.text = {True: "7"}.get(leaf.text.isdigit(), f"urn:{EVIL}:{leaf.text[-4:]}")
            return twin
    for leaf in twin.iter():
        for name in ("Upper", "Value", "URI"):
            if leaf.get(name):
                leaf.set(name, "7")
                return twin
    twin.text = EVIL
    return twin


def _twin(how: str, place: str) -> Form:
    """A twin that says something else, beside the signed part."""

    def form(document: Document, part: etree._Element) -> None:
        twin = evil(part)
        for name in (ID, "Id"):
            if twin.get(name) is not None and how == "no id":
                del twin.attrib[name]
            elif twin.get(name) is not None and how == "new id":
                twin.set(name, "_evil-1")
        (part.addprevious if place == "before" else part.addnext)(twin)

    return form


def _replaced(how: str, park: Callable[[Document, etree._Element, etree._Element], None]) -> Form:
    """The twin takes the part's place; the signed original is parked somewhere else."""

    def form(document: Document, part: etree._Element) -> None:
        twin = evil(part)
        for name in (ID, "Id"):
            if twin.get(name) is not None and how == "no id":
                del twin.attrib[name]
            elif twin.get(name) is not None and how == "new id":
                twin.set(name, "_evil-1")
        part.addprevious(twin)
        part.getparent().remove(part)  # type: ignore[union-attr]
        park(document, part, twin)

    return form


def _in_header(document: Document, part: etree._Element, twin: etree._Element) -> None:
    etree.SubElement(document.header, "{urn:evil}Wrapper").append(part)


def _in_other_role(document: Document, part: etree._Element, twin: etree._Element) -> None:
    wrapper = etree.Element("{urn:evil}Wrapper")
    soap = space_of(document.root)
    wrapper.set(f"{{{soap}}}role", "urn:other")
    wrapper.set(f"{{{soap}}}actor", "urn:other")
    wrapper.append(part)
    document.header.insert(0, wrapper)


def _in_security(document: Document, part: etree._Element, twin: etree._Element) -> None:
    document.security.append(part)


def _in_object(document: Document, part: etree._Element, twin: etree._Element) -> None:
    signature = document.security.find(f"{{{DS}}}Signature")
    holder = document.security if signature is None else signature
    etree.SubElement(holder, f"{{{DS}}}Object").append(part)


def _in_signature(document: Document, part: etree._Element, twin: etree._Element) -> None:
    signature = document.security.find(f"{{{DS}}}Signature")
    (document.security if signature is None else signature).append(part)


def _in_twin(document: Document, part: etree._Element, twin: etree._Element) -> None:
    twin.append(part)


def _in_body(document: Document, part: etree._Element, twin: etree._Element) -> None:
    document.root[-1].append(part)


def _at_end(document: Document, part: etree._Element, twin: etree._Element) -> None:
    document.root.append(part)


def _at_start(document: Document, part: etree._Element, twin: etree._Element) -> None:
    document.root.insert(0, part)


def _as_header(document: Document, part: etree._Element, twin: etree._Element) -> None:
    document.header.insert(0, part)


def _in_second_header(document: Document, part: etree._Element, twin: etree._Element) -> None:
    second = etree.Element(document.header.tag)
    second.append(part)
    document.header.addnext(second)


def _changed(document: Document, part: etree._Element) -> None:
    part.getparent().replace(part, evil(part))  # type: ignore[union-attr]


def _removed(document: Document, part: etree._Element) -> None:
    part.getparent().remove(part)  # type: ignore[union-attr]


def _without_id(document: Document, part: etree._Element) -> None:
    for name in (ID, "Id"):
        part.attrib.pop(name, None)


def _other_id_attribute(name: str) -> Form:
    """The id under another attribute, on a twin elsewhere."""

    def form(document: Document, part: etree._Element) -> None:
        value = part.get(ID) or part.get("Id")
        if value is None:
            return
        twin = evil(part)
        for known in (ID, "Id"):
            twin.attrib.pop(known, None)
        twin.set(name, value)
        etree.SubElement(document.header, "{urn:evil}Wrapper").append(twin)

    return form


def _comment(document: Document, part: etree._Element) -> None:
    """A comment splits the first text: what C14N doesn't see, a reader of `.text` stops at."""
    for leaf in part.iter():
        if leaf.text and not len(leaf):
            text = leaf.text
            leaf.text = text[: len(text) // 2]
            comment = etree.Comment("x")
            comment.tail = text[len(text) // 2 :]
            leaf.append(comment)
            return


def _cdata(document: Document, part: etree._Element) -> None:
    """The same text written otherwise: canonically equal, so it may be accepted."""
    for leaf in part.iter():
        if leaf.text and not len(leaf):
            leaf.text = etree.CDATA(leaf.text)
            return


def _role(document: Document, part: etree._Element) -> None:
    soap = space_of(document.root)
    part.set(f"{{{soap}}}role", "urn:other")


def _extra_child(document: Document, part: etree._Element) -> None:
    etree.SubElement(part, "{urn:evil}Extra").text = EVIL


def _extra_attribute(document: Document, part: etree._Element) -> None:
    part.set("{urn:evil}extra", EVIL)


def _renamed(document: Document, part: etree._Element) -> None:
    other = _OTHERS.get(space_of(part), "urn:evil")
    part.tag = f"{{{other}}}{part_name(part)}"


_OTHERS = {
    **dict(zip(WSA, reversed(list(WSA)), strict=True)),
    **dict(zip(WSRM, reversed(list(WSRM)), strict=True)),
}


def _other_edition_twin(document: Document, part: etree._Element) -> None:
    """An unsigned twin of the other edition of the same specification."""
    twin = evil(part)
    for element in twin.iter():
        if space_of(element) in _OTHERS:
            element.tag = f"{{{_OTHERS[space_of(element)]}}}{part_name(element)}"
    twin.attrib.pop(ID, None)
    part.addprevious(twin)


def _same_twin(document: Document, part: etree._Element) -> None:
    part.addnext(deepcopy(part))


def _moved_to_header_end(document: Document, part: etree._Element) -> None:
    part.getparent().remove(part)  # type: ignore[union-attr]
    document.header.append(part)


def _default_namespace(document: Document, part: etree._Element) -> None:
    """An outer default namespace, under which an element without one would change its name."""
    text = etree.tostring(document.root).replace(b"Envelope ", b'Envelope xmlns="urn:evil" ', 1)
    document.root = etree.fromstring(text)


def _rebound_prefixes(document: Document, part: etree._Element) -> None:
    """Prefixes that only values could use are bound to something else outside."""
    text = etree.tostring(document.root)
    scope = b'Envelope xmlns:xsd="urn:evil" xmlns:m="urn:evil" xmlns:q="urn:evil" '
    document.root = etree.fromstring(text.replace(b"Envelope ", scope, 1))


def _wrapped_ciphertext(document: Document, part: etree._Element) -> None:
    """The EncryptedData moves below an element of the attacker's, where it stands."""
    data = part if part.tag == f"{{{XENC}}}EncryptedData" else part.find(f"{{{XENC}}}EncryptedData")
    if data is None or data.getparent() is None:
        return
    wrapper = etree.Element("{urn:evil}Wrapper")
    data.addprevious(wrapper)
    wrapper.append(data)


def _flipped_type(document: Document, part: etree._Element) -> None:
    data = part if part.tag == f"{{{XENC}}}EncryptedData" else part.find(f"{{{XENC}}}EncryptedData")
    if data is not None:
        kind = data.get("Type", "")
        data.set("Type", f"{XENC}Element" if kind.endswith("Content") else f"{XENC}Content")


_PARKS: dict[str, Callable[[Document, etree._Element, etree._Element], None]] = {
    "in a wrapper header": _in_header,
    "in a header of another role": _in_other_role,
    "in the Security header": _in_security,
    "in ds:Object": _in_object,
    "in the Signature": _in_signature,
    "in its twin": _in_twin,
    "in the Body": _in_body,
    "at the envelope's end": _at_end,
    "at the envelope's start": _at_start,
    "as a header block": _as_header,
    "in a second Header": _in_second_header,
}

FORMS: dict[str, Form] = {
    **{
        f"twin {place}, {how}": _twin(how, place)
        for place in ("before", "behind")
        for how in ("same id", "new id", "no id")
    },
    **{
        f"replaced ({how}), original {where}": _replaced(how, park)
        for how in ("same id", "new id", "no id")
        for where, park in _PARKS.items()
    },
    **{f"id again as {name}": _other_id_attribute(name) for name in ("Id", "ID", "AssertionID", _XML_ID)},
    "changed in place": _changed,
    "removed": _removed,
    "without id": _without_id,
    "comment inside": _comment,
    "as CDATA": _cdata,
    "another role": _role,
    "extra child": _extra_child,
    "extra attribute": _extra_attribute,
    "another namespace": _renamed,
    "twin of another edition": _other_edition_twin,
    "twin, the same": _same_twin,
    "moved to the header's end": _moved_to_header_end,
    "outer default namespace": _default_namespace,
    "outer prefixes rebound": _rebound_prefixes,
    "ciphertext wrapped": _wrapped_ciphertext,
    "ciphertext of another type": _flipped_type,
}
"""Every form by name."""


def part_name(part: etree._Element) -> str:
    return str(part.tag).rpartition("}")[2]


def space_of(element: etree._Element) -> str:
    return str(element.tag)[1:].rpartition("}")[0]


def mutants(payload: bytes) -> Iterator[Mutant]:
    """Every part of a message under every form; what a form can't change is left out."""
    plain = Document(payload).bytes()
    for index, part in enumerate(Document(payload).parts()):
        for name, form in FORMS.items():
            document = Document(payload)
            form(document, document.at(index))
            octets = document.bytes()
            if octets != plain:
                yield Mutant(part_name(part), name, octets)


def pairs(payload: bytes, seed: int, count: int) -> Iterator[Mutant]:
    """Two parts changed at once, drawn from a seed."""
    random = Random(seed)
    names = list(FORMS)
    size = len(Document(payload).parts())
    for _ in range(count):
        document = Document(payload)
        first, second = document.at(random.randrange(size)), document.at(random.randrange(size))
        one, two = random.choice(names), random.choice(names)
        label = f"{part_name(first)}+{part_name(second)}"
        try:
            FORMS[one](document, first)
            FORMS[two](document, second)
        except (AttributeError, ValueError):
            continue  # the first change took away what the second one needs
        yield Mutant(label, f"{one}; {two}", document.bytes())


def swaps(payload: bytes, other: bytes) -> Iterator[Mutant]:
    """Each part of one signed message in the place of the same part of another."""
    for index, part in enumerate(Document(payload).parts()):
        document, donor = Document(payload), Document(other)
        mine = document.at(index)
        candidates = [found for found in donor.parts() if found.tag == mine.tag]
        for which, theirs in enumerate(candidates):
            for how in ("its own id", "the id that was there"):
                document = Document(payload)
                mine, graft = document.at(index), deepcopy(theirs)
                for name in (ID, "Id"):
                    if how == "the id that was there" and mine.get(name) is not None:
                        graft.set(name, mine.get(name) or "")
                graft.tail = None
                mine.getparent().replace(mine, graft)  # type: ignore[union-attr]
                yield Mutant(part_name(part), f"swapped with number {which} ({how})", document.bytes())


def flips(payload: bytes, seed: int, count: int) -> Iterator[Mutant]:
    """One byte changed, anywhere."""
    random = Random(seed)
    for _ in range(count):
        position = random.randrange(len(payload))
        octet = payload[position] ^ (1 << random.randrange(8))
        changed = payload[:position] + bytes((octet,)) + payload[position + 1 :]
        yield Mutant("byte", f"{position}: {payload[position]:#04x} to {octet:#04x}", changed)
