import zeep

import castile.zeep

transport = castile.zeep.Transport(
    credentials=castile.Username("ada", "secret"), service_certificate="service.crt", store="zeep.db",
)
client = zeep.Client("http://127.0.0.1:8000/?wsdl", transport=transport)
print(client.service.Transfer(debtor="AB1234", creditor="CD5678", amount="9.50"))
