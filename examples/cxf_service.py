from dataclasses import replace

from lxml import etree

import castile

base = castile.EndpointPolicy.of("1.3", bootstrap="mutual")
service = castile.Service(
    policy=replace(
        base,
        application=replace(base.application, encrypt_signature=False),
        bootstrap=replace(base.bootstrap, encrypt_signature=False, reference="issuer-serial"),
    ),
    credentials=castile.Certificate("bob.p12", "password"),
    trust="alice.cer",
    store="service.db",
)


@service.raw("urn:castile:echo/echo")
def echo(body: bytes) -> bytes:
    answer = etree.Element("{urn:castile:echo}echoResponse", nsmap={None: "urn:castile:echo"})
    result = etree.SubElement(answer, "{urn:castile:echo}result")
    result.text = etree.fromstring(body).findtext("{urn:castile:echo}text")
    return etree.tostring(answer)


app = service.asgi()
