"""The trust service inside a secured endpoint: contexts that it issued, and who may use them.

An issue is two calls, because the key is made between them: `grant` decides on the request,
the endpoint computes the key from both entropies, `issue` makes the context and the facts of the
answer. From then on the context is a machine like any other: `TRANSITIONS` says what may happen
when, `step` says what then. Every use of a key is a `Used` event, in the transaction that does
the work: what was valid when the message was verified may have been cancelled since.

Time is an event of its own: a usable context whose end has passed counts as expired at the next
step. An expired one serves recovery only, for a while (F12).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from castile.clock import Now
from castile.config import Limits, Settings, Timers
from castile.errors import UsageError, Violation
from castile.protocol.conversation import (
    MAX_INSTANCES,
    ForgetKey,
    Instance,
    UseKey,
    at_least,
)
from castile.protocol.faults import conversation_violation, trust_violation
from castile.versions import WSSC

KEY_BITS: Final = range(128, 512 + 1, 8)
"""Sizes of keys that are made (SC-06)."""
ENTROPY_BYTES: Final = range(16, 128 + 1)
"""Entropy that a client may bring: less is weak, more is no entropy (SC-05)."""
_SETTINGS: Final = Settings()


class Phase(Enum):
    """Where a context stands at the service."""

    USABLE = "usable"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Request:
    """The facts of a verified RequestSecurityToken that asks for a context or renews one."""

    edition: str
    """Namespace of WS-SecureConversation, a key of `versions.WSSC`."""
    principal: str
    """Who the bootstrap authenticated."""
    endpoint: str
    confidential: bool
    """The answer will be encrypted, or goes over TLS (TR-09)."""
    request_type: str = "Issue"
    """Local name."""
    token_type: str | None = None
    key_size: int | None = None
    """Bits."""
    entropy: bytes | None = field(default=None, repr=False)
    created: float | None = None
    """UTC, from Lifetime."""
    expires: float | None = None
    """UTC, from Lifetime."""
    postdating: bool = False
    """AllowPostdating."""
    context: str | None = None
    """The attribute Context, to be echoed (TR-04)."""


@dataclass(frozen=True, slots=True)
class Census:
    """How many contexts there are that are not reclaimed yet."""

    of_principal: int
    total: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What a request is given."""

    key_bits: int
    created: float
    """UTC."""
    expires: float
    """UTC."""

    @property
    def key_bytes(self) -> int:
        """Length of the key to be computed."""
        return self.key_bits // 8


@dataclass(frozen=True, slots=True)
class Answer:
    """The facts of the RequestSecurityTokenResponse (SC-04)."""

    identifier: str
    instance: str | None
    token_type: str
    key_bits: int
    entropy: bytes | None = field(repr=False)
    """Ours; the client computes the key from both. None: the whole key is sent."""
    created: float
    expires: float
    context: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """The whole state of a context at the service; it is the store's record (SC-07)."""

    identifier: str
    edition: str
    """Namespace of WS-SecureConversation, a key of `versions.WSSC`."""
    principal: str
    endpoint: str
    created: float
    """UTC: when the first key became valid."""
    expires: float
    """UTC: when the newest key ends."""
    instances: tuple[Instance, ...]
    """The keys, the newest last, at most `MAX_INSTANCES`."""
    phase: Phase = Phase.USABLE
    policy: str = ""
    """Digest of the policy that it was made under."""
    switched_at: float | None = None
    """UTC: first use of the newest key; the older ones go `instance_grace` later (SC-24)."""
    cancelled_at: float | None = None
    """UTC."""

    @property
    def current(self) -> Instance:
        """The newest key."""
        return self.instances[-1]

    def instance(self, name: str | None) -> Instance | None:
        """The key of that name, if it is kept."""
        return next((each for each in self.instances if each.instance == name), None)

    def usable(self, now: Now, timers: Timers = _SETTINGS.timers) -> bool:
        """True if its newest key may protect new messages now."""
        return (
            self.phase is Phase.USABLE and self.current.created - timers.clock_skew <= now.utc < self.expires
        )


def grant(
    request: Request,
    now: Now,
    census: Census,
    suite_bits: int,
    settings: Settings = _SETTINGS,
    *,
    allow_postdated: bool = False,
    client_entropy: bool = True,
) -> Grant:
    """Decide on a request for a context or for its renewal; `Violation` if it is refused.

    `suite_bits` is the KeySize of a request that asks for none (SC-06). `client_entropy`: a
    request without entropy is refused; else its key is the service's alone (SC-05).
    """
    row = WSSC[request.edition]
    if request.request_type not in ("Issue", "Renew"):
        raise _refused(request, "InvalidRequest", f"request type {request.request_type!r}")
    if request.token_type not in (None, row.token_type):
        if any(request.token_type == other.token_type for other in WSSC.values()):
            cause = f"a context of another edition than {row.name}"
            raise conversation_violation(request.edition, "UnsupportedContextToken", cause)
        raise _refused(request, "RequestFailed", "a token type that is not issued here")
    if not request.confidential:
        raise _refused(request, "RequestFailed", "the answer would show its entropy (TR-09)")
    if request.entropy is None and client_entropy:
        raise _refused(request, "RequestFailed", "a key from one side's entropy is not made (SC-05)")
    if request.entropy is not None and len(request.entropy) not in ENTROPY_BYTES:
        raise _refused(request, "InvalidRequest", f"entropy of {len(request.entropy)} bytes")
    bits = suite_bits if request.key_size is None else request.key_size
    if bits not in KEY_BITS:
        raise _refused(request, "RequestFailed", f"a key of {bits} bits")
    created, expires = _lifetime(request, now, settings, allow_postdated)
    if request.request_type == "Issue":
        _check_caps(request, census, settings.limits)
    return Grant(bits, created, expires)


def issue(
    request: Request,
    granted: Grant,
    *,
    identifier: str,
    secret: bytes,
    entropy: bytes | None,
    policy: str = "",
) -> tuple[Context, Answer]:
    """The new context, and what to answer.

    `identifier` is new for ever; `entropy` is ours, and `secret` was computed from the client's
    and ours, `granted.key_bytes` long. Without entropy the secret is ours alone.
    """
    key = new_instance(granted, None, secret=secret, entropy=entropy)
    context = Context(
        identifier=identifier,
        edition=request.edition,
        principal=request.principal,
        endpoint=request.endpoint,
        created=granted.created,
        expires=granted.expires,
        instances=(key,),
        policy=policy,
    )
    return context, answer(request, granted, identifier, None, entropy)


def new_instance(granted: Grant, instance: str | None, *, secret: bytes, entropy: bytes | None) -> Instance:
    """A key as granted; `UsageError` if it was not computed as granted."""
    if len(secret) != granted.key_bytes or (entropy is not None and len(entropy) not in ENTROPY_BYTES):
        raise UsageError(
            f"a key of {granted.key_bits} bits was granted, and entropy of 16 to 128 bytes is needed"
        )
    return Instance(instance, secret, granted.created, granted.expires)


def answer(
    request: Request, granted: Grant, identifier: str, instance: str | None, entropy: bytes | None
) -> Answer:
    """The facts of the answer to an issue or, with an `instance`, to a renewal."""
    return Answer(
        identifier=identifier,
        instance=instance,
        token_type=WSSC[request.edition].token_type,
        key_bits=granted.key_bits,
        entropy=entropy,
        created=granted.created,
        expires=granted.expires,
        context=request.context,
    )


@dataclass(frozen=True, slots=True)
class Used:
    """A message proved possession of this key.

    `recovery`: it belongs to a sequence that was bound to the context before, and makes nothing
    new (a repetition, an acknowledgement, closing): that is what an expired key still serves.
    """

    instance: str | None
    recovery: bool = False


@dataclass(frozen=True, slots=True)
class Renew:
    """A granted renewal. `proof`: identifier of the context whose key endorsed the request.

    `instance`: which of its keys that was. `after_expiry`: this service renews expired contexts
    (`allow_renewal_after_expiry`, F14).
    """

    key: Instance
    principal: str
    proof: str | None
    instance: str | None = None
    after_expiry: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """A verified Cancel. `proof`: identifier of the context whose key signed it (SC-29)."""

    proof: str | None


@dataclass(frozen=True, slots=True)
class Expired:
    """Its end has come."""


Event = Used | Renew | Cancel | Expired


@dataclass(frozen=True, slots=True)
class EndSequences:
    """Cancelled for the first time: sequences bound to it accept nothing new (CO-17)."""

    identifier: str


Action = UseKey | ForgetKey | EndSequences

TRANSITIONS: Final[dict[tuple[Phase, type[Event]], Phase]] = {
    (Phase.USABLE, Used): Phase.USABLE,
    (Phase.USABLE, Renew): Phase.USABLE,
    (Phase.USABLE, Cancel): Phase.CANCELLED,
    (Phase.USABLE, Expired): Phase.EXPIRED,
    (Phase.EXPIRED, Used): Phase.EXPIRED,  # for recovery only (F12)
    (Phase.EXPIRED, Renew): Phase.USABLE,  # only where allowed (F14)
    (Phase.EXPIRED, Cancel): Phase.CANCELLED,
    (Phase.EXPIRED, Expired): Phase.EXPIRED,
    (Phase.CANCELLED, Cancel): Phase.CANCELLED,
    (Phase.CANCELLED, Expired): Phase.CANCELLED,
}
"""What may happen when, and the phase it leads to. A missing pair is an error: `_illegal`."""

Step = tuple[Context, tuple[Action, ...]]


def step(state: Context, event: Event, now: Now, settings: Settings = _SETTINGS) -> Step:
    """The state after `event`, and what is to be done, in order.

    Raises `Violation`, with nothing changed and the fault of WS-SC 9 or WS-Trust 11.
    """
    if state.phase is Phase.USABLE and now.utc >= state.expires:
        state = replace(state, phase=Phase.EXPIRED)
    phase = TRANSITIONS.get((state.phase, type(event)))
    if phase is None:
        raise _illegal(state, event)
    match event:
        case Used(instance, recovery):
            return _used(state, instance, recovery, now, settings)
        case Renew():
            return _renewed(state, phase, event, now, settings)
        case Cancel(proof):
            _require_proof(state, proof, "FailedAuthentication")
            if state.phase is Phase.CANCELLED:
                return state, ()
            return replace(state, phase=phase, cancelled_at=now.utc), (EndSequences(state.identifier),)
        case Expired():
            return replace(state, phase=phase), ()


def cancel(state: Context, now: Now, *, proof: str | None) -> Step:
    """Cancel a context; idempotent while it is remembered (SC-29)."""
    return step(state, Cancel(proof), now)


def unknown_context(edition: str) -> Violation:
    """The answer to a key of no context here (SC-40)."""
    return conversation_violation(edition, "BadContextToken", "the security context is not known here")


def _used(state: Context, name: str | None, recovery: bool, now: Now, settings: Settings) -> Step:
    """Whether this key may be used now (F12, F15, SC-24, SC-28)."""
    timers = settings.timers
    key = state.instance(name)
    if key is None:
        raise _bad(state, f"it has no instance {name!r}, or not any more")
    if now.utc < key.created - timers.clock_skew:
        raise _bad(state, f"it is valid only {key.created - now.utc:.0f} s from now")
    if _replaced(state, key, now, timers):
        raise _bad(state, f"instance {name!r} was replaced")
    if now.utc >= key.expires:
        if now.utc >= key.expires + _window(settings):
            raise _bad(state, "it has expired, and so has the time for recovery")
        if not recovery:
            cause = "it has expired, and the message is new"
            raise conversation_violation(state.edition, "RenewNeeded", cause)
    if key is not state.current or state.switched_at is not None or len(state.instances) == 1:
        return state, ()
    return replace(state, switched_at=now.utc), ()


def _renewed(state: Context, phase: Phase, event: Renew, now: Now, settings: Settings) -> Step:
    """Same Identifier, new Instance, new key, proof of an old one (SC-22, SC-23)."""
    _require_proof(state, event.proof, "UnableToRenew")
    if event.principal != state.principal:
        raise _unable(state, "another principal asked")
    proving = state.instance(event.instance)
    if proving is None or _replaced(state, proving, now, settings.timers):
        raise _unable(state, f"instance {event.instance!r} was replaced")
    if now.utc < proving.created - settings.timers.clock_skew:
        raise _unable(state, "its key isn't valid yet")
    expired = state.phase is Phase.EXPIRED or now.utc >= proving.expires
    if expired and not (event.after_expiry and now.utc < proving.expires + _window(settings)):
        raise _unable(state, "it has expired")
    key = event.key
    if key.instance is None or any(old.same_as(key) for old in state.instances):
        raise UsageError("a renewal needs a new instance and a new key")
    # The key that proved itself stays as long as any: answers that were lost on their way must
    # not cost the client the only key that it has.
    spare = [old for old in state.instances if old is not proving]
    gone = spare[: max(0, len(state.instances) + 1 - MAX_INSTANCES)]
    keys = (*(old for old in state.instances if old not in gone), key)
    state = replace(state, phase=phase, expires=key.expires, instances=keys, switched_at=None)
    forget = (ForgetKey(state.identifier, old.instance) for old in gone)
    return state, (UseKey(state.identifier, key.instance), *forget)


def _replaced(state: Context, key: Instance, now: Now, timers: Timers) -> bool:
    """Whether the grace of an older key is over, counted from the first use of the newest."""
    switched = state.switched_at
    return key is not state.current and switched is not None and now.utc >= switched + timers.instance_grace


def _lifetime(request: Request, now: Now, settings: Settings, allow_postdated: bool) -> tuple[float, float]:
    """The life that is given: as asked, but no longer than ours (SC-27, TR-06, F15)."""
    longest = at_least(settings.timers.token_lifetime, settings.testing)
    created, expires = request.created, request.expires
    if created is None or created <= now.utc + settings.timers.clock_skew:
        start = now.utc  # an earlier start means nothing: the key did not exist
    elif request.postdating and allow_postdated:
        start = created
    else:
        raise _refused(request, "InvalidTimeRange", "a token that starts later is not issued")
    if expires is None:
        return start, start + longest
    if expires <= start or (created is not None and expires <= created):
        raise _refused(request, "InvalidTimeRange", "the lifetime ends before it begins")
    return start, min(expires, start + longest)


def _check_caps(request: Request, census: Census, limits: Limits) -> None:
    """A flood of requests costs the flooder his own contexts, nobody else's (SC-34)."""
    if census.of_principal >= limits.contexts_per_principal:
        raise _refused(request, "RequestFailed", f"the principal has {census.of_principal} contexts")
    if census.total >= limits.contexts:
        raise _refused(request, "RequestFailed", f"there are {census.total} contexts")


def _window(settings: Settings) -> float:
    return at_least(settings.timers.token_cache_after_expiry, settings.testing)


def _require_proof(state: Context, proof: str | None, fault: str) -> None:
    """Only who holds the context's own key may end or renew it (features RE-74)."""
    if proof == state.identifier:
        return
    cause = "the request is not signed by the key of the context that it names"
    if fault == "UnableToRenew":
        raise _unable(state, cause)
    raise trust_violation(state.edition, fault, cause)


def _illegal(state: Context, event: Event) -> Violation:
    """The error of a pair that `TRANSITIONS` doesn't have: a cancelled context does nothing."""
    if isinstance(event, Renew):
        return _unable(state, "it was cancelled")
    return _bad(state, "it was cancelled")


def _bad(state: Context, cause: str) -> Violation:
    return conversation_violation(state.edition, "BadContextToken", f"security context refused: {cause}")


def _unable(state: Context, cause: str) -> Violation:
    return conversation_violation(state.edition, "UnableToRenew", f"renewal refused: {cause}")


def _refused(request: Request, name: str, cause: str) -> Violation:
    return trust_violation(request.edition, name, f"request for a security context refused: {cause}")
