"""``castile call``: one call of an operation of a WSDL."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Iterable
from time import monotonic

import click

from castile.errors import UsageError


@click.command(epilog="Exit status: 0 answered, 1 a fault or no answer, 2 wrong use, 3 it can't be reached.")
@click.argument("wsdl", metavar="WSDL")
@click.argument("operation")
@click.argument("arguments", nargs=-1, metavar="[NAME=TEXT | NAME:=JSON]...")
@click.option("--service", metavar="NAME", help="The service, where the WSDL has several.")
@click.option("--port", metavar="NAME", help="The port, where there are several.")
@click.option("--policy", metavar="NAME", help="The named set that is in force, where the WSDL doesn't say.")
@click.option("--user", metavar="NAME", help="The user's name.")
@click.option("--password", metavar="WHERE", help="The user's password: env:NAME or file:PATH.")
@click.option("--certificate", metavar="FILE", help="Our certificate with its key, PEM or PKCS#12.")
@click.option("--certificate-password", metavar="WHERE", help="Of that file: env:NAME or file:PATH.")
@click.option("--service-certificate", metavar="FILE", help="The service's.")
@click.option("--store", metavar="FILE", help="Where the message is kept until it is answered.")
@click.option("--key", metavar="TEXT", help="Your own name for this call: asked again, it isn't made twice.")
@click.option("--timeout", type=click.FloatRange(0.1), metavar="SECONDS", help="How long to wait.")
@click.option("--preview", is_flag=True, help="Show the message, and send nothing.")
def call(
    wsdl: str,
    operation: str,
    arguments: tuple[str, ...],
    service: str | None,
    port: str | None,
    policy: str | None,
    user: str | None,
    password: str | None,
    certificate: str | None,
    certificate_password: str | None,
    service_certificate: str | None,
    store: str | None,
    key: str | None,
    timeout: float | None,
    preview: bool,
) -> None:
    """Call an operation and show its result as JSON.

    \b
        castile call bank.wsdl Statement account=AB1234
        castile call https://bank.example/?wsdl Transfer amount:='{"_value_1": 5}' --preview
    """
    from castile.client import Client
    from castile.credentials import Certificate, Username
    from castile.policy.sets import policy_set

    given = dict(map(_argument, arguments))
    credentials: list[Username | Certificate] = []
    if user is not None:
        if password is None:
            raise UsageError("--user needs --password with where it is: env:NAME or file:PATH")
        credentials.append(Username(user, _reference(password)))
    if certificate is not None:
        secret = None if certificate_password is None else _reference(certificate_password)
        credentials.append(Certificate(certificate, secret))
    with Client(
        wsdl,
        service=service,
        port=port,
        policy=None if policy is None else policy_set(policy),
        credentials=credentials or None,
        service_certificate=service_certificate,
        store=store,
        timeout=timeout,
    ) as client:
        if preview:
            shown = client.preview(operation, given)
            click.echo(shown.message.decode())
            if shown.protected != shown.message:
                click.echo(shown.protected.decode())
            return
        began = monotonic()
        if client.is_one_way(operation):
            client.send(operation, given, key=key)
            result, what = None, "sent"
        else:
            result, what = client.call(operation, given, key=key, timeout=timeout), "answered"
    click.echo(f"{what} in {monotonic() - began:.3f} s", err=True)
    if what == "answered":
        click.echo(json.dumps(_plain(result), indent=2, default=str, ensure_ascii=False))
    sys.exit(0)


def _argument(text: str) -> tuple[str, object]:
    """``name=text``, or ``name:=JSON``."""
    name, found, value = text.partition("=")
    if not found or not name.strip(":"):
        raise UsageError(f"{text!r}: an argument is NAME=TEXT or NAME:=JSON")
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], json.loads(value)
    except ValueError as error:
        raise UsageError(f"the value of {name[:-1]} is no JSON: {error}") from None


def _reference(where: str) -> str:
    """Secrets aren't typed: the shell would remember them."""
    if not where.startswith(("env:", "file:", "keyring:")):
        raise UsageError("a password is given by where it is: env:NAME or file:PATH")
    return where


def _plain(value: object) -> object:
    """A result as JSON has it."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Iterable) and hasattr(value, "__getitem__"):
        return {str(name): _plain(value[name]) for name in value}
    return str(value)
