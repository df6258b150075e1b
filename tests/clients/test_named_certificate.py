"""The certificate that a WSDL names as the service's."""

from __future__ import annotations

import pytest

from castile.errors import PolicyError
from castile.reading import check_named
from tests.security.authority import identity
from tests.security.made import NOW


@pytest.mark.row("PO-51", "MS-11")
def test_trust_stands_above_what_a_wsdl_names() -> None:
    service, other = identity("service").certificate, identity("client").certificate
    check_named(service, (), NOW.utc)
    check_named(service, (service, other), NOW.utc)
    with pytest.raises(PolicyError, match="service_certificate="):
        check_named(service, (other,), NOW.utc)
