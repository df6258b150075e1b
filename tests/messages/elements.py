"""One example or more of every element, for round trips and schemas."""

from __future__ import annotations

from typing import Final

from castile.config import Limits
from castile.messages import reliability as rm
from castile.messages import trust
from castile.messages.addressing import EPR
from castile.messages.conversation import SecurityContextToken
from castile.messages.security import SecurityTokenReference
from castile.protocol.faults import identifier_element
from castile.versions import WSA_1_0, WSRM_1_0, WSSC_1_3, WSSC_2005, Conversation, Reliability
from castile.xml import Element, inside, parse

LIMITS: Final = Limits()
ID: Final = "urn:uuid:14805175-84aa-42a3-8216-d7162d3fe43b"
OTHER: Final = "urn:x:<&>\"'?a=1&b=2"
LARGEST: Final = (1 << 63) - 1
ANONYMOUS: Final = EPR(WSA_1_0.anonymous)
RICH: Final = EPR(
    "https://bank.example/b?a=1&b=2",
    (
        b'<p:Key xmlns:p="urn:p">a&amp;b</p:Key>',
        b'<a:Odd xmlns:a="http://www.w3.org/2005/08/addressing"></a:Odd>',
    ),
)

Headers = rm.Sequence | rm.SequenceAcknowledgement | rm.AckRequested | rm.UsesSequenceSTR | rm.SequenceFault
Bodies = (
    rm.CreateSequence
    | rm.CreateSequenceResponse
    | rm.CloseSequence
    | rm.CloseSequenceResponse
    | rm.TerminateSequence
    | rm.TerminateSequenceResponse
)


def reference(edition: Conversation, instance: str | None = None) -> SecurityTokenReference:
    return SecurityTokenReference(uri=ID, value_type=edition.token_type, instance=instance)


def rm_headers(edition: Reliability) -> list[Headers]:
    """Every header, in the forms that this edition has."""
    examples: list[Headers] = [
        rm.Sequence(ID, 1),
        rm.Sequence(OTHER, LARGEST),
        rm.SequenceAcknowledgement(ID, none=True),
        rm.SequenceAcknowledgement(ID, ((1, 1),)),
        rm.SequenceAcknowledgement(OTHER, ((1, 3), (5, 5), (7, LARGEST)), buffer_remaining=8),
        rm.SequenceAcknowledgement(ID, nacks=(2, 4)),
        rm.SequenceAcknowledgement(ID, tuple((2 * n, 2 * n) for n in range(1, 129))),
        rm.AckRequested(ID),
        rm.SequenceFault("MessageNumberRollover"),
        rm.SequenceFault("UnknownSequence", identifier_element(edition.namespace, ID), ID),
    ]
    if edition.can_close:
        examples += [
            rm.SequenceAcknowledgement(ID, none=True, final=True),
            rm.SequenceAcknowledgement(ID, ((1, 3),), final=True, buffer_remaining=0),
            rm.UsesSequenceSTR(),
        ]
    else:
        examples.append(rm.Sequence(ID, 3, last_message=True))
    return examples


def rm_bodies(edition: Reliability) -> list[Bodies]:
    """Every body, in the forms that this edition has."""
    endpoint = ANONYMOUS if edition.can_close else None
    incomplete = "DiscardFollowingFirstGap" if edition.can_close else None
    last = 3 if edition.can_close else None
    conversation = WSSC_2005 if edition is WSRM_1_0 else WSSC_1_3
    examples: list[Bodies] = [
        rm.CreateSequence(ANONYMOUS),
        rm.CreateSequence(ANONYMOUS, "PT0S", rm.Offer(ID, endpoint)),
        rm.CreateSequence(
            RICH,
            "P1DT2H3.5S",
            rm.Offer(OTHER, RICH if edition.can_close else None, "PT1H", incomplete),
            reference(conversation, "urn:uuid:2"),
        ),
        rm.CreateSequence(ANONYMOUS, token=reference(conversation)),
        rm.CreateSequenceResponse(ID),
        rm.CreateSequenceResponse(OTHER, "PT10M", incomplete, RICH),
        rm.TerminateSequence(ID, last),
        rm.TerminateSequence(OTHER),
    ]
    if edition.can_close:
        examples += [
            rm.CloseSequence(ID),
            rm.CloseSequence(ID, LARGEST),
            rm.CloseSequenceResponse(ID),
            rm.TerminateSequenceResponse(ID),
        ]
    return examples


def requests(edition: Conversation) -> list[trust.RequestSecurityToken]:
    """RST in every form that is sent."""
    return [
        trust.RequestSecurityToken("Issue", edition.token_type, 256, bytes(range(32))),
        trust.RequestSecurityToken(
            "Issue", edition.token_type, 128, b"\xff" * 16, 0.0, 1_800_000_000.125, "uuid-<1>"
        ),
        trust.RequestSecurityToken(
            "Renew", edition.token_type, 256, b"a" * 32, renew_target=reference(edition, "urn:uuid:2")
        ),
        trust.RequestSecurityToken("Cancel", cancel_target=reference(edition)),
    ]


def responses(edition: Conversation) -> list[trust.RequestSecurityTokenResponse]:
    """RSTR in every form that is sent."""
    token = SecurityContextToken(ID, None, "uuid-1-1")
    verbatim = SecurityContextToken(ID, "urn:uuid:2", "uuid-1-1").render(edition)
    return [
        trust.RequestSecurityTokenResponse(
            edition.token_type,
            SecurityContextToken(ID, None, "uuid-1-1", token.render(edition)),
            SecurityTokenReference(uri="#uuid-1-1", value_type=edition.token_type),
            reference(edition),
            computed_key=True,
            entropy=bytes(range(32)),
            created=1_800_000_000.0,
            expires=1_800_007_200.5,
            key_size=256,
            context="c",
        ),
        trust.RequestSecurityTokenResponse(
            token=SecurityContextToken(ID, "urn:uuid:2", "uuid-1-1", verbatim), proof_secret=b"k" * 32
        ),
        trust.RequestSecurityTokenResponse(cancelled=True),
    ]


def element(octets: bytes) -> Element:
    """The element that these bytes are."""
    return parse(octets, LIMITS)


Tree = tuple[str, tuple[tuple[str, str], ...], str, tuple["Tree", ...]]


def tree(node: Element) -> Tree:
    """What an element says, whatever its prefixes: to compare two renderings."""
    attributes = sorted((str(name), str(value)) for name, value in node.attrib.items())
    children = tuple(tree(child) for child in inside(node))
    text = "" if children else (node.text or "").strip()
    return (str(node.tag), tuple(attributes), text, children)
