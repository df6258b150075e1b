"""A typed service without a network: messages by hand, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import castile
from castile import xml
from castile.config import Limits
from castile.transport.asgi import Arrival
from castile.versions import SOAP_1_1, SOAP_1_2, WSA_1_0, SOAPVersion
from castile.xml import Element
from tests.endpoint.pair import Loop
from tests.typed.contracts import FOLDER

EUR = {"_value_1": Decimal("1.00"), "currency": "EUR"}
PLAIN = castile.EndpointPolicy.of(reliable=False, secure=False, addressed=False)


@dataclass(frozen=True)
class Answer:
    status: int
    payload: bytes
    soap: SOAPVersion

    @property
    def root(self) -> Element:
        return xml.parse(self.payload, Limits())

    @property
    def body(self) -> Element:
        found = self.root.find(f"{{{self.soap.namespace}}}Body")
        assert found is not None
        return found

    @property
    def headers(self) -> list[Element]:
        found = self.root.find(f"{{{self.soap.namespace}}}Header")
        return [] if found is None else list(found)

    @property
    def reason(self) -> str:
        """Of a fault."""
        found = next(self.body.iter("faultstring", f"{{{self.soap.namespace}}}Text"))
        return found.text or ""

    @property
    def code(self) -> str:
        found = next(self.body.iter("faultcode", f"{{{self.soap.namespace}}}Value"))
        return (found.text or "").rpartition(":")[2]


def envelope(body: str, soap: SOAPVersion, action: str | None = None, headers: str = "") -> bytes:
    addressed = (
        f'<a:Action xmlns:a="{WSA_1_0.namespace}">{action}</a:Action>'
        f'<a:MessageID xmlns:a="{WSA_1_0.namespace}">urn:m:1</a:MessageID>'
        if action is not None
        else ""
    )
    return (
        f'<s:Envelope xmlns:s="{soap.namespace}"><s:Header>{addressed}{headers}</s:Header>'
        f"<s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


class Served:
    """A running service."""

    def __init__(self, service: castile.Service, loop: Loop) -> None:
        self.service, self.loop = service, loop

    def ask(
        self,
        body: str,
        *,
        soap: SOAPVersion = SOAP_1_2,
        label: str | None = None,
        action: str | None = None,
        headers: str = "",
        path: str = "/bank",
    ) -> Answer:
        arrival = Arrival(path, soap.content_type, label)
        payload = envelope(body, soap, action, headers)
        got = self.loop.run(self.service.receive(payload, arrival))
        return Answer(got.status, got.body, soap)


@contextmanager
def served(service: castile.Service) -> Iterator[Served]:
    loop = Loop()
    try:
        loop.run(service.start())
        yield Served(service, loop)
    finally:
        loop.run(service.stop())
        loop.close()


def bank(**options: Any) -> castile.Service:
    """Every operation of the bank, answering something valid."""
    service = castile.Service(FOLDER / "bank.wsdl", **options)
    for name, function in OPERATIONS.items():
        service.operation(name=name)(function)
    return service


def transfer(debtor: str, creditor: str, amount: Any, when: Any, memo: str | None) -> str:
    return f"{debtor}>{creditor}:{amount['_value_1']}{amount['currency']}:{when:%Y}:{memo}"


async def statement(account: str, days: int | None, kinds: list[str] | None) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"balance": EUR, "entry": [{"number": 1, "amount": EUR, "text": account}]}


def enrol(person: list[Any], **others: Any) -> None: ...
def note(text: str) -> None: ...
def ping() -> int:
    return 7


OPERATIONS: dict[str, Callable[..., Any]] = {
    "Transfer": transfer,
    "Statement": statement,
    "Enrol": enrol,
    "Note": note,
    "Ping": ping,
}

__all__ = ["EUR", "PLAIN", "SOAP_1_1", "SOAP_1_2", "Answer", "Served", "bank", "envelope", "served"]
