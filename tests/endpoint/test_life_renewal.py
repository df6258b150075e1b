"""Renewal of a context in use: when, by whom, how often, with what proof, and what if it fails."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

import castile
from castile import xml
from castile.config import Limits, Settings
from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Outgoing, prepare, render
from castile.endpoint.party import Party
from castile.errors import SecurityContextExpired
from castile.messages import trust
from castile.messages.security import SecurityTokenReference
from castile.policy import USERNAME
from castile.security.keys import ContextKey
from castile.security.pipeline import Protection, protect
from tests.conftest import shared
from tests.endpoint.conftest import Pairs
from tests.endpoint.forge import Forger, key_of
from tests.endpoint.lives import DUE, GRACE, LIFE, OVER, Judge, Moved, Watched, settings
from tests.endpoint.pair import BODY, FAMILIES, Pair, action_of, body, fault_of, until

RENEW = "RST/SCT/Renew"


def living(
    pairs: Pairs, policy: str | castile.EndpointPolicy, **options: object
) -> tuple[Pair, Moved, Watched]:
    clock = Moved()
    chosen: Settings = settings(**options)  # type: ignore[arg-type]
    pair = pairs(policy, clock=clock, settings=chosen)
    return pair, clock, Watched(pair)


def instance(client: castile.Client) -> str | None:
    assert client.context is not None
    return client.context.instance


# ---------------------------------------------------------------- when, and how often


@pytest.mark.row("SC-25", "F13")
@pytest.mark.parametrize("family", FAMILIES)
def test_renewal_is_due_at_60_percent_of_what_was_granted(pairs: Pairs, family: str) -> None:
    """Less and more 5 %; with use only: an idle context is left alone."""
    pair, clock, network = living(pairs, family)
    client = pair.client(http=network)
    client.call_raw("urn:test/Echo", body(1))
    clock.seconds = 0.54 * LIFE
    client.call_raw("urn:test/Echo", body(2))
    assert network.count(RENEW) == 0
    clock.seconds = 0.66 * LIFE
    assert network.count(RENEW) == 0  # idle
    client.call_raw("urn:test/Echo", body(3))
    until(lambda: instance(client) is not None)
    assert network.count(RENEW) == 1
    clock.seconds += 0.54 * LIFE
    client.call_raw("urn:test/Echo", body(4))
    assert network.count(RENEW) == 1
    clock.seconds += 0.12 * LIFE
    client.call_raw("urn:test/Echo", body(5))
    until(lambda: network.count(RENEW) == 2)
    client.close()
    assert pair.bodies == [body(number) for number in range(1, 6)]
    Judge(pair, network)()


@pytest.mark.row("SC-26", "I1")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_hundred_senders_renew_once(pairs: Pairs, family: str) -> None:
    """Nobody waits for the renewal: they go on with the current key."""
    pair, clock, network = living(pairs, family)
    client = pair.client(http=network)
    client.call_raw("urn:test/Echo", body(0))
    clock.seconds += DUE
    start = threading.Barrier(100)

    def call(number: int) -> bytes:
        start.wait()
        return client.call_raw("urn:test/Echo", body(number))

    with ThreadPoolExecutor(100) as pool:
        assert list(pool.map(call, range(1, 101))) == [body(number) for number in range(1, 101)]
    until(lambda: instance(client) is not None)
    client.close()
    assert network.count(RENEW) == network.count("RST/SCT") == network.count("CreateSequence") == 1
    assert sorted(pair.bodies) == sorted(body(number) for number in range(101))
    assert [number for _, number, _ in pair.received] == list(range(1, 102))


@pytest.mark.row("SC-26")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_trust_service_that_is_down_is_asked_again(pairs: Pairs, family: str) -> None:
    pair, clock, network = living(pairs, family)
    client = pair.client(http=network)
    client.call_raw("urn:test/Echo", body(1))
    clock.seconds += DUE
    network.fate = lambda number, payload: "drop-request" if action_of(payload) == RENEW else None
    until(lambda: client.call_raw("urn:test/Echo", BODY) == BODY and network_asks(network) >= 3)
    assert instance(client) is None
    network.fate = lambda number, payload: None
    until(lambda: client.call_raw("urn:test/Echo", BODY) == BODY and instance(client) is not None)
    client.close()
    assert network.count("RST/SCT") == network.count("CreateSequence") == 1
    Judge(pair, network)()


def network_asks(network: Watched) -> int:
    """How many renewals were asked for, whether or not they arrived."""
    return sum(action_of(payload) == RENEW for payload in network.sent)


@pytest.mark.row("SC-26", "F12")
@pytest.mark.parametrize("family", FAMILIES)
def test_without_renewal_new_work_gets_a_new_context(pairs: Pairs, family: str) -> None:
    """Where it is never answered, and where the policy says MustNotSendRenew (SC-32)."""
    policy = castile.EndpointPolicy.of(family, renews_contexts=False)
    for chosen in (family, policy):
        pair, clock, network = living(pairs, chosen)
        network.fate = lambda number, payload: "drop-response" if action_of(payload) == RENEW else None
        client = pair.client(http=network)
        client.call_raw("urn:test/Echo", body(1))
        first = client.context
        assert first is not None
        clock.seconds += DUE
        client.call_raw("urn:test/Echo", body(2))
        if chosen is policy:
            with pytest.raises(castile.PolicyError, match="MustNotSendRenew"):
                first.renew()
        clock.seconds += OVER - DUE
        assert first.state == "expired"
        client.call_raw("urn:test/Echo", body(3))
        assert client.context is not None
        assert client.context.identifier != first.identifier
        client.close()
        assert [number for _, number, _ in pair.received] == [1, 2, 1]
        assert network.count(RENEW) == 0 if chosen is policy else network_asks(network) >= 1
        Judge(pair, network)()


@pytest.mark.row("SC-24", "SC-26", "I1")
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_that_are_lost_cost_nothing(pairs: Pairs, family: str) -> None:
    """The service has made keys that nobody knows; the old one goes on until one gets through."""
    pair, clock, network = living(pairs, family)
    client = pair.client(http=network)
    client.call_raw("urn:test/Echo", body(1))
    context = client.context
    assert context is not None
    network.fate = lambda number, payload: "drop-response" if action_of(payload) == RENEW else None
    for number in range(2, 7):
        with pytest.raises(castile.TransportError):
            context.renew()
        client.call_raw("urn:test/Echo", body(number))
    network.fate = lambda number, payload: None
    context.renew()
    client.call_raw("urn:test/Echo", body(7))
    clock.seconds += GRACE + 1
    client.call_raw("urn:test/Echo", body(8))
    client.close()
    assert pair.bodies == [body(number) for number in range(1, 9)]
    assert network.count("RST/SCT") == network.count("CreateSequence") == 1


# ---------------------------------------------------------------- proof


@pytest.mark.row("SC-10", "SC-20", "SC-22", "SC-23")
@pytest.mark.parametrize("family", FAMILIES)
def test_renewal_looks_like_wcf(pairs: Pairs, family: str) -> None:
    """The request's Security header but for the credential, the body's children, the token after."""
    pair, _, network = living(pairs, family)
    client = pair.client(http=network)
    client.call_raw("urn:test/Echo", body(1))
    for number in (2, 3):
        assert client.context is not None
        client.context.renew()
        client.call_raw("urn:test/Echo", body(number))
    client.close()
    folder = shared("vectors", "wcf", "ws05-cert-nonego-sc-norm-renew")
    ours = [seen.payload for seen in network.seen if action_of(seen.payload) == RENEW]
    for mine, theirs in zip(ours, ("05-request.xml", "09-request.xml"), strict=True):
        names = [xml.local_name(each) for each in security(mine)]
        wanted = [xml.local_name(each) for each in security((folder / theirs).read_bytes())]
        wanted.remove("BinarySecurityToken")  # their credential; ours stands encrypted
        assert sorted(names) == sorted(wanted)
        assert names[:5] == wanted[:5]
        assert names[-2:] == ["EncryptedData", "EncryptedData"]
        assert names.index("SecurityContextToken") < len(names) - 3
    target = pair.opened(ours[1]).body
    assert isinstance(target, trust.RequestSecurityToken)
    assert target.renew_target is not None
    assert target.renew_target.instance is not None
    used = [seen for seen in network.seen if action_of(seen.payload) in ("Echo", "EchoResponse")]
    for request, response in zip(used[2::2], used[3::2], strict=True):
        named = {xml.local_name(each): each for each in security(request.payload)}
        token = named["SecurityContextToken"]
        assert [xml.local_name(child) for child in token] == ["Identifier", "Instance"]
        assert pair.policy.conversation is not None
        attribute = f"{{{pair.policy.conversation.namespace}}}Instance"
        references = [
            each
            for derived in security(response.payload)
            if xml.local_name(derived) == "DerivedKeyToken"
            for each in derived[0]
        ]
        assert references
        assert all(each.get(attribute) == token[1].text for each in references)


def security(payload: bytes) -> list[xml.Element]:
    """The children of the Security header."""
    header = xml.parse(payload, Limits())[0]
    return list(next(block for block in header if xml.local_name(block) == "Security"))


def renewal(pair: Pair, key: ContextKey, user: str, endorser: ContextKey | None) -> bytes:
    """A renewal of this key's context with any credential and any endorsement."""
    policy = pair.policy
    assert policy.conversation is not None
    assert policy.trust is not None
    assert policy.bootstrap is not None
    target = SecurityTokenReference(uri=key.identifier, value_type=policy.conversation.token_type)
    request = trust.RequestSecurityToken("Renew", key_size=256, entropy=bytes(32), renew_target=target)
    party = Party(
        "client",
        "http://service.test/echo",
        policy,
        pair.party.store,
        pair.party.random,
        clock=pair.clock,
        certificate=pair.party.certificate,
        username=(user, {"ada": "lovelace-secret", "mallory": "mallory-secret"}[user]),
    )
    outgoing = Outgoing(
        Kind.RENEW,
        policy.trust.action(Kind.RENEW.value),
        request.render(policy.trust),
        message_id=party.new_id(),
        reply_expected=True,
        key=party.certificate,
        endorsing=endorser,
    )
    return prepare(party, outgoing, party.now()).payload


@pytest.mark.row("SC-22", "SC-44", "SC-36")
@pytest.mark.parametrize("family", FAMILIES)
def test_who_may_renew(pairs: Pairs, family: str) -> None:
    """The owner with an old key, and nobody else: the context stays as it was."""
    pair, _, network = living(pairs, family)
    ada, mallory = pair.client("ada", http=network), pair.client("mallory", http=network)
    for client in (ada, mallory):
        client.call_raw("urn:test/Echo", BODY)
    key, other = key_of(ada), key_of(mallory)
    guessed = replace(key, secret=bytes(32))
    before = contexts(pair)
    wrong: dict[str, tuple[str, ContextKey | None, str]] = {
        "no endorsement": ("ada", None, "UnableToRenew"),
        "by another's key": ("ada", other, "UnableToRenew"),
        "by another with the key": ("mallory", key, "UnableToRenew"),
        "by another": ("mallory", other, "UnableToRenew"),
        "by a guessed key": ("ada", guessed, "InvalidSecurity"),
    }
    for name, (user, endorser, code) in wrong.items():
        answer = pair.receive(renewal(pair, key, user, endorser))
        assert (answer.status, fault_of(answer.body)) == (500, code), name
        assert contexts(pair) == before, name
    assert pair.receive(renewal(pair, key, "ada", key)).status == 200
    assert contexts(pair) != before
    for client in (ada, mallory):
        client.call_raw("urn:test/Echo", BODY)


def contexts(pair: Pair) -> list[object]:
    return list(pair.party.store.run(lambda tx: tx.contexts(ended=True)).result())


@pytest.mark.row("SC-22")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_key_alone_where_a_setting_says_so(pairs: Pairs, family: str) -> None:
    """Else it needs the credential beside it, whichever way round they sign."""
    both = settings()
    alone = replace(both, renew_proof="key")
    pair, clock = pairs(family, clock=Moved(), settings=both), Moved()
    strict = pair.client(settings=alone)
    strict.call_raw("urn:test/Echo", BODY)
    assert strict.context is not None
    with pytest.raises(castile.CastileError):
        strict.context.renew()
    with_user = renewal_by_key(pair, key_of(strict), ("ada", "lovelace-secret"))
    assert pair.receive(with_user).status == 200
    assert fault_of(pair.receive(renewal_by_key(pair, key_of(strict), None)).body) == "InvalidSecurity"
    pair = pairs(family, clock=clock, settings=alone)
    client = pair.client()
    client.call_raw("urn:test/Echo", BODY)
    assert client.context is not None
    client.context.renew()
    assert client.context.instance is not None
    client.call_raw("urn:test/Echo", BODY)
    full = renewal(pair, key_of(client), "ada", key_of(client))
    assert pair.receive(full).status == 200  # that form too
    client.close()
    assert {principal for principal, _, _ in pair.received} == {"ada"}


def renewal_by_key(pair: Pair, key: ContextKey, username: tuple[str, str] | None) -> bytes:
    """The other way round: the context's key signs the message, its credential is a part of it."""
    policy = pair.policy
    assert policy.conversation is not None
    assert policy.trust is not None
    assert policy.application is not None
    target = SecurityTokenReference(uri=key.identifier, value_type=policy.conversation.token_type)
    request = trust.RequestSecurityToken("Renew", key_size=256, entropy=bytes(32), renew_target=target)
    party = Party("client", "http://service.test/echo", policy, pair.party.store, pair.party.random)
    message = render(
        party,
        Outgoing(
            Kind.RENEW,
            policy.trust.action(Kind.RENEW.value),
            request.render(policy.trust),
            message_id=party.new_id(),
            reply_expected=True,
        ),
    )
    protection = Protection(
        replace(policy.application, supporting=(USERNAME,) if username is not None else ()),
        policy.conversation,
        key,
        request=True,
        username=username,
    )
    return protect(message, protection, pair.clock(), pair.party.random, pair.settings.timers).payload


# ---------------------------------------------------------------- old keys


@pytest.mark.row("SC-24", "CO-12", "I1")
@pytest.mark.parametrize("family", FAMILIES)
def test_messages_under_way_keep_their_grace(pairs: Pairs, family: str) -> None:
    """Reordered around the renewal: taken under the old key until the grace is over, then no more."""
    for late, taken in ((0.0, True), (GRACE - 2, True), (GRACE + 2, False)):
        pair, clock, network = living(pairs, family)
        client = pair.client(http=network)
        client.call_raw("urn:test/Echo", body(1))
        client.call_raw("urn:test/Echo", body(2))
        assert client.context is not None
        old = key_of(client)
        client.context.renew()
        client.call_raw("urn:test/Echo", body(3))  # the switch
        clock.seconds += late
        forge = Forger(pair.policy, pair.party.store, old)
        sequence = str(client.sequence.report()["identifier"])
        again = forged(pair, forge, sequence)
        answer = pair.receive(again)
        assert (answer.status == 200) is taken, late
        if not taken:
            assert fault_of(answer.body) == "BadContextToken"
        client.close()
        assert pair.bodies == [body(1), body(2), body(3)]


def forged(pair: Pair, forge: Forger, sequence: str) -> bytes:
    """Message 2 once more, under whatever key."""
    party = Party("client", "http://service.test/echo", pair.policy, pair.party.store, pair.party.random)
    outgoing = Outgoing(
        Kind.APPLICATION,
        "urn:test/Echo",
        body(2),
        (forge.sequence(sequence, 2),),
        message_id=party.new_id(),
        reply_expected=True,
        key=forge.key,
    )
    return prepare(party, outgoing, pair.clock()).payload


# ---------------------------------------------------------------- after the end


@pytest.mark.row("F14", "SC-44")
@pytest.mark.parametrize(("when", "inside"), [(OVER, True), (2 * LIFE - 5, True), (2 * LIFE + 5, False)])
@pytest.mark.parametrize(("client_side", "service_side"), [(True, True), (True, False), (False, True)])
def test_renewal_after_expiry(
    pairs: Pairs, client_side: bool, service_side: bool, when: float, inside: bool
) -> None:
    """Only where both allow it, and inside the window; else new work gets a new context."""
    clock = Moved()
    pair = pairs(clock=clock, settings=settings(after_expiry=service_side))
    network = Watched(pair)
    client = pair.client(http=network, settings=settings(after_expiry=client_side))
    client.call_raw("urn:test/Echo", body(1))
    first = client.context
    assert first is not None
    clock.seconds = when
    if not client_side or not inside:
        with pytest.raises(SecurityContextExpired):
            first.renew()
        assert network.count(RENEW) == 0
    elif not service_side:
        with pytest.raises(castile.FaultReceived) as told:
            first.renew()
        assert told.value.fault.subcode is not None
        assert told.value.fault.subcode[1] == "UnableToRenew"
    client.call_raw("urn:test/Echo", body(2))
    assert client.context is not None
    renewed = client_side and service_side and inside
    assert (client.context.identifier == first.identifier) is renewed
    assert [number for _, number, _ in pair.received] == ([1, 2] if renewed else [1, 1])


@pytest.mark.row("F15")
@pytest.mark.parametrize("allowed", [False, True])
def test_tokens_that_start_later(pairs: Pairs, allowed: bool) -> None:
    """Issued where AllowPostdating asks and the setting allows; of no use before their time."""
    clock = Moved()
    pair = pairs(clock=clock, settings=replace(settings(), allow_postdated=allowed))
    policy = pair.policy
    assert policy.trust is not None
    assert policy.conversation is not None
    ahead = pair.clock().utc + 1_000
    asked = trust.RequestSecurityToken(
        "Issue", policy.conversation.token_type, 256, bytes(32), created=ahead, expires=ahead + 100
    )
    content = asked.render(policy.trust)
    end = b"</t:RequestSecurityToken>"
    postdating = content.replace(end, b"<t:AllowPostdating></t:AllowPostdating>" + end)
    for element, wanted in ((content, False), (postdating, allowed)):
        answer = pair.receive(issue(pair, element))
        assert (answer.status == 200) is wanted
        if not wanted:
            assert fault_of(answer.body) == "InvalidTimeRange"
    assert len(contexts(pair)) == allowed
    if not allowed:
        return
    (record,) = pair.party.store.run(lambda tx: tx.contexts()).result()
    (key,) = pair.party._stored_keys(record.state.identifier)
    forge = Forger(policy, pair.party.store, key)
    for seconds, good in ((0, False), (1_000 - 185, False), (1_000 - 175, True)):
        clock.seconds = seconds
        answer = pair.receive(forged(pair, forge, "urn:nobody"))
        assert (fault_of(answer.body) == "BadContextToken") is not good, seconds


def issue(pair: Pair, content: bytes) -> bytes:
    party = Party(
        "client",
        "http://service.test/echo",
        pair.policy,
        pair.party.store,
        pair.party.random,
        certificate=pair.party.certificate,
        username=("ada", "lovelace-secret"),
    )
    assert pair.policy.trust is not None
    action = pair.policy.trust.action(Kind.ISSUE.value)
    outgoing = Outgoing(
        Kind.ISSUE, action, content, message_id=party.new_id(), reply_expected=True, key=party.certificate
    )
    return prepare(party, outgoing, pair.clock()).payload


@pytest.mark.row("SC-33")
def test_contexts_are_reclaimed_after_their_window(pairs: Pairs) -> None:
    """Each new one makes room: what nothing can refer to any more is gone."""
    clock = Moved()
    pair = pairs(clock=clock, settings=settings())
    for _ in range(30):
        client = pair.client()
        client.call_raw("urn:test/Echo", BODY)
        client.close(keep=True)
        clock.seconds += LIFE / 2
        assert len(contexts(pair)) <= 6


@pytest.mark.row("SC-33")
def test_renewals_make_room_too(pairs: Pairs) -> None:
    """One context that is renewed for ever: the sequences that ended under it, and others, are gone."""
    clock = Moved()
    pair = pairs(clock=clock, settings=settings(retention=LIFE))
    other = pair.client()
    other.call_raw("urn:test/Echo", BODY)
    other.close()
    client = pair.client()
    client.call_raw("urn:test/Echo", BODY)
    assert client.context is not None
    for _ in range(4):
        clock.seconds += LIFE / 2
        client.context.renew()
    assert client.call_raw("urn:test/Echo", BODY) == BODY
    assert len(pair.party.store.run(lambda tx: tx.contexts(ended=True)).result()) == 1
    assert len(pair.party.store.run(lambda tx: tx.destinations()).result()) == 1


@pytest.mark.row("SC-03", "SC-27")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("asked", "granted"), [(None, LIFE), (LIFE / 2, LIFE / 2), (9 * LIFE, LIFE)])
def test_a_life_that_is_asked_for(pairs: Pairs, family: str, asked: float | None, granted: float) -> None:
    """By the first request and by each renewal; the service's own is the most that it gives."""
    clock = Moved()
    pair = pairs(family, clock=clock, settings=settings())
    asking = settings() if asked is None else settings(requested_lifetime=asked)
    client = pair.client(settings=asking)
    client.call_raw("urn:test/Echo", BODY)
    assert client.context is not None
    for _ in range(2):
        life = (client.context.expires - client.context.created).total_seconds()
        assert life == pytest.approx(granted, abs=1)
        clock.seconds += granted / 4
        client.context.renew()
