"""Each recipe for an issue of zeep's, as it stands on the page, against the service of the page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.endpoint.pair import certificate, identity
from tests.test_docs import EXAMPLES, free_port, served

FOLDER = EXAMPLES / "zeep"
PAID = "AB1234 gave CD5678 9.50\n"
SAID = {
    "reply_certificate": f"{PAID}refused: FaultReceived\n",
    "encrypted_body": f"{PAID}readable on the wire: False\n",
}
RECIPES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "recipe_service")


@pytest.mark.row("CL-12")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    for path in (*FOLDER.glob("*.py"), EXAMPLES / "bank.wsdl"):
        text = path.read_text("utf-8").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        (tmp_path / path.name).write_text(text)
    for who in ("service", "ada", "other"):
        (tmp_path / f"{who}.pem").write_bytes(identity(who))
        (tmp_path / f"{who}.crt").write_bytes(certificate(who))
    monkeypatch.setenv("RECIPE", recipe)
    with served(tmp_path, "recipe_service:app", port):
        for _ in "12" if recipe == "reliable_2005" else "1":
            command = [sys.executable, f"{recipe}.py"]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
            log = (tmp_path / "service.log").read_text()
            assert done.returncode == 0, f"{done.stderr}\nservice:\n{log}"
            assert done.stdout == SAID.get(recipe, PAID)


@pytest.mark.row("CL-12")
def test_every_recipe_is_on_the_page() -> None:
    page = (EXAMPLES.parent / "docs" / "recipes" / "zeep.md").read_text("utf-8")
    assert not [recipe for recipe in RECIPES if f"examples/zeep/{recipe}.py" not in page]
