"""What an endpoint asked for, as the product reads it off the WSDL of its recording."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import castile
from castile.policy.delivery import NOTHING_SAID
from castile.policy.parse import read
from tests.policy.asked import ports_of
from tests.replay.recording import Recording


def policy_of(recording: Recording, *, client: bool = False) -> castile.EndpointPolicy:
    """The service's policy; what no message of the recording shows is left out, since a folder may
    have been run with less than its WSDL says. `client`: as the recorded client took it, who may
    have been wrong."""
    requests = [exchange.request for exchange in recording.exchanges]
    answers = [exchange.response for exchange in recording.exchanges]
    creations = [message for message in requests if message.lifecycle == "CreateSequence"]
    facts: dict[str, Any] = {
        "two_way": not creations or any(each.body[0].find("{*}Offer") is not None for each in creations),
        "soap": requests[0].opened.envelope.soap,
    }
    if client or any(answer is not None and not answer.fault for answer in answers):
        facts["reliability"] = next((each.reliability for each in requests if each.reliability), None)
        if facts["reliability"] is None:
            facts["delivery"] = NOTHING_SAID
        if not any(message.secured for message in requests):
            facts |= dict.fromkeys(("conversation", "trust", "bootstrap", "application"))
    if not recording.wsdl.exists():
        return replace(castile.EndpointPolicy.of("2005", secure=False), **facts)
    (port,) = ports_of(recording.wsdl)
    return replace(read(port).policy, **facts)
