"""What is measured: the ways to talk, the bodies, who is who."""

from __future__ import annotations

import resource
from typing import Final

import castile

MODES: Final = {
    "plain": "plain SOAP",
    "sc": "SC alone",
    "rm-sc": "RM over SC",
}
"""Ways to talk, by the name that the processes use among themselves."""
ECHO: Final = "urn:castile:bench/Echo"
TELL: Final = "urn:castile:bench/Tell"
USER: Final = castile.Username("ada", "a password of the bench")


def policy(mode: str) -> castile.EndpointPolicy:
    """The endpoint policy of a mode: family 1.3, suite Basic256."""
    return castile.EndpointPolicy.of("1.3", reliable=mode == "rm-sc", secure=mode != "plain")


def body(size: int, number: int) -> bytes:
    """About `size` bytes of dense canonical XML, another one for every number."""
    items = []
    for position in range(max(1, round((size - 60) / 113))):
        value = (number * 7_919 + position * 104_729) % 1_000_000
        items.append(
            f"<m:Item><m:Name>article {value:06d} of {number:09d}</m:Name><m:Count>{value % 97:02d}</m:Count>"
            f"<m:Price>{value / 100:09.2f}</m:Price></m:Item>"
        )
    return f'<m:Order xmlns:m="urn:castile:bench">{"".join(items)}</m:Order>'.encode()


def cpu_seconds() -> float:
    """What this process has used so far, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
