"""zeep #329, #914: WCF's wsHttpBinding, a security context for the session, a user name."""

import zeep

import castile.zeep

with castile.zeep.Transport(
    credentials=castile.Username("ada", "secret"), service_certificate="service.crt"
) as transport:
    client = zeep.Client("http://127.0.0.1:8000/?wsdl", transport=transport)
    print(client.service.Transfer(debtor="AB1234", creditor="CD5678", amount="9.50"))
