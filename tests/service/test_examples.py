"""examples/typed: each service under uvicorn, each client a process of its own."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import zeep

from tests.endpoint.pair import certificate, identity
from tests.test_docs import EXAMPLES, free_port, run, served

COMMAND = "from castile.cli import main; main()"


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, int]:
    """A folder with the examples, and the port that they use."""
    port = free_port()
    for example in (EXAMPLES / "typed").iterdir():
        if example.suffix in (".py", ".wsdl"):
            text = example.read_text("utf-8").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
            (tmp_path / example.name).write_text(text, "utf-8")
    (tmp_path / "service.pem").write_bytes(identity("bank"))
    (tmp_path / "service.crt").write_bytes(certificate("bank"))
    return tmp_path, port


def told(folder: Path, *arguments: str) -> str:
    client = run(*arguments, folder=folder)
    assert client.returncode == 0, client.stderr + (folder / "service.log").read_text()
    return client.stdout


def answered(url: str) -> None:
    """Wait until somebody answers there."""
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"nobody answers at {url}")


@pytest.mark.row("SV-01")
@pytest.mark.row("CL-22")
def test_a_typed_service(place: tuple[Path, int]) -> None:
    folder, port = place
    with served(folder, "plain:app", port):
        said = told(folder, "plain_client.py")
        assert said == "AB1234 gave CD5678 9.50\nRefused 1000\n"
        assert (folder / "service.log").read_text() == "hello\n"
        other = zeep.Client(f"http://127.0.0.1:{port}/?wsdl")
        assert other.service.Transfer("AB1234", "CD5678", 1) == "AB1234 gave CD5678 1"
        with pytest.raises(zeep.exceptions.Fault, match="line 1, /Transfer/debtor: "):
            other.service.Transfer("nobody", "CD5678", 1)


@pytest.mark.row("CL-21")
def test_a_reliable_inbox(place: tuple[Path, int]) -> None:
    folder, port = place
    with served(folder, "inbox:app", port):
        told(folder, "inbox_client.py")
    assert (folder / "service.log").read_text().endswith("\n1 one\n2 two\n3 three\n")


@pytest.mark.row("SV-20")
def test_a_transactional_transfer(place: tuple[Path, int]) -> None:
    folder, port = place
    with served(folder, "transfer:app", port):
        for _ in range(2):  # the second process asks with the same key
            assert told(folder, "transfer_client.py") == "ada: 9.50\nada: 9.50\n"
    with sqlite3.connect(folder / "bank.db") as store:
        entries = store.execute("SELECT account, amount FROM entries").fetchall()
    assert entries == [("AB1234", "-9.50"), ("CD5678", "9.50")]


@pytest.mark.row("OP-03")
@pytest.mark.row("OP-04")
def test_serve_and_call(place: tuple[Path, int]) -> None:
    folder, port = place
    command = [sys.executable, "-c", COMMAND, "serve", "plain:service", "--port", str(port)]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        lines = [server.stdout.readline() for _ in range(3)]
        assert lines[0].startswith(f"http://127.0.0.1:{port}  SOAP 1.2, no addressing headers; ")
        assert lines[1:] == [
            f"http://127.0.0.1:{port}?wsdl\n",
            "store: none, in memory (durability full)\n",
        ]
        url = f"http://127.0.0.1:{port}/?wsdl"
        answered(url)
        (folder / "service.log").write_text("")
        said = ["-c", COMMAND, "call", url, "Transfer", "debtor=AB1234", "creditor=CD5678"]
        assert told(folder, *said, "amount:=2.5") == '"AB1234 gave CD5678 2.5"\n'
        assert "<ns0:amount>2.5</ns0:amount>" in told(folder, *said, "amount=2.5", "--preview")
        assert told(folder, "-c", COMMAND, "call", url, "Tell", "text=hi") == ""
        refused = run(*said, "amount=5000", folder=folder)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "That is too much." in refused.stderr
        wrong = run(*said, "amounts=5", folder=folder)
        assert (wrong.returncode, wrong.stderr.strip()) == (
            2,
            "castile: Transfer has no argument 'amounts'; it takes: debtor, creditor, amount",
        )
    finally:
        server.terminate()
        server.communicate(timeout=20)


@pytest.mark.row("OP-04", "SV-22")
def test_serve_a_file_with_workers(place: tuple[Path, int]) -> None:
    folder, port = place
    (folder / "castile.toml").write_text(
        f'[service]\nwsdl = "bank.wsdl"\nfunctions = "plain"\n[listen]\nport = {port}\nworkers = 2\n'
    )
    command = [sys.executable, "-c", COMMAND, "serve", "castile.toml"]
    with (folder / "service.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        answered(f"http://127.0.0.1:{port}/?wsdl")
        assert told(folder, "plain_client.py") == "AB1234 gave CD5678 9.50\nRefused 1000\n"
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.row("OP-04")
@pytest.mark.parametrize(
    ("application", "told"),
    [
        ("plain", "MODULE:SERVICE is wanted"),
        ("nobody:service", "there is no module 'nobody' here"),
        ("plain:app", "plain:app is no castile.Service"),
        ("plain:nothing", "plain:nothing is no castile.Service"),
    ],
)
def test_what_can_t_be_served(place: tuple[Path, int], application: str, told: str) -> None:
    refused = run("-c", COMMAND, "serve", application, folder=place[0])
    assert refused.returncode == 2
    assert told in refused.stderr


@pytest.mark.row("OP-03")
def test_a_secured_message_is_shown(place: tuple[Path, int]) -> None:
    """Nobody is asked: a context that doesn't exist is stood in for."""
    folder = place[0]
    (folder / "service.log").write_text("")
    (folder / "password").write_text("secret")
    command = [
        *("-c", COMMAND, "call", "bank.wsdl", "Tell", "text=hello", "--preview"),
        *("--policy", "wcf-ws2007http-username-direct", "--service-certificate", "service.crt"),
        *("--user", "ada", "--password", "file:password"),
    ]
    clear, protected = told(folder, *command).splitlines()
    assert (">hello<" in clear, ">hello<" in protected) == (True, False)
    assert "EncryptedData" in protected
    refused = run(*command[:-1], "secret", folder=folder)
    assert (refused.returncode, "env:NAME or file:PATH" in refused.stderr) == (2, True)
