"""Every limit and timer, in one place, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Durability = Literal["full", "normal", "off"]
"""What a power cut may take of a store in a file; see `Settings.durability`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused before the work that it bounds."""

    message_bytes: int = 1 << 20
    """A secured request is 9 KB; 1 MiB is more than a document without attachments needs."""
    depth: int = 64
    """libxml2 itself stops at 256; real messages nest about 20 deep."""
    attributes: int = 64
    """Per element: canonicalisation is quadratic in attributes."""
    namespaces_per_element: int = 32
    """Canonicalisation is quadratic in namespace declarations too."""
    namespaces: int = 256
    """In the whole message."""
    elements: int = 20_000
    """Dense XML has an element per 40 bytes; this is twice what 1 MiB of it usually holds."""
    name_characters: int = 1_024
    """Longer names only serve hash collisions and log flooding."""
    attribute_bytes: int = 64 << 10
    """One attribute value."""
    header_blocks: int = 64
    """The composite needs about ten."""
    references: int = 32
    """Per signature: each one costs a canonicalisation."""
    transforms: int = 2
    """Per reference: exclusive C14N and STR-Transform are all there is."""
    signatures: int = 4
    """Primary and endorsing ones."""
    encrypted_data: int = 16
    """EncryptedData elements in a message: Body, the signature, a token, and room for headers."""
    derived_keys: int = 8
    """Two per direction are usual."""
    digested_factor: int = 4
    """Digested bytes are at most this many times the message."""
    acknowledgement_ranges: int = 128
    """WCF's own limit; a range bomb grows every acknowledgement."""
    window_messages: int = 64
    """Held out of order or not yet delivered, per sequence."""
    window_bytes: int = 8 << 20
    """The same in bytes: eight messages of the largest size."""
    sequences_per_principal: int = 64
    """Open ones; a client needs one or two, a busy pool some dozens."""
    sequences: int = 100_000
    """In all: a flood fills neither the store nor another principal's share."""
    contexts_per_principal: int = 64
    """Live ones: each process of a client bootstraps one."""
    contexts: int = 100_000
    """In all, as for sequences."""
    replay_rows: int = 1_000_000
    """Signatures remembered until they expire: about 2,000 messages a second for eight minutes."""
    identifier_characters: int = 1_024
    """Of a sequence, context or message; ours have 45."""
    request_seconds: float = 30.0
    """For a whole request body to arrive: a slow sender holds a connection no longer."""


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """The same for WSDLs, schemas and policies: read once, and larger than a message."""

    bytes: int = 5 << 20
    """Of one document; the largest public WSDLs have one or two million."""
    documents: int = 100
    """In all, with everything that they import."""
    total_bytes: int = 32 << 20
    """Of all of them: a tree of elements takes several times as much memory."""
    imports: int = 10
    """How deep imports nest, and PolicyReferences."""
    elements: int = 200_000
    """Of one document: an element per 25 bytes."""
    namespaces: int = 20_000
    """Of one document: generators declare prefixes anew on every element."""
    policy_nodes: int = 10_000
    """Elements of one policy, and assertions of all alternatives of its normal form; real ones have
    some hundreds."""
    policy_alternatives: int = 64
    """Of one effective policy: `n` optional assertions make 2^n."""
    operations: int = 5_000
    """Of all ports together, the ports themselves counted too."""
    seconds: float = 10.0
    """To fetch one document."""

    @property
    def xml(self) -> Limits:
        """How one of them is parsed."""
        return Limits(
            message_bytes=self.bytes,
            elements=self.elements,
            namespaces=self.namespaces,
        )


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds, unless the name says otherwise."""

    clock_skew: float = 180.0
    """How far a peer's clock may be off; at most 300."""
    timestamp_ttl: float = 300.0
    """Life of the Timestamp that we send, and the most that we accept (plus the skew)."""
    token_lifetime: float = 7_200.0
    """Of a security context token that our trust service issues, at the most."""
    requested_lifetime: float | None = None
    """What a client asks for its security context tokens; None: the service's choice."""
    token_cache_after_expiry: float = 7_200.0
    """An expired token serves recovery this long."""
    instance_grace: float = 300.0
    """An old instance is accepted this long after the new one was first used."""
    lost_context_after: float = 300.0
    """A sequence whose context the peer seems to have lost has failed after this long of nothing
    but such answers: time for an operator, or for the real peer to be heard past a forger."""
    alarm_interval: float = 60.0
    """An unsecured fault about a context makes us renew or replace it at most this often: anybody
    on the way can forge one."""
    retransmit_interval: float = 2.0
    """Before the first repetition."""
    retransmit_limit: float = 60.0
    """The back-off doubles up to this."""
    retransmit_jitter: float = 0.2
    """Part of the interval, so that a fleet doesn't repeat in step."""
    give_up_durable: float = 86_400.0
    """An unanswered message of a durable sequence makes it fail after this."""
    give_up_in_memory: float = 600.0
    """The same for a sequence that ends with its process anyway."""
    create_timeout: float = 60.0
    """CreateSequence is repeated this long before the sequence can't be created; of messages in a
    store, which were promised, as long as they are (`give_up_durable`)."""
    close_timeout: float = 30.0
    """How long closing waits for the last acknowledgements."""
    terminate_timeout: float = 30.0
    """How long the end of a sequence waits for its answer; both sides forget without it too."""
    acknowledgement_interval: float = 0.2
    """A stand-alone acknowledgement goes out if nothing carried it in this time; WCF's value."""
    reply_wait: float = 30.0
    """How long an HTTP exchange stays open for a handler's reply before 202."""
    call_timeout: float = 60.0
    """How long a call waits for its reply; the message itself goes on."""
    connect_timeout: float = 10.0
    """For a TCP connection and TLS: a dead host shows within this time."""
    retention: float = 86_400.0
    """An ended sequence is remembered this long, so that late repetitions are answered."""
    key_retention: float = 604_800.0
    """The reply to a call with a key of its own is kept this long after the caller had it, so that
    a script that runs again a week later still sends nothing twice."""
    inactivity_timeout: float = 600.0
    """An in-memory sequence without any authenticated message this long has failed; WCF's value."""
    handler_seconds: float = 30.0
    """The most that a transactional handler may hold the store."""
    handler_backoff: float = 1.0
    """First wait before a failed one-way handler runs again; doubled each time."""
    drain: float = 30.0
    """For running handlers at a graceful stop."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How an endpoint behaves."""

    limits: Limits = field(default_factory=Limits)
    timers: Timers = field(default_factory=Timers)
    acknowledge_every: int = 16
    """A stand-alone acknowledgement is sent at the latest after this many messages."""
    max_message_number: int = (1 << 63) - 1
    """The largest number that both RM editions allow (WS-RM 1.2, 4.5)."""
    max_in_flight: int = 64
    """Unacknowledged messages under way at once: as many as the window of a castile peer holds."""
    max_concurrency: int = 32
    """Handlers that run at once."""
    max_queue: int = 1_000
    """Messages outside sequences that wait for a handler: each holds its HTTP exchange open, and whoever
    comes after them hears 503. Messages in sequences wait in the store."""
    allow_renewal_after_expiry: bool = False
    """A client renews an expired context, and a service lets it, while `token_cache_after_expiry`
    runs. Off: an expired key serves recovery only."""
    allow_postdated: bool = False
    """A service issues tokens that start later where AllowPostdating asks for it."""
    renew_proof: Literal["both", "key"] = "both"
    """What renews a context: the bootstrap's credential and the old key, or the old key alone."""
    handler_attempts: int = 5
    """A one-way handler that failed this often is parked."""
    durability: Durability = "full"
    """Of a store in a file, when it is synced to the disk. The end of a process takes nothing in any of
    them; the end of the machine (power cut, crash of its system) does:

    ``full``: at each commit; nothing that was taken, acknowledged or answered is lost.
    ``normal``: when the log is copied back, every 8 MB or so. The last commits before that may be
    lost, so messages that were taken or acknowledged; the file stays whole. Where its mark shows the
    loss, what was under way is in doubt, as after an older copy was put back (features N10).
    ``off``: never by us. As ``normal``, and the file itself may be no database any more."""
    strict_policy: bool = False
    """A client refuses a WSDL's assertions of vendors that castile doesn't know, as a service does; off:
    it warns of them."""
    ignore_assertions: tuple[str, ...] = ()
    """Assertions of a WSDL's policy that are passed over, by Clark name or as error texts name them."""
    documents_from: tuple[str, ...] = ()
    """Servers that a WSDL may import from, as ``schemas.example.com``: beside its own none is asked
    by default, since a WSDL could make us ask anybody."""
    policy_alternative: int | None = None
    """The alternative of a WSDL's policy to take, counted from 1; None: the safest that can be met."""
    legacy: bool = False
    """RSA 1.5 is read where the policy's suite asks for it: a padding that has been broken often."""
    plain_transport: Literal["refuse", "loopback"] = "refuse"
    """Where a policy leaves protection to TLS: "loopback" takes a connection of this machine to
    itself for it, for tests and for a TLS proxy on the same machine that hides itself."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses, or networks such as 10.0.0.0/8, whose X-Forwarded-Proto a service believes: they
    end TLS for it, and everybody else could only pretend to."""
    allow_clear_password: bool = False
    """A UsernameToken with its password goes out, and is taken, where neither TLS nor encryption
    covers it: whoever listens has the password. For old services inside a network."""
    testing: bool = False
    """Allows lifetimes of seconds."""

    @property
    def insecure(self) -> tuple[str, ...]:
        """The switches that are on and weaken something, for the log at every start."""
        switches = {
            "plain_transport": self.plain_transport != "refuse",
            "allow_clear_password": self.allow_clear_password,
            "legacy": self.legacy,
        }
        return tuple(name for name, on in switches.items() if on)
