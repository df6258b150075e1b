"""Policies by name: what products offer under these names, as far as castile can do it (features 6.4).

A set holds what WS-Policy can say. Where messages are kept, and for how long, is the quality of
service of whoever uses it.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from typing import Final

from castile.errors import PolicyError
from castile.policy import EndpointPolicy, ProtectionPolicy, SupportingToken
from castile.policy.delivery import NOTHING_SAID, Delivery
from castile.policy.parts import NO_PARTS, HeaderPart, Parts
from castile.policy.suites import SUITES
from castile.versions import FAMILIES, SOAP_1_2, WSA_1_0, WSMC, Family, Reliability

_ADDRESSING: Final = frozenset(
    HeaderPart(WSA_1_0.namespace, name)
    for name in ("To", "From", "FaultTo", "ReplyTo", "MessageID", "RelatesTo", "Action")
)
_TO: Final = replace(NO_PARTS, signed_headers=frozenset({HeaderPart(WSA_1_0.namespace, "To")}))
_USERNAME: Final = SupportingToken("username", signed=True, encrypted=True)
_OVER_TLS: Final = SupportingToken("username", signed=True)
_ENDORSING: Final = SupportingToken("x509", endorsing=True)
_ENDORSING_TO: Final = SupportingToken("x509", endorsing=True, parts=_TO)
_OLD, _NEW = FAMILIES["2005"], FAMILIES["1.3"]
_WCF_DELIVERY: Final = {
    "2005": Delivery(inactivity=600.0, acknowledgement=0.2),
    "1.3": Delivery("exactly-once", in_order=True, inactivity=600.0, acknowledgement=0.2),
}

_MAKE_CONNECTION: Final = "MakeConnection"
_NEGOTIATION: Final = "the TLS negotiation inside SOAP (its -direct twin needs none)"
_KERBEROS: Final = "Kerberos tickets"
_ISSUED: Final = "tokens of a security token service"


def policy_set(name: str) -> EndpointPolicy:
    """The policy of a named set, read-only as every policy is.

    Raises `PolicyError` for a name that isn't known, with the nearest that is, and for a set that
    needs what castile can't do yet, with that.
    """
    if name in _WAITING:
        raise PolicyError(f"the policy set {name!r} waits for {_WAITING[name]}, which castile can't do yet")
    if name not in _sets():
        near = get_close_matches(name, [*_sets(), *_WAITING], n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(policy_sets())}"
        raise PolicyError(f"unknown policy set {name!r}: {advice}")
    return _sets()[name]


def policy_sets() -> tuple[str, ...]:
    """The names that `policy_set` takes."""
    return tuple(_sets())


@cache
def _sets() -> dict[str, EndpointPolicy]:
    mutual, username = _mutual("Basic256"), _mutual("Basic256", _USERNAME)
    trust = _mutual("Basic256")
    found = {
        "ramp-1.0": _conversing(_OLD, _mutual("Basic128"), reliable=True),
        "secure-conversation": _conversing(_NEW, mutual),
        "secure-conversation-username": _conversing(_NEW, username),
        "reliable-1.0": _plain(_OLD.reliability),
        "metro-rm": _naming(
            _conversing(_NEW, _symmetric("Basic128", _ENDORSING, derived=False), reliable=True),
            Delivery("exactly-once", window=32),
        ),
        "cxf-rm": _conversing(_NEW, mutual, reliable=True),
        "gov-transport-certificate": _over_tls(_OLD, _ENDORSING_TO, derived=True),
        "gov-transport-certificate-nocancel": replace(
            _over_tls(_OLD, _ENDORSING_TO), cancels_contexts=False
        ),
        "trust-default": replace(
            _plain(None), application=trust, conversation=_NEW.conversation, trust=_NEW.trust
        ),
        "trust-symmetric": _conversing(_NEW, trust, encrypts=False),
    }
    for family, binding in ((_OLD, "wshttp"), (_NEW, "ws2007http")):
        for credential, bootstrap in _DIRECT.items():
            usual = _conversing(family, bootstrap)
            found[f"wcf-{binding}-{credential}-direct"] = usual
            found[f"wcf-{binding}-{credential}-direct-reliable"] = _wcf(
                _conversing(family, bootstrap, reliable=True), family
            )
    for family, infix in ((_OLD, ""), (_NEW, "2007-")):
        for credential, token in (("username", _OVER_TLS), ("certificate", _ENDORSING_TO)):
            usual = _over_tls(family, token)
            found[f"wcf-transport-message-{infix}{credential}"] = usual
            found[f"wcf-transport-message-{infix}{credential}-reliable"] = _wcf(
                replace(usual, reliability=family.reliability), family
            )
    return found


def _mutual(suite: str, *tokens: SupportingToken) -> ProtectionPolicy:
    """Two certificates: the client's travels, the service's is known."""
    return ProtectionPolicy(
        "x509",
        SUITES[suite],
        binding="asymmetric",
        supporting=tokens,
        parts=_parts(None, encrypts=True),
        derived_keys=False,
    )


def _symmetric(
    suite: str, *tokens: SupportingToken, derived: bool = True, confirms: bool = False
) -> ProtectionPolicy:
    """A key sealed for the service's certificate."""
    return ProtectionPolicy(
        "x509",
        SUITES[suite],
        supporting=tokens,
        parts=_parts(None, encrypts=True),
        derived_keys=derived,
        signature_confirmation=confirms,
    )


def _parts(reliability: Reliability | None, *, encrypts: bool) -> Parts:
    headers = _ADDRESSING
    if reliability is not None:
        names = ["Sequence", "SequenceAcknowledgement", "AckRequested", "SequenceFault"]
        names += ["UsesSequenceSTR"] if reliability.can_close else []
        headers |= {HeaderPart(reliability.namespace, name) for name in names}
        headers |= {HeaderPart(WSMC, "MessagePending")} if reliability.can_close else set()
    return Parts(signed_headers=headers, encrypted_body=encrypts)


def _plain(reliability: Reliability | None) -> EndpointPolicy:
    in_order = reliability is not None
    return EndpointPolicy(
        SOAP_1_2, WSA_1_0, reliability, None, None, None, None, delivery=Delivery(in_order=in_order)
    )


def _conversing(
    family: Family, bootstrap: ProtectionPolicy, *, reliable: bool = False, encrypts: bool = True
) -> EndpointPolicy:
    """Security contexts that protect the messages themselves."""
    reliability = family.reliability if reliable else None
    parts = _parts(reliability, encrypts=encrypts)
    policy = _with_contexts(family, bootstrap, ProtectionPolicy("context", bootstrap.suite, parts=parts))
    policy = replace(policy, reliability=reliability)
    return replace(policy, uses_sequence_str=False) if reliable and family is _NEW else policy


def _over_tls(family: Family, token: SupportingToken, *, derived: bool = False) -> EndpointPolicy:
    """Contexts that sign the Timestamp, over TLS."""
    context = SupportingToken("context", endorsing=True, derived_keys=derived)
    return replace(_with_contexts(family, _transport(token), _transport(context)), tls=True)


def _transport(token: SupportingToken) -> ProtectionPolicy:
    return ProtectionPolicy(
        "transport",
        SUITES["Basic256"],
        binding="transport",
        supporting=(token,),
        parts=NO_PARTS,
        encrypt_signature=False,
        derived_keys=False,
    )


def _with_contexts(
    family: Family, bootstrap: ProtectionPolicy, application: ProtectionPolicy
) -> EndpointPolicy:
    return EndpointPolicy(
        SOAP_1_2,
        WSA_1_0,
        None,
        family.conversation,
        family.trust,
        bootstrap,
        application,
        require_client_entropy=True,
        require_server_entropy=True,
    )


def _wcf(policy: EndpointPolicy, family: Family) -> EndpointPolicy:
    """With reliableSession."""
    delivery = _WCF_DELIVERY[family.name]
    return _naming(policy, delivery) if family is _NEW else replace(policy, delivery=delivery)


def _naming(policy: EndpointPolicy, delivery: Delivery = NOTHING_SAID) -> EndpointPolicy:
    """CreateSequence names its token, and says so in a header (SequenceSTR)."""
    return replace(policy, delivery=delivery, uses_sequence_str=True, sequence_token="require")


_DIRECT: Final = {
    "none": _symmetric("Basic256", confirms=True),
    "username": _symmetric("Basic256", _USERNAME),
    "certificate": _symmetric("Basic256", _ENDORSING, confirms=True),
}
"""By WCF's clientCredentialType, without negotiation."""


def _waiting() -> dict[str, str]:
    """Sets by name, and what each waits for."""
    found = dict.fromkeys(
        ("rsp", "rsp-durable", "rsp-username", "rsp-modern", "reliable", "reliable-durable"), _MAKE_CONNECTION
    )
    found["websphere-sct-rm"] = _MAKE_CONNECTION
    names = ("username-tls", "certificate")
    found |= dict.fromkeys((f"sts-{name}" for name in names), _ISSUED)
    profiles = ("adfs-usernamemixed", "vsphere-hok", "oio-idws", "ch-epr-xua")
    found |= dict.fromkeys(profiles, _ISSUED)
    for binding in ("wshttp", "ws2007http"):
        for tail in ("", "-reliable"):
            for credential in ("none", "username", "certificate", "windows"):
                found[f"wcf-{binding}-{credential}{tail}"] = _NEGOTIATION
            found[f"wcf-{binding}-windows{tail}"] = "SPNEGO"
            found[f"wcf-{binding}-windows-direct{tail}"] = _KERBEROS
    return found


_WAITING: Final = _waiting()
