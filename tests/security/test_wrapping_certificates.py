"""Signature wrapping of messages that certificates sign, endorse and confirm; and how many in all."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from castile.errors import PeerError
from castile.security import Verified
from tests.security import mutants
from tests.security.certified import Certified, certified, client, everything
from tests.security.made import kinds, receive
from tests.security.test_wrapping import KINDS, PLAIN, kind_of, meaning

ALL = list(everything())


def said(message: Certified, verified: Verified) -> tuple[object, ...]:
    """All that can be seen of a message, and who endorsed it."""
    return (*meaning(verified), [(each.key, each.endorsing) for each in verified.signatures])


def fooled(message: Certified, attacks: Iterable[mutants.Mutant]) -> tuple[list[str], int]:
    truth = said(message, receive(message.payload, message.expectation, message.keys))
    found, count = [], 0
    for mutant in attacks:
        count += 1
        try:
            verified = receive(mutant.payload, message.expectation, message.keys)
        except PeerError:
            continue
        if said(message, verified) != truth:
            found.append(mutant.name)
    return found, count


@pytest.mark.row("MS-06", "MS-07", "MS-55")
@pytest.mark.parametrize("message", ALL[6:], ids=lambda message: message.name)
def test_no_part_under_any_form(message: Certified) -> None:
    found, count = fooled(message, mutants.mutants(message.payload))
    assert found == []
    assert count >= 300


@pytest.mark.row("MS-06", "MS-07")
@pytest.mark.parametrize("message", ALL[:6], ids=lambda message: message.name)
def test_no_pair_of_changes(message: Certified) -> None:
    assert fooled(message, mutants.pairs(message.payload, seed=21, count=300))[0] == []


@pytest.mark.row("MS-06")
@pytest.mark.parametrize("message", ALL[:6], ids=lambda message: message.name)
def test_no_part_of_another_message(message: Certified) -> None:
    for other in ALL[:6]:
        again = certified(other.name.split()[0], other.name.split()[1], "2005", seed=9)  # type: ignore[arg-type]
        assert fooled(message, mutants.swaps(message.payload, again.payload))[0] == []


@pytest.mark.row("MS-11")
@pytest.mark.parametrize(
    ("bootstrap", "name"), [("certificate", "RST"), ("mutual", "RST"), ("mutual", "RSTR")]
)
def test_a_signer_whom_nobody_trusts(bootstrap: str, name: str) -> None:
    """Another's certificate, with the right signature of its key, in the place of the right one."""
    message = certified(bootstrap, name, signer=client("mallory"))  # type: ignore[arg-type]
    keys = message.keys
    keys.certificates.append(client("mallory").certificate)
    with pytest.raises(PeerError, match=r"trust|certificate"):
        receive(message.payload, message.expectation, keys)


def test_there_are_ten_thousand_mutants() -> None:
    """What the module beside this one tries of single parts alone, in SOAP 1.2; as many again in 1.1."""
    made = [side.protected(kind).payload for side in PLAIN for kind in kinds(side.family)]
    assert {kind.name for side in PLAIN for kind in kinds(side.family)} == set(KINDS)
    assert kind_of(PLAIN[0], "RST").request
    assert sum(1 for payload in made for _ in mutants.mutants(payload)) >= 10_000
