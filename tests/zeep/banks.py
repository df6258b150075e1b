"""A bank by its WSDL, under uvicorn: port Soap12 with a policy, port Soap11 without any."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import castile
from castile.transport.http import HTTPClient, HTTPRequest, HTTPResponse
from tests.endpoint.pair import FAST, USERS, certificate, identity
from tests.served import served
from tests.service.plain import EUR, OPERATIONS
from tests.typed.contracts import FOLDER

SOAP12, SOAP11 = "Soap12", "Soap11"
TRANSFER: dict[str, Any] = {
    "debtor": "AB1234",
    "creditor": "CD5678",
    "amount": {"_value_1": Decimal("12.50"), "currency": "EUR"},
    "when": datetime(2026, 1, 1, tzinfo=UTC),
    "memo": "rent",
}
SECURED = castile.EndpointPolicy.of("1.3")


@dataclass
class Bank:
    """The running service."""

    policy: castile.EndpointPolicy
    url: str = ""
    notes: list[str] = field(default_factory=list)
    transfers: list[str] = field(default_factory=list)
    pause: threading.Event = field(default_factory=threading.Event)

    @property
    def wsdl(self) -> str:
        return f"{self.url}?wsdl"

    def options(self, **more: Any) -> dict[str, Any]:
        """Arguments for a transport."""
        return {
            "policy": self.policy,
            "credentials": castile.Username("ada", USERS["ada"]),
            "service_certificate": certificate(),
            "settings": FAST,
        } | more

    def service(self, **options: Any) -> castile.Service:
        options.setdefault("policy", {SOAP12: self.policy})
        made = castile.Service(
            FOLDER / "bank.wsdl",
            **options,
            credentials=castile.Certificate(identity("service")),
            users=USERS,
            settings=FAST,
        )
        for name, function in OPERATIONS.items():
            if name not in ("Transfer", "Note"):
                made.operation(name=name)(function)

        @made.operation
        def Transfer(amount: Any, memo: str | None, **others: Any) -> str:  # noqa: N802
            if memo == "refuse":
                raise castile.Fault("Sender", "No money.", {"Refused": {"balance": EUR, "limit": EUR}})
            if memo == "slow":
                self.pause.wait(5)
            self.transfers.append(str(memo))
            return f"{amount['_value_1']} {amount['currency']} {memo}"

        @made.operation
        def Note(text: str) -> None:  # noqa: N802
            self.notes.append(text)

        return made


@contextmanager
def bank(policy: castile.EndpointPolicy = SECURED) -> Iterator[Bank]:
    made = Bank(policy)
    with served(made.service().asgi()) as url:
        made.url = url.removesuffix("/soap") + "/bank"
        yield made


class Wire:
    """castile's HTTP client, with everything that passes kept, and answers changed by `answer`."""

    def __init__(self) -> None:
        self.client = HTTPClient()
        self.sent: list[HTTPRequest] = []
        self.received: list[HTTPResponse] = []

    def answer(self, request: HTTPRequest, response: HTTPResponse) -> HTTPResponse:
        return response

    def _kept(self, request: HTTPRequest, response: HTTPResponse) -> HTTPResponse:
        self.sent.append(request)
        response = self.answer(request, response)
        self.received.append(response)
        return response

    def post(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        return self._kept(request, self.client.post(request, timeout))

    async def apost(self, request: HTTPRequest, timeout: float) -> HTTPResponse:
        return self._kept(request, await self.client.apost(request, timeout))

    def close(self) -> None:
        self.client.close()
