"""Changed conversations: the message that was changed is blamed first (OP-18)."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator

import pytest
import trustme
from lxml import etree

from castile.explaining.keys import load
from tests.conftest import shared
from tests.explaining.attacks import insider, outsider, security_of
from tests.explaining.insider import EVIL, EVIL_SECRET, protect, sign_as
from tests.explaining.recording import Recording, blamed, plain

pytestmark = pytest.mark.row("OP-18")

STRANGER = json.dumps({"contexts": {EVIL: b64encode(EVIL_SECRET).decode()}}).encode()
COMPOSITE, BARE, SIGNED = "ws05-user-nonego-sc-rm", "ws07-user-nonego-sc-norm", "ws05-cert-nonego-sc-norm"
SAMPLE = [
    (COMPOSITE, "01-request.xml"),
    (COMPOSITE, "02-response.xml"),
    (COMPOSITE, "03-request.xml"),
    (COMPOSITE, "04-response.xml"),
    (COMPOSITE, "05-request.xml"),
    (COMPOSITE, "08-response.xml"),
    (COMPOSITE, "11-request.xml"),
    (BARE, "03-request.xml"),
    (BARE, "08-response.xml"),
    (SIGNED, "01-request.xml"),
    (SIGNED, "02-response.xml"),
    ("ws05-cert-nonego-sc-norm-renew", "05-request.xml"),
    ("ws05-cert-nonego-nosc-norm-asym", "03-request.xml"),
    ("ws07-user-nonego-nosc-norm", "02-response.xml"),
    ("ws05-nosec-nonego-nosc-rm", "05-request.xml"),
]
"""Each kind of message, in each kind of protection."""


def recording(name: str, peer: str = "wcf") -> Recording:
    return Recording.of(shared("vectors", peer, name), STRANGER)


def misses(base: Recording, file: str, attacks: Iterator[tuple[str, bytes]]) -> list[str]:
    """The attacks that are not seen, or for which another message is blamed first."""
    found = []
    for name, payload in attacks:
        explanation = base.changed(file, payload).explain()
        if blamed(explanation) != file:
            found.append(f"{file}, {name}: {explanation.verdict}, {explanation.problems[:1]}")
    return found


@pytest.mark.parametrize(("name", "file"), SAMPLE)
def test_who_has_no_key_is_seen(name: str, file: str) -> None:
    base = recording(name)
    assert base.explain().problems == ()
    assert misses(base, file, outsider(base, file)) == []


@pytest.mark.parametrize("name", [COMPOSITE, BARE, "ws05-user-nego-sc-rm"])
def test_who_has_the_keys_is_seen(name: str) -> None:
    base = recording(name)
    contexts = base.contexts()
    files = list(contexts)[:4] + list(contexts)[-4:-2]
    found = [text for file in files for text in misses(base, file, insider(base, file, contexts[file]))]
    assert found == []


def test_who_protects_it_well_again_is_not_blamed() -> None:
    base = recording(COMPOSITE)
    for file, context in base.contexts().items():
        envelope, message = plain(base.opened[file]), base.opened[file]
        payload = protect(envelope, context, [None], response="response" in file, created=message.now)
        explanation = base.changed(file, payload).explain()
        assert (explanation.verdict, explanation.problems) == ("verified", ())


def test_an_attack_from_some_message_on_is_blamed_where_it_begins() -> None:
    base = recording(COMPOSITE)
    contexts = base.contexts()
    files = list(contexts)
    for number, first in enumerate(files):
        messages = dict(base.messages)
        for file in files[number:]:
            envelope, now = plain(base.opened[file]), base.opened[file].now
            messages[file] = protect(
                envelope, contexts[file], [["wsu:Timestamp"]], response="response" in file, created=now
            )
        assert blamed(base.with_messages(messages).explain()) == first
        for file in files[number:]:
            messages[file] = etree.tostring(plain(base.opened[file]))
        assert blamed(base.with_messages(messages).explain()) == first


# ---- replay, reflection, order


def test_the_same_octets_again() -> None:
    base = recording(BARE)
    for file, payload in base.messages.items():
        again = file.replace("-", "x-")
        assert blamed(base.changed(again, payload).explain()) == again
    base = recording(COMPOSITE)
    inside = base.changed("05x-request.xml", base.messages["05-request.xml"]).explain()
    assert inside.problems == ()  # a sequence's numbers tell
    states = [message.sequence for message in inside.messages[4:6]]
    assert [state.repeated for state in states if state is not None] == [False, True]


def test_one_signature_on_two_messages() -> None:
    base = recording(COMPOSITE)
    for file in ("03-request.xml", "05-request.xml", "13-request.xml"):
        root = etree.fromstring(base.messages[file])
        etree.SubElement(root[0], "{urn:unsigned}Hint")
        again = file.replace("-", "x-")
        explanation = base.changed(again, etree.tostring(root)).explain()
        assert blamed(explanation) == again
        assert f"its signature is that of {file}" in explanation.problems[0][1]


def test_an_answer_for_another_request() -> None:
    base = recording(BARE)
    messages = dict(base.messages)
    first, second = "04-response.xml", "06-response.xml"
    messages[first], messages[second] = messages[second], messages[first]
    assert blamed(base.with_messages(messages).explain()) == first


def test_requests_that_were_overtaken_are_no_attack() -> None:
    base = recording(BARE)
    messages = dict(base.messages)
    first, second = "03-request.xml", "05-request.xml"
    messages[first], messages[second] = messages[second], messages[first]
    assert base.with_messages(messages).explain().problems == ()


def test_a_message_that_is_sent_back() -> None:
    base = recording(COMPOSITE)
    for target, source in (("06-response.xml", "05-request.xml"), ("07-request.xml", "06-response.xml")):
        assert blamed(base.changed(target, base.messages[source]).explain()) == target


# ---- two conversations in one folder


def both() -> Recording:
    """Two clients, each with a context and a sequence of its own, at the same time."""
    first, second = recording(COMPOSITE), recording("ws05-cert-nonego-sc-rm-sha256")
    one, two = list(first.messages.items()), list(second.messages.items())
    items = one[:6] + two[:6] + one[6:10] + two[6:] + one[10:]
    ways = [file.partition("-")[2] for file, _ in items]
    numbered = enumerate(zip(ways, items, strict=True), 1)
    return first.with_messages({f"{number:02d}-{way}": payload for number, (way, (_, payload)) in numbered})


def test_contexts_and_sequences_are_kept_apart() -> None:
    base = both()
    assert base.explain().verdict == "verified"
    contexts = base.contexts()
    names = sorted({context.identifier for context in contexts.values()})
    assert len(names) == 2
    for file, context in contexts.items():
        message = base.opened[file]
        foreign = next(each for each in contexts.values() if each.identifier != context.identifier)
        established = file > "09"  # both are, from then on
        if not established or message.reliability.sequence is None:
            continue
        payload = protect(
            plain(message), foreign, [None], response="response" in file, created=message.now
        )
        assert blamed(base.changed(file, payload).explain()) == file


def test_a_sequence_asked_for_with_a_strangers_token() -> None:
    base = recording(COMPOSITE)
    file = "03-request.xml"
    context, message = base.contexts()[file], base.opened[file]
    root = plain(message)
    reference = next(root[1].iter("{*}SecurityTokenReference"))[0]
    reference.set("URI", EVIL)
    payload = protect(root, context, [None], response=False, created=message.now)
    explanation = base.changed(file, payload).explain()
    assert blamed(explanation) == file
    assert EVIL in explanation.problems[0][1]


def test_an_unsigned_header_beside_signed_ones() -> None:
    for name in (COMPOSITE, "ws07-user-nonego-nosc-norm", "ws05-cert-nonego-nosc-norm-asym"):
        base = recording(name)
        for file, payload in base.messages.items():
            root = etree.fromstring(payload)
            header = etree.Element("{http://www.w3.org/2005/08/addressing}FaultTo")
            etree.SubElement(header, "{http://www.w3.org/2005/08/addressing}Address").text = "urn:evil:1"
            root[0].insert(0, header)
            assert blamed(base.changed(file, etree.tostring(root)).explain()) == file


def test_a_signer_from_elsewhere() -> None:
    """An attacker's own certificate; one that a known authority has issued is no stranger."""
    kind = trustme.KeyType.RSA
    authority = trustme.CA(key_type=kind)
    known = authority.issue_cert("somebody", key_type=kind)
    issued = trustme.CA(key_type=kind).issue_cert("attacker", key_type=kind)
    base = recording("ws05-cert-nonego-nosc-norm-asym")
    file = "03-request.xml"
    message = base.open()[file]
    keys = base.keys.copy()
    keys.add(load([authority.cert_pem.bytes()]))
    for leaf, expected in ((issued, file), (known, None)):
        found = load([leaf.private_key_and_cert_chain_pem.bytes()])
        payload = sign_as(plain(message), found.certificates[0], found.private[0], message.now)
        explanation = base.with_keys(keys).changed(file, payload).explain()
        assert blamed(explanation) == expected, explanation.problems
        assert expected is None or "not among the keys" in explanation.problems[0][1]
    assert blamed(base.changed(file, payload).explain()) == file


# ---- over TLS


def test_the_transport_shape_is_exempt_where_tls_answers() -> None:
    base = recording("ws05-user-nonego-sc-rm-tmc")
    explanation = base.explain()
    assert (explanation.verdict, explanation.problems) == ("partial", ())
    for file in ("03-request.xml", "05-request.xml", "13-request.xml"):
        root = etree.fromstring(base.messages[file])
        root[0].remove(next(block for block in root[0] if block is security_of(root)))
        assert blamed(base.changed(file, etree.tostring(root)).explain()) == file
        changes = (each for each in outsider(base, file) if "Value" in each[0] or "Security" in each[0])
        assert misses(base, file, changes) == []
        context, message = base.contexts()[file], base.opened[file]
        evil = protect(
            plain(message),
            type(context)(EVIL, EVIL_SECRET, context.edition),
            [["wsu:Timestamp"]],
            response=False,
            created=message.now,
        )
        assert blamed(base.changed(file, evil).explain()) == file


def test_an_unsecured_fault_is_reported_and_blames_nobody() -> None:
    base = recording(COMPOSITE)
    fault = shared("vectors", "wcf", "fault-unsecured-client", "02-response.xml").read_bytes()
    explanation = base.changed("06-response.xml", fault).explain()
    assert explanation.messages[5].problems == ()
    assert "isn't authenticated" in explanation.messages[5].warnings[0]


