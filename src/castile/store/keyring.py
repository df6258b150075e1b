"""The keys of an open store: which of those that it was given are in use, and which one seals.

``castile_meta`` says so. ``key`` is a proof that somebody has the key that seals. ``old <id>`` is
one of a key that sealed before, while rows of it are left. ``next`` is the id of a key that
somebody wants to seal with, and ``retired <id>`` that of one that is good for nothing any more.

A key seals only once every process that has the store open knows it: each notes the ids of its
keys beside its owner's id. And each looks whether another key seals now before each of its
batches, under the writer's lock (features ST-20, ST-21).
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

from castile.errors import StoreInvalid
from castile.store.seal import KEY_BYTES, BrokenSeal, Ring, Sealer, key_id, load_keys
from castile.store.tables import TABLES

if TYPE_CHECKING:
    from castile.store import Seal

_PROOF: Final = b"castile meta key"


class Keyring:
    """Reads the keys' state in a connection. What changes it runs in the connection's transaction."""

    def __init__(self, seal: Seal, path: Path | None, name: str, *, new: bool) -> None:
        """UsageError, StoreInvalid, StoreFull: as `load_keys`."""
        self._seal = seal
        self._path = path
        self._name = name
        self._keys = load_keys(seal, path, new=new) if path is not None else (os.urandom(KEY_BYTES),)
        self._known: dict[str, Sealer] = {}
        self._meta: dict[str, object] = {}
        self.store = b""
        """The store's own id."""

    @property
    def known(self) -> list[str]:
        """Ids of the keys at hand, the one first that is to seal."""
        return list(self._known)

    def ring(self, connection: sqlite3.Connection, *, lenient: bool = False) -> Ring:
        """The keys in use. A store without any gets its id, and the first key.

        StoreInvalid: the one that seals isn't at hand, or, unless `lenient`, an older one that rows need.
        """
        meta = _meta(connection)
        if "store" not in meta:
            connection.execute("BEGIN IMMEDIATE")
            made = os.urandom(16)
            _put(connection, "store", made)
            _put(connection, "key", Sealer(self._keys[0], made).seal(_PROOF, _PROOF))
            connection.execute("COMMIT")
            meta = _meta(connection)
        store, proof = meta["store"], meta.get("key")
        if not isinstance(store, bytes) or not isinstance(proof, bytes):
            raise StoreInvalid(f"the store {self._name} has lost its own id or the proof of its key")
        self.store, self._meta = store, meta
        self._know()
        sealing = self._known.get(key_id(proof))
        try:
            if sealing is None:
                raise BrokenSeal
            sealing.open(proof, _PROOF)
        except BrokenSeal as error:
            raise StoreInvalid(
                f"the sealing key isn't the one of the store {self._name} ({key_id(proof)}): nothing in it "
                "can be read; give the key that it was made or resealed with (seal=, CASTILE_STORE_KEY or "
                "its .key file)"
            ) from error
        missing = [each for each in self.older if each not in self._known]
        for each in () if lenient else missing:
            if rows := _sealed_with(connection, each):
                raise StoreInvalid(
                    f"the store {self._name} goes from one sealing key to another, and the older one "
                    f"({each}) is missing: without it {rows} can't be read, though all other rows can. Give "
                    "both, the new one first, until castile store reseal has finished"
                )
        return Ring(sealing, *(self._known[each] for each in self.older if each not in missing))

    @property
    def older(self) -> list[str]:
        """Ids of the keys that sealed before, and of which rows may be left."""
        return [name.removeprefix("old ") for name in self._meta if name.startswith("old ")]

    def changed(self, connection: sqlite3.Connection) -> bool:
        """Whether another process has changed the keys' state since the last `ring`."""
        return _meta(connection) != self._meta

    def refresh(self, connection: sqlite3.Connection) -> Ring:
        """The keys in use now. A key that isn't at hand may be where the others came from.

        StoreInvalid: as `ring`.
        """
        meta = _meta(connection)
        proof, following = meta.get("key"), meta.get("next")
        named = {key_id(proof)} if isinstance(proof, bytes) else set()
        if isinstance(following, bytes):
            named.add(following.decode("ascii"))
        if self._path is not None and not named <= self._known.keys():
            self._keys = load_keys(self._seal, self._path, new=False)
        return self.ring(connection)

    def wanted(self) -> str | None:
        """The id of the first key at hand, where another one seals. None: it does, or is retired."""
        first, proof = self.known[0], self._meta["key"]
        sealing = isinstance(proof, bytes) and key_id(proof) == first
        return None if sealing or f"retired {first}" in self._meta else first

    def announce(self, connection: sqlite3.Connection) -> None:
        """Tell the others which key is wanted, so that they look for it."""
        if wanted := self.wanted():
            _put(connection, "next", wanted.encode("ascii"))

    def turn(self, connection: sqlite3.Connection) -> None:
        """The first key at hand seals from now on; what the last one sealed is still read."""
        wanted, proof = self.wanted(), self._meta["key"]
        if wanted is None or not isinstance(proof, bytes):
            return
        _put(connection, f"old {key_id(proof)}", proof)
        _put(connection, "key", self._known[wanted].seal(_PROOF, _PROOF))
        connection.execute("DELETE FROM castile_meta WHERE name IN ('next', ?)", [f"old {wanted}"])

    def retire(self, connection: sqlite3.Connection) -> None:
        """No row is left of older keys: they open nothing any more, nor will they ever seal."""
        for key in self.older:
            _put(connection, f"retired {key}", b"")
            connection.execute("DELETE FROM castile_meta WHERE name = ?", [f"old {key}"])

    def _know(self) -> None:
        sealers = [Sealer(key, self.store) for key in self._keys]
        self._known = {sealer.id: sealer for sealer in sealers}


def _sealed_with(connection: sqlite3.Connection, key: str) -> str:
    """How many rows of which tables a key has sealed, for people; "" for none."""
    counts, head = [], b"\x01" + bytes.fromhex(key)
    for table in TABLES:
        where = " OR ".join(f"substr({column}, 1, 5) = ?" for column in table.sealed)
        statement = f"SELECT count(*) FROM {table.name} WHERE {where}"  # noqa: S608 - names of ours
        count = connection.execute(statement, [head] * len(table.sealed)).fetchone()[0]
        if count:
            counts.append(f"{count} of {table.name.removeprefix('castile_')}")
    return ", ".join(counts)


def _meta(connection: sqlite3.Connection) -> dict[str, object]:
    return dict(connection.execute("SELECT name, value FROM castile_meta"))


def _put(connection: sqlite3.Connection, name: str, value: bytes) -> None:
    connection.execute("INSERT OR REPLACE INTO castile_meta (name, value) VALUES (?, ?)", [name, value])
