"""Bad input: each kind gets a clear fault or error, changes no row, and the work goes on."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import castile
from castile import xml
from castile.clock import Now, system
from castile.config import Limits
from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Outgoing, prepare
from castile.endpoint.party import Party
from castile.errors import StoreBusy, StoreFull, StoreInvalid, StoreTooNew
from castile.messages import reliability, soap, trust
from castile.store import Store, Transaction
from castile.store.lock import WriterLock
from castile.transport.http import HTTPResponse
from castile.versions import WSA_1_0
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import Forger, key_of
from tests.endpoint.pair import (
    ADDRESS,
    BODY,
    FAMILIES,
    USERS,
    Pair,
    action_of,
    body,
    certificate,
    fast,
    fault_of,
    identity,
    opened,
    states,
    tables,
    until,
)

A = WSA_1_0.namespace
Change = Callable[[bytes], bytes]


def inside(place: bytes, what: bytes) -> Change:
    """Insert behind the first start tag of this name."""

    def change(payload: bytes) -> bytes:
        found = re.search(rb"<%b(\s[^>]*)?>" % place, payload)
        assert found is not None, place
        return payload[: found.end()] + what + payload[found.end() :]

    return change


def header(content: str) -> Change:
    return inside(b"s:Header", content.encode())


def doubled(local: str) -> Change:
    """This header once more, with the same Id and without one."""

    def change(payload: bytes) -> bytes:
        root = xml.parse(payload, Limits())
        element = next((each for each in root[0] if xml.local_name(each) == local), None)
        if element is None:
            return header(f'<r:{local} xmlns:r="urn:r"/>')(payload)
        return payload.replace(b"<s:Header>", b"<s:Header>" + xml.canonical(element))

    return change


def removed(pattern: bytes) -> Change:
    return lambda payload: re.sub(pattern, b"", payload, count=1, flags=re.S)


def swapped(payload: bytes) -> bytes:
    """Body before Header."""
    found = re.fullmatch(
        rb"(<s:Envelope[^>]*>)(<s:Header>.*</s:Header>)(<s:Body.*</s:Body>)(.*)", payload, re.S
    )
    assert found is not None
    return found[1] + found[3] + found[2] + found[4]


def flipped(payload: bytes) -> bytes:
    """One bit of the ciphertext."""
    place = payload.rindex(b"CipherValue>", 0, payload.rindex(b"CipherValue>")) + 20
    return payload[:place] + bytes([payload[place] ^ 1]) + payload[place + 1 :]


def cut(payload: bytes) -> bytes:
    return payload[: len(payload) // 2]


TIMESTAMP = re.compile(rb"<u:Timestamp.*?</u:Timestamp>", re.S)
DEEP = b"<x>" * 100 + b"</x>" * 100
MANY = " ".join(f'a{number}="1"' for number in range(10_000))
SPACES = " ".join(f'xmlns:p{number}="urn:{number}"' for number in range(5_000))
BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
TWIN = f'<a:{{}} xmlns:a="{A}">{{}}</a:{{}}>'


def twin(local: str, content: str) -> str:
    return TWIN.format(local, content, local)


SENDER = {"Sender"}
SECURITY = {"InvalidSecurity"}
CHANGES: dict[str, tuple[Change, set[str]]] = {
    "nothing at all": (lambda payload: b"", SENDER),
    "no XML": (lambda payload: b"hello", SENDER),
    "cut in half": (cut, SENDER),
    "a NUL": (lambda payload: payload.replace(b"Echo", b"Ec\0ho"), SENDER),
    "no UTF-8": (lambda payload: payload.replace(b"urn:test", b"urn:\xff\xfe", 1), SENDER),
    "an undeclared prefix": (lambda payload: payload.replace(b'xmlns:u="', b'xmlns:v="', 1), SENDER),
    "a second root": (lambda payload: payload + b"<x/>", SENDER),
    "a DOCTYPE": (lambda payload: b"<!DOCTYPE x>" + payload, SENDER),
    "an entity bomb": (lambda payload: BOMB + payload, SENDER),
    "an external entity": (
        lambda payload: b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + payload,
        SENDER,
    ),
    "a DOCTYPE in UTF-16": (
        lambda payload: b"\xff\xfe" + ("<!DOCTYPE x>" + payload.decode()).encode("utf-16-le"),
        SENDER,
    ),
    "a processing instruction": (header("<?php evil?>"), SENDER),
    "too many bytes": (lambda payload: payload + b" " * (1 << 20), SENDER),
    "too deep": (inside(b"s:Header", DEEP), SENDER),
    "10,000 attributes": (header(f"<x {MANY}/>"), SENDER),
    "5,000 namespaces": (header(f"<x {SPACES}/>"), SENDER),
    "a relative namespace": (header('<x xmlns="relative"/>'), SENDER),
    "a long name": (header(f"<{'n' * 2_000}/>"), SENDER),
    "two Headers": (lambda payload: payload.replace(b"<s:Header>", b"<s:Header/><s:Header>"), SENDER),
    "two Bodies": (lambda payload: payload.replace(b"</s:Body>", b"</s:Body><s:Body/>"), SENDER),
    "Body before Header": (swapped, SENDER),
    "another envelope": (
        lambda payload: payload.replace(b"2003/05/soap-envelope", b"2004/05/soap-envelope"),
        {"VersionMismatch", "Sender"},
    ),
    "a header that must be understood": (
        header('<x xmlns="urn:x" s:mustUnderstand="true"/>'),
        {"MustUnderstand"},
    ),
    "no Action": (removed(rb"<a:Action.*?</a:Action>"), {"MessageAddressingHeaderRequired"}),
    "two Actions": (doubled("Action"), SENDER | {"MessageAddressingHeaderRequired"}),
    "no Security": (removed(rb"<o:Security.*</o:Security>"), {"BadContextToken"}),
    "two Securities": (doubled("Security"), SENDER | SECURITY),
    "a Sequence twice": (doubled("Sequence"), SENDER | SECURITY),
    "an acknowledgement twice": (doubled("SequenceAcknowledgement"), SENDER | SECURITY),
    "an unsigned ReplyTo": (
        header(twin("FaultTo", f"<a:Address>{WSA_1_0.anonymous}</a:Address>")),
        SECURITY,
    ),
    "an unsigned From": (header(twin("From", "<a:Address>http://evil.example</a:Address>")), SECURITY),
    "a comment in a signed header": (inside(b"a:Action", b"<!-- evil -->"), SENDER | SECURITY),
    "a comment in the number": (inside(b"r:MessageNumber", b"<!-- 1 -->"), SENDER | SECURITY),
    "a comment in Security": (inside(b"u:Created", b"<!-- evil -->"), SENDER | SECURITY),
    "text in a signed header": (inside(b"a:Action", b"x"), SENDER | SECURITY | {"ActionNotSupported"}),
    "no Timestamp": (lambda payload: TIMESTAMP.sub(b"", payload), SECURITY),
    "two Timestamps": (
        lambda payload: TIMESTAMP.sub(lambda found: found[0] * 2, payload),
        SENDER | SECURITY,
    ),
    "no signature": (
        removed(rb"<e:ReferenceList.*</e:ReferenceList><e:EncryptedData.*?</e:EncryptedData>"),
        SECURITY,
    ),
    "a flipped bit": (flipped, SENDER | SECURITY),
    "a body in clear": (
        lambda payload: re.sub(rb"(<s:Body[^>]*>).*(</s:Body>)", rb"\1<x></x>\2", payload, flags=re.S),
        SECURITY,
    ),
}
"""What is done to a good message, and the codes that it may be refused with."""


def fresh(pair: Pair, client: castile.Client, number: int) -> bytes:
    """A good message that nobody has received."""
    forge = Forger(pair.policy, client._store, key_of(client))
    identifier = str(client.sequence.report()["identifier"])
    headers = [forge.sequence(identifier, number)]
    if b"SequenceAcknowledgement" in pair.network.log[-1].response:
        headers.insert(0, forge.acknowledgement(replies_of(pair), (1, 1)))
    return forge(Kind.APPLICATION, body(number), *headers, action="urn:test/Echo", reply=True)


def replies_of(pair: Pair) -> str:
    """Identifier of the offered sequence."""
    (record,) = pair.party.store.run(lambda tx: tx.sources()).result()
    assert record.state.identifier is not None
    return record.state.identifier


@pytest.mark.row(
    "RE-01", "RE-12", "RE-14", "RE-15", "RE-16", "RE-17", "RE-30", "RE-31", "RE-50", "RE-52", "RE-58"
)
@pytest.mark.parametrize("family", FAMILIES)
def test_bad_requests(pairs: Pairs, tmp_path: Path, family: str) -> None:
    pair = pairs(family, folder=tmp_path)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    payload = fresh(pair, client, 2)
    before = tables(pair.store_file)
    for name, (change, codes) in CHANGES.items():
        changed = change(payload)
        assert changed != payload, name
        answer = pair.receive(changed)
        assert (answer.status, name) == (500, name)
        assert fault_of(answer.body) in codes, (name, fault_of(answer.body))
        assert tables(pair.store_file) == before, name
        assert len(answer.body) < 4_096
    assert pair.bodies == [body(1)]
    assert pair.receive(payload).status == 200  # it was good all the time
    assert pair.bodies == [body(1), body(2)]


@pytest.mark.row("RE-01", "RE-02", "CO-13")
@pytest.mark.parametrize("family", FAMILIES)
def test_bad_responses(pairs: Pairs, family: str) -> None:
    """Each as the answer to a call, the true one lost: refused, then asked for again."""
    pair = pairs(family, settings=fast(retransmit_interval=0.01))
    client = pair.client()
    client.call_raw("urn:test/Echo", body(0))
    pending = dict(CHANGES)
    before: list[tuple[str, list[object]]] = []
    wrong: list[str] = []

    def answer(request: bytes, response: HTTPResponse) -> HTTPResponse:
        if before:
            name, was = before.pop()
            if states(client._store) != was:
                wrong.append(name)
            return response
        if action_of(request) != "Echo" or not pending:
            return response
        name = next(iter(pending))
        change, _ = pending.pop(name)
        before.append((name, states(client._store)))
        return HTTPResponse(200, change(response.body), "application/soap+xml; charset=utf-8")

    pair.network.answer = answer
    count = len(pending) + 1
    for number in range(1, count):
        assert client.call_raw("urn:test/Echo", body(number)) == body(number)
    assert (pending, wrong) == ({}, [])
    client.close()
    assert pair.bodies == [body(number) for number in range(count)]


@dataclass(frozen=True)
class Numbered:
    """A message under the right key that breaks a rule of WS-RM."""

    make: Callable[[Forger, str, str], bytes]
    code: str


def raw_number(text: str) -> Callable[[Forger, str, str], bytes]:
    def make(forge: Forger, sequence: str, replies: str) -> bytes:
        known = forge.sequence(sequence, 5)
        wrong = replace(known, content=known.content.replace(b">5<", b">%b<" % text.encode()))
        return forge(Kind.APPLICATION, BODY, wrong, action="urn:test/Echo", reply=True)

    return make


def acknowledges(*ranges: tuple[int, int]) -> Callable[[Forger, str, str], bytes]:
    return lambda forge, sequence, replies: forge(
        Kind.ACKNOWLEDGEMENT, b"", forge.acknowledgement(replies, *ranges)
    )


RULES: dict[str, Numbered] = {
    "number 0": Numbered(raw_number("0"), "Sender"),
    "a negative number": Numbered(raw_number("-1"), "Sender"),
    "no number": Numbered(raw_number("five"), "Sender"),
    "a number above all": Numbered(raw_number("9223372036854775808"), "MessageNumberRollover"),
    "an unknown sequence": Numbered(
        lambda forge, sequence, replies: forge(
            Kind.APPLICATION, BODY, forge.sequence("urn:uuid:nobody", 2), action="urn:test/Echo", reply=True
        ),
        "UnknownSequence",
    ),
    "an identifier in capitals": Numbered(
        lambda forge, sequence, replies: forge(
            Kind.APPLICATION, BODY, forge.sequence(sequence.upper(), 2), action="urn:test/Echo", reply=True
        ),
        "UnknownSequence",
    ),
    "a number never sent is acknowledged": Numbered(acknowledges((1, 9)), "InvalidAcknowledgement"),
    "a range turned round": Numbered(acknowledges((2, 1)), "InvalidAcknowledgement"),
    "ranges that overlap": Numbered(acknowledges((1, 2), (2, 2)), "InvalidAcknowledgement"),
    "a range from 0": Numbered(acknowledges((0, 1)), "InvalidAcknowledgement"),
    "a fault that names nothing": Numbered(
        lambda forge, sequence, replies: forge(
            Kind.FAULT, soap.render_fault(castile.errors.SOAPFault("Sender", "x"), forge.policy.soap)
        ),
        "Sender",
    ),
    "a message outside any sequence": Numbered(
        lambda forge, sequence, replies: forge(Kind.APPLICATION, BODY, action="urn:test/Echo", reply=True),
        "WSRMRequired",
    ),
}


@pytest.mark.row("RE-80", "RE-81", "RE-85", "RE-88", "RM-06", "RM-48", "RM-91", "RM-92", "RM-94", "RM-97")
@pytest.mark.parametrize("family", FAMILIES)
def test_broken_rules(pairs: Pairs, tmp_path: Path, family: str) -> None:
    """Well secured and wrong: the fault is secured, the state stays."""
    pair = pairs(family, folder=tmp_path)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    forge = Forger(pair.policy, client._store, key_of(client))
    identifier, replies = str(client.sequence.report()["identifier"]), replies_of(pair)
    before = tables(pair.store_file)
    for name, rule in RULES.items():
        answer = pair.receive(rule.make(forge, identifier, replies))
        code = rule.code if family == "1.3" or rule.code != "WSRMRequired" else "ActionNotSupported"
        assert (name, answer.status, fault_of(answer.body)) == (name, 500, code)
        assert opened(client, answer.body).kind is Kind.FAULT, name
        assert tables(pair.store_file) == before, name
    assert client.call_raw("urn:test/Echo", body(2)) == body(2)


@pytest.mark.row("RM-72", "RM-73", "RM-75", "RM-77", "RM-90", "RM-96", "RM-98", "RE-80", "RE-82", "RE-87")
@pytest.mark.parametrize("family", FAMILIES)
def test_messages_for_ended_sequences(pairs: Pairs, family: str) -> None:
    """Closed, terminated, failed: what each later message is told."""
    pair = pairs(family)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    forge = Forger(pair.policy, client._store, key_of(client))
    identifier = str(client.sequence.report()["identifier"])
    edition, addressing = forge.edition, forge.addressing

    def send(number: int, *, last: bool = False, content: bytes = BODY) -> str:
        kind = Kind.LAST_MESSAGE if last else Kind.APPLICATION
        action = None if last else "urn:test/Echo"
        answer = pair.receive(
            forge(
                kind, b"" if last else content, forge.sequence(identifier, number, last=last), action=action
            )
        )
        return told(answer.body)

    def end(kind: Kind, last: int | None) -> str:
        element = {
            Kind.CLOSE_SEQUENCE: reliability.CloseSequence,
            Kind.TERMINATE_SEQUENCE: reliability.TerminateSequence,
        }[kind]
        content = element(identifier, last).render(edition, addressing)
        return told(pair.receive(forge(kind, content, reply=True)).body)

    def told(payload: bytes) -> str:
        message = opened(client, payload)
        if isinstance(message.body, castile.errors.SOAPFault):
            return message.body.subcode[1] if message.body.subcode else message.body.code
        return message.kind.value

    acknowledged = "SequenceAcknowledgement"
    if family == "1.3":
        assert send(3) == acknowledged
        assert end(Kind.CLOSE_SEQUENCE, 4) == "CloseSequenceResponse"
        assert end(Kind.CLOSE_SEQUENCE, 4) == "CloseSequenceResponse"
        assert send(2) == "SequenceClosed"
        assert send(3) == acknowledged
        assert end(Kind.TERMINATE_SEQUENCE, 4) == "TerminateSequenceResponse"
        assert end(Kind.TERMINATE_SEQUENCE, 4) == "TerminateSequenceResponse"
        assert send(3) == send(4) == "UnknownSequence"
        assert end(Kind.CLOSE_SEQUENCE, 4) == "CloseSequenceResponse"
        assert end(Kind.TERMINATE_SEQUENCE, 5) == "SequenceTerminated"
    else:
        assert send(3, last=True) in (acknowledged, "LastMessage")
        assert send(2) == acknowledged  # before the last one it may come late
        assert send(4) == "LastMessageNumberExceeded"
        assert send(2) == "SequenceTerminated"
    assert pair.settled(2) == [body(1), BODY]


# ---------------------------------------------------------------- who it is, and when


def bootstrap(
    pair: Pair,
    name: str = "ada",
    password: str = "lovelace-secret",
    *,
    now: Now | None = None,
    **changes: object,
) -> bytes:
    """An RST for a context, as anybody could write one."""
    assert pair.policy.conversation is not None
    assert pair.policy.trust is not None
    request = trust.RequestSecurityToken(
        request_type="Issue",
        token_type=pair.policy.conversation.token_type,
        key_size=256,
        entropy=os.urandom(32),
    )
    request = replace(request, **changes)  # type: ignore[arg-type]
    party = Party(
        "client",
        ADDRESS,
        pair.policy,
        pair.party.store,
        os.urandom,
        certificate=castile.credentials.load_certificate(certificate()),
        username=(name, password),
    )
    outgoing = Outgoing(
        Kind.ISSUE,
        pair.policy.trust.action(Kind.ISSUE.value),
        request.render(pair.policy.trust),
        message_id=party.new_id("message"),
        reply_expected=True,
        key=party.certificate,
    )
    return prepare(party, outgoing, now or system()).payload


@pytest.mark.row("MS-83", "RE-60", "F02")
@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_users(pairs: Pairs, tmp_path: Path, family: str) -> None:
    """Wrong password and unknown user are the same in code, text and length; no context is made."""
    pair = pairs(family, folder=tmp_path)
    before = tables(pair.store_file)
    answers = {
        re.sub(rb"urn:uuid:[0-9a-f-]{36}", b"", pair.receive(bootstrap(pair, name, password)).body)
        for name, password in [
            ("ada", "wrong"),
            ("ada", ""),
            ("ada", "lovelace-secret "),
            ("nobody", "lovelace-secret"),
            ("", ""),
            ("mallory", USERS["ada"]),
        ]
    }
    assert len(answers) == 1
    assert fault_of(answers.pop()) == "FailedAuthentication"
    assert tables(pair.store_file) == before
    assert pair.receive(bootstrap(pair)).status == 200


@pytest.mark.row("SC-06", "SC-05", "RE-73", "SC-03")
@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_requests_for_a_context(pairs: Pairs, tmp_path: Path, family: str) -> None:
    pair = pairs(family, folder=tmp_path)
    before = tables(pair.store_file)
    wrong: dict[str, tuple[dict[str, object], set[str]]] = {
        "short entropy": ({"entropy": b"123456789012345"}, {"InvalidRequest", "RequestFailed"}),
        "a small key": ({"key_size": 64}, {"RequestFailed"}),
        "an odd key": ({"key_size": 257}, {"RequestFailed"}),
        "a huge key": ({"key_size": 4_096}, {"RequestFailed"}),
        "another token": ({"token_type": "urn:saml"}, {"RequestFailed"}),
        "another request": ({"request_type": "Renew"}, {"InvalidRequest", "UnableToRenew", "RequestFailed"}),
    }
    for name, (change, codes) in wrong.items():
        answer = pair.receive(bootstrap(pair, **change))  # type: ignore[arg-type]
        assert (answer.status, fault_of(answer.body) in codes) == (500, True), (name, fault_of(answer.body))
        assert tables(pair.store_file) == before, name
    for bits in (128, 256, 512):
        assert pair.receive(bootstrap(pair, key_size=bits)).status == 200


@pytest.mark.row("RE-58", "MS-74", "MS-75")
@pytest.mark.parametrize("seconds", [-3_600, -481, 181, 3_600])
@pytest.mark.parametrize("family", FAMILIES)
def test_expired_and_future_timestamps(pairs: Pairs, family: str, seconds: int) -> None:
    """At the service and at the client; within the skew they are good."""
    pair = pairs(family)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    forge = Forger(pair.policy, client._store, key_of(client))
    identifier = str(client.sequence.report()["identifier"])

    def message(side: str, shift: float) -> bytes:
        now = system()
        moment = Now(now.utc + shift, now.tick)
        party = Party(side, ADDRESS, pair.policy, client._store, os.urandom)  # type: ignore[arg-type]
        headers = (forge.sequence(identifier, 2), forge.acknowledgement(replies_of(pair), (1, 1)))
        if side == "service":
            headers = (forge.acknowledgement(identifier, (1, 2)),)  # type: ignore[assignment]
        kind = Kind.APPLICATION if side == "client" else Kind.ACKNOWLEDGEMENT
        action = "urn:test/Echo" if side == "client" else forge.edition.action(kind.value)
        content = body(2) if side == "client" else b""
        outgoing = Outgoing(kind, action, content, headers, "urn:uuid:1", key=forge.key)
        return prepare(party, outgoing, moment).payload

    answer = pair.receive(message("client", seconds))
    code = "MessageExpired" if seconds < 0 else "InvalidSecurity"
    assert (answer.status, fault_of(answer.body)) == (500, code)
    answer = pair.receive(bootstrap(pair, now=Now(system().utc + seconds, 0.0)))
    assert (answer.status, fault_of(answer.body)) == (500, code)
    assert pair.bodies == [body(1)]
    with pytest.raises(castile.errors.SecurityFailure):
        opened(client, message("service", seconds))
    near = seconds / 10 if abs(seconds) > 1_000 else seconds - (10 if seconds > 0 else -10)
    if abs(near) < 180 or seconds == -481:
        assert pair.receive(message("client", near)).status == 200
        opened(client, message("service", near))


@pytest.mark.row("RE-59")
@pytest.mark.parametrize("reliable", [True, False])
def test_replays(pairs: Pairs, tmp_path: Path, reliable: bool) -> None:
    """Outside a sequence a second copy is refused, also after a restart; inside it is a duplicate."""
    pair = pairs(castile.EndpointPolicy.of("1.3", reliable=reliable), folder=tmp_path)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(1))
    client.close()
    for _ in range(2):
        for exchange in list(pair.network.log):
            if exchange.asked in ("CreateSequence", "CloseSequence", "TerminateSequence", "Echo"):
                continue  # its context is cancelled by now
            before = tables(pair.store_file)
            answer = pair.receive(exchange.request)
            assert (exchange.asked, answer.status) == (exchange.asked, 500)
            assert tables(pair.store_file) == before
        pair.restart_service()
    second = pair.client()
    second.call_raw("urn:test/Echo", body(2))
    pair.restart_service()
    answer = pair.receive(pair.network.requests("Echo")[-1].request)
    if reliable:
        assert opened(second, answer.body).content == body(2)
    else:
        assert (answer.status, fault_of(answer.body)) == (500, "InvalidSecurity")
    assert pair.bodies == [body(1), body(2)]


# ---------------------------------------------------------------- stores


def fill_up(store: Store, *, full: bool) -> None:
    """From now on the disk has no room, or has it again."""

    def step(tx: Transaction) -> None:
        connection: sqlite3.Connection = tx._connection  # type: ignore[attr-defined]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages if full else 1 << 30}")

    store.run(step).result()


@pytest.mark.row("ST-08", "RE-104", "F20", "I6")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_full_disk_at_the_service(pairs: Pairs, tmp_path: Path, family: str) -> None:
    """503 and nothing acknowledged; when there is room again everything is delivered, once."""
    pair = pairs(family, folder=tmp_path)
    client = pair.client()
    client.call_raw("urn:test/Echo", body(0))
    pair.network.answer = lambda request, response: replace(response, retry_after=None)  # no 5 s here
    fill_up(pair.party.store, full=True)
    large = b"<x>" + b"y" * 3_000 + b"</x>"
    for _ in range(10):
        client.send_raw("urn:test/Tell", large)
    until(lambda: any(exchange.status == 503 for exchange in pair.network.log))
    fill_up(pair.party.store, full=False)
    assert client.sequence.wait_until_acknowledged(20)
    assert pair.settled(11) == [body(0), *[large] * 10]
    assert client.call_raw("urn:test/Echo", body(1)) == body(1)
    client.close()


@pytest.mark.row("ST-08", "N11", "F20", "I1")
def test_a_full_disk_when_a_handler_ends(pairs: Pairs, tmp_path: Path) -> None:
    """The handler has run: it isn't run again, its answer waits for room. A transactional one is
    undone and runs again."""
    runs: list[str] = []

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Plain")
        def plain(content: bytes, ctx: castile.RequestContext) -> bytes:
            runs.append("plain")
            fill_up(pair.party.store, full=True)
            return b"<x>" + b"y" * 50_000 + b"</x>"

        @service.raw("urn:test/Enter", transactional=True)
        def enter(content: bytes, ctx: castile.RequestContext) -> bytes:
            runs.append("enter")
            assert ctx.transaction is not None
            ctx.transaction.execute("CREATE TABLE IF NOT EXISTS effects (body BLOB)")
            ctx.transaction.execute("INSERT INTO effects VALUES (?)", (b"z" * (50_000 if full else 1),))
            return content

    full = False
    pair = pairs(folder=tmp_path, extend=extend)
    client = pair.client()
    pair.network.answer = lambda request, response: replace(response, retry_after=None)
    client.call_raw("urn:test/Echo", body(0))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.call_raw, "urn:test/Plain", BODY)
        until(lambda: len(runs) == 1)
        until(lambda: len(pair.network.requests("Plain")) >= 1 or len(pair.network.sent) > 5, 20)
        fill_up(pair.party.store, full=False)
        assert len(answer.result(20)) > 50_000
        assert runs == ["plain"]
        full = True
        fill_up(pair.party.store, full=True)
        answer = pool.submit(client.call_raw, "urn:test/Enter", BODY)
        until(
            lambda: any(exchange.status == 503 for exchange in pair.network.log) or runs.count("enter") >= 2
        )
        full = False
        fill_up(pair.party.store, full=False)
        assert answer.result(20) == BODY
    connection = sqlite3.connect(pair.store_file)
    assert connection.execute("SELECT count(*) FROM effects").fetchone() == (1,)
    connection.close()


@pytest.mark.row("ST-08", "RE-104", "F20")
def test_a_full_disk_at_the_client(pairs: Pairs, tmp_path: Path) -> None:
    """The call that finds no room says so and used no number; later ones go on."""
    pair = pairs()
    client = pair.client(store=tmp_path / "client.db")
    client.call_raw("urn:test/Echo", body(1))
    fill_up(client._store, full=True)
    large = b"<x>" + b"y" * 100_000 + b"</x>"
    with pytest.raises(StoreFull):
        client.send_raw("urn:test/Tell", large)
    with pytest.raises(StoreFull):
        client.call_raw("urn:test/Echo", large)
    fill_up(client._store, full=False)
    assert client.call_raw("urn:test/Echo", body(2)) == body(2)
    client.send_raw("urn:test/Tell", large)
    client.close()
    pair.settled(3)
    assert [(number, len(content) > 9_999) for _, number, content in pair.received] == [
        (1, False),
        (2, False),
        (3, True),
    ]


@pytest.mark.row("RE-104", "ST-10", "ST-22")
def test_stores_that_cannot_be_opened(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No store, a newer one, one that isn't let go of, another key: named before anything is done."""
    monkeypatch.setattr("castile.store.database.BUSY_SECONDS", 0.1)
    pair = pairs(folder=tmp_path)
    (tmp_path / "text.db").write_bytes(b"this is a letter to my aunt\n" * 99)
    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("CREATE TABLE mine (x)")
    foreign.commit()
    foreign.close()
    client = pair.client(store=tmp_path / "newer.db")
    client.close()
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("PRAGMA user_version = 99999")
    newer.commit()
    newer.close()
    pair.client(store=tmp_path / "busy.db").close()
    holder = WriterLock(tmp_path / "busy.db")
    holder.acquire(1)
    pair.client(store=tmp_path / "sealed.db", seal=os.urandom(32)).close()
    wanted: dict[str, tuple[type[castile.StoreError], str]] = {
        "text.db": (StoreInvalid, "text.db"),
        "foreign.db": (StoreInvalid, "foreign.db"),
        "newer.db": (StoreTooNew, "newer"),
        "busy.db": (StoreBusy, str(os.getpid())),
        "sealed.db": (StoreInvalid, "key"),
    }
    for name, (kind, text) in wanted.items():
        content = (tmp_path / name).read_bytes()
        with pytest.raises(kind, match=text):
            pair.client(store=tmp_path / name, seal=os.urandom(32) if name == "sealed.db" else None)
        service = castile.Service(
            policy=pair.policy,
            credentials=castile.Certificate(identity("service")),
            users=USERS,
            store=tmp_path / name,
            seal=os.urandom(32) if name == "sealed.db" else None,
        )
        with pytest.raises(kind, match=text):
            pair.loop.run(service.start())
        assert (tmp_path / name).read_bytes() == content
    holder.close()
    assert pair.client(store=tmp_path / "busy.db").call_raw("urn:test/Echo", BODY) == BODY
