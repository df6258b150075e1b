from dataclasses import replace

import castile

base = castile.EndpointPolicy.of("1.3", bootstrap="mutual", uses_sequence_str=False)
policy = replace(
    base,
    application=replace(base.application, encrypt_signature=False),
    bootstrap=replace(base.bootstrap, encrypt_signature=False, reference="issuer-serial"),
)
with castile.Client(
    "http://127.0.0.1:8000/echo",
    policy=policy,
    credentials=castile.Certificate("alice.p12", "password"),
    service_certificate="bob.cer",
    store="client.db",
) as client:
    body = b'<echo xmlns="urn:castile:echo"><text>hello</text></echo>'
    print(client.call_raw("urn:castile:echo/echo", body).decode())
