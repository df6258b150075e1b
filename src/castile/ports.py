"""What a service offers where: each port's path, its policies, and its part of the contract."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from castile.errors import QName, UsageError
from castile.policy import EndpointPolicy
from castile.policy.lint import check
from castile.policy.parse import readings
from castile.policy.render import Rendered, render
from castile.policy.sets import policy_set

if TYPE_CHECKING:
    from castile.typed.contract import Contract, Port
    from castile.typed.publishing import Publisher

Policies = EndpointPolicy | str | Sequence[EndpointPolicy | str]
"""A policy or the name of a set, or several."""
PortPolicies = Policies | Mapping[str, Policies] | None


@dataclass(frozen=True, slots=True)
class Offer:
    """One policy at one path."""

    policy: EndpointPolicy
    given: bool = True
    """By the program, and not by the WSDL."""
    path: str | None = None
    """Below the mount; None: any."""
    port: Port | None = None
    """None: a service without WSDL."""

    def address(self, base: str, path: str = "") -> str:
        """Its URL in a service that is at `base`."""
        own = path if self.path is None else self.path
        return base.rstrip("/") + own if own else base

    @property
    def implied(self) -> Callable[[str | None, QName | None], str]:
        """The action of a message that has none of its own (`Party.implied`)."""
        if self.port is None:
            return lambda label, _: label or ""
        from castile.typed.operations import implied

        return partial(implied, self.port)


def offers(
    policy: PortPolicies, contract: Contract | None, ignore: Collection[str] = ()
) -> tuple[Offer, ...]:
    """Every port with its policies. Raises `UsageError` and `PolicyError` for what can't be offered."""
    if contract is None:
        if policy is None or isinstance(policy, Mapping):
            raise UsageError("a service without WSDL takes policy= with what it asks for")
        return tuple(Offer(each) for each in _several(policy))
    ports = contract.ports
    if isinstance(policy, Mapping):
        names = {port.name for port in ports}
        if unknown := [name for name in policy if name not in names]:
            raise UsageError(f"the WSDL has no port {unknown[0]!r}; it has: {', '.join(sorted(names))}")
        ports = tuple(port for port in ports if port.name in policy)
    paths = {port.name: urlsplit(port.described.address).path or "/" for port in ports}
    one = len(set(paths.values())) == 1
    return tuple(
        Offer(replace(each, soap=port.soap), policy is not None, None if one else paths[port.name], port)
        for port in ports
        for each in _of(policy, port, ignore)
    )


def _of(policy: PortPolicies, port: Port, ignore: Collection[str]) -> tuple[EndpointPolicy, ...]:
    if isinstance(policy, Mapping):
        return _several(policy[port.name])
    if policy is not None:
        return _several(policy)
    # A service meets its own WSDL to the letter, and each alternative that it publishes (PO-07).
    found = readings(port.described, strict=True, ignore=ignore)
    return tuple(dict.fromkeys(each.policy for each in found))


def plain_twins(given: Sequence[Offer]) -> tuple[Offer, ...]:
    """The same under policies without reliable messaging, for clients that have none."""
    return tuple(
        replace(offer, policy=replace(offer.policy, reliability=None))
        for offer in given
        if offer.policy.reliability is not None
    )


def addresses(given: Sequence[Offer], base: str, path: str) -> dict[tuple[str, str], str]:
    """The URL of each port that is offered. `base` is where the service is, `path` what was asked for."""
    return {
        (offer.port.service, offer.port.name): offer.address(base, path)
        for offer in given
        if offer.port is not None
    }


def publisher(contract: Contract, given: Sequence[Offer]) -> Publisher:
    """What publishes these offers of a contract, with the policies that a program gave."""
    from castile.typed.attaching import Attaching
    from castile.typed.publishing import Publisher

    rendered: dict[str, Rendered] = {}
    for offer in given:  # of several policies the first is what clients are made for
        if offer.port is not None and offer.given:
            rendered.setdefault(offer.port.described.binding, render(offer.policy))
    return Publisher(contract, Attaching(contract, rendered) if rendered else None)


def _several(policy: Policies) -> tuple[EndpointPolicy, ...]:
    rows = (policy,) if isinstance(policy, EndpointPolicy | str) else tuple(policy)
    if not rows:
        raise UsageError("policy= is empty: a service takes at least one")
    return tuple(check(policy_set(each) if isinstance(each, str) else each) for each in rows)
