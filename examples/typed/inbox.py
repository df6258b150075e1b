"""A reliable one-way inbox: what a client was told is sent arrives, once and in order."""

import castile

service = castile.Service(
    "bank.wsdl", policy=castile.EndpointPolicy.of("1.3", secure=False), store="inbox.db", partial=True
)


@service.operation
def Tell(text: str, ctx: castile.RequestContext) -> None:
    print(ctx.number, text, flush=True)


app = service.asgi()
