"""A transfer whose effect, reply and mark "done" are one commit: whatever crashes, it happens once."""

from decimal import Decimal

import castile

service = castile.Service(
    "bank.wsdl",
    policy=castile.EndpointPolicy.of("1.3"),
    credentials=castile.Certificate("service.pem"),
    users={"ada": "secret"},
    store="bank.db",
    partial=True,
)


@service.operation(transactional=True)
def Transfer(debtor: str, creditor: str, amount: Decimal, ctx: castile.RequestContext) -> str:
    ctx.transaction.execute("CREATE TABLE IF NOT EXISTS entries (account TEXT, amount TEXT)")
    for account, change in ((debtor, -amount), (creditor, amount)):
        ctx.transaction.execute("INSERT INTO entries VALUES (?, ?)", (account, str(change)))
    return f"{ctx.principal}: {amount}"


app = service.asgi()
