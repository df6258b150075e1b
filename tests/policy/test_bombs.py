"""WSDLs made to cost much: what reading them takes stays in proportion to their size."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from castile.errors import CastileError
from castile.policy.documents import Documents
from castile.policy.wsdl import describe
from castile.transport.documents import Loader
from tests.policy.made import HEAD, wsdl

SECONDS = 3.0
"""Of a processor, what an honest document of 5 MB takes."""


def bind(operations: str, ports: str = '<wsdl:port name="P" binding="t:B"/>', definitions: str = "") -> str:
    return f"""{HEAD}{definitions}
    <wsdl:binding name="B" type="t:PT"><soap:binding/>{operations}</wsdl:binding>
    <wsdl:service name="S">{ports}</wsdl:service></wsdl:definitions>"""


def types(operations: str) -> str:
    return f'<wsdl:message name="M"/><wsdl:portType name="PT">{operations}</wsdl:portType>'


def operation(number: int, inner: str = '<wsdl:input message="t:M"/>') -> str:
    return f'<wsdl:operation name="o{number}">{inner}</wsdl:operation>'


def optional(count: int, name: str) -> str:
    return "".join(f'<a:{name}{number} wsp:Optional="true"/>' for number in range(count))


def many_ports() -> str:
    ports = "".join(f'<wsdl:port name="p{number}" binding="t:B"/>' for number in range(8_000))
    return bind(operation(0), ports, types(operation(0)))


def many_operations() -> str:
    return bind(
        "".join(map(operation, range(2_000))), definitions=types("".join(map(operation, range(2_000))))
    )


def many_faults() -> str:
    faults = "".join(f'<wsdl:fault name="f{number}"/>' for number in range(12_000))
    inner = f'<wsdl:input message="t:M"/><wsdl:output message="t:M"/>{faults}'
    return bind(operation(0, inner), definitions=types(operation(0, inner)))


def many_services_with_policies() -> str:
    policy = (
        f'<wsp:Policy wsu:Id="p">{optional(6, "A")}{"".join(f"<a:X{n}/>" for n in range(140))}</wsp:Policy>'
    )
    inner = '<wsp:Policy><a:Y{0}/></wsp:Policy><wsdl:input message="t:M"/>'
    bound = "".join(operation(number, inner.format(number)) for number in range(2_000))
    reference = '<wsp:PolicyReference URI="#p"/>'
    return bind(reference + bound, definitions=policy + types("".join(map(operation, range(2_000)))))


def many_dangling_references() -> str:
    policies = "".join(f'<wsp:Policy wsu:Id="i{number}"/>' for number in range(15_000))
    port = '<wsdl:port name="p{0}" binding="t:B"><wsp:PolicyReference URI="#nowhere"/></wsdl:port>'
    return bind(operation(0), "".join(map(port.format, range(2_000))), policies + types(operation(0)))


def many_references_to_documents() -> str:
    reference = '<wsp:PolicyReference URI="urn:n{}"/>'
    policy = '<wsp:Policy Name="urn:n{0}"/>'
    binding = "".join(map(reference.format, range(15_000)))
    return bind(
        binding + operation(0), definitions="".join(map(policy.format, range(15_000))) + types(operation(0))
    )


def many_alternatives_in_many_policies() -> str:
    group = f"<wsp:All>{optional(6, 'A')}{'<a:B/>' * 100}</wsp:All>"
    policies = "".join(f'<wsp:Policy wsu:Id="p{n}">{group * 40}</wsp:Policy>' for n in range(20))
    port = '<wsdl:port name="p{0}" binding="t:B"><wsp:PolicyReference URI="#p{0}"/></wsdl:port>'
    return bind(operation(0), "".join(map(port.format, range(20))), policies + types(operation(0)))


def many_contradictions() -> str:
    """Endpoint alternatives and bindings on messages: PO-05 looks at all of them."""
    inner = '<wsp:Policy>{0}<sp:SymmetricBinding x="{0}"/></wsp:Policy><wsdl:input message="t:M"/>'
    bound = "".join(operation(number, inner.replace("{0}", "")) for number in range(2_000))
    policy = f"<wsp:Policy>{optional(6, 'A')}</wsp:Policy>"
    return bind(policy + bound, definitions=types("".join(map(operation, range(2_000)))))


BOMBS: list[Callable[[], str]] = [
    many_ports,
    many_operations,
    many_faults,
    many_services_with_policies,
    many_dangling_references,
    many_references_to_documents,
    many_alternatives_in_many_policies,
    many_contradictions,
]


@pytest.mark.row("PO-02", "RE-43")
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda each: each.__name__)
def test_a_large_document_costs_what_its_size_costs(bomb: Callable[[], str]) -> None:
    octets = bomb().encode()
    assert len(octets) < 5 << 20
    start = time.process_time()
    try:
        describe(Loader().load(octets))
    except CastileError as error:
        assert len(str(error)) < 1000  # noqa: PT017
    assert time.process_time() - start < SECONDS


@pytest.mark.row("RE-43")
def test_all_documents_together_have_a_limit() -> None:
    documents = Documents()
    large = wsdl() + b" " * (5_000_000 - len(wsdl()))
    for number in range(6):
        documents.add(str(number), large)
    with pytest.raises(CastileError, match="bytes of documents"):
        documents.add("6", large)
