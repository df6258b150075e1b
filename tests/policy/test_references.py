"""PolicyReference and PolicyURIs: what they lead to, and that nothing is passed over."""

from __future__ import annotations

import pytest

from castile.errors import PolicyError
from tests.policy.made import HEAD, described, documents, line, port, shorts, wsdl

REFERENCES = {
    "wsu:Id": ('<wsp:Policy wsu:Id="x"><a:X/></wsp:Policy>', "#x"),
    "xml:id": ('<wsp:Policy xml:id="x"><a:X/></wsp:Policy>', "#x"),
    "Id": ('<wsp:Policy Id="x"><a:X/></wsp:Policy>', "#x"),
    "Name": ('<wsp:Policy Name="http://a/p"><a:X/></wsp:Policy>', "http://a/p"),
    "Name with a fragment": ('<wsp:Policy Name="http://a/p#q"><a:X/></wsp:Policy>', "http://a/p#q"),
    "another edition": (
        '<o:Policy xmlns:o="http://schemas.xmlsoap.org/ws/2004/09/policy" wsu:Id="x"><a:X/></o:Policy>',
        "#x",
    ),
    "over another": (
        """<wsp:Policy Id="x"><wsp:PolicyReference URI="#y"/></wsp:Policy>
        <wsp:Policy Id="y"><a:X/></wsp:Policy>""",
        "#x",
    ),
}


@pytest.mark.row("PO-03")
@pytest.mark.parametrize(("definition", "uri"), REFERENCES.values(), ids=REFERENCES)
def test_references(definition: str, uri: str) -> None:
    assert shorts(
        port(definitions=definition, binding=f'<wsp:PolicyReference URI="{uri}"/>').alternatives
    ) == ["X"]


@pytest.mark.row("PO-03")
def test_references_into_other_documents() -> None:
    other = '<w:Policy xmlns:w="http://www.w3.org/ns/ws-policy" xmlns="urn:a" xml:id="{}"><X/></w:Policy>'
    for uri, octets in (
        ("sub/p.xml", other.format("any")),
        ("sub/p.xml#x", other.format("x")),
        ("sub/p.xml#x", (HEAD + '<wsp:Policy wsu:Id="x"><a:X/></wsp:Policy></wsdl:definitions>')),
        ("sub/p.xml", other.format("any").replace("<X/>", '<w:PolicyReference URI="q.xml#y"/>')),
    ):
        text = wsdl(binding=f'<wsp:PolicyReference URI="{uri}"/>')
        more = {"sub/p.xml": octets, "sub/q.xml": other.format("y")}
        assert shorts(described(text, more=more).ports[0].alternatives) == ["X"]


DANGLING = {
    "no such Id": ("#y", "'#y', which is nowhere to be found (there are x)"),
    "no such document": ("p.xml#x", "'p.xml#x', which is nowhere to be found (there are x)"),
    "a document that couldn't be had": ("q.xml", "'q.xml', which could not be had: not found"),
    "no URI": ("", "'', which is nowhere to be found (there are x)"),
    "an Id that stands twice": ("#z", "'#z', which stands there 2 times: an Id or Name must be unique"),
}


@pytest.mark.row("PO-03", "PO-10")
@pytest.mark.parametrize(("uri", "reason"), DANGLING.values(), ids=DANGLING)
def test_dangling_references_are_errors(uri: str, reason: str) -> None:
    from castile.policy.wsdl import describe

    known = '<wsp:Policy wsu:Id="x"/>'
    twice = '<wsp:Policy wsu:Id="z"/><wsp:Policy wsu:Id="z"/>' if uri == "#z" else ""
    made = documents(wsdl(definitions=known + twice, binding=f'\n<wsp:PolicyReference URI="{uri}"/>'))
    made.missing["q.xml"] = "not found"
    (refused,) = describe(made).refused
    assert isinstance(refused.reason, PolicyError)
    expected = reason.replace("there are x", "there are x, z") if twice else reason
    place = line(made.octets("a.wsdl") or b"", "<wsp:PolicyReference")
    assert str(refused.reason) == f"a.wsdl:{place}: PolicyReference refers to the policy {expected}"


@pytest.mark.row("PO-03")
@pytest.mark.parametrize(
    "definitions",
    [
        '<wsp:Policy wsu:Id="x"><wsp:PolicyReference URI="#x"/></wsp:Policy>',
        (
            '<wsp:Policy wsu:Id="x"><wsp:PolicyReference URI="#y"/></wsp:Policy><wsp:Policy wsu:Id="y"><a:A>'
            '<wsp:Policy><wsp:PolicyReference URI="#x"/></wsp:Policy></a:A></wsp:Policy>'
        ),
    ],
    ids=["itself", "another"],
)
def test_circles_are_refused(definitions: str) -> None:
    with pytest.raises(PolicyError, match="the policy refers to itself"):
        port(definitions=definitions, binding='<wsp:PolicyReference URI="#x"/>')


@pytest.mark.row("PO-02", "PO-03")
def test_references_that_multiply_or_nest_are_refused() -> None:
    def chain(count: int, line: str) -> str:
        policies = "".join(
            f'<wsp:Policy wsu:Id="p{n}">{line.format(n=n, m=n + 1)}</wsp:Policy>' for n in range(count)
        )
        return policies + f'<wsp:Policy wsu:Id="p{count}"><a:X/></wsp:Policy>'

    start = '<wsp:PolicyReference URI="#p0"/>'
    one = '<wsp:PolicyReference URI="#p{m}"/>'
    assert shorts(port(definitions=chain(9, one), binding=start).alternatives) == ["X"]
    with pytest.raises(PolicyError, match="more than 10 deep"):
        port(definitions=chain(10, one), binding=start)
    doubled = (
        "<a:A{n}><wsp:Policy><wsp:ExactlyOne>"
        + one
        + "<wsp:All>"
        + one
        + "<a:B{n}/></wsp:All></wsp:ExactlyOne></wsp:Policy></a:A{n}>"
    )
    with pytest.raises(PolicyError, match="more than 64 alternatives"):
        port(definitions=chain(7, doubled), binding=start)
    deep = "<wsp:All>" * 20 + one + "</wsp:All>" * 20
    with pytest.raises(PolicyError, match="nested more than 64 deep"):
        port(definitions=chain(5, deep), binding=start)


@pytest.mark.row("PO-01")
def test_a_policy_of_an_unknown_edition_is_no_absence_of_policy() -> None:
    for element in (
        '<p:Policy xmlns:p="http://schemas.xmlsoap.org/ws/2002/12/policy"/>',
        '<p:PolicyReference xmlns:p="urn:p"/>',
    ):
        with pytest.raises(PolicyError, match=r"a policy of the edition .*, which castile can't read"):
            port(binding=element)
    for attribute in (
        'PolicyURIs="#x"',
        'p:PolicyURIs="#x" xmlns:p="http://schemas.xmlsoap.org/ws/2002/12/policy"',
    ):
        text = wsdl().decode().replace('<wsdl:portType name="PT"', f'<wsdl:portType name="PT" {attribute}')
        with pytest.raises(PolicyError, match=r"the attribute .*PolicyURIs is of no edition"):
            described(text).port()
    attachment = "<wsp:PolicyAttachment><wsp:AppliesTo/></wsp:PolicyAttachment>"
    with pytest.raises(PolicyError, match="attached by wsp:PolicyAttachment are not read"):
        port(definitions=attachment)
