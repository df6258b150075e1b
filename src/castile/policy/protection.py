"""Protection assertions: which parts of a message are signed, encrypted, required (WS-SP 1.2, 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from castile.messages.policy import Assertion
from castile.policy.parts import NO_PARTS, HeaderPart, Parts
from castile.policy.paths import BODY, SIGNATURE, TIMESTAMP, part_of
from castile.policy.scope import Notes, Scope

_SIGNED: Final = ("sp:SignedParts", "sp:SignedElements")
_ENCRYPTED: Final = ("sp:EncryptedParts", "sp:EncryptedElements", "sp:ContentEncryptedElements")
_REQUIRED: Final = ("sp:RequiredParts", "sp:RequiredElements")


@dataclass(frozen=True, slots=True)
class Named:
    """The parts that a policy names."""

    parts: Parts = NO_PARTS
    signature: bool = False
    """The signature is to be encrypted, said by an XPath rather than by EncryptSignature."""
    assertions: tuple[Assertion, ...] = ()
    """Those that sign or encrypt; where there is none, nothing is said."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What assertions of one kind name."""

    headers: frozenset[HeaderPart]
    others: frozenset[str]
    everything: bool
    """An assertion without content."""


def named_parts(scope: Scope) -> Named:
    """The parts that an alternative names; several assertions of a kind add up. Raises `Unusable`."""
    signing, sealing = scope.take(*_SIGNED), scope.take(*_ENCRYPTED)
    signed, sealed = _found(signing, scope.notes), _found(sealing, scope.notes)
    required = _found(scope.take(*_REQUIRED), scope.notes)
    parts = Parts(
        signed_body=signed.everything or BODY in signed.others,
        signed_headers=signed.headers,
        every_header=signed.everything,
        encrypted_body=sealed.everything or BODY in sealed.others,
        encrypted_headers=sealed.headers,
        required=required.headers,
    )
    return Named(parts, SIGNATURE in sealed.others, (*signing, *sealing))


def _found(assertions: list[Assertion], notes: Notes) -> _Found:
    headers: set[HeaderPart] = set()
    others: set[str] = set()
    everything = False
    for assertion in assertions:
        with Scope((assertion,), notes).inside(assertion) as inner:
            parts: list[HeaderPart | str] = [_header(each, notes) for each in inner.take("sp:Header")]
            parts += [_path(each, notes) for each in inner.take("sp:XPath", "sp:XPath2")]
            parts += [BODY] if inner.flag("sp:Body") else []
        everything |= not parts
        headers.update(part for part in parts if isinstance(part, HeaderPart))
        others.update(part for part in parts if isinstance(part, str))
    return _Found(frozenset(headers), frozenset(others), everything)


def _header(assertion: Assertion, notes: Notes) -> HeaderPart:
    attributes = dict(assertion.attributes)
    namespace = attributes.get("Namespace", "").strip()
    if not namespace:
        raise notes.refuse(assertion, "names no Namespace, which WS-SecurityPolicy demands")
    return HeaderPart(namespace, attributes.get("Name", "").strip())


def _path(assertion: Assertion, notes: Notes) -> HeaderPart | str:
    part = part_of(assertion.text, dict(assertion.namespaces))
    if part is None:
        raise notes.refuse(
            assertion,
            f"holds a path that leads to no header and not to the Body: {assertion.text[:120]}",
            "castile protects whole headers and the Body only",
        )
    return part if part != TIMESTAMP else ""
