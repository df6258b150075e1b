"""The whole scenario in both families and suites: what goes over the wire, and what it means."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import castile
from castile import xml
from castile.clock import system
from castile.config import Limits
from castile.messages import reliability, soap
from castile.security import Expectation, SealedKey, Verified, unprotect
from castile.versions import SOAP_1_1, WSRM
from castile.waiting import blocking
from tests.conftest import shared
from tests.endpoint.conftest import Pairs
from tests.endpoint.pair import (
    BODY,
    FAMILIES,
    FAST,
    action_of,
    body,
    certificate,
    fast,
    opened,
    states,
    until,
)
from tests.security import recorded

ENDING = {
    "1.3": [
        ("CloseSequence", "CloseSequenceResponse"),
        ("TerminateSequence", "TerminateSequenceResponse"),
    ],
    "2005": [("LastMessage", "LastMessage"), ("TerminateSequence", "TerminateSequence")],
}
BEGINNING = [("RST/SCT", "RSTR/SCT"), ("CreateSequence", "CreateSequenceResponse")]
CANCEL = [("RST/SCT/Cancel", "RSTR/SCT/Cancel")]


def headers_of(payload: bytes) -> list[xml.Element]:
    return list(xml.parse(payload, Limits())[0])


@pytest.mark.row("F01", "F05", "F06", "F22", "CO-02", "RM-70", "RM-71", "RM-79", "SC-20", "SC-29")
@pytest.mark.parametrize("suite", ["Basic256", "Basic256Sha256"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_on_the_wire(pairs: Pairs, family: str, suite: str) -> None:
    """CO-01's order, less renewal; trust messages carry no RM header and use up no number."""
    pair = pairs(castile.EndpointPolicy.of(family, suite=suite))
    with pair.client() as client:
        assert client.call_raw("urn:test/Echo", body(1)) == body(1)
        client.send_raw("urn:test/Tell", body(2))
        assert client.sequence.wait_until_acknowledged(10)
        assert client.call_raw("urn:test/Echo", body(3)) == body(3)
        client.sequence.close()
        assert client.call_raw("urn:test/Echo", body(4)) == body(4)  # a second sequence, the same token
    calls = [("Echo", "EchoResponse"), ("Tell", "SequenceAcknowledgement"), ("Echo", "EchoResponse")]
    first = [*BEGINNING, *calls, *ENDING[family]]
    second = [BEGINNING[1], ("Echo", "EchoResponse"), *ENDING[family], *CANCEL]
    assert pair.network.actions == first + second
    assert all(exchange.status == 200 for exchange in pair.network.log)
    assert [(number, content) for _, number, content in pair.received] == [
        (1, body(1)),
        (2, body(2)),
        (3, body(3)),
        (1, body(4)),
    ]
    for exchange in pair.network.log:
        if exchange.asked.startswith("RST"):
            for payload in (exchange.request, exchange.response):
                assert not [each for each in headers_of(payload) if xml.namespace_of(each) in WSRM]


@pytest.mark.row("F05", "RM-107", "SC-29")
@pytest.mark.parametrize("family", FAMILIES)
def test_fifty_first_calls_share_one_bootstrap(pairs: Pairs, family: str) -> None:
    pair = pairs(family)
    start = threading.Barrier(50)
    with pair.client() as client, ThreadPoolExecutor(50) as pool:

        def call(number: int) -> bytes:
            start.wait()
            return client.call_raw("urn:test/Echo", body(number))

        assert list(pool.map(call, range(50))) == [body(number) for number in range(50)]
    actions = [asked for asked, _ in pair.network.actions]
    assert actions.count("RST/SCT") == actions.count("CreateSequence") == 1
    assert actions.count("RST/SCT/Cancel") == 1
    assert [number for _, number, _ in pair.received] == list(range(1, 51))


@pytest.mark.row("F07")
@pytest.mark.parametrize("uses", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_create_sequence_names_the_context(pairs: Pairs, family: str, uses: bool) -> None:
    """The reference is WCF's byte for byte but for the identifier; UsesSequenceSTR by policy."""
    pair = pairs(castile.EndpointPolicy.of(family, uses_sequence_str=uses))
    client = pair.client()
    client.call_raw("urn:test/Echo", BODY)
    assert client.context is not None
    identifier = client.context.identifier
    create = pair.network.requests("CreateSequence")[0].request
    reference = list(xml.parse(create, Limits())[1][0])[-1]
    recording = shared("vectors", "wcf", "ws05-user-nonego-sc-rm", "03-request.xml").read_bytes()
    theirs = list(xml.parse(recording, Limits())[1][0])[-1]
    wanted = xml.canonical(theirs)
    old = "http://schemas.xmlsoap.org/ws/2005/02/sc/sct"
    assert pair.policy.conversation is not None
    wanted = wanted.replace((theirs[0].get("URI") or "").encode(), identifier.encode())
    wanted = wanted.replace(old.encode(), pair.policy.conversation.token_type.encode())
    assert xml.canonical(reference) == wanted
    found = [each for each in headers_of(create) if xml.local_name(each) == "UsesSequenceSTR"]
    assert len(found) == (uses and family == "1.3")
    for header in found:
        assert header.get(f"{{{pair.policy.soap.namespace}}}mustUnderstand") == "1"
    message = pair.opened(create)
    assert "Body" in message.verified.signatures[0].covered
    assert bool(found) == ("wsrm:UsesSequenceSTR" in message.verified.signatures[0].covered)


KINDS_2005 = {
    "RST/SCT": "01-request.xml",
    "RSTR/SCT": "02-response.xml",
    "CreateSequence": "03-request.xml",
    "CreateSequenceResponse": "04-response.xml",
    "Echo": "07-request.xml",
    "EchoResponse": "08-response.xml",
    "LastMessage": "09-request.xml",
    "LastMessage answered": "10-response.xml",
    "TerminateSequence": "11-request.xml",
    "TerminateSequence answered": "12-response.xml",
    "RST/SCT/Cancel": "13-request.xml",
    "RSTR/SCT/Cancel": "14-response.xml",
}
KINDS_1_3 = {
    "RST/SCT": "01-request.xml",
    "RSTR/SCT": "02-response.xml",
    "RST/SCT/Cancel": "07-request.xml",
    "RSTR/SCT/Cancel": "08-response.xml",
}


@pytest.mark.row(
    "F02", "F04", "CO-09", "MS-03", "SC-03", "SC-04", "SC-09", "SC-10", "SC-14", "RM-10", "RM-71"
)
@pytest.mark.parametrize(
    ("family", "folder", "kinds"),
    [
        ("2005", "ws05-user-nonego-sc-rm", KINDS_2005),
        ("1.3", "ws07-user-nonego-sc-norm", KINDS_1_3),
    ],
)
def test_messages_are_built_as_wcf_builds_them(
    pairs: Pairs, family: str, folder: str, kinds: dict[str, str]
) -> None:
    """Same headers in the same order, same Security children, same parts signed and encrypted."""
    pair = pairs(family)
    client = pair.client()
    client.call_raw("urn:test/Echo", BODY)
    client.call_raw("urn:test/Echo", BODY)
    parties = {"request": pair.party, "response": client._party}
    keys = recorded.Keys(
        users={"ada": "lovelace-secret"},
        private=[(pair.party.certificate, pair.party.key)],  # type: ignore[list-item]
    )
    client.close()
    for party in parties.values():
        keys.contexts |= party.keyring.contexts
    theirs = {
        each.name: shape(each.envelope, each.verified)
        for each in recorded.read(shared("vectors", "wcf", folder))
    }
    ours: dict[str, tuple[object, ...]] = {}
    for exchange in pair.network.log:
        for payload, is_request in ((exchange.request, True), (exchange.response, False)):
            name = action_of(payload)
            if not is_request and name in ("LastMessage", "TerminateSequence"):
                name += " answered"
            envelope = recorded.opened(payload)
            ours[name] = shape(envelope, verified(envelope, keys, is_request))
    for name, file in kinds.items():
        if name in ("CreateSequence",):  # we say where answers go, which WCF leaves out (B1801)
            ours[name] = without(ours[name], "ReplyTo")
        assert ours[name] == theirs[file], name


def verified(envelope: soap.Envelope, keys: recorded.Keys, is_request: bool) -> Verified:
    expectation = Expectation(None, None, is_request)
    found = unprotect(envelope, keys, expectation, system(), recorded.LIMITS, recorded.TIMERS)
    if isinstance(found.reply_key, SealedKey):
        keys.sealed[found.reply_key.sha1] = found.reply_key
    return found


def shape(envelope: soap.Envelope, message: Verified | None) -> tuple[object, ...]:
    """What of a message doesn't depend on names, keys and times."""
    assert message is not None
    assert envelope.security is not None
    must = f"{{{envelope.soap.namespace}}}mustUnderstand"
    return (
        [(xml.local_name(each), each.get(must)) for each in envelope.root[0]],
        [xml.local_name(each) for each in envelope.security],
        message.signatures[0].covered,
        message.encrypted,
        [outline(each) for each in message.body if xml.local_name(each) not in ("Echo", "EchoResponse", "x")],
    )


def outline(element: xml.Element) -> tuple[object, ...]:
    """Names of an element and all below it, without Microsoft's extensions."""
    return (xml.local_name(element), *(outline(child) for child in element))


def without(found: tuple[object, ...], header: str) -> tuple[object, ...]:
    names, security, covered, *rest = found
    assert isinstance(names, list)
    assert isinstance(covered, frozenset)
    return ([each for each in names if each[0] != header], security, covered - {f"wsa:{header}"}, *rest)


@pytest.mark.row("CO-09")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("theirs", [True, False])
def test_lifecycle_bodies_encrypted_or_not(pairs: Pairs, family: str, ours: bool, theirs: bool) -> None:
    """Each side sends as it is set and takes both forms."""
    pair = pairs(castile.EndpointPolicy.of(family, encrypt_lifecycle=theirs))
    with pair.client(policy=castile.EndpointPolicy.of(family, encrypt_lifecycle=ours)) as client:
        assert client.call_raw("urn:test/Echo", BODY) == BODY
    for exchange in pair.network.log:
        if exchange.asked in ("CreateSequence", "CloseSequence", "TerminateSequence", "RST/SCT/Cancel"):
            assert (b":EncryptedData" in exchange.request) == ours
            assert (b":EncryptedData" in exchange.response) == theirs
    assert pair.network.actions[-3:] == [*ENDING[family], *CANCEL]


@pytest.mark.row("RM-12", "RM-13", "RM-14", "RM-15", "RM-36", "RM-93", "RM-100", "RM-106", "F23")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("asks", "accepts"), [(True, True), (True, False), (False, False)])
def test_offers(pairs: Pairs, family: str, asks: bool, accepts: bool) -> None:
    """Replies are numbered in the offered sequence; without one they come all the same."""
    pair = pairs(castile.EndpointPolicy.of(family, two_way=accepts))
    with pair.client(policy=castile.EndpointPolicy.of(family, two_way=asks)) as client:
        for number in range(1, 4):
            assert client.call_raw("urn:test/Echo", body(number)) == body(number)
        numbers = []
        for exchange in pair.network.requests("Echo"):
            reply = opened(client, exchange.response)
            numbers.append(reply.reliability.sequence.number if reply.reliability.sequence else None)
            assert reply.addressing.relates_to == pair.opened(exchange.request).addressing.message_id
    assert numbers == ([1, 2, 3] if asks and accepts else [None] * 3)
    create = pair.network.requests("CreateSequence")[0]
    assert (b"Offer>" in create.request) == asks
    assert (b"Accept>" in create.response) == (asks and accepts)
    assert (b"Offer><r:Identifier" in create.request) == asks


@pytest.mark.row("RM-40", "RM-41", "RM-43", "RM-45", "RM-49", "RM-70", "RM-78")
@pytest.mark.parametrize("family", FAMILIES)
def test_acknowledgements_ride_both_ways(pairs: Pairs, family: str) -> None:
    pair = pairs(family)
    with pair.client() as client:
        for number in range(1, 4):
            client.call_raw("urn:test/Echo", body(number))
    edition = pair.policy.reliability
    assert edition is not None

    def acknowledged(payload: bytes) -> list[reliability.SequenceAcknowledgement]:
        found = [each for each in headers_of(payload) if xml.local_name(each) == "SequenceAcknowledgement"]
        must = f"{{{pair.policy.soap.namespace}}}mustUnderstand"
        assert not any(each.get(must) for each in found)  # RSP R0540
        return [reliability.SequenceAcknowledgement.parse(each, edition, Limits()) for each in found]

    echoes = pair.network.requests("Echo")
    assert [acknowledged(each.request) for each in echoes[:1]] == [[]]
    for number, exchange in enumerate(echoes, 1):
        (ours,) = acknowledged(exchange.response)
        assert (ours.ranges, ours.final) == (((1, number),), False)
        if number > 1:
            (theirs,) = acknowledged(exchange.request)
            assert theirs.ranges == ((1, number - 1),)
    for exchange in pair.network.log[-3:-1]:  # the two that end the sequence
        for payload in (exchange.request, exchange.response):
            (found,) = acknowledged(payload)
            if family == "1.3":
                assert (found.ranges, found.final) == (((1, 3),), True)
            else:
                assert found.ranges[0][0] == 1
                assert not found.final


@pytest.mark.row("RM-70", "RM-41")
def test_a_sequence_without_messages_ends_without_a_last_number(pairs: Pairs) -> None:
    """None is acknowledged, and LastMsgNumber is absent from both (WCF R1302)."""
    pair = pairs("1.3")
    client = pair.client()
    key = blocking(client._pump.sequence(""))
    assert blocking(client._pump._open(key, client._pump.now().tick + 10))
    client.close()
    assert pair.network.actions == [*BEGINNING, *ENDING["1.3"], *CANCEL]
    for exchange in pair.network.log[2:4]:
        assert b"LastMsgNumber" not in exchange.request
        assert b"<r:None></r:None><r:Final>" in exchange.request + exchange.response


def test_policy_sets_of_one_family_only(pairs: Pairs) -> None:
    """A client of the other family gets a fault and says so; the service keeps nothing."""
    pair = pairs("1.3")
    client = pair.client(policy=castile.EndpointPolicy.of("2005"))
    with pytest.raises(castile.FaultReceived):
        client.call_raw("urn:test/Echo", BODY)
    assert pair.received == []
    assert states(client._store)[0] == []


# ---------------------------------------------------------------- what handlers answer


@pytest.mark.row("RM-110", "RM-121", "CO-20")
@pytest.mark.parametrize("family", FAMILIES)
def test_fault_replies(pairs: Pairs, family: str) -> None:
    """A fault is a reply like any other: numbered, secured, acknowledged; the log has the cause."""

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Declared")
        def declared(content: bytes) -> bytes:
            raise castile.Fault(
                "Sender", "no such account", b'<d xmlns="urn:d">7</d>', ("urn:bank", "NoAccount")
            )

        @service.raw("urn:test/Broken")
        def broken(content: bytes) -> bytes:
            raise RuntimeError("the database password is hunter2")

        @service.raw("urn:test/Text")
        def wrong(content: bytes) -> bytes:
            return "text"  # type: ignore[return-value]

        @service.raw("urn:test/Half")
        def half(content: bytes) -> bytes:
            return b"<x>"

    pair = pairs(family, extend=extend)
    with pair.client() as client:
        with pytest.raises(castile.FaultReceived) as told:
            client.call_raw("urn:test/Declared", BODY)
        fault = told.value.fault
        assert told.value.authenticated
        assert (fault.code, fault.subcode, fault.reason) == (
            "Sender",
            ("urn:bank", "NoAccount"),
            "no such account",
        )
        assert b"7" in fault.detail
        for action in ("urn:test/Broken", "urn:test/Text", "urn:test/Half"):
            with pytest.raises(castile.FaultReceived) as told:
                client.call_raw(action, BODY)
            assert told.value.fault.code == "Receiver"
            assert "urn:uuid:" in told.value.fault.reason
            assert "hunter2" not in str(told.value)
        with pytest.raises(castile.FaultReceived) as told:
            client.call_raw("urn:test/Nobody", BODY)
        assert told.value.fault.subcode is not None
        assert told.value.fault.subcode[1] == "ActionNotSupported"
        assert client.call_raw("urn:test/Echo", BODY) == BODY
        assert client.sequence.report()["acknowledged"] == [[1, 6]]
    assert [exchange.status for exchange in pair.network.log[2:8]] == [500] * 5 + [200]
    assert all(b"EncryptedData" in exchange.response for exchange in pair.network.log[2:8])
    assert pair.network.actions[-3:] == [*ENDING[family], *CANCEL]


@pytest.mark.row("RM-121", "CO-20", "N11", "F20")
@pytest.mark.parametrize("family", FAMILIES)
def test_handlers_of_every_kind(pairs: Pairs, tmp_path: Path, family: str) -> None:
    """Retry runs again, coroutines run on the loop, a transactional one's effects are one commit."""
    runs: list[str] = []

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Patient")
        def patient(content: bytes, ctx: castile.RequestContext) -> bytes:
            runs.append("patient")
            if runs.count("patient") < 3:
                raise castile.Retry(0.01)
            assert not ctx.redelivered
            return content

        @service.raw("urn:test/Coroutine")
        async def coroutine(content: bytes, ctx: castile.RequestContext) -> bytes:
            return f"<p xmlns='urn:p'>{ctx.principal} {ctx.number}</p>".encode()

        @service.raw("urn:test/Enter", transactional=True)
        def enter(content: bytes, ctx: castile.RequestContext) -> bytes:
            assert ctx.transaction is not None
            ctx.transaction.execute("CREATE TABLE IF NOT EXISTS effects (number INTEGER, body BLOB)")
            ctx.transaction.execute("INSERT INTO effects VALUES (?, ?)", (ctx.number, content))
            if b"fault" in content:
                raise castile.Fault("Sender", "undone")
            if b"error" in content:
                raise ValueError("undone too")
            if b"later" in content and runs.count("later") < 2:
                runs.append("later")
                raise castile.Retry(0.01)
            return content

        @service.raw("urn:test/Look", transactional=True)
        def look(content: bytes, ctx: castile.RequestContext) -> bytes:
            assert ctx.transaction is not None
            rows = ctx.transaction.execute("SELECT number, body FROM effects ORDER BY number").fetchall()
            return f"<n xmlns='urn:n'>{len(rows)}</n>".encode()

    pair = pairs(family, folder=tmp_path, extend=extend)
    with pair.client() as client:
        assert client.call_raw("urn:test/Patient", BODY) == BODY
        assert client.call_raw("urn:test/Coroutine", BODY) == b'<p xmlns="urn:p">ada 2</p>'
        for content, fails in [(b"<a>plain</a>", False), (b"<a>fault</a>", True), (b"<a>error</a>", True),
                               (b"<a>later</a>", False)]:  # fmt: skip
            if fails:
                with pytest.raises(castile.FaultReceived):
                    client.call_raw("urn:test/Enter", content)
            else:
                assert client.call_raw("urn:test/Enter", content) == content
        assert client.call_raw("urn:test/Look", BODY) == b'<n xmlns="urn:n">2</n>'
    assert runs == ["patient"] * 3 + ["later"] * 2


@pytest.mark.row("N11")
def test_a_coroutine_cannot_be_transactional(pairs: Pairs) -> None:
    pair = pairs()
    with pytest.raises(castile.UsageError, match="coroutine"):

        @pair.service.raw("urn:test/Wrong", transactional=True)
        async def wrong(content: bytes) -> bytes:
            return content


@pytest.mark.row("RM-121", "F21")
@pytest.mark.parametrize("durable", [False, True])
def test_a_one_way_message_that_fails_is_parked(pairs: Pairs, tmp_path: Path, durable: bool) -> None:
    """It is tried again with back-off, then stands still; those behind it wait, also after a restart."""
    attempts: list[bytes] = []

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Fail")
        def fail(content: bytes) -> None:
            attempts.append(content)
            raise RuntimeError("never works")

    pair = pairs(folder=tmp_path if durable else None, extend=extend, settings=fast(handler_backoff=0.001))
    client = pair.client()
    client.send_raw("urn:test/Tell", body(1))
    client.send_raw("urn:test/Fail", body(2))
    client.send_raw("urn:test/Tell", body(3))
    assert client.sequence.wait_until_acknowledged(10)

    def parked() -> bool:
        return bool(pair.party.store.run(lambda tx: tx.inbox(status="parked")).result())

    until(parked)
    assert attempts == [body(2)] * 5
    assert pair.bodies == [body(1)]
    if durable:
        pair.restart_service()
        client.send_raw("urn:test/Tell", body(4))
        assert client.sequence.wait_until_acknowledged(10)
        other = pair.client()  # another sequence is not held up
        assert other.call_raw("urn:test/Echo", body(9)) == body(9)
        assert parked()
        assert attempts == [body(2)] * 5
        assert pair.bodies == [body(1), body(9)]


@pytest.mark.row("CO-20")
def test_each_principal_is_itself(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(folder=tmp_path)
    ada, mallory = pair.client("ada"), pair.client("mallory")
    for client in (ada, mallory, ada):
        client.call_raw("urn:test/Echo", BODY)
    pair.restart_service()
    for client in (mallory, ada):
        client.call_raw("urn:test/Echo", BODY)
    assert [who for who, _, _ in pair.received] == ["ada", "mallory", "ada", "mallory", "ada"]


@pytest.mark.row("RM-102", "RM-93")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_slow_reply_is_asked_for_again(pairs: Pairs, family: str) -> None:
    """After `reply_wait` the exchange ends with an acknowledgement; the handler runs once."""
    gate = threading.Event()

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Slow")
        def slow(content: bytes, ctx: castile.RequestContext) -> bytes:
            pair.note(content, ctx)
            gate.wait(10)
            return content

    pair = pairs(family, extend=extend, settings=fast(reply_wait=0.02))
    with pair.client() as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.call_raw, "urn:test/Slow", BODY)
        until(lambda: len(pair.network.requests("Slow")) >= 3)
        gate.set()
        assert answer.result(10) == BODY
    assert pair.bodies == [BODY]
    answers = [exchange.answered for exchange in pair.network.requests("Slow")]
    assert answers[-1] == "SlowResponse"
    assert set(answers[:-1]) <= {"SequenceAcknowledgement", ""}


# ---------------------------------------------------------------- other policies

PLAIN = castile.EndpointPolicy.of("1.3", secure=False, reliable=False)


@pytest.mark.row("CO-19")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("secure", "reliable"), [(False, False), (True, False), (False, True)])
def test_parts_of_the_whole(pairs: Pairs, family: str, secure: bool, reliable: bool) -> None:
    """Plain, SecureConversation alone, ReliableMessaging alone."""

    def extend(service: castile.Service) -> None:
        @service.raw("urn:test/Fail")
        def fail(content: bytes) -> bytes:
            raise castile.Fault("Sender", "no")

        @service.raw("urn:test/Break")
        def broken(content: bytes) -> bytes:
            raise RuntimeError("secret")

        @service.raw("urn:test/Later")
        def later(content: bytes) -> bytes:
            raise castile.Retry(3)

    policy = castile.EndpointPolicy.of(family, secure=secure, reliable=reliable)
    pair = pairs(policy, extend=extend)
    with pair.client() as client:
        assert client.call_raw("urn:test/Echo", body(1)) == body(1)
        client.send_raw("urn:test/Tell", body(2))
        if reliable:
            assert client.sequence.wait_until_acknowledged(10)
        else:
            with pytest.raises(castile.errors.NotReliable):
                _ = client.sequence
            with pytest.raises(castile.FaultReceived):  # the exchange is open: its sender is told
                client.send_raw("urn:test/Break", body(0))
        with pytest.raises(castile.FaultReceived, match="no"):
            client.call_raw("urn:test/Fail", body(3))
        with pytest.raises(castile.FaultReceived) as told:
            client.call_raw("urn:test/Break", body(3))
        assert told.value.fault.code == "Receiver"
        assert told.value.authenticated == secure
        if not reliable:
            with pytest.raises(castile.TransportError) as busy:
                client.call_raw("urn:test/Later", body(3))
            assert busy.value.retry_after == 3
        assert client.call_raw("urn:test/Echo", body(4)) == body(4)
    assert pair.bodies == [body(1), body(2), body(4)]
    assert {who for who, _, _ in pair.received} == {"ada" if secure else None}
    asked = [asked for asked, _ in pair.network.actions]
    assert ("RST/SCT" in asked, "RST/SCT/Cancel" in asked) == (secure, secure)
    assert ("CreateSequence" in asked, "TerminateSequence" in asked) == (reliable, reliable)


@pytest.mark.row("F25", "RM-97", "RE-88")
@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize(("family", "code"), [("1.3", "WSRMRequired"), ("2005", "ActionNotSupported")])
def test_a_plain_call_at_a_reliable_endpoint(pairs: Pairs, family: str, secure: bool, code: str) -> None:
    pair = pairs(castile.EndpointPolicy.of(family, secure=secure))
    with (
        pair.client(policy=castile.EndpointPolicy.of(family, secure=secure, reliable=False)) as client,
        pytest.raises(castile.FaultReceived) as told,
    ):
        client.call_raw("urn:test/Echo", BODY)
    assert told.value.fault.subcode is not None
    assert told.value.fault.subcode[1] == code
    assert told.value.authenticated == secure
    assert pair.received == []


@pytest.mark.row("RE-88", "CO-19")
@pytest.mark.parametrize("family", FAMILIES)
def test_reliable_messages_at_a_plain_endpoint(pairs: Pairs, family: str) -> None:
    """No sequence is made, and the caller is told why not."""
    pair = pairs(castile.EndpointPolicy.of(family, reliable=False))
    client = pair.client(policy=castile.EndpointPolicy.of(family), settings=fast(create_timeout=0.1))
    text = "not understood" if family == "1.3" else "cannot be processed"  # of UsesSequenceSTR
    with pytest.raises(castile.errors.SequenceCreationFailed, match=text):
        client.call_raw("urn:test/Echo", BODY)
    assert pair.received == []


@pytest.mark.parametrize("family", FAMILIES)
def test_soap_1_1(pairs: Pairs, family: str) -> None:
    pair = pairs(castile.EndpointPolicy.of(family, soap=SOAP_1_1))
    with pair.client() as client:
        assert client.call_raw("urn:test/Echo", BODY) == BODY
        with pytest.raises(castile.FaultReceived):
            client.call_raw("urn:test/Nobody", BODY)
    assert pair.network.actions[-3:] == [*ENDING[family], *CANCEL]


# ---------------------------------------------------------------- when it can't be done


@pytest.mark.row("CO-08")
@pytest.mark.parametrize("family", FAMILIES)
def test_no_context_no_sequence(pairs: Pairs, family: str) -> None:
    """The caller gets the cause, and CreateSequence never leaves."""
    pair = pairs(family)
    client = pair.client()
    pair.network.down = True
    with pytest.raises(castile.TransportError):
        client.call_raw("urn:test/Echo", BODY, timeout=0.1)
    wrong = pair.client(credentials=castile.Username("ada", "wrong"))
    pair.network.down = False
    with pytest.raises(castile.FaultReceived) as told:
        wrong.call_raw("urn:test/Echo", BODY)
    assert not told.value.authenticated
    assert told.value.fault.subcode is not None
    assert told.value.fault.subcode[1] == "FailedAuthentication"
    assert {action_of(payload) for payload in pair.network.sent} == {"RST/SCT"}
    assert client.call_raw("urn:test/Echo", BODY) == BODY


@pytest.mark.row("F02", "SC-08")
def test_answers_that_no_context_comes_from(pairs: Pairs) -> None:
    """Another service's certificate answers: nothing is stored, the caller is told."""
    pair = pairs()
    client = pair.client(service_certificate=certificate("other"))
    with pytest.raises(castile.FaultReceived) as told:
        client.call_raw("urn:test/Echo", BODY)
    assert not told.value.authenticated
    assert states(client._store)[0] == []
    assert pair.party.store.run(lambda tx: tx.contexts(ended=True)).result() == []


@pytest.mark.row("RM-20", "RM-95")
def test_caps(pairs: Pairs) -> None:
    """Too many sequences of a principal: busy, tried again until there is room."""
    limits = replace(FAST.limits, sequences_per_principal=1)
    pair = pairs(settings=replace(FAST, limits=limits))
    first, second = pair.client(), pair.client()
    first.call_raw("urn:test/Echo", body(1))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(second.call_raw, "urn:test/Echo", body(2))
        until(lambda: len(pair.network.requests("CreateSequence")) >= 3)
        assert fault_code(second, pair.network.requests("CreateSequence")[-1].response) == (
            "Receiver",
            "CreateSequenceRefused",
        )
        assert pair.client("mallory").call_raw("urn:test/Echo", body(3)) == body(3)
        first.close()
        assert answer.result(10) == body(2)


def fault_code(client: castile.Client, payload: bytes) -> tuple[str, str]:
    fault = opened(client, payload).body
    assert isinstance(fault, castile.errors.SOAPFault)
    assert fault.subcode is not None
    return fault.code, fault.subcode[1]
