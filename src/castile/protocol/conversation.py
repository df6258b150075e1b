"""A security context at the client: established, used, renewed, expired, cancelled.

`TRANSITIONS` says what may happen when; `step` says what then. Asking the trust service is not
here: it is a generator of the endpoint, and only its verified result becomes an event. An answer
that was not asked for meets a missing pair of the table and is refused (SC-08).

Time is an event of its own: a usable context whose end has passed counts as expired at the next
step. An expired context serves recovery only, for a while: resending what was numbered already
and reading acknowledgements (F12).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from hmac import compare_digest
from typing import Final

from castile.clock import Now
from castile.config import Timers
from castile.errors import CastileError, SecurityContextExpired, SecurityFailure, UsageError

MINIMUM_LIFETIME: Final = 600.0
"""Least `token_lifetime` and `token_cache_after_expiry` outside tests (SC-27)."""
MINIMUM_SECRET: Final = 16
"""Bytes: nothing weaker serves any suite (SC-05)."""
MAX_INSTANCES: Final = 3
"""Kept of one context (SC-24)."""
RENEW_AT: Final = 0.6
"""Part of the granted life after which the client renews, as WCF does (SC-25)."""
RENEW_JITTER: Final = 0.05
_DEFAULTS: Final = Timers()


class Phase(Enum):
    """Where a context stands at the client."""

    ESTABLISHING = "establishing"
    USABLE = "usable"
    RENEWING = "renewing"
    """A new key was asked for; the old one is in use meanwhile."""
    EXPIRED = "expired"
    """Past its end, or the service seems to have lost it: for recovery only."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Instance:
    """One key of a context; its name is None before the first renewal (WS-SC, 5)."""

    instance: str | None
    secret: bytes = field(repr=False)
    created: float
    """UTC."""
    expires: float
    """UTC."""

    def same_as(self, other: Instance) -> bool:
        """True if `other` has this name or this secret: it is no new key."""
        return self.instance == other.instance or compare_digest(self.secret, other.secret)


@dataclass(frozen=True, slots=True)
class Conversation:
    """The whole state of a context at the client; it is the store's record."""

    edition: str
    """Namespace of WS-SecureConversation, a key of `versions.WSSC`."""
    endpoint: str
    principal: str
    """Who the bootstrap authenticated."""
    identifier: str = ""
    """The wire name; empty while it is being established."""
    policy: str = ""
    """Digest of the policy that it was made under."""
    credential: str = ""
    """Digest of the bootstrap credential (SC-36)."""
    phase: Phase = Phase.ESTABLISHING
    created: float = 0.0
    """UTC: when the first key became valid."""
    expires: float = 0.0
    """UTC: when the newest key ends."""
    instances: tuple[Instance, ...] = ()
    """The keys, the newest last, at most `MAX_INSTANCES`."""
    token: bytes = b""
    """The SecurityContextToken as the issuer wrote it: sent as it is (SC-01)."""
    token_id: str = ""
    """wsu:Id of `token`."""
    lost: bool = False
    """The service says that it doesn't know it (CO-16)."""
    reason: str | None = None
    """The last thing that went wrong."""

    @property
    def scope(self) -> tuple[str, str, str, str, str]:
        """What must be equal for one context to serve another call (SC-36)."""
        return self.edition, self.endpoint, self.policy, self.principal, self.credential

    @property
    def current(self) -> Instance:
        """The newest key; `UsageError` where none was established yet."""
        if not self.instances:
            raise UsageError(f"the security context is {self.phase.value}: it has no key")
        return self.instances[-1]

    def instance(self, name: str | None) -> Instance | None:
        """The key of that name, if it is kept."""
        return next((each for each in self.instances if each.instance == name), None)

    def usable(self, now: Now, timers: Timers = _DEFAULTS) -> bool:
        """True if it may protect new messages now (F12, F15)."""
        live = self.phase in (Phase.USABLE, Phase.RENEWING)
        return live and self.current.created - timers.clock_skew <= now.utc < self.expires

    def recoverable(self, now: Now, timers: Timers = _DEFAULTS, *, testing: bool = False) -> bool:
        """True if it may protect messages that were numbered before its end (F12)."""
        if self.phase in (Phase.ESTABLISHING, Phase.CANCELLED):
            return False
        return now.utc < self.expires + at_least(timers.token_cache_after_expiry, testing)

    def renew_at(self, jitter: float) -> float:
        """The UTC time to renew at: after 60 % of the granted life (SC-25).

        `jitter`, 0 to 1, moves it within ± 5 % of that life. A cushion before the end is at most
        40 % of the life, so that it never asks for an earlier time.
        """
        life = self.expires - self.current.created
        return self.current.created + life * (RENEW_AT + RENEW_JITTER * (2.0 * jitter - 1.0))


def at_least(seconds: float, testing: bool) -> float:
    """A configured lifetime, not below the minimum outside tests (SC-27)."""
    return seconds if testing else max(seconds, MINIMUM_LIFETIME)


@dataclass(frozen=True, slots=True)
class Established:
    """The verified answer to our own request for a token.

    `requested_bits`: the KeySize that was asked for. Without a lifetime in the answer the key is
    used for `timers.token_lifetime` from now.
    """

    identifier: str
    secret: bytes = field(repr=False)
    token: bytes
    token_id: str
    instance: str | None = None
    created: float | None = None
    expires: float | None = None
    requested_bits: int = 0


@dataclass(frozen=True, slots=True)
class RenewalStarted:
    """A renewal is about to be asked for. `after_expiry`: allowed by `allow_renewal_after_expiry`."""

    after_expiry: bool = False


@dataclass(frozen=True, slots=True)
class Renewed:
    """The verified answer to our own renewal: same Identifier, new Instance, new key (SC-23)."""

    identifier: str
    instance: str | None
    secret: bytes = field(repr=False)
    token: bytes
    token_id: str
    created: float | None = None
    expires: float | None = None
    requested_bits: int = 0


@dataclass(frozen=True, slots=True)
class RenewalFailed:
    """No new key: the old one goes on until its end (SC-26)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Expired:
    """Its end has come."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Cancel was answered, or the issuer told us that it is gone (SC-29, SC-31)."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The service doesn't know it (BadContextToken, tried again), or it couldn't be established."""

    reason: str


Event = Established | RenewalStarted | Renewed | RenewalFailed | Expired | Cancelled | Lost


@dataclass(frozen=True, slots=True)
class UseKey:
    """From now on messages go out under this key."""

    identifier: str
    instance: str | None


@dataclass(frozen=True, slots=True)
class ForgetKey:
    """This key is not kept any more."""

    identifier: str
    instance: str | None


Action = UseKey | ForgetKey

TRANSITIONS: Final[dict[tuple[Phase, type[Event]], Phase]] = {
    (Phase.ESTABLISHING, Established): Phase.USABLE,
    (Phase.ESTABLISHING, Lost): Phase.CANCELLED,
    (Phase.USABLE, RenewalStarted): Phase.RENEWING,
    (Phase.USABLE, Expired): Phase.EXPIRED,
    (Phase.USABLE, Cancelled): Phase.CANCELLED,
    (Phase.USABLE, Lost): Phase.EXPIRED,
    (Phase.RENEWING, Renewed): Phase.USABLE,
    (Phase.RENEWING, RenewalFailed): Phase.USABLE,
    (Phase.RENEWING, Expired): Phase.RENEWING,  # the answer under way may save it still
    (Phase.RENEWING, Cancelled): Phase.CANCELLED,
    (Phase.RENEWING, Lost): Phase.EXPIRED,
    (Phase.EXPIRED, RenewalStarted): Phase.RENEWING,  # only where allowed (F14)
    (Phase.EXPIRED, RenewalFailed): Phase.EXPIRED,
    (Phase.EXPIRED, Expired): Phase.EXPIRED,
    (Phase.EXPIRED, Cancelled): Phase.CANCELLED,
    (Phase.EXPIRED, Lost): Phase.EXPIRED,
    (Phase.CANCELLED, RenewalFailed): Phase.CANCELLED,
    (Phase.CANCELLED, Expired): Phase.CANCELLED,
    (Phase.CANCELLED, Cancelled): Phase.CANCELLED,
    (Phase.CANCELLED, Lost): Phase.CANCELLED,
}
"""What may happen when, and the phase it leads to. A missing pair is an error: `_illegal`."""

Step = tuple[Conversation, tuple[Action, ...]]


def step(
    state: Conversation,
    event: Event,
    now: Now,
    timers: Timers = _DEFAULTS,
    *,
    testing: bool = False,
) -> Step:
    """The state after `event`, and what is to be done, in order.

    Raises, with nothing changed: `SecurityFailure` for an answer that can't be trusted,
    `UsageError` where the caller is wrong. `testing` allows lifetimes of seconds.
    """
    state = _aged(state, now)
    phase = TRANSITIONS.get((state.phase, type(event)))
    if phase is None:
        raise _illegal(state, event)
    match event:
        case Established():
            return _established(state, phase, event, now, timers)
        case Renewed():
            return _renewed(state, phase, event, now, timers)
        case RenewalStarted(after_expiry):
            if state.phase is Phase.EXPIRED and not (
                after_expiry and not state.lost and state.recoverable(now, timers, testing=testing)
            ):
                raise SecurityContextExpired("the security context has expired: establish a new one")
            return replace(state, phase=phase), ()
        case RenewalFailed(reason):
            return _aged(replace(state, phase=phase, reason=reason), now), ()
        case Lost(reason):
            return replace(state, phase=phase, lost=True, reason=reason), ()
        case Expired() | Cancelled():
            return replace(state, phase=phase), ()


def _aged(state: Conversation, now: Now) -> Conversation:
    if state.phase is Phase.USABLE and now.utc >= state.expires:
        return replace(state, phase=Phase.EXPIRED)
    return state


def _established(state: Conversation, phase: Phase, event: Established, now: Now, timers: Timers) -> Step:
    if not event.identifier:
        raise SecurityFailure("the answer names no security context")
    key = _key(event, now, timers)
    state = replace(
        state,
        phase=phase,
        identifier=event.identifier,
        created=key.created,
        expires=key.expires,
        instances=(key,),
        token=event.token,
        token_id=event.token_id,
    )
    return state, (UseKey(state.identifier, key.instance),)


def _renewed(state: Conversation, phase: Phase, event: Renewed, now: Now, timers: Timers) -> Step:
    if event.identifier != state.identifier:
        raise SecurityFailure("the answer renews another security context")
    key = _key(event, now, timers)
    if any(old.same_as(key) for old in state.instances):
        raise SecurityFailure("the answer has no new key: its Instance or its secret was there before")
    keys = (*state.instances, key)
    gone = tuple(ForgetKey(state.identifier, old.instance) for old in keys[:-MAX_INSTANCES])
    state = replace(
        state,
        phase=phase,
        expires=key.expires,
        instances=keys[-MAX_INSTANCES:],
        token=event.token,
        token_id=event.token_id,
        reason=None,
    )
    return state, (UseKey(state.identifier, key.instance), *gone)


def _key(event: Established | Renewed, now: Now, timers: Timers) -> Instance:
    """The new key, if it is worth anything (SC-05, F15, features RE-75)."""
    if len(event.secret) < MINIMUM_SECRET or len(event.secret) * 8 < event.requested_bits:
        raise SecurityFailure(f"the answer's key has only {len(event.secret) * 8} bits")
    created = now.utc if event.created is None else event.created
    expires = created + timers.token_lifetime if event.expires is None else event.expires
    if created > now.utc + timers.clock_skew:
        raise SecurityFailure(
            f"the token is valid only {created - now.utc:.0f} s from now: compare the clocks"
        )
    if expires <= created or expires <= now.utc:
        raise SecurityFailure("the token has ended before it could be used: compare the clocks")
    return Instance(event.instance, event.secret, created, expires)


def _illegal(state: Conversation, event: Event) -> CastileError:
    """The error of a pair that `TRANSITIONS` doesn't have."""
    where = f"while the security context is {state.phase.value}"
    if isinstance(event, Established | Renewed):
        return SecurityFailure(f"a token that nobody asked for, {where}")
    if isinstance(event, RenewalStarted) and state.phase is Phase.RENEWING:
        return UsageError("a renewal of this security context is under way: one at a time")
    return UsageError(f"{type(event).__name__} {where}")
