import castile

service = castile.Service(
    policy=castile.EndpointPolicy.of("1.3"), credentials=castile.Certificate("service.pem"),
    users={"ada": "secret"}, store="service.db",
)
@service.raw("urn:bank/Transfer")
def transfer(body: bytes) -> bytes:
    return body.replace(b"Transfer", b"Transferred")
app = service.asgi()
