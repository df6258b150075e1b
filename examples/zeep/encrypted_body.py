"""zeep #1230: the Body signed by our certificate and encrypted for the service's."""

import zeep

import castile.zeep

with castile.zeep.Transport(
    credentials=castile.Certificate("ada.pem"), service_certificate="service.crt"
) as transport:
    client = zeep.Client("http://127.0.0.1:8000/?wsdl", transport=transport)
    print(client.service.Transfer(debtor="AB1234", creditor="CD5678", amount="9.50"))
    sent = transport.preview("Transfer", debtor="AB1234", creditor="CD5678", amount="9.50")
    print("readable on the wire:", b"AB1234" in sent)
