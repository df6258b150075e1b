"""CPU time of `protect` and `unprotect`, message by message, in one thread.

The message is the application's as RM over SC sends it: Sequence, SequenceAcknowledgement, every
addressing header, Timestamp and Body under one signature; Body and Signature encrypted. Each one
differs in numbers, identifiers, keys and Body. `unprotect` begins with the bytes: the parse of the
envelope is in it. Every message is verified and its Body compared with what was sent.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from statistics import median

import workload

from castile.clock import Now, system
from castile.config import Settings
from castile.endpoint.keyring import Keyring
from castile.messages import addressing, reliability, soap
from castile.messages.addressing import EPR, Headers
from castile.messages.conversation import SecurityContextToken
from castile.policy import ProtectionPolicy
from castile.policy.suites import SUITES
from castile.security import ContextKey, Expectation, Protection, Verified, protect, unprotect
from castile.versions import FAMILIES, SOAP_1_2, WSA_1_0
from castile.xml import parse

SIZES = (1_000, 10_000, 100_000)
CONTEXT = "urn:uuid:6b3a1b52-2f0c-4f8a-9a62-5ad2b1f0c001"
SEQUENCE = "urn:uuid:5e000000-0000-4000-8000-000000000001"
OFFERED = "urn:uuid:5e000000-0000-4000-8000-000000000002"


@dataclass
class Case:
    """One suite, direction and size, and what its rounds gave (µs per message)."""

    suite: str
    request: bool
    size: int
    wire: int = 0
    """Bytes of the protected message."""
    protected: list[float] = field(default_factory=list)
    unprotected: list[float] = field(default_factory=list)

    def row(self) -> dict[str, object]:
        """The figures, ready for JSON."""
        return {
            "suite": self.suite,
            "direction": "request" if self.request else "response",
            "body_bytes": self.size,
            "wire_bytes": self.wire,
            "protect_us": {"min": min(self.protected), "median": median(self.protected)},
            "unprotect_us": {"min": min(self.unprotected), "median": median(self.unprotected)},
        }


class Bench:
    """Keys and policies of one conversation, and a count of its messages."""

    def __init__(self) -> None:
        family = FAMILIES["1.3"]
        self.conversation, self.rm = family.conversation, family.reliability
        self.settings = Settings()
        token = SecurityContextToken(CONTEXT, None, "uuid-sct-1").render(self.conversation)
        self.key = ContextKey(CONTEXT, None, os.urandom(32), self.conversation, "uuid-sct-1", token)
        self.keys = Keyring(load=lambda _: [self.key])
        self.count = 0

    def message(self, case: Case) -> soap.Message:
        """The next message of the conversation."""
        self.count += 1
        number = self.count
        unique = f"urn:uuid:0b1c9f00-0000-4000-8000-{number:012x}"
        sequence, other = (SEQUENCE, OFFERED) if case.request else (OFFERED, SEQUENCE)
        if case.request:
            headers = Headers(
                workload.ECHO, "http://127.0.0.1:8000/", unique, reply_to=EPR(WSA_1_0.anonymous)
            )
        else:
            headers = Headers(f"{workload.ECHO}Response", relates_to=unique)
        acknowledgement = reliability.SequenceAcknowledgement(other, ((1, number),))
        return soap.Message(
            SOAP_1_2,
            (
                acknowledgement.render(self.rm),
                reliability.Sequence(sequence, number).render(self.rm),
                *addressing.render(headers, WSA_1_0),
            ),
            workload.body(case.size, number),
        )

    def round(self, cases: list[Case]) -> None:
        """All cases in turn, the first time after messages that warm up what is compiled and cached once."""
        for case in cases:
            if not case.protected:
                self.measure(case, 3)
                case.protected.clear()
                case.unprotected.clear()
            self.measure(case, max(4, 40_000 // case.size))

    def measure(self, case: Case, count: int) -> None:
        """Protect and unprotect so many new messages, and check them."""
        policy = ProtectionPolicy("context", SUITES[case.suite])
        protection = Protection(policy, self.conversation, self.key, case.request)
        expectation = Expectation(policy, self.conversation, case.request, encrypted_body=True)
        limits, timers = self.settings.limits, self.settings.timers
        messages = [self.message(case) for _ in range(count)]
        now: Now = system()
        start = time.thread_time_ns()
        payloads = [protect(message, protection, now, os.urandom, timers).payload for message in messages]
        between = time.thread_time_ns()
        found = [
            unprotect(
                soap.parse(parse(payload, limits), limits, len(payload)),
                self.keys, expectation, now, limits, timers,
            )
            for payload in payloads
        ]  # fmt: skip
        end = time.thread_time_ns()
        for message, verified in zip(messages, found, strict=True):
            _check(message, verified)
        case.wire = len(payloads[0])
        case.protected.append((between - start) / count / 1_000)
        case.unprotected.append((end - between) / count / 1_000)


def _check(message: soap.Message, verified: Verified) -> None:
    if verified.body_content != message.body or len(verified.headers) != len(message.headers):
        raise SystemExit("bench: a message isn't what was sent: its figures mean nothing")


def cases() -> list[Case]:
    """A case for every row of the table."""
    return [
        Case(suite, request, size)
        for suite in ("Basic256", "Basic256Sha256")
        for request in (True, False)
        for size in SIZES
    ]
