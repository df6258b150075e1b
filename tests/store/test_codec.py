"""States of the protocol as JSON, and back."""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castile.protocol.conversation import Conversation
from castile.protocol.destination import Destination
from castile.protocol.issuer import Context
from castile.protocol.ranges import EMPTY, RangeSet
from castile.protocol.source import Source
from castile.store import codec

from .samples import context, conversation, destination, source


class Colour(Enum):
    RED = 1
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Inner:
    name: str
    secret: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Outer:
    number: int
    share: float
    yes: bool
    maybe: str | None
    octets: bytes | None
    colour: Colour
    kind: Literal["a", "b"]
    inner: Inner | None
    inners: tuple[Inner, ...]
    pair: tuple[int, Colour]
    names: frozenset[str]
    either: Inner | Other | None
    ranges: RangeSet = EMPTY


@dataclass(frozen=True, slots=True)
class Other:
    inner: Inner


inners = st.builds(Inner, st.text(), st.binary())
outers = st.builds(
    Outer,
    number=st.integers(-(1 << 70), 1 << 70),
    share=st.floats(allow_nan=False),
    yes=st.booleans(),
    maybe=st.none() | st.text(),
    octets=st.none() | st.binary(),
    colour=st.sampled_from(Colour),
    kind=st.sampled_from(["a", "b"]),
    inner=st.none() | inners,
    inners=st.lists(inners).map(tuple),
    pair=st.tuples(st.integers(), st.sampled_from(Colour)),
    names=st.frozensets(st.text()),
    either=st.none() | inners | st.builds(Other, inners),
    ranges=st.lists(st.tuples(st.integers(1, 99), st.integers(0, 9))).map(
        lambda pairs: RangeSet.from_ranges((low, low + more) for low, more in pairs)
    ),
)


@given(outers)
def test_everything_comes_back_as_it_was(value: Outer) -> None:
    assert codec.decode(Outer, codec.encode(value)) == value


@pytest.mark.parametrize(
    ("declared", "state"),
    [
        (Source, source().state),
        (Destination, destination().state),
        (Context | Conversation, context().state),
        (Context | Conversation, conversation().state),
    ],
)
def test_states_of_the_protocol(declared: object, state: object) -> None:
    assert codec.decode(declared, codec.encode(state, declared)) == state


def test_a_field_that_a_row_lacks_takes_its_default() -> None:
    fields = json.loads(codec.encode(source().state))
    del fields["acknowledged"], fields["next_number"]
    found = typing.cast(Source, codec.decode(Source, json.dumps(fields).encode()))
    assert (found.acknowledged, found.next_number) == (RangeSet(), 1)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"name": "x", "colour": "RED"}',
        b'{"name": "x", "secret": "not base64!"}',
        b'{"name": "x", "secret": 7}',
        b"\xff",
    ],
)
def test_what_doesnt_fit_is_an_error_without_its_content(text: bytes) -> None:
    with pytest.raises(codec.CodecError, match=r"^it doesn't fit Inner$"):
        codec.decode(Inner, text)


def test_a_class_that_isnt_of_the_union_is_refused() -> None:
    with pytest.raises(codec.CodecError):
        codec.decode(Context | Conversation, b'{"class": "Source"}')
    with pytest.raises(codec.CodecError, match="a Source is none of Context, Conversation"):
        codec.encode(source().state, Context | Conversation)


@pytest.mark.parametrize("declared", [dict[str, int], list[int], int | bytes, object])
def test_types_that_cant_be_stored(declared: object) -> None:
    with pytest.raises(codec.CodecError, match=r"be stored"):
        codec.decode(declared, b"{}")
