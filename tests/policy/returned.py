"""A policy written and read again, by way of the bytes that a WSDL would hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from castile import xml
from castile.config import DocumentLimits, Limits
from castile.messages.policy import Allowance, Alternative, Policy, PolicyReader
from castile.policy import Direction, EndpointPolicy
from castile.policy.description import Operation, Port
from castile.policy.parse import read
from castile.policy.render import Rendered, render
from castile.versions import SOAP_1_2

PORT: Final = Port(
    "S",
    "P",
    "http://localhost/s",
    SOAP_1_2,
    (Operation("Ask", "urn:ask", "urn:answer", (("Bad", "urn:bad"),)), Operation("Tell", "urn:tell")),
    ((),),
    {},
)


def returned(policy: EndpointPolicy, port: Port = PORT) -> EndpointPolicy:
    """What is read where the policy has been written to a port."""
    return read(written(render(policy), port), strict=True).policy


def written(rendered: Rendered, port: Port) -> Port:
    """The port with these policies at its binding and messages."""
    endpoint = _through(rendered, rendered.endpoint)
    messages: dict[tuple[str, str], Policy] = {}
    for operation in port.operations:
        for action, direction in _directions(operation):
            own = rendered.of(action, direction)
            if direction == "fault" and own == rendered.message:
                own = ()  # nothing is attached to a fault that is no exception
            whole = dict.fromkeys((*endpoint, *_through(rendered, own)))
            messages[operation.name, direction] = (tuple(whole),)
    return replace(port, alternatives=(endpoint,), message_alternatives=messages)


def _directions(operation: Operation) -> list[tuple[str, Direction]]:
    found: list[tuple[str, Direction]] = [(operation.action, "request")]
    if operation.response_action is not None:
        found.append((operation.response_action, "response"))
    return [*found, *((action, "fault") for _, action in operation.fault_actions)]


def _through(rendered: Rendered, alternative: Alternative) -> Alternative:
    element = xml.parse(rendered.xml(alternative), Limits())
    (found,) = PolicyReader("written.xml", Allowance(DocumentLimits()), lambda _: ((),)).read(element)
    return found
