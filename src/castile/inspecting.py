"""What a WSDL offers and asks for, told to a person: `castile inspect` and `castile lint`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from castile.config import Limits
from castile.errors import CastileError, PolicyError
from castile.messages.policy import Place, Policy
from castile.policy import Direction, EndpointPolicy
from castile.policy.description import Description, Operation, Port
from castile.policy.documents import Documents
from castile.policy.findings import Finding
from castile.policy.lint import lint
from castile.policy.parse import CREDENTIALS, Reading, needs, read, refusals
from castile.policy.words import parts_of, words
from castile.versions import SOAP_1_2, WSU, part_name

_OPTIONS: Final = {
    "username": 'castile.Username("NAME", "env:PASSWORD")',
    "certificate": 'castile.Certificate("client.pem")',
}
"""Credentials as an example gives them."""
_OTHERS: Final = {
    "tls-certificate": 'tls=castile.TLS(certificate="client.pem")',
    "service-certificate": 'service_certificate="service.pem"',
}
"""What an example gives beside them."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """A port, and what castile makes of its policy."""

    port: Port
    reading: Reading | None
    reason: str = ""
    """Why it can't be used; empty: it can."""
    advice: tuple[Finding, ...] = ()
    """What lint says of the policy."""

    @property
    def name(self) -> str:
        """Of the service and of the port."""
        return "/".join(filter(None, (self.port.service, self.port.name)))

    @property
    def missing(self) -> tuple[str, ...]:
        """The credentials that a client must bring: of `CREDENTIALS`."""
        wanted = needs(self.reading.policy) if self.reading else frozenset()
        return tuple(name for name in CREDENTIALS if name in wanted)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of reading and of lint."""
        return tuple(dict.fromkeys((*(self.reading.findings if self.reading else ()), *self.advice)))


@dataclass(frozen=True, slots=True)
class Inspection:
    """All ports that were asked for."""

    documents: Documents
    description: Description
    ports: tuple[Inspected, ...]
    refused: tuple[tuple[str, str], ...]
    """Ports that the WSDL itself makes unusable, and why."""

    @property
    def usable(self) -> bool:
        """Nothing stands in the way of any port."""
        return bool(self.ports) and not self.refused and not any(each.reason for each in self.ports)


def inspect(
    documents: Documents,
    description: Description,
    *,
    service: str | None = None,
    port: str | None = None,
    strict: bool = False,
    ignore: Collection[str] = (),
) -> Inspection:
    """The ports of these names, each with what it asks for.

    `strict`: a vendor's assertions that castile doesn't know count as what can't be honoured.
    Raises `UsageError` with the choices where there is no such port.
    """

    def meant(of_service: str, name: str) -> bool:
        return service in (None, of_service) and port in (None, name)

    ports = [each for each in description.ports if meant(each.service, each.name)]
    refused = [each for each in description.refused if meant(each.service, each.name)]
    if not ports and not refused:
        description.port(service, port)
    return Inspection(
        documents,
        description,
        tuple(_inspected(each, strict, ignore) for each in ports),
        tuple(("/".join(filter(None, (each.service, each.name))), str(each.reason)) for each in refused),
    )


def of_policy(
    location: str, policy: Policy, *, strict: bool = False, ignore: Collection[str] = ()
) -> Inspected:
    """A policy that stands alone, as if it were an endpoint's."""
    port = Port("", location, "", SOAP_1_2, (), policy, {}, place=Place(location, 0))
    return _inspected(port, strict, ignore)


def _inspected(port: Port, strict: bool, ignore: Collection[str]) -> Inspected:
    try:
        reading = read(port, strict=strict, ignore=ignore)
    except PolicyError as error:
        return Inspected(port, None, str(error))
    return Inspected(port, reading, advice=lint(reading.policy))


@dataclass(frozen=True, slots=True)
class _Protected:
    """What of a message is signed, and what encrypted."""

    signed: tuple[str, ...]
    encrypted: tuple[str, ...]
    tls: bool

    @classmethod
    def of(cls, policy: EndpointPolicy, action: str, direction: Direction) -> _Protected:
        protection = policy.protection(action, direction)
        if protection is None or protection.binding == "transport":
            tokens = () if protection is None or direction != "request" else protection.supporting
            parts = [part_name(WSU, "Timestamp")] if any(each.endorsing for each in tokens) else []
            return cls(tuple(parts), (), policy.tls)
        signed, encrypted = parts_of(protection, direction)
        return cls(tuple(signed), tuple(encrypted), policy.tls)

    def __str__(self) -> str:
        rows = [f"signed {', '.join(self.signed)}"] if self.signed else []
        rows += [f"encrypted {', '.join(self.encrypted)}"] if self.encrypted else []
        rows += ["whole under TLS"] if self.tls else []
        return "; ".join(rows) or "neither signed nor encrypted"


def _messages(policy: EndpointPolicy, operation: Operation) -> dict[str, _Protected]:
    """By direction."""
    rows = {"request": _Protected.of(policy, operation.action, "request")}
    if operation.response_action is not None:
        rows["response"] = _Protected.of(policy, operation.response_action, "response")
    return rows


def lines(inspection: Inspection) -> Iterator[str]:
    """The report for a person."""
    for each in inspection.ports:
        yield from _port_lines(each, inspection)
    for name, reason in inspection.refused:
        yield from (name, *_unusable(reason), "")
    yield from _section("The WSDL", map(str, inspection.description.findings), indent="")


def _port_lines(inspected: Inspected, inspection: Inspection) -> Iterator[str]:
    port, reading = inspected.port, inspected.reading
    yield inspected.name
    yield f"  {port.soap.name} at {port.address or 'no address'}"
    if reading is None:
        yield from _unusable(inspected.reason)
        yield from _section("Operations", map(_operation, port.operations))
        yield ""
        return
    several = len(port.alternatives) > 1
    which = f" (alternative {reading.alternative} of {len(port.alternatives)})" if several else ""
    yield from _section(f"Policy{which}", words(reading.policy))
    yield from _section("Missing credentials", (CREDENTIALS[name] for name in inspected.missing))
    yield from _section("Operations", map(_operation, port.operations))
    yield from _section("Messages", _message_lines(reading.policy, port))
    yield from _section("Findings", map(str, inspected.findings))
    yield from _section("Other alternatives", refusals(reading.refused))
    yield ""
    # At the margin, so that it can be pasted.
    yield from example(inspection, port, inspected.missing)
    yield ""


def _unusable(reason: str) -> Iterator[str]:
    first, *others = reason.splitlines()
    yield f"  can't be used: {first}"
    yield from (f"  {line}" for line in others)


def _section(title: str, rows: Iterator[str] | list[str], indent: str = "  ") -> Iterator[str]:
    inner = [f"{indent}  {row}" if row else "" for row in rows]
    if inner:
        yield f"{indent}{title}:"
        yield from inner


def _operation(operation: Operation) -> str:
    return f"{operation.name}{' (one-way)' if operation.one_way else ''}: {operation.action}"


def _message_lines(policy: EndpointPolicy, port: Port) -> list[str]:
    """Operations whose messages are protected alike stand together."""
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for operation in port.operations:
        key = tuple((name, str(each)) for name, each in _messages(policy, operation).items())
        alike.setdefault(key, []).append(operation.name)
    rows: list[str] = []
    for key, names in alike.items():
        rows.append(", ".join(names))
        rows += [f"  {direction}: {text}" for direction, text in key]
    return rows


def example(inspection: Inspection, port: Port, wanted: Collection[str]) -> list[str]:
    """Lines of Python that call an operation of the port."""
    documents, description = inspection.documents, inspection.description
    if not port.operations or not port.address:
        return []
    operation = next((each for each in port.operations if not each.one_way), port.operations[0])
    arguments = [f"    {json.dumps(documents.location)},"]
    if len(description.ports) + len(description.refused) > 1:
        arguments.append(f"    service={json.dumps(port.service)}, port={json.dumps(port.name)},")
    credentials = list(dict.fromkeys(_OPTIONS[name] for name in wanted if name in _OPTIONS))
    if credentials:
        row = credentials[0] if len(credentials) == 1 else f"[{', '.join(credentials)}]"
        arguments.append(f"    credentials={row},")
    arguments += [f"    {_OTHERS[name]}," for name in wanted if name in _OTHERS]
    verb = "send" if operation.one_way else "call"
    call = f"client.{verb}({json.dumps(operation.name)}{_arguments(documents, port, operation.name)})"
    return [
        "import castile",
        "",
        "with castile.Client(",
        *arguments,
        ") as client:",
        f"    {call}" if operation.one_way else f"    print({call})",
    ]


def _arguments(documents: Documents, port: Port, name: str) -> str:
    # Only what shows an example waits for zeep.
    from castile.typed.codec import Codec
    from castile.typed.contract import read as contract_of
    from castile.typed.sample import sample

    try:
        contract = contract_of(documents, whole=False)
        operation = contract.port(port.service or None, port.name).operations[name]
        given = sample(Codec(contract, Limits(), "off").operation(operation).request)
    except (CastileError, KeyError):
        return ", {}"
    plain = all(each.isidentifier() and each not in ("key", "timeout") for each in given)
    if plain:
        return "".join(f", {each}={value!r}" for each, value in given.items())
    return f", {given!r}"


def as_json(inspection: Inspection) -> dict[str, object]:
    """The report for a program."""
    return {
        "wsdl": inspection.description.location,
        "usable": inspection.usable,
        "ports": [_port_json(each, inspection) for each in inspection.ports],
        "refused": [{"port": name, "reason": reason} for name, reason in inspection.refused],
        "findings": [finding_json(each) for each in inspection.description.findings],
    }


def _port_json(inspected: Inspected, inspection: Inspection) -> dict[str, object]:
    port, reading = inspected.port, inspected.reading
    policy, refused = (reading.policy, reading.refused) if reading else (None, ())
    return {
        "service": port.service,
        "port": port.name,
        "soap": port.soap.name,
        "address": port.address,
        "usable": not inspected.reason,
        "reason": inspected.reason or None,
        "alternative": reading.alternative if reading else None,
        "alternatives": len(port.alternatives),
        "policy": words(policy) if policy else [],
        "missing": {name: CREDENTIALS[name] for name in inspected.missing},
        "operations": [_operation_json(each, policy) for each in port.operations],
        "findings": [finding_json(each) for each in inspected.findings],
        "refused": [{"alternative": number, "reason": why} for number, why in refused],
        "example": example(inspection, port, inspected.missing) if reading else [],
    }


def _operation_json(operation: Operation, policy: EndpointPolicy | None) -> dict[str, object]:
    messages = _messages(policy, operation) if policy else {}
    return {
        "name": operation.name,
        "action": operation.action,
        "response_action": operation.response_action,
        "one_way": operation.one_way,
        "messages": {
            name: {"signed": list(each.signed), "encrypted": list(each.encrypted), "tls": each.tls}
            for name, each in messages.items()
        },
    }


def finding_json(finding: Finding) -> dict[str, object]:
    """One finding for a program."""
    return {
        "level": finding.level,
        "code": finding.code,
        "text": finding.text,
        "document": finding.place.document or None,
        "line": finding.place.line or None,
    }


__all__ = ["Inspected", "Inspection", "as_json", "example", "finding_json", "inspect", "lines", "of_policy"]
