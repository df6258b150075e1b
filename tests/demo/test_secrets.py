"""A scan of every byte that a run leaves: no key, password, entropy or application text (I14).

The stores, their write-ahead logs (also while the run lasts), the logs at debug level with every
exception's text, the messages on the wire and the handlers' databases are searched for each
secret of the run, as octets, in hexadecimal and in base64 at any alignment.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from castile import xml
from castile.clock import system
from castile.config import Limits, Timers
from castile.demo.plan import Plan
from castile.endpoint.keyring import Keyring
from castile.messages import soap, trust
from castile.messages.conversation import DerivedKeyToken
from castile.security import Expectation, Verified, unprotect
from castile.security.certificates import CertificateKey
from castile.security.keys import SealedKey, derive
from tests.demo.runs import Run

LIMITS = Limits()
HOLDERS = ("service.pem", "keys.json")
"""Files whose very purpose is to hold keys; so is each store's ``.key``."""


def forms(secret: bytes) -> Iterator[bytes]:
    """How octets may be written down."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):  # inside a longer value they start at any of three places
            whole = alphabet(bytes(shift) + secret)
            yield whole[4 if shift else 0 : len(whole) - 4]


def places(run: Run) -> dict[str, bytes]:
    """Everything that must hold no secret."""
    found = {
        str(path.relative_to(run.folder)): path.read_bytes()
        for path in run.folder.rglob("*")
        if path.is_file() and path.name not in HOLDERS and path.suffix != ".key"
    }
    found["write-ahead logs during the run"] = b"\0".join(run.glimpses)
    found["standard output"] = run.output.encode()
    found["standard error"] = run.errors.encode()
    return found


def secrets(run: Run) -> dict[str, bytes]:
    """Every secret of a run, by name."""
    keys = json.loads((run.folder / "wire" / "keys.json").read_text("utf-8"))
    contexts = {
        f"{name} {instance}": base64.b64decode(text)
        for name, given in keys["contexts"].items()
        for instance, text in (given if isinstance(given, dict) else {"": given}).items()
    }
    found = {f"secret of {name}": secret for name, secret in contexts.items()}
    found["password"] = keys["users"]["ada"].encode()
    found["application text"] = Plan().marker.encode()
    for store in run.folder.glob("*.key"):
        found[store.name] = base64.b64decode(store.read_bytes())
    for number, line in enumerate(keys["keys"][0].splitlines()[1:-1]):
        found[f"line {number} of the private key"] = base64.b64decode(line)
    found.update(_bootstrap(run, keys))
    found.update(_derived(run, contexts))
    return found


def _bootstrap(run: Run, keys: dict[str, list[str]]) -> dict[str, bytes]:
    """Both entropies and the EncryptedKey's octets of each bootstrap."""
    policy = Plan(edition=str(run.counts["edition"])).policy
    private = load_pem_private_key(keys["keys"][0].encode(), None)
    if policy.trust is None or not isinstance(private, RSAPrivateKey):
        pytest.fail("the demo's policy has a bootstrap")
    ring = Keyring(
        load=lambda _: [],
        own=(CertificateKey(x509.load_pem_x509_certificate(keys["certificates"][0].encode()), private),),
        users=dict(keys["users"]),  # type: ignore[arg-type]
    )

    def opened(path: Path, *, request: bool) -> Verified:
        payload = path.read_bytes()
        envelope = soap.parse(xml.parse(payload, LIMITS), LIMITS, len(payload))
        expected = Expectation(policy.bootstrap, policy.conversation, request, encrypted_body=True)
        return unprotect(envelope, ring, expected, system(), LIMITS, Timers())

    found = {}
    for path in sorted(run.folder.glob("wire/*-request.xml")):
        if b"/RST/SCT<" not in path.read_bytes():
            continue
        verified = opened(path, request=True)
        asked = trust.RequestSecurityToken.parse(verified.body[0], policy.trust)
        found[f"the client's entropy in {path.name}"] = asked.entropy or b""
        sealed = verified.reply_key
        if not isinstance(sealed, SealedKey):
            pytest.fail("the bootstrap has an EncryptedKey")
        found[f"the EncryptedKey in {path.name}"] = sealed.octets
        ring.sealed_keys[sealed.sha1] = sealed
        answer = path.with_name(path.name.replace("request", "response"))
        if answer.exists():
            verified = opened(answer, request=False)
            given = trust.RequestSecurityTokenResponse.parse(verified.body[0], policy.trust)
            found[f"the service's entropy in {answer.name}"] = given.entropy or b""
    return found


def _derived(run: Run, contexts: dict[str, bytes]) -> dict[str, bytes]:
    """The keys derived for the first messages."""
    found = {}
    for path in sorted(run.folder.glob("wire/*.xml"))[:24]:
        for element in xml.parse(path.read_bytes(), LIMITS).iter("{*}DerivedKeyToken"):
            token = DerivedKeyToken.parse(element)
            for name, secret in contexts.items():
                found[f"{token.id} of {name} in {path.name}"] = derive(secret, token)
    return found


@pytest.mark.row("F11", "F36")
def test_no_secret_anywhere(kept: Run) -> None:
    assert kept.status == 0, kept.errors
    known, searched = secrets(kept), places(kept)
    names = " ".join(known)
    for kind in ("secret of", "password", "application text", "client's entropy", "service's entropy"):
        assert kind in names
    for kind in ("EncryptedKey in", "client.db.key", "service.db.key", "private key"):
        assert kind in names
    assert len(known) > 40
    assert min(map(len, known.values())) >= 16
    for name in ("client.db", "service.db", "demo.log", "write-ahead logs during the run"):
        assert searched[name]
    leaks = [
        f"{name} is in {place}"
        for name, secret in known.items()
        for form in forms(secret)
        for place, octets in searched.items()
        if form in octets
    ]
    assert leaks == []


def test_the_scan_finds_what_is_there(kept: Run) -> None:
    """The same search, where the secrets are meant to be."""
    known = secrets(kept)
    holders = {path.name: path.read_bytes() for path in kept.folder.rglob("*") if path.name in HOLDERS}

    def found(name: str, holder: bytes) -> bool:
        return any(form in holder for form in forms(known[name]))

    for name in known:
        if name.startswith("secret of") or name == "password":
            assert found(name, holders["keys.json"]), name
        if name.endswith("of the private key") and not name.startswith("line 0"):
            assert found(name, holders["service.pem"]), name
    octets = bytes(range(24))
    for shift in range(6):
        written = base64.b64encode(b"a" * shift + octets + b"b")
        assert any(form in written for form in forms(octets))
