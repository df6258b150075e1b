"""Derivation: known answers, recorded secrets, bounds before work."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from dataclasses import replace
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castile.errors import SecurityFailure
from castile.messages.conversation import DerivedKeyToken
from castile.security.keys import DEFAULT_LABEL, derive, p_sha1
from castile.versions import WSSC_1_3, WSSC_2005
from tests.conftest import shared
from tests.security.recorded import keys_of, read, text

NONCE = bytes(range(16))


def token(**fields: object) -> DerivedKeyToken:
    return replace(DerivedKeyToken("_0", None, nonce=NONCE), **fields)  # type: ignore[arg-type]


@pytest.mark.row("F03")
@pytest.mark.parametrize(
    "folder",
    [
        "ws05-user-nonego-sc-rm",
        "ws07-user-nonego-sc-norm",
        "ws05-user-nonego-sc-norm-nocancel",
        "ws05-cert-nonego-sc-norm",
        "ws05-cert-nonego-sc-norm-nodk",
        "ws05-cert-nonego-sc-norm-renew",
        "ws05-cert-nonego-sc-rm-sha256",
    ],
)
def test_the_secret_follows_from_both_entropies(folder: str) -> None:
    path = shared("vectors", "wcf", folder)
    contexts = json.loads((path / "conversation.json").read_text())["security_contexts"]
    by_identity = {(row["identifier"], row["instance"]): row["secret_hex"] for row in contexts}
    messages = [message for message in read(path) if message.verified is not None]
    made = 0
    for request, response in pairwise(messages):
        assert request.verified is not None
        assert response.verified is not None
        entropy = text(request.verified.body, "BinarySecret")
        answer = text(response.verified.body, "BinarySecret")
        if len(entropy) != 1 or len(answer) != 1:
            continue
        names = [found.text for found in response.verified.body.iter("{*}Identifier")]
        instances = [found.text for found in response.verified.body.iter("{*}Instance")]
        identity = (names[0], instances[0] if instances else None)
        assert p_sha1(entropy[0], answer[0], 32).hex() == by_identity[identity]
        made += 1
    assert made == len(contexts)


@pytest.mark.row("SC-12")
def test_keys_of_rampart_are_recomputed() -> None:
    vectors = json.loads(shared("vectors", "rampart", "rampart-sct-vectors.json").read_text())
    found = 0
    for message in vectors["messages"]:
        secret = b64decode(message["secret_b64"])
        for row in message["derived_keys"]:
            case = token(
                nonce=b64decode(row["nonce_b64"]),
                offset=row["offset"],
                length=row["length"],
                label=row["label"],
            )
            assert derive(secret, case).hex() == row["key_hex"]
            found += 1
    assert found >= 6


def test_p_sha1_is_that_of_tls() -> None:
    # P_SHA1 in RFC 2246 chains HMACs; two blocks and a cut say all about it.
    long = p_sha1(b"secret", b"seed", 64)
    assert p_sha1(b"secret", b"seed", 24) == long[:24]
    assert p_sha1(b"secret", b"seed", 20, offset=17) == long[17:37]


@given(st.integers(0, 112), st.integers(16, 64))
def test_offset_and_length_cut_one_stream(offset: int, length: int) -> None:
    assert p_sha1(b"k" * 32, NONCE, length, offset) == p_sha1(b"k" * 32, NONCE, 192)[offset : offset + length]


@pytest.mark.row("SC-12")
def test_defaults() -> None:
    seed = DEFAULT_LABEL.encode() + NONCE
    assert derive(b"s" * 32, token()) == p_sha1(b"s" * 32, seed, 32)
    assert derive(b"s" * 32, token(offset=0, length=24)) == p_sha1(b"s" * 32, seed, 24)
    for edition in (WSSC_2005, WSSC_1_3):
        assert derive(b"s" * 32, token(algorithm=edition.p_sha1)) == p_sha1(b"s" * 32, seed, 32)


@pytest.mark.row("SC-13")
def test_generation_counts_in_lengths_and_excludes_offset() -> None:
    assert derive(b"s", token(generation=3, length=16)) == derive(b"s", token(offset=48, length=16))
    assert derive(b"s", token(generation=0, length=64)) == derive(b"s", token(length=64))
    with pytest.raises(SecurityFailure, match="both Offset and Generation"):
        derive(b"s", token(generation=1, offset=16))


@pytest.mark.row("SC-13")
def test_properties_serve_only_tokens_derived_in_turn() -> None:
    outer = token(default_label="L", default_nonce=b"n" * 16)
    inner = DerivedKeyToken("_1", None)
    assert derive(b"s", outer) == derive(b"s", token())
    assert derive(b"s", inner, outer) == derive(b"s", token(label="L", nonce=b"n" * 16))
    assert derive(b"s", replace(inner, label="M", nonce=NONCE), outer) == derive(b"s", token(label="M"))
    with pytest.raises(SecurityFailure, match="Nonce"):
        derive(b"s", inner)


@pytest.mark.row("SC-16")
@pytest.mark.row("RE-72")
def test_bounds_are_decided_before_any_work() -> None:
    lengths = (0, 15, 16, 24, 32, 63, 64, 65, 1 << 30)
    offsets = (None, 0, 1, 64, 95, 96, 97, 112, 113, 128, 1 << 31)
    generations = (None, 0, 1, 2, 4, 8, 9, 1 << 31)
    nonces = (None, b"", b"n" * 15, b"n" * 16, b"n" * 128, b"n" * 129)
    labels = (None, "", "l" * 128, "l" * 129)
    tokens = [token(length=length, offset=offset) for length, offset in product(lengths, offsets)]
    tokens += [token(length=length, generation=number) for length, number in product(lengths, generations)]
    tokens += [token(nonce=nonce, label=label) for nonce, label in product(nonces, labels)]
    tokens += [token(algorithm="urn:p_sha256")]
    assert len(tokens) >= 190
    for case in tokens:
        start = time.thread_time()
        refusal = refused(case)
        assert time.thread_time() - start < 0.005
        assert (refusal is None) == allowed(case), case
        if refusal is not None:
            assert refusal.fault.subcode is not None
            assert refusal.fault.subcode[1] == "InvalidSecurity"


def refused(case: DerivedKeyToken) -> SecurityFailure | None:
    try:
        derive(b"s" * 32, case)
    except SecurityFailure as error:
        return error
    return None


def allowed(case: DerivedKeyToken) -> bool:
    """The bounds of SC-16, written once more."""
    length = 32 if case.length is None else case.length
    if case.generation is not None:
        inside = case.generation * length <= 128
    else:
        inside = (case.offset or 0) + length <= 128
    nonce = 16 <= len(case.nonce or b"") <= 128
    return 16 <= length <= 64 and inside and nonce and len(case.label or "") <= 128 and case.algorithm is None


@pytest.mark.row("MS-78")
def test_no_key_shows_in_a_representation() -> None:
    keys = keys_of(shared("vectors", "wcf", "ws05-user-nonego-sc-rm"))
    for key in keys.contexts.values():
        assert key.secret.hex() not in repr(key)
        assert repr(key.secret) not in repr(key)
