"""What an incoming message must satisfy, as its receiver says."""

from __future__ import annotations

from dataclasses import dataclass, field

from castile.policy import ProtectionPolicy
from castile.security.anchors import Anchors
from castile.versions import Conversation


@dataclass(frozen=True, slots=True)
class Expectation:
    """What an incoming message must satisfy."""

    policy: ProtectionPolicy | None
    """None: whatever is there, in any known suite, with no required part (for `explain`)."""
    edition: Conversation | None
    """None: both."""
    request: bool
    encrypted_body: bool | None = None
    """True: what the policy has encrypted must be; False and None: either (features CO-09)."""
    trust: Anchors = field(default_factory=Anchors)
    """Whose certificates may sign. Without a policy nobody is asked."""
    confirmations: tuple[tuple[bytes, ...], ...] | None = field(default=None, repr=False)
    """Signature values of each attempt at the request that a response may confirm; None: unknown."""
    tls: bool = False
    """The message came over TLS: as a request from somebody, as a response from the server whose
    certificate was verified."""
    clear_password: bool = False
    """A password as text may come where neither TLS nor encryption covers it."""
    legacy: bool = False
    """RSA 1.5 may be read where the policy's suite asks for it."""

    @property
    def strict(self) -> bool:
        """Whether the header must be in the strict layout (WS-SecurityPolicy 1.2, 6.7)."""
        return self.policy is not None and self.policy.layout == "Strict"
