import castile

policy = castile.EndpointPolicy.of("1.3", secure=False)
with castile.Client("bank.wsdl", policy=policy, store="outbox.db") as client:
    for text in ("one", "two", "three"):
        client.send("Tell", text=text)
    client.sequence.wait_until_acknowledged(timeout=30)
