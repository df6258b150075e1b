"""The known causes of a digest or a signature value that doesn't fit, as one table.

A row has a sentence and a generator of what could have been digested or signed. A row is told
only where what it tries fits exactly: nothing here is ever near enough.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, Literal

from castile.explaining import keyed
from castile.explaining.claims import HASHES, Claim, Try
from castile.explaining.forms import (
    BLANKS,
    C14N,
    FORMS,
    Form,
    Scope,
    Texts,
    Writer,
    indented,
    stripped,
    trimmed,
)
from castile.messages.security import ID
from castile.versions import DS, EXC_C14N, SOAP_1_1, SOAP_1_2, WSA, WSSE, WSU

_STEPS: Final = {"  ": "two spaces", "    ": "four spaces", "\t": "a tab", "": "nothing", " ": "a space",
                 "   ": "three spaces"}  # fmt: skip
_NEWLINES: Final = {"\n": "LF", "\r\n": "CR LF"}
_LONGEST: Final = 200
"""Characters of a note: names in a message are as long as somebody makes them."""
_DEEPEST: Final = 5
"""Start of an indentation: SignedInfo stands four levels deep."""
_MOST: Final = 16
"""Prefixes, attributes or namespaces of which each one is tried."""
_XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
_XSD: Final = "http://www.w3.org/2001/XMLSchema"
_IDS: Final = frozenset({ID, "Id", "ID", "{http://www.w3.org/XML/1998/namespace}id"})
_BASE64: Final = re.compile(r"\s*+(?:[A-Za-z0-9+/]\s*+){16,}+(?:=\s*+){0,2}+", re.ASCII)
_PREFIX: Final = re.compile(r"(?:\A|[\s\"'>(,])([A-Za-z_][\w.-]*):[A-Za-z_]")
_SOAP: Final = ("s", "soap", "soapenv", "SOAP-ENV", "env", "S", "soap12", "")
_USUAL: Final = {
    SOAP_1_1.namespace: _SOAP,
    SOAP_1_2.namespace: _SOAP,
    WSU: ("wsu", "u"),
    WSSE: ("wsse", "o"),
    DS: ("ds", "dsig", ""),
    **dict.fromkeys(WSA, ("wsa", "a", "wsa5", "add", "")),
}
_ANY: Final = ("", *(f"ns{number}" for number in range(6)), "m", "n", "q1", "tns", "n1")


@dataclass(frozen=True, slots=True)
class Cause:
    """One known cause."""

    name: str
    text: str
    """What makes it fit, and what to do; ``{}`` stands for the note of the try that fits."""
    tries: Callable[[Claim], Iterator[Try]]
    of: Literal["digest", "value"] | None = None
    """None: of both."""


def cause_of(claim: Claim) -> str | None:
    """The sentence of the first cause that makes a claim fit; None: no single one does.

    May raise `Exhausted`.
    """
    kind = "digest" if claim.key is None else "value"
    for cause in CAUSES:
        for attempt in cause.tries(claim) if cause.of in (None, kind) else ():
            if claim.holds(attempt):
                return cause.text.format(attempt.note[:_LONGEST])
    return None


# ---- white space and line ends


def _stripped(claim: Claim) -> Iterator[Try]:
    yield Try(claim.write(stripped))


def _trimmed(claim: Claim) -> Iterator[Try]:
    yield Try(claim.write(trimmed))


def _base64_joined(claim: Claim) -> Iterator[Try]:
    yield Try(claim.write(_in_base64(lambda text: "".join(text.split()))))


def _base64_wrapped(claim: Claim) -> Iterator[Try]:
    for width, newline, end in product((76, 64, 72), ("\n", "\r\n"), (False, True)):
        note = f"every {width} characters, with {_NEWLINES[newline]}"
        yield Try(claim.write(_in_base64(_wrapping(width, newline, end))), note=note)


def _wrapping(width: int, newline: str, end: bool) -> Callable[[str], str]:
    def wrap(text: str) -> str:
        joined = "".join(text.split())
        lines = [joined[start : start + width] for start in range(0, len(joined), width)]
        return newline.join(lines) + (newline if end else "")

    return wrap


def _in_base64(change: Callable[[str], str]) -> Texts:
    """Changes leaves that hold nothing but base64, of sixteen characters at least."""
    return lambda segments, _: [
        change(each) if len(segments) == 1 and _BASE64.fullmatch(each) else each for each in segments
    ]


def _indented(claim: Claim) -> Iterator[Try]:
    for start, step, newline in product(range(_DEEPEST), _STEPS, _NEWLINES):
        if step or not start:
            note = f"by {_STEPS[step]} a level, with {_NEWLINES[newline]}"
            yield Try(claim.write(indented(step, newline, start)), note=note)


def _returns_lost(claim: Claim) -> Iterator[Try]:
    for which in (lambda _: True, lambda text: bool(text.strip(BLANKS)), lambda text: not text.strip(BLANKS)):
        yield Try(claim.write(_returned(which)))
    yield Try(claim.write().replace(b"\n", b"\r\n"))  # by a signer who doesn't escape them


def _returned(which: Callable[[str], bool]) -> Texts:
    return lambda segments, _: [
        each.replace("\r\n", "\n").replace("\n", "\r\n") if which(each) else each for each in segments
    ]


def _returns_added(claim: Claim) -> Iterator[Try]:
    for old, new in (("\r\n", "\n"), ("\r", "\n"), ("\r\n", ""), ("\r", "")):
        yield Try(claim.write(_replacing(old, new)))


def _replacing(old: str, new: str) -> Texts:
    return lambda segments, _: [each.replace(old, new) for each in segments]


# ---- canonicalisation


def _unlisted(claim: Claim) -> Iterator[Try]:
    if claim.form.prefixes:
        yield Try(claim.write(form=replace(claim.form, prefixes=())))


def _default_unlisted(claim: Claim) -> Iterator[Try]:
    if "#default" in claim.form.prefixes:
        listed = tuple(each for each in claim.form.prefixes if each != "#default")
        yield Try(claim.write(form=replace(claim.form, prefixes=listed)))


def _uncommented(claim: Claim) -> Iterator[Try]:
    if claim.form.comments:
        yield Try(claim.write(form=replace(claim.form, comments=False)))


def _other_form(claim: Claim) -> Iterator[Try]:
    for form in FORMS.values():
        if form.name != claim.form.name:
            prefixes = claim.form.prefixes if form.exclusive else ()
            note = f"{form.name}, where {claim.form.name} is named"
            yield Try(claim.write(form=replace(form, prefixes=prefixes)), note=note)


def _listed(claim: Claim) -> Iterator[Try]:
    """A PrefixList that was used and not written."""
    if not claim.form.exclusive:
        return
    scope = claim.writer.scope()
    named = sorted(prefix for prefix in scope if prefix)
    values = sorted(_in_values(claim) & scope.keys())
    every = [("#default", *named), tuple(named), tuple(values), ("#default", *values)]
    for prefixes in [*every, *((each,) for each in ["#default", *named][:_MOST])]:
        if prefixes:
            form = replace(claim.form, prefixes=claim.form.prefixes + prefixes)
            yield Try(claim.write(form=form), note=" ".join(prefixes))


def _in_values(claim: Claim) -> set[str]:
    """Prefixes in text and attribute values, as in ``xsi:type``."""
    prefixes: set[str] = set()
    for each in claim.writer.element.iter("*"):
        for text in (each.text or "", *map(str, each.attrib.values())):
            prefixes.update(_PREFIX.findall(text[:1_000]))
    return prefixes


# ---- declarations


def _undeclared(claim: Claim) -> Iterator[Try]:
    """Fewer declarations around it than came."""
    for form in _declaring(claim):
        around = claim.writer.around
        yield Try(claim.write(form=form, around={}), note="all declarations around it")
        for parent in claim.writer.element.iterancestors():
            outer = Writer(parent).around
            inner = {prefix: uri for prefix, uri in around.items() if outer.get(prefix) != uri}
            yield Try(claim.write(form=form, around=inner), note=", ".join(map(_declared, sorted(outer))))
        for prefix in sorted(around)[:_MOST]:
            inner = {each: uri for each, uri in around.items() if each != prefix}
            yield Try(claim.write(form=form, around=inner), note=_declared(prefix))


def _declared_more(claim: Claim) -> Iterator[Try]:
    """More declarations around it than came: the usual ones, and those of the rest of the message."""
    elsewhere: dict[str, str] = {}
    for each in claim.reading.envelope.root.iter("*"):
        if len(elsewhere) >= _MOST:
            break
        elsewhere |= {prefix: uri for prefix, uri in each.nsmap.items() if prefix and uri}
    for form in _declaring(claim):
        around = claim.writer.around
        usual: list[Scope] = [{"xsi": _XSI, "xsd": _XSD}, {"xsi": _XSI}, {"xsd": _XSD}, {"xs": _XSD},
                              {"xsi": _XSI, "xs": _XSD}]  # fmt: skip
        for more in [*usual, elsewhere, *({prefix: uri} for prefix, uri in elsewhere.items())]:
            if not more.items() <= around.items():
                note = ", ".join(map(_declared, sorted(more)))
                yield Try(claim.write(form=form, around={**around, **more}), note=note)


def _declaring(claim: Claim) -> Iterator[Form]:
    """Forms in which a declaration that nothing uses makes a difference."""
    if not claim.form.exclusive or claim.form.prefixes:
        yield claim.form
    if claim.form.exclusive:
        yield FORMS[C14N]


def _declared(prefix: str) -> str:
    return f"xmlns:{prefix}" if prefix else "xmlns"


def _renamed(claim: Claim) -> Iterator[Try]:
    used: dict[str, str] = {}
    for each in claim.writer.element.iter("*"):
        if len(used) >= _MOST:
            break
        used.setdefault(str(each.tag).rpartition("}")[0][1:], each.prefix or "")
    used.pop("", None)
    if claim.writer.element.get(ID) is not None:
        used.setdefault(WSU, next((p for p, uri in claim.writer.scope().items() if uri == WSU), "wsu"))
    singles = [{uri: new} for uri in used for new in _USUAL.get(uri, _ANY)]
    soap = next((uri for uri in (SOAP_1_1.namespace, SOAP_1_2.namespace) if uri in used), "")
    pairs = [{soap: one, WSU: two} for one, two in product(_SOAP, _USUAL[WSU])] if soap else []
    for renamed in [*singles, *pairs]:
        others = {prefix for uri, prefix in used.items() if uri not in renamed}
        if any(used.get(uri) != new for uri, new in renamed.items()) and not others & set(renamed.values()):
            note = ", ".join(f"{new or 'no prefix'} for {used.get(uri, '')}" for uri, new in renamed.items())
            yield Try(claim.write(renamed=renamed), note=note)


# ---- what was taken for the part


def _content(claim: Claim) -> Iterator[Try]:
    octets = claim.write()
    yield Try(octets[octets.index(b">") + 1 : octets.rindex(b"</")])
    children = [each for each in claim.writer.element if isinstance(each.tag, str)][:_MOST]
    written = [Writer(each).write(claim.form) for each in children]
    yield Try(b"".join(written))
    yield from map(Try, written[:1])


def _without_id(claim: Claim) -> Iterator[Try]:
    for label in claim.writer.attributes():
        if label in _IDS:
            yield Try(claim.write(without=label))


def _without_attribute(claim: Claim) -> Iterator[Try]:
    for label in claim.writer.attributes()[:_MOST]:
        if label not in _IDS:
            yield Try(claim.write(without=label), note=label.rpartition("}")[2])


def _reference_itself(claim: Claim) -> Iterator[Try]:
    if claim.reference is not None:
        yield Try(Writer(claim.reference).write(FORMS[EXC_C14N]))
        yield Try(Writer(claim.reference).write(claim.form))


def _token_instead(claim: Claim) -> Iterator[Try]:
    if claim.reference is None:
        yield from map(Try, claim.tokens)


def _token_form(claim: Claim) -> Iterator[Try]:
    if claim.reference is not None:
        yield from map(Try, claim.tokens)


def _other_part(claim: Claim) -> Iterator[Try]:
    for part in list(claim.reading.parts.values())[: 2 * _MOST]:
        if part.element is not claim.writer.element:
            yield Try(Writer(part.element).write(claim.form), note=part.name)


# ---- hashes and encodings


def _other_hash(claim: Claim) -> Iterator[Try]:
    octets = claim.write()
    for name in HASHES:
        if name != claim.hash:
            yield Try(octets, hash=name, note=f"{name}, where {claim.hash} is named")


def _hexadecimal(claim: Claim) -> Iterator[Try]:
    try:
        yield Try(value=bytes.fromhex(claim.value.decode("ascii")))
    except ValueError:
        return


def _backwards(claim: Claim) -> Iterator[Try]:
    yield Try(value=claim.value[::-1])


def _mangled(claim: Claim) -> Iterator[Try]:
    octets = claim.write()
    if octets.isascii():
        return
    text = octets.decode()
    for name in ("latin-1", "cp1252"):
        try:
            yield Try(text.encode(name).decode().encode())
        except UnicodeError:
            continue


def _encoded(claim: Claim) -> Iterator[Try]:
    text = claim.write().decode()
    for name in ("latin-1", "cp1252", "utf-16-le", "utf-16-be", "utf-16"):
        try:
            yield Try(text.encode(name), note=name.upper())
        except UnicodeError:
            continue
    if not text.isascii():
        yield Try(text.encode().decode("latin-1").encode(), note="UTF-8 twice over")


def _normalised(claim: Claim) -> Iterator[Try]:
    text = claim.write().decode()
    if not text.isascii():
        for name in ("NFC", "NFD"):
            yield Try(unicodedata.normalize(name, text).encode(), note=name)


def _prefaced(claim: Claim) -> Iterator[Try]:
    octets = claim.write()
    declarations = [f'<?xml version="1.0" encoding="{name}"?>' for name in ("UTF-8", "utf-8")]
    declarations += ['<?xml version="1.0"?>', "<?xml version='1.0' encoding='UTF-8'?>"]
    for before in declarations:
        for newline in ("", "\n", "\r\n"):
            yield Try(f"{before}{newline}".encode() + octets, note="an XML declaration before it")
    yield Try(b"\xef\xbb\xbf" + octets, note="a byte order mark before it")
    yield Try(octets + b"\n", note="a line end behind it")
    yield Try(octets + b"\r\n", note="a line end behind it")


def _as_written(claim: Claim) -> Iterator[Try]:
    """In the form of a serialiser that leaves empty elements short."""
    octets = claim.write()
    yield Try(re.sub(rb"(<[^<>/][^<>]*)></[^<>]*>", rb"\1/>", octets))
    yield Try(re.sub(rb"(<[^<>/][^<>]*)></[^<>]*>", rb"\1 />", octets))


CAUSES: Final = (
    Cause(
        "reversed-path",
        "the certificates of the path stand in the reverse order: from the anchor to the signer is due, and "
        "the first one's key fits",
        keyed.reversed_path,
        "value",
    ),
    Cause(
        "indented",
        "it would fit if the white space between elements were not there, so the message was indented "
        "after it was signed: send what was signed, octet for octet",
        _stripped,
    ),
    Cause(
        "prefix-list-ignored",
        "it would fit without the PrefixList, which the signer has ignored: let it apply the "
        "InclusiveNamespaces that it writes, or write none",
        _unlisted,
    ),
    Cause(
        "default-ignored",
        "it would fit if #default weren't in the PrefixList: the signer has ignored it, as libxml2 does",
        _default_unlisted,
    ),
    Cause(
        "returns-lost",
        "it would fit with carriage returns before the line feeds, which somebody has dropped: XML keeps "
        "them only if they are written as &#xD;",
        _returns_lost,
    ),
    Cause(
        "returns-added",
        "it would fit without the carriage returns (&#xD;), which were added after it was signed",
        _returns_added,
    ),
    Cause(
        "blanks-around-text",
        "it would fit without the white space around texts, which was added after it was signed: send what "
        "was signed, octet for octet",
        _trimmed,
    ),
    Cause(
        "base64-wrapped",
        "it would fit without the white space inside base64 values, where somebody has wrapped them after "
        "it was signed",
        _base64_joined,
    ),
    Cause(
        "comment-added",
        "it would fit without its comments, which were added after it was signed",
        _uncommented,
    ),
    Cause(
        "other-form",
        "it would fit under {}: signer and message disagree on the canonicalisation",
        _other_form,
    ),
    Cause(
        "other-hash",
        "it would fit with {}: the signer has used another hash than it writes",
        _other_hash,
    ),
    Cause(
        "hexadecimal",
        "it would fit if it were not written as hex text: the octets themselves are to be put in base64",
        _hexadecimal,
    ),
    Cause(
        "reference-digested",
        "it would fit if the SecurityTokenReference itself were digested: the signer has not applied the "
        "STR-Transform, which leads to the token",
        _reference_itself,
        "digest",
    ),
    Cause(
        "token-digested",
        "it would fit if the token behind the SecurityTokenReference were digested: the signer has left "
        "the STR-Transform out of the Transforms",
        _token_instead,
        "digest",
    ),
    Cause(
        "token-form",
        "it would fit with the token in another form: an STR-Transform digests it as WSS 1.1.1, 8.3 has it, "
        'with xmlns="" where no default namespace is declared',
        _token_form,
        "digest",
    ),
    Cause(
        "id-added",
        "it would fit without its Id attribute, which was added after it was digested: set the id first",
        _without_id,
        "digest",
    ),
    Cause(
        "attribute-added",
        "it would fit without its attribute {}, which was added after it was signed",
        _without_attribute,
        "digest",
    ),
    Cause(
        "content-only",
        "it would fit if only its content were digested: a reference by id stands for the whole element",
        _content,
        "digest",
    ),
    Cause(
        "other-part",
        "it would fit for {}, another part of the message: the references are mixed up",
        _other_part,
        "digest",
    ),
    Cause(
        "backwards",
        "it would fit with its octets in the reverse order: the signer writes the number from its low end",
        _backwards,
        "value",
    ),
    Cause(
        "underived",
        "it would fit under the secret itself, from which the signer has derived no key",
        keyed.underived,
        "value",
    ),
    Cause(
        "derived-length",
        "it would fit under a derived key of another length ({}): the signer heeds another Length than is "
        "written",
        keyed.other_length,
        "value",
    ),
    Cause(
        "derived-label",
        "it would fit under a key derived with another label ({}): both sides must have the same",
        keyed.other_label,
        "value",
    ),
    Cause(
        "derived-offset",
        "it would fit under a key derived from another offset ({}): the signer heeds another Offset or "
        "Generation than stands in the token",
        keyed.other_offset,
        "value",
    ),
    Cause(
        "nonce-text",
        "it would fit under a key derived with the base64 text of the nonce: its octets are due",
        keyed.nonce_text,
        "value",
    ),
    Cause(
        "other-token",
        "it would fit under the key of {}, to which the signature doesn't refer",
        keyed.other_token,
        "value",
    ),
    Cause(
        "other-secret",
        "it would fit under {}, another of the keys given than the one that the signature names",
        keyed.other_secret,
        "value",
    ),
    Cause(
        "other-certificate",
        "it would fit under the public key of {}, and the signature names another one",
        keyed.other_certificate,
        "value",
    ),
    Cause(
        "prefix-list-unwritten",
        "it would fit with a PrefixList of {}, which the signer has used and not written: "
        "InclusiveNamespaces must stand in the transform",
        _listed,
    ),
    Cause(
        "declarations-added",
        "it would fit under a canonicalisation that writes declarations if {} were not there: it was signed "
        "standing alone or in another envelope, and exclusive C14N is made for that",
        _undeclared,
    ),
    Cause(
        "declarations-lost",
        "it would fit under a canonicalisation that writes declarations with {} in scope: the declarations "
        "were lost after it was signed, and exclusive C14N is made for that",
        _declared_more,
    ),
    Cause(
        "mangled",
        "it would fit if its UTF-8 hadn't been taken for Latin-1 and encoded once more on the way",
        _mangled,
    ),
    Cause(
        "encoding",
        "it would fit in {}: canonical octets are UTF-8, whatever the message's own encoding is",
        _encoded,
    ),
    Cause(
        "normalised",
        "it would fit in the Unicode normal form {}: somebody composes or takes apart characters",
        _normalised,
    ),
    Cause(
        "prefaced",
        "it would fit with {}: nothing stands around the canonical octets of an element",
        _prefaced,
    ),
    Cause(
        "not-canonical",
        "it would fit with empty elements written short: the signer has not put it in canonical form",
        _as_written,
    ),
    Cause(
        "renamed",
        "it would fit with other prefixes ({}): they were renamed after it was signed",
        _renamed,
    ),
    Cause(
        "base64-unwrapped",
        "it would fit if base64 values were wrapped {}: the line ends were taken away after it was signed",
        _base64_wrapped,
    ),
    Cause(
        "indentation-lost",
        "it would fit if it were indented {}: the white space between elements was taken away, or changed, "
        "after it was signed",
        _indented,
    ),
)
"""In the order in which they are tried: what is likely first, what takes many tries last."""
