"""One HTTP exchange of a client: headers by SOAP version, the wire folder, what the answer means."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass

from castile.endpoint.party import Party
from castile.errors import PolicyError
from castile.transport.http import HTTP, HTTPRequest, classify, refusal
from castile.transport.wire import WireLog
from castile.versions import SOAP_1_1
from castile.waiting import Post


@dataclass(frozen=True, slots=True)
class Carrier:
    """Carries a message to the party's endpoint and brings its answer back."""

    party: Party
    http: HTTP
    wire: WireLog | None = None
    basic: bool = False
    """With HTTP basic authentication (RFC 7617)."""

    async def post(self, action: str, payload: bytes, timeout: float | None = None) -> bytes | None:
        """One HTTP exchange: the answering envelope, or None for an empty acceptance."""
        soap = self.party.policy.soap
        extra: tuple[tuple[str, str], ...]
        if soap is SOAP_1_1:
            content_type, extra = "text/xml; charset=utf-8", (("SOAPAction", f'"{action}"'),)
        else:
            content_type, extra = f'{soap.content_type}; charset=utf-8; action="{action}"', ()
        if self.basic:
            extra += (("Authorization", _basic(self.party)),)
        record = self.wire.exchange() if self.wire else None
        if record is not None:
            record.request(payload)
        request = HTTPRequest(self.party.address, payload, (("Content-Type", content_type), *extra))
        limit = self.party.settings.timers.call_timeout
        seconds = limit if timeout is None else max(0.1, min(timeout, limit))
        response = await Post(self.http, request, seconds)
        if record is not None:
            record.response(response.body)
        match classify(response):
            case "envelope":
                return response.body
            case "empty":
                return None
            case _:
                raise refusal(response)


def _basic(party: Party) -> str:
    if party.username is None:
        raise PolicyError(
            "the policy wants HTTP basic authentication: give credentials=castile.Username(name, password)"
        )
    if not (party.tls or party.settings.allow_clear_password):
        raise PolicyError("a password by HTTP basic authentication goes over https only")
    return f"Basic {b64encode(':'.join(party.username).encode()).decode()}"
