"""Damaged WSDLs: whatever is done to one, only castile's own errors come of it (features RE-02)."""

from __future__ import annotations

import re
from random import Random

import pytest

from castile.errors import CastileError
from castile.inspecting import inspect, lines
from castile.policy.documents import Documents
from castile.policy.wsdl import describe
from tests.policy.made import wsdl

WHOLE = wsdl(
    definitions='<wsp:Policy wsu:Id="p"><sp:AsymmetricBinding><wsp:Policy/></sp:AsymmetricBinding>'
    "</wsp:Policy>",
    binding='<wsp:PolicyReference URI="#p"/>',
    bindingInput="<wsp:Policy><wsp:ExactlyOne><wsp:All><sp:SignedParts/></wsp:All></wsp:ExactlyOne></wsp:Policy>",
)
PIECES = (
    *(b"", b'"', b"<", b">", b"/>", b"&", b"#", b"t:", b"x:", b" ", b"\x00", b"\xff", b"<!--", b"<![CDATA["),
    *(b"<wsp:All>", b"</wsp:All>", b"<wsp:ExactlyOne/>", b' wsp:Optional="true"', b' wsp:PolicyURIs="#p #q"'),
    *(b' wsdl:required="true"', b"<rmp:RMAssertion/>", b"../", b"name", b"wsdl:", b"targetNamespace"),
)


TOKEN = re.compile(rb'"[^"]*"|<[^>]*>|[a-zA-Z]+')


def mutant(random: Random) -> bytes:
    """Values, tags or words exchanged with others, taken out, or cut into."""
    octets = WHOLE
    for _ in range(random.randint(1, 3)):
        tokens = list(TOKEN.finditer(octets, random.randrange(len(octets) // 2)))
        start, end = random.choice(tokens).span()
        other = random.choice([each for each in tokens if each[0][0] == octets[start]])[0]
        piece = random.choice((other, other, b'""', octets[start:end] * 2, random.choice(PIECES)))
        octets = octets[:start] + piece + octets[end:]
    return octets


@pytest.mark.row("RE-02")
@pytest.mark.parametrize("seed", range(4))
def test_only_castiles_errors(seed: int) -> None:
    random = Random(seed)
    read = 0
    for _ in range(150):
        documents = Documents()
        try:
            documents.add("a.wsdl", mutant(random))
            assert list(lines(inspect(documents, describe(documents))))
        except CastileError:
            continue
        read += 1
    assert read > 10
