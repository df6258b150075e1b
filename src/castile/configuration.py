"""``castile.toml``: a service without a program of its own but for its functions (features SV-22).

::

    [service]
    wsdl = "bank.wsdl"
    functions = "bank"                  # the module with a function for each operation
    policy = "wcf-ws2007http-username-direct-reliable"
    certificate = "service.pem"
    store = "bank.db"

    [service.users]
    ada = "env:ADA_PASSWORD"            # secrets are given by where they are

    [listen]
    port = 8443

    [timers]                            # any of castile.config's
    drain = 10.0
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from castile.config import Limits, Settings, Timers
from castile.credentials import Certificate, resolve
from castile.errors import UsageError
from castile.service import Service

T = TypeVar("T")
_REFERENCES: Final = ("env:", "file:", "keyring:")


@dataclass(frozen=True, slots=True)
class ServiceTable:
    """``[service]``: what is offered. Paths are relative to the file."""

    wsdl: str
    functions: str
    """The module whose functions are the operations."""
    policy: str | dict[str, str] | None = None
    """The name of a set, or one for each port."""
    store: str | None = None
    public_url: str | None = None
    validate: Literal["strict", "off"] = "strict"
    partial: bool = False
    rm_only: bool = True
    certificate: str | None = None
    """The service's, with its key."""
    certificate_password: str | None = None
    trust: list[str] = field(default_factory=list)
    users: dict[str, str] = field(default_factory=dict)
    """Where each one's password is."""


@dataclass(frozen=True, slots=True)
class ListenTable:
    """``[listen]``: where."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Configured:
    """What a file says."""

    service: Service
    listen: ListenTable


def load(path: str | Path) -> Configured:
    """The service that a file describes.

    Raises `UsageError` for a file that can't be read, for a key that isn't known, with the nearest
    that is, and for a value of another type; what `Service` raises for what it can't offer.
    """
    place = Path(path)
    try:
        tables = tomllib.loads(place.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{place} can't be read: {error}") from error
    _known(str(place), tables, {"service", "listen", "limits", "timers", "settings"})

    def table(name: str, kind: Callable[..., T], **given: object) -> T:
        return _made(f"{place} [{name}]", kind, tables.get(name, {}), given)

    limits, timers = table("limits", Limits), table("timers", Timers)
    settings = table("settings", Settings, limits=limits, timers=timers)
    return Configured(_service(place, table("service", ServiceTable), settings), table("listen", ListenTable))


def _service(place: Path, table: ServiceTable, settings: Settings) -> Service:
    folder = place.resolve().parent
    secret = table.certificate_password
    service = Service(
        folder / table.wsdl,
        policy=table.policy,
        validate=table.validate,
        partial=table.partial,
        rm_only=table.rm_only,
        credentials=None
        if table.certificate is None
        else Certificate(folder / table.certificate, None if secret is None else _reference(secret)),
        users={name: resolve(_reference(where)) for name, where in table.users.items()} or None,
        trust=[folder / each for each in table.trust],
        store=None if table.store is None else folder / table.store,
        public_url=table.public_url,
        settings=settings,
    )
    sys.path.insert(0, str(folder))
    try:
        module = import_module(table.functions)
    except ModuleNotFoundError as error:
        if error.name != table.functions.partition(".")[0]:
            raise
        raise UsageError(f"{place}: there is no module {table.functions!r} beside it") from None
    for name in service.operations:
        function = getattr(module, name, None)
        if callable(function):
            service.operation(name=name)(function)
    return service


def _reference(where: str) -> str:
    if not where.startswith(_REFERENCES):
        raise UsageError("a password in a file is given by where it is: env:NAME or file:PATH")
    return where


def _made(where: str, kind: Callable[..., T], values: object, given: Mapping[str, object]) -> T:
    """A dataclass from a table and from what is `given`."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}: a table is wanted")
    entries = {each.name: each for each in fields(kind) if each.name not in given}  # type: ignore[arg-type]
    _known(where, values, entries.keys())
    if missing := [name for name, each in entries.items() if name not in values and _needed(each)]:
        raise UsageError(f"{where}: {missing[0]} is missing")
    hints = get_type_hints(kind)
    typed = {name: _typed(f"{where} {name}", hints[name], value) for name, value in values.items()}
    return kind(**given, **typed)


def _known(where: str, values: Mapping[str, object], names: Collection[str]) -> None:
    for name in values:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(names))}"
            raise UsageError(f"{where}: there is no {name!r}; {advice}")


def _needed(entry: Field[object]) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


def _typed(where: str, hint: object, value: object) -> object:
    """A value of this type; a whole number is a number of seconds too, a list a tuple."""
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType, Literal) else (hint,)
    kinds = [get_origin(each) or each for each in choices]
    if type(value) is int and float in kinds:
        return float(value)
    if type(value) is list and tuple in kinds:
        return tuple(value)
    if type(value) in kinds or (isinstance(value, str) and value in choices):
        return value
    wanted = " or ".join(getattr(kind, "__name__", repr(kind)) for kind in kinds if kind is not type(None))
    raise UsageError(f"{where}: {wanted} is wanted, not {value!r}")


__all__ = ["Configured", "load"]
