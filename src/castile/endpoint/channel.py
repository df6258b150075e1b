"""What a connection is worth: TLS, or as good as that by the settings (features CO-11)."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from castile.config import Settings
from castile.errors import PolicyError, UsageError
from castile.policy import EndpointPolicy


def is_loopback(host: str) -> bool:
    """Whether a host, by address or as ``localhost``, is this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def over_tls(settings: Settings, *, tls: bool, local: bool) -> bool:
    """Whether a connection covers what it carries; `local`: this machine speaks to itself."""
    return tls or (local and settings.plain_transport == "loopback")


def address_over_tls(address: str, settings: Settings) -> bool:
    """`over_tls` of a client's endpoint."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        raise UsageError("the endpoint's address is no URL") from None
    return over_tls(settings, tls=parts.scheme.lower() == "https", local=is_loopback(host))


def check_address(address: str, policy: EndpointPolicy, settings: Settings) -> None:
    """Refuse a client's address that is less than the policy asks for. Raises `PolicyError`."""
    if address_over_tls(address, settings):
        return
    left = [each for each in policy.protections if each.binding == "transport"]
    clear = settings.allow_clear_password and all(each.of_a_user for each in left)
    if policy.tls or (left and not clear):
        raise PolicyError(
            "the policy leaves protection to TLS: give an https:// address "
            '(for a test on one machine: Settings(plain_transport="loopback"))'
        )
