"""Messages that real peers wrote: each verifies and decrypts with the keys that belong to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from lxml import etree

from castile.clock import Now
from castile.errors import PeerError, SecurityFailure
from castile.policy import ENDORSING, USERNAME, ProtectionPolicy
from castile.policy.parts import Parts
from castile.policy.suites import SUITES
from castile.security import Expectation, SealedKey, Trace, Verified, unprotect
from castile.security.anchors import Anchors
from castile.security.trace import (
    Decrypted,
    KeyDerived,
    ReferenceChecked,
    SignatureChecked,
    UsernameChecked,
)
from castile.versions import FAMILIES, WSSC_1_3, WSSC_2005
from tests.conftest import shared
from tests.security.recorded import LIMITS, TIMERS, Keys, Opened, created, keys_of, opened, read

WCF = [
    "ws05-user-nonego-sc-rm",
    "ws07-user-nonego-sc-norm",
    "ws05-user-nonego-sc-norm-nocancel",
    "ws05-cert-nonego-sc-norm",
    "ws05-cert-nonego-sc-norm-nodk",
    "ws05-cert-nonego-sc-norm-renew",
    "ws05-cert-nonego-sc-rm-sha256",
    "ws05-none-nego-sc-norm",
    "ws05-user-nego-sc-rm",
    "ws05-user-nonego-sc-rm-tmc",
    "ws07-user-nonego-nosc-norm",
    "ws05-cert-nonego-nosc-norm-asym",
]
CXF = ["rm11-sc13-echo", "rm11-sc13-tell", "sc13-only"]
WITHOUT_HEADER = {"ws05-none-nego-sc-norm": 4, "ws05-user-nego-sc-rm": 4}
"""TLS legs, which have no Security header."""


@pytest.mark.row("SC-10")
@pytest.mark.row("SC-11")
@pytest.mark.row("SC-15")
@pytest.mark.row("MS-14")
@pytest.mark.row("MS-18")
@pytest.mark.parametrize("folder", [f"wcf/{name}" for name in WCF] + [f"cxf/{name}" for name in CXF])
def test_every_message_verifies_and_decrypts(folder: str) -> None:
    path = shared("vectors", *folder.split("/"))
    messages = read(path)
    legs = WITHOUT_HEADER.get(path.name, 0)
    assert all(message.envelope.security is None for message in messages[:legs])
    for message in messages[legs:]:
        assert message.error is None, (message.name, message.trace.problems)
        assert message.trace.problems == []
        assert message.verified is not None
        assert all(step.ok for step in message.trace.findings if isinstance(step, ReferenceChecked))
    assert len(messages) > legs


@pytest.mark.row("MS-50")
@pytest.mark.row("MS-51")
@pytest.mark.parametrize("folder", [f"wcf/{name}" for name in WCF[:7]] + [f"cxf/{name}" for name in CXF])
def test_one_signature_covers_what_castile_demands(folder: str) -> None:
    for message in read(shared("vectors", *folder.split("/"))):
        assert message.verified is not None
        covered = message.verified.covered_by(message.verified.primary)
        assert {"Body", "wsu:Timestamp", "wsa:Action"} <= covered
        names = {header.name for header in message.verified.headers}
        assert names <= covered
        assert len(message.verified.headers) == len(message.envelope.headers) - 1


BASIC256: Final = SUITES["Basic256"]
USER: Final = ProtectionPolicy("x509", BASIC256, supporting=(USERNAME,))
CERTIFICATE: Final = ProtectionPolicy(
    "x509", BASIC256, supporting=(ENDORSING,), signature_confirmation=True
)
CONTEXT: Final = ProtectionPolicy("context", BASIC256)
MUTUAL: Final = ProtectionPolicy("x509", BASIC256, binding="asymmetric", derived_keys=False)
CXF_POLICIES: Final = (
    replace(MUTUAL, encrypt_signature=False, reference="issuer-serial"),
    replace(CONTEXT, encrypt_signature=False, layout="Lax"),
)


def _in(suite: str, policy: ProtectionPolicy) -> ProtectionPolicy:
    return replace(policy, suite=SUITES[suite])


REAL: Final[dict[str, tuple[ProtectionPolicy | None, ProtectionPolicy]]] = {
    "wcf/ws05-user-nonego-sc-rm": (USER, CONTEXT),
    "wcf/ws07-user-nonego-sc-norm": (USER, CONTEXT),
    "wcf/ws05-user-nonego-sc-norm-nocancel": (USER, CONTEXT),
    "wcf/ws05-cert-nonego-sc-norm": (CERTIFICATE, CONTEXT),
    "wcf/ws05-cert-nonego-sc-norm-nodk": (
        replace(CERTIFICATE, derived_keys=False),
        replace(CONTEXT, derived_keys=False),
    ),
    "wcf/ws05-cert-nonego-sc-norm-renew": (CERTIFICATE, CONTEXT),
    "wcf/ws05-cert-nonego-sc-rm-sha256": (
        _in("Basic256Sha256", CERTIFICATE),
        _in("Basic256Sha256", CONTEXT),
    ),
    "wcf/ws07-user-nonego-nosc-norm": (None, USER),
    "wcf/ws05-cert-nonego-nosc-norm-asym": (None, MUTUAL),
    "wcf/dup3-07": (USER, CONTEXT),
    "wcf/lossy-dropresp3-05": (USER, CONTEXT),
    "cxf/rm11-sc13-echo": CXF_POLICIES,
    "cxf/rm11-sc13-tell": CXF_POLICIES,
    "cxf/sc13-only": CXF_POLICIES,
}
"""Bootstrap and application as the WSDL beside the recording says."""


def expectation_of(message: Opened, folder: str, confirmed: tuple[bytes, ...]) -> Expectation:
    """What castile would expect of this message."""
    bootstrap, application = REAL[folder]
    edition = WSSC_1_3 if "ws07" in folder or "-07" in folder or "cxf" in folder else WSSC_2005
    request = "request" in message.name
    assert message.verified is not None
    action = next(head.element.text or "" for head in message.verified.headers if head.name == "wsa:Action")
    policy = application
    if bootstrap is not None and "/RST" in action and not action.endswith("Cancel"):
        policy = bootstrap
    return Expectation(
        policy,
        edition,
        request,
        "Body" in message.verified.encrypted,
        trust=Anchors.of(keys_of(shared("vectors", *folder.split("/"))).certificates),
        confirmations=None if request else (confirmed,),
    )


@pytest.mark.row("MS-02")
@pytest.mark.row("MS-03")
@pytest.mark.row("MS-31")
@pytest.mark.row("MS-54")
@pytest.mark.row("F02")
@pytest.mark.parametrize("folder", REAL)
def test_peers_meet_their_own_policy_as_castile_enforces_it(folder: str) -> None:
    path = shared("vectors", *folder.split("/"))
    keys = keys_of(path)
    confirmed: tuple[bytes, ...] = ()
    for message in read(path, keys):
        if message.envelope.security is None:
            continue
        assert message.verified is not None, (message.name, message.error)
        expectation = expectation_of(message, folder, confirmed)
        now = Now(created(message.envelope), 0.0)
        verified = unprotect(message.envelope, keys, expectation, now, LIMITS, TIMERS)
        assert verified.primary == message.verified.primary
        if expectation.request:
            confirmed = verified.values
            policy = expectation.policy
            if policy is not None and (policy.endorsing or policy.binding == "asymmetric"):
                assert (verified.principal or "").startswith("CN=alice")
        other = replace(
            expectation, edition=FAMILIES["1.3" if expectation.edition is WSSC_2005 else "2005"].conversation
        )
        if b"/sc" in etree.tostring(message.envelope.root):
            with pytest.raises(SecurityFailure) as refusal:
                unprotect(message.envelope, keys, other, now, LIMITS, TIMERS)
            assert refusal.value.fault.subcode is not None
            assert refusal.value.fault.subcode[1] in ("UnsupportedContextToken", "InvalidSecurity")


@pytest.mark.row("MS-11")
@pytest.mark.row("MS-54")
@pytest.mark.parametrize("folder", ["wcf/ws05-cert-nonego-sc-norm", "cxf/sc13-only"])
def test_recorded_messages_under_strangers_and_other_requests(folder: str) -> None:
    path = shared("vectors", *folder.split("/"))
    keys = keys_of(path)
    first, answer = read(path, keys)[:2]
    assert first.verified is not None
    for message, confirmed in ((first, ()), (answer, first.verified.values)):
        expectation = expectation_of(message, folder, confirmed)
        now = Now(created(message.envelope), 0.0)
        unprotect(message.envelope, keys, expectation, now, LIMITS, TIMERS)
        if "cxf" in folder or message is first:
            with pytest.raises(SecurityFailure, match="nobody who is trusted"):
                unprotect(message.envelope, keys, replace(expectation, trust=Anchors()), now, LIMITS, TIMERS)
        elif message is answer:
            for wrong in (confirmed[:1], (*confirmed, b"x"), (confirmed[0], b"x"), ()):
                other = replace(expectation, confirmations=(wrong,))
                with pytest.raises(SecurityFailure, match="confirms other"):
                    unprotect(message.envelope, keys, other, now, LIMITS, TIMERS)
            several = replace(expectation, confirmations=((b"x",), confirmed))
            assert unprotect(message.envelope, keys, several, now, LIMITS, TIMERS)


@pytest.mark.row("SC-01")
def test_a_cookie_token_is_kept_as_its_issuer_wrote_it() -> None:
    messages = read(shared("vectors", "wcf", "ws05-user-nonego-sc-norm-nocancel"))
    answer = messages[1].verified
    assert answer is not None
    assert b"Cookie" in answer.body_content
    assert messages[2].verified is not None


@pytest.mark.row("MS-57")
@pytest.mark.row("MS-54")
def test_endorsing_signatures_and_confirmations_are_read() -> None:
    messages = read(shared("vectors", "wcf", "ws05-cert-nonego-sc-norm-renew"))
    renewals = [message.verified for message in messages if "05-request" in message.name]
    assert renewals[0] is not None
    first, second, third = renewals[0].signatures
    assert (first.endorsing, second.endorsing, third.endorsing) == (False, True, True)
    assert (first.key.kind, second.key.kind, third.key.kind) == ("encrypted-key", "certificate", "context")
    assert second.covered == frozenset({"ds:Signature"})


@pytest.mark.row("SC-10")
def test_an_instance_after_a_renewal_picks_its_own_key() -> None:
    path = shared("vectors", "wcf", "ws05-cert-nonego-sc-norm-renew")
    used = [message.verified.primary for message in read(path) if message.verified is not None]
    instances = {key.instance for key in used if key.kind == "context"}
    assert len(instances) == 4


@pytest.mark.row("MS-58")
def test_the_user_of_wcf_is_known_by_name_and_password() -> None:
    message = read(shared("vectors", "wcf", "ws05-user-nonego-sc-rm"))[0]
    assert message.verified is not None
    assert message.verified.principal == "alice"
    assert UsernameChecked("alice", True, signed=True, encrypted=True) in message.trace.findings
    wrong = read(shared("vectors", "wcf", "fault-badpassword"))[0]
    assert wrong.error is not None
    assert wrong.error.fault.subcode is not None
    assert wrong.error.fault.subcode[1] == "FailedAuthentication"


def wss4j(path: Path) -> tuple[Verified | None, PeerError | None]:
    keys = keys_of(path)
    facts = json.loads(path.with_suffix(".json").read_text())
    if "sct_identifier" in facts:
        keys.learn(bytes.fromhex(facts["secret_hex"]), facts["sct_identifier"])
    envelope = opened(path.read_bytes())
    now = Now(created(envelope), 0.0)
    try:
        return unprotect(envelope, keys, Expectation(None, None, True), now, LIMITS, TIMERS, Trace()), None
    except PeerError as error:
        return None, error


REFUSED = {
    "usernametoken-derivedkey": "Salt",
}
"""What of WSS4J isn't taken, and the word that says why."""


@pytest.mark.row("SC-12")
@pytest.mark.row("SC-18")
@pytest.mark.row("MS-10")
def test_wss4j_is_read_or_refused_by_name() -> None:
    files = sorted(shared("vectors", "wss4j").glob("*.xml"))
    verified = 0
    for path in files:
        result, error = wss4j(path)
        reason = next((word for name, word in REFUSED.items() if name in path.name), None)
        if reason is None:
            assert error is None, (path.name, error)
            verified += result is not None
        else:
            assert error is not None, path.name
            assert reason in str(error)
    assert verified >= 20


@pytest.mark.row("OP-19")
def test_a_trace_names_the_part_that_fails() -> None:
    path = shared("vectors", "wcf", "ws05-user-nonego-sc-rm", "07-request.xml")
    keys = keys_of(path.parent)
    payload = path.read_bytes().replace(b"<r:MessageNumber>2<", b"<r:MessageNumber>9<")
    assert payload != path.read_bytes()
    trace = Trace()
    envelope = opened(payload)
    now = Now(created(envelope), 0.0)
    with pytest.raises(SecurityFailure, match="wsrm:Sequence is wrong") as refusal:
        unprotect(envelope, keys, Expectation(None, None, True), now, LIMITS, TIMERS, trace)
    assert refusal.value.part == "wsrm:Sequence"
    checked = {step.part: step.ok for step in trace.findings if isinstance(step, ReferenceChecked)}
    assert checked.pop("wsrm:Sequence") is False
    assert len(checked) == 7
    assert all(checked.values())


@pytest.mark.row("OP-19")
def test_a_trace_says_which_key_is_missing_and_what_it_would_open() -> None:
    path = shared("vectors", "wcf", "ws05-user-nonego-sc-rm", "05-request.xml")
    envelope = opened(path.read_bytes())
    trace = Trace()
    now = Now(created(envelope), 0.0)
    with pytest.raises(SecurityFailure, match="9c4cb966") as refusal:
        unprotect(envelope, Keys(), Expectation(None, None, True), now, LIMITS, TIMERS, trace)
    assert refusal.value.missing_key
    assert all(problem.missing_key for problem in trace.problems)
    shut = [step for step in trace.findings if isinstance(step, Decrypted)]
    assert [(step.ok, step.missing_key) for step in shut] == [(False, True), (False, True)]


def test_a_trace_tells_how_each_key_was_had() -> None:
    messages = read(shared("vectors", "wcf", "ws05-user-nonego-sc-rm"))
    steps = [step for step in messages[4].trace.findings if isinstance(step, KeyDerived)]
    texts = " | ".join(step.text for step in steps)
    assert "24 bytes of P_SHA1(context urn:uuid:9c4cb966" in texts
    assert "32 bytes of P_SHA1(context urn:uuid:9c4cb966" in texts
    signatures = [step for step in messages[4].trace.findings if isinstance(step, SignatureChecked)]
    assert [step.ok for step in signatures] == [True]
    assert "wsrm:Sequence" in signatures[0].covered


@pytest.mark.row("OP-19")
def test_an_unknown_user_is_a_missing_key_and_the_rest_is_still_read() -> None:
    path = shared("vectors", "wcf", "ws05-user-nonego-sc-rm", "01-request.xml")
    keys = replace_users(keys_of(path.parent))
    trace = Trace()
    envelope = opened(path.read_bytes())
    now = Now(created(envelope), 0.0)
    verified = unprotect(envelope, keys, Expectation(None, None, True), now, LIMITS, TIMERS, trace)
    assert verified.principal is None
    assert isinstance(verified.reply_key, SealedKey)
    assert [problem.missing_key for problem in trace.problems] == [True]


def replace_users(keys: Keys) -> Keys:
    return replace(keys, users={})


GCM: Final = {bits: f"http://www.w3.org/2009/xmlenc11#aes{bits}-gcm" for bits in ("128", "256")}


def wss4j_policy(name: str) -> ProtectionPolicy | None:
    """What a message of WSS4J was made under, read off its name; None: nothing signs it."""
    signed = name.startswith(("sct-dkt", "ek-dkt", "x509-sign"))
    if not signed:
        return None
    bits = "128" if "aes128" in name else "256"
    suite = f"Basic{bits}" + ("Sha256" if "sha256" in name else "") + ("Rsa15" if "rsa15" in name else "")
    row = SUITES[suite]
    if "gcm" in name:
        row = replace(row, encryption=GCM[bits])
    hidden = "x509-sign-" not in name and "sign-only" not in name
    context = name.startswith("sct")
    certificate = name.startswith("x509")
    return ProtectionPolicy(
        "context" if context else "x509",
        row,
        binding="asymmetric" if certificate else "symmetric",
        parts=Parts(encrypted_body=hidden),
        encrypt_signature=hidden,
        derived_keys=not certificate,
        layout="Lax",
        protect_tokens="strtransform" in name,
    )


@pytest.mark.row("MS-02", "MS-10", "MS-18", "MS-30", "MS-35", "MS-36", "MS-39", "MS-55", "SC-12")
def test_wss4j_meets_its_own_policy() -> None:
    met = []
    for path in sorted(shared("vectors", "wss4j").glob("*.xml")):
        policy = wss4j_policy(path.stem)
        if policy is None:
            continue
        keys = keys_of(path)
        facts = json.loads(path.with_suffix(".json").read_text())
        if "sct_identifier" in facts:
            keys.learn(bytes.fromhex(facts["secret_hex"]), facts["sct_identifier"])
        envelope = opened(path.read_bytes())
        expectation = Expectation(
            policy, None, True, policy.parts.encrypted_body, trust=Anchors.of(keys.certificates), legacy=True
        )
        now = Now(created(envelope), 0.0)
        verified = unprotect(envelope, keys, expectation, now, LIMITS, TIMERS)
        assert {"Body", "wsu:Timestamp", "wsa:Action", "wsrm:Sequence"} <= verified.covered_by(
            verified.primary
        ), path.stem
        assert ("Body" in verified.encrypted) == policy.parts.encrypted_body
        if policy.binding == "asymmetric":
            assert verified.principal == "CN=client,O=Test,C=XX"
            stranger = replace(expectation, trust=Anchors())
            with pytest.raises(SecurityFailure, match="nobody who is trusted"):
                unprotect(envelope, keys, stranger, now, LIMITS, TIMERS)
        met.append(path.stem)
    assert len(met) >= 18
