"""Frozen dataclasses as JSON, and back.

A small compiler: for each type two functions are built once, from its annotations. It knows str,
int, float, bool, None, bytes (base64), Enum (by name), tuples, frozen sets, nested dataclasses,
and unions of None and dataclasses (tagged with the class's name).

A field that a stored row lacks takes its default, so that a state may gain fields; one that the
class lacks is an error, since dropping it could change what the state means.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from base64 import b64decode, b64encode
from collections.abc import Callable
from enum import Enum
from operator import attrgetter
from typing import Final, Literal, Union

Convert = Callable[[object], object]
TAG: Final = "class"
_write: Final = json.JSONEncoder(separators=(",", ":")).encode
_read: Final = json.JSONDecoder().decode
_PLAIN: Final = (str, int, float, bool, type(None))
_codecs: Final[dict[object, tuple[Convert, Convert]]] = {}


class CodecError(ValueError):
    """A type that can't be stored, or a text that doesn't fit its type."""


def encode(value: object, declared: object = None) -> bytes:
    """A value as compact JSON. `declared`: its declared type where that is a union."""
    converter, _ = _codec(type(value) if declared is None else declared)
    return _write(converter(value)).encode("ascii")


def decode(declared: object, text: bytes) -> object:
    """The value of a declared type that `encode` wrote.

    CodecError: the text doesn't fit the type.
    """
    _, converter = _codec(declared)
    try:
        return converter(_read(text.decode("ascii")))
    except CodecError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CodecError(f"it doesn't fit {getattr(declared, '__name__', declared)}") from error


def _same(value: object) -> object:
    return value


def _codec(declared: object) -> tuple[Convert, Convert]:
    known = _codecs.get(declared)
    if known is None:
        known = _codecs[declared] = _compiled(declared)
    return known


def _compiled(declared: object) -> tuple[Convert, Convert]:
    if declared in _PLAIN or declared is None:
        return _same, _same
    if declared is bytes:
        return _text_of_bytes, _bytes_of_text
    origin = typing.get_origin(declared)
    if origin is Literal:
        return _same, _same
    if origin in (Union, types.UnionType):
        return _union(typing.get_args(declared))
    if origin is tuple:
        return _tuple(typing.get_args(declared))
    if origin is frozenset:
        return _frozenset(typing.get_args(declared)[0])
    if isinstance(declared, type) and issubclass(declared, Enum):
        return _enum(declared)
    if isinstance(declared, type) and dataclasses.is_dataclass(declared):
        return _dataclass(declared)
    raise CodecError(f"{declared} can't be stored")


def _text_of_bytes(value: object) -> object:
    return b64encode(typing.cast(bytes, value)).decode("ascii")


def _bytes_of_text(value: object) -> object:
    return b64decode(typing.cast(str, value), validate=True)


def _enum(declared: type[Enum]) -> tuple[Convert, Convert]:
    members = declared.__members__

    def convert(value: object) -> object:
        return typing.cast(Enum, value).name

    return convert, lambda name: members[typing.cast(str, name)]


def _tuple(arguments: tuple[object, ...]) -> tuple[Convert, Convert]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        outward, inward = _codec(arguments[0])
        return (
            lambda value: [outward(item) for item in typing.cast("tuple[object, ...]", value)],
            lambda value: tuple([inward(item) for item in typing.cast("list[object]", value)]),
        )
    pairs = [_codec(argument) for argument in arguments]

    def convert_out(value: object) -> object:
        return [
            pair[0](item) for pair, item in zip(pairs, typing.cast("tuple[object, ...]", value), strict=True)
        ]

    def convert_in(value: object) -> object:
        return tuple(
            pair[1](item) for pair, item in zip(pairs, typing.cast("list[object]", value), strict=True)
        )

    return convert_out, convert_in


def _frozenset(argument: object) -> tuple[Convert, Convert]:
    outward, inward = _codec(argument)
    return (
        lambda value: sorted(outward(item) for item in typing.cast("frozenset[str]", value)),  # type: ignore[type-var]
        lambda value: frozenset([inward(item) for item in typing.cast("list[object]", value)]),
    )


def _union(arguments: tuple[object, ...]) -> tuple[Convert, Convert]:
    others = [argument for argument in arguments if argument is not type(None)]
    if all(argument in _PLAIN for argument in others):
        return _same, _same
    if len(others) == 1:
        outward, inward = _codec(others[0])
        return (
            lambda value: None if value is None else outward(value),
            lambda value: None if value is None else inward(value),
        )
    classes = {typing.cast(type, argument).__name__: argument for argument in others}
    if not all(dataclasses.is_dataclass(argument) for argument in others) or len(classes) < len(others):
        raise CodecError("of unions only those of None and dataclasses can be stored")

    def convert_out(value: object) -> object:
        if value is None:
            return None
        name = type(value).__name__
        if classes.get(name) is not type(value):
            raise CodecError(f"a {name} is none of {', '.join(classes)}")
        outward, _ = _codec(type(value))
        return {TAG: type(value).__name__, **typing.cast("dict[str, object]", outward(value))}

    def convert_in(value: object) -> object:
        if value is None:
            return None
        fields = dict(typing.cast("dict[str, object]", value))
        _, inward = _codec(classes[typing.cast(str, fields.pop(TAG))])
        return inward(fields)

    return convert_out, convert_in


def _dataclass(declared: type) -> tuple[Convert, Convert]:
    hints = typing.get_type_hints(declared)
    fields = [field for field in dataclasses.fields(declared) if field.init]
    codecs = {field.name: _codec(hints[field.name]) for field in fields}
    same = tuple(name for name, (outward, _) in codecs.items() if outward is _same)
    outwards = tuple((name, outward) for name, (outward, _) in codecs.items() if outward is not _same)
    inwards = tuple((name, inward) for name, (_, inward) in codecs.items() if inward is not _same)

    plain = attributes(same)

    def convert_out(value: object) -> object:
        if type(value) is not declared:
            raise CodecError(f"a {type(value).__name__} isn't a {declared.__name__}")
        result: dict[str, object] = dict(zip(same, plain(value), strict=True))
        for name, outward in outwards:
            result[name] = outward(getattr(value, name))
        return result

    def convert_in(value: object) -> object:
        values = typing.cast("dict[str, object]", value)
        for name, inward in inwards:
            if name in values:
                values[name] = inward(values[name])
        return declared(**values)

    return convert_out, convert_in


def attributes(names: tuple[str, ...]) -> Callable[[object], tuple[object, ...]]:
    """A function that takes these attributes of an object, at one go."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple([getattr(value, name) for name in names])
