"""Which alternative is taken, what is told of the others, and how strict reading is."""

from __future__ import annotations

import re
from typing import Final

import pytest

from castile.errors import PolicyError
from castile.policy.parse import needs, read
from castile.versions import WSRM_1_0, WSRM_1_1
from tests.policy.asked import ALONE, CONVERSING, MUTUAL, OVER_TLS, SEALED, filled, reading
from tests.policy.made import port

RMP10: Final = '<RMAssertion xmlns="http://schemas.xmlsoap.org/ws/2005/02/rm/policy"/>'
RMP: Final = '<RMAssertion xmlns="http://docs.oasis-open.org/ws-rx/wsrmp/200702"/>'
MTOM: Final = (
    "<OptimizedMimeSerialization {}"
    'xmlns="http://schemas.xmlsoap.org/ws/2004/09/policy/optimizedmimeserialization"/>'
)
VENDOR: Final = '<Wish xmlns="urn:vendor" {}/>'
PLAIN: Final = filled(ALONE)
RELIABLE: Final = filled(ALONE, top=RMP)
SEALED_256: Final = filled(SEALED)
SEALED_128: Final = SEALED_256.replace("Basic256", "Basic128")
SEALED_GCM: Final = SEALED_256.replace(
    "<sp:Basic256/>", '<Basic256GCM xmlns="http://cxf.apache.org/custom/security-policy"/>'
)
ENCRYPTED: Final = filled(SEALED, top="<sp:EncryptedParts><sp:Body/></sp:EncryptedParts>")
SECURE: Final = filled(CONVERSING)
COMPOSITE: Final = filled(CONVERSING, top=RMP)
SAFEST: Final = (
    PLAIN,
    filled(ALONE, top=RMP10),
    RELIABLE,
    SEALED_128,
    SEALED_256,
    SEALED_GCM,
    ENCRYPTED,
    SECURE,
    filled(CONVERSING, top=RMP10),
    COMPOSITE,
)
"""Each safer than the one before."""


def choice(*alternatives: str) -> str:
    return f"<wsp:Policy><wsp:ExactlyOne>{''.join(alternatives)}</wsp:ExactlyOne></wsp:Policy>"


@pytest.mark.row("PO-06")
@pytest.mark.parametrize("place", range(1, len(SAFEST)))
def test_the_safest_is_taken(place: int) -> None:
    better, worse = SAFEST[place], SAFEST[place - 1]
    assert reading(choice(worse, better)).alternative == 2
    assert reading(choice(better, worse)).alternative == 1


@pytest.mark.row("PO-06")
def test_the_first_of_equals_is_taken() -> None:
    other = SEALED_256.replace("<sp:SignedParts>", "<sp:SignedParts><sp:Header Namespace='urn:h'/>")
    assert reading(choice(SEALED_256, other)).alternative == 1


@pytest.mark.row("PO-06")
def test_one_may_be_picked_by_number() -> None:
    made = port(binding=choice(PLAIN, RELIABLE, SEALED_256))
    assert read(made).alternative == 3
    assert read(made, alternative=2).policy.reliability is WSRM_1_1
    for number in (0, 4, -1):
        with pytest.raises(PolicyError, match=rf"alternative={number}: the policy has 3"):
            read(made, alternative=number)


@pytest.mark.row("PO-06")
def test_credentials_decide() -> None:
    hidden = "<sp:EncryptedParts><sp:Body/></sp:EncryptedParts>"
    made = port(binding=choice(filled(MUTUAL, top=hidden), ENCRYPTED, filled(OVER_TLS)))
    assert read(made).alternative == 1
    assert read(made, {"service-certificate"}).alternative == 2
    found = read(made, ())
    assert found.alternative == 3
    assert [number for number, _ in found.refused] == [1, 2]
    assert (
        "asks for a certificate and key of the client (credentials=castile.Certificate(...))"
        in (found.refused[0][1])
    )
    with pytest.raises(PolicyError, match=r"port P asks for the service's certificate \(service_cert"):
        read(port(binding=SEALED_256), ())


@pytest.mark.row("CL-43")
def test_what_a_policy_needs() -> None:
    user = "<sp:SupportingTokens><wsp:Policy><sp:UsernameToken/></wsp:Policy></sp:SupportingTokens>"
    client = {"token": '<sp:HttpsToken RequireClientCertificate="true"/>'}
    basic = {"top": '<BasicAuthentication xmlns="http://schemas.microsoft.com/ws/06/2004/policy/http"/>'}
    rows = {
        PLAIN: set(),
        SEALED_256: {"service-certificate"},
        filled(SEALED, top=user): {"service-certificate", "username"},
        filled(MUTUAL): {"service-certificate", "certificate"},
        filled(OVER_TLS): set(),
        filled(OVER_TLS, **client): {"tls-certificate"},
        filled(OVER_TLS, **basic): {"username"},
        COMPOSITE: {"service-certificate"},
    }
    for text, wanted in rows.items():
        assert needs(reading(text).policy) == wanted


@pytest.mark.row("PO-08")
def test_an_optional_assertion_that_cannot_be_honoured_is_left_out() -> None:
    optional = filled(SEALED, top=MTOM.format('wsp:Optional="true" '))
    found = reading(optional)
    assert found.policy == reading(SEALED_256).policy
    ((number, reason),) = found.refused
    assert (number, "wants MTOM messages" in reason) == (1, True)


@pytest.mark.row("PO-08")
@pytest.mark.parametrize("strict", [False, True])
def test_ignorable_and_ignored_assertions_are_passed_over(strict: bool) -> None:
    ignorable = port(binding=filled(SEALED, top=MTOM.format('wsp:Ignorable="true" ')))
    found = read(ignorable, strict=strict)
    assert [(each.level, each.code) for each in found.findings] == [("info", "L-14")]
    wanted = port(binding=filled(SEALED, top=MTOM.format("") + VENDOR.format("")))
    names = ["mtom:OptimizedMimeSerialization", "{urn:vendor}Wish"]
    found = read(wanted, strict=strict, ignore=names)
    assert [(each.level, each.code) for each in found.findings] == [("info", "L-14")] * 2
    with pytest.raises(PolicyError, match=r"ignore_assertions=\('mtom:OptimizedMimeSerialization',\)"):
        read(wanted, strict=strict)


@pytest.mark.row("PO-08", "L-14")
def test_a_vendors_assertion_is_a_warning_or_refused() -> None:
    made = port(binding=filled(SEALED, top=VENDOR.format("")))
    (finding,) = read(made).findings
    assert (finding.level, finding.code) == ("warning", "L-14")
    assert re.match(r"warning: a\.wsdl:\d+: \{urn:vendor\}Wish of binding B is of", str(finding))
    with pytest.raises(PolicyError, match=r"a\.wsdl:\d+: \{urn:vendor\}Wish of .*ignore_assertions="):
        read(made, strict=True)


@pytest.mark.row("PO-08")
def test_of_two_alternatives_the_better_understood_is_taken() -> None:
    assert reading(filled(SEALED, top=VENDOR.format('wsp:Optional="true"'))).findings == ()


TOLERATED: Final = (
    '<KeyStore xmlns="http://schemas.sun.com/2006/03/wss/server" storepass="changeit"/>',
    '<SCConfiguration xmlns="http://schemas.sun.com/ws/2006/05/sc/server"/>',
    '<RampartConfig xmlns="http://ws.apache.org/rampart/policy"><user>bob</user></RampartConfig>',
    '<RetransmissionConfig xmlns="http://java.sun.com/xml/ns/metro/ws-rx/wsrmp/200702"/>',
    '<Utf816FFFECharacterEncoding xmlns="http://schemas.xmlsoap.org/ws/2004/09/policy/encoding"/>',
    '<Conformant xmlns="http://ws-i.org/profiles/rsp/1.0/"/>',
)


@pytest.mark.row("PO-34", "PO-47", "PO-48", "PO-49", "MS-78")
@pytest.mark.parametrize("text", TOLERATED)
def test_what_is_the_other_sides_business_is_ignored(text: str) -> None:
    found = read(port(binding=filled(SEALED, top=text)), strict=True)
    assert found.policy == reading(SEALED_256).policy
    assert [each.level for each in found.findings] == ["info"]
    assert "changeit" not in found.findings[0].text


@pytest.mark.row("PO-10")
def test_every_refusal_is_listed_where_none_will_do() -> None:
    text = choice(filled(SEALED, top=MTOM.format("")), filled(OVER_TLS, token="<sp:KerberosToken/>"))
    with pytest.raises(PolicyError) as caught:
        reading(text)
    first, one, two = str(caught.value).splitlines()
    assert first == "port P: no alternative of its policy can be used:"
    assert re.match(r"  alternative 1: a\.wsdl:\d+: mtom:Opt.* wants MTOM messages", one)
    assert re.match(r"  alternative 2: a\.wsdl:\d+: sp:KerberosToken .* asks for a Kerberos ticket", two)
    with pytest.raises(PolicyError, match="port P: its policy has no alternative"):
        reading("<wsp:Policy><wsp:ExactlyOne/></wsp:Policy>")


UNSOUND: Final = {
    "no suite": (filled(SEALED).replace("<sp:Basic256/>", ""), "names no suite"),
    "two suites": (filled(SEALED, suite="<sp:Basic128/>"), "stands beside another sp:Basic"),
    "two bindings": (
        choice(f"<wsp:All>{SEALED_256}{filled(OVER_TLS)}</wsp:All>"),
        "stands beside another sp:SymmetricBinding",
    ),
    "no token": (filled(OVER_TLS, token=""), "names no token"),
    "a password protects": (
        filled(SEALED).replace("sp:X509Token", "sp:UsernameToken").replace("<sp:WssX509V3Token10/>", ""),
        "has no one ProtectionToken that castile can use",
    ),
    "no bootstrap": (
        re.sub(r"<sp:BootstrapPolicy>.*</sp:BootstrapPolicy>", "", SECURE, flags=re.DOTALL),
        "has no BootstrapPolicy",
    ),
    "a bootstrap by a context": (
        filled(CONVERSING, bootstrap=SECURE),
        "names no token to get a context by",
    ),
    "parts alone": (
        "<wsp:Policy><sp:SignedParts><sp:Body/></sp:SignedParts></wsp:Policy>",
        "stands without a security binding",
    ),
    "a header without namespace": (
        filled(SEALED, signed='<sp:Header Name="A"/>'),
        "names no Namespace",
    ),
    "two users": (
        filled(
            SEALED,
            top="<sp:SupportingTokens><wsp:Policy><sp:UsernameToken/></wsp:Policy></sp:SupportingTokens>"
            "<sp:SignedSupportingTokens><wsp:Policy><sp:UsernameToken/></wsp:Policy>"
            "</sp:SignedSupportingTokens>",
        ),
        r"a\.wsdl:\d+: sp:SymmetricBinding .* can't be honoured: two supporting tokens of one kind",
    ),
    "unknown content": (filled(SEALED, token="<sp:RequireMagic/>"), "sp:RequireMagic .* isn't understood"),
    "content of a flag": (
        filled(SEALED, binding="<sp:IncludeTimestamp><sp:Sometimes/></sp:IncludeTimestamp>"),
        "sp:Sometimes .* isn't understood",
    ),
    "another issuer": (
        filled(CONVERSING, token='<sp:Issuer><A xmlns="urn:a"/></sp:Issuer>'),
        "sends for contexts to another address",
    ),
    "no number": (
        filled(ALONE, top=RMP10.replace("/>", '><InactivityTimeout Milliseconds="soon"/></RMAssertion>')),
        "says 'soon' for a number of milliseconds",
    ),
}


@pytest.mark.row("PO-08", "PO-10")
@pytest.mark.parametrize("name", UNSOUND)
def test_what_is_unsound_is_refused(name: str) -> None:
    text, reason = UNSOUND[name]
    with pytest.raises(PolicyError, match=reason):
        reading(text)


@pytest.mark.row("PO-29")
def test_a_token_without_any_binding() -> None:
    """The plain UsernameToken policy: like the transport binding, without TLS."""
    token = "<sp:{0}SupportingTokens><wsp:Policy><sp:UsernameToken/></wsp:Policy></sp:{0}SupportingTokens>"
    found = reading(filled(ALONE, top=token.format(""))).policy
    assert found.application is not None
    assert (found.application.binding, found.application.timestamp, found.tls) == ("transport", False, False)
    assert needs(found) == {"username"}
    with pytest.raises(PolicyError, match="stands without a security binding"):
        reading(filled(ALONE, top=token.format("Signed")))


@pytest.mark.row("PO-30")
def test_whose_token_it_must_be_is_a_warning_for_a_client() -> None:
    issuer = "<sp:IssuerName>urn:ca</sp:IssuerName>"
    made = port(binding=filled(SEALED).replace("<wsp:Policy><sp:WssX509", f"{issuer}<wsp:Policy><sp:WssX509"))
    assert [each.level for each in read(made).findings] == ["warning"]
    with pytest.raises(PolicyError, match=r"sp:IssuerName .* isn't checked"):
        read(made, strict=True)


@pytest.mark.row("L-02", "PO-04")
def test_messages_and_their_endpoint() -> None:
    """WCF's layout, that of `peers`, and one message unlike the others."""
    bare = re.sub(r"<sp:SignedParts>.*</sp:SignedParts>", "", SEALED_256, flags=re.DOTALL)
    signed = "<wsp:Policy><sp:SignedParts><sp:Body/></sp:SignedParts></wsp:Policy>"
    hidden = "<wsp:Policy><sp:EncryptedParts><sp:Body/></sp:EncryptedParts></wsp:Policy>"
    both = signed.replace("</wsp:Policy>", hidden.removeprefix("<wsp:Policy>"))
    everywhere = ("bindingInput", "bindingOutput", "bindingTell")
    wcf = reading(bare, **dict.fromkeys(everywhere, both))
    usual = reading(SEALED_256, **dict.fromkeys(everywhere, hidden))
    assert [each.code for each in wcf.findings] == ["L-02"]
    assert usual.findings == ()
    for found in (wcf.policy, usual.policy):
        assert found.application is not None
        assert found.application.parts.encrypted_body
        assert (found.messages, found.encrypt_lifecycle) == ((), False)
    one = reading(SEALED_256, bindingInput=hidden).policy
    assert one.application is not None
    assert not one.application.parts.encrypts  # and so for lifecycle messages
    (row,) = one.messages
    assert (row.action, row.direction) == ("urn:t:PT:AskRequest", "request")
    assert row.protection is not None
    assert row.protection.parts.encrypted_body
    assert one.protection("urn:tell", "request") == one.application


@pytest.mark.row("PO-04", "PO-08")
def test_what_a_message_cannot_have_of_its_own() -> None:
    """A context that begins at one message; an alternative that goes with none of the endpoint's."""
    over_tls = filled(OVER_TLS)
    session = re.search(r"<sp:SecureConversationToken.*</sp:SecureConversationToken>", SECURE, re.DOTALL)
    assert session is not None
    endorsing = f"<sp:EndorsingSupportingTokens><wsp:Policy>{session[0]}</wsp:Policy>"
    context = f"<wsp:Policy>{endorsing}</sp:EndorsingSupportingTokens></wsp:Policy>"
    with pytest.raises(PolicyError, match=r"sp:SecureConversationToken .* stands at a message"):
        reading(over_tls, bindingInput=context)
    with pytest.raises(PolicyError, match="what the request of Ask asks for can't be met"):
        reading(over_tls, bindingInput="<wsp:Policy><wsp:ExactlyOne/></wsp:Policy>")
    supporting = context.replace(session[0], "<sp:HttpsToken/>")
    with pytest.raises(PolicyError, match=r"sp:HttpsToken .* can't be a supporting token"):
        reading(over_tls, bindingInput=supporting)


@pytest.mark.row("PO-20")
def test_addressing_that_one_message_asks_for_is_for_all() -> None:
    found = reading(PLAIN, bindingOutput="<wsp:Policy><wsam:Addressing/></wsp:Policy>").policy
    assert found.addressed


@pytest.mark.row("CO-09")
def test_what_is_encrypted_at_the_endpoint_is_so_in_lifecycle_messages() -> None:
    assert reading(ENCRYPTED).policy.encrypt_lifecycle
    assert not reading(SEALED_256).policy.encrypt_lifecycle


@pytest.mark.row("MS-51")
def test_parts_that_nobody_names_are_signed_and_in_clear_but_a_bootstraps_body_is_hidden() -> None:
    bare = re.sub(r"<sp:SignedParts>.*?</sp:SignedParts>", "", COMPOSITE, flags=re.DOTALL)
    found = reading(bare).policy
    assert found.application is not None
    assert found.bootstrap is not None
    for protection in (found.application, found.bootstrap):
        assert protection.parts.signed_body
        assert {each.name for each in protection.parts.signed_headers} == {""}
    assert not found.application.parts.encrypts
    assert found.bootstrap.parts.encrypted_body


def test_editions_of_reliability() -> None:
    assert reading(choice(filled(ALONE, top=RMP10), PLAIN)).policy.reliability is WSRM_1_0
