import castile

with castile.Client(
    "http://127.0.0.1:8000/?wsdl", credentials=castile.Username("ada", "secret"),
    service_certificate="service.crt", store="client.db",
) as client:
    print(client.call("Transfer", debtor="AB1234", creditor="CD5678", amount="9.50", key="invoice-7"))
