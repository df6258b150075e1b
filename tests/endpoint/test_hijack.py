"""Possession: whoever can't prove a sequence's own context changes nothing, on either side.

The matrix: every kind of message × four wrong contexts × two families × two SOAP versions, both
roles, with the username bootstrap. Of each other bootstrap two of the four pairs of family and SOAP
version have all kinds and contexts, so that every two of the five dimensions meet everywhere. After
each refusal the store is compared row by row, and the conversation goes on.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import castile
from castile import xml
from castile.config import Limits
from castile.endpoint import inbound
from castile.endpoint.binding import PARTS, prove_possession
from castile.endpoint.kinds import Kind
from castile.messages import reliability, soap, trust
from castile.messages.addressing import EPR
from castile.messages.security import SecurityTokenReference
from castile.policy import Bootstrap
from castile.security.keys import ContextKey
from castile.transport.http import HTTPRequest, HTTPResponse
from castile.versions import SOAP_1_1, SOAP_1_2, SOAPVersion
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import OTHER, Forger, key_of, planted
from tests.endpoint.pair import (
    ADDRESS,
    BODY,
    FAMILIES,
    Pair,
    action_of,
    body,
    fast,
    fault_of,
    opened,
    states,
    tables,
)
from tests.endpoint.tls import Credential, contexts

SOAPS = (SOAP_1_2, SOAP_1_1)
CONVERSATIONS: list[tuple[Bootstrap, str, SOAPVersion]] = [
    *(("username", family, version) for family in FAMILIES for version in SOAPS),
    ("certificate", "2005", SOAP_1_1),
    ("certificate", "1.3", SOAP_1_2),
    ("mutual", "2005", SOAP_1_2),
    ("mutual", "1.3", SOAP_1_1),
    ("anonymous", "2005", SOAP_1_1),
    ("anonymous", "1.3", SOAP_1_2),
]
each_conversation = pytest.mark.parametrize(
    ("bootstrap", "family", "version"),
    CONVERSATIONS,
    ids=[f"{bootstrap}-{family}-{version.name}" for bootstrap, family, version in CONVERSATIONS],
)
OVER_TLS: list[tuple[Credential, str, SOAPVersion]] = [
    ("username", "2005", SOAP_1_2),
    ("username", "1.3", SOAP_1_1),
    ("certificate", "1.3", SOAP_1_2),
]
CONTEXTS = ("none", "other principal", "other service", "cancelled")
EVIL = b'<evil xmlns="urn:evil">1</evil>'


@dataclass(frozen=True)
class Victim:
    """What an attacker may have seen of a conversation: every name, no key."""

    context: str
    sequence: str
    replies: str
    create_id: str
    create_body: bytes


def victim_of(pair: Pair, client: castile.Client) -> Victim:
    create = pair.opened(pair.network.requests("CreateSequence")[0].request)
    assert isinstance(create.body, reliability.CreateSequence)
    assert create.body.offer is not None
    assert client.context is not None
    return Victim(
        client.context.identifier,
        str(client.sequence.report()["identifier"]),
        create.body.offer.identifier,
        create.addressing.message_id or "",
        create.content,
    )


Forgery = Callable[[Forger, Victim], bytes]


def create_sequence(forge: Forger, victim: Victim, *, named: bool, offered: str, repeated: bool) -> bytes:
    anonymous = EPR(forge.addressing.anonymous)
    token = None
    if named:
        assert forge.policy.conversation is not None
        token = SecurityTokenReference(uri=victim.context, value_type=forge.policy.conversation.token_type)
    offer = reliability.Offer(offered, anonymous if forge.edition.can_close else None)
    content = reliability.CreateSequence(anonymous, offer=offer, token=token)
    return forge(
        Kind.CREATE_SEQUENCE,
        content.render(forge.edition, forge.addressing),
        message_id=victim.create_id if repeated else None,
        reply=True,
    )


def ending(kind: Kind, element: type[reliability.CloseSequence | reliability.TerminateSequence]) -> Forgery:
    def make(forge: Forger, victim: Victim) -> bytes:
        content = element(victim.sequence, None).render(forge.edition, forge.addressing)
        return forge(kind, content, reply=True)

    return make


def cancel(forge: Forger, victim: Victim) -> bytes:
    assert forge.policy.conversation is not None
    assert forge.policy.trust is not None
    reference = SecurityTokenReference(uri=victim.context, value_type=forge.policy.conversation.token_type)
    request = trust.RequestSecurityToken(request_type="Cancel", cancel_target=reference)
    return forge(Kind.CANCEL, request.render(forge.policy.trust), reply=True)


def renew(forge: Forger, victim: Victim) -> bytes:
    assert forge.policy.conversation is not None
    assert forge.policy.trust is not None
    reference = SecurityTokenReference(uri=victim.context, value_type=forge.policy.conversation.token_type)
    request = trust.RequestSecurityToken("Renew", key_size=256, entropy=bytes(32), renew_target=reference)
    return forge(Kind.RENEW, request.render(forge.policy.trust), reply=True)


def fault(forge: Forger, victim: Victim) -> bytes:
    found = castile.errors.SOAPFault(
        "Sender", "ended", (forge.edition.namespace, "SequenceTerminated"), sequence=victim.replies
    )
    return forge.fault(found)


def application(number: int) -> Forgery:
    return lambda forge, victim: forge(
        Kind.APPLICATION,
        EVIL,
        forge.sequence(victim.sequence, number),
        action="urn:test/Echo",
        reply=True,
    )


NEW = "urn:uuid:11111111-1111-4111-8111-111111111111"
REQUESTS: dict[str, Forgery] = {
    "CreateSequence naming the context": lambda forge, victim: create_sequence(
        forge, victim, named=True, offered=NEW, repeated=False
    ),
    "CreateSequence with the offered name": lambda forge, victim: create_sequence(
        forge, victim, named=False, offered=victim.replies, repeated=False
    ),
    "CreateSequence repeated": lambda forge, victim: create_sequence(
        forge, victim, named=False, offered=NEW, repeated=True
    ),
    "the next message": application(3),
    "a message that was answered": application(1),
    "a message far ahead": application(40),
    "an acknowledgement of the replies": lambda forge, victim: forge(
        Kind.ACKNOWLEDGEMENT, b"", forge.acknowledgement(victim.replies, (1, 2))
    ),
    "a piggy-backed acknowledgement": lambda forge, victim: forge(
        Kind.APPLICATION,
        EVIL,
        forge.acknowledgement(victim.replies, (1, 2)),
        forge.sequence(own_sequence(forge) or victim.sequence, 2),
        action="urn:test/Echo",
        reply=True,
    ),
    "AckRequested": lambda forge, victim: forge(
        Kind.ACK_REQUESTED, b"", forge.requested(victim.sequence), reply=True
    ),
    "a piggy-backed AckRequested": lambda forge, victim: forge(
        Kind.APPLICATION,
        EVIL,
        forge.sequence(own_sequence(forge) or victim.sequence, 2),
        forge.requested(victim.sequence),
        action="urn:test/Echo",
        reply=True,
    ),
    "TerminateSequence": ending(Kind.TERMINATE_SEQUENCE, reliability.TerminateSequence),
    "Cancel": cancel,
    "Renew": renew,
    "a fault about the replies": fault,
}
ENDINGS: dict[str, tuple[str, Forgery]] = {
    "1.3": ("CloseSequence", ending(Kind.CLOSE_SEQUENCE, reliability.CloseSequence)),
    "2005": (
        "LastMessage",
        lambda forge, victim: forge(Kind.LAST_MESSAGE, b"", forge.sequence(victim.sequence, 3, last=True)),
    ),
}
_own: dict[str, str] = {}
"""Key's context → a sequence that its holder has himself."""


def own_sequence(forge: Forger) -> str | None:
    return _own.get(forge.key.identifier) if forge.key else None


def wrong_keys(pair: Pair) -> dict[str, ContextKey | None]:
    """Contexts that are good for something, but not for this sequence."""
    mallory = pair.client("mallory")
    mallory.call_raw("urn:test/Echo", BODY)
    _own[key_of(mallory).identifier] = str(mallory.sequence.report()["identifier"])
    former = pair.client("ada")
    former.call_raw("urn:test/Echo", BODY)
    ended = key_of(former)
    former.close()
    return {
        "none": None,
        "other principal": key_of(mallory),
        "other service": planted(pair.party.store, pair.policy, "service", OTHER),
        "cancelled": ended,
    }


@pytest.mark.row(
    "F08", "CO-04", "CO-10", "RE-63", "RE-70", "RE-74", "RE-86", "RE-87", "RE-90", "RM-17", "RM-86", "I5"
)
@pytest.mark.row("SC-29", "SC-07", "SC-22")
@each_conversation
def test_forged_requests(
    pairs: Pairs, tmp_path: Path, bootstrap: Bootstrap, family: str, version: SOAPVersion
) -> None:
    """At the service: 15 kinds × 4 wrong contexts; refused, no row changed, and the owner goes on."""
    policy = castile.EndpointPolicy.of(family, soap=version, bootstrap=bootstrap)
    refuse_all(pairs(policy, folder=tmp_path), family)


@pytest.mark.row("F08", "CO-11", "N13", "RE-63")
@pytest.mark.parametrize("derived", [False, True], ids=["direct", "derived"])
@pytest.mark.parametrize(("credential", "family", "version"), OVER_TLS)
def test_forged_requests_over_tls(
    pairs: Pairs, tmp_path: Path, credential: Credential, family: str, version: SOAPVersion, derived: bool
) -> None:
    """The same where a context signs nothing but the Timestamp."""
    policy = contexts(family, credential, derived=derived, soap=version)
    refuse_all(pairs(policy, folder=tmp_path), family)


def refuse_all(pair: Pair, family: str) -> None:
    """Every kind of request under every wrong context."""
    wrong = wrong_keys(pair)
    assert list(wrong) == list(CONTEXTS)
    pair.network.log.clear()
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    client.call_raw("urn:test/Echo", body(2))
    victim = victim_of(pair, client)
    name, forgery = ENDINGS[family]
    kinds = REQUESTS | {name: forgery}
    received = list(pair.received)
    before = tables(pair.store_file)
    for (kind, make), (context, key) in itertools.product(kinds.items(), wrong.items()):
        where = f"{kind} under {context}"
        answer = pair.receive(make(Forger(pair.policy, pair.party.store, key), victim))
        assert (answer.status, action_of(answer.body) != "") == (500, True), where
        assert b"EncryptedData" not in answer.body, where  # no stored reply
        assert refusal_of(answer.body) in refusals(kind, context), where
        assert tables(pair.store_file) == before, where
    assert pair.received == received
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    client.close()
    assert pair.bodies[-3:] == [body(1), body(2), body(3)]
    assert pair.network.log[-1].answered == "RSTR/SCT/Cancel"


def refusal_of(payload: bytes) -> str:
    """The subcode; in SOAP 1.1, what the SequenceFault header says in its place (RM-85)."""
    envelope = soap.parse(xml.parse(payload, Limits()), Limits(), len(payload))
    headers = [each for each in envelope.headers if xml.local_name(each) == "SequenceFault"]
    if not headers:
        return fault_of(payload)
    return (headers[0][0].text or "").rpartition(":")[2]


def refusals(kind: str, context: str) -> set[str]:
    """The codes that such a refusal may have: one shape for one class (RE-50, RE-63, RE-70)."""
    if kind == "Renew":  # the credential is missing too, whatever the key, where there is one
        return {"BadContextToken", "InvalidSecurity", "UnableToRenew"}
    if context != "other principal":
        return {"BadContextToken"}
    if kind.startswith("CreateSequence"):
        return {"CreateSequenceRefused"}
    return {"FailedAuthentication", "InvalidSecurity"} if kind == "Cancel" else {"InvalidSecurity"}


@pytest.mark.row("F08", "RE-63", "RM-93")
def test_a_forged_message_breaks_no_wait(pairs: Pairs) -> None:
    """While a handler runs, its number under a wrong context doesn't take over the open exchange."""
    inside, gate = threading.Event(), threading.Event()

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Slow")
        def slow(content: bytes) -> bytes:
            inside.set()
            gate.wait(20)
            return content

    pair = pairs(extend=extend, settings=fast(retransmit_interval=30.0, reply_wait=20.0))
    client, mallory = pair.client(), pair.client("mallory")
    mallory.call_raw("urn:test/Echo", BODY)
    client.call_raw("urn:test/Echo", BODY)
    identifier = str(client.sequence.report()["identifier"])
    forge = Forger(pair.policy, pair.party.store, key_of(mallory))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.call_raw, "urn:test/Slow", body(2))
        assert inside.wait(20)
        header = forge.sequence(identifier, 2)
        forged = forge(Kind.APPLICATION, EVIL, header, action="urn:test/Slow", reply=True)
        assert pair.receive(forged).status == 500
        gate.set()
        assert answer.result(20) == body(2)
    assert len(pair.network.requests("Slow")) == 1


@pytest.mark.row("F08", "CO-10")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_of_the_table_counts(pairs: Pairs, family: str) -> None:
    """True messages of every kind, less one covered part each: none proves its context any more."""
    pair = pairs(family)
    client = pair.client()
    client.call_raw("urn:test/Echo", BODY)
    client.call_raw("urn:test/Echo", BODY)
    context = key_of(client).identifier
    read = [pair.opened(exchange.request) for exchange in pair.network.log[1:]]
    read += [opened(client, exchange.response) for exchange in pair.network.log[1:]]
    forge = Forger(pair.policy, client._store, key_of(client))
    victim = victim_of(pair, client)
    more = ["an acknowledgement of the replies", "AckRequested", "TerminateSequence", "Cancel"]
    read += [pair.opened(REQUESTS[name](forge, victim)) for name in more]
    read += [pair.opened(ENDINGS[family][1](forge, victim)), pair.opened(fault(forge, victim))]
    checked = 0
    for message in read:
        prove_possession(message.verified, message.kind, context)
        signature = message.verified.signatures[0]
        cover = PARTS[message.kind]
        present = {header.name for header in message.verified.headers}
        wanted = cover.always | {name for name in present if name.startswith(cover.present or ("-",))}
        for part in wanted:
            less = replace(signature, covered=signature.covered - {part})
            with pytest.raises(castile.errors.SecurityFailure):
                prove_possession(replace(message.verified, signatures=(less,)), message.kind, context)
            checked += 1
    assert checked >= 40
    assert {message.kind for message in read} >= {
        Kind.APPLICATION,
        Kind.CREATE_SEQUENCE_RESPONSE,
        Kind.CANCEL,
    }


# ---------------------------------------------------------------- at the client


@dataclass(frozen=True)
class Forged:
    """A forged answer: to which request, and how it is made."""

    to: str
    make: Callable[[Forger, inbound.Inbound, Victim | None], bytes]


def answered(kind: Kind, element: bytes = b"") -> Callable[[Forger, inbound.Inbound, Victim | None], bytes]:
    """A lifecycle response with an acknowledgement of all."""

    def make(forge: Forger, asked: inbound.Inbound, victim: Victim | None) -> bytes:
        assert victim is not None
        header = forge.acknowledgement(victim.sequence, (1, 2), final=forge.edition.can_close)
        content = getattr(reliability, kind.value)(victim.sequence).render(forge.edition, forge.addressing)
        return forge(kind, content, header, relates_to=asked.addressing.message_id)

    return make


def created(forge: Forger, asked: inbound.Inbound, victim: Victim | None) -> bytes:
    response = reliability.CreateSequenceResponse(NEW, accept=EPR(ADDRESS))
    return forge(
        Kind.CREATE_SEQUENCE_RESPONSE,
        response.render(forge.edition, forge.addressing),
        relates_to=asked.addressing.message_id,
    )


def reply(*, numbered: bool) -> Callable[[Forger, inbound.Inbound, Victim | None], bytes]:
    def make(forge: Forger, asked: inbound.Inbound, victim: Victim | None) -> bytes:
        assert victim is not None
        headers = [forge.acknowledgement(victim.sequence, (1, 2))]
        if numbered:
            headers.insert(0, forge.sequence(victim.replies, 2))
        return forge(
            Kind.APPLICATION,
            EVIL,
            *headers,
            action="urn:test/EchoResponse",
            relates_to=asked.addressing.message_id,
        )

    return make


def acknowledged(forge: Forger, asked: inbound.Inbound, victim: Victim | None) -> bytes:
    assert victim is not None
    return forge(Kind.ACKNOWLEDGEMENT, b"", forge.acknowledgement(victim.sequence, (1, 2)))


def faulted(code: str) -> Callable[[Forger, inbound.Inbound, Victim | None], bytes]:
    def make(forge: Forger, asked: inbound.Inbound, victim: Victim | None) -> bytes:
        sequence = victim.sequence if victim else None
        found = castile.errors.SOAPFault("Sender", "no", (forge.edition.namespace, code), sequence=sequence)
        return forge.fault(found, relates_to=asked.addressing.message_id)

    return make


def last(forge: Forger, asked: inbound.Inbound, victim: Victim | None) -> bytes:
    assert victim is not None
    headers = (
        forge.sequence(victim.replies, 2, last=True),
        forge.acknowledgement(victim.sequence, (1, 2), (3, 3)),
    )
    return forge(Kind.LAST_MESSAGE, b"", *headers)


def terminated(forge: Forger, asked: inbound.Inbound, victim: Victim | None) -> bytes:
    """In 1.0 the peer ends the reply sequence on the same exchange."""
    assert victim is not None
    if forge.edition.can_close:
        return answered(Kind.TERMINATE_SEQUENCE_RESPONSE)(forge, asked, victim)
    content = reliability.TerminateSequence(victim.replies).render(forge.edition, forge.addressing)
    return forge(Kind.TERMINATE_SEQUENCE, content)


def cancelled(forge: Forger, asked: inbound.Inbound, victim: Victim | None) -> bytes:
    assert forge.policy.trust is not None
    content = trust.RequestSecurityTokenResponse(cancelled=True).render(forge.policy.trust)
    return forge(Kind.CANCEL_RESPONSE, content, relates_to=asked.addressing.message_id)


RESPONSES: dict[str, Forged] = {
    "CreateSequenceResponse": Forged("CreateSequence", created),
    "CreateSequenceRefused": Forged("CreateSequence", faulted("CreateSequenceRefused")),
    "a reply": Forged("Echo", reply(numbered=True)),
    "a reply outside the offered sequence": Forged("Echo", reply(numbered=False)),
    "an acknowledgement": Forged("Tell", acknowledged),
    "SequenceTerminated": Forged("Tell", faulted("SequenceTerminated")),
    "UnknownSequence": Forged("Echo", faulted("UnknownSequence")),
    "TerminateSequence answered": Forged("TerminateSequence", terminated),
    "RSTR/SCT/Cancel": Forged("RST/SCT/Cancel", cancelled),
}
CLOSED: dict[str, tuple[str, Forged]] = {
    "1.3": ("CloseSequence answered", Forged("CloseSequence", answered(Kind.CLOSE_SEQUENCE_RESPONSE))),
    "2005": ("LastMessage answered", Forged("LastMessage", last)),
}


@pytest.mark.row("F08", "F09", "CO-13", "CO-14", "RM-86", "RE-90", "I5", "I6")
@pytest.mark.parametrize("context", CONTEXTS)
@each_conversation
def test_forged_responses(
    pairs: Pairs, bootstrap: Bootstrap, family: str, version: SOAPVersion, context: str
) -> None:
    """At the client: 10 kinds of answer to requests that never arrived. Its state stays as it was,
    and the true answers are taken after that."""
    pair = pairs(castile.EndpointPolicy.of(family, soap=version, bootstrap=bootstrap))
    client = pair.client()
    name, closing = CLOSED[family]
    pending = RESPONSES | {name: closing}
    key: ContextKey | None = None
    if context != "none":
        key = planted(
            client._store,
            pair.policy,
            "client",
            OTHER if context == "other service" else client._party.realm,
            ended=context == "cancelled",
        )
    forge = Forger(pair.policy, client._store, key, "service")
    known: list[Victim] = []
    before: list[tuple[str, list[object]]] = []

    def compare() -> None:
        if before:
            kind, was = before.pop()
            assert states(client._store) == was, kind

    failures: list[BaseException] = []
    post = pair.network.post

    def forged(request: HTTPRequest, timeout: float) -> HTTPResponse:
        try:
            compare()
            action = action_of(request.body)
            kind = next((kind for kind, each in pending.items() if each.to == action), None)
            if kind is None or (action == "Tell" and not known):
                response = post(request, timeout)
                if action == "Echo" and not known:
                    known.append(victim_of(pair, client))
                return response
            asked = pair.opened(request.body)
            if action == "Echo" and not known:
                return post(request, timeout)
            payload = pending.pop(kind).make(forge, asked, known[0] if known else None)
            before.append((kind, states(client._store)))
            return HTTPResponse(200, payload, pair.policy.soap.content_type)
        except AssertionError as error:
            failures.append(error)
            raise castile.TransportError("the test has failed") from error

    pair.network.post = forged  # type: ignore[method-assign]
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    if not known:
        known.append(victim_of(pair, client))
    client.send_raw("urn:test/Tell", body(2))
    assert client.sequence.wait_until_acknowledged(10)
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    client.close()
    assert not failures
    assert pending == {}
    assert pair.bodies == [body(1), body(2), body(3)]
    assert {asked for asked, _ in pair.network.actions} >= {"TerminateSequence"}


@pytest.mark.row("F09", "CL-44", "CO-13", "SC-08", "RM-110")
@pytest.mark.parametrize("offer", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_true_answers_to_other_questions(pairs: Pairs, family: str, offer: bool) -> None:
    """The peer's own answers, replayed or swapped by the link: none is taken for another's."""

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Fail")
        def fail(content: bytes) -> bytes:
            raise castile.Fault("Sender", content.decode())

    settings = fast(retransmit_interval=0.01, retransmit_limit=0.02)
    pair = pairs(castile.EndpointPolicy.of(family, two_way=offer), extend=extend, settings=settings)
    client = pair.client()
    recorded: dict[str, HTTPResponse] = {}
    replayed: list[str] = []

    def answer(request: bytes, response: HTTPResponse) -> HTTPResponse:
        action = action_of(request)
        first = recorded.setdefault(action, response)
        others = [each for name, each in recorded.items() if name != action]
        if first is response and len(replayed) > 40:
            return response
        swaps = [first, *others]
        seen = sum(each == action for each in replayed)
        if seen >= len(swaps) or (first is response and not others):
            return response
        replayed.append(action)
        return swaps[seen]

    pair.network.answer = answer
    for number in range(1, 4):
        assert client.call_raw("urn:test/Echo", body(number)) == body(number)
        with pytest.raises(castile.FaultReceived) as told:
            client.call_raw("urn:test/Fail", body(10 + number))
        assert told.value.fault.reason == body(10 + number).decode()
        client.send_raw("urn:test/Tell", body(20 + number))
        assert client.sequence.wait_until_acknowledged(10)
    second = pair.client()
    with pytest.raises(castile.errors.SecurityFailure):  # the answer to the first client's RST
        second.call_raw("urn:test/Echo", body(5))
    assert states(second._store)[0] == []
    replayed += ["RST/SCT"] * 9  # and no more of that
    assert second.call_raw("urn:test/Echo", body(5)) == body(5)
    for each in (second, client):
        each.close()
    assert pair.bodies == [*(body(n) for k in range(1, 4) for n in (k, 20 + k)), body(5)]
    assert len(replayed) > 8


# ---------------------------------------------------------------- unsecured faults


def _unproved(doubt: castile.InDoubt) -> castile.FaultReceived:
    """The unauthenticated fault that is a doubt's cause."""
    cause = doubt.__cause__
    assert isinstance(cause, castile.FaultReceived)
    assert not cause.authenticated
    return cause


@pytest.mark.row("CO-14", "RE-90", "RM-134")
@pytest.mark.parametrize(
    "code", ["SequenceTerminated", "UnknownSequence", "BadContextToken", "InvalidSecurity"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_unsecured_faults_change_nothing(pairs: Pairs, family: str, code: str) -> None:
    """They reach the caller only at the deadline, as the cause of a doubt that names his message:
    this one is delivered all the same, and the sequence completes.

    A context that the peer may have lost is suspect, and new work gets another one (CO-16): of a
    token from before their restart, Metro says InvalidSecurity and no more.
    """
    suspect = code in ("BadContextToken", "InvalidSecurity")
    pair = pairs(family)
    client = pair.client()
    assert pair.policy.reliability is not None
    assert pair.policy.conversation is not None
    space = {"BadContextToken": pair.policy.conversation.namespace, "InvalidSecurity": castile.errors.WSSE}
    forge = Forger(pair.policy, client._store, None, "service")
    attacking = True

    def answer(request: bytes, response: HTTPResponse) -> HTTPResponse:
        if not attacking or action_of(request).startswith("RST"):
            return response
        sequence = str(client.sequence.report()["identifier"])
        subcode = (space.get(code, forge.edition.namespace), code)
        found = castile.errors.SOAPFault("Sender", "forged", subcode, sequence=sequence)
        payload = forge(Kind.FAULT, soap.render_fault(found, pair.policy.soap))
        return HTTPResponse(500, payload, pair.policy.soap.content_type)

    client.call_raw("urn:test/Echo", body(1))
    pair.network.answer = answer
    contexts = states(client._store)[0]
    with pytest.raises(castile.InDoubt, match="forged") as told:
        client.call_raw("urn:test/Echo", body(2), timeout=0.3)
    assert told.value.numbers == (2,)
    assert _unproved(told.value).fault.reason == "forged"
    assert len(pair.network.requests("Echo")) >= 3
    assert client.sequence.report()["state"] == ("suspect" if suspect else "open")
    assert states(client._store)[0] == contexts
    attacking = False
    assert client.sequence.wait_until_acknowledged(10)
    assert client.call_raw("urn:test/Echo", body(3)) == body(3)
    client.close()
    assert pair.bodies == [body(1), body(2), body(3)]
    assert [asked for asked, _ in pair.network.actions].count("RST/SCT") == (2 if suspect else 1)


@pytest.mark.row("CO-14", "RM-19")
def test_an_unsecured_fault_for_create_sequence(pairs: Pairs) -> None:
    """The same for the first message: told at the deadline, and the sequence is made later."""
    pair = pairs()
    client = pair.client()
    forge = Forger(pair.policy, client._store, None, "service")
    attacking = True

    def answer(request: bytes, response: HTTPResponse) -> HTTPResponse:
        if not attacking or action_of(request) != "CreateSequence":
            return response
        found = castile.errors.SOAPFault(
            "Sender", "forged", (forge.edition.namespace, "CreateSequenceRefused")
        )
        payload = forge(Kind.FAULT, soap.render_fault(found, pair.policy.soap))
        return HTTPResponse(500, payload, pair.policy.soap.content_type)

    pair.network.answer = answer
    with pytest.raises(castile.InDoubt, match="forged") as told:
        client.call_raw("urn:test/Echo", body(1), timeout=0.3)
    assert told.value.numbers == (1,)
    assert _unproved(told.value).fault.reason == "forged"
    attacking = False
    assert client.sequence.wait_until_acknowledged(10)
    assert pair.bodies == [body(1)]
