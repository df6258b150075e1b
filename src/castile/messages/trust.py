"""WS-Trust's request and response, as WS-SecureConversation uses them, both editions by row.

Child order as WCF writes it. What this side doesn't speak is named in `extensions`, so that
nobody overlooks it; forms of a key that it can't use are `Unsupported`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self

import pybase64

from castile.clock import iso
from castile.errors import Malformed, SOAPFault, Unsupported
from castile.messages.conversation import SecurityContextToken
from castile.messages.security import (
    EncryptedKey,
    SecurityTokenReference,
    base64_of,
    integer_of,
    parse_instant,
)
from castile.versions import CONVERSATION_OF, WSSE, WST, WSU, XENC, Trust
from castile.xml import (
    Element,
    escape_attribute,
    escape_text,
    inside,
    local_name,
    name_of,
    settled,
    text_of,
)

_STR: Final = f"{{{WSSE}}}SecurityTokenReference"


def _invalid(edition: Trust, text: str) -> Malformed:
    """InvalidRequest (WS-Trust 1.3, 11)."""
    fault = SOAPFault(
        "Sender", "The request was invalid or malformed.", (edition.namespace, "InvalidRequest")
    )
    return Malformed(text, fault=fault)


def _failed(edition: Trust, text: str) -> Unsupported:
    """RequestFailed (WS-Trust 1.3, 11)."""
    fault = SOAPFault("Sender", "The specified request failed.", (edition.namespace, "RequestFailed"))
    return Unsupported(text, fault=fault)


class _Children:
    """The children of one element: each of this edition at most once, and the names of the rest."""

    __slots__ = ("edition", "element", "others", "own")

    def __init__(self, element: Element, edition: Trust, name: str) -> None:
        if name_of(element) != (edition.namespace, name):
            raise _invalid(edition, f"{local_name(element)} stands where {name} of {edition.name} belongs")
        self.edition = edition
        self.element = element
        self.own: dict[str, Element] = {}
        self.others: list[str] = []
        for child in inside(element):
            namespace, local = name_of(child)
            if namespace == edition.namespace:
                if local in self.own:
                    raise _invalid(edition, f"{name} holds {local} twice")
                self.own[local] = child
            elif namespace in WST:
                raise _invalid(edition, f"{name} mixes editions of WS-Trust")
            else:
                self.others.append(local)

    def text(self, local: str) -> str | None:
        element = self.own.pop(local, None)
        return None if element is None else text_of(element).strip()

    def number(self, local: str) -> int | None:
        element = self.own.pop(local, None)
        return None if element is None else integer_of(element)

    def lifetime(self) -> tuple[float | None, float | None]:
        """Created and Expires in UTC seconds."""
        element = self.own.pop("Lifetime", None)
        times: dict[str, float] = {}
        for child in inside(element) if element is not None else ():
            namespace, local = name_of(child)
            if namespace != WSU or local not in ("Created", "Expires") or local in times:
                raise _invalid(self.edition, "Lifetime holds one Created and one Expires")
            times[local] = parse_instant(text_of(child))
        return times.get("Created"), times.get("Expires")

    def entropy(self) -> bytes | None:
        """The octets of Entropy/BinarySecret; an encrypted one is not spoken."""
        element = self.own.pop("Entropy", None)
        if element is None:
            return None
        parts = inside(element)
        if len(parts) != 1 or parts[0].tag != f"{{{self.edition.namespace}}}BinarySecret":
            raise _failed(self.edition, "Entropy in another form than one BinarySecret")
        return base64_of(parts[0])

    def reference(self, local: str) -> SecurityTokenReference | None:
        """The one reference in it, also where the security context token itself stands (CXF)."""
        element = self.own.pop(local, None)
        if element is None:
            return None
        parts = inside(element)
        conversation = CONVERSATION_OF[self.edition.namespace]
        if len(parts) == 1 and name_of(parts[0]) == (conversation.namespace, "SecurityContextToken"):
            return SecurityContextToken.parse(parts[0], verbatim=False).unattached(conversation)
        if len(parts) != 1 or parts[0].tag != _STR:
            raise _failed(self.edition, f"{local} in another form than one SecurityTokenReference")
        return SecurityTokenReference.parse(parts[0])

    def rest(self) -> tuple[str, ...]:
        """Local names of what was not read."""
        return tuple(sorted([*self.own, *self.others]))


def _text(local: str, value: str | int | None) -> str:
    return "" if value is None else f"<t:{local}>{escape_text(str(value))}</t:{local}>"


def _entropy(edition: Trust, octets: bytes | None) -> str:
    if octets is None:
        return ""
    secret = pybase64.b64encode(octets).decode()
    kind = edition.uri("Nonce")
    return f'<t:Entropy><t:BinarySecret Type="{kind}">{secret}</t:BinarySecret></t:Entropy>'


def _lifetime(created: float | None, expires: float | None) -> str:
    if created is None and expires is None:
        return ""
    times = "".join(
        f'<u:{local} xmlns:u="{WSU}">{iso(value)}</u:{local}>'
        for local, value in (("Created", created), ("Expires", expires))
        if value is not None
    )
    return f"<t:Lifetime>{times}</t:Lifetime>"


def _wrapped(local: str, reference: SecurityTokenReference | None) -> str:
    return "" if reference is None else f"<t:{local}>{reference.render().decode()}</t:{local}>"


def _element(edition: Trust, local: str, context: str | None, content: str, *, collection: bool) -> bytes:
    scope = f' xmlns:t="{edition.namespace}"'
    attribute = "" if context is None else f' Context="{escape_attribute(context)}"'
    if collection:
        name = "RequestSecurityTokenResponseCollection"
        text = f"<t:{name}{scope}><t:{local}{attribute}>{content}</t:{local}></t:{name}>"
    else:
        text = f"<t:{local}{scope}{attribute}>{content}</t:{local}>"
    # A token in its issuer's own bytes may declare our prefix again.
    return settled(text.encode()) if scope in content else text.encode()


@dataclass(frozen=True, slots=True)
class RequestSecurityToken:
    """``RequestSecurityToken`` (WS-Trust 1.3, 3.1; WS-SC 1.3, 3 to 6)."""

    request_type: str
    """``"Issue"``, ``"Cancel"``, ``"Renew"`` or another local name of this edition."""
    token_type: str | None = None
    key_size: int | None = None
    """Bits."""
    entropy: bytes | None = field(default=None, repr=False)
    created: float | None = None
    """Of the Lifetime that is asked for, UTC seconds."""
    expires: float | None = None
    context: str | None = None
    renew_target: SecurityTokenReference | None = None
    cancel_target: SecurityTokenReference | None = None
    extensions: tuple[str, ...] = ()
    """Local names of children that were not read."""

    @classmethod
    def parse(cls, element: Element, edition: Trust) -> Self:
        """Raises `Malformed` with InvalidRequest, `Unsupported` with RequestFailed."""
        children = _Children(element, edition, "RequestSecurityToken")
        kind = children.text("RequestType")
        prefix = edition.uri("")
        if kind is None or not kind.startswith(prefix):
            raise _invalid(edition, "RequestType is missing or of another specification")
        created, expires = children.lifetime()
        return cls(
            kind.removeprefix(prefix),
            children.text("TokenType"),
            children.number("KeySize"),
            children.entropy(),
            created,
            expires,
            element.get("Context"),
            children.reference("RenewTarget"),
            children.reference("CancelTarget"),
            children.rest(),
        )

    def render(self, edition: Trust) -> bytes:
        """The content of a Body."""
        content = (
            _text("TokenType", self.token_type)
            + _text("RequestType", edition.uri(self.request_type))
            + _entropy(edition, self.entropy)
            + _lifetime(self.created, self.expires)
            + _text("KeySize", self.key_size)
            + _wrapped("RenewTarget", self.renew_target)
            + _wrapped("CancelTarget", self.cancel_target)
        )
        return _element(edition, "RequestSecurityToken", self.context, content, collection=False)


@dataclass(frozen=True, slots=True)
class RequestSecurityTokenResponse:
    """``RequestSecurityTokenResponse`` (WS-Trust 1.3, 3.2 and 4.4)."""

    token_type: str | None = None
    token: SecurityContextToken | None = None
    attached: SecurityTokenReference | None = None
    unattached: SecurityTokenReference | None = None
    computed_key: bool = False
    """The key is P_SHA1 of both entropies."""
    proof_secret: bytes | None = field(default=None, repr=False)
    """The whole key, where one side made it alone."""
    proof_key: EncryptedKey | None = field(default=None, repr=False)
    """The same, encrypted for the requestor."""
    entropy: bytes | None = field(default=None, repr=False)
    created: float | None = None
    """Of the token, UTC seconds."""
    expires: float | None = None
    key_size: int | None = None
    """Bits."""
    context: str | None = None
    cancelled: bool = False
    extensions: tuple[str, ...] = ()
    """Local names of children that were not read."""

    @classmethod
    def parse(cls, element: Element, edition: Trust) -> Self:
        """A response, or a collection of exactly one (features TR-03)."""
        if name_of(element) == (edition.namespace, "RequestSecurityTokenResponseCollection"):
            items = inside(element)
            if len(items) != 1:
                raise _invalid(edition, f"a collection of {len(items)} responses, one is expected")
            element = items[0]
        children = _Children(element, edition, "RequestSecurityTokenResponse")
        created, expires = children.lifetime()
        computed, secret, sealed = _proof(children)
        return cls(
            children.text("TokenType"),
            _token(children),
            children.reference("RequestedAttachedReference"),
            children.reference("RequestedUnattachedReference"),
            computed,
            secret,
            sealed,
            children.entropy(),
            created,
            expires,
            children.number("KeySize"),
            element.get("Context"),
            children.own.pop("RequestedTokenCancelled", None) is not None,
            children.rest(),
        )

    def render(self, edition: Trust) -> bytes:
        """The content of a Body; a collection where the edition wants one."""
        token = ""
        if self.token is not None:
            octets = self.token.render(CONVERSATION_OF[edition.namespace])
            token = f"<t:RequestedSecurityToken>{octets.decode()}</t:RequestedSecurityToken>"
        content = (
            _text("TokenType", self.token_type)
            + token
            + _wrapped("RequestedAttachedReference", self.attached)
            + _wrapped("RequestedUnattachedReference", self.unattached)
            + self._proof(edition)
            + _entropy(edition, self.entropy)
            + _lifetime(self.created, self.expires)
            + _text("KeySize", self.key_size)
            + ("<t:RequestedTokenCancelled></t:RequestedTokenCancelled>" if self.cancelled else "")
        )
        name = "RequestSecurityTokenResponse"
        return _element(edition, name, self.context, content, collection=edition.collection)

    def _proof(self, edition: Trust) -> str:
        if self.computed_key:
            proof = _text("ComputedKey", edition.uri("CK/PSHA1"))
        elif self.proof_secret is not None:
            secret = pybase64.b64encode(self.proof_secret).decode()
            kind = edition.uri("SymmetricKey")
            proof = f'<t:BinarySecret Type="{kind}">{secret}</t:BinarySecret>'
        elif self.proof_key is not None:
            proof = self.proof_key.render().decode()
        else:
            return ""
        return f"<t:RequestedProofToken>{proof}</t:RequestedProofToken>"


def _token(children: _Children) -> SecurityContextToken | None:
    element = children.own.pop("RequestedSecurityToken", None)
    if element is None:
        return None
    parts = inside(element)
    namespace = CONVERSATION_OF[children.edition.namespace].namespace
    if len(parts) != 1 or name_of(parts[0]) != (namespace, "SecurityContextToken"):
        raise _failed(children.edition, "the issued token is no SecurityContextToken of this edition")
    return SecurityContextToken.parse(parts[0])


def _proof(children: _Children) -> tuple[bool, bytes | None, EncryptedKey | None]:
    """Whether the key is computed, and the key that was sent whole, in clear or encrypted
    (features SC-05)."""
    element = children.own.pop("RequestedProofToken", None)
    if element is None:
        return False, None, None
    parts = inside(element)
    edition = children.edition
    name = name_of(parts[0]) if len(parts) == 1 else ("", "")
    if name == (edition.namespace, "ComputedKey"):
        if text_of(parts[0]).strip() != edition.uri("CK/PSHA1"):
            raise _failed(edition, "the key is computed in another way than PSHA1")
        return True, None, None
    if name == (edition.namespace, "BinarySecret"):
        return False, base64_of(parts[0]), None
    if name == (XENC, "EncryptedKey"):
        return False, None, EncryptedKey.parse(parts[0])
    raise _failed(edition, "RequestedProofToken holds no ComputedKey, BinarySecret or EncryptedKey")
