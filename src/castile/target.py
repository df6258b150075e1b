"""What a client is of: an address, or a port of a WSDL with what that says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cryptography import x509

from castile.config import Settings
from castile.credentials import load_certificate
from castile.errors import UsageError
from castile.policy import EndpointPolicy
from castile.policy.parse import Held
from castile.reading import certificate_of, policy_of
from castile.transport.documents import Fetch, Loader

if TYPE_CHECKING:
    from castile.typed.calling import Calls, Request


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint, and its operations if they are known."""

    address: str
    policy: EndpointPolicy
    calls: Calls | None = None
    service: x509.Certificate | None = None
    """The service's certificate, as the WSDL has it."""

    def is_one_way(self, operation: str) -> bool:
        """Whether an operation has no answer. Raises `UsageError` for one that isn't there."""
        return self._calls.operation(operation).response is None

    @property
    def _calls(self) -> Calls:
        if self.calls is None:
            raise UsageError("typed calls need a WSDL: give its path or URL in place of the address")
        return self.calls

    def request(
        self,
        operation: str,
        arguments: Mapping[str, object] | None,
        named: Mapping[str, object],
        *,
        two_way: bool | None,
    ) -> Request:
        """A typed call (`Calls.request`). Raises `UsageError` without a WSDL."""
        return self._calls.request(operation, arguments, named, two_way=two_way)


def is_wsdl(source: str, policy: EndpointPolicy | None) -> bool:
    """Whether a client's first argument is a WSDL: a file, a URL that says so, or all that there is."""
    parts = urlsplit(source)
    if parts.scheme not in ("http", "https"):
        return True
    return policy is None or parts.query.lower() in ("wsdl", "singlewsdl") or parts.path.endswith(".wsdl")


def target(
    source: str,
    policy: EndpointPolicy | None,
    service: str | None,
    port: str | None,
    settings: Settings,
    validate: str,
    held: Held,
    fetch: Fetch | None = None,
) -> Target:
    """The endpoint that a client's arguments mean; a WSDL is loaded for it.

    `held`: the credentials that it has. `fetch`: brings a document from a server. Raises `UsageError`
    for a WSDL that can't be used, `PolicyError` for a policy that can't be met, `TransportError` where
    the WSDL can't be fetched.
    """
    if not is_wsdl(source, policy):
        if policy is None or service is not None or port is not None:
            raise UsageError("service= and port= are of a WSDL: give its URL with ?wsdl")
        return Target(source, policy)
    # Only a client of a WSDL waits for zeep.
    from castile.typed.calling import Calls
    from castile.typed.contract import read

    documents = Loader(fetch=fetch, allow=settings.documents_from).load(source)
    contract = read(documents, whole=False)
    chosen = contract.port(service, port)
    given = None if policy is None else replace(policy, soap=chosen.soap)
    policy = policy_of(chosen.described, given, held, settings)
    if not chosen.described.address:
        raise UsageError(f"the port {chosen.name} of the WSDL has no address")
    calls = Calls(contract, chosen, settings.limits, addressed=policy.addressed, validate=validate)
    expected = certificate_of(chosen.described)
    certificate = load_certificate(expected) if expected is not None else None
    return Target(chosen.described.address, policy, calls, certificate)


__all__ = ["Target", "is_wsdl", "target"]
