"""What real peers wrote: read, and written again with the same meaning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from castile.errors import PeerError
from castile.messages import addressing, reliability, soap, trust
from castile.versions import WSA, WSRM, WST, Addressing, Reliability
from castile.xml import Element, canonical, inside, name_of, parse
from tests.conftest import shared
from tests.messages.elements import LIMITS, Headers, element, tree

PEERS: Final = ("wcf", "cxf", "gsoap", "rampart")
BODIES: Final = (
    reliability.CreateSequence,
    reliability.CreateSequenceResponse,
    reliability.CloseSequence,
    reliability.CloseSequenceResponse,
    reliability.TerminateSequence,
    reliability.TerminateSequenceResponse,
)
BY_NAME: Final = {kind.__name__: kind for kind in BODIES}


def recordings(peer: str) -> Iterator[tuple[str, soap.Envelope]]:
    """Every message of a peer, under its name."""
    folder = shared("vectors", peer)
    for path in sorted(folder.rglob("*.xml")):
        octets = path.read_bytes()
        yield name(path, folder), soap.parse(parse(octets, LIMITS), LIMITS, len(octets))


def name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder))


def editions(envelope: soap.Envelope) -> tuple[Addressing | None, Reliability | None]:
    namespaces = {name_of(node)[0] for node in (*envelope.headers, *inside(envelope.body))}
    rows = [WSRM[namespace] for namespace in namespaces & WSRM.keys()]
    assert len(rows) <= 1
    return addressing.edition_of(envelope.headers), rows[0] if rows else None


def bare(node: Element) -> object:
    """What a header says, without ids and the writer's choice of mustUnderstand."""
    tag, attributes, text, children = tree(node)
    kept = tuple(pair for pair in attributes if not pair[0].endswith(("}Id", "}mustUnderstand")))
    return tag, kept, text, children


@pytest.mark.parametrize("peer", PEERS)
def test_addressing_of(peer: str) -> None:
    count = 0
    for where, envelope in recordings(peer):
        edition = addressing.edition_of(envelope.headers)
        if edition is None:
            continue
        found = addressing.parse(envelope.headers, edition)
        written = [
            element(header.render(envelope.soap, None)) for header in addressing.render(found, edition)
        ]
        assert addressing.parse(written, edition) == found, where
        theirs = {
            name_of(node)[1]: bare(node)
            for node in envelope.headers
            if name_of(node)[0] in WSA and not (node.text or "").endswith("/unspecified")
        }
        ours = {name_of(node)[1]: bare(node) for node in written}
        assert ours == theirs, where
        count += 1
    assert count >= 6


@pytest.mark.row("RM-05")
@pytest.mark.row("F22")
@pytest.mark.parametrize("peer", ["wcf", "cxf", "gsoap"])
def test_reliability_headers_of(peer: str) -> None:
    seen: set[tuple[str, str]] = set()
    for where, envelope in recordings(peer):
        _, edition = editions(envelope)
        if edition is None:
            continue
        found = reliability.parse_headers(envelope.headers, edition, LIMITS)
        items: list[Headers] = [*found.acknowledgements, *found.ack_requested]
        items += [found.sequence] if found.sequence else []
        items += [reliability.UsesSequenceSTR()] if found.uses_sequence_str else []
        written = [element(item.render(edition).render(envelope.soap, None)) for item in items]
        again = reliability.parse_headers(written, edition, LIMITS)
        assert again == found, where
        theirs = [node for node in envelope.headers if name_of(node)[0] == edition.namespace]
        assert len(theirs) == len(written), where
        for node in theirs:
            assert sorted_bare(node) in [sorted_bare(other) for other in written], where
            seen.add((edition.name, name_of(node)[1]))
    names = {local for _, local in seen}
    assert {"Sequence", "SequenceAcknowledgement"} <= names


def sorted_bare(node: Element) -> object:
    """Children in a fixed order and without None beside ranges: gSOAP's and CXF's departures."""
    tag, attributes, text, children = tree(node)
    kept = tuple(pair for pair in attributes if not pair[0].endswith(("}Id", "}mustUnderstand")))
    said = [child for child in children if not child[0].endswith("}None") or len(children) == 2]
    return tag, kept, text, sorted(map(str, said))


@pytest.mark.row("RM-10")
@pytest.mark.row("F22")
@pytest.mark.parametrize("peer", ["wcf", "cxf", "gsoap"])
def test_lifecycle_bodies_of(peer: str) -> None:
    seen: set[str] = set()
    for where, envelope in recordings(peer):
        edition, rm = editions(envelope)
        children = inside(envelope.body)
        if rm is None or edition is None or len(children) != 1:
            continue
        namespace, local = name_of(children[0])
        if namespace != rm.namespace:
            continue
        found = BY_NAME[local].parse(children[0], rm, edition)
        octets = found.render(rm, edition)
        assert canonical(element(octets)) == octets
        assert BY_NAME[local].parse(element(octets), rm, edition) == found, where
        # What 1.0 doesn't have (an Offer's Endpoint) is read and not written.
        if not (peer == "gsoap" and rm.has_last_message):
            assert bare_body(element(octets)) == bare_body(children[0]), where
        seen.add(f"{rm.name} {local}")
    assert len(seen) >= (9 if peer == "wcf" else 4)


def bare_body(node: Element) -> object:
    """Without the nil and duration spellings that differ between writers."""
    return tree(node)


TRUSTED: Final = {
    "wcf": [
        "ws05-user-nonego-sc-rm-tmc/01-request.xml",
        "ws05-user-nonego-sc-rm-tmc/02-response.xml",
        "ws05-user-nonego-sc-rm-tmc/13-request.xml",
        "ws05-user-nonego-sc-rm-tmc/14-response.xml",
        "ws05-cert-nonego-sc-norm-renew/17-request.xml",
        "ws05-cert-nonego-sc-norm-renew/18-response.xml",
        "ws07-user-nonego-sc-norm/07-request.xml",
        "ws07-user-nonego-sc-norm/08-response.xml",
    ],
    "rampart": ["rst04.xml", "rstr04.xml"],
}


@pytest.mark.row("TR-03")
@pytest.mark.parametrize(("peer", "file"), [(peer, file) for peer in TRUSTED for file in TRUSTED[peer]])
def test_trust_bodies_of(peer: str, file: str) -> None:
    octets = shared("vectors", peer, file).read_bytes()
    envelope = soap.parse(parse(octets, LIMITS), LIMITS, len(octets))
    (child,) = inside(envelope.body)
    namespace, local = name_of(child)
    edition = WST[namespace]
    if local == "RequestSecurityToken":
        request = trust.RequestSecurityToken.parse(child, edition)
        again = element(request.render(edition))
        assert trust.RequestSecurityToken.parse(again, edition).entropy == request.entropy
        assert request.request_type in ("Issue", "Cancel")
        if not request.extensions:
            assert trust.RequestSecurityToken.parse(again, edition) == request
            assert without_ids(again) == without_ids(child)
    else:
        response = trust.RequestSecurityTokenResponse.parse(child, edition)
        again = element(response.render(edition))
        assert trust.RequestSecurityTokenResponse.parse(again, edition) == response
        assert response.cancelled or response.token is not None
        if peer == "wcf":
            assert without_ids(again) == without_ids(child)


def without_ids(node: Element) -> object:
    """WCF gives its BinarySecrets ids that nothing refers to."""
    tag, attributes, text, _ = tree(node)
    kept = tuple(pair for pair in attributes if not pair[0].endswith("}Id"))
    return tag, kept, text, tuple(without_ids(child) for child in inside(node))


FAULTS: Final = {
    "fault-unsecured-client": "BadContextToken",
    "fault-badpassword": "InvalidSecurityToken",
    "fault-rmrequired-05": "ActionNotSupported",
    "fault-rm10client-rm11server": "WsrmRequired",
}


@pytest.mark.parametrize("folder", FAULTS)
def test_faults_of_wcf(folder: str) -> None:
    octets = shared("vectors", "wcf", folder, "02-response.xml").read_bytes()
    envelope = soap.parse(parse(octets, LIMITS), LIMITS, len(octets))
    (child,) = inside(envelope.body)
    fault = soap.read_fault(child, envelope.soap)
    assert fault is not None
    assert fault.subcode is not None
    assert fault.subcode[1] == FAULTS[folder]
    assert fault.code == "Sender"
    again = inside(element(soap.render_body(envelope.soap, soap.render_fault(fault, envelope.soap))))
    assert tree(again[0])[0] == tree(child)[0]


@pytest.mark.parametrize("peer", ["wss4j", *PEERS])
def test_every_recording_is_within_the_limits(peer: str) -> None:
    folder = shared("vectors", peer)
    for path in sorted(folder.rglob("*.xml")):
        try:
            parse(path.read_bytes(), LIMITS)
        except PeerError as error:
            pytest.fail(f"{path.name}: {error}")
