"""Why a check failed, as far as the message itself shows it.

Nothing here changes a verdict: a reason is put behind what has failed already. Where a digest or
a signature's value doesn't fit, the causes of `causes` are tried one by one; if none alone makes
it fit, the cause is unknown.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from castile.clock import Now
from castile.errors import CastileError, PeerError
from castile.explaining.causes import cause_of
from castile.explaining.claims import Budget, Checked, Claim, Exhausted, Stated, stated
from castile.explaining.forms import C14N, FORMS
from castile.explaining.keys import Keys
from castile.explaining.opened import LIMITS, Opened
from castile.explaining.passwords import password_cause
from castile.messages.security import UsernameToken
from castile.security.expectation import Expectation
from castile.security.reading import Reading
from castile.security.tokens import Tokens
from castile.security.trace import Problem, TimestampSeen, Trace
from castile.versions import DS, EXC_C14N, WSSE, WSU
from castile.xml import inside, local_name

_SIGNATURE: Final = f"{{{DS}}}Signature"
_STR: Final = f"{{{WSSE}}}SecurityTokenReference"
_KEY_INFO: Final = f"{{{DS}}}KeyInfo"
_BINARY_TOKEN: Final = f"{{{WSSE}}}BinarySecurityToken"
_CREATED: Final = f"{{{WSU}}}Timestamp/{{{WSU}}}Created"
_EPOCH_YEAR: Final = 366 * 86_400.0
_HALF_HOUR: Final = 1_800.0
_FARTHEST: Final = 14 * 3_600.0
"""Seconds: no zone is farther from UTC."""
_MINUTES: Final = 300.0
_LONGEST_TIME: Final = 40
_DUE: Final = (
    "write Transforms whose last is exclusive C14N, and no other canonicalisation (BSP R5416, R5411, R5412)"
)
_UNKNOWN: Final = "the cause is unknown: no single known cause makes it fit"
_ENDED: Final = "the cause is unknown: trying ended at its limit before any known cause made it fit"


class Diagnosis:
    """The reasons behind the problems of one message."""

    __slots__ = ("_budget", "_keys", "_message", "_reading", "_stated")

    def __init__(self, message: Opened, keys: Keys) -> None:
        self._message, self._keys = message, keys.copy()
        self._budget = Budget()
        self._reading: Reading | None = None
        self._stated: tuple[Stated, ...] | None = None

    def of(self, problem: Problem) -> str:
        """What made a check fail, as a continuation of its text; empty if nothing shows."""
        return next((f": {text}" for text in self._causes(problem)), "")

    def digests(self) -> Iterator[str]:
        """What is to be compared with the sender's log: each digest that doesn't fit.

        Not of what came encrypted: from its digest a short plaintext can be guessed.
        """
        if any(problem.text.startswith("the digest of ") for problem in self._message.trace.problems):
            for claim in (each.claims[0] for each in self._wrong_references() if len(each.claims) == 1):
                yield (
                    f"{claim.part}: {claim.hash} of its {len(claim.write())} canonical octets is "
                    f"{_text(claim.digest())}, the signature has {_text(claim.value)}"
                )

    def _causes(self, problem: Problem) -> Iterator[str]:
        if problem.part == "wsu:Timestamp":
            yield from self._of_time(problem)
        envelope = self._message.envelope
        security = envelope.security if envelope is not None else None
        if security is None:
            return
        if problem.part == "wsse:UsernameToken":
            yield from self._of_password()
        if problem.text.startswith("the digest of "):
            yield from self._of_digest(problem.part or "")
        elif problem.part == "ds:Signature" and problem.text.startswith("the signature's value"):
            yield from self._of_value()
        elif problem.part == "ds:Signature":
            for element in security.iterfind(_SIGNATURE):
                tags = [child.tag for child in element]
                if _STR in tags and _KEY_INFO not in tags:
                    yield "it has no ds:KeyInfo; a wsse:SecurityTokenReference stands where KeyInfo is due"
                elif _STR in tags:
                    yield "a wsse:SecurityTokenReference stands beside ds:KeyInfo and not in it"
                elif _KEY_INFO not in tags:
                    yield "it has no ds:KeyInfo, so it doesn't say whose key it is, and no key is guessed"
            yield from self._of_form()
        elif problem.text.startswith("the Body must be encrypted whole") and envelope is not None:
            body = envelope.body
            around = [body.text or "", *(child.tail or "" for child in body)]
            if len(body) == 1 and not any(text.strip() for text in around):
                yield (
                    "white space stands around its EncryptedData, so the message was indented after it was "
                    "encrypted: send it octet for octet"
                )
        elif problem.part == "wsse:BinarySecurityToken" and re.search("kind|ValueType", problem.text):
            kinds = [each.get("ValueType", "none") for each in security.iterfind(_BINARY_TOKEN)]
            yield (
                f"its ValueType is {', '.join(kinds)}; #X509v3 and #X509PKIPathv1 are taken, and the "
                "reference has to say the same"
            )

    def _of_time(self, problem: Problem) -> Iterator[str]:
        stamp = next((each for each in self._message.trace.findings if isinstance(each, TimestampSeen)), None)
        if stamp is None:
            yield from self._of_lexical_time()
            return
        if stamp.created < _EPOCH_YEAR:
            yield "it was created in 1970, so the sender's clock or time source is unset"
        late = "expired" in problem.text
        if late or "future" in problem.text:
            apart = abs(stamp.created - self._message.now)
            zones, rest = divmod(apart + _MINUTES, _HALF_HOUR)
            local = ""
            if zones > 0 and apart <= _FARTHEST and rest <= 2 * _MINUTES:
                local = f" (a wrong time zone makes {zones / 2:g} hours)"
            yield (
                f"it was created {apart:.0f} seconds {'before' if late else 'after'} the time of judging"
                f"{local}: compare the clocks of both sides"
            )

    def _of_lexical_time(self) -> Iterator[str]:
        """What stands where a time is due; its children may be wrong as well."""
        envelope = self._message.envelope
        security = envelope.security if envelope is not None else None
        for stamp in security.iterfind(f"{{{WSU}}}Timestamp") if security is not None else ():
            said = [f"{local_name(each)} {(each.text or '')[:_LONGEST_TIME]!r}" for each in inside(stamp)[:8]]
            yield (
                f"it holds {', '.join(said) or 'nothing'}; due is Created as 2026-11-25T10:00:00.000Z, then "
                "Expires"
            )

    def _of_password(self) -> Iterator[str]:
        reading = self._read()
        stamped = reading.security.findtext(_CREATED) if reading is not None else None
        for entry in reading.of(UsernameToken) if reading is not None else ():
            if isinstance(entry.token, UsernameToken):
                cause = password_cause(entry.token, self._keys, stamped)
                if cause is not None:
                    yield cause

    def _of_digest(self, part: str) -> Iterator[str]:
        wrong = [each for each in self._wrong_references() if each.part == part]
        yield "; ".join(dict.fromkeys(map(_explained, wrong))) or _UNKNOWN

    def _of_value(self) -> Iterator[str]:
        values = [each.value for each in self._signatures() if each.value is not None]
        wrong = [value for value in values if not value.holds]
        yield "; ".join(dict.fromkeys(map(_explained, wrong))) or _UNKNOWN

    def _wrong_references(self) -> list[Checked]:
        return [each for signature in self._signatures() for each in signature.references if not each.holds]

    def _of_form(self) -> Iterator[str]:
        """Whether a signature of a form that isn't taken holds as it is written."""
        for signature in self._signatures():
            checked = [*signature.references, *([signature.value] if signature.value is not None else ())]
            if signature.transforms and all(_plain(each.claims[0]) for each in checked):
                continue
            how = "as they are written"
            if not signature.transforms:
                how = f"under {FORMS[C14N].name}, which is what a missing Transforms stands for"
            held = [each.part for each in signature.references if each.holds]
            wrong = [f"{each.part} doesn't fit: {_explained(each)}" for each in checked if not each.holds]
            told = [f"the digests of {', '.join(held)} hold {how}"] if held else []
            if signature.value is not None and signature.value.holds:
                told.append(f"the signature's value holds{'' if held else f' {how}'}")
            yield "; ".join([*told, *wrong, _DUE])

    # ---- the message once more

    def _read(self) -> Reading | None:
        envelope = self._message.envelope
        if self._reading is None and envelope is not None and envelope.security is not None:
            expectation = Expectation(policy=None, edition=None, request=not self._message.response)
            trace = Trace()
            tokens, now = Tokens(self._keys, expectation, trace), Now(self._message.now, 0.0)
            reading = Reading(envelope, envelope.security, tokens, expectation, now, LIMITS, trace)
            self._reading = reading
            with suppress(PeerError):  # what was read before is all there is to look at
                reading.run()
        return self._reading

    def _signatures(self) -> tuple[Stated, ...]:
        if self._stated is None:
            reading = self._read()
            try:
                found = stated(reading, self._keys, self._budget) if reading is not None else ()
                self._stated = tuple(found)
            except CastileError:
                self._stated = ()
        return self._stated


def _explained(checked: Checked) -> str:
    """Which one cause would make it fit."""
    try:
        if checked.holds is None:
            raise Exhausted
        return next((text for claim in checked.claims if (text := cause_of(claim)) is not None), _UNKNOWN)
    except Exhausted:
        return _ENDED


def _plain(claim: Claim) -> bool:
    """In the one canonical form and with the hashes that castile takes."""
    return claim.form.name == FORMS[EXC_C14N].name and claim.hash in ("SHA-1", "SHA-256")


def _text(octets: bytes) -> str:
    return b64encode(octets[:64]).decode()
