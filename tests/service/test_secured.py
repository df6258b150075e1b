"""The same functions under security and reliable messaging: refusals are secured too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import castile
from tests.endpoint.pair import ADDRESS, FAMILIES, USERS, Pair, identity, until
from tests.service.plain import EUR, OPERATIONS, SOAP_1_1, SOAP_1_2, envelope
from tests.typed.contracts import BODIES, FOLDER, values

ACTION = "urn:bank/Transfer"
ran: list[Any] = []


class Bank(Pair):
    """A pair whose service is by a WSDL."""

    rm_only = True

    @property
    def offers(self) -> Any:
        return {"Soap12": self.policies or self.policy}

    def make_service(self) -> castile.Service:
        service = castile.Service(
            FOLDER / "bank.wsdl",
            public_url=ADDRESS,
            policy=self.offers,
            rm_only=self.rm_only,
            credentials=castile.Certificate(identity("service")),
            users=USERS,
            store=self.store_file if self.folder else None,
            settings=self.settings,
        )
        for name, function in OPERATIONS.items():
            if name not in ("Transfer", "Note"):
                service.operation(name=name)(function)

        @service.operation
        def Transfer(amount: Any, ctx: castile.RequestContext, **others: Any) -> str:  # noqa: N802
            ran.append((ctx.principal, ctx.number, ctx.operation))
            if amount["_value_1"] > 100:
                raise castile.Fault("Sender", "No money.", {"Refused": {"balance": EUR, "limit": EUR}})
            return str(amount["_value_1"])

        @service.operation
        def Note(text: str) -> None:  # noqa: N802
            ran.append(text)

        return service


@pytest.fixture(params=[(family, reliable) for family in FAMILIES for reliable in (True, False)], ids=str)
def bank(request: pytest.FixtureRequest) -> Any:
    family, reliable = request.param
    ran.clear()
    made = Bank(castile.EndpointPolicy.of(family, reliable=reliable))
    yield made
    made.close()


@pytest.mark.row("SV-12")
def test_values_under_security(bank: Bank) -> None:
    reliable = bank.policy.reliability is not None
    with bank.client() as client:
        answer = client.call_raw(ACTION, BODIES["Transfer"].encode())
        assert values("Transfer").decode_response(answer) == "12.50"
        client.send_raw("urn:bank/Note", BODIES["Note"].encode())
        until(lambda: "hello" in ran)
    assert ran == [("ada", 1 if reliable else None, "Transfer"), "hello"]
    assert all(b"12.50" not in exchange.response for exchange in bank.network.log)


@pytest.mark.row("SV-04")
def test_a_refusal_by_the_schema_is_secured(bank: Bank) -> None:
    """It is a reply like any other: signed, encrypted, and in a sequence numbered and stored."""
    with bank.client() as client:
        body = BODIES["Transfer"].replace("12.50", "-1").encode()
        with pytest.raises(castile.FaultReceived) as refused:
            client.call_raw(ACTION, body)
        assert refused.value.authenticated
        assert "line 1, /Transfer/amount: " in refused.value.fault.reason
        assert client.call_raw(ACTION, BODIES["Transfer"].encode())
    assert [exchange for exchange in bank.network.log if b"/Transfer/amount" in exchange.response] == []
    assert len(ran) == 1


@pytest.mark.row("SV-07")
def test_a_declared_fault_under_security(bank: Bank) -> None:
    with bank.client() as client:
        with pytest.raises(castile.FaultReceived) as refused:
            client.call_raw(ACTION, BODIES["Transfer"].replace("12.50", "101").encode())
        name, value = values("Transfer").decode_fault(refused.value.fault.detail) or ("", None)
        assert (name, value["limit"]["currency"]) == ("Refused", "EUR")  # type: ignore[index]


@pytest.mark.row("SV-05")
def test_action_and_body_must_agree_under_security(bank: Bank) -> None:
    with bank.client() as client:
        for action, body in (
            (ACTION, "Statement"),
            ("urn:bank/Statement", "Transfer"),
            ("urn:x", "Transfer"),
        ):
            with pytest.raises(castile.FaultReceived) as refused:
                client.call_raw(action, BODIES[body].encode())
            assert refused.value.authenticated
    assert ran == []


def test_an_invalid_one_way_message_isn_t_tried_again(tmp_path: Path) -> None:
    """It is acknowledged, since it has arrived; nobody waits for an answer, and trying again is no use."""
    ran.clear()
    bank = Bank(castile.EndpointPolicy.of("1.3"), folder=tmp_path)
    try:
        with bank.client() as client:
            client.send_raw("urn:bank/Note", b'<Note xmlns="urn:bank"><x/></Note>')
            client.send_raw("urn:bank/Note", BODIES["Note"].encode())
            until(lambda: "hello" in ran)
        assert ran == ["hello"]
    finally:
        bank.close()


class Open(Bank):
    """It takes messages outside of sequences too."""

    rm_only = False


@pytest.mark.row("F25")
@pytest.mark.parametrize("family", FAMILIES)
def test_clients_without_reliable_messaging(family: str) -> None:
    reliable = castile.EndpointPolicy.of(family)
    plain = castile.EndpointPolicy.of(family, reliable=False)
    for kind, answered in ((Open, True), (Bank, False)):
        ran.clear()
        bank = kind(reliable)
        try:
            with bank.client(policy=plain) as client:
                if answered:
                    client.call_raw(ACTION, BODIES["Transfer"].encode())
                else:
                    with pytest.raises(castile.FaultReceived):
                        client.call_raw(ACTION, BODIES["Transfer"].encode())
            with bank.client() as client:
                client.call_raw(ACTION, BODIES["Transfer"].encode())
        finally:
            bank.close()
        numbers = [number for _, number, _ in ran]
        assert numbers == ([None, 1] if answered else [1])


class Both(Bank):
    """A plain port beside a secured one, at one address."""

    @property
    def offers(self) -> Any:
        plain = castile.EndpointPolicy.of(secure=False, reliable=False, addressed=False)
        return {"Soap12": self.policy, "Soap11": plain}


@pytest.mark.row("SV-12")
def test_a_plain_port_beside_a_secured_one() -> None:
    ran.clear()
    bank = Both(castile.EndpointPolicy.of("1.3"))
    try:
        with bank.client() as client:
            client.call_raw(ACTION, BODIES["Transfer"].encode())
        plain = bank.network.deliver(envelope(BODIES["Transfer"], SOAP_1_1))
        assert (plain.status, b"12.50" in plain.body) == (200, True)
        for action in (None, ACTION):  # what the secured port asks for is asked of SOAP 1.2
            refused = bank.network.deliver(envelope(BODIES["Transfer"], SOAP_1_2, action))
            assert refused.status == 500
    finally:
        bank.close()
    assert ran == [("ada", 1, "Transfer"), (None, None, "Transfer")]
