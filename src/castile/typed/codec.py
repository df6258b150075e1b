"""Bodies to values and back, by the schema: validated first, strictly, then by zeep's XSD types.

zeep alone is lenient: a text that is no number becomes None, a missing element too. So nothing
reaches it, and nothing leaves, that libxml2 has not found valid.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from typing import Final

import zeep.exceptions
import zeep.xsd
from lxml import etree
from zeep.xsd.context import XmlParserContext
from zeep.xsd.elements import attribute
from zeep.xsd.types import simple

from castile import xml
from castile.config import Limits
from castile.errors import Malformed, QName, SOAPFault, UsageError
from castile.typed.contract import XSD, Contract, DeclaredFault, Message, Operation, Part
from castile.typed.schema import Schemas, Validator
from castile.xml import Element

_XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
_NIL: Final = f"{{{_XSI}}}nil"
_ZEEP: Final = (zeep.exceptions.Error, TypeError, ValueError, ArithmeticError, AttributeError, KeyError)
"""What zeep raises for values that don't fit; it doesn't say which of them when."""
_strict: Final[ContextVar[bool]] = ContextVar("castile.typed.strict", default=False)
Arguments = dict[str, object]


class Codec:
    """The messages of a contract as values.

    `validate` "off" leaves the schema unasked, for peers whose messages break their own. Raises
    `UsageError` where the schemas of the WSDL are none.
    """

    def __init__(self, contract: Contract, limits: Limits, validate: str = "strict") -> None:
        if validate not in ("strict", "off"):
            raise UsageError(f"validate={validate!r}: 'strict' or 'off' is wanted")
        self._limits = limits
        schemas = Schemas(contract)
        self._names: dict[Message, str] = {}
        for port in contract.ports:
            for operation in port.operations.values():
                for message in (operation.request, operation.response):
                    if message is not None and message.wrapper is not None:
                        self._names.setdefault(message, f"message-{len(self._names)}")
        rpc = {name: message for message, name in self._names.items()}
        self._validator: Validator | None = schemas.validator(rpc) if validate == "strict" else None
        try:
            self._types = zeep.xsd.Schema(schemas.documents, _Nowhere(), None)
        except (*_ZEEP, AssertionError, LookupError, RecursionError) as error:
            raise UsageError(f"the schemas of the WSDL can't be read: {error}") from None

    def operation(self, operation: Operation) -> Values:
        """The codec of one operation. Raises `UsageError` for what isn't spoken here."""
        return Values(self, operation)

    def shape(self, message: Message, of: str) -> Shape | None:
        """What a message holds; None: an empty Body."""
        if message.encoded:
            raise UsageError(f"{of} is rpc/encoded, which castile doesn't speak: WS-I forbids it (R2706)")
        if message.wrapper is not None:
            parts = [self._accessor(part) for part in message.parts]
            content = zeep.xsd.ComplexType(zeep.xsd.Sequence(parts))
            element = zeep.xsd.Element(_clark(message.wrapper), content)
            return Shape(message.wrapper, element, message.wrapper[1], self._names[message])
        if not message.parts:
            return None
        if len(message.parts) > 1:
            raise UsageError(f"{of} has several parts in a document/literal Body (WS-I forbids it, R2201)")
        return self.part(message.parts[0], of)

    def part(self, part: Part, of: str) -> Shape:
        """A part that is an element of its own: of a Body, or a header."""
        if part.element is None:
            raise UsageError(
                f"the part {part.name} of {of} has a type, not an element (WS-I forbids it, R2204)"
            )
        return Shape(part.element, self.element(part.element), part.name)

    def element(self, name: QName) -> zeep.xsd.Element:
        """A global element of the schemas."""
        try:
            return self._types.get_element(_clark(name))
        except zeep.exceptions.Error:
            raise UsageError(f"no schema of the WSDL has the element {_clark(name)}") from None

    def _accessor(self, part: Part) -> zeep.xsd.Element:
        if part.element is not None:
            return self.element(part.element)
        try:
            return zeep.xsd.Element(part.name, self._types.get_type(_clark(part.type or (XSD, "anyType"))))
        except zeep.exceptions.Error:
            raise UsageError(f"no schema of the WSDL has the type of the part {part.name}") from None

    def decode(self, shape: Shape | None, content: bytes) -> object:
        """The value in a Body with this content. Raises `Malformed` with line and path."""
        if shape is None:
            if content:
                raise _broken("the Body must be empty")
            return None
        if not content:
            raise _broken(f"the Body is empty; {shape.name[1]} is wanted")
        return self.decode_element(shape, xml.parse(content, self._limits))

    def decode_element(self, shape: Shape, element: Element) -> object:
        """The value of an element that the codec may change."""
        if xml.name_of(element) != shape.name:
            got = xml.local_name(element)
            raise _broken(f"the element {got} isn't the one that is wanted, {_clark(shape.name)}")
        if self._validator is not None:
            problem = self._validator.problem(element, shape.rpc)
            if problem is not None:
                raise _broken(str(problem))
            _settle(element)
        context = XmlParserContext(settings=self._types.settings)
        token = _strict.set(self._validator is not None)
        try:
            return shape.element.parse(element, self._types, context=context)
        except _ZEEP as error:
            raise _broken(f"{shape.name[1]} can't be read ({type(error).__name__})") from None
        finally:
            _strict.reset(token)

    def encode(self, shape: Shape | None, value: object) -> bytes:
        """A Body's content, canonical. Raises `UsageError` where the value breaks the schema."""
        if shape is None:
            if value not in (None, {}):
                raise UsageError("the message has an empty Body by the WSDL: it takes no value")
            return b""
        element = self._rendered(shape, value)
        octets = xml.canonical_fragment(element, self._limits)
        if self._validator is not None:
            problem = self._validator.problem(xml.parse(octets, self._limits), shape.rpc)
            if problem is not None:
                raise UsageError(f"what was given for {shape.name[1]} breaks the schema: {problem}")
        return octets

    def _rendered(self, shape: Shape, value: object) -> Element:
        parent = etree.Element("parent")
        given = {} if value is None and shape.compound else _plain(value)
        try:
            if shape.compound:
                items = given if isinstance(given, dict) else {name: given[name] for name in given}  # type: ignore[index, attr-defined]
                shape.element.render(parent, shape.element(**items))
            else:
                shape.element.render(parent, given)
        except _ZEEP as error:
            wanted = ", ".join(shape.names) or "one value"
            told = f": {error}" if isinstance(error, zeep.exceptions.Error | TypeError) else ""
            raise UsageError(
                f"what was given for {shape.name[1]} doesn't fit{told}; it takes: {wanted}"
            ) from None
        return parent[0]


class Shape:
    """An element of the contract, and how Python has it."""

    def __init__(self, name: QName, element: zeep.xsd.Element, label: str, rpc: str | None = None) -> None:
        self.name, self.element, self.rpc = name, element, rpc
        self.compound = isinstance(element.type, zeep.xsd.ComplexType)
        if self.compound:
            self.attributes = tuple(name for name, _ in element.type.attributes)
            self.children = tuple(name for name, _ in element.type.elements)
        else:
            self.attributes, self.children = (), (label,)

    @property
    def names(self) -> tuple[str, ...]:
        """Of its children and attributes; of a simple one the name of its part."""
        return self.children + self.attributes

    @property
    def single(self) -> bool:
        """Whether one child is all that it holds: then its value stands for the whole."""
        return self.compound and len(self.children) == 1 and not self.attributes

    def arguments(self, value: object) -> Arguments:
        """By name, as a function takes them."""
        if not self.compound:
            return {self.children[0]: value}
        return {name: None if value is None else value[name] for name in self.names}  # type: ignore[index]

    def result(self, value: object) -> object:
        """As a function returns it."""
        return self.arguments(value)[self.children[0]] if self.single else value

    def returned(self, value: object) -> object:
        """The other way round."""
        return {self.children[0]: value} if self.single else value


class Values:
    """One operation's messages as values, in both directions."""

    def __init__(self, codec: Codec, operation: Operation) -> None:
        self._codec, self.operation = codec, operation
        self._request = codec.shape(operation.request, operation.name)
        response = operation.response
        self._response = None if response is None else codec.shape(response, operation.name)
        self._faults = {
            each.name: (each, Shape(each.element, codec.element(each.element), each.name))
            for each in operation.faults
        }

    @property
    def request(self) -> Shape | None:
        """What a request's Body holds; None: nothing."""
        return self._request

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments, in the order of the schema."""
        return self._request.names if self._request is not None else ()

    def decode_request(self, content: bytes) -> Arguments:
        """The arguments in a request's Body. Raises `Malformed`."""
        value = self._codec.decode(self._request, content)
        return self._request.arguments(value) if self._request is not None else {}

    def encode_request(self, arguments: Mapping[str, object]) -> bytes:
        """A request's Body. Raises `UsageError` for arguments that don't fit."""
        shape = self._request
        if unknown := [name for name in arguments if name not in self.names]:
            takes = ", ".join(self.names) or "none"
            raise UsageError(f"{self.operation.name} has no argument {unknown[0]!r}; it takes: {takes}")
        if shape is not None and not shape.compound:
            return self._codec.encode(shape, arguments.get(shape.children[0]))
        return self._codec.encode(shape, dict(arguments))

    def decode_response(self, content: bytes) -> object:
        """The result in a response's Body; of one with a single child, that child's value."""
        value = self._codec.decode(self._response, content)
        return self._response.result(value) if self._response is not None else None

    def encode_response(self, result: object) -> bytes:
        """A response's Body. Raises `UsageError` for a result that doesn't fit."""
        shape = self._response
        return self._codec.encode(shape, shape.returned(result) if shape is not None else result)

    def decode_fault(self, detail: bytes) -> tuple[str, object] | None:
        """Name and value of the declared fault in a Detail; None: it holds none."""
        if not detail:
            return None
        for child in xml.parse(b"<detail>%b</detail>" % detail, self._codec._limits):
            for name, (_, shape) in self._faults.items():
                if isinstance(child.tag, str) and xml.name_of(child) == shape.name:
                    alone = xml.parse(xml.canonical_fragment(child, self._codec._limits), self._codec._limits)
                    return name, self._codec.decode_element(shape, alone)
        return None

    def encode_fault(self, name: str, value: object) -> tuple[DeclaredFault, bytes]:
        """A declared fault and its Detail's content. Raises `UsageError` for one that isn't."""
        if name not in self._faults:
            known = ", ".join(self._faults) or "none"
            raise UsageError(f"{self.operation.name} declares no fault {name!r}; it declares: {known}")
        declared, shape = self._faults[name]
        return declared, self._codec.encode(shape, value)


class _Refusing:
    """zeep's logger of what Python can't hold, as the year 10000, and what zeep makes None of: while a
    strict codec decodes, the error itself comes out."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> object:
        return getattr(self._logger, name)

    def exception(self, text: str, *values: object) -> None:
        if _strict.get():
            raise  # the error that zeep has caught
        self._logger.exception(text, *values)


for _module in (attribute, simple):
    vars(_module)["logger"] = _Refusing(vars(_module)["logger"])


class _Nowhere:
    """A transport for zeep that has nothing: every document is given to it already."""

    def load(self, url: str) -> bytes:
        raise UsageError(f"a schema needs {url}, which isn't among the documents of the WSDL")


def _settle(element: Element) -> None:
    """What zeep takes for nothing but isn't, and the other way round: empty text, and nil."""
    for each in element.iter("*"):
        nil = each.attrib.pop(_NIL, None)
        if each.text is None and not len(each) and nil not in ("true", "1"):
            each.text = ""


def _plain(value: object) -> object:
    """Data classes, mappings and sequences as zeep takes them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _broken(reason: str) -> Malformed:
    return Malformed(reason, fault=SOAPFault("Sender", f"The message breaks the service's schema: {reason}."))


def _clark(name: QName) -> str:
    return f"{{{name[0]}}}{name[1]}" if name[0] else name[1]


__all__ = ["Arguments", "Codec", "Shape", "Values"]
