"""Signature wrapping: no mutant of a message is accepted with another meaning."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from lxml import etree

from castile import xml
from castile.errors import PeerError, SecurityFailure
from castile.messages import soap
from castile.messages.security import ID
from castile.security import Expectation, Trace, Verified, checks, reading, unprotect
from castile.versions import FAMILIES, SOAP_1_1, SOAP_1_2
from tests.security import mutants
from tests.security.made import NOW, SIDES, Kind, Side, kinds, receive
from tests.security.recorded import LIMITS, TIMERS, opened

KINDS = [kind.name for kind in kinds(FAMILIES["1.3"])] + ["LastMessage"]
PLAIN = [side for side in SIDES if side.suite == "Basic256"]
EVERY = [
    pytest.param(side, kind.name, id=f"{side.family.name}-{kind.name}")
    for side in PLAIN
    for kind in kinds(side.family)
]
"""Each kind of message that a family has."""


def meaning(verified: Verified) -> tuple[object, ...]:
    """All that reliability and the application can see of a message."""
    return (
        sorted(xml.canonical(header.element) for header in verified.headers),  # order says nothing
        verified.body_content,
        [xml.canonical(child) for child in verified.body],
        verified.principal,
        verified.primary,
        verified.timestamp,
    )


def accepted(side: Side, kind: Kind, attacks: Iterable[mutants.Mutant], truth: object) -> list[str]:
    """The mutants that are accepted though they say something else."""
    fooled = []
    count = 0
    for mutant in attacks:
        count += 1
        try:
            verified = receive(mutant.payload, side.expectation(kind), side.keys())
        except PeerError:
            continue
        if meaning(verified) != truth:
            fooled.append(mutant.name)
    assert count > 0
    return fooled


def kind_of(side: Side, name: str, version: object = SOAP_1_2) -> Kind:
    return next(kind for kind in kinds(side.family, version) if kind.name == name)  # type: ignore[arg-type]


@pytest.mark.row("MS-06")
@pytest.mark.row("MS-07")
@pytest.mark.parametrize("version", [SOAP_1_1, SOAP_1_2], ids=lambda version: version.name)
@pytest.mark.parametrize(("side", "name"), EVERY)
def test_no_part_under_any_form_changes_the_meaning(side: Side, version: object, name: str) -> None:
    kind = kind_of(side, name, version)
    payload = side.protected(kind).payload
    truth = meaning(receive(payload, side.expectation(kind), side.keys()))
    assert accepted(side, kind, mutants.mutants(payload), truth) == []


def test_the_mutants_fool_a_reader_that_looks_at_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator's teeth: without three of the rules many mutants would pass."""
    side = PLAIN[1]
    kind = kind_of(side, "application")
    payload = side.protected(kind).payload
    monkeypatch.setattr(checks, "check_headers", lambda headers, covered, parts: None)
    monkeypatch.setattr(reading.Reading, "_claim", lambda self, names: None)

    def read_by_name(octets: bytes) -> list[bytes]:
        envelope = opened(octets)
        unprotect(envelope, side.keys(), side.expectation(kind), NOW, LIMITS, TIMERS)
        first = {block.tag: block for block in reversed(envelope.headers) if block is not envelope.security}
        return sorted(xml.canonical(block) for block in first.values())

    truth = read_by_name(payload)
    fooled = set()
    for mutant in mutants.mutants(payload):
        try:
            if read_by_name(mutant.payload) != truth:
                fooled.add(mutant.name)
        except PeerError:
            continue
    assert len(fooled) >= 40


@pytest.mark.parametrize("name", ["RST", "CreateSequence", "application", "acknowledgement"])
@pytest.mark.parametrize("side", PLAIN, ids=lambda side: side.family.name)
def test_no_pair_of_changes_changes_the_meaning(side: Side, name: str) -> None:
    kind = kind_of(side, name)
    payload = side.protected(kind).payload
    truth = meaning(receive(payload, side.expectation(kind), side.keys()))
    assert accepted(side, kind, mutants.pairs(payload, seed=11, count=1000), truth) == []


@pytest.mark.row("CO-10")
@pytest.mark.parametrize(("side", "name"), EVERY)
def test_no_part_can_be_taken_from_another_message(side: Side, name: str) -> None:
    kind = kind_of(side, name)
    payload = side.protected(kind, seed=1).payload
    truth = meaning(receive(payload, side.expectation(kind), side.keys()))
    for other in kinds(side.family):
        if other.bootstrap == kind.bootstrap:
            donor = side.protected(other, seed=2).payload
            assert accepted(side, kind, mutants.swaps(payload, donor), truth) == []


@pytest.mark.parametrize("name", ["RST", "RSTR", "CreateSequence", "application"])
@pytest.mark.parametrize("side", PLAIN, ids=lambda side: side.family.name)
def test_no_flipped_byte_changes_the_meaning(side: Side, name: str) -> None:
    kind = kind_of(side, name)
    payload = side.protected(kind).payload
    truth = meaning(receive(payload, side.expectation(kind), side.keys()))
    assert accepted(side, kind, mutants.flips(payload, seed=5, count=1500), truth) == []


@pytest.mark.row("OP-19")
@pytest.mark.parametrize("name", ["RST", "CreateSequence", "application"])
def test_a_trace_survives_every_mutant_and_says_what_is_wrong(name: str) -> None:
    """With a trace checking goes on behind a failure: it must neither crash nor keep silent."""
    side = PLAIN[1]
    kind = kind_of(side, name)
    payload = side.protected(kind).payload
    anything = Expectation(None, None, kind.request)
    attacks = [*mutants.mutants(payload), *mutants.flips(payload, seed=3, count=300)]
    for mutant in attacks:
        envelope, trace = opened_or_none(mutant.payload), Trace()
        if envelope is None:
            continue
        refusal = None
        try:
            unprotect(envelope, side.keys(), anything, NOW, LIMITS, TIMERS, trace)
        except SecurityFailure as error:
            refusal = str(error)
        texts = [problem.text for problem in trace.problems]
        assert refusal in texts or (refusal is None and texts == []), mutant.name


def opened_or_none(payload: bytes) -> soap.Envelope | None:
    try:
        return opened(payload)
    except PeerError:
        return None


@pytest.mark.row("MS-05")
@pytest.mark.parametrize("name", ["Id", "ID", "AssertionID", "{http://www.w3.org/XML/1998/namespace}id", ID])
def test_an_id_that_occurs_twice_is_refused_in_every_attribute(name: str) -> None:
    side = PLAIN[0]
    kind = kind_of(side, "CreateSequence")
    payload = side.protected(kind).payload
    document = mutants.Document(payload)
    wrapper = etree.SubElement(document.header, "{urn:other}Wrapper")
    wrapper.set(name, document.body.get(ID) or "")
    with pytest.raises(PeerError, match="twice"):
        receive(document.bytes(), side.expectation(kind), side.keys())
