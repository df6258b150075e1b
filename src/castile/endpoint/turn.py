"""One step of the walk in, and what the rules of both sides share.

A `Turn` is alive for one step of the store. Its methods load a record and prove possession in
one breath, so that no rule can read a sequence's state for a message that may not name it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, TypeVar

from castile.clock import Now
from castile.endpoint.binding import prove_possession
from castile.endpoint.inbound import Inbound
from castile.endpoint.kinds import Kind
from castile.endpoint.outbound import Key, Outgoing, fault_message
from castile.endpoint.party import Party
from castile.errors import SecurityFailure, SOAPFault, Violation
from castile.messages import reliability, trust
from castile.messages.soap import Header
from castile.protocol import issuer, source
from castile.protocol.actions import Acknowledge, Fail, Purge, Resend, SourceAction
from castile.protocol.destination import Destination
from castile.protocol.faults import RM_REASONS, conversation_violation, unknown_sequence
from castile.protocol.source import Source
from castile.security.tokens import bad_context
from castile.security.trace import KeyIdentity
from castile.store import Transaction
from castile.store.records import ContextRecord, DestinationRecord, SourceRecord
from castile.versions import WST, Reliability

T = TypeVar("T")
SWEPT_ROWS: Final = 256
"""Old rows that go, at most, in one step."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A verified message meeting the store."""

    party: Party
    tx: Transaction
    inbound: Inbound
    now: Now

    @property
    def edition(self) -> Reliability:
        """The endpoint's edition of WS-ReliableMessaging."""
        row = self.party.policy.reliability
        if row is None:
            raise Violation(
                "a message of WS-ReliableMessaging on an endpoint without it",
                fault=action_not_supported(self.party, self.inbound.addressing.action),
            )
        return row

    @property
    def key(self) -> Key | None:
        """What protects the answer: the key that the message proved."""
        return self.inbound.verified.reply_key

    def body(self, kind: type[T]) -> T:
        """The typed body, which `Inbound.read` has parsed by the same action."""
        body = self.inbound.body
        if not isinstance(body, kind):
            raise Violation(f"the Body isn't {kind.__name__}")
        return body

    def context(self) -> str | None:
        """Identifier of the context whose key signed the message; None without security."""
        signer = self._signer()
        return signer.name if signer else None

    def proof(self) -> KeyIdentity | None:
        """The context's key that proves a renewal: it endorses the message, or signs it (SC-22)."""
        endorsers = (each.key for each in self.inbound.verified.signatures if each.endorsing)
        return next((key for key in endorsers if key.kind == "context"), None) or self._signer()

    def _signer(self) -> KeyIdentity | None:
        verified = self.inbound.verified  # over TLS a context may endorse another's signature too
        signers = (each.key for each in verified.signatures if verified.transport or not each.endorsing)
        return next((key for key in signers if key.kind == "context"), None)

    def principal(self) -> str | None:
        """Who sent the message: whom the bootstrap of its context authenticated (CO-20), or whom it
        authenticates itself."""
        record = None if self.inbound.kind.bootstrap else self.context_record()
        return record.principal if record else self.inbound.verified.principal

    def wants_reply(self) -> bool:
        """Whether the sender waits on this exchange: it gave an anonymous ReplyTo.

        ReplyTo left out says the same in WS-Addressing 1.0 (core, 3.4); but so do one-way messages
        of many peers, hence then the application must have declared that it answers.
        """
        headers, edition = self.inbound.addressing, self.inbound.edition
        answers = self.party.answers(headers.action)
        if not self.inbound.addressed:  # HTTP's own request and response
            return answers is not False
        if headers.reply_to is None:
            return answers is True and headers.message_id is not None and not edition.reply_to_required
        return answers is not False and headers.reply_to.address == edition.anonymous

    def response(self, kind: Kind, body: bytes, headers: tuple[Header, ...] = ()) -> Outgoing:
        """A response of the machinery to this message, under its own key.

        RM 1.0 lets LastMessage go without MessageID, so its answer relates to nothing.
        """
        policy = self.party.policy
        if kind.value.startswith("RST"):
            action = policy.trust.action(kind.value) if policy.trust else kind.value
        else:
            action = self.edition.action(kind.value)
        return Outgoing(
            kind,
            action,
            body,
            headers,
            relates_to=self.inbound.addressing.message_id,
            key=self.key,
            edition=self.inbound.edition,
        )

    def fault(self, fault: SOAPFault, headers: tuple[Header, ...] = ()) -> Outgoing:
        """A fault that goes out with a commit, secured by this message's key."""
        message = fault_message(
            self.party, fault, relates_to=self.inbound.addressing.message_id, key=self.key
        )
        return replace(message, headers=message.headers + headers)

    def check_requested(self) -> None:
        """AckRequested that rides on a message is proven as its own kind; the answer carries the
        acknowledgement anyway."""
        for header in self.inbound.reliability.ack_requested:
            self.destination(header.identifier, Kind.ACK_REQUESTED)

    def context_record(self) -> ContextRecord | None:
        """The stored context whose key signed the message."""
        identifier = self.context()
        return self.stored_context(identifier) if identifier is not None else None

    def stored_context(self, identifier: str) -> ContextRecord | None:
        """A context of this endpoint."""
        return self.party.context(self.tx, identifier)

    def recheck(self) -> ContextRecord | None:
        """The context that verified this message, as it is now: keys were read before the step.

        Raises the edition's BadContextToken, in the shape of WS-SC 9, where it is gone, was
        cancelled or is past its life, and RenewNeeded where only its life is over (SC-28). The
        key of a renewal is judged by its own rule; a cancelled context may be cancelled again.
        """
        key = self.proof() if self.inbound.kind is Kind.RENEW else self._signer()
        if key is None:
            return None
        record = self.stored_context(key.name)
        if record is None or (record.ended is not None and not self._cancels(key.name)):
            self.party.keyring.forget(key.name)
            raise unusable_context(self.party, "the context is unknown here, or was cancelled")
        state = record.state
        if isinstance(state, issuer.Context):
            if self.inbound.kind is not Kind.RENEW and record.ended is None:
                self._use(record, state, key.instance)
        elif not state.recoverable(self.now, self.party.settings.timers, testing=self.party.settings.testing):
            raise unusable_context(self.party, "the context has ended")
        return record

    def _cancels(self, context: str) -> bool:
        """Whether the message asks to cancel this context."""
        body = self.inbound.body
        if self.inbound.kind is not Kind.CANCEL or not isinstance(body, trust.RequestSecurityToken):
            return False
        target = body.cancel_target
        return target is not None and self.inbound.verified.resolve_context(target) == context

    def _use(self, record: ContextRecord, state: issuer.Context, instance: str | None) -> None:
        """This key of the context was used for this message."""
        used = issuer.Used(instance, recovery=self._recovers())
        try:
            after, _ = issuer.step(state, used, self.now, self.party.settings)
        except Violation as error:
            if error.fault.subcode is not None and error.fault.subcode[1] == "RenewNeeded":
                raise  # under the key that only has to be renewed
            raise unusable_context(self.party, str(error)) from None
        if after != state:
            self.tx.save_context(replace(record, state=after))

    def _recovers(self) -> bool:
        """Whether the message makes nothing new: what an expired token still serves (F12).

        That is a number of ours again, one that fills a gap, or one that was sent before: a
        repetition asks what has come.
        """
        headers = self.inbound.reliability
        if headers.sequence is None:
            return self.inbound.kind not in (Kind.CREATE_SEQUENCE, Kind.APPLICATION)
        if self.inbound.kind is Kind.LAST_MESSAGE and not self.inbound.content:
            return True
        identifier = headers.sequence.identifier
        if any(header.identifier == identifier for header in headers.ack_requested):
            return True
        known = self.tx.destination(identifier)
        return known is not None and headers.sequence.number <= known.state.received.upper

    def destination(self, identifier: str, kind: Kind) -> DestinationRecord:
        """The sequence that the message names, once possession of its context is proven.

        Raises `Violation` (UnknownSequence) or `SecurityFailure`.
        """
        record = self.tx.destination(identifier)
        if record is None or record.side != self.party.side or record.endpoint != self.party.realm:
            raise unknown_sequence(self.edition.namespace, identifier)
        self._check_dialect(record.state, identifier)
        prove_possession(self.inbound.verified, kind, record.state.context)
        return record

    def source(self, identifier: str, kind: Kind) -> SourceRecord:
        """As `destination`, for a sequence of ours in the other direction."""
        record = self.tx.source_of(identifier, side=self.party.side, endpoint=self.party.realm)
        if record is None:
            raise unknown_sequence(self.edition.namespace, identifier)
        self._check_dialect(record.state, identifier)
        prove_possession(self.inbound.verified, kind, record.state.context)
        return record

    def _check_dialect(self, state: Source | Destination, identifier: str) -> None:
        """A sequence is unknown in any editions but its own (RM-03)."""
        if state.dialect not in ("", self.party.policy.dialect):
            raise unknown_sequence(self.edition.namespace, identifier)

    def acknowledgements(self) -> list[str]:
        """Apply every SequenceAcknowledgement header; MessageIDs newly acknowledged.

        A piggy-backed one is proven by the parts of its own kind, under the same signature as
        the message that it rides on (F08).
        """
        done: list[str] = []
        for header in self.inbound.reliability.acknowledgements:
            record = self.source(header.identifier, Kind.ACKNOWLEDGEMENT)
            event = source.Acknowledged(header.ranges, header.final, header.nacks)
            state, actions = source.step(record.state, event, self.now)
            done += self.carry_out(replace(record, state=state), actions)
        return done

    def carry_out(self, record: SourceRecord, actions: tuple[SourceAction, ...]) -> list[str]:
        """`carry_out` in this turn."""
        return carry_out(self.tx, record, actions, self.now)

    def make_room(self) -> None:
        """What nothing can refer to any more goes (SC-33, ST-12): each new key and each new sequence
        makes room for the next."""
        self.tx.sweep(self.now, SWEPT_ROWS)

    def prove(self, context: str | None) -> None:
        """This message proves possession of `context` as its kind must."""
        kind = self.inbound.kind
        if kind is Kind.APPLICATION and self.inbound.reliability.sequence is None:
            kind = Kind.PLAIN
        prove_possession(self.inbound.verified, kind, context)


def carry_out(
    tx: Transaction, record: SourceRecord, actions: tuple[SourceAction, ...], now: Now
) -> list[str]:
    """Save a source and do what its machine asked for; MessageIDs newly acknowledged."""
    done: list[str] = []
    for action in actions:
        match action:
            case Purge(ranges):
                done += tx.mark_acknowledged(record.state.key, ranges)
            case Resend(numbers):
                for row in tx.outbox(record.state.key):
                    if row.number in numbers:
                        tx.update_outbox(row.message_id, due=now.utc)
            case Fail():
                for row in tx.outbox(record.state.key):  # kept for whoever decides, not sent
                    tx.update_outbox(row.message_id, due=None)
            case _:
                pass
    if record.state.ended and record.ended is None:
        record = replace(record, ended=now.utc)
    tx.save_source(record)
    return done


def acknowledgement(identifier: str, action: Acknowledge, edition: Reliability) -> Header:
    """The header that says what was accepted; before any message, None (1.1) or 0-0 (1.0)."""
    return reliability.SequenceAcknowledgement(
        identifier, action.ranges, none=not action.ranges, final=action.final and edition.can_close
    ).render(edition)


def unusable_context(party: Party, cause: str) -> SecurityFailure:
    """The refusal of a message whose context isn't usable here (WS-SC 9, SC-40)."""
    edition = party.policy.conversation
    return SecurityFailure(cause) if edition is None else bad_context(edition, cause)


def action_not_supported(party: Party, action: str) -> SOAPFault:
    """wsa:ActionNotSupported (WS-Addressing SOAP binding, 6.4.4)."""
    edition = party.policy.addressing
    return SOAPFault(
        "Sender",
        f"The {action} cannot be processed at the receiver.",
        (edition.namespace, "ActionNotSupported"),
        action=edition.fault_action,
    )


def reliability_required(party: Party, action: str) -> SOAPFault:
    """What a reliable endpoint says to a message that isn't of its edition: WSRMRequired in 1.1,
    which 1.0 hasn't (WS-RM 1.2, 4.8; WCF)."""
    row = party.policy.reliability
    if row is None or not row.wsrm_required:
        return action_not_supported(party, action)
    name = (row.namespace, row.wsrm_required)
    return SOAPFault("Sender", RM_REASONS[row.wsrm_required], name, action=row.fault_action)


def other_edition(party: Party, action: str) -> Violation:
    """The refusal of a message of the machinery in an edition that is off here (F31)."""
    conversation = party.policy.conversation
    if conversation is not None and any(action.startswith(f"{namespace}/") for namespace in WST):
        cause = f"a request for a token of another edition than {conversation.name}"
        return conversation_violation(conversation.namespace, "UnsupportedContextToken", cause)
    fault = reliability_required(party, action)
    return Violation("the message is of an edition that this endpoint doesn't take", got=action, fault=fault)


def destination_unreachable(party: Party) -> SOAPFault:
    """wsa:DestinationUnreachable (WS-Addressing SOAP binding, 6.4.3): To names another service."""
    edition = party.policy.addressing
    return SOAPFault(
        "Sender",
        "No route can be determined to reach [destination]",
        (edition.namespace, "DestinationUnreachable"),
        action=edition.fault_action,
    )
