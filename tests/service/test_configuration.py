"""castile.toml: every key is known and of a type, secrets are references (SV-22)."""

from __future__ import annotations

from pathlib import Path

import pytest

import castile
from castile.configuration import load
from castile.policy.sets import policy_set
from castile.versions import SOAP_1_2
from tests.endpoint.pair import identity
from tests.service.plain import SOAP_1_1, served
from tests.typed.contracts import BODIES, FOLDER

PLAIN = """
[service]
wsdl = "bank.wsdl"
functions = "functions_of_the_bank"
partial = true
[listen]
port = 8081
[timers]
drain = 5
[limits]
depth = 32
[settings]
max_concurrency = 4
ignore_assertions = ["a", "b"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("bank.wsdl", "people.xsd", "phone.xsd"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    (tmp_path / "functions_of_the_bank.py").write_text("def Ping():\n    return 9\n\nNote = 'no function'\n")
    (tmp_path / "service.pem").write_bytes(identity("service"))
    monkeypatch.setenv("ADA", "secret")
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "castile.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.row("SV-22")
def test_a_file(folder: Path) -> None:
    found = load(written(folder, PLAIN))
    settings = found.service.settings
    assert (found.listen.port, found.listen.host, found.listen.workers) == (8081, "127.0.0.1", 1)
    assert (settings.timers.drain, settings.limits.depth, settings.max_concurrency) == (5.0, 32, 4)
    assert settings.ignore_assertions == ("a", "b")
    with served(found.service) as app:
        assert app.ask(BODIES["Ping"]).body[0].text == "9"
        assert app.ask(BODIES["Ping"], soap=SOAP_1_1).body[0].text == "9"
        assert app.ask(BODIES["Note"]).status == 500


@pytest.mark.row("SV-22")
def test_security_by_names_and_references(folder: Path) -> None:
    text = PLAIN.replace(
        "partial = true",
        'partial = true\ncertificate = "service.pem"\nstore = "bank.db"\npublic_url = "https://b.example/"\n'
        '[service.policy]\nSoap12 = "wcf-ws2007http-username-direct"\n[service.users]\nada = "env:ADA"',
    )
    service = load(written(folder, text)).service
    [offer] = service._offers
    assert offer.policy == policy_set("wcf-ws2007http-username-direct")
    assert offer.policy.soap is SOAP_1_2
    assert service._users == {"ada": "secret"}
    assert service.location == folder / "bank.db"


@pytest.mark.row("SV-22")
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("partial = true", "partail = true", r"\[service\]: there is no 'partail'; did you mean 'partial'\?"),
        ("[timers]", "[timer]", "there is no 'timer'; did you mean 'timers'?"),
        ("drain = 5", "drane = 5", "did you mean 'drain'"),
        ("drain = 5", 'drain = "5"', r"\[timers\] drain: float is wanted, not '5'"),
        ("depth = 32", "depth = 3.5", r"\[limits\] depth: int is wanted, not 3.5"),
        ("depth = 32", "depth = true", r"\[limits\] depth: int is wanted, not True"),
        ("partial = true", "partial = 1", r"\[service\] partial: bool is wanted, not 1"),
        ("partial = true", 'validate = "no"', r"\[service\] validate: 'strict' or 'off' is wanted, not 'no'"),
        ('wsdl = "bank.wsdl"', "", r"\[service\]: wsdl is missing"),
        ('wsdl = "bank.wsdl"', 'wsdl = "none.wsdl"', "none.wsdl: there is no such file"),
        ("functions_of_the_bank", "nobody", "there is no module 'nobody' beside it"),
        ("partial = true", 'policy = "wcf-nothing"', "unknown policy set 'wcf-nothing'"),
        ("partial = true", '[service.users]\nada = "secret"', "given by where it is: env:NAME or file:PATH"),
        ("partial = true", '[service.users]\nada = "env:BOB"', "the environment has no BOB"),
        ("[service]", "service", "can't be read"),
        ("[listen]\nport = 8081", "", "^$"),
    ],
)
def test_what_is_refused(folder: Path, old: str, new: str, told: str) -> None:
    path = written(folder, PLAIN.replace(old, new))
    if told == "^$":
        assert load(path).listen.port == 8000
        return
    with pytest.raises((castile.UsageError, castile.PolicyError), match=told):
        load(path)
