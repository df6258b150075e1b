import castile

service = castile.Service(
    "bank.wsdl", policy="wcf-ws2007http-username-direct-reliable", store="service.db",
    credentials=castile.Certificate("service.pem"), users={"ada": "secret"}, partial=True,
)
@service.operation
def Transfer(debtor, creditor, amount):
    return f"{debtor} gave {creditor} {amount}"
app = service.asgi()
