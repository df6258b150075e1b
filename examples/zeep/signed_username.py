"""zeep #1246: UsernameToken, Timestamp and addressing headers signed together with the Body."""

import zeep

import castile.zeep

with castile.zeep.Transport(
    credentials=[castile.Certificate("ada.pem"), castile.Username("ada", "secret")],
    service_certificate="service.crt",
) as transport:
    client = zeep.Client("http://127.0.0.1:8000/?wsdl", transport=transport)
    print(client.service.Transfer(debtor="AB1234", creditor="CD5678", amount="9.50"))
