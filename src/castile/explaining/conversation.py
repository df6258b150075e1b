"""A captured conversation from its first message to its last.

Messages are opened one after another; what each hands over (an EncryptedKey, both entropies of a
security context, a sequence) serves those behind it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import partial

from castile.endpoint.kinds import Kind
from castile.errors import UsageError
from castile.explaining import words
from castile.explaining.capture import Capture
from castile.explaining.diagnosis import Diagnosis
from castile.explaining.habits import habits
from castile.explaining.keys import Keys
from castile.explaining.opened import Opened, begin, finish
from castile.explaining.report import Explanation, MessageReport, Verdict, verdict
from castile.explaining.rules import Surroundings, broken
from castile.explaining.sequences import Sequences
from castile.messages import trust
from castile.security.keys import ContextKey, p_sha1
from castile.security.trace import Problem, SignatureChecked
from castile.versions import CONVERSATION_OF


@dataclass(slots=True)
class Conversation:
    """What is known once some of the messages were opened."""

    keys: Keys
    messages: list[Opened]
    sequences: Sequences
    paired: bool = False
    """A response's place says little about its time."""
    requests: dict[str, Opened] = field(default_factory=dict)
    """By MessageID, those that came already."""
    planned: dict[str, Opened] = field(default_factory=dict)
    """By MessageID, all requests of the capture."""
    last_request: dict[str, Opened] = field(default_factory=dict)
    """By thread."""
    used: dict[str, set[str]] = field(default_factory=dict)
    """Contexts that have signed, by thread."""
    ended: dict[str, str] = field(default_factory=dict)
    octets: dict[bytes, str] = field(default_factory=dict, repr=False)
    """Files by digest of their octets."""
    signatures: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)


def explain(capture: Capture, keys: Keys, now: float | None = None) -> Explanation:
    """Open and judge every message, each at its own time unless `now` (UTC seconds) is given.

    Raises `UsageError` for a lone file that is no SOAP envelope.
    """
    messages = [begin(captured) for captured in capture.messages]
    if capture.lone and messages[0].alien:
        raise UsageError(f"{messages[0].file} can't be read as a SOAP message: {messages[0].unfit}")
    last = 0.0
    for message in messages:
        last = message.now or last
        message.now = last if now is None else now
    sequences = Sequences(_midway(messages), _ahead(messages))
    conversation = Conversation(keys.copy(), messages, sequences, capture.paired)
    for message in messages:
        if not message.response and (name := _message_id(message)) is not None:
            conversation.planned.setdefault(name, message)
    reports = tuple(_explain(conversation, index) for index in range(len(messages)))
    if not any(report.problems for report in reports):
        reports = tuple(map(partial(_with_unsent, sequences), messages, reports))
    return Explanation(verdict(reports), reports)


def _with_unsent(sequences: Sequences, message: Opened, report: MessageReport) -> MessageReport:
    """The report of a message that acknowledges what, in the end, no message was."""
    texts = tuple(text for each, text in sequences.unsent if each is message)
    if not texts:
        return report
    return replace(report, verdict=_verdict(message, False, True), problems=texts)


def _explain(conversation: Conversation, index: int) -> MessageReport:
    message = conversation.messages[index]
    if message.envelope is None:
        text = f"it can't be read as a SOAP message: {message.unfit}"
        return MessageReport(message.file, None, "failed", problems=(text,), title="not a message")
    _pair(conversation, message)
    around = _surroundings(conversation, index)
    keys = conversation.keys
    keys.wanted.clear()
    finish(message, keys)
    message.wanted = tuple(dict.fromkeys(keys.wanted))
    _learn(conversation, message)
    rules = broken(message, around)
    conversation.sequences.later = len(conversation.messages) - index if conversation.paired else 0
    followed, notes = conversation.sequences.follow(message, thin=around.thin)
    _remember(conversation, message, around)
    diagnosis = Diagnosis(message, keys)
    missing, faults = _failures(message, diagnosis)
    found = (*missing, *rules, *faults, *followed)
    judged = _verdict(message, bool(missing), bool(found))
    if judged == "unprotected":
        notes += missing
        found = tuple(text for text in found if text not in missing)
    warnings = (*message.captured.warnings, *notes)
    return MessageReport(
        file=message.file,
        action=message.action,
        verdict=judged,
        signed=words.signed(message),
        encrypted=words.encrypted(message),
        sequence=conversation.sequences.state_of(message),
        problems=tuple(dict.fromkeys(found)),
        warnings=tuple(dict.fromkeys((*warnings, *message.oddities, *habits(message)))),
        title=words.title(message),
        response=message.response,
        details=(
            *message.captured.details,
            *words.details(message, keys),
            *(("compare", text) for text in diagnosis.digests()),
        ),
    )


def _verdict(message: Opened, missing: bool, wrong: bool) -> Verdict:
    """Of one message (OP-19)."""
    if not message.shape.protected:
        return "unprotected"
    if missing:
        return "unreadable"
    return "failed" if wrong else "verified"


def _failures(message: Opened, diagnosis: Diagnosis) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What `unprotect` objected to: missing keys by name, then the rest with its cause."""
    problems = message.trace.problems
    missing: list[str] = []
    if any(problem.missing_key for problem in problems):
        missing = [f"a key is missing: {name}" for name in message.wanted]
        missing = missing or [problem.text for problem in problems if problem.missing_key]
    faults = [_told(problem, diagnosis) for problem in problems if not problem.missing_key]
    if message.failure is not None and not problems:
        faults.append(str(message.failure))
    return tuple(dict.fromkeys(missing)), tuple(dict.fromkeys(faults))


def _told(problem: Problem, diagnosis: Diagnosis) -> str:
    """A problem with the name of its part and its cause."""
    text, part = problem.text, problem.part
    if part is not None and part.rpartition(":")[2] not in text:
        text = f"{part}: {text}"
    return f"{text}{diagnosis.of(problem)}"


# ---- what stands around a message


def _pair(conversation: Conversation, message: Opened) -> None:
    """The request that a response answers: by RelatesTo, else the one before it."""
    thread = message.captured.thread
    if not message.response:
        conversation.last_request[thread] = message
        if (name := _message_id(message)) is not None:
            conversation.requests.setdefault(name, message)
        return
    related = _related(message)
    if related is not None and related in conversation.planned:
        message.answers = conversation.requests.get(related)
    else:
        message.answers = conversation.last_request.get(thread)


def _surroundings(conversation: Conversation, index: int) -> Surroundings:
    message = conversation.messages[index]
    thread = [each for each in conversation.messages if each.captured.thread == message.captured.thread]
    place = next(number for number, each in enumerate(thread) if each is message)
    before, after = thread[:place], thread[place + 1 :]
    return Surroundings(
        keys=conversation.keys,
        context=any(map(_has_context, before)) or sum(map(_has_context, after)) > 1,
        granted=any(each.exchange == "RSTR/SCT" for each in before),
        established=_established(thread),
        thin=_thin(thread, place),
        full=any(each.shape.full for each in before),
        answer=_answer(message, after),
        later=_too_early(conversation, message, before),
        used=set(conversation.used.get(message.captured.thread, ())),
        ended=conversation.ended,
        octets=conversation.octets,
        signatures=conversation.signatures,
        digest=hashlib.sha256(message.captured.payload).digest(),
        forerunner=None if conversation.paired else _forerunner(message, after),
    )


def _too_early(conversation: Conversation, message: Opened, before: list[Opened]) -> bool:
    """Whether it answers a request that is sent only later.

    Where requests were overtaken on the way the answer is in time, and the request before it is late.
    """
    related = _related(message)
    if not message.response or related not in conversation.planned or related in conversation.requests:
        return False
    last = next((each.created for each in reversed(before) if each.created is not None), None)
    return message.created is not None and last is not None and last <= message.created


def _thin(thread: list[Opened], place: int) -> bool:
    """Whether the conversation has the transport shape: TLS protects it, the context signs the Timestamp.

    The bootstrap decides. Without one, what came before decides, and what comes behind.
    """
    full = sum(each.shape.full for each in thread)
    thin = sum(each.shape.thin for each in thread)
    bootstrap = [each for each in thread if each.bootstrap]
    if bootstrap:
        return full <= thin and not any(each.shape.full for each in bootstrap) and _over_tls(thread)
    before, after = thread[:place], thread[place + 1 :]
    if thread[place].shape.full or any(each.shape.full for each in before):
        return False
    later = sum(each.shape.full for each in after)
    return later <= sum(each.shape.thin for each in after) and _over_tls(thread)


def _over_tls(thread: list[Opened]) -> bool:
    """Whether at least a Timestamp shows that somebody thought of security."""
    return any(each.shape.thin or each.shape.timestamp for each in thread)


def _established(thread: list[Opened]) -> frozenset[str] | None:
    """The contexts that the conversation has handed out; None: it doesn't show all of them."""
    granting = [each for each in thread if each.exchange.startswith("RSTR")]
    if not (thread[0].bootstrap or thread[0].handshake):
        return None
    names: set[str] = set()
    for each in granting:
        if each.granted is not None:
            names.add(each.granted)
        elif each.exchange in ("RSTR/SCT", "RSTRC/IssueFinal") and each.finished:
            return None
    return frozenset(names) if names else None


def _forerunner(message: Opened, after: list[Opened]) -> str | None:
    """The file of a later message whose signature this one has, if that one had it by right.

    Both have the same Timestamp; in front of a message that is older it is out of place.
    """
    if message.shape.seal is None:
        return None
    for number, each in enumerate(after):
        if each.shape.seal == message.shape.seal and each.captured.payload != message.captured.payload:
            between = [other.created for other in after[:number] if other.created is not None]
            if message.created is not None and any(time < message.created for time in between):
                return each.file
            return None
    return None


def _has_context(message: Opened) -> bool:
    return message.shape.context is not None or message.bootstrap


def _answer(message: Opened, after: list[Opened]) -> Opened | None:
    """What answers a request: by RelatesTo, else a response right behind it."""
    if message.response:
        return None
    name = _message_id(message)
    for each in after:
        if each.response and name is not None and _related(each) == name:
            return each
    return after[0] if after and after[0].response and _related(after[0]) is None else None


def _related(message: Opened) -> str | None:
    return message.addressing.relates_to if message.addressing is not None else None


def _message_id(message: Opened) -> str | None:
    return message.addressing.message_id if message.addressing is not None else None


def _midway(messages: list[Opened]) -> bool:
    """The capture begins in the middle of a conversation: no beginning, and a sequence at once."""
    beginnings = (Kind.CREATE_SEQUENCE, Kind.CREATE_SEQUENCE_RESPONSE)
    if any(each.kind in beginnings or each.bootstrap or each.handshake for each in messages):
        return False
    first = next((each for each in messages if each.envelope is not None), None)
    if first is None:
        return False
    headers = first.reliability
    return bool(headers.sequence or headers.acknowledgements or headers.ack_requested) or (
        first.kind in (Kind.CLOSE_SEQUENCE, Kind.TERMINATE_SEQUENCE)
    )


def _ahead(messages: list[Opened]) -> dict[str, int]:
    """The highest number of each sequence in the whole capture."""
    highest: dict[str, int] = {}
    for message in messages:
        header = message.reliability.sequence
        if header is not None:
            highest[header.identifier] = max(header.number, highest.get(header.identifier, 0))
    return highest


# ---- what a message hands over


def _learn(conversation: Conversation, message: Opened) -> None:
    """Keys for the messages to come: EncryptedKeys, and security contexts from their RSTR."""
    for sealed in message.trace.sealed:
        conversation.keys.learn_sealed(sealed, f"carried by {message.file}")
    answer, asked = message.body, message.answers
    if not isinstance(answer, trust.RequestSecurityTokenResponse) or message.trust is None:
        return
    if answer.token is None:
        return
    request = asked.body if asked is not None else None
    secret, origin = answer.proof_secret, f"sent whole in {message.file}"
    if secret is None and asked is not None and isinstance(request, trust.RequestSecurityToken):
        if request.entropy is None or answer.entropy is None or not answer.computed_key:
            return
        size = min(answer.key_size or request.key_size or 256, 1024) // 8
        secret = p_sha1(request.entropy, answer.entropy, size)
        origin = f"{size} bytes of P_SHA1(entropy of {asked.file}, entropy of {message.file})"
    if secret is not None:
        edition = CONVERSATION_OF[message.trust.namespace]
        key = ContextKey(answer.token.identifier, answer.token.instance, secret, edition, "", b"")
        conversation.keys.learn_context(key, origin)


def _remember(conversation: Conversation, message: Opened, around: Surroundings) -> None:
    """What later messages must not repeat, and which contexts are in use or over."""
    conversation.octets.setdefault(around.digest, message.file)
    verified = message.verified
    if verified is None:
        return
    used = conversation.used.setdefault(message.captured.thread, set())
    for signature in verified.signatures:
        if around.forerunner is None:
            conversation.signatures.setdefault(signature.value, (message.file, around.digest))
        if signature.key.kind == "context":
            used.add(signature.key.name)
    body = message.body
    if (
        isinstance(body, trust.RequestSecurityToken)
        and body.request_type == "Cancel"
        and body.cancel_target is not None
    ):
        named = verified.resolve_context(body.cancel_target)
        if named is not None and any(
            isinstance(finding, SignatureChecked) and finding.key is not None and finding.key.name == named
            for finding in message.trace.findings
        ):
            conversation.ended[named] = message.file
