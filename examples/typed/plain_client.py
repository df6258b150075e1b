from decimal import Decimal

import castile

with castile.Client("http://127.0.0.1:8000/?wsdl") as client:
    client.send("Tell", text="hello")
    print(client.call("Transfer", debtor="AB1234", creditor="CD5678", amount=Decimal("9.50")))
    try:
        client.call("Transfer", debtor="AB1234", creditor="CD5678", amount=5000)
    except castile.FaultReceived as fault:
        print(fault.name, fault.detail.limit)
