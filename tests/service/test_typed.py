"""Operations as functions: values in, values out, faults, hooks (SV-01, SV-06, SV-07)."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import castile
from castile import xml
from castile.config import Settings
from castile.typed.operations import Call
from tests.endpoint.pair import until
from tests.service.plain import EUR, OPERATIONS, SOAP_1_1, SOAP_1_2, bank, served
from tests.typed.contracts import BODIES, FOLDER, values

SOAPS = pytest.mark.parametrize("soap", [SOAP_1_1, SOAP_1_2], ids=lambda row: row.name)


@pytest.mark.row("SV-01")
@pytest.mark.row("SV-12")
@SOAPS
@pytest.mark.parametrize("addressed", [False, True], ids=["plain", "addressed"])
def test_a_call(soap: Any, addressed: bool) -> None:
    with served(bank()) as app:
        action = "urn:bank/Transfer"
        got = app.ask(BODIES["Transfer"], soap=soap, label=action, action=action if addressed else None)
        assert got.status == 200
        receipt = values("Transfer").decode_response(bytes_of(got.body[0]))
        assert receipt == "AB1234>CD5678:12.50EUR:2026:rent"
        names = {xml.local_name(header): header.text for header in got.headers}
        expected = {"Action": "urn:bank/Transferred", "RelatesTo": "urn:m:1"}
        assert names == (expected if addressed else {})


def bytes_of(element: Any) -> bytes:
    return xml.canonical(element)


def test_a_coroutine() -> None:
    with served(bank()) as app:
        got = app.ask(BODIES["Statement"], label="urn:bank/Statement")
        answer: Any = values("Statement").decode_response(bytes_of(got.body[0]))
        assert answer.entry[0].text == "AB1234"


@pytest.mark.row("SV-13")
def test_one_way_is_202() -> None:
    with served(bank()) as app:
        got = app.ask(BODIES["Note"], label="urn:bank/Note")
        assert (got.status, got.payload) == (202, b"")


def test_an_empty_response_and_an_empty_request() -> None:
    with served(bank()) as app:
        assert app.ask(BODIES["Ping"]).body[0].text == "7"
        assert app.ask(BODIES["Enrol"], label="urn:bank/Enrol").body[0].tag == "{urn:bank}EnrolResponse"


@pytest.mark.row("SV-01")
def test_missing_functions_are_told_at_the_start() -> None:
    service = castile.Service(FOLDER / "bank.wsdl")
    service.operation(name="Ping")(OPERATIONS["Ping"])
    told = "without a function: Transfer, Statement, Enrol, Note;"
    with pytest.raises(castile.UsageError, match=told), served(service):
        pass
    some = castile.Service(FOLDER / "bank.wsdl", partial=True)
    some.operation(name="Ping")(OPERATIONS["Ping"])
    with served(some) as app:
        assert app.ask(BODIES["Ping"]).status == 200
        assert app.ask(BODIES["Note"]).status == 500


@pytest.mark.parametrize(
    ("name", "function", "told"),
    [
        ("Pong", lambda: None, "the WSDL has no operation 'Pong'; it has: Transfer, "),
        ("Ping", lambda text: None, r"the function of Ping must take \(\)"),
        ("Note", lambda: None, r"the function of Note must take \(text\)"),
        ("Note", lambda texts: None, r"the function of Note must take \(text\)"),
        ("Note", lambda text, /: None, r"the function of Note must take \(text\)"),
        ("Note", lambda text, more: None, r"the function of Note must take \(text\)"),
    ],
)
def test_functions_that_don_t_fit(name: str, function: Any, told: str) -> None:
    service = castile.Service(FOLDER / "bank.wsdl")
    with pytest.raises(castile.UsageError, match=told):
        service.operation(name=name)(function)


def test_a_second_function_and_a_transactional_coroutine() -> None:
    service = bank()
    with pytest.raises(castile.UsageError, match="a function for the operation 'Ping' already"):
        service.operation(name="Ping")(OPERATIONS["Ping"])
    with pytest.raises(castile.UsageError, match="can't be transactional"):
        castile.Service(FOLDER / "bank.wsdl").operation(name="Statement", transactional=True)(
            OPERATIONS["Statement"]
        )
    with pytest.raises(castile.UsageError, match="needs a WSDL"):
        castile.Service(policy=castile.EndpointPolicy.of(secure=False)).operation(OPERATIONS["Ping"])


@pytest.mark.row("SV-06")
def test_the_context_and_defaults_of_one_s_own() -> None:
    seen: list[castile.RequestContext] = []
    service = castile.Service(FOLDER / "bank.wsdl", partial=True)

    @service.operation
    def Note(text: str, ctx: castile.RequestContext, times: int = 3) -> None:  # noqa: N802
        seen.append(ctx)

    with served(service) as app:
        assert app.ask(BODIES["Note"], action="urn:bank/Note").status == 202
    assert [(ctx.operation, ctx.action, ctx.message_id) for ctx in seen] == [
        ("Note", "urn:bank/Note", "urn:m:1")
    ]


@pytest.mark.row("SV-20")
def test_who_may() -> None:
    service, ran = castile.Service(FOLDER / "bank.wsdl", partial=True), []
    asked: list[str | None] = []

    def allow(principal: str | None) -> bool:
        asked.append(principal)
        return len(asked) > 1

    service.operation(name="Note", allow=allow)(lambda text: ran.append(text))
    with served(service) as app:
        got = app.ask('<Note xmlns="urn:bank"><broken/></Note>', label="urn:bank/Note")
        assert (got.code, got.reason) == ("Sender", "The sender may not do this.")
        assert app.ask(BODIES["Note"], label="urn:bank/Note").status == 202
    assert (asked, ran) == ([None, None], ["hello"])


@pytest.mark.row("SV-07")
@SOAPS
def test_a_declared_fault_has_its_detail_and_action(soap: Any) -> None:
    service = castile.Service(FOLDER / "bank.wsdl", partial=True)

    @service.operation
    def Transfer(**arguments: Any) -> str:  # noqa: N802
        raise castile.Fault("Sender", "No money.", {"Refused": {"balance": EUR, "limit": EUR}})

    with served(service) as app:
        got = app.ask(BODIES["Transfer"], soap=soap, action="urn:bank/Transfer")
        assert (got.status, got.reason, got.code) == (
            500,
            "No money.",
            "Client" if soap is SOAP_1_1 else "Sender",
        )
        detail = next(got.body.iter("detail", f"{{{soap.namespace}}}Detail"))
        assert [child.tag for child in detail] == ["{urn:bank}Refused"]
        name, value = values("Transfer").decode_fault(bytes_of(detail[0])) or ("", None)
        assert (name, value["limit"]["currency"]) == ("Refused", "EUR")  # type: ignore[index]
        assert got.headers[0].text == "urn:bank/Refused"


@pytest.mark.row("SV-07")
@pytest.mark.parametrize(
    "raised",
    [
        RuntimeError("SECRET"),
        castile.Fault("Sender", "SECRET", {"Nobody": {}}),
        castile.Fault("Sender", "SECRET", {"Refused": {"balance": "SECRET"}}),
    ],
    ids=["exception", "undeclared", "invalid"],
)
def test_what_else_is_raised_stays_here(raised: Exception, caplog: pytest.LogCaptureFixture) -> None:
    service = castile.Service(FOLDER / "bank.wsdl", partial=True)

    @service.operation
    def Transfer(**arguments: Any) -> str:  # noqa: N802
        raise raised

    with served(service) as app, caplog.at_level(logging.ERROR):
        got = app.ask(BODIES["Transfer"], label="urn:bank/Transfer")
        assert (got.status, got.code) == (500, "Receiver")
        assert b"SECRET" not in got.payload
        incident = got.reason.rpartition(" as ")[2].rstrip(".")
        assert incident.startswith("urn:uuid:")
        assert incident in caplog.text


def test_a_result_that_breaks_the_schema_is_the_service_s_fault() -> None:
    service = castile.Service(FOLDER / "bank.wsdl", partial=True)
    service.operation(name="Ping")(lambda: "seven")
    with served(service) as app:
        assert app.ask(BODIES["Ping"]).code == "Receiver"


@pytest.mark.row("SV-04")
@SOAPS
def test_an_invalid_body_never_reaches_the_function(soap: Any) -> None:
    service, ran = castile.Service(FOLDER / "bank.wsdl", partial=True), []
    service.operation(name="Transfer")(lambda **arguments: ran.append(arguments))
    service.before(lambda call: ran.append(call))
    with served(service) as app:
        body = BODIES["Transfer"].replace("12.50", "-1")
        got = app.ask(body, soap=soap, label="urn:bank/Transfer")
        assert (got.status, got.code) == (500, "Client" if soap is SOAP_1_1 else "Sender")
        assert "line 1, /Transfer/amount: " in got.reason
    assert ran == []


def test_validation_can_be_off() -> None:
    service = castile.Service(FOLDER / "bank.wsdl", partial=True, validate="off")
    service.operation(name="Note")(lambda text: None)
    service.operation(name="Transfer")(lambda amount, **others: str(amount["_value_1"]))
    with served(service) as app:
        got = app.ask(BODIES["Transfer"].replace("12.50", "-1"), label="urn:bank/Transfer")
        assert got.status == 200
    with pytest.raises(castile.UsageError, match="'strict' or 'off'"):
        castile.Service(FOLDER / "bank.wsdl", validate="no")  # type: ignore[arg-type]


@pytest.mark.row("SV-06")
def test_hooks_see_copies() -> None:
    service, seen = bank(), list[Call]()

    @service.before
    def look(call: Call) -> None:
        seen.append(call)
        if call.operation == "Transfer":
            call.arguments["amount"]["_value_1"] = 0  # type: ignore[index]
            call.arguments["debtor"] = "nobody"

    @service.before
    def refuse(call: Call) -> None:
        if call.operation == "Ping":
            raise castile.Fault("Sender", "Not today.")

    @service.after
    def told(call: Call) -> None:
        seen.append(call)

    with served(service) as app:
        got = app.ask(BODIES["Transfer"], label="urn:bank/Transfer")
        assert values("Transfer").decode_response(bytes_of(got.body[0])) == "AB1234>CD5678:12.50EUR:2026:rent"
        assert app.ask(BODIES["Ping"]).reason == "Not today."
    assert [call.operation for call in seen] == ["Transfer", "Transfer", "Ping"]
    assert seen[1].result == "AB1234>CD5678:12.50EUR:2026:rent"


@pytest.mark.row("SV-16")
def test_a_full_queue_is_503() -> None:
    gate, inside = threading.Event(), threading.Semaphore(0)
    settings = Settings(max_concurrency=2, max_queue=1)
    service = castile.Service(FOLDER / "bank.wsdl", partial=True, settings=settings)

    @service.operation
    def Ping() -> int:  # noqa: N802
        inside.release()
        gate.wait(20)
        return 7

    with served(service) as app, ThreadPoolExecutor(5) as callers:
        running = [callers.submit(app.ask, BODIES["Ping"]) for _ in range(3)]
        for _ in range(2):
            assert inside.acquire(timeout=20)
        until(lambda: service._running()[1]._direct_calls == 3)
        late = app.ask(BODIES["Ping"])
        assert (late.status, late.payload) == (503, b"")
        gate.set()
        assert [each.result(20).status for each in running] == [200, 200, 200]
        assert app.ask(BODIES["Ping"]).status == 200
