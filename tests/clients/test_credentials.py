"""Secrets by reference: never needed in code (CL-24)."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

import castile
from castile.credentials import Secret, resolve

SECRET = "s3cret"


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_password(service: str, user: str) -> str | None:
        if service == "locked":
            raise RuntimeError(SECRET)
        return SECRET if (service, user) == ("bank", "ada") else None

    module = ModuleType("keyring")
    module.get_password = get_password  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", module)


@pytest.mark.row("CL-24")
def test_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keyring: None) -> None:
    path = tmp_path / "password"
    path.write_text(f"{SECRET}\n")
    monkeypatch.setenv("BANK_PASSWORD", SECRET)
    references: tuple[Secret, ...] = (
        SECRET,
        "env:BANK_PASSWORD",
        f"file:{path}",
        "keyring:bank/ada",
        lambda: SECRET,
    )
    for reference in references:
        assert resolve(reference) == SECRET
        assert SECRET not in repr(castile.Username("ada", reference))


@pytest.mark.row("CL-24")
@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("env:NOT_THERE", "the environment has no NOT_THERE"),
        ("file:/not/there", "the secret's file /not/there can't be read"),
        ("keyring:bank", "keyring:SERVICE/NAME is wanted"),
        ("keyring:bank/mallory", "`keyring set bank mallory`"),
        ("keyring:locked/ada", r"can't be asked \(RuntimeError\)"),
        (lambda: None, "gave no text"),
    ],
)
def test_what_is_missing_is_named(keyring: None, reference: Secret, told: str) -> None:
    with pytest.raises(castile.UsageError, match=told) as refused:
        resolve(reference)
    assert SECRET not in str(refused.value)


@pytest.mark.row("CL-24")
def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(castile.UsageError, match="pip install keyring"):
        resolve("keyring:bank/ada")


@pytest.mark.row("CL-24")
def test_what_looks_like_a_reference_and_is_none() -> None:
    for password in ("a:b", "env:", "https://x"):
        assert resolve(password) == password
