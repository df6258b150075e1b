"""Sealing: what keeps the store's secrets unreadable and its rows in their places.

From the 32-byte key-encryption key and the store's own id three keys are derived: for sealed
columns, for the keyed checksum of each row, and for look-ups of what must not be readable. Each
sealed value has a key of its own, derived with a random salt, so that the number of rows under
one AES-GCM key is never a question; its associated data are the table, the column, the row's
identity and its immutable columns (features F36, ST-20). A sealed value is::

    01 | key id (4) | salt (16) | nonce (12) | AES-256-GCM ciphertext and tag
"""

from __future__ import annotations

import binascii
import hmac
import logging
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
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

    __slots__ = ("_check", "_head", "_lookup", "_rows")

    def __init__(self, key: bytes, store: bytes) -> None:
        def derive(purpose: bytes) -> bytes:
            return blake2b(store, key=key, person=purpose, digest_size=KEY_BYTES).digest()

        self._rows = derive(b"castile rows")
        self._check = derive(b"castile check")
        self._lookup = derive(b"castile lookup")
        self._head = _VERSION + derive(b"castile key id")[:4]

    def __repr__(self) -> str:
        return "Sealer()"

    def seal(self, plain: bytes, identity: bytes) -> bytes:
        """A value that only opens at the same place."""
        random = os.urandom(_SALT + _NONCE)
        row_key = blake2b(random[:_SALT], key=self._rows, digest_size=KEY_BYTES).digest()
        return self._head + random + AESGCM(row_key).encrypt(random[_SALT:], plain, identity)

    def open(self, sealed: bytes, identity: bytes) -> bytes:
        """The value.

        BrokenSeal: it was changed, comes from another place, or the key is another one.
        """
        if sealed[:_HEAD] != self._head:
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


def key_file(store: Path) -> Path:
    """Where the key is that castile makes for a store."""
    return store.with_name(store.name + ".key")


def load_key(seal: Seal, store: Path, *, new: bool, environment: Mapping[str, str] = os.environ) -> bytes:
    """The key-encryption key of a store, 32 bytes.

    `new`: the store is being made, so a key may be made with it.
    UsageError: `seal` names no key. StoreInvalid: the key is missing, unreadable by its form, or
    readable by others.
    """
    if isinstance(seal, bytes):
        return _checked(seal, "seal=")
    if callable(seal):
        return _checked(seal(), "what seal= returned")
    if isinstance(seal, Path):
        return _from_file(seal)
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
    return _make(path)


def sync_directory(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(path: Path) -> bytes:
    key = os.urandom(KEY_BYTES)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(b64encode(key) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StoreFull(f"the sealing key {path} can't be made: {error.strerror}") from error
    security_log.warning(
        "made a sealing key for the store: %s; the store can't be read without it, "
        "and whoever has both can read everything",
        path,
    )
    return key


def _from_file(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as error:
        raise StoreInvalid(f"the sealing key {path} can't be read: {error.strerror}") from error
    if mode & 0o077:
        raise StoreInvalid(
            f"the sealing key {path} is open to others (mode {mode & 0o777:04o}): chmod 600 {path}"
        )
    return content if len(content) == KEY_BYTES else _decoded(content, str(path))


def _from_environment(name: str, environment: Mapping[str, str]) -> bytes:
    value = environment.get(name, "")
    if not value:
        raise UsageError(f"no sealing key: the environment variable {name} isn't set")
    if value.startswith("file:"):
        return _from_file(Path(value.removeprefix("file:")))
    return _decoded(value.encode("utf-8"), name)


def _decoded(text: bytes, where: str) -> bytes:
    text = text.strip()
    try:
        if len(text) == 2 * KEY_BYTES:
            return _checked(binascii.unhexlify(text), where)
        return _checked(b64decode(text.translate(bytes.maketrans(b"-_", b"+/")), validate=True), where)
    except ValueError:
        # Without its cause: the text of a decoding error may quote what it decodes.
        raise StoreInvalid(f"{where} holds no key: 32 bytes, as base64 or hexadecimal") from None


def _checked(key: bytes, where: str) -> bytes:
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise UsageError(f"{where} must be {KEY_BYTES} bytes")
    return key
