"""WS-Policy expressions and their normal form (WS-Policy 1.5, 4)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from castile.config import DocumentLimits
from castile.errors import CastileError, PolicyError
from castile.messages.policy import Assertion, Policy, render
from castile.policy.attachment import Attachments
from castile.policy.documents import Documents
from castile.versions import WSP, WSP_1_2, WSP_1_5
from tests.conftest import shared
from tests.policy.made import normal, shorts

NAMESPACES = sorted(WSP)


def policy(inner: str, namespace: str = WSP_1_5.namespace) -> str:
    return f'<wsp:Policy xmlns:wsp="{namespace}" xmlns="urn:a">{inner}</wsp:Policy>'


FORMS = {
    "nothing": ("", [""]),
    "one assertion": ("<A/>", ["A"]),
    "All is all of it": ("<wsp:All><A/><B/></wsp:All>", ["A B"]),
    "ExactlyOne": ("<wsp:ExactlyOne><A/><B/></wsp:ExactlyOne>", ["A", "B"]),
    "an ExactlyOne without anything": ("<A/><wsp:ExactlyOne/>", []),
    "an All without anything": ("<wsp:ExactlyOne><A/><wsp:All/></wsp:ExactlyOne>", ["A", ""]),
    "normal form": (
        "<wsp:ExactlyOne><wsp:All><A/></wsp:All><wsp:All><B/></wsp:All></wsp:ExactlyOne>",
        ["A", "B"],
    ),
    "All in All": ("<wsp:All><wsp:All><A/></wsp:All><wsp:All><B/></wsp:All></wsp:All>", ["A B"]),
    "ExactlyOne in ExactlyOne": (
        "<wsp:ExactlyOne><A/><wsp:ExactlyOne><B/><C/></wsp:ExactlyOne></wsp:ExactlyOne>",
        ["A", "B", "C"],
    ),
    "each with each": (
        "<wsp:ExactlyOne><A/><B/></wsp:ExactlyOne><wsp:ExactlyOne><C/><D/></wsp:ExactlyOne>",
        ["A C", "A D", "B C", "B D"],
    ),
    "Policy in Policy": ("<wsp:Policy><A/></wsp:Policy><B/>", ["A B"]),
    "optional": ('<A/><B wsp:Optional="true"/>', ["A B", "A"]),
    "optional as a digit": ('<B wsp:Optional=" 1 "/>', ["B", ""]),
    "not optional": ('<B wsp:Optional="false"/>', ["B"]),
    "nested": ("<A><wsp:Policy><B/></wsp:Policy></A>", ["A[B]"]),
    "nested and empty": ("<A><wsp:Policy/></A>", ["A[]"]),
    "nested alternatives": (
        "<A><wsp:Policy><wsp:ExactlyOne><B/><C/></wsp:ExactlyOne></wsp:Policy></A>",
        ["A[B]", "A[C]"],
    ),
    "nested optional": ('<A><wsp:Policy><B wsp:Optional="true"/></wsp:Policy></A>', ["A[B]", "A[]"]),
    "nested without alternative": ("<A><wsp:Policy><wsp:ExactlyOne/></wsp:Policy></A>", []),
    "nested twice": ("<A><wsp:Policy><B/></wsp:Policy><wsp:Policy><C/></wsp:Policy></A>", ["A[B C]"]),
    "said twice": ("<A/><A/>", ["A"]),
    "the same alternative twice": ("<wsp:ExactlyOne><A/><A/></wsp:ExactlyOne>", ["A"]),
}


@pytest.mark.row("PO-01")
@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize(("expression", "expected"), FORMS.values(), ids=FORMS)
def test_normal_form(expression: str, expected: list[str], namespace: str) -> None:
    assert shorts(normal(policy(expression, namespace))) == expected


@pytest.mark.row("PO-01")
def test_editions_mix() -> None:
    old = f'<o:Policy xmlns:o="{WSP_1_2.namespace}"><o:ExactlyOne><B/><C/></o:ExactlyOne></o:Policy>'
    inner = f"<wsp:All><A>{old}</A></wsp:All>"
    assert shorts(normal(policy(inner))) == ["A[B]", "A[C]"]


@pytest.mark.row("PO-01")
def test_what_an_assertion_holds() -> None:
    text = policy(
        '\n<A wsp:Optional="true" wsp:Ignorable="true" x="1" y:z="2" xmlns:y="urn:y">\n'
        '  <wsp:Policy><B/></wsp:Policy>\n  <P q="3">two<!-- --> words</P>\n</A>'
    )
    (one, other) = normal(text)
    assert other == ()
    (a,) = one
    assert (a.name, a.place.document, a.place.line) == ("{urn:a}A", "a.wsdl", 2)
    assert a.attributes == (("x", "1"), ("{urn:y}z", "2"))
    assert (a.optional, a.ignorable) == (True, True)
    assert [each.name for each in a.nested] == ["{urn:a}B"]
    (parameter,) = a.children
    assert (parameter.name, parameter.text, parameter.attributes) == (
        "{urn:a}P",
        "two words",
        (("q", "3"),),
    )


@pytest.mark.row("PO-01")
def test_parameters_stay_as_they_are() -> None:
    """What stands below a parameter is no policy of the assertion's, whatever it is called."""
    text = policy(
        '<A><T><wsp:AppliesTo><wsp:Policy><B wsp:Optional="true"/></wsp:Policy></wsp:AppliesTo></T></A>'
    )
    ((a,),) = normal(text)
    assert a.policy is None
    (applies,) = a.children[0].children
    assert applies.name == f"{{{WSP_1_5.namespace}}}AppliesTo"


def test_equality_is_of_what_is_said() -> None:
    assert normal(policy("\n\n<A/>")) == normal(policy("<A></A>"))
    assert normal(policy('<A x="1" y="2"/>')) == normal(policy('<A y="2" x="1"/>'))
    assert normal(policy("<A/>")) != normal(policy("<A><wsp:Policy/></A>"))
    assert normal(policy('<A x="1"/>')) != normal(policy('<A x="2"/>'))
    assert hash(normal(policy("\n<A><wsp:Policy/></A>"))) == hash(normal(policy("<A><wsp:Policy/></A>")))


@pytest.mark.parametrize("language", WSP.values(), ids=lambda each: each.name)
@pytest.mark.parametrize(("expression", "_"), FORMS.values(), ids=FORMS)
def test_render_and_read_again(expression: str, _: list[str], language: object) -> None:
    read = normal(policy(expression))
    assert normal(render(read, next(each for each in WSP.values() if each is language)).decode()) == read


def test_render_keeps_prefixes_that_values_use() -> None:
    text = policy(
        '<X xmlns:n1="urn:1" xmlns:wsp2="urn:2" d="wsp2:q">//n1:a[. = "&lt;&#10;"]</X>'
        '<n1:Y xmlns:n1="urn:9"/>'
    )
    read = normal(text)
    assert read[0][0].namespaces == (("n1", "urn:1"), ("wsp2", "urn:2"))
    assert normal(render(read, WSP_1_2).decode()) == read


@pytest.mark.row("PO-02")
def test_two_to_the_fortieth_alternatives_are_refused_at_once() -> None:
    bombs = (
        "<wsp:ExactlyOne><A/><B/></wsp:ExactlyOne>" * 40,
        "".join(f'<A{number} wsp:Optional="true"/>' for number in range(40)),
        "<A><wsp:Policy>" + "".join(f'<B{n} wsp:Optional="true"/>' for n in range(40)) + "</wsp:Policy></A>",
        "".join(f"<wsp:ExactlyOne><A{n}/><wsp:All><B{n}/><C/></wsp:All></wsp:ExactlyOne>" for n in range(40)),
    )
    for bomb in bombs:
        document = policy(bomb)
        start = time.process_time()
        with pytest.raises(PolicyError, match="more than 64 alternatives"):
            normal(document)
        assert time.process_time() - start < 0.05


@pytest.mark.row("PO-02")
def test_limits_are_exact() -> None:
    def optional(count: int) -> str:
        return policy("".join(f'<A{number} wsp:Optional="true"/>' for number in range(count)))

    assert len(normal(optional(6))) == 64
    with pytest.raises(PolicyError, match="alternatives"):
        normal(optional(7))
    limits = DocumentLimits(policy_nodes=10)
    assert len(normal(policy("<A/>" * 9), limits)[0]) == 1
    with pytest.raises(PolicyError, match="more than 10 elements"):
        normal(policy("<A/>" * 10), limits)


@pytest.mark.row("PO-02")
def test_large_alternatives_cost_little() -> None:
    """Whole assertions are compared by a number that is computed once."""
    big = "<A><wsp:Policy>" + "".join(f"<B{n}/>" for n in range(4000)) + "</wsp:Policy></A>"
    choices = "<wsp:ExactlyOne><C/><D/></wsp:ExactlyOne>".replace("C", "C{0}").replace("D", "D{0}")
    inner = big + "".join(choices.format(number) for number in range(6))
    for _ in range(20):
        inner = f"<wsp:All>{inner}</wsp:All>"
    document = policy(inner)
    start = time.process_time()
    assert len(normal(document)) == 64
    assert time.process_time() - start < 1.0


@pytest.mark.row("PO-02")
def test_deep_policies_are_refused() -> None:
    deep = policy("<wsp:All>" * 70 + "<A/>" + "</wsp:All>" * 70)
    with pytest.raises(CastileError, match="nested more than 64 deep"):
        normal(deep)


def _read(path: Path) -> Policy:
    documents = Documents()
    documents.add(path.name, path.read_bytes())
    return Attachments(documents).policy(path.name)


def _plain(alternatives: Policy) -> frozenset[frozenset[Assertion]]:
    return frozenset(frozenset(each) for each in alternatives)


@pytest.mark.row("PO-01")
@pytest.mark.parametrize(
    ("given", "expected"), [("samples2", "normalized2"), ("w3tests", "w3tests__Normalized")]
)
def test_normalisation_tests_of_others(given: str, expected: str) -> None:
    """One of the W3C's and one of neethi's: the expected file is in normal form already."""
    folder = shared("wsdl", "neethi")
    name = "src__test__test-resources__{}__Policy16.xml"
    assert _plain(_read(folder / name.format(given))) == _plain(_read(folder / name.format(expected)))


@pytest.mark.row("PO-01")
def test_normal_forms_of_wss4j() -> None:
    """32 assertions of WS-SecurityPolicy; three more of theirs have defaults written out as well."""
    folder = shared("wsdl", "wss4j-policy")
    defaults = {"InitiatorToken", "RecipientToken", "SupportingTokens"}
    unlike = set()
    for path in folder.glob("*__normalized__*.xml"):
        given = folder / path.name.replace("__normalized__", "__")
        if _plain(_read(given)) != _plain(_read(path)):
            unlike.add(given.stem.removeprefix("sp12__"))
    assert unlike == defaults
