"""A recorded conversation in memory, to be changed and explained."""

from __future__ import annotations

import json
from base64 import b64encode
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

from lxml import etree

from castile.explaining.capture import Capture, Captured, capture
from castile.explaining.conversation import explain
from castile.explaining.keys import Keys, load
from castile.explaining.opened import Opened, begin, finish
from castile.explaining.report import Explanation
from castile.messages import trust
from castile.security.keys import p_sha1
from castile.versions import WSSC, WSSC_1_3, WSSE
from tests.explaining.insider import Context

SECURITY = f"{{{WSSE}}}Security"


@dataclass
class Recording:
    """Messages by file name, in order, and the keys that open them."""

    messages: dict[str, bytes]
    keys: Keys
    opened: dict[str, Opened] = field(default_factory=dict)
    known: Keys = field(default_factory=Keys)
    """All keys, those that the conversation hands over too; filled by `open`."""

    @classmethod
    def of(cls, folder: Path, *more: bytes) -> Recording:
        """Read a folder; secrets that a handshake hides come from its ``conversation.json``."""
        keys = load([folder.parent / "explain-keys.json", *more])
        if "-nego-" in folder.name:
            keys.add(load([handshake_keys(folder)]))
        return cls({each.file: each.payload for each in capture([folder]).messages}, keys)

    def changed(self, file: str, payload: bytes) -> Recording:
        """The same conversation with one message replaced, or added under a new name."""
        return self.with_messages(dict(sorted({**self.messages, file: payload}.items())))

    def with_messages(self, messages: dict[str, bytes]) -> Recording:
        """Other messages, the same keys."""
        return replace(self, messages=messages, opened={})

    def with_keys(self, keys: Keys) -> Recording:
        """The same messages, other keys."""
        return replace(self, keys=keys, opened={})

    def explain(self, now: float | None = None) -> Explanation:
        """What `castile explain` says of the folder."""
        items = tuple(_captured(name, payload) for name, payload in self.messages.items())
        return explain(Capture(items), self.keys, now)

    def open(self) -> dict[str, Opened]:
        """Every message, opened in order."""
        if not self.opened:
            keys = self.keys.copy()
            requests: dict[str, Opened] = {}
            for name, payload in self.messages.items():
                message = begin(_captured(name, payload))
                finish(message, keys)
                _hand_over(message, requests, keys)
                self.opened[name] = message
            self.known = keys
        return self.opened

    def contexts(self) -> dict[str, Context]:
        """The security context that signed each message, for messages that one signed."""
        found: dict[str, Context] = {}
        for file, message in self.open().items():
            for signature in message.verified.signatures if message.verified is not None else ():
                if signature.key.kind == "context" and not signature.endorsing:
                    key = self.known.contexts[signature.key.name, signature.key.instance]
                    rows = [row for row in WSSC.values() if row.namespace.encode() in self.messages[file]]
                    edition = rows[0] if rows else WSSC_1_3
                    found[file] = Context(key.identifier, key.secret, edition, key.instance)
        return found


def handshake_keys(folder: Path) -> bytes:
    """A key file with the contexts of a recording."""
    secrets: dict[str, dict[str, str]] = {}
    for context in json.loads((folder / "conversation.json").read_text())["security_contexts"]:
        octets = b64encode(bytes.fromhex(context["secret_hex"])).decode()
        secrets.setdefault(context["identifier"], {})[context.get("instance") or ""] = octets
    return json.dumps({"contexts": secrets}).encode()


def _captured(name: str, payload: bytes) -> Captured:
    head = name.partition("-")[0]
    return Captured(name, payload, "response" in name, "", int(head) if head.isdigit() else None)


def _hand_over(message: Opened, requests: dict[str, Opened], keys: Keys) -> None:
    for sealed in message.trace.sealed:
        keys.sealed[sealed.sha1] = sealed
    headers = message.addressing
    if headers is None:
        return
    if headers.message_id is not None:
        requests[headers.message_id] = message
    asked, answer = requests.get(headers.relates_to or ""), message.body
    if asked is None or not isinstance(answer, trust.RequestSecurityTokenResponse) or answer.token is None:
        return
    if isinstance(asked.body, trust.RequestSecurityToken) and asked.body.entropy and answer.entropy:
        secret = p_sha1(asked.body.entropy, answer.entropy, (answer.key_size or 256) // 8)
        text = {answer.token.instance or "": b64encode(secret).decode()}
        keys.add(load([json.dumps({"contexts": {answer.token.identifier: text}}).encode()]))


def plain(message: Opened) -> etree._Element:
    """The envelope as it was before it was protected: without Security, its Body in clear."""
    assert message.envelope is not None
    root = deepcopy(message.envelope.root)
    header, body = root[0], root[1]
    for block in list(header):
        if block.tag == SECURITY:
            header.remove(block)
    if message.verified is not None:
        for child in list(body):
            body.remove(child)
        for child in message.verified.body:
            body.append(deepcopy(child))
    return root


def blamed(explanation: Explanation) -> str | None:
    """The file of the first message with a problem."""
    return explanation.problems[0][0] if explanation.problems else None
