"""The XPath expressions of policies that name a part of the message (WS-SP 1.2, 4.1.2, 4.2.2).

Read are paths from the Envelope through Header or Body, each step a name or ``*`` with tests of
namespace and local name, as WebSphere's policy sets write them. Anything else stays unread: it is
never evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from castile.policy.parts import HeaderPart
from castile.versions import DS, SOAP, WSSE, WSU

_LONGEST: Final = 2_000
_STEP: Final = re.compile(
    r"\s*/\s*(?:child::)?(?:(?P<prefix>[\w.-]+):(?P<local>[\w.-]+)"
    r"|\*\s*(?P<tests>(?:\[[^\]\[]*\]\s*)+))\s*",
    re.ASCII,
)
_TEST: Final = re.compile(r"(namespace-uri|local-name)\(\s*\)\s*=\s*(?:'([^']*)'|\"([^\"]*)\")", re.ASCII)

Name = tuple[str, str]
BODY: Final = "Body"
SIGNATURE: Final = "Signature"
TIMESTAMP: Final = "Timestamp"


def part_of(path: str, namespaces: Mapping[str, str]) -> HeaderPart | str | None:
    """The part that a path leads to: a header, or one of `BODY`, `SIGNATURE`, `TIMESTAMP`; None
    where the path is none that is read here."""
    steps = _steps(path, namespaces)
    if not steps or not _is_soap(steps[0], "Envelope"):
        return None
    match steps[1:]:
        case [body] if _is_soap(body, "Body"):
            return BODY
        case [header, block] if _is_soap(header, "Header") and block[0]:
            return HeaderPart(*block)
        case [header, (namespace, "Security"), leaf] if _is_soap(header, "Header") and namespace == WSSE:
            return {(DS, "Signature"): SIGNATURE, (WSU, "Timestamp"): TIMESTAMP}.get(leaf)
    return None


def _is_soap(step: Name, local: str) -> bool:
    return step[0] in SOAP and step[1] == local


def _steps(path: str, namespaces: Mapping[str, str]) -> list[Name]:
    """Its steps as names; none where one isn't read."""
    found: list[Name] = []
    position = 0
    if len(path) > _LONGEST:
        return []
    while position < len(path):
        step = _STEP.match(path, position)
        name = _name(step, namespaces) if step else None
        if step is None or name is None:
            return []
        found.append(name)
        position = step.end()
    return found


def _name(step: re.Match[str], namespaces: Mapping[str, str]) -> Name | None:
    if step["local"]:
        namespace = namespaces.get(step["prefix"])
        return None if namespace is None else (namespace, step["local"])
    tests = {kind: first or second for kind, first, second in _TEST.findall(step["tests"])}
    rest = re.sub(r"[\s\[\]]|\band\b", "", _TEST.sub("", step["tests"]))
    if rest or "local-name" not in tests or "namespace-uri" not in tests:
        return None
    return tests["namespace-uri"], tests["local-name"]
