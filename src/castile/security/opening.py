"""What is encrypted in one message: which key opens it, and where it may stand.

Nothing is opened but what stands where something may be encrypted, under a key and an algorithm
that were checked before (features MS-71).
"""

from __future__ import annotations

from typing import Literal

from castile.errors import SecurityFailure
from castile.messages.security import EncryptedData, EncryptedKey
from castile.security.encryption import CIPHERS, decrypt
from castile.security.expectation import Expectation
from castile.security.tokens import Entry, Key, Tokens
from castile.security.trace import Decrypted, Trace


class Opening:
    """The EncryptedData of one message, and the uses of its keys."""

    __slots__ = ("_uses", "encrypted", "expectation", "listed", "placed", "tokens", "trace")

    def __init__(self, tokens: Tokens, expectation: Expectation, trace: Trace | None) -> None:
        self.tokens, self.expectation, self.trace = tokens, expectation, trace
        self.encrypted: list[tuple[str, Key]] = []
        """Names of the parts that were encrypted, and under which keys."""
        self.listed: dict[str, int] = {}
        """Ids that a list says are encrypted, and the place of that list in the header."""
        self.placed: set[str] = set()
        """Ids of EncryptedData that stand where something may be encrypted."""
        self._uses: dict[tuple[bytes, bool], tuple[str, str]] = {}

    def decrypted(self, data: EncryptedData, place: int, part: str) -> tuple[bytes, Key]:
        """The plaintext octets, after algorithm and key were checked."""
        policy = self.expectation.policy
        allowed = CIPHERS.keys() if policy is None else (policy.suite.encryption,)
        if data.algorithm not in CIPHERS or data.algorithm not in allowed:
            raise SecurityFailure(f"the encryption algorithm {data.algorithm} isn't allowed here", part=part)
        try:
            key = self.tokens.key(data.key, place) if data.key is not None else self._listing(data, place)
        except SecurityFailure as error:
            self.noted(Decrypted(part, False, None, data.algorithm, data.id, error.missing_key))
            raise
        self.bind(key, "encryption", data.algorithm)
        try:
            return decrypt(key.octets, data.algorithm, data.cipher, part), key
        except SecurityFailure:
            self.noted(Decrypted(part, False, key.identity, data.algorithm, data.id))
            raise

    def _listing(self, data: EncryptedData, place: int) -> Key:
        """The EncryptedKey that lists this data, where the data names no key."""
        for entry in self.tokens.entries.values():
            if isinstance(entry.token, EncryptedKey) and data.id in entry.token.references:
                return self.tokens.resolve(entry.token.as_reference(), place, 0)
        raise SecurityFailure("an EncryptedData names no key", part="xenc:EncryptedData")

    def bind(self, key: Key, purpose: Literal["signature", "encryption"], algorithm: str) -> None:
        """A derived key serves one algorithm, another key one algorithm a purpose (features SC-19)."""
        shared = not key.derived or self.expectation.policy is None
        slot = (key.octets, purpose == "signature" if shared else False)
        if self._uses.setdefault(slot, (purpose, algorithm)) != (purpose, algorithm):
            raise SecurityFailure("one key is used for two purposes or algorithms", part="ds:KeyInfo")

    def opened(self, name: str, data: EncryptedData, key: Key) -> None:
        """This part was opened."""
        self.encrypted.append((name, key))
        self.noted(Decrypted(name, True, key.identity, data.algorithm, data.id))

    def noted(self, finding: Decrypted) -> None:
        """Keeps a finding, where somebody wants findings."""
        if self.trace is not None:
            self.trace.add(finding)

    def listing_place(self, entry: Entry) -> int | None:
        """The place of the list that names an entry which came encrypted; None: no list does."""
        name = entry.cipher.get("Id") if entry.cipher is not None else None
        return self.listed.get(name or "")
