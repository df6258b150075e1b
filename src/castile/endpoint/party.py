"""One side of the wire: what both walks and every rule need to know of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from castile.clock import Clock, Now, system
from castile.config import Settings
from castile.endpoint.channel import address_over_tls
from castile.endpoint.contexts import context_keys
from castile.endpoint.keyring import Keyring, Users
from castile.endpoint.kinds import Kind
from castile.errors import QName
from castile.policy import CONTEXT, ENDORSING, EndpointPolicy, ProtectionPolicy
from castile.security.anchors import Anchors
from castile.security.certificates import CertificateKey, subject_of
from castile.security.keys import ContextKey
from castile.store import Store, Transaction
from castile.store.records import ContextRecord

Side = Literal["client", "service"]
Purpose = Literal[
    "message", "lifecycle", "request", "sequence", "context", "instance", "key", "incident"
]
"""What a new identifier is for: MessageIDs of the application's messages, of those that begin and
end sequences and of requests to the trust service; the others as they are called."""
NewId = Callable[[Purpose], str]
T = TypeVar("T")

reliability_log = logging.getLogger("castile.reliability")
security_log = logging.getLogger("castile.security")


@dataclass(slots=True, repr=False)
class Party:
    """A client of one endpoint, or a service at one address."""

    side: Side
    address: str
    """Where a client sends to; of a service, its own."""
    policy: EndpointPolicy
    store: Store
    random: Callable[[int], bytes]
    settings: Settings = field(default_factory=Settings)
    clock: Clock = system
    certificate: x509.Certificate | None = None
    """The service's certificate: ours (service) or the one that we seal keys for (client)."""
    key: RSAPrivateKey | None = None
    username: tuple[str, str] | None = None
    """A client's credential."""
    credential: CertificateKey | None = None
    """Another one of a client: its certificate and key."""
    trust: tuple[x509.Certificate, ...] = ()
    """Certificates that may sign to us, and issuers that vouch for others (MS-11)."""
    users: Users | None = None
    """A service's users."""
    public_url: str | None = None
    """A service's address as clients know it: then wsa:To must be this (SV-19)."""
    to_alias: str | None = None
    """What a client writes as wsa:To in place of the address (CL-42)."""
    answers: Callable[[str], bool | None] = field(default=lambda _: None)
    """Whether a service's application answers this action; None: it doesn't say."""
    implied: Callable[[str | None, QName | None], str] = field(default=lambda label, _: label or "")
    """Of a message without addressing: the action that HTTP's label, if any, and the element in its
    Body stand for. Raises `PeerError` where they disagree."""
    identify: NewId | None = None
    """Makes identifiers in place of `random`: absolute URIs, unique for ever."""
    keyring: Keyring = field(init=False)
    anchors: Anchors = field(init=False)
    """Whose certificates may sign to us; to a client its service's may."""
    keylog: Callable[[str, bytes, str | None], None] | None = None
    """Told each context's Identifier, secret and Instance (CASTILE_KEYLOG)."""

    tls: bool = field(init=False)
    """A client's messages travel over TLS, or what the settings take for it."""

    def __post_init__(self) -> None:
        self.tls = self.side == "client" and address_over_tls(self.address, self.settings)
        own = [self.credential] if self.credential is not None else []
        peers = self.trust
        if self.certificate is not None and self.key is not None:
            own.append(CertificateKey(self.certificate, self.key))
        elif self.certificate is not None:
            peers = (self.certificate, *peers)
        # An issuer vouches to a client for its service's name only: any other certificate of it
        # would pass for the service.
        service = self.certificate.subject if self.side == "client" and self.certificate else None
        self.anchors = Anchors.of(peers, service)
        self.keyring = Keyring(load=self._stored_keys, own=tuple(own), peers=peers, users=self.users)

    def _stored_keys(self, identifier: str) -> list[ContextKey]:
        record = self.run(lambda tx: self.context(tx, identifier))
        edition = self.policy.conversation
        if record is None or edition is None or record.state.edition != edition.namespace:
            return []  # a token of one edition is nothing in the other (F31)
        return context_keys(record)

    @property
    def to(self) -> str:
        """What a client writes as wsa:To."""
        return self.to_alias or self.address

    @property
    def realm(self) -> str:
        """The name under which its rows are kept: the address, and of a client also who it is. Of
        one principal's contexts, messages and replies another never sees any (SC-36)."""
        who = self.principal if self.side == "client" else ""
        return f"{self.address} {who}" if who else self.address

    @property
    def signer(self) -> CertificateKey | None:
        """Our own certificate and key."""
        return self.keyring.own[0] if self.keyring.own else None

    @property
    def principal(self) -> str:
        """Who a client is; "" without a credential."""
        if self.username is not None:
            return self.username[0]
        return subject_of(self.credential.certificate) if self.credential is not None else ""

    def section(self, kind: Kind, *, own_key: bool) -> ProtectionPolicy | None:
        """What protects messages of the machinery, of this kind (F02); None: nothing does.

        `own_key`: a renewal whose message the context's own key signs, the other way round than
        WCF's. The bootstrap's credential then endorses, unless the key alone is proof (SC-22).
        """
        bootstrap, application = self.policy.bootstrap, self.policy.application
        if not kind.bootstrap:
            return application.of_machinery if application is not None else None
        if not kind.renewal or bootstrap is None or application is None:
            return bootstrap
        if own_key and self.settings.renew_proof == "key":
            return application.of_machinery
        if bootstrap.binding == "transport":
            # Beside the bootstrap's credential the old key signs the Timestamp.
            row = application.supports("context") or replace(CONTEXT, derived_keys=application.derived_keys)
            return replace(bootstrap, supporting=(*bootstrap.supporting, row))
        if not own_key:
            return bootstrap
        supporting = bootstrap.supporting
        if bootstrap.binding == "asymmetric":
            supporting += (ENDORSING,)
        return replace(application.of_machinery, supporting=supporting)

    def of_application(self, section: ProtectionPolicy | None) -> ProtectionPolicy | None:
        """What protects an application's message: in a sequence all that tells its place is signed."""
        if section is None or self.policy.reliability is None:
            return section
        return section.of_machinery

    def context(self, tx: Transaction, identifier: str) -> ContextRecord | None:
        """A stored context of this party."""
        return tx.context(identifier, side=self.side, endpoint=self.realm)

    def jitter(self) -> float:
        """A random part, 0 to 1, so that a fleet doesn't move in step."""
        return self.random(1)[0] / 255

    def run(self, step: Callable[[Transaction], T]) -> T:
        """One step of the store, committed."""
        return self.store.run(step).result()

    def now(self) -> Now:
        """This moment."""
        return self.clock()

    def new_id(self, purpose: Purpose = "message") -> str:
        """An absolute URI with 122 random bits, unique for ever (RM-06, SC-01)."""
        if self.identify is not None:
            return self.identify(purpose)
        octets = bytearray(self.random(16))
        octets[6] = octets[6] & 0x0F | 0x40
        octets[8] = octets[8] & 0x3F | 0x80
        digits = octets.hex()
        return f"urn:uuid:{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
