"""Messages of one conversation per family and SOAP version, with fixed keys, clock and random bytes:
with a user's name and password, and as far as the bootstrap goes with each other bootstrap.

``python -m tests.golden.messages`` writes them anew, for a reviewer to read the difference. Only the
octets of an EncryptedKey can't be repeated (RSA-OAEP takes random bytes of its own).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from castile.messages import addressing, reliability, trust
from castile.messages.addressing import EPR, Headers
from castile.messages.conversation import SecurityContextToken
from castile.messages.security import SecurityTokenReference
from castile.messages.soap import Header, Message
from castile.policy import (
    ENDORSING,
    USERNAME,
    Bootstrap,
    EndpointPolicy,
    ProtectionPolicy,
    SupportingToken,
)
from castile.policy.parts import NO_PARTS, HeaderPart
from castile.policy.suites import SUITES
from castile.security import ContextKey, Expectation, Protected, Protection, SealedKey, protect
from castile.security.anchors import Anchors
from castile.security.certificates import CertificateKey
from castile.versions import SOAP_1_1, SOAP_1_2, WSA, SOAPVersion
from tests.security.made import CONTEXT, NOW, SECRET, seeded
from tests.security.recorded import TIMERS, Keys

FOLDER: Final = Path(__file__).parent
EDITIONS: Final = [(family, version) for family in ("2005", "1.3") for version in (SOAP_1_1, SOAP_1_2)]
TO: Final = "http://127.0.0.1/transfers"
ASKED: Final = "urn:uuid:0b1c9f00-0000-4000-8000-000000000001"
SEQUENCE: Final = "urn:uuid:5e000000-0000-4000-8000-000000000001"
REPLIES: Final = "urn:uuid:5e000000-0000-4000-8000-000000000002"
ORDER: Final = b'<m:Transfer xmlns:m="urn:transfers"><m:amount>100</m:amount></m:Transfer>'
SEALED: Final = SealedKey(bytes(range(32, 64)), "c2VhbGVka2V5bmFtZTEyMzQ=")
_SEALED_OCTETS: Final = re.compile(
    rb"(<e:EncryptedKey .*?<e:CipherValue>)[^<]*(</e:CipherValue>.*?</e:EncryptedKey>)", re.DOTALL
)


_TO: Final = frozenset(HeaderPart(space, "To") for space in WSA)
OVER_TLS: Final[dict[str, tuple[SupportingToken, ...]]] = {
    "user": (USERNAME,),
    "digest": (replace(USERNAME, password="digest"),),
    "certificate": (replace(ENDORSING, parts=replace(NO_PARTS, signed_headers=_TO)),),
    "context": (SupportingToken("context", endorsing=True),),
    "derived": (SupportingToken("context", endorsing=True, derived_keys=True),),
}
BOOTSTRAPS: Final[tuple[Bootstrap, ...]] = ("username", "certificate", "mutual", "anonymous")


@lru_cache(maxsize=2)
def identity(name: str) -> CertificateKey:
    """``service`` or ``client`` of these messages."""
    pem = (FOLDER / f"{name}.pem").read_bytes()
    private = load_pem_private_key(pem, None)
    assert isinstance(private, RSAPrivateKey)
    return CertificateKey(x509.load_pem_x509_certificate(pem), private)


@dataclass(frozen=True)
class Golden:
    """One message of a conversation and how it is protected."""

    name: str
    message: Message
    protection: Protection

    @property
    def protected(self) -> Protected:
        return protect(self.message, self.protection, NOW, seeded(4), TIMERS)

    @property
    def expectation(self) -> Expectation:
        found = self.protection
        peer = identity("client" if found.request else "service")
        confirmed = found.policy.signature_confirmation and not found.request
        return Expectation(
            found.policy,
            found.edition,
            found.request,
            found.encrypt or None,
            Anchors.of([peer.certificate]),
            (found.confirm,) if confirmed else None,
            tls=found.policy.binding == "transport",
        )


def repeatable(payload: bytes) -> bytes:
    """Without what differs each time."""
    return _SEALED_OCTETS.sub(rb"\1\2", payload)


class Writer:
    """The messages of one family in one SOAP version, with one bootstrap."""

    def __init__(self, family: str, version: SOAPVersion, bootstrap: Bootstrap = "username") -> None:
        self.policy = EndpointPolicy.of(family, soap=version, bootstrap=bootstrap)
        self.prefix = "" if bootstrap == "username" else f"{bootstrap}-"
        assert self.policy.reliability is not None
        assert self.policy.conversation is not None
        assert self.policy.trust is not None
        self.rm, self.sc, self.trust = self.policy.reliability, self.policy.conversation, self.policy.trust
        self.anonymous = EPR(self.policy.addressing.anonymous)
        self.token = SecurityContextToken(CONTEXT, None, "uuid-sct-1").render(self.sc)
        self.key = ContextKey(CONTEXT, None, SECRET, self.sc, "uuid-sct-1", self.token)
        self.context = SecurityTokenReference(uri=CONTEXT, value_type=self.sc.token_type)

    def keys(self) -> Keys:
        """Both sides'."""
        contexts: dict[tuple[str, str | None], ContextKey] = {(CONTEXT, None): self.key}
        both = [identity("service"), identity("client")]
        return Keys(
            contexts,
            [(each.certificate, each.private) for each in both],
            [each.certificate for each in both],
            {SEALED.sha1: SEALED},
            {"ada": "sesame"},
        )

    def headers(self, action: str, *, request: bool, reply: bool = True) -> tuple[Header, ...]:
        edition = self.policy.addressing
        found = Headers(action, TO, ASKED if reply else None, self.anonymous if reply else None)
        if not request:
            found = Headers(action, edition.reply_address, relates_to=ASKED if reply else None)
        return addressing.render(found, edition)

    def boot(self, name: str, asked: bytes, given: bytes, *, renewal: bool = False) -> Iterator[Golden]:
        """A request and its answer under the bootstrap's policy."""
        policy = self.policy.bootstrap
        assert policy is not None
        client, server = identity("client"), identity("service")
        asymmetric = policy.binding == "asymmetric"
        endorsing = [client] if policy.endorsing else []
        request = self.golden(
            f"RST/{name}",
            asked,
            Protection(
                policy,
                self.sc,
                server.certificate,
                True,
                ("ada", "sesame") if policy.username else None,
                signer=client if asymmetric else None,
                endorsing=(*endorsing, self.key) if renewal else tuple(endorsing),
            ),
        )
        yield request
        confirm = request.protected.signature_values if policy.signature_confirmation else ()
        key = client.certificate if asymmetric else SEALED
        signer = server if asymmetric else None
        protection = Protection(policy, self.sc, key, False, signer=signer, confirm=confirm)
        yield self.golden(f"RSTR/{name}", given, protection)

    def golden(self, name: str, body: bytes, protection: Protection) -> Golden:
        parts = self.headers(self.trust.action(name), request=protection.request)
        message = Message(self.policy.soap, parts, body)
        return Golden(self.prefix + name.replace("/", "-"), message, protection)

    def life(self, name: str, action: str, body: bytes, *rm: Header, request: bool, **how: bool) -> Golden:
        assert self.policy.application is not None
        parts = (*rm, *self.headers(action, request=request, reply=how.get("reply", True)))
        secret = how.get("encrypt", False)
        protection = Protection(self.policy.application, self.sc, self.key, request, encrypt=secret)
        return Golden(name, Message(self.policy.soap, parts, body), protection)

    def machinery(self, name: str, body: bytes, *rm: Header, request: bool, reply: bool = True) -> Golden:
        return self.life(name, self.rm.action(name), body, *rm, request=request, reply=reply)

    def trusted(self) -> Iterator[Golden]:
        """Issue and Renew."""
        issue = trust.RequestSecurityToken("Issue", self.sc.token_type, 256, bytes(range(32)))
        renew = trust.RequestSecurityToken(
            "Renew", self.sc.token_type, 256, bytes(range(32)), renew_target=self.context
        )
        issued = trust.RequestSecurityTokenResponse(
            self.sc.token_type,
            SecurityContextToken(CONTEXT, None, "uuid-sct-1", self.token),
            SecurityTokenReference(uri="#uuid-sct-1", value_type=self.sc.token_type),
            self.context,
            computed_key=True,
            entropy=bytes(range(64, 96)),
            created=NOW.utc,
            expires=NOW.utc + 36_000,
            key_size=256,
        )
        answer = issued.render(self.trust)
        yield from self.boot("SCT", issue.render(self.trust), answer)
        yield from self.boot("SCT/Renew", renew.render(self.trust), answer, renewal=True)

    def over_tls(self) -> Iterator[Golden]:
        """As far as TLS leaves something to do: a request and its answer of each token."""
        for name, tokens in OVER_TLS.items():
            policy = ProtectionPolicy("transport", SUITES["Basic256"], "transport", tokens, NO_PARTS)
            endorsing: list[CertificateKey | ContextKey] = [identity("client")] if policy.endorsing else []
            endorsing += [self.key] if policy.supports("context") else []
            user = ("ada", "sesame") if policy.username else None
            for request in (True, False):
                parts = self.headers("urn:x/Transfer", request=request)
                protection = Protection(
                    policy, self.sc, None, request, user if request else None, endorsing=tuple(endorsing)
                )
                if not request:
                    protection = replace(protection, endorsing=())
                label = f"tls-{name}-{'request' if request else 'response'}"
                yield Golden(label, Message(self.policy.soap, parts, ORDER), protection)

    def cancelled(self) -> Iterator[Golden]:
        """Cancel, under the context's own keys."""
        cancel = trust.RequestSecurityToken("Cancel", cancel_target=self.context).render(self.trust)
        done = trust.RequestSecurityTokenResponse(cancelled=True).render(self.trust)
        for name, body, request in (("RST/SCT/Cancel", cancel, True), ("RSTR/SCT/Cancel", done, False)):
            yield self.life(name.replace("/", "-"), self.trust.action(name), body, request=request)

    def reliable(self) -> Iterator[Golden]:
        """The life of a sequence."""
        rm, where = self.rm, self.policy.addressing
        offer = reliability.Offer(REPLIES, self.anonymous if rm.can_close else None)
        create = reliability.CreateSequence(self.anonymous, offer=offer, token=self.context)
        created = reliability.CreateSequenceResponse(SEQUENCE, accept=EPR(TO))
        uses = (reliability.UsesSequenceSTR().render(rm),) if rm.can_close else ()
        yield self.machinery("CreateSequence", create.render(rm, where), *uses, request=True)
        yield self.machinery("CreateSequenceResponse", created.render(rm, where), request=False)
        ours = reliability.Sequence(SEQUENCE, 1).render(rm)
        theirs = reliability.Sequence(REPLIES, 1).render(rm)
        seen = reliability.SequenceAcknowledgement(SEQUENCE, ((1, 1),)).render(rm)
        back = reliability.SequenceAcknowledgement(REPLIES, ((1, 1), (3, 4))).render(rm)
        asks = reliability.AckRequested(SEQUENCE).render(rm)
        yield self.life("application", "urn:x/Transfer", ORDER, ours, back, asks, request=True, encrypt=True)
        yield self.life("reply", "urn:x/TransferResponse", ORDER, theirs, seen, request=False, encrypt=True)
        yield self.machinery("SequenceAcknowledgement", b"", seen, request=False, reply=False)
        if rm.can_close:
            final = reliability.SequenceAcknowledgement(SEQUENCE, ((1, 1),), final=True).render(rm)
            close = reliability.CloseSequence(SEQUENCE, 1).render(rm, where)
            closed = reliability.CloseSequenceResponse(SEQUENCE).render(rm, where)
            ended = reliability.TerminateSequenceResponse(SEQUENCE).render(rm, where)
            yield self.machinery("CloseSequence", close, request=True)
            yield self.machinery("CloseSequenceResponse", closed, final, request=False)
            yield self.machinery("TerminateSequenceResponse", ended, final, request=False)
        else:
            last = reliability.Sequence(SEQUENCE, 2, last_message=True).render(rm)
            yield self.machinery("LastMessage", b"", last, request=True)
        end = reliability.TerminateSequence(SEQUENCE, 1 if rm.can_close else None).render(rm, where)
        yield self.machinery("TerminateSequence", end, request=True, reply=rm.can_close)


def folder_of(family: str, version: SOAPVersion) -> Path:
    return FOLDER / f"{family}-soap{version.name.split()[-1]}"


def conversation(family: str, version: SOAPVersion) -> list[Golden]:
    """All messages of this family and SOAP version."""
    writer = Writer(family, version)
    others = [Writer(family, version, each).trusted() for each in BOOTSTRAPS[1:]]
    made = [*writer.trusted(), *writer.cancelled(), *writer.reliable(), *writer.over_tls()]
    return [*made, *chain.from_iterable(others)]


def write() -> None:
    """Write anew what differs from the files."""
    for family, version in EDITIONS:
        folder = folder_of(family, version)
        folder.mkdir(exist_ok=True)
        for golden in conversation(family, version):
            path, payload = folder / f"{golden.name}.xml", golden.protected.payload
            if not path.exists() or repeatable(path.read_bytes()) != repeatable(payload):
                path.write_bytes(payload)


if __name__ == "__main__":
    write()
