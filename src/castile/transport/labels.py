"""What HTTP says of a message, held against the message itself (features RE-12, RE-31).

Nothing of it is proven, and nothing is decided by it: where label and content differ, one of
them is wrong, and guessing which is how filters before a service are passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from castile import xml
from castile.endpoint.party import Party
from castile.errors import Malformed, SOAPFault
from castile.messages import addressing
from castile.messages.soap import Envelope
from castile.transport.asgi import Arrival
from castile.transport.http import media_type
from castile.versions import SOAP, WSA

_BOMS: Final = {b"\xff\xfe": ("utf-16", "utf-16le"), b"\xfe\xff": ("utf-16", "utf-16be")}
_TYPES: Final = {row.content_type: row for row in SOAP.values()}


def check_charset(arrival: Arrival, payload: bytes) -> None:
    """The charset of the label is the encoding of the bytes. Raises `Malformed`."""
    if arrival.charset is None:
        return
    allowed = _BOMS.get(payload[:2], ("utf-8", "us-ascii"))
    if arrival.charset not in allowed:
        raise Malformed(
            "the charset of Content-Type isn't the message's encoding",
            expected=" or ".join(allowed),
            got=arrival.charset,
        )


def labelled(parties: Sequence[Party], arrival: Arrival) -> Party:
    """Whose SOAP version a message says that it is of, before it is read; else the first."""
    wanted = media_type(arrival.content_type)
    return next((each for each in parties if each.policy.soap.content_type == wanted), parties[0])


def check_label(arrival: Arrival, envelope: Envelope) -> None:
    """Content type and action of the label are those of the envelope.

    Raises `Malformed` with VersionMismatch, `Violation` with ActionMismatch; a label without
    action or with an empty one says nothing (WCF; features SC-21).
    """
    labelled = _TYPES.get(media_type(arrival.content_type))
    if labelled is not None and labelled is not envelope.soap:
        raise Malformed(
            "the envelope is of another SOAP version than its Content-Type",
            expected=labelled.name,
            got=envelope.soap.name,
            fault=SOAPFault("VersionMismatch", "Content-Type and envelope are of different SOAP versions."),
        )
    if not arrival.soap_action:
        return
    for block in envelope.headers:
        namespace, local = xml.name_of(block)
        if namespace in WSA and local == "Action" and xml.text_of(block).strip() != arrival.soap_action:
            raise addressing.invalid_header(WSA[namespace], "Action", "ActionMismatch")
