"""A crash of either side around a renewal: the next process goes on under a key that both have."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import castile
from tests.endpoint.conftest import Pairs
from tests.endpoint.lives import DUE, Judge, Moved, Watched, settings
from tests.endpoint.pair import FAMILIES, Pair, action_of, body, image, kill, until

RENEW = "RST/SCT/Renew"


class Fatal(Watched):
    """The client's process ends at its renewal: at the request, at the answer, or just behind."""

    def __init__(self, pair: Pair, moment: str, folder: Path) -> None:
        super().__init__(pair)
        self.moment, self.folder = moment, folder
        self.client: castile.Client | None = None
        self.copy: Path | None = None
        self.before = lambda number: self.die("request")
        self.after = lambda number: self.die("response")

    def die(self, moment: str) -> None:
        if self.client is None or self.copy is not None or not self.sent:
            return
        renews = action_of(self.sent[-1]) == RENEW
        if moment == self.moment and renews:
            self.copy = image(self.client._store, self.folder)


@pytest.mark.row("F11", "F13", "F37", "CO-20", "SC-36", "I1", "I2")
@pytest.mark.parametrize("moment", ["request", "response", "commit"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_client_dies_at_a_renewal(pairs: Pairs, tmp_path: Path, family: str, moment: str) -> None:
    """What it left is finished under its own context, renewed or not; new work has another one."""
    clock = Moved()
    pair = pairs(family, clock=clock, settings=settings())
    network = Fatal(pair, moment, tmp_path / "after")
    client = network.client = pair.client(http=network, store=tmp_path / "client.db")
    client.call_raw("urn:test/Echo", body(1))
    context = client.context
    assert context is not None
    network.fate = lambda number, payload: "drop-request" if action_of(payload) == "Tell" else None
    client.send_raw("urn:test/Tell", body(2))
    until(lambda: any(action_of(payload) == "Tell" for payload in network.sent))
    context.renew()
    copy = network.copy or image(client._store, tmp_path / "after")
    kill(client)
    network.fate = lambda number, payload: None
    clock.seconds += DUE  # so that the next process renews, too
    later = pair.client(http=Watched(pair), store=copy)
    assert later.call_raw("urn:test/Echo", body(3)) == body(3)
    assert pair.bodies == [body(1), body(2), body(3)]
    assert later.context is not None
    assert later.context.identifier != context.identifier
    until(lambda: len(later._store.run(lambda tx: tx.contexts()).result()) == 1)
    later.close()
    assert {principal for principal, _, _ in pair.received} == {"ada"}
    for record in pair.party.store.run(lambda tx: tx.destinations()).result():
        assert record.state.phase.value == "terminated"


@pytest.mark.row("F11", "F13", "CO-20", "SC-24", "I1", "I2")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_service_dies_with_a_renewal_committed(pairs: Pairs, tmp_path: Path, family: str) -> None:
    """The answer never left, or it did: the client has one of the keys, and both are stored."""
    for answered in (False, True):
        folder = tmp_path / str(answered)
        folder.mkdir()
        pair = pairs(family, clock=Moved(), settings=settings(), folder=folder)
        network = Watched(pair)
        client = pair.client(http=network)
        client.call_raw("urn:test/Echo", body(1))
        context = client.context
        assert context is not None

        def fate(number: int, payload: bytes, pair: Pair = pair, answered: bool = answered) -> str | None:
            if action_of(payload) != RENEW or answered:
                return None
            pair.network.deliver(payload)  # it is done
            pair.restart_service()
            return "drop-request"  # and nobody hears of it

        network.fate = fate
        if answered:
            context.renew()
            pair.restart_service()
        else:
            with pytest.raises(castile.TransportError):
                context.renew()
        assert (context.instance is not None) is answered
        assert client.call_raw("urn:test/Echo", body(2)) == body(2)
        network.fate = lambda number, payload: None
        context.renew()
        assert client.call_raw("urn:test/Echo", body(3)) == body(3)
        client.close()
        assert [(who, number, content) for who, number, content in pair.received] == [
            ("ada", number, body(number)) for number in (1, 2, 3)
        ]
        assert network.count("RST/SCT") == 1


@pytest.mark.row("F11", "ST-23")
def test_no_secret_of_any_instance_is_readable(pairs: Pairs, tmp_path: Path) -> None:
    """In neither store, in no form, of no key."""
    pair = pairs(clock=Moved(), settings=settings(), folder=tmp_path)
    client = pair.client(store=tmp_path / "client.db")
    for number in range(3):
        client.call_raw("urn:test/Echo", body(number))
        assert client.context is not None
        client.context.renew()
    assert client.context is not None
    secrets = [key.secret for key in pair.party._stored_keys(client.context.identifier)]
    assert len(secrets) == 3
    images = [image(client._store, tmp_path / "a"), image(pair.party.store, tmp_path / "b")]
    for path in images:
        octets = b"".join(each.read_bytes() for each in path.parent.iterdir() if each.suffix != ".key")
        for secret in secrets:
            for form in (secret, secret.hex().encode(), base64.b64encode(secret)):
                assert form not in octets


@pytest.mark.row("F13", "SC-26", "I1", "I2", "I7")
@pytest.mark.parametrize("family", FAMILIES)
def test_kills_and_renewals_of_both_together(pairs: Pairs, tmp_path: Path, family: str) -> None:
    """Renewals all the way, the service restarted in between, answers lost: once and in order."""
    clock = Moved()
    pair = pairs(family, clock=clock, settings=settings(), folder=tmp_path)
    network = Watched(pair)
    network.fate = lambda number, payload: "drop-response" if number % 5 == 0 else None
    client = pair.client(http=network, store=tmp_path / "client.db")
    with ThreadPoolExecutor(4) as pool:
        for round_ in range(3):
            numbers = range(round_ * 4, round_ * 4 + 4)
            list(pool.map(lambda number: client.call_raw("urn:test/Echo", body(number)), numbers))
            assert set(pair.bodies[round_ * 4 :]) == {body(number) for number in numbers}
            clock.seconds += DUE if round_ < 2 else 0.0
            pair.restart_service()
    network.fate = lambda number, payload: None
    client.close()
    assert sorted(pair.bodies) == sorted(body(number) for number in range(12))
    Judge(pair, network)()
