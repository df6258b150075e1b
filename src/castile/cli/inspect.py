"""``castile inspect``: what a WSDL offers and asks for; ``castile lint``: what is wrong with a policy."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from castile.inspecting import Inspected, Inspection, as_json, finding_json, lines, of_policy
from castile.inspecting import inspect as look
from castile.messages.policy import Policy, render
from castile.policy.attachment import Attachments
from castile.policy.documents import Documents, kind_of
from castile.policy.findings import Finding
from castile.policy.lint import lint as lint_policy
from castile.policy.sets import policy_set, policy_sets
from castile.policy.wsdl import describe
from castile.transport.documents import Loader
from castile.versions import WSP_1_5
from castile.xml import indented

SERVICE = click.option("--service", metavar="NAME", help="Only the ports of this service.")
PORT = click.option("--port", metavar="NAME", help="Only this port.")
ALLOW = click.option("--allow", multiple=True, metavar="HOST", help="Another server to import from.")
JSON = click.option("--json", "as_data", is_flag=True, help="Write JSON.")
IGNORE = click.option("--ignore", multiple=True, metavar="ASSERTION", help="An assertion to pass over.")
STRICT = click.option("--strict", is_flag=True, help="Refuse the assertions of unknown vendors too.")


@click.command(epilog="Exit status: 0 usable, 1 something can't be honoured, 2 no WSDL, 3 not reached.")
@click.argument("wsdl", metavar="WSDL")
@SERVICE
@PORT
@click.option("--policy", "as_policy", is_flag=True, help="Write the effective policies, as WS-Policy.")
@STRICT
@IGNORE
@ALLOW
@JSON
def inspect(
    wsdl: str,
    service: str | None,
    port: str | None,
    as_policy: bool,
    strict: bool,
    ignore: tuple[str, ...],
    allow: tuple[str, ...],
    as_data: bool,
) -> None:
    """Say what a WSDL offers and asks for: its operations, its policy in words, which parts of which
    messages are signed and encrypted, which credentials a client must bring, what is weak or can't be
    honoured, and a call that runs when pasted.

    WSDL is a file or the address of one. What it imports comes from its own server only, unless
    --allow names another.

    \b
        castile inspect service.wsdl
        castile inspect https://example.com/service?wsdl --json
    """
    documents = Loader(allow=allow).load(wsdl)
    description = describe(documents)
    found = look(documents, description, service=service, port=port, strict=strict, ignore=ignore)
    if as_data:
        click.echo(json.dumps(as_json(found), indent=2))
    else:
        for line in _policies(found) if as_policy else lines(found):
            click.echo(line)
    sys.exit(0 if found.usable else 1)


def _policies(inspection: Inspection) -> Iterator[str]:
    for each in inspection.ports:
        rows: dict[Policy, list[str]] = {each.port.alternatives: ["the endpoint"]}
        for (name, direction), policy in each.port.message_alternatives.items():
            rows.setdefault(policy, []).append(f"the {direction} of {name}")
        for policy, subjects in rows.items():
            named = f"{each.name}: {', '.join(subjects)}".replace("--", "- -")
            yield f"<!-- {named} -->"
            yield indented(render(policy, WSP_1_5))


@click.command(epilog="Exit status: 0 no error was found, 1 one was, 2 it is neither, 3 not reached.")
@click.argument("source", metavar="POLICY-or-WSDL")
@SERVICE
@PORT
@STRICT
@IGNORE
@ALLOW
@JSON
def lint(
    source: str,
    service: str | None,
    port: str | None,
    strict: bool,
    ignore: tuple[str, ...],
    allow: tuple[str, ...],
    as_data: bool,
) -> None:
    """Say what is wrong, weak or unusual about a policy: of a WSDL, of a file that holds one policy,
    or of a set that castile knows by name.

    \b
        castile lint service.wsdl
        castile lint wcf-wshttp-username
    """
    named = source in policy_sets() or not {"/", "."} & set(source)
    if named and not Path(source).exists():
        found: list[tuple[str, Finding]] = [(source, each) for each in lint_policy(policy_set(source))]
    else:
        documents = Loader(allow=allow).load(source)
        root = documents.root(documents.location)
        if root is not None and kind_of(root) == "policy":
            policy = Attachments(documents).policy(documents.location)
            found = list(_told(of_policy(source, policy, strict=strict, ignore=ignore)))
        else:
            found = list(_linted(documents, service, port, strict, ignore))
    if as_data:
        click.echo(json.dumps([{"of": name, **finding_json(each)} for name, each in found], indent=2))
    else:
        for name, each in found:
            click.echo(f"{name}: {each} [{each.code}]")
        if not found:
            click.echo(f"{source}: nothing to say")
    sys.exit(1 if any(each.level == "error" for _, each in found) else 0)


def _linted(
    documents: Documents, service: str | None, port: str | None, strict: bool, ignore: tuple[str, ...]
) -> Iterator[tuple[str, Finding]]:
    found = look(documents, describe(documents), service=service, port=port, strict=strict, ignore=ignore)
    for name, reason in found.refused:
        yield name, Finding("error", "refused", reason)
    for each in found.ports:
        yield from _told(each)
    for finding in found.description.findings:
        yield found.description.location, finding


def _told(inspected: Inspected) -> Iterator[tuple[str, Finding]]:
    if inspected.reason:
        yield inspected.name, Finding("error", "policy", inspected.reason)
    for finding in inspected.findings:
        yield inspected.name, finding
