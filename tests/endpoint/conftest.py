"""Pairs of client and service that end with their test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

import castile
from tests.endpoint.pair import Pair


class Pairs(Protocol):
    """Makes a pair from a family's name or a policy."""

    def __call__(self, policy: str | castile.EndpointPolicy = "1.3", **options: Any) -> Pair: ...


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    made: list[Pair] = []

    def make(policy: str | castile.EndpointPolicy = "1.3", **options: Any) -> Pair:
        if isinstance(policy, str):
            policy = castile.EndpointPolicy.of(policy)
        pair = Pair(policy, **options)
        made.append(pair)
        return pair

    yield make
    for pair in made:
        pair.close()
