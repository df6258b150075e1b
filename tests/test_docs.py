"""What the documentation says is so: rows, errors, settings, commands, examples, public names."""

from __future__ import annotations

import importlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.conftest import shared
from tests.test_tidy import PROJECT, SOURCE, none_of

EXAMPLES: Final = PROJECT / "examples"
sys.path.insert(0, str(PROJECT / "docs"))
generate = importlib.import_module("generate")
"""docs/generate.py, which writes the reference pages."""

PUBLIC: Final = {
    "AsyncClient",
    "CastileError",
    "Certificate",
    "Client",
    "EndpointPolicy",
    "Fault",
    "FaultReceived",
    "InDoubt",
    "PeerError",
    "PolicyError",
    "RequestContext",
    "Retry",
    "Service",
    "TLS",
    "StoreError",
    "TransportError",
    "UsageError",
    "Username",
    "errors",
    "explain",
    "policy_set",
}
"""What `import castile` offers. A name more or less is a decision: change it here too."""


def read(name: str) -> str:
    return (PROJECT / name).read_text("utf-8")


def run(*arguments: str, folder: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


# ---------------------------------------------------------------- rows


def test_rows_are_well_formed() -> None:
    def offences() -> Iterator[str]:
        for name, row in generate.rows().items():
            if row.get("state") not in {"whole", "part", "planned"}:
                yield f'{name}: state is "whole", "part" or "planned", not {row.get("state")!r}'
            if (row.get("state") == "part") != bool(row.get("missing")):
                yield f"{name}: `missing` says what a row claimed in part lacks, and stands on no other"
            if not row.get("what") or not row.get("from"):
                yield f"{name}: `what` and `from` are missing"
            if unknown := row.keys() - {"state", "missing", "what", "from"}:
                yield f"{name}: unknown {', '.join(sorted(unknown))}"

    none_of(offences(), "docs/rows.toml: each row says what it promises and how much of that is claimed.")


def test_claimed_rows_have_tests() -> None:
    shown = generate.markers()
    none_of(
        (name for name, row in generate.rows().items() if row["state"] != "planned" and name not in shown),
        'These rows are claimed in docs/rows.toml, but no test carries @pytest.mark.row("ID"):\n'
        "mark the test that shows the row (and fails without the behaviour), or take the claim back.",
    )


def test_rows_exist() -> None:
    features = shared("features.md").read_text("utf-8")
    known = set(re.findall(r"^\| ([A-Z]{1,2}-?\d+) \|", features, re.MULTILINE))
    known |= {f"I{number}" for number in range(1, 21)}  # the invariants of features 9.4
    carried = [(name, where) for name, places in generate.markers().items() for where in places]
    named = [*carried, *((name, "docs/rows.toml") for name in generate.rows())]
    none_of(
        (f"{where}: {name}" for name, where in named if name not in known),
        "These ids are no rows of the feature list.",
    )


# ---------------------------------------------------------------- errors, settings, machines


def test_errors_are_documented() -> None:
    kinds, texts = list(generate.error_classes()), generate.advice()
    codes = [kind.code for kind in kinds]
    drawing = sys.modules["castile.errors"].__doc__ or ""

    def offences() -> Iterator[str]:
        for kind in kinds:
            if codes.count(kind.code) > 1:
                yield f"{kind.__name__}: another class has the code {kind.code!r} too"
            if kind.__doc__ is None or kind.__doc__ == getattr(kind.__base__, "__doc__", None):
                yield f"{kind.__name__}: no docstring that says when it is raised"
            if kind.__name__ not in drawing:
                yield f"{kind.__name__}: missing in the drawing at the top of errors.py"
            if texts.get(kind.code, {}).keys() != {"cause", "do"}:
                yield f"{kind.__name__}: docs/errors.toml needs [{kind.code}] with `cause` and `do`"
        yield from (f"docs/errors.toml: no error has the code {code}" for code in texts.keys() - set(codes))

    none_of(offences(), "Each error has a code of its own, is drawn in errors.py and says what to do.")


def test_settings_are_documented() -> None:
    none_of(
        (
            f"{kind}.{entry.name}"
            for kind, (_, fields) in generate.settings().items()
            for entry in fields
            if not entry.reason and entry.default != "see above"
        ),
        "Each setting of castile.config has a text below it: what it bounds, and why this number.",
    )


def test_reference_pages_are_written(tmp_path: Path) -> None:
    generate.write(tmp_path)
    machines = (tmp_path / "machines.md").read_text("utf-8")
    none_of(
        (name for name in ("source", "destination") if f"## {name}" not in machines),
        "docs/generate.py draws every module of castile.protocol that has TRANSITIONS.",
    )
    for page in tmp_path.iterdir():
        assert page.read_text("utf-8").startswith("# ")


def test_commands_are_documented() -> None:
    main = importlib.import_module("castile.cli").main
    assert isinstance(main, click.Group)

    def offences() -> Iterator[str]:
        for name, command in main.commands.items():
            if not command.help:
                yield f"castile {name}: no help"
            if f"castile {name}" not in (command.help or "") + (command.epilog or ""):
                yield f"castile {name}: its help shows no example that starts with `castile {name}`"
            for option in command.params:
                if isinstance(option, click.Option) and not option.help:
                    yield f"castile {name} {option.opts[0]}: no help"

    none_of(offences(), "Every command has help with an example, every option a line.")


# ---------------------------------------------------------------- pages


def test_readme_leads_with_two_commands() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", read("README.md"), re.DOTALL)
    commands = [line.split("#")[0].strip() for line in blocks[0].splitlines()]
    assert commands == ["make demo", "make test"], "the README leads with the two commands of a newcomer"


def test_readme_shows_the_examples() -> None:
    readme = read("README.md")

    def offences() -> Iterator[str]:
        for name in ("service.py", "client.py", "zeep_client.py"):
            code = (EXAMPLES / name).read_text("utf-8")
            if f"```python\n{code}```" not in readme:
                yield f"README.md doesn't show examples/{name} as it is"
            if (lines := sum(bool(line.strip()) for line in code.splitlines())) > 10:
                yield f"examples/{name} has {lines} lines"

    none_of(offences(), "The README shows these examples word for word, each of ten lines at most.")


def test_readme_status_is_honest() -> None:
    rows = generate.rows()
    line = re.compile(r"^\| (.+?) \| (works|in part|planned) \| ([A-Z0-9 -]+) \|$", re.MULTILINE)
    table = line.findall(read("README.md"))
    assert table, "README.md has the table of what works today"

    def offences() -> Iterator[str]:
        for what, today, names in table:
            states = {rows[name]["state"] for name in names.split()}
            truth = "works" if states == {"whole"} else "planned" if states == {"planned"} else "in part"
            if today != truth:
                yield f"{what}: says {today!r}, by docs/rows.toml it is {truth!r}"

    none_of(
        offences(),
        "The README's table says what the rows say: works if all are whole, in part if any is claimed.",
    )


def test_architecture_names_what_exists() -> None:
    text = read("ARCHITECTURE.md")
    tree = re.findall(r"^[├└]── ((?:[\w/]+(?:\.py|/)(?:\s+|$))+)", text, re.MULTILINE)
    named = " ".join(tree).split()
    named += re.findall(r"`((?:\w+/)*\w+\.py|\w+/)`", text)

    def exists(name: str) -> bool:
        return any((base / name).exists() for base in (SOURCE, PROJECT))

    none_of(
        (name for name in dict.fromkeys(named) if not exists(name)),
        "ARCHITECTURE.md names files that aren't there: it is kept true, or it is worth nothing.",
    )


def test_links_lead_somewhere() -> None:
    def offences() -> Iterator[str]:
        for page in [*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")]:
            for target in re.findall(r"\]\((?!\w+:)([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
                generated = target.startswith("reference/")
                if not generated and not (page.parent / target).exists():
                    yield f"{page.relative_to(PROJECT)}: {target}"

    none_of(offences(), "These links lead nowhere.")


@pytest.mark.row("RM-120")
def test_promises_name_tests_that_exist() -> None:
    pages = "".join(read(f"docs/{name}.md") for name in ("delivery", "sealing"))
    named = set(re.findall(r"`(test_\w+)`", pages))
    sources = "\n".join(path.read_text("utf-8") for path in (PROJECT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)", sources, re.MULTILINE))
    assert len(named) > 20
    none_of(
        sorted(named - there),
        "These tests don't exist, and docs/delivery.md or docs/sealing.md promises by them.",
    )


@pytest.mark.row("ST-23")
def test_what_is_not_sealed_is_documented() -> None:
    from castile.store.tables import TABLES

    said = dict(re.findall(r"^\| (\w+) \| (side|[a-z_]+, .*) \|$", read("docs/sealing.md"), re.MULTILINE))
    for table in TABLES:
        readable = set(table.plain) - {"call"}  # stands for the key of a call, and doesn't show it
        assert set(said[table.name.removeprefix("castile_")].split(", ")) == readable


# ---------------------------------------------------------------- public names and examples


def test_public_names_are_pinned() -> None:
    castile = importlib.import_module("castile")
    offered = set(castile.__all__)
    assert offered == PUBLIC, (
        f"castile.__all__ changed: new {sorted(offered - PUBLIC)}, gone {sorted(PUBLIC - offered)}. "
        "If that was decided, change PUBLIC in tests/test_docs.py, CHANGELOG.md and names in the docs."
    )
    assert all(hasattr(castile, name) for name in offered)


def test_import_is_quiet() -> None:
    """Importing castile starts no thread, opens no file and loads neither server nor command line."""
    code = (
        "import sys, threading, castile; "
        "print(threading.active_count(), *sorted({'uvicorn', 'click', 'rich', 'zeep'} & set(sys.modules)))"
    )
    shown = run("-c", code)
    assert shown.stdout.split() == ["1"], f"import castile loads or starts too much: {shown.stdout}"
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """A folder with the key and certificate that the README makes with openssl."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bank")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=30))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "service.crt").write_bytes(certificate)
    (tmp_path / "service.pem").write_bytes(private + certificate)
    return tmp_path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def unpack(folder: Path, port: int) -> None:
    """Every example, with another port."""
    for example in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.wsdl")):
        text = example.read_text("utf-8").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        (folder / example.name).write_text(text, "utf-8")


@contextmanager
def served(folder: Path, application: str, port: int) -> Iterator[None]:
    """An example under uvicorn, as the README says."""
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--log-level", "warning"]
    log = folder / "service.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    try:
        for _ in range(200):
            if server.poll() is not None:
                pytest.fail(f"the example service doesn't start:\n{log.read_text()}", pytrace=False)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(20)


def test_examples_run(bank: Path) -> None:
    port = free_port()
    unpack(bank, port)
    with served(bank, "service:app", port):
        for name in ("client.py", "client.py", "zeep_client.py"):
            client = run(name, folder=bank)
            log = (bank / "service.log").read_text()
            assert client.returncode == 0, f"{name} failed:\n{client.stderr}\nservice:\n{log}"
            assert client.stdout == "AB1234 gave CD5678 9.50\n", name
