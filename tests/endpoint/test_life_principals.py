"""Two principals on one store, a thousand interleavings: nothing of one ever reaches the other."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

import castile
from castile.protocol import issuer
from tests.endpoint.conftest import Pairs
from tests.endpoint.lives import Moved, Watched, settings
from tests.endpoint.pair import FAMILIES, Pair, body, kill, until

INTERLEAVINGS = {"1.3": 1_000, "2005": 250}
"""Messages, by family."""
WHO = ("ada", "mallory")
_TOKEN = re.compile(rb"<c:Identifier>([^<]*)</c:Identifier>")


def words(who: str, number: int) -> bytes:
    """A body that says whose it is."""
    return f'<x xmlns="urn:x">{who} {number}</x>'.encode()


class Person:
    """One principal, with a client that is made anew now and then."""

    def __init__(self, pair: Pair, name: str) -> None:
        self.pair, self.name = pair, name
        self.network = Watched(pair)
        self.client = self._new()
        self.said: list[bytes] = []

    def _new(self) -> castile.Client:
        return self.pair.client(self.name, http=self.network)

    def act(self, chance: Random) -> None:
        """One step: mostly a message, sometimes a new key, a new sequence or a new client."""
        number = len(self.said)
        self.said.append(words(self.name, number))
        dice = chance.random()
        if dice < 0.3:
            self.client.send_raw("urn:test/Tell", self.said[-1])
        else:
            assert self.client.call_raw("urn:test/Echo", self.said[-1]) == self.said[-1]
        if dice > 0.97 and self.client.context is not None:
            self.client.context.renew()
        elif dice > 0.95:
            self.client.close()
            self.client = self._new()

    @property
    def tokens(self) -> set[bytes]:
        """Identifiers of the tokens that its messages carried."""
        found = (_TOKEN.search(seen.payload) for seen in self.network.seen if seen.request)
        return {token[1] for token in found if token is not None}


@pytest.mark.row("SC-36", "CO-20", "SC-07", "I1", "I5")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_thousand_interleavings(pairs: Pairs, family: str) -> None:
    pair = pairs(family, clock=Moved(), settings=settings())
    people = [Person(pair, name) for name in WHO]
    chance = Random(36)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(INTERLEAVINGS[family] // 2):
            order = [people[chance.random() < 0.5] for _ in range(2)]
            if order[0] is not order[1] and chance.random() < 0.5:
                seeds = [Random(chance.random()) for _ in order]
                list(pool.map(lambda person, seed: person.act(seed), order, seeds))
            else:
                for person in order:
                    person.act(chance)
    for person in people:
        person.client.close()
    judge(pair, people)


def judge(pair: Pair, people: list[Person]) -> None:
    """Each message came once, in its sender's order, with its sender's name and token."""
    assert not people[0].tokens & people[1].tokens
    for person in people:
        mine = [content for who, _, content in pair.received if who == person.name]
        assert mine == person.said
    records = pair.party.store.run(lambda tx: tx.contexts(ended=True)).result()
    for person in people:
        own = {record.state.identifier.encode() for record in records if record.principal == person.name}
        assert person.tokens == own
    owner = {record.state.identifier: record.principal for record in records}
    for record in records:
        assert isinstance(record.state, issuer.Context)
        assert record.state.principal == record.principal
    secrets = [key.secret for record in records for key in record.state.instances]
    assert len(secrets) == len(set(secrets))
    for sequence in pair.party.store.run(lambda tx: tx.destinations()).result():
        assert sequence.state.context is not None
        assert sequence.principal == owner[sequence.state.context]


def context_of(client: castile.Client) -> str | None:
    return client.context.identifier if client.context is not None else None


@pytest.mark.row("SC-36", "CL-31")
@pytest.mark.parametrize("family", FAMILIES)
def test_one_file_for_two(pairs: Pairs, tmp_path: Path, family: str) -> None:
    """Who opens a store that another principal left full of his business sees none of it, sends
    none of it, and leaves it as it is for its owner."""
    pair = pairs(family)
    store = tmp_path / "shared.db"
    for turn in range(0, 12, 3):
        ada = pair.client("ada", store=store)
        assert ada.call_raw("urn:test/Echo", body(turn), key=f"invoice-{turn}") == body(turn)
        pair.network.down = True
        ada.send_raw("urn:test/Tell", body(turn + 1))
        with pytest.raises(castile.InDoubt):
            ada.call_raw("urn:test/Echo", body(turn + 2), key="open", timeout=0.1)
        left = [(each.number, each.key) for each in ada.unfinished()]
        context = ada.context
        assert context is not None
        kill(ada)
        pair.network.down = False
        before = len(pair.received)
        mallory = pair.client("mallory", store=store)
        assert mallory.unfinished() == []
        assert context_of(mallory) is None
        # The same keys and bodies are other calls: no stored reply is his, no message joins.
        assert mallory.call_raw("urn:test/Echo", body(turn), key=f"invoice-{turn}") == body(turn)
        assert mallory.call_raw("urn:test/Echo", body(turn + 2), key="open") == body(turn + 2)
        assert context_of(mallory) not in (None, context.identifier)
        mallory.close()
        assert [who for who, _, _ in pair.received[before:]] == ["mallory", "mallory"]
        ada = pair.client("ada", store=store)
        assert len(left) == 2
        assert ada.call_raw("urn:test/Echo", body(turn + 2), key="open") == body(turn + 2)
        until(lambda: not ada._store.run(lambda tx: tx.sources(unfinished=True)).result())  # noqa: B023
        ada.close()
        store = tmp_path / f"shared-{turn}.db"
    said = [content for who, _, content in pair.received if who == "ada"]
    assert said == [body(number) for number in range(12)]
