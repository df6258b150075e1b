"""A typed service for everybody's clients: `uvicorn plain:app`, then ask for /?wsdl."""

from decimal import Decimal

import castile

service = castile.Service("bank.wsdl")


@service.operation
def Transfer(debtor: str, creditor: str, amount: Decimal) -> str:
    if amount > 1000:
        raise castile.Fault("Sender", "That is too much.", {"Refused": {"limit": 1000}})
    return f"{debtor} gave {creditor} {amount}"


@service.operation
async def Tell(text: str) -> None:
    print(text, flush=True)


app = service.asgi()
