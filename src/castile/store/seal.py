"""Sealing: what keeps the store's secrets unreadable and its rows in their places.

From the 32-byte key-encryption key and the store's own id three keys are derived: for sealed
columns, for the keyed checksum of each row, and for look-ups of what must not be readable. Each
sealed value has a key of its own, derived with a random salt, so that the number of rows under
one AES-GCM key is never a question; its associated data are the table, the column, the row's
identity and its immutable columns (features F36, ST-20). A sealed value is::

    01 | key id (4) | salt (16) | nonce (12) | AES-256-GCM ciphertext and tag

While a store goes from one key-encryption key to another it has two: the new one seals, and both
open (`castile.store.keyring`, features ST-21).
"""

from __future__ import annotations

import binascii
import hmac
import logging
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from castile.errors import StoreFull, StoreInvalid, UsageError

if TYPE_CHECKING:
    from castile.store import Seal

KEY_BYTES: Final = 32
ENVIRONMENT: Final = "CASTILE_STORE_KEY"
_VERSION: Final = b"\x01"
_HEAD: Final = 1 + 4
_SALT: Final = 16
_NONCE: Final = 12
_FRAME: Final = _HEAD + _SALT + _NONCE

security_log = logging.getLogger("castile.security")


class BrokenSeal(Exception):
    """A sealed value was changed, moved, or sealed with another key."""


class Sealer:
    """Seals and opens values of one store under one key-encryption key."""

    __slots__ = ("_check", "_lookup", "_rows", "head")

    def __init__(self, key: bytes, store: bytes) -> None:
        def derive(purpose: bytes) -> bytes:
            return blake2b(store, key=key, person=purpose, digest_size=KEY_BYTES).digest()

        self._rows = derive(b"castile rows")
        self._check = derive(b"castile check")
        self._lookup = derive(b"castile lookup")
        self.head = _VERSION + derive(b"castile key id")[:4]
        """How everything begins that this key seals."""

    @property
    def id(self) -> str:
        """The key's id, which may be told to anybody."""
        return key_id(self.head)

    def __repr__(self) -> str:
        return "Sealer()"

    def seal(self, plain: bytes, identity: bytes) -> bytes:
        """A value that only opens at the same place."""
        random = os.urandom(_SALT + _NONCE)
        row_key = blake2b(random[:_SALT], key=self._rows, digest_size=KEY_BYTES).digest()
        return self.head + random + AESGCM(row_key).encrypt(random[_SALT:], plain, identity)

    def open(self, sealed: bytes, identity: bytes) -> bytes:
        """The value.

        BrokenSeal: it was changed, comes from another place, or the key is another one.
        """
        if sealed[:_HEAD] != self.head:
            raise BrokenSeal("another key sealed it, or it is no sealed value")
        salt, nonce = sealed[_HEAD : _HEAD + _SALT], sealed[_HEAD + _SALT : _FRAME]
        row_key = blake2b(salt, key=self._rows, digest_size=KEY_BYTES).digest()
        try:
            return AESGCM(row_key).decrypt(nonce, sealed[_FRAME:], identity)
        except (InvalidTag, ValueError) as error:
            raise BrokenSeal("its seal is broken") from error

    def checksum(self, row: bytes) -> bytes:
        """A keyed checksum of 16 bytes over a row's readable columns."""
        return blake2b(row, key=self._check, digest_size=16).digest()

    def verify(self, row: bytes, checksum: bytes) -> None:
        """BrokenSeal: the row's readable columns aren't those that were written."""
        if not hmac.compare_digest(self.checksum(row), checksum):
            raise BrokenSeal("its checksum is wrong")

    def lookup(self, text: str) -> bytes:
        """What stands for a text that is looked up, but must not be readable."""
        return blake2b(text.encode("utf-8"), key=self._lookup, digest_size=16).digest()


class Ring:
    """The keys of one store: the first one seals, and all of them open."""

    __slots__ = ("_others", "checksum", "head", "id", "lookup", "seal")

    def __init__(self, sealing: Sealer, *others: Sealer) -> None:
        self._others = (sealing, *others)
        self.id, self.head = sealing.id, sealing.head
        self.seal, self.checksum, self.lookup = sealing.seal, sealing.checksum, sealing.lookup

    def __repr__(self) -> str:
        return "Ring()"

    def open(self, sealed: bytes, identity: bytes) -> bytes:
        """As `Sealer.open`, with the key that sealed it."""
        for sealer in self._others:
            if sealed[:_HEAD] == sealer.head:
                return sealer.open(sealed, identity)
        raise BrokenSeal("another key sealed it, or it is no sealed value")

    def verify(self, row: bytes, checksum: bytes) -> None:
        """As `Sealer.verify`, with each key: a checksum doesn't say whose it is."""
        if not any(hmac.compare_digest(sealer.checksum(row), checksum) for sealer in self._others):
            raise BrokenSeal("its checksum is wrong")

    def lookups(self, text: str) -> list[bytes]:
        """What may stand for a text in rows that either key wrote."""
        return [sealer.lookup(text) for sealer in self._others]


def key_id(sealed: bytes) -> str:
    """The id of the key that sealed a value."""
    return sealed[1:_HEAD].hex()


def key_file(store: Path) -> Path:
    """Where the key is that castile makes for a store."""
    return store.with_name(store.name + ".key")


def load_keys(
    seal: Seal, store: Path, *, new: bool, environment: Mapping[str, str] = os.environ
) -> tuple[bytes, ...]:
    """The key-encryption keys of a store, 32 bytes each: the one that is to seal, and older ones.

    `new`: the store is being made, so a key may be made with it.
    UsageError: `seal` names no key. StoreInvalid: the key is missing, unreadable by its form, or
    readable by others.
    """
    if callable(seal):
        return _checked(seal(), "what seal= returned")
    if isinstance(seal, Path):
        return _from_file(seal)
    if seal is not None and not isinstance(seal, str):
        return _checked(seal, "seal=")
    if seal is not None and seal.startswith("file:"):
        return _from_file(Path(seal.removeprefix("file:")))
    if seal is not None and seal.startswith("env:"):
        return _from_environment(seal.removeprefix("env:"), environment)
    if seal == "require" or (seal is None and environment.get(ENVIRONMENT)):
        return _from_environment(ENVIRONMENT, environment)
    if seal is not None:
        raise UsageError('seal= takes 32 bytes, a Path, "file:PATH", "env:NAME", "require" or a function')
    path = key_file(store)
    if path.exists():
        return _from_file(path)
    if not new:
        raise StoreInvalid(
            f"the store {store} is sealed, and its key file {path} is missing: "
            f"put it back, or name the key with seal= or {ENVIRONMENT}"
        )
    key = os.urandom(KEY_BYTES)
    write_keys(path, key)
    security_log.warning(
        "made a sealing key for the store: %s; the store can't be read without it, "
        "and whoever has both can read everything",
        path,
    )
    return (key,)


def write_keys(path: Path, *keys: bytes) -> None:
    """Make or replace a key file, durably. StoreFull: it can't be."""
    draft = path.with_name(path.name + ".new")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"".join(b64encode(key) + b"\n" for key in keys))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise StoreFull(f"the sealing key {path} can't be made: {error.strerror}") from error


def sync_directory(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _from_file(path: Path) -> tuple[bytes, ...]:
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as error:
        raise StoreInvalid(f"the sealing key {path} can't be read: {error.strerror}") from error
    if mode & 0o077:
        raise StoreInvalid(
            f"the sealing key {path} is open to others (mode {mode & 0o777:04o}): chmod 600 {path}"
        )
    return (content,) if len(content) == KEY_BYTES else _decoded(content, str(path))


def _from_environment(name: str, environment: Mapping[str, str]) -> tuple[bytes, ...]:
    value = environment.get(name, "")
    if not value:
        raise UsageError(f"no sealing key: the environment variable {name} isn't set")
    if value.startswith("file:"):
        return _from_file(Path(value.removeprefix("file:")))
    return _decoded(value.encode("utf-8"), name)


def _decoded(text: bytes, where: str) -> tuple[bytes, ...]:
    """The keys in a text, with white space between them."""
    try:
        return _checked(
            [
                binascii.unhexlify(word)
                if len(word) == 2 * KEY_BYTES
                else b64decode(word.translate(bytes.maketrans(b"-_", b"+/")), validate=True)
                for word in text.split()
            ],
            where,
        )
    except ValueError:
        # Without its cause: the text of a decoding error may quote what it decodes.
        raise StoreInvalid(f"{where} holds no key: 32 bytes, as base64 or hexadecimal") from None


def _checked(given: bytes | Sequence[bytes], where: str) -> tuple[bytes, ...]:
    keys = (given,) if isinstance(given, bytes) else tuple(given)
    if not keys or not all(isinstance(key, bytes) and len(key) == KEY_BYTES for key in keys):
        raise UsageError(f"{where} must be {KEY_BYTES} bytes, or several such keys, the newest first")
    return keys
