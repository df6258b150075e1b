"""Whose certificates are taken, and when (features MS-11)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.x509.oid import ExtendedKeyUsageOID

from castile.errors import WSSE, SecurityFailure
from castile.security.anchors import Anchors
from tests.security.authority import START, Issued, usage

pytestmark = pytest.mark.row("MS-11")
NOON = (START + timedelta(days=100)).timestamp()
ROOT = Issued("root", authority=True)
MIDDLE = Issued("middle", "root", authority=True)
LEAF = Issued("leaf", "root")
DEEP = Issued("leaf", "middle")


def refused(
    anchors: Anchors, leaf: x509.Certificate, path: tuple[x509.Certificate, ...] = (), utc: float = NOON
) -> str:
    with pytest.raises(SecurityFailure) as failure:
        anchors.check(leaf, path, utc)
    assert failure.value.fault.subcode == (WSSE, "InvalidSecurityToken")
    return str(failure.value)


def test_a_pinned_certificate_is_taken_and_no_other() -> None:
    pinned, other = Issued("leaf").make(), Issued("leaf", key="other").make()
    Anchors.of([pinned]).check(pinned, (), NOON)
    assert "nobody who is trusted" in refused(Anchors.of([pinned]), other)
    assert "nobody who is trusted" in refused(Anchors(), pinned)
    again = Issued("leaf").make()  # the same name and key under another serial number
    assert "nobody who is trusted" in refused(Anchors.of([pinned]), again)


@pytest.mark.parametrize("day", [-1, 3651])
def test_a_certificate_counts_at_its_time_only(day: int) -> None:
    utc = (START + timedelta(days=day)).timestamp()
    pinned = Issued("leaf").make()
    assert "not valid at this time" in refused(Anchors.of([pinned]), pinned, utc=utc)
    assert "not valid at this time" in refused(Anchors.of([ROOT.make()]), LEAF.make(), utc=utc)
    # Its issuer's time counts too.
    old = Anchors.of([replace(ROOT, days=(0, 50)).make()])
    assert "nobody who is trusted" in refused(old, LEAF.make())


def test_an_issuer_vouches_for_what_it_issued() -> None:
    anchors = Anchors.of([ROOT.make()])
    anchors.check(LEAF.make(), (), NOON)
    assert "nobody" in refused(anchors, Issued("leaf", "root", signed_by="stranger").make())
    assert "nobody" in refused(anchors, Issued("leaf", "elsewhere").make())
    assert "nobody" in refused(anchors, DEEP.make())


def test_a_path_through_issuers_that_came_with_the_message() -> None:
    anchors = Anchors.of([ROOT.make()])
    anchors.check(DEEP.make(), (MIDDLE.make(),), NOON)
    for middle in (
        replace(MIDDLE, authority=None),
        replace(MIDDLE, authority=False),
        replace(MIDDLE, days=(0, 50)),
        replace(MIDDLE, signed_by="stranger"),
        replace(MIDDLE, extensions=((usage("digital_signature"), True),)),
        replace(
            MIDDLE,
            extensions=((x509.NameConstraints([x509.DNSName("a.test")], None), True),),
        ),
        replace(
            MIDDLE, extensions=((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x"), True),)
        ),
        replace(MIDDLE, key="other"),
    ):
        assert "nobody who is trusted" in refused(anchors, DEEP.make(), (middle.make(),))


def test_a_leaf_is_no_issuer_and_neither_is_a_pinned_certificate() -> None:
    """Any certificate of a trusted issuer could else make others."""
    anchors = Anchors.of([ROOT.make()])
    forged = Issued("boss", "leaf").make()
    assert "nobody" in refused(anchors, forged, (LEAF.make(),))
    assert "nobody" in refused(Anchors.of([Issued("leaf").make()]), forged)


def test_the_length_of_a_path_is_bounded() -> None:
    short = Anchors.of([replace(ROOT, path_length=0).make()])
    short.check(LEAF.make(), (), NOON)
    assert "nobody" in refused(short, DEEP.make(), (MIDDLE.make(),))
    names = ["root", *[f"m{n}" for n in range(5)]]
    chain = [Issued(name, above, authority=True).make() for above, name in itertools.pairwise(names)]
    anchors = Anchors.of([ROOT.make()])
    anchors.check(Issued("leaf", "m3").make(), tuple(chain), NOON)
    assert "nobody" in refused(anchors, Issued("leaf", "m4").make(), tuple(chain))


def test_issuers_in_a_circle_end() -> None:
    one = Issued("one", "two", authority=True).make()
    two = Issued("two", "one", authority=True).make()
    assert "nobody" in refused(Anchors.of([ROOT.make()]), Issued("leaf", "one").make(), (one, two))


@pytest.mark.parametrize(
    ("extension", "critical"),
    [
        (usage("key_encipherment"), True),
        (usage("key_cert_sign"), False),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x"), True),
    ],
)
def test_what_an_issued_certificate_is_for(extension: x509.ExtensionType, critical: bool) -> None:
    leaf = replace(LEAF, extensions=((extension, critical),)).make()
    assert "not for signatures" in refused(Anchors.of([ROOT.make()]), leaf)
    Anchors.of([leaf]).check(leaf, (), NOON)  # a pin is a decision


@pytest.mark.parametrize(
    "extension",
    [
        usage("digital_signature"),
        usage("content_commitment"),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
        x509.SubjectAlternativeName([x509.DNSName("a.test")]),
    ],
)
def test_certificates_for_signatures(extension: x509.ExtensionType) -> None:
    leaf = replace(LEAF, extensions=((extension, True),)).make()
    Anchors.of([ROOT.make()]).check(leaf, (), NOON)


def test_weak_digests_in_a_chain() -> None:
    weak = replace(LEAF, algorithm=SHA1)
    try:
        made = weak.make()
    except Exception as error:
        pytest.skip(f"this libcrypto signs nothing with SHA-1: {error}")
    assert "nobody" in refused(Anchors.of([ROOT.make()]), made)
    Anchors.of([made]).check(made, (), NOON)


def test_short_keys_in_a_chain() -> None:
    root = Issued("short", authority=True, bits=1024).make()
    leaf = Issued("leaf", "short", bits=1024).make()
    assert "not for signatures" in refused(Anchors.of([root]), leaf)


def test_a_subject_constraint() -> None:
    """A client's issuer vouches for its service under its own name only."""
    leaf = LEAF.make()
    Anchors.of([ROOT.make()], leaf.subject).check(leaf, (), NOON)
    anchors = Anchors.of([ROOT.make()], x509.Name.from_rfc4514_string("CN=service,O=Test"))
    assert "another one" in refused(anchors, leaf)
    Anchors.of([ROOT.make(), leaf], anchors.subject).check(leaf, (), NOON)
