"""Captured messages in plain words (`castile.explain`).

The product's own `unprotect` and machines look at what was on the wire; there is no second
verifier. What a policy would have asked for is judged by the rules of `rules.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from castile.explaining.capture import Capture, capture, captured
from castile.explaining.conversation import explain as _explain
from castile.explaining.keys import Keys, load
from castile.explaining.report import Explanation, MessageReport

__all__ = ["Explanation", "Keys", "MessageReport", "explain"]


def explain(
    path_or_bytes: str | Path | bytes | Iterable[str | Path],
    keys: str | Path | bytes | Keys | Iterable[str | Path | bytes] = (),
    now: float | None = None,
) -> Explanation:
    """Explain captured messages: a file, a folder (one conversation), several paths, or bytes.

    `keys` are key files (PEM, PKCS#12, JSON, a key log) or their bytes. Each message is judged at
    its own time unless `now` (UTC seconds) is given. Raises `UsageError` for what can't be read.
    """
    if isinstance(path_or_bytes, bytes):
        taken = Capture((captured("-", path_or_bytes),), lone=True)
    elif isinstance(path_or_bytes, str | Path):
        taken = capture([path_or_bytes])
    else:
        taken = capture(path_or_bytes)
    if isinstance(keys, str | Path | bytes):
        keys = [keys]
    found = keys if isinstance(keys, Keys) else load(keys)
    return _explain(taken, found, now)
