from dataclasses import replace

import castile

base = castile.EndpointPolicy.of("1.3", bootstrap="username")
with castile.Client(
    "http://127.0.0.1:8000/echo",
    policy=replace(base, application=replace(base.application, encrypt_signature=False)),
    credentials=castile.Username("ada", "password"),
    service_certificate="bob.cer",
    store="client.db",
) as client:
    body = b'<echo xmlns="urn:castile:echo"><text>hello</text></echo>'
    print(client.call_raw("urn:castile:echo/echo", body).decode())
