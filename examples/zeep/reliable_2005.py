"""zeep #838: "Only WS-ReliableMessaging February 2005 messages are processed by this endpoint"."""

import zeep

import castile.zeep

with castile.zeep.Transport(
    credentials=castile.Username("ada", "secret"), service_certificate="service.crt", store="transfers.db"
) as transport:
    client = zeep.Client("http://127.0.0.1:8000/?wsdl", transport=transport)
    with castile.zeep.key("invoice-7"):  # run again after a crash: the same answer, no second transfer
        print(client.service.Transfer(debtor="AB1234", creditor="CD5678", amount="9.50"))
