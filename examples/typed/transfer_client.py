import castile

with castile.Client(
    "bank.wsdl",
    policy=castile.EndpointPolicy.of("1.3"),
    credentials=castile.Username("ada", "secret"),
    service_certificate="service.crt",
    store="client.db",
) as client:
    transfer = {"debtor": "AB1234", "creditor": "CD5678", "amount": "9.50"}
    print(client.call("Transfer", transfer, key="invoice-7"))
    print(client.call("Transfer", transfer, key="invoice-7"))  # the same call: the same answer
