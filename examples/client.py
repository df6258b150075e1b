import castile

with castile.Client(
    "http://127.0.0.1:8000/", policy=castile.EndpointPolicy.of("1.3"), store="client.db",
    credentials=castile.Username("ada", "secret"), service_certificate="service.crt",
) as client:
    body = b'<Transfer xmlns="urn:bank">100</Transfer>'
    reply = client.call_raw("urn:bank/Transfer", body)
    print(reply.decode())
